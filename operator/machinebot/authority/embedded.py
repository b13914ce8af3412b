"""The authority that lives in the operator: verifies joins, plans, signs. It holds CA keys; nothing here does I/O by itself."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Self

from machinebot.authority import ssh, tokens, x509
from machinebot.authority.generations import Generation
from machinebot.authority.interface import Directory, TokenReviewer
from machinebot.authority.keys import PublicKey, parse_public_key
from machinebot.authority.plan import Plan, check_not_deleting, plan
from machinebot.authority.profiles import (
    PROFILES,
    SSHProfile,
    SSHRequest,
    Stamp,
    TokenProfile,
    TokenRequest,
    X509Profile,
    X509Request,
    check_usages,
    new_serial,
)
from machinebot.authority.rotation import LAST_CALL, active, in_order
from machinebot.authority.subjects import SUBJECTS, spiffe_id
from machinebot.errors import Denied, Invalid, Unavailable
from machinebot.joins.reviews import verify_review
from machinebot.policy.credential import (
    BotIdentity,
    BotRef,
    Form,
    Issued,
    IssueRequest,
    Purpose,
    ServiceAccountRef,
    TrustBundle,
    Usage,
)
from machinebot.policy.lifetimes import BACKDATE
from machinebot.policy.names import NameKind
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


@dataclass(frozen=True, slots=True)
class _State:
    """What is exchanged at once when the authority or a CA changes, so that no issue sees half of it."""

    spec: MachineAuthoritySpec
    generations: Mapping[Purpose, tuple[Generation, ...]]
    ca_keys: frozenset[bytes]
    trust: TrustBundle

    @classmethod
    def of(cls, spec: MachineAuthoritySpec, generations: Mapping[Purpose, tuple[Generation, ...]], issuer: str) -> Self:
        ordered = {purpose: in_order(generations[purpose]) for purpose in Purpose if purpose in generations}
        every = [generation for several in ordered.values() for generation in several]
        return cls(
            spec=spec,
            generations=ordered,
            ca_keys=frozenset(generation.key.spki for generation in every),
            trust=TrustBundle(
                cluster_name=spec.cluster_name, issuer=issuer, anchors=tuple(generation.anchor for generation in every)
            ),
        )


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

    def __init__(
        self,
        name: str,
        spec: MachineAuthoritySpec,
        generations: Mapping[Purpose, tuple[Generation, ...]],
        issuer: str,
        directory: Directory,
        reviewer: TokenReviewer,
    ) -> None:
        self._name = name
        self._state = _State.of(spec, generations, issuer)
        self._directory = directory
        self._reviewer = reviewer
        self._pins: dict[BotRef, _Pin] = {}

    @property
    def name(self) -> str:
        """Name of the MachineAuthority."""
        return self._name

    @property
    def spec(self) -> MachineAuthoritySpec:
        """What a person wrote."""
        return self._state.spec

    def update(self, spec: MachineAuthoritySpec, generations: Mapping[Purpose, tuple[Generation, ...]], issuer: str) -> None:
        """Takes another spec and other generations from now on; who has joined stays joined."""
        self._state = _State.of(spec, generations, issuer)

    def forget(self, bot: BotRef) -> None:
        """Drops what is known of a bot that is gone; its identities are refused from now on."""
        self._pins.pop(bot, None)

    def trust(self) -> TrustBundle:
        """Every published CA generation: of each purpose the active one first, then the prepared one, then old ones."""
        return self._state.trust

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
        return BotIdentity(bot=bot, service_account=account, authority=self._name, joined_at=now, expires_at=now + IDENTITY_LIFE)

    async def issue(self, identity: BotIdentity, request: IssueRequest, *, now: datetime) -> Issued:
        """Signs the certificates of one output: see `Authority.issue`."""
        now = now.replace(microsecond=0)
        bot = self._usable_bot(identity.bot)
        self._check_identity(identity, bot, now)
        state = self._state
        check_usages(request.wish.usages)
        public_key = self._public_key(request.public_key) if request.public_key is not None else None
        issuers = {usage: _issuer(state, usage.purpose, now) for usage in sorted(request.wish.usages)}
        planned = plan(
            spec=state.spec,
            bot=bot,
            wanted_roles=request.roles,
            wish=request.wish,
            wished_lifetime=request.lifetime,
            roles=self._directory.roles(),
            ca_not_after=min(issuer.not_after for issuer in issuers.values()),
            now=now,
        )
        not_before = now - BACKDATE
        stamp = Stamp(serial=new_serial(), not_before=not_before, not_after=not_before + planned.lifetime.length)
        return _Signing(identity.bot, planned, stamp, public_key, state.trust).issued(issuers)

    def _usable_bot(self, ref: BotRef) -> MachineBot:
        bot = self._directory.bot(ref)
        # The namespace of the object decides which roles it may use, and the one of the reference goes into the names.
        if bot is None or BotRef(bot.metadata.namespace, bot.metadata.name) != ref:
            self.forget(ref)
            raise Denied("BotNotFound", f"there is no MachineBot {ref.name!r} in the namespace {ref.namespace!r}: create it")
        check_not_deleting(bot)
        if bot.spec.authority != self._name:
            raise Denied(
                "WrongAuthority",
                f"the bot {ref.name!r} belongs to the authority {bot.spec.authority!r} and not to {self._name!r}: join that one, "
                "or change the bot's spec.authority",
            )
        return bot

    def _check_identity(self, identity: BotIdentity, bot: MachineBot, now: datetime) -> None:
        # In this process an identity is trusted as it stands: only `join` makes one, and it never leaves the process. One from
        # outside must be proved by a certificate.
        if identity.authority != self._name:
            raise Denied("WrongAuthority", f"the identity is one of the authority {identity.authority!r}: join {self._name!r}")
        if not identity.joined_at - BACKDATE <= now < identity.expires_at:
            raise Denied("IdentityExpired", "the join is over, or from a time that the clock has not reached: join again")
        account = identity.service_account
        pin = _Pin(service_account=account.uid, bot=bot.metadata.uid)
        if self._pins.get(identity.bot) != pin or account.name != bot.service_account:
            raise Denied("IdentityReplaced", "the bot or its ServiceAccount was replaced after this join: join again")

    def _public_key(self, der: bytes) -> PublicKey:
        key = parse_public_key(der)
        # The parser takes one form of a key only, so that equal keys are equal bytes.
        if der in self._state.ca_keys:
            raise Denied("PublicKeyOfCA", "the public key is the one of a CA, which is never certified: make a key of your own")
        return key


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


def _issuer(state: _State, purpose: Purpose, now: datetime) -> Generation:
    issuer = active(state.generations.get(purpose, ()))
    if issuer is None:
        raise Unavailable("CAMissing", f"the CA {purpose.value} is not there yet: it is made when the operator starts")
    if issuer.not_after - now < LAST_CALL:
        raise Unavailable("CAEnding", f"the CA {purpose.value} is about to end and signs no more: its heir takes over soon")
    return issuer


@dataclass(frozen=True, slots=True)
class _Signing:
    """One issue: everything that its credentials share."""

    bot: BotRef
    planned: Plan
    stamp: Stamp
    public_key: PublicKey | None
    trust: TrustBundle

    def issued(self, issuers: Mapping[Usage, Generation]) -> Issued:
        """Every credential, signed and checked."""
        made = {usage.form: self._sign(usage, issuer) for usage, issuer in issuers.items()}
        return Issued(
            serial=self.stamp.serial,
            not_before=self.stamp.not_before,
            not_after=self.stamp.not_after,
            ssh_certificate=made.get(Form.SSH),
            x509_certificate=made.get(Form.X509),
            token=made.get(Form.JWT),
            authorities={usage.purpose: issuer.id for usage, issuer in issuers.items()},
            grant=self.planned.grant,
            lifetime=self.planned.lifetime,
        )

    def _sign(self, usage: Usage, issuer: Generation) -> bytes:
        profile = PROFILES[usage]
        if isinstance(profile, SSHProfile):
            return ssh.sign(self._ssh(profile), issuer)
        if isinstance(profile, X509Profile):
            return x509.sign(self._x509(profile), issuer)
        return tokens.sign(self._token(profile), issuer)

    def _key(self) -> PublicKey:
        if self.public_key is None:
            raise Invalid("NoPublicKey", "a certificate is made for a public key: send one")
        return self.public_key

    def _ssh(self, profile: SSHProfile) -> SSHRequest:
        grant = self.planned.grant
        kind = NameKind.HOST_PRINCIPALS if profile.usage is Usage.SSH_HOST else NameKind.LOGINS
        return SSHRequest(
            profile=profile,
            stamp=self.stamp,
            public_key=self._key(),
            key_id=self.bot.user,
            principals=grant.plain(kind),
            # The plan leaves both empty where it is no SSH user certificate.
            extensions=ssh.extensions(grant.ssh),
            source_addresses=grant.ssh.source_addresses,
        )

    def _x509(self, profile: X509Profile) -> X509Request:
        subject = SUBJECTS[profile.usage](self.bot, self.planned.grant, self.trust.cluster_name)
        return X509Request(profile=profile, stamp=self.stamp, public_key=self._key(), subject=subject)

    def _token(self, profile: TokenProfile) -> TokenRequest:
        grant = self.planned.grant
        return TokenRequest(
            profile=profile,
            stamp=self.stamp,
            issuer=self.trust.issuer,
            subject=spiffe_id(self.bot, grant, self.trust.cluster_name),
            audiences=grant.plain(NameKind.JWT_AUDIENCES),
        )
