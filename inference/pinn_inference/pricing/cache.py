"""Remembered quotes, and a remembered network: two levels, both exact enough that a cached answer is the uncached one.

Level 1 keeps quotes by their exact inputs. It serves repeated questions about any option, American ones included.

Level 2 keeps no quotes. The plane of (y, w) on which every European price depends, see `reduction`, is cut into cells;
the first quote in a cell has the network's value and slopes there written as polynomials, and every later one in that
cell is priced from them, with its own inputs. A rate or a volatility that has moved by a per cent is a new question
but, mostly, the same cell. Nothing is rounded: polynomials and network differ by less than `CELL_ERROR`, which the
quote's `error_bound` includes.
"""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeAlias, TypeVar

import numpy as np

from pinn_inference.pricing.artefact import Artefact
from pinn_inference.pricing.mills import SQRT_HALF_PI
from pinn_inference.pricing.network import Network, evaluate
from pinn_inference.pricing.scalar import ScalarNetwork, ScalarPricer, ScalarQuote
from pinn_inference.pricing.types import FloatArray

CELL_ERROR: Final = 1e-10
"""How far N, N_y and N_w of a cell may be from the network's; a cell that misses it is not used."""

_ROWS: Final = 16  # cells along (y − 2)/(y + 2)
_COLUMNS: Final = 16  # cells along w
_BEYOND: Final = _ROWS * _COLUMNS  # the one cell of all y > y_max, where nothing is left of the time value
_REPORT_QUOTES: Final = 4096
_CELLS: Final = _BEYOND + 1
_DEGREE: Final = 6
_NODES: Final = _DEGREE + 1

OptionKey: TypeAlias = tuple[float, float, float, float, float, float, bool, bool]
"""spot, strike, maturity, rate, dividend, volatility, is_call, is_american."""

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class LevelStats:
    """Counts since the start or the last reset; `size` and `max_size` in entries."""

    hits: int
    misses: int
    size: int
    max_size: int
    evictions: int

    @property
    def hit_rate(self) -> float:
        """Share of the questions that were hits; 0 before the first."""
        return self.hits / (self.hits + self.misses) if self.hits else 0.0

    def as_dict(self) -> dict[str, Any]:
        return {
            "hits": self.hits,
            "misses": self.misses,
            "hit_rate": self.hit_rate,
            "size": self.size,
            "max_size": self.max_size,
            "evictions": self.evictions,
        }


@dataclass(frozen=True, slots=True)
class CacheStats:
    """Both levels, and what a client saw of them: a quote is a hit when it came from either level."""

    quotes: LevelStats
    cells: LevelStats
    hits: int = 0
    """Quotes that came from the cache; that a cell was known of which the network was asked after all is no hit."""
    misses: int = 0

    @property
    def total(self) -> LevelStats:
        """The quotes that came from the cache, and the others; sizes and evictions are summed."""
        return LevelStats(
            hits=self.hits,
            misses=self.misses,
            size=self.quotes.size + self.cells.size,
            max_size=self.quotes.max_size + self.cells.max_size,
            evictions=self.quotes.evictions + self.cells.evictions,
        )

    def as_dict(self) -> dict[str, Any]:
        """The total at the top, the levels under `levels`."""
        return {**self.total.as_dict(), "levels": {"quotes": self.quotes.as_dict(), "cells": self.cells.as_dict()}}


class LruCache(Generic[Key, Value]):
    """At most `max_size` values; the one asked for longest ago goes first. Safe to use from several threads."""

    def __init__(self, max_size: int) -> None:
        if max_size < 0:
            raise ValueError(f"max_size is {max_size}, it must be at least 0")
        self._max_size = max_size
        self._entries: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()
        self._hits = self._misses = self._evictions = 0

    def get(self, key: Key) -> Value | None:
        """The value, now the latest used one; None when there is none. Counts a hit or a miss."""
        with self._lock:
            value = self._entries.get(key)
            if value is None:
                self._misses += 1
            else:
                self._entries.move_to_end(key)
                self._hits += 1
            return value

    def put(self, key: Key, value: Value) -> None:
        """Keeps the value, in place of an older one for this key."""
        with self._lock:
            self._entries[key] = value
            self._entries.move_to_end(key)
            while len(self._entries) > self._max_size:
                self._entries.popitem(last=False)
                self._evictions += 1

    def reset(self) -> None:
        """Forgets values and counts."""
        with self._lock:
            self._entries.clear()
            self._hits = self._misses = self._evictions = 0

    def stats(self) -> LevelStats:
        with self._lock:
            return LevelStats(self._hits, self._misses, len(self._entries), self._max_size, self._evictions)


