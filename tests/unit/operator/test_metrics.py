"""Each built-in metric fires when it should and not when it should not; and what holds, warns, resets or is excused."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pinn_operator.core.gates.judgement import Judgement, begun_anew, judge
from pinn_operator.core.gates.metric import Scope, Side
from pinn_operator.core.gates.metrics import METRICS as MEASURED
from pinn_operator.core.samples import (
    Answer,
    AnyAnswer,
    Series,
    WebhookAnswer,
    WebhookVerdict,
)
from pinn_operator.core.status.values import GateStatus, Verdict
from pinn_operator.core.verification.questions import OwnQuestions
from pinn_operator.core.wanted.metrics import METRICS
from pinn_operator.core.wanted.profiles import gates_of
from pinn_operator.core.wanted.spec import (
    Analysis,
    Bound,
    Gate,
    GateAction,
    MetricNames,
    Profile,
    Prometheus,
    Relative,
    RouterMetricsKind,
    Severity,
    SourceKind,
    Webhook,
)

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
END = NOW.timestamp()
CANARY, STABLE = "eu-bbbb-x-1", "eu-aaaa-x-1"
Curve = Callable[[float], float]
"""A counter or gauge by the seconds since the weight was written."""


def series(name: str, pod: str, curve: Curve, *, seconds: float = 600, step: float = 5, **labels: str) -> Series:
    count = round(seconds / step)
    points = tuple((END - seconds + i * step, curve(i * step)) for i in range(count + 1))
    return Series({"__name__": name, "pod": pod, **labels}, points)


def requests(
    pod: str, rate: float, *, failed: float = 0.0, seconds: float = 600, step: float = 5, **other: float
) -> list[Series]:
    """Requests at `rate` a second, with these shares of 5xx and of other statuses (`s404=0.1`)."""
    shares = {"500": failed, **{status[1:]: share for status, share in other.items()}}
    shares["200"] = 1 - sum(shares.values())

    def growing(share: float) -> Curve:
        return lambda at: rate * share * at

    return [
        series("http_requests_total", pod, growing(share), seconds=seconds, step=step, status=status, handler="/price")
        for status, share in shares.items()
    ]


def judged(
    gates: Gate | tuple[Gate, ...], samples: Mapping[str, AnyAnswer], *, seconds: float = 600, weight: int = 10,
    earlier: Mapping[str, GateStatus] | None = None, now: datetime = NOW, names: MetricNames | None = None,
    canary: Side | None = None, stable: Side | None = None, **scope: Any,
) -> Judgement:  # fmt: skip
    chosen = gates if isinstance(gates, tuple) else (gates,)
    analysis = Analysis(
        Prometheus(), Profile.STANDARD, chosen, names=names or MetricNames(), router_metrics=scope.pop("router", None)
    )
    start = now - timedelta(seconds=seconds)
    return judge(
        Scope(
            name="eu", namespace="pricing", analysis=analysis, canary=canary or Side("bbbb"),
            stable=stable or Side("aaaa"), weight=weight, start=start, now=now, in_force=start, hold_seconds=1800,
            earlier=earlier or {}, **scope,
        ),
        samples,
    )  # fmt: skip


def one(judgement: Judgement) -> GateStatus:
    [status] = judgement.gates
    return status


def test_every_metric_of_the_api_is_measured() -> None:
    assert list(MEASURED) == list(METRICS)


# --- errors ----------------------------------------------------------------------------------------------------------

ERRORS = Gate("error-rate", "error-rate", advance=Bound(below=0.01), relative=Relative(margin=0.0))
REQUESTS = "pods/http_requests_total"


@pytest.mark.parametrize("status", ["s400", "s404", "s429", "s307"])
def test_a_canary_that_refuses_or_redirects_what_stable_answers_is_condemned(status: str) -> None:
    answers: dict[str, AnyAnswer] = {
        REQUESTS: (*requests(CANARY, 3, **{status: 0.5}), *requests(STABLE, 27, **{status: 0.001}))
    }
    found = judged(ERRORS, answers).condemnation
    assert found is not None
    assert f"{status[1]}xx: " in found.message


def test_refusals_that_stable_gives_as_well_condemn_nobody() -> None:
    answers: dict[str, AnyAnswer] = {REQUESTS: (*requests(CANARY, 3, s400=0.3), *requests(STABLE, 27, s400=0.3))}
    judgement = judged(ERRORS, answers)
    assert judgement.condemnation is None
    assert judgement.all_pass


def test_without_a_router_errors_that_moved_along_with_a_client_s_connection_condemn_nobody() -> None:
    """One of ten clients fails in 10 % of its requests, and is connected to the canary now."""
    known = GateStatus(
        "error-rate", Verdict.PASS, reference_total=27_000, reference_bad=270, reference_minutes=15,
        reference_variation=0.1,
    )  # fmt: skip
    moved: dict[str, AnyAnswer] = {REQUESTS: (*requests(CANARY, 7.5, failed=0.04), *requests(STABLE, 22.5))}
    added: dict[str, AnyAnswer] = {REQUESTS: (*requests(CANARY, 7.5, failed=0.2), *requests(STABLE, 22.5, failed=0.01))}
    earlier = {"error-rate": known}
    assert judged(ERRORS, moved, weight=25, earlier=earlier).condemnation is not None, "a router divides requests"
    assert judged(ERRORS, moved, weight=25, earlier=earlier, weighted=False).condemnation is None
    assert judged(ERRORS, added, weight=25, earlier=earlier, weighted=False).condemnation is not None
    unknown = {"error-rate": replace(known, reference_minutes=1)}
    assert judged(ERRORS, moved, weight=25, earlier=unknown, weighted=False).condemnation is not None


def test_requests_for_paths_that_do_not_exist_are_no_evidence_for_a_pass() -> None:
    scanned = series("http_requests_total", CANARY, lambda at: at, status="404", handler="unmatched")
    beside = series("http_requests_total", STABLE, lambda at: 9 * at, status="404", handler="unmatched")
    answers: dict[str, AnyAnswer] = {REQUESTS: (*requests(CANARY, 0.1), *requests(STABLE, 0.9), scanned, beside)}
    assert one(judged(ERRORS, answers)).verdict is Verdict.COLLECTING


def test_requests_without_a_readable_status_are_an_error_that_names_the_labels() -> None:
    coded = [
        series("http_requests_total", pod, lambda at: 3 * at, code="500", path="/price") for pod in (CANARY, STABLE)
    ]
    judgement = judged(ERRORS, {REQUESTS: tuple(coded)})
    assert one(judgement).verdict is Verdict.ERROR
    assert "its labels are code, path, pod" in one(judgement).message
    assert not judgement.all_pass
    named = judged(
        ERRORS, {REQUESTS: tuple(coded)}, names=MetricNames(status_label="code", handler_label="path")
    )  # fmt: skip
    assert one(named).canary == 1


def test_dead_samples_pass_nothing_and_their_age_is_shown() -> None:
    answers: dict[str, AnyAnswer] = {REQUESTS: (*requests(CANARY, 3), *requests(STABLE, 27))}
    later = judged(ERRORS, answers, now=NOW + timedelta(seconds=90), seconds=690)
    assert not later.all_pass
    assert one(later).message == "the newest sample of pod eu-bbbb-x-1 is 90 s old"
    assert one(later).age == 90
    assert judged(ERRORS, answers).all_pass


def test_a_pass_needs_a_sample_of_every_pod_that_is_ready() -> None:
    answers: dict[str, AnyAnswer] = {REQUESTS: (*requests(CANARY, 3), *requests(STABLE, 27))}
    side = Side("bbbb", pods=(CANARY, "eu-bbbb-x-2"), ready=(CANARY, "eu-bbbb-x-2"))
    judgement = judged(ERRORS, answers, canary=side)
    assert not judgement.all_pass
    assert one(judgement).message == "no sample of pod eu-bbbb-x-2 yet"


def test_pods_that_are_not_the_resources_own_count_for_nobody() -> None:
    stranger = requests("eu-bbbb-x-9", 100, failed=1.0)
    answers: dict[str, AnyAnswer] = {REQUESTS: (*requests(CANARY, 3), *requests(STABLE, 27), *stranger)}
    side = Side("bbbb", pods=(CANARY,), ready=(CANARY,))
    assert judged(ERRORS, answers, canary=side, stable=Side("aaaa", (STABLE,), (STABLE,))).all_pass


def test_it_says_how_many_more_requests_would_decide() -> None:
    answers: dict[str, AnyAnswer] = {
        REQUESTS: (*requests(CANARY, 3, failed=0.004), *requests(STABLE, 27, failed=0.002))
    }
    needed = one(judged(ERRORS, answers)).needed_samples
    assert needed is not None
    assert needed > 0


def test_an_operator_that_was_restarted_forgets_no_requests_that_its_status_has() -> None:
    before: dict[str, AnyAnswer] = {REQUESTS: (*requests(CANARY, 3, failed=0.006), *requests(STABLE, 27, failed=0.002))}
    first = judged(ERRORS, before)
    assert one(first).samples == 1800
    young = [
        Series(it.labels, tuple((at + 60, value) for at, value in it.points))
        for pod, rate, failed in ((CANARY, 3, 0.006), (STABLE, 27, 0.002))
        for it in requests(pod, rate, failed=failed, seconds=40)
    ]
    earlier = {gate.name: gate for gate in first.gates}
    later = NOW + timedelta(seconds=60)
    again = judged(ERRORS, {REQUESTS: tuple(young)}, earlier=earlier, now=later, seconds=660)
    assert one(again).samples == pytest.approx(1920, abs=20)
    assert one(again).canary == pytest.approx(0.006, rel=0.1)
    assert one(again).carried_total == 1800
    once_more = judged(
        ERRORS, {REQUESTS: tuple(young)}, earlier={it.name: it for it in again.gates}, now=later, seconds=660
    )
    assert one(once_more).samples == one(again).samples, "the same requests were added again"


# --- traffic that does not arrive ------------------------------------------------------------------------------------


def test_no_request_of_many_expected_ones_is_proof_that_traffic_does_not_arrive() -> None:
    answers: dict[str, AnyAnswer] = {REQUESTS: (*requests(CANARY, 0), *requests(STABLE, 27))}
    arriving = judged(ERRORS, answers).arrival
    assert arriving is not None
    assert arriving.missing
    assert str(arriving).startswith("0 of about 1")
    for but in ({"weighted": False}, {"weight": 100}):
        other = judged(ERRORS, answers, **but).arrival  # type: ignore[arg-type]
        assert other is None or not other.missing, but


def test_traffic_that_stops_arriving_is_seen_too_and_a_little_traffic_proves_nothing() -> None:
    stopped = series("http_requests_total", CANARY, lambda at: 3 * min(at, 300), status="200", handler="/price")
    found = judged(ERRORS, {REQUESTS: (stopped, *requests(STABLE, 27))}).arrival
    assert found is not None
    assert found.missing
    quiet = judged(ERRORS, {REQUESTS: (*requests(CANARY, 0), *requests(STABLE, 0.5))}).arrival
    assert quiet is not None
    assert not quiet.missing
    arriving = judged(ERRORS, {REQUESTS: (*requests(CANARY, 3), *requests(STABLE, 27))}).arrival
    assert arriving is not None
    assert not arriving.missing


def test_requests_that_come_by_the_route_alone_are_expected_of_the_canary() -> None:
    """One in a hundred requests comes by the route, the others by the Service: the canary answers one every 33 s."""
    seldom = series("http_requests_total", CANARY, lambda at: at // 33, status="200", handler="/price")
    served = requests(STABLE, 27)
    found = judged(ERRORS, {REQUESTS: (seldom, *served)}).arrival
    assert found is None or not found.missing
    stopped = series("http_requests_total", CANARY, lambda at: min(at, 60), status="200", handler="/price")
    found = judged(ERRORS, {REQUESTS: (stopped, *served)}).arrival
    assert found is not None
    assert found.missing, "a third of its share came, and then nothing for minutes"
    assert found.expected < 200


# --- both sources ----------------------------------------------------------------------------------------------------


def prometheus(pods: list[Series], *, grid: str = "recent", step: float = 4, seconds: float = 128) -> dict[str, Answer]:
    """What Prometheus says of the same counters on one grid, scraped each 15 s at its own moment."""
    moments = [END - seconds + i * step for i in range(round(seconds / step) + 1)]
    values, times = [], {}
    for one_of in pods:
        pod = one_of.labels["pod"]
        offset = 4.0 if pod == CANARY else 11.0

        def scraped(at: float, offset: float = offset) -> float:
            return at - (at - offset) % 15.0

        curve = dict(one_of.points)
        labels = {key: value for key, value in one_of.labels.items() if key not in ("__name__", "handler")}
        nearest = [
            (at, next(value for moment, value in sorted(curve.items()) if moment >= scraped(at) - 1e-6))
            for at in moments
        ]
        values.append(Series(labels, tuple(nearest)))
        times[pod] = Series({"pod": pod}, tuple((at, scraped(at)) for at in moments))
    return {f"prom/http_requests_total/{grid}": tuple(values), f"prom/times/{grid}": tuple(times.values())}


def test_prometheus_alone_gives_the_same_judgement_with_the_moments_of_its_scrapes() -> None:
    pods = [*requests(CANARY, 3, step=1, seconds=150), *requests(STABLE, 27, step=1, seconds=150)]
    status = one(judged(ERRORS, prometheus(pods), seconds=128))
    assert status.source == "Prometheus"
    assert status.verdict is Verdict.PASS
    assert status.samples == pytest.approx(3 * 120, abs=60)
    assert status.age is not None
    assert 0 <= status.age <= 15


def test_of_both_sources_the_one_that_covers_more_of_the_time_judges_the_whole() -> None:
    pods = [*requests(CANARY, 3, step=1, seconds=150), *requests(STABLE, 27, step=1, seconds=150)]
    young = [*requests(CANARY, 3, step=1, seconds=20), *requests(STABLE, 27, step=1, seconds=20)]
    assert one(judged(ERRORS, prometheus(pods) | {REQUESTS: tuple(young)}, seconds=128)).source == "Prometheus"
    assert one(judged(ERRORS, prometheus(pods) | {REQUESTS: tuple(pods)}, seconds=128)).source == "Pods"


# --- caches and fallbacks --------------------------------------------------------------------------------------------

HITS = Gate("cache-hit-rate", "cache-hit-rate", advance=Bound(above=0.8), abort=Bound(below=0.5, for_seconds=0))
CACHE = "pods/pinn_cache_misses_total"


def cache(pod: str, hit_rate: Curve, *, rate: float = 5, seconds: float = 600) -> list[Series]:
    """Lookups at `rate` a second; `hit_rate` by the number of the lookup."""
    hits = [0.0]
    for number in range(round(rate * seconds) + 1):
        hits.append(hits[-1] + hit_rate(number))

    def hit(at: float) -> float:
        return hits[min(len(hits) - 1, round(rate * at))]

    return [
        series("pinn_cache_hits_total", pod, hit, seconds=seconds),
        series("pinn_cache_misses_total", pod, lambda at: rate * at - hit(at), seconds=seconds),
    ]


def cold(number: float) -> float:
    return 0.0 if number < 250 else 0.95


def test_a_cold_canary_is_not_judged_by_its_warm_up() -> None:
    answers: dict[str, AnyAnswer] = {CACHE: (*cache(CANARY, cold), *cache(STABLE, lambda _: 0.95))}
    judgement = judged(HITS, answers)
    assert judgement.condemnation is None
    assert one(judgement).verdict is Verdict.PASS, one(judgement).message
    young: dict[str, AnyAnswer] = {
        CACHE: (*cache(CANARY, lambda _: 0.0, seconds=60), *cache(STABLE, lambda _: 0.95, seconds=60))
    }
    assert judged(HITS, young, seconds=60).condemnation is None


def test_a_cache_that_does_not_fill_condemns() -> None:
    answers: dict[str, AnyAnswer] = {CACHE: (*cache(CANARY, lambda _: 0.1), *cache(STABLE, lambda _: 0.95))}
    found = judged(HITS, answers).condemnation
    assert found is not None
    assert found.reason == "CacheHitRateOutOfBounds"
    assert found.value == "10%"


def test_where_stable_misses_as_often_it_is_what_clients_ask() -> None:
    answers: dict[str, AnyAnswer] = {CACHE: (*cache(CANARY, lambda _: 0.02), *cache(STABLE, lambda _: 0.03))}
    judgement = judged(HITS, answers)
    assert judgement.condemnation is None
    assert one(judgement).verdict is Verdict.PASS
    assert "so it is what clients ask" in one(judgement).message
    worse: dict[str, AnyAnswer] = {CACHE: (*cache(CANARY, lambda _: 0.3), *cache(STABLE, lambda _: 0.75))}
    assert one(judged(HITS, worse)).verdict is Verdict.FAIL


def test_a_metric_that_neither_revision_has_does_not_hold_unless_it_is_required() -> None:
    gates = (ERRORS, HITS)
    answers: dict[str, AnyAnswer] = {REQUESTS: (*requests(CANARY, 3), *requests(STABLE, 27)), CACHE: ()}
    judgement = judged(gates, answers)
    assert judgement.gates[1].verdict is Verdict.NOT_APPLICABLE
    assert judgement.gates[1].message == "neither revision has pinn_cache_misses_total and pinn_cache_hits_total"
    assert judgement.all_pass
    required = judged((ERRORS, replace(HITS, required=True)), answers)
    assert required.gates[1].verdict is Verdict.NO_DATA
    assert not required.all_pass
    assert not judged(HITS, {CACHE: ()}).all_pass, "nothing was judged at all"


OPTIONS = "pods/pinn_options_priced_total"


def test_fallbacks_are_a_share_of_the_priced_options() -> None:
    gate = Gate("fallback-rate", "fallback-rate", advance=Bound(below=0.1), relative=Relative(margin=0.01))

    def priced(pod: str, share: float) -> list[Series]:
        return [
            series("pinn_options_priced_total", pod, lambda at: 10 * at, method="pinn"),
            series("pinn_fallback_total", pod, lambda at: 10 * share * at, reason="domain"),
        ]

    good = judged(gate, {OPTIONS: (*priced(CANARY, 0.01), *priced(STABLE, 0.01))})
    assert (one(good).verdict, one(good).canary) == (Verdict.PASS, pytest.approx(0.01))
    bad = judged(gate, {OPTIONS: (*priced(CANARY, 0.5), *priced(STABLE, 0.01))})
    assert bad.condemnation is not None
    assert bad.condemnation.reason == "FallbackRateAboveStable"


def options_priced(pod: str, clients: float, fallbacks: float, own: float) -> list[Series]:
    """Options of clients a second and what share of them fell back; every two seconds ten of the operator's own, five
    of them American ones, for which there is no model."""
    return [
        series("pinn_options_priced_total", pod, lambda at: clients * at + own * at, seconds=40, step=1),
        series("pinn_fallback_total", pod, lambda at: clients * fallbacks * at + 0.5 * own * at, seconds=40, step=1),
    ]


def test_the_operators_own_options_are_neither_in_the_fallback_rate_nor_in_its_requests() -> None:
    """268 options were counted, 200 of them the operator's own: clients asked 68, and one in seventeen fell back."""
    gate = Gate("fallback-rate", "fallback-rate", advance=Bound(below=0.1), min_samples=60, relative=Relative(margin=0))
    asked = OwnQuestions(since=END - 40, seconds=2, options=10, fallback_share=0.5)
    priced = {OPTIONS: (*options_priced(CANARY, 1.7, 1 / 17, 5), *options_priced(STABLE, 15.3, 1 / 17, 5))}
    status = one(judged(gate, priced, seconds=40, own=asked))
    assert (status.samples, status.verdict) == (268, Verdict.COLLECTING)
    assert status.message == "58/60 options (210 more by the operator, which compares prices)"
    passed = judged(replace(gate, min_samples=50), priced, seconds=40, own=asked)
    assert passed.all_pass, "with the operator's own it would be 39 %"
    assert one(passed).canary < 0.1  # type: ignore[operator]
    assert one(passed).stable == pytest.approx(1 / 17, abs=0.02)
    alone = {OPTIONS: (*options_priced(CANARY, 0, 0, 5), *options_priced(STABLE, 0, 0, 5))}
    silent = one(judged(gate, alone, seconds=40, own=asked))
    assert silent.message == "0/60 options (200 more by the operator, which compares prices)"


