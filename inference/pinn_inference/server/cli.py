"""The commands `serve` and `check`. Imports of the server itself wait until a command needs them."""

from __future__ import annotations

import argparse
import json
import os
import sys
import urllib.error
import urllib.parse
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
    check_parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address of the server, default 127.0.0.1; may have a port, or be a URL such as https://pinn.example:8443",
    )
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
    # Before NumPy is imported: the matrices of one quote are so small that a second thread only costs.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from pinn_inference.server.app import create_app
    from pinn_inference.server.runner import run_app

    return run_app(create_app(config))


def check(arguments: argparse.Namespace) -> int:
    """Print what the server says of itself; 0 if that is healthy."""
    try:
        base = _base_url(arguments.host, arguments.port)
    except ValueError as error:
        print(f"pinn-inference check: {error}", file=sys.stderr)
        return 2
    path = "/health/deployment/readiness" if arguments.ready else "/health"
    # A proxy from the environment has no business between a container and itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(base + path, timeout=arguments.timeout) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        print(f"not healthy: HTTP {error.code} {error.read(4096).decode(errors='replace')}")
        return 1
    except (OSError, ValueError) as error:
        print(f"not healthy: {error}")
        return 1
    print(json.dumps(answer))
    return 0


def _base_url(host: str, port: int | None) -> str:
    """Where a server is, from what people write: an address, one with a port, or a URL; `port` wins over theirs.

    Raises ValueError saying what is wrong.
    """
    wrong = f"--host is {host!r}: must be an address, host:port or a URL with http or https"
    if "://" not in host:
        bare = host.count(":") > 1 and not host.startswith("[")
        host = f"http://[{host}]" if bare else f"http://{host}"
    parts = urllib.parse.urlsplit(host)
    try:
        given = parts.port
    except ValueError:
        raise ValueError(wrong) from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise ValueError(wrong)
    if port is None:
        port = given
    if port is None and parts.scheme == "http":
        port = ServerConfig.from_environment({"PINN_PORT": os.environ.get("PINN_PORT", "")}).port
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"{parts.scheme}://{name}{'' if port is None else f':{port}'}{parts.path.rstrip('/')}"
