"""What status can hold of a grant."""

from machinebot.policy.grants import MAX_NAMES
from machinebot.policy.names import NameKind
from machinebot.reconcile.holding import _names
from machinebot.resources.output import Granted
from unit.policy.builders import TEMPLATE, granted, role, unchecked_bot


def test_each_login_stands_with_every_one_of_its_origins() -> None:
    spec = unchecked_bot("a", "b", logins=["deploy"])
    names = _names(granted(role("a", TEMPLATE), role("b", "deploy"), bot_spec=spec).of(NameKind.LOGINS))
    assert [(each.name, each.role, each.trait) for each in names] == [("deploy", "a", "logins"), ("deploy", "b", None)]


def test_where_there_are_more_origins_than_room_each_login_stands_once() -> None:
    """A trait of many values in several roles."""
    spec = unchecked_bot("a", "b", "c", logins=[f"user{number:03}" for number in range(MAX_NAMES)])
    grant = granted(*(role(name, TEMPLATE) for name in "abc"), bot_spec=spec)
    assert len(grant.of(NameKind.LOGINS)) == 3 * MAX_NAMES
    names = Granted(logins=_names(grant.of(NameKind.LOGINS))).logins
    assert tuple(each.name for each in names) == grant.plain(NameKind.LOGINS)
    assert {each.role for each in names} == {"a"}
