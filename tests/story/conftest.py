"""Stories of what is still judged wrongly. Each is strict: who puts a thing right takes its line away."""

from __future__ import annotations

import pytest

WRONG_NOW: dict[str, str] = {
    "a_fault_upstream_that_hits_every_pod_alike_rolls_nothing_back[15-30-": "windows end at one moment for all pods",
    "a_fault_upstream_that_hits_every_pod_alike_rolls_nothing_back[30-10-": "windows end at one moment for all pods",
    "a_fault_upstream_that_hits_every_pod_alike_rolls_nothing_back[60-30-": "windows end at one moment for all pods",
    "errors_that_come_in_clusters_on_both_revisions_roll_nothing_back[5-": "errors are taken as independent",
    "errors_that_come_in_clusters_on_both_revisions_roll_nothing_back[10-": "errors are taken as independent",
    "targets_that_count_every_pod_three_times": "every target counts",
    "a_target_that_leaves_takes_nothing_back": "every target counts",
    "slow_answers_in_a_bake_are_seen_where_scrapes_are_a_minute_apart": "windows hold a single sample",
    "the_load_on_prometheus_does_not_grow": "every look asks for the whole hold",
    "a_bake_on_dead_data_never_promotes": "the age of samples is not looked at",
    "a_weight_never_rises_on_dead_data": "the age of samples is not looked at",
    "scrapes_that_come_back_let_the_rollout_go_on": "the age of samples is not looked at",
    "what_prometheus_does_not_see_any_more": "pods are not asked",
    "pods_that_nobody_lists_count_for_nobody": "any pod with the name counts",
    "a_canary_that_refuses_what_stable_answers": "only 5xx are compared",
    "a_canary_that_swallows_its_requests": "no requests are no proof",
    "a_single_step_of_all_traffic": "there is no reference before the first step",
    "the_probes_that_the_team_set": "only the bundled server's probes are left out",
    "requests_without_a_status_that_can_be_read": "what has no status counts as good",
    "a_native_histogram_is_understood_or_said": "nothing is said of native histograms",
    "a_pod_that_shares_the_load_is_in_the_selector": "the selector of the scale is stable's",
}
"""By the begin of the test's name."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is known to be wrong."""
    for item in items:
        for name, reason in WRONG_NOW.items():
            if item.name.startswith(f"test_{name}"):
                item.add_marker(pytest.mark.xfail(strict=True, reason=reason))
