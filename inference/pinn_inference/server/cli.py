"""The commands `serve` and `check`. Imports of the server itself wait until a command needs them."""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from pinn_inference.server.config import ConfigError, ServerConfig, add_flags, flags_of

if TYPE_CHECKING:
    from argparse import _SubParsersAction


def add_parsers(subparsers: _SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register `serve` and `check`."""
    serve_parser = subparsers.add_parser(
        "serve",
        help="run the pricing server",
        description="Run the pricing server. Each flag has an environment variable, shown in brackets; the flag wins.",
    )
    add_flags(serve_parser)
    serve_parser.set_defaults(run=serve)
    check_parser = subparsers.add_parser(
        "check",
        help="ask a running server whether it is healthy",
        description="Exit code 0 if the server at --host and --port is healthy, 1 if it is not or does not answer.",
    )
    check_parser.add_argument("--host", default="127.0.0.1", help="address of the server, default 127.0.0.1")
    check_parser.add_argument("--port", type=int, help="its port [PINN_PORT, default 8000]")
    check_parser.add_argument("--ready", action="store_true", help="ask whether it is ready, not only alive")
    check_parser.add_argument("--timeout", type=float, default=5.0, help="seconds to wait for the answer, default 5")
    check_parser.set_defaults(run=check)


def serve(arguments: argparse.Namespace) -> int:
    """Run the server; exit code 2 when a setting is wrong."""
    try:
        config = ServerConfig.from_environment(os.environ, flags_of(arguments))
    except ConfigError as error:
        print(f"pinn-inference serve: {error}", file=sys.stderr)
        return 2
    from pinn_inference.server.app import create_app
    from pinn_inference.server.runner import run_app

    return run_app(create_app(config))


def check(arguments: argparse.Namespace) -> int:
    """Print what the server says of itself; 0 if that is healthy."""
    port = arguments.port
    if port is None:
        try:
            port = ServerConfig.from_environment({"PINN_PORT": os.environ.get("PINN_PORT", "")}).port
        except ConfigError as error:
            print(f"pinn-inference check: {error}", file=sys.stderr)
            return 2
    path = "/health/deployment/readiness" if arguments.ready else "/health"
    host = f"[{arguments.host}]" if ":" in arguments.host else arguments.host
    # A proxy from the environment has no business between a container and itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"http://{host}:{port}{path}", timeout=arguments.timeout) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        print(f"not healthy: HTTP {error.code} {error.read(4096).decode(errors='replace')}")
        return 1
    except (OSError, ValueError) as error:
        print(f"not healthy: {error}")
        return 1
    print(json.dumps(answer))
    return 0
