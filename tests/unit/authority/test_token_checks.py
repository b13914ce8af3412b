"""What is held against a JWT after it is signed: every row of the table fails for its own reason."""

import base64
import hashlib
import hmac
import json
from dataclasses import replace
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from machinebot.authority import keys, token_checks, tokens
from machinebot.authority.checks import REQUEST_CHECKS
from machinebot.authority.generations import Generation
from machinebot.authority.keys import CAKey
from machinebot.authority.token_checks import TOKEN_CHECKS, ReadToken, check_token
from machinebot.errors import Invalid
from machinebot.policy.credential import Purpose
from unit.authority.builders import CLUSTER, ISSUER, MINUTE, NOW, ca, ca_with, ending
from unit.authority.requests import STAMP, refusal
from unit.authority.requests import TOKEN_REQUEST as REQUEST

CA = ca(Purpose.WORKLOAD)
BEGIN, END = int(STAMP.not_before.timestamp()), int(STAMP.not_after.timestamp())
HEADER = {"alg": "ES256", "typ": "JWT", "kid": CA.id}
CLAIMS = {"iss": ISSUER, "sub": REQUEST.subject, "aud": ["api", "vault"], "iat": BEGIN, "nbf": BEGIN, "exp": END, "jti": "7"}
OTHER = ec.generate_private_key(ec.SECP256R1())


def encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def signed(
    *, header: Any = None, claims: Any = None, drop: Any = (), key: Any = None, algorithm: str = "ES256", issuer: Generation = CA
) -> str:
    """A token as `tokens.sign` makes it, but for what the arguments say."""
    head = HEADER | {"kid": issuer.id} | (header or {})
    body = CLAIMS | (claims or {})
    parts = [
        encoded(json.dumps({name: value for name, value in each.items() if name not in drop}).encode()) for each in (head, body)
    ]
    text = b".".join(parts)
    signer = jwt.get_algorithm_by_name(algorithm)
    signature = signer.sign(text, issuer.key.private_key if key is None else key)
    return (text + b"." + encoded(signature)).decode()


@pytest.mark.parametrize(
    ("change", "check"),
    [
        pytest.param({"header": {"alg": "ES384"}}, "token header", id="algorithm of another curve"),
        pytest.param({"header": {"alg": "RS256"}}, "token header", id="algorithm of another kind of key"),
        pytest.param({"header": {"alg": "es256"}}, "token header", id="algorithm in small letters"),
        pytest.param({"header": {"alg": "none"}}, "token header", id="alg none with a signature"),
        pytest.param({"header": {"kid": "0123456789abcdef"}}, "token header", id="another kid"),
        pytest.param({"header": {"kid": CA.id.upper() + "x"}}, "token header", id="a kid like ours"),
        pytest.param({"drop": ["kid"]}, "token header", id="no kid"),
        pytest.param({"header": {"typ": "at+jwt"}}, "token header", id="another typ"),
        pytest.param({"header": {"typ": "jwt"}}, "token header", id="typ in small letters"),
        pytest.param({"drop": ["typ"]}, "token header", id="no typ"),
        pytest.param({"header": {"jku": "https://other.test/jwks"}}, "token header", id="an address of keys"),
        pytest.param({"header": {"jwk": {"kty": "EC"}}}, "token header", id="a key in the header"),
        pytest.param({"claims": {"jti": "8"}}, "token serial", id="another serial"),
        pytest.param({"claims": {"jti": 7}}, "token serial", id="serial as a number"),
        pytest.param({"drop": ["jti"]}, "token serial", id="no serial"),
        pytest.param({"claims": {"exp": END + 1}}, "token dates", id="a second longer"),
        pytest.param({"claims": {"exp": 2**40}}, "token dates", id="for ever"),
        pytest.param({"drop": ["exp"]}, "token dates", id="without an end"),
        pytest.param({"claims": {"exp": str(END)}}, "token dates", id="end as text"),
        pytest.param({"claims": {"exp": None}}, "token dates", id="end that is null"),
        pytest.param({"claims": {"nbf": BEGIN - 1}}, "token dates", id="begins earlier"),
        pytest.param({"drop": ["nbf"]}, "token dates", id="without a begin"),
        pytest.param({"claims": {"iat": BEGIN + 60}}, "token dates", id="another time of issue"),
        pytest.param({"claims": {"iss": "https://other.test"}}, "token names", id="another issuer"),
        pytest.param({"claims": {"iss": f"{ISSUER}/"}}, "token names", id="issuer with a slash"),
        pytest.param({"claims": {"sub": f"spiffe://{CLUSTER}/ns/ci/bot/other"}}, "token names", id="another bot"),
        pytest.param({"claims": {"sub": "spiffe://other.test/ns/ci/bot/deployer"}}, "token names", id="another trust domain"),
        pytest.param({"drop": ["sub"]}, "token names", id="nobody"),
        pytest.param({"claims": {"aud": ["api", "bank"]}}, "token names", id="another audience"),
        pytest.param({"claims": {"aud": ["api", "vault", "bank"]}}, "token names", id="an audience more"),
        pytest.param({"claims": {"aud": ["api"]}}, "token names", id="an audience less"),
        pytest.param({"claims": {"aud": "api"}}, "token names", id="audience as text"),
        pytest.param({"claims": {"aud": []}}, "token names", id="for nobody"),
        pytest.param({"drop": ["aud"]}, "token names", id="no audience"),
        pytest.param({"claims": {"scope": "admin"}}, "token nothing else", id="a claim more"),
        pytest.param({"claims": {"groups": []}}, "token nothing else", id="an empty claim more"),
        pytest.param({"key": OTHER}, "token signature", id="signed by another key"),
        pytest.param({"key": ca(Purpose.IDENTITY).key.private_key}, "token signature", id="signed by the CA of another purpose"),
    ],
)
def test_token_checks(change: Any, check: Any) -> None:
    assert f"`{check}` and it was not handed out" in refusal(check_token, signed(**change), REQUEST, CA)


