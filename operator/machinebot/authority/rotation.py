"""When one generation of a CA follows another: a pure state machine with three states, after SPIRE's slots.

    PREPARED (published, not signing)  ->  ACTIVE (signing)  ->  OLD (trusted, not signing)  ->  gone

What always holds, whatever the clock does:

1. After `advance` exactly one generation is ACTIVE.
2. A generation is published for `overlap` before it signs. Only the first one, and the heir of one whose certificates verify
   nowhere any more, sign at once: there waiting would protect nobody.
3. An OLD generation stays for `overlap` after it was superseded, or until it ends. No credential lives for that long.
4. At most one generation is PREPARED and at most `MAX_OLD` are OLD.
5. A clock that steps back delays a step at most; it undoes none. What was made while the clock was far ahead is replaced.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from machinebot.authority.generations import CA_BACKDATE, Generation, Schedule, new_generation
from machinebot.policy.credential import AnchorState, Purpose
from machinebot.resources.authority import KeyAlgorithm, Rotation

LAST_CALL: Final = timedelta(hours=1)
"""A generation that ends sooner counts as ended: what it signed could not be replaced in time."""

MAX_OLD: Final = 6
"""Most OLD generations of one CA, eight with the others: the status of an authority has room for 64 in all. A right clock
makes one at a time."""

_ORDER: Final = (AnchorState.ACTIVE, AnchorState.PREPARED, AnchorState.OLD)


@dataclass(frozen=True, slots=True)
class Prepare:
    """Make and publish a generation."""


@dataclass(frozen=True, slots=True)
class Activate:
    """Let the PREPARED generation sign, and the ACTIVE one be OLD."""

    id: str


@dataclass(frozen=True, slots=True)
class Retire:
    """Forget a generation."""

    id: str


Step = Prepare | Activate | Retire


def next_step(generations: Sequence[Generation], now: datetime, rotation: Rotation) -> Step | None:
    """The next thing to do with the generations of one CA, or None.

    Raises:
        Invalid: The rotation is unreadable.
    """
    schedule = Schedule.of(rotation)
    return next((step for rule in _RULES if (step := rule(generations, now, schedule)) is not None), None)


def advance(
    generations: Sequence[Generation],
    now: datetime,
    *,
    purpose: Purpose,
    algorithm: KeyAlgorithm,
    cluster_name: str,
    rotation: Rotation,
) -> tuple[Generation, ...]:
    """The generations after every step that is due: the active one first, then the prepared one, then old ones, newest first.

    An equal result means that there is nothing to store. With RSA-4096 it may take some seconds and belongs into a thread.

    Args:
        generations: As they stand; none makes the first.
        now: The time.
        purpose: Of the CA.
        algorithm: `embedded.keyAlgorithm`, for new ones.
        cluster_name: `clusterName`, for new ones.
        rotation: `embedded.rotation`.

    Raises:
        Invalid: The rotation is unreadable.
    """
    now = now.replace(microsecond=0)
    current = tuple(generations)
    while (step := next_step(current, now, rotation)) is not None:
        if isinstance(step, Prepare):
            new = new_generation(purpose, algorithm=algorithm, cluster_name=cluster_name, rotation=rotation, now=now)
            current = (*current, new)
        elif isinstance(step, Activate):
            current = tuple(_activated(generation, step.id, now) for generation in current)
        else:
            current = tuple(generation for generation in current if generation.id != step.id)
    return in_order(current)


def in_order(generations: Sequence[Generation]) -> tuple[Generation, ...]:
    """The active generation first, then the prepared one, then old ones, newest first."""
    return tuple(sorted(generations, key=lambda each: (_ORDER.index(each.state), -each.created_at.timestamp(), each.id)))


def active(generations: Sequence[Generation]) -> Generation | None:
    """The generation that signs."""
    return next((generation for generation in generations if generation.state is AnchorState.ACTIVE), None)


def _activated(generation: Generation, chosen: str, now: datetime) -> Generation:
    if generation.id == chosen:
        return replace(generation, state=AnchorState.ACTIVE, activated_at=now)
    if generation.state is AnchorState.ACTIVE:
        return replace(generation, state=AnchorState.OLD, superseded_at=now)
    return generation


def _prepared(generations: Sequence[Generation]) -> Generation | None:
    return next((generation for generation in generations if generation.state is AnchorState.PREPARED), None)


def _old(generations: Sequence[Generation]) -> list[Generation]:
    return [generation for generation in generations if generation.state is AnchorState.OLD]


def _begun(generation: Generation, now: datetime) -> bool:
    return generation.created_at - CA_BACKDATE <= now


def _ended(generation: Generation, now: datetime) -> bool:
    return generation.not_after - LAST_CALL <= now


def _signs_nothing_good(generation: Generation, now: datetime) -> bool:
    """Whether what it signs verifies nowhere. An SSH key has no dates of its own, so that it is good before it was made."""
    return _ended(generation, now) or not (_begun(generation, now) or generation.purpose.is_ssh)


# --- rules --------------------------------------------------------------------------------------------------------


def _retire_old(generations: Sequence[Generation], now: datetime, schedule: Schedule) -> Step | None:
    for generation in _old(generations):
        superseded = generation.superseded_at or generation.created_at
        if superseded + schedule.overlap <= now or generation.not_after <= now:
            return Retire(generation.id)
    return None


def _retire_surplus(generations: Sequence[Generation], _now: datetime, _schedule: Schedule) -> Step | None:
    old = in_order(_old(generations))
    return Retire(old[-1].id) if len(old) > MAX_OLD else None


def _retire_unusable(generations: Sequence[Generation], now: datetime, _schedule: Schedule) -> Step | None:
    prepared = _prepared(generations)
    if prepared is None or (_begun(prepared, now) and not _ended(prepared, now)):
        return None
    return Retire(prepared.id)


def _activate(generations: Sequence[Generation], now: datetime, schedule: Schedule) -> Step | None:
    prepared, current = _prepared(generations), active(generations)
    if prepared is None:
        return None
    at_once = current is None or _signs_nothing_good(current, now)
    return Activate(prepared.id) if at_once or prepared.created_at + schedule.overlap <= now else None


def _prepare(generations: Sequence[Generation], now: datetime, schedule: Schedule) -> Step | None:
    if _prepared(generations) is not None:
        return None
    current = active(generations)
    return Prepare() if current is None or _due(current, now, schedule) else None


def _due(current: Generation, now: datetime, schedule: Schedule) -> bool:
    """Whether an heir must be published: it then signs `overlap` later, and the current one is trusted for `overlap` more."""
    by_rotation = (current.activated_at or current.created_at) + schedule.every - schedule.overlap
    by_its_end = current.not_after - 2 * schedule.overlap
    return now >= min(by_rotation, by_its_end) or not _begun(current, now)


_RULES: Final[tuple[Callable[[Sequence[Generation], datetime, Schedule], Step | None], ...]] = (
    _retire_old,
    _retire_surplus,
    _retire_unusable,
    _activate,
    _prepare,
)
"""The first that applies says the next step. Retiring comes first, so that nothing useless is activated."""
