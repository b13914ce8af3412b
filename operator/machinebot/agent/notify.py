"""Tells systemd how the daemon is (sd_notify(3)): one datagram a message. Without NOTIFY_SOCKET nobody is told."""

import contextlib
import os
import socket
import time
from typing import Final

READY: Final = "READY=1"
STOPPING: Final = "STOPPING=1"
ALIVE: Final = "WATCHDOG=1"

SECONDS: Final = 5.0
"""Longest time for a message: who does not take it does not keep us from our work. The same as sd_notify(3) has."""


def notify(*lines: str) -> None:
    """Sends a message. One that does not arrive is no reason to end."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):  # the abstract namespace (unix(7))
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(SECONDS)
        connection.sendto("\n".join(lines).encode(), address)


def reloading() -> None:
    """Tells that everything is being renewed: `systemctl reload` waits for `READY` (Type=notify-reload)."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_seconds() -> float | None:
    """Within how many seconds systemd wants to hear `ALIVE`, or None."""
    text = os.environ.get("WATCHDOG_USEC", "")
    for_us = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(text) / 1_000_000 if text.isascii() and text.isdecimal() and int(text) > 0 and for_us else None