def test_alg_none_without_a_signature_is_refused() -> None:
    bare = jwt.encode(CLAIMS, None, "none", headers={"kid": CA.id, "typ": "JWT"})
    assert bare.endswith(".")
    assert "`token header`" in refusal(check_token, bare, REQUEST, CA)


@pytest.mark.parametrize("form", [Encoding.PEM, Encoding.DER])
def test_a_public_key_taken_for_a_secret_is_refused(form: Any) -> None:
    """The old attack: HS256 with the CA's public key as the secret."""
    text = b".".join(encoded(json.dumps(each).encode()) for each in (HEADER | {"alg": "HS256"}, CLAIMS))
    secret = CA.key.public_key.public_bytes(form, PublicFormat.SubjectPublicKeyInfo)
    token = text + b"." + encoded(hmac.digest(secret, text, hashlib.sha256))
    assert "`token header`" in refusal(check_token, token.decode(), REQUEST, CA)


def test_a_signature_over_something_else_is_refused() -> None:
    text, _, _ = signed().rpartition(".")
    _, _, signature = signed(claims={"jti": "8"}).rpartition(".")
    assert "`token signature`" in refusal(check_token, f"{text}.{signature}", REQUEST, CA)


def test_the_last_check_alone_holds_the_signature() -> None:
    """Right by every name, and signed by nobody."""
    text, _, _ = signed().rpartition(".")
    assert "`token signature`" in refusal(check_token, f"{text}.{'A' * 86}", REQUEST, CA)
    assert "`token signature`" in refusal(check_token, f"{text}.", REQUEST, CA)


def test_span_is_held_against_the_ceiling_and_the_ca() -> None:
    longer = replace(REQUEST, stamp=replace(STAMP, not_after=STAMP.not_after + MINUTE))
    assert "`token span`" in refusal(check_token, signed(claims={"exp": END + 60}), longer, CA)
    assert "`token span`" in refusal(check_token, signed(), REQUEST, ending(CA, STAMP.not_after - MINUTE))


def test_a_token_for_nobody_is_refused_although_it_was_asked_for() -> None:
    asked = replace(REQUEST, audiences=())
    assert "`token names`" in refusal(check_token, signed(claims={"aud": []}), asked, CA)
    assert "`token names`" in refusal(tokens.sign, asked, CA)


GARBAGE = {
    "nothing": "",
    "dots": "..",
    "a word": "token",
    "two parts": signed().rpartition(".")[0],
    "four parts": signed() + ".x",
    "no base64": "$." + signed(),
    "header that is a list": ".".join([encoded(b"[]").decode(), *signed().split(".")[1:]]),
    "header that is no JSON": ".".join([encoded(b"{").decode(), *signed().split(".")[1:]]),
    "claims that are a list": ".".join([signed().split(".")[0], encoded(b"[]").decode(), signed().split(".")[2]]),
    "claims that are no JSON": ".".join([signed().split(".")[0], encoded(b"\xff").decode(), signed().split(".")[2]]),
    "a blank": " " + signed() + "\n.",
}


