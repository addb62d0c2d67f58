"""American options by the networks where they were trained, by other methods elsewhere, and it says which.

Price = European price + early exercise premium. The European part is the European model's; the premium and the exercise
boundary are the networks'. A call is a put with spot and strike, and rate and dividend, exchanged (McDonald and
Schroder 1998). Where early exercise never pays, as for calls without dividends, the European price is the American one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Final

import numpy as np

from pinn_inference.pricing import american_golden, integral_equation
from pinn_inference.pricing.american_artefact import GREEKS, AmericanArtefact, read_american
from pinn_inference.pricing.american_domain import put_rates
from pinn_inference.pricing.american_engine import AmericanEngine, NumPyAmericanEngine, PremiumJets, american_engines
from pinn_inference.pricing.american_greeks import PREMIUM_ROUNDING, Greeks, PutTerms, addition, exercised, held
from pinn_inference.pricing.american_network import AmericanDomain, inside
from pinn_inference.pricing.engine_model import EngineModel
from pinn_inference.pricing.errors import ModelRuntimeError
from pinn_inference.pricing.golden import CheckResult
from pinn_inference.pricing.model_set import StyleModel
from pinn_inference.pricing.types import BoolArray, FallbackReason, FloatArray, Method, OptionBatch, Quotes

log = logging.getLogger(__name__)

_CHUNK: Final = 65_536
SLOW_OPTIONS_AT_MOST: Final = 1000
"""So many options that need the integral equation take some seconds: no request, and no engine that failed, may leave
it more."""


def load_american(
    directory: Path, european: StyleModel, *, expected_sha256: str | None = None, threads: int | None = None
) -> AmericanModel:
    """A model on every device that TensorFlow finds, and NumPy behind them; takes seconds.

    `european` prices the European part. Raises ModelNotFoundError, ModelChecksumError or ModelFormatError, and
    ImportError where TensorFlow is not installed.
    """
    return tensorflow_american(read_american(directory, expected_sha256=expected_sha256), european, threads=threads)


def load_numpy_american(directory: Path, european: StyleModel, *, expected_sha256: str | None = None) -> AmericanModel:
    """A model that never imports TensorFlow; takes milliseconds. Arguments and errors as for `load_american`."""
    return numpy_american(read_american(directory, expected_sha256=expected_sha256), european)


def tensorflow_american(
    artefact: AmericanArtefact, european: StyleModel, *, threads: int | None = None
) -> AmericanModel:
    """As `load_american`, of an artefact that has been read."""
    engines = american_engines(artefact.networks, threads=threads)
    return AmericanModel(artefact, european, (*engines, NumPyAmericanEngine(artefact.networks)))


def numpy_american(artefact: AmericanArtefact, european: StyleModel) -> AmericanModel:
    """As `load_numpy_american`, of an artefact that has been read."""
    return AmericanModel(artefact, european, (NumPyAmericanEngine(artefact.networks),))


def put_terms(batch: OptionBatch) -> PutTerms:
    """The options as puts, all of shape (n,); without variance some are not finite."""
    is_call, volatility = batch.is_call, batch.volatility
    spot = np.where(is_call, batch.strike, batch.spot)
    strike = np.where(is_call, batch.spot, batch.strike)
    rate, dividend = put_rates(batch)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        per_variance = 2.0 / (volatility * volatility)
        return PutTerms(
            spot=spot,
            strike=strike,
            x=np.log(spot / strike),
            s=volatility * np.sqrt(batch.maturity),
            kappa=rate * per_variance,
            lambda_=dividend * per_variance,
        )


def never_exercised(batch: OptionBatch) -> BoolArray:
    """Whether waiting always pays: the strike earns nothing meanwhile and the asset yields at least as much."""
    rate, dividend = put_rates(batch)
    return (rate <= 0.0) & (dividend >= rate)


class AmericanModel(EngineModel[AmericanArtefact, AmericanEngine]):
    """Prices with the networks of an artefact; safe to call from several threads.

    `engines` are tried in order: a device that fails costs a retry on the next one, and after the last the integral
    equation answers up to a thousand options with reason `device_error`; for more ModelRuntimeError is raised.
    """

    def __init__(self, artefact: AmericanArtefact, european: StyleModel, engines: Sequence[AmericanEngine]) -> None:
        super().__init__(artefact, engines)
        self._european = european

    @property
    def greek_bounds(self) -> Mapping[str, float]:
        """Of the options that the networks price, see `AmericanArtefact`."""
        return dict(zip(GREEKS, self.artefact.greek_bounds.tolist(), strict=True))

    def price(self, batch: OptionBatch) -> Quotes:
        """Prices, Greeks and exercise boundaries in the batch's order; every row is taken as American."""
        if len(batch) <= _CHUNK:
            return self._price_chunk(batch)
        starts = range(0, len(batch), _CHUNK)
        return Quotes.concatenate([self._price_chunk(batch.take(slice(start, start + _CHUNK))) for start in starts])

    def check_golden_prices(self) -> list[CheckResult]:
        """One result per golden option, see `american_golden`, the worst over all engines."""
        worst: list[CheckResult] = []
        for engine in self._engines:
            model = AmericanModel(self.artefact, self._european, [engine])
            results = american_golden.compare(model.price(american_golden.golden_batch()), engine.device)
            worst = [max(pair, key=_badness) for pair in zip(worst, results, strict=True)] if worst else results
        return worst

    def _price_chunk(self, batch: OptionBatch) -> Quotes:
        puts = put_terms(batch)
        waits = batch.waits_for_dividends
        never = never_exercised(batch) & ~waits
        ours = inside(self.artefact.networks.domain, puts.s, puts.kappa, puts.lambda_) & ~never & ~waits
        quotes = self._european.price(batch)
        # Where the European model fell back its closed form is exact; the method says what the premium came from.
        boundary = np.where(batch.is_call, np.inf, 0.0)
        quotes = replace(quotes, exercise_boundary=boundary)
        if ours.any():
            jets = self._evaluate(puts, ours)
            if jets is None:
                if (rows := int(np.count_nonzero(ours))) > SLOW_OPTIONS_AT_MOST:
                    raise ModelRuntimeError(f"every engine failed: {rows} American options cannot be priced without")
                ours = np.zeros_like(ours)
                reason = FallbackReason.DEVICE_ERROR
            else:
                reason = FallbackReason.OUT_OF_DOMAIN
                bad = self._add_premium(batch, puts, ours, jets, quotes)
                if bad.any():
                    _overwrite(quotes, batch, bad, FallbackReason.NOT_FINITE)
        else:
            reason = FallbackReason.OUT_OF_DOMAIN
        rest = ~ours & ~never
        if rest.any():
            _overwrite(quotes, batch, rest, reason)
        return quotes

    def _evaluate(self, puts: PutTerms, ours: BoolArray) -> PremiumJets | None:
        """The jets of the rows in the domain; None where every engine failed."""
        everything = bool(ours.all())
        x, s, kappa, lambda_ = (
            column if everything else column[ours] for column in (puts.x, puts.s, puts.kappa, puts.lambda_)
        )
        for engine in self._engines:
            try:
                return engine.evaluate(x, s, kappa, lambda_)
            except ModelRuntimeError as error:
                log.warning("device failed", extra={"device": engine.device, "rows": len(x), "error": str(error)})
        return None

    def _add_premium(
        self, batch: OptionBatch, puts: PutTerms, ours: BoolArray, jets: PremiumJets, quotes: Quotes
    ) -> BoolArray:
        """Adds the premium to the European quotes in the rows of `ours`; returns the rows that came out not finite."""
        everything = bool(ours.all())
        rows = slice(None) if everything else ours

        def at(column: FloatArray) -> FloatArray:
            return column if everything else column[ours]

        puts = PutTerms(*map(at, puts))
        is_call = batch.is_call if everything else batch.is_call[ours]
        alive = (puts.x > jets.b) & (puts.x < jets.b + self.artefact.networks.domain.z_max * puts.s)
        derivatives = (jets.e, jets.e_x, jets.e_s, jets.e_kappa, jets.e_lambda)
        zeroed = [np.where(alive, column, 0.0) for column in derivatives]
        added = addition(np.where, puts, is_call, at(batch.volatility), zeroed)
        european = Greeks(*(at(getattr(quotes, name)) for name in Greeks._fields))
        waiting, done = held(np.where, european, added, puts, is_call), exercised(np.where, puts, is_call)
        finite = np.isfinite(jets.b)
        for name, if_held, if_exercised in zip(Greeks._fields, waiting, done, strict=True):
            value = np.where(puts.x <= jets.b, if_exercised, if_held)
            finite &= np.isfinite(value)
            getattr(quotes, name)[rows] = value
        bound = self.artefact.certificate.at(puts.s) + PREMIUM_ROUNDING
        quotes.error_bound[rows] = at(quotes.error_bound) + puts.strike * bound
        quotes.method[rows] = Method.PINN
        quotes.reason[rows] = FallbackReason.NONE
        quotes.exercise_boundary[rows] = np.where(is_call, puts.spot * np.exp(-jets.b), puts.strike * np.exp(jets.b))
        bad = np.zeros(len(batch), dtype=np.bool_)
        bad[rows] = ~finite
        return bad


def _overwrite(quotes: Quotes, batch: OptionBatch, rows: BoolArray, reason: FallbackReason) -> None:
    """Prices rows by the integral equation, in place."""
    answers = integral_equation.price(batch.take(rows), reason=reason)
    for field in fields(Quotes):
        getattr(quotes, field.name)[rows] = getattr(answers, field.name)


def _badness(result: CheckResult) -> float:
    return math.inf if math.isnan(result.value) else result.value / (result.limit or 1.0)


__all__ = ["AmericanDomain", "AmericanModel", "load_american", "load_numpy_american"]
