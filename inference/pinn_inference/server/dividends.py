"""Dividends of known amounts in a request: each `{"time": years, "amount": currency}`, or `ex_date` instead of `time`.

`ex_date` is a moment as in `dates`, but a date alone is the beginning of that day in UTC: from its opening on the share
trades without the dividend. What has passed by the valuation time, and what comes after expiry, changes no price.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from pinn_inference.pricing.escrow import NO_DIVIDENDS, Schedule
from pinn_inference.server.dates import YEAR_SECONDS, Complaint, NotAMoment, moment_rule, seconds_of

DIVIDENDS: Final = "dividends"
MAX_DIVIDENDS: Final = 100
LARGEST_AMOUNT: Final = 1e9
LATEST: Final = 100.0
"""In years."""
_EXPECTED: Final = (
    f'must be a list of at most {MAX_DIVIDENDS} dividends such as {{"time": 0.25, "amount": 1.5}} or '
    '{"ex_date": "2027-05-14", "amount": 1.5}'
)
_FIELDS: Final = ("time", "ex_date", "amount")
_NUMBERS: Final = frozenset((int, float))


def has_ex_date(dividends: Any) -> bool:
    """Whether any of what a request calls dividends has an ex-date."""
    return isinstance(dividends, list) and any(isinstance(one, dict) and "ex_date" in one for one in dividends)


def read_dividends(value: Any, *, since: float) -> tuple[Schedule, tuple[Complaint, ...]]:
    """A schedule, and what is wrong with it; ex-dates are counted from `since`, in seconds from 1970 on."""
    if not isinstance(value, list) or len(value) > MAX_DIVIDENDS:
        return NO_DIVIDENDS, (Complaint(DIVIDENDS, _EXPECTED, value),)
    complaints = tuple(complaint for place, one in enumerate(value) for complaint in _complaints(one, place))
    if complaints:
        return NO_DIVIDENDS, complaints
    dated = [(_years(one, since), float(one["amount"])) for one in value]
    return Schedule(tuple(sorted((time, amount) for time, amount in dated if time >= 0.0 and amount > 0.0))), ()


def _years(dividend: dict[str, Any], since: float) -> float:
    if "time" in dividend:
        return float(dividend["time"])
    return (seconds_of(dividend["ex_date"], at_end=False) - since) / YEAR_SECONDS


def _complaints(dividend: Any, place: int) -> Iterator[Complaint]:
    where = f"{DIVIDENDS}[{place}]"
    if not isinstance(dividend, dict):
        yield Complaint(where, 'must be an object with "amount", and "time" or "ex_date"', dividend)
        return
    for name, value in dividend.items():
        if name not in _FIELDS:
            message = f"is not a field of a dividend: known are {', '.join(_FIELDS)}"
            yield Complaint(f"{where}.{name}", message, value)
    for name, most, unit in (("amount", LARGEST_AMOUNT, "currency"), ("time", LATEST, "years")):
        if name in dividend:
            value = dividend[name]
            if type(value) not in _NUMBERS or not 0.0 <= value <= most:
                yield Complaint(f"{where}.{name}", f"must be a number from 0 to {most:.0f} ({unit})", value)
    if "amount" not in dividend:
        yield Complaint(f"{where}.amount", "is required: it is paid per share, in currency", has_value=False)
    if "ex_date" in dividend:
        if "time" in dividend:
            message = "must not stand beside time: which of both is meant?"
            yield Complaint(f"{where}.ex_date", message, dividend["ex_date"])
        elif (complaint := _no_moment(dividend["ex_date"])) is not None:
            yield Complaint(f"{where}.ex_date", complaint, dividend["ex_date"])
    elif "time" not in dividend:
        yield Complaint(f"{where}.time", "is required, in years, or ex_date instead", has_value=False)


def _no_moment(value: Any) -> str | None:
    if not isinstance(value, str):
        return moment_rule(at_end=False)
    try:
        seconds_of(value, at_end=False)
    except NotAMoment as error:
        return str(error)
    return None
