"""An issuer on the loopback that answers whatever a test says, byte by byte, over real TLS."""

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from machinebot.issuers.fetching import WELL_KNOWN
from support.issuing import NOW, jwks, public_jwk, rsa_key

HOST = "issuer.example.test"
ISSUER = f"https://{HOST}"
KEYS = f"{ISSUER}/keys"
GOOD = jwks(public_jwk(rsa_key("issuer"), "a")).encode()

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class FixedClock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.at = NOW

    def now(self) -> datetime:
        return self.at

    def step(self, length: timedelta) -> None:
        self.at += length


def response(body: bytes, status: str = "200 OK", *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def configuration(issuer: str = ISSUER, keys: object = KEYS) -> bytes:
    return json.dumps({"issuer": issuer, "jwks_uri": keys, "response_types_supported": ["id_token"]}).encode()


@dataclass
class Script:
    """What the server answers, and what it was asked.

    Attributes:
        answers: By path: bytes that are written as they are, or what writes them.
        seen: The heads of all requests, and their bodies.
        port: Where it listens.
        open: Connections that are open.
    """

    answers: dict[str, bytes | Answer] = field(default_factory=dict)
    seen: list[bytes] = field(default_factory=list)
    port: int = 0
    open: set[asyncio.StreamWriter] = field(default_factory=set)

    def good(self, *kids: str) -> None:
        """A good issuer, whose keys have these ids."""
        keys = jwks(*[public_jwk(rsa_key("issuer"), kid) for kid in kids or ("a",)]).encode()
        self.answers = {WELL_KNOWN: response(configuration()), "/keys": response(keys)}

    def asked(self, path: str) -> int:
        """How often something was asked for."""
        return sum(head.split(b" ")[1] == path.encode() for head in self.seen)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open.add(writer)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
                self.seen.append(head + await reader.readexactly(sum(length)))
                answer = self.answers.get(head.split(b" ")[1].decode(), response(b"", "404 Not Found"))
                if not isinstance(answer, bytes):
                    await answer(writer)
                    return
                writer.write(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, ssl.SSLError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()

    def hang_up(self) -> None:
        """Ends what is still open, without waiting for the other side."""
        for writer in self.open:
            writer.transport.abort()
