"""Webhook gates: what is asked and signed, what an answer may be, and that no server can hurt the operator."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from pinn_operator.core.samples import SourceError, WebhookAnswer, WebhookQuestion, WebhookVerdict
from pinn_operator.webhooks.addresses import AddressRefused, CheckedResolver, refused
from pinn_operator.webhooks.asker import AT_ONCE, WebhookAsker
from pinn_operator.webhooks.client import SIZE_LIMIT, WebhookClient
from pinn_operator.webhooks.parsing import TEXT_LIMIT, Said, body_of, one_line, parse_said, signature
from tests.support.certificates import make_authority
from tests.support.sending import sending

NOW = datetime(2026, 11, 27, 15, 0, 0, 250_000, tzinfo=UTC)
QUESTION = WebhookQuestion(
    key="webhook/checks", gate="checks", url="http://127.0.0.1:1/", canary="9d77e0aa", stable="a1f3c2d4", weight=10,
    step=1, interval=30.0, timeout=2.0, retries=0,
)  # fmt: skip


async def no_secret(namespace: str, name: str, key: str) -> str | None:
    """As if there were no Secret."""
    return None


async def at_once(_: float) -> None:
    """Waits for nothing."""


def client(read_secret: Callable[[str, str, str], Awaitable[str | None]] = no_secret, **kwargs: Any) -> WebhookClient:
    """Allowed to ask this machine, and impatient."""
    return WebhookClient(read_secret, **{"allow_local": True, "now": lambda: NOW, "sleep": at_once, **kwargs})


@asynccontextmanager
async def answering(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]], *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """The address of a webhook that answers so."""
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    [(_, port)] = [address[:2] for address in runner.addresses]
    yield f"http{'s' if tls else ''}://127.0.0.1:{port}/canary?desk=eu"
    await runner.cleanup()


async def asked(url: str, **changes: Any) -> Said | SourceError:
    """One question to this address."""
    asking = client()
    try:
        question = replace(QUESTION, url=url, **changes)
        return await asyncio.wait_for(asking.ask(question, namespace="pricing", name="eu-options"), 15)
    finally:
        await asking.close()


# --- what is asked ----------------------------------------------------------------------------------------------------


async def test_a_webhook_is_told_the_rollout_and_its_body_is_signed() -> None:
    seen: list[tuple[str, dict[str, str], bytes]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append((f"{request.method} {request.path_qs}", dict(request.headers), await request.read()))
        return web.json_response({"verdict": "pass", "message": "all desks agree", "value": 0.25})

    async def read_secret(namespace: str, name: str, key: str) -> str | None:
        return {("pricing", "checks", "hmac"): "key of the desk"}[(namespace, name, key)]

    asking = client(read_secret)
    async with answering(handler) as url:
        question = replace(QUESTION, url=url, secret=("checks", "hmac"))
        said = await asking.ask(question, namespace="pricing", name="eu-options")
    await asking.close()
    assert said == Said(WebhookVerdict.PASS, "all desks agree", 0.25)
    [(line, headers, body)] = seen
    assert line == "POST /canary?desk=eu"
    assert json.loads(body) == {
        "namespace": "pricing", "name": "eu-options", "gate": "checks", "canary": "9d77e0aa", "stable": "a1f3c2d4",
        "weight": 10, "step": 1, "time": "2026-11-27T15:00:00.250Z",
    }  # fmt: skip
    assert headers["Content-Type"] == "application/json"
    expected = hmac.new(b"key of the desk", body, hashlib.sha256).hexdigest()
    assert headers["X-Pinn-Signature"] == f"sha256={expected}"
    assert "Cookie" not in headers


def test_the_signature_is_that_of_rfc_4231() -> None:
    assert signature(b"what do ya want for nothing?", "Jefe") == (
        "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )


async def test_without_a_secret_nothing_is_signed() -> None:
    seen: list[set[str]] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append({name.lower() for name in request.headers})
        return web.json_response({"verdict": "pass"})

    async with answering(handler) as url:
        await asked(url)
    assert "x-pinn-signature" not in seen[0]


async def test_a_secret_that_is_not_there_is_named_and_nothing_is_sent() -> None:
    asking = client()
    said = await asking.ask(replace(QUESTION, secret=("checks", "hmac")), namespace="pricing", name="eu")
    await asking.close()
    assert said == SourceError("the Secret pricing/checks does not exist or has no key 'hmac'", "CredentialsUnreadable")


async def test_a_secret_that_cannot_be_read_is_named() -> None:
    async def forbidden(namespace: str, name: str, key: str) -> str | None:
        raise PermissionError("secrets is forbidden")

    asking = client(forbidden)
    said = await asking.ask(replace(QUESTION, secret=("checks", "hmac")), namespace="pricing", name="eu")
    await asking.close()
    assert said == SourceError(
        "the Secret pricing/checks cannot be read: secrets is forbidden", "CredentialsUnreadable"
    )


# --- what it may answer -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verdict", WebhookVerdict)
def test_a_verdict_alone_is_an_answer(verdict: WebhookVerdict) -> None:
    assert parse_said(json.dumps({"verdict": verdict.value, "more": [1]}).encode()) == Said(verdict)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "is not JSON"),
        (b"pass", "is not JSON"),
        (b"<html>login</html>", "is not JSON"),
        (b"\xff\xfe\x00", "is not JSON"),
        (b"[" * 60_000, "is not JSON"),
        (b"null", "is not a JSON object"),
        (b'"pass"', "is not a JSON object"),
        (b'[{"verdict": "pass"}]', "is not a JSON object"),
        (b"{}", "has no verdict"),
        (b'{"verdict": "PASS"}', "has a verdict that is none of the three"),
        (b'{"verdict": true}', "has a verdict that is none of the three"),
        (b'{"verdict": ["pass"]}', "has a verdict that is none of the three"),
    ],
)
def test_any_other_answer_is_an_error_that_says_what_would_be_right(body: bytes, words: str) -> None:
    said = parse_said(body)
    assert isinstance(said, SourceError)
    assert words in said.message


@pytest.mark.parametrize(
    "value",
    ["NaN", "Infinity", "1e999", '"0.4"', "true", "[1]", "1" + "0" * 400, "-1" + "0" * 5000],
    ids=lambda it: it[:9],
)
@pytest.mark.parametrize("verdict", WebhookVerdict)
def test_a_value_that_is_none_takes_no_verdict_away_and_is_said(verdict: WebhookVerdict, value: str) -> None:
    said = parse_said(f'{{"verdict": "{verdict}", "message": "P&L is off", "value": {value}}}'.encode())
    assert said == Said(verdict, 'P&L is off ("value" is left out: it is no finite number)')


def test_a_message_that_is_no_text_takes_no_verdict_away_and_is_said() -> None:
    assert parse_said(b'{"verdict": "fail", "message": 5, "value": 2}') == Said(
        WebhookVerdict.FAIL, '("message" is left out: it is no text)', 2.0
    )


def test_a_long_message_leaves_room_to_say_what_was_left_out() -> None:
    said = parse_said(b'{"verdict": "fail", "value": NaN, "message": "' + b"x" * 600 + b'"}')
    assert isinstance(said, Said)
    assert len(said.message) <= TEXT_LIMIT
    assert said.message.endswith("it is no finite number)")


@given(st.binary(max_size=300) | st.text(max_size=100).map(lambda it: json.dumps({"verdict": it}).encode()))
def test_no_answer_makes_it_raise(body: bytes) -> None:
    assert isinstance(parse_said(body), Said | SourceError)


@given(st.text(max_size=2000))
def test_a_message_is_one_printable_line_of_bounded_length(text: str) -> None:
    said = parse_said(json.dumps({"verdict": "fail", "message": text}).encode())
    assert isinstance(said, Said)
    assert len(said.message) <= TEXT_LIMIT
    assert said.message == one_line(said.message)
    assert "\n" not in said.message
    assert "\x1b" not in said.message


async def test_a_body_that_is_no_answer_is_not_shown() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(text="root:x:0:0:secret page", status=200)

    async with answering(handler) as url:
        said = await asked(url)
    assert isinstance(said, SourceError)
    assert "secret" not in said.message


# --- servers that misbehave -------------------------------------------------------------------------------------------

_OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@pytest.mark.parametrize(
    ("parts", "options", "words"),
    [
        ((b"\x00\x01garbage\r\n\r\n",), {}, "did not answer"),
        ((), {}, "did not answer"),
        ((b"HTTP/1.1 200 OK\r\n" + b"X-A: " + b"a" * 100_000,), {}, "did not answer"),
        ((b"X: y\r\n" * 1000,), {"forever": True}, "did not answer"),
        ((_OK + b'Content-Length: 900\r\n\r\n{"verdict"',), {}, "did not answer"),
        ((_OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",), {}, "did not answer"),
        ((_OK + b"\r\n" + b" " * (SIZE_LIMIT + 1),), {}, "larger than 64 KiB"),
        ((_OK + b"Transfer-Encoding: chunked\r\n\r\n", b"ffff\r\n" + b" " * 65535 + b"\r\n"), {"forever": True}, ""),
        ((_OK + b"Content-Length: 20\r\n\r\n",), {"wait": 5.0}, "no answer within 1 s"),
        ((_OK + b"\r\n", b" "), {"wait": 0.3, "forever": True}, "no answer within 1 s"),
    ],
    ids=["garbage", "nothing", "an endless header", "headers without end", "half an answer", "a broken chunk",
         "too much", "without end", "never", "a byte at a time"],
)  # fmt: skip
async def test_a_server_that_misbehaves_is_an_error_with_the_words_and_costs_little(
    parts: tuple[bytes, ...], options: dict[str, Any], words: str
) -> None:
    async with sending(*parts, **options) as address:
        said = await asked(f"http://{address}/", timeout=1.0)
    assert isinstance(said, SourceError)
    assert words in said.message


async def test_an_answer_that_inflates_is_cut_off() -> None:
    async def handler(_: web.Request) -> web.Response:
        response = web.Response(body=b" " * 50_000_000, content_type="application/json")
        response.enable_compression(web.ContentCoding.gzip)
        return response

    async with answering(handler) as url:
        said = await asked(url, timeout=10.0)
    assert said == SourceError("the webhook's answer is larger than 64 KiB")


async def test_nobody_there_is_an_error() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    said = await asked(f"http://127.0.0.1:{port}/")
    assert isinstance(said, SourceError)
    assert "the webhook did not answer: Cannot connect" in said.message


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(status: int) -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response(status=status, headers={"Location": "/elsewhere"})

    async with answering(handler) as url:
        said = await asked(url, retries=3)
    assert said == SourceError(f"HTTP {status}: a webhook may not redirect to another address")
    assert seen == ["/canary"]


@pytest.mark.parametrize(("status", "attempts"), [(500, 3), (503, 3), (429, 3), (400, 1), (401, 1), (404, 1), (501, 1)])
async def test_what_may_pass_is_tried_again_and_a_refusal_is_not(status: int, attempts: int) -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response(status=status)

    async with answering(handler) as url:
        said = await asked(url, retries=2)
    assert isinstance(said, SourceError)
    assert f"HTTP {status}" in said.message
    assert len(seen) == attempts


async def test_an_answer_of_a_later_attempt_counts() -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.Response(status=503) if len(seen) < 3 else web.json_response({"verdict": "hold"})

    async with answering(handler) as url:
        assert await asked(url, retries=2) == Said(WebhookVerdict.HOLD)


async def test_attempts_are_apart_by_times_that_grow_and_differ() -> None:
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=503)

    asking = client(sleep=sleep)
    async with answering(handler) as url:
        await asking.ask(replace(QUESTION, url=url, retries=5), namespace="a", name="b")
        await asking.ask(replace(QUESTION, url=url, retries=5), namespace="a", name="b")
    await asking.close()
    assert len(pauses) == 10
    assert pauses[:5] != pauses[5:]
    bounds = [0.4, 0.8, 1.6, 3.2, 5.0] * 2
    assert all(bound / 2 <= pause <= bound for pause, bound in zip(pauses, bounds, strict=True))


async def test_a_certificate_that_is_not_trusted_is_called_so(tmp_path: Path) -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response({"verdict": "pass"})

    async with answering(handler, tls=make_authority(tmp_path).server_context()) as url:
        said = await asked(url, retries=2)
    assert isinstance(said, SourceError)
    assert "the webhook's certificate is not trusted" in said.message


# --- where it may be --------------------------------------------------------------------------------------------------

LOCAL = ["127.0.0.1", "127.8.9.1", "::1", "0.0.0.0", "::", "169.254.169.254", "fe80::1", "fe80::1%eth0", "224.0.0.1",
         "::ffff:127.0.0.1", "::ffff:169.254.169.254", "2002:7f00:1::", "fd00:ec2::254", "240.0.0.1"]  # fmt: skip


@pytest.mark.parametrize("address", LOCAL)
def test_addresses_that_only_this_machine_can_reach_are_refused(address: str) -> None:
    assert refused(address)


@pytest.mark.parametrize("address", ["10.0.0.1", "192.168.1.1", "8.8.8.8", "fd00::1", "2606:4700::1111", "checks"])
def test_addresses_of_the_cluster_and_beyond_are_allowed(address: str) -> None:
    assert not refused(address)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:{}/", "http://[::1]:{}/", "http://localhost:{}/", "http://0x7f000001:{}/", "http://0:{}/",
            "http://127.1:{}/", "http://2130706433:{}/", "http://[::ffff:127.0.0.1]:{}/"]
)  # fmt: skip
async def test_this_machine_is_not_asked_whatever_it_is_called(url: str) -> None:
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.path)
        return web.json_response({"verdict": "pass"})

    asking = client(allow_local=False)
    async with answering(handler) as there:
        port = there.split(":")[2].split("/")[0]
        question = replace(QUESTION, url=url.format(port), retries=0)
        said = await asking.ask(question, namespace="pricing", name="eu")
    await asking.close()
    assert isinstance(said, SourceError)
    assert seen == []


def answers_of_names(host: str, port: int, family: socket.AddressFamily) -> Any:
    addresses = {"evil": ["127.0.0.1"], "checks": ["127.0.0.1", "10.1.2.3"], "none": []}[host]
    return [(socket.AF_INET, 6, (address, port)) for address in addresses]


async def test_of_several_addresses_the_allowed_ones_are_used() -> None:
    resolver = CheckedResolver(lookup=answers_of_names)
    assert [(found["host"], found["port"]) for found in await resolver.resolve("checks", 443)] == [("10.1.2.3", 443)]
    assert await resolver.resolve("none") == []
    with pytest.raises(AddressRefused, match=r"evil is 127\.0\.0\.1, an address that a webhook may not have"):
        await resolver.resolve("evil")
    await resolver.close()


async def test_names_that_are_not_answered_keep_nothing_else_waiting() -> None:
    release = threading.Event()

    def slow(host: str, port: int, family: socket.AddressFamily) -> Any:
        release.wait(5)
        return []

    resolver = CheckedResolver(lookup=slow)
    lookups = [asyncio.create_task(resolver.resolve("slow")) for _ in range(50)]
    await asyncio.sleep(0)
    assert await asyncio.wait_for(asyncio.to_thread(lambda: "other work"), 30) == "other work"
    release.set()
    await asyncio.gather(*lookups)
    await resolver.close()


# --- in the background ------------------------------------------------------------------------------------------------


class Scripted:
    """A client that says one thing after the other, the last one for ever."""

    def __init__(self, *said: Said | SourceError | BaseException, seconds: float = 0.0) -> None:
        self.said = list(said)
        self.seconds = seconds
        self.questions: list[WebhookQuestion] = []
        self.out = 0
        self.most = 0

    async def ask(self, question: WebhookQuestion, *, namespace: str, name: str) -> Said | SourceError:
        self.questions.append(question)
        self.out += 1
        self.most = max(self.most, self.out)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.out -= 1
        said = self.said.pop(0) if len(self.said) > 1 else self.said[0]
        if isinstance(said, BaseException):
            raise said
        return said

    async def close(self) -> None:
        pass


QUICK = replace(QUESTION, interval=0.02)
PASS, FAIL, HOLD = Said(WebhookVerdict.PASS), Said(WebhookVerdict.FAIL, "drift", 3.0), Said(WebhookVerdict.HOLD)
DOWN = SourceError("no answer within 2 s")


async def until(done: Callable[[], bool]) -> None:
    """Waits until it is so."""
    async with asyncio.timeout(30):
        while not done():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@asynccontextmanager
async def asker(scripted: Scripted) -> AsyncIterator[tuple[WebhookAsker, list[tuple[str, str]]]]:
    """With the list of the resources it woke."""
    woken: list[tuple[str, str]] = []
    found = WebhookAsker(scripted, wake=lambda namespace, name: woken.append((namespace, name)), now=lambda: NOW)
    yield found, woken
    await found.close()


async def test_a_pass_never_waits_and_is_woken_by_the_answer() -> None:
    async with asker(Scripted(PASS, seconds=0.05)) as (asking, woken):
        assert asking.answers("pricing", "eu", [QUESTION]) == {}
        await until(lambda: bool(woken))
        assert asking.answers("pricing", "eu", [QUESTION]) == {
            "webhook/checks": WebhookAnswer(WebhookVerdict.PASS, time=NOW, since=NOW)
        }
        assert woken == [("pricing", "eu")]


async def test_a_pass_asks_for_its_own_resource_and_a_resource_that_is_gone_is_forgotten() -> None:
    resource = SimpleNamespace(namespace="pricing", name="eu")
    scripted = Scripted(PASS)
    async with asker(scripted) as (asking, woken):
        situation: Any = SimpleNamespace(resource=resource)
        assert await asking.ask(situation, [QUICK]) == {}
        await until(lambda: woken == [("pricing", "eu")])
        assert list(await asking.ask(situation, [QUICK])) == ["webhook/checks"]
        asking.gone("pricing", "eu")
        assert len(asking) == 0
        asking.gone("pricing", "eu")


async def test_a_webhook_that_no_pass_wants_any_more_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pinn_operator.webhooks.asker.UNASKED", 0.05)
    scripted = Scripted(PASS)
    async with asker(scripted) as (asking, _):
        asking.answers("pricing", "eu", [QUICK])
        await until(lambda: len(asking) == 0)
        assert scripted.questions


async def test_a_webhook_is_asked_every_interval_and_its_answers_are_counted() -> None:
    scripted = Scripted(FAIL)
    async with asker(scripted) as (asking, woken):
        asking.answers("pricing", "eu", [QUICK])
        await until(lambda: len(scripted.questions) >= 4)
        answer = asking.answers("pricing", "eu", [QUICK])["webhook/checks"]
        assert isinstance(answer, WebhookAnswer)
        assert (answer.verdict, answer.message, answer.value) == (WebhookVerdict.FAIL, "drift", 3.0)
        assert answer.count >= 3
        assert len(woken) >= 3


async def test_an_attempt_without_an_answer_is_an_error_and_breaks_no_row() -> None:
    scripted = Scripted(FAIL, DOWN, DOWN, FAIL)
    scripted.said = [FAIL, DOWN, FAIL, PASS]
    async with asker(scripted) as (asking, _):
        found: list[Any] = []

        def look() -> bool:
            answer = asking.answers("pricing", "eu", [QUICK]).get("webhook/checks")
            if answer is not None and answer not in found:
                found.append(answer)
            return len(found) >= 4

        await until(look)
    assert [it.message if isinstance(it, SourceError) else (it.verdict.value, it.count) for it in found] == [
        ("fail", 1),
        "no answer within 2 s",
        ("fail", 2),
        ("pass", 1),
    ]


@pytest.mark.parametrize("change", [{"canary": "0000aaaa"}, {"weight": 50}, {"step": 2}, {"url": "http://other/"}])
async def test_an_answer_never_speaks_of_another_revision_or_weight(change: dict[str, Any]) -> None:
    scripted = Scripted(PASS)
    async with asker(scripted) as (asking, woken):
        asking.answers("pricing", "eu", [QUESTION])
        await until(lambda: bool(woken))
        changed = replace(QUESTION, **change)
        assert asking.answers("pricing", "eu", [changed]) == {}
        await until(lambda: scripted.questions[-1] == changed)
        assert len(asking) == 1


async def test_two_resources_with_one_gate_are_asked_apart() -> None:
    async with asker(Scripted(PASS, FAIL)) as (asking, woken):
        asking.answers("pricing", "eu", [QUESTION])
        await until(lambda: bool(woken))
        assert asking.answers("pricing", "us", [QUESTION]) == {}
        await until(lambda: len(woken) == 2)
        answers = [asking.answers("pricing", name, [QUESTION])["webhook/checks"] for name in ("eu", "us")]
        assert [answer.verdict.value for answer in answers if isinstance(answer, WebhookAnswer)] == ["pass", "fail"]


async def test_a_webhook_that_is_not_wanted_any_more_is_not_asked() -> None:
    scripted = Scripted(PASS)
    async with asker(scripted) as (asking, _):
        asking.answers("pricing", "eu", [QUICK])
        await until(lambda: bool(scripted.questions))
        assert asking.answers("pricing", "eu", []) == {}
        assert len(asking) == 0
        count = len(scripted.questions)
        await asyncio.sleep(0.1)
        assert len(scripted.questions) == count


async def test_a_slow_webhook_delays_only_those_of_its_namespace() -> None:
    scripted = Scripted(PASS, seconds=0.1)
    async with asker(scripted) as (asking, woken):
        questions = [replace(QUESTION, key=f"webhook/{number}") for number in range(3 * AT_ONCE)]
        asking.answers("slow", "eu", questions)
        await asyncio.sleep(0.02)
        assert scripted.most == AT_ONCE
        asking.answers("pricing", "eu", [QUESTION])
        await until(lambda: ("pricing", "eu") in woken)
        assert woken.count(("slow", "eu")) <= AT_ONCE


async def test_a_fault_of_the_operator_itself_leaves_no_old_answer_standing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pinn_operator.webhooks.asker._ERROR_PAUSE", 0.01)
    scripted = Scripted(PASS, RuntimeError("bug"), PASS)
    async with asker(scripted) as (asking, woken):
        asking.answers("pricing", "eu", [QUICK])
        await until(lambda: len(woken) >= 2)
        assert asking.answers("pricing", "eu", [QUICK])["webhook/checks"] == SourceError(
            "the webhook could not be asked: RuntimeError"
        )
        await until(lambda: len(woken) >= 3)
        assert isinstance(asking.answers("pricing", "eu", [QUICK])["webhook/checks"], WebhookAnswer)


def test_the_question_is_short_whatever_it_is_about() -> None:
    question = replace(QUESTION, gate="g" * 63)
    assert len(body_of(question, namespace="n" * 63, name="a" * 37, now=NOW)) < 512
