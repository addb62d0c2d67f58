"""The whole put together: what is started is ended, and a part that dies is not missed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from pinn_operator.service import Operator
from pinn_operator.settings import Settings
from tests.support.ports import free_port


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    kubeconfig = tmp_path / "config"
    # Nothing listens there, and nothing is to be found by other means.
    kubeconfig.write_text(
        "{apiVersion: v1, kind: Config, current-context: x, clusters: [{name: c, cluster: {server: 'http://127.0.0.1:9'}}],"
        " users: [{name: u, user: {}}], contexts: [{name: x, context: {cluster: c, user: u}}]}"
    )
    return Operator(Settings(kubeconfig=kubeconfig, health_host="127.0.0.1", health_port=free_port()))


async def test_it_ends_when_told_to_with_all_that_it_started(operator: Operator) -> None:
    before = asyncio.all_tasks()
    stop = asyncio.Event()
    running = asyncio.create_task(operator.run(stop))
    await asyncio.sleep(0.2)
    stop.set()
    await asyncio.wait_for(running, 30)
    assert asyncio.all_tasks() == before


async def test_without_an_api_server_it_is_alive_and_not_ready(operator: Operator) -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(operator.run(stop))
    await asyncio.sleep(0.3)
    assert not operator.telemetry.ready
    assert operator.telemetry.silent_seconds < 60
    assert not running.done()
    stop.set()
    await asyncio.wait_for(running, 30)


async def test_a_part_that_dies_ends_the_whole(operator: Operator, monkeypatch: pytest.MonkeyPatch) -> None:
    async def dies() -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(operator, "_resync_forever", dies)
    with pytest.raises(ZeroDivisionError):
        await asyncio.wait_for(operator.run(asyncio.Event()), 30)
