"""Decides whether a model on disk may serve: every check by name, with what was measured and what is allowed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from pinn_inference.pricing import artefact as artefacts
from pinn_inference.pricing.artefact import Artefact
from pinn_inference.pricing.certificate import certify, sampled_residual
from pinn_inference.pricing.engine import NumPyEngine
from pinn_inference.pricing.errors import ModelError
from pinn_inference.pricing.golden import PRICE_TOLERANCE, CheckResult
from pinn_inference.pricing.model import PinnModel, load_model
from pinn_inference.pricing.tensorflow_engine import tensorflow_engines
from pinn_inference.pricing.types import FloatArray, OptionBatch
from pinn_inference.training.accuracy import measure, sample_options

BOUND_TOLERANCE: Final = 1e-5
"""Largest certified error a model may have to be published, in units of D·√(FK)."""
_RESIDUAL_TOLERANCE: Final = 1e-4
_ENGINE_TOLERANCE: Final = 1e-12
_ARBITRAGE_TOLERANCE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """All checks in the order they ran; `artefact` is None when the files could not be read."""

    directory: Path
    artefact: Artefact | None
    checks: tuple[CheckResult, ...]

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def verify(
    directory: Path, *, expected_sha256: str | None = None, tolerance: float = BOUND_TOLERANCE
) -> VerificationReport:
    """Runs every check on a model; never raises for a bad model. `tolerance` is the largest certified error allowed."""
    try:
        artefact = artefacts.read(directory, expected_sha256=expected_sha256)
    except ModelError as error:
        detail = f"{error.reason}: {error}"
        check = CheckResult(name="files and checksum", passed=False, value=1.0, limit=0.0, detail=detail)
        return VerificationReport(directory=directory, artefact=None, checks=(check,))
    files = CheckResult(
        name="files and checksum",
        passed=True,
        value=0.0,
        limit=0.0,
        detail=f"sha256 {artefact.sha256}" + (", as asked for" if expected_sha256 else ""),
    )
    model = load_model(directory)
    checks = (
        files,
        *model.check_golden_prices(),
        _residual(artefact),
        *_certificate(artefact, tolerance),
        _engines_agree(artefact),
        *_accuracy(model),
        *_no_arbitrage(model),
    )
    return VerificationReport(directory=directory, artefact=artefact, checks=checks)


def _check(name: str, value: float, limit: float, detail: str) -> CheckResult:
    return CheckResult(name=name, passed=value <= limit, value=value, limit=limit, detail=detail)


def _residual(artefact: Artefact) -> CheckResult:
    value = sampled_residual(artefact.network)
    return _check("equation residual", value, _RESIDUAL_TOLERANCE, "largest φ(y)·|R| over the domain")


def _certificate(artefact: Artefact, tolerance: float) -> tuple[CheckResult, ...]:
    stored = artefact.certificate
    computed = certify(artefact.network)
    same_knots = stored.s.shape == computed.s.shape and bool(np.allclose(stored.s, computed.s, rtol=1e-12))
    excess = float(np.max(computed.bound / stored.bound - 1.0)) if same_knots else float("inf")
    return (
        _check("certified error bound", computed.error_bound, tolerance, "of the price, in units of D·√(FK)"),
        _check("certificate is this network's", excess, 1e-6, "recomputed bound over stored bound, less 1"),
    )


def _engines_agree(artefact: Artefact) -> CheckResult:
    """Every device against NumPy, on options through each compiled function."""
    numpy_engine = NumPyEngine(artefact.network, artefact.certificate)
    worst = 0.0
    for engine in tensorflow_engines(artefact.network, artefact.certificate):
        for size in engine.batch_sizes:
            batch = sample_options(size, seed=0)
            found, expected = engine.price(batch).values, numpy_engine.price(batch).values
            worst = max(worst, float(np.max(np.abs(found - expected) / (np.abs(expected) + 1.0))))
    return _check("TensorFlow equals NumPy", worst, _ENGINE_TOLERANCE, "largest difference of prices and Greeks")


def _accuracy(model: PinnModel) -> tuple[CheckResult, ...]:
    accuracy = measure(model, options=100_000)
    greeks = ", ".join(f"{name} {getattr(accuracy, name):.1e}" for name in ("delta", "gamma", "vega", "theta", "rho"))
    return (
        _check("price against closed form", accuracy.price, PRICE_TOLERANCE, f"per strike, {accuracy.options} options"),
        _check(
            "Greeks against closed form",
            max(accuracy.delta, accuracy.gamma, accuracy.vega, accuracy.theta, accuracy.rho),
            1e-4,
            f"per natural size: {greeks}",
        ),
        _check("bound holds", accuracy.share_of_bound, 1.0, "largest share of a quote's own bound that was used"),
        _check("put-call parity", accuracy.parity, 1e-15, "per unit of spot + strike"),
    )


def _no_arbitrage(model: PinnModel) -> tuple[CheckResult, ...]:
    """Calls over 200 strikes by 40 maturities by 4 volatilities, without carry."""
    strikes, maturities = np.linspace(40.0, 250.0, 200), np.geomspace(1 / 365, 4.0, 40)
    volatilities = np.array([0.05, 0.2, 0.5, 1.0])
    v, t, k = (np.ascontiguousarray(a.ravel()) for a in np.meshgrid(volatilities, maturities, strikes, indexing="ij"))
    zero = np.zeros_like(k)
    quotes = model.price(OptionBatch(np.full_like(k, 100.0), k, t, zero, zero, v, np.ones(len(k), dtype=np.bool_)))
    price = quotes.price.reshape(len(volatilities), len(maturities), len(strikes))
    per_spot = price / 100.0
    below = np.maximum(100.0 - strikes, 0.0) / 100.0 - per_spot
    slope = np.diff(per_spot, axis=2)
    limit = _ARBITRAGE_TOLERANCE

    def worst(violation: FloatArray) -> float:
        return max(0.0, float(np.max(violation)))

    return (
        _check("price within its bounds", max(worst(below), worst(per_spot - 1.0)), limit, "intrinsic ≤ call ≤ spot"),
        _check("call falls with strike", worst(slope), limit, "no vertical-spread arbitrage"),
        _check("call is convex in strike", worst(-np.diff(slope, axis=2)), limit, "no butterfly arbitrage"),
        _check("call grows with maturity", worst(-np.diff(per_spot, axis=1)), limit, "no calendar arbitrage"),
        _check(
            "gamma and vega not negative", worst(-np.minimum(quotes.gamma, quotes.vega)), 0.0, "anywhere on the grid"
        ),
    )
