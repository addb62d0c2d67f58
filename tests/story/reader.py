"""The operator's own reader of pods, in fake time: what `pinn_operator.pods` does, without a network."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pinn_operator.core.samples import (
    FAMILY_LABEL,
    POD_FAULTS,
    AnyAnswer,
    PodQuestion,
    PodReadFault,
    PodReadFaults,
    Series,
    SourceError,
)
from pinn_operator.pods.history import CLOCK_SECONDS
from tests.story.prometheus import REQUESTS, Key, SimulatedPod, Trouble

REST, CLOSE, CLOSE_FOR = 1.0, 0.25, 10.0
"""Seconds between two reads at rest, while the canary's answers are looked at closely, and for how long they are."""
FAILURES = 2
"""A pod is reported after so many reads in a row that failed."""
FINE_READS = 400
"""Beyond, every second of the older reads is dropped."""
_SILENCE = {
    Trouble.REFUSED: "nothing listens at 10.0.0.1:8000",
    Trouble.SLOW: "no answer within 0.5 s",
    Trouble.GARBAGE: "the answer is no metrics: text/html",
}


@dataclass
class _History:
    labels: Mapping[str, str]
    times: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)

    def add(self, times: Sequence[float], values: Sequence[float]) -> None:
        if not times or (self.times and times[0] <= self.times[-1]):
            return
        self.times.extend(times)
        self.values.extend(values)
        while len(self.times) > FINE_READS:
            old = len(self.times) // 2
            self.times[:old], self.values[:old] = self.times[:old:2], self.values[:old:2]

    def since(self, start: float | None) -> Series | None:
        low = 0 if start is None else max(0, bisect_right(self.times, start) - 1)
        points = tuple(zip(self.times[low:], self.values[low:], strict=True))
        return Series(self.labels, points) if points else None


@dataclass
class _Pod:
    lines: dict[Key, _History] = field(default_factory=dict)
    due: float = float("-inf")
    failures: int = 0
    message: str = ""
    bad: float = 0.0


def _refused(line: Key) -> bool:
    return dict(line[1]).get("status", "2") >= "4"


class Reader:
    """Reads pods while the canary has weight, and answers from memory, which a restart of the operator empties."""

    def __init__(self) -> None:
        self._pods: dict[str, _Pod] = {}
        self._close_until = float("-inf")
        self.wanted: frozenset[str] = frozenset()
        """The pods that the last pass asked about: they are read until it asks about others."""
        self.alarmed = False
        """The canary has given more bad answers since the last pass."""

    def forget(self) -> None:
        """The operator was restarted."""
        self._pods = {}
        self._close_until = float("-inf")

    def live(self, pods: Iterable[SimulatedPod], canary: str, seconds: float, now: float) -> None:
        """Read the pods that are due: `seconds` since the story began are `now` by the operator's clock, in unix
        seconds. `canary` is its revision."""
        for pod in pods:
            known = self._pods.setdefault(pod.name, _Pod())
            if seconds < known.due:
                continue
            known.due = seconds + (CLOSE if seconds < self._close_until else REST)
            trouble = pod.trouble if pod.scraped else Trouble.REFUSED
            if trouble is not None:
                known.failures, known.message = known.failures + 1, _SILENCE[trouble]
                continue
            shown = pod.exported(seconds)
            for line, value in shown.items():
                self.remember(pod.name, line, (now,), (value,))
            bad = sum(value for line, value in shown.items() if line[0] == REQUESTS and _refused(line))
            if pod.revision == canary and bad > known.bad:
                self._close_until, self.alarmed = seconds + CLOSE_FOR, True
            known.bad = bad

    def remember(self, pod: str, line: Key, times: Sequence[float], values: Sequence[float]) -> None:
        """What reads of a pod showed of one series."""
        known = self._pods.setdefault(pod, _Pod())
        known.failures = 0
        history = known.lines.get(line)
        if history is not None and times and times[0] < history.times[-1] - CLOCK_SECONDS:
            # The clock was set back: all that was read before is dropped.
            known.lines.clear()
            history = None
        if history is None:
            history = known.lines[line] = _History({**dict(line[1]), FAMILY_LABEL: line[0], "pod": pod})
        history.add(times, values)

    def answers(self, questions: Iterable[PodQuestion]) -> dict[str, AnyAnswer]:
        """What a pass finds in memory."""
        asked: set[str] = set()
        answers: dict[str, AnyAnswer] = {}
        for question in questions:
            asked.update(question.pods)
            families = frozenset(question.families)
            start = question.start.timestamp() if question.start is not None else None
            known = [self._pods[name] for name in question.pods if name in self._pods]
            series = tuple(
                found
                for pod in known
                for line, history in pod.lines.items()
                if line[0] in families and (found := history.since(start)) is not None
            )
            if series or any(pod.lines for pod in known):
                answers[question.key] = series
            elif known:
                answers[question.key] = SourceError(f"none of {len(known)} pods can be read: {known[0].message}")
        self.wanted = frozenset(asked)
        if asked:
            silent = ((name, pod) for name, pod in sorted(self._pods.items()) if pod.failures >= FAILURES)
            answers[POD_FAULTS] = PodReadFaults(
                tuple(PodReadFault(name, pod.message) for name, pod in silent if name in asked)
            )
        return answers
