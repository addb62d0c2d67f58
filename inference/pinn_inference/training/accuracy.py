"""How far a model is from the closed form, over the range that desks quote."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.golden import greek_scales
from pinn_inference.pricing.types import FloatArray, Method, OptionBatch, Quotes


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
