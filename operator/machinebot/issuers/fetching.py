"""Asks the servers of platforms over HTTPS: keys of OpenID issuers, kept while they are good, and what else a method wants sent.

Tenants choose whom we ask. So every answer is bounded in bytes and time, no redirect is followed, no name leads to this machine,
and an error shows nothing of what was answered.
"""

import asyncio
import contextlib
import logging
import ssl
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import aiohttp
from yarl import URL

from machinebot.clock import Clock, SystemClock
from machinebot.errors import Invalid, MachinebotError, Unavailable
from machinebot.issuers.addresses import HTTPS_PORT, Resolver, https_url
from machinebot.joins.base import HTTPSAnswer, HTTPSRequest
from machinebot.joins.keysets import MAX_JWKS, KeySet, parse_jwks
from machinebot.joins.strict import json_object

log = logging.getLogger(__name__)

WELL_KNOWN: Final = "/.well-known/openid-configuration"
"""Where an issuer says where its keys are (OpenID Connect Discovery, section 4)."""

SECONDS: Final = 5.0
"""For both requests to an issuer, or for one that a method sends; whoever joins waits for it."""

FRESH: Final = timedelta(hours=1)
"""How long keys are used without asking anew: a key that an issuer has withdrawn lets nobody in after it."""

COOLDOWN: Final = timedelta(seconds=60)
"""Between two questions to an issuer whose keys we have: anybody can send a `kid` that nobody knows."""

RETRY: Final = timedelta(seconds=15)
"""Between two questions to an issuer that has not given any keys yet."""

LAST_GOOD: Final = timedelta(hours=24)
"""How long keys are used that an issuer no longer confirms, because it is away: as long as what we sign lives at most."""

MAX_ISSUERS: Final = 512
"""Issuers whose keys are kept, the last used ones: tenants name them. Some KiB each."""

MAX_CONFIGURATION: Final = 64 * 1024
"""Longest OpenID configuration that is read, bytes; real ones have 5 KiB at most."""

MAX_ANSWER: Final = 64 * 1024
"""Longest answer to a request of a method, bytes; AWS's STS answers in 1 KiB."""

_CONNECTIONS: Final = 64
"""Open connections at once, to issuers; and as many to the services that methods ask."""

_ISSUERS_THREADS: Final = 32
"""Names of issuers that are looked up at once: tenants choose them, and their name servers may hang."""

_SERVICES_THREADS: Final = 8
"""Names of the services that methods ask, such as AWS's, that are looked up at once. Tenants choose none of them."""

_CHUNK: Final = 16 * 1024
"""Bytes that are read at once."""

_HEADERS: Final[Mapping[str, str]] = {
    "Accept": "application/json, application/jwk-set+json",
    "Accept-Encoding": "identity",
    "User-Agent": "machinebot",
}
"""What we ask for keys with. An API server of Kubernetes has its keys as a JWK Set alone (RFC 7517, section 8.5.2), and says 406
where only plain JSON is taken. Nothing compressed: a short answer could become a very long one."""

_AUTOMATIC: Final = ("Accept", "Accept-Encoding", "Content-Type", "User-Agent")
"""Headers that aiohttp would add by itself: a request that somebody has signed goes out as it is."""

Review = Callable[[str, str], Awaitable[Mapping[str, Any]]]
"""See `joins.base.Outside.review`."""


@dataclass(slots=True)
class _Entry:
    """What we know of one issuer.

    Attributes:
        keys: The last good ones.
        fetched_at: When they were fetched.
        tried_at: When the last fetch ended, whatever came of it.
        problem: What came of it, where it was nothing good.
        task: The fetch that is under way; everybody who needs its keys waits for the same.
    """

    keys: KeySet | None = None
    fetched_at: datetime | None = None
    tried_at: datetime | None = None
    problem: MachinebotError | None = None
    task: asyncio.Task[None] | None = None

    def wants(self, kid: str, now: datetime) -> bool:
        """Whether keys should be fetched for that `kid`."""
        return self.keys is None or kid not in self.keys or not _within(self.fetched_at, FRESH, now)

    def may(self, now: datetime) -> bool:
        """Whether the issuer may be asked again already."""
        return not _within(self.tried_at, RETRY if self.keys is None else COOLDOWN, now)


