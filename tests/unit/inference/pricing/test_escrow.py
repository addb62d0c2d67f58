"""Dividends of known amounts: what is taken off the spot, and Greeks by the spot that it is taken off."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pinn_inference.pricing import closed_form
from pinn_inference.pricing.backward_induction import price as price_american
from pinn_inference.pricing.escrow import NO_DIVIDENDS, Schedule
from pinn_inference.pricing.escrowed import Escrow
from pinn_inference.pricing.types import OptionBatch, Quotes

QUARTERLY = Schedule(tuple((0.1 + 0.25 * quarter, 0.8) for quarter in range(8)))


def options(*, is_american: bool = False) -> OptionBatch:
    """Five of different kinds; QUARTERLY is paid in part by some, and not at all by the shortest."""
    return OptionBatch(
        spot=np.array([100.0, 90.0, 120.0, 105.0, 100.0]),
        strike=np.full(5, 100.0),
        maturity=np.array([1.0, 0.5, 2.0, 0.7, 0.05]),
        rate=np.array([0.05, 0.01, -0.01, 0.03, 0.05]),
        dividend=np.array([0.0, 0.01, 0.0, 0.0, 0.0]),
        volatility=np.array([0.25, 0.2, 0.4, 0.3, 0.2]),
        is_call=np.array([True, False, True, False, True]),
        is_american=np.full(5, is_american),
    )


def quotes_of(batch: OptionBatch, schedule: Schedule = QUARTERLY) -> Quotes:
    schedules = [schedule] * len(batch)
    escrow = Escrow.of(batch, schedules)
    reduced = escrow.reduced(batch, schedules)
    return escrow.settled((price_american if batch.is_american.any() else closed_form.price)(reduced))


def test_what_is_paid_until_expiry_is_taken_off_at_its_present_value() -> None:
    batch = options()
    escrow = Escrow.of(batch, [QUARTERLY] * 5)
    for row in range(5):
        maturity, rate = float(batch.maturity[row]), float(batch.rate[row])
        expected = sum(amount * np.exp(-rate * time) for time, amount in QUARTERLY.dividends if time <= maturity)
        assert escrow.present_value[row] == pytest.approx(expected, rel=1e-14)
        assert QUARTERLY.until(maturity).present_value(rate) == pytest.approx(expected, rel=1e-14)
        assert QUARTERLY.until(maturity).by_rate(rate) == pytest.approx(escrow.by_rate[row], rel=1e-14)
    assert escrow.present_value[4] == 0.0


def test_a_dividend_at_the_moment_of_expiry_is_paid_before_it() -> None:
    batch = replace(options(), maturity=np.full(5, 0.1))
    assert (Escrow.of(batch, [QUARTERLY] * 5).present_value > 0.0).all()


def test_options_of_one_batch_may_have_different_dividends_or_none() -> None:
    batch, other = options(), Schedule(((0.01, 3.0),))
    escrow = Escrow.of(batch, [QUARTERLY, NO_DIVIDENDS, other, QUARTERLY, other])
    assert escrow.present_value[1] == 0.0
    assert escrow.present_value[[2, 4]] == pytest.approx([3.0 * np.exp(0.0001), 3.0 * np.exp(-0.0005)])


def test_only_american_options_that_a_dividend_comes_before_the_end_of_wait_for_it() -> None:
    batch = options(is_american=True)
    escrow = Escrow.of(batch, [QUARTERLY] * 5)
    assert escrow.reduced(batch, [QUARTERLY] * 5).waits_for_dividends.tolist() == [True, True, True, True, False]
    assert escrow.reduced(options(), [QUARTERLY] * 5).schedules == ()


def test_a_textbook_call_on_a_share_with_two_dividends() -> None:
    """Hull, Options, Futures, and Other Derivatives, on European options on a share that pays dividends: 3.67."""
    batch = OptionBatch(*(np.array([value]) for value in (40.0, 40.0, 0.5, 0.09, 0.0, 0.3)), is_call=np.array([True]))
    assert quotes_of(batch, Schedule(((2 / 12, 0.5), (5 / 12, 0.5)))).price[0] == pytest.approx(3.67, abs=5e-3)


@pytest.mark.parametrize("is_american", [False, True])
def test_greeks_are_derivatives_by_the_true_spot_and_as_time_passes(is_american: bool) -> None:
    batch = options(is_american=is_american).take(slice(0, 4))
    quotes = quotes_of(batch)
    slack = 2e-3 if is_american else 1e-5
    steps = {"delta": ("spot", 0.2), "vega": ("volatility", 1e-3), "rho": ("rate", 5e-4)}
    sizes = {"delta": 1.0, "vega": 100.0, "rho": 100.0 * batch.maturity}
    for greek, (name, step) in steps.items():
        up, down = (quotes_of(replace(batch, **{name: getattr(batch, name) + by})) for by in (step, -step))
        slope = (up.price - down.price) / (2.0 * step)
        assert (np.abs(getattr(quotes, greek) - slope) / sizes[greek]).max() < slack, greek
        if greek == "delta":
            bend = (up.delta - down.delta) / (2.0 * step)
            assert np.abs(quotes.gamma - bend).max() < slack / 10.0
    dt = 1e-3
    later, earlier = (
        quotes_of(
            replace(batch, maturity=batch.maturity - by),
            Schedule(tuple((time - by, amount) for time, amount in QUARTERLY.dividends)),
        )
        for by in (dt, -dt)
    )
    assert np.abs(quotes.theta - (later.price - earlier.price) / (2.0 * dt)).max() < 100.0 * slack


def test_a_call_and_a_put_differ_by_the_forward_of_the_share_without_its_dividends() -> None:
    batch = options()
    call, put = (quotes_of(replace(batch, is_call=np.full(5, is_call))) for is_call in (True, False))
    start = batch.spot - Escrow.of(batch, [QUARTERLY] * 5).present_value
    forward = start * np.exp(-batch.dividend * batch.maturity) - batch.strike * np.exp(-batch.rate * batch.maturity)
    assert call.price - put.price == pytest.approx(forward, abs=1e-11)
