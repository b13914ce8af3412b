"""What a signed JWT must fulfil before it is handed out (RFC 7519; JWT-SVID, sections 2 and 3): see `checks`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from machinebot.authority.checks import hold, seconds
from machinebot.authority.generations import Generation
from machinebot.authority.profiles import TokenRequest


@dataclass(frozen=True, slots=True)
class ReadToken:
    """A JWT as its bytes say, nothing of it verified yet.

    Attributes:
        unverified_header: Its header.
        unverified_claims: Its claims.
        token: The compact form.
    """

    unverified_header: Mapping[str, Any]
    unverified_claims: Mapping[str, Any]
    token: str


def check_token(token: str, request: TokenRequest, issuer: Generation) -> None:
    """Holds a signed JWT against what was asked for.

    Args:
        token: What was signed, in compact form.
        request: What was asked for.
        issuer: The CA that signed.

    Raises:
        Denied: It differs; it must not be handed out.
    """
    hold(lambda: _load_token(token), TOKEN_CHECKS, request, issuer)


def _load_token(token: str) -> ReadToken:
    read = jwt.decode_complete(token, options={"verify_signature": False})
    return ReadToken(unverified_header=read["header"], unverified_claims=read["payload"], token=token)


def _token_header(read: ReadToken, _request: TokenRequest, issuer: Generation) -> bool:
    algorithms = {"ES256": ec.SECP256R1, "ES384": ec.SECP384R1}
    algorithm, key = read.unverified_header.get("alg"), issuer.key.public_key
    if isinstance(key, ec.EllipticCurvePublicKey):
        fits = isinstance(key.curve, algorithms.get(str(algorithm), ()))
    else:
        fits = isinstance(key, rsa.RSAPublicKey) and algorithm == "RS256"
    return fits and read.unverified_header == {"alg": algorithm, "kid": issuer.id, "typ": "JWT"}


def _token_serial(read: ReadToken, request: TokenRequest, _issuer: Generation) -> bool:
    return read.unverified_claims.get("jti") == str(request.stamp.serial)


def _token_dates(read: ReadToken, request: TokenRequest, _issuer: Generation) -> bool:
    begin, end = seconds(request.stamp.not_before), seconds(request.stamp.not_after)
    told = [read.unverified_claims.get(name) for name in ("iat", "nbf", "exp")]
    return told == [begin, begin, end]


def _token_span(read: ReadToken, request: TokenRequest, issuer: Generation) -> bool:
    begin, end = read.unverified_claims["nbf"], read.unverified_claims["exp"]
    return timedelta(seconds=end - begin) <= request.profile.ceiling and end <= seconds(issuer.not_after)


def _token_names(read: ReadToken, request: TokenRequest, _issuer: Generation) -> bool:
    told = [read.unverified_claims.get(name) for name in ("iss", "sub", "aud")]
    return told == [request.issuer, request.subject, list(request.audiences)] and bool(request.audiences)


def _token_nothing_else(read: ReadToken, _request: TokenRequest, _issuer: Generation) -> bool:
    return read.unverified_claims.keys() == {"iss", "sub", "aud", "iat", "nbf", "exp", "jti"}


def _token_signature(read: ReadToken, request: TokenRequest, issuer: Generation) -> bool:
    # Raises where it is not the CA's. The algorithm was held against the key before; the dates were too.
    jwt.decode(
        read.token,
        issuer.key.public_key,
        algorithms=[str(read.unverified_header["alg"])],
        audience=request.audiences[0],
        options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
    )
    return True


TOKEN_CHECKS: Final[tuple[Callable[[ReadToken, TokenRequest, Generation], bool], ...]] = (
    _token_header,
    _token_serial,
    _token_dates,
    _token_span,
    _token_names,
    _token_nothing_else,
    _token_signature,
)
"""What a signed JWT must fulfil. The last one relies on the first: the algorithm is the key's own."""
