"""The cache: exact, bounded, safe between threads, and hit by quotes that are near each other."""

from __future__ import annotations

import math
import random
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.artefact import bundled_directory, read
from pinn_inference.pricing.cache import CELL_ERROR, CellCache, LruCache, OptionKey, QuoteCache
from pinn_inference.pricing.network import Network
from pinn_inference.pricing.scalar import ScalarNetwork, ScalarPricer, ScalarQuote, single
from pinn_inference.pricing.types import FallbackReason, Method
from pinn_inference.training.accuracy import sample_options

ARTEFACT = read(bundled_directory())
PRICER = ScalarPricer(ARTEFACT)
DOMAIN = ARTEFACT.network.domain
CELLS = 257
Inputs = tuple[float, float, float, float, float, float, bool]


@pytest.fixture(scope="module")
def filled() -> CellCache:
    cache = CellCache(ARTEFACT.network)
    assert cache.fill() == CELLS
    return cache


def random_inputs(count: int, seed: int) -> list[Inputs]:
    batch = sample_options(count, seed=seed)
    columns = (batch.spot, batch.strike, batch.maturity, batch.rate, batch.dividend, batch.volatility, batch.is_call)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def noisy(base: Inputs, source: random.Random) -> Inputs:
    """The rate moved by up to one and the volatility by up to two percentage points: the wider of two readings."""
    spot, strike, maturity, rate, dividend, volatility, is_call = base
    moved = max(volatility + source.uniform(-0.02, 0.02), 0.01)
    return spot, strike, maturity, rate + source.uniform(-0.01, 0.01), dividend, moved, is_call


# --- level 2 --------------------------------------------------------------------------------------------------------


@settings(max_examples=500, deadline=None)
@given(y=st.floats(0.0, DOMAIN.y_max), w=st.floats(1e-16, DOMAIN.w_max) | st.floats(1e-16, 0.1))
def test_cells_are_the_network_to_their_stated_error(filled: CellCache, y: float, w: float) -> None:
    exact = ScalarNetwork(ARTEFACT.network).evaluate(y, w)
    interpolated = filled.evaluate(y, w)
    assert interpolated[3], "a full cache knows every cell"
    for known, value in zip(interpolated[:3], exact[:3], strict=True):
        assert abs(known - value) <= CELL_ERROR / 5, "the stated error has room"


@pytest.mark.parametrize("y", [0.0, DOMAIN.y_max])
@pytest.mark.parametrize("w", [1e-16, DOMAIN.w_max])
def test_the_corners_of_the_domain_belong_to_a_cell(filled: CellCache, y: float, w: float) -> None:
    assert filled.evaluate(y, w)[:3] == pytest.approx(
        ScalarNetwork(ARTEFACT.network).evaluate(y, w)[:3], abs=CELL_ERROR
    )


def test_beyond_the_last_row_there_is_one_cell_without_time_value() -> None:
    cache = QuoteCache(ARTEFACT)
    first, second = (cache.quote(spot, 100.0, 0.1, 0.0, 0.0, 0.2, True) for spot in (300.0, 301.0))
    assert first is not None
    assert second is not None
    assert (first.price, second.price) == (200.0, 201.0)
    assert (first.cached, second.cached) == (False, True)


def test_a_network_too_rough_for_a_cell_is_asked_itself() -> None:
    rough = Network.from_vector(
        60.0 * ARTEFACT.network.to_vector(), ARTEFACT.network.architecture, ARTEFACT.network.domain
    )
    cache, direct = CellCache(rough), ScalarNetwork(rough)
    cache.fill()
    source = random.Random(4)
    by_network = 0
    for _ in range(500):
        y, w = source.uniform(0.0, 3.0), source.uniform(0.0, DOMAIN.w_max)
        *values, known = cache.evaluate(y, w)
        by_network += not known
        if not known:
            assert tuple(values) == direct.evaluate(y, w)[:3]
    assert by_network > 100


def test_a_network_that_answers_nan_has_no_cells_and_no_quotes() -> None:
    vector = np.full_like(ARTEFACT.network.to_vector(), np.nan)
    broken = Network.from_vector(vector, ARTEFACT.network.architecture, ARTEFACT.network.domain)
    cache = QuoteCache(replace(ARTEFACT, network=broken))
    assert cache.quote(100.0, 95.0, 0.5, 0.03, 0.01, 0.22, True) is None
    assert cache.stats().quotes.size == 0


def test_cells_are_bounded_and_those_of_small_variance_stay_when_not_all_fit() -> None:
    cache = CellCache(ARTEFACT.network, max_cells=20)
    assert cache.fill() == 20
    assert cache.stats().size == 20
    assert cache.evaluate(0.3, 0.04)[3]
    assert not cache.evaluate(0.3, 6.0)[3]
    assert cache.stats().size == 20
    assert cache.stats().evictions == 1


# --- both levels ----------------------------------------------------------------------------------------------------


