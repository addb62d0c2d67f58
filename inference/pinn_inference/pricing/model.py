"""A loaded model: prices by the network where it was trained, by the closed form elsewhere, and says which."""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from pathlib import Path
from typing import Final

import numpy as np

from pinn_inference.pricing import closed_form, golden
from pinn_inference.pricing.artefact import Artefact, bundled_directory, read
from pinn_inference.pricing.engine import Evaluation, NumPyEngine, PricingEngine
from pinn_inference.pricing.engine_model import EngineModel
from pinn_inference.pricing.errors import (
    ModelChecksumError,
    ModelError,
    ModelFormatError,
    ModelNotFoundError,
    ModelRuntimeError,
    ModelSelfCheckError,
)
from pinn_inference.pricing.golden import CheckResult
from pinn_inference.pricing.reduction import cap_bound
from pinn_inference.pricing.types import CodeArray, FallbackReason, FloatArray, Method, OptionBatch, Quotes

__all__ = [
    "CheckResult",
    "ModelChecksumError",
    "ModelError",
    "ModelFormatError",
    "ModelNotFoundError",
    "ModelRuntimeError",
    "ModelSelfCheckError",
    "PinnModel",
    "bundled_directory",
    "load_model",
    "load_numpy_model",
]

log = logging.getLogger(__name__)

MIN_VARIANCE: Final = 1e-16
"""σ√T = 1e-8: below it y = |x|/(σ√T) is rounding noise, and the closed form answers."""


def load_model(directory: Path, *, expected_sha256: str | None = None, threads: int | None = None) -> PinnModel:
    """A model on every device that TensorFlow finds, and NumPy behind them; takes seconds for TensorFlow's import.

    `expected_sha256` is the checksum of `weights.npz`; `threads` as in `load_tensorflow`. Raises ModelNotFoundError,
    ModelChecksumError or ModelFormatError, and ImportError where TensorFlow is not installed.
    """
    return tensorflow_model(read(directory, expected_sha256=expected_sha256), threads=threads)


def load_numpy_model(directory: Path, *, expected_sha256: str | None = None) -> PinnModel:
    """A model that never imports TensorFlow; takes milliseconds. Arguments and errors as for `load_model`."""
    return numpy_model(read(directory, expected_sha256=expected_sha256))


def tensorflow_model(artefact: Artefact, *, threads: int | None = None) -> PinnModel:
    """As `load_model`, of an artefact that has been read."""
    from pinn_inference.pricing.tensorflow_engine import tensorflow_engines

    numpy_engine = NumPyEngine(artefact.network, artefact.certificate)
    devices = tensorflow_engines(artefact.network, artefact.certificate, threads=threads)
    return PinnModel(artefact, (*devices, numpy_engine))


def numpy_model(artefact: Artefact) -> PinnModel:
    """As `load_numpy_model`, of an artefact that has been read."""
    return PinnModel(artefact, (NumPyEngine(artefact.network, artefact.certificate),))


class PinnModel(EngineModel[Artefact, PricingEngine]):
    """Prices with the network of an artefact; safe to call from several threads.

    `engines` are tried in order for every evaluation: a device that fails costs a retry on the next one, and after the
    last the closed form answers with reason `device_error`.
    """

    def price(self, batch: OptionBatch) -> Quotes:
        """Prices and Greeks of European options in the batch's order; never raises for a failing device.

        Rows outside the trained domain, without variance, or for which the network gave no finite number come from the
        closed form, each with its reason. `is_american` is not looked at: see `ModelSet`.
        """
        for engine in self._engines:
            try:
                return self._quotes(batch, engine.price(batch))
            except ModelRuntimeError as error:
                log.warning("device failed", extra={"device": engine.device, "rows": len(batch), "error": str(error)})
        return self._closed_form(batch)

    def check_golden_prices(self) -> list[CheckResult]:
        """One result per golden option, see `golden`, and one that says whether the network priced them all.

        Every engine is asked, in each of the batch sizes it compiles a function for; the results are the worst of them.
        """
        batch = golden.golden_batch()
        worst: list[CheckResult] = []
        for position, engine in enumerate(self._engines):
            for size in engine.batch_sizes:
                try:
                    quotes = self._quotes_of_first(batch, size, engine)
                except ModelRuntimeError as error:
                    log.warning("device failed", extra={"device": engine.device, "rows": size, "error": str(error)})
                    if position < len(self._engines) - 1:
                        break  # as in price: the next device takes over
                    quotes = self._closed_form(batch)
                results = [*golden.compare(quotes), _priced_by_network(quotes, engine.device)]
                worst = [golden.worse(*pair) for pair in zip(worst, results, strict=True)] if worst else results
        return worst

    def _quotes_of_first(self, batch: OptionBatch, size: int, engine: PricingEngine) -> Quotes:
        """The batch priced in front of as many copies of itself as make up `size` rows."""
        rows = np.resize(np.arange(len(batch)), max(size, len(batch)))
        padded = batch.take(rows)
        return self._quotes(padded, engine.price(padded)).take(slice(0, len(batch)))

    def _reasons(self, w: FloatArray) -> CodeArray:
        reason = np.full(len(w), FallbackReason.NONE, dtype=np.int8)
        reason[~(w <= self.artefact.network.domain.w_max)] = FallbackReason.OUT_OF_DOMAIN
        reason[w < MIN_VARIANCE] = FallbackReason.ZERO_VARIANCE
        return reason

    def _quotes(self, batch: OptionBatch, evaluation: Evaluation) -> Quotes:
        reason = self._reasons(evaluation.w)
        finite = np.isfinite(evaluation.values).all(axis=0)
        reason[(reason == FallbackReason.NONE) & ~finite] = FallbackReason.NOT_FINITE
        method = np.full(len(batch), Method.PINN, dtype=np.int8)
        price, delta, gamma, vega, theta, rho, error_bound = evaluation.values
        cap_bound(batch, price, error_bound)
        quotes = Quotes(price, delta, gamma, vega, theta, rho, error_bound, method, reason)
        if reason.any():
            _overwrite_with_closed_form(quotes, batch)
        return quotes

    def _closed_form(self, batch: OptionBatch) -> Quotes:
        """What is left when every device has failed."""
        with np.errstate(over="ignore"):
            variance = batch.volatility * batch.volatility * batch.maturity
        reason = self._reasons(variance)
        reason[reason == FallbackReason.NONE] = FallbackReason.DEVICE_ERROR
        return replace(closed_form.price(batch), reason=reason)


def _priced_by_network(quotes: Quotes, device: str) -> CheckResult:
    fallbacks = int(np.count_nonzero(quotes.method != Method.PINN))
    return CheckResult(
        name="golden: priced by the network",
        passed=fallbacks == 0,
        value=float(fallbacks),
        limit=0.0,
        detail=f"{fallbacks} of {len(quotes)} came from the closed form, on {device}",
    )


def _overwrite_with_closed_form(quotes: Quotes, batch: OptionBatch) -> None:
    """Prices every row that has a reason by the closed form."""
    rows = quotes.reason != FallbackReason.NONE
    exact = closed_form.price(batch.take(rows))
    for field in fields(Quotes):
        if field.name != "reason":
            getattr(quotes, field.name)[rows] = getattr(exact, field.name)
