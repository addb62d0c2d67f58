"""A loaded model: prices by the network where it was trained, by the closed form elsewhere, and says which."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Final

import numpy as np

from pinn_inference.pricing import closed_form, golden
from pinn_inference.pricing.artefact import Artefact, bundled_directory, read
from pinn_inference.pricing.engine import NetworkEngine, engines_for
from pinn_inference.pricing.errors import (
    ModelChecksumError,
    ModelError,
    ModelFormatError,
    ModelNotFoundError,
    ModelRuntimeError,
    ModelSelfCheckError,
)
from pinn_inference.pricing.golden import CheckResult
from pinn_inference.pricing.reduction import from_network, reduce, rounding_bound
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
]

log = logging.getLogger(__name__)

_CHUNK: Final = 65_536  # bounds the memory of one evaluation to some 50 MB
_MIN_VARIANCE: Final = 1e-16  # σ√T = 1e-8: below it y = |x|/(σ√T) is rounding noise
_WARM_UP_SIZES: Final = (1, 64, 4096)


def load_model(directory: Path, *, expected_sha256: str | None = None, threads: int | None = None) -> PinnModel:
    """Reads, checks and compiles a model; takes some seconds when TensorFlow is not imported yet.

    `expected_sha256` is the checksum of `weights.npz`; `threads` as in `load_tensorflow`. Raises ModelNotFoundError,
    ModelChecksumError or ModelFormatError, and ImportError where TensorFlow is not installed.
    """
    artefact = read(directory, expected_sha256=expected_sha256)
    return PinnModel(artefact, engines_for(artefact.network, threads=threads))


class PinnModel:
    """Prices with the network of an artefact; safe to call from several threads.

    `engines` are tried in order for every evaluation: a device that fails costs a retry on the next one, and after the
    last the closed form answers with reason `device_error`.
    """

    def __init__(self, artefact: Artefact, engines: Sequence[NetworkEngine]) -> None:
        if not engines:
            raise ValueError("a model needs at least one engine")
        self._artefact = artefact
        self._engines = tuple(engines)

    @property
    def name(self) -> str:
        return self._artefact.name

    @property
    def version(self) -> str:
        return self._artefact.version

    @property
    def sha256(self) -> str:
        """Checksum of the weights file."""
        return self._artefact.sha256

    @property
    def error_bound(self) -> float:
        """The certificate over the whole domain, in units of D·√(FK); every quote carries its own, in currency."""
        return self._artefact.certificate.error_bound

    @property
    def device(self) -> str:
        """The device that is tried first."""
        return self._engines[0].device

    def price(self, batch: OptionBatch) -> Quotes:
        """Prices and Greeks in the batch's order; never raises for a failing device.

        Rows outside the trained domain, without variance, or for which the network gave no finite number come from the
        closed form, each with its reason.
        """
        if len(batch) <= _CHUNK:
            return self._price_chunk(batch)
        starts = range(0, len(batch), _CHUNK)
        return Quotes.concatenate([self._price_chunk(batch.take(slice(start, start + _CHUNK))) for start in starts])

    def warm_up(self, batch_sizes: Sequence[int] = _WARM_UP_SIZES) -> None:
        """Evaluates batches of these sizes on every engine, so that no request pays for first use.

        The compiled function takes any batch size; sizes matter only for memory that is taken up front.
        Raises ModelRuntimeError when the last engine, the CPU, fails.
        """
        for position, engine in enumerate(self._engines):
            try:
                for size in batch_sizes:
                    engine.evaluate(np.zeros(size), np.full(size, 0.04))
            except ModelRuntimeError as error:
                if position == len(self._engines) - 1:
                    raise
                log.warning("device failed at warm-up", extra={"device": engine.device, "error": str(error)})

    def check_golden_prices(self) -> list[CheckResult]:
        """One result per golden option, see `golden`, and one that says whether the network priced them all."""
        quotes = self.price(golden.golden_batch())
        fallbacks = int(np.count_nonzero(quotes.method != Method.PINN))
        by_network = CheckResult(
            name="golden: priced by the network",
            passed=fallbacks == 0,
            value=float(fallbacks),
            limit=0.0,
            detail=f"{fallbacks} of {len(quotes)} came from the closed form",
        )
        return [*golden.compare(quotes), by_network]

    def self_check(self) -> None:
        """Raises ModelSelfCheckError, naming every golden option that came out wrong."""
        failed = [result for result in self.check_golden_prices() if not result.passed]
        if failed:
            raise ModelSelfCheckError("; ".join(f"{result.name}: {result.detail}" for result in failed))

    def _price_chunk(self, batch: OptionBatch) -> Quotes:
        reduced = reduce(batch)
        domain = self._artefact.network.domain
        reason = np.full(len(batch), FallbackReason.NONE, dtype=np.int8)
        reason[~(reduced.w <= domain.w_max)] = FallbackReason.OUT_OF_DOMAIN
        reason[reduced.w < _MIN_VARIANCE] = FallbackReason.ZERO_VARIANCE
        if reason.all():
            return _overwrite_with_closed_form(None, batch, reason)
        # Rows that the closed form will overwrite are evaluated at the border: cheaper than taking the batch apart.
        w = np.clip(reduced.w, _MIN_VARIANCE, domain.w_max)
        inner = replace(reduced, y=np.minimum(reduced.y, domain.y_max), w=w, s=np.sqrt(w))
        evaluated = self._evaluate(inner.y, inner.w)
        if evaluated is None:
            reason[reason == FallbackReason.NONE] = FallbackReason.DEVICE_ERROR
            return _overwrite_with_closed_form(None, batch, reason)
        finite = np.isfinite(evaluated).all(axis=0)
        reason[(reason == FallbackReason.NONE) & ~finite] = FallbackReason.NOT_FINITE
        # Beyond y_max nothing is left of the time value.
        n, n_y, n_w = np.where(finite & (reduced.y <= domain.y_max), evaluated, 0.0)
        values = from_network(batch, inner, n=n, n_y=n_y, n_w=n_w)
        quotes = Quotes(
            price=values.price,
            delta=values.delta,
            gamma=values.gamma,
            vega=values.vega,
            theta=values.theta,
            rho=values.rho,
            error_bound=reduced.scale * self._artefact.certificate.at(inner.s) + rounding_bound(batch, reduced),
            method=np.full(len(batch), Method.PINN, dtype=np.int8),
            reason=reason,
        )
        return _overwrite_with_closed_form(quotes, batch, reason) if reason.any() else quotes

    def _evaluate(self, y: FloatArray, w: FloatArray) -> FloatArray | None:
        """N, N_y, N_w as an array of shape (3, n), or None when every engine failed."""
        for engine in self._engines:
            try:
                return np.stack(engine.evaluate(y, w))
            except ModelRuntimeError as error:
                log.warning("device failed", extra={"device": engine.device, "rows": len(y), "error": str(error)})
        return None


def _overwrite_with_closed_form(quotes: Quotes | None, batch: OptionBatch, reason: CodeArray) -> Quotes:
    """The quotes with every row that has a reason priced by the closed form; None stands for: all rows have one."""
    if quotes is None:
        return replace(closed_form.price(batch), reason=reason)
    rows = reason != FallbackReason.NONE
    exact = closed_form.price(batch.take(rows))
    for field in fields(Quotes):
        if field.name != "reason":
            getattr(quotes, field.name)[rows] = getattr(exact, field.name)
    return quotes