def test_a_cached_price_is_the_uncached_one_within_a_thousandth_of_what_is_asked() -> None:
    cache = QuoteCache(ARTEFACT)
    compared = 0
    for inputs in random_inputs(5_000, seed=21):
        uncached = PRICER.quote(*inputs)
        first, second = cache.quote(*inputs), cache.quote(*inputs)
        if uncached is None:
            assert first is None
            assert second is None
            continue
        compared += 1
        assert first is not None
        assert second is not None
        assert second.cached
        assert second[:10] == first[:10], "an answer does not depend on whether it was cached"
        assert abs(first.price - uncached.price) <= 1e-10 * inputs[1]
        assert first.delta == pytest.approx(uncached.delta, abs=1e-9)
        assert first.gamma * inputs[0] == pytest.approx(uncached.gamma * inputs[0], rel=1e-8, abs=1e-8)
        assert first.vega == pytest.approx(uncached.vega, abs=1e-8 * inputs[1])
        assert first.theta == pytest.approx(uncached.theta, abs=1e-8 * inputs[1])
        assert first.rho == pytest.approx(uncached.rho, abs=1e-8 * inputs[1])
        exact = closed_form.price(single(*inputs))
        assert abs(first.price - exact.price[0]) <= first.error_bound
        assert first.error_bound >= uncached.error_bound
    assert compared > 4_900


def test_a_repeated_quote_is_a_hit_and_so_is_one_of_slightly_different_inputs() -> None:
    cache = QuoteCache(ARTEFACT)
    first = cache.quote(100.0, 95.0, 0.5, 0.03, 0.01, 0.22, True)
    again = cache.quote(100.0, 95.0, 0.5, 0.03, 0.01, 0.22, True)
    near = cache.quote(100.0, 95.0, 0.5, 0.0301, 0.01, 0.2205, True)
    assert first is not None
    assert again is not None
    assert near is not None
    assert [first.cached, again.cached, near.cached] == [False, True, True]
    assert again.price == first.price
    assert near.price != first.price
    stats = cache.stats()
    assert (stats.quotes.hits, stats.quotes.misses) == (1, 2)
    assert (stats.cells.hits, stats.cells.misses) == (1, 1)
    assert (stats.total.hits, stats.total.misses) == (2, 1)
    assert stats.total.hit_rate == pytest.approx(2 / 3)


def test_noise_of_rate_and_volatility_is_a_hit_more_than_eighty_times_in_a_hundred() -> None:
    source = random.Random(8)
    cache = QuoteCache(ARTEFACT)
    for base in random_inputs(5, seed=31):
        for _ in range(200):
            cache.quote(*noisy(base, source))
    assert cache.stats().total.hit_rate > 0.9
    assert cache.stats().quotes.hits == 0, "no two questions were alike"


def test_the_hit_rate_is_the_share_of_quotes_that_say_they_came_from_the_cache() -> None:
    source = random.Random(12)
    cache = QuoteCache(ARTEFACT, max_quotes=50, max_cells=30)
    asked = [noisy(base, source) for base in random_inputs(60, seed=3) for _ in range(4)]
    seen = [cache.quote(*inputs) for inputs in asked * 2]
    american = (*asked[0], True)
    assert cache.lookup(american) is None
    total = cache.stats().total
    assert total.hits == sum(quote is not None and quote.cached for quote in seen)
    assert total.hits + total.misses == len(seen) + 1


def test_a_cache_of_which_no_cell_can_be_used_shows_it_in_its_hit_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pinn_inference.pricing.cache.CELL_ERROR", 0.0)  # no polynomial is that good
    cache = QuoteCache(ARTEFACT, max_quotes=0)
    cache.warm_up()
    for step in range(20):
        assert cache.quote(100.0, 95.0, 0.5, 0.03 + 0.001 * step, 0.01, 0.22, True) is not None
    assert cache.stats().cells.hits == 20, "the cells are there, and of no use"
    assert cache.stats().total.hit_rate == 0.0


def test_call_and_put_are_kept_apart_and_share_their_cell() -> None:
    cache = QuoteCache(ARTEFACT)
    call = cache.quote(100.0, 95.0, 0.5, 0.03, 0.01, 0.22, True)
    put = cache.quote(100.0, 95.0, 0.5, 0.03, 0.01, 0.22, False)
    assert call is not None
    assert put is not None
    assert put.cached
    assert call.price - put.price == pytest.approx(100 * math.exp(-0.005) - 95 * math.exp(-0.015), abs=1e-13)


def test_quotes_made_elsewhere_are_kept_by_their_exact_inputs() -> None:
    cache = QuoteCache(ARTEFACT)
    key: OptionKey = (100.0, 95.0, 0.5, 0.03, 0.01, 0.22, False, True)
    made = ScalarQuote(4.0, -0.3, 0.02, 25.0, -4.0, -17.0, 1e-6, exercise_boundary=71.0)
    assert cache.lookup(key) is None
    cache.store(key, made)
    assert cache.lookup(key) == made._replace(cached=True)
    european = cache.quote(*key[:7])
    assert european is not None
    assert european.price != made.price


