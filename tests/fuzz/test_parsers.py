"""What reads bytes from strangers never fails in a way that nobody expects, and takes nothing that was changed.

`MACHINEBOT_FUZZ=1` runs each for very many examples.
"""

import asyncio
import ipaddress
import json
import string
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from machinebot.errors import Denied, Invalid, MachinebotError
from machinebot.issuers.addresses import https_url
from machinebot.joins.base import TokenProof
from machinebot.joins.jwts import ALGORITHMS, Expected, UnverifiedToken, take_apart, verified_claims
from machinebot.joins.keysets import parse_jwks
from machinebot.joins.registry import parse_join_token
from machinebot.joins.strict import base64url, json_object
from support.issuing import (
    ASKED,
    CLUSTER,
    NOW,
    SECONDS,
    KnownKeys,
    PrivateKey,
    assembled,
    ec_key,
    ed_key,
    encoded,
    jwks,
    keys_of,
    public_jwk,
    rs256,
    rsa_key,
    signed,
)
from support.platforms import GENERIC, SAMPLES, generic, with_rules

ISSUER = "https://issuer.example.test"
EXPECTED = Expected(issuer=ISSUER, audience=CLUSTER, now=NOW)
KEY = rsa_key("fuzz")
KEYS = keys_of(KEY)
CLAIMS = {"iss": ISSUER, "aud": CLUSTER, "sub": "x", "iat": SECONDS, "exp": SECONDS + 300}
SIGNERS: dict[str, PrivateKey] = {"RS256": KEY, "PS384": KEY, "ES256": ec_key(), "ES512": ec_key("secp521r1"), "EdDSA": ed_key()}
TOKENS = {algorithm: signed(CLAIMS, key, algorithm) for algorithm, key in SIGNERS.items()}
JOIN_TOKENS = {name: with_rules(name, sample.rule) for name, sample in SAMPLES.items()} | {"oidc": generic()}
LETTERS = string.ascii_letters + string.digits + "-_"

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=8), inner), max_leaves=12)
objects = st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=12), values, max_size=8)


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """Good bytes with some replaced, taken away or put in."""
    data = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, len(data)))
        piece = draw(
            st.binary(max_size=4) | st.sampled_from([b'"', b"{", b"}", b"[", b",", b"\\u", b"\x00", b"\xff", b".", b"="])
        )
        data[place : place + draw(st.integers(0, 4))] = piece
    return bytes(data)


