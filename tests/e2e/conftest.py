"""The whole cluster, once for all end-to-end tests, and a PINNService of its own for each class of them.

Run by `pytest tests/e2e -n 3 --dist loadscope --no-loadscope-reorder`, or without -n one after another. Tests marked
`alone` disturb the cluster (they stop Prometheus or the API server), so they wait until no other runs, and no other
begins meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest

from lab.kube import Kube
from lab.line import Line, bring_up, exclusive
from lab.service import Service
from lab.traffic import Summary, Traffic

Account = Callable[[str, Summary], None]


def pytest_configure(config: pytest.Config) -> None:
    """The marker that only these tests use."""
    config.addinivalue_line("markers", "alone: disturbs the cluster, so no other end-to-end test runs beside it")


_LONGEST_FIRST = (
    "TestInfrastructure", "TestFiringGates", "TestBadPods", "TestInferenceServer", "TestBadAnswers",
    "TestTheOperatorIsKilled", "TestTheInferenceImage", "TestBadFromTheStart", "TestOutsideServices",
)  # fmt: skip
"""Classes that take minutes: begun last, one of them alone would keep everybody waiting."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here is an end-to-end test, and none may hang. What has to run alone comes last."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(1800))
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    if item.get_closest_marker("alone"):
        return len(_LONGEST_FIRST) + 1
    owner = getattr(getattr(item, "cls", None), "__name__", "")
    return _LONGEST_FIRST.index(owner) if owner in _LONGEST_FIRST else len(_LONGEST_FIRST)


@pytest.fixture(scope="session")
def line(request: pytest.FixtureRequest) -> Iterator[Line]:
    """The cluster with both images and the chart."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    disabled: AbstractContextManager[None] = capture.global_and_fixture_disabled()
    with disabled:
        line = bring_up()
    yield line
    line.kube.close()
    line.prometheus.close()


@pytest.fixture(scope="session")
def kube(line: Line) -> Kube:
    """The cluster's API."""
    return line.kube


@pytest.fixture(scope="class")
def namespace(request: pytest.FixtureRequest, kube: Kube) -> Iterator[str]:
    """A namespace of the class's own, new."""
    name = "e2e-" + request.cls.__name__.removeprefix("Test").lower()
    kube.kubectl("delete", "namespace", name, "--ignore-not-found", "--wait=true", timeout=120)
    kube.kubectl("create", "namespace", name)
    yield name
    kube.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="class")
def turn(request: pytest.FixtureRequest) -> Iterator[None]:
    """Held by a class while it runs: shared, or alone for classes that disturb the cluster."""
    alone = any(True for _ in request.node.iter_markers("alone"))
    with exclusive("turn", shared=not alone):
        yield


@pytest.fixture(scope="class")
def service(request: pytest.FixtureRequest, line: Line, namespace: str, turn: None) -> Service:
    """The class's PINNService; nothing is applied yet. Its pods load TensorFlow where the class says `TENSORFLOW`."""
    tensorflow = getattr(request.cls, "TENSORFLOW", False)
    return Service(line.kube, "eu", namespace, host=f"{namespace}.example.com", tensorflow=tensorflow)


@pytest.fixture(scope="class")
def stable(service: Service, line: Line) -> str:
    """The revision that serves before anything is tried."""
    service.apply(image=line.images.inference, env={"RELEASE": "1"})
    return service.wait_stable()


@pytest.fixture
def traffic(line: Line, service: Service) -> Iterator[Traffic]:
    """40 real pricing requests per second through the router, for as long as the test runs."""
    with Traffic(line.gateway, host=service.host, rate=40, seconds=1200) as generator:
        yield generator


@pytest.fixture
def account(request: pytest.FixtureRequest, record_property: Callable[[str, Any], None]) -> Account:
    """Say at the end of the run what the clients of a test saw."""

    def note(what: str, summary: Summary) -> None:
        record_property("account", f"{what}: {summary}")

    return note


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """The clients' account of every test."""
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {text}"
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for key, text in report.user_properties
        if key == "account"
    ]
    if lines:
        terminalreporter.section("what the clients saw")
        for text in lines:
            terminalreporter.write_line(text)
