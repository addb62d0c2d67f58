"""How far a model is from the closed form: over the range that desks quote, and over its whole stated domain."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final, Protocol

import numpy as np

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.golden import greek_scales
from pinn_inference.pricing.types import FloatArray, Method, OptionBatch, Quotes

STATED_VARIANCE: Final = (1e-6, 4.0)
"""The range of σ²T for which the accuracy is promised; the network answers beyond it, out to its own domain."""
STATED_MONEYNESS: Final = 3.0
"""The largest |ln(F/K)| for which the accuracy is promised."""
CARRY: Final = ((0.0, 0.0), (0.05, 0.02))
"""(rate, dividend) with which the domain is measured; T = 1, so they matter to theta and rho alone."""


class Pricer(Protocol):
    def price(self, batch: OptionBatch) -> Quotes: ...


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Largest errors against the closed form over `options` random options priced by the network.

    `price` is per unit of strike. Each Greek is per unit of its natural size (`golden.greek_scales`). `gamma_relative`
    and `vega_relative` are relative errors where the value is at least a thousandth of its natural size.
    `share_of_bound` is the largest price error as a share of the bound that came with that quote.
    """

    options: int
    price: float
    delta: float
    gamma: float
    vega: float
    theta: float
    rho: float
    gamma_relative: float
    vega_relative: float
    parity: float
    share_of_bound: float

    def record(self) -> dict[str, float]:
        """JSON-ready, three digits."""
        return {name: float(f"{value:.3g}") if name != "options" else value for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class DomainAccuracy:
    """Largest errors against the closed form over a grid of the stated domain, calls and puts.

    `price` is per present value of the strike and `delta` per 1. `gamma`, `vega`, `theta` and `rho` are per the largest
    absolute value that the Greek takes at that σ²T, over all |ln(F/K)| ≤ 3. `share_of_bound` is the largest price error
    as a share of the bound that came with that quote.
    """

    options: int
    price: float
    delta: float
    gamma: float
    vega: float
    theta: float
    rho: float
    share_of_bound: float

    def record(self) -> dict[str, float]:
        """JSON-ready, three digits."""
        return {name: float(f"{value:.3g}") if name != "options" else value for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class DomainGrid:
    """Options over x = ln(F/K) and s = σ√T; `batch` holds them row by row, a row for each s of shape (m,).

    In each row x runs evenly over |x| ≤ 3, or over the part of it where there is time value left, |x| ≤ 8.5·s.
    """

    s: FloatArray
    x: FloatArray
    batch: OptionBatch

    @classmethod
    def of(
        cls, *, rows: int, columns: int, is_call: bool, carry: tuple[float, float], w_max: float = STATED_VARIANCE[1]
    ) -> DomainGrid:
        """K = 100 and T = 1; half of the rows are even in ln s, for the smallest variances, and half in s."""
        low, high = np.sqrt(STATED_VARIANCE[0]), np.sqrt(w_max)
        s = np.sort(np.concatenate([np.geomspace(low, high, rows - rows // 2), np.linspace(low, high, rows // 2)]))
        reach = np.minimum(STATED_MONEYNESS, 8.5 * s)
        x = np.linspace(-1.0, 1.0, columns) * reach[:, None]
        rate, dividend = carry
        one = np.ones(x.size)
        batch = OptionBatch(
            spot=100.0 * np.exp(x.ravel() - (rate - dividend)),
            strike=100.0 * one,
            maturity=one,
            rate=rate * one,
            dividend=dividend * one,
            volatility=np.repeat(s, columns),
            is_call=np.full(x.size, is_call),
        )
        return cls(s=s, x=x, batch=batch)

    def table(self, column: FloatArray) -> FloatArray:
        """A column of the batch's quotes as shape (rows, columns)."""
        return column.reshape(self.x.shape)


def measure_domain(model: Pricer, *, rows: int = 200, columns: int = 401) -> DomainAccuracy:
    """Prices the grid with the model and with the closed form, for every `CARRY` and for both sides."""
    worst = dict.fromkeys(("price", "delta", "gamma", "vega", "theta", "rho", "share_of_bound"), 0.0)
    options = 0
    for carry in CARRY:
        for is_call in (True, False):
            grid = DomainGrid.of(rows=rows, columns=columns, is_call=is_call, carry=carry)
            found, exact = model.price(grid.batch), closed_form.price(grid.batch)
            options += len(grid.batch)
            error = np.abs(found.price - exact.price)
            cash = grid.batch.strike * np.exp(-grid.batch.rate)
            errors = {
                "price": error / cash,
                "delta": np.abs(found.delta - exact.delta),
                "share_of_bound": error / found.error_bound,
            }
            for name in ("gamma", "vega", "theta", "rho"):
                value = grid.table(getattr(exact, name))
                largest = np.max(np.abs(value), axis=1, keepdims=True)
                errors[name] = np.abs(grid.table(getattr(found, name)) - value) / largest
            for name, values in errors.items():
                # A NaN must stay one: it is no accuracy at all.
                worst[name] = float(np.maximum(worst[name], np.max(values)))
    return DomainAccuracy(options=options, **worst)


def sample_options(n: int, *, seed: int) -> OptionBatch:
    """`n` random calls and puts with σ√T ≤ 2.5: S/K 0.3..3, T a day to five years, σ 3..120 % (all three log-uniform),
    r −2..15 %, q 0..10 %, K = 100.
    """
    rng = np.random.default_rng(seed)

    def log_uniform(low: float, high: float) -> FloatArray:
        return np.exp(rng.uniform(np.log(low), np.log(high), n))

    maturity = log_uniform(1.0 / 365.0, 5.0)
    return OptionBatch(
        spot=100.0 * log_uniform(0.3, 3.0),
        strike=np.full(n, 100.0),
        maturity=maturity,
        rate=rng.uniform(-0.02, 0.15, n),
        dividend=rng.uniform(0.0, 0.1, n),
        volatility=np.minimum(log_uniform(0.03, 1.2), 2.5 / np.sqrt(maturity) * (1.0 - 1e-12)),
        is_call=rng.uniform(size=n) < 0.5,
    )


def measure(model: Pricer, *, options: int = 200_000, seed: int = 3) -> Accuracy:
    """Prices random options with the model and with the closed form; rows that fell back are left out."""
    batch = sample_options(options, seed=seed)
    found = model.price(batch)
    rows = found.method == Method.PINN
    batch, found = batch.take(rows), found.take(rows)
    exact = closed_form.price(batch)
    other_side = model.price(
        OptionBatch(
            batch.spot, batch.strike, batch.maturity, batch.rate, batch.dividend, batch.volatility, ~batch.is_call
        )
    )
    forward = np.where(batch.is_call, 1.0, -1.0) * (
        batch.spot * np.exp(-batch.dividend * batch.maturity) - batch.strike * np.exp(-batch.rate * batch.maturity)
    )
    scales = greek_scales(batch)
    scaled = {name: np.abs(getattr(found, name) - getattr(exact, name)) / scale for name, scale in scales.items()}

    def relative(name: str) -> float:
        size = getattr(exact, name) / scales[name]
        rows = size >= 1e-3
        return float(np.max(scaled[name][rows] / size[rows], initial=0.0))

    error = np.abs(found.price - exact.price)
    return Accuracy(
        options=len(batch),
        price=float(np.max(error / batch.strike)),
        **{name: float(np.max(value)) for name, value in scaled.items()},
        gamma_relative=relative("gamma"),
        vega_relative=relative("vega"),
        parity=float(np.max(np.abs(found.price - other_side.price - forward) / (batch.spot + batch.strike))),
        share_of_bound=float(np.max(error / found.error_bound)),
    )
