"""The authority that lives in the operator: verifies joins, plans, signs. It holds CA keys; nothing here does I/O by itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from machinebot.authority.generations import Generation
from machinebot.authority.interface import Directory, TokenReviewer
from machinebot.authority.plan import Plan, plan
from machinebot.authority.signing import Signer
from machinebot.errors import Denied
from machinebot.joins.reviews import verify_review
from machinebot.policy.credential import (
    BotIdentity,
    BotRef,
    Issued,
    IssueRequest,
    Purpose,
    ServiceAccountRef,
    TrustBundle,
)
from machinebot.policy.grants import check_roles
from machinebot.policy.lifetimes import BACKDATE
from machinebot.resources.authority import MachineAuthoritySpec
from machinebot.resources.bot import MachineBot

IDENTITY_LIFE: Final = timedelta(hours=1)
"""How long a join counts: a ServiceAccount that was deleted or replaced stops getting credentials within it, and a bot with
many outputs costs one TokenReview for all of them."""

MAX_TOKEN: Final = 16 * 1024
"""Longest token that is sent to review, in characters; one of a ServiceAccount has about 1,000."""


@dataclass(frozen=True, slots=True)
class _Pin:
    """Who a bot is now: the UIDs of its ServiceAccount and of itself. Others of the same names are others."""

    service_account: str
    bot: str


class EmbeddedAuthority:
    """An `Authority` in this process.

    Args:
        name: Name of the MachineAuthority.
        spec: Its spec.
        generations: The generations of each CA.
        issuer: The `iss` of JWTs: the address that the authority is found at.
        directory: The bots and roles there are.
        reviewer: Asks the API server about tokens.
    """

    join_method: Final = "kubernetes"
    """How bots join it: see `Authority.join_method`."""

    def __init__(
        self,
        name: str,
        spec: MachineAuthoritySpec,
        generations: Mapping[Purpose, tuple[Generation, ...]],
        issuer: str,
        directory: Directory,
        reviewer: TokenReviewer,
    ) -> None:
        self._signer = Signer(name, spec, generations, issuer, directory)
        self._directory = directory
        self._reviewer = reviewer
        self._pins: dict[BotRef, _Pin] = {}

    @property
    def name(self) -> str:
        """Name of the MachineAuthority."""
        return self._signer.name

    @property
    def spec(self) -> MachineAuthoritySpec:
        """What a person wrote."""
        return self._signer.spec

    def update(self, spec: MachineAuthoritySpec, generations: Mapping[Purpose, tuple[Generation, ...]], issuer: str) -> None:
        """Takes another spec and other generations from now on; who has joined stays joined."""
        self._signer.update(spec, generations, issuer)

    def forget(self, bot: BotRef) -> None:
        """Drops what is known of a bot that is gone; its identities are refused from now on."""
        self._pins.pop(bot, None)

    def trust(self) -> TrustBundle:
        """Every published CA generation: of each purpose the active one first, then the prepared one, then old ones."""
        return self._signer.trust

    def check_bot(self, bot: MachineBot) -> None:
        """Refuses a bot one of whose roles no output of its could carry: see `Authority.check_bot`."""
        check_roles(bot.metadata.namespace, bot.spec, self._directory.roles(), self.spec)

    def plan(self, bot: MachineBot, request: IssueRequest, *, now: datetime) -> Plan | None:
        """What an issue gives the bot: see `Authority.plan`."""
        return plan(
            spec=self.spec,
            bot=bot,
            wanted_roles=request.roles,
            wish=request.wish,
            wished_lifetime=request.lifetime,
            roles=self._directory.roles(),
            locks=self._directory.locks(),
            ca_not_after=None,
            now=now,
        )

    async def join(self, bot: BotRef, token: str, *, expected_uid: str, now: datetime) -> BotIdentity:
        """Takes a ServiceAccount token as the proof of being the bot: see `Authority.join`."""
        self._usable_bot(bot)
        if not 0 < len(token) <= MAX_TOKEN:
            raise Denied("TokenNotAuthenticated", f"a token has 1 to {MAX_TOKEN} characters: get a new one")
        audience = self.spec.cluster_name
        account = verify_review(await self._reviewer.review(token, audience), audience=audience)
        # Read again: the bot may have changed or gone while the API server was asked.
        found = self._usable_bot(bot)
        _check_account(account, bot, found, expected_uid)
        self._pins[bot] = _Pin(service_account=account.uid, bot=found.metadata.uid)
        return BotIdentity(bot=bot, service_account=account, authority=self.name, joined_at=now, expires_at=now + IDENTITY_LIFE)

    async def issue(self, identity: BotIdentity, request: IssueRequest, *, now: datetime) -> Issued:
        """Signs the certificates of one output: see `Authority.issue`."""
        now = now.replace(microsecond=0)
        bot = self._usable_bot(identity.bot)
        self._check_identity(identity, bot, now)
        return self._signer.issue(bot, request, now=now)

    def _usable_bot(self, ref: BotRef) -> MachineBot:
        try:
            return self._signer.usable_bot(ref)
        except Denied as error:
            if error.reason == "BotNotFound":
                self.forget(ref)
            raise

    def _check_identity(self, identity: BotIdentity, bot: MachineBot, now: datetime) -> None:
        # In this process an identity is trusted as it stands: only `join` makes one, and it never leaves the process. One from
        # outside must be proved by a certificate.
        if identity.authority != self.name:
            raise Denied("WrongAuthority", f"the identity is one of the authority {identity.authority!r}: join {self.name!r}")
        if not identity.joined_at - BACKDATE <= now < identity.expires_at:
            raise Denied("IdentityExpired", "the join is over, or from a time that the clock has not reached: join again")
        account = identity.service_account
        pin = _Pin(service_account=account.uid, bot=bot.metadata.uid)
        if self._pins.get(identity.bot) != pin or account.name != bot.service_account:
            raise Denied("IdentityReplaced", "the bot or its ServiceAccount was replaced after this join: join again")


def _check_account(account: ServiceAccountRef, ref: BotRef, bot: MachineBot, expected_uid: str) -> None:
    # Two bots may name one ServiceAccount: the namespace is the boundary between tenants, not the bot.
    if (account.namespace, account.name) != (ref.namespace, bot.service_account):
        raise Denied(
            "WrongServiceAccount",
            f"the token is one of the ServiceAccount {account.namespace}/{account.name}, and the bot joins with "
            f"{ref.namespace}/{bot.service_account}: use a token of that one",
        )
    if not expected_uid or account.uid != expected_uid:
        raise Denied(
            "ServiceAccountReplaced",
            f"the ServiceAccount {account.namespace}/{account.name} is not the one that the bot is pinned to but a later one "
            "of the same name: if that is meant, let the bot be pinned again",
        )