def test_a_canary_that_falls_back_for_clients_is_seen_beside_the_operators_own_options() -> None:
    gate = Gate("fallback-rate", "fallback-rate", advance=Bound(below=0.1), relative=Relative(margin=0.01))
    asked = OwnQuestions(since=END - 40, seconds=2, options=10, fallback_share=0.5)
    bad = {OPTIONS: (*options_priced(CANARY, 10, 0.5, 5), *options_priced(STABLE, 90, 0.01, 5))}
    assert judged(gate, bad, seconds=40, own=asked).condemnation is not None
    same = {OPTIONS: (*options_priced(CANARY, 10, 0.01, 5), *options_priced(STABLE, 90, 0.01, 5))}
    assert judged(gate, same, seconds=40, own=asked).all_pass, "a good one was held for what the operator asked"


def test_the_single_prices_that_the_operator_asks_before_any_weight_are_no_warm_up_of_the_cache() -> None:
    """480 lookups before the first client; then the clients' own first ones miss, as they do in any new pod."""

    def lookups(pod: str, name: str, curve: Curve) -> Series:
        return series(name, pod, curve, seconds=400, step=2)

    def misses(at: float) -> float:
        return min(at, 50) * 4.8 + min(200.0, 10 * max(0.0, at - 100))

    def hits(at: float) -> float:
        return min(at, 50) * 4.8 + 10 * max(0.0, at - 120)

    canary = [lookups(CANARY, "pinn_cache_misses_total", misses), lookups(CANARY, "pinn_cache_hits_total", hits)]
    found = judged(HITS, {CACHE: tuple(canary)}, seconds=300)
    assert (one(found).verdict, one(found).canary) == (Verdict.PASS, pytest.approx(1.0, abs=0.01))


