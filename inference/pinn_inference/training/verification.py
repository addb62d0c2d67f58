"""Decides whether a model on disk may serve: every check by name, with what was measured and what is allowed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
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
from pinn_inference.pricing.tensorflow_engine import COLUMNS
from pinn_inference.pricing.types import FloatArray, OptionBatch
from pinn_inference.tensorflow_runtime import load_tensorflow
from pinn_inference.training import saved_model
from pinn_inference.training.accuracy import (
    STATED_MONEYNESS,
    STATED_VARIANCE,
    measure,
    measure_domain,
    sample_options,
)

BOUND_TOLERANCE: Final = 1e-6
"""Largest certified error a model may have to be published, in units of D·√(FK)."""
PRICE_TOLERANCE: Final = 1e-7
DELTA_TOLERANCE: Final = 1e-6
GREEK_TOLERANCE: Final = 1e-5
"""Gamma, vega, theta and rho, as `DomainAccuracy` measures them."""
_RESIDUAL_TOLERANCE: Final = 1e-4
_ENGINE_TOLERANCE: Final = 1e-12
_ARBITRAGE_TOLERANCE: Final = 1e-9
_CERTIFICATE_DIGITS: Final = 1e-2
"""How far a recomputed bound may exceed the stored one: least squares differ between linear algebra libraries."""


@dataclass(frozen=True, slots=True)
class VerificationReport:
    """All checks in the order they ran; `model` is None when the files could not be read."""

    directory: Path
    model: PinnModel | None
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
        return VerificationReport(directory=directory, model=None, checks=(check,))
    model = load_model(directory)
    checks = (
        *_files(directory, artefact, asked_for=expected_sha256 is not None),
        *model.check_golden_prices(),
        _residual(artefact),
        *_certificate(artefact, tolerance),
        *_determinism(directory, model),
        *_accuracy(model),
        *_no_arbitrage(model),
    )
    return VerificationReport(directory=directory, model=model, checks=checks)


def _check(name: str, value: float, limit: float, detail: str) -> CheckResult:
    return CheckResult(name=name, passed=value <= limit, value=value, limit=limit, detail=detail)


def _files(directory: Path, artefact: Artefact, *, asked_for: bool) -> Iterator[CheckResult]:
    """The weights, whose checksum `read` has compared, and whatever else the record gives a checksum for."""
    yield _check("files and checksum", 0.0, 0.0, f"sha256 {artefact.sha256}" + (", as asked for" if asked_for else ""))
    others = artefact.record.get("files", {})
    if not others:
        return
    wrong = [name for name, sha256 in others.items() if _sha256(directory, name) != sha256]
    detail = f"not as in {artefacts.RECORD_FILE}: {', '.join(wrong)}" if wrong else f"{len(others)} as recorded"
    yield _check("other files", len(wrong), 0.0, detail)


def _sha256(directory: Path, name: str) -> str | None:
    path = (directory / name).resolve()
    if not path.is_relative_to(directory.resolve()):
        return None
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


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
        _check("certificate is this network's", excess, _CERTIFICATE_DIGITS, "recomputed over stored bound, less 1"),
    )


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
            worst = max(worst, _difference(first, numpy_engine.price(batch).values))
    devices = ", ".join(model.devices)
    yield _check("two evaluations give equal bits", changed, 0.0, f"numbers that differ, on {devices}")
    yield _check("all engines agree", worst, _ENGINE_TOLERANCE, f"prices and Greeks on {devices}, relative to 1 + size")
    exported = directory / saved_model.DIRECTORY
    if exported.is_dir():
        batch = sample_options(1000, seed=0)
        found = _from_saved_model(exported, batch)
        yield _check(
            "SavedModel agrees", _difference(found, numpy_engine.price(batch).values), _ENGINE_TOLERANCE, "the same"
        )


def _difference(found: FloatArray, expected: FloatArray) -> float:
    return float(np.max(np.abs(found - expected) / (np.abs(expected) + 1.0)))


def _from_saved_model(directory: Path, batch: OptionBatch) -> FloatArray:
    """What the serving signature answers, in the rows of `Evaluation.values`; NaN when it cannot be loaded."""
    tf = load_tensorflow()
    try:
        signature = tf.saved_model.load(str(directory)).signatures["serving_default"]
        answer = signature(**{name: tf.constant(getattr(batch, name)) for name in (*COLUMNS, "is_call")})
        return np.stack([answer[name].numpy() for name in saved_model.OUTPUTS])
    except (OSError, KeyError, ValueError, TypeError, tf.errors.OpError):
        return np.full((len(saved_model.OUTPUTS), len(batch)), np.nan)


def _accuracy(model: PinnModel) -> tuple[CheckResult, ...]:
    """Over the stated domain on a grid, and over what desks quote at random, with carry."""
    domain, sample = measure_domain(model), measure(model, options=100_000)
    low, high = STATED_VARIANCE
    where = f"{domain.options} options, σ²T {low:g}..{high:g}, |ln F/K| ≤ {STATED_MONEYNESS:g}"
    greeks = {name: getattr(domain, name) for name in ("gamma", "vega", "theta", "rho")}
    sampled = ", ".join(f"{name} {getattr(sample, name):.1e}" for name in ("delta", "gamma", "vega", "theta", "rho"))
    return (
        _check("price against closed form", domain.price, PRICE_TOLERANCE, f"per present value of strike, {where}"),
        _check("delta against closed form", domain.delta, DELTA_TOLERANCE, where),
        _check(
            "other Greeks against closed form",
            # Not max(), which loses a NaN.
            float(np.max(list(greeks.values()))),
            GREEK_TOLERANCE,
            "per largest: " + ", ".join(f"{name} {value:.1e}" for name, value in greeks.items()),
        ),
        _check("sampled prices", sample.price, PRICE_TOLERANCE, f"per strike, {sample.options} random options"),
        _check(
            "sampled Greeks",
            float(np.max([sample.delta, sample.gamma, sample.vega, sample.theta, sample.rho])),
            GREEK_TOLERANCE,
            f"per natural size: {sampled}",
        ),
        _check(
            "bound holds",
            float(np.max([domain.share_of_bound, sample.share_of_bound])),
            1.0,
            "largest share of a quote's own bound that was used",
        ),
        _check("put-call parity", sample.parity, 1e-15, "per unit of spot + strike"),
    )


def _no_arbitrage(model: PinnModel) -> tuple[CheckResult, ...]:
    """Calls on a forward of 1; with the parity of puts and calls these are all European prices.

    Two grids over w = σ²T from 1e-6 to the end of the domain: strikes from e⁻³ to e³ that are the same for every w, and
    strikes K = e^(y·√w) that are close enough for the narrowest distribution.
    """
    w = np.geomspace(STATED_VARIANCE[0], model.artefact.network.domain.w_max * (1.0 - 1e-12), 120)
    fixed = np.repeat(np.exp(np.linspace(-STATED_MONEYNESS, STATED_MONEYNESS, 241))[None, :], len(w), axis=0)
    narrow = np.exp(np.linspace(-8.4, 8.4, 201) * np.sqrt(w)[:, None])
    outside, rising, bending, negative = [], [], [], []
    for strikes in (fixed, narrow):
        k = strikes.ravel()
        one, zero = np.ones_like(k), np.zeros_like(k)
        maturity = np.repeat(w, strikes.shape[1])
        quotes = model.price(OptionBatch(one, k, maturity, zero, zero, one, np.ones(len(k), dtype=np.bool_)))
        price = quotes.price.reshape(strikes.shape)
        slope = np.diff(price, axis=1) / np.diff(strikes, axis=1)
        outside += [np.maximum(1.0 - strikes, 0.0) - price, price - 1.0]
        rising += [slope, -1.0 - slope]
        bending.append(-np.diff(slope, axis=1))
        negative.append(-np.minimum(quotes.gamma, quotes.vega))
        if strikes is fixed:
            falling = -np.diff(price, axis=0)

    def worst(*violations: FloatArray) -> float:
        return float(np.max([0.0, *(np.max(violation) for violation in violations)]))

    limit = _ARBITRAGE_TOLERANCE
    return (
        _check("price within its bounds", worst(*outside), limit, "intrinsic ≤ call ≤ forward"),
        _check("call falls with strike", worst(*rising), limit, "no vertical-spread arbitrage, nor a slope below −1"),
        _check("call is convex in strike", worst(*bending), limit, "no butterfly arbitrage"),
        _check("call grows with variance", worst(falling), limit, "no calendar arbitrage"),
        _check("gamma and vega not negative", worst(*negative), 0.0, "anywhere on the grids"),
    )
