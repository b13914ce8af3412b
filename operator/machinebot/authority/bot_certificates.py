"""Identities of bots outside of the cluster: the certificates by which the join API knows an instance again, and nobody else."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.asn1 import decode_der

from machinebot.authority import x509 as signing
from machinebot.authority.generations import Generation
from machinebot.authority.keys import UNREADABLE, PublicKey, spki
from machinebot.authority.profiles import BOT, NOTE, Stamp, Subject, X509Request, new_serial
from machinebot.authority.subjects import common_name
from machinebot.errors import Denied
from machinebot.joins.strict import json_object
from machinebot.policy.credential import AnchorState, BotRef
from machinebot.policy.lifetimes import BACKDATE

DELEGATED_LIFE: Final = timedelta(hours=1)
"""Life of an identity that another join replaces: what a platform no longer vouches for ends within it."""

RENEWABLE_LIFE: Final = timedelta(hours=24)
"""Life of an identity that is renewed: how long its machine may be off before it needs a new secret."""

_TEXTS: Final = ("instance", "method", "joinToken", "joinTokenUID", "botUID", "namespace", "bot")


@dataclass(frozen=True, slots=True)
class InstanceIdentity:
    """What the certificate of an instance says.

    Attributes:
        bot: The bot.
        bot_uid: Its UID: one of the same name that was made later is another one.
        instance: Identifier of the instance, a UUID.
        generation: How many identities it has had.
        method: The join method.
        join_token: Name of the join token, of the bot's namespace.
        join_token_uid: Its UID.
        key: SHA-256 of the certified public key, hex.
        expires_at: When the certificate ends.
    """

    bot: BotRef
    bot_uid: str
    instance: str
    generation: int
    method: str
    join_token: str
    join_token_uid: str
    key: str
    expires_at: datetime


def key_digest(public_key: bytes) -> str:
    """SHA-256 of a public key in DER, hex."""
    return hashlib.sha256(public_key).hexdigest()


def sign(identity: InstanceIdentity, public_key: PublicKey, issuer: Generation, *, cluster_name: str, now: datetime) -> bytes:
    """The certificate as PEM.

    Args:
        identity: What it says; its end is that of the certificate.
        public_key: The key to be certified.
        issuer: The active generation of the CA of bots.
        cluster_name: Name of the cluster.
        now: The time.

    Raises:
        Denied: A check failed.
    """
    note = {
        "bot": identity.bot.name,
        "botUID": identity.bot_uid,
        "generation": identity.generation,
        "instance": identity.instance,
        "joinToken": identity.join_token,
        "joinTokenUID": identity.join_token_uid,
        "method": identity.method,
        "namespace": identity.bot.namespace,
    }
    request = X509Request(
        profile=BOT,
        stamp=Stamp(serial=new_serial(), not_before=now.replace(microsecond=0) - BACKDATE, not_after=identity.expires_at),
        public_key=public_key,
        subject=Subject(
            organizations=(cluster_name,),
            common_name=common_name(identity.bot),
            spiffe_id=identity.bot.spiffe_id(cluster_name),
            note=json.dumps(note, separators=(",", ":")),
        ),
    )
    return signing.sign(request, issuer)


def unverified_bot(der: bytes) -> BotRef | None:
    """The bot that a certificate says to be of: not to be believed, only good for finding the CA that it is held against."""
    try:
        note = _note(x509.load_der_x509_certificate(der))
    except (*UNREADABLE, x509.ExtensionNotFound):
        return None
    namespace, name = note.get("namespace"), note.get("bot")
    return BotRef(namespace, name) if isinstance(namespace, str) and isinstance(name, str) else None


def read(der: bytes, generations: Sequence[Generation], *, now: datetime) -> InstanceIdentity:
    """Who shows a certificate. TLS has verified it already, perhaps at an earlier time: it is verified here once more, and this
    counts.

    Args:
        der: The certificate.
        generations: The published generations of the CA of bots.
        now: The time.

    Raises:
        Denied: It is none of ours (`IdentityInvalid`), or over (`IdentityExpired`).
    """
    invalid = Denied("IdentityInvalid", "the client certificate is no identity of this authority: join")
    try:
        certificate = x509.load_der_x509_certificate(der)
        if not any(each.state is not AnchorState.PREPARED and _signed_by(certificate, each) for each in generations):
            raise invalid
        note = _note(certificate)
        texts = {name: note[name] for name in _TEXTS}
        generation = note["generation"]
    except (*UNREADABLE, x509.ExtensionNotFound, KeyError):
        raise invalid from None
    if not all(isinstance(text, str) for text in texts.values()) or type(generation) is not int:
        raise invalid
    if not certificate.not_valid_before_utc <= now < certificate.not_valid_after_utc:
        raise Denied("IdentityExpired", "the identity is over, or from a time that the clock has not reached: join again")
    return InstanceIdentity(
        bot=BotRef(texts["namespace"], texts["bot"]),
        bot_uid=texts["botUID"],
        instance=texts["instance"],
        generation=generation,
        method=texts["method"],
        join_token=texts["joinToken"],
        join_token_uid=texts["joinTokenUID"],
        key=key_digest(_spki(certificate)),
        expires_at=certificate.not_valid_after_utc,
    )


def _note(certificate: x509.Certificate) -> dict[str, Any]:
    found = certificate.extensions.get_extension_for_oid(NOTE).value
    return json_object(decode_der(str, found.public_bytes()).encode())


def _signed_by(certificate: x509.Certificate, generation: Generation) -> bool:
    try:
        certificate.verify_directly_issued_by(generation.issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _spki(certificate: x509.Certificate) -> bytes:
    key = certificate.public_key()
    if not isinstance(key, PublicKey):
        raise Denied("IdentityInvalid", "the client certificate is no identity of this authority: join")
    return spki(key)