# --- memory and processors -------------------------------------------------------------------------------------------

MEMORY = "pods/pinn_process_tree_resident_memory_bytes"


def memory(curve: Curve, *, seconds: float = 3600, pod: str = CANARY) -> dict[str, AnyAnswer]:
    noise = random.Random(1)
    name = "pinn_process_tree_resident_memory_bytes"
    return {MEMORY: (series(name, pod, lambda at: curve(at) + noise.gauss(0, 0.2e6), seconds=seconds, step=20),)}


LEVEL = Gate(
    "memory", "memory", advance=Bound(below=1.8e9), abort=Bound(above=1.8e9), action=GateAction.RESET_CACHES,
    recheck_seconds=120, severity=Severity.P2,
)  # fmt: skip


def level(bytes_: float, now: datetime, earlier: Judgement | None = None) -> Judgement:
    shift = (now - NOW).total_seconds()
    [found] = [
        Series(it.labels, tuple((at + shift, value) for at, value in it.points))
        for it in memory(lambda _: bytes_, seconds=600)[MEMORY]  # type: ignore[union-attr]
    ]
    side = Side("bbbb", pods=(CANARY,), ready=(CANARY,))
    before = {gate.name: gate for gate in earlier.gates} if earlier else {}
    return judged(LEVEL, {MEMORY: (found,)}, canary=side, now=now, earlier=before)