class CellCache:
    """The network as polynomials, cell by cell; a `PointSource`.

    Cells are equal in the network's own inputs, so that they are small in y where N bends and large where it is flat.
    In each, N, N_y and N_w, freed of the decay they share, are interpolated at 7 × 7 Chebyshev nodes and compared with
    the network at points between. A cell of which the network is too rough goes on asking the network.
    """

    error: Final = CELL_ERROR

    def __init__(self, network: Network, *, max_cells: int = _CELLS) -> None:
        self._network = network
        self._direct = ScalarNetwork(network).evaluate
        self._y_max = network.domain.y_max
        self._w_scale = _COLUMNS / network.domain.w_max
        self._row_scale = _ROWS / (_row_input(network.domain.y_max) + 1.0)
        self._cells: LruCache[int, _Cell] = LruCache(max_cells)
        self._scratch = _Scratch()

    def evaluate(self, y: float, w: float) -> tuple[float, float, float, bool]:
        """N, N_y, N_w, and whether the cell was known."""
        if y > self._y_max:
            known = self._cells.get(_BEYOND) is not None
            if not known:
                self._cells.put(_BEYOND, _NOTHING)
            return 0.0, 0.0, 0.0, known
        row_place = (_row_input(y) + 1.0) * self._row_scale
        column_place = w * self._w_scale
        row, column = int(row_place), int(column_place)
        # The far borders belong to the last cells.
        if row >= _ROWS:
            row = _ROWS - 1
        if column >= _COLUMNS:
            column = _COLUMNS - 1
        key = row * _COLUMNS + column
        cell = self._cells.get(key)
        known = cell is not None
        if cell is None:
            cell = self._build([key])[0]
            self._cells.put(key, cell)
        if cell.coefficients is None:
            return self._direct(y, w)
        row_powers, column_powers, partial, matrix = self._scratch.all
        _fill_chebyshev(row_powers, 2.0 * (row_place - row) - 1.0)
        _fill_chebyshev(column_powers, 2.0 * (column_place - column) - 1.0)
        cell.coefficients.dot(column_powers, partial)
        q, q_y, q_w = matrix.dot(row_powers).tolist()
        decay = 1.0 / (1.0 + SQRT_HALF_PI * y + y * y)
        return q * decay, q_y * decay, q_w * decay, known

    def fill(self) -> int:
        """Builds as many cells as fit, 50 ms for all, and returns how many; the last to go are those of small w."""
        by_column = [row * _COLUMNS + column for column in range(_COLUMNS) for row in range(_ROWS)]
        max_size = self.stats().max_size
        wanted = by_column[:max_size]
        if max_size > len(wanted):
            self._cells.put(_BEYOND, _NOTHING)
        for end in range(len(wanted), 0, -_ROWS):
            keys = wanted[max(end - _ROWS, 0) : end]
            for key, cell in zip(keys, self._build(keys), strict=True):
                self._cells.put(key, cell)
        return self.stats().size

    def reset(self) -> None:
        """Forgets cells and counts."""
        self._cells.reset()

    def stats(self) -> LevelStats:
        return self._cells.stats()

    def _build(self, keys: list[int]) -> list[_Cell]:
        """The cells of these keys by one evaluation of the network."""
        if not keys:
            return []
        corner = np.array([divmod(key, _COLUMNS) for key in keys], dtype=np.float64)
        row_place = corner[:, 0, None] + _OFFSETS[:, 0]
        w = (corner[:, 1, None] + _OFFSETS[:, 1]) / self._w_scale
        # From the place back to y; the first cell begins at y = 0, where rounding must not go below.
        t = row_place / self._row_scale - 1.0
        y = np.maximum(2.0 * (1.0 + t) / (1.0 - t), 0.0)
        jets = evaluate(self._network, y.ravel(), w.ravel())
        values = np.stack([jets.n, jets.n_y, jets.n_w]).reshape(3, *y.shape)
        growth = 1.0 + SQRT_HALF_PI * y + y * y
        grown = values * growth
        cells = []
        for index in range(len(keys)):
            nodes = grown[:, index, : _NODES * _NODES].reshape(3, _NODES, _NODES)
            coefficients = _TO_COEFFICIENTS @ nodes @ _TO_COEFFICIENTS.T
            between = (_CHECK_BASIS @ coefficients @ _CHECK_BASIS.T).reshape(3, -1) / growth[index, _NODES * _NODES :]
            # Written so that a NaN is a miss too.
            fits = bool((np.abs(between - values[:, index, _NODES * _NODES :]) <= CELL_ERROR / 2.0).all())
            # (3, row, column) as a matrix that takes the column's basis first.
            cells.append(_Cell(coefficients.reshape(3 * _NODES, _NODES).copy() if fits else None))
        return cells


