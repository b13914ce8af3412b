"""The end of an event loop that still has connections: a process drops them when it ends, a thread must be told to."""

import asyncio

ROUNDS = 3
"""Turns of the loop in which an aborted transport, and the TLS above it, let go of their socket."""


async def hang_up() -> None:
    """Drop every connection of the running loop without a word to the other side, which may have been silent for long."""
    for _ in range(ROUNDS):
        for transport in list(asyncio.get_running_loop()._transports.values()):  # type: ignore[attr-defined]
            transport.abort()
        await asyncio.sleep(0)