def test_caches_are_reset_once_then_it_is_judged_again_and_rolled_back_if_that_did_not_help() -> None:
    first = level(1.9e9, NOW)
    assert first.condemnation is None
    assert [(it.revision, it.gate, it.pods) for it in first.resets] == [("bbbb", "memory", (CANARY,))]
    assert [it.reason for it in first.notices] == ["MemoryOutOfBounds"]
    soon = level(1.9e9, NOW + timedelta(seconds=60), first)
    assert soon.condemnation is None
    assert not soon.resets
    assert not soon.all_pass
    assert one(soon).message.startswith("caches reset, judged again in 60 s")
    late = level(1.9e9, NOW + timedelta(seconds=121), soon)
    assert late.condemnation is not None
    assert "after its caches were reset" in late.condemnation.message
    assert late.condemnation.severity is Severity.P2


def test_a_clock_that_is_set_back_does_not_put_off_the_second_look_after_a_reset() -> None:
    back = level(1.9e9, NOW - timedelta(hours=2), level(1.9e9, NOW))
    assert (back.condemnation, back.resets) == (None, ())
    late = level(1.9e9, NOW - timedelta(hours=2) + timedelta(seconds=121), back)
    assert late.condemnation is not None


def test_a_reset_that_helps_lets_the_rollout_go_on() -> None:
    helped = level(1.0e9, NOW + timedelta(seconds=60), level(1.9e9, NOW))
    assert helped.all_pass
    assert helped.condemnation is None


