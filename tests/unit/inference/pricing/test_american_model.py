"""The shipped American model: accuracy, certificate, domain, single quotes, failing devices and wrong files."""

from __future__ import annotations

import hashlib
import json
import math
import shutil
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinn_inference.pricing import american_golden, integral_equation
from pinn_inference.pricing.american import AmericanModel, load_american, load_numpy_american, put_terms
from pinn_inference.pricing.american_artefact import PERCEPTRONS, read_american, write_american
from pinn_inference.pricing.american_engine import NumPyAmericanEngine, PremiumJets
from pinn_inference.pricing.american_network import inside
from pinn_inference.pricing.american_scalar import AmericanScalarPricer
from pinn_inference.pricing.errors import (
    ModelChecksumError,
    ModelError,
    ModelFormatError,
    ModelNotFoundError,
    ModelRuntimeError,
    ModelSelfCheckError,
)
from pinn_inference.pricing.loading import ModelSources, numpy_models, read_sources, tensorflow_models
from pinn_inference.pricing.model import bundled_directory, load_numpy_model
from pinn_inference.pricing.scalar import ScalarPricer, single
from pinn_inference.pricing.types import COLUMNS, FallbackReason, FloatArray, Method, OptionBatch, Quotes
from pinn_inference.training.american_accuracy import (
    american,
    exchanged,
    measure_american,
    sample_american,
    sample_domain,
)
from tests.support.american import in_whole_days, quantlib_prices, random_networks

DIRECTORY = bundled_directory("american")
EUROPEAN = load_numpy_model(bundled_directory())
MODEL = load_numpy_american(DIRECTORY, EUROPEAN)
DOMAIN = MODEL.artefact.networks.domain
SCALAR = AmericanScalarPricer(MODEL.artefact, ScalarPricer(EUROPEAN.artefact))
NUMBERS = ("price", "delta", "gamma", "vega", "theta", "rho", "error_bound", "exercise_boundary")


def grid() -> OptionBatch:
    """Puts and calls: σ 10, 25, 60 %; T a week, half a year, three years; r 0.25, 4, 12 %; q 0, 3, 12 %; S/K 0.5..2."""
    axes = np.meshgrid(
        [0.5, 0.8, 1.0, 1.25, 2.0],
        [7.0, 182.0, 1095.0],
        [0.0025, 0.04, 0.12],
        [0.0, 0.03, 0.12],
        [0.1, 0.25, 0.6],
        [0, 1],
    )
    ratio, days, rate, dividend, volatility, is_call = (axis.ravel() for axis in axes)
    batch = american(
        spot=100.0 * ratio,
        strike=np.full(len(ratio), 100.0),
        maturity=days / 365.0,
        rate=rate,
        dividend=dividend,
        volatility=volatility,
        is_call=is_call > 0,
    )
    put = put_terms(batch)
    return batch.take(inside(DOMAIN, put.s, put.kappa, put.lambda_))


def option(
    spot: float = 100.0,
    strike: float = 100.0,
    maturity: float = 1.0,
    rate: float = 0.05,
    dividend: float = 0.02,
    volatility: float = 0.25,
    is_call: bool = False,
) -> OptionBatch:
    return single(spot, strike, maturity, rate, dividend, volatility, is_call, True)


def methods(quotes: Quotes) -> set[str]:
    return {Method(code).label for code in quotes.method}


def test_prices_are_within_a_hundred_thousandth_of_the_strike_of_quantlib_s_over_a_grid() -> None:
    batch = grid()
    assert len(batch) > 400
    quotes, exact = MODEL.price(batch), quantlib_prices(batch)
    assert methods(quotes) == {"pinn"}
    error = np.abs(quotes.price - exact)
    assert np.max(error / batch.strike) <= 1e-5
    # QuantLib's own error is some 3e-7 of the strike.
    assert np.all(error <= quotes.error_bound + 5e-7 * np.maximum(batch.spot, batch.strike))


def test_random_options_are_within_the_same_of_quantlib_and_within_their_own_bounds() -> None:
    batch = in_whole_days(sample_american(400, DOMAIN, seed=29))
    quotes, exact = MODEL.price(batch), quantlib_prices(batch)
    rows = quotes.method == Method.PINN
    assert np.count_nonzero(rows) > 390
    error = np.abs(quotes.price - exact)
    assert np.max((error / batch.strike)[rows]) <= 1e-5
    assert np.all(error <= quotes.error_bound + 5e-7 * np.maximum(batch.spot, batch.strike))


