"""Roles, bots and authorities for the tests of decisions, in few words."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from machinebot.policy.grants import Grant, grant
from machinebot.policy.names import NameKind
from machinebot.resources.authority import MachineAuthoritySpec
from machinebot.resources.bot import MachineBotSpec
from machinebot.resources.role import MachineRole

NOW = datetime(2027, 1, 1, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
TEMPLATE = "{{ internal.logins }}"


def authority(**fields: Any) -> MachineAuthoritySpec:
    return MachineAuthoritySpec.model_validate({"clusterName": "example.test", "embedded": {}, **fields})


def bot(*roles: str, **fields: Any) -> MachineBotSpec:
    return MachineBotSpec.model_validate({"roles": roles or ("access",), **fields})


def unchecked_bot(*roles: str, logins: Sequence[str] = (), traits: Mapping[str, Sequence[str]] | None = None) -> MachineBotSpec:
    """A bot that no schema has looked at: what a stored object may hold at the worst."""
    checked = bot(*roles)
    return checked.model_copy(update={"logins": tuple(logins), "traits": {k: tuple(v) for k, v in (traits or {}).items()}})


def role(
    name: str = "access",
    *logins: str,
    hosts: Iterable[str] = (),
    deny: Iterable[str] = (),
    deny_hosts: Iterable[str] = (),
    namespaces: Iterable[str] = ("ci",),
    **options: Any,
) -> MachineRole:
    return giving(
        name,
        {NameKind.LOGINS: logins, NameKind.HOST_PRINCIPALS: hosts},
        {NameKind.LOGINS: deny, NameKind.HOST_PRINCIPALS: deny_hosts},
        namespaces=namespaces,
        **options,
    )


def giving(
    name: str,
    allow: Mapping[NameKind, Iterable[str]] | None = None,
    deny: Mapping[NameKind, Iterable[str]] | None = None,
    *,
    namespaces: Iterable[str] = ("ci",),
    **options: Any,
) -> MachineRole:
    """A role with names of any kind."""
    return MachineRole.model_validate(
        {
            "metadata": {"name": name, "uid": f"role-{name}"},
            "spec": {
                "namespaces": list(namespaces),
                "allow": {kind.value: list(names) for kind, names in (allow or {}).items()},
                "deny": {kind.value: list(names) for kind, names in (deny or {}).items()},
                "options": options,
            },
        }
    )


def by_name(*roles: MachineRole) -> dict[str, MachineRole]:
    return {each.metadata.name: each for each in roles}


def granted(
    *roles: MachineRole,
    bot_spec: MachineBotSpec | None = None,
    wanted: Sequence[str] = (),
    namespace: str = "ci",
    authority_spec: MachineAuthoritySpec | None = None,
) -> Grant:
    """The grant of a bot that has just these roles."""
    known = by_name(*roles)
    return grant(
        namespace=namespace,
        bot=bot(*known) if bot_spec is None else bot_spec,
        wanted=wanted,
        roles=known,
        authority=authority() if authority_spec is None else authority_spec,
    )
