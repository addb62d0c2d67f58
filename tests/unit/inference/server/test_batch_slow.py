"""Batches with slow options: a piece of each in turn, quick work first, and bounds on what may wait."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pinn_inference.pricing import integral_equation
from pinn_inference.pricing.american import SLOW_OPTIONS_AT_MOST
from pinn_inference.pricing.types import BoolArray, FallbackReason, Method, OptionBatch, Quotes
from pinn_inference.server.batch import JobKind
from pinn_inference.server.batch.jobs import (
    SLOW_PIECE,
    SLOW_QUEUE,
    Answered,
    Counts,
    EngineFailed,
    Refusal,
    SlowBatches,
    Steps,
    Work,
    perform,
    price_without_model,
)
from pinn_inference.server.errors import Overloaded
from tests.support.batch import SteeredPricer, exact
from tests.support.server import PUT, options

AMERICAN = {**PUT, "style": "american"}
DONE = Answered("application/json", None, Counts())


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def steps(clock: Clock, quick: float, *pieces: float) -> Steps:
    """A batch that takes `quick` seconds, and then so many for each piece of its slow options."""

    def made() -> Generator[int, None, Answered | Refusal]:
        clock.now += quick
        for number, seconds in enumerate(pieces):
            yield (len(pieces) - number) * SLOW_PIECE
            clock.now += seconds
        return DONE

    return made()


class Sizes(SteeredPricer):
    """Notes the sizes of what it prices."""

    def __init__(self, fails: Callable[[OptionBatch], bool] = lambda _: False) -> None:
        super().__init__({})
        self.sizes: list[int] = []
        self._fails = fails

    def price(self, batch: OptionBatch) -> Quotes:
        self.sizes.append(len(batch))
        if self._fails(batch):
            raise BufferError("the device has failed")
        return exact(batch)


def answer(pricer: SteeredPricer, *asked: dict[str, Any]) -> tuple[Answered | Refusal, Any]:
    body = json.dumps({"options": asked}).encode()
    pieces: list[bytes | memoryview] = []
    slow = SlowBatches[None]()
    work = Work(JobKind.PRICE, body, {}, 65_536, 32 << 20)
    outcome = slow.begin(None, perform(work, pricer, pieces.append, slow.admit))
    while outcome is None:
        outcome = slow.go_on(slow.take())
    return outcome, json.loads(b"".join(pieces) or b"null")


def test_batches_without_slow_options_are_done_at_once() -> None:
    clock = Clock()
    assert SlowBatches[str](clock=clock).begin("quick", steps(clock, 1.0)) is DONE


def test_batches_with_slow_options_take_turns_a_piece_each() -> None:
    clock = Clock()
    slow = SlowBatches[str](clock=clock)
    assert slow.begin("long", steps(clock, 0.1, 1, 1, 1)) is None
    assert slow.begin("short", steps(clock, 0.1, 1)) is None
    turns = []
    while len(slow):
        batch = slow.take()
        turns.append((batch.job, slow.go_on(batch) is DONE))
    assert turns == [("long", False), ("short", True), ("long", False), ("long", True)]


def test_quick_work_goes_first_but_does_not_starve_slow_work() -> None:
    clock = Clock()
    slow = SlowBatches[str](clock=clock)
    slow.begin("slow", steps(clock, 0.0, *[1.0] * 50))
    slow.go_on(slow.take())
    share = []
    for _ in range(100):
        if slow.is_due:
            slow.go_on(slow.take())
            share.append("slow")
        else:
            slow.begin("quick", steps(clock, 1.0))
            share.append("quick")
    assert 15 <= share.count("slow") <= 25
    assert share[:5] == ["quick"] * 5


def test_what_waits_is_bounded_and_what_nobody_waits_for_makes_room() -> None:
    slow = SlowBatches[str]()
    slow.begin("one", iter_of(SLOW_QUEUE))
    with pytest.raises(Overloaded, match="slow American options"):
        slow.admit(1)
    assert slow.drop(lambda job: job == "one") == ["one"]
    slow.admit(SLOW_QUEUE)


def iter_of(left: int) -> Steps:
    yield left
    return DONE


def test_a_mixed_batch_is_priced_at_once_but_for_its_slow_options_and_answered_in_its_order() -> None:
    spots = [90 + index for index in range(2 * SLOW_PIECE + 10)]
    mixed = [{**(AMERICAN if index >= 10 else PUT), "spot": spot} for index, spot in enumerate(spots)]
    mixed = mixed[5:] + mixed[:5]
    pricer = Sizes()
    outcome, document = answer(pricer, *mixed)
    assert isinstance(outcome, Answered)
    assert pricer.sizes == [10, SLOW_PIECE, SLOW_PIECE]
    wanted = [answer(Sizes(), option)[1]["results"][0]["price"] for option in mixed]
    assert [row["price"] for row in document["results"]] == wanted
    assert outcome.counts.options == len(mixed)
    assert sum(outcome.counts.methods) == len(mixed)


def test_time_in_which_others_were_priced_is_not_counted_as_its_own() -> None:
    slow = SlowBatches[None]()
    body = json.dumps(AMERICAN).encode()
    work = Work(JobKind.PRICE, body, {}, 10, 1 << 20)
    assert slow.begin(None, perform(work, Sizes(), lambda _: None, slow.admit)) is None
    time.sleep(1.0)
    outcome = slow.go_on(slow.take())
    assert isinstance(outcome, Answered)
    assert outcome.counts.evaluation_seconds < 0.9


class Fast(Sizes):
    """To it no option is a slow one."""

    def slow_rows(self, batch: OptionBatch) -> Any:
        return batch.is_american & False


def test_an_engine_that_fails_sends_a_thousand_american_options_to_the_slow_method_and_no_more() -> None:
    outcome, document = answer(Fast(lambda _: True), PUT, *[AMERICAN] * 20, PUT)
    assert isinstance(outcome, Answered)
    assert outcome.counts.failed_evaluations == {"BufferError": 1}
    assert [row["method"] for row in document["results"]] == ["closed_form", *["integral_equation"] * 20, "closed_form"]
    assert {row["reason"] for row in document["results"]} == {"device_error"}
    outcome, _ = answer(Fast(lambda _: True), PUT, *[AMERICAN] * (SLOW_OPTIONS_AT_MOST + 1))
    assert isinstance(outcome, Refusal)
    assert (outcome.error.status, outcome.error.reason) == (500, "EngineFailed")
    assert outcome.counts.failed_evaluations == {"BufferError": 1}


def test_a_piece_that_fails_is_priced_without_the_device() -> None:
    outcome, document = answer(Sizes(lambda batch: bool(batch.is_american.any())), PUT, AMERICAN)
    assert isinstance(outcome, Answered)
    assert [row["method"] for row in document["results"]] == ["pinn", "integral_equation"]
    assert outcome.counts.failed_evaluations == {"BufferError": 1}


def test_no_more_than_a_thousand_options_are_priced_by_the_slow_method_whoever_asks() -> None:
    chosen = options(*[100.0] * (SLOW_OPTIONS_AT_MOST + 1))
    puts = replace(chosen, is_call=~chosen.is_call, is_american=chosen.is_call)
    with pytest.raises(EngineFailed, match="1001 of them cannot be priced"):
        price_without_model(puts, FallbackReason.DEVICE_ERROR)


def test_a_search_for_american_volatilities_lets_others_have_their_turn_between_any_two_rounds() -> None:
    class ByEquation(Sizes):
        def price(self, batch: OptionBatch) -> Quotes:
            self.sizes.append(len(batch))
            return integral_equation.price(batch)

        def slow_rows(self, options: OptionBatch) -> BoolArray:
            return np.zeros(len(options), dtype=np.bool_)

    priced = {name: value for name, value in AMERICAN.items() if name != "volatility"} | {"price": 5.0}
    body = json.dumps({"options": [priced, {**priced, "spot": 105}]}).encode()
    pricer, slow, pieces = ByEquation(), SlowBatches[None](), list[bytes | memoryview]()
    outcome = slow.begin(None, perform(Work(JobKind.IMPLIED, body, {}, 10, 1 << 20), pricer, pieces.append, slow.admit))
    turns = 0
    while outcome is None:
        outcome, turns = slow.go_on(slow.take()), turns + 1
    assert isinstance(outcome, Answered)
    assert turns == len(pricer.sizes) > 3
    assert (outcome.counts.options, outcome.counts.methods, outcome.counts.moments) == (2, [0] * len(Method), [])
    volatilities = [row["implied_volatility"] for row in json.loads(b"".join(pieces))["results"]]
    assert volatilities[0] < volatilities[1]
