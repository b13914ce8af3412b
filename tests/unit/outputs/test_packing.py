"""What all types share of a Secret's content: keys under other names, keystores, the type of the Secret, passwords."""

from typing import Any

import pytest

from machinebot.errors import Invalid
from machinebot.outputs import inspect, packing
from machinebot.outputs.keystores import KEYSTORE, PASSWORD, TRUSTSTORE
from machinebot.resources.output import SecretKeyRef
from unit.outputs.builders import SPECS, content, material, output

APPLICATION: dict[str, Any] = {"application": {}}
POSTGRES: dict[str, Any] = {"database": {"format": "postgres", "user": "app"}}
MADE: dict[str, Any] = {"pkcs12": {}}
GIVEN = {"pkcs12": {"passwordSecretRef": {"name": "password"}}}
TLS = "kubernetes.io/tls"


def refusal(spec: dict[str, Any], **more: Any) -> Invalid:
    with pytest.raises(Invalid) as caught:
        packing.keys(output(spec, **more))
    return caught.value


# --- other names ----------------------------------------------------------------------------------------------------

RENAMED: list[Any] = [
    pytest.param(APPLICATION, {}, {"tls.crt", "tls.key", "ca.crt"}, id="none"),
    pytest.param(APPLICATION, {"tls.crt": "client.pem"}, {"client.pem", "tls.key", "ca.crt"}, id="one"),
    pytest.param(APPLICATION, {"tls.crt": "tls.crt"}, {"tls.crt", "tls.key", "ca.crt"}, id="to itself"),
    pytest.param(APPLICATION, {"tls.crt": "tls.key", "tls.key": "tls.crt"}, {"tls.crt", "tls.key", "ca.crt"}, id="two swapped"),
    pytest.param(
        APPLICATION,
        {"tls.crt": "tls.key", "tls.key": "ca.crt", "ca.crt": "tls.crt"},
        {"tls.crt", "tls.key", "ca.crt"},
        id="three in a ring",
    ),
    pytest.param(
        APPLICATION, {"ca.crt": KEYSTORE}, {"tls.crt", "tls.key", KEYSTORE}, id="a name of keystores where there are none"
    ),
    pytest.param(
        {"database": {"format": "cockroach", "user": "app"}},
        {"client.app.crt": "tls.crt", "client.app.key": "tls.key"},
        {"tls.crt", "tls.key", "ca.crt"},
        id="a name with a user in it",
    ),
    pytest.param(
        {"x509SVID": {"keys": {"svid": "a"}}}, {"a": "b"}, {"b", "svid_key.pem", "svid_bundle.pem"}, id="a name by the settings"
    ),
    pytest.param({"jwtSVID": {"audiences": ["vault"]}}, {"jwt_svid": "token"}, {"token"}, id="a token"),
]


@pytest.mark.parametrize(("spec", "renamed", "expected"), RENAMED)
def test_keys_get_the_names_that_are_asked_for(spec: dict[str, Any], renamed: dict[str, str], expected: set[str]) -> None:
    wanted = output(spec, secret={"keys": renamed})
    made = material(wanted)
    plain = wanted.type.render(wanted.settings, made)
    data = packing.pack(wanted, made, password=None)
    assert data.keys() == packing.keys(wanted) == expected
    assert {key: data[renamed.get(key, key)] for key in plain} == plain, "each content under its own new name"
    assert packing.unpacked(wanted, data) == plain
    assert inspect.inspect(wanted, data).serial == made.issued.serial


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS.keys())
def test_every_key_of_every_type_can_have_another_name_but_those_that_argo_cd_reads(spec: dict[str, Any]) -> None:
    plain = output(spec)
    renamed = {key: f"renamed.{key}" for key in plain.type.keys(plain.settings)}
    wanted = output(spec, secret={"keys": renamed})
    if spec.get("kubernetes", {}).get("argoCD"):
        with pytest.raises(Invalid, match="KeysFixed"):
            packing.keys(wanted)
        return
    data = content(wanted)
    assert data.keys() == set(renamed.values())
    assert inspect.inspect(wanted, data).serial > 0


