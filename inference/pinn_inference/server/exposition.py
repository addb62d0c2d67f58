"""Prometheus' text format, all of it or the asked samples alone, in little time.

The operator reads a few families of each pod every second or oftener, as `/metrics?name[]=…`, the filter that
Prometheus' client libraries have. What it asks for is written here from prepared text: no collector that was not asked
for runs, and nothing is escaped or sorted twice. The library's own writer does the rest.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final
from urllib.parse import parse_qsl

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

NAMES_LIMIT: Final = 64
NAME_LENGTH: Final = 256
_FILTER: Final = "name[]"
_KNOWN_FILTERS: Final = 64
_SUFFIXES: Final = ("", "_total", "_created", "_bucket", "_sum", "_count", "_info")

Names = AbstractSet[str] | None
"""Names of samples, such as `http_requests_total`; None: all."""


class BadFilter(ValueError):
    """The query of `/metrics` asks for too much; the message says what would be right."""


class Textual(Collector):
    """A collector that writes its own text. `names` are those of its samples."""

    names: frozenset[str]

    @abstractmethod
    def lines(self, names: Names) -> list[str]:
        """The lines of the samples with these names, each with its end and after the HELP and TYPE of its family."""


class Figures(Textual):
    """Counters and gauges without labels, whose values one function gives in the order of `families`.

    A family is the name of its sample and what it is; it is a counter if the name ends in `_total`.
    """

    def __init__(self, families: Sequence[tuple[str, str]], read: Callable[[], Sequence[float]]) -> None:
        self._families, self._read = families, read
        self.names = frozenset(name for name, _ in families)
        self._heads = [head(name, _kind(name), documentation) for name, documentation in families]

    def collect(self) -> Iterable[Metric]:
        for (name, documentation), value in zip(self._families, self._read(), strict=True):
            if _kind(name) == "counter":
                yield CounterMetricFamily(name.removesuffix("_total"), documentation, value=value)
            else:
                yield GaugeMetricFamily(name, documentation, value=value)

    def lines(self, names: Names) -> list[str]:
        if names is not None and self.names.isdisjoint(names):
            return []
        return [
            f"{head}{name} {float(value)!r}\n"
            for (name, _), head, value in zip(self._families, self._heads, self._read(), strict=True)
            if names is None or name in names
        ]


class ServerRegistry(CollectorRegistry):
    """A registry that can write the samples of some names without asking for the others."""

    def __init__(self) -> None:
        super().__init__()
        self._textual: list[Textual] = []
        self._others: list[tuple[frozenset[str], Collector]] = []
        self._filters: dict[str, frozenset[str]] = {}

    def register(self, collector: Collector) -> None:
        """As the library's."""
        super().register(collector)
        if isinstance(collector, Textual):
            self._textual.append(collector)
        else:
            self._others.append((_names_of(collector), collector))

    def exposition(self, names: Names = None) -> bytes:
        """All samples, or those with these names; empty if there are none."""
        lines = [line for collector in self._textual for line in collector.lines(names)]
        others = (
            family
            for known, collector in self._others
            if names is None or not known.isdisjoint(names)
            for family in collector.collect()
        )
        return "".join(lines).encode() + rendered(others, names)

    def asked(self, query: str) -> Names:
        """The names in the query of a URL; None without any. Raises BadFilter."""
        if not query:
            return None
        known = self._filters.get(query)
        if known is None:
            known = _parsed_filter(query)
            if len(self._filters) < _KNOWN_FILTERS:
                self._filters[query] = known
        return known or None


def rendered(families: Iterable[Metric], names: Names) -> bytes:
    """The text of families, or of their samples with these names, as the library writes it."""
    return generate_latest(_Families(list(families if names is None else _narrowed(families, names))))


def head(family: str, kind: str, documentation: str) -> str:
    """The HELP and TYPE lines of a family, in format 0.0.4, where a counter is called like its samples."""
    text = documentation.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {family} {text}\n# TYPE {family} {kind}\n"


def series(name: str, labels: Mapping[str, str]) -> str:
    """The text of a series up to its value."""
    if not labels:
        return f"{name} "
    pairs = ",".join(f'{label}="{_escaped(value)}"' for label, value in sorted(labels.items()))
    return f"{name}{{{pairs}}} "


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def _kind(name: str) -> str:
    return "counter" if name.endswith("_total") else "gauge"


def _names_of(collector: Collector) -> frozenset[str]:
    """Names that its samples may have."""
    describe = getattr(collector, "describe", None)
    families = describe() if describe is not None else collector.collect()
    return frozenset(family.name + suffix for family in families for suffix in _SUFFIXES)


def _narrowed(families: Iterable[Metric], names: AbstractSet[str]) -> Iterable[Metric]:
    for family in families:
        samples = [sample for sample in family.samples if sample.name in names]
        if samples:
            narrow = Metric(family.name, family.documentation, family.type)
            narrow.samples = samples
            yield narrow


def _parsed_filter(query: str) -> frozenset[str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=NAMES_LIMIT)
    except ValueError:
        raise BadFilter(
            f"the query has more than {NAMES_LIMIT} fields: ask for fewer names, or without name[]"
        ) from None
    names = frozenset(value for field, value in pairs if field == _FILTER)
    longest = max(map(len, names), default=0)
    if longest > NAME_LENGTH:
        raise BadFilter(f"a name[] of {longest} characters: at most {NAME_LENGTH} are taken")
    return names


class _Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
