"""What the kubelet would make of the chart's Deployment: command line and environment of its container. Pure, but for `read`."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from controlplane.cluster import ControlPlane

ENTRYPOINT: Final = ("machinebot",)
"""ENTRYPOINT of the Dockerfile: what runs where the container states no `command`."""

POD_ADDRESS: Final = "127.0.0.1"
"""What the field status.podIP says: every "pod" is a process on loopback."""

_REFERENCE: Final = re.compile(r"\$(\$|\((?P<name>[^)]*)\))")
"""`$(NAME)`, or `$$` for one dollar sign."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """What the fields of a pod say, for the container's environment.

    Attributes:
        name: Name of the pod; the operator takes it for its identity, so that two replicas need two.
        namespace: Namespace of the Deployment.
        service_account: Name of the ServiceAccount that it runs as.
        labels: Labels of the pod template.
        annotations: Annotations of the pod template.
    """

    name: str
    namespace: str
    service_account: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]

    def field(self, path: str) -> str:
        """The value of a `fieldRef`.

        Raises:
            ValueError: a field that has no value without a node.
        """
        plain = {
            "metadata.name": self.name,
            "metadata.namespace": self.namespace,
            "spec.serviceAccountName": self.service_account,
            "status.podIP": POD_ADDRESS,
            "status.podIPs": POD_ADDRESS,
        }
        if path in plain:
            return plain[path]
        for prefix, entries in (("metadata.labels", self.labels), ("metadata.annotations", self.annotations)):
            if match := re.fullmatch(rf"{re.escape(prefix)}\['(?P<key>[^']+)'\]", path):
                return entries.get(match["key"], "")
        raise ValueError(f"the field {path} has no value without a kubelet")


@dataclass(frozen=True, slots=True)
class Container:
    """A container as it would be started.

    Attributes:
        pod: The pod that it is in.
        arguments: Its whole command line, the program first.
        environment: Its environment variables, as the Deployment states them.
        grace_seconds: From SIGTERM to SIGKILL.
    """

    pod: Pod
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    grace_seconds: float


def read(cluster: ControlPlane, namespace: str, name: str, *, pod_name: str) -> Container:
    """The one container of a Deployment on the API server, in a pod of the given name.

    Raises:
        controlplane.cluster.KubectlError: there is no such Deployment.
        ValueError: see `resolve`.
    """
    text = cluster.kubectl("get", "deployment", name, f"--namespace={namespace}", "--output=json")
    return resolve(json.loads(text), pod_name=pod_name)


def resolve(deployment: Mapping[str, Any], *, pod_name: str) -> Container:
    """The one container of a Deployment, with its fields filled in and `$(NAME)` expanded as the kubelet does it.

    Raises:
        ValueError: there is not exactly one container, or its environment needs more than the pod's own fields.
    """
    template = deployment["spec"]["template"]
    spec = template["spec"]
    if len(spec["containers"]) != 1:
        raise ValueError(f"one container was expected, not {len(spec['containers'])}")
    container = spec["containers"][0]
    pod = Pod(
        name=pod_name,
        namespace=deployment["metadata"]["namespace"],
        service_account=spec.get("serviceAccountName", "default"),
        labels=template["metadata"].get("labels", {}),
        annotations=template["metadata"].get("annotations", {}),
    )
    environment = _environment(container, pod)
    words = [*container.get("command", ENTRYPOINT), *container.get("args", [])]
    arguments = tuple(expand(word, environment) for word in words)
    return Container(pod, arguments, environment, float(spec.get("terminationGracePeriodSeconds", 30)))


def _environment(container: Mapping[str, Any], pod: Pod) -> dict[str, str]:
    """The variables in their order: each may refer to those above it."""
    if container.get("envFrom"):
        raise ValueError("envFrom is not supported: state each variable")
    environment: dict[str, str] = {}
    for entry in container.get("env", []):
        source = entry.get("valueFrom")
        if source is None:
            environment[entry["name"]] = expand(entry.get("value", ""), environment)
        elif "fieldRef" in source:
            environment[entry["name"]] = pod.field(source["fieldRef"]["fieldPath"])
        else:
            raise ValueError(f"{entry['name']} is taken from {', '.join(source)}, which is not supported")
    return environment


def expand(text: str, environment: Mapping[str, str]) -> str:
    """`$(NAME)` replaced where the name is known and left as it stands where not; `$$` becomes `$`."""

    def value(match: re.Match[str]) -> str:
        name = match["name"]
        return "$" if name is None else environment.get(name, match[0])

    return _REFERENCE.sub(value, text)


def with_flag(arguments: Sequence[str], flag: str, value: str) -> tuple[str, ...]:
    """The command line with one `--flag=value` or `--flag value` replaced, or added where it is not there."""
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        if word == flag:
            next(words, None)
        elif not word.startswith(f"{flag}="):
            kept.append(word)
    return (*kept, f"{flag}={value}")
