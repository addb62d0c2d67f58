"""`GET /api/investor-report` and `GET /api/forecast/all`: what the model says about symbols of the market data file.

MarketPages' errors, beside those of `errors`:
├── UnknownSymbols         404  symbols without market data, all of them named
├── MarketDataUnavailable  503  there is no good market data file yet
└── ReportTimeout          503  pricing took too long
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Final, TypeAlias, TypeVar

import numpy as np
import orjson
from aiohttp import web
from multidict import MultiMapping

from pinn_inference.market.data import SYMBOL_PATTERN, SYMBOL_RULE, MarketData
from pinn_inference.market.distribution import Questions
from pinn_inference.market.report import (
    NOTICE,
    Scope,
    forecast,
    forecast_document,
    investor_report,
    report_document,
)
from pinn_inference.market.watch import MarketDataWatcher
from pinn_inference.pricing.types import OptionBatch, Quotes
from pinn_inference.server.errors import Fault, InvalidRequest, NonFiniteResult, Overloaded, ServerError
from pinn_inference.server.market_schema import MAX_REPORT_SYMBOLS, OPENAPI_PATHS, OPENAPI_SCHEMAS, USER_PATTERN

__all__ = [
    "OPENAPI_PATHS",
    "OPENAPI_SCHEMAS",
    "MarketDataUnavailable",
    "MarketPages",
    "ReportTimeout",
    "UnknownSymbols",
]

T = TypeVar("T")
Price: TypeAlias = Callable[[OptionBatch], Awaitable[Quotes]]
"""Prices and Greeks in the batch's order; what it raises of ServerError goes to the client."""

REPORT_SECONDS: Final = 20.0
REPORTS_AT_ONCE: Final = 2
"""So many are worked on: each lets the event loop go between its pieces, but the pieces of many follow each other."""
REPORTS_AT_MOST: Final = 32
"""So many are worked on or wait, some seconds of work; one more is answered 429."""
# A single quote must not wait for a report: the event loop is let go after so many options, and after each symbol.
_ROWS_AT_ONCE: Final = 256
_SYMBOLS_AT_ONCE: Final = 8
_NUMBERS: Final = ("price", "delta", "gamma", "vega", "theta", "rho", "error_bound")
_SHOWN_CHARACTERS: Final = 64
_KNOWN_SHOWN: Final = 20
_PARAMETERS: Final = ("symbols", "user_id")
_SYMBOL: Final = re.compile(SYMBOL_PATTERN)
_USER: Final = re.compile(USER_PATTERN)


class UnknownSymbols(ServerError):
    """There is no market data for some symbols; each is a fault of its own."""

    status = 404

    def __init__(self, unknown: Sequence[str], known: Sequence[str]) -> None:
        more = f" and {len(known) - _KNOWN_SHOWN} more" if len(known) > _KNOWN_SHOWN else ""
        shown = f"known are {', '.join(known[:_KNOWN_SHOWN])}{more}"
        super().__init__(f"there is no market data for {', '.join(unknown)}: {shown}")
        self._faults = [Fault("symbols", f"has no market data: {shown}", value=symbol) for symbol in unknown]

    def details(self) -> dict[str, Any]:
        return {"fault_count": len(self._faults), "faults": [fault.as_json() for fault in self._faults]}


class MarketDataUnavailable(ServerError):
    """The market data file cannot be used, and there is none from before."""

    status = 503
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "10"}

    def __init__(self, fault: str) -> None:
        super().__init__(f"there is no market data: {fault}")


class ReportTimeout(ServerError):
    """Pricing for one report took too long."""

    status = 503
    headers: ClassVar[Mapping[str, str]] = {"Retry-After": "10"}

    def __init__(self, seconds: float) -> None:
        super().__init__(f"the report was not priced within {seconds:g} s: ask for fewer symbols, or try later")


@dataclass(frozen=True, slots=True)
class ReportRequest:
    """A valid request; `user_id` is the caller's own mark, echoed and neither stored nor logged."""

    symbols: tuple[str, ...]
    user_id: str | None


def parse_report_request(query: MultiMapping[str]) -> ReportRequest:
    """The parameters of a report or forecast. Raises InvalidRequest with every fault found."""
    faults = [
        Fault(_shown(name), "is not a parameter: known are symbols, user_id", has_value=False)
        for name in dict.fromkeys(query)
        if name not in _PARAMETERS
    ]
    for name in _PARAMETERS:
        if len(query.getall(name, ())) > 1:
            hint = "separate symbols by commas" if name == "symbols" else "give one"
            faults.append(Fault(name, f"stands {len(query.getall(name))} times: {hint}", has_value=False))
    symbols = query.get("symbols")
    if symbols is None:
        message = f"is required: 1 to {MAX_REPORT_SYMBOLS} symbols separated by commas, like symbols=SPY,QQQ"
        faults.append(Fault("symbols", message, has_value=False))
        named: list[str] = []
    else:
        named = symbols.split(",")
        faults.extend(_symbol_faults(named))
    user_id = query.get("user_id")
    if user_id is not None and not _USER.fullmatch(user_id):
        message = "must be 1 to 64 letters, digits and . _ : @ -"
        faults.append(Fault("user_id", message, value=_shown(user_id)))
    if faults:
        raise InvalidRequest(faults)
    return ReportRequest(symbols=tuple(named), user_id=user_id)


