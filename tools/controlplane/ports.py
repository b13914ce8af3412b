"""Loopback ports that are ours for as long as we hold them, whether or not a server listens there; and one GET to what does."""

import contextlib
import http.client
import socket
from typing import Final

LOOPBACK: Final = "127.0.0.1"
"""Nothing that is started here can be reached from another machine."""


class ReservedPort:
    """A free loopback port, kept by a bound socket that never listens: no connection goes to it, and nobody else gets the port.

    A server that sets the same socket option can listen there, stop, and come back. Asking for a free port, closing it and
    hoping is what makes tests flaky.

    Args:
        option: SO_REUSEPORT for servers that share ports when they are told to, as etcd and the API server; SO_REUSEADDR for
            those that set that one by themselves, as asyncio, uvloop and sshd do.
    """

    def __init__(self, option: int = socket.SO_REUSEPORT) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, option, 1)
        self._socket.bind((LOOPBACK, 0))
        self.number: int = self._socket.getsockname()[1]

    def release(self) -> None:
        """Give the port back."""
        self._socket.close()


def get(connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
    """Send one GET and close: (status, body).

    Raises:
        OSError: it does not answer, or hangs up in the middle.
    """
    with contextlib.closing(connection):
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise OSError(f"{path}: {error!r}") from error
