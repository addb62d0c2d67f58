"""Decides whether a model on disk may serve: every check by name, with what was measured and what is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from pinn_inference.pricing import artefact as artefacts
from pinn_inference.pricing.artefact import Artefact
from pinn_inference.pricing.certificate import certify, sampled_residual
from pinn_inference.pricing.engine import NumPyEngine
from pinn_inference.pricing.errors import ModelError
from pinn_inference.pricing.golden import CheckResult
from pinn_inference.pricing.model import PinnModel, load_model
from pinn_inference.pricing.types import FloatArray, OptionBatch
from pinn_inference.training import saved_model
from pinn_inference.training.accuracy import (
    STATED_MONEYNESS,
    STATED_VARIANCE,
    measure,
    measure_domain,
    sample_options,
)
from pinn_inference.training.checks import (
    Picture,
    VerificationReport,
    check,
    check_certificate,
    check_files,
    difference,
    unreadable,
)
from pinn_inference.training.plot import plot_errors

BOUND_TOLERANCE: Final = 1e-6
"""Largest certified error a model may have to be published, in units of D·√(FK)."""
PRICE_TOLERANCE: Final = 1e-7
DELTA_TOLERANCE: Final = 1e-6
GREEK_TOLERANCE: Final = 1e-5
"""Gamma, vega, theta and rho, as `DomainAccuracy` measures them."""
_RESIDUAL_TOLERANCE: Final = 1e-4
_ENGINE_TOLERANCE: Final = 1e-12
_ARBITRAGE_TOLERANCE: Final = 1e-9
_ROUNDING: Final = 4.0 * float(np.finfo(np.float64).eps)
MAP_FILE: Final = "error-map.png"


def verify(
    directory: Path, *, expected_sha256: str | None = None, tolerance: float = BOUND_TOLERANCE
) -> VerificationReport:
    """Runs every check on a model; never raises for a bad model. `tolerance` is the largest certified error allowed."""
    try:
        artefact = artefacts.read(directory, expected_sha256=expected_sha256)
    except ModelError as error:
        return unreadable(directory, error)
    model = load_model(directory)
    checks = (
        *check_files(directory, artefact, asked_for=expected_sha256 is not None),
        *model.check_golden_prices(),
        _residual(artefact),
        *check_certificate(artefact.certificate, certify(artefact.network), tolerance, "D·√(FK)"),
        *_determinism(directory, model),
        *_accuracy(model),
        *_no_arbitrage(model),
    )
    return VerificationReport(directory, artefact, checks, draw=partial(_draw, model))


def _draw(model: PinnModel, directory: Path) -> list[Picture]:
    path = plot_errors(model, directory / MAP_FILE)
    if path is None:
        return []
    caption = (
        "Colours are logarithmic. The dotted line frames the domain for which the accuracy is promised; where nothing "
        "is drawn there is no time value left."
    )
    return [Picture(path, "Where the errors are", "Maps of the errors", caption)]


def _residual(artefact: Artefact) -> CheckResult:
    value = sampled_residual(artefact.network)
    return check("equation residual", value, _RESIDUAL_TOLERANCE, "largest φ(y)·|R| over the domain")


def _determinism(directory: Path, model: PinnModel) -> Iterator[CheckResult]:
    """Every engine twice in each batch size it compiles a function for, and all of them against NumPy."""
    artefact = model.artefact
    numpy_engine = NumPyEngine(artefact.network, artefact.certificate)
    changed, worst = 0, 0.0
    for engine in model.engines:
        for size in engine.batch_sizes:
            batch = sample_options(max(size, 1000), seed=0)
            first, second = engine.price(batch).values, engine.price(batch).values
            changed += int(np.count_nonzero(first != second))
            worst = max(worst, difference(first, numpy_engine.price(batch).values))
    devices = ", ".join(model.devices)
    yield check("two evaluations give equal bits", changed, 0.0, f"numbers that differ, on {devices}")
    yield check("all engines agree", worst, _ENGINE_TOLERANCE, f"prices and Greeks on {devices}, relative to 1 + size")
    exported = directory / saved_model.DIRECTORY
    if exported.is_dir():
        batch = sample_options(1000, seed=0)
        found = saved_model.answer(exported, batch, saved_model.OUTPUTS)
        yield check(
            "SavedModel agrees", difference(found, numpy_engine.price(batch).values), _ENGINE_TOLERANCE, "the same"
        )


def _accuracy(model: PinnModel) -> tuple[CheckResult, ...]:
    """Over the stated domain on a grid, and over what desks quote at random, with carry."""
    domain, sample = measure_domain(model), measure(model, options=100_000)
    low, high = STATED_VARIANCE
    where = f"{domain.options} options, σ²T {low:g}..{high:g}, |ln F/K| ≤ {STATED_MONEYNESS:g}"
    greeks = {name: getattr(domain, name) for name in ("gamma", "vega", "theta", "rho")}
    sampled = ", ".join(f"{name} {getattr(sample, name):.1e}" for name in ("delta", "gamma", "vega", "theta", "rho"))
    return (
        check("price against closed form", domain.price, PRICE_TOLERANCE, f"per present value of strike, {where}"),
        check("delta against closed form", domain.delta, DELTA_TOLERANCE, where),
        check(
            "other Greeks against closed form",
            # Not max(), which loses a NaN.
            float(np.max(list(greeks.values()))),
            GREEK_TOLERANCE,
            "per largest: " + ", ".join(f"{name} {value:.1e}" for name, value in greeks.items()),
        ),
        check("sampled prices", sample.price, PRICE_TOLERANCE, f"per strike, {sample.options} random options"),
        check(
            "sampled Greeks",
            float(np.max([sample.delta, sample.gamma, sample.vega, sample.theta, sample.rho])),
            GREEK_TOLERANCE,
            f"per natural size: {sampled}",
        ),
        check(
            "bound holds",
            float(np.max([domain.share_of_bound, sample.share_of_bound])),
            1.0,
            "largest share of a quote's own bound that was used",
        ),
        check("put-call parity", sample.parity, 1e-15, "per unit of spot + strike"),
    )


def _no_arbitrage(model: PinnModel) -> tuple[CheckResult, ...]:
    """Calls on a forward of 1; with the parity of puts and calls these are all European prices.

    Two grids over w = σ²T from 1e-6 to the end of the domain: strikes from e⁻³ to e³ that are the same for every w, and
    strikes over |y| ≤ 8.4 that are close enough for the narrowest distribution.
    """
    w = np.geomspace(STATED_VARIANCE[0], model.artefact.network.domain.w_max * (1.0 - 1e-12), 120)
    fixed = np.repeat(np.exp(np.linspace(-STATED_MONEYNESS, STATED_MONEYNESS, 241))[None, :], len(w), axis=0)
    reach = np.minimum(STATED_MONEYNESS, 8.4 * np.sqrt(w))
    narrow = np.exp(np.linspace(-1.0, 1.0, 201) * reach[:, None])
    outside, rising, bending, negative = [], [], [], []
    for strikes in (fixed, narrow):
        k = strikes.ravel()
        one, zero = np.ones_like(k), np.zeros_like(k)
        maturity = np.repeat(w, strikes.shape[1])
        quotes = model.price(OptionBatch(one, k, maturity, zero, zero, one, np.ones(len(k), dtype=np.bool_)))
        price = quotes.price.reshape(strikes.shape)
        between = np.diff(strikes, axis=1)
        slope = np.diff(price, axis=1) / between
        # Far in the money strikes lie closer together than the digits of a price of 1 can tell.
        rounding = _ROUNDING * (price[:, :-1] + strikes[:, :-1]) / between
        outside += [np.maximum(1.0 - strikes, 0.0) - price, price - 1.0]
        rising += [slope - rounding, -1.0 - slope - rounding]
        bending.append(-np.diff(slope, axis=1) - rounding[:, 1:] - rounding[:, :-1])
        negative.append(-np.minimum(quotes.gamma, quotes.vega))
        if strikes is fixed:
            falling = -np.diff(price, axis=0)

    def worst(*violations: FloatArray) -> float:
        return float(np.max([0.0, *(np.max(violation) for violation in violations)]))

    limit = _ARBITRAGE_TOLERANCE
    return (
        check("price within its bounds", worst(*outside), limit, "intrinsic ≤ call ≤ forward"),
        check("call falls with strike", worst(*rising), limit, "no vertical-spread arbitrage, nor a slope below −1"),
        check("call is convex in strike", worst(*bending), limit, "no butterfly arbitrage"),
        check("call grows with variance", worst(falling), limit, "no calendar arbitrage"),
        check("gamma and vega not negative", worst(*negative), 0.0, "anywhere on the grids"),
    )
