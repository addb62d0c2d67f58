"""The HTTP client against a server that answers what a test tells it to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from kubernetes.aio.client import Configuration

from pinn_operator.kube.client import Client, Kind, Retries
from pinn_operator.kube.errors import (
    AlreadyExists,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Unreachable,
    error_from_answer,
)

DEPLOYMENT = Kind("apps/v1", "Deployment", "deployments")
POD = Kind("v1", "Pod", "pods")


@dataclass
class Script:
    """Answers in turn; the last one for ever."""

    answers: list[Callable[[], web.StreamResponse]] = field(default_factory=list)
    seen: list[dict[str, Any]] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.seen.append(
            {
                "method": request.method,
                "path": request.path,
                "query": dict(request.query),
                "headers": dict(request.headers),
                "body": json.loads(body) if body else None,
            }
        )
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return answer()


def ok(body: Any = None) -> Callable[[], web.StreamResponse]:
    return lambda: web.json_response(body if body is not None else {"kind": "Pod", "metadata": {"name": "a"}})


def refused(status: int, reason: str = "", message: str = "", **headers: str) -> Callable[[], web.StreamResponse]:
    document = {"kind": "Status", "reason": reason, "message": message, "code": status}
    return lambda: web.json_response(document, status=status, headers=headers)


@dataclass
class Api:
    script: Script
    client: Client
    loads: list[str]
    calls: list[tuple[str, str, str]]


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    script, loads, calls = Script(), [], []
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", script.handle)
    server = TestServer(application)
    await server.start_server()

    async def load() -> Configuration:
        loads.append("token")
        return Configuration(
            host=str(server.make_url("")).rstrip("/"), api_key={"BearerToken": f"Bearer secret-{len(loads)}"}
        )

    client = Client(
        load,
        retries=Retries(first=0.001, longest=0.002),
        total_timeout=0.5,
        observer=lambda verb, resource, code, _seconds: calls.append((verb, resource, code)),
    )
    yield Api(script, client, loads, calls)
    await client.close()
    await server.close()


async def test_an_object_is_read_by_the_path_of_its_kind_with_the_token(api: Api) -> None:
    api.script.answers = [ok()]
    assert (await api.client.get(DEPLOYMENT, "pricing", "a"))["metadata"]["name"] == "a"
    seen = api.script.seen[0]
    assert seen["path"] == "/apis/apps/v1/namespaces/pricing/deployments/a"
    assert {key.lower(): value for key, value in seen["headers"].items()}["authorization"] == "Bearer secret-1"


async def test_a_core_object_is_read_below_api_v1(api: Api) -> None:
    api.script.answers = [ok()]
    await api.client.get(POD, "pricing", "a")
    assert api.script.seen[0]["path"] == "/api/v1/namespaces/pricing/pods/a"


async def test_the_items_of_a_list_get_the_kind_that_lists_leave_out(api: Api) -> None:
    api.script.answers = [ok({"items": [{"metadata": {"name": "a"}}]})]
    items = await api.client.list_matching(POD, "pricing", label_selector="pinn.dev/service=eu")
    assert items == [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}]
    assert api.script.seen[0]["query"] == {"labelSelector": "pinn.dev/service=eu"}


async def test_a_list_without_items_is_empty(api: Api) -> None:
    api.script.answers = [ok({"items": None})]
    assert await api.client.list_matching(POD, "pricing") == []


async def test_a_long_list_is_read_page_by_page(api: Api) -> None:
    api.script.answers = [
        ok({"items": [{"n": 1}], "metadata": {"continue": "next"}}),
        ok({"items": [{"n": 2}], "metadata": {"continue": ""}}),
    ]
    assert await api.client.list_all(POD) == [{"n": 1}, {"n": 2}]
    assert [seen["path"] for seen in api.script.seen] == ["/api/v1/pods"] * 2
    assert api.script.seen[1]["query"]["continue"] == "next"


async def test_apply_is_a_forced_strict_server_side_apply_by_our_manager(api: Api) -> None:
    api.script.answers = [ok()]
    manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}}
    await api.client.apply(DEPLOYMENT, "pricing", manifest)
    seen = api.script.seen[0]
    assert (seen["method"], seen["headers"]["Content-Type"]) == ("PATCH", "application/apply-patch+yaml")
    assert seen["query"] == {"fieldManager": "pinn-operator", "force": "true", "fieldValidation": "Strict"}
    assert seen["body"] == manifest


async def test_a_status_is_replaced_whole_at_its_subresource(api: Api) -> None:
    api.script.answers = [ok()]
    await api.client.replace_status(DEPLOYMENT, "pricing", {"metadata": {"name": "a", "resourceVersion": "7"}})
    seen = api.script.seen[0]
    assert (seen["method"], seen["path"]) == ("PUT", "/apis/apps/v1/namespaces/pricing/deployments/a/status")


async def test_a_delete_names_the_very_object_and_its_dependants_go_in_the_background(api: Api) -> None:
    api.script.answers = [ok()]
    await api.client.delete(POD, "pricing", "a", uid="u-1")
    body = api.script.seen[0]["body"]
    assert (body["preconditions"], body["propagationPolicy"]) == ({"uid": "u-1"}, "Background")


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (400, "BadRequest", Invalid),
        (403, "Forbidden", Forbidden),
        (404, "NotFound", NotFound),
        (409, "Conflict", Conflict),
        (409, "AlreadyExists", AlreadyExists),
        (415, "UnsupportedMediaType", Invalid),
        (422, "Invalid", Invalid),
    ],
)
async def test_a_refusal_that_would_come_again_is_not_repeated(
    api: Api, status: int, reason: str, kind: type[Exception]
) -> None:
    api.script.answers = [refused(status, reason, "the reason why")]
    with pytest.raises(kind, match="the reason why"):
        await api.client.get(POD, "pricing", "a")
    assert len(api.script.seen) == 1
    assert api.calls == [("GET", "pods", str(status))]


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
async def test_a_refusal_that_passes_is_repeated(api: Api, status: int) -> None:
    api.script.answers = [refused(status), refused(status), ok()]
    await api.client.get(POD, "pricing", "a")
    assert [code for _, _, code in api.calls] == [str(status), str(status), "200"]


async def test_repeating_ends_with_the_last_error(api: Api) -> None:
    api.script.answers = [refused(503, message="etcd is away")]
    with pytest.raises(ServerError, match="etcd is away"):
        await api.client.get(POD, "pricing", "a")
    assert len(api.script.seen) == 4


async def test_a_long_retry_after_is_left_to_the_caller(api: Api) -> None:
    api.script.answers = [refused(429, **{"Retry-After": "30"})]
    with pytest.raises(TooManyRequests) as error:
        await api.client.get(POD, "pricing", "a")
    assert error.value.retry_after == 30
    assert len(api.script.seen) == 1


def test_retry_after_is_the_shortest_wait() -> None:
    assert Retries(first=0.001).delay(0, minimum=2.0) == 2.0


def test_waiting_grows_with_jitter_up_to_its_longest() -> None:
    retries = Retries(first=1.0, longest=4.0)
    for attempt, (low, high) in enumerate([(0.5, 1.5), (1.0, 3.0), (2.0, 6.0), (2.0, 6.0)]):
        assert all(low <= retries.delay(attempt) <= high for _ in range(50))


async def test_after_a_401_the_credentials_are_read_again(api: Api) -> None:
    api.script.answers = [refused(401), ok()]
    await api.client.get(POD, "pricing", "a")
    tokens = [
        {key.lower(): value for key, value in seen["headers"].items()}["authorization"] for seen in api.script.seen
    ]
    assert tokens == ["Bearer secret-1", "Bearer secret-2"]


async def test_a_second_401_is_an_error(api: Api) -> None:
    api.script.answers = [refused(401)]
    with pytest.raises(Unauthorized):
        await api.client.get(POD, "pricing", "a")
    assert len(api.loads) == 2


async def test_no_answer_in_time_is_unreachable(api: Api) -> None:
    async def load() -> Configuration:
        # Nothing listens on the discard port.
        return Configuration(host="http://127.0.0.1:9")

    client = Client(load, retries=Retries(attempts=2, first=0.001))
    with pytest.raises(Unreachable, match="GET /api/v1/namespaces/pricing/pods/a"):
        await client.get(POD, "pricing", "a")
    await client.close()


async def test_an_answer_that_is_not_json_is_unreachable(api: Api) -> None:
    api.script.answers = [lambda: web.Response(text="<html>login</html>")]
    with pytest.raises(Unreachable, match="not JSON"):
        await api.client.get(POD, "pricing", "a")


async def test_a_kind_that_is_not_served_is_told_from_an_object_that_is_absent() -> None:
    absent = error_from_answer(404, b'{"reason": "NotFound", "message": "pods \\"a\\" not found"}', request="GET")
    unserved = error_from_answer(404, b'{"message": "the server could not find the requested resource"}', request="GET")
    assert isinstance(absent, NotFound)
    assert isinstance(unserved, NotFound)
    assert (absent.object_missing, unserved.object_missing) == (True, False)


def test_a_refusal_by_a_proxy_keeps_the_proxy_s_words() -> None:
    assert "upstream away" in str(error_from_answer(502, b"upstream away", request="GET /x"))


async def test_no_error_text_holds_the_token(api: Api) -> None:
    api.script.answers = [refused(403, "Forbidden", "no")]
    with pytest.raises(Forbidden) as error:
        await api.client.get(POD, "pricing", "a")
    assert "secret" not in str(error.value)
