"""Signs JWTs from closed requests (RFC 7519; JWT-SVID, sections 2 and 3), and says which algorithm a CA key signs with."""

from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from machinebot.authority.checks import check_request, seconds
from machinebot.authority.generations import Generation
from machinebot.authority.keys import PublicKey
from machinebot.authority.profiles import TokenRequest
from machinebot.authority.token_checks import check_token
from machinebot.errors import Invalid

TYPE: Final = "JWT"
"""The header `typ` (JWT-SVID, section 2.3: JWT or JOSE)."""


def algorithm(key: PublicKey) -> str:
    """The `alg` of signatures by the key (RFC 7518, section 3.1). The CA of workloads is EC or RSA, see `keys.ca_algorithm`.

    Raises:
        Invalid: JWTs of such a key are not signed.
    """
    match key:
        case ec.EllipticCurvePublicKey():
            return "ES384" if isinstance(key.curve, ec.SECP384R1) else "ES256"
        case rsa.RSAPublicKey():
            return "RS256"
        case _:
            raise Invalid("NoTokenAlgorithm", "a CA with an Ed25519 key signs no JWTs: few verifiers take them")


def claims(request: TokenRequest) -> dict[str, Any]:
    """The claims of the token, times in seconds since 1970."""
    begin = seconds(request.stamp.not_before)
    return {
        "iss": request.issuer,
        "sub": request.subject,
        "aud": list(request.audiences),
        "iat": begin,
        "nbf": begin,
        "exp": seconds(request.stamp.not_after),
        "jti": str(request.stamp.serial),
    }


def sign(request: TokenRequest, issuer: Generation) -> bytes:
    """The token in compact form, checked before and after the signing.

    Raises:
        Denied: A check failed.
    """
    check_request(request, issuer)
    headers = {"typ": TYPE, "kid": issuer.id}
    token = jwt.encode(claims(request), issuer.key.private_key, algorithm(issuer.key.public_key), headers=headers)
    check_token(token, request, issuer)
    return token.encode()
