"""The Lease that says which replica leads (coordination.k8s.io/v1), as client-go's leader election uses it."""

from dataclasses import dataclass

from machinebot.errors import Conflict, NotFound
from machinebot.kube.client import Json, KubeClient
from machinebot.kube.resources import LEASES


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A Lease as read.

    Attributes:
        holder: Identity of the leader; empty where it was given up.
        renewed: renewTime as text; only compared for being the same, never read as a time (clocks differ).
        transitions: How often the leader changed.
        seconds: leaseDurationSeconds: for how long its holder may be silent.
        resource_version: What a write must be decided on.
    """

    holder: str
    renewed: str
    transitions: int
    seconds: int
    resource_version: str


class Leases:
    """Reads and writes one Lease."""

    def __init__(self, client: KubeClient, namespace: str, name: str) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name

    async def read(self) -> LeaseRecord | None:
        """The Lease, or None where there is none."""
        body = await self._client.get(LEASES, self._namespace, self._name)
        return None if body is None else _record(body)

    async def write(self, old: LeaseRecord | None, *, holder: str, now: str, seconds: int) -> LeaseRecord | None:
        """Takes, renews or gives up the Lease, if it still is as it was read; None where somebody was quicker.

        Args:
            old: What was read, or None to make the Lease.
            holder: New holder; empty to give it up.
            now: RFC 3339 time with microseconds, for people and for telling renewals apart.
            seconds: leaseDurationSeconds.
        """
        transitions = 0 if old is None else old.transitions + (old.holder != holder and bool(holder))
        body: Json = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": seconds,
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }
        try:
            if old is None:
                return _record(await self._client.create(LEASES, self._namespace, body))
            body["metadata"]["resourceVersion"] = old.resource_version
            return _record(await self._client.replace(LEASES, self._namespace, self._name, body))
        except (Conflict, NotFound):
            return None


def _record(body: Json) -> LeaseRecord:
    spec = body.get("spec") or {}
    return LeaseRecord(
        holder=str(spec.get("holderIdentity") or ""),
        renewed=str(spec.get("renewTime") or ""),
        transitions=int(spec.get("leaseTransitions") or 0),
        seconds=int(spec.get("leaseDurationSeconds") or 0),
        resource_version=str(body["metadata"]["resourceVersion"]),
    )
