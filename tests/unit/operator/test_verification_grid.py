"""The options that a revision is asked for."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinn_operator.core.verification.grid import MONEYNESS, TERMS, grid, moneyness, sample, term
from pinn_operator.core.verification.questions import LIST_OPTIONS, WAVE_REQUESTS, waves
from pinn_operator.core.wanted.spec import Verification

DEFAULT = grid(Verification().options)


def test_each_combination_of_term_moneyness_type_and_style_is_asked_for() -> None:
    found = Counter((term(it), moneyness(it), it.call, it.american) for it in DEFAULT.options)
    assert set(found) == set(product(TERMS, MONEYNESS, (False, True), (False, True)))
    assert min(found.values()) >= 2


def test_there_are_puts_and_calls_of_both_styles_with_less_than_a_week_to_go() -> None:
    short = Counter((it.call, it.american) for it in DEFAULT.options if it.maturity < 7 / 365)
    assert set(short) == set(product((False, True), (False, True)))
    assert min(short.values()) >= 12


def test_rates_are_positive_zero_and_negative_for_every_type_and_style() -> None:
    signs = {((it.rate > 0) - (it.rate < 0), it.call, it.american) for it in DEFAULT.options}
    assert signs == set(product((-1, 0, 1), (False, True), (False, True)))


def test_no_option_has_two_exercise_boundaries_which_the_server_refuses() -> None:
    for it in grid(2000).options:
        assert not (it.american and (it.dividend < it.rate < 0 or it.rate < it.dividend < 0))


@pytest.mark.parametrize("options", [8, 12, 100, 240, 2000])
def test_its_groups_are_what_they_say(options: int) -> None:
    found = grid(options)
    assert len(set(found.options)) == options
    for rungs in found.ladders:
        low, middle, high = (found.options[index] for index in rungs)
        assert low.strike < middle.strike < high.strike
        assert len({replace(it, strike=1.0) for it in (low, middle, high)}) == 1
    for call, put in found.parities:
        assert replace(found.options[put], call=True) == found.options[call] != found.options[put]
    for european, american in found.styles:
        assert replace(found.options[european], american=True) == found.options[american] != found.options[european]


@given(fewer=st.integers(1, 300), more=st.integers(1, 300))
def test_a_smaller_grid_is_the_beginning_of_a_larger_one(fewer: int, more: int) -> None:
    fewer, more = sorted((fewer, more))
    assert grid(more).options[:fewer] == grid(fewer).options


def test_a_grid_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        grid(0)


@given(options=st.integers(1, 2000), size=st.integers(1, 30))
def test_samples_of_successive_turns_visit_every_option(options: int, size: int) -> None:
    turns = -(-options // min(size, options))
    seen = {index for turn in range(turns) for index in sample(options, size, turn)}
    assert seen == set(range(options))


@pytest.mark.parametrize("options", [8, 240, 241, 2000])
def test_each_option_is_asked_for_in_a_list_and_twice_alone(options: int) -> None:
    requests = [request for wave in waves(options) for request in wave]
    lists = [index for request in requests if len(request) > 1 for index in request]
    assert sorted(lists) == list(range(options)) or options % LIST_OPTIONS == 1
    alone = Counter(request[0] for request in requests if len(request) == 1)
    assert set(alone) == set(range(options))
    assert set(alone.values()) <= {2, 3}
    assert max(map(len, waves(options))) == WAVE_REQUESTS
