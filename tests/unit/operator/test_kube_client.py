"""The HTTP client against a server that answers what a test tells it to."""

from __future__ import annotations

import asyncio
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
    Gone,
    Invalid,
    NotFound,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Unreachable,
    error_from_answer,
)
from pinn_operator.kube.watching import Watch

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


async def test_the_metadata_of_a_long_list_is_read_page_by_page(api: Api) -> None:
    api.script.answers = [
        ok({"items": [{"n": 1}], "metadata": {"continue": "next"}}),
        ok({"items": [{"n": 2}], "metadata": {"continue": ""}}),
    ]
    assert await api.client.list_metadata(POD) == [{"n": 1}, {"n": 2}]
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
        (410, "Expired", Gone),
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


# --- watching ---------------------------------------------------------------------------------------------------------


def stream(*events: tuple[str, dict[str, Any]], broken: str = "") -> Callable[[], web.StreamResponse]:
    text = "".join(json.dumps({"type": kind, "object": content}) + "\n" for kind, content in events)
    return lambda: web.Response(text=text + broken, content_type="application/json")


def changed(name: str, version: str) -> tuple[str, dict[str, Any]]:
    return "MODIFIED", {"metadata": {"name": name, "resourceVersion": version}}


async def watched(api: Api, version: str = "5") -> list[str]:
    events = api.client.watch(POD, "pricing", label_selector="pinn.dev/service", version=version)
    return [event["object"]["metadata"]["name"] async for event in events]


async def test_a_watch_asks_for_the_metadata_of_labelled_objects_from_a_version_on(api: Api) -> None:
    api.script.answers = [stream(changed("a", "6"), changed("b", "7"))]
    assert await watched(api) == ["a", "b"]
    seen = api.script.seen[0]
    assert (seen["method"], seen["path"]) == ("GET", "/api/v1/namespaces/pricing/pods")
    assert seen["query"] == {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "labelSelector": "pinn.dev/service",
        "resourceVersion": "5",
    }
    assert "PartialObjectMetadata;" in seen["headers"]["Accept"]
    assert api.calls == [("WATCH", "pods", "200")]


async def test_the_version_to_watch_from_costs_one_object_at_most(api: Api) -> None:
    api.script.answers = [ok({"metadata": {"resourceVersion": "41"}, "items": [{}]})]
    assert await api.client.newest_version(POD, None, label_selector="x") == "41"
    assert api.script.seen[0]["path"] == "/api/v1/pods"
    assert api.script.seen[0]["query"]["limit"] == "1"


@pytest.mark.parametrize("inside", [True, False], ids=["in the stream", "as the answer"])
async def test_a_version_that_is_too_old_is_gone(api: Api, inside: bool) -> None:
    expired = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
    api.script.answers = [stream(("ERROR", expired)) if inside else refused(410, "Expired", "too old")]
    with pytest.raises(Gone, match="too old"):
        await watched(api)


async def test_an_error_in_the_stream_is_an_error(api: Api) -> None:
    api.script.answers = [stream(changed("a", "6"), ("ERROR", {"code": 500, "message": "etcd is away"}))]
    with pytest.raises(ServerError, match="etcd is away"):
        await watched(api)


async def test_a_stream_of_something_else_is_unreachable(api: Api) -> None:
    api.script.answers = [stream(broken="<html>\n")]
    with pytest.raises(Unreachable, match="something else than events"):
        await watched(api)


async def test_a_watch_that_is_refused_reads_the_credentials_again_for_the_next(api: Api) -> None:
    api.script.answers = [refused(401), stream(changed("a", "6"))]
    with pytest.raises(Unauthorized):
        await watched(api)
    assert await watched(api) == ["a"]
    assert len(api.loads) == 2


@dataclass
class Heard:
    names: list[str] = field(default_factory=list)
    lost: int = 0

    def lose(self) -> None:
        self.lost += 1


async def run_until(watch: Watch, condition: Callable[[], bool]) -> None:
    task = asyncio.create_task(watch.run())
    try:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def watch_pods(api: Api, heard: Heard) -> Watch:
    return Watch(
        api.client,
        POD,
        namespace="pricing",
        label="pinn.dev/service",
        heard=lambda _kind, metadata: heard.names.append(metadata["name"]),
        lost=heard.lose,
        first_backoff=0.001,
        longest_backoff=0.002,
    )


def newest(version: str) -> Callable[[], web.StreamResponse]:
    return ok({"metadata": {"resourceVersion": version}})


async def test_a_watch_that_ends_goes_on_from_where_it_was(api: Api) -> None:
    heard = Heard()
    bookmark = ("BOOKMARK", {"metadata": {"resourceVersion": "9"}})
    api.script.answers = [newest("5"), stream(changed("a", "6"), bookmark), stream(changed("b", "10")), stream()]
    await run_until(watch_pods(api, heard), lambda: len(api.script.seen) >= 4)
    assert heard.names == ["a", "b"], "a bookmark is no news"
    assert [seen["query"].get("resourceVersion") for seen in api.script.seen[1:4]] == ["5", "9", "10"]
    assert heard.lost == 1, "only when it began"


async def test_a_watch_that_was_cut_off_goes_on_from_where_it_was(api: Api) -> None:
    heard = Heard()
    api.script.answers = [newest("5"), stream(changed("a", "6")), refused(503), stream(changed("b", "7")), stream()]
    await run_until(watch_pods(api, heard), lambda: len(api.script.seen) >= 5)
    assert heard.names == ["a", "b"]
    assert heard.lost == 1, "only when it began"


async def test_a_watch_that_may_have_missed_something_says_so(api: Api) -> None:
    heard = Heard()
    api.script.answers = [newest("5"), refused(410, "Expired"), newest("50"), stream(changed("b", "51")), stream()]
    await run_until(watch_pods(api, heard), lambda: len(api.script.seen) >= 5)
    assert heard.names == ["b"]
    assert heard.lost == 2