def again(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def attempt(read: Callable[[Any], Any], data: Any, refusal: type[Exception]) -> tuple[Any, str]:
    """What reading gives, or what it is refused with. Every other error fails the test."""
    try:
        return read(data), ""
    except refusal as error:
        return None, error.reason if isinstance(error, MachinebotError) else str(error)


# --- JSON and base64url -----------------------------------------------------------------------------------------------------


@given(st.binary() | objects.map(again).flatmap(damaged))
@settings(deadline=None)
def test_json_is_read_or_refused(data: bytes) -> None:
    value, refused = attempt(json_object, data, ValueError)
    assert refused in {"", "no JSON object with unique keys"}
    if value is not None:
        assert json_object(again(value)) == value
        assert value == json.loads(data)


@given(objects)
@settings(deadline=None)
def test_every_object_is_read_as_it_is(value: dict[str, Any]) -> None:
    assert json_object(again(value)) == value
    assert json_object(json.dumps(value).encode()) == value


@given(objects, st.data())
@settings(deadline=None)
def test_object_with_a_key_twice_is_refused(value: dict[str, Any], data: st.DataObject) -> None:
    assume(value)
    twice = data.draw(st.sampled_from(sorted(value)))
    with pytest.raises(ValueError, match="unique keys"):
        json_object(again(value)[:-1] + b"," + again(twice) + b":1}")


@given(st.text() | st.text(LETTERS + "=+/\n "))
@settings(deadline=None)
def test_base64url_is_read_in_one_form_alone(text: str) -> None:
    data, refused = attempt(base64url, text, ValueError)
    assert refused in {"", "no base64url"}
    assert data is None or encoded(data) == text


@given(st.binary())
@settings(deadline=None)
def test_all_bytes_come_back(data: bytes) -> None:
    assert base64url(encoded(data)) == data


# --- tokens -------------------------------------------------------------------------------------------------------------------


def taken(text: str) -> UnverifiedToken | None:
    token: UnverifiedToken | None
    token, refused = attempt(take_apart, text, Denied)
    assert refused in {"", "TokenUnreadable", "AlgorithmNotTaken", "KeyUnknown"}
    return token


parts = st.binary(max_size=60).map(encoded) | st.text(LETTERS, max_size=60) | objects.map(lambda value: encoded(again(value)))


@given(st.text() | st.lists(parts, min_size=1, max_size=5).map(".".join))
@settings(deadline=None)
def test_token_is_taken_apart_or_refused(text: str) -> None:
    token = taken(text)
    if token is not None:
        assert token.algorithm in ALGORITHMS
        assert f"{token.signed.decode()}.{encoded(token.signature)}" == text
        assert token.signed.endswith(b"." + encoded(token.payload).encode())


headers = st.fixed_dictionaries(
    {},
    optional={
        "alg": values | st.sampled_from(sorted(ALGORITHMS)),
        "kid": values | st.just("a"),
        "typ": values,
        "crit": values,
        "jwk": values,
        "jku": values,
        "zip": values,
    },
)


@given(headers, objects | st.binary())
@settings(deadline=None)
def test_any_header_over_a_good_signature(header: dict[str, Any], payload: Any) -> None:
    token = taken(assembled(header, payload, rs256(KEY)))
    if token is not None:
        try:
            verified = verified_claims(token, KEYS, EXPECTED)
        except Denied:
            return
        assert (token.algorithm, token.kid) == ("RS256", "a")
        assert verified.claims["iss"] == ISSUER


moments = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(SECONDS - 100_000, SECONDS + 100_000)
claims_of_tokens = st.fixed_dictionaries(
    {},
    optional={
        "iss": values | st.just(ISSUER),
        "aud": values | st.just(CLUSTER) | st.lists(st.just(CLUSTER) | values),
        "exp": values | moments,
        "iat": values | moments,
        "nbf": values | moments,
        "sub": values,
    },
)


@given(claims_of_tokens)
@settings(deadline=None)
def test_any_claims_over_a_good_signature(claims: dict[str, Any]) -> None:
    token = take_apart(assembled({"alg": "RS256", "kid": "a"}, again(claims), rs256(KEY)))
    try:
        verified = verified_claims(token, KEYS, EXPECTED)
    except Denied:
        return
    assert verified.claims == claims
    assert claims["iss"] == ISSUER
    assert CLUSTER in (claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]])
    assert claims["iat"] - 10 <= SECONDS < claims["exp"] + 10


@given(st.sampled_from(sorted(TOKENS)), st.data())
@settings(deadline=None)
def test_token_of_which_one_letter_was_changed_is_refused(algorithm: str, data: st.DataObject) -> None:
    good = TOKENS[algorithm]
    place = data.draw(st.integers(0, len(good) - 1))
    letter = data.draw(st.sampled_from(LETTERS + "."))
    assume(letter != good[place])
    refuse(algorithm, good[:place] + letter + good[place + 1 :])


@given(st.sampled_from(sorted(TOKENS)), st.data())
@settings(deadline=None)
def test_token_that_was_damaged_is_refused(algorithm: str, data: st.DataObject) -> None:
    good = TOKENS[algorithm].encode()
    changed = data.draw(damaged(good))
    assume(changed != good)
    refuse(algorithm, changed.decode("latin-1"))


def refuse(algorithm: str, text: str) -> None:
    keys = keys_of(SIGNERS[algorithm])
    assert verified_claims(take_apart(TOKENS[algorithm]), keys, EXPECTED)
    token = taken(text)
    if token is not None:
        with pytest.raises(Denied):
            verified_claims(token, keys, EXPECTED)


