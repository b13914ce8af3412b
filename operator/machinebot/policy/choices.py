"""Names that outputs ask for: held against the grant, and where one is refused, which role would have allowed it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final

from machinebot.errors import Denied, Invalid
from machinebot.policy.grants import Grant, check_carried, usable
from machinebot.policy.names import NAME_RULES, NameKind, NameRule
from machinebot.policy.templates import Origin, allows, denies, expanded, lists_of, plain_names, quoted, traits_of
from machinebot.resources.bot import MachineBotSpec
from machinebot.resources.role import MachineRole

MAX_WAYS_OUT: Final = 5
"""Most roles that a refusal names as the way out."""


def choose(
    kind: NameKind,
    wanted: Sequence[str],
    granted: Grant,
    *,
    namespace: str,
    bot: MachineBotSpec,
    roles: Mapping[str, MachineRole],
) -> tuple[Origin, ...]:
    """The names asked for, each with the role that allows it.

    Args:
        kind: What they are.
        wanted: The names; none is none.
        granted: What the roles of the credential allow.
        namespace: The bot's namespace.
        bot: The bot's spec.
        roles: Every role there is, by name: a refusal tells which of them would allow the name.

    Raises:
        Denied: A name is allowed by no role, or denied by one.
        Invalid: One is no such name.
    """
    rule = NAME_RULES[kind]
    return tuple(
        _chosen(kind, rule, name, granted, lambda name: would_allow(kind, name, namespace=namespace, bot=bot, roles=roles))
        for name in sorted(set(wanted))
    )


def would_allow(
    kind: NameKind,
    name: str | None,
    *,
    namespace: str,
    bot: MachineBotSpec,
    roles: Mapping[str, MachineRole],
    denied: Sequence[str] = (),
) -> tuple[str, ...]:
    """Names of the roles that bots of the namespace may use and that would allow the bot the name, or any of that kind.

    Args:
        kind: What it is.
        name: The name; None for any.
        namespace: The bot's namespace.
        bot: The bot's spec, for its traits.
        roles: Every role there is, by name.
        denied: What the roles of the credential deny anyway, globs: no other role gives that back.
    """
    found: list[str] = []
    for role_name in sorted(roles):
        try:
            role = usable(role_name, roles, namespace)
            if _gives(role, kind, name, traits_of(bot), denied):
                found.append(role_name)
        except (Denied, Invalid):
            continue
        if len(found) == MAX_WAYS_OUT:
            break
    return tuple(found)


def _gives(
    role: MachineRole, kind: NameKind, name: str | None, traits: Mapping[str, Sequence[str]], denied: Sequence[str]
) -> bool:
    """Whether the role alone gives the name, or any of that kind.

    Raises:
        Denied, Invalid: It cannot be granted.
    """
    rule = NAME_RULES[kind]
    globs = (*denied, *plain_names(lists_of([role], kind, deny=True), traits))
    allowed = expanded(lists_of([role], kind), traits)
    fitting = [each for each in allowed if name is None or allows(each.name, name, rule)]
    given = [each for each in fitting if not denies(globs, each.name if name is None else name, rule)]
    if not rule.asked:
        check_carried(rule, given, [role])
    return bool(given)


def way_out(kind: NameKind, others: Sequence[str]) -> str:
    """The end of a refusal: which roles would allow it, or who can make one that does.

    Args:
        kind: What was refused.
        others: From `would_allow`.
    """
    if not others:
        return f"an administrator can add it to allow.{kind} of one of them"
    if len(others) == 1:
        return f"the role {quoted(others)} allows it: add it to the roles of the bot, and to those that the output names"
    return f"the roles {quoted(others)} allow it: add one to the roles of the bot, and to those that the output names"


def _chosen(kind: NameKind, rule: NameRule, name: str, granted: Grant, find_others: Callable[[str], tuple[str, ...]]) -> Origin:
    if not rule.fits(name):
        raise Invalid(rule.invalid, f"{name[: rule.longest]!r} is no {rule.noun}: write {rule.spelling}")
    if granted.denies(kind, name):
        raise Denied(
            rule.denied,
            f"a role denies the {rule.noun} {name!r}; the roles are {quoted(granted.roles)}: ask for another one, or name the "
            "roles of the output without the one that denies it",
        )
    for origin in granted.of(kind):
        if allows(origin.name, name, rule):
            return Origin(name=name, role=origin.role, trait=origin.trait)
    raise Denied(
        rule.not_allowed,
        f"no role allows the {rule.noun} {name!r}; the roles are {quoted(granted.roles)}: {way_out(kind, find_others(name))}",
    )
