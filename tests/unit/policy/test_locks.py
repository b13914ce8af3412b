"""Whom a lock refuses, until when, and what it says."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from machinebot.errors import Denied
from machinebot.policy.credential import BotRef
from machinebot.policy.locks import LOCKED, Lock, Subject, check_not_locked, lock_of, locked_roles
from machinebot.resources.lock import MachineLock

NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
BOT = BotRef("ci", "deployer")
INSTANCE = "0d4f6a52-58d4-4dd3-a7a2-3d6f5b3a0c11"
SUBJECT = Subject(BOT, roles=frozenset({"access", "admin"}), instance=INSTANCE, join_token=("ci", "github"))
BARE = Subject(BOT)
"""As the operator itself asks for a bot: without an instance and a join token."""

PLACE = {"namespace": "ci", "name": "deployer"}


def resource(target: dict[str, Any], **spec: Any) -> MachineLock:
    return MachineLock.model_validate({"metadata": {"name": "leak", "uid": "1"}, "spec": {"target": target, **spec}})


def refused(lock: Lock, subject: Subject = SUBJECT, now: datetime = NOW) -> str | None:
    """What the refusal says, or None."""
    try:
        check_not_locked([lock], subject, now)
    except Denied as denied:
        return str(denied)
    return None


@pytest.mark.parametrize(
    ("lock", "target"),
    [
        pytest.param(Lock("leak", bot=BOT), "the bot 'deployer'", id="bot"),
        pytest.param(Lock("leak", instance=INSTANCE), f"the instance {INSTANCE}", id="instance"),
        pytest.param(Lock("leak", role="admin"), "the role 'admin'", id="role"),
        pytest.param(Lock("leak", join_token=("ci", "github")), "the join token 'github'", id="join token"),
    ],
)
def test_each_target_is_refused_and_named(lock: Lock, target: str) -> None:
    assert (
        refused(lock)
        == f"{LOCKED}: {target} is locked by the MachineLock 'leak': nothing is issued until that is deleted or ends"
    )


@pytest.mark.parametrize(
    "lock",
    [
        pytest.param(Lock("l", bot=BotRef("ci", "deployer2")), id="another bot"),
        pytest.param(Lock("l", bot=BotRef("prod", "deployer")), id="namesake of another namespace"),
        pytest.param(Lock("l", instance=INSTANCE.replace("0d", "0e")), id="another instance"),
        pytest.param(Lock("l", role="adm"), id="another role"),
        pytest.param(Lock("l", join_token=("ci", "gitlab")), id="another join token"),
        pytest.param(Lock("l", join_token=("prod", "github")), id="namesake of a join token"),
        pytest.param(Lock("l"), id="without a target"),
    ],
)
def test_nobody_else_is_refused(lock: Lock) -> None:
    assert refused(lock) is None


@pytest.mark.parametrize(
    "lock",
    [
        pytest.param(Lock("l", instance=INSTANCE), id="instance"),
        pytest.param(Lock("l", role="access"), id="role"),
        pytest.param(Lock("l", join_token=("ci", "github")), id="join token"),
    ],
)
def test_what_a_subject_is_without_is_no_target(lock: Lock) -> None:
    assert refused(lock, BARE) is None


@pytest.mark.parametrize(
    ("expires", "locked"),
    [
        pytest.param(None, True, id="never"),
        pytest.param(NOW + SECOND, True, id="the second before"),
        pytest.param(NOW, False, id="to the second"),
        pytest.param(NOW - SECOND, False, id="after"),
    ],
)
def test_a_lock_ends_to_the_second(expires: datetime | None, locked: bool) -> None:
    lock = Lock("leak", bot=BOT, expires_at=expires)
    assert lock.in_force(NOW) is locked
    assert (refused(lock) is not None) is locked


def test_one_that_hits_among_many_is_enough() -> None:
    locks = [Lock("other", role="x"), Lock("ended", bot=BOT, expires_at=NOW), Lock("this", bot=BOT, message="leaked key")]
    with pytest.raises(Denied, match=r"the MachineLock 'this' \(leaked key\):"):
        check_not_locked(locks, SUBJECT, NOW)
    check_not_locked(locks[:2], SUBJECT, NOW)
    check_not_locked((), SUBJECT, NOW)


def test_locked_roles_are_told_each_with_its_lock() -> None:
    locks = [Lock("b", role="admin"), Lock("a", role="access"), Lock("c", role="other"), Lock("d", bot=BOT)]
    ended = Lock("e", role="access", expires_at=NOW)
    assert locked_roles([*locks, ended], ["admin", "access"], NOW) == (
        "the role 'access' is locked by the MachineLock 'a': no credential that would carry it is issued",
        "the role 'admin' is locked by the MachineLock 'b': no credential that would carry it is issued",
    )
    assert locked_roles([], ["admin"], NOW) == ()


@pytest.mark.parametrize(
    ("written", "lock"),
    [
        pytest.param(resource({"bot": PLACE}), Lock("leak", bot=BOT), id="bot"),
        pytest.param(resource({"instance": INSTANCE}), Lock("leak", instance=INSTANCE), id="instance"),
        pytest.param(resource({"role": "access"}), Lock("leak", role="access"), id="role"),
        pytest.param(resource({"joinToken": PLACE}), Lock("leak", join_token=("ci", "deployer")), id="join token"),
        pytest.param(
            resource({"role": "access"}, message="why", expires="2027-01-01T12:00:00Z"),
            Lock("leak", role="access", message="why", expires_at=NOW),
            id="with message and end",
        ),
    ],
)
def test_what_is_written_is_what_holds(written: MachineLock, lock: Lock) -> None:
    assert lock_of(written) == lock
