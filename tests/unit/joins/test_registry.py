"""How a MachineJoinToken is read: exactly one method, its settings, and what all methods share."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from machinebot.errors import Invalid
from machinebot.joins import registry
from machinebot.joins.methods import github
from machinebot.joins.registry import JOIN_METHODS, parse_join_token, schema_model

METADATA = {"name": "t", "namespace": "ci", "uid": "u"}
GITHUB = {"allow": [{"repositoryID": "1296269"}]}
SECRET = {"secretHash": f"sha256:{'0' * 64}"}


def body(**spec: Any) -> dict[str, Any]:
    return {"metadata": METADATA, "spec": {"bot": "deployer", **spec}}


def message_of(stored: dict[str, Any]) -> str:
    with pytest.raises(Invalid) as caught:
        parse_join_token(stored)
    assert caught.value.reason == "InvalidSpec"
    return caught.value.message


def test_join_token() -> None:
    join_token = parse_join_token(body(github=GITHUB, expires="2027-01-01T00:00:00Z"))
    assert (join_token.metadata.name, join_token.spec.bot, join_token.method.name) == ("t", "deployer", "github")
    assert isinstance(join_token.settings, github.METHOD.settings)
    assert join_token.expires_at == datetime(2027, 1, 1, tzinfo=UTC)


def test_join_token_that_never_ends() -> None:
    assert parse_join_token(body(github=GITHUB)).expires_at is None


def test_names_are_those_of_tbot() -> None:
    wanted = {"github", "gitlab", "circleci", "spacelift", "terraform_cloud", "bitbucket", "azure_devops", "gcp", "oidc"}
    assert wanted | {"kubernetes", "iam", "azure", "token"} == {method.name for method in JOIN_METHODS.values()}
    assert all(field == method.field for field, method in JOIN_METHODS.items())


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        pytest.param({"metadata": METADATA}, "exactly one join method", id="no spec"),
        pytest.param(body(), "exactly one join method", id="no method"),
        pytest.param(body(github=None), "exactly one join method", id="a method that is null"),
        pytest.param(body(github=GITHUB, token=SECRET), "exactly one join method", id="two methods"),
        pytest.param(body(unknown={}), "exactly one join method", id="unknown method"),
        pytest.param(body(token=SECRET), "token needs expires", id="a secret that never ends"),
        pytest.param(body(github=GITHUB, bot=None), "bot: ", id="no bot"),
        pytest.param(body(github="x"), "", id="settings that are a text"),
        pytest.param(body(github=GITHUB, expires="tomorrow"), "expires: ", id="an end that is no time"),
        pytest.param({"spec": body(github=GITHUB)["spec"]}, "", id="no metadata"),
    ],
)
def test_join_tokens_that_are_none(stored: dict[str, Any], message: str) -> None:
    assert message in message_of(stored)


def test_one_field_of_the_spec_for_each_method() -> None:
    spec = schema_model().model_json_schema()["$defs"]["MachineJoinTokenSpecWithMethods"]
    assert set(JOIN_METHODS) | {"bot", "expires"} == set(spec["properties"])


def test_two_methods_of_one_field_are_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.importlib, "import_module", lambda _name: SimpleNamespace(METHOD=github.METHOD))
    with pytest.raises(RuntimeError, match="two join methods have the field 'github'"):
        registry._discover()
