"""The authority of another cluster, asked by its join API: the bots of this cluster join there, and get their credentials there.

Roles, traits and the limits of bots are those of the other cluster. This one asks for no more than its own objects allow: the
roles that its MachineBot names, and no longer life than its MachineBot and MachineAuthority leave. Private keys stay here.
"""

import base64
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar

from machinebot.authority.interface import Directory
from machinebot.authority.plan import Plan, check_not_deleting, ref_of
from machinebot.client.api import JoinClient, identity_dates
from machinebot.client.transport import IDENTITY_REFUSED, UNREACHABLE, UNREADABLE, Identity
from machinebot.clock import parse_rfc3339, rfc3339
from machinebot.errors import Denied, Unavailable
from machinebot.joins.jwts import take_apart
from machinebot.joins.strict import json_object
from machinebot.outputs.keys import PrivateKeyPair, generate
from machinebot.policy.credential import (
    AnchorState,
    BotIdentity,
    BotRef,
    Form,
    Issued,
    IssueRequest,
    Purpose,
    ServiceAccountRef,
    TrustAnchor,
    TrustBundle,
)
from machinebot.policy.grants import check_authority, select_roles
from machinebot.policy.lifetimes import BACKDATE, Lifetime, Limit, lifetime
from machinebot.policy.locks import Subject, check_not_locked
from machinebot.protocol import convert
from machinebot.protocol.messages import IssueRequest as IssueMessage
from machinebot.protocol.messages import JoinAnswer, JoinRequest, OutputAnswer, TrustAnswer
from machinebot.reconcile.connection import Connection
from machinebot.reconcile.holding import terms_of
from machinebot.resources.authority import CAStatus, MachineAuthority, MachineAuthoritySpec, MachineAuthorityStatus, Remote
from machinebot.resources.bot import MachineBot
from machinebot.resources.meta import format_duration

log = logging.getLogger(__name__)

AnswerT = TypeVar("AnswerT")

REFRESH: Final = timedelta(minutes=5)
"""How often the trust bundle is asked for, as often as verifiers ask; every issue brings it too."""

PASSING: Final = frozenset({"CAEnding", "CAMissing"})
"""Reasons for which an output gets nothing now, and will without anybody's doing."""

_REASON: Final = re.compile("[A-Z][A-Za-z0-9]{0,63}")


@dataclass(frozen=True, slots=True)
class _Member:
    """One bot that has joined.

    Attributes:
        identity: What others know of it.
        shown: What it shows in mutual TLS. The private key is nowhere else.
    """

    identity: BotIdentity
    shown: Identity


