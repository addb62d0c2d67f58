"""`/metrics`: the same samples as the client library writes, and only those that are asked for."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterable

import pytest
from prometheus_client import Counter, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.types import FallbackReason
from pinn_inference.server.exposition import BadFilter, ServerRegistry
from pinn_inference.server.metrics import ServerMetrics
from pinn_inference.server.processes import ProcessTree, _members_by_parents, members
from tests.support.server import running
from tests.unit.inference.server.test_metrics import options

READ_BY_THE_OPERATOR = (
    "http_requests_total",
    "pinn_inference_latency_seconds_bucket",
    "pinn_cache_hits_total",
    "pinn_cache_misses_total",
    "pinn_fallback_total",
    "pinn_options_priced_total",
    "pinn_process_tree_resident_memory_bytes",
    "process_cpu_seconds_total",
    "pinn_price_to_strike_count",
    "pinn_price_to_strike_sum",
    "pinn_price_to_strike_sum_of_squares_total",
)
QUICK = READ_BY_THE_OPERATOR[:2]


def busy() -> ServerMetrics:
    metrics = ServerMetrics(revision="9d77e0", service='eu "1"')
    for number in range(200):
        handler = ("/v1/price", "/health/deployment/readiness", "/metrics")[number % 3]
        metrics.observe_request(method="POST", handler=handler, status=200, seconds=number / 1e4, prices=True)
    metrics.quotes.count_batch(
        options(90.0, 100.0), closed_form.price(options(90.0, 100.0), reason=FallbackReason.OUT_OF_DOMAIN)
    )
    metrics.observe_evaluation(rows=7, seconds=0.003, methods=(0,))
    metrics.model_info.labels("a\\b", 'c"d', "e\nf").set(1)
    return metrics


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def query(*names: str) -> str:
    return "&".join(f"name%5B%5D={name}" for name in names)


def stable(found: dict[tuple[str, tuple[tuple[str, str], ...]], float]) -> dict[object, float]:
    """Without what changes while one looks."""
    moving = ("process_", "python_gc", "pinn_process_tree")
    return {key: value for key, value in found.items() if not key[0].startswith(moving)}


def test_all_samples_types_and_words_are_those_that_the_library_writes() -> None:
    metrics = busy()
    mine, librarys = metrics.exposition().decode(), generate_latest(metrics.registry).decode()
    assert stable(samples(mine)) == stable(samples(librarys))
    assert samples(mine).keys() == samples(librarys).keys()
    heads = [sorted(line for line in text.splitlines() if line.startswith("#")) for text in (mine, librarys)]
    assert heads[0] == heads[1]


@pytest.mark.parametrize(
    "names",
    [
        READ_BY_THE_OPERATOR,
        QUICK,
        *((name,) for name in READ_BY_THE_OPERATOR),
        ("pinn_inference_latency_seconds_sum",),
        ("pinn_model_info", "pinn_overloaded_requests_total"),
        ("process_resident_memory_bytes", "process_cpu_seconds_total"),
        ("http_requests_total", "no_such_metric"),
    ],
    ids=lambda names: names[0] if len(names) == 1 else str(len(names)),
)
def test_the_asked_samples_alone_are_answered(names: tuple[str, ...]) -> None:
    metrics = busy()
    everything = samples(metrics.exposition().decode())
    asked = samples(metrics.exposition(query(*names)).decode())
    wanted = {key: value for key, value in everything.items() if key[0] in names}
    assert asked.keys() == wanted.keys()
    assert stable(asked) == stable(wanted)


def test_names_that_are_not_there_have_no_samples() -> None:
    assert busy().exposition(query("no_such_metric", "http_requests", "")) == b""


def test_a_query_without_names_is_no_filter() -> None:
    metrics = busy()
    assert samples(metrics.exposition("x=y").decode()).keys() == samples(metrics.exposition().decode()).keys()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (query(*(f"a{number}" for number in range(65))), "the query has more than 64 fields"),
        (query("a" * 257), "a name[] of 257 characters: at most 256 are taken"),
    ],
)
def test_a_filter_that_asks_for_too_much_is_refused(text: str, message: str) -> None:
    with pytest.raises(BadFilter) as caught:
        busy().exposition(text)
    assert message in str(caught.value)


def test_filters_that_differ_each_time_fill_no_memory() -> None:
    metrics = busy()
    for number in range(1000):
        metrics.exposition(query(f"a{number}"))
    assert len(metrics.registry._filters) <= 64


def test_collectors_that_are_not_asked_for_do_not_run() -> None:
    class Dear(Collector):
        runs = 0

        def collect(self) -> Iterable[Metric]:
            self.runs += 1
            return [Metric("dear", "…", "gauge")]

    registry, dear = ServerRegistry(), Dear()
    registry.register(dear)
    Counter("cheap", "…", registry=registry)
    known = dear.runs
    assert b"cheap_total 0.0" in registry.exposition(frozenset(["cheap_total"]))
    assert dear.runs == known


def test_what_the_operator_reads_costs_a_server_next_to_nothing() -> None:
    """The goal is a tenth of a millisecond; the test allows for a busy machine."""
    metrics, asked = busy(), query(*READ_BY_THE_OPERATOR)
    metrics.exposition(asked)
    best = min(_seconds(lambda: metrics.exposition(asked)) for _ in range(50))
    assert best < 0.5e-3


def test_a_full_scrape_costs_a_server_a_millisecond() -> None:
    metrics = busy()
    metrics.exposition()
    assert min(_seconds(metrics.exposition) for _ in range(30)) < 5e-3


def _seconds(call: object) -> float:
    assert callable(call)
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


async def test_the_page_takes_the_filter_over_http() -> None:
    async with running() as client:
        for _ in range(2):
            async with client.get("/metrics?name[]=pinn_ready&name[]=pinn_cache_size") as response:
                assert response.status == 200
                assert samples(await response.text()).keys() == {("pinn_ready", ()), ("pinn_cache_size", ())}
        async with client.head("/metrics?name[]=pinn_ready") as response:
            assert (response.status, await response.read()) == (200, b"")
        async with client.get("/metrics?name[]=none") as response:
            assert (response.status, await response.read()) == (200, b"")
        async with client.get(f"/metrics?name[]={'a' * 300}") as response:
            assert response.status == 400
            assert (await response.json())["reason"] == "BadQuery"


# --- processes ------------------------------------------------------------------------------------------------------


def test_both_ways_to_find_children_find_the_same() -> None:
    assert set(members(os.getpid())) == set(_members_by_parents(os.getpid()))


def test_children_are_looked_for_seldom_and_found_in_the_end() -> None:
    """Of a process of its own: what this one has given back, and takes again, would not be seen."""
    child = "held = bytes([1]) * 40_000_000; print('held', flush=True); input()"
    root = (
        "import subprocess, sys; print('began', flush=True); input()\n"
        "held = bytes([1]) * 40_000_000; print('held', flush=True); input()\n"
        f"subprocess.run([sys.executable, '-c', {child!r}])"
    )
    now = [0.0]
    with subprocess.Popen([sys.executable, "-c", root], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"began\n"
            tree = ProcessTree(process.pid, clock=lambda: now[0])
            before = tree.resident_memory()
            for line in (b"held\n", b"held\n"):
                process.stdin.write(b"\n")
                process.stdin.flush()
                assert process.stdout.readline() == line
            alone = tree.resident_memory()
            assert 80_000_000 > alone - before > 39_000_000
            now[0] = 6.0
            assert tree.resident_memory() - alone > 39_000_000
        finally:
            process.communicate(b"\n", timeout=30)
    assert tree.resident_memory() == 0


def test_a_process_that_is_gone_has_no_memory() -> None:
    assert ProcessTree(2**22 + 1).resident_memory() == 0
