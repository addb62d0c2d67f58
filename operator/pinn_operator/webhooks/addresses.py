"""Which addresses a webhook may have: never the operator's own, and none that only this machine can reach.

Who may write a PINNService chooses the address, but the operator opens the connection. So addresses are checked after
the name was resolved, and the connection goes to what was checked.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aiohttp.abc import AbstractResolver, ResolveResult

_METADATA = (ipaddress.ip_address("fd00:ec2::254"),)
"""Where clouds serve credentials; the one of IPv4, 169.254.169.254, is link-local."""


class AddressRefused(OSError):
    """The address is one that a webhook may not have."""


def refused(address: str) -> bool:
    """Whether an IP address is loopback, link-local, unspecified, multicast or reserved; False for a name."""
    try:
        ip = ipaddress.ip_address(address.split("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or ip.sixtofour or ip
    return (
        ip.is_loopback or ip.is_link_local or ip.is_unspecified or ip.is_multicast or ip.is_reserved or ip in _METADATA
    )


Lookup = Callable[[str, int, socket.AddressFamily], Sequence[tuple[socket.AddressFamily, int, tuple[Any, ...]]]]
"""Host, port and family to (family, protocol, address) as `socket.getaddrinfo` gives them. Raises OSError."""


def look_up(
    host: str, port: int, family: socket.AddressFamily
) -> Sequence[tuple[socket.AddressFamily, int, tuple[Any, ...]]]:
    """What the system knows of a name. Takes as long as its name servers do."""
    found = socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return [(one, protocol, address) for one, _, protocol, _, address in found]


class CheckedResolver(AbstractResolver):
    """Resolves names to addresses that are allowed. Raises AddressRefused when none is left.

    It has threads of its own: a name server that does not answer delays other webhooks, and nothing else.
    """

    def __init__(self, *, allow_local: bool = False, lookup: Lookup = look_up) -> None:
        self._allow_local = allow_local
        self._lookup = lookup
        self._threads = ThreadPoolExecutor(max_workers=8, thread_name_prefix="webhook names")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See `AbstractResolver.resolve`."""
        loop = asyncio.get_running_loop()
        found = await loop.run_in_executor(self._threads, self._lookup, host, port, family)
        allowed = [item for item in found if self._allow_local or not refused(str(item[2][0]))]
        if found and not allowed:
            raise AddressRefused(f"{host} is {found[0][2][0]}, an address that a webhook may not have")
        return [
            ResolveResult(
                hostname=host,
                host=str(address[0]),
                port=int(address[1]),
                family=one,
                proto=protocol,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for one, protocol, address in allowed
        ]

    async def close(self) -> None:
        """See `AbstractResolver.close`."""
        self._threads.shutdown(wait=False, cancel_futures=True)