def test_memory_and_processor_are_shares_of_their_limits() -> None:
    usage = Gate("memory-usage", "memory-usage", abort=Bound(above=0.9), action=GateAction.WARN)
    full = judged(usage, memory(lambda _: 950e6, seconds=600), memory_limit=1e9)
    assert full.condemnation is None
    assert [it.value for it in full.notices] == ["95%"]
    assert "memory-usage" in full.idle
    assert one(judged(usage, memory(lambda _: 950e6))).verdict is Verdict.NOT_APPLICABLE
    busy = Gate("cpu-usage", "cpu-usage", abort=Bound(above=0.8))
    seconds: dict[str, AnyAnswer] = {
        "pods/process_cpu_seconds_total": (series("process_cpu_seconds_total", CANARY, lambda at: 1.8 * at),)
    }
    found = judged(busy, seconds, cpu_limit=2.0).condemnation
    assert found is not None
    assert found.value == "90%"


# --- what is not a counter -------------------------------------------------------------------------------------------


AVAILABILITY = Gate("availability", "availability", abort=Bound(below=0.5))


def availability_of(canary: Side, *, stable: Side | None = None) -> Judgement:
    answers: dict[str, AnyAnswer] = {REQUESTS: ()}
    return judged(AVAILABILITY, answers, canary=canary, stable=stable)


