"""What a number of replicas can really give where their ratio is the weight."""

from __future__ import annotations

from typing import Any

import pytest

from pinn_operator.core.api import parse_spec
from pinn_operator.core.rollout.shares import share_at, what_replicas_can_give
from pinn_operator.core.wanted.spec import Spec

GATEWAY = {"router": "HTTPRoute", "parentRefs": [{"name": "edge", "namespace": "edge"}]}


def spec(replicas: int, *weights: int, **more: Any) -> Spec:
    steps = [{"weight": weight, "holdSeconds": 60} for weight in (*weights, 100)]
    parsed = parse_spec({"image": "a", "replicas": replicas, "strategy": {"canary": {"steps": steps}}, **more})
    assert isinstance(parsed, Spec)
    return parsed


@pytest.mark.parametrize(
    ("replicas", "weights", "words"),
    [
        (1, (10, 50), "with 1 replica and no router 10% is about 50%; the steps 10% and 50% cannot be told apart"),
        (3, (10, 50), "with 3 replicas and no router 10% is about 25%"),
        (9, (10, 50), ""),
        (2, (30, 40), "with 2 replicas and no router 40% is about 33%; the steps 30% and 40% cannot be told apart"),
        (0, (10, 50), ""),
    ],
)  # fmt: skip
def test_it_is_said_how_far_the_steps_are_from_what_the_replicas_give(
    replicas: int, weights: tuple[int, ...], words: str
) -> None:
    assert what_replicas_can_give(spec(replicas, *weights)) == words


def test_with_a_router_every_weight_is_given() -> None:
    assert what_replicas_can_give(spec(1, 10, 50, traffic=GATEWAY)) == ""
    assert share_at(spec(1, 10, traffic=GATEWAY), 10) == 10.0


def test_the_last_weight_is_always_whole() -> None:
    assert share_at(spec(1, 10), 100) == 100.0
