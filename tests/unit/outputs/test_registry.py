"""Finding the types of output, and reading a MachineOutput."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from machinebot.errors import Invalid
from machinebot.outputs.registry import OUTPUT_TYPES, one_type_message, parse_output, schema_model
from unit.outputs.builders import SPECS, body

GOOD = Path(__file__).parents[2] / "integration" / "data" / "crds" / "good"
EXAMPLES = [
    pytest.param(document, id=document["metadata"]["name"])
    for path in sorted(GOOD.glob("output-*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]


@pytest.mark.parametrize("document", EXAMPLES)
def test_every_good_example_is_read(document: dict[str, Any]) -> None:
    output = parse_output({**document, "metadata": {**document["metadata"], "uid": "1"}})
    assert output.type.name in document["spec"]
    assert output.secret_name == document["spec"].get("secret", {}).get("name", document["metadata"]["name"])


def test_a_field_chooses_the_type_and_holds_its_settings() -> None:
    output = parse_output(body({"sshHost": {"principals": ["web-1.example.test"]}}))
    assert output.type is OUTPUT_TYPES["sshHost"]
    assert output.settings.wire() == {"principals": ["web-1.example.test"]}
    assert output.spec.bot == "deployer"
    assert output.status.conditions == ()


def test_a_type_may_have_no_settings() -> None:
    assert parse_output(body({"identity": {}})).type is OUTPUT_TYPES["identity"]


def test_the_secret_is_named_like_the_output_unless_it_says_otherwise() -> None:
    assert parse_output(body({"identity": {}})).secret_name == "out"
    assert parse_output(body({"identity": {}, "secret": {"name": "other"}})).secret_name == "other"


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"identity": None},
        {"desktop": {}},
        {"identity": {}, "sshHost": {"principals": ["web-1.example.test"]}},
        {"application": {}, "jwtSVID": {"audiences": ["vault"]}},
    ],
    ids=["none", "null", "unknown", "two", "two others"],
)
def test_anything_but_one_type_is_refused_with_the_types(spec: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refusal:
        parse_output(body(spec))
    assert refusal.value.reason == "InvalidSpec"
    assert refusal.value.message == (
        "exactly one type of output must be set: application, database, identity, jwtSVID, kubernetes, sshHost, x509SVID"
    )


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"sshHost": {}}, "principals"),
        ({"sshHost": {"principals": []}}, "principals"),
        ({"sshHost": {"principals": ["web-1", "*.example.test"]}}, "principals.1"),
        ({"sshHost": {"principals": ["web-1\nweb-2"]}}, "principals.0"),
        ({"identity": {"knownHosts": ["a,b"]}}, "knownHosts.0"),
        ({"identity": {"mountPath": "id"}}, "mountPath"),
        ({"identity": {"mountPath": "/id\n  ProxyCommand sh"}}, "mountPath"),
        ({"database": {"format": "oracle", "user": "app"}}, "format"),
        ({"database": {"user": "a b"}}, "user"),
        ({"database": {"user": "app,CN=root"}}, "user"),
        ({"database": {"server": True, "dnsNames": ["*.data.svc"]}}, "dnsNames.0"),
        ({"kubernetes": {"server": "http://api.example.test"}}, "server"),
        ({"kubernetes": {"server": "https://api.example.test\n"}}, "server"),
        ({"kubernetes": {"certificateAuthority": "TUlJ"}}, "certificateAuthority"),
        ({"kubernetes": {"user": "a\nb"}}, "user"),
        ({"x509SVID": {"path": "ns/ci"}}, "path"),
        ({"x509SVID": {"keys": {"svid": "a/b"}}}, "keys.svid"),
        ({"jwtSVID": {"audiences": []}}, "audiences"),
        ({"jwtSVID": {"audiences": ["*"]}}, "audiences.0"),
        ({"identity": {}, "bot": "other/bot"}, "bot"),
        ({"identity": {}, "credentialTTL": "1d"}, "credentialTTL"),
        ({"identity": {}, "renewBeforePercentage": 95}, "renewBeforePercentage"),
        ({"identity": {}, "privateKey": {"algorithm": "RSA-1024"}}, "privateKey.algorithm"),
        ({"identity": {}, "secret": {"name": "other/secret"}}, "secret.name"),
        ({"identity": {}, "secret": {"type": "kubernetes.io/service-account-token"}}, "secret.type"),
        ({"identity": {}, "secret": {"keys": {"tls.crt": "a/b"}}}, "secret.keys.tls.crt"),
        ({"identity": {}, "secret": {"keys": {"tls.crt": "..data"}}}, "secret.keys.tls.crt"),
        ({"identity": {}, "secret": {"keys": {"tls.crt": "."}}}, "secret.keys.tls.crt"),
        ({"identity": {}, "keystores": {"pkcs12": {"passwordSecretRef": {}}}}, "keystores.pkcs12.passwordSecretRef.name"),
        ({"identity": {}, "rolloutRestart": [{"kind": "Pod", "name": "web"}]}, "rolloutRestart.0.kind"),
    ],
)
def test_bad_settings_are_refused_with_the_field(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refusal:
        parse_output(body(spec))
    assert refusal.value.reason == "InvalidSpec"
    assert refusal.value.message.startswith(f"{field}: ")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            {"jwtSVID": {"audiences": ["vault"]}, "keystores": {}},
            "an output of the type jwtSVID holds no X.509 certificate: leave keystores out",
        ),
        (
            {"sshHost": {"principals": ["web-1"]}, "keystores": {"pkcs12": {}}},
            "an output of the type sshHost holds no X.509 certificate: leave keystores out",
        ),
    ],
    ids=["jwtSVID", "sshHost"],
)
def test_what_a_type_has_no_room_for_is_refused(spec: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid) as refusal:
        parse_output(body(spec))
    assert (refusal.value.reason, refusal.value.message) == ("InvalidSpec", message)


@pytest.mark.parametrize(
    "keys",
    [
        {"svid": "a", "key": "a"},
        {"svid": "svid_bundle.pem"},
        {"svid": "svid_key.pem", "key": "svid.pem", "bundle": "svid.pem"},
    ],
    ids=["two", "onto a default", "two of three"],
)
def test_the_keys_in_the_settings_of_an_svid_must_differ(keys: dict[str, str]) -> None:
    """One would overwrite the other."""
    with pytest.raises(Invalid, match=r"^InvalidSpec: keys: .*need three names"):
        parse_output(body({"x509SVID": {"keys": keys}}))
    assert parse_output(body({"x509SVID": {"keys": {"svid": "svid_key.pem", "key": "svid.pem"}}}))


def test_the_default_algorithm_is_no_wish_where_there_is_no_private_key() -> None:
    """The models fill it in; the schema refuses privateKey where a person writes it."""
    assert parse_output(body(SPECS["jwtSVID"])).spec.private_key.algorithm == "ECDSA-P256"


@pytest.mark.parametrize("broken", [{}, {"spec": None}, {"metadata": None, "spec": {"bot": "b", "identity": {}}}])
def test_a_broken_object_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        parse_output(broken)


def test_every_type_is_a_field_of_the_schema_and_in_the_message() -> None:
    fields = schema_model().model_json_schema()["$defs"]["MachineOutputSpecWithTypes"]["properties"]
    for name in OUTPUT_TYPES:
        assert name in fields
        assert name in one_type_message()


def test_the_tables_of_these_tests_have_every_type() -> None:
    assert {parse_output(body(spec)).type.name for spec in SPECS.values()} == set(OUTPUT_TYPES)
