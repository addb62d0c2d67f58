"""`POST /v1/scenarios`: the options of `/v1/price`, each with a `quantity`, at every point of a grid of shifts.

A request is read by the rules of `/v1/price`: `ladders`, `per_option` and the quantities are taken out of the document,
and the rest is an ordinary request. The answer is what all positions together are worth at each point, with their
Greeks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import orjson

from pinn_inference.pricing.escrowed import Escrow
from pinn_inference.pricing.ladders import AXES, NEUTRAL, Ladders
from pinn_inference.pricing.types import BoolArray, FallbackReason, FloatArray, Method, OptionBatch, Quotes
from pinn_inference.server.documents import Body
from pinn_inference.server.errors import Fault, InvalidRequest, NonFiniteResult, ServerError
from pinn_inference.server.parsing import FIELDS, UNKNOWN_FIELD, Form, PriceRequest, shown
from pinn_inference.server.rendering import Part
from pinn_inference.server.rewriting import parse_rest, read_object

PATH: Final = "/v1/scenarios"
TOTALS: Final = {"value": "price", **{name: name for name in ("delta", "gamma", "vega", "theta", "rho")}}
"""What is summed over the positions, and of which column of the quotes."""
MAX_SHIFTS: Final = 1000
LARGEST_QUANTITY: Final = 1e12
_LARGEST_SHIFT: Final = 1e12
"""Beyond any number that an option may have; where a shift leads is looked at for each option."""
_FIELD_OF_AXIS: Final = {field.name: field for field in FIELDS if field.name in AXES}
_NUMBERS: Final = frozenset((int, float))
_QUANTITY_RULE: Final = (
    f"must be a number from {-LARGEST_QUANTITY:g} to {LARGEST_QUANTITY:g}, negative where it is sold"
)
_LADDERS_RULE: Final = (
    'must be an object of lists of shifts such as {"spot": [0.9, 1, 1.1], "volatility": [-0.05, 0, 0.05]}: factors of '
    "spot, and what is added to volatility, rate and time (years that pass)"
)
_RULES: Final = {
    "spot": "must be a factor above 0: 1 changes nothing, 1.1 is 10 % more",
    "volatility": "must be a number, added to the volatility: 0.01 is one point",
    "rate": "must be a number, added to the rate: 0.0001 is one basis point",
    "time": f"must be a number of years that pass, from 0 to {_LARGEST_SHIFT:g}",
}


class TooManyScenarios(ServerError):
    """A grid with more options than one request may hold."""

    status = 413

    def __init__(self, *, options: int, points: int, limit: int) -> None:
        super().__init__(
            f"{options} options at {points} points each are {options * points}: at most {limit} fit in one request, "
            "send several, or fewer shifts"
        )


@dataclass(frozen=True, slots=True)
class ScenarioRequest:
    """A valid request: `options` are those of every point of the grid, as `Ladders.expanded` orders them; `quantity`
    has shape (n,), one for each position.
    """

    options: OptionBatch
    ladders: Ladders
    quantity: FloatArray
    escrow: Escrow | None = None
    """What was taken off the spots of `options` for their dividends; None where there are none."""
    past: BoolArray | None = None
    """Which of `options` have expired before, so that time changes them no more; None: not one."""
    per_option: bool = False
    """Whether the price of every option at every point is asked for too."""


def parse_scenarios(body: Body, *, max_batch: int) -> ScenarioRequest:
    """Parse the body of `POST /v1/scenarios`.

    Raises InvalidRequest with every fault found, BatchTooLarge for more than `max_batch` positions, TooManyScenarios
    for more than that many options of all points together.
    """
    read = read_object(body, max_batch=max_batch)
    faults: list[Fault] = []
    content = dict(read.content)
    given, per_option = content.pop("ladders", None), content.pop("per_option", False)
    shifts = _shifts(given, "ladders" in read.content, faults)
    if type(per_option) is not bool:
        faults.append(Fault("per_option", "must be true or false", value=shown(per_option)))
    quantities, rest = _without_quantities(content, faults)
    parsed = parse_rest(read, rest, faults, max_batch=max_batch, reword=_with_quantity)
    ladders = Ladders(**{name: np.array(values, dtype=np.float64) for name, values in shifts.items()})
    positions = len(parsed.options)
    if positions * ladders.size > max_batch:
        raise TooManyScenarios(options=positions, points=ladders.size, limit=max_batch)
    if isinstance(quantities, list) and len(quantities) != positions:
        message = f"must be as long as the other lists: these are of {positions}"
        raise InvalidRequest([Fault("quantity", message, value=shown(quantities))])
    quantity = np.broadcast_to(np.array(quantities, dtype=np.float64), (positions,))
    options, escrow = _expanded(parsed, ladders)
    past = ladders.past(parsed.options.maturity)
    return ScenarioRequest(options, ladders, quantity, escrow, past if past.any() else None, per_option)


def _shifts(given: Any, is_there: bool, faults: list[Fault]) -> dict[str, list[float]]:
    """The shifts of every axis, a stand-in where they are wrong."""
    shifts = {name: [NEUTRAL[name]] for name in AXES}
    if not isinstance(given, dict) or not given:
        faults.append(Fault("ladders", _LADDERS_RULE, value=shown(given), has_value=is_there))
        return shifts
    for name, values in given.items():
        where = f"ladders.{shown(name)}"
        if name not in AXES:
            faults.append(Fault(where, f"is not a ladder: known are {', '.join(AXES)}", value=shown(values)))
        elif not isinstance(values, list) or not 0 < len(values) <= MAX_SHIFTS:
            faults.append(Fault(where, f"must be a list of 1 to {MAX_SHIFTS} shifts", value=shown(values)))
        else:
            wrong = [place for place, value in enumerate(values) if not _is_shift(name, value)]
            faults.extend(Fault(f"{where}[{place}]", _RULES[name], value=shown(values[place])) for place in wrong)
            if not wrong:
                shifts[name] = [float(value) for value in values]
    return shifts


def _is_shift(axis: str, value: Any) -> bool:
    if type(value) not in _NUMBERS or not abs(value) <= _LARGEST_SHIFT:
        return False
    return bool(value > 0.0 if axis == "spot" else value >= 0.0 if axis == "time" else True)


def _without_quantities(content: dict[str, Any], faults: list[Fault]) -> tuple[Any, dict[str, Any]]:
    """The quantities, a list or one for all, and the document without them."""
    if isinstance(rows := content.get("options"), list):
        quantities, options = [], []
        for index, row in enumerate(rows):
            is_option = isinstance(row, dict)
            quantities.append(_quantity(row.get("quantity", 1.0) if is_option else 1.0, index, faults))
            options.append({name: value for name, value in row.items() if name != "quantity"} if is_option else row)
        return quantities, {**content, "options": options}
    if isinstance(columns := content.get("columns"), dict):
        rest = {name: value for name, value in columns.items() if name != "quantity"}
        found = columns.get("quantity", 1.0)
        if not isinstance(found, list):
            return _quantity(found, None, faults), {**content, "columns": rest}
        return [_quantity(value, row, faults) for row, value in enumerate(found)], {**content, "columns": rest}
    rest = {name: value for name, value in content.items() if name != "quantity"}
    return _quantity(content.get("quantity", 1.0), None, faults), rest


def _with_quantity(fault: Fault) -> Fault:
    """What is told of a field that no option has names this one too."""
    if not fault.message.startswith(UNKNOWN_FIELD):
        return fault
    return replace(fault, message=fault.message.replace(UNKNOWN_FIELD, f"{UNKNOWN_FIELD}quantity, ", 1))


def _quantity(value: Any, index: int | None, faults: list[Fault]) -> float:
    if type(value) not in _NUMBERS or not abs(value) <= LARGEST_QUANTITY:
        faults.append(Fault("quantity", _QUANTITY_RULE, index=index, value=shown(value)))
        return 1.0
    return float(value)


def _expanded(parsed: PriceRequest, ladders: Ladders) -> tuple[OptionBatch, Escrow | None]:
    """The options of the whole grid. Raises InvalidRequest where a shift leads out of what `/v1/price` takes."""
    base = parsed.unreduced
    single = parsed.form is Form.SINGLE
    faults = []
    for name in ("spot", "volatility", "rate"):
        field, column, shifts = _FIELD_OF_AXIS[name], getattr(base, name), getattr(ladders, name)
        moved = column[:, None] * shifts if name == "spot" else column[:, None] + shifts
        outside = ~((moved >= field.low) & (moved <= field.high))
        for place in np.flatnonzero(outside.any(axis=0)).tolist():
            option = int(np.argmax(outside[:, place]))
            whose = "the option" if single else f"options[{option}]"
            message = f"takes the {name} of {whose} to {float(moved[option, place])!r}: it {field.expected}"
            faults.append(Fault(f"ladders.{name}[{place}]", message, value=float(shifts[place])))
    if faults:
        raise InvalidRequest(faults)
    options, schedules = ladders.expanded(base, parsed.schedules)
    if not any(schedule.dividends for schedule in schedules):
        return options, None
    escrow = Escrow.of(options, schedules)
    short = np.flatnonzero(~(escrow.present_value < options.spot))
    if len(short):
        option, point = divmod(int(short[0]), ladders.size)
        place = int(np.unravel_index(point, ladders.shape)[0])
        message = (
            f"leaves a spot of {options.spot[short[0]]:g} to {'the option' if single else f'options[{option}]'}, whose "
            f"dividends are worth {escrow.present_value[short[0]]:g}: they must be worth less than the spot"
        )
        raise InvalidRequest([Fault(f"ladders.spot[{place}]", message, value=float(ladders.spot[place]))])
    return escrow.reduced(options, schedules), escrow


# --- the answer -------------------------------------------------------------------------------------------------------

_SUM_ROUNDING: Final = 4.0 * float(np.finfo(np.float64).eps)


def render_scenarios(request: ScenarioRequest, quotes: Quotes, *, model: str, american_model: str) -> Iterator[Part]:
    """The JSON of an answer in parts; `quotes` are those of `request.options`, whose dividends are still apart.

    `model` and `american_model` name the models behind the options of method `pinn`, empty where there is none. Raises
    NonFiniteResult before the first part.
    """
    quotes = quotes if request.escrow is None else request.escrow.settled(quotes)
    if request.past is not None:
        quotes = replace(quotes, theta=np.where(request.past, 0.0, quotes.theta))
    shape = request.ladders.shape
    positions = len(request.quantity)

    def column(name: str) -> FloatArray:
        values: FloatArray = getattr(quotes, name).reshape(positions, -1)
        finite = np.isfinite(values).all(axis=1)
        if not finite.all():
            raise NonFiniteResult(int(np.argmin(finite)))
        return values

    columns = {name: column(source) for name, source in TOTALS.items()}
    totals = {name: request.quantity @ values for name, values in columns.items()}
    size = np.abs(request.quantity)
    rounding = _SUM_ROUNDING * (1 + math.log2(positions)) * (size @ np.abs(columns["value"]))
    totals["error_bound"] = size @ column("error_bound") + rounding
    head = {
        "axes": AXES,
        "ladders": {name: getattr(request.ladders, name).tolist() for name in AXES},
        "models": {"european": model or None, "american": american_model or None},
        "methods": _counted(quotes.method, {method: method.label for method in Method}),
        "reasons": _counted(quotes.reason, {reason: reason.label for reason in FallbackReason if reason}),
    }
    return _parts(head, totals, columns["value"] if request.per_option else None, shape)


def _counted(codes: Any, labels: dict[Any, str]) -> dict[str, int]:
    counts = np.bincount(codes, minlength=len(labels) + 1).tolist()
    return {label: counts[code] for code, label in labels.items() if counts[code]}


def _parts(
    head: dict[str, Any], totals: dict[str, FloatArray], prices: FloatArray | None, shape: tuple[int, ...]
) -> Iterator[Part]:
    yield orjson.dumps(head)[:-1] + b',"totals":{'
    for place, (name, values) in enumerate(totals.items()):
        yield b'%b"%b":%b' % (b"," if place else b"", name.encode(), _nested(values, shape))
    yield b"}"
    if prices is not None:
        for place, values in enumerate(prices):
            yield (b"," if place else b',"prices":[') + _nested(values, shape)
        yield b"]"
    yield b"}"


def _nested(values: FloatArray, shape: tuple[int, ...]) -> bytes:
    grid = np.ascontiguousarray(values.reshape(shape) + 0.0)  # no -0.0
    return orjson.dumps(grid, option=orjson.OPT_SERIALIZE_NUMPY)
