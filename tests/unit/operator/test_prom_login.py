"""Logging in at a Prometheus: bearer, basic, headers and a private authority, by reference, with nothing told."""

from __future__ import annotations

import asyncio
import base64
import logging
import ssl
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from pinn_operator.core.api import parse_spec
from pinn_operator.core.samples import Answer, Query, Series, SourceError
from pinn_operator.core.wanted.spec import (
    BasicAuth,
    CertificateRef,
    Header,
    Prometheus,
    SecretKey,
    Spec,
)
from pinn_operator.prom import client
from pinn_operator.prom.client import HttpSource
from pinn_operator.prom.library import LibrarySource
from pinn_operator.prom.login import FAULT_KEPT_SECONDS, Kept, LoginFiles, login_of
from pinn_operator.prom.protocol import LoginError, MetricSource
from pinn_operator.prom.sources import ClientKind, Sources
from tests.support.certificates import Authority, make_authority
from tests.unit.operator.test_prom import INSTANT, Clock, success

DATA: dict[tuple[str, str, str], str] = {
    ("pricing", "metrics", "token"): "t0k3n-one",
    ("pricing", "metrics", "user"): "désk",
    ("pricing", "metrics", "password"): "pa:ss wörd",
    ("pricing", "metrics", "tenant"): "tenant-7",
    ("pricing", "metrics", "lines"): "a\r\nX-Admin: 1",
    ("pricing", "metrics", "colon"): "a:b",
    ("pricing", "metrics", "empty"): "",
}
SECRETS = [
    "t0k3n-one",
    "désk",
    "pa:ss wörd",
    "tenant-7",
    "X-Admin",
    base64.b64encode("désk:pa:ss wörd".encode()).decode(),
]
OK = success("vector", [{"metric": {"pod": "a"}, "value": [1.0, "2"]}])
ANSWER = (Series({"pod": "a"}, ((1.0, 2.0),)),)


async def read_data(namespace: str, name: str, key: str) -> str | None:
    return DATA.get((namespace, name, key))


def sources(kind: ClientKind = ClientKind.AIOHTTP, **more: Any) -> Sources:
    return Sources(
        default_address="http://127.0.0.1:9", read_secret=read_data, read_config_map=read_data, kind=kind, **more
    )


@asynccontextmanager
async def prometheus(
    seen: list[Mapping[str, str]], *, tls: ssl.SSLContext | None = None, text: str | None = None, status: int = 200
) -> AsyncIterator[str]:
    """The address of a server that keeps the headers of each question."""

    async def handle(request: web.Request) -> web.Response:
        seen.append(dict(request.headers))
        if text is not None:
            return web.Response(text=text, status=status, content_type="application/json")
        return web.json_response(OK, status=status)

    application = web.Application()
    application.router.add_post("/api/v1/query", handle)
    runner = web.AppRunner(application)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
    yield f"http{'s' if tls else ''}://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def asked(kind: ClientKind, wanted: Prometheus, **more: Any) -> Answer:
    found = sources(kind, **more)
    try:
        return await (await found.source(wanted, "pricing")).ask(INSTANT)
    finally:
        await found.close()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


both = pytest.mark.parametrize("kind", ClientKind)


@both
@pytest.mark.parametrize(
    ("login", "header", "value"),
    [
        ({"bearer_token_secret": ("metrics", "token")}, "Authorization", "Bearer t0k3n-one"),
        (
            {"basic_auth": BasicAuth(SecretKey("metrics", "user"), SecretKey("metrics", "password"))},
            "Authorization",
            "Basic " + base64.b64encode("désk:pa:ss wörd".encode()).decode(),
        ),
        ({"headers": (Header("X-Scope-OrgID", value="desk"),)}, "X-Scope-OrgID", "desk"),
        ({"headers": (Header("X-Scope-OrgID", secret=SecretKey("metrics", "tenant")),)}, "X-Scope-OrgID", "tenant-7"),
        ({"headers": (Header("Authorization", secret=SecretKey("metrics", "tenant")),)}, "Authorization", "tenant-7"),
        ({"headers": (Header("User-Agent", value="desk"),)}, "User-Agent", "desk"),
    ],
    ids=["bearer", "basic", "plain header", "secret header", "own Authorization", "own User-Agent"],
)
async def test_what_is_referred_to_is_sent(kind: ClientKind, login: dict[str, Any], header: str, value: str) -> None:
    seen: list[Mapping[str, str]] = []
    async with prometheus(seen) as address:
        assert await asked(kind, Prometheus(address=address, **login)) == ANSWER
    assert seen[0][header] == value


