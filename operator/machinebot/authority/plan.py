"""What an issue would give, worked out without signing.

Shared by the authority, which then signs it, and by those who ask whether what they hold is still what they would get.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from machinebot.authority.profiles import SSH_HOST, SSH_USER, profile_of
from machinebot.errors import Denied, Invalid
from machinebot.policy.credential import Purpose, Wish
from machinebot.policy.grants import Grant, Origin, SSHOptions, grant, host_principals
from machinebot.policy.lifetimes import BACKDATE, MAXIMUM, Lifetime, Limit, lifetime
from machinebot.resources.authority import MachineAuthoritySpec
from machinebot.resources.bot import MachineBot
from machinebot.resources.meta import format_duration
from machinebot.resources.role import MachineRole

_NO_SSH: Final = SSHOptions(forward_agent=False, port_forwarding=False, permit_pty=False, source_addresses=())
"""The options of a credential that is no SSH user certificate."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an issue gives.

    Attributes:
        grant: What the credential carries, narrowed to its purposes: logins and SSH options only with an SSH user certificate,
            and as host principals the very names of an SSH host certificate. A role's other names do not show, so that a
            change of theirs is no reason to issue.
        lifetime: From notBefore to notAfter.
    """

    grant: Grant
    lifetime: Lifetime

    @property
    def host_principals(self) -> tuple[Origin, ...]:
        """The names of the SSH host certificate, each with the role that allows it; none without such a certificate."""
        return self.grant.host_principals


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
        now: The time; used only with ca_not_after.

    Raises:
        Denied: A rule forbids it.
        Invalid: The wish cannot be fulfilled as it stands.
    """
    check_not_deleting(bot)
    check_purposes(wish.purposes)
    full = grant(namespace=bot.metadata.namespace, bot=bot.spec, wanted=wanted_roles, roles=roles, authority=spec)
    narrowed = replace(
        full,
        logins=_logins(full) if Purpose.SSH_USER in wish.purposes else (),
        ssh=full.ssh if Purpose.SSH_USER in wish.purposes else _NO_SSH,
        host_principals=_host_principals(wish, full) if Purpose.SSH_HOST in wish.purposes else (),
        denied_host_principals=(),
    )
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


def check_purposes(purposes: frozenset[Purpose]) -> None:
    """Refuses a credential that cannot be made, whoever wants it.

    Raises:
        Invalid: No purpose, one that nothing is signed for, or two that need the same room in the credential.
    """
    if not purposes:
        raise Invalid("NoPurpose", "the credential names nothing to be signed for: ask for at least one purpose")
    for purpose in sorted(purposes):
        profile_of(purpose)
    # Issued has room for one certificate of each form.
    if len({purpose.is_ssh for purpose in purposes}) != len(purposes):
        raise Invalid("TooManyPurposes", "a credential holds one SSH and one X.509 certificate at most: use an output for each")


def _limits(spec: MachineAuthoritySpec, bot: MachineBot) -> tuple[Limit, ...]:
    authority, session = min(spec.max_lifetime, MAXIMUM.length), bot.spec.max_lifetime
    return (
        Limit(f"the authority's maxTTL ({format_duration(authority)})", authority),
        Limit(f"the bot's maxSessionTTL ({format_duration(session)})", session),
    )


def _logins(full: Grant) -> tuple[Origin, ...]:
    if not full.logins:
        names = ", ".join(repr(role) for role in full.roles)
        raise Denied(
            "NoLogins",
            f"the roles {names} give this bot no login, and an SSH certificate without one is never signed: put logins into the "
            "bot's spec.logins, with a role whose allow.logins names {{ internal.logins }}, or use a role that states them",
        )
    SSH_USER.check_principals(full.login_names)
    return full.logins


def _host_principals(wish: Wish, full: Grant) -> tuple[Origin, ...]:
    granted = host_principals(wish.host_principals, full)
    SSH_HOST.check_principals(tuple(origin.name for origin in granted))
    return granted
