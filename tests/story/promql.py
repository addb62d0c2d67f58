"""A small evaluator of PromQL, exact for what it knows, for a Prometheus in fake time.

It holds to Prometheus 3 (`promql/engine.go`, `functions.go`, `quantile.go`): a range holds the raw samples of
(t − d, t] and nothing from before it; an instant selector looks back less than five minutes and sees nothing behind a
staleness marker; `rate`, `increase` and `delta` extrapolate; two series that end up with the same labels are an error.
What it does not know is a `QueryError`, never a guess.

Every node is evaluated at all moments of a query at once, because stories ask thousands of range queries.
"""

from __future__ import annotations

import math
import operator
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

LOOKBACK = 300.0
"""Seconds an instant selector looks back."""
MAX_POINTS = 11_000
NAME = "__name__"
Labels = Mapping[str, str]


class QueryError(ValueError):
    """Prometheus would refuse this query, or this evaluator does not know it."""


# --- what is stored ---------------------------------------------------------------------------------------------------


class TimeSeries:
    """One stored series: samples in time order (unix seconds), and the moments of its staleness markers."""

    __slots__ = ("corrections", "labels", "native", "stale", "times", "values")

    def __init__(self, labels: Labels, *, native: bool = False) -> None:
        self.labels = labels
        self.native = native
        """Its samples are native histograms: they have no value that a formula could use."""
        self.times: list[float] = []
        self.values: list[float] = []
        self.corrections: list[float] = []
        """Sum of the values lost by all drops up to each sample, so that an increase needs no walk."""
        self.stale: list[float] = []

    def append(self, time: float, value: float) -> None:
        """Add a sample. One that is not newer than the last is refused, as by a head block."""
        if self.times:
            if time <= self.times[-1]:
                return
            before = self.values[-1]
            self.corrections.append(self.corrections[-1] + (before if value < before else 0.0))
        else:
            self.corrections.append(0.0)
        self.times.append(time)
        self.values.append(value)

    def mark_stale(self, time: float) -> None:
        """The target, or this series of it, is gone."""
        self.stale.append(time)

    def all_at(self, moments: list[float]) -> list[int | None]:
        """The samples that an instant selector finds at ascending moments."""
        times, stale, index = self.times, self.stale, bisect_right(self.times, moments[0]) - 1
        last = len(times) - 1
        found: list[int | None] = []
        for moment in moments:
            while index < last and times[index + 1] <= moment:
                index += 1
            there = index >= 0 and times[index] > moment - LOOKBACK
            if there and stale:
                marker = bisect_right(stale, moment) - 1
                there = marker < 0 or stale[marker] <= times[index]
            found.append(index if there else None)
        return found


class Store:
    """All series of one Prometheus."""

    def __init__(self) -> None:
        self.series: dict[tuple[tuple[str, str], ...], TimeSeries] = {}
        self._by_name: dict[str, list[TimeSeries]] = {}
        self._selected: dict[tuple[str | None, tuple[Matcher, ...]], tuple[int, list[TimeSeries]]] = {}
        self.samples_read = 0
        """How many samples the last query loaded: what Prometheus limits by `--query.max-samples`."""

    def get(self, labels: Labels, *, native: bool = False) -> TimeSeries:
        """The series of these labels, `__name__` among them; made when it is new."""
        key = tuple(sorted(labels.items()))
        found = self.series.get(key)
        if found is None:
            found = self.series[key] = TimeSeries(dict(key), native=native)
            self._by_name.setdefault(labels.get(NAME, ""), []).append(found)
        return found

    def select(self, name: str | None, matchers: tuple[Matcher, ...]) -> list[TimeSeries]:
        """All series of that name that meet the matchers."""
        candidates = self._by_name.get(name, []) if name is not None else list(self.series.values())
        known = self._selected.get((name, matchers))
        if known is None or known[0] > len(candidates):
            known = (0, [])
            if len(self._selected) > 500:
                self._selected.clear()
        seen, found = known
        if seen < len(candidates):
            found.extend(it for it in candidates[seen:] if all(matcher.meets(it.labels) for matcher in matchers))
            self._selected[name, matchers] = (len(candidates), found)
        return found


@dataclass(frozen=True)
class Matcher:
    """`label op "value"` of a selector. A label that is absent is an empty string."""

    label: str
    op: str
    value: str
    _regex: re.Pattern[str] | None = field(default=None, compare=False)

    @classmethod
    def of(cls, label: str, op: str, value: str) -> Matcher:
        """Raises QueryError for a regular expression that cannot be read."""
        if op not in ("=~", "!~"):
            return cls(label, op, value)
        try:
            return cls(label, op, value, re.compile(value, re.DOTALL))
        except re.error as error:
            raise QueryError(f"error parsing regexp: {error}") from None

    def meets(self, labels: Labels) -> bool:
        """Whether these labels pass."""
        text = labels.get(self.label, "")
        if self._regex is not None:
            return (self._regex.fullmatch(text) is not None) == (self.op == "=~")
        return (text == self.value) == (self.op == "=")


# --- values -----------------------------------------------------------------------------------------------------------


class Column(NamedTuple):
    """One series of an instant vector at every moment of the query; None where it has no value."""

    labels: Labels
    values: list[float | None]
    native: bool = False


Vector = list[Column]
Scalar = list[float]
Value = Vector | Scalar


