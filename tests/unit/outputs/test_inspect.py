"""What the content of a Secret amounts to, and what is said of one that was damaged, whatever is in it."""

import base64
import json
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import jwt
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from machinebot.errors import Invalid
from machinebot.outputs import inspect
from machinebot.outputs.keys import generate
from unit.outputs.builders import SPECS, content, output

UNREADABLE = "a key of the Secret holds something that cannot be read"
NO_KEY = "the Secret holds no private key where one belongs"
TWO_ISSUES = "the credentials in the Secret are not of one issue"

Data = dict[str, bytes]


def refusal(name: str, data: Mapping[str, bytes]) -> str:
    with pytest.raises(Invalid) as caught:
        inspect.inspect(output(SPECS[name]), data)
    assert caught.value.reason == "SecretDamaged"
    assert caught.value.__cause__ is None, "what was read is not in the chain either"
    return caught.value.message


def edited(name: str, key: str, edit: Callable[[bytes], bytes]) -> Data:
    data = content(output(SPECS[name]))
    return {**data, key: edit(data[key])}


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPECS)
def test_a_key_less_or_a_key_more_is_told_by_its_name(name: str) -> None:
    data = content(output(SPECS[name]))
    for key in data:
        less = {other: value for other, value in data.items() if other != key}
        assert refusal(name, less) == f"the Secret lacks the keys ['{key}'] and has the foreign keys []"
    assert "the foreign keys ['notes']" in refusal(name, {**data, "notes": b""})


@pytest.mark.parametrize("name", SPECS)
def test_a_key_that_is_too_large_is_not_parsed(name: str) -> None:
    data = content(output(SPECS[name]))
    for key in data:
        assert refusal(name, {**data, key: data[key] + b" " * inspect.MAX_PIECE}) == (
            f"the keys ['{key}'] of the Secret are larger than 65536 bytes"
        )