class QuoteCache:
    """Single European quotes through both levels, and a place for quotes that others made.

    An answer is the same whether or not its cell was known, so it does not depend on what was asked before.

    Does it pay? Measured by `benchmarks.cache_hit` on a shared core, for European quotes: the network asked directly
    13 µs, a known cell 11 µs, the same option again 1.5 µs, an unknown cell 160 µs; there are 257 cells to be unknown.
    An HTTP request costs some 100 µs beside that: no client will notice. For American quotes it does pay: 77 µs by
    their network and 35 ms by the integral equation become 1.3 µs when the question is repeated. It costs no accuracy
    (European prices differ by less than 1e-12 of the strike) and at most 4 MB.
    """

    def __init__(self, artefact: Artefact, *, max_quotes: int = 4096, max_cells: int = _CELLS) -> None:
        self._quotes: LruCache[OptionKey, ScalarQuote] = LruCache(max_quotes)
        self.reports: LruCache[OptionKey, ScalarQuote] = LruCache(min(max_quotes, _REPORT_QUOTES))
        """Quotes of reports, hundreds for each symbol: they count in no statistics and displace no others."""
        self._cells = CellCache(artefact.network, max_cells=max_cells)
        self._pricer = ScalarPricer(artefact, self._cells)
        # As clients see it, and counted where quotes are asked for: by one thread.
        self._hits = self._misses = 0

    def quote(
        self,
        spot: float,
        strike: float,
        maturity: float,
        rate: float,
        dividend: float,
        volatility: float,
        is_call: bool,
    ) -> ScalarQuote | None:
        """As `ScalarPricer.quote`; `cached` is True when either level knew it."""
        key = (spot, strike, maturity, rate, dividend, volatility, is_call, False)
        known = self._quotes.get(key)
        if known is not None:
            self._hits += 1
            return known
        quote = self._pricer.quote(spot, strike, maturity, rate, dividend, volatility, is_call)
        if quote is not None and quote.cached:
            self._hits += 1
        else:
            self._misses += 1
        if quote is not None:
            self._quotes.put(key, quote.as_cached())
        return quote

    def lookup(self, key: OptionKey) -> ScalarQuote | None:
        """A quote that was stored for exactly these inputs, marked as cached."""
        known = self._quotes.get(key)
        if known is None:
            self._misses += 1
        else:
            self._hits += 1
        return known

    def store(self, key: OptionKey, quote: ScalarQuote) -> None:
        """Keeps a quote that came from elsewhere: an American one, or a closed form."""
        self._quotes.put(key, quote.as_cached())

    def warm_up(self, options: Iterable[OptionKey] | None = None) -> int:
        """Prepares for these European options, or for all: builds every cell that fits. Returns the number of cells.

        Counts neither hits nor misses of the quotes level.
        """
        if options is None:
            return self._cells.fill()
        for key in options:
            self._pricer.quote(*key[:7])
        return self._cells.stats().size

    def reset(self) -> None:
        """Forgets everything, counts included."""
        self._quotes.reset()
        self.reports.reset()
        self._hits = self._misses = 0
        self._cells.reset()

    def stats(self) -> CacheStats:
        return CacheStats(self._quotes.stats(), self._cells.stats(), self._hits, self._misses)


@dataclass(frozen=True, slots=True)
class _Cell:
    """Chebyshev coefficients (3·7, 7) of N, N_y, N_w times 1 + √(π/2)·y + y²; None where they do not fit."""

    coefficients: FloatArray | None


_NOTHING: Final = _Cell(None)


class _Scratch(threading.local):
    """What one thread works in."""

    def __init__(self) -> None:
        partial = np.zeros(3 * _NODES)
        self.all = np.ones(_NODES), np.ones(_NODES), partial, partial.reshape(3, _NODES)


def _row_input(y: float) -> float:
    return (y - 2.0) / (y + 2.0)


def _fill_chebyshev(basis: FloatArray, t: float) -> None:
    """T₁…T₆ at t; the first entry, T₀ = 1, is there already."""
    twice = t + t
    second = twice * t - 1.0
    third = twice * second - t
    fourth = twice * third - second
    fifth = twice * fourth - third
    basis[1] = t
    basis[2] = second
    basis[3] = third
    basis[4] = fourth
    basis[5] = fifth
    basis[6] = twice * fifth - fourth


def _chebyshev_basis(t: FloatArray) -> FloatArray:
    return np.cos(np.arange(_NODES) * np.arccos(t)[:, None])


def _grid(t: FloatArray) -> FloatArray:
    """Every pair of t, moved from [−1, 1] to [0, 1]; shape (len(t)², 2), the second varying faster."""
    first, second = np.meshgrid(0.5 * (t + 1.0), 0.5 * (t + 1.0), indexing="ij")
    return np.stack([first.ravel(), second.ravel()], axis=1)


_NODE_PLACES: Final = np.cos(math.pi * (np.arange(_NODES) + 0.5) / _NODES)
# Between the nodes, and at the borders, where an interpolation is worst.
_CHECK_PLACES: Final = np.cos(math.pi * np.arange(_NODES + 1) / _NODES)
_CHECK_BASIS: Final = _chebyshev_basis(_CHECK_PLACES)
_TO_COEFFICIENTS: Final = np.linalg.inv(_chebyshev_basis(_NODE_PLACES))
_OFFSETS: Final = np.concatenate([_grid(_NODE_PLACES), _grid(_CHECK_PLACES)])
