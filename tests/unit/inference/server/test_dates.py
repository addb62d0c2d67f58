"""Options by date: what moment a text is, how many years lie between two, and what is said of those that are wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pinn_inference.pricing.types import COLUMNS
from pinn_inference.server import parsing
from pinn_inference.server.batch.jobs import Work, _parse
from pinn_inference.server.batch.protocol import JobKind
from pinn_inference.server.config import ServerConfig
from pinn_inference.server.dates import NotAMoment, moment_rule, seconds_of
from pinn_inference.server.errors import InvalidRequest
from pinn_inference.server.parsing import PriceRequest, parse_price_request
from pinn_inference.server.served_model import load_configured_model
from tests.support.server import PUT, running

UNDATED = {name: value for name, value in PUT.items() if name != "maturity"}
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC).timestamp()
DAY = 86_400.0


def parsed(document: Any, *, now: float | None = NOW) -> PriceRequest:
    return parse_price_request(json.dumps(document).encode(), max_batch=1000, now=now)


def faults(document: Any) -> list[dict[str, Any]]:
    with pytest.raises(InvalidRequest) as caught:
        parsed(document)
    found: list[dict[str, Any]] = caught.value.details()["faults"]
    return found


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("1970-01-01", DAY),
        ("1970-01-01T00:00:00Z", 0.0),
        ("1970-01-01t01:00z", 3600.0),
        ("1970-01-01 00:00:01,5+00:00", 1.5),
        ("1970-01-01T00:00:00-05:00", 5 * 3600.0),
        ("1970-01-01T00:00:00.000000001+0530", -5.5 * 3600.0 + 1e-9),
        ("1969-12-31T23:59:59Z", -1.0),
        ("2024-02-29", datetime(2024, 3, 1, tzinfo=UTC).timestamp()),
    ],
)
def test_a_date_is_the_end_of_its_day_in_utc_and_a_date_time_is_what_it_says(text: str, moment: float) -> None:
    assert seconds_of(text) == moment


def test_a_date_alone_can_be_taken_as_the_beginning_of_its_day() -> None:
    assert seconds_of("1970-01-02", at_end=False) == seconds_of("1970-01-01") == DAY


@given(
    st.datetimes(min_value=datetime(1, 1, 3), max_value=datetime(9999, 12, 29)),  # noqa: DTZ001 - the zone comes next
    st.timedeltas(min_value=timedelta(hours=-23), max_value=timedelta(hours=23)).map(
        lambda offset: timedelta(minutes=offset // timedelta(minutes=1))
    ),
)
def test_every_date_time_of_the_standard_library_is_the_same_moment_here(naive: datetime, offset: timedelta) -> None:
    minutes = abs(offset) // timedelta(minutes=1)
    zone = f"{'-' if offset < timedelta() else '+'}{minutes // 60:02}:{minutes % 60:02}"
    text = naive.isoformat() + zone
    expected = datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)
    assert seconds_of(text) == pytest.approx(expected.total_seconds(), abs=1e-4, rel=0)


@given(st.text(max_size=40))
def test_any_other_text_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(NotAMoment, match=r"^must"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2027-03-19T16:00:00", "must have a zone"),
        ("2016-12-31T23:59:60Z", "leap second"),
        ("2027-02-29", "a day that the calendar has"),
        ("0000-01-01", "a day that the calendar has"),
        ("2027-13-01", "a day that the calendar has"),
        ("2027-03-19T24:00:00Z", "hours from 00 to 23"),
        ("2027-03-19T16:60:00Z", "minutes"),
        ("2027-03-19T16:00:00+24:00", "offset"),
        ("10000-01-01", "years 0001 to 9999"),
        ("+2027-03-19", "must be a date"),
        ("19.03.2027", "must be a date"),
        ("2027-3-19", "must be a date"),
        ("20270319", "must be a date"),
        ("２０２７-03-19", "must be a date"),
        ("2027-03-19\n", "must be a date"),
        ("tomorrow", "must be a date"),
        ("", "must be a date"),
    ],
)
@pytest.mark.parametrize("field", ["expiry", "valuation_time"])
def test_what_is_no_moment_is_named_with_its_field_and_what_would_be_right(field: str, text: str, words: str) -> None:
    option = {**UNDATED, "expiry": "2027-03-19", "valuation_time": "2026-11-28", field: text}
    (fault,) = faults(option)
    assert (fault["field"], fault["value"]) == (field, text)
    assert words in fault["message"]


@pytest.mark.parametrize("value", [None, 20270319, 1.5, True, [], {}])
def test_a_moment_that_is_no_text_is_refused(value: Any) -> None:
    (fault,) = faults({**UNDATED, "expiry": value, "valuation_time": "2026-11-28"} if value != [] else
                      {"options": [{**UNDATED, "expiry": value}]})  # fmt: skip
    assert (fault["field"], fault["message"]) == ("expiry", moment_rule())


def test_years_are_counted_in_seconds_of_365_days() -> None:
    request = parsed({**UNDATED, "expiry": "2028-03-01", "valuation_time": "2027-03-01"})  # 366 days
    assert request.options.maturity.tolist() == [366 / 365]
    request = parsed({**UNDATED, "expiry": "2027-03-01T06:00:00+01:00", "valuation_time": "2027-03-01T00:00:00Z"})
    assert request.options.maturity.tolist() == [5 * 3600 / (365 * DAY)]


def test_without_a_valuation_time_the_moment_of_the_request_is_meant_and_is_one_for_all_its_options() -> None:
    request = parsed({"options": [{**UNDATED, "expiry": "2026-11-30"}] * 3})
    assert request.options.maturity.tolist() == [2.5 / 365] * 3
    later = parsed({**UNDATED, "expiry": "2026-11-30"}, now=NOW + DAY)
    assert later.options.maturity.tolist() == [1.5 / 365]


def test_an_option_that_ends_this_moment_has_no_time_left_and_one_that_has_ended_is_refused() -> None:
    assert parsed({**UNDATED, "expiry": "2026-11-28T12:00:00Z"}).options.maturity.tolist() == [0.0]
    (fault,) = faults({**UNDATED, "expiry": "2026-11-28T11:59:59Z"})
    assert (fault["field"], fault["value"]) == ("expiry", "2026-11-28T11:59:59Z")
    assert "has passed" in fault["message"]


@pytest.mark.parametrize("expiry", ["9999-12-31", "2127-01-01"])
def test_an_expiry_after_more_than_a_hundred_years_is_refused(expiry: str) -> None:
    (fault,) = faults({**UNDATED, "expiry": expiry})
    assert fault["field"] == "expiry"
    assert "at most 100" in fault["message"]


def test_one_of_maturity_and_expiry_is_given_and_not_both() -> None:
    (fault,) = faults({**PUT, "expiry": "2027-03-19"})
    assert (fault["field"], fault["message"]) == ("expiry", "must not stand beside maturity: which of both is meant?")
    (fault,) = faults(UNDATED)
    assert fault["field"] == "maturity"
    assert "expiry" in fault["message"]
    (fault,) = faults({**PUT, "valuation_time": "2026-11-28"})
    assert fault["field"] == "valuation_time"


def test_every_fault_of_every_option_is_found_dates_among_them() -> None:
    rows = [{**UNDATED, "expiry": "x", "spot": -1}, PUT, {**UNDATED, "expiry": "2020-01-01"}, {**PUT, "vol": 1}]
    assert [(fault["index"], fault["field"]) for fault in faults({"options": rows})] == [
        (0, "expiry"),
        (0, "spot"),
        (2, "expiry"),
        (3, "vol"),
    ]


def test_a_list_may_mix_dates_and_years() -> None:
    request = parsed({"options": [PUT, {**UNDATED, "expiry": "2026-11-30"}]})
    assert request.options.maturity.tolist() == [0.5, 2.5 / 365]
    assert request.told_maturity is not None
    assert [years == years for years in request.told_maturity.tolist()] == [False, True]


_dates = st.sampled_from(
    ["2026-11-29", "2027-05-14T16:00:00-05:00", "2026-11-27", "2200-01-01", "x", "2027-05-14T16:00", "12:00"]
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"expiry": _dates, "spot": st.sampled_from([100, 101.5, -1])},
            optional={
                "valuation_time": _dates,
                "maturity": st.just(0.5),
                "dividend": st.just(0.01),
                "option_type": st.sampled_from(["put", "Put"]),
                "style": st.just("american"),
            },
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 3),
)
def test_a_list_by_dates_is_read_alike_by_the_quick_way_and_by_the_thorough_one(
    rows: list[dict[str, Any]], hostile: int
) -> None:
    bare = {"strike": 95, "rate": 0.03, "volatility": 0.2}
    body = json.dumps({"options": [{**bare, **row} for row in rows]})
    if hostile == 1:
        body = body.replace('"strike": 95', '"strike": 90, "strike": 95', 1)
    if hostile == 2:  # a colon that is hidden makes up for one that is too many
        body = body.replace(":00-", "\\u003a00-").replace('"strike": 95', '"strike": 90, "strike": 95', 1)
    if hostile == 3:
        body = body.replace("}]", "},]")

    def outcome(read: Callable[[bytes], PriceRequest]) -> Any:
        try:
            request = read(body.encode())
        except InvalidRequest as error:
            return str(error), error.details()
        assert request.told_maturity is not None
        return [getattr(request.options, name).tolist() for name in COLUMNS], request.told_maturity.tolist()

    quick = outcome(lambda text: parse_price_request(text, max_batch=10, now=NOW))
    assert quick == outcome(lambda text: parsing._parse_thoroughly(text, 10, NOW))


def test_columns_take_dates_for_each_row_or_for_all() -> None:
    expiries = ["2026-11-29", "2026-11-30"]
    by_row = parsed({"columns": {**UNDATED, "expiry": expiries, "valuation_time": "2026-11-28"}})
    assert by_row.options.maturity.tolist() == [1 / 365, 2 / 365]
    for_all = parsed({"columns": {**UNDATED, "spot": [99, 101], "expiry": "2026-11-29"}})
    assert for_all.options.maturity.tolist() == [1.5 / 365] * 2
    both = parsed({"columns": {**UNDATED, "expiry": "2026-11-30", "valuation_time": ["2026-11-28", "2026-11-29"]}})
    assert both.options.maturity.tolist() == [2 / 365, 1 / 365]


@pytest.mark.parametrize(
    ("columns", "places"),
    [
        ({"expiry": ["2026-11-29", "x", "2020-01-01"]}, [("expiry", 1), ("expiry", 2)]),
        ({"expiry": ["2026-11-29"] * 3, "valuation_time": "x"}, [("valuation_time", None)]),
        ({"expiry": "x", "spot": [1, 2, 3]}, [("expiry", None)]),
        ({"expiry": ["2026-11-29"] * 3, "maturity": 1}, [("expiry", 0), ("expiry", 1), ("expiry", 2)]),
        ({"expiry": ["2026-11-29"], "spot": [1, 2]}, [("expiry", None)]),
        ({"maturity": [1, 2], "valuation_time": "2026-11-28"}, [("valuation_time", None)]),
    ],
)
def test_faults_in_columns_have_their_row_or_none_where_a_value_stands_for_all(
    columns: dict[str, Any], places: list[tuple[str, int | None]]
) -> None:
    found = faults({"columns": {**UNDATED, **columns}})
    assert sorted((fault["field"], fault.get("index", -1)) for fault in found) == sorted(
        (field, -1 if index is None else index) for field, index in places
    )


def test_the_process_for_large_batches_takes_dates_too() -> None:
    body = json.dumps({"options": [{**UNDATED, "expiry": "2050-01-01", "valuation_time": "2049-01-01"}] * 3}).encode()
    request = _parse(Work(JobKind.PRICE, body, {}, max_batch=10, max_body_bytes=10_000))
    assert isinstance(request, PriceRequest)
    assert request.told_maturity is not None
    assert request.options.maturity.tolist() == request.told_maturity.tolist() == [1.0] * 3


async def test_the_answer_says_the_maturity_that_was_counted_in_every_form() -> None:
    dated = {**UNDATED, "expiry": "2028-03-01", "valuation_time": "2027-03-01"}
    undated = {**PUT, "maturity": 366 / 365}
    async with running() as client:
        answers = []
        for body in (dated, undated, {"options": [undated, dated]}, {"columns": {**dated, "spot": [100]}}):
            async with client.post("/v1/price", json=body) as response:
                assert response.status == 200
                answers.append(await response.json())
    by_date, by_years, mixed, columns = answers
    assert by_date.pop("maturity") == 366 / 365
    assert by_date == by_years
    assert [row.get("maturity") for row in mixed["results"]] == [None, 366 / 365]
    assert columns["columns"]["maturity"] == [366 / 365]


@pytest.mark.parametrize("style", ["european", "american"])
async def test_a_quote_by_date_is_never_answered_as_it_was_a_moment_ago(
    style: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    moment = NOW
    monkeypatch.setattr("pinn_inference.server.parsing.time.time", lambda: moment)
    body = {**UNDATED, "expiry": "2026-12-04", "style": style}
    async with running(lambda: load_configured_model(ServerConfig())) as client:
        answers = []
        for moment in (NOW, NOW, NOW + 60.0):  # noqa: B007 - the clock reads it
            async with client.post("/v1/price", json=body) as response:
                answers.append(await response.json())
    first, again, later = answers
    assert again["price"] == first["price"]
    assert later["maturity"] == pytest.approx(first["maturity"] - 60 / (365 * DAY), abs=1e-15)
    assert later["price"] != first["price"]
