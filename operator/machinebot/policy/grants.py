"""Roles and traits to grants: what one credential will carry, and where each name came from."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from machinebot.errors import Denied, Invalid
from machinebot.policy.globs import matches_any
from machinebot.policy.lifetimes import Limit
from machinebot.policy.names import NAME_RULES, NameKind, NameRule
from machinebot.policy.networks import common_networks, networks_of
from machinebot.policy.templates import (
    TEMPLATE,
    Origin,
    denies,
    expand,
    expanded,
    lists_of,
    patterns_of,
    plain_names,
    quoted,
    traits_of,
)
from machinebot.resources.authority import DeviceTrustMode, MachineAuthoritySpec
from machinebot.resources.bot import MachineBotSpec
from machinebot.resources.meta import format_duration
from machinebot.resources.role import MachineRole

MAX_NAMES: Final = 256
"""Most names of one kind in a credential: an SSH certificate with more is refused by OpenSSH (256 principals)."""


MAX_WARNINGS: Final = 16
"""Most warnings that a status holds."""


@dataclass(frozen=True, slots=True)
class SSHOptions:
    """What an SSH user certificate permits (PROTOCOL.certkeys): the strictest of all its roles.

    Attributes:
        forward_agent: permit-agent-forwarding.
        port_forwarding: permit-port-forwarding.
        permit_pty: permit-pty.
        source_addresses: source-address networks; empty for anywhere.
    """

    forward_agent: bool
    port_forwarding: bool
    permit_pty: bool
    source_addresses: tuple[str, ...]


NO_SSH: Final = SSHOptions(forward_agent=False, port_forwarding=False, permit_pty=False, source_addresses=())
"""The options of a credential that is no SSH user certificate."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Roles after their templates are filled in and their denies applied: what one credential may carry.

    Attributes:
        roles: Names of the roles, sorted.
        names: What the roles allow, by kind and sorted by name: whole names, or globs where outputs ask for names.
        denied: What they deny, globs; from names that are carried in full it is taken off already.
        taken: Names that the roles would give in full if none of them denied these.
        ssh: Options of an SSH user certificate.
        limits: The roles' bounds on the life.
    """

    roles: tuple[str, ...]
    names: Mapping[NameKind, tuple[Origin, ...]]
    denied: Mapping[NameKind, tuple[str, ...]]
    taken: Mapping[NameKind, tuple[Origin, ...]]
    ssh: SSHOptions
    limits: tuple[Limit, ...]

    def of(self, kind: NameKind) -> tuple[Origin, ...]:
        """What the roles allow of that kind."""
        return self.names.get(kind, ())

    def plain(self, kind: NameKind) -> tuple[str, ...]:
        """The same without origins: each name once, sorted."""
        return tuple(sorted({origin.name for origin in self.of(kind)}))

    def denies(self, kind: NameKind, name: str) -> bool:
        """Whether one of the roles denies the name."""
        return denies(self.denied.get(kind, ()), name, NAME_RULES[kind])


def select_roles(bot: MachineBotSpec, wanted: Sequence[str]) -> tuple[str, ...]:
    """The names of the roles that a credential carries: the wanted ones, or all of the bot's.

    Raises:
        Denied: A wanted role is none of the bot's.
    """
    if not wanted:
        return tuple(sorted(set(bot.roles)))
    foreign = sorted(set(wanted) - set(bot.roles))
    if foreign:
        raise Denied(
            "RoleNotOfBot",
            f"the bot does not have the role {quoted(foreign)}; its roles are {quoted(bot.roles)}: add it to the bot's "
            "spec.roles or remove it from the output's",
        )
    return tuple(sorted(set(wanted)))


def grant(
    *,
    namespace: str,
    bot: MachineBotSpec,
    wanted: Sequence[str],
    roles: Mapping[str, MachineRole],
    authority: MachineAuthoritySpec,
    kinds: Collection[NameKind] = tuple(NameKind),
) -> Grant:
    """What a credential of the bot may carry.

    Args:
        namespace: The bot's namespace.
        bot: The bot's spec.
        wanted: Roles that the output names; empty means all of the bot's.
        roles: Every role there is, by name.
        authority: The authority's spec, for its cluster-wide rules.
        kinds: Names that the credential carries. Others, and options of SSH where it carries no logins, are not looked at, so
            that what is wrong with them stops nothing.

    Raises:
        Denied: A role is unknown, not for this namespace, or asks for what a bot cannot do; or the whole cluster does.
        Invalid: A name that the templates gave cannot stand in a certificate.
    """
    check_authority(namespace, authority)
    chosen = [usable(name, roles, namespace) for name in select_roles(bot, wanted)]
    traits = traits_of(bot)
    names: dict[NameKind, tuple[Origin, ...]] = {}
    denied: dict[NameKind, tuple[str, ...]] = {}
    taken: dict[NameKind, tuple[Origin, ...]] = {}
    for kind in sorted(kinds):
        rule = NAME_RULES[kind]
        allow, deny = lists_of(chosen, kind), lists_of(chosen, kind, deny=True)
        if not (allow or deny):
            continue  # most kinds of most roles; every issue comes by here
        globs, allowed = plain_names(deny, traits), expanded(allow, traits)
        denied[kind] = globs
        if rule.asked:
            names[kind] = _sorted(allowed)
        else:
            names[kind] = _sorted(origin for origin in allowed if not denies(globs, origin.name, rule))
            taken[kind] = _sorted(set(allowed) - set(names[kind]))
            check_carried(rule, names[kind], chosen)
    return Grant(
        roles=tuple(role.metadata.name for role in chosen),
        names={kind: origins for kind, origins in names.items() if origins},
        denied={kind: globs for kind, globs in denied.items() if globs},
        taken={kind: origins for kind, origins in taken.items() if origins},
        ssh=_ssh_options(chosen) if NameKind.LOGINS in kinds else NO_SSH,
        limits=tuple(_limit(role) for role in chosen),
    )


def check_authority(namespace: str, authority: MachineAuthoritySpec) -> None:
    """Refuses bots of a namespace that the authority is not for, and every bot where the whole cluster asks for what none can do.

    Raises:
        Denied: So it is.
    """
    if not matches_any(authority.namespaces, namespace):
        raise Denied(
            "AuthorityNotForNamespace",
            f"the authority is not for bots of the namespace {namespace!r}: name another one in the bot's spec.authority; an "
            "administrator can add the namespace to the authority's spec.namespaces",
        )
    _check_cluster(authority)


def check_roles(namespace: str, bot: MachineBotSpec, roles: Mapping[str, MachineRole], authority: MachineAuthoritySpec) -> None:
    """Refuses a bot one of whose roles no output of its could carry.

    Raises:
        Denied: See `grant`.
    """
    check_authority(namespace, authority)
    for name in sorted(set(bot.roles)):
        usable(name, roles, namespace)


def check_role(role: MachineRole) -> None:
    """Refuses a role that could never be granted, whatever the bot.

    Raises:
        Denied: One of its templates names an internal trait that there is not.
        Invalid: One of its sourceAddresses is no network.
    """
    for kind, rule in NAME_RULES.items():
        for rules in (role.spec.allow, role.spec.deny):
            for _ in expand(patterns_of(rules, kind), role.metadata.name, {}):
                pass
        for name in patterns_of(role.spec.allow, kind):
            _check_ever(rule, name, role.metadata.name)
    networks_of(role)


def warnings(namespace: str, bot: MachineBotSpec, roles: Mapping[str, MachineRole]) -> tuple[str, ...]:
    """What works but is probably not meant: a trait that reaches two or more roles of one bot.

    Args:
        namespace: The bot's namespace.
        bot: The bot's spec.
        roles: Every role there is, by name; ones that the bot cannot use are passed over.
    """
    reached: dict[str, set[str]] = {}
    traits = traits_of(bot)
    for name in sorted(set(bot.roles)):
        role = roles.get(name)
        if role is None or not matches_any(role.spec.namespaces, namespace):
            continue
        patterns = [pattern for kind in NameKind for pattern in patterns_of(role.spec.allow, kind)]
        for trait in {match["trait"] for pattern in patterns for match in TEMPLATE.finditer(pattern)} & set(traits):
            reached.setdefault(trait, set()).add(name)
    return tuple(
        f"the trait {trait!r} reaches the roles {quoted(sorted(names))}: an output with one of them carries its values too; "
        "where that is not meant, use roles that state their names"
        for trait, names in sorted(reached.items())
        if len(names) > 1
    )[:MAX_WARNINGS]


def _check_cluster(authority: MachineAuthoritySpec) -> None:
    if authority.require_session_mfa:
        raise Denied(
            "SessionMFARequired",
            "the authority requires per-session MFA for the whole cluster (requireSessionMFA), which a bot cannot pass: turn it "
            "off there and require it on the roles that people use",
        )
    _check_device_trust(authority.device_trust_mode, "the authority's deviceTrustMode")


def _check_device_trust(mode: DeviceTrustMode, where: str) -> None:
    if mode == "required":
        raise Denied(
            "DeviceTrustRequired",
            f"{where} is `required`, and a bot has no device: use `required-for-humans`, or a role that bots do not share with "
            "people",
        )


def usable(name: str, roles: Mapping[str, MachineRole], namespace: str) -> MachineRole:
    """The role, if bots of the namespace may use it.

    Raises:
        Denied: It is unknown, not for this namespace, or asks for what a bot cannot do.
    """
    role = roles.get(name)
    if role is None:
        raise Denied("RoleNotFound", f"there is no MachineRole {name!r}: create it, or correct the bot's spec.roles")
    if not matches_any(role.spec.namespaces, namespace):
        raise Denied(
            "RoleNotForNamespace",
            f"bots of the namespace {namespace!r} may not use the role {name!r}: an administrator can add the namespace to the "
            "role's spec.namespaces",
        )
    if role.spec.options.require_session_mfa:
        raise Denied(
            "SessionMFARequired",
            f"the role {name!r} requires per-session MFA (requireSessionMFA), which a bot cannot pass: give the bot a role "
            "without it",
        )
    _check_device_trust(role.spec.options.device_trust_mode, f"the deviceTrustMode of the role {name!r}")
    return role


def check_carried(rule: NameRule, origins: Sequence[Origin], chosen: Sequence[MachineRole]) -> None:
    """Holds names that are carried in full against what such a name looks like."""
    for origin in origins:
        source = f" from the trait {origin.trait!r}" if origin.trait is not None else ""
        if not rule.fits(origin.name):
            raise Invalid(
                rule.invalid,
                f"the role {origin.role!r} gives the {rule.noun} {origin.name[: rule.longest]!r}{source}, which cannot stand in "
                f"a credential: {rule.spelling}",
            )
        if origin.trait is not None and origin.name.startswith(rule.reserved):
            raise Denied(
                "ReservedName",
                f"the role {origin.role!r} gives the {rule.noun} {origin.name!r}{source}; names that begin with "
                f"{quoted(rule.reserved)} belong to Kubernetes and to bots, so that only a role may write one",
            )
        _check_ever(rule, origin.name, origin.role)
    if len({origin.name for origin in origins}) > MAX_NAMES:
        raise Invalid(
            "TooManyLogins" if rule is NAME_RULES[NameKind.LOGINS] else "TooManyNames",
            f"the roles {quoted(role.metadata.name for role in chosen)} give more than {MAX_NAMES} {rule.noun}s: split them "
            "over several outputs",
        )


def _check_ever(rule: NameRule, name: str, role: str) -> None:
    if name in rule.never:
        raise Denied(
            "ForbiddenName",
            f"the role {role!r} gives the {rule.noun} {name!r}, which the API server lets do everything and which RBAC cannot "
            "take back: write a group of your own and bind it to cluster-admin",
        )


def _sorted(origins: Iterable[Origin]) -> tuple[Origin, ...]:
    return tuple(sorted(set(origins), key=lambda origin: (origin.name, origin.role, origin.trait or "")))


def _limit(role: MachineRole) -> Limit:
    length = role.spec.options.max_lifetime
    return Limit(f"role {role.metadata.name} (maxSessionTTL {format_duration(length)})", length)


def _ssh_options(chosen: Sequence[MachineRole]) -> SSHOptions:
    options = [role.spec.options for role in chosen]
    return SSHOptions(
        forward_agent=all(option.forward_agent for option in options),
        port_forwarding=all(option.port_forwarding for option in options),
        permit_pty=all(option.permit_pty for option in options),
        source_addresses=common_networks([role for role in chosen if role.spec.options.source_addresses]),
    )
