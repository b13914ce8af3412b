"""The join API over HTTPS: reads messages, holds back who asks too often, and hands on to the desk. It decides nothing else.

Version 1. No cookie, no CORS: it is no browser's business. `docs/openapi.json` describes it.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from aiohttp import web
from pydantic import ValidationError

from machinebot.authority.desk import Desk
from machinebot.authority.visits import Attempt, Result, Welcome
from machinebot.clock import Clock, rfc3339
from machinebot.errors import Denied, Invalid, MachinebotError, Unavailable
from machinebot.joins.strict import json_object
from machinebot.metrics import Metrics
from machinebot.outputs.trust import REFRESH
from machinebot.policy.credential import IssueRequest as Wanted
from machinebot.policy.credential import TrustBundle
from machinebot.protocol import convert
from machinebot.protocol.messages import (
    CHALLENGE_PATH,
    ISSUE_PATH,
    JOIN_PATH,
    MAX_REQUEST,
    OPENAPI_PATH,
    RENEW_PATH,
    RENEWAL,
    TRUST_PATH,
    ChallengeAnswer,
    ChallengeRequest,
    IdentityAnswer,
    IssueAnswer,
    IssueRequest,
    JoinAnswer,
    JoinRequest,
    Message,
    OutputAnswer,
    OutputRequest,
    RenewRequest,
    Request,
)
from machinebot.protocol.openapi import document as openapi_document
from machinebot.reconcile.places import DEFAULT
from machinebot.resources.meta import first_error
from machinebot.web.answers import document, problem
from machinebot.web.limits import Limiter, Rate, source
from machinebot.web.trust import Trust
from machinebot.web.turns import Turns

JSON: Final = "application/json"

RequestT = TypeVar("RequestT", bound=Request)

BODY_SECONDS: Final = 5.0
"""Longest time for a message, once its head is there: who sends slowly does not keep a place."""

TOO_MANY: Final = "TooManyRequests"
"""Reason of 429."""


@dataclass(frozen=True, slots=True)
class JoinRates:
    """How often who may ask.

    Attributes:
        address: For each client address, of IPv6 for each network.
        token: For each join token.
    """

    address: Rate
    token: Rate


class JoinRoutes:
    """The routes.

    Args:
        desk: Decides.
        trust: Where the trust of the authorities is.
        ready: Whether the desk knows everything that there is.
        rates: How often who may ask.
        clock: The time.
        metrics: Joins by method and result, issues, and how long each request took.
    """

    def __init__(
        self, *, desk: Desk, trust: Trust, ready: Callable[[], bool], rates: JoinRates, clock: Clock, metrics: Metrics
    ) -> None:
        self._desk = desk
        self._trust = trust
        self._ready = ready
        self._clock = clock
        self._metrics = metrics
        self._by_address = Limiter(rates.address, time.monotonic)
        self._by_token = Limiter(rates.token, time.monotonic)
        self._turns = Turns()

    def add_to(self, router: web.UrlDispatcher) -> None:
        """Adds them."""
        for path, handler in (
            (CHALLENGE_PATH, self._challenge),
            (JOIN_PATH, self._join),
            (RENEW_PATH, self._renew),
            (ISSUE_PATH, self._issue),
        ):
            router.add_post(path, self._measured(path, handler))
        for prefix in ("", "/authorities/{authority}"):
            router.add_get(f"{prefix}{TRUST_PATH}", self._bundle)
        router.add_get(OPENAPI_PATH, self._openapi)

    # --- requests --------------------------------------------------------------------------------------------------------

    async def _challenge(self, request: web.Request) -> web.Response:
        asked = await self._read(request, ChallengeRequest)
        self._hold_back(asked.namespace, asked.join_token)
        offer = self._desk.offer(asked.namespace, asked.join_token, convert.public_key(asked.public_key), now=self._clock.now())
        return _answer(
            ChallengeAnswer(
                method=offer.method,
                cluster_name=offer.cluster_name,
                audience=offer.audience,
                challenge=offer.challenge,
                expires_at=None if offer.expires_at is None else rfc3339(offer.expires_at),
            )
        )

    async def _join(self, request: web.Request) -> web.Response:
        asked = await self._read(request, JoinRequest)
        self._hold_back(asked.namespace, asked.join_token)
        attempt = Attempt(
            namespace=asked.namespace,
            join_token=asked.join_token,
            public_key=convert.public_key(asked.public_key),
            challenge=asked.challenge,
            proof=asked.proof,
            presented=_presented(request),
            outputs=_wanted(asked.outputs),
            address=request.remote or "",
        )
        method = self._desk.method(asked.namespace, asked.join_token)
        await self._turns.mine()
        try:
            welcome = await self._desk.join(attempt, now=self._clock.now())
        except MachinebotError as error:
            self._metrics.joins.labels(method, error.reason).inc()
            raise
        self._metrics.joins.labels(method, "success").inc()
        return _answer(self._welcome(welcome, asked.outputs))

    async def _renew(self, request: web.Request) -> web.Response:
        presented = _identity(request)
        asked = await self._read(request, RenewRequest)
        await self._turns.mine()
        try:
            welcome = await self._desk.renew(
                presented,
                convert.public_key(asked.public_key),
                _wanted(asked.outputs),
                address=request.remote or "",
                now=self._clock.now(),
            )
        except MachinebotError as error:
            self._metrics.joins.labels(RENEWAL, error.reason).inc()
            raise
        self._metrics.joins.labels(RENEWAL, "success").inc()
        return _answer(self._welcome(welcome, asked.outputs))

    async def _issue(self, request: web.Request) -> web.Response:
        presented = _identity(request)
        asked = await self._read(request, IssueRequest)
        await self._turns.mine()
        results, trust = self._desk.issue(presented, _wanted(asked.outputs), address=request.remote or "", now=self._clock.now())
        return _answer(IssueAnswer(outputs=self._results(asked.outputs, results), trust=convert.trust_answer(trust)))

    async def _bundle(self, request: web.Request) -> web.Response:
        bundle: TrustBundle = self._trust.get(request.match_info.get("authority", DEFAULT))
        return document(request, convert.trust_answer(bundle).json_bytes(), JSON, REFRESH)

    async def _openapi(self, request: web.Request) -> web.Response:
        return document(request, openapi_document(), JSON, REFRESH)

    # --- what they share -------------------------------------------------------------------------------------------------

    def _measured(
        self, path: str, handler: Callable[[web.Request], Awaitable[web.Response]]
    ) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def measured(request: web.Request) -> web.Response:
            begun, code = time.monotonic(), "refused"
            try:
                self._let_in(request)
                response = await handler(request)
                code = "success"
            except _TooManyError as error:
                code = TOO_MANY
                return problem(429, TOO_MANY, str(error), {"Retry-After": str(error.seconds)})
            else:
                return response
            finally:
                self._metrics.join_requests.labels(path, code).inc()
                self._metrics.join_seconds.labels(path).observe(time.monotonic() - begun)

        return measured

    def _let_in(self, request: web.Request) -> None:
        seconds = self._by_address.refused_for(source(request.remote))
        if seconds:
            raise _TooManyError(seconds, "this address")
        if not self._ready():
            raise Unavailable("JoinsNotReady", "bots and join tokens have not been read yet: try again in some seconds")

    async def _read(self, request: web.Request, model: type[RequestT]) -> RequestT:
        """The message of a request.

        Raises:
            Invalid: It is none; the text shows nothing of it.
            HTTPException: It does not come, or is too large.
        """
        if request.content_type != JSON:
            raise Invalid("MessageUnreadable", f"send JSON, with Content-Type: {JSON}")
        data = await _body(request)
        if len(data) > MAX_REQUEST:
            raise Invalid("MessageUnreadable", f"a message has at most {MAX_REQUEST} bytes")
        try:
            return model.model_validate(json_object(data))
        except ValidationError as error:
            raise Invalid("MessageUnreadable", f"the message does not fit: {first_error(error)}; see {OPENAPI_PATH}") from None
        except ValueError:
            raise Invalid("MessageUnreadable", "the message is no JSON object with unique keys") from None

    def _hold_back(self, namespace: str, join_token: str) -> None:
        seconds = self._by_token.refused_for((namespace, join_token))
        if seconds:
            raise _TooManyError(seconds, "this join token")

    def _welcome(self, welcome: Welcome, outputs: tuple[OutputRequest, ...]) -> JoinAnswer:
        identity = welcome.identity
        return JoinAnswer(
            identity=IdentityAnswer(
                namespace=identity.bot.namespace,
                bot=identity.bot.name,
                instance=identity.instance,
                generation=identity.generation,
                certificate=welcome.certificate.decode(),
                not_after=rfc3339(identity.expires_at),
                renewable=welcome.renewable,
            ),
            outputs=self._results(outputs, welcome.results),
            trust=convert.trust_answer(welcome.trust),
        )

    def _results(self, outputs: tuple[OutputRequest, ...], results: tuple[Result, ...]) -> tuple[OutputAnswer, ...]:
        answers = []
        for output, result in zip(outputs, results, strict=True):
            kind = "+".join(sorted(output.usages))
            if isinstance(result, MachinebotError):
                self._metrics.issues.labels(kind, ASKED_OUTSIDE, result.reason).inc()
                answers.append(convert.refused(output.name, result))
            else:
                self._metrics.issues.labels(kind, ASKED_OUTSIDE, "success").inc()
                answers.append(OutputAnswer(name=output.name, credential=convert.credential(result)))
        return tuple(answers)


ASKED_OUTSIDE: Final = "Asked"
"""In place of the reason in metrics: why a credential is wanted outside of the cluster is known to the agent alone."""


class _TooManyError(Exception):
    """Somebody asks too often."""

    def __init__(self, seconds: int, who: str) -> None:
        super().__init__(f"too many requests of {who}: ask again in {seconds} s")
        self.seconds = seconds


async def _body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise web.HTTPRequestTimeout(reason=f"the message did not come within {BODY_SECONDS:.0f} s") from None
    except (ConnectionError, web.RequestPayloadError):
        raise Invalid("MessageUnreadable", "the message does not come to its end") from None


def _answer(message: Message) -> web.Response:
    return web.Response(body=message.json_bytes(), content_type=JSON, headers={"Cache-Control": "no-store"})


def _wanted(outputs: tuple[OutputRequest, ...]) -> tuple[Wanted, ...]:
    names = [output.name for output in outputs]
    if len(set(names)) != len(names):
        raise Invalid("MessageUnreadable", "two outputs have the same name: give each its own")
    return tuple(map(convert.issue_request, outputs))


def _presented(request: web.Request) -> bytes | None:
    """The client certificate of the connection, DER, or None."""
    connection = request.get_extra_info("ssl_object")
    shown: bytes | None = None if connection is None else connection.getpeercert(binary_form=True)
    return shown


def _identity(request: web.Request) -> bytes:
    shown = _presented(request)
    if shown is None:
        raise Denied("IdentityMissing", "show the identity of the bot as the client certificate of the connection: join first")
    return shown
