"""The page about market data names every field, every metric and every error there is, and its example is good."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from pinn_inference.market.data import DEFAULT_HORIZONS, DEFAULT_STRIKES, FIELDS, parse_market_data
from pinn_inference.server.market_pages import OPENAPI_SCHEMAS, MarketDataUnavailable, ReportTimeout, UnknownSymbols
from pinn_inference.server.market_schema import OPENAPI_PATHS
from tests.support.market import watcher_of

PAGE = (Path(__file__).parents[3] / "docs" / "market-data.md").read_text()
_EXPLAINED_ELSEWHERE = {"price", "delta", "gamma", "vega", "theta", "rho"}


def test_the_example_is_a_good_file() -> None:
    example = re.search(r"```yaml\n(as_of.*?)```", PAGE, re.DOTALL)
    assert example is not None
    assert set(parse_market_data(example[1].encode(), file="example").instruments) == {"ACME", "BRK.B"}


def test_the_pod_snippet_is_yaml() -> None:
    snippet = re.search(r"```yaml\n(env:.*?)```", PAGE, re.DOTALL)
    assert snippet is not None
    assert set(yaml.safe_load(snippet[1])) == {"env", "volumeMounts", "volumes"}


def test_each_field_of_the_file_is_in_the_table_with_its_range() -> None:
    for rule in FIELDS:
        low, high = rule.expected.split("from ")[1].split(" (")[0].replace("-", "−").split(" to ")
        row = next(line for line in PAGE.splitlines() if line.startswith(f"| … `{rule.name}` "))
        assert f"| {low} … {high} |" in row
    assert f"`[{', '.join(horizon.label for horizon in DEFAULT_HORIZONS)}]`" in PAGE
    assert f"`[{', '.join(f'{strike:g}' for strike in DEFAULT_STRIKES)}]`" in PAGE


def test_each_field_of_an_answer_is_named() -> None:
    names = {name for schema in OPENAPI_SCHEMAS.values() for name in schema["properties"]} - _EXPLAINED_ELSEWHERE
    assert [name for name in sorted(names) if f"`{name}`" not in PAGE] == []


def test_each_metric_each_path_and_each_error_is_named() -> None:
    _, registry = watcher_of(None)
    assert [family.name for family in registry.collect() if f"`{family.name}" not in PAGE] == []
    assert [path for path in OPENAPI_PATHS if path not in PAGE] == []
    for error in (UnknownSymbols, MarketDataUnavailable, ReportTimeout):
        assert f"`{error.__name__}`" in PAGE
