"""Reloading: a file that changes is taken over, one that is broken or half written never is."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from pinn_inference.market.watch import MarketDataWatcher
from tests.support.market import MARKET, watcher_of
from tests.support.server import eventually


@asynccontextmanager
async def living(path: Path | None) -> AsyncIterator[tuple[MarketDataWatcher, CollectorRegistry]]:
    watcher, registry = watcher_of(path)
    life = watcher.life(None)
    await anext(life)
    try:
        yield watcher, registry
    finally:
        with pytest.raises(StopAsyncIteration):
            await anext(life)


def spot(watcher: MarketDataWatcher) -> float | None:
    data = watcher.standing.data
    return None if data is None else data.instruments["ACME"].spot


def config_map(folder: Path, version: int, content: str) -> None:
    """What the kubelet does: a new folder, and a link renamed over the old one."""
    versioned = folder / f"..version_{version}"
    versioned.mkdir()
    (versioned / "market.yaml").write_text(content)
    (folder / "..data_tmp").symlink_to(versioned.name)
    (folder / "..data_tmp").rename(folder / "..data")
    if not (folder / "market.yaml").is_symlink():
        (folder / "market.yaml").symlink_to("..data/market.yaml")


async def test_the_sample_answers_where_no_file_is_named() -> None:
    async with living(None) as (watcher, registry):
        assert watcher.standing.status == "healthy"
        assert watcher.health()["sample_data"] is True
        assert watcher.health()["source"] == "sample.yaml"
        assert registry.get_sample_value("pinn_market_data_symbols") == watcher.health()["symbols"]


async def test_a_config_map_that_is_swapped_is_taken_over(tmp_path: Path) -> None:
    config_map(tmp_path, 1, MARKET)
    async with living(tmp_path / "market.yaml") as (watcher, registry):
        assert spot(watcher) == 100.0
        config_map(tmp_path, 2, MARKET.replace("spot: 100", "spot: 110"))
        await eventually(lambda: spot(watcher) == 110.0)
        assert watcher.standing.status == "healthy"
        assert registry.get_sample_value("pinn_market_data_loads_total", {"result": "loaded"}) == 2


async def test_a_broken_file_leaves_the_last_good_data_and_is_told_everywhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config_map(tmp_path, 1, MARKET)
    async with living(tmp_path / "market.yaml") as (watcher, registry):
        with caplog.at_level(logging.WARNING):
            config_map(tmp_path, 2, MARKET.replace("spot: 100", "spot: -1").replace("EUR", "euro"))
            await eventually(lambda: watcher.standing.status == "stale")
        assert spot(watcher) == 100.0
        health = watcher.health()
        assert "market.yaml line 6: symbols.ACME.spot is -1: must be a number" in health["message"]
        assert "market.yaml line 7: symbols.NOIR.currency is euro" in health["message"]
        assert health["as_of"] == "2026-01-02T21:00:00+00:00"
        assert registry.get_sample_value("pinn_market_data_stale") == 1
        assert registry.get_sample_value("pinn_market_data_loads_total", {"result": "refused"}) == 1
        assert [record.message for record in caplog.records] == ["market data refused"]

        config_map(tmp_path, 3, MARKET.replace("spot: 100", "spot: 120"))
        await eventually(lambda: watcher.standing.status == "healthy")
        assert spot(watcher) == 120.0
        assert registry.get_sample_value("pinn_market_data_stale") == 0


async def test_without_any_good_data_there_is_none_until_the_file_comes(tmp_path: Path) -> None:
    path = tmp_path / "market.yaml"
    async with living(path) as (watcher, registry):
        assert watcher.standing.status == "unavailable"
        assert watcher.health()["message"] == f"{path} cannot be read: No such file or directory"
        assert registry.get_sample_value("pinn_market_data_as_of_timestamp_seconds") == 0
        path.write_text(MARKET)
        await eventually(lambda: spot(watcher) == 100.0)
        assert registry.get_sample_value("pinn_market_data_as_of_timestamp_seconds") == 1767387600


def test_a_file_that_is_being_written_is_not_read_before_it_rests(tmp_path: Path) -> None:
    """Each line of YAML less is a good file with a symbol less: only time tells."""
    path = tmp_path / "market.yaml"
    path.write_text(MARKET)
    watcher, registry = watcher_of(path)
    watcher.look(at_once=True)
    lines = MARKET.replace("spot: 100", "spot: 110").splitlines(keepends=True)
    with path.open("w") as file:
        for line in lines:
            file.write(line)
            file.flush()
            watcher.look()
            assert spot(watcher) == 100.0
            assert len(watcher.standing.data.instruments) == 2  # type: ignore[union-attr]
    watcher.look()
    assert spot(watcher) == 110.0
    assert registry.get_sample_value("pinn_market_data_loads_total", {"result": "refused"}) == 0


def test_a_file_that_vanishes_and_comes_back_unchanged_is_healthy_again(tmp_path: Path) -> None:
    path = tmp_path / "market.yaml"
    path.write_text(MARKET)
    watcher, _ = watcher_of(path)
    watcher.look(at_once=True)
    path.rename(tmp_path / "elsewhere")
    watcher.look()
    assert watcher.standing.status == "stale"
    assert "cannot be read" in watcher.health()["message"]
    (tmp_path / "elsewhere").rename(path)
    watcher.look()
    watcher.look()
    assert watcher.standing.status == "healthy"


def test_nothing_is_read_again_while_nothing_changes(tmp_path: Path) -> None:
    path = tmp_path / "market.yaml"
    path.write_text("broken: [")
    watcher, registry = watcher_of(path)
    for _ in range(5):
        watcher.look()
    assert registry.get_sample_value("pinn_market_data_loads_total", {"result": "refused"}) == 1
    assert watcher.standing.status == "unavailable"


def test_a_folder_or_a_pipe_in_its_place_is_a_fault_and_never_a_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        watcher, _ = watcher_of(path)
        watcher.look(at_once=True)
        assert watcher.standing.status == "unavailable"
        assert "it is not a file" in watcher.health()["message"]
