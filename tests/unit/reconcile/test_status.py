"""One merge-patch, only where something differs."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from machinebot.errors import Conflict, NotFound
from machinebot.kube.resources import BOTS, Resource
from machinebot.reconcile.keys import Key, Sort
from machinebot.reconcile.status import StatusWriter, difference
from machinebot.reconcile.world import World
from machinebot.resources.bot import MachineBotStatus, ServiceAccountStatus
from machinebot.resources.meta import Condition
from unit.reconcile.builders import bot, see

Json = dict[str, Any]


def merged(target: Any, patch: Any) -> Any:
    """RFC 7386, section 2, word by word."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


VALUES = st.recursive(
    st.text("ab", max_size=2) | st.integers(-2, 2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)
STATUSES = st.dictionaries(st.sampled_from("abcd"), VALUES, max_size=4)


@settings(max_examples=300, deadline=None)
@given(STATUSES, STATUSES)
def test_the_patch_makes_the_new_of_the_old(old: Json, new: Json) -> None:
    assert merged(old, difference(old, new)) == new


@settings(max_examples=100, deadline=None)
@given(STATUSES, STATUSES)
def test_there_is_a_patch_only_where_something_differs(old: Json, new: Json) -> None:
    assert (difference(old, new) == {}) is (old == new)
    assert difference(new, new) == {}


@pytest.mark.parametrize(
    ("old", "new", "patch"),
    [
        pytest.param({}, {"a": 1}, {"a": 1}, id="new"),
        pytest.param({"a": 1}, {}, {"a": None}, id="gone"),
        pytest.param({"a": 1, "b": 2}, {"a": 1, "b": 3}, {"b": 3}, id="only what differs"),
        pytest.param({"a": {"x": 1, "y": 2}}, {"a": {"x": 1}}, {"a": {"y": None}}, id="gone inside"),
        pytest.param({"a": {"x": {"y": 1}}}, {"a": {"x": {"y": 2}}}, {"a": {"x": {"y": 2}}}, id="deep inside"),
        pytest.param({"a": [1, 2]}, {"a": [1]}, {"a": [1]}, id="lists are replaced whole"),
        pytest.param({"a": {"x": 1}}, {"a": {}}, {"a": {"x": None}}, id="emptied"),
        pytest.param({"a": 1}, {"a": {"x": 1}}, {"a": {"x": 1}}, id="another shape"),
        pytest.param({"a": {"x": 1}}, {"a": 1}, {"a": 1}, id="another shape, turned round"),
    ],
)
def test_difference(old: Json, new: Json, patch: Json) -> None:
    assert difference(old, new) == patch


# --- writing ------------------------------------------------------------------------------------------------------

KEY = Key(Sort.BOT, "ci", "deployer")
OLD = MachineBotStatus(
    observed_generation=1,
    conditions=(
        Condition(type="Ready", status="True", reason="Joined", message="joined", last_transition_time="2027-01-01T00:00:00Z"),
    ),
    service_account=ServiceAccountStatus(name="machinebot-deployer", uid="sa-1"),
    outputs=1,
)


class Api:
    """Answers a status patch, and takes it down."""

    def __init__(self, error: Exception | None = None) -> None:
        self.patches: list[tuple[Resource, str, str, Json]] = []
        self._error = error

    async def patch_status(self, resource: Resource, namespace: str, name: str, body: Json) -> Json:
        self.patches.append((resource, namespace, name, body))
        if self._error is not None:
            raise self._error
        return bot("deployer", version=8, status=merged(OLD.wire(), body["status"]))


def writer(api: Api) -> tuple[StatusWriter, World]:
    world = World()
    see(world, Sort.BOT, bot("deployer", version=7, status=OLD.wire()))
    return StatusWriter(api, world), world  # type: ignore[arg-type]  # the one method of it


async def test_nothing_is_written_where_nothing_changed() -> None:
    api = Api()
    write, _ = writer(api)
    assert not await write.write(KEY, "7", OLD, OLD.model_copy())
    assert api.patches == []


async def test_the_difference_is_written_onto_the_object_that_was_looked_at() -> None:
    api = Api()
    write, world = writer(api)
    assert await write.write(KEY, "7", OLD, OLD.model_copy(update={"outputs": 2, "service_account": None}))
    body = {"metadata": {"resourceVersion": "7"}, "status": {"outputs": 2, "serviceAccount": None}}
    assert api.patches == [(BOTS, "ci", "deployer", body)]
    entry = world.entry(KEY)
    assert entry is not None
    assert entry.version == "8", "so that our own write coming back by the watch is no news"
    assert see(world, Sort.BOT, bot("deployer", version=8)) == []


async def test_an_object_that_is_gone_needs_no_status() -> None:
    write, _ = writer(Api(NotFound("NotFound", "gone")))
    assert not await write.write(KEY, "7", OLD, OLD.model_copy(update={"outputs": 2}))


async def test_an_object_that_has_changed_is_told_of() -> None:
    write, world = writer(Api(Conflict("Conflict", "changed")))
    with pytest.raises(Conflict):
        await write.write(KEY, "7", OLD, OLD.model_copy(update={"outputs": 2}))
    entry = world.entry(KEY)
    assert entry is not None
    assert entry.version == "7"


def test_no_status_of_ours_holds_a_null() -> None:
    """In a merge-patch a null takes away."""

    def without_nulls(value: Any) -> bool:
        if isinstance(value, Mapping):
            return all(without_nulls(each) for each in value.values())
        return value is not None

    assert without_nulls(OLD.wire())
    assert without_nulls(MachineBotStatus().wire())
