"""Metadata services of clouds, which answer the machines that they stand beside: over plain HTTP, bounded, by no proxy."""

import contextlib
import http.client
from collections.abc import Mapping
from typing import Final
from urllib.parse import urlencode, urlsplit

from machinebot.agent.proofs.base import MISSING, UNAVAILABLE
from machinebot.errors import Invalid, Unavailable

SECONDS: Final = 5.0
"""Time-out of one step; a metadata service stands in the same host, and answers in well below a second."""

MAX_ANSWER: Final = 64 * 1024
"""Longest answer that is read, bytes; a token has 4 KiB."""

_OK: Final = 200
_NOT_THERE: Final = frozenset({400, 403, 404})
"""HTTP status where asking again is of no use: the machine has no such identity."""


def get(base: str, path: str, query: Mapping[str, str], *, headers: Mapping[str, str], hint: str) -> bytes:
    """One answer of a metadata service.

    Args:
        base: Its address, such as http://169.254.169.254.
        path: Path of what is wanted.
        query: Query of it.
        headers: The header that shows that we mean it, which no web page can send.
        hint: What to do where the machine has none.

    Raises:
        Invalid: The address is none, or the machine has no such thing (`ProofMissing`).
        Unavailable: No answer, or another one than was asked for (`ProofUnavailable`).
    """
    connection = _connection(base)
    target = f"{path}?{urlencode(query)}"
    with contextlib.closing(connection):
        try:
            connection.request("GET", target, headers=dict(headers))
            answer = connection.getresponse()
            body = answer.read(MAX_ANSWER + 1)
        except (OSError, http.client.HTTPException) as error:
            raise Unavailable(UNAVAILABLE, f"the metadata service at {base} does not answer ({error}): {hint}") from error
    if answer.status in _NOT_THERE:
        raise Invalid(MISSING, f"the metadata service at {base} has nothing at {path} (HTTP status {answer.status}): {hint}")
    if answer.status != _OK or len(body) > MAX_ANSWER:
        raise Unavailable(
            UNAVAILABLE, f"the metadata service at {base} does not answer as it should (HTTP status {answer.status})"
        )
    return body


def _connection(base: str) -> http.client.HTTPConnection:
    try:
        parts = urlsplit(base)
        if (
            parts.scheme == "http"
            and parts.hostname
            and (parts.path, parts.query, parts.username) in (("", "", None), ("/", "", None))
        ):
            return http.client.HTTPConnection(parts.hostname, parts.port, timeout=SECONDS)
    except ValueError:
        pass
    raise Invalid("InvalidSpec", "metadataURL must be http:// with a host and perhaps a port, such as http://169.254.169.254")