class Window(NamedTuple):
    """The samples [low, high) of a series that lie in (start, end]."""

    series: TimeSeries
    low: int
    high: int
    start: float
    end: float


class Ranged(NamedTuple):
    """One series of a range vector at every moment of the query."""

    labels: Labels
    windows: list[Window]
    native: bool = False


@dataclass(frozen=True)
class Context:
    """Where and when a query is evaluated. `times` are unix seconds, ascending."""

    store: Store
    times: list[float]


def _signature(labels: Labels) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


def _nameless(labels: Labels) -> Labels:
    return {key: value for key, value in labels.items() if key != NAME}


def _distinct(columns: Vector) -> Vector:
    """Columns of equal labels become one where they never meet; where they do, it is an error."""
    seen: dict[tuple[tuple[str, str], ...], Column] = {}
    for column in columns:
        key = _signature(column.labels)
        if key not in seen:
            seen[key] = column
            continue
        merged: list[float | None] = []
        for one, other in zip(seen[key].values, column.values, strict=True):
            if one is not None and other is not None:
                raise QueryError("vector cannot contain metrics with the same labelset")
            merged.append(other if one is None else one)
        seen[key] = Column(column.labels, merged)
    return list(seen.values())


# --- expressions ------------------------------------------------------------------------------------------------------


class Node:
    """An expression."""

    def evaluate(self, context: Context) -> Value:
        """Its value at every moment of the query."""
        raise NotImplementedError

    def vector(self, context: Context) -> Vector:
        """Its value, which must be an instant vector."""
        value = self.evaluate(context)
        if not _is_vector(value):
            raise QueryError("expected type instant vector, got scalar")
        return value  # type: ignore[return-value]

    def scalar(self, context: Context) -> Scalar:
        """Its value, which must be a scalar."""
        value = self.evaluate(context)
        if _is_vector(value):
            raise QueryError("expected type scalar, got instant vector")
        return value  # type: ignore[return-value]


def _is_vector(value: Value) -> bool:
    return not value or isinstance(value[0], Column)


@dataclass(frozen=True)
class Number(Node):
    number: float

    def evaluate(self, context: Context) -> Value:
        return [self.number] * len(context.times)


@dataclass(frozen=True)
class Text(Node):
    text: str

    def evaluate(self, context: Context) -> Value:
        raise QueryError("a string is no value here")


@dataclass(frozen=True)
class Selector(Node):
    name: str | None
    matchers: tuple[Matcher, ...]
    offset: float = 0.0
    at: float | None = None

    def moments(self, context: Context) -> list[float]:
        """What moments are read for the moments of the query."""
        if self.at is not None:
            return [self.at - self.offset] * len(context.times)
        return [time - self.offset for time in context.times] if self.offset else context.times

    def found(self, context: Context) -> list[tuple[TimeSeries, list[int | None]]]:
        """The series that are there at some moment, each with its sample at every moment."""
        found, moments = [], self.moments(context)
        for series in context.store.select(self.name, self.matchers):
            if series.times and series.times[0] <= moments[-1] and series.times[-1] > moments[0] - LOOKBACK:
                indices = series.all_at(moments)
                context.store.samples_read += len(indices)
                found.append((series, indices))
        return found

    def evaluate(self, context: Context) -> Value:
        return [
            Column(series.labels, [None if it is None else series.values[it] for it in indices], series.native)
            for series, indices in self.found(context)
        ]

    def timestamps(self, context: Context) -> Vector:
        """`timestamp(selector)`: the moments of the samples themselves."""
        return _distinct(
            [
                Column(_nameless(series.labels), [None if it is None else series.times[it] for it in indices])
                for series, indices in self.found(context)
            ]
        )


@dataclass(frozen=True)
class Range(Node):
    """`selector[seconds]`, or with `step` a subquery `expression[seconds:step]`."""

    inner: Node
    seconds: float
    step: float | None = None
    offset: float = 0.0
    at: float | None = None

    def evaluate(self, context: Context) -> Value:
        raise QueryError("expected type instant vector, got range vector")

    def ranges(self, context: Context) -> list[Ranged]:
        """Its samples at every moment of the query."""
        if self.step is not None:
            return self._subquery(context)
        assert isinstance(self.inner, Selector)
        ends, found = self.inner.moments(context), []
        for series in context.store.select(self.inner.name, self.inner.matchers):
            windows = self._windows(series, ends)
            if any(window.high > window.low for window in windows):
                context.store.samples_read += sum(window.high - window.low for window in windows)
                found.append(Ranged(series.labels, windows, series.native))
        return found

    def _windows(self, series: TimeSeries, ends: list[float]) -> list[Window]:
        times = series.times
        return [
            Window(series, bisect_right(times, end - self.seconds), bisect_right(times, end), end - self.seconds, end)
            for end in ends
        ]

    def _subquery(self, context: Context) -> list[Ranged]:
        assert self.step is not None
        base = [self.at] * len(context.times) if self.at is not None else context.times
        ends = [time - self.offset for time in base]
        first = math.floor((ends[0] - self.seconds) / self.step) + 1
        last = math.floor(ends[-1] / self.step)
        grid = [index * self.step for index in range(first, last + 1)]
        found = []
        for column in self.inner.vector(Context(context.store, grid)) if grid else []:
            series = TimeSeries(column.labels)
            for time, value in zip(grid, column.values, strict=True):
                if value is not None:
                    series.append(time, value)
            found.append(Ranged(column.labels, self._windows(series, ends)))
        return found


