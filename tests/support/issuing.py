"""Issuers of tokens in the tests: keys, key sets, honest tokens by joserfc, and dishonest ones that are put together by hand."""

import base64
import json
import warnings
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any, NoReturn

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from joserfc import jwk, jwt
from joserfc.errors import SecurityWarning

from machinebot.errors import Unavailable
from machinebot.joins.base import Asked, HTTPSAnswer, HTTPSRequest
from machinebot.joins.keysets import KeySet, parse_jwks

Json = dict[str, Any]
Sign = Callable[[bytes], bytes]

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
SECONDS = int(NOW.timestamp())
CLUSTER = "example.test"
ASKED = Asked(cluster_name=CLUSTER, challenge=None, now=NOW)


@cache
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:  # noqa: ARG001 - another name is another key
    """Kept for the session, since one takes a tenth of a second to make."""
    return rsa.generate_private_key(65537, bits)


@cache
def ec_key(curve: str = "secp256r1") -> ec.EllipticCurvePrivateKey:
    curves = {
        "secp256r1": ec.SECP256R1(),
        "secp384r1": ec.SECP384R1(),
        "secp521r1": ec.SECP521R1(),
        "secp256k1": ec.SECP256K1(),
    }
    return ec.generate_private_key(curves[curve])


@cache
def ed_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def jose_key(key: PrivateKey) -> Any:
    """The key as joserfc has it."""
    match key:
        case rsa.RSAPrivateKey():
            return jwk.RSAKey(key, key)
        case ec.EllipticCurvePrivateKey():
            return jwk.ECKey(key, key)
        case ed25519.Ed25519PrivateKey():
            return jwk.OKPKey(key, key)


def public_jwk(key: PrivateKey, kid: str | None = "a", **more: Any) -> Json:
    named = {} if kid is None else {"kid": kid}
    return dict(jose_key(key).as_dict(private=False)) | named | more


def jwks(*keys: Mapping[str, Any]) -> str:
    return json.dumps({"keys": list(keys)})


def keys_of(key: PrivateKey, kid: str = "a") -> KeySet:
    return parse_jwks(jwks(public_jwk(key, kid)).encode())


def signed(claims: Mapping[str, Any], key: PrivateKey, algorithm: str = "RS256", kid: str | None = "a") -> str:
    """An honest token."""
    header: Json = {"alg": algorithm, "typ": "JWT"} | ({} if kid is None else {"kid": kid})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SecurityWarning)  # EdDSA has a new name, and issuers still use the old one
        return jwt.encode(header, dict(claims), jose_key(key), algorithms=[algorithm])


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def as_bytes(value: bytes | Mapping[str, Any]) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


def assembled(header: bytes | Mapping[str, Any], payload: bytes | Mapping[str, Any], sign: Sign) -> str:
    """A token of any header and payload, signed anyhow."""
    signing = f"{encoded(as_bytes(header))}.{encoded(as_bytes(payload))}"
    return f"{signing}.{encoded(sign(signing.encode()))}"


def rs256(key: rsa.RSAPrivateKey) -> Sign:
    return lambda data: key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def es256(key: ec.EllipticCurvePrivateKey) -> Sign:
    def sign(data: bytes) -> bytes:
        r, s = decode_dss_signature(key.sign(data, ec.ECDSA(hashes.SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    return sign


class KnownKeys:
    """`Outside` that has keys and nothing else.

    Args:
        keys: By issuer; None for one set that every issuer has.
    """

    def __init__(self, keys: KeySet | Mapping[str, KeySet]) -> None:
        self._keys = keys
        self.asked: list[tuple[str, str]] = []

    async def keys(self, issuer: str, kid: str) -> KeySet:
        self.asked.append((issuer, kid))
        if isinstance(self._keys, KeySet):
            return self._keys
        if issuer not in self._keys:
            raise Unavailable("IssuerAway", "not there")
        return self._keys[issuer]

    async def review(self, token: str, audience: str) -> NoReturn:
        raise AssertionError(f"a review of {len(token)} characters for {audience}")

    async def send(self, request: HTTPSRequest) -> HTTPSAnswer:
        raise AssertionError(f"a request to {request.host}")