def kubeconfig(edit: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
    def apply(text: bytes) -> bytes:
        config = yaml.safe_load(text)
        return yaml.safe_dump(edit(config) or config).encode()

    return apply


def cluster(edit: Callable[[Any], Any]) -> Callable[[bytes], bytes]:
    def apply(text: bytes) -> bytes:
        config = json.loads(text)
        return json.dumps(edit(config) or config).encode()

    return apply


def user(**changed: Any) -> Callable[[Any], None]:
    return lambda config: config["users"][0]["user"].update(changed)


def tls(**changed: Any) -> Callable[[Any], None]:
    return lambda config: config["tlsClientConfig"].update(changed)


ALIASES = b"a: &a [x, x]\nb: &b [*a, *a]\nusers: [*b, *b]\n"
"""YAML by which a small text becomes a large one."""

DAMAGED: list[Any] = [
    pytest.param("kubernetes", "kubeconfig.yaml", lambda _: ALIASES, UNREADABLE, id="kubeconfig with aliases"),
    pytest.param(
        "kubernetes", "kubeconfig.yaml", lambda text: text + b"more: &a 1\nagain: *a\n", UNREADABLE, id="kubeconfig and an alias"
    ),
    pytest.param("kubernetes", "kubeconfig.yaml", lambda _: b"", UNREADABLE, id="empty kubeconfig"),
    pytest.param("kubernetes", "kubeconfig.yaml", lambda _: b"{", UNREADABLE, id="no YAML"),
    pytest.param("kubernetes", "kubeconfig.yaml", lambda _: b"[" * 60_000, UNREADABLE, id="endless depth"),
    pytest.param("kubernetes", "kubeconfig.yaml", lambda _: b"\xff\xfe", UNREADABLE, id="no text"),
    pytest.param("kubernetes", "kubeconfig.yaml", lambda _: b"\x00", UNREADABLE, id="a null byte"),
    pytest.param("kubernetes", "kubeconfig.yaml", lambda _: b"!!python/object/apply:os.system [id]", UNREADABLE, id="a tag"),
    pytest.param("kubernetes", "kubeconfig.yaml", lambda _: b"users", UNREADABLE, id="a word"),
    pytest.param("kubernetes", "kubeconfig.yaml", lambda _: b"users: 3", UNREADABLE, id="users that are none"),
    pytest.param("kubernetes", "kubeconfig.yaml", lambda _: b"users: []", UNREADABLE, id="no users"),
    pytest.param("kubernetes", "kubeconfig.yaml", lambda _: b"- 2027-99-99", UNREADABLE, id="a date that there is not"),
    pytest.param("kubernetes", "kubeconfig.yaml", kubeconfig(user(**{"client-key-data": "%"})), UNREADABLE, id="no base64"),
    pytest.param("kubernetes", "kubeconfig.yaml", kubeconfig(user(**{"client-key-data": "é"})), UNREADABLE, id="not ASCII"),
    pytest.param("kubernetes", "kubeconfig.yaml", kubeconfig(user(**{"client-key-data": 3})), UNREADABLE, id="a number"),
    pytest.param("kubernetes", "kubeconfig.yaml", kubeconfig(user(**{"client-key-data": None})), UNREADABLE, id="null"),
    pytest.param("kubernetes", "kubeconfig.yaml", kubeconfig(user(**{"client-key-data": "eA=="})), NO_KEY, id="no key"),
    pytest.param(
        "kubernetes",
        "kubeconfig.yaml",
        kubeconfig(user(**{"client-certificate-data": "eA=="})),
        "'the client certificate' in the Secret holds no certificate",
        id="no certificate",
    ),
    pytest.param(
        "kubernetes",
        "kubeconfig.yaml",
        kubeconfig(user(**{"client-key-data": base64.b64encode(generate("ECDSA-P256").pkcs8).decode()})),
        "the private key in the Secret does not fit the certificate 'the client certificate'",
        id="another key",
    ),
    pytest.param("kubernetes for Argo CD", "config", lambda _: b"", UNREADABLE, id="empty config"),
    pytest.param("kubernetes for Argo CD", "config", lambda _: b"{", UNREADABLE, id="no JSON"),
    pytest.param("kubernetes for Argo CD", "config", lambda _: b"[" * 60_000, UNREADABLE, id="endless JSON"),
    pytest.param("kubernetes for Argo CD", "config", lambda _: b"\xff\xfe\xfd", UNREADABLE, id="no text in config"),
    pytest.param("kubernetes for Argo CD", "config", lambda _: b"null", UNREADABLE, id="null config"),
    pytest.param("kubernetes for Argo CD", "config", lambda _: b"[]", UNREADABLE, id="a list"),
    pytest.param("kubernetes for Argo CD", "config", lambda _: b"9" * 5_000, UNREADABLE, id="a long number"),
    pytest.param("kubernetes for Argo CD", "config", cluster(tls(keyData="%")), UNREADABLE, id="no base64 in config"),
    pytest.param("kubernetes for Argo CD", "config", cluster(tls(keyData={})), UNREADABLE, id="an object for a key"),
    pytest.param("kubernetes for Argo CD", "config", cluster(tls(keyData="")), NO_KEY, id="an empty key in config"),
    pytest.param("jwtSVID", "jwt_svid", lambda _: b"", "'jwt_svid' in the Secret holds no token", id="empty token"),
    pytest.param("jwtSVID", "jwt_svid", lambda _: b"a.b.c", "'jwt_svid' in the Secret holds no token", id="token of nothing"),
    pytest.param("jwtSVID", "jwt_svid", lambda _: b"\xff.\xff", "'jwt_svid' in the Secret holds no token", id="no text in token"),
    # 65 characters are no base64; with 66 of the 86 the last one decides, and the signature is another each time.
    pytest.param(
        "jwtSVID", "jwt_svid", lambda text: text[:-21], "'jwt_svid' in the Secret holds no token", id="half a signature"
    ),
    pytest.param("application", "tls.key", lambda _: b"", NO_KEY, id="empty key"),
    pytest.param("application", "tls.key", lambda text: text[:100], NO_KEY, id="half a key"),
    pytest.param("application", "tls.key", lambda _: b"-----BEGIN OPENSSH PRIVATE KEY-----\n", NO_KEY, id="half an SSH key"),
    pytest.param("application", "tls.crt", lambda _: b"", "'tls.crt' in the Secret holds no certificate", id="empty certificate"),
    pytest.param(
        "application",
        "tls.key",
        lambda _: generate("Ed25519").pkcs8,
        "the private key in the Secret does not fit the certificate 'tls.crt'",
        id="a key of another algorithm",
    ),
    pytest.param("database in one file", "mongo.crt", lambda text: text.split(b"-----BEGIN CERT")[0], None, id="key alone"),
    pytest.param(
        "database in one file", "mongo.crt", lambda text: text[text.index(b"-----BEGIN CERT") :], NO_KEY, id="certificate alone"
    ),
]


@pytest.mark.parametrize(("name", "key", "edit", "message"), DAMAGED)
def test_damage_is_told_without_showing_content(name: str, key: str, edit: Callable[[bytes], bytes], message: str | None) -> None:
    assert refusal(name, edited(name, key, edit)) == (message or f"'{key}' in the Secret holds no certificate")


@pytest.mark.parametrize(
    "claims",
    [
        pytest.param({"exp": None}, id="no end"),
        pytest.param({"nbf": None}, id="no begin"),
        pytest.param({"jti": None}, id="no serial"),
        pytest.param({"jti": "first"}, id="a serial that is no number"),
        pytest.param({"jti": "9" * 5_000}, id="an endless serial"),
        pytest.param({"exp": 10**20}, id="an end beyond the calendar"),
        pytest.param({"exp": "soon"}, id="an end that is no time"),
        pytest.param({"nbf": {}}, id="a begin that is an object"),
        pytest.param({"nbf": 1e400}, id="a begin beyond numbers"),
    ],
)
def test_a_token_that_does_not_say_what_ours_say_is_none(claims: dict[str, Any]) -> None:
    full = {"exp": 1_800_000_000, "nbf": 1_799_000_000, "jti": "7"} | claims
    token = jwt.encode({name: value for name, value in full.items() if value is not None}, "k" * 32, "HS256")
    assert refusal("jwtSVID", {"jwt_svid": token.encode()}) == "'jwt_svid' in the Secret holds no token"


@pytest.mark.parametrize("key", ["tlscert", "tls.crt", "key-cert.pub"])
def test_credentials_of_two_issues_are_damage(key: str) -> None:
    first, second = content(output(SPECS["identity"])), content(output(SPECS["identity"]))
    assert first["tls.key"] == second["tls.key"], "of one key, so that each alone fits"
    assert refusal("identity", {**first, key: second[key]}) == TWO_ISSUES


@lru_cache
def one_content(name: str) -> Mapping[str, bytes]:
    """The same at each call."""
    return content(output(SPECS[name]))


@pytest.mark.parametrize("name", SPECS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_bytes_in_any_key_are_good_or_damage_and_nothing_else(name: str, data: st.DataObject) -> None:
    whole = one_content(name)
    key = data.draw(st.sampled_from(sorted(whole)))
    cut, gap = data.draw(st.integers(0, 4_000)), data.draw(st.integers(0, 40))
    changed = whole[key][:cut] + data.draw(st.binary(max_size=40)) + whole[key][cut + gap :]
    reasons: set[str] = set()
    try:
        inspect.inspect(output(SPECS[name]), {**whole, key: changed})
    except Invalid as error:
        reasons.add(error.reason)
    assert reasons <= {"SecretDamaged"}


def test_the_digest_tells_apart_what_is_not_the_same() -> None:
    contents: list[Data] = [{}, {"a": b""}, {"a": b"b"}, {"ab": b""}, {"a": b"", "b": b""}, {"b": b"a"}]
    assert len({inspect.digest(each) for each in contents}) == len(contents)
    assert inspect.digest({"a": b"1", "b": b"2"}) == inspect.digest({"b": b"2", "a": b"1"})