@given(st.sampled_from(sorted(JOIN_TOKENS)), st.data())
@settings(deadline=None)
def test_method_lets_in_or_refuses_whatever_a_platform_says(name: str, data: st.DataObject) -> None:
    sample, join_token = SAMPLES.get(name, GENERIC), JOIN_TOKENS[name]
    claims = sample.token()
    for claim in data.draw(st.lists(st.sampled_from(sorted(claims)), max_size=4)):
        claims[claim] = data.draw(values)
    proof = TokenProof.model_validate({"token": assembled({"alg": "RS256", "kid": "a"}, again(claims), rs256(KEY))})
    try:
        proved = asyncio.run(join_token.method.verify(join_token.settings, proof, ASKED, KnownKeys(KEYS)))
    except Denied:
        return
    assert (claims["iss"], proved.subject) == (
        sample.issuer,
        str(claims["sub"])[:256] if isinstance(claims["sub"], str) else proved.subject,
    )
    json.dumps(dict(proved.attributes), ensure_ascii=False).encode()


# --- key sets, join tokens, addresses ---------------------------------------------------------------------------------------------

SET = jwks(public_jwk(KEY, "a"), public_jwk(ec_key(), "b"), public_jwk(ed_key(), "c")).encode()
members = st.fixed_dictionaries(
    {},
    optional={
        "kty": values | st.sampled_from(["RSA", "EC", "OKP", "oct"]),
        "kid": values | st.just("a"),
        "use": values | st.just("sig"),
        "alg": values | st.sampled_from(sorted(ALGORITHMS)),
        "key_ops": values | st.just(["verify"]),
        "crv": values | st.sampled_from(["P-256", "P-384", "P-521", "Ed25519", "Ed448", "X25519", "secp256k1"]),
        "n": values | st.binary(max_size=300).map(encoded),
        "e": values | st.just("AQAB"),
        "x": values | st.binary(max_size=66).map(encoded),
        "y": values | st.binary(max_size=66).map(encoded),
        "d": values,
    },
)


@given(st.binary() | damaged(SET) | st.lists(members | values).map(lambda keys: again({"keys": keys})) | values.map(again))
@settings(deadline=None)
def test_key_set_is_read_or_refused(data: bytes) -> None:
    keys, refused = attempt(parse_jwks, data, Invalid)
    assert refused in {"", "InvalidKeySet"}
    if keys is not None:
        assert keys.keys
        assert all(each.algorithms and each.algorithms <= ALGORITHMS for same in keys.keys.values() for each in same)


@given(
    st.sampled_from(sorted(JOIN_TOKENS)), values | st.fixed_dictionaries({"allow": values, "mustMatch": values, "issuer": values})
)
@settings(deadline=None)
def test_join_token_is_read_or_refused(name: str, body: Any) -> None:
    stored = {"metadata": {"name": "t", "uid": "u"}, "spec": {"bot": "deployer", name: body}}
    join_token, refused = attempt(parse_join_token, stored, Invalid)
    assert refused in {"", "InvalidSpec"}
    assert join_token is None or join_token.method.field == name


pieces = st.sampled_from(
    ["https://", "http://", "a.test", "127.0.0.1", "[::1]", "@", ":", "443", "/", "?", "#", "\\", ".", "\n", " "]
)


@given(st.text() | st.lists(pieces | st.text(max_size=3), max_size=8).map("".join).map(lambda text: "https://" + text))
@settings(deadline=None)
def test_address_is_a_host_name_or_refused(text: str) -> None:
    url, refused = attempt(https_url, text, Invalid)
    assert refused in {"", "IssuerRefused"}
    if url is None:
        return
    assert (url.scheme, url.user, url.password, url.fragment) == ("https", None, None, "")
    assert url.host is not None
    assert "." in url.host
    with pytest.raises(ValueError, match="does not appear"):
        ipaddress.ip_address(url.host)
    assert str(url).isascii()
    assert str(url).isprintable()
