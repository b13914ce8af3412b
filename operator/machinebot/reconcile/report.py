"""Says in an output's status, in an event and in the log what was done, refused or failed."""

import logging
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from machinebot.clock import Clock, parse_rfc3339, rfc3339
from machinebot.errors import MachinebotError, Unavailable
from machinebot.kube.client import KubeClient
from machinebot.kube.events import EventRecorder, Subject
from machinebot.outputs.registry import MachineOutput
from machinebot.policy import backoff, grants
from machinebot.policy.decision import Cause, is_good
from machinebot.policy.grants import MAX_WARNINGS
from machinebot.policy.names import NAME_RULES, NameKind
from machinebot.reconcile.holding import Holding, Terms, granted, renew_at
from machinebot.reconcile.keys import Key
from machinebot.reconcile.restarts import Restarted
from machinebot.reconcile.status import StatusWriter, unreadable
from machinebot.reconcile.world import Entry, World
from machinebot.resources.meta import (
    READY,
    RENEWING,
    Condition,
    ConditionStatus,
    format_duration,
    with_condition,
    without_condition,
)
from machinebot.resources.output import Granted, GrantedName, MachineOutputStatus, SecretStatus

if TYPE_CHECKING:
    from machinebot.reconcile.outputs import Target

log = logging.getLogger(__name__)


class Reporter:
    """Reports on outputs."""

    def __init__(self, client: KubeClient, world: World, events: EventRecorder, clock: Clock) -> None:
        self._status = StatusWriter(client, world)
        self._world = world
        self._events = events
        self._clock = clock

    async def issued(self, target: "Target", held: Holding, cause: Cause, restarted: Restarted) -> datetime:
        """A credential was issued and stored."""
        credential, carried = held.certain, _terms(target, held).granted
        renew, end = rfc3339(renew_at(target.output, credential)), rfc3339(credential.not_after)
        note = f"{cause.reason}: {cause.message}; issued serial {held.serial}, valid until {end}, renewed at {renew}"
        self._event(target.output, "Normal", "Issued", note)
        log.info(
            "issued",
            extra={
                "output": target.key.name,
                "namespace": target.key.namespace,
                "bot": target.bot.metadata.name,
                "type": target.output.type.name,
                "reason": str(cause.reason),
                "serial": held.serial,
                "not_after": end,
                "renew_at": renew,
                "roles": list(carried.roles),
                "names": {kind: names for kind in NameKind if (names := _plain(carried, kind))},
            },
        )
        return await self.settled(target, held, restarted)

    async def settled(self, target: "Target", held: Holding, restarted: Restarted) -> datetime:
        """The credential in the Secret is good and not due: status is made to say so, where it does not.

        Returns:
            When the output is to be looked at again.
        """
        output, now, credential = target.output, self._clock.now(), held.certain
        await self._status.write(target.key, target.version, output.status, self._good(target, held, restarted))
        renew = renew_at(output, credential)
        return renew if now < renew else credential.not_after

    async def refused(self, key: Key, version: str, output: MachineOutput, held: Holding, refusal: MachinebotError) -> None:
        """The output cannot be fulfilled as it stands; what is in the Secret is left there until it ends."""
        status = output.status if held.credential is not None else _emptied(output)
        conditions = without_condition(status.conditions, RENEWING)
        conditions = self._condition(conditions, output, READY, "False", refusal.reason, refusal.message)
        new = status.model_copy(
            update={
                "observed_generation": output.metadata.generation,
                "conditions": conditions,
                "type": output.type.name,
                "failed_attempts": 0,
                "retry_at": None,
            }
        )
        if await self._status.write(key, version, output.status, new):
            self._event(output, "Warning", refusal.reason, refusal.message)
            log.warning("refused", extra={"output": str(key), "reason": refusal.reason, "detail": refusal.message})

    async def trouble(
        self,
        key: Key,
        version: str,
        output: MachineOutput,
        held: Holding,
        error: Unavailable,
        *,
        target: "Target | None" = None,
    ) -> datetime | None:
        """Something outside is away: counted in status, so that a restart does not forget it; the Secret stays.

        Returns:
            When to try again.
        """
        now = self._clock.now()
        if target is None and (waiting := self.waits(output, now)) is not None:
            return waiting
        counted = error.reason not in backoff.NOT_COUNTED
        failures = output.status.failed_attempts + counted
        retry = backoff.retry_at(failures, output.metadata.uid, now, asked=error.retry_after) if counted else None
        good = is_good(held.credential, now)
        conditions = output.status.conditions
        if good:
            conditions = self._condition(conditions, output, RENEWING, "False", error.reason, error.message)
        elif held.credential is not None or output.status.secret is None:
            conditions = self._condition(conditions, output, READY, "False", error.reason, error.message)
        new = output.status.model_copy(
            update={
                "observed_generation": output.metadata.generation,
                "conditions": conditions,
                "type": output.type.name,
                "failed_attempts": failures,
                "retry_at": None if retry is None else rfc3339(retry),
            }
        )
        await self._status.write(key, version, output.status, new)
        self._event(output, "Warning", error.reason, error.message)
        log.warning("trouble", extra={"output": str(key), "reason": error.reason, "detail": error.message, "failures": failures})
        return retry

    async def unreadable(self, key: Key, entry: Entry, error: MachinebotError) -> None:
        """The stored object does not fit the schema any more."""
        await unreadable(self._status, key, entry, error, self._clock.now())
        log.warning("unreadable", extra={"output": str(key), "reason": error.reason, "detail": error.message})

    def waits(self, output: MachineOutput, now: datetime) -> datetime | None:
        """When the next attempt is due, where a failed one is being waited out; None where nothing stands in the way.

        A changed spec is tried at once.
        """
        status = output.status
        if status.retry_at is None or status.observed_generation != output.metadata.generation:
            return None
        due = parse_rfc3339(status.retry_at)
        longest = backoff.pause(status.failed_attempts, output.metadata.uid) * 2
        if now >= due or due - now > longest:  # further off than any pause: the clock was set back
            return None
        return due

    def _good(self, target: "Target", held: Holding, restarted: Restarted) -> MachineOutputStatus:
        output, credential = target.output, held.certain
        renew = rfc3339(renew_at(output, credential))
        message = f"valid until {rfc3339(credential.not_after)}, renewed at {renew}"
        conditions = without_condition(output.status.conditions, RENEWING)
        terms = _terms(target, held)
        # Roles of another cluster are not those of the same name here.
        roles = {} if target.plan is None else self._world.roles()
        warnings = grants.warnings(target.key.namespace, target.bot.spec, roles)
        return MachineOutputStatus(
            observed_generation=output.metadata.generation,
            conditions=self._condition(conditions, output, READY, "True", "Issued", message),
            type=output.type.name,
            secret=_secret_status(output, held),
            serial=held.serial,
            inputs=credential.inputs,
            authorities={str(purpose): generation for purpose, generation in credential.authorities.items()},
            not_before=rfc3339(credential.not_before),
            not_after=rfc3339(credential.not_after),
            renew_at=renew,
            ttl=format_duration(credential.not_after - credential.not_before),
            ttl_reduced_by=terms.reduced_by,
            restarted_for=restarted.serial,
            issue_reason=held.reason,
            renew_token=held.fulfilled,
            granted=terms.granted,
            warnings=(*restarted.warnings, *warnings)[:MAX_WARNINGS],
        )

    def _condition(
        self,
        conditions: tuple[Condition, ...],
        output: MachineOutput,
        kind: str,
        status: ConditionStatus,
        reason: str,
        message: str,
    ) -> tuple[Condition, ...]:
        return with_condition(
            conditions,
            kind=kind,
            status=status,
            reason=reason,
            message=message,
            generation=output.metadata.generation,
            now=rfc3339(self._clock.now()),
        )

    def _event(self, output: MachineOutput, kind: Literal["Normal", "Warning"], reason: str, note: str) -> None:
        metadata = output.metadata
        subject = Subject("MachineOutput", metadata.namespace, metadata.name, metadata.uid, metadata.resource_version)
        self._events.record(subject, kind, reason, note, action="Issue")


