"""Asks the queries of each rollout in the background: no pass waits long for a Prometheus, or at all for a silent one.

The queries of a pass are one batch. A Prometheus that answers soon is waited for, so its answers are judged in the pass
that asked; of a later batch the pass is told that it is awaited, and its end wakes the pass that gets the answers.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pinn_operator.core.samples import Answer, AnyAnswer, Awaited, Query, SourceError
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
class _Rollout:
    """What one resource asks. `about` says of what: answers about anything else are worth nothing."""

    about: object
    task: asyncio.Task[None] | None = None
    answers: Mapping[str, Answer] = field(default_factory=dict)
    """Of the last batch that ended, until a pass has had them."""
    late: bool = False
    """The last batch took longer than a pass waits for one."""
    given_up: bool = False
    """A pass went on without the batch that is out."""


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
                rollout.answers = {}
                if rollout.task is None:
                    del self._rollouts[key]
            return {}
        if spec.analysis.prometheus.address is None and not self._has_default:
            return dict.fromkeys((query.key for query in questions), NO_PROMETHEUS)
        about = _about(situation)
        if rollout is None or rollout.about != about:
            self.gone(*key)
            rollout = self._rollouts[key] = _Rollout(about, late=rollout is not None and rollout.late)
        wanted = frozenset(query.key for query in questions)
        if rollout.task is None and not wanted <= rollout.answers.keys():
            await self._begin(key, rollout, spec.analysis.prometheus, questions)
        # All or nothing of a batch that is out: two passes must not take one measurement for two.
        answers, rollout.answers = rollout.answers, {}
        return {name: answers.get(name, Awaited()) for name in wanted}

    async def _begin(self, key: Key, rollout: _Rollout, prometheus: Prometheus, questions: Sequence[Query]) -> None:
        """Send a batch, and wait for it as long as a pass has time."""
        rollout.given_up = False
        asking = self._run(key, rollout, prometheus, questions)
        task = rollout.task = asyncio.create_task(asking, name="metrics {}/{}".format(*key))
        await asyncio.wait([task], timeout=0.0 if rollout.late else PATIENCE)
        rollout.given_up = rollout.task is not None

    def gone(self, namespace: str, name: str) -> None:
        """There is no such resource any more: what it asked is given up."""
        rollout = self._rollouts.pop((namespace, name), None)
        if rollout is not None and rollout.task is not None:
            rollout.task.cancel()

    async def close(self) -> None:
        """End all asking."""
        tasks = [rollout.task for rollout in self._rollouts.values() if rollout.task is not None]
        for key in list(self._rollouts):
            self.gone(*key)
        await asyncio.gather(*tasks, return_exceptions=True)

    # --- the task of a batch ------------------------------------------------------------------------------------------

    async def _run(self, key: Key, rollout: _Rollout, prometheus: Prometheus, questions: Sequence[Query]) -> None:
        began = time.monotonic()
        try:
            source = await self._sources.source(prometheus, key[0])
            answers = await asyncio.gather(*(self._ask_one(source, query, key[0]) for query in questions))
        except Exception as error:  # noqa: BLE001
            # A fault of ours must not leave a rollout waiting for ever.
            about = {"namespace": key[0], "service": key[1]}
            _LOG.error("Prometheus could not be asked", extra=about, exc_info=error)
            answers = [SourceError(f"Prometheus could not be asked: {type(error).__name__}")] * len(questions)
        rollout.answers = {query.key: answer for query, answer in zip(questions, answers, strict=True)}
        rollout.task = None
        rollout.late = time.monotonic() - began > PATIENCE
        if rollout.given_up:
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


def _about(situation: Situation) -> object:
    """What the queries of a pass speak of: an answer about another weight, revision or gate is none."""
    resource = situation.resource
    status, spec = resource.status, situation.spec
    assert spec is not None
    revisions = tuple(known.revision if known else "" for known in (status.stable, status.canary, status.previous))
    rollout = status.rollout
    times = (rollout.start_time, rollout.weight_time, rollout.programmed_time) if rollout else ()
    return resource.uid, spec.analysis, status.phase, revisions, times
