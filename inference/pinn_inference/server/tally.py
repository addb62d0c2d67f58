"""Metrics that only the event loop writes: plain numbers, without locks and without look-ups of labels.

Every quote is counted in half a dozen of them; with the client library's own counters that would be a fifth of its
work. They become metrics when somebody asks, on the event loop too.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from math import inf
from typing import Final

import numpy as np
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.utils import floatToGoString

from pinn_inference.pricing.scalar import ScalarQuote
from pinn_inference.pricing.types import FallbackReason, Method, OptionBatch, Quotes
from pinn_inference.server import moments
from pinn_inference.server.exposition import Names, Textual, head, series

_LARGEST: Final = 1e100


class CounterTally(Textual):
    """A counter; `counts` has the values of its labels as keys, in the order of `labels`."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str]) -> None:
        self._name, self._documentation, self._labels = name, documentation, list(labels)
        self.counts: dict[tuple[str, ...], int] = {}
        self._sample = f"{name}_total"
        self.names = frozenset((self._sample,))
        self._head = head(self._sample, "counter", documentation)
        self._texts: dict[tuple[str, ...], str] = {}

    def begin(self, *values: str) -> None:
        """The series is there from now on."""
        self.counts.setdefault(values, 0)

    def add(self, values: tuple[str, ...]) -> None:
        """One more."""
        try:
            self.counts[values] += 1
        except KeyError:
            self.counts[values] = 1

    def collect(self) -> Iterator[Metric]:
        family = CounterMetricFamily(self._name, self._documentation, labels=self._labels)
        for values, count in self.counts.items():
            family.add_metric(values, count)
        yield family

    def lines(self, names: Names) -> list[str]:
        if names is not None and self._sample not in names:
            return []
        return [self._head, *(f"{self._text(values)}{count}.0\n" for values, count in self.counts.items())]

    def _text(self, values: tuple[str, ...]) -> str:
        text = self._texts.get(values)
        if text is None:
            labels = dict(zip(self._labels, values, strict=True))
            text = self._texts[values] = series(self._sample, labels)
        return text


class HistogramTally(Textual):
    """A histogram, one `Distribution` for each value of its label, or a single one if it has none."""

    def __init__(
        self, name: str, documentation: str, borders: Sequence[float], label: str = "", values: Sequence[str] = ("",)
    ) -> None:
        self._name, self._documentation, self._label = name, documentation, label
        self._bounds = [str(floatToGoString(border)) for border in (*borders, inf)]  # type: ignore[no-untyped-call]
        self.of = {value: Distribution(borders) for value in values}
        self._bucket, self._count, self._sum = f"{name}_bucket", f"{name}_count", f"{name}_sum"
        self.names = frozenset((self._bucket, self._count, self._sum))
        self._head = head(name, "histogram", documentation)
        self._texts = {
            value: (
                [series(self._bucket, {**self._own(value), "le": bound}) for bound in self._bounds],
                series(self._count, self._own(value)),
                series(self._sum, self._own(value)),
            )
            for value in values
        }

    def _own(self, value: str) -> dict[str, str]:
        return {self._label: value} if self._label else {}

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=[self._label] if self._label else [])
        for value, distribution in self.of.items():
            cumulative = accumulate(distribution.counts)
            buckets = [(bound, float(count)) for bound, count in zip(self._bounds, cumulative, strict=True)]
            family.add_metric([value] if self._label else [], buckets, distribution.sum)
        yield family

    def lines(self, names: Names) -> list[str]:
        if names is not None and self.names.isdisjoint(names):
            return []
        lines = [self._head]
        for value, distribution in self.of.items():
            bucket_texts, count_text, sum_text = self._texts[value]
            cumulative = list(accumulate(distribution.counts))
            if names is None or self._bucket in names:
                lines += [f"{text}{count}.0\n" for text, count in zip(bucket_texts, cumulative, strict=True)]
            if names is None or self._count in names:
                lines.append(f"{count_text}{cumulative[-1]}.0\n")
            if names is None or self._sum in names:
                lines.append(f"{sum_text}{float(distribution.sum)!r}\n")
        return lines


class Distribution:
    """How many values lie up to each border, and their sum."""

    __slots__ = ("_borders", "counts", "sum")

    def __init__(self, borders: Sequence[float]) -> None:
        self._borders = tuple(borders)
        self.counts = [0] * (len(borders) + 1)
        self.sum = 0.0

    def observe(self, value: float) -> None:
        self.sum += value
        self.counts[bisect_left(self._borders, value)] += 1