def _symbol_faults(symbols: Sequence[str]) -> list[Fault]:
    if len(symbols) > MAX_REPORT_SYMBOLS:
        message = f"has {len(symbols)} symbols: at most {MAX_REPORT_SYMBOLS} fit in one request, send several"
        return [Fault("symbols", message, has_value=False)]
    faults = []
    for symbol in dict.fromkeys(symbols):
        if not _SYMBOL.fullmatch(symbol):
            upper = symbol.strip().upper()
            right = f"write {upper}" if _SYMBOL.fullmatch(upper) else f"a symbol has {SYMBOL_RULE}"
            faults.append(Fault("symbols", f"is not a symbol: {right}", value=_shown(symbol)))
        elif symbols.count(symbol) > 1:
            faults.append(Fault("symbols", f"stands {symbols.count(symbol)} times: name it once", value=symbol))
    return faults


class MarketPages:
    """The handlers of reports and forecasts.

    `price` prices options for them; `model` gives the label of the model behind method `pinn`, None while there is
    none; `prices_american` says whether `price` takes American options now.
    """

    def __init__(
        self,
        *,
        watcher: MarketDataWatcher,
        price: Price,
        model: Callable[[], str | None],
        prices_american: Callable[[], bool] = lambda: False,
        timeout_seconds: float = REPORT_SECONDS,
    ) -> None:
        self._watcher = watcher
        self._price = price
        self._model = model
        self._prices_american = prices_american
        self._timeout_seconds = timeout_seconds
        self._turns = asyncio.Semaphore(REPORTS_AT_ONCE)
        self._begun = 0

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/investor-report", self.investor_report),
            web.get("/api/forecast/all", self.forecast_all),
        ]

    async def investor_report(self, request: web.Request) -> web.Response:
        """Option values, Greeks, probabilities and quantiles for each symbol."""
        american = self._prices_american()
        return await self._answer(
            request, "reports", lambda scope: investor_report(scope, american=american), report_document
        )

    async def forecast_all(self, request: web.Request) -> web.Response:
        """Quantiles and probabilities at every horizon for each symbol."""
        return await self._answer(request, "forecasts", forecast, forecast_document)

    async def _answer(
        self,
        request: web.Request,
        name: str,
        ask: Callable[[Scope], Questions[T]],
        document: Callable[[T, int], dict[str, Any]],
    ) -> web.Response:
        """What `ask` returns for the symbols asked for, as one `document` a symbol in a list called `name`.

        Raises what `_begin` does, Overloaded, ReportTimeout, NonFiniteResult, and what `price` raises.
        """
        asked, data, fault = self._begin(request)
        pieces: list[bytes] = []
        async with self._turn():
            for start in range(0, len(asked.symbols), _SYMBOLS_AT_ONCE):
                symbols = asked.symbols[start : start + _SYMBOLS_AT_ONCE]
                told = await self._answered(ask(Scope.of(data, symbols)))
                for index in range(len(symbols)):
                    pieces.append(orjson.dumps(document(told, index)))
                    await asyncio.sleep(0)
        head = orjson.dumps(self._head(asked, data, fault))
        body = b'%b,"%b":[%b]}' % (head[:-1], name.encode(), b",".join(pieces))
        return web.Response(body=body, content_type="application/json")

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """The time in which one report is made. Raises Overloaded if it does not come, ReportTimeout at its end."""
        overloaded = Overloaded(queued=self._begun, asked=1, limit=REPORTS_AT_MOST, what="reports")
        if self._begun >= REPORTS_AT_MOST:
            raise overloaded
        self._begun += 1
        try:
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    await self._turns.acquire()
            except TimeoutError:
                raise overloaded from None
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    yield
            except TimeoutError:
                raise ReportTimeout(self._timeout_seconds) from None
            finally:
                self._turns.release()
        finally:
            self._begun -= 1

    def _begin(self, request: web.Request) -> tuple[ReportRequest, MarketData, str | None]:
        """What is asked, the data to answer it from, and why that is not the newest, if it is not.

        Raises InvalidRequest, MarketDataUnavailable or UnknownSymbols.
        """
        asked = parse_report_request(request.query)
        standing = self._watcher.standing
        if standing.data is None:
            raise MarketDataUnavailable(standing.fault or "it has not been read yet")
        unknown = [symbol for symbol in asked.symbols if symbol not in standing.data.instruments]
        if unknown:
            raise UnknownSymbols(unknown, tuple(standing.data.instruments))
        return asked, standing.data, standing.fault

    def _head(self, asked: ReportRequest, data: MarketData, fault: str | None) -> dict[str, Any]:
        return {
            "as_of": data.as_of.isoformat(),
            "sample_data": data.sample_data,
            "market_data": {"source": data.file, "sha256": data.sha256, "stale": fault is not None, "message": fault},
            "model": self._model(),
            "user_id": asked.user_id,
            "notice": NOTICE,
        }

    async def _answered(self, questions: Questions[T]) -> T:
        try:
            batch = next(questions)
            while True:
                batch = questions.send(await self._quotes(batch))
        except StopIteration as end:
            result: T = end.value
            return result

    async def _quotes(self, batch: OptionBatch) -> Quotes:
        parts = []
        for start in range(0, len(batch), _ROWS_AT_ONCE):
            quotes = await self._price(batch.take(slice(start, start + _ROWS_AT_ONCE)))
            finite = np.isfinite([getattr(quotes, name) for name in _NUMBERS]).all(axis=0)
            if not finite.all():
                raise NonFiniteResult(start + int(np.argmin(finite)))
            parts.append(quotes)
            await asyncio.sleep(0)
        return parts[0] if len(parts) == 1 else Quotes.concatenate(parts)


def _shown(text: str) -> str:
    """A text of the request as an answer may show it: short, and valid UTF-8."""
    cut = text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
    return cut.encode("utf-8", "replace").decode("utf-8")