@pytest.mark.parametrize("sample", [sample_american, sample_domain])
def test_the_certificate_holds_for_thousands_of_options_and_the_greeks_follow(sample: object) -> None:
    batch = sample(3_000, DOMAIN, seed=31)  # type: ignore[operator]
    accuracy = measure_american(MODEL, batch)
    assert accuracy.options == 3_000
    assert accuracy.share_of_bound < 1.0
    assert accuracy.price <= 3e-5
    assert accuracy.delta <= 1e-2
    assert accuracy.boundary <= 1e-3
    assert MODEL.error_bound <= 1e-4


def test_the_golden_prices_are_quantlib_s_and_every_engine_reproduces_them() -> None:
    golden = [row.price for row in american_golden.AMERICAN_GOLDEN_PRICES]
    assert quantlib_prices(american_golden.golden_batch()) == pytest.approx(golden, abs=1e-7)
    model = load_american(DIRECTORY, EUROPEAN)
    model.warm_up()
    model.self_check()
    assert all(check.passed for check in model.check_golden_prices())


def test_delta_and_theta_are_the_derivatives_of_the_price() -> None:
    batch = sample_american(2_000, DOMAIN, seed=37)
    quotes = MODEL.price(batch)
    put = put_terms(batch)
    ratio = np.log(batch.spot / quotes.exercise_boundary) * np.where(batch.is_call, -1.0, 1.0)
    away = (ratio > 0.05 * put.s) & inside(DOMAIN, put.s * 0.99, put.kappa * 1.03, put.lambda_ * 1.03)
    up, down = (MODEL.price(replace(batch, spot=batch.spot + side * 1e-4)).price for side in (1.0, -1.0))
    assert np.max(np.abs(quotes.delta - (up - down) / 2e-4)[away]) < 1e-4
    day = 1e-5 * batch.maturity
    later, earlier = (MODEL.price(replace(batch, maturity=batch.maturity + side * day)).price for side in (1.0, -1.0))
    decay = -(later - earlier) / (2.0 * day)
    scale = batch.spot * (batch.volatility / np.sqrt(batch.maturity) + batch.rate + batch.dividend)
    assert np.max((np.abs(quotes.theta - decay) / scale)[away]) < 1e-4


def test_a_call_is_a_put_with_spot_and_strike_and_rate_and_dividend_exchanged() -> None:
    batch = sample_american(2_000, DOMAIN, seed=41)
    dual = exchanged(batch)
    first, second = MODEL.price(batch), MODEL.price(dual)
    assert np.max(np.abs(first.price - second.price) / (batch.spot + batch.strike)) < 1e-14
    assert first.vega == pytest.approx(second.vega, rel=1e-9, abs=1e-4)
    # V = S·V_S + K·V_K, and V_K is the dual's delta.
    assert first.price == pytest.approx(batch.spot * first.delta + batch.strike * second.delta, abs=1e-9)


terms = {
    "spot": st.floats(40.0, 250.0),
    "maturity": st.floats(0.01, 3.0),
    "rate": st.floats(0.0, 0.12),
    "dividend": st.floats(0.0, 0.12),
    "volatility": st.floats(0.08, 0.7),
    "is_call": st.booleans(),
}


@settings(max_examples=200, deadline=None)
@given(**terms)
def test_every_quote_obeys_what_every_american_option_obeys(is_call: bool, **columns: float) -> None:
    batch = option(**columns, is_call=is_call)
    quotes, european = MODEL.price(batch), EUROPEAN.price(batch)
    sign = 1.0 if is_call else -1.0
    price, slack = quotes.price[0], 1e-12 * (columns["spot"] + 100.0)
    assert price >= max(sign * (columns["spot"] - 100.0), 0.0) - slack
    assert (
        price
        >= european.price[0]
        - european.error_bound[0]
        - quotes.error_bound[0] * (quotes.method[0] != Method.PINN)
        - slack
    )
    assert price <= (columns["spot"] if is_call else 100.0) + slack
    assert 0.0 <= sign * quotes.delta[0] <= 1.0 + 1e-12
    assert quotes.gamma[0] >= 0.0
    exercised = sign * (columns["spot"] - quotes.exercise_boundary[0]) >= 0.0
    if exercised and columns["maturity"] > 0.0:
        assert price == pytest.approx(sign * (columns["spot"] - 100.0), abs=1e-6)
        assert quotes.delta[0] == sign


@settings(max_examples=300, deadline=None)
@given(**terms)
def test_a_single_quote_is_the_vector_path_to_a_part_in_a_million_million(is_call: bool, **columns: float) -> None:
    batch = option(**columns, is_call=is_call)
    assert_single_quotes_agree(batch)


