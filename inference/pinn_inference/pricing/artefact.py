"""A model on disk: a directory with `weights.npz` and `model.json`.

`weights.npz` holds everything that a price depends on: kernels and biases in float64, the trained domain and the error
certificate. Its SHA-256, as `sha256sum weights.npz` prints it, identifies the model. It is read without pickle.
`model.json` is the record for people and dashboards: name, version, that checksum, and how the model was trained and
measured. Nothing in it changes a price.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pinn_inference.pricing.certificate import Certificate
from pinn_inference.pricing.errors import ModelChecksumError, ModelFormatError, ModelNotFoundError
from pinn_inference.pricing.network import Domain, Layer, Network
from pinn_inference.pricing.types import FloatArray

FORMAT_VERSION: Final = 1
WEIGHTS_FILE: Final = "weights.npz"
RECORD_FILE: Final = "model.json"
EUROPEAN: Final = "european"
_MAX_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model's two files as they lie on disk, of one exercise style; the checksum has been compared.

    `weights` are the bytes of the weights file; `record` is `model.json` as parsed; only `name` and `version` of it
    are required. `origin` is where the weights were read, for messages.
    """

    name: str
    version: str
    sha256: str
    weights: bytes
    record: Mapping[str, Any]
    origin: str


@dataclass(frozen=True, slots=True)
class Artefact:
    """A European model as read from disk. `record` is `model.json` as parsed."""

    name: str
    version: str
    sha256: str
    network: Network
    certificate: Certificate
    record: Mapping[str, Any]


def bundled_directory(name: str = "european") -> Path:
    """The directory of a model shipped with this package; raises ModelNotFoundError, naming those there are."""
    root = Path(__file__).resolve().parent.parent / "models"
    known = sorted(path.parent.name for path in root.glob(f"*/{RECORD_FILE}"))
    if name not in known:
        raise ModelNotFoundError(f"no bundled model {name!r}; there is {', '.join(known) or 'none'}")
    return root / name


def read(directory: Path, *, expected_sha256: str | None = None) -> Artefact:
    """Reads and checks a European model; arguments and errors as for `read_files`."""
    return parse(read_files(directory, style=EUROPEAN, expected_sha256=expected_sha256))


def parse(files: ModelFiles) -> Artefact:
    """The European model in these files; raises ModelFormatError."""
    arrays = Arrays(files.weights, files.origin)
    y_max, w_max = (float(value) for value in arrays.array("domain", 2))
    if not (y_max > 0.0 and w_max > 0.0):
        raise ModelFormatError(f"{files.origin}: domain is ({y_max}, {w_max}), both must be positive")
    network = Network(layers=arrays.layers("", 2), domain=Domain(y_max=y_max, w_max=w_max))
    return Artefact(
        name=files.name,
        version=files.version,
        sha256=files.sha256,
        network=network,
        certificate=arrays.certificate(float(np.sqrt(w_max))),
        record=files.record,
    )


def write(
    directory: Path,
    *,
    name: str,
    version: str | None,
    network: Network,
    certificate: Certificate,
    record: Mapping[str, Any],
) -> Artefact:
    """Writes a model; `version` defaults to the first 12 digits of the checksum. Equal models give equal weight files.

    Files appear under their names only when complete, the record last.
    """
    arrays: dict[str, NDArray[Any]] = {
        "domain": np.array([network.domain.y_max, network.domain.w_max]),
        "certificate_s": certificate.s,
        "certificate_bound": certificate.bound,
    }
    for index, layer in enumerate(network.layers):
        arrays[f"kernel_{index}"] = layer.kernel
        arrays[f"bias_{index}"] = layer.bias
    sha256 = write_files(
        directory,
        archive(arrays),
        {
            "name": name,
            "style": EUROPEAN,
            "version": version,
            "error_bound": certificate.error_bound,
            "domain": {"y_max": network.domain.y_max, "w_max": network.domain.w_max},
            "network": {
                "hidden": list(network.architecture.hidden),
                "activation": "tanh",
                "parameters": network.architecture.parameter_count,
            },
            **record,
        },
    )
    return read(directory, expected_sha256=sha256)


def style_of(directory: Path) -> str:
    """The exercise style that a model's record names, `european` where it names none; errors as for `read_files`."""
    return _style(_parse_record(_read_file(directory / RECORD_FILE), directory / RECORD_FILE))


def read_files(directory: Path, *, style: str, expected_sha256: str | None = None) -> ModelFiles:
    """Reads a model's files and compares style and checksum.

    `expected_sha256` (64 hex digits, either case) is what the weights must be; the checksum in `model.json` is always
    compared too. Raises ModelNotFoundError, ModelChecksumError or ModelFormatError, in that order of checking.
    """
    path, record_path = directory / WEIGHTS_FILE, directory / RECORD_FILE
    weights, record_bytes = _read_file(path), _read_file(record_path)
    sha256 = hashlib.sha256(weights).hexdigest()
    if expected_sha256 is not None and expected_sha256.strip().lower() != sha256:
        raise ModelChecksumError(f"{path}: expected sha256 {expected_sha256}, found {sha256}")
    record = _parse_record(record_bytes, record_path)
    if record["sha256"] != sha256:
        raise ModelChecksumError(f"{path}: expected sha256 {record['sha256']} as in {RECORD_FILE}, found {sha256}")
    if _style(record) != style:
        raise ModelFormatError(f"{record_path}: a model of {_style(record)} options, where {style} ones are asked for")
    return ModelFiles(
        name=record["name"], version=record["version"], sha256=sha256, weights=weights, record=record, origin=str(path)
    )