def test_availability_is_the_share_of_pods_that_are_ready() -> None:
    pods = ("a", "b", "c")
    assert availability_of(Side("bbbb", pods, pods, replicas=3)).all_pass
    down = availability_of(Side("bbbb", pods, ("a",), failed=("b", "c"), replicas=3))
    assert down.condemnation is not None
    assert down.condemnation.value == "33.3%"


def test_pods_that_start_or_are_kept_away_say_nothing_of_the_availability() -> None:
    found = availability_of(Side("bbbb", ("a", "b", "c"), ("a",), replicas=10))
    assert found.all_pass
    assert found.gates[0].message == "100% (1 of 1 pods ready; 9 more start or are kept away, and do not count)"


def test_availability_that_is_as_bad_of_stable_condemns_nobody() -> None:
    pods = ("a", "b", "c")
    canary = Side("bbbb", pods, ("a",), failed=("b", "c"), replicas=3)
    assert availability_of(canary, stable=replace(canary, revision="aaaa")).condemnation is None
    well = Side("aaaa", ("x", "y"), ("x",), failed=("y",), replicas=2)
    assert availability_of(canary, stable=well).condemnation is not None


SPREAD = Gate("prediction-spread", "prediction-spread", abort=Bound(below=0.05))


def priced(**spreads: float) -> dict[str, AnyAnswer]:
    def of(name: str, pod: str, per_price: float) -> Series:
        return series(name, pod, lambda at: 10 * per_price * at, moneyness="1")

    found: list[Series] = []
    for side, spread in spreads.items():
        pod = CANARY if side == "canary" else STABLE
        found += [
            of("pinn_price_to_strike_count", pod, 1.0), of("pinn_price_to_strike_sum", pod, 0.2),
            of("pinn_price_to_strike_sum_of_squares_total", pod, 0.04 + spread * spread),
        ]  # fmt: skip
    return {"pods/pinn_price_to_strike_count": tuple(found)}