@dataclass(frozen=True)
class Aggregation(Node):
    op: str
    inner: Node
    labels: tuple[str, ...]
    without: bool
    parameter: Node | None = None

    def evaluate(self, context: Context) -> Value:
        groups: dict[tuple[tuple[str, str], ...], list[Column]] = {}
        for column in self.inner.vector(context):
            if column.native:
                raise QueryError(f"this evaluator cannot {self.op} native histograms")
            groups.setdefault(self._key(column.labels), []).append(column)
        if self.op in ("topk", "bottomk"):
            return self._chosen(context, groups)
        parameter = self.parameter.scalar(context) if self.parameter is not None else [0.0] * len(context.times)
        columns = []
        for key, members in groups.items():
            if self.op == "sum":
                columns.append(Column(dict(key), _summed(members)))
                continue
            values: list[float | None] = []
            for number, row in zip(parameter, zip(*(member.values for member in members), strict=True), strict=True):
                present = [value for value in row if value is not None]
                values.append(_aggregate(self.op, present, number) if present else None)
            columns.append(Column(dict(key), values))
        return columns

    def _key(self, labels: Labels) -> tuple[tuple[str, str], ...]:
        if self.without:
            return tuple(sorted((key, value) for key, value in labels.items() if key not in (*self.labels, NAME)))
        return tuple((key, labels[key]) for key in self.labels if labels.get(key))

    def _chosen(self, context: Context, groups: Mapping[tuple[tuple[str, str], ...], list[Column]]) -> Vector:
        assert self.parameter is not None
        counts = self.parameter.scalar(context)
        columns: Vector = []
        for members in groups.values():
            kept: list[list[float | None]] = [[None] * len(context.times) for _ in members]
            for moment, count in enumerate(counts):
                ranked = sorted(
                    ((value, index) for index, it in enumerate(members) if (value := it.values[moment]) is not None),
                    key=operator.itemgetter(0),
                    reverse=self.op == "topk",
                )
                for value, index in ranked[: int(count)]:
                    kept[index][moment] = value
            columns.extend(Column(it.labels, values) for it, values in zip(members, kept, strict=True))
        return columns


def _summed(members: list[Column]) -> list[float | None]:
    if len(members) == 1:
        return members[0].values
    total = list(members[0].values)
    for member in members[1:]:
        for index, value in enumerate(member.values):
            if value is not None:
                before = total[index]
                total[index] = value if before is None else before + value
    return total


def _aggregate(op: str, values: list[float], parameter: float) -> float:
    if op == "count":
        return float(len(values))
    if op == "group":
        return 1.0
    if op in ("min", "max"):
        numbers = [value for value in values if not math.isnan(value)]
        return (min(numbers) if op == "min" else max(numbers)) if numbers else math.nan
    if op == "avg":
        return math.fsum(values) / len(values) if all(map(math.isfinite, values)) else sum(values) / len(values)
    if op in ("stddev", "stdvar"):
        mean = sum(values) / len(values)
        variance = sum((value - mean) ** 2 for value in values) / len(values)
        return math.sqrt(variance) if op == "stddev" else variance
    assert op == "quantile"
    return quantile(parameter, values)


def quantile(q: float, values: Sequence[float]) -> float:
    """PromQL's quantile of single values, by linear interpolation between ranks."""
    if not values or math.isnan(q):
        return math.nan
    if not 0 <= q <= 1:
        return -math.inf if q < 0 else math.inf
    ordered = sorted(values)
    rank = q * (len(ordered) - 1)
    lower = max(0, math.floor(rank))
    upper = min(len(ordered) - 1, lower + 1)
    weight = rank - math.floor(rank)
    return ordered[lower] * (1 - weight) + ordered[upper] * weight


# --- functions --------------------------------------------------------------------------------------------------------


def _extrapolated(window: Window, *, counter: bool, per_second: bool) -> float | None:
    """`extrapolatedRate` of promql/functions.go for floats."""
    series, low, high, start, end = window
    if high - low < 2:
        return None
    times, values = series.times, series.values
    first, last = times[low], times[high - 1]
    result = values[high - 1] - values[low]
    if counter:
        result += series.corrections[high - 1] - series.corrections[low]
    to_start, to_end = first - start, end - last
    sampled = last - first
    average = sampled / (high - low - 1)
    threshold = average * 1.1
    if to_start >= threshold:
        to_start = average / 2
    if counter and result > 0 and values[low] >= 0:
        to_start = min(to_start, sampled * (values[low] / result))
    if to_end >= threshold:
        to_end = average / 2
    factor = (sampled + to_start + to_end) / sampled
    if per_second:
        factor /= end - start
    return result * factor


def _instant(window: Window, *, counter: bool, per_second: bool) -> float | None:
    series, low, high, *_ = window
    if high - low < 2:
        return None
    before, after = series.values[high - 2], series.values[high - 1]
    grown = after if counter and after < before else after - before
    return grown / (series.times[high - 1] - series.times[high - 2]) if per_second else grown


def _deriv(window: Window) -> float | None:
    """Least squares over the samples (`linearRegression`)."""
    series, low, high, *_ = window
    if high - low < 2:
        return None
    xs = [time - series.times[low] for time in series.times[low:high]]
    ys = series.values[low:high]
    if all(y == ys[0] for y in ys):
        return math.nan if math.isinf(ys[0]) else 0.0
    count, sum_x, sum_y = len(xs), math.fsum(xs), math.fsum(ys)
    covariance = math.fsum(x * y for x, y in zip(xs, ys, strict=True)) - sum_x * sum_y / count
    return covariance / (math.fsum(x * x for x in xs) - sum_x * sum_x / count)


