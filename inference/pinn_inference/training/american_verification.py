"""Decides whether an American model on disk may serve: every check by name, with what was measured and what is allowed.

Of the checks only `…against the integral equation` compare with prices from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.american import AmericanModel, load_american, put_terms
from pinn_inference.pricing.american_artefact import AmericanArtefact, read_american
from pinn_inference.pricing.american_certificate import SAMPLING_MARGIN, certify_american, residuals
from pinn_inference.pricing.american_engine import NumPyAmericanEngine, boundary_of
from pinn_inference.pricing.american_integral import HISTORY_S_MIN, Places, places, quasi_random
from pinn_inference.pricing.american_network import AmericanDomain
from pinn_inference.pricing.american_scalar import AmericanScalarPricer
from pinn_inference.pricing.errors import ModelError
from pinn_inference.pricing.golden import CheckResult
from pinn_inference.pricing.model import PinnModel, bundled_directory, load_model
from pinn_inference.pricing.scalar import ScalarPricer
from pinn_inference.pricing.types import FloatArray, OptionBatch, Quotes
from pinn_inference.training import saved_model
from pinn_inference.training.american_accuracy import (
    exchanged,
    measure_american,
    puts_at,
    sample_american,
    sample_domain,
)
from pinn_inference.training.american_plot import BOUNDARY_FILE, MAP_FILE, plot_boundary, plot_errors
from pinn_inference.training.american_saved_model import OUTPUTS
from pinn_inference.training.checks import (
    Picture,
    VerificationReport,
    check,
    check_certificate,
    check_files,
    difference,
    unreadable,
)

BOUND_TOLERANCE: Final = 1e-4
"""Largest certified error a model may have to be published, in units of the strike."""
PRICE_TOLERANCE: Final = 2e-5
"""Largest error over what desks quote, in units of the strike."""
_DOMAIN_TOLERANCE: Final = 5e-5
_GREEK_TOLERANCE: Final = 2e-3
_RATE_TOLERANCE: Final = 2e-2
"""Of rho over the whole domain, per strike and year."""
_BOUNDARY_TOLERANCE: Final = 1e-3
_ENGINE_TOLERANCE: Final = 1e-10
_SHAPE_TOLERANCE: Final = 1e-6
"""Largest violation of a rule of prices, per strike: they are not exact, so their differences are not either."""
_SLOPE_TOLERANCE: Final = 1e-5
"""Largest violation of a rule of slopes, per 1."""
_PASTING_TOLERANCE: Final = 5e-3
_OPTIONS: Final = 4_000


def verify_american(
    directory: Path, *, expected_sha256: str | None = None, tolerance: float = BOUND_TOLERANCE
) -> VerificationReport:
    """Runs every check on a model; never raises for a bad model. `tolerance` is the largest certified error allowed.

    The European part of each price is the bundled European model's.
    """
    try:
        artefact = read_american(directory, expected_sha256=expected_sha256)
    except ModelError as error:
        return unreadable(directory, error)
    european = load_model(bundled_directory())
    model = load_american(directory, european)
    checks = (
        *check_files(directory, artefact, asked_for=expected_sha256 is not None),
        *model.check_golden_prices(),
        *_residuals(artefact, tolerance),
        *check_certificate(artefact.certificate, certify_american(artefact.networks), tolerance, "the strike"),
        *_engines(directory, model, european),
        *_accuracy(model),
        *_no_arbitrage(model),
    )
    return VerificationReport(directory, artefact, checks, draw=partial(_draw, model))


def _draw(model: AmericanModel, directory: Path) -> list[Picture]:
    errors, boundary = plot_errors(model, directory / MAP_FILE), plot_boundary(model, directory / BOUNDARY_FILE)
    pictures = (
        (
            errors,
            "Where the errors are",
            "Maps of the price errors",
            "Colours are logarithmic. The line is the boundary.",
        ),
        (
            boundary,
            "The exercise boundary",
            "Exercise boundaries over time",
            "Lines are the network's, crosses the integral equation's.",
        ),
    )
    return [Picture(path, *texts) for path, *texts in pictures if path is not None]


def _residuals(artefact: AmericanArtefact, tolerance: float) -> Iterator[CheckResult]:
    """At other places than the certificate's; what is allowed there follows from what the certificate may be."""
    domain = artefact.networks.domain
    unit = quasi_random(4, 20_000, seed=11)
    z = domain.z_max * unit[:, 3] ** 2
    history = residuals(artefact.networks, z, places(unit[:, :3], domain, s_min=HISTORY_S_MIN))
    served = residuals(artefact.networks, z, places(unit[:, :3], domain, s_min=domain.s_min))
    limit = tolerance / SAMPLING_MARGIN
    where = "largest, per strike"
    yield check("premium's equation", float(np.max(served.premium)), limit, f"{where}: premium less its integral")
    yield check("value matches payoff", float(np.max(history.mismatch)), limit / 2.0, f"{where}: at the boundary")
    yield check("value above payoff", float(np.max(history.obstacle)), limit / 2.0, f"{where}: above the boundary")


