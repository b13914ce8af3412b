"""A loopback port for a server that asks for a fixed one and shares ports with nobody."""

import socket
from typing import Final

LOOPBACK: Final = "127.0.0.1"
"""Nothing that is started here can be reached from another machine."""


class HeldPort:
    """A free loopback port, ours until `release`: one server at a time can listen there, stop, and come back.

    The socket is bound with SO_REUSEADDR and never listens. Linux then lets a server bind the same port if it sets
    SO_REUSEADDR too, as asyncio, uvloop and sshd do, and gives the port to nobody who asks for a free one.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._socket.bind((LOOPBACK, 0))
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        """Give the port back."""
        self._socket.close()
