"""One round of the agent: looks at every output, asks for what is due, writes what came. Waiting and signals are not here.

What to do follows from the configuration, the files and the time, never from what happened before; what is remembered is only
how often something failed, and what the server told of its CAs last.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

from machinebot.agent.directory import OutputDirectory
from machinebot.agent.membership import Answered, Membership
from machinebot.agent.outputs import Output, Stored, trust_digest
from machinebot.clock import rfc3339
from machinebot.errors import Denied, Invalid, MachinebotError, Unavailable
from machinebot.outputs.keys import PrivateKeyPair
from machinebot.policy import backoff
from machinebot.policy.credential import TrustBundle
from machinebot.policy.decision import Cause, Credential, Reason, Snapshot, is_good, why_issue
from machinebot.policy.lifetimes import renewal_time
from machinebot.protocol import convert
from machinebot.protocol.messages import ASK_WITH_IDENTITY, MAX_OUTPUTS, OutputAnswer, OutputRequest

log = logging.getLogger(__name__)

LOOK: Final = timedelta(seconds=60)
"""Longest pause between two looks at the files: what somebody has deleted or changed is whole again after it."""

SHORTEST: Final = timedelta(seconds=1)
"""Shortest pause between two rounds."""

_NAMES: Final = {
    Reason.SECRET_MISSING: "FilesMissing",
    Reason.SECRET_CHANGED: "FilesChanged",
    Reason.GRANT_CHANGED: "ConfigChanged",
}
"""Reasons to issue that have another name here than in a cluster."""

_PASSING: Final = frozenset({"CAEnding", "CAMissing"})
"""Reasons why the server gave no credential that pass by themselves; all others are refusals."""


@dataclass(frozen=True, slots=True)
class OutputState:
    """One output as it stands, for health and metrics.

    Attributes:
        name: Its name.
        type: Name of its type.
        path: Its directory.
        ready: Whether its files hold a credential that can be used.
        not_before: Begin of the credential, or None.
        not_after: Its end, or None.
        renew_at: When it is replaced, or None.
        reason: Reason of the trouble there is, or empty.
        message: A sentence about it, or empty.
    """

    name: str
    type: str
    path: str
    ready: bool
    not_before: datetime | None
    not_after: datetime | None
    renew_at: datetime | None
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class State:
    """The agent as it stands.

    Attributes:
        namespace: Namespace of the bot.
        at: When it was looked at.
        identity_not_after: When the identity ends, or None where there is none.
        identity_reason: Reason why the last attempt to get one failed, or empty.
        identity_message: A sentence about it, or empty.
        outputs: Every output.
        joins: How many joins, by method and result.
        issues: How many issues, by type, reason and result.
    """

    namespace: str
    at: datetime
    identity_not_after: datetime | None
    identity_reason: str
    identity_message: str
    outputs: tuple[OutputState, ...]
    joins: dict[tuple[str, str], int]
    issues: dict[tuple[str, str, str], int]

    @property
    def ready(self) -> bool:
        """Whether every output has a credential that can be used. One that cannot be replaced is no trouble yet."""
        return all(output.ready for output in self.outputs)


@dataclass(slots=True)
class _Work:
    """One output, and what is known of it."""

    output: Output
    directory: OutputDirectory
    uid: str
    stored: Stored | None = None
    damage: str | None = None
    requested: bool = False
    failures: int = 0
    retry_at: datetime | None = None
    problem: MachinebotError | None = None
    cause: Cause | None = None

    def look(self) -> None:
        """Reads the files."""
        self.stored, self.damage = None, None
        try:
            files = self.directory.read()
            self.stored = None if files is None else self.output.stored(files)
        except Invalid as error:
            self.damage = error.message

    def renew_at(self) -> datetime | None:
        """When the credential is replaced."""
        if self.stored is None:
            return None
        spec, credential = self.output.parsed.spec, self.stored.credential
        return renewal_time(
            not_before=credential.not_before,
            not_after=credential.not_after,
            uid=self.uid,
            renew_before=spec.renew_before_length,
            renew_before_percentage=spec.renew_before_percentage,
        )

    def why(self, trust: TrustBundle | None, now: datetime) -> Cause | None:
        """Why a credential is wanted now, or None."""
        snapshot = Snapshot(
            credential=self._credential(now),
            inputs=self.output.inputs,
            trusted=_trusted(trust, self.stored),
            renew_at=self.renew_at(),
            requested="now" if self.requested else None,
            fulfilled=None,
            now=now,
        )
        cause = why_issue(snapshot)
        if cause is not None:
            return cause
        if trust is not None and self.stored is not None and self.stored.trust != trust_digest(trust):
            return Cause(Reason.CA_ROTATED, "the CAs whose certificates stand in the files are others now")
        return None

    def _credential(self, now: datetime) -> Credential | None:
        if self.stored is not None:
            return self.stored.credential
        return None if self.damage is None else Credential(self.damage, "", {}, now, now)

    def is_due(self, now: datetime) -> bool:
        """Whether a credential is wanted, and no pause after a failure is on."""
        return self.cause is not None and (self.retry_at is None or now >= self.retry_at)

    def failed(self, error: MachinebotError, now: datetime) -> None:
        self.failures += 1
        asked = error.retry_after if isinstance(error, Unavailable) else None
        self.retry_at = backoff.retry_at(self.failures, self.uid, now, asked=asked)
        self.problem = error

    def is_good(self, now: datetime) -> bool:
        return self.stored is not None and is_good(self.stored.credential, now)


@dataclass(frozen=True, slots=True)
class _Asked:
    """One output that is asked for, with the key that is to be certified."""

    work: _Work
    cause: Cause
    key: PrivateKeyPair | None = field(repr=False)

    @property
    def request(self) -> OutputRequest:
        """What the join API is asked for."""
        return self.work.output.request(self.key)


class Agent:
    """Keeps the files of some outputs fresh.

    Args:
        namespace: Namespace of the bot, for metrics.
        membership: How it stands with the join API.
        outputs: The outputs, each with its directory.
        uid: Tells this agent from others, for its share of the spread of renewals.
        joins: How many joins, by method and result: what the membership counts.
    """

    def __init__(
        self,
        namespace: str,
        membership: Membership,
        outputs: Iterable[tuple[Output, OutputDirectory]],
        *,
        uid: str,
        joins: Counter[tuple[str, str]],
    ) -> None:
        self._namespace = namespace
        self._membership = membership
        self._works = [_Work(output, directory, uid=f"{uid}/{output.name}") for output, directory in outputs]
        self._joins = joins
        self._issues: Counter[tuple[str, str, str]] = Counter()
        self._trust: TrustBundle | None = None

    def request(self) -> None:
        """Replaces everything in the next round, whatever the dates: a person has asked for it."""
        self._membership.request()
        for work in self._works:
            work.requested, work.failures, work.retry_at = True, 0, None

    def round(self, now: datetime) -> datetime:
        """Does what is due; returns when the next round is."""
        for work in self._works:
            self._look(work, now)
        waiting = [work for work in self._works if work.is_due(now)]
        if self._membership.is_due(now):
            waiting = self._obtain(waiting, now)
        while waiting and self._membership.usable(now) is not None:
            batch, waiting = waiting[:MAX_OUTPUTS], waiting[MAX_OUTPUTS:]
            self._issue(batch, now)
        return self._next(now)

    def state(self, now: datetime) -> State:
        """How it stands."""
        identity, problem = self._membership.identity, self._membership.problem
        return State(
            namespace=self._namespace,
            at=now,
            identity_not_after=None if identity is None else identity.end,
            identity_reason="" if problem is None else problem.reason,
            identity_message="" if problem is None else problem.message,
            outputs=tuple(_state(work, now) for work in self._works),
            joins=dict(self._joins),
            issues=dict(self._issues),
        )

    @property
    def unfinished(self) -> bool:
        """Whether an output is wanted and was not written."""
        return any(work.cause is not None for work in self._works)

    @property
    def hopeful(self) -> bool:
        """Whether some of what went wrong may pass by itself."""
        problems = [self._membership.problem, *(work.problem for work in self._works if work.cause is not None)]
        return any(problem.retried for problem in problems if problem is not None)

    # --- one round -------------------------------------------------------------------------------------------------------

    def _look(self, work: _Work, now: datetime) -> None:
        try:
            work.look()
        except MachinebotError as error:
            work.cause = Cause(Reason.SECRET_MISSING, "the directory cannot be read")
            if work.retry_at is None or now >= work.retry_at:
                self._failed(work, work.cause, error, now)
            return
        work.cause = work.why(self._trust, now)

    def _obtain(self, waiting: list[_Work], now: datetime) -> list[_Work]:
        """Joins or renews, and takes the first outputs along; returns what is still to be asked for: all, where it failed."""
        asked = self._prepared(waiting[:MAX_OUTPUTS], now)
        try:
            answered = self._membership.obtain([each.request for each in asked], now)
        except MachinebotError:
            # The membership tells of it. An identity that is still good is used meanwhile.
            return [each.work for each in asked] + waiting[MAX_OUTPUTS:]
        later = {name for name, answer in answered.outputs.items() if _is_for_later(answer)}
        self._take([each for each in asked if each.work.output.name not in later], answered, now)
        return [each.work for each in asked if each.work.output.name in later] + waiting[MAX_OUTPUTS:]

    def _issue(self, batch: Sequence[_Work], now: datetime) -> None:
        asked = self._prepared(batch, now)
        if not asked:
            return
        try:
            answered = self._membership.issue([each.request for each in asked], now)
        except MachinebotError as error:
            for each in asked:
                self._failed(each.work, each.cause, error, now)
            return
        self._take(asked, answered, now)

    def _prepared(self, batch: Iterable[_Work], now: datetime) -> list[_Asked]:
        """Those whose files can be written, each with a new key: nothing is issued that could not be kept."""
        asked: list[_Asked] = []
        for work in batch:
            if work.cause is None:
                continue
            try:
                work.directory.check(work.output.files)
            except MachinebotError as error:
                self._failed(work, work.cause, error, now)
                continue
            asked.append(_Asked(work, work.cause, work.output.new_key()))
        return asked

    def _take(self, batch: Sequence[_Asked], answered: Answered, now: datetime) -> None:
        self._trust = answered.trust
        for each in batch:
            try:
                self._write(each, answered.outputs.get(each.work.output.name), answered.trust)
                self._check_written(each.work, now)
            except MachinebotError as error:
                self._failed(each.work, each.cause, error, now)
            except Exception as error:
                # One output that trips us harms no other.
                log.exception("output failed", extra={"output": each.work.output.name})
                self._failed(each.work, each.cause, Unavailable("Crashed", f"something went wrong: {type(error).__name__}"), now)
            else:
                self._issues[each.work.output.type, _name(each.cause), "success"] += 1

    def _check_written(self, work: _Work, now: datetime) -> None:
        """Reads back what was written. What is not good enough to be left alone is tried again with a pause, never at once."""
        work.requested = False
        work.look()
        work.cause = work.why(self._trust, now)
        if work.cause is not None:
            raise Unavailable("NotKept", f"the files that were just written are wanted anew already: {work.cause.message}")
        work.failures, work.retry_at, work.problem = 0, None, None

    def _write(self, asked: _Asked, answer: OutputAnswer | None, trust: TrustBundle) -> None:
        work, output = asked.work, asked.work.output
        if answer is None:
            raise Unavailable("OutputUnanswered", "the server says nothing of this output: is it older than the agent?")
        if answer.credential is None:
            if answer.problem is None:
                raise Unavailable("OutputUnanswered", "the server gives neither a credential nor a reason")
            kind = Unavailable if answer.problem.reason in _PASSING else Denied
            raise kind(answer.problem.reason, answer.problem.message)
        try:
            issued = convert.issued(answer.credential)
        except ValueError as error:
            raise Unavailable("OutputUnanswered", "the credential that came cannot be read") from error
        files, about = output.content(asked.key, issued, trust)
        work.directory.write(issued.serial, files, about)
        log.info(
            "output written",
            extra={
                "output": output.name,
                "type": output.type,
                "reason": _name(asked.cause),
                "serial": str(issued.serial),
                "not_after": rfc3339(issued.not_after),
                "reduced_by": issued.lifetime.reduced_by,
            },
        )

    def _failed(self, work: _Work, cause: Cause, error: MachinebotError, now: datetime) -> None:
        work.failed(error, now)
        self._issues[work.output.type, _name(cause), error.reason] += 1
        good = work.is_good(now)
        log.log(
            logging.WARNING if good else logging.ERROR,
            "output not replaced: the files stay" if good else "output without a credential",
            extra={
                "output": work.output.name,
                "type": work.output.type,
                "reason": error.reason,
                "detail": error.message,
                "retry_at": None if work.retry_at is None else rfc3339(work.retry_at),
            },
        )

    def _next(self, now: datetime) -> datetime:
        moments = [now + LOOK, self._membership.retry_at or self._membership.renew_at()]
        for work in self._works:
            if work.cause is None:
                moments.append(work.renew_at())
            elif self._membership.usable(now) is not None or self._membership.retry_at is None:
                moments.append(work.retry_at or now)
        return max(min(moment for moment in moments if moment is not None), now + SHORTEST)


def _is_for_later(answer: OutputAnswer) -> bool:
    """Whether the output is to be asked for with the identity that came: the answer to an earlier join or renewal was lost."""
    return answer.problem is not None and answer.problem.reason == ASK_WITH_IDENTITY


def _state(work: _Work, now: datetime) -> OutputState:
    credential = None if work.stored is None else work.stored.credential
    return OutputState(
        name=work.output.name,
        type=work.output.type,
        path=str(work.output.directory.path),
        ready=work.is_good(now),
        not_before=None if credential is None else credential.not_before,
        not_after=None if credential is None else credential.not_after,
        renew_at=work.renew_at(),
        reason="" if work.problem is None else work.problem.reason,
        message="" if work.problem is None else work.problem.message,
    )


def _name(cause: Cause) -> str:
    """The reason to issue, for logs and metrics."""
    return _NAMES.get(cause.reason, str(cause.reason))


def _trusted(trust: TrustBundle | None, stored: Stored | None) -> dict[str, frozenset[str]]:
    """Generations that verifiers trust. Before the server has told of them: those that the credential was signed by."""
    if trust is None:
        authorities = {} if stored is None else stored.credential.authorities
        return {purpose: frozenset({generation}) for purpose, generation in authorities.items()}
    found: dict[str, set[str]] = {}
    for anchor in trust.anchors:
        found.setdefault(str(anchor.purpose), set()).add(anchor.id)
    return {purpose: frozenset(generations) for purpose, generations in found.items()}