def assert_single_quotes_agree(batch: OptionBatch) -> None:
    quotes = MODEL.price(batch)
    columns = (getattr(batch, name).tolist() for name in COLUMNS[:-1])
    for row, inputs in enumerate(zip(*columns, strict=True)):
        quote = SCALAR.quote(*inputs)
        if quotes.reason[row] != FallbackReason.NONE:
            assert quote is None, inputs
            continue
        assert quote is not None, inputs
        assert quote.method == quotes.method[row]
        for name in NUMBERS:
            expected = getattr(quotes, name)[row]
            assert getattr(quote, name) == pytest.approx(expected, rel=1e-10, abs=1e-10), (name, inputs)


def test_single_quotes_agree_over_the_whole_domain_and_decline_beyond_it() -> None:
    assert_single_quotes_agree(sample_domain(2_000, DOMAIN, seed=43))
    assert_single_quotes_agree(sample_american(2_000, DOMAIN, seed=43))
    for beyond in (option(volatility=3.0), option(maturity=1e-6), option(volatility=0.0), option(spot=1e300)):
        assert_single_quotes_agree(beyond)


@pytest.mark.parametrize(
    ("batch", "boundary"),
    [
        (option(dividend=0.0, is_call=True), math.inf),
        (option(dividend=-0.01, rate=0.03, is_call=True), math.inf),
        (option(rate=0.0, dividend=0.03), 0.0),
        (option(rate=-0.01, dividend=-0.01), 0.0),
    ],
)
def test_what_is_never_exercised_early_is_european_and_says_so(batch: OptionBatch, boundary: float) -> None:
    quotes, european = MODEL.price(batch), EUROPEAN.price(batch)
    for name in (*NUMBERS[:-1], "method", "reason"):
        assert getattr(quotes, name).tolist() == getattr(european, name).tolist(), name
    assert quotes.exercise_boundary.tolist() == [boundary]


@pytest.mark.parametrize(
    "batch",
    [
        option(volatility=2.0),
        option(volatility=0.02),
        option(maturity=30.0),
        option(maturity=1e-4),
        option(maturity=0.0),
        option(dividend=-0.01),
    ],
)
def test_outside_the_domain_the_integral_equation_answers_and_says_so(batch: OptionBatch) -> None:
    quotes, expected = MODEL.price(batch), integral_equation.price(batch, reason=FallbackReason.OUT_OF_DOMAIN)
    for field in fields(Quotes):
        np.testing.assert_array_equal(getattr(quotes, field.name), getattr(expected, field.name), err_msg=field.name)
    assert quotes.reason.tolist() == [FallbackReason.OUT_OF_DOMAIN] or quotes.method.tolist() == [Method.PINN]


def test_a_batch_gives_what_its_options_give_one_by_one() -> None:
    batch = OptionBatch.concatenate(
        [sample_american(60, DOMAIN, seed=47), option(volatility=3.0), option(dividend=0.0, is_call=True)]
    )
    together = MODEL.price(batch)
    for row in range(len(batch)):
        alone = MODEL.price(batch.take(slice(row, row + 1)))
        for field in fields(Quotes):
            value, expected = getattr(alone, field.name)[0], getattr(together, field.name)[row]
            assert value == pytest.approx(expected, rel=1e-9, abs=1e-9, nan_ok=True), field.name


def test_both_styles_are_loaded_as_one_with_and_without_tensorflow() -> None:
    digests = {"european_sha256": EUROPEAN.sha256, "american_sha256": MODEL.sha256}
    batch = sample_american(3_000, DOMAIN, seed=53)
    batch = replace(batch, is_american=np.arange(len(batch)) % 2 == 0)
    sources = read_sources(bundled_directory(), DIRECTORY, **digests)
    first, second = numpy_models(sources), tensorflow_models(ModelSources.unpacked(sources.packed()))
    assert first.price(batch).price == pytest.approx(second.price(batch).price, rel=1e-11, abs=1e-11)
    assert numpy_models(read_sources(bundled_directory(), None)).american is None
    with pytest.raises(ModelChecksumError):
        read_sources(bundled_directory(), DIRECTORY, american_sha256="0" * 64)


class Failing:
    device = "broken"

    def evaluate(self, x: FloatArray, s: FloatArray, kappa: FloatArray, lambda_: FloatArray) -> PremiumJets:
        raise ModelRuntimeError("the device is gone")

    def warm_up(self) -> None:
        raise ModelRuntimeError("the device is gone")


class NotFinite(NumPyAmericanEngine):
    def evaluate(self, x: FloatArray, s: FloatArray, kappa: FloatArray, lambda_: FloatArray) -> PremiumJets:
        jets = super().evaluate(x, s, kappa, lambda_)
        jets.e_s[0] = np.nan
        return jets


