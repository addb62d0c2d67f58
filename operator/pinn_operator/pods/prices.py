"""Asks pods for prices, in the background: the pass that has a question begins it, and is woken when it is answered.

Pods are asked directly, by `POST /v1/price` or, where that is not there, by the Open Inference Protocol's
`POST /v2/models/{european,american}/infer`. What comes back may be anything: an answer has its size and its time, and
whatever is not a price is kept as the words of why. Nothing here judges: that is `core.verification`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final

import aiohttp

from pinn_operator.core.samples import (
    AnyAnswer,
    PodPrices,
    PriceAnswers,
    PriceFault,
    PriceOption,
    PricePod,
    PriceProtocol,
    PriceQuestion,
    PriceReply,
    Quote,
)
from pinn_operator.core.situation import Situation
from pinn_operator.core.text import cut
from pinn_operator.core.verification.waves import settled, worth_a_look

Key = tuple[str, str]
"""Namespace and name of a resource."""

PRICE_PATH: Final = "/v1/price"
INFER_PATH: Final = "/v2/models/{model}/infer"
ABSENT: Final = frozenset({404, 405, 501})
"""What a server answers that has no such path."""
SIZE_LIMIT: Final = 1024 * 1024
"""Of one answer, in bytes."""
AT_ONCE: Final = 4
"""Revisions that are asked everything at the same time; the others wait for their turn."""
SAMPLES_AT_ONCE: Final = 8
"""Requests for one sample to a pod at the same moment: a server may refuse more."""
_GREEKS: Final = ("delta", "gamma", "vega", "theta", "rho")
_WORDS: Final = 200

_LOG = logging.getLogger(__name__)


class Unreadable(Exception):
    """An answer with status 200 that holds no prices; the message says why."""


@dataclass(slots=True, eq=False)
class _Work:
    question: PriceQuestion
    answers: PriceAnswers | None = None
    task: asyncio.Task[None] | None = None


@dataclass(slots=True)
class _Asked:
    """A pod while it is being asked."""

    pod: PricePod
    protocol: PriceProtocol = PriceProtocol.UNKNOWN
    message: str = ""
    replies: list[PriceReply] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        return self.protocol in (PriceProtocol.PRICE, PriceProtocol.OPEN_INFERENCE)

    def prices(self) -> PodPrices:
        return PodPrices(self.pod, self.protocol, tuple(self.replies), self.message)


class PriceReader:
    """Asks for prices. `wake` is called with namespace and name when an answer is there.

    Used from one event loop only.
    """

    def __init__(self, *, wake: Callable[[str, str], None], at_once: int = AT_ONCE) -> None:
        self._wake = wake
        self._work: dict[Key, _Work] = {}
        self._turns = asyncio.Semaphore(at_once)
        self._ending: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._work)

    async def ask(self, situation: Situation, questions: Sequence[PriceQuestion]) -> Mapping[str, AnyAnswer]:
        """What is known now; nothing is waited for. A pass that asks nothing ends what is being asked."""
        resource = situation.resource
        question = questions[0] if questions else None
        answers = self.answer(resource.namespace, resource.name, question)
        return {} if question is None or answers is None else {question.key: answers}

    def gone(self, namespace: str, name: str) -> None:
        """There is no such resource any more."""
        self.end(namespace, name)

    def answer(self, namespace: str, name: str, question: PriceQuestion | None) -> PriceAnswers | None:
        """The answer, if it is there already; None while it is not, and for a question that is not due any more.

        Another question than before ends that one; the same one is not asked again.
        """
        key = (namespace, name)
        work = self._work.get(key)
        if question is None:
            self.end(namespace, name)
            return None
        if work is None or work.question.identity != question.identity:
            self.end(namespace, name)
            work = self._work[key] = _Work(question)
            work.task = asyncio.create_task(self._run(key, work), name=f"prices of {namespace}/{name}")
        return work.answers

    def end(self, namespace: str, name: str) -> None:
        """Ask no more for this resource, and forget what was answered."""
        work = self._work.pop((namespace, name), None)
        if work is not None and work.task is not None and not work.task.done():
            work.task.cancel()
            self._ending.add(work.task)
            work.task.add_done_callback(self._ending.discard)

    async def close(self) -> None:
        """End everything."""
        for key in list(self._work):
            self.end(*key)
        while self._ending:
            # Once is not enough: a cancellation that meets a time-out of the same moment becomes that time-out.
            for task in self._ending:
                task.cancel()
            await asyncio.wait(set(self._ending), timeout=0.5)

    async def _run(self, key: Key, work: _Work) -> None:
        question = work.question
        try:
            if question.waves:
                async with self._turns:
                    work.answers = await ask_pods(question)
            else:
                work.answers = await ask_pods(question)
        except Exception as error:  # noqa: BLE001 - a fault of ours is no fault of the revision
            _LOG.exception("asking for prices failed", extra={"namespace": key[0], "service": key[1]})
            words = cut(f"the operator failed: {error}", _WORDS)
            pods = tuple(PodPrices(pod, PriceProtocol.UNKNOWN, (), words) for pod in question.pods)
            work.answers = PriceAnswers(question, pods, 0.0)
        if self._work.get(key) is work:
            self._wake(*key)


async def ask_pods(question: PriceQuestion) -> PriceAnswers:
    """Everything that the pods answer within the question's time."""
    started = time.monotonic()
    asked = [_Asked(pod) for pod in question.pods]
    complete = True
    # The time to connect is within that of a request: a pod that takes no connection is not slow, it is not there.
    timeout = aiohttp.ClientTimeout(total=question.request_seconds, sock_connect=0.8 * question.request_seconds)
    connector = aiohttp.TCPConnector(limit=0, limit_per_host=0, keepalive_timeout=30)
    async with aiohttp.ClientSession(
        connector=connector, timeout=timeout, trust_env=False, auto_decompress=True,
        cookie_jar=aiohttp.DummyCookieJar(), headers={"User-Agent": "pinn-operator"},
    ) as session:  # fmt: skip
        try:
            async with asyncio.timeout(question.timeout_seconds):
                await asyncio.gather(*(_find_protocol(session, question, item) for item in asked))
                complete = await _ask_all(session, question, asked)
        except TimeoutError:
            complete = False
    return PriceAnswers(question, tuple(item.prices() for item in asked), time.monotonic() - started, complete)


