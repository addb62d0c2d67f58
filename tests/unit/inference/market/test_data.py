"""The market data file: what is accepted, and how exactly a fault is told."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pinn_inference.market.__main__ import main
from pinn_inference.market.data import (
    DEFAULT_HORIZONS,
    DEFAULT_STRIKES,
    FIELDS,
    MAX_BYTES,
    SAMPLE,
    MarketData,
    MarketDataError,
    parse_horizon,
    parse_market_data,
)
from tests.support.market import MARKET


def parsed(text: str | bytes) -> MarketData:
    return parse_market_data(text if isinstance(text, bytes) else text.encode(), file="market.yaml")


def faults(text: str | bytes) -> list[str]:
    with pytest.raises(MarketDataError) as caught:
        parsed(text)
    return [str(fault) for fault in caught.value.faults]


def changed(old: str, new: str) -> str:
    assert old in MARKET
    return MARKET.replace(old, new, 1)


def test_a_file_becomes_instruments_with_defaults_where_fields_are_absent() -> None:
    data = parsed(MARKET)
    assert data.as_of == datetime(2026, 1, 2, 21, tzinfo=UTC)
    assert not data.sample_data
    acme, noir = data.instruments["ACME"], data.instruments["NOIR"]
    assert (acme.spot, acme.volatility, acme.rate, acme.dividend, acme.currency) == (100.0, 0.2, 0.03, 0.01, "USD")
    assert (noir.dividend, noir.currency) == (0.0, "EUR")
    assert [horizon.label for horizon in data.horizons] == ["1m", "1y"]
    assert data.strikes == (0.9, 1.0, 1.1)


def test_horizons_and_strikes_have_defaults() -> None:
    data = parsed(changed("horizons: [1m, 1y]\nstrikes: [0.9, 1, 1.1]\n", ""))
    assert data.horizons == DEFAULT_HORIZONS
    assert data.strikes == DEFAULT_STRIKES


def test_the_shipped_sample_is_good_and_says_that_it_is_a_sample() -> None:
    content = SAMPLE.read_bytes()
    data = parse_market_data(content, file=SAMPLE.name)
    assert data.sample_data
    assert {"SPY", "QQQ", "AAPL"} <= set(data.instruments)
    assert all("(sample)" in instrument.name for instrument in data.instruments.values())
    assert content.startswith(b"# SAMPLE DATA")


def test_json_is_accepted() -> None:
    document = yaml.safe_load(MARKET.replace("2026-01-02T21:00:00Z", "'2026-01-02T21:00:00Z'"))
    for text in (json.dumps(document), json.dumps(document, indent=2)):
        assert parsed(text).instruments == parsed(MARKET).instruments


@pytest.mark.parametrize("symbol", ["ON", "NO", "Y", "TRUE", "NULL", "1810", "^GSPC", "BRK.B", "EURUSD=X", "7E5"])
def test_symbols_that_yaml_takes_for_something_else_stay_symbols(symbol: str) -> None:
    assert symbol in parsed(changed("ACME", symbol)).instruments


@pytest.mark.parametrize("number", ["100", "100.0", "1e2", "1E+2", "+100", "100."])
def test_numbers_may_be_written_in_any_usual_way(number: str) -> None:
    assert parsed(changed("spot: 100", f"spot: {number}")).instruments["ACME"].spot == 100.0


def test_times_with_an_offset_are_turned_into_utc() -> None:
    assert parsed(changed("2026-01-02T21:00:00Z", "2026-01-02T16:00:00-05:00")).as_of == parsed(MARKET).as_of


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("as_of: 2026-01-02T21:00:00Z\n", "", "line 1: as_of: is missing"),
        ("2026-01-02T21:00:00Z", "2026-01-02", "line 1: as_of is 2026-01-02: must be a date and time with its offset"),
        ("2026-01-02T21:00:00Z", "yesterday", "line 1: as_of is yesterday: must be a date and time"),
        ("2026-01-02T21:00:00Z", "0001-01-01T00:00:00+23:00", "line 1: as_of is 0001-01-01T00:00:00+23:00: must be"),
        ("USD", "usd", "line 2: currency is usd: must be a currency code of three capital letters"),
        ("currency: USD", "currency: USD\nspot: 1", "line 3: spot: is not a field: known are as_of, currency, symbols"),
        ("currency: USD", "currency: USD\ncurrency: EUR", "line 3: currency: stands twice"),
        ("currency: USD", "currency: USD\nsample_data: yes", "line 3: sample_data is yes: must be true or false"),
        ("[1m, 1y]", "[]", "line 3: horizons is a list of 0: must be a list of 1 to 8"),
        ("[1m, 1y]", "1m", "line 3: horizons is 1m: must be a list of 1 to 8"),
        ("[1m, 1y]", "[1m, 3y]", "line 3: horizons[1] is 3y: must be a time like 5d, 1w, 3m or 1y, at most 2 years"),
        ("[1m, 1y]", "[1y, 1m]", "line 3: horizons[1] is 1m: must be longer than the one before it"),
        ("[1m, 1y]", "[1y, 12m]", "line 3: horizons[1] is 12m: must be longer than the one before it"),
        ("[0.9, 1,", "[1, 1,", "line 4: strikes[1] is 1: must be greater than the one before it"),
        ("[0.9, 1,", "[0, 1,", "line 4: strikes[0] is 0: must be a number from 0.1 to 10 (multiple of the spot)"),
        ("ACME", "acme", "line 6: symbols.acme: is not a symbol: it must have 1 to 16 capital letters"),
        ("ACME", "NOIR", "line 7: symbols.NOIR: stands twice"),
        ("spot: 100, ", "", "line 6: symbols.ACME.spot: is missing"),
        (
            "spot: 100",
            'spot: "100"',
            'line 6: symbols.ACME.spot is "100": must be a number from 0.000001 to 1000000000',
        ),
        ("spot: 100", "spot: .nan", "line 6: symbols.ACME.spot is .nan: must be a number"),
        ("spot: 100", "spot: .inf", "line 6: symbols.ACME.spot is .inf: must be a number"),
        ("spot: 100", "spot: 1e400", "line 6: symbols.ACME.spot is 1e400: must be a number"),
        ("spot: 100", "spot: -1", "line 6: symbols.ACME.spot is -1: must be a number"),
        ("spot: 100", "spot: true", "line 6: symbols.ACME.spot is true: must be a number"),
        ("spot: 100", "spot: ", "line 6: symbols.ACME.spot is empty: must be a number"),
        ("spot: 100", "spot: {}", "line 6: symbols.ACME.spot is a map of 0: must be a number"),
        ("spot: 100", "spot: 1_000", "line 6: symbols.ACME.spot is 1_000: must be a number"),
        ("spot: 100", "spot: １００", "line 6: symbols.ACME.spot is １００: must be a number"),
        (
            "volatility: 0.2",
            "volatility: 20",
            "line 6: symbols.ACME.volatility is 20: must be a number from 0.001 to 3",
        ),
        ("volatility: 0.2", "volatility: 0", "line 6: symbols.ACME.volatility is 0: must be a number from 0.001 to 3"),
        ("rate: 0.03", "rate: 3", "line 6: symbols.ACME.rate is 3: must be a number from -1 to 1"),
        ("dividend: 0.01", "yield: 0.01", "line 6: symbols.ACME.yield: is not a field: known are name, spot"),
        ("name: Acme", "name: ''", 'line 6: symbols.ACME.name is "": must be a text of 1 to 100 printable characters'),
        ("currency: EUR", "currency: €", "line 7: symbols.NOIR.currency is €: must be a currency code"),
    ],
)
def test_a_fault_names_file_line_field_value_and_what_is_right(old: str, new: str, told: str) -> None:
    found = faults(changed(old, new))
    assert len(found) == 1
    assert found[0].startswith(f"market.yaml {told}")


def test_all_faults_are_told_at_once() -> None:
    text = MARKET.replace("USD", "usd").replace("spot: 100", "spot: -100").replace("volatility: 0.4, ", "")
    assert [told.split(" is")[0].split(": is")[0] for told in faults(text)] == [
        "market.yaml line 2: currency",
        "market.yaml line 6: symbols.ACME.spot",
        "market.yaml line 7: symbols.NOIR.volatility:",
    ]


@pytest.mark.parametrize("rule", FIELDS, ids=lambda rule: rule.name)
def test_both_ends_of_a_range_are_in_it(rule: object) -> None:
    name, low, high = rule.name, rule.low, rule.high  # type: ignore[attr-defined]
    for bound in (low, high):
        numbers = {"spot": 100.0, "volatility": 0.2, "rate": 0.03, "dividend": 0.01, name: bound}
        row = ", ".join(f"{key}: {value!r}" for key, value in numbers.items())
        text = f"{MARKET.split('symbols')[0]}symbols:\n  ACME: {{name: Acme, {row}}}\n"
        assert getattr(parsed(text).instruments["ACME"], name) == bound


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"", "market.yaml: is empty"),
        (b"null", "market.yaml line 1: must be a map with as_of, currency, symbols"),
        (b"[" * 100_000, "market.yaml line 1: is nested more than 8 levels deep"),
        (b"a: &x 1\nb: *x", "market.yaml line 1: uses an anchor or an alias: write the values out"),
        (
            b"a: !!python/object:os.system x",
            "market.yaml line 1: uses the tag tag:yaml.org,2002:python/object:os.system",
        ),
        (b"a: 1\n---\nb: 2", "market.yaml line 3: holds more than one document"),
        (b"a: 1\n\tb: 2", "market.yaml line 2: is not valid YAML: "),
        (b"\xff\xfe\x00", "market.yaml: is not valid YAML: "),
        (b"? [a]\n: 1", "market.yaml line 1: has a key that is not a text"),
        (b" " * (MAX_BYTES + 1), f"market.yaml: is {MAX_BYTES + 1} bytes long, at most {MAX_BYTES} are read"),
    ],
)
def test_what_is_no_market_data_at_all_is_one_fault(text: bytes, told: str) -> None:
    found = faults(text)
    assert len(found) == 1
    assert found[0].startswith(told)


@given(
    st.one_of(
        st.binary(max_size=200),
        st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace")),
        st.tuples(st.integers(0, len(MARKET)), st.integers(0, 30), st.binary(max_size=8)).map(
            lambda cut: MARKET.encode()[: cut[0]] + cut[2] + MARKET.encode()[cut[0] + cut[1] :]
        ),
    )
)
def test_any_bytes_are_market_data_or_faults_that_name_the_file(content: bytes) -> None:
    try:
        told = [instrument.symbol for instrument in parsed(content).instruments.values()]
    except MarketDataError as error:
        told = [
            str(fault).removeprefix("market.yaml") for fault in error.faults if str(fault).startswith("market.yaml")
        ]
    assert told


@pytest.mark.parametrize(
    ("label", "years"), [("7d", 7 / 365), ("1w", 7 / 365), ("1m", 1 / 12), ("18m", 1.5), ("2y", 2.0), ("730d", 2.0)]
)
def test_a_horizon_has_a_length_in_years(label: str, years: float) -> None:
    assert parse_horizon(label).years == pytest.approx(years, rel=1e-15)


@pytest.mark.parametrize(
    "label", ["", "0d", "01m", "m", "1 m", "1M", "-1y", "25m", "731d", "99999999d", "1h", "１m", "1２d"]
)
def test_what_is_no_horizon_is_refused(label: str) -> None:
    with pytest.raises(ValueError, match="must be a time like 5d, 1w, 3m or 1y"):
        parse_horizon(label)


def test_the_command_tells_good_files_from_bad(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(MARKET)
    bad.write_text(changed("spot: 100", "spot: -1"))
    assert main([str(good), str(SAMPLE)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{good}: good, 2 symbols as of 2026-01-02T21:00:00+00:00",
        f"{SAMPLE}: good, 12 symbols as of 2026-01-02T21:00:00+00:00, sample data",
    ]
    assert main([str(good), str(bad), str(tmp_path / "none.yaml")]) == 1
    told = capsys.readouterr().err
    assert f"{bad} line 6: symbols.ACME.spot is -1: must be a number" in told
    assert "No such file or directory" in told
