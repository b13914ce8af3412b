"""Restarts the workloads of an output once after each rotation, and never for any other reason.

What to do follows from the serial in the Secret and what status remembers. A first issue restarts nothing, and neither does an
older credential that somebody put back. The workloads are patched before status says so: a crash in between repeats a patch
that changes nothing any more.
"""

import asyncio
import logging
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from machinebot.clock import Clock, parse_rfc3339
from machinebot.errors import LeadershipLost, MachinebotError, NotFound
from machinebot.kube.events import EventRecorder, Subject
from machinebot.kube.workloads import Workloads
from machinebot.outputs.registry import MachineOutput
from machinebot.policy import backoff
from machinebot.reconcile.holding import Holding
from machinebot.reconcile.keys import Key
from machinebot.resources.output import KIND, Workload

log = logging.getLogger(__name__)

MISSING: Final = "WorkloadMissing"
FAILED: Final = "RestartFailed"
"""Reasons, in status.warnings and in events."""

MAX_DETAIL: Final = 256
"""Most of what the API server said that a warning repeats, characters."""


@dataclass(frozen=True, slots=True)
class Restarted:
    """How far the restarts are.

    Attributes:
        serial: For status.restartedFor: the serial that every workload was restarted for; None without workloads.
        warnings: What went wrong, for status.warnings.
        again: When to try again what failed, or None.
    """

    serial: str | None
    warnings: tuple[str, ...] = ()
    again: datetime | None = None


@dataclass(frozen=True, slots=True)
class _Waiting:
    """Restarts for a serial of which some failed: what is left of them, and what is to be said until then."""

    serial: str
    wanted: tuple[Workload, ...]
    left: tuple[Workload, ...]
    failures: int
    outcome: Restarted


class Restarts:
    """Restarts workloads after rotations. What failed is remembered in memory only: after a restart it is tried at once."""

    def __init__(self, workloads: Workloads, events: EventRecorder, clock: Clock) -> None:
        self._workloads = workloads
        self._events = events
        self._clock = clock
        self._waiting: dict[Key, _Waiting] = {}

    def forget(self, key: Key) -> None:
        """The output is gone."""
        self._waiting.pop(key, None)

    async def follow(self, key: Key, output: MachineOutput, held: Holding) -> Restarted:
        """Restarts what has to be restarted for the credential in the Secret, and says what status is to tell.

        A workload that is missing is passed over: it starts with the credential as it is then.

        Raises:
            LeadershipLost: This process may no longer write.
        """
        wanted = output.spec.rollout_restart
        if not wanted or not rotated(output, held):
            self._waiting.pop(key, None)
            return Restarted(held.serial, _missed_before(output)) if wanted else Restarted(None)
        waiting = self._waiting.get(key)
        if waiting is not None and (waiting.serial, waiting.wanted) == (held.serial, wanted):
            if waiting.outcome.again is not None and self._clock.now() < waiting.outcome.again:
                return waiting.outcome
            return await self._restart(key, output, waiting)
        return await self._restart(key, output, _Waiting(held.serial, wanted, wanted, 0, Restarted(None)))

    async def _restart(self, key: Key, output: MachineOutput, waiting: _Waiting) -> Restarted:
        """Patches what is left; all at once, so that one that hangs delays the status by no more than itself."""
        errors = await asyncio.gather(*(self._patch(output, workload, waiting.serial) for workload in waiting.left))
        met = dict(zip(waiting.left, errors, strict=True))
        missing = [_missing(workload) for workload, error in met.items() if isinstance(error, NotFound)]
        failed = {workload: error for workload, error in met.items() if error is not None and not isinstance(error, NotFound)}
        trouble = [_failed(workload, error) for workload, error in failed.items()]
        self._tell(output, MISSING, missing)
        self._tell(output, FAILED, [text for text in trouble if text not in waiting.outcome.warnings])
        kept = [text for text in waiting.outcome.warnings if text.startswith(MISSING)]
        warnings = (*kept, *missing, *trouble)
        if not failed:
            self._waiting.pop(key, None)
            return Restarted(waiting.serial, warnings)
        failures = waiting.failures + 1
        again = backoff.retry_at(failures, output.metadata.uid, self._clock.now())
        outcome = Restarted(_known(output), warnings, again)
        self._waiting[key] = _Waiting(waiting.serial, waiting.wanted, tuple(failed), failures, outcome)
        return outcome

    async def _patch(self, output: MachineOutput, workload: Workload, serial: str) -> MachinebotError | None:
        """One restart; returns what it failed with."""
        namespace, uid = output.metadata.namespace, output.metadata.uid
        told = {"output": output.metadata.name, "namespace": namespace, "workload": f"{workload.kind}/{workload.name}"}
        try:
            await self._workloads.restart(workload.kind, namespace, workload.name, output_uid=uid, serial=serial)
        except LeadershipLost:
            raise
        except MachinebotError as error:
            log.warning("workload not restarted", extra={**told, "reason": error.reason, "detail": error.message})
            return error
        log.info("workload restarted", extra={**told, "serial": serial})
        return None

    def _tell(self, output: MachineOutput, reason: str, texts: list[str]) -> None:
        if texts:
            metadata = output.metadata
            subject = Subject(KIND.kind, metadata.namespace, metadata.name, metadata.uid, metadata.resource_version)
            self._events.record(subject, "Warning", reason, "; ".join(texts), action="Restart")


def rotated(output: MachineOutput, held: Holding) -> bool:
    """Whether the credential in the Secret has followed another one that the workloads were not yet restarted after.

    Where `rolloutRestart` is new, what status says of the Secret stands for it. Without either it is the first issue, or status
    was lost. A credential older than the one that status tells of was put back from a backup: what runs has a newer one.
    """
    known = _known(output)
    if known is None or known == held.serial:
        return False
    told = output.status
    if told.serial == held.serial or told.not_before is None:
        return True
    return held.certain.not_before >= parse_rfc3339(told.not_before)


def _known(output: MachineOutput) -> str | None:
    """The serial that the workloads run with, as far as status knows."""
    return output.status.restarted_for or output.status.serial


def _missed_before(output: MachineOutput) -> tuple[str, ...]:
    """Warnings of workloads that were missing at the last rotation: they stand until the next one."""
    texts = (_missing(workload) for workload in output.spec.rollout_restart)
    return tuple(text for text in texts if text in output.status.warnings)


def _missing(workload: Workload) -> str:
    return (
        f"{MISSING}: there was no {workload.kind} {workload.name!r} to be restarted at the last rotation: correct "
        "spec.rolloutRestart, or create it; it starts with the credential as it is then"
    )


def _failed(workload: Workload, error: MachinebotError) -> str:
    detail = f"{error.reason}: {error.message}"[:MAX_DETAIL]
    return (
        f"{FAILED}: the {workload.kind} {workload.name!r} was not restarted and is tried again, while what runs in it may hold "
        f"the credential before ({detail})"
    )
