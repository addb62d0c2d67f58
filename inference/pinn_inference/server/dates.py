"""Options by date: `expiry` and `valuation_time` instead of `maturity`.

Time is counted ACT/365F: seconds between two moments, by years of 365 days of 86,400 seconds, whatever the calendar has
between them. A moment is an ISO 8601 date-time with its zone, or a date alone, which is the end of that day in UTC: an
option can be traded all through the day of its expiry, and between two dates there are whole days.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any, Final

DAY_SECONDS: Final = 86_400
YEAR_SECONDS: Final = 365 * DAY_SECONDS
DATE_FIELDS: Final = ("expiry", "valuation_time")
PATTERN: Final = r"^\d{4}-\d{2}-\d{2}([Tt ]\d{2}:\d{2}(:\d{2}([.,]\d{1,9})?)?([Zz]|[+-]\d{2}:?\d{2}))?$"
"""How a moment looks; whether the calendar has it is another question."""
_MOMENT: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d{1,9}))?)?([Zz]|[+-]\d\d:?\d\d)?)?", re.ASCII
)
_EPOCH_DAY: Final = date(1970, 1, 1).toordinal()


def moment_rule(*, at_end: bool = True) -> str:
    """What a moment has to be, for answers."""
    part = "end" if at_end else "beginning"
    return (
        f'must be a date such as "2027-03-19", years 0001 to 9999, which is the {part} of that day in UTC, or a '
        'date-time with its zone such as "2027-03-19T16:00:00-05:00"'
    )


class NotAMoment(ValueError):
    """The text is no moment; the message says what would be right."""


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong with one field of an option; `has_value` is False where the field is absent."""

    field: str
    message: str
    value: Any = None
    has_value: bool = True


@dataclass(frozen=True, slots=True)
class Undated:
    """An option with `maturity` instead of dates. With complaints that is a stand-in, and not to be priced."""

    option: dict[str, Any]
    complaints: tuple[Complaint, ...]
    since: float
    """The valuation time, in seconds from 1970 on."""


def is_dated(option: Mapping[str, Any]) -> bool:
    """Whether any of the option's fields is one of `DATE_FIELDS`."""
    return "expiry" in option or "valuation_time" in option


@lru_cache(maxsize=1024)
def seconds_of(text: str, *, at_end: bool = True) -> float:
    """Seconds from 1970 on of a moment; a date alone is the end of its day in UTC, or its beginning.

    Raises NotAMoment.
    """
    found = _MOMENT.fullmatch(text)
    if found is None:
        raise NotAMoment(moment_rule(at_end=at_end))
    year, month, day, hour, minute, second, fraction, zone = found.groups()
    try:
        midnight = (date(int(year), int(month), int(day)).toordinal() - _EPOCH_DAY) * DAY_SECONDS
    except ValueError:
        raise NotAMoment("must be a day that the calendar has") from None
    if hour is None:
        return float(midnight + (DAY_SECONDS if at_end else 0))
    if zone is None:
        raise NotAMoment('must have a zone after its time: "Z" for UTC, or an offset such as "-05:00"')
    if second == "60":
        raise NotAMoment("must not be a leap second, which ACT/365F does not count: take second 59, or the next minute")
    if int(hour) > 23 or int(minute) > 59 or int(second or 0) > 59:
        raise NotAMoment("must have hours from 00 to 23, and minutes and seconds from 00 to 59")
    clock = int(hour) * 3600 + int(minute) * 60 + int(second or 0) - _offset(zone)
    return float(midnight + clock) + (float(f"0.{fraction}") if fraction else 0.0)


def _offset(zone: str) -> int:
    """Seconds by which the zone's clocks are ahead of UTC."""
    if zone in "Zz":
        return 0
    hours, minutes = int(zone[1:3]), int(zone[-2:])
    if hours > 23 or minutes > 59:
        raise NotAMoment("must have an offset from -23:59 to +23:59")
    return (hours * 3600 + minutes * 60) * (-1 if zone[0] == "-" else 1)


def undated(option: Mapping[str, Any], *, now: float, longest: float, has_ex_date: bool = False) -> Undated:
    """An option with the years from `valuation_time`, or from `now` where that is absent, to `expiry` as `maturity`.

    `now` is in seconds from 1970 on, `longest` in years. `has_ex_date` says that other dates of the option are counted
    from the valuation time too, so that it means something without an expiry.
    """
    plain = {name: value for name, value in option.items() if name not in DATE_FIELDS}
    moments: dict[str, float] = {"valuation_time": now}
    complaints: list[Complaint] = []
    for name in DATE_FIELDS:
        if name in option:
            try:
                moments[name] = _moment(option[name])
            except NotAMoment as error:
                complaints.append(Complaint(name, str(error), option[name]))
    if "expiry" not in option:
        message = "belongs to an expiry or an ex_date: a maturity is counted from whatever moment the quote is for"
        if not has_ex_date:
            complaints.append(Complaint("valuation_time", message, option["valuation_time"]))
    elif "maturity" in option:
        complaints.append(
            Complaint("expiry", "must not stand beside maturity: which of both is meant?", option["expiry"])
        )
    elif not complaints:
        years = (moments["expiry"] - moments["valuation_time"]) / YEAR_SECONDS
        plain["maturity"] = years
        complaints.extend(_out_of_range(option, years, longest))
    if complaints and "expiry" in option:
        plain["maturity"] = 0.0
    return Undated(plain, tuple(complaints), moments["valuation_time"])


def _moment(value: Any) -> float:
    if not isinstance(value, str):
        raise NotAMoment(moment_rule())
    return seconds_of(value)


def _out_of_range(option: Mapping[str, Any], years: float, longest: float) -> Iterator[Complaint]:
    since = "valuation_time" if "valuation_time" in option else "now, which valuation_time is where it is absent"
    if years < 0.0:
        yield Complaint("expiry", f"has passed: it must not be before {since}", option["expiry"])
    elif years > longest:
        message = f"is {years:.1f} years of 365 days after {since}: must be at most {longest:g}"
        yield Complaint("expiry", message, option["expiry"])