async def _ask_all(session: aiohttp.ClientSession, question: PriceQuestion, asked: Sequence[_Asked]) -> bool:
    """Whether all was asked, or all that could matter."""
    usable = [item for item in asked if item.usable]
    samples = [item for item in usable if not item.pod.full]
    for asked_already in range(0, question.sample_times, SAMPLES_AT_ONCE):
        times = min(SAMPLES_AT_ONCE, question.sample_times - asked_already)
        await asyncio.gather(
            *(_reply(session, question, item, -1, question.sample) for item in samples for _ in range(times))
        )
    full = [item for item in usable if item.pod.full]
    if not any(item.pod.canary for item in full):
        return True
    for number, requests in enumerate(question.waves):
        began = time.monotonic()
        together = [_reply(session, question, item, number, request) for request in requests for item in full]
        await asyncio.gather(*together)
        if worth_a_look(number, time.monotonic() - began) and settled(item.prices() for item in full):
            return True
    return True


async def _find_protocol(session: aiohttp.ClientSession, question: PriceQuestion, item: _Asked) -> None:
    """Which of the two the pod speaks."""
    if item.pod.canary and question.protocol:
        item.protocol = question.protocol
        return
    probe = question.sample[:1]
    for protocol in (PriceProtocol.PRICE, PriceProtocol.OPEN_INFERENCE):
        reply = await _ask(session, question, replace(item, protocol=protocol), -1, probe)
        if reply.fault is PriceFault.UNREACHABLE:
            item.message = reply.message
            return
        if reply.status not in ABSENT:
            item.protocol = protocol
            return
        item.message = f"{item.message}{', ' if item.message else ''}{_path(protocol, question, probe)}: {reply.status}"
    item.protocol = PriceProtocol.NONE


