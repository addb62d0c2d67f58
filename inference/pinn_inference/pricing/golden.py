"""Options with answers known to 40 digits: what a model has to reproduce before it may serve.

The numbers are the Black–Scholes–Merton formula in mpmath, rounded to float64; a test computes them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from pinn_inference.pricing.types import FloatArray, OptionBatch, Quotes

PRICE_TOLERANCE: Final = 1e-6
"""Largest price error allowed, per unit of strike."""
GREEK_TOLERANCE: Final = 1e-4
"""Largest error of a Greek allowed, per unit of its natural size, see `greek_scales`."""


@dataclass(frozen=True, slots=True)
class Golden:
    """`terms`: spot, strike, maturity, rate, dividend, volatility; `answers`: price, delta, gamma, vega, theta, rho."""

    name: str
    terms: tuple[float, float, float, float, float, float]
    is_call: bool
    answers: tuple[float, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The outcome of one check: `value` was measured and must not exceed `limit`; `detail` is for people."""

    name: str
    passed: bool
    value: float
    limit: float
    detail: str


GOLDEN_PRICES: Final[tuple[Golden, ...]] = (
    Golden(
        name="at the money call",
        terms=(100.0, 100.0, 1.0, 0.05, 0.0, 0.2),
        is_call=True,
        answers=(
            10.450583572185568,
            0.6368306511756191,
            0.01876201734584689,
            37.524034691693785,
            -6.414027546438196,
            53.23248154537634,
        ),
    ),
    Golden(
        name="at the money put",
        terms=(100.0, 100.0, 1.0, 0.05, 0.0, 0.2),
        is_call=False,
        answers=(
            5.573526022256968,
            -0.3631693488243809,
            0.01876201734584689,
            37.524034691693785,
            -1.6578804239346259,
            -41.89046090469506,
        ),
    ),
    Golden(
        name="out of the money call with dividend",
        terms=(100.0, 130.0, 0.5, 0.03, 0.015625, 0.25),
        is_call=True,
        answers=(
            0.6616060805360666,
            0.0870089299527119,
            0.008940050567035894,
            11.175063208794867,
            -2.8989929565896584,
            4.019643457367561,
        ),
    ),
    Golden(
        name="in the money put, negative rate",
        terms=(80.0, 100.0, 2.0, -0.01, 0.02, 0.3),
        is_call=False,
        answers=(
            30.757289515772126,
            -0.6490450139252454,
            0.01018143439618378,
            39.09670808134572,
            -4.797534034679239,
            -165.3617812595835,
        ),
    ),
    Golden(
        name="one day, low volatility",
        terms=(100.0, 100.5, 0.00273972602739726, 0.02, 0.0, 0.08),
        is_call=True,
        answers=(
            0.02463283854318187,
            0.11981616235394331,
            0.47720495724292505,
            1.0459286734091506,
            -15.509698299710626,
            0.03275885862150999,
        ),
    ),
    Golden(
        name="five years, high volatility call",
        terms=(100.0, 60.0, 4.0, 0.04, 0.03, 0.8),
        is_call=True,
        answers=(
            60.91354660704755,
            0.7749408189482029,
            0.0011490902865695402,
            36.77088917022529,
            -2.0154878716888303,
            66.32214115109097,
        ),
    ),
    Golden(
        name="five years, high volatility put",
        terms=(100.0, 250.0, 4.0, 0.04, 0.03, 0.8),
        is_call=False,
        answers=(
            158.58915460046427,
            -0.3551207477436245,
            0.002142151440754491,
            68.54884610414372,
            -0.1561976786521775,
            -776.4049174993069,
        ),
    ),
    Golden(
        name="deep wing call",
        terms=(50.0, 150.0, 0.25, 0.01, 0.0, 0.35),
        is_call=True,
        answers=(
            4.325783442503404e-10,
            3.287324467914324e-10,
            2.3782814679407984e-10,
            5.202490711120497e-08,
            -3.6577475417796685e-08,
            4.001010998830319e-09,
        ),
    ),
    Golden(
        name="deep in the money call",
        terms=(300.0, 100.0, 0.75, 0.02, 0.01, 0.4),
        is_call=True,
        answers=(
            199.25835161319347,
            0.9921499494029431,
            1.319071967543272e-05,
            0.3561494312366834,
            0.9137440023919244,
            73.78997490576711,
        ),
    ),
    Golden(
        name="short-dated put near the money",
        terms=(4200.0, 4150.0, 0.0625, 0.045, 0.013, 0.15),
        is_call=False,
        answers=(
            37.50069838848489,
            -0.3474504827461618,
            0.002344243741649992,
            387.6793087753674,
            -416.8302942218749,
            -93.54954537014777,
        ),
    ),
    Golden(
        name="edge of the domain",
        terms=(100.0, 90.0, 5.0, 0.03, 0.01, 1.1),
        is_call=True,
        answers=(
            76.38344069191314,
            0.8613038364868548,
            0.0006512913457861322,
            35.821024018237274,
            -3.3714170942224158,
            48.734714783861705,
        ),
    ),
)


def golden_batch() -> OptionBatch:
    """The golden options as one batch, in order."""
    columns = np.array([golden.terms for golden in GOLDEN_PRICES]).T
    is_call = np.array([golden.is_call for golden in GOLDEN_PRICES])
    spot, strike, maturity, rate, dividend, volatility = (np.ascontiguousarray(column) for column in columns)
    return OptionBatch(spot, strike, maturity, rate, dividend, volatility, is_call)


def compare(quotes: Quotes) -> list[CheckResult]:
    """One result per golden option: its worst error over price and Greeks, as a fraction of what is allowed.

    NaN never passes.
    """
    batch = golden_batch()
    scales = {"price": PRICE_TOLERANCE * batch.strike}
    scales |= {name: GREEK_TOLERANCE * scale for name, scale in greek_scales(batch).items()}
    results = []
    for row, golden in enumerate(GOLDEN_PRICES):
        exact = dict(zip(scales, golden.answers, strict=True))
        found = {name: float(getattr(quotes, name)[row]) for name in scales}
        ratios = {name: abs(found[name] - exact[name]) / float(scales[name][row]) for name in scales}
        worst = max(ratios, key=lambda name: np.inf if np.isnan(ratios[name]) else ratios[name])
        results.append(
            CheckResult(
                name=f"golden: {golden.name}",
                passed=ratios[worst] <= 1.0,
                value=ratios[worst],
                limit=1.0,
                detail=f"{worst} {found[worst]:.12g}, exact {exact[worst]:.12g} ± {float(scales[worst][row]):.1e}",
            )
        )
    return results


def worse(first: CheckResult, second: CheckResult) -> CheckResult:
    """Of two results of one check the one that failed, or else the one with the larger value."""
    return second if (first.passed, -first.value) > (second.passed, -second.value) else first


def greek_scales(batch: OptionBatch) -> dict[str, FloatArray]:
    """The natural size of each Greek, each of shape (n,).

    delta 1, gamma 1/(S·σ√T), vega S·√T, theta S·(σ/√T + |r| + |q|), rho K·T; needs σ√T > 0.
    """
    root = np.sqrt(batch.maturity)
    return {
        "delta": np.ones(len(batch)),
        "gamma": 1.0 / (batch.spot * batch.volatility * root),
        "vega": batch.spot * root,
        "theta": batch.spot * (batch.volatility / root + np.abs(batch.rate) + np.abs(batch.dividend)),
        "rho": batch.strike * batch.maturity,
    }
