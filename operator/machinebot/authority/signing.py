"""Signs what bots get: the CAs and the rules of one authority, the same for bots in the cluster and for those outside."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Self

from machinebot.authority import ssh, tokens, x509
from machinebot.authority.generations import Generation
from machinebot.authority.interface import Directory
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
from machinebot.policy.credential import BotRef, Form, Issued, IssueRequest, Purpose, TrustBundle, Usage
from machinebot.policy.grants import check_authority
from machinebot.policy.lifetimes import BACKDATE
from machinebot.policy.names import NameKind
from machinebot.resources.authority import MachineAuthoritySpec
from machinebot.resources.bot import MachineBot


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


class Signer:
    """What one authority signs with, and by which rules. Who asks was found out before.

    Args:
        name: Name of the MachineAuthority.
        spec: Its spec.
        generations: The generations of each CA.
        issuer: The `iss` of JWTs: the address that the authority is found at.
        directory: The bots, roles and locks there are.
    """

    def __init__(
        self,
        name: str,
        spec: MachineAuthoritySpec,
        generations: Mapping[Purpose, tuple[Generation, ...]],
        issuer: str,
        directory: Directory,
    ) -> None:
        self.name = name
        self._state = _State.of(spec, generations, issuer)
        self._directory = directory

    @property
    def spec(self) -> MachineAuthoritySpec:
        """What a person wrote."""
        return self._state.spec

    @property
    def trust(self) -> TrustBundle:
        """Every published CA generation: of each purpose the active one first, then the prepared one, then old ones."""
        return self._state.trust

    def generations(self, purpose: Purpose) -> tuple[Generation, ...]:
        """The generations of one CA, in the same order."""
        return self._state.generations.get(purpose, ())

    def update(self, spec: MachineAuthoritySpec, generations: Mapping[Purpose, tuple[Generation, ...]], issuer: str) -> None:
        """Takes another spec and other generations from now on."""
        self._state = _State.of(spec, generations, issuer)

    def usable_bot(self, ref: BotRef) -> MachineBot:
        """The bot, where it belongs to this authority.

        Raises:
            Denied: There is none, it is being deleted, or it belongs to another authority; or this one is not for its namespace.
        """
        bot = self._directory.bot(ref)
        # The namespace of the object decides which roles it may use, and the one of the reference goes into the names.
        if bot is None or BotRef(bot.metadata.namespace, bot.metadata.name) != ref:
            raise Denied("BotNotFound", f"there is no MachineBot {ref.name!r} in the namespace {ref.namespace!r}: create it")
        check_not_deleting(bot)
        if bot.spec.authority != self.name:
            raise Denied(
                "WrongAuthority",
                f"the bot {ref.name!r} belongs to the authority {bot.spec.authority!r} and not to {self.name!r}: join that one, "
                "or change the bot's spec.authority",
            )
        check_authority(ref.namespace, self.spec)
        return bot

    def public_key(self, der: bytes) -> PublicKey:
        """A public key from outside, for a certificate.

        Raises:
            Invalid: It is none that is taken.
            Denied: It is the one of a CA.
        """
        key = parse_public_key(der)
        # The parser takes one form of a key only, so that equal keys are equal bytes.
        if der in self._state.ca_keys:
            raise Denied("PublicKeyOfCA", "the public key is the one of a CA, which is never certified: make a key of your own")
        return key

    def issuer(self, purpose: Purpose, now: datetime) -> Generation:
        """The generation that signs now.

        Raises:
            Unavailable: There is none, or it is about to end.
        """
        return _issuer(self._state, purpose, now)

    def issue(self, bot: MachineBot, request: IssueRequest, *, now: datetime) -> Issued:
        """Signs the certificates of one output of a bot from `usable_bot`.

        Raises:
            Denied: A rule forbids it.
            Invalid: The wish cannot be fulfilled as it stands.
            Unavailable: The CA is not there yet, or is being replaced.
        """
        now = now.replace(microsecond=0)
        state = self._state
        check_usages(request.wish.usages)
        public_key = self.public_key(request.public_key) if request.public_key is not None else None
        issuers = {usage: _issuer(state, usage.purpose, now) for usage in sorted(request.wish.usages)}
        planned = plan(
            spec=state.spec,
            bot=bot,
            wanted_roles=request.roles,
            wish=request.wish,
            wished_lifetime=request.lifetime,
            roles=self._directory.roles(),
            locks=self._directory.locks(),
            ca_not_after=min(issuer.not_after for issuer in issuers.values()),
            now=now,
        )
        not_before = now - BACKDATE
        stamp = Stamp(serial=new_serial(), not_before=not_before, not_after=not_before + planned.lifetime.length)
        ref = BotRef(bot.metadata.namespace, bot.metadata.name)
        return _Signing(ref, planned, stamp, public_key, state.trust).issued(issuers)


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