def _path(protocol: PriceProtocol, question: PriceQuestion, request: Sequence[int]) -> str:
    if protocol is PriceProtocol.PRICE:
        return PRICE_PATH
    return INFER_PATH.format(model=_model(question.options[request[0]]))


async def _reply(
    session: aiohttp.ClientSession, question: PriceQuestion, item: _Asked, wave: int, request: tuple[int, ...]
) -> None:
    item.replies.append(await _ask(session, question, item, wave, request))


async def _ask(
    session: aiohttp.ClientSession, question: PriceQuestion, item: _Asked, wave: int, request: tuple[int, ...]
) -> PriceReply:
    """One request, or, where a protocol has one model for each style, one for each of them."""
    started = time.monotonic()
    found: dict[int, Quote] = {}
    status, fault, message = 0, PriceFault.NONE, ""
    for path, indices, body, read in _requests(item.protocol, question.options, request):
        url = f"http://{item.pod.address}{path}"
        status, fault, message, quotes = await _post(session, url, body, len(indices), read)
        if status != 200 or fault:
            break
        found.update(zip(indices, quotes, strict=True))
    good = status == 200 and not fault
    return PriceReply(
        wave, request, time.monotonic() - started, status, tuple(found[index] for index in request) if good else (),
        fault, message,
    )  # fmt: skip


Read = Callable[[Any, int], list[Quote]]
"""From a decoded answer and the number of options to their quotes; raises Unreadable."""


def _requests(
    protocol: PriceProtocol, options: Sequence[PriceOption], request: tuple[int, ...]
) -> list[tuple[str, tuple[int, ...], bytes, Read]]:
    """Path, options, body and reader of each request that it takes."""
    if protocol is PriceProtocol.PRICE:
        rows = [_row(options[index]) for index in request]
        body = rows[0] if len(rows) == 1 else {"options": rows}
        return [(PRICE_PATH, request, json.dumps(body).encode(), read_single if len(rows) == 1 else read_list)]
    found: list[tuple[str, tuple[int, ...], bytes, Read]] = []
    for american in (False, True):
        indices = tuple(index for index in request if options[index].american is american)
        if indices:
            chosen = [options[index] for index in indices]
            path = INFER_PATH.format(model=_model(chosen[0]))
            found.append((path, indices, json.dumps(_tensors(chosen)).encode(), read_tensors))
    return found


def _row(option: PriceOption) -> dict[str, object]:
    return {
        "spot": option.spot, "strike": option.strike, "maturity": option.maturity, "rate": option.rate,
        "dividend": option.dividend, "volatility": option.volatility, "option_type": "call" if option.call else "put",
        "style": _model(option),
    }  # fmt: skip


def _model(option: PriceOption) -> str:
    return "american" if option.american else "european"


def _tensors(options: Sequence[PriceOption]) -> dict[str, object]:
    shape = [len(options)]
    names = ("spot", "strike", "maturity", "rate", "dividend", "volatility")
    inputs: list[dict[str, object]] = [
        {"name": name, "shape": shape, "datatype": "FP64", "data": [getattr(option, name) for option in options]}
        for name in names
    ]
    types = ["call" if option.call else "put" for option in options]
    inputs.append({"name": "option_type", "shape": shape, "datatype": "BYTES", "data": types})
    return {"inputs": inputs}


async def _post(
    session: aiohttp.ClientSession, url: str, body: bytes, count: int, read: Read
) -> tuple[int, PriceFault, str, list[Quote]]:
    """Status (0 without one), fault, words, quotes. Never raises for what a pod does."""
    found = await _post_once(session, url, body, count, read)
    # The pod may have closed a connection that was idle.
    return found if found[1] is not PriceFault.UNREACHABLE else await _post_once(session, url, body, count, read)


