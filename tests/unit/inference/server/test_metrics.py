"""What the metrics say: tallies against the client library's own, moments, the cache, memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.cache import QuoteCache
from pinn_inference.pricing.model import bundled_directory, load_numpy_model
from pinn_inference.pricing.types import FallbackReason, Method, OptionBatch
from pinn_inference.server import moments
from pinn_inference.server.metrics import LATENCY_BUCKETS, ServerMetrics
from pinn_inference.server.processes import ProcessTree, memory_limit
from pinn_inference.server.served_model import options_of, scalars_of
from pinn_inference.server.tally import CounterTally, HistogramTally, QuoteTally
from tests.support.server import options


def random_options(count: int, seed: int = 5) -> OptionBatch:
    source = np.random.default_rng(seed)
    return OptionBatch(
        spot=source.uniform(50, 200, count),
        strike=source.uniform(80, 120, count),
        maturity=source.uniform(0, 4, count),
        rate=source.uniform(-0.02, 0.06, count),
        dividend=source.uniform(0, 0.04, count),
        volatility=source.uniform(0.05, 0.8, count),
        is_call=source.random(count) < 0.5,
    )


@given(st.lists(st.one_of(st.floats(0, 20), st.sampled_from(LATENCY_BUCKETS)), max_size=50))
def test_a_histogram_tally_says_what_a_histogram_says(values: list[float]) -> None:
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    tally = HistogramTally("pause_seconds", "Pauses.", LATENCY_BUCKETS)
    ours.register(tally)
    histogram = Histogram("pause_seconds", "Pauses.", buckets=LATENCY_BUCKETS, registry=theirs)
    for value in values:
        tally.of[""].observe(value)
        histogram.observe(value)
    told, expected = (
        [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]
        for registry in (ours, theirs)
    )
    assert told == expected


def test_a_counter_tally_counts_by_labels_and_is_born_at_zero() -> None:
    registry = CollectorRegistry()
    tally = CounterTally("meals", "Meals.", ("kind", "place"))
    registry.register(tally)
    tally.begin("soup", "home")
    for _ in range(3):
        tally.add(("cake", "away"))
    assert registry.get_sample_value("meals_total", {"kind": "soup", "place": "home"}) == 0
    assert registry.get_sample_value("meals_total", {"kind": "cake", "place": "away"}) == 3


def test_moments_are_the_same_one_by_one_and_in_a_batch_and_are_what_they_are_called() -> None:
    batch = random_options(2000)
    quotes = closed_form.price(batch)
    together, singly = QuoteTally(), QuoteTally()
    together.count_batch(batch, quotes)
    for option, quote in zip(options_of(batch), scalars_of(quotes), strict=True):
        singly.count_quote(option[0], option[1], option[2], quote)
    told = []
    for tally in (together, singly):
        registry = CollectorRegistry()
        registry.register(tally)
        families = {family.name: family for family in registry.collect()}
        told.append({(s.name, *sorted(s.labels.items())): s.value for f in families.values() for s in f.samples})
    assert told[0].keys() == told[1].keys()
    assert told[0] == pytest.approx(told[1], rel=1e-12)
    inside = (batch.spot / batch.strike > 0.95) & (batch.spot / batch.strike <= 1.05)
    inside &= (batch.maturity > 0.5) & (batch.maturity <= 2)
    ratio = (quotes.price / batch.strike)[inside]
    labels = (("maturity", "0.5..2"), ("moneyness", "0.95..1.05"))
    assert told[0]["pinn_price_to_strike_count", *labels] == inside.sum() > 10
    assert told[0]["pinn_price_to_strike_sum", *labels] == pytest.approx(ratio.sum())
    assert told[0]["pinn_price_to_strike_sum_of_squares_total", *labels] == pytest.approx((ratio**2).sum())


def test_each_bucket_has_a_name_of_its_own_and_holds_its_upper_border() -> None:
    assert len({moments.bucket_names(number) for number in range(moments.BUCKETS)}) == moments.BUCKETS
    assert moments.bucket_names(moments.bucket(1.05, 0.5)) == ("0.95..1.05", "0.0833..0.5")
    assert moments.bucket_names(moments.bucket(0.0, 0.0)) == ("..0.8", "..0.0833")
    assert moments.bucket_names(moments.bucket(9.0, 50.0)) == ("1.25..", "2..")


def test_a_price_that_is_not_finite_does_not_spoil_the_moments_for_good() -> None:
    batch = options(90.0, 100.0, 110.0)
    quotes = closed_form.price(batch)
    quotes.price[1] = np.nan
    sums = moments.price_moments(batch, quotes)
    assert np.isfinite(sums).all()
    assert sums[:, 0].sum() == 2
    tally = QuoteTally()
    for option, quote in zip(options_of(batch), scalars_of(quotes), strict=True):
        tally.count_quote(option[0], option[1], option[2], quote)
    assert all(np.isfinite(s.value) for family in tally.collect() for s in family.samples)


def test_quotes_are_counted_by_method_and_by_reason() -> None:
    metrics = ServerMetrics()
    quotes = closed_form.price(options(90.0, 100.0), reason=FallbackReason.OUT_OF_DOMAIN)
    metrics.quotes.count_batch(options(90.0, 100.0), quotes)
    value = metrics.registry.get_sample_value
    assert value("pinn_options_priced_total", {"method": Method.CLOSED_FORM.label}) == 2
    assert value("pinn_fallback_total", {"reason": "out_of_domain"}) == 2
    assert value("pinn_fallback_total", {"reason": "not_finite"}) == 0


def test_cache_counters_never_go_down_when_the_cache_is_reset() -> None:
    metrics = ServerMetrics()
    value = metrics.registry.get_sample_value
    assert value("pinn_cache_hits_total") == value("pinn_cache_misses_total") == value("pinn_cache_size") == 0
    cache = QuoteCache(load_numpy_model(bundled_directory()).artefact)
    metrics.show_cache(cache)
    for _ in range(3):
        cache.quote(100.0, 95.0, 0.5, 0.03, 0.01, 0.22, False)
    assert (value("pinn_cache_hits_total"), value("pinn_cache_misses_total")) == (2, 1)
    metrics.reset_cache()
    assert (value("pinn_cache_hits_total"), value("pinn_cache_misses_total")) == (2, 1)
    assert value("pinn_cache_size") == 0
    cache.quote(100.0, 95.0, 0.5, 0.03, 0.01, 0.22, False)
    assert (value("pinn_cache_hits_total"), value("pinn_cache_misses_total")) == (2, 2)


def test_methods_that_clients_make_up_share_one_series() -> None:
    metrics = ServerMetrics()
    for method in ("BREW", "PROPFIND", "GET"):
        metrics.observe_request(method=method, handler="/health", status=405, seconds=0.0, prices=False)
    value = metrics.registry.get_sample_value
    assert value("http_requests_total", {"method": "other", "handler": "/health", "status": "405"}) == 2
    assert value("http_requests_total", {"method": "GET", "handler": "/health", "status": "405"}) == 1


def test_the_memory_of_the_tree_includes_children_and_their_children() -> None:
    hold = "held = b'x' * 40_000_000; print(flush=True); input()"
    nested = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
    with subprocess.Popen([sys.executable, "-c", nested], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        try:
            assert child.stdout is not None
            child.stdout.readline()
            assert ProcessTree(child.pid).resident_memory() > 45_000_000, "both, and what the inner one holds"
            assert ProcessTree(os.getpid()).resident_memory() > ProcessTree(child.pid).resident_memory()
        finally:
            child.communicate(b"\n", timeout=30)


@pytest.mark.parametrize(
    ("content", "limit"),
    [("75497472\n", 72 << 20), ("max\n", None), ("9223372036854771712\n", None), (None, None)],
    ids=["a limit", "none", "none, by an older kernel", "not told"],
)
def test_the_memory_limit_of_the_container_is_read(tmp_path: Path, content: str | None, limit: int | None) -> None:
    place = tmp_path / "memory.max"
    if content is not None:
        place.write_text(content)
    assert memory_limit([tmp_path / "absent", place]) == limit
