"""Right prices for the options that a revision is verified with, and pods that answer with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from pinn_inference.pricing import closed_form, integral_equation
from pinn_inference.pricing.types import OptionBatch, Quotes
from pinn_operator.core.samples import (
    PodPrices,
    PriceAnswers,
    PriceOption,
    PricePod,
    PriceProtocol,
    PriceQuestion,
    PriceReply,
    Quote,
)
from pinn_operator.core.verification.grid import grid, sample
from pinn_operator.core.verification.questions import PRICES, waves

NUMBERS = ("price", "delta", "gamma", "vega", "theta", "rho", "error_bound")
CANARY = PricePod("eu-bbbb-x-1", "10.0.0.2:8000", canary=True, full=True)
STABLE = PricePod("eu-aaaa-x-1", "10.0.0.1:8000", canary=False, full=True)
Change = Callable[[PriceOption, Quote], Quote]
"""What a model makes of an option and its right price."""


def batch(options: Sequence[PriceOption]) -> OptionBatch:
    """The options as columns."""
    names = ("spot", "strike", "maturity", "rate", "dividend", "volatility")
    columns = (np.array([getattr(option, name) for option in options], dtype=np.float64) for name in names)
    return OptionBatch(
        *columns, is_call=np.array([option.call for option in options], dtype=np.bool_),
        is_american=np.array([option.american for option in options], dtype=np.bool_),
    )  # fmt: skip


@cache
def right_prices(options: int) -> tuple[Quote, ...]:
    """Of the grid of that many options: European ones by Black–Scholes, American ones by their integral equation."""
    rows = batch(grid(options).options)
    european, american = rows.take(~rows.is_american), rows.take(rows.is_american)
    found = {False: iter(_quotes(closed_form.price(european))), True: iter(_quotes(integral_equation.price(american)))}
    return tuple(next(found[bool(style)]) for style in rows.is_american)


def _quotes(quotes: Quotes) -> list[Quote]:
    columns = [getattr(quotes, name).tolist() for name in NUMBERS]
    return [Quote(*row, method="pinn") for row in zip(*columns, strict=True)]


def question(options: int = 240, *pods: PricePod) -> PriceQuestion:
    """Everything, of these pods: by default one of each revision."""
    return PriceQuestion(
        key=PRICES, identity=f"bbbb/aaaa/{options}/0", options=grid(options).options, pods=pods or (CANARY, STABLE),
        waves=waves(options), sample=sample(options, 10, 0), timeout_seconds=60.0, request_seconds=2.0,
    )  # fmt: skip


def same(option: PriceOption, quote: Quote) -> Quote:
    return quote


def off_by(share: float, where: Callable[[PriceOption], bool] = lambda _: True) -> Change:
    """Prices that are wrong by a share of the strike, somewhere."""

    def change(option: PriceOption, quote: Quote) -> Quote:
        return replace(quote, price=quote.price + share * option.strike) if where(option) else quote

    return change


def answer(
    asked: PriceQuestion,
    *,
    canary: Change = same,
    stable: Change = same,
    reply: Callable[[PricePod, PriceReply], PriceReply] = lambda pod, reply: reply,
    protocol: PriceProtocol = PriceProtocol.PRICE,
) -> PriceAnswers:
    """What pods answer whose models make of the right prices what `canary` and `stable` do.

    `reply` may spoil each reply before it is counted.
    """
    right = right_prices(len(asked.options))
    pods = []
    for pod in asked.pods:
        model = canary if pod.canary else stable
        quotes = [model(option, quote) for option, quote in zip(asked.options, right, strict=True)]
        requests = [(wave, request) for wave, requests in enumerate(asked.waves) for request in requests]
        if not pod.full:
            requests = [(-1, asked.sample)]
        replies = tuple(
            reply(pod, PriceReply(wave, request, 0.004, 200, tuple(quotes[index] for index in request)))
            for wave, request in requests
        )
        pods.append(PodPrices(pod, protocol, replies))
    return PriceAnswers(asked, tuple(pods), 1.0)
