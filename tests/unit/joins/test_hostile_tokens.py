"""What nobody may join with: every trick with tokens, against every method that takes tokens of an OpenID issuer."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from machinebot.errors import Denied
from machinebot.joins.base import TokenProof
from machinebot.joins.claims import Platform
from machinebot.joins.jwts import MAX_TOKEN
from machinebot.joins.keysets import parse_jwks
from machinebot.joins.methods import oidc
from machinebot.joins.registry import JOIN_METHODS, MachineJoinToken
from support.issuing import (
    ASKED,
    CLUSTER,
    SECONDS,
    Json,
    KnownKeys,
    assembled,
    ec_key,
    encoded,
    es256,
    jwks,
    public_jwk,
    rs256,
    rsa_key,
    signed,
)
from support.platforms import GENERIC, MUST_MATCH, SAMPLES, Sample, generic, with_rules

GOOD, EVIL = rsa_key("hostile"), rsa_key("of an attacker")
KEYS = parse_jwks(jwks(public_jwk(GOOD), public_jwk(ec_key(), "elliptic")).encode())
HEADER: Json = {"alg": "RS256", "typ": "JWT", "kid": "a"}
METHODS = [*SAMPLES, "oidc"]


def sample_of(name: str) -> Sample:
    return GENERIC if name == "oidc" else SAMPLES[name]


def join_token_of(name: str) -> MachineJoinToken:
    return generic(MUST_MATCH) if name == "oidc" else with_rules(name, SAMPLES[name].rule)


def test_every_method_with_tokens_of_openid_issuers_is_tried() -> None:
    platforms = {name for name, method in JOIN_METHODS.items() if isinstance(getattr(method.verify, "__self__", None), Platform)}
    assert platforms | {oidc.METHOD.field} == set(METHODS)


async def denied(name: str, token: str) -> Denied:
    join_token, proof = join_token_of(name), TokenProof.model_validate({"token": token})
    with pytest.raises(Denied) as caught:
        await join_token.method.verify(join_token.settings, proof, ASKED, KnownKeys(KEYS))
    return caught.value


@pytest.mark.parametrize("name", METHODS)
async def test_the_token_that_all_tricks_start_from_is_good(name: str) -> None:
    join_token = join_token_of(name)
    for token in (signed(sample_of(name).token(), GOOD), assembled(HEADER, sample_of(name).token(), rs256(GOOD))):
        proof = TokenProof.model_validate({"token": token})
        assert await join_token.method.verify(join_token.settings, proof, ASKED, KnownKeys(KEYS))


# --- claims that the issuer has truly signed ----------------------------------------------------------------------------------

CLAIMS: dict[str, tuple[Callable[[Sample], Json], str]] = {
    "audience of another cluster": (lambda sample: sample.token(aud="other.test"), "WrongAudience"),
    "audience absent": (lambda sample: sample.token(aud=...), "WrongAudience"),
    "audience empty": (lambda sample: sample.token(aud=""), "WrongAudience"),
    "audience null": (lambda sample: sample.token(aud=None), "WrongAudience"),
    "audience a wildcard": (lambda sample: sample.token(aud="*"), "WrongAudience"),
    "audience longer": (lambda sample: sample.token(aud=sample.audience + "."), "WrongAudience"),
    "audience in another case": (lambda sample: sample.token(aud=sample.audience.swapcase()), "WrongAudience"),
    "audience a list of others": (lambda sample: sample.token(aud=["other.test", 7, None]), "WrongAudience"),
    "audience an empty list": (lambda sample: sample.token(aud=[]), "WrongAudience"),
    "audience in a list in a list": (lambda sample: sample.token(aud=[[sample.audience]]), "WrongAudience"),
    "audience an object": (lambda sample: sample.token(aud={sample.audience: 1}), "WrongAudience"),
    "issuer of somebody else": (lambda sample: sample.token(iss="https://issuer.evil.test"), "WrongIssuer"),
    "issuer absent": (lambda sample: sample.token(iss=...), "WrongIssuer"),
    "issuer with a slash": (lambda sample: sample.token(iss=sample.issuer + "/"), "WrongIssuer"),
    "issuer by http": (lambda sample: sample.token(iss=sample.issuer.replace("https", "http")), "WrongIssuer"),
    "issuer in capitals": (lambda sample: sample.token(iss=sample.issuer.upper()), "WrongIssuer"),
    "issuer a list": (lambda sample: sample.token(iss=[sample.issuer]), "WrongIssuer"),
    "expired": (lambda sample: sample.token(exp=SECONDS - 10), "TokenExpired"),
    "expired before it was made": (lambda sample: sample.token(exp=0), "TokenExpired"),
    "end absent": (lambda sample: sample.token(exp=...), "TokenUnreadable"),
    "end null": (lambda sample: sample.token(exp=None), "TokenUnreadable"),
    "end a text": (lambda sample: sample.token(exp=str(SECONDS + 300)), "TokenUnreadable"),
    "end true": (lambda sample: sample.token(exp=True), "TokenUnreadable"),
    "end a list": (lambda sample: sample.token(exp=[SECONDS + 300]), "TokenUnreadable"),
    "end beyond all calendars": (lambda sample: sample.token(exp=10**18), "TokenUnreadable"),
    "end a number of hundred digits": (lambda sample: sample.token(exp=10**100), "TokenUnreadable"),
    "start absent": (lambda sample: sample.token(iat=...), "TokenUnreadable"),
    "start in the future": (lambda sample: sample.token(iat=SECONDS + 11), "TokenNotYetValid"),
    "start long ago": (lambda sample: sample.token(iat=SECONDS - 86401), "TokenExpired"),
    "start before all calendars": (lambda sample: sample.token(iat=-(10**15)), "TokenUnreadable"),
    "not yet valid": (lambda sample: sample.token(nbf=SECONDS + 11), "TokenNotYetValid"),
    "not before a text": (lambda sample: sample.token(nbf="now"), "TokenUnreadable"),
    "no claims of the platform": (
        lambda sample: {name: sample.token()[name] for name in ("iss", "aud", "iat", "exp")},
        "RulesNotMatched",
    ),
}


@pytest.mark.parametrize(("claims", "reason"), CLAIMS.values(), ids=CLAIMS.keys())
@pytest.mark.parametrize("name", METHODS)
async def test_claims(name: str, claims: Callable[[Sample], Json], reason: str) -> None:
    sample = sample_of(name)
    error = await denied(name, signed(claims(sample), GOOD))
    assert error.reason == ("NotAPipeline" if (name, reason) == ("azureDevOps", "RulesNotMatched") else reason)


@pytest.mark.parametrize("other", METHODS)
@pytest.mark.parametrize("name", METHODS)
async def test_token_of_another_platform_signed_by_a_good_key(name: str, other: str) -> None:
    if name == other:
        return
    claims = sample_of(name).token(**sample_of(other).token())
    assert (await denied(name, signed(claims, GOOD))).reason == "WrongIssuer"


# --- tokens that nobody should have made ----------------------------------------------------------------------------------------


def replaced(header: Json, key: Any = GOOD, **more: Any) -> Callable[[Sample], str]:
    """A token whose header has other fields; `...` takes one away."""
    merged = {name: value for name, value in (HEADER | header).items() if value is not ...}
    return lambda sample: assembled(merged, sample.token(**more), rs256(key))


def raw_header(text: bytes) -> Callable[[Sample], str]:
    return lambda sample: assembled(text, sample.token(), rs256(GOOD))


def raw_claims(change: Callable[[str], str | bytes]) -> Callable[[Sample], str]:
    """Good claims as JSON text that was changed, then signed by the good key."""

    def make(sample: Sample) -> str:
        text = change(json.dumps(sample.token()))
        return assembled(HEADER, text if isinstance(text, bytes) else text.encode(), rs256(GOOD))

    return make


def with_more(text: str) -> Callable[[str], str]:
    return lambda claims: claims[:-1] + text + "}"


def hmac_by(secret: bytes, algorithm: str = "HS256") -> Callable[[Sample], str]:
    header = HEADER | {"alg": algorithm}
    return lambda sample: assembled(header, sample.token(), lambda data: hmac.digest(secret, data, hashlib.sha256))


def altered(change: Callable[[str, str, str], str]) -> Callable[[Sample], str]:
    """A good token whose three parts were changed afterwards."""
    return lambda sample: change(*assembled(HEADER, sample.token(), rs256(GOOD)).split("."))


def unused_bits(text: str) -> str:
    """The same bytes with other bits in the last character, which encode nothing."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    assert len(text) % 4 in (2, 3)
    return text[:-1] + alphabet[alphabet.index(text[-1]) + 1]


