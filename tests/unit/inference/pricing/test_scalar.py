"""The single-quote path gives the vector path's numbers, and steps back where the network has no answer."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pinn_inference.pricing.artefact import bundled_directory, read
from pinn_inference.pricing.model import PinnModel, load_model, load_numpy_model
from pinn_inference.pricing.network import Architecture, Domain, Network, evaluate
from pinn_inference.pricing.reduction import Reduced, reduce
from pinn_inference.pricing.scalar import ScalarNetwork, ScalarPricer, ScalarQuote, single
from pinn_inference.pricing.types import FallbackReason, FloatArray, Method, OptionBatch
from pinn_inference.training.accuracy import sample_options

ARTEFACT = read(bundled_directory())
PRICER = ScalarPricer(ARTEFACT)
FIELDS = ("price", "delta", "gamma", "vega", "theta", "rho", "error_bound")
Inputs = tuple[float, float, float, float, float, float, bool]


MODEL = load_numpy_model(bundled_directory())


def sizes(batch: OptionBatch, reduced: Reduced) -> dict[str, FloatArray]:
    """The natural size of each number: what it is a share of, whatever currency or calendar is used."""
    present = reduced.asset + reduced.cash
    curvature = reduced.scale / reduced.s
    return {
        "price": present,
        "delta": present / batch.spot,
        "gamma": curvature / batch.spot**2,
        "vega": curvature * batch.volatility * batch.maturity,
        "theta": (np.abs(batch.dividend) + np.abs(batch.rate)) * present + batch.volatility**2 * curvature,
        "rho": batch.maturity * present,
        "error_bound": present,
    }


def rows(batch: OptionBatch) -> list[Inputs]:
    """Plain floats, as a request brings them."""
    columns = (batch.spot, batch.strike, batch.maturity, batch.rate, batch.dividend, batch.volatility, batch.is_call)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def assert_as_vector_path(batch: OptionBatch, model: PinnModel, pricer: ScalarPricer) -> None:
    quotes, reduced = model.price(batch), reduce(batch)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        natural = sizes(batch, reduced)
    # y = |x|/s inherits the last digits of a logarithm, which differ between libraries, s times enlarged.
    digits = 1.0 + np.abs(reduced.x) + (np.abs(batch.rate) + np.abs(batch.dividend)) * batch.maturity
    for index, inputs in enumerate(rows(batch)):
        quote = pricer.quote(*inputs)
        if quotes.reason[index] != FallbackReason.NONE:
            assert quote is None, inputs
            continue
        assert quote is not None, inputs
        assert quote.method == Method.PINN == quotes.method[index]
        shift = 2e-15 * digits[index] / reduced.s[index]
        for name in FIELDS:
            tolerance = (1e-12 + (0.0 if name in ("price", "error_bound") else shift)) * natural[name][index]
            difference = abs(getattr(quote, name) - getattr(quotes, name)[index])
            assert difference <= tolerance, (name, inputs, difference / natural[name][index])


signed = st.floats(-0.3, 0.3)
inputs = st.tuples(
    st.floats(-3.0, 3.0).map(lambda x: 100.0 * math.exp(x)),
    st.sampled_from([100.0, 1.0, 5_000.0]),
    st.floats(0.0, 40.0) | st.floats(0.0, 1e-3),
    signed,
    signed,
    st.floats(0.0, 3.0) | st.floats(0.0, 1e-3),
    st.booleans(),
)


@settings(max_examples=600, deadline=None)
@given(inputs)
@example((100.0, 100.0, 1.0, 0.0, 0.0, 0.2, True))
@example((100.0, 100.0, 1.0, 0.0, 0.0, 0.2, False))
@example((100.0, 100.0, 1.0, 0.0, 0.0, 2.5, True))
@example((100.0, 100.0, 1.0, 0.0, 0.0, math.nextafter(2.5, 3.0), True))
@example((100.0, 100.0, 1.0, 0.0, 0.0, 1e-8, True))
@example((100.0, 100.0, 0.0, 0.05, 0.0, 0.2, True))
@example((300.0, 100.0, 0.01, 0.05, 0.0, 0.2, False))
@example((1e-90, 1e90, 1.0, 0.0, 0.0, 0.2, False))
@example((100.0, 100.0, 30.0, 2.0, -3.0, 0.1, False))
def test_a_single_quote_is_the_vector_path_to_a_part_in_a_million_million(inputs: Inputs) -> None:
    assert_as_vector_path(single(*inputs), MODEL, PRICER)


def test_random_options_of_the_whole_domain_agree_with_tensorflow() -> None:
    assert_as_vector_path(sample_options(2_000, seed=5), load_model(bundled_directory()), PRICER)


@settings(max_examples=20, deadline=None)
@given(hidden=st.lists(st.integers(1, 20), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_a_network_of_any_shape_is_evaluated(hidden: list[int], seed: int) -> None:
    architecture = Architecture(hidden=tuple(hidden))
    vector = np.random.default_rng(seed).normal(size=architecture.parameter_count)
    network = Network.from_vector(vector, architecture, Domain())
    source = ScalarNetwork(network)
    for y, w in ((0.0, 1e-16), (0.3, 0.04), (8.5, 6.25)):
        jets = evaluate(network, np.array([y]), np.array([w]))
        expected = [jets.n[0], jets.n_y[0], jets.n_w[0]]
        assert source.evaluate(y, w)[:3] == pytest.approx(expected, rel=1e-12, abs=1e-12)


def test_call_and_put_differ_by_the_forward_exactly() -> None:
    call = PRICER.quote(100.0, 95.0, 0.5, 0.03, 0.01, 0.22, True)
    put = PRICER.quote(100.0, 95.0, 0.5, 0.03, 0.01, 0.22, False)
    assert call is not None
    assert put is not None
    forward = 100.0 * math.exp(-0.005) - 95.0 * math.exp(-0.015)
    assert call.price - put.price == pytest.approx(forward, abs=1e-13)
    assert call.gamma == put.gamma
    assert call.vega == put.vega


@pytest.mark.parametrize(
    "inputs",
    [
        (math.nan, 100.0, 1.0, 0.0, 0.0, 0.2, True),
        (100.0, math.inf, 1.0, 0.0, 0.0, 0.2, True),
        (100.0, 0.0, 1.0, 0.0, 0.0, 0.2, True),
        (0.0, 100.0, 1.0, 0.0, 0.0, 0.2, True),
        (100.0, 100.0, -1.0, 0.0, 0.0, 0.2, True),
        (100.0, 100.0, 1.0, 0.0, 0.0, -0.2, True),
        (100.0, 100.0, 1.0, -1e4, 0.0, 0.2, True),
        (100.0, 100.0, math.inf, 0.0, 0.0, 0.0, True),
        (100.0, 100.0, 1.0, 0.0, 0.0, math.nan, True),
    ],
)
def test_what_has_no_finite_answer_is_left_to_the_vector_path(inputs: Inputs) -> None:
    assert PRICER.quote(*inputs) is None


def test_a_network_that_answers_nan_is_left_to_the_vector_path() -> None:
    vector = np.full_like(ARTEFACT.network.to_vector(), np.nan)
    broken = Network.from_vector(vector, ARTEFACT.network.architecture, ARTEFACT.network.domain)
    assert ScalarPricer(replace(ARTEFACT, network=broken)).quote(100.0, 95.0, 0.5, 0.03, 0.01, 0.22, True) is None


def test_threads_do_not_disturb_each_other() -> None:
    options = rows(sample_options(300, seed=6))
    alone = [PRICER.quote(*option) for option in options]

    def price_all(start: int) -> bool:
        order = [*range(start, len(options)), *range(start)]
        return all(PRICER.quote(*options[index]) == alone[index] for index in order for _ in range(3))

    # NaN differs from itself: European quotes have no exercise boundary, and the tuple compares it by identity first.
    assert all(quote is None or math.isnan(quote.exercise_boundary) for quote in alone)
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(price_all, (0, 70, 140, 210)))


def test_one_row_of_a_batch_becomes_a_scalar_quote() -> None:
    batch = OptionBatch.concatenate(
        [single(100.0, 95.0, 0.5, 0.03, 0.01, 0.22, True), single(100.0, 95.0, 0.5, 0.03, 0.01, 9.0, False)]
    )
    quotes = MODEL.price(batch)
    quote = ScalarQuote.of(quotes, 1)
    assert quote.price == quotes.price[1]
    assert quote.method is Method.CLOSED_FORM
    assert quote.reason is FallbackReason.OUT_OF_DOMAIN
    assert not quote.cached
    assert all(type(value) is float for value in quote[:8])
    assert quote.as_cached() == quote._replace(cached=True)


def test_a_bound_that_would_say_nothing_is_lowered_alone_as_in_a_batch() -> None:
    option = (1e-5, 6e5, 97.0, -0.99, 0.99, 0.2, True)
    alone = PRICER.quote(*option)
    assert alone is not None
    worth = 1e-5 * math.exp(-0.99 * 97)
    assert alone.error_bound == pytest.approx(worth)
    batch = OptionBatch(*(np.array([value]) for value in option))
    assert alone.error_bound == pytest.approx(float(MODEL.price(batch).error_bound[0]))
