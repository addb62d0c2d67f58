"""Which bad answers of a canary wake a pass at once."""

from __future__ import annotations

import pytest

from pinn_operator.core.gates.alarm import alarm_of
from pinn_operator.core.samples import Series
from pinn_operator.core.wanted.spec import MetricNames


def pod(good: float, failed: float, *, refused: float = 0, before: float = 1000, **labels: str) -> list[Series]:
    """Requests that were counted since the last reads."""
    return [
        Series(
            {"__name__": "http_requests_total", "pod": "a", "handler": "/v1/price", "status": status, **labels},
            ((0.0, before), (0.25, before + grown)),
        )
        for status, grown in (("200", good), ("500", failed), ("400", refused))
    ]


@pytest.mark.parametrize(
    ("name", "canary", "stable", "wakes"),
    [
        ("its first failure, and stable has none", pod(2, 1), pod(30, 0), True),
        ("it refuses what stable answers", pod(2, 0, refused=1), pod(30, 0), True),
        ("stable fails as often", pod(2, 1), pod(20, 10), False),
        ("nothing bad", pod(3, 0), pod(30, 0), False),
        ("only a probe failed", pod(0, 1, handler="/health"), pod(30, 0), False),
        ("stable has no traffic", pod(2, 1), [], True),
        ("nothing was read yet", [], [], False),
    ],
)
def test_what_wakes_a_pass(name: str, canary: list[Series], stable: list[Series], wakes: bool) -> None:
    assert alarm_of(MetricNames())(canary, stable) is wakes, name


def test_names_are_those_of_the_spec() -> None:
    names = MetricNames(requests="served_total", status_label="code", handler_label="path")
    series = [Series({"__name__": "served_total", "code": "503", "path": "/quote"}, ((0.0, 0.0), (1.0, 1.0)))]
    assert alarm_of(names)(series, [])


def test_a_restarted_container_counts_from_zero() -> None:
    restarted = [Series({"status": "500", "handler": "/v1/price"}, ((0.0, 50.0), (1.0, 2.0)))]
    assert alarm_of(MetricNames())(restarted, pod(10, 0))