def _engines(directory: Path, model: AmericanModel, european: PinnModel) -> Iterator[CheckResult]:
    """Every engine twice, over batches of several sizes, and all of them against NumPy; then the other two paths."""
    domain = model.artefact.networks.domain
    numpy_engine = NumPyAmericanEngine(model.artefact.networks)
    changed, worst = 0, 0.0
    for size in (1_000, 5_000, 70_000):
        put = put_terms(sample_american(size, domain, seed=size))
        # Below the boundary the jets mean nothing.
        b = boundary_of(model.artefact.networks, put.s, put.kappa, put.lambda_)
        variables = (np.maximum(put.x, b), put.s, put.kappa, put.lambda_)
        expected = np.stack(astuple(numpy_engine.evaluate(*variables)))
        for engine in model.engines:
            first, second = (np.stack(astuple(engine.evaluate(*variables))) for _ in range(2))
            changed += int(np.count_nonzero(first != second))
            worst = float(np.maximum(worst, difference(first, expected)))
    devices = ", ".join(model.devices)
    yield check("two evaluations give equal bits", changed, 0.0, f"numbers that differ, on {devices}")
    yield check("all engines agree", worst, _ENGINE_TOLERANCE, f"premium and derivatives on {devices}, per 1 + size")
    batch = sample_american(1_000, domain, seed=1)
    expected = _rows(model.price(batch))
    scalar = AmericanScalarPricer(model.artefact, ScalarPricer(european.artefact))
    found = [scalar.quote(*option) for option in _options(batch)]
    rows = [[np.nan] * len(OUTPUTS) if quote is None else [getattr(quote, name) for name in OUTPUTS] for quote in found]
    alone = "single quotes agree", difference(np.array(rows).T, expected)
    yield check(*alone, _ENGINE_TOLERANCE, "prices and Greeks in floats, per 1 + size")
    exported = directory / saved_model.DIRECTORY
    if exported.is_dir():
        error = difference(saved_model.answer(exported, batch, OUTPUTS), expected)
        yield check("SavedModel agrees", error, _ENGINE_TOLERANCE, "prices and Greeks, per 1 + size")


def _options(batch: OptionBatch) -> Iterator[tuple[float, float, float, float, float, float, bool]]:
    columns = (batch.spot, batch.strike, batch.maturity, batch.rate, batch.dividend, batch.volatility, batch.is_call)
    return zip(*(column.tolist() for column in columns), strict=True)


def _rows(quotes: Quotes) -> FloatArray:
    return np.stack([getattr(quotes, name) for name in OUTPUTS])


def _accuracy(model: AmericanModel) -> Iterator[CheckResult]:
    domain = model.artefact.networks.domain
    sample = measure_american(model, sample_american(_OPTIONS, domain, seed=7))
    border = measure_american(model, sample_domain(_OPTIONS, domain, seed=7))
    where = f"per strike, {sample.options} random options, mean {sample.price_mean:.1e}"
    yield check("price against the integral equation", sample.price, PRICE_TOLERANCE, where)
    where = f"per strike, {border.options} options of the whole domain, mean {border.price_mean:.1e}"
    yield check("price over the whole domain", border.price, _DOMAIN_TOLERANCE, where)
    greeks = {name: getattr(sample, name) for name in ("delta", "gamma", "vega", "theta")}
    yield check(
        "Greeks against the integral equation",
        float(np.max(list(greeks.values()))),
        _GREEK_TOLERANCE,
        "per natural size: " + ", ".join(f"{name} {value:.1e}" for name, value in greeks.items()),
    )
    calls = measure_american(model, exchanged(sample_domain(_OPTIONS, domain, seed=8)))
    rho = max(sample.rho, border.rho, calls.rho)
    where = f"per strike and year, {3 * _OPTIONS} options: random ones, and puts and calls of the whole domain"
    yield check("rho against the integral equation", rho, _RATE_TOLERANCE, where)
    yield check("exercise boundary", sample.boundary, _BOUNDARY_TOLERANCE, "relative, against the integral equation")
    share = float(np.max([sample.share_of_bound, border.share_of_bound]))
    yield check("bound holds", share, 1.0, "largest share of a quote's own bound that was used")


@dataclass(frozen=True, slots=True)
class _Grid:
    """Puts on (lines, lives, spots): for each (κ, λ) the same spots at every life s, which grows along the axis.

    `boundary` has shape (lines, lives); `x` runs from the exercise region to where nothing is left.
    """

    batch: OptionBatch
    x: FloatArray
    boundary: FloatArray

    @classmethod
    def of(cls, model: AmericanModel, *, lives: int = 40, spots: int = 161) -> _Grid:
        networks = model.artefact.networks
        domain = networks.domain
        kappa, lambda_ = _lines(domain)
        s_top = np.minimum(domain.s_max, np.sqrt(2.0 * domain.carry_max / np.maximum(kappa, lambda_)))
        s = domain.s_min * (s_top / domain.s_min)[:, None] ** np.linspace(0.0, 1.0, lives)
        across = np.broadcast_to(kappa[:, None], s.shape), np.broadcast_to(lambda_[:, None], s.shape)
        boundary = boundary_of(networks, s.ravel(), *(column.ravel() for column in across)).reshape(s.shape)
        low, high = boundary.min(axis=1) - 0.2, boundary.max(axis=1) + 3.0 * s_top
        x = low[:, None] + (high - low)[:, None] * np.linspace(0.0, 1.0, spots)
        shape = (len(kappa), lives, spots)
        columns = [np.broadcast_to(column[:, :, None], shape).ravel() for column in (s, *across)]
        x = np.broadcast_to(x[:, None, :], shape)
        return cls(puts_at(domain, x.ravel(), Places(*columns)), x, boundary)


