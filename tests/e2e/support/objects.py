"""Our objects as people write them, and kubectl around them. Knows nothing of any one test."""

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from controlplane.cluster import ControlPlane

Json = dict[str, Any]

API: Final = "machinebot.dev/v1alpha1"
OURS: Final = "app.kubernetes.io/managed-by=machinebot"
RENEW: Final = "machinebot.dev/renew"

EVERYWHERE: Final = "everywhere"
"""A role for bots of every namespace, which none of the examples change."""


def role(name: str, namespaces: Iterable[str], **spec: Any) -> Json:
    spec.setdefault("allow", {"logins": ["{{ internal.logins }}"]})
    return {
        "apiVersion": API,
        "kind": "MachineRole",
        "metadata": {"name": name},
        "spec": {"namespaces": list(namespaces), **spec},
    }


def bot(namespace: str, name: str, *roles: str, **spec: Any) -> Json:
    return {
        "apiVersion": API,
        "kind": "MachineBot",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"roles": list(roles), "logins": ["deploy"], **spec},
    }


def output(namespace: str, name: str, bot_name: str, **spec: Any) -> Json:
    return {
        "apiVersion": API,
        "kind": "MachineOutput",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"bot": bot_name, "identity": {}, **spec},
    }


def join_token(namespace: str, name: str, bot_name: str, **spec: Any) -> Json:
    """By GitHub, unless the spec says otherwise."""
    return {
        "apiVersion": API,
        "kind": "MachineJoinToken",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"bot": bot_name, **(spec or {"github": {"allow": [{"repositoryID": "1"}]}})},
    }


def secret(namespace: str, name: str, data: Mapping[str, bytes], **metadata: Any) -> Json:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, **metadata},
        "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
    }


def as_list(objects: Iterable[Json]) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


def create(cluster: ControlPlane, *objects: Json) -> None:
    """One request for each object, and no look at the schema before it: the quickest way for hundreds."""
    cluster.kubectl("create", "--validate=false", "--filename=-", input=as_list(objects))


def get(cluster: ControlPlane, kind: str, namespace: str = "", name: str = "") -> Json:
    """One object; one that is not there is a LookupError, which `eventually` waits over."""
    arguments = [kind, name, "--ignore-not-found", "--output=json"]
    text = cluster.kubectl("get", *arguments, *([f"--namespace={namespace}"] if namespace else []))
    if not text.strip():
        raise LookupError(f"{kind} {namespace}/{name} is not there")
    found: Json = json.loads(text)
    return found


def items(cluster: ControlPlane, kind: str, namespace: str = "", *flags: str) -> list[Json]:
    """All of a kind: of one namespace, or of the cluster."""
    where = f"--namespace={namespace}" if namespace else "--all-namespaces"
    found: list[Json] = json.loads(cluster.kubectl("get", kind, where, "--output=json", *flags))["items"]
    return found


def condition(thing: Json, kind: str = "Ready") -> Json:
    """The condition of that type; empty where there is none."""
    conditions = thing.get("status", {}).get("conditions", [])
    return next((each for each in conditions if each["type"] == kind), {})


def is_ready(thing: Json) -> bool:
    """Whether it is Ready for the generation as it stands."""
    return (
        condition(thing).get("status") == "True" and thing["status"].get("observedGeneration") == thing["metadata"]["generation"]
    )


def content(stored: Json) -> dict[str, bytes]:
    """The data of a Secret."""
    return {key: base64.b64decode(value) for key, value in (stored.get("data") or {}).items()}


def names(things: Iterable[Json]) -> list[str]:
    return sorted(thing["metadata"]["name"] for thing in things)


def wait_ready(cluster: ControlPlane, namespace: str, *things: str, seconds: int = 60) -> None:
    """By `kubectl wait`, as people do: of the named things (`machineoutput/a`), or of all outputs."""
    what = things or ("machineoutputs", "--all")
    cluster.kubectl("wait", "--for=condition=Ready", *what, f"--namespace={namespace}", f"--timeout={seconds}s")


def give_edit(cluster: ControlPlane, user: str, namespace: str, *impersonated: str) -> None:
    """The user gets `edit` in one namespace, and the right to give bots the named roles."""
    cluster.kubectl("create", "rolebinding", f"edit-{user}", "--clusterrole=edit", f"--user={user}", f"--namespace={namespace}")
    if impersonated:
        rule = {
            "apiGroups": ["machinebot.dev"],
            "resources": ["machineroles"],
            "resourceNames": list(impersonated),
            "verbs": ["impersonate"],
        }
        kind = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole"}
        create(cluster, kind | {"metadata": {"name": f"give-{user}"}, "rules": [rule]})
        cluster.kubectl("create", "clusterrolebinding", f"give-{user}", f"--clusterrole=give-{user}", f"--user={user}")
