"""The model as the server's own process uses it: without TensorFlow, and with a cache before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import repeat
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from pinn_inference.pricing import golden
from pinn_inference.pricing.american import numpy_american
from pinn_inference.pricing.american_artefact import parse_american
from pinn_inference.pricing.american_scalar import AmericanScalarPricer
from pinn_inference.pricing.artefact import parse
from pinn_inference.pricing.cache import OptionKey, QuoteCache
from pinn_inference.pricing.errors import ModelNotFoundError, ModelSelfCheckError
from pinn_inference.pricing.loading import ModelSources, read_sources
from pinn_inference.pricing.model import bundled_directory, numpy_model
from pinn_inference.pricing.model_set import ModelSet, StyleModel
from pinn_inference.pricing.scalar import ScalarPricer, ScalarQuote
from pinn_inference.pricing.types import COLUMNS, BoolArray, FallbackReason, Method, OptionBatch, Quotes
from pinn_inference.server.config import ServerConfig

MERGE_FROM: Final = 20
"""From so many options on one array evaluation is faster than one by one; measured, see `benchmarks`."""
_PATHS_AGREE: Final = 1e-9
"""Most by which a quote alone and the same in a batch may differ, in strikes: a cell of the cache is exact to 1e-10."""


class PricingModel(Protocol):
    """A loaded model. `price` may be called from several threads, `quote` from the event loop alone."""

    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def error_bound(self) -> float: ...

    def price(self, batch: OptionBatch) -> Quotes:
        """Prices and Greeks in the batch's order."""

    def quote(self, options: Sequence[OptionKey]) -> list[ScalarQuote]:
        """The same for a few European options."""

    def quote_american(self, option: OptionKey) -> ScalarQuote | None:
        """One American option, if that takes no more than some ten microseconds; else None."""

    def warm_up(self) -> None:
        """Uses every path once."""

    def self_check(self) -> None:
        """Raises an exception that says what is wrong with the model's prices."""

    @property
    def american(self) -> StyleModel | None:
        """What prices American options, None if nothing does."""

    @property
    def american_label(self) -> str:
        """`name/version` of what prices American options; empty if nothing does."""

    @property
    def cache(self) -> QuoteCache | None:
        """The cache before it."""

    @property
    def sources(self) -> ModelSources | None:
        """What it was made of, for other processes to make the same; None if it exists in this process alone."""


ModelLoader = Callable[[ServerConfig], PricingModel]
"""Loads the model a configuration names; what it raises may carry a CamelCase `reason`."""


class ScalarAmerican(Protocol):
    """Prices single American options."""

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
        """None where the network has no answer; units as in `OptionBatch`."""


class CachedModel:
    """A model of which single quotes come from a cache and from the scalar path, and larger numbers from arrays."""

    def __init__(
        self,
        models: ModelSet,
        cache: QuoteCache,
        american_pricer: ScalarAmerican | None = None,
        sources: ModelSources | None = None,
    ) -> None:
        self._models = models
        self.sources = sources
        self._cache = cache
        self.name, self.version, self.sha256 = models.name, models.version, models.sha256
        self.error_bound = models.error_bound
        self.american = american = models.american
        self._american_pricer = american_pricer
        self.american_label = "" if american is None else f"{american.name}/{american.version}"

    @property
    def cache(self) -> QuoteCache:
        return self._cache

    def price(self, batch: OptionBatch) -> Quotes:
        return self._models.price(batch)

    def quote(self, options: Sequence[OptionKey]) -> list[ScalarQuote]:
        """Many at once do not ask the cache: together they cost less than looking them up one by one."""
        if len(options) < MERGE_FROM:
            return [self._quote(option) for option in options]
        return quotes_by_batch(self._models.price, options)

    def quote_american(self, option: OptionKey) -> ScalarQuote | None:
        quote = self._cache.lookup(option)
        if quote is None and self._american_pricer is not None:
            quote = self._american_pricer.quote(*option[:7])
            if quote is not None:
                self._cache.store(option, quote)
        return quote

    def warm_up(self) -> None:
        self._models.warm_up()
        self._cache.warm_up()

    def self_check(self) -> None:
        """The golden prices by arrays, and by the scalar path, which must agree; raises ModelSelfCheckError."""
        self._models.self_check()
        batch = golden.golden_batch()
        for row, (option, price) in enumerate(
            zip(options_of(batch), self._models.price(batch).price.tolist(), strict=True)
        ):
            quote = self._quote(option)
            if not abs(quote.price - price) <= _PATHS_AGREE * option[1]:
                raise ModelSelfCheckError(f"golden option {row}: {quote.price!r} alone, {price!r} in a batch")
        self._cache.reset()
        self._cache.warm_up()

    def _quote(self, option: OptionKey) -> ScalarQuote:
        quote = self._cache.quote(*option[:7])
        if quote is None:
            quote = quotes_by_batch(self._models.price, [option])[0]
            self._cache.store(option, quote)
        return quote


