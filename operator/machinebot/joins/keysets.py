"""Keys that platforms sign with, from JSON Web Key Sets (RFC 7517): public keys only, each bound to what fits it."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from machinebot.errors import Invalid
from machinebot.joins.strict import json_object

SigningKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey

MAX_JWKS: Final = 128 * 1024
"""Longest key set that is read, bytes; the longest of the known platforms has some 20 KiB."""

MAX_KEYS: Final = 64
"""Most keys of a set that are read."""

MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 8192
"""Shorter RSA keys can be broken, longer ones cost too much to verify with."""

MAX_RSA_EXPONENT_BITS: Final = 32
"""Longest public exponent, bits: each costs a multiplication or two, and everybody's has 17."""

MAX_SAME_KID: Final = 4
"""Most keys of one `kid` that a token is tried with; whoever gives a set may not make one token cost sixty verifications."""

_CACHED: Final = 64
"""Key sets of join tokens that are kept parsed: at most 8 MiB of text, and a few milliseconds saved at each join."""

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final[Mapping[str, frozenset[str]]] = {
    "secp256r1": frozenset({"ES256"}),
    "secp384r1": frozenset({"ES384"}),
    "secp521r1": frozenset({"ES512"}),
}


@dataclass(frozen=True, slots=True)
class VerificationKey:
    """One public key, and what it may verify.

    Attributes:
        key: The key.
        algorithms: Values of `alg` (RFC 7518, section 3.1) that it may be used with: by its type, never by a token's header.
    """

    key: SigningKey
    algorithms: frozenset[str]


@dataclass(frozen=True, slots=True)
class KeySet:
    """Keys by their `kid`; more than one where a platform gives two of the same."""

    keys: Mapping[str, tuple[VerificationKey, ...]]

    def fitting(self, kid: str, algorithm: str) -> tuple[VerificationKey, ...]:
        """The keys of that id that may be used with the algorithm."""
        return tuple(key for key in self.keys.get(kid, ()) if algorithm in key.algorithms)

    def __contains__(self, kid: str) -> bool:
        return kid in self.keys


def parse_jwks(data: bytes) -> KeySet:
    """The public signing keys of a JSON Web Key Set. Keys of other kinds and uses are passed over, symmetric ones above all.

    Args:
        data: The set as JSON.

    Raises:
        Invalid: It is too long, no key set, or has no key that signatures can be verified with (`InvalidKeySet`).
    """
    if len(data) > MAX_JWKS:
        raise Invalid("InvalidKeySet", f"the key set is longer than the {MAX_JWKS} bytes that are read")
    try:
        entries = json_object(data).get("keys")
    except ValueError:
        entries = None
    if not isinstance(entries, list):
        raise Invalid("InvalidKeySet", 'what is given as key set is none: write JSON of the form {"keys": [...]}')
    found: dict[str, tuple[VerificationKey, ...]] = {}
    for entry in entries[:MAX_KEYS]:
        kid = entry.get("kid") if isinstance(entry, dict) else None
        key = _key(entry) if isinstance(kid, str) and kid else None
        if key is not None:
            found[str(kid)] = (*found.get(str(kid), ()), key)[:MAX_SAME_KID]
    if not found:
        raise Invalid("InvalidKeySet", "the key set has no public key with a kid that signatures can be verified with")
    return KeySet(MappingProxyType(found))


@lru_cache(maxsize=_CACHED)
def static_keys(text: str) -> KeySet:
    """The keys of a set that stands in a join token; the same as `parse_jwks`, kept.

    Raises:
        Invalid: See `parse_jwks`.
    """
    return parse_jwks(text.encode())


def _key(entry: Mapping[str, Any]) -> VerificationKey | None:
    if entry.get("kty") not in ("RSA", "EC", "OKP") or entry.get("use", "sig") != "sig":
        return None
    operations = entry.get("key_ops", ["verify"])
    if not isinstance(operations, list) or "verify" not in operations:
        return None
    # Only what makes a public key: a private one that was published by mistake is used by its public half.
    public = {name: entry[name] for name in ("kty", "n", "e", "crv", "x", "y") if name in entry}
    try:
        key = jwt.PyJWK.from_dict(public).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    algorithms = _algorithms(key)
    stated = entry.get("alg")
    if stated is not None:
        algorithms &= {stated} if isinstance(stated, str) else frozenset()
    return VerificationKey(key=key, algorithms=algorithms) if algorithms else None


def _algorithms(key: object) -> frozenset[str]:
    match key:
        case rsa.RSAPublicKey() if _is_sound(key):
            return _RSA
        case ec.EllipticCurvePublicKey():
            return _CURVES.get(key.curve.name, frozenset())
        case ed25519.Ed25519PublicKey():
            return frozenset({"EdDSA", "Ed25519"})
        case _:
            return frozenset()


def _is_sound(key: rsa.RSAPublicKey) -> bool:
    return MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS and key.public_numbers().e.bit_length() <= MAX_RSA_EXPONENT_BITS
