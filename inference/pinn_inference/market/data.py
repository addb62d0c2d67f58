"""The market data file: what a symbol costs today and how it moves, parsed at the edge, every fault told.

The file is YAML, because the ConfigMaps it is mounted from are, and because it can carry comments; JSON indented with
blanks is YAML too. The rules are those of `FIELDS` and of the constants beside it; docs/market-data.md has the schema.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pinn_inference.market.document import DocumentError, Items, Node, Scalar, Table, read_document

SAMPLE: Final = Path(__file__).with_name("sample.yaml")
"""The file that ships with the package; its numbers are invented and it says so."""
MAX_BYTES: Final = 1024 * 1024
"""What a ConfigMap can hold."""
MAX_SYMBOLS: Final = 1000
SYMBOL_PATTERN: Final = r"[A-Z0-9^][A-Z0-9^.=_-]{0,15}"
SYMBOL_RULE: Final = "1 to 16 capital letters, digits and ^ . = _ -, the first one a letter, a digit or ^"
_SYMBOL: Final = re.compile(SYMBOL_PATTERN)
_NUMBER: Final = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
_HORIZON: Final = re.compile(r"([1-9]\d{0,3})([dwmy])", re.ASCII)
_YEARS_PER: Final[Mapping[str, float]] = MappingProxyType({"d": 1 / 365, "w": 7 / 365, "m": 1 / 12, "y": 1.0})
_MAX_YEARS: Final = 2.0
_MAX_HORIZONS: Final = 8
_MAX_STRIKES: Final = 15
_SHOWN_CHARACTERS: Final = 64


@dataclass(frozen=True, slots=True)
class NumberRule:
    """A number of a symbol: the closed range it must lie in, and its unit."""

    name: str
    low: float
    high: float
    unit: str
    default: float | None = None

    @property
    def expected(self) -> str:
        """The rule in words."""
        low, high = (f"{bound:.10f}".rstrip("0").rstrip(".") for bound in (self.low, self.high))
        return f"must be a number from {low} to {high} ({self.unit})"


FIELDS: Final = (
    NumberRule("spot", 1e-6, 1e9, "price of one share, in the currency"),
    NumberRule("volatility", 0.001, 3.0, "decimal per year: 0.2 is 20 %"),
    NumberRule("rate", -1.0, 1.0, "decimal per year, continuously compounded: 0.03 is 3 %"),
    NumberRule("dividend", -1.0, 1.0, "decimal per year, continuously compounded: 0.01 is 1 %", default=0.0),
)
"""Volatility and horizons are bounded so that σ√T stays below 4.3: beyond it the lower quantiles vanish in rounding."""
_STRIKE: Final = NumberRule("strikes", 0.1, 10.0, "multiple of the spot")


@dataclass(frozen=True, slots=True)
class Instrument:
    """One symbol. `spot` is in `currency`; `volatility`, `rate` and `dividend` as in `OptionBatch`."""

    symbol: str
    name: str
    currency: str
    spot: float
    volatility: float
    rate: float
    dividend: float


@dataclass(frozen=True, slots=True)
class Horizon:
    """A time ahead: `label` like 3m, and its length in years (a week is 7/365, a month 1/12)."""

    label: str
    years: float


@dataclass(frozen=True, slots=True)
class MarketData:
    """One file's content, complete and checked.

    `as_of` is the moment of the observations, in UTC. `strikes` are multiples of the spot, ascending, `horizons`
    ascend too. `sample_data` says that the numbers are not the market's. `sha256` is the file's, `file` its name.
    """

    file: str
    sha256: str
    as_of: datetime
    sample_data: bool
    instruments: Mapping[str, Instrument]
    horizons: tuple[Horizon, ...]
    strikes: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class DataFault:
    """One thing wrong in a file: where (`line` 0: nowhere in particular), what was found, what would be right."""

    file: str
    line: int
    field: str
    message: str
    value: str | None = None

    def __str__(self) -> str:
        where = self.file + (f" line {self.line}" if self.line else "")
        found = "" if self.value is None else f" is {self.value}"
        return f"{where}: {self.field}{found}: {self.message}" if self.field else f"{where}: {self.message}"


class MarketDataError(ValueError):
    """A market data file cannot be used; `faults` has everything that is wrong, `str()` a line for each."""

    def __init__(self, faults: Sequence[DataFault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = tuple(faults)


def parse_horizon(text: str) -> Horizon:
    """A horizon from its label. Raises ValueError that says what would be right."""
    matched = _HORIZON.fullmatch(text)
    years = int(matched[1]) * _YEARS_PER[matched[2]] if matched else math.inf
    if years > _MAX_YEARS:
        raise ValueError(f"must be a time like 5d, 1w, 3m or 1y, at most {_MAX_YEARS:g} years")
    return Horizon(label=text, years=years)


DEFAULT_HORIZONS: Final = tuple(map(parse_horizon, ("1w", "1m", "3m", "6m", "1y")))
DEFAULT_STRIKES: Final = (0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2)


def parse_market_data(content: bytes, *, file: str) -> MarketData:
    """The market data in a file's bytes; `file` is the name that faults carry.

    Raises MarketDataError with every fault found.
    """
    if len(content) > MAX_BYTES:
        raise MarketDataError([DataFault(file, 0, "", f"is {len(content)} bytes long, at most {MAX_BYTES} are read")])
    try:
        root = read_document(content)
    except DocumentError as error:
        raise MarketDataError([DataFault(file, error.line, "", str(error))]) from error
    reader = _Reader(file)
    data = reader.market_data(root, sha256=hashlib.sha256(content).hexdigest())
    if reader.faults or data is None:
        raise MarketDataError(reader.faults)
    return data


class _Reader:
    """Walks one document and collects its faults; what is faulty is read as None and the walk goes on."""

    def __init__(self, file: str) -> None:
        self.faults: list[DataFault] = []
        self._file = file

    def market_data(self, root: Node, *, sha256: str) -> MarketData | None:
        required, optional = ("as_of", "currency", "symbols"), ("sample_data", "horizons", "strikes")
        fields = self._table(root, "", required=required, optional=optional, line=1)
        if fields is None:
            return None
        as_of = self._as_of(fields.get("as_of"))
        currency = self._currency(fields.get("currency"), "currency")
        sample_data = self._flag(fields["sample_data"], "sample_data") if "sample_data" in fields else False
        horizons = self._horizons(fields["horizons"]) if "horizons" in fields else DEFAULT_HORIZONS
        strikes = self._strikes(fields["strikes"]) if "strikes" in fields else DEFAULT_STRIKES
        instruments = self._instruments(fields.get("symbols"), currency or "")
        if self.faults or as_of is None:
            return None
        return MarketData(
            file=self._file,
            sha256=sha256,
            as_of=as_of,
            sample_data=sample_data,
            instruments=MappingProxyType(instruments),
            horizons=horizons,
            strikes=strikes,
        )

    def _fault(self, line: int, field: str, message: str, value: str | None = None) -> None:
        self.faults.append(DataFault(self._file, line, field, message, value))

    def _table(
        self, node: Node, field: str, *, required: Sequence[str], optional: Sequence[str], line: int
    ) -> dict[str, Node] | None:
        """The entries of a map with these fields, None if it is no map."""
        known = (*required, *optional)
        if not isinstance(node, Table):
            self._fault(node.line, field, "must be a map with " + ", ".join(required), _shown(node))
            return None
        prefix = f"{field}." if field else ""
        found: dict[str, Node] = {}
        for key, value in node.entries:
            name = f"{prefix}{_cut(key.text)}"
            if key.text not in known:
                self._fault(key.line, name, "is not a field: known are " + ", ".join(known))
            elif key.text in found:
                self._fault(key.line, name, "stands twice")
            else:
                found[key.text] = value
        for name in required:
            if name not in found:
                self._fault(line, f"{prefix}{name}", "is missing")
        return found

    def _as_of(self, node: Node | None) -> datetime | None:
        if node is None:
            return None
        try:
            moment = datetime.fromisoformat(node.text if isinstance(node, Scalar) else "")
            if moment.tzinfo is not None:
                return moment.astimezone(UTC)
        except (ValueError, OverflowError):
            pass
        message = "must be a date and time with its offset from UTC, like 2026-01-02T21:00:00Z"
        self._fault(node.line, "as_of", message, _shown(node))
        return None

    def _currency(self, node: Node | None, field: str) -> str | None:
        if node is None:
            return None
        if isinstance(node, Scalar) and re.fullmatch(r"[A-Z]{3}", node.text):
            return node.text
        self._fault(node.line, field, "must be a currency code of three capital letters, like USD", _shown(node))
        return None

    def _flag(self, node: Node, field: str) -> bool:
        if isinstance(node, Scalar) and not node.quoted and node.text in ("true", "false"):
            return node.text == "true"
        self._fault(node.line, field, "must be true or false", _shown(node))
        return False

    def _number(self, node: Node, rule: NumberRule, field: str) -> float | None:
        if isinstance(node, Scalar) and not node.quoted and _NUMBER.fullmatch(node.text):
            value = float(node.text)
            if rule.low <= value <= rule.high:
                return value
        self._fault(node.line, field, rule.expected, _shown(node))
        return None

    def _horizons(self, node: Node) -> tuple[Horizon, ...]:
        horizons: list[Horizon] = []
        for index, item in enumerate(self._list(node, "horizons", _MAX_HORIZONS)):
            try:
                horizon = parse_horizon(item.text if isinstance(item, Scalar) else "")
            except ValueError as error:
                self._fault(item.line, f"horizons[{index}]", str(error), _shown(item))
                continue
            if horizons and horizon.years <= horizons[-1].years:
                self._fault(item.line, f"horizons[{index}]", "must be longer than the one before it", _shown(item))
            horizons.append(horizon)
        return tuple(horizons)

    def _strikes(self, node: Node) -> tuple[float, ...]:
        strikes: list[float] = []
        for index, item in enumerate(self._list(node, "strikes", _MAX_STRIKES)):
            value = self._number(item, _STRIKE, f"strikes[{index}]")
            if value is None:
                continue
            if strikes and value <= strikes[-1]:
                self._fault(item.line, f"strikes[{index}]", "must be greater than the one before it", _shown(item))
            strikes.append(value)
        return tuple(strikes)

    def _list(self, node: Node, field: str, limit: int) -> Sequence[Node]:
        if isinstance(node, Items) and 1 <= len(node.entries) <= limit:
            return node.entries
        self._fault(node.line, field, f"must be a list of 1 to {limit}", _shown(node))
        return ()

    def _instruments(self, node: Node | None, currency: str) -> dict[str, Instrument]:
        instruments: dict[str, Instrument] = {}
        if node is None:
            return instruments
        if not isinstance(node, Table) or not 1 <= len(node.entries) <= MAX_SYMBOLS:
            message = f"must be a map from 1 to {MAX_SYMBOLS} symbols to their data"
            self._fault(node.line, "symbols", message, _shown(node))
            return instruments
        seen: set[str] = set()
        for key, value in node.entries:
            field = f"symbols.{_cut(key.text)}"
            if not _SYMBOL.fullmatch(key.text):
                self._fault(key.line, field, f"is not a symbol: it must have {SYMBOL_RULE}")
            if key.text in seen:
                self._fault(key.line, field, "stands twice")
            seen.add(key.text)
            instrument = self._instrument(key, value, field, currency)
            if instrument is not None:
                instruments[key.text] = instrument
        return instruments

    def _instrument(self, key: Scalar, node: Node, field: str, currency: str) -> Instrument | None:
        required = ("name", *(rule.name for rule in FIELDS if rule.default is None))
        optional = (*(rule.name for rule in FIELDS if rule.default is not None), "currency")
        fields = self._table(node, field, required=required, optional=optional, line=key.line)
        if fields is None:
            return None
        name = self._name(fields.get("name"), f"{field}.name")
        if "currency" in fields:
            currency = self._currency(fields["currency"], f"{field}.currency") or currency
        numbers: dict[str, Any] = {}
        for rule in FIELDS:
            if rule.name in fields:
                numbers[rule.name] = self._number(fields[rule.name], rule, f"{field}.{rule.name}")
            elif rule.default is not None:
                numbers[rule.name] = rule.default
        if name is None or len(numbers) < len(FIELDS) or None in numbers.values():
            return None
        return Instrument(symbol=key.text, name=name, currency=currency, **numbers)

    def _name(self, node: Node | None, field: str) -> str | None:
        if node is None:
            return None
        if isinstance(node, Scalar) and 1 <= len(node.text) <= 100 and node.text.isprintable():
            return node.text
        self._fault(node.line, field, "must be a text of 1 to 100 printable characters", _shown(node))
        return None


def _shown(node: Node) -> str:
    """What was found, as a fault shows it: short."""
    if isinstance(node, Items):
        return f"a list of {len(node.entries)}"
    if isinstance(node, Table):
        return f"a map of {len(node.entries)}"
    if node.quoted:
        return f'"{_cut(node.text)}"'
    return _cut(node.text) or "empty"


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