@pytest.mark.parametrize(
    ("spec", "renamed", "keystores", "reason", "words"),
    [
        pytest.param(
            APPLICATION,
            {"tls.pem": "a", "cert": "b"},
            None,
            "UnknownKey",
            "secret.keys names 'cert', 'tls.pem', and the Secret of this output has the keys 'ca.crt', 'tls.crt', 'tls.key': "
            "write one of these on the left",
            id="keys that the type does not have",
        ),
        pytest.param(
            {"database": {"format": "cockroach", "user": "app"}},
            {"client.root.crt": "a"},
            None,
            "UnknownKey",
            "'client.app.crt'",
            id="the key of another user",
        ),
        pytest.param(APPLICATION, {KEYSTORE: "a"}, MADE, "UnknownKey", "'keystore.p12'", id="a keystore"),
        pytest.param(
            APPLICATION,
            {"tls.crt": "tls.key"},
            None,
            "KeyTwice",
            "the Secret would have two keys 'tls.key': give one of them another name in secret.keys",
            id="onto another key",
        ),
        pytest.param(
            APPLICATION, {"tls.crt": "a", "tls.key": "a", "ca.crt": "a"}, None, "KeyTwice", "two keys 'a'", id="several to one"
        ),
        pytest.param(APPLICATION, {"ca.crt": TRUSTSTORE}, MADE, "KeyTwice", "two keys 'truststore.p12'", id="onto a truststore"),
        pytest.param(APPLICATION, {"ca.crt": PASSWORD}, MADE, "KeyTwice", "two keys 'keystore.password'", id="onto the password"),
        pytest.param(
            {"x509SVID": {"keys": {"svid": KEYSTORE}}}, {}, GIVEN, "KeyTwice", "two keys 'keystore.p12'", id="by the settings"
        ),
    ],
)
def test_names_that_cannot_be_are_refused_with_what_to_write(
    spec: dict[str, Any], renamed: dict[str, str], keystores: dict[str, Any] | None, reason: str, words: str
) -> None:
    refused = refusal(spec, secret={"keys": renamed}, **({} if keystores is None else {"keystores": keystores}))
    assert refused.reason == reason
    assert words in refused.message


def test_the_name_of_the_password_is_free_where_none_is_shown() -> None:
    wanted = output(APPLICATION, secret={"keys": {"ca.crt": PASSWORD}}, keystores=GIVEN)
    data = packing.pack(wanted, material(wanted), password="correct horse")
    assert data[PASSWORD].startswith(b"-----BEGIN CERTIFICATE")
    assert data.keys() == packing.keys(wanted)


# --- the type of the Secret -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "renamed"),
    [
        pytest.param({"identity": {}}, {}, id="identity"),
        pytest.param(APPLICATION, {}, id="application"),
        pytest.param({"database": {"user": "app"}}, {}, id="database"),
        pytest.param(POSTGRES, {"postgresql.crt": "tls.crt", "postgresql.key": "tls.key"}, id="postgres, renamed"),
        pytest.param({"x509SVID": {"keys": {"svid": "tls.crt", "key": "tls.key"}}}, {}, id="x509SVID by its settings"),
    ],
)
def test_a_tls_secret_has_the_keys_that_the_api_server_wants(spec: dict[str, Any], renamed: dict[str, str]) -> None:
    assert packing.keys(output(spec, secret={"type": TLS, "keys": renamed})) >= packing.TLS_KEYS


@pytest.mark.parametrize(
    ("spec", "renamed"),
    [
        pytest.param(POSTGRES, {}, id="postgres"),
        pytest.param(POSTGRES, {"postgresql.crt": "tls.crt"}, id="half renamed"),
        pytest.param({"database": {"format": "mongo", "user": "app"}}, {"mongo.crt": "tls.crt"}, id="mongo"),
        pytest.param(APPLICATION, {"tls.crt": "client.crt"}, id="renamed away"),
        pytest.param(SPECS["sshHost"], {}, id="sshHost"),
        pytest.param(SPECS["jwtSVID"], {}, id="jwtSVID"),
        pytest.param(SPECS["kubernetes"], {}, id="kubernetes"),
        pytest.param(SPECS["x509SVID"], {}, id="x509SVID"),
    ],
)
def test_a_tls_secret_without_these_keys_is_refused_with_what_there_is(spec: dict[str, Any], renamed: dict[str, str]) -> None:
    refused = refusal(spec, secret={"type": TLS, "keys": renamed})
    plain = packing.keys(output(spec, secret={"keys": renamed}))
    assert refused.reason == "NotTLS"
    assert refused.message == (
        f"a Secret of the type {TLS} holds tls.crt and tls.key, and this output makes {', '.join(sorted(plain))}: leave "
        "secret.type out, or name these keys so in secret.keys"
    )