def test_a_model_that_gives_one_price_whatever_it_is_asked_is_condemned() -> None:
    gate = SPREAD
    found = judged(gate, priced(canary=0.01, stable=0.1)).condemnation
    assert found is not None
    assert found.value == "0.01"
    good = judged(gate, priced(canary=0.1, stable=0.1))
    assert good.condemnation is None
    assert one(good).canary == pytest.approx(0.1)
    # Clients that all ask for one kind of option get one price from every model.
    assert judged(gate, priced(canary=0.01, stable=0.01)).condemnation is None


@pytest.mark.parametrize(("before", "condemned"), [(0.01, False), (0.1, True), (None, True)])
def test_with_all_traffic_the_spread_that_stable_had_before_tells_what_clients_ask(
    before: float | None, condemned: bool
) -> None:
    earlier = {}
    if before is not None:
        beside = judged(SPREAD, priced(canary=before, stable=before), weight=50)
        earlier = {"prediction-spread": begun_anew(one(beside))}
    alone = judged(SPREAD, priced(canary=0.01), weight=100, earlier=earlier)
    assert (alone.condemnation is not None) is condemned
    assert one(alone).stable == (None if before is None else pytest.approx(before, abs=1e-3))


def test_router_errors_are_those_of_each_service() -> None:
    gate = Gate("router-errors", "router-errors", advance=Bound(below=0.01), relative=Relative(margin=0.0))

    def answered(side: str, rate: float, failed: float) -> list[Series]:
        return [
            Series({**it.labels, "response_code": it.labels["status"], "pod": "router-1"}, it.points)
            for it in requests(side, rate, failed=failed, seconds=128, step=4)
        ]

    answers: dict[str, AnyAnswer] = {
        "prom/istio_requests_total/canary/recent": tuple(answered("canary", 3, 0.5)),
        "prom/istio_requests_total/stable/recent": tuple(answered("stable", 27, 0.0)),
    }
    found = judged(gate, answers, seconds=128, router=RouterMetricsKind.ISTIO)
    assert found.condemnation is not None
    assert found.condemnation.reason == "RouterErrorsAboveStable"
    assert one(judged(gate, {REQUESTS: ()})).verdict is Verdict.NOT_APPLICABLE


def test_a_router_that_is_not_scraped_any_more_passes_nothing() -> None:
    gate = Gate("router-errors", "router-errors", advance=Bound(below=0.01), min_samples=10)

    def found(silent: float) -> GateStatus:
        answers: dict[str, AnyAnswer] = {
            f"prom/istio_requests_total/{side}/recent": tuple(
                Series(
                    {**it.labels, "response_code": it.labels["status"], "pod": "router-1"},
                    tuple((at, value) for at, value in it.points if at <= END - silent),
                )
                for it in requests(side, 20, seconds=128, step=4)
            )
            for side in ("canary", "stable")
        }
        return one(judged(gate, answers, seconds=128, router=RouterMetricsKind.ISTIO))

    assert (found(silent=0).verdict, found(silent=0).age) == (Verdict.PASS, 0.0)
    assert (found(silent=60).verdict, found(silent=60).age) == (Verdict.NO_DATA, 60.0)
    assert found(silent=60).message == "the router's newest sample is 60 s old"


