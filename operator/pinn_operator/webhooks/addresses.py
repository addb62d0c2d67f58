"""Which addresses a webhook may have: never the operator's own, and none that only this machine can reach.

Who may write a PINNService chooses the address, but the operator opens the connection. So addresses are checked after
the name was resolved, and the connection goes to what was checked.
"""

from __future__ import annotations

import ipaddress
import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

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


class CheckedResolver(AbstractResolver):
    """Resolves names to addresses that are allowed. Raises AddressRefused when none is left."""

    def __init__(self, resolver: AbstractResolver | None = None) -> None:
        self._resolver = resolver or ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """See `AbstractResolver.resolve`."""
        found = await self._resolver.resolve(host, port, family)
        allowed = [result for result in found if not refused(result["host"])]
        if found and not allowed:
            raise AddressRefused(f"{host} is {found[0]['host']}, an address that a webhook may not have")
        return allowed

    async def close(self) -> None:
        """See `AbstractResolver.close`."""
        await self._resolver.close()
