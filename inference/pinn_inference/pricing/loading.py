"""Loads the models of both exercise styles from their directories: without TensorFlow in milliseconds, or with it."""

from __future__ import annotations

from pathlib import Path

from pinn_inference.pricing.american import load_american, load_numpy_american
from pinn_inference.pricing.model import load_model, load_numpy_model
from pinn_inference.pricing.model_set import ModelSet


def load_numpy_models(
    european: Path,
    american: Path | None,
    *,
    european_sha256: str | None = None,
    american_sha256: str | None = None,
) -> ModelSet:
    """Both models without TensorFlow; `american` None leaves that style out.

    The checksums are those of the two `weights.npz`. Raises ModelNotFoundError, ModelChecksumError or ModelFormatError.
    """
    model = load_numpy_model(european, expected_sha256=european_sha256)
    if american is None:
        return ModelSet(model)
    return ModelSet(model, load_numpy_american(american, model, expected_sha256=american_sha256))


def load_models(
    european: Path,
    american: Path | None,
    *,
    european_sha256: str | None = None,
    american_sha256: str | None = None,
    threads: int | None = None,
) -> ModelSet:
    """The same on TensorFlow's devices, with NumPy behind them; takes seconds. `threads` as in `load_tensorflow`.

    Raises ImportError where TensorFlow is not installed.
    """
    model = load_model(european, expected_sha256=european_sha256, threads=threads)
    if american is None:
        return ModelSet(model)
    return ModelSet(model, load_american(american, model, expected_sha256=american_sha256, threads=threads))
