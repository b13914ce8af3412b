"""`token`: a secret that is used once, for machines that no platform vouches for."""

import hashlib
import hmac
from typing import Annotated, Final

from pydantic import Field, SecretStr

from machinebot.errors import Denied
from machinebot.joins.base import Asked, JoinMethod, Outside, Proof, Proved
from machinebot.resources.meta import Model, written_as

SECRET_BYTES: Final = 32
"""Random bytes of a secret: 256 bits, which nobody finds by its hash. In hex, 64 characters."""

MIN_SECRET: Final = 32
"""Shortest secret that is taken, characters: a hash hides only what cannot be guessed."""

MAX_SECRET: Final = 256
"""Longest, characters."""

_HASH: Final = r"^sha256:[0-9a-f]{64}$"


class TokenSettings(Model):
    """Settings of `token`. The secret itself is stored nowhere: only its hash is, so that the resource can stand in Git."""

    secret_hash: Annotated[
        str,
        written_as(
            _HASH,
            "must be sha256: and 64 hex digits: the SHA-256 of a secret such as `openssl rand -hex 32` makes, without a newline; "
            "`machinebot tokens add` does both",
        ),
        Field(max_length=71),
    ] = Field(description="`sha256:` and the SHA-256 of the secret in hex. The secret has 32 characters or more, made at random.")


class SecretProof(Proof):
    """What a client sends."""

    secret: SecretStr


def secret_hash(secret: str) -> str:
    """The hash of a secret, as `secretHash` has it."""
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()


async def verify(settings: TokenSettings, proof: SecretProof, _asked: Asked, _outside: Outside, /) -> Proved:
    """Compares hashes in constant time. That the secret counts once is seen to where it is consumed: see `desk`."""
    secret = proof.secret.get_secret_value()
    if not MIN_SECRET <= len(secret) <= MAX_SECRET or not hmac.compare_digest(secret_hash(secret), settings.secret_hash):
        raise Denied(
            "SecretInvalid", "the secret is not the one of this join token: check both, a secret has no blank or newline"
        )
    return Proved(subject="whoever holds the secret")


METHOD: Final = JoinMethod(
    name="token",
    field="token",
    description="A secret that is used once. Its identity is renewed for as long as it is not let end.",
    settings=TokenSettings,
    proof=SecretProof,
    verify=verify,
    renewable=True,
)
