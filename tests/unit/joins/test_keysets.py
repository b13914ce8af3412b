"""Which keys of a key set are used, and for what."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed448, rsa, x25519
from joserfc import jwk

from machinebot.errors import Invalid
from machinebot.joins.keysets import MAX_JWKS, MAX_KEYS, MAX_SAME_KID, parse_jwks, static_keys
from support.issuing import PrivateKey, ec_key, ed_key, encoded, jose_key, jwks, public_jwk, rsa_key

RSA = {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
ALL = {*RSA, "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "HS256", "none", "ES256K"}


def algorithms(key: Any, kid: str = "a") -> set[str]:
    """For which algorithms a set of that key has one, beside a good key of another id."""
    found = parse_jwks(jwks(key, public_jwk(rsa_key("beside"), "beside")).encode())
    return {algorithm for algorithm in ALL if found.fitting(kid, algorithm)}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        pytest.param(rsa_key("keysets"), RSA, id="RSA"),
        pytest.param(ec_key("secp256r1"), {"ES256"}, id="P-256"),
        pytest.param(ec_key("secp384r1"), {"ES384"}, id="P-384"),
        pytest.param(ec_key("secp521r1"), {"ES512"}, id="P-521"),
        pytest.param(ed_key(), {"EdDSA", "Ed25519"}, id="Ed25519"),
    ],
)
def test_what_a_key_is_used_for_follows_from_the_key(key: PrivateKey, expected: set[str]) -> None:
    assert algorithms(public_jwk(key)) == expected


def weak_rsa(bits: int, exponent: int) -> dict[str, Any]:
    number = (1 << (bits - 1)) | 12345  # no real modulus: it never comes to using it
    as_text = {
        name: encoded(value.to_bytes((value.bit_length() + 7) // 8, "big")) for name, value in (("n", number), ("e", exponent))
    }
    return {"kty": "RSA", "kid": "a", **as_text}


GOOD = public_jwk(rsa_key("keysets"))
POINT = public_jwk(ec_key())

PASSED_OVER: dict[str, Any] = {
    "symmetric": {"kty": "oct", "kid": "a", "k": "c2VjcmV0"},
    "of another kind": GOOD | {"kty": "AKP"},
    "without a kind": {name: value for name, value in GOOD.items() if name != "kty"},
    "of a kind that is a list": GOOD | {"kty": ["RSA"]},
    "for encryption": GOOD | {"use": "enc"},
    "for signing, by its operations": GOOD | {"key_ops": ["sign"]},
    "for wrapping": GOOD | {"key_ops": ["wrapKey"]},
    "with operations that are a text": GOOD | {"key_ops": "verify"},
    "for an algorithm of another kind": GOOD | {"alg": "ES256"},
    "for a symmetric algorithm": GOOD | {"alg": "HS256"},
    "for no algorithm": GOOD | {"alg": "none"},
    "for an algorithm that is a list": GOOD | {"alg": ["RS256"]},
    "without an id": {name: value for name, value in GOOD.items() if name != "kid"},
    "with an id that is a number": GOOD | {"kid": 7},
    "with an empty id": GOOD | {"kid": ""},
    "RSA of 1024 bits": public_jwk(rsa_key("weak", 1024)),
    "RSA of 9000 bits": weak_rsa(9000, 65537),
    "RSA with a long exponent": weak_rsa(2048, (1 << 32) + 1),
    "RSA with the exponent 1": weak_rsa(2048, 1),
    "RSA with an even exponent": weak_rsa(2048, 2),
    "RSA without a modulus": {name: value for name, value in GOOD.items() if name != "n"},
    "RSA with a modulus that is a number": GOOD | {"n": 5},
    "RSA with a modulus that is no base64": GOOD | {"n": "!"},
    "RSA with an empty modulus": GOOD | {"n": ""},
    "a point beside the curve": POINT | {"y": POINT["x"]},
    "a point that is too short": POINT | {"x": "AAAA"},
    "a point without y": {name: value for name, value in POINT.items() if name != "y"},
    "a curve that is none": POINT | {"crv": "P-257"},
    "a curve that is an object": POINT | {"crv": {}},
    "another curve's name": POINT | {"crv": "P-384"},
    "secp256k1": dict(jwk.ECKey(ec_key("secp256k1"), ec_key("secp256k1")).as_dict(private=False)) | {"kid": "a"},
    "Ed448": dict(jwk.OKPKey(*[ed448.Ed448PrivateKey.generate()] * 2).as_dict(private=False)) | {"kid": "a"},
    "X25519": dict(jwk.OKPKey(*[x25519.X25519PrivateKey.generate()] * 2).as_dict(private=False)) | {"kid": "a"},
    "Ed25519 that is too short": {"kty": "OKP", "crv": "Ed25519", "x": "AAAA", "kid": "a"},
    "a text": "a",
    "null": None,
    "a list": [GOOD],
}


@pytest.mark.parametrize("key", PASSED_OVER.values(), ids=PASSED_OVER.keys())
def test_keys_that_are_passed_over(key: Any) -> None:
    assert algorithms(key) == set()


def test_alg_of_a_key_leaves_no_other() -> None:
    assert algorithms(GOOD | {"alg": "PS256"}) == {"PS256"}


@pytest.mark.parametrize(
    "more", [{"use": "sig"}, {"key_ops": ["verify"]}, {"key_ops": ["sign", "verify"]}, {"x5t": "x", "e.g.": {}}]
)
def test_more_that_a_key_may_say(more: dict[str, Any]) -> None:
    assert algorithms(GOOD | more) == RSA


def test_private_key_that_was_published_is_used_by_its_public_half() -> None:
    private = dict(jose_key(rsa_key("keysets")).as_dict(private=True)) | {"kid": "a"}
    assert "d" in private
    (key,) = parse_jwks(jwks(private).encode()).fitting("a", "RS256")
    assert isinstance(key.key, rsa.RSAPublicKey)


def test_keys_of_one_id_are_all_kept_up_to_a_few() -> None:
    keys = parse_jwks(jwks(GOOD, POINT, *[GOOD] * MAX_KEYS).encode())
    assert len(keys.fitting("a", "RS256")) == MAX_SAME_KID - 1
    assert len(keys.fitting("a", "ES256")) == 1


def test_keys_beyond_the_most_are_not_read() -> None:
    keys = parse_jwks(jwks(*[GOOD | {"kid": str(number)} for number in range(MAX_KEYS + 1)]).encode())
    assert str(MAX_KEYS - 1) in keys
    assert str(MAX_KEYS) not in keys
    assert keys.fitting(str(MAX_KEYS), "RS256") == ()


SETS = {
    "nothing": b"",
    "no JSON": b"x",
    "a list": b"[]",
    "a key instead of a set": json.dumps(GOOD).encode(),
    "keys that are an object": json.dumps({"keys": {"a": GOOD}}).encode(),
    "keys that are a text": b'{"keys":"a"}',
    "no keys": b'{"keys":[]}',
    "no good key": jwks(*PASSED_OVER.values()).encode(),
    "keys twice": f'{{"keys":[],"keys":[{json.dumps(GOOD)}]}}'.encode(),
    "too long": jwks(GOOD).encode() + b" " * MAX_JWKS,
    "a page in HTML": b"<html></html>",
}


@pytest.mark.parametrize("data", SETS.values(), ids=SETS.keys())
def test_sets_that_are_none(data: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        parse_jwks(data)
    assert caught.value.reason == "InvalidKeySet"


def test_set_of_a_join_token_is_parsed_once() -> None:
    text = jwks(GOOD | {"kid": "parsed once"})
    assert static_keys(text) is static_keys(text)
    with pytest.raises(Invalid):
        static_keys("{}")
