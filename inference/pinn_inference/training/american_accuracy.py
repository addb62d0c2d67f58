"""How far an American model is from the integral equation: over what desks quote, and over its whole domain."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace

import numpy as np

from pinn_inference.pricing import integral_equation
from pinn_inference.pricing.american import never_exercised, put_terms
from pinn_inference.pricing.american_artefact import GREEKS
from pinn_inference.pricing.american_certificate import SAMPLING_MARGIN
from pinn_inference.pricing.american_integral import Places, places, quasi_random
from pinn_inference.pricing.american_network import AmericanDomain, inside
from pinn_inference.pricing.first_order import near_boundary
from pinn_inference.pricing.golden import greek_scales
from pinn_inference.pricing.types import BoolArray, FloatArray, Method, OptionBatch
from pinn_inference.training.accuracy import Pricer

_STRIKE = 100.0
_VOLATILITY = 0.3


@dataclass(frozen=True, slots=True)
class AmericanAccuracy:
    """Largest errors against the integral equation over `options` options, calls and puts, priced by the networks.

    `price` and `price_mean` are per unit of strike; `boundary` is relative. Each Greek is per unit of its natural size
    (`golden.greek_scales`); gamma jumps at the boundary and is left out where one side of it lies within 0.02·σ√T.
    `share_of_bound` is the largest price error as a share of the bound that came with that quote, both less the
    reference's own bound.
    """

    options: int
    price: float
    price_mean: float
    delta: float
    gamma: float
    vega: float
    theta: float
    rho: float
    boundary: float
    share_of_bound: float

    def record(self) -> dict[str, float]:
        """JSON-ready, three digits."""
        return {name: float(f"{value:.3g}") if name != "options" else value for name, value in asdict(self).items()}


def greek_bounds(measured: Iterable[AmericanAccuracy]) -> FloatArray:
    """Bounds of the errors of `GREEKS`, shape (5,): the largest that were measured, enlarged for what lies between."""
    worst = [[getattr(accuracy, name) for name in GREEKS] for accuracy in measured]
    bounds: FloatArray = SAMPLING_MARGIN * np.max(worst, axis=0)
    return bounds


def sample_american(n: int, domain: AmericanDomain, *, seed: int) -> OptionBatch:
    """`n` random calls and puts inside the domain: S/K 0.5..2 (log-uniform), T a week to three years, σ 10..60 %,
    r 0.25..12 % (for a fifth of the calls 0), q 0..12 % (for a fifth of the puts 0), K = 100.
    """
    rng = np.random.default_rng(seed)
    found: list[OptionBatch] = []
    while sum(map(len, found)) < n:
        size = 2 * n
        is_call = rng.uniform(size=size) < 0.5
        nothing = rng.uniform(size=size) < 0.2
        batch = american(
            spot=_STRIKE * np.exp(rng.uniform(-np.log(2.0), np.log(2.0), size)),
            strike=np.full(size, _STRIKE),
            maturity=np.exp(rng.uniform(np.log(7.0 / 365.0), np.log(3.0), size)),
            rate=np.where(nothing & is_call, 0.0, rng.uniform(0.0025, 0.12, size)),
            dividend=np.where(nothing & ~is_call, 0.0, rng.uniform(0.0, 0.12, size)),
            volatility=rng.uniform(0.1, 0.6, size),
            is_call=is_call,
        )
        put = put_terms(batch)
        rows = inside(domain, put.s, put.kappa, put.lambda_) & ~never_exercised(batch)
        found.append(batch.take(rows))
    return OptionBatch.concatenate(found).take(slice(0, n))


def sample_domain(n: int, domain: AmericanDomain, *, seed: int) -> OptionBatch:
    """`n` puts spread over the whole domain and its borders, from the exercise region to where no premium is left."""
    unit = quasi_random(4, n, seed=seed)
    at = places(unit[:, :3], domain, s_min=domain.s_min)
    top = np.log(np.minimum(1.0, at.kappa / np.maximum(at.lambda_, 1e-300)))
    return puts_at(domain, top + at.s * (-2.0 + 8.0 * unit[:, 3]), at)


def exchanged(batch: OptionBatch) -> OptionBatch:
    """The same options told the other way round: each put as the call that it is, and each call as a put."""
    return replace(
        batch,
        spot=batch.strike,
        strike=batch.spot,
        rate=batch.dividend,
        dividend=batch.rate,
        is_call=~batch.is_call,
    )


def puts_at(domain: AmericanDomain, x: FloatArray, at: Places) -> OptionBatch:
    """Puts with these x = ln(S/K), s, κ and λ, all of shape (n,); K = 100 and σ = 30 %.

    What lies on the domain's border is moved inside by a rounding error.
    """
    one = np.ones(len(x))
    inner = 1.0 - 1e-12
    s = np.clip(at.s, domain.s_min / inner, domain.s_max * inner)
    kappa = np.clip(at.kappa, domain.kappa_min / inner, None) * inner**3
    return american(
        spot=_STRIKE * np.exp(x),
        strike=_STRIKE * one,
        maturity=(s / _VOLATILITY) ** 2,
        rate=0.5 * _VOLATILITY**2 * np.maximum(kappa, domain.kappa_min / inner),
        dividend=0.5 * _VOLATILITY**2 * at.lambda_ * inner**3,
        volatility=_VOLATILITY * one,
        is_call=np.zeros(len(x), dtype=np.bool_),
    )


def american(
    *,
    spot: FloatArray,
    strike: FloatArray,
    maturity: FloatArray,
    rate: FloatArray,
    dividend: FloatArray,
    volatility: FloatArray,
    is_call: BoolArray,
) -> OptionBatch:
    """A batch of American options."""
    return OptionBatch(spot, strike, maturity, rate, dividend, volatility, is_call, np.ones(len(spot), dtype=np.bool_))


def measure_american(model: Pricer, batch: OptionBatch) -> AmericanAccuracy:
    """Prices options with the model and with the integral equation; rows that the networks did not price are left out.

    A millisecond an option.
    """
    found = model.price(batch)
    rows = found.method == Method.PINN
    batch, found = batch.take(rows), found.take(rows)
    exact = integral_equation.price(batch)
    error = np.abs(found.price - exact.price)
    scales = greek_scales(batch)
    greeks = {name: np.abs(getattr(found, name) - getattr(exact, name)) / scale for name, scale in scales.items()}
    greeks["gamma"][near_boundary(batch, exact.exercise_boundary)] = 0.0
    return AmericanAccuracy(
        options=len(batch),
        price=float(np.max(error / batch.strike)),
        price_mean=float(np.mean(error / batch.strike)),
        **{name: float(np.max(value)) for name, value in greeks.items()},
        boundary=float(np.max(np.abs(found.exercise_boundary / exact.exercise_boundary - 1.0))),
        share_of_bound=float(np.max((error - exact.error_bound) / found.error_bound)),
    )
