"""Lists of names in roles, with their templates filled in from the traits of a bot; and what a list allows or denies."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from machinebot.errors import Denied, Invalid
from machinebot.policy.globs import matches_any
from machinebot.policy.names import NAME_RULES, NameKind, NameRule
from machinebot.resources.bot import MachineBotSpec
from machinebot.resources.role import MachineRole, RoleRules

_NOT_IN_TRAITS: Final = re.compile(r"[{}*?]")
"""What would let the author of a bot write a template or a wildcard into a role."""


TEMPLATE: Final = re.compile(r"\{\{ *(?P<scope>internal|external)\.(?P<trait>[A-Za-z0-9_.-]+) *\}\}")
"""One template, and what it names."""


MAX_EXPANDED: Final = 4096
"""Most names that templates may give before denies are applied: several templates in one name multiply the values of a bot."""


INTERNAL_TRAITS: Final = frozenset(
    {"logins", "kubernetes_users", "kubernetes_groups", "db_users", "db_names", "db_roles", "windows_logins"}
)
"""Traits that `{{ internal.NAME }}` may name, the words of Teleport's roles."""


@dataclass(frozen=True, slots=True)
class Origin:
    """One name of a grant and where it came from.

    Attributes:
        name: The name, or the glob where the field takes globs.
        role: The role that allows it.
        trait: The trait that filled it in, or None where the role states it.
    """

    name: str
    role: str
    trait: str | None = None


def traits_of(bot: MachineBotSpec) -> Mapping[str, tuple[str, ...]]:
    """The traits of a bot: `logins` joined with `traits.logins`, each value once and in order."""
    traits = {name: tuple(dict.fromkeys(values)) for name, values in bot.traits.items()}
    logins = tuple(dict.fromkeys((*bot.logins, *traits.get("logins", ()))))
    if logins:
        traits["logins"] = logins
    return traits


def expand(patterns: Iterable[str], role: str, traits: Mapping[str, Sequence[str]]) -> Iterator[Origin]:
    """The patterns with their templates filled in; one whose trait the bot lacks vanishes.

    Raises:
        Denied: A template names an internal trait that there is not.
        Invalid: A value of the trait could be taken for a template or a wildcard.
    """
    for pattern in patterns:
        match = TEMPLATE.search(pattern)
        if match is None:
            yield Origin(name=pattern, role=role)
            continue
        trait = match["trait"]
        if match["scope"] == "internal" and trait not in INTERNAL_TRAITS:
            raise Denied(
                "UnknownTemplate",
                f"the role {role!r} uses {match[0]!r}, which there is not; write {{{{ external.{trait} }}}} for a trait of "
                f"your own, or one of internal.{', internal.'.join(sorted(INTERNAL_TRAITS))}",
            )
        for value in traits.get(trait, ()):
            filled = pattern[: match.start()] + value + pattern[match.end() :]
            if _NOT_IN_TRAITS.search(value):
                raise Invalid(
                    "InvalidTrait",
                    f"a value of the trait {trait!r}, which the role {role!r} uses, holds one of the characters {{ }} * ?, which "
                    "only roles may write: state each name in full",
                )
            for origin in expand((filled,), role, traits):
                yield Origin(name=origin.name, role=role, trait=trait)


def patterns_of(rules: RoleRules, kind: NameKind) -> Sequence[str]:
    """What a role's `allow` or `deny` lists of that kind, as it is written."""
    patterns: Sequence[str] = getattr(rules, NAME_RULES[kind].field)
    return patterns


def lists_of(chosen: Iterable[MachineRole], kind: NameKind, *, deny: bool = False) -> list[tuple[str, Sequence[str]]]:
    """The roles' patterns of one kind, each list with the name of its role; roles without any are left out."""
    found = ((role.metadata.name, patterns_of(role.spec.deny if deny else role.spec.allow, kind)) for role in chosen)
    return [(name, patterns) for name, patterns in found if patterns]


def expanded(lists: Iterable[tuple[str, Sequence[str]]], traits: Mapping[str, Sequence[str]]) -> list[Origin]:
    """Lists of patterns, each with the name of its role, filled in.

    Raises:
        Denied, Invalid: See `expand`.
        Invalid: There are too many.
    """
    found: list[Origin] = []
    for role, patterns in lists:
        for origin in expand(patterns, role, traits):
            found.append(origin)
            if len(found) > MAX_EXPANDED:
                raise Invalid(
                    "TooManyNames",
                    f"the templates of the role {role!r} and the traits of the bot give more than {MAX_EXPANDED} names: give the "
                    "bot fewer values, or the role fewer templates in one name",
                )
    return found


def plain_names(lists: Iterable[tuple[str, Sequence[str]]], traits: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The same as `expanded` without origins: each name once, sorted."""
    return tuple(sorted({origin.name for origin in expanded(lists, traits)}))


def allows(pattern: str, name: str, rule: NameRule) -> bool:
    """Whether an entry of `allow`, filled in, allows the name."""
    return matches_any((pattern,), name) if rule.asked else pattern == name


def denies(globs: Iterable[str], name: str, rule: NameRule) -> bool:
    """Whether one of the entries of `deny`, filled in, denies the name."""
    # Verifiers differ in whether they look at the case of a host name; a deny must hold for all of them.
    return matches_any((glob.lower() for glob in globs), name.lower()) if rule.any_case else matches_any(globs, name)


def quoted(names: Iterable[str]) -> str:
    """The names for a message."""
    return ", ".join(repr(name) for name in names)
