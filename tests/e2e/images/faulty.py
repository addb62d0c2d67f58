"""The inference server, made bad: the same program with one more middleware, and a port that turns it bad when asked.

The product has no fault switch; this file is only in the derived test image (`faulty.Dockerfile`). What it does wrong
is set by FAULT, FAULT_SHARE, FAULT_SLEEP_SECONDS and FAULT_AFTER_SECONDS, or at any time by

    POST :9900/fault   {"kind": "errors", "share": 1.0}

Kinds, the share being of the pricing requests:

* `none`
* `errors`: a 500; `refusals`: a 400
* `sleep`: an answer after `seconds`
* `wrong`: a price 1 % too high, for puts of less than a week alone
* `forgetful`: the cache is emptied before the request
* `fallbacks`: the request counts as priced by the fallback
* `exit`: the process ends with 3; `memory`: it takes memory until it is killed
* `leak`: it takes `megabytes` a minute, in small steps
* `bloat`: it takes `megabytes` within seconds, in pieces, so that requests are answered between them;
  `bloated cache`: the same, and POST /cache/reset gives them back
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from pinn_inference.pricing.types import FallbackReason
from pinn_inference.server import ConfigError, ServerConfig, create_app, run_app
from pinn_inference.server.app import METRICS
from pinn_inference.server.middleware import BODY

CONTROL_PORT = 9900
KINDS = (
    "none", "errors", "refusals", "sleep", "wrong", "forgetful", "fallbacks", "exit", "memory", "leak", "bloat",
    "bloated cache",
)  # fmt: skip
WEEK = 7 / 365
CHUNK = 16 * 1024 * 1024
# A busy machine may fill no more than 100 MB/s: a piece holds the event loop for a few hundredths of a second.
PIECE_MEGABYTES = 4


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done wrong. `share` is of the pricing requests."""

    kind: str = "none"
    share: float = 1.0
    seconds: float = 1.0
    megabytes: float = 60.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}: must be one of {', '.join(KINDS)}")
        if not 0 <= self.share <= 1:
            raise ValueError(f"share is {self.share}: must be from 0 to 1")


class Saboteur:
    """Holds the fault in force."""

    def __init__(self, fault: Fault, *, after: float) -> None:
        self._fault = fault if after <= 0 else Fault()
        self._later, self._after = fault, after
        self._hoard: list[bytearray] = []
        self._tasks: set[asyncio.Task[None]] = set()

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Inside the product's own counters and timers, so that its metrics tell of the fault as of any other."""
        fault = self._fault
        if request.path == "/cache/reset" and fault.kind == "bloated cache":
            self._fault = replace(fault)  # what is still being taken ends
            self._spawn(self._give_back())
        if request.path != "/v1/price" or random.random() >= fault.share:
            return await handler(request)
        metrics = request.app[METRICS]
        match fault.kind:
            case "errors":
                raise RuntimeError("this revision is bad on purpose")
            case "refusals":
                raise web.HTTPBadRequest(text="this revision is bad on purpose")
            case "sleep":
                await asyncio.sleep(fault.seconds)
            case "forgetful":
                metrics.reset_cache()
            case "fallbacks":
                reasons = [0] * len(FallbackReason)
                reasons[-1] = 1
                metrics.quotes.count_elsewhere([], reasons, [[0.0] * 3] * 20)
            case "wrong":
                answer = await handler(request)
                return _made_wrong(request.get(BODY, b""), answer)
        return await handler(request)

    async def control(self, app: web.Application) -> AsyncIterator[None]:
        """The control port, for as long as the application runs."""
        control = web.Application()
        control.router.add_post("/fault", self._order)
        runner = web.AppRunner(control, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "0.0.0.0", CONTROL_PORT).start()
        self._spawn(self._begin_later())
        yield
        await runner.cleanup()

    async def _begin_later(self) -> None:
        await asyncio.sleep(self._after)
        self._begin(self._later)

    async def _order(self, request: web.Request) -> web.Response:
        order: dict[str, Any] = await request.json()
        try:
            fault = replace(Fault(), **order)
        except (TypeError, ValueError) as error:
            return web.json_response({"error": str(error)}, status=400)
        self._spawn(self._begin_after_the_answer(fault))
        return web.json_response({"kind": fault.kind, "share": fault.share})

    async def _begin_after_the_answer(self, fault: Fault) -> None:
        await asyncio.sleep(0.02)
        self._begin(fault)

    def _begin(self, fault: Fault) -> None:
        self._fault = fault
        if fault.kind == "exit":
            os._exit(3)
        if fault.kind == "memory":
            self._spawn(self._grow())
        if fault.kind == "leak":
            self._spawn(self._leak(fault))
        if fault.kind.startswith("bloat"):
            self._spawn(self._bloat(fault))

    async def _grow(self) -> None:
        while True:
            self._hoard.append(bytearray(os.urandom(1024)) * (CHUNK // 1024))
            await asyncio.sleep(0.005)

    async def _leak(self, fault: Fault) -> None:
        while self._fault is fault:
            self._take(fault.megabytes / 120)
            await asyncio.sleep(0.5)

    async def _bloat(self, fault: Fault) -> None:
        left = fault.megabytes
        while left > 0 and self._fault is fault:
            self._take(min(left, PIECE_MEGABYTES))
            left -= PIECE_MEGABYTES
            await asyncio.sleep(0.005)

    async def _give_back(self) -> None:
        while self._hoard:
            self._hoard.pop()
            await asyncio.sleep(0)

    def _take(self, megabytes: float) -> None:
        self._hoard.append(bytearray(os.urandom(1024)) * int(megabytes * 1024))

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _made_wrong(body: bytes, answer: web.StreamResponse) -> web.StreamResponse:
    """The answer with the prices of puts of less than a week 1 % too high."""
    if answer.status != 200 or not isinstance(answer, web.Response) or not isinstance(answer.body, bytes):
        return answer
    asked, answered = json.loads(body), json.loads(answer.body)
    options = asked["options"] if isinstance(asked, dict) and "options" in asked else [asked]
    results = answered["results"] if isinstance(answered, dict) and "results" in answered else [answered]
    for option, result in zip(options, results, strict=True):
        if option.get("option_type") == "put" and option["maturity"] < WEEK:
            result["price"] *= 1.01
    return web.json_response(answered)


def main() -> int:
    """Serve like `pinn-inference serve` without flags."""
    try:
        config = ServerConfig.from_environment(os.environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    fault = Fault(
        kind=os.environ.get("FAULT", "none"),
        share=float(os.environ.get("FAULT_SHARE", "1")),
        seconds=float(os.environ.get("FAULT_SLEEP_SECONDS", "1")),
        megabytes=float(os.environ.get("FAULT_MEGABYTES", "60")),
    )
    saboteur = Saboteur(fault, after=float(os.environ.get("FAULT_AFTER_SECONDS", "0")))
    app = create_app(config, middlewares=[saboteur.middleware])
    app.cleanup_ctx.append(saboteur.control)
    return run_app(app)


if __name__ == "__main__":
    raise SystemExit(main())