@pytest.mark.parametrize("token", GARBAGE.values(), ids=list(GARBAGE))
def test_garbage_is_not_handed_out(token: str) -> None:
    assert "`readable`" in refusal(check_token, token, REQUEST, CA)


def test_a_header_that_must_be_understood_is_refused() -> None:
    assert "not handed out" in refusal(check_token, signed(header={"crit": ["b64"], "b64": False}), REQUEST, CA)


def test_a_changed_character_is_not_handed_out() -> None:
    good = signed()
    # The last character of the signature has bits that mean nothing.
    for place in range(0, len(good) - 1, 5):
        other = "B" if good[place] == "A" else "A"
        assert "not handed out" in refusal(check_token, good[:place] + other + good[place + 1 :], REQUEST, CA)


def test_a_good_one_passes_every_check() -> None:
    check_token(signed(), REQUEST, CA)
    whole = jwt.decode_complete(signed(), options={"verify_signature": False})
    read = ReadToken(unverified_header=whole["header"], unverified_claims=whole["payload"], token=signed())
    assert all(check(read, REQUEST, CA) for check in TOKEN_CHECKS)
    assert all(check(REQUEST, CA) for check in REQUEST_CHECKS)


def test_what_the_signer_makes_is_what_the_table_expects() -> None:
    made, expected = tokens.sign(REQUEST, CA), signed()
    for part in range(2):
        one, two = (text.split(".")[part] for text in (made.decode(), expected))
        assert json.loads(base64.urlsafe_b64decode(one + "==")) == json.loads(base64.urlsafe_b64decode(two + "=="))


def test_signing_asks_before_and_after(monkeypatch: Any) -> None:
    assert "`ends before its ca` and nothing" in refusal(tokens.sign, REQUEST, ending(CA, NOW))
    monkeypatch.setattr(token_checks, "TOKEN_CHECKS", (lambda *_: False,))
    assert "not handed out" in refusal(tokens.sign, REQUEST, CA)


# --- algorithms ---------------------------------------------------------------------------------------------------


def test_an_rsa_ca_signs_rs256_and_nothing_else(rsa_ca_key: CAKey) -> None:
    issuer = ca_with(rsa_ca_key, Purpose.WORKLOAD)
    token = tokens.sign(REQUEST, issuer).decode()
    assert jwt.get_unverified_header(token) == {"alg": "RS256", "typ": "JWT", "kid": issuer.id}
    for algorithm in ("RS384", "RS512", "PS256"):
        wrong = signed(header={"alg": algorithm}, algorithm=algorithm, issuer=issuer)
        assert "`token header`" in refusal(check_token, wrong, REQUEST, issuer)
    assert "`token header`" in refusal(check_token, signed(header={"kid": issuer.id}), REQUEST, issuer)


def test_a_p384_ca_signs_es384_and_nothing_else() -> None:
    issuer = ca(Purpose.WORKLOAD, "ECDSA-P384")
    token = tokens.sign(REQUEST, issuer).decode()
    assert jwt.get_unverified_header(token) == {"alg": "ES384", "typ": "JWT", "kid": issuer.id}
    assert "`token header`" in refusal(check_token, signed(header={"kid": issuer.id}), REQUEST, issuer)


def test_an_ed25519_key_signs_no_token() -> None:
    key = keys.CAKey.of(ed25519.Ed25519PrivateKey.generate())
    issuer = replace(CA, key=key, id=key.id)
    with pytest.raises(Invalid) as caught:
        tokens.sign(REQUEST, issuer)
    assert caught.value.reason == "NoTokenAlgorithm"
    wrong = signed(header={"alg": "EdDSA"}, algorithm="EdDSA", issuer=issuer)
    assert "`token header`" in refusal(check_token, wrong, REQUEST, issuer)


def test_with_ed25519_the_ca_of_workloads_is_ecdsa_and_signs() -> None:
    issuer = ca(Purpose.WORKLOAD, "Ed25519")
    assert jwt.get_unverified_header(tokens.sign(REQUEST, issuer))["alg"] == "ES256"