PUBLIC = GOOD.public_key()
EVIL_JWK = public_jwk(EVIL, "a")

TOKENS: dict[str, tuple[Callable[[Sample], str], set[str]]] = {
    "alg none": (replaced({"alg": "none"}), {"AlgorithmNotTaken"}),
    "alg none without a signature": (
        lambda sample: assembled(HEADER | {"alg": "none"}, sample.token(), lambda _data: b""),
        {"AlgorithmNotTaken"},
    ),
    "alg None": (replaced({"alg": "None"}), {"AlgorithmNotTaken"}),
    "alg nOnE": (replaced({"alg": "nOnE"}), {"AlgorithmNotTaken"}),
    "alg absent": (replaced({"alg": ...}), {"AlgorithmNotTaken"}),
    "alg null": (replaced({"alg": None}), {"AlgorithmNotTaken"}),
    "alg a list": (replaced({"alg": ["RS256"]}), {"AlgorithmNotTaken"}),
    "alg in small letters": (replaced({"alg": "rs256"}), {"AlgorithmNotTaken"}),
    "alg of encryption": (replaced({"alg": "RSA-OAEP"}), {"AlgorithmNotTaken"}),
    "alg ES256K": (replaced({"alg": "ES256K"}), {"AlgorithmNotTaken"}),
    "HMAC with the public key as PEM": (
        hmac_by(PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)),
        {"AlgorithmNotTaken"},
    ),
    "HMAC with the public key as PKCS #1": (
        hmac_by(PUBLIC.public_bytes(Encoding.PEM, PublicFormat.PKCS1), "HS512"),
        {"AlgorithmNotTaken"},
    ),
    "HMAC with the public key as DER": (
        hmac_by(PUBLIC.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)),
        {"AlgorithmNotTaken"},
    ),
    "HMAC called RS256": (
        hmac_by(PUBLIC.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "RS256"),
        {"SignatureInvalid"},
    ),
    "HMAC without a secret": (hmac_by(b""), {"AlgorithmNotTaken"}),
    "ES256 by the id of an RSA key": (replaced({"alg": "ES256"}), {"KeyUnknown"}),
    "RS256 by the id of an elliptic key": (replaced({"kid": "elliptic"}), {"KeyUnknown"}),
    "another hash than the signature's": (replaced({"alg": "RS512"}), {"SignatureInvalid"}),
    "another padding than the signature's": (replaced({"alg": "PS256"}), {"SignatureInvalid"}),
    "elliptic signature of zeros": (
        lambda sample: assembled(HEADER | {"alg": "ES256", "kid": "elliptic"}, sample.token(), lambda _data: bytes(64)),
        {"SignatureInvalid"},
    ),
    "elliptic signature as DER": (
        lambda sample: assembled(
            HEADER | {"alg": "ES256", "kid": "elliptic"}, sample.token(), lambda data: b"\x30\x44" + es256(ec_key())(data)
        ),
        {"SignatureInvalid"},
    ),
    "kid unknown": (replaced({"kid": "b"}), {"KeyUnknown"}),
    "kid absent": (replaced({"kid": ...}), {"KeyUnknown"}),
    "kid empty": (replaced({"kid": ""}), {"KeyUnknown"}),
    "kid null": (replaced({"kid": None}), {"KeyUnknown"}),
    "kid a number": (replaced({"kid": 0}), {"KeyUnknown"}),
    "kid a list": (replaced({"kid": ["a"]}), {"KeyUnknown"}),
    "kid an object": (replaced({"kid": {"a": 1}}), {"KeyUnknown"}),
    "kid a path": (replaced({"kid": "../../../../dev/null"}), {"KeyUnknown"}),
    "kid a path of this process": (replaced({"kid": "/proc/self/environ"}), {"KeyUnknown"}),
    "kid an address": (replaced({"kid": "https://issuer.evil.test/jwks.json"}), {"KeyUnknown"}),
    "kid a query": (replaced({"kid": "x' UNION SELECT 'secret' --"}), {"KeyUnknown"}),
    "kid a command": (replaced({"kid": "a|/bin/true"}), {"KeyUnknown"}),
    "kid with a zero byte": (replaced({"kid": "a\x00"}), {"KeyUnknown"}),
    "kid with a line break": (replaced({"kid": "a\n"}), {"KeyUnknown"}),
    "kid a wildcard": (replaced({"kid": "*"}), {"KeyUnknown"}),
    "kid too long": (replaced({"kid": "a" * 257}), {"KeyUnknown"}),
    "kid that all objects have": (replaced({"kid": "__proto__"}), {"KeyUnknown"}),
    "jku of an attacker": (replaced({"jku": "https://issuer.evil.test/jwks"}, EVIL), {"SignatureInvalid"}),
    "x5u of an attacker": (replaced({"x5u": "https://issuer.evil.test/x"}, EVIL), {"SignatureInvalid"}),
    "jwk of an attacker": (replaced({"jwk": EVIL_JWK}, EVIL), {"SignatureInvalid"}),
    "jwk of an attacker without a kid": (replaced({"jwk": EVIL_JWK, "kid": ...}, EVIL), {"KeyUnknown"}),
    "x5c of an attacker": (replaced({"x5c": ["MIIB"]}, EVIL), {"SignatureInvalid"}),
    "crit": (replaced({"crit": ["exp"]}), {"AlgorithmNotTaken"}),
    "crit empty": (replaced({"crit": []}), {"AlgorithmNotTaken"}),
    "payload that is not encoded": (replaced({"crit": ["b64"], "b64": False}), {"AlgorithmNotTaken"}),
    "signed by somebody else": (replaced({}, EVIL), {"SignatureInvalid"}),
    "no signature": (altered(lambda header, payload, _: f"{header}.{payload}."), {"SignatureInvalid"}),
    "signature cut off": (
        altered(lambda header, payload, signature: f"{header}.{payload}.{signature[:-2]}"),
        {"SignatureInvalid"},
    ),
    "signature of other claims": (
        altered(lambda header, _, signature: f"{header}.{encoded(b'{}')}.{signature}"),
        {"SignatureInvalid"},
    ),
    "no claims": (altered(lambda header, _, signature: f"{header}..{signature}"), {"SignatureInvalid"}),
    "no header": (altered(lambda _, payload, signature: f".{payload}.{signature}"), {"TokenUnreadable"}),
    "two parts": (altered(lambda header, payload, _: f"{header}.{payload}"), {"TokenUnreadable"}),
    "four parts": (altered(lambda *parts: ".".join((*parts, parts[2]))), {"TokenUnreadable"}),
    "five parts, as encrypted tokens have": (altered(lambda *parts: ".".join((*parts, "AAAA", "AAAA"))), {"TokenUnreadable"}),
    "in JSON form": (
        altered(lambda header, payload, signature: json.dumps({"protected": header, "payload": payload, "signature": signature})),
        {"TokenUnreadable"},
    ),
    "empty": (lambda _sample: "", {"TokenUnreadable"}),
    "dots": (lambda _sample: "..", {"TokenUnreadable"}),
    "many dots": (lambda _sample: "." * MAX_TOKEN, {"TokenUnreadable"}),
    "too long": (replaced({}, filling="x" * MAX_TOKEN), {"TokenUnreadable"}),
    "a letter behind it": (altered(lambda *parts: ".".join(parts) + "A"), {"SignatureInvalid", "TokenUnreadable"}),
    "a line break behind it": (altered(lambda *parts: ".".join(parts) + "\n"), {"TokenUnreadable"}),
    "a blank before it": (altered(lambda *parts: " " + ".".join(parts)), {"TokenUnreadable"}),
    "Bearer before it": (altered(lambda *parts: "Bearer " + ".".join(parts)), {"TokenUnreadable"}),
    "a zero byte behind it": (altered(lambda *parts: ".".join(parts) + "\x00"), {"TokenUnreadable"}),
    "padding behind it": (altered(lambda *parts: ".".join(parts) + "=="), {"TokenUnreadable"}),
    "padding in it": (altered(lambda header, payload, signature: f"{header}=.{payload}.{signature}"), {"TokenUnreadable"}),
    "other unused bits of the signature": (
        altered(lambda header, payload, signature: f"{header}.{payload}.{unused_bits(signature)}"),
        {"TokenUnreadable"},
    ),
    "the other alphabet": (
        altered(lambda header, payload, signature: f"{header}.{payload}.{'+/' + signature[2:]}"),
        {"TokenUnreadable"},
    ),
    "letters that only look like ASCII": (
        altered(lambda header, payload, signature: f"{header}.{payload}.{chr(0xFF21) + signature[1:]}"),
        {"TokenUnreadable"},
    ),
    "half a character": (altered(lambda header, payload, _: f"{header}.{payload}.\ud800AA"), {"TokenUnreadable"}),
    "base64 in lines": (
        altered(lambda header, payload, signature: f"{header}.{payload}.{signature[:76]}\n{signature[76:]}"),
        {"TokenUnreadable"},
    ),
    "header with alg twice": (raw_header(b'{"alg":"none","kid":"a","alg":"RS256"}'), {"TokenUnreadable"}),
    "header with kid twice": (raw_header(b'{"alg":"RS256","kid":"b","kid":"a"}'), {"TokenUnreadable"}),
    "header with a key twice, once escaped": (raw_header(b'{"alg":"RS256","kid":"b","k\\u0069d":"a"}'), {"TokenUnreadable"}),
    "header a list": (raw_header(b'[{"alg":"RS256","kid":"a"}]'), {"TokenUnreadable"}),
    "header a text": (raw_header(b'"RS256"'), {"TokenUnreadable"}),
    "header empty": (raw_header(b""), {"TokenUnreadable"}),
    "header with a byte order mark": (raw_header(b'\xef\xbb\xbf{"alg":"RS256","kid":"a"}'), {"TokenUnreadable"}),
    "header in UTF-16": (raw_header('{"alg":"RS256","kid":"a"}'.encode("utf-16")), {"TokenUnreadable"}),
    "header in Latin-1": (raw_header('{"alg":"RS256","kid":"ä"}'.encode("latin-1")), {"TokenUnreadable"}),
    "header with a comment": (raw_header(b'{"alg":"RS256",/**/"kid":"a"}'), {"TokenUnreadable"}),
    "header with more behind it": (raw_header(b'{"alg":"RS256","kid":"a"}{}'), {"TokenUnreadable"}),
    "header with NaN": (raw_header(b'{"alg":"RS256","kid":"a","x":NaN}'), {"TokenUnreadable"}),
    "header with half a character": (raw_header(b'{"alg":"RS256","kid":"a","x":"\\ud800"}'), {"TokenUnreadable"}),
    "header of a hundred levels": (
        raw_header(b'{"alg":"RS256","kid":"a","x":' + b"[" * 100 + b"]" * 100 + b"}"),
        {"TokenUnreadable"},
    ),
    "header of thousands of levels": (raw_header(b'{"alg":"RS256","kid":"a","x":' + b"[" * 9000), {"TokenUnreadable"}),
    "claims with sub twice": (raw_claims(with_more(',"sub":"admin"')), {"TokenUnreadable"}),
    "claims with aud twice": (raw_claims(with_more(f',"aud":"{CLUSTER}"')), {"TokenUnreadable"}),
    "claims with a key twice, once escaped": (raw_claims(with_more(',"s\\u0075b":"admin"')), {"TokenUnreadable"}),
    "claims with a nested key twice": (raw_claims(with_more(',"x":{"a":{"b":1,"b":2}}')), {"TokenUnreadable"}),
    "claims with NaN": (raw_claims(with_more(',"x":NaN')), {"TokenUnreadable"}),
    "claims with Infinity": (raw_claims(with_more(',"x":-Infinity')), {"TokenUnreadable"}),
    "claims with a number that becomes infinite": (raw_claims(with_more(',"x":1e999')), {"TokenUnreadable"}),
    "claims with a number of thousands of digits": (raw_claims(with_more(',"x":' + "9" * 5000)), {"TokenUnreadable"}),
    "claims with half a character": (raw_claims(with_more(',"x":"\\udc00"')), {"TokenUnreadable"}),
    "claims with half a character in a name": (raw_claims(with_more(',"\\ud800":1')), {"TokenUnreadable"}),
    "claims of forty levels": (raw_claims(with_more(',"x":' + "[" * 40 + "]" * 40)), {"TokenUnreadable"}),
    "claims of thousands of levels": (raw_claims(with_more(',"x":' + '{"a":' * 1500 + "1" + "}" * 1500)), {"TokenUnreadable"}),
    "claims a list": (raw_claims(lambda text: f"[{text}]"), {"TokenUnreadable"}),
    "claims a text": (raw_claims(lambda text: json.dumps(text)), {"TokenUnreadable"}),  # noqa: PLW0108 - its type
    "claims with more behind them": (raw_claims(lambda text: text + "x"), {"TokenUnreadable"}),
    "claims in UTF-16": (raw_claims(lambda text: text.encode("utf-16")), {"TokenUnreadable"}),
    "claims with a byte order mark": (raw_claims(lambda text: "\ufeff" + text), {"TokenUnreadable"}),
    "claims compressed": (raw_claims(lambda text: base64.b85encode(text.encode())), {"TokenUnreadable"}),
}


@pytest.mark.parametrize(("make", "reasons"), TOKENS.values(), ids=TOKENS.keys())
@pytest.mark.parametrize("name", METHODS)
async def test_tokens(name: str, make: Callable[[Sample], str], reasons: set[str]) -> None:
    token = make(sample_of(name))
    error = await denied(name, token)
    assert error.reason in reasons
    for part in token.split("."):
        assert len(part) < 8 or part not in str(error)


@pytest.mark.parametrize("name", METHODS)
async def test_refusal_repeats_nothing_of_the_claims(name: str) -> None:
    marked = {"sub": "marked-sub", "email": "marked-email", "zz": "marked-zz"}
    for changes in ({"exp": 1}, {"aud": "marked-aud"}, {"iss": "marked-iss"}, {"iat": "marked-iat"}):
        error = await denied(name, signed(sample_of(name).token(**marked, **changes), GOOD))
        assert "marked" not in str(error)


def test_proof_does_not_print_its_token() -> None:
    proof: Mapping[str, Any] = {"token": "eyJ.secret.secret"}
    assert "secret.secret" not in repr(TokenProof.model_validate(proof))
    assert "secret.secret" not in TokenProof.model_validate(proof).model_dump_json()