# --- passwords ------------------------------------------------------------------------------------------------------


def test_a_password_is_made_for_each_issue_and_shown() -> None:
    wanted = output(APPLICATION, keystores=MADE)
    first, second = content(wanted), content(wanted)
    assert first.keys() == packing.keys(wanted) == {"tls.crt", "tls.key", "ca.crt", KEYSTORE, TRUSTSTORE, PASSWORD}
    assert first[PASSWORD] != second[PASSWORD]
    assert len(first[PASSWORD]) == 32
    assert packing.password_from(SecretKeyRef(name="a", key=PASSWORD), first) == first[PASSWORD].decode(), "and is a good one"


def test_a_password_that_was_given_is_not_shown() -> None:
    wanted = output(APPLICATION, keystores=GIVEN)
    data = content(wanted, password="correct horse")
    assert data.keys() == packing.keys(wanted) == {"tls.crt", "tls.key", "ca.crt", KEYSTORE, TRUSTSTORE}
    assert b"correct horse" not in b"".join(data.values())


def test_keystores_that_name_no_form_are_none() -> None:
    wanted = output(APPLICATION, keystores={})
    assert content(wanted).keys() == packing.keys(wanted) == {"tls.crt", "tls.key", "ca.crt"}


REFERENCE = SecretKeyRef(name="java", key="password")


@pytest.mark.parametrize(
    "text", [b"six678", b"correct horse", b"x" * 256, b"~!@#$%^&*()_+ {}|", b" blank at both ends "], ids=repr
)
def test_a_password_is_taken_as_it_stands(text: bytes) -> None:
    assert packing.password_from(REFERENCE, {"password": text, "other": b"x"}).encode() == text


@pytest.mark.parametrize(
    ("data", "reason", "words"),
    [
        pytest.param(None, "PasswordMissing", "there is no Secret 'java'", id="no Secret, or one of ours"),
        pytest.param({}, "PasswordMissing", "has no key 'password': correct passwordSecretRef", id="an empty Secret"),
        pytest.param({"Password": b"correct horse"}, "PasswordMissing", "has no key 'password'", id="another key"),
        pytest.param({"password": b""}, "PasswordInvalid", "6 to 256 printable ASCII characters", id="empty"),
        pytest.param({"password": b"five5"}, "PasswordInvalid", "6 to 256", id="too short"),
        pytest.param({"password": b"x" * 257}, "PasswordInvalid", "6 to 256", id="too long"),
        pytest.param({"password": b"correct horse\n"}, "PasswordInvalid", "without a newline at the end", id="a newline"),
        pytest.param({"password": b"correct\x00horse"}, "PasswordInvalid", "printable", id="a null byte"),
        pytest.param({"password": b"correct\thorse"}, "PasswordInvalid", "printable", id="a tab"),
        pytest.param({"password": "Pferdestärke".encode()}, "PasswordInvalid", "ASCII", id="not ASCII"),
        pytest.param({"password": b"\xff\xfe\xfd\xfc\xfb\xfa"}, "PasswordInvalid", "ASCII", id="no text"),
    ],
)
def test_what_is_no_password_is_refused_without_showing_it(data: dict[str, bytes] | None, reason: str, words: str) -> None:
    with pytest.raises(Invalid) as caught:
        packing.password_from(REFERENCE, data)
    assert caught.value.reason == reason
    assert words in caught.value.message
    assert "horse" not in caught.value.message
    assert caught.value.__cause__ is None
