"""Finding the types of output, and reading a MachineOutput."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from machinebot.errors import Invalid
from machinebot.outputs.base import Material, OutputType
from machinebot.outputs.keys import generate
from machinebot.outputs.registry import OUTPUT_TYPES, one_type_message, parse_output, schema_model
from machinebot.policy.credential import AnchorState, Issued, Purpose, TrustAnchor, TrustBundle
from machinebot.policy.grants import Grant, SSHOptions
from machinebot.policy.lifetimes import Lifetime

GOOD = Path(__file__).parents[2] / "integration" / "data" / "crds" / "good"
EXAMPLES = [
    pytest.param(document, id=document["metadata"]["name"])
    for path in sorted(GOOD.glob("output-*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
SETTINGS: dict[str, dict[str, Any]] = {"identity": {"knownHosts": ["*.lan"]}, "sshHost": {"principals": ["web-1.example.test"]}}


def body(spec: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": "deploy-key", "namespace": "ci", "uid": "1"}, "spec": {"bot": "deployer", **spec}}


def material() -> Material:
    anchors = tuple(
        TrustAnchor(
            purpose=purpose,
            id="1",
            state=AnchorState.ACTIVE,
            public=f"the {purpose} authority".encode(),
            fingerprint="abc",
            not_after=BEGIN + timedelta(days=90),
        )
        for purpose in Purpose
    )
    options = SSHOptions(forward_agent=False, port_forwarding=True, permit_pty=True, source_addresses=())
    return Material(
        key=generate("Ed25519"),
        issued=Issued(
            serial=1,
            not_before=BEGIN,
            not_after=BEGIN + timedelta(hours=24),
            ssh_certificate=b"an SSH certificate",
            x509_certificate=b"an X.509 certificate",
            authorities=dict.fromkeys(Purpose, "1"),
            grant=Grant(roles=("access",), logins=(), host_principals=(), denied_host_principals=(), ssh=options, limits=()),
            lifetime=Lifetime(length=timedelta(hours=24), reduced_by=None),
        ),
        trust=TrustBundle(cluster_name="example.test", anchors=anchors),
    )


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
    assert parse_output(body({"identity": {}})).secret_name == "deploy-key"
    assert parse_output(body({"identity": {}, "secret": {"name": "other"}})).secret_name == "other"


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"identity": None},
        {"kubernetes": {}},
        {"identity": {}, "sshHost": {"principals": ["web-1.example.test"]}},
    ],
    ids=["none", "null", "unknown", "two"],
)
def test_anything_but_one_type_is_refused_with_the_types(spec: dict[str, Any]) -> None:
    with pytest.raises(Invalid) as refusal:
        parse_output(body(spec))
    assert refusal.value.reason == "InvalidSpec"
    assert refusal.value.message == "exactly one type of output must be set: identity, sshHost"


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"sshHost": {}}, "principals"),
        ({"sshHost": {"principals": []}}, "principals"),
        ({"sshHost": {"principals": ["web-1", "*.example.test"]}}, "principals.1"),
        ({"sshHost": {"principals": ["web-1\nweb-2"]}}, "principals.0"),
        ({"identity": {"knownHosts": ["a,b"]}}, "knownHosts.0"),
        ({"identity": {}, "bot": "other/bot"}, "bot"),
        ({"identity": {}, "credentialTTL": "1d"}, "credentialTTL"),
        ({"identity": {}, "renewBeforePercentage": 95}, "renewBeforePercentage"),
        ({"identity": {}, "privateKey": {"algorithm": "RSA-1024"}}, "privateKey.algorithm"),
        ({"identity": {}, "secret": {"name": "other/secret"}}, "secret.name"),
    ],
)
def test_bad_settings_are_refused_with_the_field(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(Invalid) as refusal:
        parse_output(body(spec))
    assert refusal.value.reason == "InvalidSpec"
    assert refusal.value.message.startswith(f"{field}: ")


@pytest.mark.parametrize("broken", [{}, {"spec": None}, {"metadata": None, "spec": {"bot": "b", "identity": {}}}])
def test_a_broken_object_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(Invalid):
        parse_output(broken)


@pytest.mark.parametrize("output", OUTPUT_TYPES.values(), ids=lambda output: output.name)
def test_the_content_has_exactly_the_keys_of_its_type(output: OutputType[Any]) -> None:
    settings = output.settings.model_validate(SETTINGS[output.name])
    content = output.render(settings, material())
    assert content.keys() == output.keys
    assert all(content.values()), "no key is empty"


@pytest.mark.parametrize("output", OUTPUT_TYPES.values(), ids=lambda output: output.name)
def test_a_type_names_the_keys_that_matter(output: OutputType[Any]) -> None:
    assert output.private_key in output.keys
    assert output.certificates
    assert set(output.certificates) <= output.keys - {output.private_key}


@pytest.mark.parametrize("output", OUTPUT_TYPES.values(), ids=lambda output: output.name)
def test_a_type_asks_for_something(output: OutputType[Any]) -> None:
    assert output.ask(output.settings.model_validate(SETTINGS[output.name])).purposes


def test_known_hosts_trusts_the_host_ca_for_the_cluster_and_what_was_asked_for_once() -> None:
    output = OUTPUT_TYPES["identity"]
    settings = output.settings.model_validate({"knownHosts": ["*.lan", "example.test"]})
    assert output.render(settings, material())["known_hosts"] == (
        b"@cert-authority example.test,*.example.test,*.lan the ssh-host authority\n"
    )


def test_every_type_is_a_field_of_the_schema_and_in_the_message() -> None:
    fields = schema_model().model_json_schema()["$defs"]["MachineOutputSpecWithTypes"]["properties"]
    for name in OUTPUT_TYPES:
        assert name in fields
        assert name in one_type_message()