def _pairs(window: Window, tells: Callable[[float, float], bool]) -> float | None:
    series, low, high, *_ = window
    if high == low:
        return None
    return float(sum(tells(before, after) for before, after in pairwise(series.values[low:high])))


def _differs(before: float, after: float) -> bool:
    return after != before and not (math.isnan(after) and math.isnan(before))


def _over_time(op: Callable[[list[float]], float]) -> Callable[[Window], float | None]:
    def apply(window: Window) -> float | None:
        return op(window.series.values[window.low : window.high]) if window.high > window.low else None

    return apply


def _mean(values: list[float]) -> float:
    return _aggregate("avg", values, 0)


_RANGE_FUNCTIONS: dict[str, Callable[[Window], float | None]] = {
    "rate": lambda window: _extrapolated(window, counter=True, per_second=True),
    "increase": lambda window: _extrapolated(window, counter=True, per_second=False),
    "delta": lambda window: _extrapolated(window, counter=False, per_second=False),
    "irate": lambda window: _instant(window, counter=True, per_second=True),
    "idelta": lambda window: _instant(window, counter=False, per_second=False),
    "deriv": _deriv,
    "changes": lambda window: _pairs(window, _differs),
    "resets": lambda window: _pairs(window, operator.gt),
    "last_over_time": _over_time(lambda values: values[-1]),
    "first_over_time": _over_time(lambda values: values[0]),
    "max_over_time": _over_time(lambda values: _aggregate("max", values, 0)),
    "min_over_time": _over_time(lambda values: _aggregate("min", values, 0)),
    "avg_over_time": _over_time(_mean),
    "sum_over_time": _over_time(sum),
    "count_over_time": _over_time(lambda values: float(len(values))),
    "present_over_time": _over_time(lambda values: 1.0),
    "stddev_over_time": _over_time(lambda values: _aggregate("stddev", values, 0)),
}
_KEEPS_NAME = {"last_over_time", "first_over_time"}
_NATIVE_COUNTS = {"count_over_time", "present_over_time"}


def _promql_round(value: float, to: float) -> float:
    # As Prometheus: half up, by multiplication with the inverse.
    inverse = 1.0 / to
    return math.floor(value * inverse + 0.5) / inverse


def _logarithm(value: float) -> float:
    if math.isnan(value) or value < 0:
        return math.nan
    return math.log(value) if value > 0 else -math.inf


def _finite_only(function: Callable[[float], float]) -> Callable[..., float]:
    return lambda value: function(value) if math.isfinite(value) else value


_MATHS: dict[str, tuple[Callable[..., float], int, int]] = {
    "abs": (abs, 0, 0),
    "ceil": (_finite_only(math.ceil), 0, 0),
    "floor": (_finite_only(math.floor), 0, 0),
    "sqrt": (lambda value: math.sqrt(value) if value >= 0 else math.nan, 0, 0),
    "exp": (lambda value: math.exp(value) if value < 700 else math.inf, 0, 0),
    "ln": (_logarithm, 0, 0),
    "sgn": (lambda value: math.nan if math.isnan(value) else float((value > 0) - (value < 0)), 0, 0),
    "round": (lambda value, to=1.0: _promql_round(value, to) if math.isfinite(value) else value, 0, 1),
    "clamp_min": (lambda value, low: math.nan if math.isnan(value) else max(value, low), 1, 1),
    "clamp_max": (lambda value, high: math.nan if math.isnan(value) else min(value, high), 1, 1),
    "clamp": (lambda value, low, high: math.nan if math.isnan(value) else max(low, min(value, high)), 2, 2),
}


