"""The models of both exercise styles: their files read once, and models made of what was read.

Whoever prices by the same sources prices by the same weights under the same names, whatever becomes of the directories.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import msgspec

from pinn_inference.pricing.american import numpy_american, tensorflow_american
from pinn_inference.pricing.american_artefact import STYLE, parse_american
from pinn_inference.pricing.artefact import EUROPEAN, ModelFiles, parse, read_files
from pinn_inference.pricing.model import numpy_model, tensorflow_model
from pinn_inference.pricing.model_set import ModelSet


@dataclass(frozen=True, slots=True)
class ModelSources:
    """The files of the European model and, where there is one, of the American model."""

    european: ModelFiles
    american: ModelFiles | None = None

    def packed(self) -> bytes:
        """As bytes, the way to another process; `unpacked` is the way back."""
        return msgspec.msgpack.encode(self)

    @classmethod
    def unpacked(cls, content: bytes) -> Self:
        return msgspec.msgpack.decode(content, type=cls)


def read_sources(
    european: Path,
    american: Path | None,
    *,
    european_sha256: str | None = None,
    american_sha256: str | None = None,
) -> ModelSources:
    """Reads both models' files; `american` None leaves that style out.

    The checksums are those of the two `weights.npz`. Raises ModelNotFoundError, ModelChecksumError or ModelFormatError.
    """
    files = read_files(european, style=EUROPEAN, expected_sha256=european_sha256)
    if american is None:
        return ModelSources(files)
    return ModelSources(files, read_files(american, style=STYLE, expected_sha256=american_sha256))


def numpy_models(sources: ModelSources) -> ModelSet:
    """Both models without TensorFlow; takes milliseconds. Raises ModelFormatError."""
    european = numpy_model(parse(sources.european))
    if sources.american is None:
        return ModelSet(european)
    return ModelSet(european, numpy_american(parse_american(sources.american), european))


def tensorflow_models(sources: ModelSources, *, threads: int | None = None) -> ModelSet:
    """The same on TensorFlow's devices, with NumPy behind them; takes seconds. `threads` as in `load_tensorflow`.

    Raises ModelFormatError, and ImportError where TensorFlow is not installed.
    """
    european = tensorflow_model(parse(sources.european), threads=threads)
    if sources.american is None:
        return ModelSet(european)
    return ModelSet(european, tensorflow_american(parse_american(sources.american), european, threads=threads))
