"""The shipped model: its accuracy, its domain, and what it does with failing devices and bad files."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from pathlib import Path

import mpmath as mp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinn_inference.pricing import artefact, closed_form, golden
from pinn_inference.pricing.engine import Evaluation, NumPyEngine
from pinn_inference.pricing.errors import (
    ModelChecksumError,
    ModelFormatError,
    ModelNotFoundError,
    ModelRuntimeError,
    ModelSelfCheckError,
)
from pinn_inference.pricing.model import PinnModel, bundled_directory, load_model
from pinn_inference.pricing.types import FallbackReason, Method, OptionBatch, Quotes
from pinn_inference.training.accuracy import measure, sample_options

GREEKS = ("delta", "gamma", "vega", "theta", "rho")


@pytest.fixture(scope="module")
def model() -> PinnModel:
    return load_model(bundled_directory())


def single(
    spot: float = 100.0,
    strike: float = 100.0,
    maturity: float = 1.0,
    rate: float = 0.02,
    dividend: float = 0.0,
    volatility: float = 0.2,
    is_call: bool = True,
) -> OptionBatch:
    columns = (np.array([value]) for value in (spot, strike, maturity, rate, dividend, volatility))
    return OptionBatch(*columns, np.array([is_call]))


def reasons(quotes: Quotes) -> list[str]:
    return [FallbackReason(code).label for code in quotes.reason]


def methods(quotes: Quotes) -> list[str]:
    return [Method(code).label for code in quotes.method]


def test_prices_are_within_a_millionth_of_the_strike_and_greeks_follow(model: PinnModel) -> None:
    accuracy = measure(model, options=100_000, seed=17)
    assert accuracy.options == 100_000
    assert accuracy.price <= 1e-6
    assert accuracy.price <= 1e-7, "the requirement is 1e-6; the shipped model is better than a tenth of it"
    assert accuracy.delta <= 1e-6
    assert accuracy.gamma_relative <= 1e-5
    assert accuracy.vega_relative <= 1e-5
    assert accuracy.theta <= 5e-6
    assert accuracy.rho <= 1e-6
    assert accuracy.parity <= 5e-16
    assert accuracy.share_of_bound < 1.0


def test_the_record_tells_the_measured_accuracy(model: PinnModel) -> None:
    record = artefact.read(bundled_directory()).record
    measured = measure(model, options=record["measured"]["options"]).record()
    assert record["measured"]["price"] == pytest.approx(measured["price"], rel=0.02)
    assert record["error_bound"] == model.error_bound


@pytest.mark.parametrize("deviation", [1e-4, 1e-3, 1e-2, 0.1, 2.5])
def test_accuracy_holds_for_the_smallest_variances_and_out_to_the_border(model: PinnModel, deviation: float) -> None:
    y = np.concatenate([-np.linspace(0.0, 8.4, 200), np.linspace(0.0, 8.4, 200)])
    one = np.ones_like(y)
    for is_call in (True, False):
        batch = OptionBatch(
            np.exp(y * deviation), one, one, 0 * one, 0 * one, deviation * one, np.full(len(y), is_call)
        )
        quotes, exact = model.price(batch), closed_form.price(batch)
        assert set(methods(quotes)) == {"pinn"}
        assert np.max(np.abs(quotes.price - exact.price) / np.sqrt(batch.spot)) < 1e-7
        gamma_scale = 1.0 / (batch.spot * deviation)
        assert np.max(np.abs(quotes.gamma - exact.gamma) / gamma_scale) < 1e-5


def test_beyond_the_wings_the_network_answers_with_the_intrinsic_value(model: PinnModel) -> None:
    batch = OptionBatch.concatenate([single(spot, 100.0, 0.01, 0.0, 0.0, 0.1) for spot in (50.0, 200.0)])
    quotes = model.price(batch)
    assert methods(quotes) == ["pinn", "pinn"]
    assert quotes.price.tolist() == [0.0, 100.0]
    assert quotes.delta.tolist() == [0.0, 1.0]
    assert quotes.gamma.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (single(volatility=3.0), "out_of_domain"),
        (single(maturity=200.0), "out_of_domain"),
        (single(volatility=1e6), "out_of_domain"),
        (single(maturity=0.0), "zero_variance"),
        (single(volatility=0.0), "zero_variance"),
        (single(maturity=0.0, spot=90.0), "zero_variance"),
    ],
)
def test_the_closed_form_answers_outside_the_domain_and_says_why(
    model: PinnModel, option: OptionBatch, reason: str
) -> None:
    quotes = model.price(option)
    assert methods(quotes) == ["closed_form"]
    assert reasons(quotes) == [reason]
    assert quotes.price.tolist() == closed_form.price(option).price.tolist()


def test_a_mixed_batch_keeps_its_order_and_each_row_its_own_reason(model: PinnModel) -> None:
    rows = [single(), single(volatility=4.0), single(95.0, is_call=False), single(maturity=0.0), single(105.0)]
    quotes = model.price(OptionBatch.concatenate(rows))
    assert reasons(quotes) == ["none", "out_of_domain", "none", "zero_variance", "none"]
    assert methods(quotes) == ["pinn", "closed_form", "pinn", "closed_form", "pinn"]
    for index, row in enumerate(rows):
        assert quotes.price[index] == pytest.approx(closed_form.price(row).price[0], abs=1e-5)


def test_a_batch_gives_what_its_options_give_one_by_one(model: PinnModel) -> None:
    batch = sample_options(200, seed=5)
    together = model.price(batch)
    for row in range(len(batch)):
        alone = model.price(batch.take(slice(row, row + 1)))
        for field in fields(Quotes):
            value, expected = getattr(alone, field.name)[0], getattr(together, field.name)[row]
            assert value == pytest.approx(expected, rel=1e-12, abs=1e-12, nan_ok=True), field.name


def test_a_batch_larger_than_a_chunk_keeps_its_order(model: PinnModel) -> None:
    batch = sample_options(70_001, seed=6)
    quotes = model.price(batch)
    tail = model.price(batch.take(slice(65_000, 70_001)))
    assert len(quotes) == 70_001
    assert quotes.price[65_000:] == pytest.approx(tail.price, rel=1e-12, abs=1e-12)


def test_threads_that_price_at_once_do_not_disturb_each_other(model: PinnModel) -> None:
    batches = [sample_options(50 + n, seed=n) for n in range(24)]
    expected = [model.price(batch).price.tolist() for batch in batches]
    with ThreadPoolExecutor(max_workers=4) as pool:
        found = [quotes.price.tolist() for quotes in pool.map(model.price, batches)]
    assert found == expected


def test_an_empty_batch_gives_no_quotes(model: PinnModel) -> None:
    assert len(model.price(sample_options(0, seed=1))) == 0


terms = {
    "spot": st.floats(20.0, 500.0),
    "strike": st.floats(20.0, 500.0),
    "maturity": st.floats(1e-4, 6.0),
    "rate": st.floats(-0.05, 0.2),
    "dividend": st.floats(-0.02, 0.15),
    "volatility": st.floats(0.01, 1.0),
}


@settings(deadline=None, max_examples=150)
@given(**terms)
def test_a_put_and_its_call_share_one_time_value(model: PinnModel, **columns: float) -> None:
    call, put = model.price(single(**columns)), model.price(single(**columns, is_call=False))
    t = columns["maturity"]
    asset = columns["spot"] * np.exp(-columns["dividend"] * t)
    cash = columns["strike"] * np.exp(-columns["rate"] * t)
    assert call.price[0] - put.price[0] == pytest.approx(asset - cash, abs=4e-16 * (asset + cash))
    assert call.gamma[0] == put.gamma[0]
    assert call.vega[0] == put.vega[0]


@settings(deadline=None, max_examples=150)
@given(**terms, is_call=st.booleans())
def test_quotes_are_within_their_own_error_bound_and_their_greeks_have_their_signs(
    model: PinnModel, is_call: bool, **columns: float
) -> None:
    quotes, exact = (price(single(**columns, is_call=is_call)) for price in (model.price, closed_form.price))
    assert abs(quotes.price[0] - exact.price[0]) <= quotes.error_bound[0]
    assert quotes.error_bound[0] <= 1e-5 * np.sqrt(columns["spot"] * columns["strike"]) * np.exp(0.2)
    assert quotes.gamma[0] >= 0.0
    assert quotes.vega[0] >= 0.0
    slack = 1e-6
    asset_delta = np.exp(-columns["dividend"] * columns["maturity"])
    if is_call:
        assert -slack <= quotes.delta[0] <= asset_delta + slack
    else:
        assert -asset_delta - slack <= quotes.delta[0] <= slack


@settings(deadline=None, max_examples=100)
@given(**terms, factor=st.sampled_from([2.0**-10, 0.5, 4.0, 2.0**20]))
def test_prices_scale_with_spot_and_strike(model: PinnModel, factor: float, **columns: float) -> None:
    plain = model.price(single(**columns))
    scaled = model.price(single(**columns | {name: factor * columns[name] for name in ("spot", "strike")}))
    assert scaled.price[0] == pytest.approx(factor * plain.price[0], rel=1e-14)
    assert scaled.delta[0] == pytest.approx(plain.delta[0], rel=1e-14, abs=1e-300)


class FakeEngine:
    """NumPy, or a device that fails, or one that returns NaN where asked to."""

    def __init__(self, *, fails: bool = False, nan_rows: tuple[int, ...] = ()) -> None:
        self.device = "/FAKE:0"
        self.batch_sizes = (1,)
        self.calls = 0
        self._fails = fails
        self._nan_rows = list(nan_rows)
        bundled = artefact.read(bundled_directory())
        self._numpy = NumPyEngine(bundled.network, bundled.certificate)

    def price(self, batch: OptionBatch) -> Evaluation:
        self.calls += 1
        if self._fails:
            raise ModelRuntimeError("out of memory")
        evaluation = self._numpy.price(batch)
        evaluation.values[1, self._nan_rows] = np.nan
        return evaluation

    def warm_up(self) -> None:
        self.price(single())


def model_on(*engines: FakeEngine) -> PinnModel:
    return PinnModel(artefact.read(bundled_directory()), engines)


def test_a_failing_device_is_followed_by_the_next_one() -> None:
    first, second = FakeEngine(fails=True), FakeEngine()
    quotes = model_on(first, second).price(single())
    assert (first.calls, second.calls) == (1, 1)
    assert methods(quotes) == ["pinn"]


def test_when_every_device_fails_the_closed_form_answers() -> None:
    batch = OptionBatch.concatenate([single(), single(volatility=5.0)])
    quotes = model_on(FakeEngine(fails=True)).price(batch)
    assert reasons(quotes) == ["device_error", "out_of_domain"]
    assert quotes.price.tolist() == closed_form.price(batch).price.tolist()


def test_warm_up_fails_only_when_the_last_device_does() -> None:
    model_on(FakeEngine(fails=True), FakeEngine()).warm_up()
    with pytest.raises(ModelRuntimeError):
        model_on(FakeEngine(), FakeEngine(fails=True)).warm_up()


def test_a_row_that_comes_out_as_nan_is_priced_by_the_closed_form() -> None:
    batch = OptionBatch.concatenate([single(90.0), single(100.0), single(110.0)])
    quotes = model_on(FakeEngine(nan_rows=(1,))).price(batch)
    assert reasons(quotes) == ["none", "not_finite", "none"]
    for name in ("price", *GREEKS, "error_bound"):
        assert np.isfinite(getattr(quotes, name)).all()
    assert quotes.price[1] == closed_form.price(batch).price[1]


@pytest.mark.parametrize("row", range(len(golden.GOLDEN_PRICES)))
def test_golden_answers_are_the_formula_at_forty_digits(row: int) -> None:
    option = golden.GOLDEN_PRICES[row]
    with mp.workdps(40):
        s, k, t, r, q, v = (mp.mpf(term) for term in option.terms)
        sign, std = (1 if option.is_call else -1), v * mp.sqrt(t)
        d1 = (mp.log(s / k) + (r - q) * t) / std + std / 2
        asset, cash, density = s * mp.exp(-q * t), k * mp.exp(-r * t), mp.npdf(d1)
        up, down = mp.ncdf(sign * d1), mp.ncdf(sign * (d1 - std))
        answers = (
            sign * (asset * up - cash * down),
            sign * asset / s * up,
            asset * density / (s * s * std),
            asset * density * mp.sqrt(t),
            -asset * density * v / (2 * mp.sqrt(t)) + sign * (q * asset * up - r * cash * down),
            sign * t * cash * down,
        )
    assert option.answers == pytest.approx(tuple(float(answer) for answer in answers), rel=1e-15)


def test_the_shipped_model_passes_its_own_check(model: PinnModel) -> None:
    model.self_check()
    assert all(result.passed for result in model.check_golden_prices())


def test_a_model_whose_weights_are_off_fails_its_check_by_name() -> None:
    class OffEngine(FakeEngine):
        def price(self, batch: OptionBatch) -> Evaluation:
            evaluation = super().price(batch)
            evaluation.values[0] *= 1.0001
            return evaluation

    with pytest.raises(ModelSelfCheckError, match=r"at the money call: price 10\.45"):
        model_on(OffEngine()).self_check()


def test_a_model_that_leaves_its_work_to_the_closed_form_fails_its_check() -> None:
    with pytest.raises(ModelSelfCheckError, match="11 of 11 came from the closed form"):
        model_on(FakeEngine(fails=True)).self_check()


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    target = tmp_path / "model"
    target.mkdir()
    for name in (artefact.WEIGHTS_FILE, artefact.RECORD_FILE):
        shutil.copy(bundled_directory() / name, target / name)
    return target


def test_the_checksum_is_that_of_the_weights_file(copy: Path) -> None:
    digest = hashlib.sha256((copy / "weights.npz").read_bytes()).hexdigest()
    assert artefact.read(copy, expected_sha256=digest.upper()).sha256 == digest


def test_other_weights_than_asked_for_are_refused_with_both_checksums(copy: Path) -> None:
    digest = artefact.read(copy).sha256
    with pytest.raises(ModelChecksumError, match=f"expected sha256 {'0' * 64}, found {digest}") as caught:
        load_model(copy, expected_sha256="0" * 64)
    assert caught.value.reason == "ModelChecksumMismatch"


def test_weights_that_are_not_those_of_the_record_are_refused(copy: Path) -> None:
    content = bytearray((copy / "weights.npz").read_bytes())
    content[len(content) // 2] ^= 1
    (copy / "weights.npz").write_bytes(content)
    with pytest.raises(ModelChecksumError, match=r"as in model\.json"):
        artefact.read(copy)


@pytest.mark.parametrize("missing", ["weights.npz", "model.json"])
def test_a_missing_file_is_named(copy: Path, missing: str) -> None:
    (copy / missing).unlink()
    with pytest.raises(ModelNotFoundError, match=missing) as caught:
        artefact.read(copy)
    assert caught.value.reason == "ModelNotFound"


def test_a_model_that_is_not_bundled_is_refused_with_those_that_are() -> None:
    with pytest.raises(ModelNotFoundError, match="there is american, european"):
        bundled_directory("asian")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "format_version is 2"),
        ({"name": ""}, "name is ''"),
        ({"version": 7}, "version is 7"),
        ({"sha256": None}, "sha256 is None"),
    ],
)
def test_a_record_with_a_bad_field_is_refused_by_name(copy: Path, change: dict[str, object], message: str) -> None:
    record = json.loads((copy / "model.json").read_text())
    (copy / "model.json").write_text(json.dumps(record | change))
    with pytest.raises(ModelFormatError, match=message) as caught:
        artefact.read(copy)
    assert caught.value.reason == "ModelFormatInvalid"


@pytest.mark.parametrize("content", ["{", "[]", '"text"'])
def test_a_record_that_is_no_json_object_is_refused(copy: Path, content: str) -> None:
    (copy / "model.json").write_text(content)
    with pytest.raises(ModelFormatError, match=r"model\.json"):
        artefact.read(copy)


def rewrite_weights(directory: Path, **changes: object) -> None:
    """Replaces arrays (None removes one) and corrects the checksum in the record."""
    path = directory / "weights.npz"
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files} | changes
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})  # type: ignore[arg-type]
    record = json.loads((directory / "model.json").read_text())
    record["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (directory / "model.json").write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kernel_1": None}, "'bias_1'|'kernel_1'"),
        ({"kernel_0": np.zeros((3, 16))}, "'kernel_0' is float64 of shape"),
        ({"bias_1": np.zeros(16, dtype=np.float32)}, "'bias_1' is float32"),
        ({"bias_2": np.array([np.nan])}, "must be finite"),
        ({"kernel_0": np.array([[{}]], dtype=object)}, "not a NumPy archive|allow_pickle"),
        ({"domain": np.array([8.5, -1.0])}, "both must be positive"),
        ({"format_version": np.array(9)}, "format_version is 9"),
        ({"certificate_bound": np.zeros(3)}, "'certificate_bound' is float64 of shape"),
        ({"domain": np.array([8.5, 9.0])}, "reach s = √w_max"),
    ],
)
def test_weights_of_another_form_are_refused_by_array(copy: Path, changes: dict[str, object], message: str) -> None:
    rewrite_weights(copy, **changes)
    with pytest.raises(ModelFormatError, match=message):
        artefact.read(copy)


def test_a_file_that_is_no_archive_is_refused(copy: Path) -> None:
    (copy / "weights.npz").write_bytes(b"weights")
    record = json.loads((copy / "model.json").read_text())
    record["sha256"] = hashlib.sha256(b"weights").hexdigest()
    (copy / "model.json").write_text(json.dumps(record))
    with pytest.raises(ModelFormatError, match="not a NumPy archive"):
        artefact.read(copy)


def test_a_model_written_twice_has_one_checksum(tmp_path: Path) -> None:
    original = artefact.read(bundled_directory())
    for part in ("a", "b"):
        artefact.write(
            tmp_path / part,
            name="copy",
            version="7",
            network=original.network,
            certificate=original.certificate,
            record={"training": {}},
        )
    again = artefact.read(tmp_path / "a", expected_sha256=artefact.read(tmp_path / "b").sha256)
    assert again.sha256 == original.sha256
    assert (again.name, again.version) == ("copy", "7")
    assert again.network.to_vector().tolist() == original.network.to_vector().tolist()
