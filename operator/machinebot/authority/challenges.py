"""Challenges that a proof must contain: no state, verified by every replica, good for one client's key and one join token.

A challenge is its end, a nonce, and an HMAC over both, the join token and the client's public key. The key of the HMAC is derived
from the CA of bots, which all replicas have: it changes with that CA, and one that is trusted still verifies. Who replays a proof
needs the private key that its challenge was made for.
"""

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from machinebot.authority.generations import Generation
from machinebot.errors import Denied
from machinebot.joins.strict import base64url

LIFE: Final = timedelta(minutes=2)
"""How long a challenge is good: metadata services and signers answer within seconds."""

_END: Final = 4
_NONCE: Final = 4
_MAC: Final = 16
"""Bytes of the parts: 24 in all, so that the text has 32 characters, the most that Azure's metadata service takes as a nonce. The
nonce only keeps two challenges of one second apart; what cannot be forged is the MAC, of 128 bits."""

_LABEL: Final = b"machinebot join challenge, version 1"


@dataclass(frozen=True, slots=True)
class Challenged:
    """What a challenge is bound to.

    Attributes:
        namespace: Namespace of the join token.
        join_token: Its name.
        join_token_uid: Its UID: one of the same name that was made later is another one.
        public_key: The client's public key, DER.
    """

    namespace: str
    join_token: str
    join_token_uid: str
    public_key: bytes


def make(bound: Challenged, issuer: Generation, now: datetime) -> tuple[str, datetime]:
    """A challenge, and when it ends.

    Args:
        bound: What it is for.
        issuer: The active generation of the CA of bots.
        now: The time.
    """
    end = now.replace(microsecond=0) + LIFE
    head = int(end.timestamp()).to_bytes(_END) + secrets.token_bytes(_NONCE)
    return base64.urlsafe_b64encode(head + _mac(issuer, head, bound)).decode(), end


def check(challenge: str | None, bound: Challenged, generations: Sequence[Generation], now: datetime) -> str:
    """The challenge, where it is one of ours, for that client, and not over.

    Args:
        challenge: What the client has sent.
        bound: What it must be for.
        generations: The published generations of the CA of bots.
        now: The time.

    Raises:
        Denied: It is not (`ChallengeInvalid`, `ChallengeExpired`).
    """
    try:
        raw = base64url(challenge or "")
    except ValueError:
        raw = b""
    head, mac = raw[: _END + _NONCE], raw[_END + _NONCE :]
    if len(raw) != _END + _NONCE + _MAC or not any(hmac.compare_digest(mac, _mac(each, head, bound)) for each in generations):
        raise Denied(
            "ChallengeInvalid",
            "the challenge is none of this authority's for this join token and this public key: ask for one, and join with the "
            "same key",
        )
    if now >= datetime.fromtimestamp(int.from_bytes(head[:_END]), UTC):
        raise Denied("ChallengeExpired", f"the challenge is over after {LIFE.seconds // 60} minutes: ask for another one")
    return challenge or ""


def _mac(generation: Generation, head: bytes, bound: Challenged) -> bytes:
    derivation = HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=_LABEL)
    total = hmac.new(derivation.derive(generation.key.pkcs8()), digestmod=hashlib.sha256)
    for part in (head, bound.namespace.encode(), bound.join_token.encode(), bound.join_token_uid.encode(), bound.public_key):
        total.update(len(part).to_bytes(4) + part)
    return total.digest()[:_MAC]
