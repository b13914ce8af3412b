"""What an issue would give, worked out without signing.

Shared by the authority, which then signs it, and by those who ask whether what they hold is still what they would get.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Final

from machinebot.authority.profiles import SSH_HOST, SSH_USER, check_usages
from machinebot.authority.subjects import common_name
from machinebot.errors import Denied, Invalid
from machinebot.policy import choices
from machinebot.policy.credential import BotRef, Usage, Wish
from machinebot.policy.grants import Grant, grant, select_roles
from machinebot.policy.lifetimes import BACKDATE, MAXIMUM, Lifetime, Limit, lifetime
from machinebot.policy.locks import Lock, Subject, check_not_locked
from machinebot.policy.names import NAME_RULES, NameKind, is_path_of_a_bot, own_path
from machinebot.policy.templates import Origin
from machinebot.resources.authority import MachineAuthoritySpec
from machinebot.resources.bot import MachineBot
from machinebot.resources.meta import format_duration
from machinebot.resources.role import MachineRole

_MAX_LISTED: Final = 8
"""Most names that a message lists: enough to know what is meant."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an issue gives.

    Attributes:
        grant: What the credential carries, narrowed to its usages: only the kinds of names that these carry, of kinds that are
            asked for the very names, and SSH options only with an SSH user certificate. A role's other names do not show, so
            that a change of theirs is no reason to issue.
        lifetime: From notBefore to notAfter.
    """

    grant: Grant
    lifetime: Lifetime


def plan(
    *,
    spec: MachineAuthoritySpec,
    bot: MachineBot,
    wanted_roles: Sequence[str],
    wish: Wish,
    wished_lifetime: timedelta,
    roles: Mapping[str, MachineRole],
    ca_not_after: datetime | None,
    now: datetime,
    locks: Iterable[Lock],
) -> Plan:
    """What an issue gives the bot, or the very refusal that it would meet.

    Args:
        spec: The authority's.
        bot: The bot.
        wanted_roles: Roles that the output names; empty means all of the bot's.
        wish: What the credential shall be.
        wished_lifetime: Wished life.
        roles: Every role there is, by name.
        ca_not_after: End of the CA generation that will sign. None where the plan is only compared with another: the rest of a
            CA's life shrinks all the time and is applied at the signing.
        now: The time; used only with ca_not_after and locks.
        locks: Every lock there is. Whoever signs for an instance has its own locks checked besides: a plan knows none.

    Raises:
        Denied: A rule or a lock forbids it.
        Invalid: The wish cannot be fulfilled as it stands.
    """
    check_not_deleting(bot)
    check_not_locked(locks, Subject(ref_of(bot), roles=frozenset(select_roles(bot.spec, wanted_roles))), now)
    check_usages(wish.usages)
    carried = _carried(wish)
    full = grant(
        namespace=bot.metadata.namespace, bot=bot.spec, wanted=wanted_roles, roles=roles, authority=spec, kinds=carried.keys()
    )
    asking = _Asking(wish=wish, full=full, bot=bot, roles=roles)
    names = {kind: find(asking) for kind, find in carried.items()}
    narrowed = replace(full, names={kind: origins for kind, origins in names.items() if origins}, denied={}, taken={})
    limits = [*_limits(spec, bot), *full.limits]
    if ca_not_after is not None:
        # The life counts from notBefore, which lies a little in the past.
        limits.append(Limit("the remaining life of the CA", ca_not_after - (now - BACKDATE)))
    return Plan(grant=narrowed, lifetime=lifetime(wished_lifetime, limits))


def check_not_deleting(bot: MachineBot) -> None:
    """Refuses a bot that is being deleted.

    Raises:
        Denied: It is.
    """
    if bot.metadata.deletion_timestamp is not None:
        raise Denied("BotDeleting", f"the bot {bot.metadata.name!r} is being deleted: create it again, or delete its outputs too")


def ref_of(bot: MachineBot) -> BotRef:
    """The bot's namespace and name."""
    return BotRef(bot.metadata.namespace, bot.metadata.name)


def _limits(spec: MachineAuthoritySpec, bot: MachineBot) -> tuple[Limit, ...]:
    authority, session = min(spec.max_lifetime, MAXIMUM.length), bot.spec.max_lifetime
    return (
        Limit(f"the authority's maxTTL ({format_duration(authority)})", authority),
        Limit(f"the bot's maxSessionTTL ({format_duration(session)})", session),
    )


