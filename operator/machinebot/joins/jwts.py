"""Tokens of platforms: JWTs (RFC 7519) whose claims are read only from bytes whose signature was verified."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any, Final

from jwt.algorithms import get_default_algorithms

from machinebot.errors import Denied
from machinebot.joins.keysets import KeySet
from machinebot.joins.strict import base64url, json_object

MAX_TOKEN: Final = 16 * 1024
"""Longest token that is read, characters; those of the known platforms have 4 KiB at most."""

MAX_KID: Final = 256
"""Longest `kid`, characters."""

LEEWAY: Final = timedelta(seconds=10)
"""How far the clock of a platform may be from ours."""

MAX_AGE: Final = timedelta(hours=24)
"""Oldest token that is taken, by its `iat`, whatever its `exp` says: a proof of who one is now."""

ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
"""Every `alg` that is ever taken: asymmetric signatures. Which of them a key may be used with follows from the key."""

_NEW_NAMES: Final = {"Ed25519": "EdDSA"}
"""RFC 9864 gives each kind of key a name of its own; the signatures are the same."""

_VERIFIERS: Final = {name: get_default_algorithms()[_NEW_NAMES.get(name, name)] for name in ALGORITHMS}


@dataclass(frozen=True, slots=True)
class UnverifiedToken:
    """A token that was taken apart. Nothing in it is to be believed; `kid` only finds the key.

    Attributes:
        kid: Which key is said to have signed.
        algorithm: How; one of `ALGORITHMS`.
        signed: The bytes that the signature is over.
        payload: The claims, not parsed.
        signature: The signature.
    """

    kid: str
    algorithm: str
    signed: bytes = field(repr=False)
    payload: bytes = field(repr=False)
    signature: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a token must say of itself.

    Attributes:
        issuer: `iss`, exactly; None where the keys are the join token's own and belong to nobody else.
        audience: Must be among `aud`, exactly.
        now: The time.
        longest: Longest span from `iat` to `exp`; None for any.
    """

    issuer: str | None
    audience: str
    now: datetime
    longest: timedelta | None = None


@dataclass(frozen=True, slots=True)
class VerifiedClaims:
    """Claims from verified bytes. Made by `verified_claims` alone.

    Attributes:
        claims: All of them.
        expires_at: `exp`.
    """

    claims: Mapping[str, Any] = field(repr=False)
    expires_at: datetime

    def text(self, *path: str) -> str | None:
        """The text or whole number at that path as text; None where there is none, or it is something else."""
        value = self.at(*path)
        if isinstance(value, str):
            return value
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else None

    def at(self, *path: str) -> object:
        """What stands at that path of keys; None where there is nothing."""
        value: object = self.claims
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


def take_apart(token: str) -> UnverifiedToken:
    """The parts of a token in compact form (RFC 7515, section 3.1), its header held against what is taken at all.

    Raises:
        Denied: It is no such token (`TokenUnreadable`), or signed in a way that is not taken (`AlgorithmNotTaken`).
    """
    if not 0 < len(token) <= MAX_TOKEN:
        raise Denied("TokenUnreadable", f"a token has 1 to {MAX_TOKEN} characters: send the one that the platform gave")
    try:
        first, second, third = token.split(".")
        header, payload, signature = json_object(base64url(first)), base64url(second), base64url(third)
    except ValueError:
        raise Denied("TokenUnreadable", "what was sent is no JWT: send the token exactly as the platform gave it") from None
    algorithm, kid = header.get("alg"), header.get("kid")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise Denied("AlgorithmNotTaken", f"the token is not signed by an asymmetric algorithm: {', '.join(sorted(ALGORITHMS))}")
    if "crit" in header:
        raise Denied("AlgorithmNotTaken", "the token's header wants an extension to be understood (crit), and none is")
    if not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID:
        raise Denied("KeyUnknown", "the token does not say which key signed it (kid)")
    return UnverifiedToken(
        kid=kid, algorithm=algorithm, signed=f"{first}.{second}".encode("ascii"), payload=payload, signature=signature
    )


def verified_claims(unverified_token: UnverifiedToken, keys: KeySet, expected: Expected) -> VerifiedClaims:
    """The claims of a token, once its signature, issuer, audience and dates were checked.

    Args:
        unverified_token: From `take_apart`.
        keys: Keys of the expected issuer, and of nobody else.
        expected: What it must say.

    Raises:
        Denied: A check fails: `KeyUnknown`, `SignatureInvalid`, `TokenUnreadable`, `WrongIssuer`, `WrongAudience`,
            `TokenExpired`, `TokenNotYetValid`, `TokenTooLongLived`.
    """
    token = unverified_token
    fitting = keys.fitting(token.kid, token.algorithm)
    if not fitting:
        raise Denied("KeyUnknown", "no key of the issuer has signed the token, by its kid and its algorithm")
    verifier = _VERIFIERS[token.algorithm]
    if not any(verifier.verify(token.signed, key.key, token.signature) for key in fitting):
        raise Denied("SignatureInvalid", "the signature of the token is not good")
    try:
        claims = json_object(token.payload)
    except ValueError:
        raise Denied("TokenUnreadable", "the claims of the token are no JSON object with unique keys") from None
    return _checked(claims, expected)


def _checked(claims: dict[str, Any], expected: Expected) -> VerifiedClaims:
    if expected.issuer is not None and claims.get("iss") != expected.issuer:
        raise Denied("WrongIssuer", "the token is not one of the issuer that the join token names")
    audiences = claims.get("aud")
    listed = audiences if isinstance(audiences, list) else [audiences]
    if not expected.audience or expected.audience not in [each for each in listed if isinstance(each, str)]:
        raise Denied(
            "WrongAudience",
            f"the token is not for this authority: ask the platform for one with the audience {expected.audience!r}",
        )
    expires, issued, begins = (_moment(claims, name) for name in ("exp", "iat", "nbf"))
    if expires is None or issued is None:
        raise Denied("TokenUnreadable", "the token does not say when it was made and when it ends (iat, exp)")
    if expected.now - LEEWAY >= expires or expected.now - issued > MAX_AGE:
        raise Denied("TokenExpired", "the token has expired: get a new one for each join")
    if max(issued, begins or issued) > expected.now + LEEWAY:
        raise Denied("TokenNotYetValid", "the token begins in the future: one of the clocks is wrong")
    if expected.longest is not None and expires - issued > expected.longest:
        minutes = int(expected.longest.total_seconds()) // 60
        raise Denied("TokenTooLongLived", f"the token lives longer than {minutes} minutes: ask for one of 10")
    return VerifiedClaims(claims=MappingProxyType(claims), expires_at=expires)


def _moment(claims: Mapping[str, Any], name: str) -> datetime | None:
    """A NumericDate (RFC 7519, section 2), or None where it is not there.

    Raises:
        Denied: It is something else.
    """
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(ValueError, OverflowError, OSError):
            return datetime.fromtimestamp(value, UTC)
    raise Denied("TokenUnreadable", f"the claim {name} of the token is no time")