def write_files(directory: Path, weights: bytes, record: Mapping[str, Any]) -> str:
    """Writes a model's files and returns the checksum, which is added to the record with its format.

    `record` holds at least `name`, `style` and `version`; a version of None becomes the first 12 digits of the
    checksum. Files appear under their names only when complete, the record last.
    """
    sha256 = hashlib.sha256(weights).hexdigest()
    full_record = {
        "format_version": FORMAT_VERSION,
        **record,
        "version": record.get("version") or sha256[:12],
        "weights": WEIGHTS_FILE,
        "sha256": sha256,
    }
    directory.mkdir(parents=True, exist_ok=True)
    _write_file(directory / WEIGHTS_FILE, weights)
    _write_file(directory / RECORD_FILE, (json.dumps(full_record, indent=1) + "\n").encode())
    return sha256


def archive(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """The bytes of a weights file with these arrays and the format's version; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **{"format_version": np.array(FORMAT_VERSION), **arrays})
    return buffer.getvalue()


class Arrays:
    """The arrays of a weights file; whatever is missing or of another form raises ModelFormatError, naming it."""

    def __init__(self, content: bytes, origin: str) -> None:
        self._origin = origin
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                self._arrays = {key: archive[key] for key in archive.files}
        except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ModelFormatError(f"{origin} is not a NumPy archive: {error}") from error
        version = self._arrays.get("format_version")
        if version is None or version.shape != () or version != FORMAT_VERSION:
            raise ModelFormatError(f"{origin}: format_version is {version}, it must be {FORMAT_VERSION}")

    def array(self, key: str, *shape: int | None) -> FloatArray:
        """A finite float64 array of this shape, None standing for any length."""
        value: FloatArray | None = self._arrays.get(key)
        if value is None:
            raise ModelFormatError(f"{self._origin}: array {key!r} is missing")
        fits = value.ndim == len(shape) and all(n in (None, m) for n, m in zip(shape, value.shape, strict=True))
        if not fits or value.dtype != np.float64 or not np.isfinite(value).all():
            raise ModelFormatError(
                f"{self._origin}: array {key!r} is {value.dtype} of shape {value.shape}, "
                f"it must be finite float64 of shape {shape}"
            )
        return value

    def layers(self, prefix: str, inputs: int) -> tuple[Layer, ...]:
        """`{prefix}kernel_0`, `{prefix}bias_0` and so on, from `inputs` inputs to one output."""
        depth = sum(key.startswith(f"{prefix}kernel_") for key in self._arrays)
        if depth == 0:
            raise ModelFormatError(f"{self._origin}: array '{prefix}kernel_0' is missing")
        layers = []
        for index in range(depth):
            outputs = 1 if index == depth - 1 else None
            kernel = self.array(f"{prefix}kernel_{index}", inputs, outputs)
            inputs = kernel.shape[1]
            layers.append(Layer(kernel=kernel, bias=self.array(f"{prefix}bias_{index}", inputs)))
        return tuple(layers)

    def certificate(self, reach: float) -> Certificate:
        """`certificate_s` and `certificate_bound`, which must grow in even steps of s up to `reach` = √w_max."""
        s = self.array("certificate_s", None)
        certificate = Certificate(s=s, bound=self.array("certificate_bound", len(s)))
        grows = bool((np.diff(s) > 0.0).all() and (np.diff(certificate.bound) >= 0.0).all())
        even = len(s) > 0 and bool(np.allclose(s, s[-1] * np.arange(1, len(s) + 1) / len(s), rtol=1e-12, atol=0.0))
        if not even or not grows or s[-1] < reach * (1.0 - 1e-12):
            raise ModelFormatError(
                f"{self._origin}: the certificate must grow with s, in even steps, and reach s = √w_max"
            )
        return certificate


def _read_file(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ModelFormatError(f"{path} has {path.stat().st_size} bytes, at most {_MAX_BYTES} are read")
        return path.read_bytes()
    except OSError as error:
        raise ModelNotFoundError(f"{path} cannot be read: {error.strerror or error}") from error


def _write_file(path: Path, content: bytes) -> None:
    part = path.with_name(path.name + ".part")
    part.write_bytes(content)
    part.replace(path)


def _parse_record(content: bytes, path: Path) -> dict[str, Any]:
    try:
        record = json.loads(content)
    except ValueError as error:
        raise ModelFormatError(f"{path} is not JSON: {error}") from error
    if not isinstance(record, dict):
        raise ModelFormatError(f"{path} must hold a JSON object, it holds {type(record).__name__}")
    if record.get("format_version") != FORMAT_VERSION:
        raise ModelFormatError(f"{path}: format_version is {record.get('format_version')!r}, not {FORMAT_VERSION}")
    for field in ("name", "version", "sha256"):
        if not isinstance(record.get(field), str) or not record[field]:
            raise ModelFormatError(f"{path}: {field} is {record.get(field)!r}, it must be a string that is not empty")
    return record


def _style(record: Mapping[str, Any]) -> str:
    return str(record.get("style", EUROPEAN))
