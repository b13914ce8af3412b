"""The join API as calls: messages in, messages out, refusals as our own errors. Holds no state but how it connects."""

import re
from datetime import datetime
from typing import Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from pydantic import ValidationError

from machinebot.client.transport import UNREADABLE, Address, Answer, Identity, context, send, unverified_context
from machinebot.errors import Conflict, Denied, Invalid, MachinebotError, NotFound, Unavailable
from machinebot.protocol.messages import (
    CHALLENGE_PATH,
    ISSUE_PATH,
    JOIN_PATH,
    RENEW_PATH,
    TRUST_PATH,
    ChallengeAnswer,
    ChallengeRequest,
    IssueAnswer,
    IssueRequest,
    JoinAnswer,
    JoinRequest,
    Message,
    Problem,
    RenewRequest,
    TrustAnswer,
)

MessageT = TypeVar("MessageT", bound=Message)

TIMEOUT: Final = 30.0
"""Seconds for connecting, for the handshake, and for all of the answer."""

IDENTITY_CA_PATH: Final = "/trust/identity-ca"
"""Where a server serves the CAs that sign the certificate of its HTTPS, unless it was given another certificate."""

MAX_MESSAGE: Final = 1024
"""Longest message of a refusal that is passed on, characters."""

MAX_RETRY_AFTER: Final = 3600.0
"""Longest pause that a server may ask for, seconds: half of the shortest credential's remainder must be left to try in."""

_OK: Final = 200
_REASON: Final = re.compile("[A-Z][A-Za-z0-9]{0,63}")
_SERVER_ERRORS: Final = 500
_TOO_SLOW: Final = 408
_TOO_MANY: Final = 429

_KINDS: Final[dict[int, type[MachinebotError]]] = {
    400: Invalid,
    401: Denied,
    403: Denied,
    404: NotFound,
    409: Conflict,
    413: Invalid,
    422: Invalid,
}
"""Which of our errors each status is; 429 and all from 500 on are `Unavailable`."""


class JoinClient:
    """Calls of the join API at one address. It blocks, and may be used from several threads.

    Args:
        url: Address of the server, such as `https://machinebot.example.test`.
        ca: CA certificates that the server is verified by, PEM, and no others; None for the machine's own.
        identity: What the bot is known by where it has joined before; None for nothing.
        timeout: Seconds for connecting, for the handshake, and for all of the answer.

    Raises:
        Invalid: One of these cannot be used.
    """

    def __init__(self, url: str, *, ca: bytes | None = None, identity: Identity | None = None, timeout: float = TIMEOUT) -> None:
        self._address = Address.of(url)
        self._tls = context(ca, identity)
        self._timeout = timeout

    def challenge(self, request: ChallengeRequest) -> ChallengeAnswer:
        """What a join takes.

        Raises:
            MachinebotError: `Invalid`, `Denied` and `NotFound` as the server means them; `Unavailable` where it is away, is busy
                or answers what cannot be read. This holds for every call here.
        """
        return self._post(CHALLENGE_PATH, request, ChallengeAnswer)

    def join(self, request: JoinRequest) -> JoinAnswer:
        """Joins by a proof; with the identity that the instance has, it stays the same instance."""
        return self._post(JOIN_PATH, request, JoinAnswer)

    def renew(self, request: RenewRequest) -> JoinAnswer:
        """The next identity of a renewable instance; takes the one that it has."""
        return self._post(RENEW_PATH, request, JoinAnswer)

    def issue(self, request: IssueRequest) -> IssueAnswer:
        """Credentials; takes an identity."""
        return self._post(ISSUE_PATH, request, IssueAnswer)

    def trust(self) -> TrustAnswer:
        """The trust bundle."""
        return _parsed(self._ask(TRUST_PATH), TrustAnswer)

    def server_ca(self) -> bytes:
        """The CAs of identities of the server, PEM: the one that signed its HTTPS certificate, and its heirs."""
        return self._ask(IDENTITY_CA_PATH).body

    def _post(self, path: str, request: Message, answer: type[MessageT]) -> MessageT:
        return _parsed(self._ask(path, request.json_bytes()), answer)

    def _ask(self, path: str, body: bytes | None = None) -> Answer:
        return checked(send(self._address, self._tls, path, body=body, timeout=self._timeout))


def unverified_server_ca(url: str, *, timeout: float = TIMEOUT) -> bytes:
    """`JoinClient.server_ca` from whoever answers at the address: good for nothing until it is held against a pin.

    Raises:
        MachinebotError: See `JoinClient.challenge`.
    """
    return checked(send(Address.of(url), unverified_context(), IDENTITY_CA_PATH, timeout=timeout)).body


def checked(answer: Answer) -> Answer:
    """The answer, where it is a good one.

    Raises:
        MachinebotError: It is a refusal, or none of the join API's.
    """
    if answer.status == _OK:
        return answer
    try:
        problem = Problem.model_validate_json(answer.body)
    except ValidationError:
        problem = Problem(reason="", message="")
    if _REASON.fullmatch(problem.reason) is None:
        raise Unavailable(
            UNREADABLE,
            f"the server answers {answer.status}, and no reason of the join API: is this its address, and no proxy in between?",
            retry_after=_retry_after(answer),
        )
    message = " ".join(problem.message.split())[:MAX_MESSAGE]
    kind = _KINDS.get(answer.status)
    if kind is not None:
        raise kind(problem.reason, message)
    if answer.status in {_TOO_SLOW, _TOO_MANY} or answer.status >= _SERVER_ERRORS:
        raise Unavailable(problem.reason, message, retry_after=_retry_after(answer))
    raise Unavailable(UNREADABLE, f"the server answers {answer.status}, which no join API does: is this its address?")


def _parsed(answer: Answer, kind: type[MessageT]) -> MessageT:
    try:
        return kind.model_validate_json(answer.body)
    except ValidationError as error:
        # Without the error's text: it may show what was read.
        raise Unavailable(
            UNREADABLE, f"the answer is no {kind.__name__} of this version of the join API: is this its address?"
        ) from error


def _retry_after(answer: Answer) -> float | None:
    """Seconds that the server asks for; the other form, a date, is not one that ours uses."""
    text = answer.retry_after.strip()
    return min(float(text), MAX_RETRY_AFTER) if text.isascii() and text.isdecimal() and len(text) <= len("999999") else None


def identity_dates(certificate: str, public_key: bytes) -> tuple[datetime, datetime]:
    """From when to when an identity that came is good, UTC.

    Args:
        certificate: PEM.
        public_key: The key that it was asked for, DER SubjectPublicKeyInfo.

    Raises:
        Unavailable: It is no certificate, or one of another key.
    """
    try:
        found = x509.load_pem_x509_certificate(certificate.encode())
        certified = found.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    except (ValueError, UnsupportedAlgorithm):
        certified, found = b"", None
    if found is None or certified != public_key:
        raise Unavailable(UNREADABLE, "the identity that came is none, or one of another key: is this the address of a join API?")
    return found.not_valid_before_utc, found.not_valid_after_utc
