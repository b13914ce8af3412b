"""Objects as the API server sends them, in few words."""

from collections.abc import Mapping
from typing import Any

from machinebot.kube.resources import AUTHORITIES, BOTS, JOIN_TOKENS, LOCKS, MANAGED_BY, MANAGED_BY_LABEL, OUTPUTS, ROLES
from machinebot.outputs.registry import MachineOutput, parse_output
from machinebot.reconcile.keys import Due, Key, Sort
from machinebot.reconcile.world import World

Json = dict[str, Any]
RESOURCE = {
    Sort.AUTHORITY: AUTHORITIES,
    Sort.ROLE: ROLES,
    Sort.LOCK: LOCKS,
    Sort.BOT: BOTS,
    Sort.OUTPUT: OUTPUTS,
    Sort.JOIN_TOKEN: JOIN_TOKENS,
}
CLUSTER_WIDE = (Sort.ROLE, Sort.AUTHORITY, Sort.LOCK)


def body(
    sort: Sort,
    name: str,
    spec: Mapping[str, Any],
    *,
    version: int | str = 1,
    generation: int = 1,
    uid: str | None = None,
    status: Mapping[str, Any] | None = None,
    **metadata: Any,
) -> Json:
    namespaced = {} if sort in CLUSTER_WIDE else {"namespace": "ci"}
    return {
        "metadata": {
            "name": name,
            "uid": uid or f"{sort.lower()}-{name}",
            "resourceVersion": str(version),
            "generation": generation,
            **namespaced,
            **metadata,
        },
        "spec": dict(spec),
        "status": dict(status or {}),
    }


def output(name: str = "out", bot: str = "deployer", *, spec: Mapping[str, Any] | None = None, **fields: Any) -> Json:
    return body(Sort.OUTPUT, name, {"bot": bot, "identity": {}, **(spec or {})}, **fields)


def bot(name: str = "deployer", *roles: str, **fields: Any) -> Json:
    return body(Sort.BOT, name, {"roles": list(roles or ("access",))}, **fields)


def role(name: str = "access", **fields: Any) -> Json:
    return body(Sort.ROLE, name, {"namespaces": ["ci"], "allow": {"logins": ["deploy"]}}, **fields)


def authority(name: str = "default", **fields: Any) -> Json:
    return body(Sort.AUTHORITY, name, {"clusterName": "example.test", "embedded": {}}, **fields)


def lock(
    name: str = "leak", target: Mapping[str, Any] | None = None, *, spec: Mapping[str, Any] | None = None, **fields: Any
) -> Json:
    """Of the bot `deployer`, unless another target is given."""
    about = target or {"bot": {"namespace": "ci", "name": "deployer"}}
    return body(Sort.LOCK, name, {"target": about, **(spec or {})}, **fields)


def join_token(name: str = "ci", bot: str = "deployer", *, spec: Mapping[str, Any] | None = None, **fields: Any) -> Json:
    """By GitHub, unless the spec says otherwise."""
    return body(Sort.JOIN_TOKEN, name, {"bot": bot, **(spec or {"github": {"allow": [{"repositoryID": "1"}]}})}, **fields)


def metadata_only(
    name: str,
    *,
    namespace: str = "ci",
    uid: str | None = None,
    version: int | str = 1,
    managed: bool = True,
    owner: tuple[str, str, str] | None = None,
    labels: Mapping[str, str] | None = None,
) -> Json:
    """A Secret or ServiceAccount, metadata alone; the owner as kind, name and UID."""
    all_labels = {**({MANAGED_BY_LABEL: MANAGED_BY} if managed else {}), **(labels or {})}
    metadata: Json = {
        "namespace": namespace,
        "name": name,
        "uid": uid or f"uid-{name}",
        "resourceVersion": str(version),
    }
    if all_labels:
        metadata["labels"] = all_labels
    if owner is not None:
        kind, owner_name, owner_uid = owner
        metadata["ownerReferences"] = [{"kind": kind, "name": owner_name, "uid": owner_uid, "controller": True}]
    return {"metadata": metadata}


def see(world: World, sort: Sort, document: Json, *, gone: bool = False) -> list[Due]:
    return world.observe(RESOURCE[sort], document, gone=gone)


def told(dues: list[Due]) -> set[str]:
    """Whom it concerns, as text; with the seconds where they are not none."""
    texts = [f"{due.key}" if due.delay == 0 else f"{due.key} in {due.delay:g} s" for due in dues]
    assert len(texts) == len(set(texts)), texts
    return set(texts)


def key(sort: Sort, name: str) -> Key:
    return Key(sort, "" if sort in CLUSTER_WIDE else "ci", name)


def parsed(**fields: Any) -> MachineOutput:
    return parse_output(output(**fields))