def options_of(batch: OptionBatch) -> list[OptionKey]:
    """The rows of a batch without schedules, as plain numbers."""
    return list(zip(*(getattr(batch, name).tolist() for name in COLUMNS), strict=True))


def quotes_by_batch(price: Callable[[OptionBatch], Quotes], options: Sequence[OptionKey]) -> list[ScalarQuote]:
    """Quotes of a few options by a function that prices batches."""
    table = np.array(options, dtype=np.float64).T
    spot, strike, maturity, rate, dividend, volatility = np.ascontiguousarray(table[:6])
    quotes = price(
        OptionBatch(
            spot, strike, maturity, rate, dividend, volatility, is_call=table[6] != 0, is_american=table[7] != 0
        )
    )
    return scalars_of(quotes)


def scalars_of(quotes: Quotes) -> list[ScalarQuote]:
    """The rows of quotes, as plain numbers."""
    return list(
        map(
            ScalarQuote,
            quotes.price.tolist(),
            quotes.delta.tolist(),
            quotes.gamma.tolist(),
            quotes.vega.tolist(),
            quotes.theta.tolist(),
            quotes.rho.tolist(),
            quotes.error_bound.tolist(),
            quotes.exercise_boundary.tolist(),
            [_METHODS[code] for code in quotes.method.tolist()],
            [_REASONS[code] for code in quotes.reason.tolist()],
            repeat(False),
            quotes.far_boundary.tolist(),
        )
    )


def quotes_of(rows: Sequence[ScalarQuote]) -> tuple[Quotes, BoolArray]:
    """The rows as columns, and which of them came from the cache."""
    price, delta, gamma, vega, theta, rho, error_bound, boundary, method, reason, cached, far = zip(*rows, strict=True)
    quotes = Quotes(
        price=np.array(price),
        delta=np.array(delta),
        gamma=np.array(gamma),
        vega=np.array(vega),
        theta=np.array(theta),
        rho=np.array(rho),
        error_bound=np.array(error_bound),
        method=np.array(method, dtype=np.int8),
        reason=np.array(reason, dtype=np.int8),
        exercise_boundary=np.array(boundary),
        far_boundary=np.array(far),
    )
    return quotes, np.array(cached, dtype=np.bool_)


_METHODS: Final = tuple(Method)
_REASONS: Final = tuple(FallbackReason)


def load_configured_model(config: ServerConfig) -> PricingModel:
    """The product's loader: `model_dir`, or the bundled model of that name; the checksum comes first."""
    european = config.model_dir or bundled_directory(config.model)
    sources = read_sources(
        european,
        american_directory(config),
        european_sha256=config.model_sha256,
        american_sha256=config.american_model_sha256,
    )
    model = numpy_model(parse(sources.european))
    cache = QuoteCache(model.artefact, max_quotes=config.cache_quotes)
    if sources.american is None:
        return CachedModel(ModelSet(model), cache, sources=sources)
    american = numpy_american(parse_american(sources.american), model)
    pricer = AmericanScalarPricer(american.artefact, ScalarPricer(model.artefact))
    return CachedModel(ModelSet(model, american), cache, pricer, sources)


def american_directory(config: ServerConfig) -> Path | None:
    """Where the model of American options is; None if none is named and none ships."""
    if config.american_model_dir is not None:
        return config.american_model_dir
    try:
        return bundled_directory("american")
    except ModelNotFoundError:
        if config.american_model_sha256 is not None:
            raise
        return None
