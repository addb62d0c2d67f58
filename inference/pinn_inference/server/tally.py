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
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from pinn_inference.pricing.scalar import ScalarQuote
from pinn_inference.pricing.types import FallbackReason, Method, OptionBatch, Quotes
from pinn_inference.server import moments

_LARGEST: Final = 1e100


class CounterTally(Collector):
    """A counter; `counts` has the values of its labels as keys, in the order of `labels`."""

    def __init__(self, name: str, documentation: str, labels: Sequence[str]) -> None:
        self._name, self._documentation, self._labels = name, documentation, list(labels)
        self.counts: dict[tuple[str, ...], int] = {}

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


class HistogramTally(Collector):
    """A histogram, one `Distribution` for each value of its label, or a single one if it has none."""

    def __init__(
        self, name: str, documentation: str, borders: Sequence[float], label: str = "", values: Sequence[str] = ("",)
    ) -> None:
        self._name, self._documentation, self._label = name, documentation, label
        self._bounds = [str(floatToGoString(border)) for border in (*borders, inf)]  # type: ignore[no-untyped-call]
        self.of = {value: Distribution(borders) for value in values}

    def collect(self) -> Iterator[Metric]:
        family = HistogramMetricFamily(self._name, self._documentation, labels=[self._label] if self._label else [])
        for value, distribution in self.of.items():
            cumulative = accumulate(distribution.counts)
            buckets = [(bound, float(count)) for bound, count in zip(self._bounds, cumulative, strict=True)]
            family.add_metric([value] if self._label else [], buckets, distribution.sum)
        yield family


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


class QuoteTally(Collector):
    """Counts of quotes: by method, by reason, and the moments of their prices."""

    def __init__(self) -> None:
        self._methods = [0] * len(Method)
        self._reasons = [0] * len(FallbackReason)
        self._moments = [[0.0, 0.0, 0.0] for _ in range(moments.BUCKETS)]

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
        priced = CounterMetricFamily("pinn_options_priced", "Options priced, by method.", labels=["method"])
        for label, number in self.priced.items():
            priced.add_metric([label], number)
        fallbacks = CounterMetricFamily(
            "pinn_fallback", "Options not priced by the network, by the reason.", labels=["reason"]
        )
        for label, number in self.fallbacks.items():
            fallbacks.add_metric([label], number)
        labels = ["moneyness", "maturity"]
        prices = SummaryMetricFamily(
            "pinn_price_to_strike",
            "Price divided by strike, by spot divided by strike and by years to maturity.",
            labels=labels,
        )
        squares = CounterMetricFamily(
            "pinn_price_to_strike_sum_of_squares", "Squares of what pinn_price_to_strike_sum sums up.", labels=labels
        )
        for bucket, (count, total, total_of_squares) in enumerate(self._moments):
            names = moments.bucket_names(bucket)
            prices.add_metric(names, count_value=int(count), sum_value=total)
            squares.add_metric(names, total_of_squares)
        yield from (priced, fallbacks, prices, squares)