@both
async def test_secrets_are_in_no_log_answer_or_repr(kind: ClientKind, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    seen: list[Mapping[str, str]] = []
    told: list[str] = []
    wanted = [
        {"bearer_token_secret": ("metrics", "token")},
        {"basic_auth": BasicAuth(SecretKey("metrics", "user"), SecretKey("metrics", "password"))},
        {"headers": (Header("X-A", secret=SecretKey("metrics", "tenant")),)},
        {"headers": (Header("X-A", secret=SecretKey("metrics", "lines")),)},
    ]
    async with prometheus(seen, text='{"status": "error", "error": "forbidden"}', status=403) as address:
        for login in wanted:
            spec = Prometheus(address=address, **login)  # type: ignore[arg-type]
            found = sources(kind)
            source = await found.source(spec, "pricing")
            told += [repr(await source.ask(INSTANT)), repr(source), repr(vars(source)), repr(found), repr(vars(found))]
            await found.close()
            told.append(repr(await asked(kind, Prometheus(address="http://127.0.0.1:9", **login))))  # type: ignore[arg-type]
            built = login_of(spec, "pricing", read_secret=read_data, read_config_map=read_data)
            try:
                await built.headers()
            except LoginError as error:
                told.append(str(error))
            told.append(repr(built))
    assert len(seen) == 3
    everything = "\n".join([*told, caplog.text])
    assert not [secret for secret in SECRETS if secret in everything]


@both
@pytest.mark.parametrize(
    ("login", "words"),
    [
        (
            {"bearer_token_secret": ("metrics", "none")},
            "the Secret pricing/metrics does not exist or has no key 'none'",
        ),
        (
            {"bearer_token_secret": ("metrics", "empty")},
            "the Secret pricing/metrics does not exist or has no key 'empty'",
        ),
        (
            {"bearer_token_secret": ("metrics", "lines")},
            "the Secret pricing/metrics holds no header under 'lines': it must be one line of ASCII",
        ),
        (
            {"headers": (Header("X-A", secret=SecretKey("metrics", "lines")),)},
            "the Secret pricing/metrics holds no header under 'lines': it must be one line of ASCII",
        ),
        (
            {"basic_auth": BasicAuth(SecretKey("metrics", "colon"), SecretKey("metrics", "password"))},
            "a user name of basic authentication has no colon (RFC 7617)",
        ),
        (
            {"certificate_authority": CertificateRef("ConfigMap", "ca", "ca.crt")},
            "the ConfigMap pricing/ca does not exist or has no key 'ca.crt'",
        ),
        (
            {"certificate_authority": CertificateRef("Secret", "metrics", "token")},
            "the Secret pricing/metrics holds no certificates: want PEM, -----BEGIN CERTIFICATE-----",
        ),
    ],
)
async def test_what_cannot_be_had_is_named_and_nothing_is_asked(
    kind: ClientKind, login: dict[str, Any], words: str
) -> None:
    seen: list[Mapping[str, str]] = []
    async with prometheus(seen) as address:
        found = await asked(kind, Prometheus(address=address, **login))
    assert found == SourceError(words, "CredentialsUnreadable")
    assert seen == []


@both
async def test_a_private_authority_is_trusted_where_it_is_named(
    kind: ClientKind, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATA, ("pricing", "ca", "ca.crt"), authority.ca.read_text())
    seen: list[Mapping[str, str]] = []
    reference = CertificateRef("ConfigMap", "ca", "ca.crt")
    async with prometheus(seen, tls=authority.server_context()) as address:
        assert await asked(kind, Prometheus(address=address, certificate_authority=reference)) == ANSWER
        assert await asked(kind, Prometheus(address=address, certificate_authority=reference)) == ANSWER


@both
async def test_a_certificate_that_is_not_trusted_is_called_so(kind: ClientKind, authority: Authority) -> None:
    seen: list[Mapping[str, str]] = []
    login = {"bearer_token_secret": ("metrics", "token")}
    async with prometheus(seen, tls=authority.server_context()) as address:
        answer = await asked(kind, Prometheus(address=address, **login))  # type: ignore[arg-type]
    assert isinstance(answer, SourceError)
    assert f"Prometheus at {address}: its certificate is not trusted (" in answer.message
    assert "spec.analysis.prometheus.caRef" in answer.message
    assert "certificate verify failed" in answer.message
    assert seen == [], "the token went to a server that nobody vouches for"


@both
async def test_with_an_authority_no_other_is_trusted(
    kind: ClientKind, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DATA, ("pricing", "ca", "ca.crt"), make_authority(tmp_path).ca.read_text())
    reference = CertificateRef("ConfigMap", "ca", "ca.crt")
    async with prometheus([], tls=authority.server_context()) as address:
        answer = await asked(kind, Prometheus(address=address, certificate_authority=reference))
    assert isinstance(answer, SourceError)
    assert "its certificate is not trusted" in answer.message


@both
async def test_a_certificate_of_another_host_is_not_trusted(
    kind: ClientKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = make_authority(tmp_path, server="DNS:prometheus.example.com")
    monkeypatch.setitem(DATA, ("pricing", "ca", "ca.crt"), elsewhere.ca.read_text())
    reference = CertificateRef("ConfigMap", "ca", "ca.crt")
    async with prometheus([], tls=elsewhere.server_context()) as address:
        answer = await asked(kind, Prometheus(address=address, certificate_authority=reference))
    assert isinstance(answer, SourceError)
    assert "its certificate is not trusted" in answer.message


@both
async def test_certificates_that_are_none_are_called_so(kind: ClientKind, monkeypatch: pytest.MonkeyPatch) -> None:
    pem = "-----BEGIN CERTIFICATE-----\nbm9uc2Vuc2U=\n-----END CERTIFICATE-----\n"
    monkeypatch.setitem(DATA, ("pricing", "ca", "ca.crt"), pem)
    reference = CertificateRef("ConfigMap", "ca", "ca.crt")
    answer = await asked(kind, Prometheus(address="https://127.0.0.1:9", certificate_authority=reference))
    assert isinstance(answer, SourceError)
    assert "the certificates of the authority cannot be read" in answer.message


@both
async def test_a_server_without_certificate_is_named(kind: ClientKind) -> None:
    async with prometheus([]) as address:
        answer = await asked(kind, Prometheus(address=address.replace("http:", "https:")))
    assert isinstance(answer, SourceError)
    assert "Prometheus at https://127.0.0.1" in answer.message


# --- the operator's own -----------------------------------------------------------------------------------------------


@both
async def test_the_operators_own_login_is_read_from_files(
    kind: ClientKind, authority: Authority, tmp_path: Path
) -> None:
    (tmp_path / "user").write_text("operator\n")
    (tmp_path / "password").write_text("hunter2\n")
    (tmp_path / "tenant").write_text("t-9\n")
    files = LoginFiles(
        username=tmp_path / "user", password=tmp_path / "password", headers=(("X-Plain", "p"),),
        header_files=(("X-Scope-OrgID", tmp_path / "tenant"),), authority=authority.ca,
    )  # fmt: skip
    seen: list[Mapping[str, str]] = []
    async with prometheus(seen, tls=authority.server_context()) as address:
        found = Sources(
            default_address=address, read_secret=read_data, read_config_map=read_data, default_login=files.login(),
            kind=kind,
        )  # fmt: skip
        assert await (await found.source(Prometheus(), "pricing")).ask(INSTANT) == ANSWER
        named = await (await found.source(Prometheus(address=address), "pricing")).ask(INSTANT)
        await found.close()
    assert seen[0]["Authorization"] == "Basic " + base64.b64encode(b"operator:hunter2").decode()
    assert (seen[0]["X-Plain"], seen[0]["X-Scope-OrgID"]) == ("p", "t-9")
    assert len(seen) == 1
    assert isinstance(named, SourceError), "a resource that names the address itself got the operator's authority"


async def test_the_operators_own_login_goes_to_no_address_that_a_resource_names() -> None:
    seen: list[Mapping[str, str]] = []

    class Own:
        async def headers(self) -> Mapping[str, str]:
            return {"Authorization": "Bearer operator"}

        async def certificates(self) -> str | None:
            return None

    async with prometheus(seen) as address:
        found = sources(default_login=Own())
        assert await (await found.source(Prometheus(address=address), "pricing")).ask(INSTANT) == ANSWER
        await found.close()
    assert "Authorization" not in seen[0]


@pytest.mark.parametrize(("content", "words"), [(None, "No such file"), (b"", "is empty"), (b"\xff\xfe", "not UTF-8")])
async def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LoginError, match=words) as refused:
        await LoginFiles(bearer=path).login().headers()
    assert str(path) in str(refused.value)


async def test_a_rotated_file_is_read_again_after_a_minute(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "token"
    path.write_text("one")
    login = LoginFiles(bearer=path).login(clock=clock)
    assert (await login.headers())["Authorization"] == "Bearer one"
    path.write_text("two")
    clock.now += 59
    assert (await login.headers())["Authorization"] == "Bearer one"
    clock.now += 1
    assert (await login.headers())["Authorization"] == "Bearer two"


# --- parts ------------------------------------------------------------------------------------------------------------


async def test_a_value_is_read_again_after_a_minute_and_never_shown() -> None:
    clock, reads = Clock(), 0

    async def read() -> str | None:
        nonlocal reads
        reads += 1
        return f"value {reads}"

    kept = Kept(read, where="the Secret pricing/metrics", key="token", clock=clock)
    assert [await kept.line(), await kept.line()] == ["value 1", "value 1"]
    clock.now += 60
    assert await kept.line() == "value 2"
    assert "value" not in repr(kept)


async def test_a_value_that_cannot_be_used_is_read_again_after_some_seconds_and_not_by_every_query() -> None:
    clock, reads = Clock(), 0
    values: list[str | None] = [None, "a\nb", "good"]

    async def read() -> str | None:
        nonlocal reads
        reads += 1
        await asyncio.sleep(0)
        return values.pop(0)

    kept = Kept(read, where="the Secret pricing/metrics", key="token", clock=clock)
    for number in (1, 2):
        answers = await asyncio.gather(*(kept.line() for _ in range(40)), return_exceptions=True)
        assert all(isinstance(it, LoginError) for it in answers)
        assert len({str(it) for it in answers}) == 1
        assert reads == number
        clock.now += FAULT_KEPT_SECONDS
    assert await asyncio.gather(*(kept.line() for _ in range(40))) == ["good"] * 40
    assert reads == 3


async def test_a_secret_that_may_not_be_read_is_named() -> None:
    async def forbidden() -> str | None:
        raise PermissionError("secrets is forbidden")

    with pytest.raises(LoginError, match=r"the Secret a/b cannot be read: secrets is forbidden"):
        await Kept(forbidden, where="the Secret a/b", key="token").line()


async def test_what_a_manifest_says_is_what_is_sent() -> None:
    seen: list[Mapping[str, str]] = []
    async with prometheus(seen) as address:
        manifest = {
            "address": address,
            "basicAuth": {
                "usernameSecretRef": {"name": "metrics", "key": "user"},
                "passwordSecretRef": {"name": "metrics", "key": "password"},
            },
            "headers": [
                {"name": "X-Scope-OrgID", "value": "desk|risk"},
                {"name": "X-Key", "secretRef": {"name": "metrics", "key": "tenant"}},
            ],
        }
        spec = parse_spec({"image": "a", "analysis": {"prometheus": manifest}})
        assert isinstance(spec, Spec)
        assert await asked(ClientKind.AIOHTTP, spec.analysis.prometheus) == ANSWER
    assert seen[0]["Authorization"].startswith("Basic ")
    assert (seen[0]["X-Scope-OrgID"], seen[0]["X-Key"]) == ("desk|risk", "tenant-7")


# --- huge answers -----------------------------------------------------------------------------------------------------

Build = Callable[..., MetricSource]


@pytest.mark.parametrize("build", [HttpSource, LibrarySource])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[1,"1"],' * 1_000_000, "more than 500000 values"),
        ("[" * 7_000_000, "more than 500000 values"),
        ('{"status": "success", "a": "' + "x" * 9_000_000 + '"}', "larger than 8 MiB"),
        ('"a":"",' * 1_000_000, "more than 500000 values"),
        ("1," * 3_000_000, "more than 500000 values"),
    ],
    ids=["points", "brackets", "text", "labels", "numbers"],
)
async def test_a_huge_answer_is_an_error_and_never_becomes_objects(
    build: Build, text: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded: list[int] = []
    real = client.json.loads
    monkeypatch.setattr(client.json, "loads", lambda body: loaded.append(len(body)) or real(body))
    async with prometheus([], text=text) as address:
        source = build(address, timeout=10.0)
        answer = await source.ask(INSTANT)
        await source.close()
    assert isinstance(answer, SourceError)
    assert words in answer.message
    assert sys.getsizeof(answer.message) < 2000
    assert loaded == []


@pytest.mark.parametrize("build", [HttpSource, LibrarySource])
async def test_the_largest_answer_that_a_gate_asks_for_is_read(build: Build) -> None:
    """A thousand pods with two statuses at sixty moments."""
    values = ",".join(f'[{1_795_248_000 + i}.25,"{i}"]' for i in range(60))
    one = '{{"metric":{{"pod":"eu-options-9d77e0aa-5d5b8c7f6d-{:05}","status":"{}"}},"values":[{}]}}'
    series = ",".join(one.format(pod, status, values) for pod in range(1000) for status in (200, 500))
    text = f'{{"status":"success","data":{{"resultType":"matrix","result":[{series}]}}}}'
    async with prometheus([], text=text) as address:
        source = build(address, timeout=20.0)
        answer = await source.ask(Query("q", "up", INSTANT.end))
        await source.close()
    assert not isinstance(answer, SourceError), answer
    assert len(answer) == 2000