@dataclass(frozen=True)
class Call(Node):
    function: str
    arguments: tuple[Node, ...]

    def evaluate(self, context: Context) -> Value:
        name, arguments = self.function, self.arguments
        if name in _RANGE_FUNCTIONS:
            self._takes(1, 1)
            return self._over_range(context)
        if name in _MATHS:
            function, least, most = _MATHS[name]
            self._takes(1 + least, 1 + most)
            numbers = [argument.scalar(context) for argument in arguments[1:]]
            return _distinct(
                [
                    Column(
                        _nameless(column.labels),
                        [
                            None if value is None else float(function(value, *(it[moment] for it in numbers)))
                            for moment, value in enumerate(column.values)
                        ],
                    )
                    for column in arguments[0].vector(context)
                ]
            )
        known: dict[str, tuple[int, Callable[[Context], Value]]] = {
            "time": (0, lambda context: list(context.times)),
            "vector": (1, lambda context: [Column({}, list(arguments[0].scalar(context)))]),
            "scalar": (1, self._scalar),
            "timestamp": (1, self._timestamp),
            "absent": (1, self._absent),
            "histogram_quantile": (2, self._histogram_quantile),
        }
        if name not in known:
            raise QueryError(f"unknown function with name {name!r}")
        count, evaluate = known[name]
        self._takes(count, count)
        return evaluate(context)

    def _takes(self, least: int, most: int) -> None:
        if not least <= len(self.arguments) <= most:
            raise QueryError(f"expected {least} to {most} argument(s) in call to {self.function!r}")

    def _over_range(self, context: Context) -> Vector:
        [argument] = self.arguments
        if not isinstance(argument, Range):
            raise QueryError(f"expected type range vector in call to function {self.function!r}")
        function, columns = _RANGE_FUNCTIONS[self.function], []
        for labels, windows, native in argument.ranges(context):
            if native and self.function not in _NATIVE_COUNTS:
                raise QueryError(f"this evaluator has no {self.function} of native histograms")
            values = [function(window) for window in windows]
            if any(value is not None for value in values):
                columns.append(Column(labels if self.function in _KEEPS_NAME else _nameless(labels), values))
        return _distinct(columns)

    def _scalar(self, context: Context) -> Scalar:
        result = []
        columns = self.arguments[0].vector(context)
        for moment in range(len(context.times)):
            present = [value for column in columns if (value := column.values[moment]) is not None]
            result.append(present[0] if len(present) == 1 else math.nan)
        return result

    def _timestamp(self, context: Context) -> Vector:
        argument = self.arguments[0]
        if isinstance(argument, Selector):
            return argument.timestamps(context)
        return _distinct(
            [
                Column(
                    _nameless(column.labels),
                    [None if value is None else time for time, value in zip(context.times, column.values, strict=True)],
                )
                for column in argument.vector(context)
            ]
        )

    def _absent(self, context: Context) -> Vector:
        argument = self.arguments[0]
        columns = argument.vector(context)
        labels = {}
        if isinstance(argument, Selector):
            labels = {it.label: it.value for it in argument.matchers if it.op == "=" and it.label != NAME}
        values = [
            None if any(column.values[moment] is not None for column in columns) else 1.0
            for moment in range(len(context.times))
        ]
        return [Column(labels, values)]

    def _histogram_quantile(self, context: Context) -> Vector:
        wanted, columns = self.arguments[0].scalar(context), self.arguments[1].vector(context)
        groups: dict[tuple[tuple[str, str], ...], list[tuple[float, Column]]] = {}
        for column in columns:
            if column.native:
                raise QueryError("this evaluator has no histogram_quantile of native histograms")
            try:
                bound = float(column.labels.get("le", ""))
            except ValueError:
                continue
            key = _signature({name: text for name, text in column.labels.items() if name not in ("le", NAME)})
            groups.setdefault(key, []).append((bound, column))
        result = []
        for key, members in groups.items():
            values: list[float | None] = []
            for moment, q in enumerate(wanted):
                buckets = [(bound, value) for bound, it in members if (value := it.values[moment]) is not None]
                values.append(bucket_quantile(q, buckets) if buckets else None)
            result.append(Column(dict(key), values))
        return result


def bucket_quantile(q: float, buckets: Iterable[tuple[float, float]]) -> float:
    """`BucketQuantile` of promql/quantile.go: (upper bound, cumulative count) to the q-quantile."""
    if math.isnan(q):
        return math.nan
    if not 0 <= q <= 1:
        return -math.inf if q < 0 else math.inf
    merged: dict[float, float] = {}
    for bound, count in buckets:
        merged[bound] = merged.get(bound, 0.0) + count
    bounds = sorted(merged)
    if len(bounds) < 2 or bounds[-1] != math.inf:
        return math.nan
    counts, highest = [], merged[bounds[0]]
    for bound in bounds:
        if merged[bound] > highest and not math.isclose(merged[bound], highest, rel_tol=1e-12):
            highest = merged[bound]
        counts.append(highest)
    if counts[-1] == 0:
        return math.nan
    rank = q * counts[-1]
    index = min(bisect_left(counts, rank), len(counts) - 1)
    if index == len(counts) - 1:
        return bounds[-2]
    if index == 0 and bounds[0] <= 0:
        return bounds[0]
    lower, below = (bounds[index - 1], counts[index - 1]) if index else (0.0, 0.0)
    inside = counts[index] - below
    return lower + (bounds[index] - lower) * ((rank - below) / inside) if inside else math.nan


# --- operators --------------------------------------------------------------------------------------------------------


def _divide(left: float, right: float) -> float:
    if right == 0:
        if left == 0 or math.isnan(left):
            return math.nan
        return math.copysign(math.inf, left) * math.copysign(1.0, right)
    return left / right


def _modulo(left: float, right: float) -> float:
    return math.nan if right == 0 or math.isinf(left) else math.fmod(left, right)


def _power(left: float, right: float) -> float:
    try:
        return math.pow(left, right)
    except OverflowError:
        return math.inf
    except ValueError:
        return math.nan


