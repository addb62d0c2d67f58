"""What chance, and what hits both revisions alike, must not decide: seeded trials, a few dozen of each kind."""

from __future__ import annotations

import numpy as np
import pytest

from tests.story.trial import Draw, Trial, during, steady

FAULTY = 0.002


def looks(begin: float, end: float, every: float) -> list[float]:
    return np.arange(begin, end, every).tolist()


UPSTREAM = [
    *(("Prometheus", interval, seconds) for interval, seconds in ((1, 5), (15, 5), (15, 30), (30, 10), (60, 30))),
    # The operator reads the pods at its own pace, whatever the scrape interval.
    ("Pods", 15, 5),
    ("Pods", 15, 30),
]


@pytest.mark.parametrize(("sources", "interval", "seconds"), UPSTREAM)
def test_a_fault_upstream_that_hits_every_pod_alike_rolls_nothing_back(
    sources: str, interval: float, seconds: float
) -> None:
    """A database or the network is away: all requests of both revisions fail for some seconds, once."""
    found = []
    for seed in range(6):
        begin = 300 + 7.3 * seed
        draw = Draw(both=during(begin, seconds, 1.0, FAULTY))
        trial = Trial(draw, seed=seed, seconds=600, interval=interval, sources=sources)
        found.append(trial.rolled_back(looks(begin, begin + 2.5 * interval + seconds + 10, max(3, interval / 4))))
    assert not any(found), found


@pytest.mark.parametrize("sources", ["Prometheus", "Pods"])
@pytest.mark.parametrize("mean", [2, 5, 10])
def test_errors_that_come_in_clusters_on_both_revisions_roll_nothing_back(mean: float, sources: str) -> None:
    """Both fail 0.5 % of requests; an error seldom comes alone: a connection breaks, and what is on it fails."""
    found = []
    for seed in range(6):
        draw = Draw(both=steady(0.005), cluster=mean, rate=40)
        trial = Trial(draw, seed=seed, seconds=1800, interval=15, sources=sources)
        found.append(trial.rolled_back(looks(40, 1790, 50)))
    assert not any(found), found


def test_errors_that_come_alone_on_both_revisions_roll_nothing_back() -> None:
    for seed in range(4):
        trial = Trial(Draw(both=steady(0.02)), seed=seed, seconds=900, interval=15)
        assert trial.rolled_back(looks(40, 890, 25)) is None, seed


def test_targets_that_count_every_pod_three_times_prove_nothing_three_times() -> None:
    """Two Services and a PodMonitor select the pods: one pod is one pod."""
    found = []
    for seed in range(4):
        trial = Trial(Draw(both=steady(0.02)), seed=seed, seconds=500, interval=5, copies=lambda pod: 3)
        found.append(trial.rolled_back(looks(20, 490, 40)))
    assert not any(found), found
    gate = trial.look(495).rollout
    assert gate is not None
    assert gate.gates[0].samples <= 1.02 * trial.canary_requests()


@pytest.mark.parametrize("sources", ["Prometheus", "Pods"])
@pytest.mark.parametrize(("ratio", "requests"), [(4, 3000), (10, 700)])
def test_a_revision_that_fails_more_often_than_stable_is_rolled_back_by_little_evidence(
    ratio: float, requests: float, sources: str
) -> None:
    """Stable fails 0.5 %, the canary four or ten times as often: that is seen, in half of the trials and more, within
    so many of the canary's requests."""
    rate = 100.0
    seconds = requests / (0.1 * rate)
    found = []
    for seed in range(7):
        draw = Draw(rate=rate, both=steady(0.005), canary=steady(0.005 * (ratio - 1)))
        trial = Trial(draw, seed=seed, seconds=seconds + 60, interval=5, sources=sources)
        found.append(trial.rolled_back(looks(10, seconds + 20, 5 if ratio == 10 else 10)))
    assert sum(reason is not None for reason in found) >= 4, found


@pytest.mark.parametrize("sources", ["Prometheus", "Pods"])
def test_one_slow_answer_in_ten_is_seen_beside_a_quick_stable_revision(sources: str) -> None:
    """3 s beside 8 ms: the tails are compared, and a hundred requests of the canary are enough to tell, whoever counted
    them, though nothing is known of stable's time before."""
    found = []
    for seed in range(6):
        trial = Trial(Draw(canary_slow=steady(0.1)), seed=seed, seconds=70, interval=1, sources=sources)
        found.append(trial.rolled_back(looks(6, 36, 2)))
    assert sum(reason is not None for reason in found) >= 4, found


@pytest.mark.parametrize("sources", ["Prometheus", "Pods"])
def test_errors_that_begin_late_in_a_long_hold_at_a_low_rate_are_seen(sources: str) -> None:
    """Three requests a second for the canary, good for an hour and more, then one in twenty fails: neither the last two
    minutes nor the whole hold show it, but what lies between does."""
    found = []
    for seed in range(2):
        late = during(4500, 1e6, 0.05, 0.001)
        trial = Trial(Draw(canary=late), seed=seed, seconds=6000, interval=15, sources=sources)
        found.append(trial.rolled_back(looks(4600, 5980, 200)))
    assert all(found), found


@pytest.mark.parametrize("sources", ["Prometheus", "Pods"])
def test_slow_answers_in_a_bake_are_seen_where_scrapes_are_a_minute_apart(sources: str) -> None:
    """A window of a minute holds one sample then, and an increase needs two. The bound is 2 s for ten minutes."""
    found = []
    for seed in range(2):
        slow = during(300, 1e6, 1.0)
        trial = Trial(Draw(canary_slow=slow), seed=seed, seconds=1200, interval=60, weight=100, sources=sources)
        found.append(trial.rolled_back(looks(310, 1170, 50)))
    assert all(found), found


def test_the_load_on_prometheus_does_not_grow_with_the_length_of_a_hold() -> None:
    """Abort looks come every two seconds: what they ask must not reach back over the whole hold each time."""
    loaded = []
    for after in (1800.0, 14400.0):
        trial = Trial(Draw(), seed=1, seconds=after + 70, interval=15)
        for moment in looks(after, after + 60, 2):
            trial.look(moment)
        loaded.append(sum(trial.world.prometheus.loads))
    assert loaded[1] <= 3 * loaded[0]
    assert loaded[1] <= 60 * 4000, "samples a minute"