def test_a_router_whose_series_do_not_match_passes_nothing_and_says_what_was_looked_for() -> None:
    gate = Gate("router-errors", "router-errors", advance=Bound(below=0.01))
    keys = [f"prom/nginx_ingress_controller_requests/{side}/recent" for side in ("canary", "stable")]
    found = one(judged(gate, dict.fromkeys(keys, ()), seconds=128, router=RouterMetricsKind.NGINX_INGRESS))
    assert found.verdict is Verdict.NO_DATA
    assert found.message.startswith("no series match ")
    assert 'exported_service="eu-canary"' in found.message


HOOK = Gate("desk", webhook=Webhook("https://desk.example.com/gate"), abort=Bound(above=0.0))


@pytest.mark.parametrize(
    ("said", "verdict"),
    [
        (WebhookVerdict.PASS, Verdict.PASS),
        (WebhookVerdict.HOLD, Verdict.COLLECTING),
        (WebhookVerdict.FAIL, Verdict.FAIL),
    ],
)
def test_a_webhook_passes_holds_or_fails(said: WebhookVerdict, verdict: Verdict) -> None:
    answer = WebhookAnswer(said, NOW, NOW, message="risk desk says so")
    judgement = judged(HOOK, {"webhook/desk": answer})
    assert (one(judgement).verdict, one(judgement).message) == (verdict, "risk desk says so")
    assert (judgement.condemnation is not None) is (said is WebhookVerdict.FAIL)
    assert one(judged(HOOK, {REQUESTS: ()})).message == "the webhook has not answered yet"


# --- what gates do ---------------------------------------------------------------------------------------------------

DRIFT = Gate("drift", query="drift{pod=~'{{ canaryPods }}'}", abort=Bound(above=0.8))
BAD: dict[str, AnyAnswer] = {"gate/drift": (Series({}, ((END, 0.9),)),)}


def test_a_dry_run_is_judged_and_reported_and_never_acts() -> None:
    judgement = judged((replace(DRIFT, dry_run=True), ERRORS), BAD | {
        REQUESTS: (*requests(CANARY, 3), *requests(STABLE, 27))})  # fmt: skip
    assert judgement.condemnation is None
    assert judgement.all_pass
    assert judgement.gates[0].verdict is Verdict.FAIL
    assert judgement.gates[0].message.startswith("dry run, would roll back: 0.9")
    assert len(judgement.notices) == 1
    again = judged((replace(DRIFT, dry_run=True),), BAD, earlier={"drift": judgement.gates[0]})
    assert not again.notices, "said once"


def test_a_gate_that_holds_condemns_nobody_and_lets_nothing_rise() -> None:
    judgement = judged(replace(DRIFT, action=GateAction.HOLD), BAD)
    assert judgement.condemnation is None
    assert not judgement.all_pass
    assert len(judgement.notices) == 1


def test_of_several_reasons_the_gravest_is_given() -> None:
    mild, grave = replace(DRIFT, severity=Severity.P2), replace(DRIFT, name="loss", severity=Severity.P0)
    judgement = judged((mild, grave), BAD | {"gate/loss": BAD["gate/drift"]})
    assert judgement.condemnation is not None
    assert judgement.condemnation.gate == "loss"


def test_the_evaluated_query_is_shown_and_bounded() -> None:
    status = one(judged(DRIFT, BAD))
    assert status.query == "drift{pod=~'eu-bbbb-[^-]+-[^-]+'}"
    assert (status.unit, status.action, status.severity, status.source) == ("number", "RollBack", "P1", "Prometheus")
    many = tuple(replace(DRIFT, name=f"gate-{number}", query="x" * 4096) for number in range(32))
    judgement = judged(many, {f"gate/{gate.name}": BAD["gate/drift"] for gate in many})
    assert sum(len(gate.query) for gate in judgement.gates) <= 2048


@pytest.mark.parametrize("profile", list(Profile))
def test_the_error_rate_of_a_profile_is_required(profile: Profile) -> None:
    assert gates_of(profile)[0].required


def test_pods_alone_are_enough() -> None:
    router = Gate("router-errors", "router-errors", advance=Bound(below=0.01))
    analysis = Analysis(
        Prometheus(), Profile.STANDARD, (ERRORS, router), sources=(SourceKind.PODS,),
        router_metrics=RouterMetricsKind.ISTIO,
    )  # fmt: skip
    start = NOW - timedelta(seconds=600)
    scope = Scope(
        "eu", "pricing", analysis, Side("bbbb"), Side("aaaa"), 10, start, NOW, in_force=start, hold_seconds=600
    )
    assert judge(scope, {REQUESTS: (*requests(CANARY, 3), *requests(STABLE, 27))}).all_pass