_ARITHMETIC: dict[str, Callable[[float, float], float]] = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": _divide, "%": _modulo, "^": _power,
}  # fmt: skip
_COMPARISON: dict[str, Callable[[float, float], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_SETS = ("and", "or", "unless")


@dataclass(frozen=True)
class Negative(Node):
    inner: Node

    def evaluate(self, context: Context) -> Value:
        value = self.inner.evaluate(context)
        if not _is_vector(value):
            return [-number for number in self.inner.scalar(context)]
        return _distinct(
            [
                Column(_nameless(column.labels), [None if number is None else -number for number in column.values])
                for column in self.inner.vector(context)
            ]
        )


@dataclass(frozen=True)
class Binary(Node):
    op: str
    left: Node
    right: Node
    truth: bool = False
    """`bool`: a comparison gives 0 or 1 instead of filtering."""
    on: tuple[str, ...] | None = None
    ignoring: tuple[str, ...] = ()
    many: str | None = None
    """`left` or `right`: the side that may have several series for one of the other."""

    def evaluate(self, context: Context) -> Value:
        left, right = self.left.evaluate(context), self.right.evaluate(context)
        if self.op in _SETS:
            if not _is_vector(left) or not _is_vector(right):
                raise QueryError(f"set operator {self.op!r} not allowed in binary scalar expression")
            return self._set(left, right)  # type: ignore[arg-type]
        if not _is_vector(left) and not _is_vector(right):
            if self.op in _COMPARISON and not self.truth:
                raise QueryError("comparisons between scalars must use BOOL modifier")
            combined = [self._combine(a, b, a) for a, b in zip(left, right, strict=True)]  # type: ignore[arg-type]
            return [math.nan if it is None else it for it in combined]
        if not _is_vector(right):
            return self._with_scalar(left, right, swapped=False)  # type: ignore[arg-type]
        if not _is_vector(left):
            return self._with_scalar(right, left, swapped=True)  # type: ignore[arg-type]
        return self._matched(left, right)  # type: ignore[arg-type]

    def _combine(self, left: float, right: float, kept: float) -> float | None:
        if self.op in _ARITHMETIC:
            return _ARITHMETIC[self.op](left, right)
        holds = _COMPARISON[self.op](left, right)
        return float(holds) if self.truth else (kept if holds else None)

    def _labels(self, labels: Labels) -> Labels:
        return labels if self.op in _COMPARISON and not self.truth else _nameless(labels)

    def _with_scalar(self, vector: Vector, numbers: Scalar, *, swapped: bool) -> Vector:
        columns = []
        for column in vector:
            values = [
                None if value is None
                else self._combine(number, value, value) if swapped else self._combine(value, number, value)
                for value, number in zip(column.values, numbers, strict=True)
            ]  # fmt: skip
            columns.append(Column(self._labels(column.labels), values))
        return _distinct(columns)

    def _key(self, labels: Labels) -> tuple[tuple[str, str], ...]:
        if self.on is not None:
            return tuple((label, labels.get(label, "")) for label in self.on)
        return tuple(sorted((key, text) for key, text in labels.items() if key not in (*self.ignoring, NAME)))

    def _set(self, left: Vector, right: Vector) -> Vector:
        moments = len((left or right)[0].values) if left or right else 0
        kept, other = (left, right) if self.op != "or" else (right, left)
        present: dict[tuple[tuple[str, str], ...], list[bool]] = {}
        for column in other:
            flags = present.setdefault(self._key(column.labels), [False] * moments)
            for moment, value in enumerate(column.values):
                flags[moment] = flags[moment] or value is not None
        nowhere = [False] * moments
        filtered = []
        for column in kept:
            flags = present.get(self._key(column.labels), nowhere)
            wanted = self.op == "and"
            values = [value if flag == wanted else None for value, flag in zip(column.values, flags, strict=True)]
            filtered.append(Column(column.labels, values))
        return _distinct([*left, *filtered]) if self.op == "or" else filtered

    def _matched(self, left: Vector, right: Vector) -> Vector:
        many, one = (left, right) if self.many != "right" else (right, left)
        singles: dict[tuple[tuple[str, str], ...], list[Column]] = {}
        for column in one:
            singles.setdefault(self._key(column.labels), []).append(column)
        used: dict[tuple[tuple[str, str], ...], list[list[float | None]]] = {}
        result = []
        for column in many:
            key = self._key(column.labels)
            partners = singles.get(key, [])
            if not partners:
                continue
            merged = [self._only([it.values[moment] for it in partners]) for moment in range(len(column.values))]
            if self.many is None:
                for before in used.get(key, []):
                    if any(a is not None and b is not None and c is not None
                           for a, b, c in zip(before, column.values, merged, strict=True)):  # fmt: skip
                        raise QueryError("multiple matches for labels: many-to-one matching must be explicit")
                used.setdefault(key, []).append(column.values)
            values: list[float | None] = []
            for value, partner in zip(column.values, merged, strict=True):
                if value is None or partner is None:
                    values.append(None)
                elif self.many == "right":
                    values.append(self._combine(partner, value, partner))
                else:
                    values.append(self._combine(value, partner, value))
            result.append(Column(self._matched_labels(column.labels, key), values))
        return _distinct(result)

    def _matched_labels(self, labels: Labels, key: tuple[tuple[str, str], ...]) -> Labels:
        if self.many is not None:
            return self._labels(labels)
        if self.on is not None:
            return {label: text for label, text in key if text}
        return {label: text for label, text in self._labels(labels).items() if label not in self.ignoring}

    @staticmethod
    def _only(values: list[float | None]) -> float | None:
        present = [value for value in values if value is not None]
        if len(present) > 1:
            raise QueryError("found duplicate series for the match group: many-to-many matching not allowed")
        return present[0] if present else None


# --- parsing ----------------------------------------------------------------------------------------------------------

_DURATION = r"(?:\d+(?:ms|[smhdwy]))+"
_TOKEN = re.compile(
    rf"""\s+|\#[^\n]*
    |(?P<duration>{_DURATION}(?![\w.]))
    |(?P<number>0x[0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<name>[a-zA-Z_][\w:]*)
    |(?P<text>"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`[^`]*`)
    |(?P<op>=~|!~|==|!=|<=|>=|[-+*/%^<>={{}}()\[\],:@])""",
    re.VERBOSE,
)
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}
_AGGREGATIONS = {"sum", "min", "max", "avg", "count", "group", "stddev", "stdvar", "topk", "bottomk", "quantile"}
_LEVELS: tuple[tuple[str, ...], ...] = (
    ("or",), ("and", "unless"), ("==", "!=", "<=", "<", ">=", ">"), ("+", "-"), ("*", "/", "%"),
)  # fmt: skip
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_NOT_NAMES = {"by", "without", "on", "ignoring", "group_left", "group_right", "bool", "offset", *_SETS}


def duration(text: str) -> float:
    """`1h30m`, `500ms` in seconds."""
    parts = re.findall(r"(\d+)(ms|[smhdwy])", text)
    return sum(int(number) * _UNITS[unit] for number, unit in parts)


class _Parser:
    def __init__(self, text: str) -> None:
        self.text, self.tokens = text, []
        position = 0
        while position < len(text):
            match = _TOKEN.match(text, position)
            if match is None:
                raise QueryError(f"parse error: unexpected character {text[position]!r} at {position} of {text!r}")
            position = match.end()
            if match.lastgroup is not None:
                self.tokens.append((match.lastgroup, match[0]))
        self.index = 0

    def parse(self) -> Node:
        if not self.tokens:
            raise QueryError("parse error: no expression found in input")
        node = self._level(0)
        if self.index < len(self.tokens):
            raise self._unexpected()
        return node

    def _unexpected(self) -> QueryError:
        what = repr(self.tokens[self.index][1]) if self.index < len(self.tokens) else "end of input"
        return QueryError(f"parse error: unexpected {what} in {self.text!r}")

    def _peek(self, *wanted: str) -> str | None:
        if self.index < len(self.tokens):
            kind, text = self.tokens[self.index]
            plain = text.lower() if kind == "name" and text.lower() in _NOT_NAMES | _AGGREGATIONS else text
            if kind in ("op", "name") and plain in wanted:
                return plain
        return None

    def _take(self, *wanted: str) -> str | None:
        found = self._peek(*wanted)
        if found is not None:
            self.index += 1
        return found

    def _need(self, wanted: str) -> None:
        if self._take(wanted) is None:
            raise self._unexpected()

    def _kind(self, *kinds: str) -> str | None:
        if self.index < len(self.tokens) and self.tokens[self.index][0] in kinds:
            self.index += 1
            return self.tokens[self.index - 1][1]
        return None

    def _level(self, level: int) -> Node:
        if level == len(_LEVELS):
            return self._unary()
        left = self._level(level + 1)
        while (op := self._take(*_LEVELS[level])) is not None:
            left = self._binary(op, left, lambda: self._level(level + 1))
        return left

    def _binary(self, op: str, left: Node, right: Callable[[], Node]) -> Node:
        truth = self._take("bool") is not None
        if truth and op not in _COMPARISON:
            raise QueryError("parse error: bool modifier can only be used on comparison operators")
        on: tuple[str, ...] | None = None
        ignoring: tuple[str, ...] = ()
        many = None
        if self._take("on"):
            on = self._label_list()
        elif self._take("ignoring"):
            ignoring = self._label_list()
        if side := self._take("group_left", "group_right"):
            many = "left" if side == "group_left" else "right"
            if self._peek("(") and self._label_list():
                raise QueryError("this evaluator has no labels of group_left")
        return Binary(op, left, right(), truth, on, ignoring, many)

    def _unary(self) -> Node:
        # A sign binds less than "^" and more than "*".
        if sign := self._take("+", "-"):
            inner = self._unary()
            return Negative(inner) if sign == "-" else inner
        left = self._postfix(self._primary())
        if self._take("^"):
            return self._binary("^", left, self._unary)
        return left

    def _postfix(self, node: Node) -> Node:
        while True:
            if self._take("["):
                node = self._range(node)
            elif self._take("offset"):
                sign = -1.0 if self._take("-") else 1.0
                node = self._shifted(node, offset=sign * self._seconds())
            elif self._take("@"):
                number = self._kind("number")
                if number is None:
                    raise self._unexpected()
                node = self._shifted(node, at=float(number))
            else:
                return node

    def _range(self, node: Node) -> Node:
        seconds = self._seconds()
        if self._take(":"):
            step = 60.0 if self._peek("]") else self._seconds()
            self._need("]")
            return Range(node, seconds, step)
        self._need("]")
        if not isinstance(node, Selector) or node.offset or node.at is not None:
            raise QueryError("parse error: ranges only allowed for vector selectors")
        if seconds <= 0:
            raise QueryError("parse error: duration must be greater than 0")
        return Range(node, seconds)

    def _shifted(self, node: Node, *, offset: float = 0.0, at: float | None = None) -> Node:
        if isinstance(node, Range) and node.step is None:
            return Range(self._shifted(node.inner, offset=offset, at=at), node.seconds)
        if isinstance(node, Range):
            moment = node.at if at is None else at
            return Range(node.inner, node.seconds, node.step, node.offset + offset, moment)
        if isinstance(node, Selector):
            return Selector(node.name, node.matchers, node.offset + offset, node.at if at is None else at)
        raise QueryError("parse error: offset modifier must be preceded by a selector or a subquery")

    def _seconds(self) -> float:
        text = self._kind("duration", "number")
        if text is None:
            raise self._unexpected()
        return duration(text) if text[-1].isalpha() else float(text)

    def _primary(self) -> Node:
        if self._take("("):
            node = self._level(0)
            self._need(")")
            return node
        if self._peek("{"):
            return self._selector(None)
        if (number := self._kind("number", "duration")) is not None:
            if number.startswith("0x"):
                return Number(float(int(number, 16)))
            return Number(duration(number) if number[-1].isalpha() else float(number))
        if (text := self._kind("text")) is not None:
            return Text(_unquoted(text))
        name = self._kind("name")
        if name is None:
            raise self._unexpected()
        if name.lower() in ("inf", "nan") and not self._peek("{"):
            return Number(float(name))
        if name.lower() in _AGGREGATIONS and self._peek("(", "by", "without"):
            return self._aggregation(name.lower())
        if self._peek("("):
            return Call(name, self._arguments())
        if name.lower() in _NOT_NAMES:
            self.index -= 1
            raise self._unexpected()
        return self._selector(name)

    def _aggregation(self, op: str) -> Node:
        grouping = self._take("by", "without")
        labels = self._label_list() if grouping else ()
        arguments = self._arguments()
        if grouping is None and (grouping := self._take("by", "without")):
            labels = self._label_list()
        takes = 2 if op in ("topk", "bottomk", "quantile") else 1
        if len(arguments) != takes:
            raise QueryError(f"parse error: wrong number of arguments for aggregate expression {op}")
        return Aggregation(op, arguments[-1], labels, grouping == "without", arguments[0] if takes == 2 else None)

    def _arguments(self) -> tuple[Node, ...]:
        self._need("(")
        arguments: list[Node] = []
        while not self._take(")"):
            if arguments:
                self._need(",")
            arguments.append(self._level(0))
        return tuple(arguments)

    def _label_list(self) -> tuple[str, ...]:
        self._need("(")
        labels: list[str] = []
        while not self._take(")"):
            if labels:
                self._need(",")
                if self._take(")"):
                    break
            name = self._kind("name")
            if name is None:
                raise self._unexpected()
            labels.append(name)
        return tuple(labels)

    def _selector(self, name: str | None) -> Node:
        matchers: list[Matcher] = []
        if self._take("{"):
            while not self._take("}"):
                if matchers:
                    self._need(",")
                    if self._take("}"):
                        break
                label, op = self._kind("name"), self._take("=", "!=", "=~", "!~")
                value = self._kind("text")
                if label is None or op is None or value is None:
                    raise self._unexpected()
                matchers.append(Matcher.of(label, op, _unquoted(value)))
        if name is None and all(matcher.meets({}) for matcher in matchers):
            raise QueryError("parse error: vector selector must contain at least one non-empty matcher")
        by_name = [it for it in matchers if it.label == NAME and it.op == "="]
        if name is None and len(by_name) == 1:
            return Selector(by_name[0].value, tuple(it for it in matchers if it is not by_name[0]))
        return Selector(name, tuple(matchers))


def _unquoted(text: str) -> str:
    if text[0] == "`":
        return text[1:-1]

    def escaped(match: re.Match[str]) -> str:
        if match[1] not in _ESCAPES:
            raise QueryError(f"parse error: unknown escape sequence {match[0]!r}")
        return _ESCAPES[match[1]]

    return re.sub(r"\\(.)", escaped, text[1:-1])


@lru_cache(maxsize=2048)
def parse(expression: str) -> Node:
    """An expression, ready to be evaluated. Raises QueryError."""
    return _Parser(expression).parse()


# --- queries ----------------------------------------------------------------------------------------------------------

Result = list[tuple[Labels, list[tuple[float, float]]]]


def instant(store: Store, expression: str, time: float) -> Result:
    """An instant query: (labels, points); a range selector gives its raw samples. Raises QueryError."""
    node = parse(expression)
    store.samples_read = 0
    context = Context(store, [time])
    if isinstance(node, Range):
        ranges = node.ranges(context)
        if any(it.native for it in ranges):
            raise QueryError("a native histogram is not a number")
        return [
            (labels, list(zip(window.series.times[window.low : window.high],
                              window.series.values[window.low : window.high], strict=True)))
            for labels, [window], _ in ranges
            if window.high > window.low
        ]  # fmt: skip
    return _points(node.evaluate(context), context.times)


def ranged(store: Store, expression: str, start: float, end: float, step: float) -> Result:
    """A range query from `start` to `end`. Raises QueryError."""
    if step <= 0:
        raise QueryError("zero or negative query resolution step widths are not accepted")
    if (end - start) / step > MAX_POINTS:
        raise QueryError("exceeded maximum resolution of 11,000 points per timeseries")
    if end < start:
        raise QueryError("invalid parameter 'end': end timestamp must not be before start time")
    node = parse(expression)
    store.samples_read = 0
    count = int((end - start) / step + 1e-9) + 1
    times = [start + index * step for index in range(count)]
    return _points(node.evaluate(Context(store, times)), times)


def _points(value: Value, times: list[float]) -> Result:
    if not _is_vector(value):
        return [({}, list(zip(times, value, strict=True)))]  # type: ignore[arg-type]
    result: Result = []
    for column in _distinct(value):  # type: ignore[arg-type]
        points = [(time, number) for time, number in zip(times, column.values, strict=True) if number is not None]
        if points and column.native:
            raise QueryError("a native histogram is not a number")
        if points:
            result.append((column.labels, points))
    return result