def _lines(domain: AmericanDomain) -> tuple[FloatArray, FloatArray]:
    """Pairs of κ and λ that span the domain, without dividend and with λ below, at and above κ."""
    kappa = np.geomspace(domain.kappa_min, domain.kappa_max, 7)
    pairs = [(k, k * ratio) for k in kappa for ratio in (0.0, 0.5, 0.97, 1.0, 1.03, 2.0, 8.0)]
    inside = [(k, q) for k, q in pairs if q <= domain.kappa_max]
    return np.array([k for k, _ in inside]), np.array([q for _, q in inside])


def _no_arbitrage(model: AmericanModel) -> Iterator[CheckResult]:
    """Puts; calls are puts, which the last check shows. A put in units of its strike shows every strike at once."""
    grid = _Grid.of(model)
    batch, shape = grid.batch, grid.x.shape
    quotes, european = model.price(batch), closed_form.price(batch)
    value = (quotes.price / batch.strike).reshape(shape)
    ratio = np.exp(grid.x)
    slope = np.diff(value, axis=2) / np.diff(ratio, axis=2)
    # As a function of the strike: V = K·v(S/K), with ∂V/∂K = v − (S/K)·v′ within [0, 1].
    by_strike = value[:, :, 1:] - ratio[:, :, 1:] * slope
    limit, steep = _SHAPE_TOLERANCE, _SLOPE_TOLERANCE

    def worst(*violations: FloatArray) -> float:
        return float(np.max([0.0, *(np.max(violation) for violation in violations)])) + 0.0

    intrinsic = np.maximum(1.0 - ratio, 0.0)
    detail = "(strike − spot)⁺ ≤ put ≤ strike"
    yield check("price within its bounds", worst(intrinsic - value, value - 1.0), limit, detail)
    premium = (european.price - quotes.price) / batch.strike
    yield check("worth at least the European put", worst(premium), limit, "the right to exercise early costs nothing")
    yield check("put falls with spot", worst(slope, -1.0 - slope), steep, "by at most the spot's rise")
    yield check("put grows with strike", worst(-by_strike, by_strike - 1.0), steep, "no vertical-spread arbitrage")
    yield check("put is convex in spot and strike", worst(-np.diff(slope, axis=2)), steep, "no butterfly arbitrage")
    yield check("put grows with maturity", worst(-np.diff(value, axis=1)), limit, "no calendar arbitrage")
    yield check("delta within [−1, 0]", worst(quotes.delta, -1.0 - quotes.delta), 0.0, "anywhere on the grid")
    yield check("gamma not negative", worst(-quotes.gamma), 0.0, "anywhere on the grid")
    yield check("boundary falls with maturity", worst(np.diff(grid.boundary, axis=1)), limit, "ln(boundary/strike)")
    yield from _pasting(model, grid)
    yield _duality(model)


def _pasting(model: AmericanModel, grid: _Grid) -> Iterator[CheckResult]:
    """Just above the boundary: 1e-7 of the strike away the value has left the payoff by 1e-14, the delta by 1e-7."""
    lines, lives, spots = grid.x.shape
    at = grid.batch.take(np.arange(lines * lives) * spots)
    spot = at.strike * np.exp(grid.boundary.ravel()) * (1.0 + 1e-7)
    just_above = model.price(replace(at, spot=spot))
    value = np.abs(just_above.price - (at.strike - spot)) / at.strike
    yield check("value meets the payoff", float(np.max(value)), 1e-6, "just above the boundary, per strike")
    slope = float(np.max(np.abs(just_above.delta + 1.0)))
    yield check("smooth pasting", slope, _PASTING_TOLERANCE, "delta + 1 just above the boundary")


def _duality(model: AmericanModel) -> CheckResult:
    """Put(S, K, r, q) = Call(K, S, q, r), and so for the Greeks that do not mix (McDonald and Schroder 1998)."""
    batch = sample_american(2_000, model.artefact.networks.domain, seed=5)
    dual = OptionBatch(
        spot=batch.strike,
        strike=batch.spot,
        maturity=batch.maturity,
        rate=batch.dividend,
        dividend=batch.rate,
        volatility=batch.volatility,
        is_call=~batch.is_call,
        is_american=batch.is_american,
    )
    first, second = model.price(batch), model.price(dual)
    gap = np.abs(first.price - second.price) / (batch.spot + batch.strike)
    return check("calls are puts exchanged", float(np.max(gap)), 1e-14, "per unit of spot + strike")
