"""What locks and join tokens are told in status, where the API server itself would not let the case come about."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from machinebot.errors import Unavailable
from machinebot.kube.resources import JOIN_TOKENS, LOCKS, Resource
from machinebot.reconcile.join_tokens import JoinTokenReconciler
from machinebot.reconcile.keys import Due, Key, Sort
from machinebot.reconcile.locks import LockReconciler
from machinebot.reconcile.world import World
from machinebot.resources.meta import READY
from unit.reconcile.builders import Json, body, bot, join_token, lock, output, see

NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)
LOCK, TOKEN = Key(Sort.LOCK, "", "leak"), Key(Sort.JOIN_TOKEN, "ci", "ci")
INSTANCE: Json = {
    "id": "0d4f6a52-58d4-4dd3-a7a2-3d6f5b3a0c11",
    "generation": 7,
    "key": 64 * "a",
    "joinedAt": "2026-12-31T12:00:00Z",
    "renewedAt": "2026-12-31T12:00:00Z",
    "expiresAt": "2027-01-01T13:00:00Z",
}


class Stopped:
    """A clock."""

    def now(self) -> datetime:
        return NOW


class Api:
    """Takes down status patches; refuses them where it is told to."""

    def __init__(self, error: Exception | None = None) -> None:
        self.patches: list[tuple[Resource, str, Json]] = []
        self._error = error

    async def patch_status(self, resource: Resource, _namespace: str, name: str, patch: Json) -> Json:
        self.patches.append((resource, name, patch))
        if self._error is not None:
            raise self._error
        sort = Sort.LOCK if resource == LOCKS else Sort.JOIN_TOKEN
        return body(sort, name, {}, version=99)

    @property
    def ready(self) -> Json:
        """The condition Ready that was written last."""
        (condition,) = (each for each in self.patches[-1][2]["status"]["conditions"] if each["type"] == READY)
        return dict(condition)


def tokens(world: World, api: Any) -> JoinTokenReconciler:
    return JoinTokenReconciler(client=api, world=world, clock=Stopped())


def locks(world: World, api: Any, dues: list[Due] | None = None) -> LockReconciler:
    return LockReconciler(client=api, world=world, clock=Stopped(), enqueue=([] if dues is None else dues).append)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        pytest.param({"jenkins": {}}, "exactly one join method must be set", id="no method that there is"),
        pytest.param({"github": {"allow": []}}, "allow", id="no rule"),
        pytest.param({"token": {"secretHash": "sha256:" + 64 * "0"}}, "token needs expires", id="secret without an end"),
        pytest.param({"github": {"allow": [{"ref": "a"}]}, "expires": "2027-02-30T00:00:00Z"}, "expires", id="no day"),
    ],
)
async def test_a_join_token_that_cannot_be_read_says_why_and_loses_nothing(spec: Json, message: str) -> None:
    world, api = World(), Api()
    see(world, Sort.BOT, bot())
    see(world, Sort.JOIN_TOKEN, join_token(spec=spec, status={"instance": INSTANCE, "method": "token"}))
    see(world, Sort.JOIN_TOKEN, join_token("good"))
    assert await tokens(world, api).reconcile(TOKEN) is None
    assert (api.ready["status"], api.ready["reason"]) == ("False", "InvalidSpec")
    assert message in api.ready["message"]
    assert api.patches[-1][2]["status"].keys() == {"conditions", "observedGeneration"}
    await tokens(world, api).reconcile(Key(Sort.JOIN_TOKEN, "ci", "good"))
    assert (api.ready["status"], api.ready["reason"]) == ("True", "Accepting")


async def test_a_lock_that_cannot_be_read_says_why() -> None:
    world, api, dues = World(), Api(), list[Due]()
    see(world, Sort.LOCK, body(Sort.LOCK, "leak", {"target": {"role": "*"}}))
    assert await locks(world, api, dues).reconcile(LOCK) is None
    assert api.patches[-1][0] == LOCKS
    assert (api.ready["status"], api.ready["reason"]) == ("False", "InvalidSpec")
    assert dues == []


async def test_what_is_gone_or_going_is_left_alone() -> None:
    world, api = World(), Api()
    assert await locks(world, api).reconcile(LOCK) is None
    assert await tokens(world, api).reconcile(TOKEN) is None
    see(world, Sort.JOIN_TOKEN, join_token(deletionTimestamp="2027-01-01T00:00:00Z"))
    assert await tokens(world, api).reconcile(TOKEN) is None
    assert api.patches == []


async def test_at_its_end_a_lock_brings_back_whom_it_stopped_even_if_its_status_cannot_be_written() -> None:
    world, api, dues = World(), Api(Unavailable("ApiServerAway", "away")), list[Due]()
    for sort, document in ((Sort.BOT, bot()), (Sort.OUTPUT, output()), (Sort.JOIN_TOKEN, join_token())):
        see(world, sort, document)
    see(world, Sort.LOCK, lock(spec={"expires": "2027-01-01T12:00:00Z"}))
    with pytest.raises(Unavailable):
        await locks(world, api, dues).reconcile(LOCK)
    assert {str(due.key) for due in dues} == {"MachineBot/ci/deployer", "MachineOutput/ci/out", "MachineJoinToken/ci/ci"}
    assert {due.delay for due in dues} == {0.0}


async def test_a_lock_is_looked_at_again_at_its_end() -> None:
    world, api, dues = World(), Api(), list[Due]()
    see(world, Sort.LOCK, lock(spec={"expires": "2027-01-01T13:00:00Z"}))
    see(world, Sort.LOCK, lock("forever"))
    assert await locks(world, api, dues).reconcile(LOCK) == NOW + timedelta(hours=1)
    assert await locks(world, api, dues).reconcile(Key(Sort.LOCK, "", "forever")) is None
    assert dues == []


SECRET: Json = {"token": {"secretHash": "sha256:" + 64 * "0"}, "expires": "2027-01-02T12:00:00Z"}


@pytest.mark.parametrize(
    ("spec", "status", "reason", "hours"),
    [
        pytest.param({"github": {"allow": [{"repositoryID": "1"}]}}, {}, "Accepting", None, id="no end"),
        pytest.param(SECRET, {}, "Accepting", 24, id="the join token's end"),
        pytest.param(SECRET, {"instance": INSTANCE}, "Joined", 1, id="the identity's end, which is sooner"),
        pytest.param(
            SECRET, {"instance": INSTANCE | {"expiresAt": "2027-01-01T12:00:00Z"}}, "InstanceExpired", 24, id="ended identity"
        ),
        pytest.param(SECRET | {"expires": "2027-01-01T12:00:00Z"}, {}, "Expired", None, id="ended"),
        pytest.param(
            SECRET | {"expires": "2027-01-01T12:00:00Z"}, {"instance": INSTANCE}, "Expired", 1, id="ended, identity lives"
        ),
    ],
)
async def test_a_join_token_is_looked_at_again_when_something_of_it_ends(
    spec: Json, status: Json, reason: str, hours: int | None
) -> None:
    world, api = World(), Api()
    see(world, Sort.BOT, bot())
    see(world, Sort.JOIN_TOKEN, join_token(spec=spec, status=status))
    again = await tokens(world, api).reconcile(TOKEN)
    assert again == (None if hours is None else NOW + timedelta(hours=hours))
    assert api.ready["reason"] == reason
    assert "instance" not in api.patches[-1][2]["status"], "what the join API wrote is not touched"


async def test_a_bot_that_is_being_deleted_takes_nobody_in() -> None:
    world, api = World(), Api()
    see(world, Sort.BOT, bot(deletionTimestamp="2027-01-01T00:00:00Z"))
    see(world, Sort.JOIN_TOKEN, join_token())
    await tokens(world, api).reconcile(TOKEN)
    assert (api.patches[-1][0], api.ready["status"], api.ready["reason"]) == (JOIN_TOKENS, "False", "BotDeleting")