class RemoteAuthority:
    """An `Authority` behind HTTPS.

    Args:
        name: Name of the MachineAuthority here.
        spec: Its spec, with `remote`.
        directory: The bots and locks of this cluster.
        told: The trust bundle that was told before, or None.
        server_ca: See `Connection`.
        changed: Called when the trust bundle that comes with an answer is another one.
    """

    join_method: Final = "remote"
    """In metrics, in the place of the method."""

    def __init__(
        self,
        name: str,
        spec: MachineAuthoritySpec,
        directory: Directory,
        *,
        told: TrustBundle | None = None,
        server_ca: bytes = b"",
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.spec = spec
        self.told = told
        """The trust bundle that the other side has told last, or None."""
        self._connection = Connection(_remote(spec), server_ca)
        self._directory = directory
        self._changed = changed
        self._members: dict[BotRef, _Member] = {}

    @property
    def remote(self) -> Remote:
        """Where the other authority is."""
        return self._connection.remote

    @property
    def server_ca(self) -> bytes:
        """What is known of the CAs of its HTTPS: see `Connection`."""
        return self._connection.server_ca

    def update(self, spec: MachineAuthoritySpec) -> None:
        """Takes another spec from now on. Who has joined elsewhere than it says now joins anew."""
        self.spec, remote = spec, _remote(spec)
        if remote != self.remote:
            self._members.clear()
            self._connection.update(remote)

    def forget(self, bot: BotRef) -> None:
        """Drops what is known of a bot that is gone."""
        self._members.pop(bot, None)

    def trust(self) -> TrustBundle:
        """Every published CA generation, as the other side has told them last: see `Authority.trust`.

        Raises:
            Unavailable: It has not answered yet.
        """
        if self.told is None:
            raise Unavailable("AuthorityNotReady", f"{self.remote.url} has not told its trust bundle yet")
        return self.told

    async def refresh(self, now: datetime) -> None:
        """Asks for the trust bundle, and for the CAs of the server where it is known by one of its own.

        Raises:
            Denied: It is of another cluster (`WrongClusterName`).
            Invalid: `caBundle` cannot be used.
            Unavailable: It does not answer; what it has told before stays.
        """
        answer = await self._connection.ask(lambda client: client.trust(), now, prefix=f"/authorities/{self.remote.authority}")
        self._take(answer)
        await self._connection.follow(now)

    # --- what this cluster says ------------------------------------------------------------------------------------------

    def check_bot(self, bot: MachineBot) -> None:
        """Of a bot only its namespace can be judged here, and locks: its roles are those of the other cluster."""
        check_authority(bot.metadata.namespace, self.spec)

    def plan(self, bot: MachineBot, request: IssueRequest, *, now: datetime) -> Plan | None:
        """None: what an issue gives is known to the other side alone. What would be refused here is: see `Authority.plan`."""
        self._asked(bot, request, now)
        return None

    def _asked(self, bot: MachineBot, request: IssueRequest, now: datetime) -> tuple[IssueRequest, Lifetime]:
        """What is asked for: the roles of this cluster's bot, by name, and no longer life than is left to it here.

        Raises:
            Denied: A lock of this cluster is in force, a role is none of the bot's, or too short a life is left.
        """
        check_not_deleting(bot)
        check_authority(bot.metadata.namespace, self.spec)
        roles = select_roles(bot.spec, request.roles)
        check_not_locked(self._directory.locks(), Subject(ref_of(bot), roles=frozenset(roles)), now)
        authority, session = self.spec.max_lifetime, bot.spec.max_lifetime
        life = lifetime(
            request.lifetime,
            (
                Limit(f"the authority's maxTTL ({format_duration(authority)})", authority),
                Limit(f"the bot's maxSessionTTL ({format_duration(session)})", session),
            ),
        )
        return replace(request, roles=roles, lifetime=life.length), life

    # --- joining ---------------------------------------------------------------------------------------------------------

    async def join(self, bot: BotRef, token: str, *, expected_uid: str, now: datetime) -> BotIdentity:
        """Joins as the bot of the same namespace and name there, by a token of its ServiceAccount here: see `Authority.join`.

        Raises:
            Denied: The other side does not let it in, or as somebody else (`WrongBot`).
            Unavailable: It does not answer.
        """
        account = _account(token, bot.namespace)
        if not expected_uid or account.uid != expected_uid:
            raise Denied(
                "ServiceAccountReplaced",
                f"the ServiceAccount {account.namespace}/{account.name} is not the one that the bot is pinned to but a later one "
                "of the same name: if that is meant, let the bot be pinned again",
            )
        key = generate("ECDSA-P256")
        name = self.remote.join_token_of(bot.name)
        request = JoinRequest(
            namespace=bot.namespace,
            join_token=name,
            public_key=base64.b64encode(key.spki).decode(),
            proof={"token": token},
        )
        answer = await self._join(bot, request, now)
        if (answer.identity.namespace, answer.identity.bot) != (bot.namespace, bot.name):
            raise Denied(
                "WrongBot",
                f"the MachineJoinToken {name!r} of the other cluster lets in as another bot than {bot.namespace}/{bot.name}: "
                "correct its spec.bot, or remote.joinToken of the MachineAuthority here",
            )
        self._tell(answer.trust)
        # By its length alone: the clock there may be another one, and has the last word at every issue.
        identity = BotIdentity(
            bot=bot,
            service_account=account,
            authority=self.name,
            joined_at=now,
            expires_at=now + _life(answer.identity.certificate, key),
        )
        self._members[bot] = _Member(identity, Identity(answer.identity.certificate.encode(), key.pkcs8))
        log.info("joined elsewhere", extra={"bot": bot.user, "instance": answer.identity.instance, "authority": self.name})
        return identity

    async def _join(self, bot: BotRef, request: JoinRequest, now: datetime) -> JoinAnswer:
        """As the same instance, where there is an identity that is good still; else as a new one."""
        member = self._members.get(bot)
        if member is not None and now < member.identity.expires_at:
            try:
                return await self._ask_as(member, lambda client: client.join(request), now)
            except Denied as error:
                if error.reason != IDENTITY_REFUSED:
                    raise
        return await self._connection.ask(lambda client: client.join(request), now)

    # --- issuing ---------------------------------------------------------------------------------------------------------

    async def issue(self, identity: BotIdentity, request: IssueRequest, *, now: datetime) -> Issued:
        """Asks for the certificates of one output: see `Authority.issue`."""
        member, bot = self._members.get(identity.bot), self._directory.bot(identity.bot)
        if bot is None:
            raise Denied(
                "BotNotFound",
                f"there is no MachineBot {identity.bot.name!r} in the namespace {identity.bot.namespace!r}: create it",
            )
        if member is None or member.identity != identity:
            raise Denied("IdentityReplaced", "the bot has joined elsewhere, or not since the operator started: join again")
        if not identity.joined_at - BACKDATE <= now < identity.expires_at:
            raise Denied("IdentityExpired", "the join is over, or from a time that the clock has not reached: join again")
        asked, life = self._asked(bot, request, now)
        message = IssueMessage(outputs=(convert.output_request(asked),))
        answer = await self._ask_as(member, lambda client: client.issue(message), now)
        self._tell(answer.trust)
        issued = self._issued(answer.outputs, asked)
        if issued.lifetime.reduced_by is None:
            issued = replace(issued, lifetime=replace(issued.lifetime, reduced_by=life.reduced_by))
        return issued

    async def _ask_as(self, member: _Member, call: Callable[[JoinClient], AnswerT], now: datetime) -> AnswerT:
        """One request of a bot that has joined."""
        try:
            return await self._connection.ask(call, now, shown=member.shown)
        except Unavailable as error:
            if error.reason == UNREACHABLE:
                # Perhaps it is the identity that is not taken, and the connection ended too soon for a word about it.
                self.forget(member.identity.bot)
            raise

    def _issued(self, outputs: tuple[OutputAnswer, ...], asked: IssueRequest) -> Issued:
        """The one output that was asked for.

        Raises:
            Denied: The other side refuses it.
            Unavailable: It cannot give it now, or has answered something else than was asked for.
        """
        answer = outputs[0] if len(outputs) == 1 and outputs[0].name == asked.output else None
        if answer is not None and answer.problem is not None and _REASON.fullmatch(answer.problem.reason):
            kind = Unavailable if answer.problem.reason in PASSING else Denied
            raise self._connection.refusal(kind(answer.problem.reason, " ".join(answer.problem.message.split())))
        if answer is None or answer.credential is None:
            raise Unavailable(UNREADABLE, "the other authority has answered something else than was asked for")
        credential = answer.credential
        issued = _read(lambda: convert.issued(credential))
        _read(lambda: terms_of(issued))  # status holds no more than it has room for
        if not _is_as_asked(issued, asked):
            raise Unavailable(
                "IssuedOtherThanAsked", "the other authority signed something else than was asked for; nothing was stored"
            )
        return issued

    # --- trust ----------------------------------------------------------------------------------------------------------

    def _tell(self, answer: TrustAnswer) -> None:
        """Takes in the trust bundle that came with another answer, and has it looked at where it is another one."""
        if self._take(answer):
            self._changed()

    def _take(self, answer: TrustAnswer) -> bool:
        """Takes in a trust bundle; returns whether it is another one. A CA that is missing in it stays as it was: trust is taken
        away by a later generation only.

        Raises:
            Denied: It is of another cluster.
            Unavailable: It cannot be read, or holds nothing.
        """
        bundle = _read(lambda: convert.trust_bundle(answer))
        if bundle.cluster_name != self.spec.cluster_name:
            raise Denied(
                "WrongClusterName",
                f"the authority at {self.remote.url} is the one of {bundle.cluster_name[:63]!r}, and spec.clusterName is "
                f"{self.spec.cluster_name!r}: make a MachineAuthority with that name, or correct remote.url",
            )
        if not bundle.anchors:
            raise Unavailable(UNREADABLE, "the other authority has told no CA at all: is it ready?")
        _read(lambda: MachineAuthorityStatus(**status_of(bundle)))
        if self.told is not None:
            named = {anchor.purpose for anchor in bundle.anchors}
            kept = tuple(anchor for anchor in self.told.anchors if anchor.purpose not in named)
            bundle = replace(bundle, anchors=_in_order((*bundle.anchors, *kept)))
        changed, self.told = bundle != self.told, bundle
        return changed


def _remote(spec: MachineAuthoritySpec) -> Remote:
    """What says where the authority is.

    Raises:
        ValueError: The authority is embedded: a fault of ours.
    """
    if spec.remote is None:
        raise ValueError("the authority is not remote")
    return spec.remote


def status_of(bundle: TrustBundle) -> dict[str, Any]:
    """The fields of status that keep the trust bundle over a restart."""
    return {"authorities": tuple(map(ca_status, bundle.anchors)), "issuer": bundle.issuer}


def told_before(authority: MachineAuthority) -> TrustBundle | None:
    """What the other cluster told last, from status; None where it says nothing, or is about another spec."""
    status = authority.status
    if not status.authorities or status.issuer is None or status.observed_generation != authority.metadata.generation:
        return None
    try:
        anchors = tuple(map(_anchor, status.authorities))
    except ValueError:
        return None  # not written by this release
    return TrustBundle(cluster_name=authority.spec.cluster_name, issuer=status.issuer, anchors=anchors)


def _anchor(shown: CAStatus) -> TrustAnchor:
    """The anchor that `_ca_status` has shown.

    Raises:
        ValueError: It is none.
    """
    if shown.public is None:
        raise ValueError("a CA without its public half")
    return TrustAnchor(
        purpose=Purpose(shown.purpose),
        id=shown.id,
        state=AnchorState(shown.state),
        public=shown.public.encode(),
        fingerprint=shown.fingerprint,
        not_after=parse_rfc3339(shown.not_after),
    )


def ca_status(anchor: TrustAnchor) -> CAStatus:
    """One CA generation, as status shows it."""
    return CAStatus(
        purpose=anchor.purpose,
        id=anchor.id,
        state=anchor.state,
        fingerprint=anchor.fingerprint,
        not_after=rfc3339(anchor.not_after),
        public=anchor.public.decode(),
    )


def _in_order(anchors: tuple[TrustAnchor, ...]) -> tuple[TrustAnchor, ...]:
    """Grouped by purpose, in the order of these; within one as they came."""
    places = {purpose: place for place, purpose in enumerate(Purpose)}
    return tuple(sorted(anchors, key=lambda anchor: places[anchor.purpose]))


def _account(token: str, namespace: str) -> ServiceAccountRef:
    """The ServiceAccount of a token that our own API server has just made: the other side verifies it, we only compare its UID.

    Raises:
        Denied: It is no token of a ServiceAccount of the namespace.
    """
    try:
        inside = json_object(take_apart(token).payload)["kubernetes.io"]
        account = inside["serviceaccount"]
        found = ServiceAccountRef(namespace=str(inside["namespace"]), name=str(account["name"]), uid=str(account["uid"]))
    except (ValueError, KeyError, TypeError):
        found = None
    if found is None or found.namespace != namespace:
        raise Denied("NotAServiceAccount", "the API server has made a token that names no ServiceAccount of the bot's namespace")
    return found


def _life(certificate: str, key: PrivateKeyPair) -> timedelta:
    """For how long an identity is good from now on.

    Raises:
        Unavailable: It is no certificate, or one of another key.
    """
    begin, end = identity_dates(certificate, key.spki)
    return end - begin - BACKDATE


def _is_as_asked(issued: Issued, asked: IssueRequest) -> bool:
    """Whether a credential is for what was asked for, and lives no longer and carries no other role."""
    contents = {Form.SSH: issued.ssh_certificate, Form.X509: issued.x509_certificate, Form.JWT: issued.token}
    return (
        {form for form, content in contents.items() if content is not None} == {usage.form for usage in asked.wish.usages}
        and set(issued.authorities) == {usage.purpose for usage in asked.wish.usages}
        and timedelta(0) < issued.not_after - issued.not_before <= asked.lifetime
        and set(issued.grant.roles) <= set(asked.roles)
    )


def _read(parse: Callable[[], AnswerT]) -> AnswerT:
    """What an answer holds.

    Raises:
        Unavailable: It cannot be read.
    """
    try:
        return parse()
    except ValueError as error:
        raise Unavailable(UNREADABLE, "the answer of the other authority cannot be read: is it a newer release?") from error
