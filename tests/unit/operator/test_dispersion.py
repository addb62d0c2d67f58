"""Dispersion: clusters on single pods are seen, what hits all pods alike is not."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pinn_operator.core.gates.dispersion import dispersion
from pinn_operator.core.gates.sequential import Counts

BIN = 15.0


def history(
    dice: random.Random, *, pods: int = 9, bins: int = 240, per_bin: int = 45, share: float = 0.005,
    cluster: float = 1.0,
) -> dict[str, list[Counts]]:  # fmt: skip
    """An hour of stable pods; each cluster is of one pod and one bin, its size geometric with mean `cluster`."""
    bad = [[0] * bins for _ in range(pods)]
    for _ in range(round(pods * bins * per_bin * share / cluster)):
        size = 1
        while dice.random() > 1 / cluster:
            size += 1
        pod, moment = dice.randrange(pods), dice.randrange(bins)
        bad[pod][moment] = min(per_bin, bad[pod][moment] + size)
    return {f"p{pod}": [Counts(per_bin, count) for count in bad[pod]] for pod in range(pods)}


@pytest.mark.parametrize("pods", [1, 2, 9])
def test_independent_errors_are_hardly_dispersed(pods: int) -> None:
    dice = random.Random(20261127)
    found = [dispersion(history(dice, pods=pods), bin_seconds=BIN) for _ in range(20)]
    assert sum(found) / len(found) < 1.1


@pytest.mark.parametrize("pods", [1, 2, 9])
@pytest.mark.parametrize("cluster", [2.0, 5.0])
def test_clusters_of_single_pods_are_measured_by_the_size_that_a_bad_request_sees(pods: int, cluster: float) -> None:
    dice = random.Random(20261127)
    found = [dispersion(history(dice, pods=pods, cluster=cluster), bin_seconds=BIN) for _ in range(20)]
    # A geometric size with mean c has E[C²]/E[C] = 2c − 1.
    assert sum(found) / len(found) == pytest.approx(2 * cluster - 1, rel=0.25)


def test_a_fault_upstream_that_hits_all_pods_alike_is_no_cluster() -> None:
    pods = history(random.Random(20261127))
    for bins in pods.values():
        bins[100] = Counts(45, 15)
    assert dispersion(pods, bin_seconds=BIN) < 1.2


def test_a_fault_of_one_pod_is_a_cluster() -> None:
    pods = history(random.Random(20261127))
    pods["p3"][100] = Counts(45, 45)
    assert dispersion(pods, bin_seconds=BIN) > 4


def test_pods_that_come_and_go_count_while_they_are_there() -> None:
    dice, found = random.Random(20261127), []
    for _ in range(20):
        pods = history(dice)
        pods["p0"] = [Counts(0, 0)] * 120 + pods["p0"][:120]
        pods["p1"] = pods["p1"][:60]
        found.append(dispersion(pods, bin_seconds=BIN))
    assert sum(found) / len(found) < 1.1


@pytest.mark.parametrize("pods", [{}, {"a": []}, {"a": [Counts(0, 0)], "b": [Counts(5, 0)]}, {"a": [Counts(10, 10)]}])
def test_without_anything_to_tell_by_errors_are_taken_as_independent(pods: dict[str, list[Counts]]) -> None:
    assert dispersion(pods, bin_seconds=BIN) == 1.0


def test_a_bin_needs_a_length() -> None:
    with pytest.raises(ValueError, match="bin_seconds"):
        dispersion({}, bin_seconds=0)


bins = st.lists(st.builds(lambda n, share: Counts(n, n * share), st.floats(0, 1e5), st.floats(0, 1)), max_size=12)


@settings(max_examples=200)
@given(pods=st.dictionaries(st.text(max_size=3), bins, max_size=5), seconds=st.floats(0.25, 300))
def test_dispersion_is_a_number_of_at_least_one(pods: dict[str, list[Counts]], seconds: float) -> None:
    assert 1.0 <= dispersion(pods, bin_seconds=seconds) < float("inf")
