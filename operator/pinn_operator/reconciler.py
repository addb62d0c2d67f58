"""One pass over one PINNService: observe → ask → decide → commit → act → tell. No policy: that is `core.decide`.

The status is committed before anything is done, by compare-and-swap: of two operators, or two passes, that saw the same
state only one goes on, and what a pass that died had committed is done by the next, which finds it missing.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from pinn_operator.core.api import Resource, parse_resource, status_to_manifest
from pinn_operator.core.decide import decide_in
from pinn_operator.core.decision import Action, Apply, Decision, Event, ResetCaches
from pinn_operator.core.gates.questions import due
from pinn_operator.core.reasons import Reason
from pinn_operator.core.rollout.deletion import is_kept
from pinn_operator.core.samples import AnyAnswer, PodReadFault, Question, Samples
from pinn_operator.core.situation import Situation, situation_of
from pinn_operator.core.status.values import EventType
from pinn_operator.core.verification.questions import due_prices
from pinn_operator.kube.errors import ClusterError, Conflict, NotOwned
from pinn_operator.kube.protocol import Cluster
from pinn_operator.telemetry import Telemetry

ACT_FAILED = "ActionFailed"
NAME_TAKEN = "NameTaken"
PODS_IN_LOOP = 200
"""A decision about more pods may take longer than the passes of other resources should wait."""

TOLD_AGAIN_WITHIN = timedelta(minutes=30)
"""Half of the hour that API servers keep events by default."""

_TOLD_FAULTS = 5
_Asked = TypeVar("_Asked", contravariant=True, bound=Question)

_LOG = logging.getLogger(__name__)


class Source(Protocol[_Asked]):
    """Where the answers to one kind of question come from. Asked in every pass, with nothing if none is due.

    An answer that takes long is not waited for: it is absent, or `Awaited`, until it is there, and then the source
    wakes the pass.
    """

    async def ask(self, situation: Situation, questions: Sequence[_Asked]) -> Mapping[str, AnyAnswer]:
        """Answers by key. Never raises for a fault outside this process."""

    def gone(self, namespace: str, name: str) -> None:
        """There is no such resource any more: nothing is asked for it again."""


class CacheResetter(Protocol):
    """Empties the caches of pods."""

    async def reset(self, action: ResetCaches, situation: Situation) -> Sequence[PodReadFault]:
        """The pods whose caches could not be emptied, and why."""


class Outcome(StrEnum):
    """How a pass ended."""

    QUIET = "quiet"
    """Nothing was written."""
    COMMITTED = "committed"
    """Something was written."""
    GONE = "gone"
    """There is no such resource, or it is being deleted: its children go by their owner references."""
    CONFLICT = "conflict"
    """Somebody else wrote the status each time."""
    FAILED = "failed"
    """The status is committed, but an object could not be written."""


@dataclass(frozen=True, slots=True)
class PassResult:
    """`delay` is in seconds until the next pass if nothing happens; None when there is nothing to come back to."""

    outcome: Outcome
    delay: float | None


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds. A pass without a reason to come back sooner is repeated after `resync` ± 20 %."""

    resync: float = 1800.0
    soonest: float = 0.05
    conflict_rounds: int = 5
    conflict_wait: float = 0.05


