"""What others see of an authority, and what an authority needs of others: Protocols only, whichever authority it is."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Protocol

from machinebot.authority.plan import Plan
from machinebot.policy.credential import BotIdentity, BotRef, Issued, IssueRequest, TrustBundle
from machinebot.policy.locks import Lock
from machinebot.resources.authority import MachineAuthoritySpec
from machinebot.resources.bot import MachineBot
from machinebot.resources.role import MachineRole

REJOIN: Final = frozenset(
    {"IdentityExpired", "IdentityInvalid", "IdentityRefused", "IdentityReplaced", "InstanceUnknown", "JoinTokenUnknown"}
)
"""Reasons of `Denied` at an issue that say no more than: this identity is over, join again."""


class Directory(Protocol):
    """The bots, roles and locks there are, from a cache: asked often, never waits."""

    def bot(self, ref: BotRef) -> MachineBot | None:
        """The bot, or None where there is none."""
        ...

    def roles(self) -> Mapping[str, MachineRole]:
        """Every role by its name."""
        ...

    def locks(self) -> tuple[Lock, ...]:
        """Every lock, in force or not."""
        ...


class TokenReviewer(Protocol):
    """Asks the API server whether a ServiceAccount token is good (authentication.k8s.io/v1 TokenReview)."""

    async def review(self, token: str, audience: str) -> Mapping[str, Any]:
        """The status of a TokenReview of the token with that audience, as the API server gave it.

        Raises:
            Unavailable: The API server is away.
        """
        ...


class Authority(Protocol):
    """Verifies joins, applies roles, signs. Whether it lives in this process or behind HTTPS is invisible here."""

    @property
    def name(self) -> str:
        """Name of the MachineAuthority."""
        ...

    @property
    def spec(self) -> MachineAuthoritySpec:
        """What a person wrote."""
        ...

    @property
    def join_method(self) -> str:
        """How bots of this cluster join it, for metrics: `kubernetes` or `remote`."""
        ...

    def check_bot(self, bot: MachineBot) -> None:
        """Refuses a bot one of whose roles no output of its could carry, as far as that is known here.

        Raises:
            Denied: So it is.
        """
        ...

    def plan(self, bot: MachineBot, request: IssueRequest, *, now: datetime) -> Plan | None:
        """What an issue gives the bot, but for the rest of the CA's life; None where only the issue tells.

        Args:
            bot: The bot.
            request: What is wanted; its public key does not matter.
            now: The time.

        Raises:
            Denied, Invalid: What the issue would be refused with, as far as that is known here.
        """
        ...

    async def join(self, bot: BotRef, token: str, *, expected_uid: str, now: datetime) -> BotIdentity:
        """Takes a ServiceAccount token as the proof of being the bot.

        Args:
            bot: Who wants to join.
            token: Token of the bot's ServiceAccount with `spec.clusterName` as its audience.
            expected_uid: UID that the ServiceAccount must have: one of the same name that was made later is another one.
            now: The time.

        Raises:
            Denied: The bot may not join, or the token does not prove it.
            Unavailable: The token cannot be reviewed now.
        """
        ...

    async def issue(self, identity: BotIdentity, request: IssueRequest, *, now: datetime) -> Issued:
        """Signs the certificates of one output.

        Args:
            identity: From `join`.
            request: What is wanted. Nothing of it but the public key reaches a certificate unchecked by a role.
            now: The time.

        Raises:
            Denied: A rule forbids it; with a reason in `REJOIN`, join again and repeat.
            Invalid: The wish cannot be fulfilled as it stands.
            Unavailable: The CA is not there yet, or is being replaced.
        """
        ...

    def trust(self) -> TrustBundle:
        """Every published CA generation: of each purpose the active one first, then the prepared one, then old ones."""
        ...
