"""What the protocol's extensions `statistics` and `model_configuration` tell of a model, for clients made for Triton.

https://github.com/triton-inference-server/server/tree/main/docs/protocol, extension_statistics.md and
extension_model_configuration.md. Counts are of this process, since its start.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from pinn_inference.server.timing import Timing

_TIMED: Final = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output")
KINDS: Final = (*_TIMED, "cache_hit", "cache_miss")
"""What the time of requests is told apart by. No answer comes from a cache of whole requests, as Triton has one."""
_TYPES: Final = {"BYTES": "TYPE_STRING"}


class ModelStatistics:
    """Requests for one model and where their time went."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._last = 0.0
        self._rows = 0
        self._counts = {"success": 0, "fail": 0}
        self._seconds = dict.fromkeys(_TIMED, 0.0)

    def succeeded(self, seconds: float, timing: Timing) -> None:
        """A request was answered, `seconds` after its head had come."""
        self._count("success", seconds)
        self._rows += timing.rows
        parts = {"compute_input": timing.parse, "compute_infer": timing.price, "compute_output": timing.render}
        parts["queue"] = max(0.0, seconds - sum(parts.values()))
        for name, spent in parts.items():
            self._seconds[name] += spent

    def failed(self, seconds: float) -> None:
        """A request was refused, or could not be answered."""
        self._count("fail", seconds)

    def _count(self, outcome: str, seconds: float) -> None:
        self._last = self._clock()
        self._counts[outcome] += 1
        self._seconds[outcome] += seconds

    def document(self, *, name: str, version: str | None) -> dict[str, Any]:
        """As the extension has it: durations in nanoseconds, the last request in milliseconds since 1970.

        `inference_count` counts options, `execution_count` requests. What is neither reading, pricing nor writing is
        `queue`: above all the way of the body, and waiting for a turn in the batch process.
        """
        done = self._counts["success"]
        nothing = {"count": 0, "ns": 0}
        return {
            "name": name,
            "version": version or "",
            "last_inference": round(1e3 * self._last),
            "inference_count": self._rows,
            "execution_count": done,
            "inference_stats": {
                kind: {"count": self._counts.get(kind, done), "ns": round(1e9 * seconds)}
                for kind, seconds in self._seconds.items()
            }
            | {"cache_hit": nothing, "cache_miss": nothing},
            "batch_stats": [],
        }


def model_config(
    *,
    name: str,
    platform: str,
    inputs: Sequence[dict[str, Any]],
    outputs: Sequence[dict[str, Any]],
    optional: Sequence[str],
) -> dict[str, Any]:
    """Triton's ModelConfig of a model, from the tensors of its metadata.

    `max_batch_size` is 0, which says that the number of options is the tensors' own first dimension.
    """

    def described(tensor: dict[str, Any]) -> dict[str, Any]:
        datatype = tensor["datatype"]
        return {
            "name": tensor["name"],
            "data_type": _TYPES.get(datatype, f"TYPE_{datatype}"),
            "dims": tensor["shape"],
        }

    return {
        "name": name,
        "platform": platform,
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": 0,
        "input": [{**described(it), "optional": it["name"] in optional} for it in inputs],
        "output": [described(it) for it in outputs],
    }
