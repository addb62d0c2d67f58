"""The operator's own reader of pods, in fake time: pages of metrics, and what `pinn_operator.pods` keeps of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache

from pinn_operator.core.samples import (
    POD_FAULTS,
    AnyAnswer,
    PodQuestion,
    PodReadFault,
    PodReadFaults,
    SourceError,
)
from pinn_operator.pods.history import History
from pinn_operator.pods.reader import BadAnswers, LastCounts
from tests.story.prometheus import REQUESTS, Key, SimulatedPod, Trouble

REST, CANARY_REST, CLOSE, CLOSE_FOR = 1.0, 0.5, 0.25, 10.0
"""Seconds between two reads at rest, of stable's pods and of the canary's, while its answers are looked at closely, and
for how long they are."""
FAILURES = 2
"""A pod is reported after so many reads in a row that failed."""
_SILENCE = {
    Trouble.REFUSED: "nothing listens at 10.0.0.1:8000",
    Trouble.SLOW: "no answer within 0.5 s",
    Trouble.GARBAGE: "the answer is no metrics: text/html",
}
_IS_BAD = BadAnswers(REQUESTS, "status", "handler")


@dataclass
class _Pod:
    history: History
    due: float = float("-inf")
    failures: int = 0
    message: str = ""


@cache
def _head(line: Key) -> str:
    labels = ",".join(f'{name}="{value}"' for name, value in line[1])
    return f"{line[0]}{{{labels}}} "


class Reader:
    """Reads pods while the canary has weight, and answers from memory, which a restart of the operator empties."""

    def __init__(self) -> None:
        self._pods: dict[str, _Pod] = {}
        self._counts = LastCounts()
        self._families: frozenset[str] = frozenset()
        self._close_until = float("-inf")
        self.wanted: frozenset[str] = frozenset()
        """The pods that the last pass asked about: they are read until it asks about others."""
        self.alarmed = False
        """The canary has given more bad answers since the last pass."""

    def forget(self) -> None:
        """The operator was restarted."""
        self._pods, self._counts = {}, LastCounts()
        self._close_until = float("-inf")

    def live(self, pods: Iterable[SimulatedPod], canary: str, seconds: float, now: float) -> None:
        """Read the pods that are due: `seconds` since the story began are `now` by the operator's clock, in unix
        seconds. `canary` is its revision."""
        grew = False
        for pod in sorted(pods, key=lambda it: it.revision != canary):
            known, ours = self._known(pod.name), pod.revision == canary
            # A bad answer is judged beside what stable answers at the same moment.
            if seconds < known.due and (ours or not grew):
                continue
            known.due = seconds + (CLOSE if seconds < self._close_until else CANARY_REST if ours else REST)
            trouble = pod.trouble if pod.scraped else Trouble.REFUSED
            if trouble is not None:
                known.failures, known.message = known.failures + 1, _SILENCE[trouble]
                continue
            shown = {line: value for line, value in pod.exported(seconds).items() if line[0] in self._families}
            self.take(pod.name, now, shown, shown.values())
            if ours and known.history.bad_grew:
                self._close_until, self.alarmed, grew = seconds + CLOSE_FOR, True, True
                known.due = seconds + CLOSE

    def take(self, pod: str, moment: float, lines: Collection[Key], values: Iterable[float]) -> None:
        """What a read of a pod showed."""
        known = self._known(pod)
        known.failures = 0
        page = [f"{_head(line)}{value!r}\n" for line, value in zip(lines, values, strict=True)]
        known.history.add(moment, "".join(page).encode(), [family.encode() for family in {line[0] for line in lines}])

    def answers(self, questions: Iterable[PodQuestion]) -> dict[str, AnyAnswer]:
        """What a pass finds in memory."""
        asked, families = set[str](), set[str]()
        answers: dict[str, AnyAnswer] = {}
        for question in questions:
            asked.update(question.pods)
            families.update(question.families)
            start = question.start.timestamp() if question.start is not None else None
            known = [self._pods[name] for name in question.pods if name in self._pods]
            reads = [pod.history.reads(start) for pod in known if pod.history.has(question.families)]
            found = tuple(read for read in reads if read is not None)
            if found or any(pod.history.moments for pod in known):
                answers[question.key] = self._counts.of(question.families, found)
            elif known:
                answers[question.key] = SourceError(f"none of {len(known)} pods can be read: {known[0].message}")
        self.wanted, self._families = frozenset(asked), frozenset(families)
        if asked:
            silent = ((name, pod) for name, pod in sorted(self._pods.items()) if pod.failures >= FAILURES)
            answers[POD_FAULTS] = PodReadFaults(
                tuple(PodReadFault(name, pod.message) for name, pod in silent if name in asked)
            )
        return answers

    def _known(self, pod: str) -> _Pod:
        known = self._pods.get(pod)
        if known is None:
            known = self._pods[pod] = _Pod(History(pod, _IS_BAD))
        return known
