"""The inference server, made bad: the same program with one more middleware, and a port that turns it bad when asked.

The product has no fault switch; this file is only in the derived test image (`faulty.Dockerfile`). What it does wrong
is set by FAULT, FAULT_SHARE, FAULT_SLEEP_SECONDS and FAULT_AFTER_SECONDS, or at any time by

    POST :9900/fault   {"kind": "errors", "share": 1.0}

Kinds: `none`; `errors` (a 500 for a share of the pricing requests); `sleep` (a share of them waits `seconds`);
`exit` (the process ends with 3); `memory` (it takes memory until it is killed).
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web
from aiohttp.typedefs import Handler

from pinn_inference.server import ConfigError, ServerConfig, create_app, run_app

CONTROL_PORT = 9900
KINDS = ("none", "errors", "sleep", "exit", "memory")
CHUNK = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done wrong. `share` is of the pricing requests."""

    kind: str = "none"
    share: float = 1.0
    seconds: float = 1.0

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
        if request.path == "/v1/price" and random.random() < fault.share:
            if fault.kind == "errors":
                raise RuntimeError("this revision is bad on purpose")
            if fault.kind == "sleep":
                await asyncio.sleep(fault.seconds)
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

    async def _grow(self) -> None:
        while True:
            self._hoard.append(bytearray(os.urandom(1024)) * (CHUNK // 1024))
            await asyncio.sleep(0.005)

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


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
    )
    saboteur = Saboteur(fault, after=float(os.environ.get("FAULT_AFTER_SECONDS", "0")))
    app = create_app(config, middlewares=[saboteur.middleware])
    app.cleanup_ctx.append(saboteur.control)
    return run_app(app)


if __name__ == "__main__":
    raise SystemExit(main())