class _Pool:
    """Connections that are made at first use, since they belong to the running loop. What one pool waits for holds up no other.

    Args:
        session: Makes them, for a number of threads that look names up.
        threads: See `Resolver`.
    """

    def __init__(self, session: Callable[[int], aiohttp.ClientSession], threads: int) -> None:
        self._make = session
        self._threads = threads
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, method: str, url: URL, longest: int, *, headers: Mapping[str, str], body: bytes = b"") -> HTTPSAnswer:
        """The answer to a request.

        Raises:
            aiohttp.ClientError: It is too long, or there is none.
        """
        if self._session is None:
            self._session = self._make(self._threads)
        async with self._session.request(
            method,
            url,
            headers=headers,
            data=body or None,
            allow_redirects=False,
            skip_auto_headers=_AUTOMATIC,
        ) as response:
            parts, length = [], 0
            while part := await response.content.read(_CHUNK):
                length += len(part)
                if length > longest:
                    raise aiohttp.ClientPayloadError("too long")
                parts.append(part)
            return HTTPSAnswer(status=response.status, body=b"".join(parts))

    async def close(self) -> None:
        """Closes them."""
        if self._session is not None:
            await self._session.close()


class Issuers:
    """`joins.base.Outside`, over the network.

    Args:
        review: Asks the API server about a ServiceAccount token.
        clock: The time, for how old keys are.
        ssl_context: CAs that are trusted; None for those of the system.
        connect: From host names to address and port that are called instead; such an address is not held against what is
            refused. TLS still proves the host name.
        counted: Told what came of each fetch of keys: `good`, or the reason.
    """

    def __init__(
        self,
        *,
        review: Review,
        clock: Clock | None = None,
        ssl_context: ssl.SSLContext | None = None,
        connect: Mapping[str, tuple[str, int]] | None = None,
        counted: Callable[[str], None] = lambda _result: None,
    ) -> None:
        self._review = review
        self._clock = clock or SystemClock()
        self._ssl = ssl_context
        self._connect = dict(connect or {})
        self._counted = counted
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()
        self._issuers = _Pool(self._session, _ISSUERS_THREADS)
        self._services = _Pool(self._session, _SERVICES_THREADS)

    async def close(self) -> None:
        """Ends fetches that are under way, and closes the connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pool in (self._issuers, self._services):
            await pool.close()

    async def review(self, token: str, audience: str) -> Mapping[str, Any]:
        """See `joins.base.Outside`."""
        return await self._review(token, audience)

    async def keys(self, issuer: str, kid: str) -> KeySet:
        """See `joins.base.Outside`.

        Raises:
            Unavailable: They cannot be fetched, and none were in the last day (`IssuerAway`, `IssuerUnusable`).
            Invalid: Nobody is asked by that name (`IssuerRefused`).
        """
        entry, now = self._entry(issuer), self._clock.now()
        if entry.wants(kid, now):
            if entry.task is None and entry.may(now):
                entry.task = self._start(issuer, entry)
            if entry.task is not None:
                await asyncio.shield(entry.task)
        if entry.keys is None or not _within(entry.fetched_at, LAST_GOOD, self._clock.now()):
            raise _again(entry.problem)
        return entry.keys

    async def send(self, request: HTTPSRequest) -> HTTPSAnswer:
        """See `joins.base.Outside`.

        Raises:
            Unavailable: No answer in time, or one that is too long (`ServiceAway`).
            Invalid: The request is none (`RequestRefused`).
        """
        url = _url_of(request)
        try:
            async with asyncio.timeout(SECONDS):
                return await self._services.ask(request.method, url, MAX_ANSWER, headers=request.headers, body=request.body)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.warning("a request of a join method failed", extra={"host": request.host, "error": type(error).__name__})
            raise Unavailable("ServiceAway", f"{request.host} gives no usable answer over HTTPS") from None

    def _entry(self, issuer: str) -> _Entry:
        entry = self._entries.get(issuer)
        if entry is None:
            if https_url(issuer).query_string:
                raise Invalid("IssuerRefused", "an issuer has no query")
            entry = self._entries[issuer] = _Entry()
            if len(self._entries) > MAX_ISSUERS:
                self._entries.popitem(last=False)
        self._entries.move_to_end(issuer)
        return entry

    def _start(self, issuer: str, entry: _Entry) -> asyncio.Task[None]:
        # A task of its own: whoever asked first may hang up while others wait.
        task = asyncio.create_task(self._refresh(issuer, entry), name="keys of an issuer")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _refresh(self, issuer: str, entry: _Entry) -> None:
        """Fetches the keys of an issuer, and keeps the last good ones where that fails."""
        try:
            keys = await self._fetch(issuer)
        except MachinebotError as problem:
            entry.problem = problem
            self._counted(problem.reason)
            log.warning("keys of an OpenID issuer were not fetched", extra={"issuer": issuer, "reason": problem.reason})
        else:
            entry.keys, entry.fetched_at, entry.problem = keys, self._clock.now(), None
            self._counted("good")
        finally:
            entry.task, entry.tried_at = None, self._clock.now()

    async def _fetch(self, issuer: str) -> KeySet:
        """The keys of an issuer, by discovery.

        Raises:
            Unavailable: See `keys`.
            Invalid: See `keys`.
        """
        try:
            async with asyncio.timeout(SECONDS):
                document = await self._document(https_url(issuer.rstrip("/") + WELL_KNOWN), MAX_CONFIGURATION)
                place = _place_of_keys(document, issuer)
                return parse_jwks(await self._document(https_url(place), MAX_JWKS))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            log.info("an OpenID issuer did not answer", extra={"issuer": issuer, "error": type(error).__name__})
            raise Unavailable("IssuerAway", f"the issuer {issuer} gives no usable answer over HTTPS: try again later") from None
        except Invalid as error:
            if error.reason == "IssuerRefused":
                raise
            raise _unusable(issuer) from None

    async def _document(self, url: URL, longest: int) -> bytes:
        """What stands at an address.

        Raises:
            aiohttp.ClientError: Or another sign that nothing does.
        """
        answer = await self._issuers.ask("GET", url, longest, headers=_HEADERS)
        if answer.status != 200:  # noqa: PLR2004 - HTTP OK
            raise aiohttp.ClientPayloadError(f"status {answer.status}")
        return answer.body

    def _session(self, threads: int) -> aiohttp.ClientSession:
        if self._ssl is None:
            self._ssl = ssl.create_default_context()
        connector = aiohttp.TCPConnector(
            limit=_CONNECTIONS,
            use_dns_cache=False,
            resolver=Resolver(self._connect, threads),
            ssl=self._ssl,
        )
        return aiohttp.ClientSession(
            connector=connector,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            timeout=aiohttp.ClientTimeout(total=SECONDS),
        )


def _within(moment: datetime | None, span: timedelta, now: datetime) -> bool:
    """Whether that moment is no longer ago than the span. A clock that was put back does not make it so."""
    return moment is not None and timedelta(0) <= now - moment < span


def _url_of(request: HTTPSRequest) -> URL:
    """Where a request goes.

    Raises:
        Invalid: Not to port 443 of that host, in one of the two ways, or its headers are none (`RequestRefused`).
    """
    url = None
    with contextlib.suppress(Invalid):
        url = https_url(f"https://{request.host}{request.path}")
    whole = url is not None and url.host == request.host and url.port == HTTPS_PORT and request.method in {"GET", "POST"}
    if url is None or not whole or not all(text.isprintable() for header in request.headers.items() for text in header):
        raise Invalid(
            "RequestRefused", "a request of a join method goes to port 443 of a host name, by GET or POST, its headers text"
        )
    return url


def _place_of_keys(document: bytes, issuer: str) -> str:
    """`jwks_uri` of an OpenID configuration.

    Raises:
        Unavailable: It is none of that issuer (`IssuerUnusable`).
    """
    try:
        configuration = json_object(document)
    except ValueError:
        raise _unusable(issuer) from None
    place = configuration.get("jwks_uri")
    if configuration.get("issuer") != issuer or not isinstance(place, str):
        raise _unusable(issuer)
    return place


def _unusable(issuer: str) -> Unavailable:
    return Unavailable(
        "IssuerUnusable",
        f"what {issuer} publishes is no OpenID configuration of exactly that issuer with a key set: check the issuer's name",
    )


def _again(problem: MachinebotError | None) -> MachinebotError:
    """The same problem for one more who asks; an exception of their own, since it gathers their traceback."""
    if isinstance(problem, Invalid):
        return Invalid(problem.reason, problem.message)
    reason, message = ("IssuerAway", "the issuer gives no keys") if problem is None else (problem.reason, problem.message)
    return Unavailable(reason, message, retry_after=RETRY.total_seconds())
