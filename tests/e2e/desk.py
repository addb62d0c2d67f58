"""What a desk runs beside its PINNServices: a webhook that checks revisions, and a Prometheus behind a token.

Run in a pod of the inference image, from a ConfigMap. HMAC_KEY and TOKEN are what callers must know.

    POST /canary        the webhook: signed requests get the verdict in force, others a 403
    PUT  /verdict       {"verdict": "fail", "message": "…"} is in force from now on
    *    /api/v1/…      Prometheus (PROMETHEUS) for callers with `Authorization: Bearer <token>`, a 401 for others
    GET  /seen          how many requests of each kind there were
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections import Counter
from typing import Any

from aiohttp import ClientSession, web

KEY = os.environ["HMAC_KEY"].encode()
TOKEN = os.environ["TOKEN"]
PROMETHEUS = os.environ["PROMETHEUS"]
PORT = 8080

verdict: dict[str, Any] = {"verdict": "pass", "message": "all desks agree"}
seen: Counter[str] = Counter()


async def canary(request: web.Request) -> web.Response:
    """Give the verdict in force to whoever signed the question."""
    expected = "sha256=" + hmac.new(KEY, await request.read(), hashlib.sha256).hexdigest()
    if not hmac.compare_digest(expected, request.headers.get("X-Pinn-Signature", "")):
        seen["unsigned"] += 1
        return web.json_response({"error": "the signature is wrong"}, status=403)
    seen["signed"] += 1
    return web.json_response(verdict)


async def order(request: web.Request) -> web.Response:
    """Put another verdict in force."""
    verdict.clear()
    verdict.update(await request.json())
    return web.json_response(verdict)


async def metrics(request: web.Request) -> web.Response:
    """Hand the question on to Prometheus."""
    if request.headers.get("Authorization") != f"Bearer {TOKEN}":
        seen["refused"] += 1
        return web.json_response({"status": "error", "error": "log in first"}, status=401)
    seen["logged in"] += 1
    kept = {name: request.headers[name] for name in ("Content-Type",) if name in request.headers}
    async with (
        ClientSession() as session,
        session.request(
            request.method, PROMETHEUS + request.path_qs, data=await request.read(), headers=kept
        ) as answer,
    ):
        return web.Response(body=await answer.read(), status=answer.status, content_type=answer.content_type)


async def counts(request: web.Request) -> web.Response:
    """What was asked so far."""
    return web.json_response(seen)


def main() -> None:
    """Serve."""
    app = web.Application()
    app.router.add_post("/canary", canary)
    app.router.add_put("/verdict", order)
    app.router.add_get("/seen", counts)
    app.router.add_route("*", "/api/v1/{rest:.*}", metrics)
    web.run_app(app, port=PORT, print=None)


if __name__ == "__main__":
    main()
