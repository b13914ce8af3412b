"""No write passes without a look at the Lease; every read does."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from machinebot.controller.fence import FencedClient
from machinebot.errors import LeadershipLost
from machinebot.kube.client import Json, KubeClient, Page
from machinebot.kube.resources import DEPLOYMENTS, OUTPUTS, SECRETS


class Recorder:
    """Takes down what reaches the API server, and with which arguments."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name in ("pages", "watch"):
            return lambda *arguments, **keywords: self._stream(name, arguments, keywords)
        return lambda *arguments, **keywords: self._answer(name, arguments, keywords)

    async def _answer(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Json:
        self.calls.append((name, arguments, keywords))
        return {"from": name}

    async def _stream(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> AsyncIterator[Any]:
        self.calls.append((name, arguments, keywords))
        yield Page([], "1") if name == "pages" else {"type": "ADDED"}


BODY: Json = {"metadata": {"name": "x"}}
Call = Callable[[KubeClient], Awaitable[object]]
WRITES: dict[str, tuple[Call, tuple[Any, ...], dict[str, Any]]] = {
    "create": (
        lambda client: client.create(SECRETS, "ci", BODY, name="sa", subresource="token"),
        (SECRETS, "ci", BODY),
        {"name": "sa", "subresource": "token"},
    ),
    "replace": (lambda client: client.replace(SECRETS, "ci", "x", BODY), (SECRETS, "ci", "x", BODY), {}),
    "patch": (lambda client: client.patch(DEPLOYMENTS, "ci", "x", BODY), (DEPLOYMENTS, "ci", "x", BODY), {}),
    "patch_status": (lambda client: client.patch_status(OUTPUTS, "ci", "x", BODY), (OUTPUTS, "ci", "x", BODY), {}),
    "delete": (
        lambda client: client.delete(SECRETS, "ci", "x", uid="u", resource_version="7"),
        (SECRETS, "ci", "x"),
        {"uid": "u", "resource_version": "7"},
    ),
}


def lost() -> None:
    raise LeadershipLost("LeadershipLost", "lost")


@pytest.mark.parametrize("name", WRITES)
async def test_a_write_passes_while_leading(name: str) -> None:
    call, arguments, keywords = WRITES[name]
    checks: list[str] = []
    behind = Recorder()
    await call(FencedClient(behind, lambda: checks.append("checked")))
    assert checks == ["checked"]
    assert behind.calls == [(name, arguments, keywords)]


@pytest.mark.parametrize("name", WRITES)
async def test_a_write_is_stopped_once_the_lease_is_lost(name: str) -> None:
    behind = Recorder()
    with pytest.raises(LeadershipLost):
        await WRITES[name][0](FencedClient(behind, lost))
    assert behind.calls == []


async def test_the_lease_is_looked_at_before_every_write() -> None:
    answers = iter([None, None, LeadershipLost("LeadershipLost", "lost")])

    def check() -> None:
        answer = next(answers)
        if answer is not None:
            raise answer

    behind = Recorder()
    client = FencedClient(behind, check)
    await client.replace(SECRETS, "ci", "x", BODY)
    await client.patch_status(OUTPUTS, "ci", "x", BODY)
    with pytest.raises(LeadershipLost):
        await client.replace(SECRETS, "ci", "x", BODY)
    assert [name for name, _, _ in behind.calls] == ["replace", "patch_status"]


async def test_reads_pass_without_a_lease() -> None:
    behind = Recorder()
    client = FencedClient(behind, lost)
    assert await client.get(SECRETS, "ci", "x") == {"from": "get"}
    assert [page async for page in client.pages(SECRETS, "ci", selector="a=b", metadata_only=True)] == [Page([], "1")]
    events = client.watch(SECRETS, "ci", resource_version="7", selector="a=b", metadata_only=True)
    assert [event async for event in events] == [{"type": "ADDED"}]
    assert behind.calls == [
        ("get", (SECRETS, "ci", "x"), {}),
        ("pages", (SECRETS, "ci"), {"selector": "a=b", "metadata_only": True}),
        ("watch", (SECRETS, "ci"), {"resource_version": "7", "selector": "a=b", "metadata_only": True}),
    ]


def test_every_verb_is_fenced_or_known_as_a_read() -> None:
    """A verb that is new in the Protocol must not slip past."""
    verbs = {name for name in vars(KubeClient) if not name.startswith("_")}
    assert verbs == {*WRITES, "get", "pages", "watch"}
    assert verbs <= set(vars(FencedClient))
