"""Where a request may go: tenants write names of issuers, and none of them may lead to this machine or to a cloud's metadata."""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from aiohttp.abc import AbstractResolver, ResolveResult
from typing_extensions import override
from yarl import URL

from machinebot.errors import Invalid
from machinebot.joins.claims import DNS_NAME

_HTTPS: Final = re.compile(rf"https://{DNS_NAME}(:(?P<port>[0-9]{{1,5}}))?(/[!\"$-\[\]-~]*)?", re.IGNORECASE)
"""https, a host name in full, port, path and query: no user, no address of digits, no fragment, no backslash."""

HTTPS_PORT: Final = 443
"""Where https is, if nothing else is said."""

_MAX_PORT: Final = 65535

_MAX_URL: Final = 2048
"""Longest address that is called, characters."""

_METADATA: Final = frozenset(
    ipaddress.ip_address(each)
    for each in (
        "100.100.100.200",  # Alibaba Cloud
        "168.63.129.16",  # Azure, beside 169.254.169.254
        "192.0.0.192",  # Oracle Cloud
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # Google Cloud
    )
)
"""Metadata services of clouds that are not link-local, as all the others are."""

_NAT64: Final = ipaddress.ip_network("64:ff9b::/96")
"""IPv4 addresses as networks with IPv6 alone write them (RFC 6052)."""


def https_url(text: str) -> URL:
    """The address to call.

    Raises:
        Invalid: It is no https address with a host name, such as one of digits (`IssuerRefused`).
    """
    found = _HTTPS.fullmatch(text) if len(text) <= _MAX_URL else None
    if found is not None and 0 < int(found["port"] or HTTPS_PORT) <= _MAX_PORT:
        return URL(text, encoded=True)
    raise Invalid("IssuerRefused", "an issuer, and where it has its keys, must be an https address with a host name in full")


def is_refused(address: str) -> bool:
    """Whether nothing at that address is ever called: this machine, its link, groups, metadata. Private networks are not."""
    found = ipaddress.ip_address(address)
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        elif found in _NAT64:
            found = ipaddress.IPv4Address(found.packed[-4:])
    unusable = found.is_loopback or found.is_link_local or found.is_multicast or found.is_unspecified
    return unusable or found in _METADATA or found == ipaddress.IPv4Address("255.255.255.255")


class Resolver(AbstractResolver):
    """Looks names up, and hands on addresses that may be called alone: those that the connection is then made to.

    A thread of its own each, since a look-up cannot be called off: a name server that hangs must not hold up anybody else's
    work, and holds one thread for each of its names, however often they are asked for.

    Args:
        connect: From host names to address and port that are called instead, whatever they are.
        threads: Names that are looked up at once.
    """

    def __init__(self, connect: Mapping[str, tuple[str, int]], threads: int) -> None:
        self._connect = connect
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="issuers-dns")
        self._under_way: dict[tuple[str, int, int], asyncio.Future[list[Any]]] = {}

    @override
    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC) -> list[ResolveResult]:
        """The addresses of a host.

        Raises:
            OSError: It has none.
            Invalid: One of them is refused (`IssuerRefused`).
        """
        found = [self._connect[host]] if host in self._connect else await self._look_up(host, port, family)
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=number,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
            )
            for address, number in found
        ]

    @override
    async def close(self) -> None:
        """Waits for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _look_up(self, host: str, port: int, family: socket.AddressFamily) -> list[tuple[str, int]]:
        wanted = (host, port, family)
        under_way = self._under_way.get(wanted)
        if under_way is None:
            loop = asyncio.get_running_loop()
            under_way = loop.run_in_executor(self._threads, socket.getaddrinfo, host, port, family, socket.SOCK_STREAM)
            self._under_way[wanted] = under_way
            under_way.add_done_callback(lambda done: self._looked_up(wanted, done))
        answers = await asyncio.shield(under_way)
        addresses = [str(place[0]) for _, _, _, _, place in answers]
        if any(is_refused(address) for address in addresses):
            raise Invalid("IssuerRefused", "the host name leads to an address of this machine, its link or a cloud's metadata")
        return [(address, port) for address in addresses]

    def _looked_up(self, wanted: tuple[str, int, int], done: asyncio.Future[list[Any]]) -> None:
        self._under_way.pop(wanted, None)
        if not done.cancelled():
            done.exception()  # whoever asked may have gone