# --- names ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Asking:
    """A wish and everything that it is held against."""

    wish: Wish
    full: Grant
    bot: MachineBot
    roles: Mapping[str, MachineRole]

    def choose(self, kind: NameKind, wanted: Sequence[str] | None = None) -> tuple[Origin, ...]:
        """The names of that kind, each with the role that allows it: those given, or those that the wish asks for."""
        return choices.choose(
            kind,
            self.wish.of(kind) if wanted is None else wanted,
            self.full,
            namespace=self.bot.metadata.namespace,
            bot=self.bot.spec,
            roles=self.roles,
        )

    def others(self, kind: NameKind) -> tuple[str, ...]:
        """Roles that would give something of that kind, where those of the credential do not."""
        return choices.would_allow(
            kind,
            None,
            namespace=self.bot.metadata.namespace,
            bot=self.bot.spec,
            roles=self.roles,
            denied=self.full.denied.get(kind, ()),
        )

    def taken(self, *kinds: NameKind) -> str:
        """What denies have taken away of these kinds, in brackets after a blank; or nothing."""
        names = sorted({origin.name for kind in kinds for origin in self.full.taken.get(kind, ())})
        return f" (they deny {_listed(names)})" if names else ""

    @property
    def role_names(self) -> str:
        """The roles, for messages."""
        return ", ".join(repr(role) for role in self.full.roles)


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:_MAX_LISTED]))


def _logins(asking: _Asking) -> tuple[Origin, ...]:
    full = asking.full
    if not full.of(NameKind.LOGINS):
        taken, others = asking.taken(NameKind.LOGINS), asking.others(NameKind.LOGINS)
        if others:
            way = choices.way_out(NameKind.LOGINS, others)
        elif taken:
            way = "name the roles of the output without the one that denies them, or use a role that states other logins"
        else:
            way = (
                "put logins into the bot's spec.logins, with a role whose allow.logins names {{ internal.logins }}, or use a "
                "role that states them"
            )
        raise Denied(
            "NoLogins",
            f"the roles {asking.role_names} give this bot no login{taken}, and an SSH certificate without one is never signed: "
            f"{way}",
        )
    SSH_USER.check_principals(full.plain(NameKind.LOGINS))
    return full.of(NameKind.LOGINS)


def _host_principals(asking: _Asking) -> tuple[Origin, ...]:
    granted = asking.choose(NameKind.HOST_PRINCIPALS)
    if not granted:
        raise Invalid("NoPrincipals", "an SSH host certificate needs a host name: set sshHost.principals")
    SSH_HOST.check_principals(tuple(origin.name for origin in granted))
    return granted


def _kubernetes_users(asking: _Asking) -> tuple[Origin, ...]:
    """The one user, or none where the certificate names the bot itself."""
    wanted, granted = asking.wish.of(NameKind.KUBERNETES_USERS), asking.full.of(NameKind.KUBERNETES_USERS)
    names = asking.full.plain(NameKind.KUBERNETES_USERS)
    if wanted:
        return asking.choose(NameKind.KUBERNETES_USERS, _one(NameKind.KUBERNETES_USERS, wanted))
    if len(names) > 1:
        raise Invalid(
            "UserNotChosen",
            f"the roles {asking.role_names} allow several Kubernetes users ({_listed(names)}), and a certificate names "
            "one: write it into kubernetes.user",
        )
    if not names:
        _check_own_user(asking)
    return granted[:1]


def _check_own_user(asking: _Asking) -> None:
    """Refuses a certificate that names the bot itself, where that is good for nothing or a role denies it.

    Raises:
        Denied: So it is.
    """
    users, groups = NameKind.KUBERNETES_USERS, NameKind.KUBERNETES_GROUPS
    if not asking.full.of(groups):
        others = sorted({*asking.others(users), *asking.others(groups)})[: choices.MAX_WAYS_OUT]
        raise Denied(
            "NoKubernetesNames",
            f"the roles {asking.role_names} give neither a Kubernetes user nor a group{asking.taken(users, groups)}, so that the "
            f"credential could do nothing: {choices.way_out(groups, others)}",
        )
    bot = ref_of(asking.bot)
    if asking.full.denies(users, bot.user) or asking.full.denies(users, common_name(bot)):
        raise Denied(
            NAME_RULES[users].denied,
            f"a role denies the Kubernetes user {bot.user!r}, which is the bot itself and which a certificate names where its "
            f"roles give no other; the roles are {asking.role_names}: add a user to allow.kubernetesUsers of one of them, or "
            "name the roles of the output without the one that denies it",
        )


