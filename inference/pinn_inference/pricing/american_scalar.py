"""One American option at a time, in floats: the formulas of `american`, as `scalar` has those of the European model."""

from __future__ import annotations

import math
from typing import Final

from pinn_inference.pricing.american_artefact import AmericanArtefact
from pinn_inference.pricing.american_engine import NumPyAmericanEngine
from pinn_inference.pricing.american_greeks import (
    PREMIUM_ROUNDING,
    Greeks,
    PutTerms,
    addition,
    choose_float,
    exercised,
    held,
)
from pinn_inference.pricing.american_network import inside
from pinn_inference.pricing.scalar import ScalarPricer, ScalarQuote

_NO_PREMIUM: Final = [0.0] * 5


class AmericanScalarPricer:
    """Prices single American options by the networks; safe to call from several threads.

    `european` prices the European part of each.
    """

    def __init__(self, artefact: AmericanArtefact, european: ScalarPricer) -> None:
        self._european = european
        self._evaluate = NumPyAmericanEngine(artefact.networks).evaluate_one
        self._domain = artefact.networks.domain
        self._bounds: list[float] = artefact.certificate.bound.tolist()
        self._last_knot = len(self._bounds) - 1
        self._knots_per_s = len(self._bounds) / float(artefact.certificate.s[-1])

    def quote(
        self,
        spot: float,
        strike: float,
        maturity: float,
        rate: float,
        dividend: float,
        volatility: float,
        is_call: bool,
    ) -> ScalarQuote | None:
        """Price, Greeks and exercise boundary, arguments in the units of `OptionBatch`.

        None where the networks have no answer: outside their domain or the European model's, or a number that is not
        finite. The vector path then answers and gives the reason.
        """
        european = self._european.quote(spot, strike, maturity, rate, dividend, volatility, is_call)
        if european is None:
            return None
        # A call is a put with spot and strike, rate and dividend exchanged.
        put_spot, put_strike = (strike, spot) if is_call else (spot, strike)
        put_rate, put_dividend = (dividend, rate) if is_call else (rate, dividend)
        if put_rate <= 0.0 and put_dividend >= put_rate:
            return european._replace(exercise_boundary=math.inf if is_call else 0.0)
        try:
            per_variance = 2.0 / (volatility * volatility)
            s, kappa, lambda_ = volatility * math.sqrt(maturity), put_rate * per_variance, put_dividend * per_variance
            if not inside(self._domain, s, kappa, lambda_):
                return None
            x = math.log(put_spot / put_strike)
            *jets, b = self._evaluate(x, s, kappa, lambda_)
            boundary = put_spot * math.exp(-b) if is_call else put_strike * math.exp(b)
        except (ArithmeticError, ValueError):
            return None
        # As in `Certificate.at`.
        knot = min(max(math.ceil(s * self._knots_per_s - 1.0), 0), self._last_knot)
        error_bound = european.error_bound + put_strike * (self._bounds[knot] + PREMIUM_ROUNDING)
        put = PutTerms(put_spot, put_strike, x, s, kappa, lambda_)
        if x <= b:
            greeks = exercised(choose_float, put, is_call)
        else:
            if x >= b + self._domain.z_max * s:
                jets = _NO_PREMIUM
            added = addition(choose_float, put, is_call, volatility, jets)
            greeks = held(choose_float, Greeks(*european[: len(Greeks._fields)]), added, put, is_call)
        # One sum tells whether all of them are finite.
        if not math.isfinite(sum(greeks) + boundary):
            return None
        return ScalarQuote(*greeks, error_bound, boundary)
