"""Why a credential is issued: a chain of small checks over a frozen snapshot; the first that fails is the reason.

Order is the contract: later checks rely on earlier ones having passed. No Secret: nothing to look into. A changed Secret:
its dates mean nothing. A wish of a person comes before what would have happened anyway, so that it is answered by name.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from machinebot.clock import rfc3339

SKEW: Final = timedelta(minutes=5)
"""A credential that begins later than this from now was made by a clock that was ahead; verifiers would refuse it."""


class Reason(StrEnum):
    """Why a credential is issued: condition reason, event, log and metric label alike."""

    SECRET_MISSING = "SecretMissing"  # noqa: S105 - a reason, not a password
    SECRET_CHANGED = "SecretChanged"  # noqa: S105 - a reason, not a password
    REQUESTED = "Requested"
    GRANT_CHANGED = "GrantChanged"
    CA_ROTATED = "CARotated"
    NOT_YET_VALID = "NotYetValid"
    EXPIRING = "Expiring"


@dataclass(frozen=True, slots=True)
class Credential:
    """What is known of the credential in the Secret.

    Attributes:
        damage: What is wrong with the Secret's content, or None where it is as it was written.
        inputs: Digest of what it was made from.
        authorities: CA generation that signed it, by purpose.
        not_before: Begin, UTC.
        not_after: End, UTC.
    """

    damage: str | None
    inputs: str
    authorities: Mapping[str, str]
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that the decision depends on.

    Attributes:
        credential: What is stored, or None where there is no Secret.
        inputs: Digest of what a credential made now would be made from.
        trusted: Generations that verifiers trust, by purpose.
        renew_at: When it is due.
        requested: Value of the annotation by which a person asks for a renewal, or None.
        fulfilled: The value that was fulfilled last, or None.
        now: UTC.
    """

    credential: Credential | None
    inputs: str
    trusted: Mapping[str, frozenset[str]]
    renew_at: datetime | None
    requested: str | None
    fulfilled: str | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Cause:
    """A reason to issue, and a sentence about it."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class _Stored:
    """A snapshot that has a credential: what the later checks work on."""

    credential: Credential
    snapshot: Snapshot


def _changed(stored: _Stored) -> Cause | None:
    damage = stored.credential.damage
    return None if damage is None else Cause(Reason.SECRET_CHANGED, damage)


def _requested(stored: _Stored) -> Cause | None:
    wanted = stored.snapshot.requested
    if wanted is None or wanted == stored.snapshot.fulfilled:
        return None
    return Cause(Reason.REQUESTED, "asked for by the annotation machinebot.dev/renew")


def _grant_changed(stored: _Stored) -> Cause | None:
    if stored.credential.inputs == stored.snapshot.inputs:
        return None
    return Cause(Reason.GRANT_CHANGED, "the output, its bot or one of its roles changed what the credential carries")


def _ca_rotated(stored: _Stored) -> Cause | None:
    trusted = stored.snapshot.trusted
    gone = sorted(
        purpose
        for purpose, generation in stored.credential.authorities.items()
        if generation not in trusted.get(purpose, frozenset())
    )
    if not gone:
        return None
    return Cause(Reason.CA_ROTATED, f"the CA generation that signed it is no longer trusted ({', '.join(gone)})")


def _not_yet_valid(stored: _Stored) -> Cause | None:
    if stored.credential.not_before <= stored.snapshot.now + SKEW:
        return None
    return Cause(Reason.NOT_YET_VALID, f"it begins at {rfc3339(stored.credential.not_before)}, which is yet to come")


def _expiring(stored: _Stored) -> Cause | None:
    due = stored.snapshot.renew_at
    if due is not None and stored.snapshot.now < due and stored.snapshot.now < stored.credential.not_after:
        return None
    return Cause(Reason.EXPIRING, f"it ends at {rfc3339(stored.credential.not_after)}")


CHAIN: Final[tuple[Callable[[_Stored], Cause | None], ...]] = (
    _changed,
    _requested,
    _grant_changed,
    _ca_rotated,
    _not_yet_valid,
    _expiring,
)
"""The checks on a stored credential, in their order."""


def why_issue(snapshot: Snapshot) -> Cause | None:
    """The first reason to issue, or None where the credential in the Secret is good and not due."""
    if snapshot.credential is None:
        return Cause(Reason.SECRET_MISSING, "there is no Secret yet, or it was deleted")
    stored = _Stored(snapshot.credential, snapshot)
    return next((cause for check in CHAIN if (cause := check(stored)) is not None), None)


def is_good(credential: Credential | None, now: datetime) -> bool:
    """Whether the credential in the Secret can be used: whole, and not at its end."""
    return credential is not None and credential.damage is None and now < credential.not_after
