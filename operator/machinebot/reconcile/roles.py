"""Says of each role whether it can be used."""

from datetime import datetime

from machinebot.clock import Clock, rfc3339
from machinebot.errors import MachinebotError
from machinebot.kube.client import KubeClient
from machinebot.policy import grants
from machinebot.reconcile.keys import Key
from machinebot.reconcile.status import StatusWriter
from machinebot.reconcile.world import World
from machinebot.resources.meta import READY, ConditionStatus, Status, with_condition


class RoleReconciler:
    """Reconciles MachineRoles."""

    def __init__(self, client: KubeClient, world: World, clock: Clock) -> None:
        self._world = world
        self._clock = clock
        self._status = StatusWriter(client, world)

    async def reconcile(self, key: Key) -> datetime | None:
        """Writes the role's status where it does not say so yet.

        Raises:
            Unavailable: Status could not be written.
        """
        entry, role = self._world.entry(key), self._world.roles().get(key.name)
        if entry is None or role is None:
            return None
        status: ConditionStatus = "True"
        reason, message = "Usable", "bots of its namespaces can use it"
        if not role.spec.namespaces:
            reason, message = "NobodyMayUseIt", "spec.namespaces is empty, so that no bot can use it: name namespaces there"
        try:
            grants.check_role(role)
        except MachinebotError as error:
            status, reason, message = "False", error.reason, error.message
        conditions = with_condition(
            role.status.conditions,
            kind=READY,
            status=status,
            reason=reason,
            message=message,
            generation=entry.generation,
            now=rfc3339(self._clock.now()),
        )
        new = Status(observed_generation=entry.generation, conditions=conditions)
        await self._status.write(key, entry.version, role.status, new)
        return None
