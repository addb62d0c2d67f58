"""The HTTP server.

A program of its own around it needs three names: `ServerConfig.from_environment`, `create_app`, to which middlewares
can be added, and `run_app`, which serves it with signals and draining and returns the exit code.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pinn_inference.server.app import create_app
    from pinn_inference.server.config import ConfigError, ServerConfig
    from pinn_inference.server.runner import run_app

__all__ = ["ConfigError", "ServerConfig", "create_app", "run_app"]

_HOMES = {"ConfigError": "config", "ServerConfig": "config", "create_app": "app", "run_app": "runner"}


def __getattr__(name: str) -> Any:
    """Import on first use: the health check of a container runs often and needs none of the server."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
