"""Pods that are asked for prices, in fake time: each image has its model, and answers them as it answers clients."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cache

from pinn_operator.core.samples import (
    AnyAnswer,
    PodPrices,
    PriceAnswers,
    PriceFault,
    PricePod,
    PriceProtocol,
    PriceQuestion,
    PriceReply,
    Quote,
)
from pinn_operator.core.verification.grid import grid
from pinn_operator.core.verification.waves import SLOW_FLOOR, settled, worth_a_look
from tests.support.prices import Change, right_prices, same

SLOW_SECONDS = 3.0
"""How long an answer of a slow one takes."""
ASKING_SECONDS = 0.9
"""From the question to its answer, when nothing is slow."""
SAMPLING_SECONDS = 0.2
"""The same of a few requests to a revision that is verified."""


@dataclass(frozen=True)
class Pricing:
    """How a pod answers for prices at this moment."""

    model: Change = same
    errors: float = 0.0
    slow: float = 0.0
    latency: float = 0.004
    api: bool = True


@cache
def _quotes(model: Change, question_options: int) -> tuple[Quote, ...]:
    options = grid(question_options).options
    return tuple(model(option, quote) for option, quote in zip(options, right_prices(question_options), strict=True))


def _until(pods: Iterable[PodPrices], wave: int) -> tuple[PodPrices, ...]:
    """What they had answered after that wave."""
    return tuple(replace(item, replies=tuple(it for it in item.replies if it.wave <= wave)) for item in pods)


class Oracle:
    """Takes a question, and has the answer some time later. `pricing` tells how a pod answers; None if it is gone."""

    def __init__(self, pricing: Callable[[PricePod], Pricing | None], *, seed: int = 1) -> None:
        self._pricing = pricing
        self._random = random.Random(seed)
        self._asked: PriceQuestion | None = None
        self._answers: PriceAnswers | None = None
        self._ready = 0.0
        self.reachable = True
        self.questions: list[PriceQuestion] = []
        """Every one that was asked."""
        self.counted: Callable[[PricePod, PriceReply], None] = lambda pod, reply: None
        """Told of each answer: it stands in the pod's counters, as those to clients do."""

    def news(self, seconds: float) -> str:
        """Which answer is there: it wakes the operator when it comes."""
        return self._asked.identity if self._asked is not None and seconds >= self._ready else ""

    def forget(self) -> None:
        """The operator is started anew: what was answered is gone, and whatever is due is asked again."""
        self._asked = self._answers = None
        _quotes.cache_clear()

    def answers(self, questions: Iterable[PriceQuestion], seconds: float) -> dict[str, AnyAnswer]:
        """What is known now."""
        question = next(iter(questions), None)
        if question is None:
            self._asked = self._answers = None
            return {}
        if self._asked is None or self._asked.identity != question.identity:
            self._asked = question
            self.questions.append(question)
            self._answers = self._ask(question)
            self._ready = seconds + (self._answers.seconds if question.waves else SAMPLING_SECONDS)
        if seconds < self._ready or self._answers is None:
            return {}
        return {question.key: self._answers}

    def _ask(self, question: PriceQuestion) -> PriceAnswers:
        pods = tuple(self._pod(question, pod) for pod in question.pods)
        seconds = ASKING_SECONDS
        bad = any(not reply.good or reply.seconds >= SLOW_FLOOR for item in pods for reply in item.replies)
        for number in range(len(question.waves) if bad else 0):
            wave = max((it.seconds for item in pods for it in item.replies if it.wave == number), default=0.0)
            seconds += wave if wave >= SLOW_FLOOR else 0.0
            if seconds >= question.timeout_seconds:
                return PriceAnswers(question, _until(pods, number), question.timeout_seconds, complete=False)
            if worth_a_look(number, wave) and settled(_until(pods, number)):
                return PriceAnswers(question, _until(pods, number), seconds)
        return PriceAnswers(question, pods, seconds)

    def _pod(self, question: PriceQuestion, pod: PricePod) -> PodPrices:
        how = self._pricing(pod) if self.reachable else None
        if how is None:
            return PodPrices(pod, PriceProtocol.UNKNOWN, (), "connection refused")
        if not how.api:
            return PodPrices(pod, PriceProtocol.NONE, (), "/v1/price: 404")
        quotes = _quotes(how.model, len(question.options))
        requests = [(wave, request) for wave, requests in enumerate(question.waves) for request in requests]
        if not pod.full:
            requests = [(-1, question.sample)] * question.sample_times
        replies = tuple(self._reply(question, how, quotes, wave, request) for wave, request in requests)
        for reply in replies:
            self.counted(pod, reply)
        return PodPrices(pod, PriceProtocol.PRICE, replies)

    def _reply(
        self, question: PriceQuestion, how: Pricing, quotes: tuple[Quote, ...], wave: int, request: tuple[int, ...]
    ) -> PriceReply:
        seconds = how.latency
        if how.slow and self._random.random() < how.slow:
            seconds = SLOW_SECONDS
        if seconds > question.request_seconds:
            return PriceReply(wave, request, question.request_seconds, 0, (), PriceFault.SLOW, "no answer")
        if how.errors and self._random.random() < how.errors:
            return PriceReply(wave, request, seconds, 500, (), PriceFault.NONE, "boom")
        return PriceReply(wave, request, seconds, 200, tuple(quotes[index] for index in request))