async def _post_once(
    session: aiohttp.ClientSession, url: str, body: bytes, count: int, read: Read
) -> tuple[int, PriceFault, str, list[Quote]]:
    try:
        async with session.post(
            url, data=body, headers={"Content-Type": "application/json"}, allow_redirects=False
        ) as response:
            status = response.status
            content = await _content(response)
    except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectionError) as error:
        return 0, PriceFault.UNREACHABLE, _words(error), []
    except TimeoutError:
        return 0, PriceFault.SLOW, "no answer in the time of one request", []
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return 0, PriceFault.UNREADABLE, _words(error), []
    if status != 200:
        return status, PriceFault.NONE, _complaint(content), []
    try:
        return status, PriceFault.NONE, "", read(_decoded(content), count)
    except Unreadable as error:
        return status, PriceFault.UNREADABLE, cut(str(error), _WORDS), []


async def _content(response: aiohttp.ClientResponse) -> bytes | None:
    """The body; None if it is larger than any answer could be."""
    found = bytearray()
    async for chunk in response.content.iter_chunked(64 * 1024):
        found += chunk
        if len(found) > SIZE_LIMIT:
            response.close()
            return None
    return bytes(found)


def _decoded(content: bytes | None) -> Any:
    if content is None:
        raise Unreadable(f"an answer of more than {SIZE_LIMIT} bytes")
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        raise Unreadable(f"not JSON: {content[:80]!r}") from None


def read_single(document: Any, count: int) -> list[Quote]:
    """The answer to `count` options, which is one; raises Unreadable."""
    assert count == 1
    return [_quote(document)]


def read_list(document: Any, count: int) -> list[Quote]:
    """`{"results": [quote, …]}`, one for each option; raises Unreadable."""
    results = document.get("results") if isinstance(document, dict) else None
    if not isinstance(results, list) or len(results) != count:
        raise Unreadable(f"no list of {count} results: {_shown(document)}")
    return [_quote(item) for item in results]


def read_tensors(document: Any, count: int) -> list[Quote]:
    """The answer to an infer request, tensors of `count` elements; raises Unreadable."""
    outputs = document.get("outputs") if isinstance(document, dict) else None
    if not isinstance(outputs, list):
        raise Unreadable(f"no outputs: {_shown(document)}")
    columns: dict[str, list[Any]] = {}
    for output in outputs:
        if isinstance(output, dict) and isinstance(output.get("name"), str) and isinstance(output.get("data"), list):
            columns[output["name"]] = output["data"]
    if len(columns.get("price", ())) != count:
        raise Unreadable(f"no output price with {count} numbers: {_shown(document)}")
    whole = {name: data for name, data in columns.items() if len(data) == count}
    return [_quote({name: data[row] for name, data in whole.items()}) for row in range(count)]


def _quote(item: Any) -> Quote:
    if not isinstance(item, dict) or (price := _number(item.get("price"))) is None:
        raise Unreadable(f"no number price: {_shown(item)}")
    delta, gamma, vega, theta, rho = (_number(item.get(name)) for name in _GREEKS)
    method = item.get("method")
    return Quote(
        price, delta, gamma, vega, theta, rho, error_bound=_number(item.get("error_bound")) or 0.0,
        method=method[:40] if isinstance(method, str) else "",
    )  # fmt: skip


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf


def _complaint(content: bytes | None) -> str:
    """What a server says with an error: `error` of a JSON body, or the beginning of any other."""
    if content is None:
        return ""
    with suppress(ValueError, RecursionError):
        document = json.loads(content)
        if isinstance(document, Mapping) and isinstance(document.get("error"), str):
            return cut(str(document["error"]), _WORDS)
    return content[:_WORDS].decode("utf-8", "replace").strip()


def _words(error: Exception) -> str:
    return cut(str(error) or type(error).__name__, _WORDS)


def _shown(value: object) -> str:
    try:
        return json.dumps(value)[:80]
    except (ValueError, RecursionError):
        return type(value).__name__
