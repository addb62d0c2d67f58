"""A model as a TensorFlow SavedModel, for TensorFlow Serving and whoever else reads that format.

It holds the whole way from options to prices, Greeks and bounds, in float64. The server does not read it: what it
serves comes from `weights.npz`.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from pinn_inference.pricing.certificate import Certificate
from pinn_inference.pricing.model import MIN_VARIANCE
from pinn_inference.pricing.network import Network
from pinn_inference.pricing.tensorflow_engine import COLUMNS, Formula
from pinn_inference.pricing.types import FloatArray, OptionBatch
from pinn_inference.tensorflow_runtime import Tensor, load_tensorflow

DIRECTORY: Final = "saved_model"
OUTPUTS: Final = ("price", "delta", "gamma", "vega", "theta", "rho", "error_bound")


def export(directory: Path, network: Network, certificate: Certificate) -> None:
    """Writes the SavedModel with one signature, `serving_default`.

    Inputs: `spot`, `strike`, `maturity`, `rate`, `dividend`, `volatility` (float64) and `is_call` (bool), all of shape
    (n,) with any n. Outputs: those of `OUTPUTS`, float64 of shape (n,), in the units of `Quotes`. An option outside the
    trained domain gets NaN in all of them: there is no closed form here to answer instead.
    """
    tf = load_tensorflow()
    formula = Formula(tf, network, certificate)

    def price(*terms: Tensor) -> dict[str, Tensor]:
        *columns, is_call = terms
        rows = formula.whole(None, *columns, tf.where(is_call, np.float64(1.0), np.float64(-1.0)))
        variance = rows[len(OUTPUTS)]
        inside = (variance >= MIN_VARIANCE) & (variance <= network.domain.w_max)
        return {
            name: tf.where(inside, row, np.float64(np.nan))
            for name, row in zip(OUTPUTS, tf.unstack(rows[: len(OUTPUTS)]), strict=True)
        }

    write(directory, price)


def write(directory: Path, price: Callable[..., dict[str, Tensor]]) -> None:
    """Writes a function of the inputs named in `export` as `serving_default`; the directory appears when complete."""
    tf = load_tensorflow()
    signature = [tf.TensorSpec([None], tf.float64, name=name) for name in COLUMNS]
    signature.append(tf.TensorSpec([None], tf.bool, name="is_call"))
    module = tf.Module(name="option_pricer")
    module.price = tf.function(price, input_signature=signature, autograph=False)
    part = directory.with_name(directory.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    tf.saved_model.save(module, str(part), signatures={"serving_default": module.price})
    if directory.exists():
        shutil.rmtree(directory)
    part.replace(directory)


def checksums(directory: Path) -> dict[str, str]:
    """SHA-256 of every file below a directory, by its path relative to the directory's parent."""
    return {
        str(path.relative_to(directory.parent)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


def answer(directory: Path, batch: OptionBatch, outputs: Sequence[str]) -> FloatArray:
    """What the serving signature answers, shape (len(outputs), n); NaN when it cannot be loaded."""
    tf = load_tensorflow()
    try:
        signature = tf.saved_model.load(str(directory)).signatures["serving_default"]
        found = signature(**{name: tf.constant(getattr(batch, name)) for name in (*COLUMNS, "is_call")})
        return np.stack([found[name].numpy() for name in outputs])
    except (OSError, KeyError, ValueError, TypeError, tf.errors.OpError):
        return np.full((len(outputs), len(batch)), np.nan)