def test_a_closed_form_quote_that_was_stored_is_found_by_the_next_question() -> None:
    cache = QuoteCache(ARTEFACT)
    key: OptionKey = (100.0, 95.0, 0.5, 0.03, 0.01, 9.0, False, False)
    assert cache.quote(*key[:7]) is None
    quote = ScalarQuote.of(closed_form.price(single(*key), reason=FallbackReason.OUT_OF_DOMAIN))
    cache.store(key, quote)
    found = cache.quote(*key[:7])
    assert found is not None
    assert found[:7] == quote[:7]
    assert found.cached
    assert found.method is Method.CLOSED_FORM
    assert found.reason is FallbackReason.OUT_OF_DOMAIN


def test_warm_up_makes_the_first_question_a_hit() -> None:
    cache = QuoteCache(ARTEFACT)
    assert cache.warm_up([(100.0, 95.0, 0.5, 0.03, 0.01, 0.22, True, False)]) == 1
    assert cache.stats().quotes.misses == 0
    quote = cache.quote(101.0, 95.0, 0.5, 0.03, 0.01, 0.22, True)
    assert quote is not None
    assert quote.cached
    assert cache.warm_up() == CELLS
    assert cache.stats().cells.size == CELLS


def test_reset_forgets_everything() -> None:
    cache = QuoteCache(ARTEFACT)
    cache.quote(100.0, 95.0, 0.5, 0.03, 0.01, 0.22, True)
    cache.reset()
    total = cache.stats().total
    assert (total.hits, total.misses, total.size, total.evictions, total.hit_rate) == (0, 0, 0, 0, 0.0)
    quote = cache.quote(100.0, 95.0, 0.5, 0.03, 0.01, 0.22, True)
    assert quote is not None
    assert not quote.cached


def test_the_stats_document_has_the_total_and_both_levels() -> None:
    cache = QuoteCache(ARTEFACT, max_quotes=7, max_cells=9)
    document = cache.stats().as_dict()
    assert document["max_size"] == 16
    assert document["levels"]["quotes"]["max_size"] == 7
    assert set(document) == {"hits", "misses", "hit_rate", "size", "max_size", "evictions", "levels"}
    assert set(document["levels"]) == {"quotes", "cells"}


def test_threads_share_a_cache_and_each_gets_the_right_price() -> None:
    cache = QuoteCache(ARTEFACT, max_quotes=50, max_cells=10)
    options = random_inputs(200, seed=12)
    expected = [QuoteCache(ARTEFACT).quote(*option) for option in options]

    def ask(seed: int) -> bool:
        source = random.Random(seed)
        for _ in range(500):
            index = source.randrange(len(options))
            quote, right = cache.quote(*options[index]), expected[index]
            if (quote is None) != (right is None) or (quote and right and quote[:7] != right[:7]):
                return False
        return True

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(4)))
    stats = cache.stats()
    assert stats.quotes.hits + stats.quotes.misses == 2_000
    assert stats.quotes.size <= 50
    assert stats.cells.size <= 10


# --- level 1 against a model of it ----------------------------------------------------------------------------------


class LruCacheIsLeastRecentlyUsed(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cache: LruCache[int, str] = LruCache(3)
        self.model: OrderedDict[int, str] = OrderedDict()
        self.hits = self.misses = self.evictions = 0

    @rule(key=st.integers(0, 6), value=st.text(max_size=2))
    def put(self, key: int, value: str) -> None:
        self.cache.put(key, value)
        self.model.pop(key, None)
        self.model[key] = value
        if len(self.model) > 3:
            del self.model[next(iter(self.model))]
            self.evictions += 1

    @rule(key=st.integers(0, 6))
    def get(self, key: int) -> None:
        found = self.cache.get(key)
        if key in self.model:
            assert found == self.model[key]
            self.model[key] = self.model.pop(key)
            self.hits += 1
        else:
            assert found is None
            self.misses += 1

    @rule()
    def reset(self) -> None:
        self.cache.reset()
        self.model.clear()
        self.hits = self.misses = self.evictions = 0

    @invariant()
    def counts_agree(self) -> None:
        stats = self.cache.stats()
        assert (stats.hits, stats.misses, stats.evictions) == (self.hits, self.misses, self.evictions)
        assert stats.size == len(self.model)


TestLruCacheIsLeastRecentlyUsed = LruCacheIsLeastRecentlyUsed.TestCase


def test_a_cache_of_size_zero_keeps_nothing_and_a_negative_size_is_refused() -> None:
    cache: LruCache[int, int] = LruCache(0)
    cache.put(1, 1)
    assert cache.get(1) is None
    with pytest.raises(ValueError, match="max_size is -1"):
        LruCache(-1)
