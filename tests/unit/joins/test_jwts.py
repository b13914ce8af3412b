"""Which tokens are believed, and where the limits of their dates are. Tricks stand in test_hostile_tokens.py."""

from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from machinebot.errors import Denied
from machinebot.joins.jwts import ALGORITHMS, Expected, VerifiedClaims, take_apart, verified_claims
from machinebot.joins.keysets import parse_jwks
from support.issuing import (
    CLUSTER,
    NOW,
    SECONDS,
    Json,
    PrivateKey,
    assembled,
    ec_key,
    ed_key,
    jwks,
    keys_of,
    public_jwk,
    rs256,
    rsa_key,
    signed,
)

ISSUER = "https://issuer.example.test"
EXPECTED = Expected(issuer=ISSUER, audience=CLUSTER, now=NOW)
KEY = rsa_key("jwts")
CLAIMS: Json = {"iss": ISSUER, "aud": CLUSTER, "sub": "x", "iat": SECONDS, "exp": SECONDS + 300}


def verify(claims: Json, expected: Expected = EXPECTED) -> VerifiedClaims:
    return verified_claims(take_apart(signed(claims, KEY)), keys_of(KEY), expected)


def reason_of(claims: Json, expected: Expected = EXPECTED) -> str:
    with pytest.raises(Denied) as caught:
        verify(claims, expected)
    return caught.value.reason


KEYS: dict[str, PrivateKey] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), KEY),
    "ES256": ec_key("secp256r1"),
    "ES384": ec_key("secp384r1"),
    "ES512": ec_key("secp521r1"),
    **dict.fromkeys(("EdDSA", "Ed25519"), ed_key()),
}


@pytest.mark.parametrize("algorithm", sorted(ALGORITHMS))
def test_every_algorithm_by_a_library_that_is_not_ours(algorithm: str) -> None:
    token = take_apart(signed(CLAIMS, KEYS[algorithm], algorithm))
    assert (token.kid, token.algorithm) == ("a", algorithm)
    verified = verified_claims(token, keys_of(KEYS[algorithm]), EXPECTED)
    assert verified.claims == CLAIMS
    assert verified.expires_at == NOW + timedelta(minutes=5)
    with pytest.raises(Denied, match="SignatureInvalid"):
        verified_claims(token, parse_jwks(jwks(public_jwk(other(algorithm))).encode()), EXPECTED)


def other(algorithm: str) -> PrivateKey:
    """Another key of the same kind."""
    match KEYS[algorithm]:
        case ec.EllipticCurvePrivateKey() as known:
            return ec.generate_private_key(known.curve)
        case ed25519.Ed25519PrivateKey():
            return ed25519.Ed25519PrivateKey.generate()
        case _:
            return rsa_key("another")


def test_second_key_of_the_same_id_is_tried_too() -> None:
    keys = parse_jwks(jwks(public_jwk(rsa_key("first")), public_jwk(KEY)).encode())
    assert verified_claims(take_apart(signed(CLAIMS, KEY)), keys, EXPECTED)


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        pytest.param({}, None, id="good"),
        pytest.param({"aud": [CLUSTER]}, None, id="audience in a list"),
        pytest.param({"aud": ["other.test", CLUSTER]}, None, id="audience among others"),
        pytest.param({"exp": SECONDS + 1}, None, id="a second before its end"),
        pytest.param({"exp": SECONDS - 9}, None, id="nine seconds after its end"),
        pytest.param({"exp": SECONDS - 10}, "TokenExpired", id="ten seconds after its end"),
        pytest.param({"exp": SECONDS + 0.5}, None, id="end within a second"),
        pytest.param({"exp": 253402300799}, None, id="ends with the last calendar"),
        pytest.param({"exp": 253402300800}, "TokenUnreadable", id="ends after it"),
        pytest.param({"exp": -62135596800}, "TokenExpired", id="ended with the first year"),
        pytest.param({"iat": SECONDS + 10}, None, id="made in ten seconds"),
        pytest.param({"iat": SECONDS + 11}, "TokenNotYetValid", id="made in eleven seconds"),
        pytest.param({"iat": SECONDS - 86400}, None, id="made a day ago"),
        pytest.param({"iat": SECONDS - 86401}, "TokenExpired", id="made more than a day ago"),
        pytest.param({"iat": -62135596800}, "TokenExpired", id="made in the first year"),
        pytest.param({"nbf": SECONDS - 1}, None, id="begun"),
        pytest.param({"nbf": SECONDS + 10}, None, id="begins in ten seconds"),
        pytest.param({"nbf": SECONDS + 11}, "TokenNotYetValid", id="begins in eleven seconds"),
        pytest.param({"nbf": None}, None, id="begins at null"),
    ],
)
def test_limits(claims: Json, reason: str | None) -> None:
    if reason is None:
        assert verify(CLAIMS | claims)
    else:
        assert reason_of(CLAIMS | claims) == reason


@pytest.mark.parametrize(("life", "reason"), [(600, None), (601, "TokenTooLongLived")])
def test_longest_life(life: int, reason: str | None) -> None:
    expected = Expected(issuer=ISSUER, audience=CLUSTER, now=NOW, longest=timedelta(minutes=10))
    claims = CLAIMS | {"exp": SECONDS + life}
    assert (reason_of(claims, expected) if reason else bool(verify(claims, expected))) == (reason or True)


def test_issuer_may_be_anybody_where_the_keys_are_nobody_else_s() -> None:
    assert verify(CLAIMS | {"iss": "x"}, Expected(issuer=None, audience=CLUSTER, now=NOW))


def test_no_audience_is_never_good() -> None:
    assert reason_of(CLAIMS | {"aud": ""}, Expected(issuer=ISSUER, audience="", now=NOW)) == "WrongAudience"


def test_wrong_audience_says_which_is_wanted() -> None:
    with pytest.raises(Denied, match=r"'example\.test'"):
        verify(CLAIMS | {"aud": "x"})


def test_claims_are_not_read_before_the_signature() -> None:
    token = take_apart(assembled({"alg": "RS256", "kid": "a"}, b"no JSON", rs256(rsa_key("another"))))
    with pytest.raises(Denied, match="SignatureInvalid"):
        verified_claims(token, keys_of(KEY), EXPECTED)


def test_nothing_of_a_token_is_printed() -> None:
    token = signed(CLAIMS | {"sub": "marked"}, KEY)
    unverified = take_apart(token)
    verified = verified_claims(unverified, keys_of(KEY), EXPECTED)
    assert "marked" not in repr(unverified) + repr(verified)
    assert token.split(".")[1] not in repr(unverified)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (("a",), "x"),
        (("number",), "7"),
        (("nested", "b", "c"), "deep"),
        (("nested", "b"), None),
        (("nested", "x"), None),
        (("a", "b"), None),
        (("list", "0"), None),
        (("list",), None),
        (("true",), None),
        (("fraction",), None),
        (("null",), None),
        (("absent",), None),
    ],
)
def test_texts_of_claims(path: tuple[str, ...], text: str | None) -> None:
    claims = {"a": "x", "number": 7, "nested": {"b": {"c": "deep"}}, "list": ["x"], "true": True, "fraction": 1.5, "null": None}
    assert VerifiedClaims(claims=claims, expires_at=NOW).text(*path) == text
