"""Roles and traits to grants: what one credential will carry, and where each name came from."""

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from machinebot.errors import Denied, Invalid
from machinebot.policy.globs import matches_any
from machinebot.policy.lifetimes import Limit
from machinebot.resources.authority import DeviceTrustMode, MachineAuthoritySpec
from machinebot.resources.bot import LOGIN_PATTERN, MAX_LOGIN, MachineBotSpec
from machinebot.resources.meta import format_duration
from machinebot.resources.role import MachineRole

_NOT_IN_TRAITS: Final = re.compile(r"[{}*?]")
"""What would let the author of a bot write a template or a wildcard into a role."""

_PARTS: Final = re.compile(r"\{\{ *(?P<scope>internal|external)\.(?P<trait>[A-Za-z0-9_.-]+) *\}\}")
_LOGIN: Final = re.compile(LOGIN_PATTERN)
_HOST: Final = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._:-]*[A-Za-z0-9])?$")

MAX_NAMES: Final = 256
"""Most names of one kind in a credential: an SSH certificate with more is refused by OpenSSH (256 principals)."""

MAX_EXPANDED: Final = 4096
"""Most names that templates may give before denies are applied: several templates in one name multiply the values of a bot."""

MAX_WARNINGS: Final = 16
"""Most warnings that a status holds."""

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


@dataclass(frozen=True, slots=True)
class Grant:
    """Roles after their templates are filled in and their denies applied: what one credential may carry.

    Attributes:
        roles: Names of the roles, sorted.
        logins: Operating system accounts, sorted by name.
        host_principals: Globs of host names; each name asked for is held against them.
        denied_host_principals: Globs that win over these.
        ssh: Options of an SSH user certificate.
        limits: The roles' bounds on the life.
    """

    roles: tuple[str, ...]
    logins: tuple[Origin, ...]
    host_principals: tuple[Origin, ...]
    denied_host_principals: tuple[str, ...]
    ssh: SSHOptions
    limits: tuple[Limit, ...]

    @property
    def login_names(self) -> tuple[str, ...]:
        """The logins, each once, sorted."""
        return tuple(sorted({origin.name for origin in self.logins}))


def traits_of(bot: MachineBotSpec) -> Mapping[str, tuple[str, ...]]:
    """The traits of a bot: `logins` joined with `traits.logins`, each value once and in order."""
    traits = {name: tuple(dict.fromkeys(values)) for name, values in bot.traits.items()}
    logins = tuple(dict.fromkeys((*bot.logins, *traits.get("logins", ()))))
    if logins:
        traits["logins"] = logins
    return traits


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
            f"the bot does not have the role {_quoted(foreign)}; its roles are {_quoted(bot.roles)}: add it to the bot's "
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
) -> Grant:
    """What a credential of the bot may carry.

    Args:
        namespace: The bot's namespace.
        bot: The bot's spec.
        wanted: Roles that the output names; empty means all of the bot's.
        roles: Every role there is, by name.
        authority: The authority's spec, for its cluster-wide rules.

    Raises:
        Denied: A role is unknown, not for this namespace, or asks for what a bot cannot do; or the whole cluster does.
        Invalid: A name that the templates gave cannot stand in a certificate.
    """
    _check_cluster(authority)
    chosen = [_usable(name, roles, namespace) for name in select_roles(bot, wanted)]
    traits = traits_of(bot)
    names = tuple(role.metadata.name for role in chosen)
    denied_logins = _names(((role.metadata.name, role.spec.deny.logins) for role in chosen), traits)
    allowed_logins = _expanded(((role.metadata.name, role.spec.allow.logins) for role in chosen), traits)
    logins = [origin for origin in allowed_logins if not matches_any(denied_logins, origin.name)]
    for origin in logins:
        _check_login(origin)
    if len({origin.name for origin in logins}) > MAX_NAMES:
        raise Invalid(
            "TooManyLogins",
            f"the roles {_quoted(names)} give more than {MAX_NAMES} logins: split them over several outputs",
        )
    return Grant(
        roles=names,
        logins=_sorted(logins),
        host_principals=_sorted(_expanded(((role.metadata.name, role.spec.allow.host_principals) for role in chosen), traits)),
        denied_host_principals=_names(((role.metadata.name, role.spec.deny.host_principals) for role in chosen), traits),
        ssh=_ssh_options(chosen),
        limits=tuple(_limit(role) for role in chosen),
    )


def check_roles(namespace: str, bot: MachineBotSpec, roles: Mapping[str, MachineRole], authority: MachineAuthoritySpec) -> None:
    """Refuses a bot one of whose roles no output of its could carry.

    Raises:
        Denied: See `grant`.
    """
    _check_cluster(authority)
    for name in sorted(set(bot.roles)):
        _usable(name, roles, namespace)


def check_role(role: MachineRole) -> None:
    """Refuses a role that could never be granted, whatever the bot.

    Raises:
        Denied: One of its templates names an internal trait that there is not.
        Invalid: One of its sourceAddresses is no network.
    """
    for patterns in (
        role.spec.allow.logins,
        role.spec.allow.host_principals,
        role.spec.deny.logins,
        role.spec.deny.host_principals,
    ):
        for _ in expand(patterns, role.metadata.name, {}):
            pass
    _networks(role)


