"""Requests of the Open Inference Protocol for tests, written by hand: what a client puts on the wire."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pinn_inference.server.parsing import FIELDS

PUT_COLUMNS: Mapping[str, float] = {
    "spot": 100.0, "strike": 95.0, "maturity": 0.5, "rate": 0.03, "dividend": 0.01, "volatility": 0.22,
}  # fmt: skip
"""The option `tests.support.server.PUT`, without its type."""


def tensor(
    name: str, data: Sequence[Any], datatype: str = "FP64", shape: Sequence[int] | None = None
) -> dict[str, Any]:
    """An input whose elements are in the JSON."""
    return {"name": name, "shape": list(shape or [len(data)]), "datatype": datatype, "data": list(data)}


def json_request(rows: int = 1, *, option_type: Sequence[Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A valid JSON request of equal puts; `fields` are added at the top."""
    inputs = [tensor(name, [value] * rows) for name, value in PUT_COLUMNS.items()]
    inputs.append(tensor("option_type", option_type or ["put"] * rows, "BYTES"))
    return {"inputs": inputs, **fields}


def with_input(request: Mapping[str, Any], name: str, /, **changes: Any) -> dict[str, Any]:
    """The request with fields of one input changed; a value of `...` takes the field away."""
    inputs = []
    for item in request["inputs"]:
        merged = {**item, **changes} if item["name"] == name else item
        inputs.append({key: value for key, value in merged.items() if value is not ...})
    return {**request, "inputs": inputs}


def bytes_elements(words: Sequence[str | bytes]) -> bytes:
    """BYTES in binary: a length of four bytes before each element."""
    encoded = [word.encode() if isinstance(word, str) else word for word in words]
    return b"".join(len(word).to_bytes(4, "little") + word for word in encoded)


def binary_request(
    columns: Mapping[str, bytes], *, datatypes: Mapping[str, str] | None = None, shape: Sequence[int] = (1,), **top: Any
) -> tuple[bytes, str]:
    """Body and length header of a request whose tensors are all binary."""
    inputs = [
        {
            "name": name,
            "shape": list(shape),
            "datatype": (datatypes or {}).get(name, "BYTES" if name == "option_type" else "FP64"),
            "parameters": {"binary_data_size": len(raw)},
        }
        for name, raw in columns.items()
    ]
    header = json.dumps({"inputs": inputs, **top}).encode()
    return header + b"".join(columns.values()), str(len(header))


def random_columns(rows: int, seed: int) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """Columns of ordinary options, by name."""
    draw = np.random.default_rng(seed)
    ranges = {"spot": (50, 150), "strike": (50, 150), "maturity": (0.02, 3), "rate": (-0.01, 0.06),
              "dividend": (0, 0.05), "volatility": (0.05, 0.8)}  # fmt: skip
    return {field.name: draw.uniform(*ranges[field.name], rows) for field in FIELDS}
