"""Asks the webhooks of each rollout in the background, and answers from memory: no pass ever waits for one."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Protocol
from weakref import WeakValueDictionary

from pinn_operator.core.samples import AnyAnswer, SourceError, WebhookAnswer, WebhookQuestion
from pinn_operator.core.situation import Situation
from pinn_operator.webhooks.parsing import Said

Key = tuple[str, str]
"""Namespace and name of a resource."""

UNASKED: Final = 300.0
"""Seconds. A webhook that no pass has wanted for so long, beside its interval, is asked no more."""
AT_ONCE: Final = 4
"""Questions of one namespace that are out at once: a slow webhook delays those of its own namespace alone."""
GATES_LIMIT: Final = 2048
"""Webhooks that are asked at all; each holds an answer of at most a KiB and a task."""
_ERROR_PAUSE: Final = 5.0
_JITTER: Final = 0.1

_LOG = logging.getLogger(__name__)


class Client(Protocol):
    """Asks a webhook once."""

    async def ask(self, question: WebhookQuestion, *, namespace: str, name: str) -> Said | SourceError:
        """Never raises for a fault outside this process."""

    async def close(self) -> None:
        """Close the connections."""


@dataclass(slots=True, eq=False)
class _Gate:
    question: WebhookQuestion
    wanted: float
    turn: asyncio.Semaphore
    answer: WebhookAnswer | None = None
    error: SourceError | None = None
    task: asyncio.Task[None] | None = None


class WebhookAsker:
    """Asks webhooks. `wake` is called with namespace and name when a webhook says something new.

    Used from one event loop only.
    """

    def __init__(
        self,
        client: Client,
        *,
        wake: Callable[[str, str], None],
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._wake = wake
        self._now = now
        self._gates: dict[Key, dict[str, _Gate]] = {}
        # Each gate holds that of its namespace, so one that nobody needs any more goes by itself.
        self._turns: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def __len__(self) -> int:
        return sum(len(gates) for gates in self._gates.values())

    async def ask(self, situation: Situation, questions: Sequence[WebhookQuestion]) -> Mapping[str, AnyAnswer]:
        """See `reconciler.Source.ask`, and `answers`."""
        return self.answers(situation.resource.namespace, situation.resource.name, questions)

    def answers(self, namespace: str, name: str, questions: Sequence[WebhookQuestion]) -> Mapping[str, AnyAnswer]:
        """What is known, at once; nothing for a question that is new. From now on just these are asked.

        An attempt without an answer is a SourceError until the next one. Without questions all is forgotten.
        """
        key = (namespace, name)
        gates = self._gates.get(key, {})
        wanted = {question.key: question for question in questions}
        for gone in [gate for gate in gates if gates[gate].question != wanted.get(gate)]:
            self._end(gates.pop(gone))
        answers: dict[str, AnyAnswer] = {}
        for question in questions:
            gate = gates.get(question.key)
            if gate is None:
                if len(self) >= GATES_LIMIT:
                    answers[question.key] = SourceError(f"{GATES_LIMIT} webhooks are asked already")
                    continue
                gate = gates[question.key] = _Gate(question, time.monotonic(), self._turn(namespace))
                self._gates[key] = gates
                gate.task = asyncio.create_task(
                    self._run(key, gate), name=f"webhook {namespace}/{name} {question.gate}"
                )
            gate.wanted = time.monotonic()
            answer = gate.error or gate.answer
            if answer is not None:
                answers[question.key] = answer
        if not gates:
            self._gates.pop(key, None)
        return answers

    def gone(self, namespace: str, name: str) -> None:
        """Ask no more for this resource, and forget what was said."""
        for gate in self._gates.pop((namespace, name), {}).values():
            self._end(gate)

    async def close(self) -> None:
        """End all asking."""
        tasks = [gate.task for gates in self._gates.values() for gate in gates.values() if gate.task is not None]
        for key in list(self._gates):
            self.gone(*key)
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._client.close()

    def _end(self, gate: _Gate) -> None:
        if gate.task is not None:
            gate.task.cancel()

    # --- the task of a gate -------------------------------------------------------------------------------------------

    async def _run(self, key: Key, gate: _Gate) -> None:
        interval = gate.question.interval
        while time.monotonic() - gate.wanted < UNASKED + interval:
            began = time.monotonic()
            try:
                async with gate.turn:
                    asked = self._now()
                    said = await self._client.ask(gate.question, namespace=key[0], name=key[1])
            except Exception as error:  # noqa: BLE001
                # A fault of ours must not leave the last answer standing for ever.
                asked = self._now()
                about = {"namespace": key[0], "service": key[1]}
                _LOG.error("a webhook could not be asked", extra=about, exc_info=error)
                said = SourceError(f"the webhook could not be asked: {type(error).__name__}")
                await asyncio.sleep(_ERROR_PAUSE)
            if self._take(gate, said, asked):
                self._wake(*key)
            pause = interval * random.uniform(1.0 - _JITTER, 1.0)  # noqa: S311
            await asyncio.sleep(max(0.0, began + pause - time.monotonic()))
        gates = self._gates.get(key, {})
        if gates.get(gate.question.key) is gate:
            del gates[gate.question.key]
            if not gates:
                self._gates.pop(key, None)

    def _take(self, gate: _Gate, said: Said | SourceError, asked: datetime) -> bool:
        """Keep what was said. Whether it is news: another verdict, an error or its end."""
        was_error, old = gate.error, gate.answer
        if isinstance(said, SourceError):
            gate.error = said
            return was_error is None
        gate.error = None
        same = old is not None and old.verdict is said.verdict
        gate.answer = WebhookAnswer(
            verdict=said.verdict,
            time=asked,
            since=old.since if old is not None and same else asked,
            count=old.count + 1 if old is not None and same else 1,
            message=said.message,
            value=said.value,
        )
        # A fail that is repeated may have become one too many.
        return not same or was_error is not None or said.verdict == "fail"

    def _turn(self, namespace: str) -> asyncio.Semaphore:
        turn = self._turns.get(namespace)
        if turn is None:
            turn = self._turns[namespace] = asyncio.Semaphore(AT_ONCE)
        return turn
