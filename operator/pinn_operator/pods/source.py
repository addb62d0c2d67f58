"""Answers the questions of a pass to pods, from what the reader has in memory, and says to the reader what to read."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

from pinn_operator.core.decision import ResetCaches
from pinn_operator.core.gates.alarm import alarm_of
from pinn_operator.core.names import CONTROL_TOKEN
from pinn_operator.core.observed import ControlToken, DataKind, Observed, Pod
from pinn_operator.core.samples import AnyAnswer, PodQuestion, PodReadFault
from pinn_operator.core.situation import Situation
from pinn_operator.core.wanted.spec import MetricNames
from pinn_operator.pods.http import PodClient, PodSilent
from pinn_operator.pods.reader import FAMILIES_LIMIT, BadAnswers, PodReader, Reading, Target

RESET_PATH = "/cache/reset"
RESET_SECONDS = 3.0
RESET_PODS = 200
_TOKEN_REQUIRED = 401

DataReader = Callable[[str, str, str], Awaitable[str | None]]
"""Namespace, name and key of a Secret or ConfigMap to its value; None if it is absent. May raise."""


class PodCounters:
    """Where counters of pods come from. No method but `reset` waits for anything."""

    def __init__(self, reader: PodReader, client: PodClient, *, data: Mapping[DataKind, DataReader]) -> None:
        self._reader = reader
        self._client = client
        self._data = data

    async def ask(self, situation: Situation, questions: Sequence[PodQuestion]) -> Mapping[str, AnyAnswer]:
        """What is known now. A pass that asks nothing ends the reading of its resource's pods, seconds later."""
        resource = situation.resource
        if not questions or situation.spec is None:
            self._reader.end_soon(resource.namespace, resource.name)
            return {}
        canary = resource.status.canary
        reading = reading_of(
            questions,
            situation.observed,
            canary=canary.revision if canary is not None else "",
            names=situation.spec.analysis.names,
        )
        self._reader.read(resource.namespace, resource.name, reading)
        return self._reader.answers(resource.namespace, resource.name, questions)

    def gone(self, namespace: str, name: str) -> None:
        """There is no such resource any more."""
        self._reader.end(namespace, name)

    async def reset(self, action: ResetCaches, situation: Situation) -> tuple[PodReadFault, ...]:
        """Empty the caches of pods; those that could not be asked, or refused, with the reason."""
        pods = {pod.name: pod for pod in situation.observed.pods if pod.name in action.pods}
        asked, namespace = action.pods[:RESET_PODS], situation.resource.namespace
        faults = await asyncio.gather(*(self._reset_one(name, pods.get(name), namespace) for name in asked))
        left_out = [PodReadFault(name, f"only {RESET_PODS} pods are asked") for name in action.pods[RESET_PODS:]]
        return (*(fault for fault in faults if fault is not None), *left_out)

    async def _reset_one(self, name: str, pod: Pod | None, namespace: str) -> PodReadFault | None:
        if pod is None or not pod.address:
            return PodReadFault(name, "it does not run")
        try:
            token = await self._token(pod.token, namespace)
            page = await self._client.post(pod.address, RESET_PATH, seconds=RESET_SECONDS, token=token)
        except (PodSilent, _TokenUnknown) as error:
            return PodReadFault(name, str(error))
        if 200 <= page.status < 300:
            return None
        refused = f", it asks for another {CONTROL_TOKEN}" if page.status == _TOKEN_REQUIRED else ""
        return PodReadFault(name, f"POST {RESET_PATH}: HTTP {page.status}{refused}")

    async def _token(self, token: ControlToken, namespace: str) -> str:
        """What the pod was given, if the operator can know it. Raises _TokenUnknown."""
        value = token.value
        if token.kind is not None:
            where = f"the {token.kind} {namespace}/{token.name}"
            try:
                # An absent one that may be absent: the pod asks for nothing.
                value = await self._data[token.kind](namespace, token.name, token.key) or ""
            except Exception as error:
                raise _TokenUnknown(f"{CONTROL_TOKEN} is in {where}, which cannot be read: {error}") from error
        elif "$(" in value:
            raise _TokenUnknown(f"{CONTROL_TOKEN} is made of other variables, which only its container knows")
        if not (value.isascii() and value.isprintable()):
            raise _TokenUnknown(f"{CONTROL_TOKEN} can be no header: it must be one line of ASCII")
        return value

    async def close(self) -> None:
        """End all reading."""
        await self._reader.close()


class _TokenUnknown(Exception):
    """What a pod asks for cannot be had; the message says why, and never what it is."""


def reading_of(questions: Sequence[PodQuestion], observed: Observed, *, canary: str, names: MetricNames) -> Reading:
    """The pods and families of these questions. Requests and latencies are read in every round, the rest at rest."""
    asked = {pod for question in questions for pod in question.pods}
    families = dict.fromkeys(family for question in questions for family in question.families)
    in_every_round = (names.requests, f"{names.latency}_bucket")
    quick = tuple(family for family in families if family in in_every_round)
    slow = tuple(family for family in families if family not in in_every_round)
    targets = (
        Target(pod.name, pod.address, canary=pod.revision == canary)
        for pod in observed.pods
        if pod.name in asked and pod.address
    )
    return Reading(
        targets=tuple(sorted(targets, key=lambda target: target.name)),
        quick=quick or slow[:1],
        slow=(slow if quick else slow[1:])[: FAMILIES_LIMIT - len(quick)],
        is_bad=BadAnswers(names.requests, names.status_label, names.handler_label),
        alarm=alarm_of(names),
        alarmed=(names.requests,),
    )
