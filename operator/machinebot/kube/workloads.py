"""Restarts workloads: one merge-patch of the pod template's annotations, which may be sent twice and then changes nothing."""

from collections.abc import Mapping
from typing import Final

from machinebot.kube.client import KubeClient
from machinebot.kube.resources import DAEMON_SETS, DEPLOYMENTS, STATEFUL_SETS, Resource
from machinebot.resources.output import WorkloadKind

ANNOTATION_PREFIX: Final = "restart.machinebot.dev/"
"""Of the one annotation that an output has on a pod template; the fence in the API server lets the operator write no other."""

_RESOURCES: Final[Mapping[WorkloadKind, Resource]] = {
    "Deployment": DEPLOYMENTS,
    "StatefulSet": STATEFUL_SETS,
    "DaemonSet": DAEMON_SETS,
}


class Workloads:
    """Restarts Deployments, StatefulSets and DaemonSets. They are never read: what runs in them is no business of ours."""

    def __init__(self, client: KubeClient) -> None:
        self._client = client

    async def restart(self, kind: WorkloadKind, namespace: str, name: str, *, output_uid: str, serial: str) -> None:
        """Has the pods replaced, by the workload's own strategy, as `kubectl rollout restart` does.

        The annotation names the output and holds the serial: the same restart once more is a patch without a change, and two
        outputs with one workload do not get into each other's way.

        Raises:
            NotFound: There is no such workload.
            Denied, Invalid: The API server refuses.
            Unavailable: It is away, or the workload changes faster than it can be patched.
        """
        annotations = {f"{ANNOTATION_PREFIX}{output_uid}": serial}
        patch = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
        await self._client.patch(_RESOURCES[kind], namespace, name, patch)
