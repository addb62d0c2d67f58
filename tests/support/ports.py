"""Ports of the loopback that are free."""

from __future__ import annotations

import random
import socket

_CONTROL_PLANE = (6443, 2379, 2380, 10257)
"""Of the API server, etcd and the controller-manager, before the offset is added (cluster/settings.py)."""


def free_port() -> int:
    """A port of the loopback nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def free_offset() -> int:
    """What to add to a control plane's ports so that nobody listens on any of them.

    All stay below 32768: above it Linux takes the ports of outgoing connections, at any moment.
    """
    for _ in range(100):
        offset = random.randrange(12000, 22000, 10)
        if all(_is_free(port + offset) for port in _CONTROL_PLANE):
            return offset
    raise AssertionError("no free ports for a control plane")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