def test_a_failing_device_costs_a_retry_and_the_last_one_leaves_the_integral_equation() -> None:
    batch = sample_american(20, DOMAIN, seed=59)
    spare = NumPyAmericanEngine(MODEL.artefact.networks)
    assert AmericanModel(MODEL.artefact, EUROPEAN, [Failing(), spare]).price(batch).price.tolist() == (
        MODEL.price(batch).price.tolist()
    )
    alone = AmericanModel(MODEL.artefact, EUROPEAN, [Failing()])
    quotes = alone.price(batch)
    assert methods(quotes) == {"integral_equation"}
    assert set(quotes.reason) == {FallbackReason.DEVICE_ERROR}
    assert quotes.price == pytest.approx(MODEL.price(batch).price, abs=1e-2)
    many = batch.take(np.resize(np.arange(len(batch)), 65_536))
    with pytest.raises(ModelRuntimeError, match="every engine failed: 65536 American options"):
        alone.price(many)
    with pytest.raises(ModelRuntimeError):
        alone.warm_up()
    with pytest.raises(ValueError, match="at least one engine"):
        AmericanModel(MODEL.artefact, EUROPEAN, [])


def test_a_number_that_is_not_finite_is_priced_by_the_integral_equation() -> None:
    batch = sample_domain(40, DOMAIN, seed=61)
    held = MODEL.price(batch).gamma > 1e-6
    batch = batch.take(held)
    quotes = AmericanModel(MODEL.artefact, EUROPEAN, [NotFinite(MODEL.artefact.networks)]).price(batch)
    assert quotes.reason.tolist()[:2] == [FallbackReason.NOT_FINITE, FallbackReason.NONE]
    assert np.isfinite(quotes.vega).all()


def test_networks_that_nobody_trained_fail_the_self_check() -> None:
    networks = random_networks(1)
    artefact = replace(MODEL.artefact, networks=networks)
    with pytest.raises(ModelSelfCheckError, match="golden: put at the money"):
        AmericanModel(artefact, EUROPEAN, [NumPyAmericanEngine(networks)]).self_check()


def test_a_model_that_is_written_is_read_back_and_equal_models_are_equal_files(tmp_path: Path) -> None:
    networks, certificate = MODEL.artefact.networks, MODEL.artefact.certificate
    arguments = {
        "networks": networks,
        "certificate": certificate,
        "greek_bounds": MODEL.artefact.greek_bounds,
        "record": {"note": "x"},
    }
    first = write_american(tmp_path / "a", name="a", version=None, **arguments)  # type: ignore[arg-type]
    second = write_american(tmp_path / "b", name="b", version="2", **arguments)  # type: ignore[arg-type]
    assert first.sha256 == second.sha256 == MODEL.sha256
    assert (first.version, second.version) == (first.sha256[:12], "2")
    assert first.record["note"] == "x"
    assert first.networks.domain == networks.domain
    for name in PERCEPTRONS:
        for one, other in zip(getattr(first.networks, name), getattr(networks, name), strict=True):
            assert np.array_equal(one.kernel, other.kernel)
            assert np.array_equal(one.bias, other.bias)


def _without_premium(arrays: dict[str, FloatArray]) -> None:
    del arrays["premium_kernel_0"]


def _with_nan(arrays: dict[str, FloatArray]) -> None:
    arrays["boundary_bias_0"][0] = np.nan


def _with_a_shrinking_domain(arrays: dict[str, FloatArray]) -> None:
    arrays["domain"][0] = 2.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without_premium, "premium_kernel_0"),
        (_with_nan, "boundary_bias_0"),
        (_with_a_shrinking_domain, "each range must grow"),
    ],
)
def test_weights_that_make_no_model_are_refused_by_name(tmp_path: Path, change: object, message: str) -> None:
    shutil.copytree(DIRECTORY, tmp_path / "m")
    path = tmp_path / "m" / "weights.npz"
    with np.load(path) as archive:
        arrays = {key: archive[key].copy() for key in archive.files}
    change(arrays)  # type: ignore[operator]
    np.savez(path, **arrays)
    with pytest.raises(ModelChecksumError):
        read_american(tmp_path / "m")
    record = json.loads((tmp_path / "m" / "model.json").read_text())
    record["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "m" / "model.json").write_text(json.dumps(record))
    with pytest.raises(ModelFormatError, match=message):
        read_american(tmp_path / "m")


def test_an_absent_model_and_one_of_the_other_style_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        read_american(tmp_path)
    with pytest.raises(ModelError, match="european options, where american ones are asked for"):
        read_american(bundled_directory())
    with pytest.raises(ModelError, match="american options, where european ones are asked for"):
        load_numpy_model(DIRECTORY)
