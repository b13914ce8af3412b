"""How often who may ask: token buckets by the source of a request and by join token, bounded in number."""

import math
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Final

MAX_BUCKETS: Final = 10_000
"""Most buckets that are kept; the one that was used least lately is dropped, which fills it again."""

NETWORK: Final = 64
"""Bits of an IPv6 address that name the network: a host chooses the others as it likes (RFC 4291, section 2.5.1; RFC 8981)."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How much is let through.

    Attributes:
        per_second: Requests a second in the long run.
        burst: Requests at once after a pause.
    """

    per_second: float
    burst: int


class Limiter:
    """Counts requests by a key. One that is refused costs its sender nothing more.

    Args:
        rate: How much is let through for each key.
        time: Seconds of a monotonic clock.
    """

    def __init__(self, rate: Rate, time: Callable[[], float]) -> None:
        self._rate = rate
        self._time = time
        self._buckets: OrderedDict[Hashable, tuple[float, float]] = OrderedDict()

    def refused_for(self, key: Hashable) -> int:
        """0 where the request is let through, else in how many whole seconds the next one is."""
        now = self._time()
        left, since = self._buckets.pop(key, (float(self._rate.burst), now))
        left = min(float(self._rate.burst), left + (now - since) * self._rate.per_second)
        let_through = left >= 1
        self._buckets[key] = (left - 1 if let_through else left, now)
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        return 0 if let_through else max(1, math.ceil((1 - left) / self._rate.per_second))


def source(address: str | None) -> str:
    """Whom a client counts for: its IPv4 address, or the network of its IPv6 address, in which it may take any other one."""
    try:
        found = ip_address(address or "")
    except ValueError:
        return address or ""
    if not isinstance(found, IPv6Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    return str(IPv6Network((int(found), NETWORK), strict=False))