def _kubernetes_groups(asking: _Asking) -> tuple[Origin, ...]:
    return asking.full.of(NameKind.KUBERNETES_GROUPS)


def _database_user(asking: _Asking) -> tuple[Origin, ...]:
    wanted = _one(NameKind.DB_USERS, asking.wish.of(NameKind.DB_USERS))
    if not wanted:
        raise Invalid("NameMissing", "a certificate for a database names one user: set database.user")
    return asking.choose(NameKind.DB_USERS, wanted)


def _database_name(asking: _Asking) -> tuple[Origin, ...]:
    return asking.choose(NameKind.DB_NAMES, _one(NameKind.DB_NAMES, asking.wish.of(NameKind.DB_NAMES)))


def _server_names(asking: _Asking) -> tuple[Origin, ...]:
    granted = asking.choose(NameKind.DNS_NAMES)
    if not granted:
        raise Invalid("NameMissing", "a certificate for a server names its DNS names: set dnsNames")
    return granted


def _dns_names(asking: _Asking) -> tuple[Origin, ...]:
    return asking.choose(NameKind.DNS_NAMES)


def _spiffe_path(asking: _Asking) -> tuple[Origin, ...]:
    metadata = asking.bot.metadata
    own = own_path(metadata.namespace, metadata.name)
    path = (_one(NameKind.SPIFFE_PATHS, asking.wish.of(NameKind.SPIFFE_PATHS)) or (own,))[0]
    if is_path_of_a_bot(path) and path != own:
        raise Denied(
            "PathOfAnotherBot",
            f"the SPIFFE path {path!r} names a bot, and only that bot may have it: leave the path out for this bot's own, "
            f"{own!r}, or ask for another one",
        )
    return asking.choose(NameKind.SPIFFE_PATHS, (path,))


def _audiences(asking: _Asking) -> tuple[Origin, ...]:
    granted = asking.choose(NameKind.JWT_AUDIENCES)
    if not granted:
        raise Invalid("NameMissing", "a JWT names who it is for: set jwtSVID.audiences")
    return granted


def _one(kind: NameKind, wanted: Sequence[str]) -> Sequence[str]:
    if len(wanted) > 1:
        raise Invalid("TooManyNames", f"the credential names one {NAME_RULES[kind].noun} at most: use an output for each")
    return wanted


CARRIED: Final[Mapping[Usage, Mapping[NameKind, Callable[[_Asking], tuple[Origin, ...]]]]] = MappingProxyType(
    {
        Usage.SSH_USER: {NameKind.LOGINS: _logins},
        Usage.SSH_HOST: {NameKind.HOST_PRINCIPALS: _host_principals},
        Usage.IDENTITY: {},
        Usage.DATABASE_CLIENT: {NameKind.DB_USERS: _database_user, NameKind.DB_NAMES: _database_name},
        Usage.DATABASE_SERVER: {NameKind.DNS_NAMES: _server_names},
        Usage.DATABASE_NODE: {NameKind.DNS_NAMES: _server_names, NameKind.DB_USERS: _database_user},
        Usage.KUBERNETES: {
            NameKind.KUBERNETES_USERS: _kubernetes_users,
            NameKind.KUBERNETES_GROUPS: _kubernetes_groups,
        },
        Usage.WORKLOAD: {NameKind.SPIFFE_PATHS: _spiffe_path, NameKind.DNS_NAMES: _dns_names},
        Usage.WORKLOAD_TOKEN: {NameKind.SPIFFE_PATHS: _spiffe_path, NameKind.JWT_AUDIENCES: _audiences},
    }
)
"""What a credential of each usage carries, and how these names are found. A usage that is not here is not for bots."""


def _carried(wish: Wish) -> dict[NameKind, Callable[[_Asking], tuple[Origin, ...]]]:
    """What the credential of the wish carries, and how it is found.

    Raises:
        Invalid: It asks for names that it does not carry.
    """
    carried = {kind: find for usage in sorted(wish.usages) for kind, find in CARRIED[usage].items()}
    idle = sorted(kind for kind, names in wish.names.items() if names and kind not in carried)
    if idle:
        raise Invalid(
            "NameNotCarried",
            f"the credential does not carry what is asked for: {', '.join(idle)}; leave it out, or use an output of another type",
        )
    return carried
