"""How outputs, bots, join tokens and authorities stand: ready, overdue, why not. Pure: a resource and the time in, a word and a
sentence out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from machinebot.cli.tables import Look
from machinebot.clock import parse_rfc3339
from machinebot.joins.registry import JOIN_METHODS
from machinebot.outputs.registry import OUTPUT_TYPES
from machinebot.resources.meta import READY, RENEWING

Json = dict[str, Any]

GRACE: Final = timedelta(minutes=1)
"""How long after its `renewAt` an output is not yet overdue: a renewal takes a moment, and clocks differ."""

READY_WORD: Final = "ready"
PENDING: Final = "pending"
NOT_READY: Final = "not ready"
OVERDUE: Final = "overdue"
EXPIRED: Final = "expired"
RETRYING: Final = "retrying"
DELETING: Final = "deleting"

PROBLEMS: Final = frozenset({NOT_READY, OVERDUE, EXPIRED, RETRYING})
"""Words for what somebody should look at."""

LOOKS: Final[Mapping[str, Look]] = {
    READY_WORD: Look.GOOD,
    PENDING: Look.WARNING,
    DELETING: Look.FAINT,
    RETRYING: Look.WARNING,
    OVERDUE: Look.BAD,
    NOT_READY: Look.BAD,
    EXPIRED: Look.BAD,
}


@dataclass(frozen=True, slots=True)
class Standing:
    """How a resource stands.

    Attributes:
        word: One of the words of this module.
        reason: The reason of the condition behind it; empty where there is none.
        message: Why, for people; empty where all is well.
    """

    word: str
    reason: str = ""
    message: str = ""

    @property
    def is_problem(self) -> bool:
        """Whether somebody should look at it."""
        return self.word in PROBLEMS


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition, as far as it can be read."""

    status: str
    reason: str
    message: str


def condition(body: Mapping[str, Any], kind: str) -> Condition | None:
    """The condition of that type, or None."""
    listed = status_of(body).get("conditions")
    for each in listed if isinstance(listed, list) else ():
        if isinstance(each, dict) and each.get("type") == kind:
            return Condition(*(str(each.get(field) or "") for field in ("status", "reason", "message")))
    return None


def status_of(body: Mapping[str, Any]) -> Json:
    """The status; empty where there is none."""
    status = body.get("status")
    return status if isinstance(status, dict) else {}


def moment(body: Mapping[str, Any], field: str) -> datetime | None:
    """A time of the status. None where there is none, or where somebody else has written something else there."""
    try:
        return parse_rfc3339(status_of(body)[field])
    except (KeyError, TypeError, ValueError):
        return None


# --- outputs ------------------------------------------------------------------------------------------------------------


def _expired(body: Mapping[str, Any], now: datetime) -> Standing | None:
    end = moment(body, "notAfter")
    if end is None or now < end:
        return None
    return _with_trouble(EXPIRED, body, "the credential has ended")


def _not_ready(body: Mapping[str, Any], _now: datetime) -> Standing | None:
    ready = condition(body, READY)
    return None if ready is None or ready.status != "False" else Standing(NOT_READY, ready.reason, ready.message)


def _overdue(body: Mapping[str, Any], now: datetime) -> Standing | None:
    due = moment(body, "renewAt")
    if due is None or now <= due + GRACE:
        return None
    return _with_trouble(
        OVERDUE, body, "it should have been renewed by now, and nothing says why not: does the operator run? machinebot doctor"
    )


def _retrying(body: Mapping[str, Any], _now: datetime) -> Standing | None:
    renewing = condition(body, RENEWING)
    return None if renewing is None or renewing.status != "False" else Standing(RETRYING, renewing.reason, renewing.message)


def _deleting(body: Mapping[str, Any], _now: datetime) -> Standing | None:
    return Standing(DELETING) if body["metadata"].get("deletionTimestamp") else None


def _pending(body: Mapping[str, Any], _now: datetime) -> Standing | None:
    ready = condition(body, READY)
    if ready is None or ready.status != "True":
        return Standing(PENDING, "" if ready is None else ready.reason, "the operator has not looked at it yet")
    if status_of(body).get("observedGeneration") != body["metadata"].get("generation"):
        return Standing(PENDING, ready.reason, "the operator has not looked at the last change yet")
    return None


def _with_trouble(word: str, body: Mapping[str, Any], otherwise: str) -> Standing:
    """The word, with the reason that a condition gives for it."""
    for kind in (RENEWING, READY):
        found = condition(body, kind)
        if found is not None and found.status == "False":
            return Standing(word, found.reason, found.message)
    return Standing(word, "", otherwise)


Rule = Callable[[Mapping[str, Any], datetime], Standing | None]

_OUTPUT: Final[tuple[Rule, ...]] = (_deleting, _expired, _not_ready, _overdue, _retrying, _pending)
"""The first that says something counts: the worst comes first."""

_OTHERS: Final[tuple[Rule, ...]] = (_deleting, _not_ready, _pending)


def of_output(body: Mapping[str, Any], now: datetime) -> Standing:
    """How a MachineOutput stands."""
    return _first(_OUTPUT, body, now)


def of_other(body: Mapping[str, Any], now: datetime) -> Standing:
    """How a MachineBot, a MachineAuthority or a MachineRole stands."""
    return _first(_OTHERS, body, now)


def of_join_token(body: Mapping[str, Any], now: datetime) -> Standing:
    """How a MachineJoinToken stands."""
    end = expires(body)
    if end is not None and end <= now:
        return Standing(EXPIRED, "", "nobody joins by it any more: delete it, or set another spec.expires")
    return _first(_OTHERS, body, now)


def _first(rules: Sequence[Rule], body: Mapping[str, Any], now: datetime) -> Standing:
    found = (rule(body, now) for rule in rules)
    return next((each for each in found if each is not None), Standing(READY_WORD))


def expires(body: Mapping[str, Any]) -> datetime | None:
    """`spec.expires`, or None."""
    try:
        return parse_rfc3339(body["spec"]["expires"])
    except (KeyError, TypeError, ValueError):
        return None


def warnings(body: Mapping[str, Any]) -> tuple[str, ...]:
    """What the status warns of."""
    found = status_of(body).get("warnings")
    return tuple(map(str, found)) if isinstance(found, list) else ()


def type_of(body: Mapping[str, Any]) -> str:
    """Type of an output, from its spec: there before the operator has looked; a dash for none."""
    return next((name for name in OUTPUT_TYPES if name in (body.get("spec") or {})), "-")


def method_of(body: Mapping[str, Any]) -> str:
    """Join method of a join token, from its spec; a dash for none."""
    spec = body.get("spec") or {}
    return next((method.name for field, method in JOIN_METHODS.items() if spec.get(field) is not None), "-")
