"""The kinds as Python reads them: every good example, the defaults, and what is refused even where the CRD did not look."""

from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from machinebot.resources.authority import MachineAuthority, MachineAuthoritySpec
from machinebot.resources.bot import MachineBot, MachineBotSpec
from machinebot.resources.meta import DEFAULT_MAX_TTL, Model
from machinebot.resources.output import MachineOutputSpec, SecretTemplate
from machinebot.resources.role import MachineRole, MachineRoleSpec

GOOD = Path(__file__).parents[2] / "integration" / "data" / "crds" / "good"
MODELS: Mapping[str, type[Model]] = {"MachineAuthority": MachineAuthority, "MachineBot": MachineBot, "MachineRole": MachineRole}
EXAMPLES = [
    pytest.param(document, id=f"{path.stem}-{document['metadata']['name']}")
    for path in sorted(GOOD.glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
    if document["kind"] in MODELS
]


def stored(document: Mapping[str, Any]) -> dict[str, Any]:
    return {**document, "metadata": {**document["metadata"], "uid": "1"}}


@pytest.mark.parametrize("document", EXAMPLES)
def test_every_good_example_is_read(document: Mapping[str, Any]) -> None:
    read = MODELS[document["kind"]].model_validate(stored(document))
    assert read.wire()["metadata"]["name"] == document["metadata"]["name"]


@pytest.mark.parametrize("document", EXAMPLES)
def test_a_spec_is_written_as_it_was_read(document: Mapping[str, Any]) -> None:
    spec = (
        MODELS[document["kind"]]
        .model_validate(stored(document))
        .model_dump(mode="json", by_alias=True, exclude_unset=True)["spec"]
    )
    assert spec == document["spec"]


def test_the_defaults_of_an_authority() -> None:
    spec = MachineAuthoritySpec.model_validate({"clusterName": "example.test", "embedded": {}})
    assert spec.max_lifetime == timedelta(hours=24)
    assert spec.embedded is not None
    assert (spec.embedded.rotation.every, spec.embedded.rotation.overlap) == ("2160h", "26h")
    assert spec.embedded.key_algorithm == "ECDSA-P256"
    assert (spec.require_session_mfa, spec.device_trust_mode) == (False, "off")


def test_the_defaults_of_a_role_allow_nothing_to_nobody() -> None:
    spec = MachineRoleSpec()
    assert spec.namespaces == spec.allow.logins == spec.allow.host_principals == ()
    assert (spec.options.forward_agent, spec.options.port_forwarding, spec.options.permit_pty) == (False, True, True)


def test_the_defaults_of_a_bot() -> None:
    bot = MachineBot.model_validate({"metadata": {"name": "deployer", "uid": "1"}, "spec": {"roles": ["access"]}})
    assert bot.service_account == "machinebot-deployer"
    assert bot.spec.authority == "default"
    assert bot.spec.max_lifetime == DEFAULT_MAX_TTL


def test_a_bot_can_name_its_service_account() -> None:
    spec = {"roles": ["access"], "serviceAccountName": "ci"}
    assert MachineBot.model_validate({"metadata": {"name": "deployer", "uid": "1"}, "spec": spec}).service_account == "ci"


def test_the_defaults_of_an_output() -> None:
    spec = MachineOutputSpec(bot="deployer")
    assert spec.wished_lifetime == timedelta(hours=24)
    assert spec.renew_before_length is None
    assert spec.renew_before_percentage is None
    assert spec.private_key.algorithm == "ECDSA-P256"
    assert spec.secret == SecretTemplate()


def test_an_output_may_wish_for_more_than_24_hours() -> None:
    assert MachineOutputSpec.model_validate({"bot": "deployer", "credentialTTL": "48h"}).wished_lifetime == timedelta(hours=48)


def test_the_renewal_of_an_output_as_a_length() -> None:
    assert MachineOutputSpec(bot="deployer", renew_before="4h").renew_before_length == timedelta(hours=4)


@pytest.mark.parametrize(("written", "length"), [("8h", timedelta(hours=8)), ("24h", DEFAULT_MAX_TTL), ("48h", DEFAULT_MAX_TTL)])
def test_no_role_or_bot_allows_more_than_24_hours(written: str, length: timedelta) -> None:
    assert MachineRoleSpec.model_validate({"options": {"maxSessionTTL": written}}).options.max_lifetime == length
    assert MachineBotSpec.model_validate({"roles": ["access"], "maxSessionTTL": written}).max_lifetime == length


@pytest.mark.parametrize("login", ["deploy", "_backup", "a", "web-admin", "user@example.test", "EXAMPLE\\svc$", "x" * 64])
def test_a_login(login: str) -> None:
    assert MachineBotSpec(roles=("access",), logins=(login,)).logins == (login,)


@pytest.mark.parametrize(
    "login",
    ["", "-oProxyCommand", "a b", "a,b", "a\nb", "a\n", "\na", "*", "a?", "{{ internal.logins }}", "a\x00", "ä", "x" * 65, "a-"],
)
def test_no_login(login: str) -> None:
    with pytest.raises(ValidationError, match="logins"):
        MachineBotSpec(roles=("access",), logins=(login,))


@pytest.mark.parametrize(
    "name",
    [
        "deploy",
        "{{ internal.logins }}",
        "{{internal.logins}}",
        "{{ external.team }}-x-{{ external.host }}",
        "*.example.test",
        "2001:db8::1",
    ],
)
def test_a_name_in_a_role(name: str) -> None:
    assert MachineRoleSpec.model_validate({"allow": {"hostPrincipals": [name]}}).allow.host_principals == (name,)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "{{ foo.bar }}",
        "{{ internal.logins",
        "internal.logins }}",
        "{internal.logins}",
        "a b",
        "a,b",
        "a\nb",
        "a\x7f",
        "x" * 254,
    ],
)
def test_no_name_in_a_role(name: str) -> None:
    with pytest.raises(ValidationError, match="hostPrincipals"):
        MachineRoleSpec.model_validate({"allow": {"hostPrincipals": [name]}})


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"roles": []},
        {"roles": ["a"] * 33},
        {"roles": ["other/role"]},
        {"roles": ["access"], "maxSessionTTL": "1d"},
        {"roles": ["access"], "traits": {"team": [""]}},
        {"roles": ["access"], "traits": {str(number): [] for number in range(33)}},
        {"roles": ["access"], "authority": "Other"},
    ],
)
def test_a_bot_that_a_schema_change_left_behind_is_refused(spec: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MachineBotSpec.model_validate(spec)