class QuoteTally(Textual):
    """Counts of quotes: by method, by reason, and the moments of their prices."""

    def __init__(self) -> None:
        self._methods = [0] * len(Method)
        self._reasons = [0] * len(FallbackReason)
        self._moments = [[0.0, 0.0, 0.0] for _ in range(moments.BUCKETS)]
        self.names = frozenset(sample for _, _, _, samples in _QUOTE_FAMILIES for sample in samples)

    def count_quote(self, spot: float, strike: float, maturity: float, quote: ScalarQuote) -> None:
        """One option."""
        self._methods[quote.method] += 1
        if quote.reason:
            self._reasons[quote.reason] += 1
        ratio = quote.price / strike
        if not -_LARGEST < ratio < _LARGEST:  # a NaN, once added, would stay for good
            return
        sums = self._moments[moments.bucket(spot / strike, maturity)]
        sums[0] += 1.0
        sums[1] += ratio
        sums[2] += ratio * ratio

    def count_batch(self, options: OptionBatch, quotes: Quotes) -> None:
        """A batch priced in this process."""
        self.count_elsewhere(
            np.bincount(quotes.method, minlength=len(Method)).tolist(),
            np.bincount(quotes.reason, minlength=len(FallbackReason)).tolist(),
            moments.price_moments(options, quotes).tolist(),
        )

    def count_elsewhere(self, methods: Sequence[int], reasons: Sequence[int], sums: Sequence[Sequence[float]]) -> None:
        """What was counted in another process: by `Method` code, by `FallbackReason` code, by `price_moments`."""
        for code, more in enumerate(methods):
            self._methods[code] += more
        for code, more in enumerate(reasons):
            self._reasons[code] += more
        for total, added in zip(self._moments, sums, strict=True):
            for place, value in enumerate(added):
                total[place] += value

    @property
    def priced(self) -> Mapping[str, int]:
        """Options priced so far, by the label of the method."""
        return {method.label: self._methods[method] for method in Method}

    @property
    def fallbacks(self) -> Mapping[str, int]:
        """Options priced otherwise than asked, by the label of the reason."""
        return {reason.label: self._reasons[reason] for reason in FallbackReason if reason}

    def collect(self) -> Iterator[Metric]:
        priced = CounterMetricFamily("pinn_options_priced", _PRICED, labels=["method"])
        for label, number in self.priced.items():
            priced.add_metric([label], number)
        fallbacks = CounterMetricFamily("pinn_fallback", _FALLBACKS, labels=["reason"])
        for label, number in self.fallbacks.items():
            fallbacks.add_metric([label], number)
        labels = list(_MOMENT_LABELS)
        prices = SummaryMetricFamily("pinn_price_to_strike", _PRICES, labels=labels)
        squares = CounterMetricFamily("pinn_price_to_strike_sum_of_squares", _SQUARES, labels=labels)
        for bucket, (count, total, total_of_squares) in enumerate(self._moments):
            names = moments.bucket_names(bucket)
            prices.add_metric(names, count_value=int(count), sum_value=total)
            squares.add_metric(names, total_of_squares)
        yield from (priced, fallbacks, prices, squares)

    def lines(self, names: Names) -> list[str]:
        if names is not None and self.names.isdisjoint(names):
            return []
        lines: list[str] = []
        for family_head, samples in _QUOTE_HEADS:
            wanted = [sample for sample in samples if names is None or sample in names]
            if wanted:
                lines.append(family_head)
            for sample in wanted:
                lines += [f"{text}{value}\n" for text, value in self._values(sample)]
        return lines

    def _values(self, sample: str) -> Iterator[tuple[str, float]]:
        """The text of each series of this sample, and its value."""
        if sample == "pinn_options_priced_total":
            return zip(_METHOD_TEXTS, self._methods, strict=True)
        if sample == "pinn_fallback_total":
            return zip(_REASON_TEXTS, self.fallbacks.values(), strict=True)
        place = _MOMENTS[sample]
        return zip(_MOMENT_TEXTS[sample], (sums[place] for sums in self._moments), strict=True)


_PRICED: Final = "Options priced, by method."
_FALLBACKS: Final = "Options not priced by the network, by the reason."
_PRICES: Final = "Price divided by strike, by spot divided by strike and by years to maturity."
_SQUARES: Final = "Squares of what pinn_price_to_strike_sum sums up."
_QUOTE_FAMILIES: Final = (
    ("pinn_options_priced_total", "counter", _PRICED, ("pinn_options_priced_total",)),
    ("pinn_fallback_total", "counter", _FALLBACKS, ("pinn_fallback_total",)),
    ("pinn_price_to_strike", "summary", _PRICES, ("pinn_price_to_strike_count", "pinn_price_to_strike_sum")),
    (
        "pinn_price_to_strike_sum_of_squares_total",
        "counter",
        _SQUARES,
        ("pinn_price_to_strike_sum_of_squares_total",),
    ),
)
"""Name, type, documentation and samples of each."""
_QUOTE_HEADS: Final = [(head(*family), samples) for *family, samples in _QUOTE_FAMILIES]
_MOMENT_LABELS: Final = ("moneyness", "maturity")
_MOMENTS: Final = {
    "pinn_price_to_strike_count": 0,
    "pinn_price_to_strike_sum": 1,
    "pinn_price_to_strike_sum_of_squares_total": 2,
}
_METHOD_TEXTS: Final = [series("pinn_options_priced_total", {"method": method.label}) for method in Method]
_REASON_TEXTS: Final = [series("pinn_fallback_total", {"reason": reason.label}) for reason in FallbackReason if reason]
_MOMENT_TEXTS: Final = {
    sample: [
        series(sample, dict(zip(_MOMENT_LABELS, moments.bucket_names(bucket), strict=True)))
        for bucket in range(moments.BUCKETS)
    ]
    for sample in _MOMENTS
}
