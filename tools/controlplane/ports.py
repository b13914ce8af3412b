"""Loopback ports that are ours for as long as we hold them, whether or not a server listens there."""

import socket


class ReservedPort:
    """A free loopback port, kept by a bound socket that never listens: no connection goes to it, and nobody else gets the port.

    A server that shares ports (SO_REUSEPORT) can listen there, stop, and come back. Asking for a free port, closing it and
    hoping is what makes tests flaky.
    """

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        self._socket.bind((address, 0))
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        """Give the port back."""
        self._socket.close()