def host_principals(wanted: Sequence[str], granted: Grant) -> tuple[Origin, ...]:
    """The host names asked for, each with the role that allows it.

    Raises:
        Denied: A name is allowed by no role, or denied by one.
        Invalid: None is asked for, or one is no host name.
    """
    if not wanted:
        raise Invalid("NoPrincipals", "an SSH host certificate needs a host name: set sshHost.principals")
    return tuple(_host_principal(name, granted) for name in sorted(set(wanted)))


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
        patterns = (*role.spec.allow.logins, *role.spec.allow.host_principals)
        for trait in {match["trait"] for pattern in patterns for match in _PARTS.finditer(pattern)} & set(traits):
            reached.setdefault(trait, set()).add(name)
    return tuple(
        f"the trait {trait!r} reaches the roles {_quoted(sorted(names))}: an output with one of them carries its values too; "
        "where that is not meant, use roles that state their names"
        for trait, names in sorted(reached.items())
        if len(names) > 1
    )[:MAX_WARNINGS]


def expand(patterns: Iterable[str], role: str, traits: Mapping[str, Sequence[str]]) -> Iterator[Origin]:
    """The patterns with their templates filled in; one whose trait the bot lacks vanishes.

    Raises:
        Denied: A template names an internal trait that there is not.
        Invalid: A value of the trait could be taken for a template or a wildcard.
    """
    for pattern in patterns:
        match = _PARTS.search(pattern)
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


def _usable(name: str, roles: Mapping[str, MachineRole], namespace: str) -> MachineRole:
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


def _check_login(origin: Origin) -> None:
    if len(origin.name) > MAX_LOGIN or not _LOGIN.fullmatch(origin.name):
        source = f" from the trait {origin.trait!r}" if origin.trait is not None else ""
        raise Invalid(
            "InvalidLogin",
            f"the role {origin.role!r} gives the login {origin.name[:MAX_LOGIN]!r}{source}, which is no account name: letters, "
            f"digits, '_', '.', '@' and '-', at most {MAX_LOGIN} characters, no blank, comma or newline",
        )


def _host_principal(name: str, granted: Grant) -> Origin:
    if not _HOST.fullmatch(name):
        raise Invalid(
            "InvalidPrincipal", f"{name!r} is no host name: write one such as web-1.node.example.test, without wildcards"
        )
    # Clients differ in whether they look at the case of a host name; a deny must hold for all of them.
    if matches_any((pattern.lower() for pattern in granted.denied_host_principals), name.lower()):
        raise Denied("PrincipalDenied", f"a role denies the host name {name!r}; the roles are {_quoted(granted.roles)}")
    for origin in granted.host_principals:
        if matches_any((origin.name,), name):
            return Origin(name=name, role=origin.role, trait=origin.trait)
    raise Denied(
        "PrincipalNotAllowed",
        f"no role allows the host name {name!r}; the roles are {_quoted(granted.roles)}: an administrator can add it to "
        "allow.hostPrincipals of one of them",
    )


def _expanded(lists: Iterable[tuple[str, Sequence[str]]], traits: Mapping[str, Sequence[str]]) -> list[Origin]:
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


def _names(lists: Iterable[tuple[str, Sequence[str]]], traits: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    return tuple(sorted({origin.name for origin in _expanded(lists, traits)}))


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
        source_addresses=_common_networks([role for role in chosen if role.spec.options.source_addresses]),
    )


def _common_networks(restricting: Sequence[MachineRole]) -> tuple[str, ...]:
    """The addresses that each of the roles allows, as CIDR networks; no role means no restriction."""
    if not restricting:
        return ()
    # Sets: every network is one that a role states, so that their number cannot multiply.
    common = _networks(restricting[0])
    for role in restricting[1:]:
        others = _networks(role)
        common = {narrow for one in common for other in others if (narrow := _narrower(one, other)) is not None}
    if not common:
        raise Denied(
            "NoSourceAddress",
            f"the sourceAddresses of the roles {_quoted(role.metadata.name for role in restricting)} have no network in common, "
            "so that the credential could be used from nowhere: use one output for each role",
        )
    return tuple(sorted(str(network) for network in common))


_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _networks(role: MachineRole) -> set[_Network]:
    return {_network(text, role.metadata.name) for text in role.spec.options.source_addresses}


def _network(text: str, role: str) -> _Network:
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise Invalid(
            "InvalidSourceAddress",
            f"the sourceAddresses of the role {role!r} hold {text!r}, which is no network ({error}): write CIDR such as "
            "10.0.0.0/8",
        ) from error


def _narrower(one: _Network, other: _Network) -> _Network | None:
    if isinstance(one, ipaddress.IPv4Network) and isinstance(other, ipaddress.IPv4Network):
        return one if one.subnet_of(other) else other if other.subnet_of(one) else None
    if isinstance(one, ipaddress.IPv6Network) and isinstance(other, ipaddress.IPv6Network):
        return one if one.subnet_of(other) else other if other.subnet_of(one) else None
    return None


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)
