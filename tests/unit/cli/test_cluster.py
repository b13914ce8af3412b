"""How commands reach the cluster, and who manages what."""

import json
from pathlib import Path
from typing import Any

import pytest

from machinebot.cli.applying import managers
from machinebot.cli.cluster import Scope, kubeconfig, on_cluster, scope
from machinebot.errors import Invalid, MachinebotError, NotFound, Unavailable
from machinebot.kube import commandline
from machinebot.kube.commandline import CommandLineClient, chosen_namespace


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kubeconfig with two contexts."""
    path = tmp_path / "config"
    contexts = [("a", {"namespace": "team"}), ("b", {})]
    content = {
        "current-context": "a",
        "contexts": [{"name": name, "context": {"cluster": "c", "user": "u", **more}} for name, more in contexts],
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {}}],
    }
    path.write_text(json.dumps(content))
    monkeypatch.setenv("KUBECONFIG", str(path))
    return path


def test_the_namespace_is_the_one_of_the_context(config: Path) -> None:
    assert chosen_namespace(config, None) == "team"
    assert chosen_namespace(config, "a") == "team"
    assert chosen_namespace(config, "b") == "default"
    assert scope(None, None) == Scope(None, "team")
    assert scope("b", "mine") == Scope("b", "mine")
    assert scope(None, "mine", everywhere=True) == Scope(None, "")


def test_a_context_that_is_not_there_is_named(config: Path) -> None:
    with pytest.raises(Invalid, match="no context 'c'"):
        chosen_namespace(config, "c")
    with pytest.raises(MachinebotError):
        on_cluster("c", _nothing)


async def _nothing(_client: CommandLineClient) -> None:
    raise AssertionError


@pytest.mark.parametrize("content", ["", "[]", "x: [", "contexts: 1", "{}"])
def test_a_kubeconfig_that_is_none_is_told(config: Path, content: str) -> None:
    config.write_text(content)
    with pytest.raises(Invalid, match="kubeconfig"):
        chosen_namespace(config, None)


def test_a_pod_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "namespace"
    monkeypatch.setattr(commandline, "POD_NAMESPACE", file)
    assert chosen_namespace(None, None) == "default"
    file.write_text("mine\n")
    assert chosen_namespace(None, None) == "mine"


def test_the_kubeconfig_is_kubectls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    assert kubeconfig() is None
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").touch()
    assert kubeconfig() == tmp_path / ".kube" / "config"
    monkeypatch.setenv("KUBECONFIG", "/a:/b")
    assert kubeconfig() == Path("/a:/b")


@pytest.mark.usefixtures("config")
def test_a_kind_that_is_not_installed_is_told_of() -> None:
    async def look(_client: CommandLineClient) -> None:
        raise NotFound("NotFound", "Not Found")

    with pytest.raises(Unavailable, match="install the chart of this version"):
        on_cluster(None, look)


@pytest.mark.usefixtures("config")
def test_an_object_that_is_not_there_is_told_as_it_is() -> None:
    async def look(_client: CommandLineClient) -> None:
        raise NotFound("NotFound", 'namespaces "ci" not found')

    with pytest.raises(NotFound, match='namespaces "ci" not found'):
        on_cluster(None, look)


def entry(manager: str, *fields: str) -> dict[str, Any]:
    return {"manager": manager, "fieldsV1": {field: {} for field in fields}}


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        pytest.param([], (), id="nobody"),
        pytest.param([entry("machinebot-cli", "f:spec")], (), id="we"),
        pytest.param([entry("machinebot", "f:status")], (), id="the operator's status"),
        pytest.param([entry("kubectl", "f:metadata")], (), id="a label"),
        pytest.param(
            [entry("argocd", "f:spec"), entry("kubectl", "f:spec"), entry("kubectl", "f:spec")], ("argocd", "kubectl"), id="two"
        ),
        pytest.param([{"manager": "x"}], (), id="no fields"),
    ],
)
def test_who_else_manages_a_spec(entries: list[dict[str, Any]], expected: tuple[str, ...]) -> None:
    assert managers({"metadata": {"managedFields": entries}}) == expected
    assert managers({"metadata": {}}) == ()
