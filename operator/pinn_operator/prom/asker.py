"""Asks the queries of each rollout in the background: no pass waits long for a Prometheus, or at all for a silent one.

The queries of the built-in gates are one batch, because they are read together; each custom gate's query is one by
itself, so a slow one delays no other gate. A batch that is answered soon is waited for, so its answers are judged in
the pass that asked. Of a later one the pass is told that it is awaited, and its end wakes the pass that gets the
answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pinn_operator.core.samples import GATE_KEY, Answer, AnyAnswer, Awaited, Query, SourceError
from pinn_operator.core.situation import Situation
from pinn_operator.core.wanted.spec import Prometheus
from pinn_operator.prom.protocol import MetricSource, SourceProvider

Key = tuple[str, str]
"""Namespace and name of a resource."""

PATIENCE: Final = 0.3
"""Seconds that a pass waits for the answers to what it asked, unless the last ones took longer."""
NO_PROMETHEUS: Final = SourceError(
    "there is no Prometheus to ask: give its address in spec.analysis.prometheus.address, or to the operator by "
    "--prometheus-address"
)

_LOG = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Batch:
    """Queries that are asked together, and whose answers come together."""

    task: asyncio.Task[None] | None = None
    answers: Mapping[str, Answer] = field(default_factory=dict)
    """Of the last time that it was out, until a pass has had them."""
    begun: int = 0
    """The number of the pass that asked last."""
    late: bool = False
    """The last answers took longer than a pass waits for them."""
    given_up: bool = False
    """A pass went on without the answers that are out."""


@dataclass(slots=True, eq=False)
class _Rollout:
    """What one resource asks. `about` says of what: answers about anything else are worth nothing."""

    about: object
    batches: dict[str, _Batch] = field(default_factory=dict)
    passes: int = 0


class PrometheusAsker:
    """Where the answers to `Query` come from.

    `wake` is called with namespace and name when answers came that a pass did not wait for; `observer` with the outcome
    (`answered`, `empty`, `error`) and the seconds of each query. `has_default` says whether there is a Prometheus for
    resources that name none. Used from one event loop only.
    """

    def __init__(
        self,
        sources: SourceProvider,
        *,
        wake: Callable[[str, str], None],
        observer: Callable[[str, float], None] = lambda _outcome, _seconds: None,
        has_default: bool = True,
    ) -> None:
        self._sources = sources
        self._wake = wake
        self._observer = observer
        self._has_default = has_default
        self._rollouts: dict[Key, _Rollout] = {}

    def __len__(self) -> int:
        return len(self._rollouts)

    async def ask(self, situation: Situation, questions: Sequence[Query]) -> Mapping[str, AnyAnswer]:
        """See `reconciler.Source.ask`. Every query has an answer, or is `Awaited`."""
        resource, spec = situation.resource, situation.spec
        key = (resource.namespace, resource.name)
        rollout = self._rollouts.get(key)
        if spec is None or not questions:
            if rollout is not None:
                rollout.batches = {name: batch for name, batch in rollout.batches.items() if batch.task is not None}
                for batch in rollout.batches.values():
                    batch.answers = {}
                if not rollout.batches:
                    del self._rollouts[key]
            return {}
        if spec.analysis.prometheus.address is None and not self._has_default:
            return dict.fromkeys((query.key for query in questions), NO_PROMETHEUS)
        about = _about(situation)
        if rollout is None or rollout.about != about:
            late = {name for name, batch in rollout.batches.items() if batch.late} if rollout else ()
            self.gone(*key)
            rollout = self._rollouts[key] = _Rollout(about, {name: _Batch(late=True) for name in late})
        wanted: dict[str, list[Query]] = {}
        for query in questions:
            wanted.setdefault(_batch_of(query), []).append(query)
        await self._begin(key, rollout, spec.analysis.prometheus, wanted)
        answers = _handed_out(rollout, wanted)
        return {query.key: answers.get(query.key, Awaited()) for query in questions}

    async def _begin(
        self, key: Key, rollout: _Rollout, prometheus: Prometheus, wanted: Mapping[str, Sequence[Query]]
    ) -> None:
        """Send the batches of which something is missing, and wait for them as long as a pass has time."""
        rollout.passes += 1
        sent: list[_Batch] = []
        for name, questions in wanted.items():
            batch = rollout.batches.setdefault(name, _Batch())
            if batch.task is None and not {query.key for query in questions} <= batch.answers.keys():
                batch.begun, batch.given_up = rollout.passes, False
                asking = self._run(key, batch, prometheus, questions)
                batch.task = asyncio.create_task(asking, name="metrics {}/{} {}".format(*key, name))
                sent.append(batch)
        if not sent:
            return
        tasks = [batch.task for batch in sent if batch.task is not None]
        quick = [batch.task for batch in sent if batch.task is not None and not batch.late]
        await asyncio.wait(quick or tasks, timeout=PATIENCE if quick else 0.0)
        for batch in sent:
            batch.given_up = batch.task is not None

    def gone(self, namespace: str, name: str) -> None:
        """There is no such resource any more: what it asked is given up."""
        rollout = self._rollouts.pop((namespace, name), None)
        if rollout is not None:
            for task in _out(rollout):
                task.cancel()

    async def close(self) -> None:
        """End all asking."""
        tasks = [task for rollout in self._rollouts.values() for task in _out(rollout)]
        for key in list(self._rollouts):
            self.gone(*key)
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the task of a batch ------------------------------------------------------------------------------------------

    async def _run(self, key: Key, batch: _Batch, prometheus: Prometheus, questions: Sequence[Query]) -> None:
        began = time.monotonic()
        try:
            source = await self._sources.source(prometheus, key[0])
            answers = await asyncio.gather(*(self._ask_one(source, query, key[0]) for query in questions))
        except Exception as error:  # noqa: BLE001
            # A fault of ours must not leave a rollout waiting for ever.
            about = {"namespace": key[0], "service": key[1]}
            _LOG.error("Prometheus could not be asked", extra=about, exc_info=error)
            answers = [SourceError(f"Prometheus could not be asked: {type(error).__name__}")] * len(questions)
        batch.answers = {query.key: answer for query, answer in zip(questions, answers, strict=True)}
        batch.task = None
        batch.late = time.monotonic() - began > PATIENCE
        if batch.given_up:
            self._wake(*key)

    async def _ask_one(self, source: MetricSource, query: Query, namespace: str) -> Answer:
        started = time.monotonic()
        answer = await source.ask(query, namespace=namespace)
        if isinstance(answer, SourceError):
            outcome = "error"
            _LOG.debug("no answer to a query", extra={"query": query.key, "error": answer.message})
        else:
            outcome = "answered" if answer else "empty"
        self._observer(outcome, time.monotonic() - started)
        return answer


def _batch_of(query: Query) -> str:
    return query.key if query.key.startswith(GATE_KEY) else ""


def _out(rollout: _Rollout) -> list[asyncio.Task[None]]:
    return [batch.task for batch in rollout.batches.values() if batch.task is not None]


def _handed_out(rollout: _Rollout, wanted: Mapping[str, Sequence[Query]]) -> Mapping[str, Answer]:
    """The answers that this pass gets. No pass gets them again: two must not take one measurement for two.

    Together they are worth most, because nothing passes while one is awaited. A batch is kept until all others that are
    out are there, unless one of them was sent no later than it: that one is slow, and the batch may be asked again
    meanwhile. So whatever was sent first is kept once it is there, and in the end all of them are.
    """
    for name, batch in rollout.batches.items():
        if name not in wanted:
            batch.answers = {}
    asked = [rollout.batches[name] for name in wanted]
    first = min((batch.begun for batch in asked if batch.task is not None), default=0)
    answers: dict[str, Answer] = {}
    for batch in asked:
        if batch.task is not None or not first or first <= batch.begun:
            answers.update(batch.answers)
            batch.answers = {}
    return answers


def _about(situation: Situation) -> object:
    """What the queries of a pass speak of: an answer about another weight, revision or gate is none."""
    resource = situation.resource
    status, spec = resource.status, situation.spec
    assert spec is not None
    revisions = tuple(known.revision if known else "" for known in (status.stable, status.canary, status.previous))
    rollout = status.rollout
    times = (rollout.start_time, rollout.weight_time, rollout.programmed_time) if rollout else ()
    return resource.uid, spec.analysis, status.phase, revisions, times