class Reconciler:
    """Passes over resources. `now` gives aware UTC times.

    `sources` answer the questions, each kind its own. `has_prometheus` says whether there is a Prometheus for resources
    that name none.
    """

    def __init__(
        self,
        *,
        cluster: Cluster,
        sources: Mapping[type[Question], Source[Any]],
        telemetry: Telemetry,
        resetter: CacheResetter | None = None,
        has_prometheus: bool = True,
        pace: Pace | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._cluster = cluster
        self._sources = sources
        self._telemetry = telemetry
        self._resetter = resetter
        self._has_prometheus = has_prometheus
        self._pace = pace or Pace()
        self._now = now
        self._sleep = sleep
        self._told: set[tuple[str, str]] = set()
        """Resources of which all that was committed is known to be told."""

    async def once(self, namespace: str, name: str) -> PassResult:
        """One pass, repeated at once when the status was changed by somebody else meanwhile. Raises ClusterError."""
        started = time.monotonic()
        outcome = Outcome.FAILED
        try:
            for attempt in range(self._pace.conflict_rounds):
                try:
                    result = await self._pass(namespace, name)
                except Conflict:
                    _LOG.debug("somebody else was faster, going round again", extra=_about(namespace, name))
                    jitter = random.uniform(0.2, 1.0)  # noqa: S311
                    await self._sleep(self._pace.conflict_wait * 2**attempt * jitter)
                else:
                    outcome = result.outcome
                    return result
            outcome = Outcome.CONFLICT
            return PassResult(outcome, self._pace.conflict_wait * 2**self._pace.conflict_rounds)
        finally:
            self._telemetry.pass_ended(outcome.value, time.monotonic() - started)

    async def _pass(self, namespace: str, name: str) -> PassResult:
        manifest = await self._cluster.read(namespace, name)
        if manifest is None:
            self._telemetry.resource_gone(namespace, name)
            self._leave(namespace, name)
            return PassResult(Outcome.GONE, None)
        resource = parse_resource(manifest)
        if resource.deleting and resource.status.rollout is None:
            self._leave(namespace, name)
            return PassResult(Outcome.GONE, self._resync())
        observed = await self._cluster.observe(resource)
        if resource.deleting and not is_kept(resource, observed):
            self._leave(namespace, name)
            return PassResult(Outcome.GONE, self._resync())
        situation = situation_of(resource, observed, has_prometheus=self._has_prometheus)
        samples = await self._ask(situation)
        decision = await self._decide(situation, samples)
        committed = await self._commit(resource, decision)
        failure, resets = await asyncio.gather(
            self._act(resource, decision.actions), self._reset(situation, decision.resets if committed else ())
        )
        await self._tell_missing(resource)
        if committed:
            self._log_transitions(resource, decision)
            await self._tell(resource, (*decision.events, *resets))
        if failure is not None:
            await self._tell(resource, (failure,))
            return PassResult(Outcome.FAILED, self._delay(decision))
        outcome = Outcome.COMMITTED if committed or decision.actions else Outcome.QUIET
        return PassResult(outcome, self._delay(decision))

    async def _decide(self, situation: Situation, samples: Samples) -> Decision:
        """A rollout of very many pods is decided in a thread of its own: others, who may have to be taken back, must
        not wait for it. Everything that is given to it never changes."""
        if len(situation.observed.pods) > PODS_IN_LOOP:
            return await asyncio.to_thread(decide_in, situation, samples, self._now())
        return decide_in(situation, samples, self._now())

    # --- ask ----------------------------------------------------------------------------------------------------------

    async def _ask(self, situation: Situation) -> Samples:
        """Every kind of question goes to its source, all at the same time."""
        now = self._now()
        questions = (*due(situation, now), *due_prices(situation, now))
        asked = [
            source.ask(situation, [question for question in questions if isinstance(question, kind)])
            for kind, source in self._sources.items()
        ]
        samples: dict[str, AnyAnswer] = {}
        for answers in await asyncio.gather(*asked):
            samples.update(answers)
        return samples

    # --- commit -------------------------------------------------------------------------------------------------------

    async def _commit(self, resource: Resource, decision: Decision) -> bool:
        """Whether there was something to commit. Raises Conflict."""
        # As they are written: what is too long is cut there, and must not look like news in every pass.
        if status_to_manifest(decision.status) == status_to_manifest(resource.status):
            self._telemetry.resource_seen(resource.namespace, resource.name, resource.status)
            return False
        await self._cluster.commit_status(resource, decision.status)
        self._telemetry.resource_seen(resource.namespace, resource.name, decision.status)
        for transition in decision.transitions:
            self._telemetry.transition(resource.namespace, resource.name, transition)
        return True

    # --- act ----------------------------------------------------------------------------------------------------------

    async def _act(self, resource: Resource, actions: Sequence[Action]) -> Event | None:
        """What failed, as an event; None if all is done.

        The first failure ends it: the order is what makes the writes safe. The next pass finds what is missing.
        """
        for action in actions:
            verb, kind, name = _described(action)
            try:
                await self._cluster.act(resource, action)
            except ClusterError as error:
                self._telemetry.action(verb, kind, "failed")
                _LOG.warning(
                    "could not %s %s %s",
                    verb,
                    kind,
                    name,
                    extra={**_about(resource.namespace, resource.name), "error": str(error)},
                )
                reason = NAME_TAKEN if isinstance(error, NotOwned) else ACT_FAILED
                return Event(EventType.WARNING, reason, f"could not {verb} {kind} {name}: {error}")
            self._telemetry.action(verb, kind, "done")
        return None

    async def _reset(self, situation: Situation, resets: Sequence[ResetCaches]) -> list[Event]:
        """What came of it, as events."""
        events = []
        for action in resets if self._resetter is not None else ():
            assert self._resetter is not None
            faults = await self._resetter.reset(action, situation)
            self._telemetry.action("reset", "caches", "failed" if faults else "done")
            done = (
                f"caches of {len(action.pods) - len(faults)} of {len(action.pods)} pods of {action.revision} were reset"
            )
            text = f"gate {action.gate}: {done}"
            if faults:
                text += "; " + "; ".join(f"{fault.pod}: {fault.message}" for fault in faults[:_TOLD_FAULTS])
            events.append(
                Event(EventType.WARNING, Reason.CACHES_NOT_RESET, text)
                if faults
                else Event(EventType.NORMAL, Reason.CACHES_RESET, text)
            )
        return events

    # --- tell ---------------------------------------------------------------------------------------------------------

    async def _tell(self, resource: Resource, events: Sequence[Event]) -> None:
        """An event that cannot be emitted is not worth failing for: the status says it too, and the next pass tries."""
        for event in events:
            if not await self._emitted(resource, event, self._cluster.emit(resource, event)):
                self._told.discard((resource.namespace, resource.name))

    async def _tell_missing(self, resource: Resource) -> None:
        """What an earlier pass committed and perhaps did not tell: its process died, or events could not be written.

        What is older is not told: of events that were deleted for their age nobody knows whether they were told.
        """
        key = (resource.namespace, resource.name)
        if key in self._told:
            return
        self._told.add(key)
        for item in resource.status.announcements:
            if self._now() - item.time > TOLD_AGAIN_WITHIN:
                continue
            event = Event(item.type, item.reason, item.message)
            if not await self._emitted(resource, event, self._cluster.emit_missing(resource, event, item.time)):
                self._told.discard(key)

    async def _emitted(self, resource: Resource, event: Event, emission: Awaitable[None]) -> bool:
        try:
            await emission
        except ClusterError as error:
            self._telemetry.event_told("failed")
            extra = {**_about(resource.namespace, resource.name), "reason": event.reason, "error": str(error)}
            _LOG.warning("could not emit an event", extra=extra)
            return False
        self._telemetry.event_told("done")
        return True

    def _log_transitions(self, resource: Resource, decision: Decision) -> None:
        for transition in decision.transitions:
            extra = {**_about(resource.namespace, resource.name), "revision": transition.revision}
            _LOG.info("%s: %s", transition.kind, transition.reason, extra=extra)
        for event in decision.events:
            level = logging.WARNING if event.type is EventType.WARNING else logging.INFO
            extra = {**_about(resource.namespace, resource.name), "reason": event.reason}
            _LOG.log(level, "%s", event.message, extra=extra)

    def _leave(self, namespace: str, name: str) -> None:
        self._told.discard((namespace, name))
        for source in self._sources.values():
            source.gone(namespace, name)

    # --- come back ----------------------------------------------------------------------------------------------------

    def _delay(self, decision: Decision) -> float:
        resync = self._resync()
        if decision.requeue_at is None:
            return resync
        return min(resync, max(self._pace.soonest, (decision.requeue_at - self._now()).total_seconds()))

    def _resync(self) -> float:
        return self._pace.resync * random.uniform(0.8, 1.2)  # noqa: S311


def _described(action: Action) -> tuple[str, str, str]:
    if isinstance(action, Apply):
        return "apply", action.manifest["kind"], action.manifest["metadata"]["name"]
    return "delete", action.kind, action.name


def _about(namespace: str, name: str) -> dict[str, str]:
    return {"namespace": namespace, "service": name}