def _secret_status(output: MachineOutput, held: Holding) -> SecretStatus:
    """As it was written; a version that another controller's label moved is no reason for a write of ours."""
    old = output.status.secret
    same = old is not None and (old.name, old.digest, output.status.serial) == (output.secret_name, held.digest, held.serial)
    if old is not None and same:
        return old
    return SecretStatus(name=output.secret_name, resource_version=held.version, digest=held.digest)


def _emptied(output: MachineOutput) -> MachineOutputStatus:
    """Status without a credential. A Secret of an earlier name is remembered: it must still be deleted; and so is what the
    workloads run with: the next credential is a rotation for them.
    """
    status = output.status
    running = (status.restarted_for or status.serial) if output.spec.rollout_restart else None
    earlier = status.secret if status.secret is not None and status.secret.name != output.secret_name else None
    return MachineOutputStatus(
        observed_generation=status.observed_generation, conditions=status.conditions, secret=earlier, restarted_for=running
    )


def _terms(target: "Target", held: Holding) -> Terms:
    """What the credential gives: worked out from the roles, or as it was kept where these are not here."""
    if target.plan is None:
        return held.terms
    shortened = held.certain.not_after - held.certain.not_before < target.plan.lifetime.length
    reduced_by = "the remaining life of the CA" if shortened else target.plan.lifetime.reduced_by
    return Terms(granted=granted(target.plan.grant), reduced_by=reduced_by)


def _plain(carried: Granted, kind: NameKind) -> list[str]:
    """The names of that kind, each once, sorted."""
    names: tuple[GrantedName, ...] = getattr(carried, NAME_RULES[kind].field)
    return sorted({each.name for each in names})
