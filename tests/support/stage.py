"""What the tests of the controller stand on: the chart on a control plane, an authority, and a namespace for each test."""

import contextlib
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from machinebot.outputs.registry import OUTPUT_TYPES
from machinebot.policy.credential import Purpose
from machinebot.reconcile.authorities import secret_name
from support.audit import Audit, Write
from support.clock import SteppedClock
from support.cluster import Cluster, Json
from support.credentials import StoredSecret
from support.inprocess import RunningOperator, settings
from support.waiting import eventually
from workbench.chart import CLUSTER_NAME, Release

API_VERSION = "machinebot.dev/v1alpha1"

INTERVAL = 0.03
"""Seconds between two looks at the API server: one takes a few milliseconds."""

LOGINS: dict[str, Any] = {"allow": {"logins": ["{{ internal.logins }}"]}}
"""The rules of the role that most tests need: the bot's own logins."""


def unique(prefix: str) -> str:
    """A name that no other test has: what has no namespace is shared by all of them."""
    return f"{prefix}-{secrets.token_hex(4)}"


def condition(body: Json, kind: str = "Ready") -> Json | None:
    """A condition of an object, or None."""
    conditions = (body.get("status") or {}).get("conditions") or ()
    return next((each for each in conditions if each["type"] == kind), None)


def reason_of(body: Json, kind: str = "Ready") -> str:
    """The reason of a condition; empty where there is no such condition."""
    return str((condition(body, kind) or {}).get("reason", ""))


def told(body: Json, status: str, reason: str | None = None) -> bool:
    """Whether the object's Ready says so, about its spec as it stands."""
    ready = condition(body)
    if ready is None or ready["status"] != status or ready.get("observedGeneration") != body["metadata"]["generation"]:
        return False
    return reason is None or ready["reason"] == reason


@dataclass
class Stage:
    """The control plane with the chart on it, as administrator and as the operator's ServiceAccount.

    Attributes:
        release: The installed chart.
        cluster: The administrator's hands.
        audit: Who wrote what.
        kubeconfig: How the operator logs in: as the chart's ServiceAccount, with its rights and inside its fences.
    """

    release: Release
    cluster: Cluster
    audit: Audit
    kubeconfig: Path
    _roles: list[str] = field(default_factory=list)
    _authorities: list[str] = field(default_factory=list)

    @property
    def own_namespace(self) -> str:
        """Where the operator's Lease and CA Secrets are. The one of the release: what other tests' operators keep is there."""
        return self.release.namespace

    def operator(
        self, *, clock: SteppedClock | None = None, watch_kubeconfig: Path | None = None, **changes: Any
    ) -> RunningOperator:
        """An operator with some settings changed, not yet started."""
        kubeconfig, outside = changes.pop("kubeconfig", self.kubeconfig), changes.pop("outside", None)
        return RunningOperator(
            kubeconfig,
            settings(self.own_namespace, **changes),
            clock or SteppedClock(),
            watch_kubeconfig=watch_kubeconfig,
            outside=outside,
        )

    def authority(self, name: str | None = None, **spec: Any) -> str:
        """Make a MachineAuthority; returns its name."""
        name = name or unique("authority")
        body = {"clusterName": CLUSTER_NAME, "embedded": {}, **spec}
        self.cluster.create({"apiVersion": API_VERSION, "kind": "MachineAuthority", "metadata": {"name": name}, "spec": body})
        self._authorities.append(name)
        return name

    def authority_ready(self, name: str) -> Json:
        """Wait until the authority is."""
        return eventually(f"{name} is ready", lambda: self._told("MachineAuthority", "", name, "True", None), interval=INTERVAL)

    def role(self, name: str | None = None, *, namespaces: tuple[str, ...] = ("*",), **spec: Any) -> str:
        """Make a MachineRole; returns its name."""
        name = name or unique("role")
        body = {"namespaces": list(namespaces), **(spec or LOGINS)}
        self.cluster.create({"apiVersion": API_VERSION, "kind": "MachineRole", "metadata": {"name": name}, "spec": body})
        self._roles.append(name)
        return name

    def ca_secret(self, authority: str, purpose: Purpose) -> StoredSecret | None:
        """The Secret of one CA."""
        body = self.cluster.get("Secret", self.own_namespace, secret_name(authority, purpose))
        return None if body is None else StoredSecret(body)

    @contextlib.contextmanager
    def tenant(self, authority: str = "default") -> Iterator["Tenant"]:
        """A namespace for the length of the block; roles and authorities that are made meanwhile go with it."""
        name = unique("t")
        made = self.count()
        self.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        yield Tenant(self, name, authority)
        self.cluster.delete("Namespace", "", name)
        self.clear(*made)

    def count(self) -> tuple[int, int]:
        """How many roles and authorities were made here: for `clear`."""
        return len(self._roles), len(self._authorities)

    @contextlib.contextmanager
    def clearing(self) -> Iterator[None]:
        """What is made here in the block and has no namespace is taken away at its end."""
        made = self.count()
        yield
        self.clear(*made)

    def clear(self, roles: int = 0, authorities: int = 0) -> None:
        """Take away what was made here and has no namespace, from those numbers on."""
        for name in self._roles[roles:]:
            self.cluster.delete("MachineRole", "", name)
        for name in self._authorities[authorities:]:
            self.cluster.delete("MachineAuthority", "", name)
            for purpose in Purpose:
                self.cluster.delete("Secret", self.own_namespace, secret_name(name, purpose))
        del self._roles[roles:], self._authorities[authorities:]

    def _told(self, kind: str, namespace: str, name: str, status: str, reason: str | None) -> Json:
        body = self.cluster.get(kind, namespace, name)
        assert body is not None, f"there is no {kind} {name}"
        assert told(body, status, reason), condition(body)
        return body


@contextlib.contextmanager
def raise_stage(release: Release) -> Iterator[Stage]:
    """The stage, cleared at the end."""
    kubeconfig = release.cluster.service_account_kubeconfig(release.namespace, release.name)
    stage = Stage(release, Cluster(release.cluster), Audit(release.cluster), kubeconfig)
    try:
        yield stage
    finally:
        stage.clear()
        stage.cluster.close()


@dataclass(frozen=True)
class Tenant:
    """One namespace, and what a test does and sees in it."""

    stage: Stage
    namespace: str
    authority: str

    # --- doing -----------------------------------------------------------------------------------------------------------

    def bot(self, name: str = "deployer", *, roles: tuple[str, ...], **spec: Any) -> str:
        """Make a MachineBot."""
        return self.make("MachineBot", name, {"authority": self.authority, "roles": list(roles), "logins": ["deploy"], **spec})

    def output(self, name: str = "web", *, bot: str = "deployer", annotations: dict[str, str] | None = None, **spec: Any) -> str:
        """Make a MachineOutput, of type identity unless the spec names another."""
        body = {"bot": bot, **spec}
        if OUTPUT_TYPES.keys().isdisjoint(body):
            body["identity"] = {}
        return self.make("MachineOutput", name, body, annotations=annotations)

    def make(self, kind: str, name: str, spec: Json, *, annotations: dict[str, str] | None = None) -> str:
        """Make an object of ours."""
        metadata = {"name": name, "namespace": self.namespace, "annotations": annotations or {}}
        self.stage.cluster.create({"apiVersion": API_VERSION, "kind": kind, "metadata": metadata, "spec": spec})
        return name

    def plain_secret(self, name: str, **metadata: Any) -> StoredSecret:
        """Make a Secret that is none of ours."""
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": name, "namespace": self.namespace, **metadata},
            "stringData": {"password": "of somebody else"},
        }
        return StoredSecret(self.stage.cluster.create(body))

    def service_account(self, name: str) -> str:
        """Make a ServiceAccount that is none of ours; returns its UID."""
        metadata = {"name": name, "namespace": self.namespace}
        body = self.stage.cluster.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        return str(body["metadata"]["uid"])

    def change(self, kind: str, name: str, **spec: Any) -> Json:
        """Merge into the spec."""
        return self.stage.cluster.patch(kind, self.namespace, name, {"spec": spec})

    def annotate(self, name: str, **annotations: str | None) -> None:
        """Annotate an output with ours: `renew="1"` is machinebot.dev/renew."""
        notes = {f"machinebot.dev/{key}": value for key, value in annotations.items()}
        self.stage.cluster.patch("MachineOutput", self.namespace, name, {"metadata": {"annotations": notes}})

    def put_status(self, status: Json | None, name: str = "web") -> None:
        """Merge into the status of an output, as only the operator and administrators may; None takes it away."""
        self.stage.cluster.patch("MachineOutput", self.namespace, name, {"status": status}, subresource="status")

    def touch_secret(self, name: str, patch: Json) -> StoredSecret:
        """Merge into a Secret, as another controller or a person would."""
        return StoredSecret(self.stage.cluster.patch("Secret", self.namespace, name, patch))

    def delete(self, kind: str, name: str) -> None:
        """Delete an object of this namespace."""
        self.stage.cluster.delete(kind, self.namespace, name)

    # --- seeing ----------------------------------------------------------------------------------------------------------

    def get(self, kind: str, name: str) -> Json:
        """An object that is there."""
        body = self.stage.cluster.get(kind, self.namespace, name)
        assert body is not None, f"there is no {kind} {name}"
        return body

    def status(self, name: str = "web") -> Json:
        """Status of an output."""
        status: Json = self.get("MachineOutput", name)["status"]
        return status

    def secret(self, name: str = "web") -> StoredSecret:
        """A Secret that is there."""
        return StoredSecret(self.get("Secret", name))

    def has(self, kind: str, name: str) -> bool:
        """Whether there is such an object."""
        return self.stage.cluster.get(kind, self.namespace, name) is not None

    def ready(self, name: str = "web", kind: str = "MachineOutput") -> Json:
        """Wait until the object is Ready as it stands, and return it."""
        return eventually(
            f"{name} is ready", lambda: self.stage._told(kind, self.namespace, name, "True", None), interval=INTERVAL
        )

    def refused(self, reason: str, name: str = "web", kind: str = "MachineOutput") -> Json:
        """Wait until the object is refused with that reason; returns its condition Ready."""
        body = eventually(f"{name} is refused: {reason}", lambda: self.stage._told(kind, self.namespace, name, "False", reason))
        return condition(body) or {}

    def issued_anew(self, old: StoredSecret, reason: str, name: str = "web") -> StoredSecret:
        """Wait until the output has another credential than the old one, issued for that reason; returns its Secret."""

        def look() -> StoredSecret:
            status, secret = self.status(name), self.secret(old.name)
            assert status.get("serial") not in (None, old.serial), status
            assert status["serial"] == secret.serial, (status, secret.serial)
            assert status["issueReason"] == reason, status
            return secret

        return eventually(f"{name} is issued anew: {reason}", look, interval=INTERVAL)

    def events(self, name: str, *, kind: str = "MachineOutput") -> list[Json]:
        """The Events about an object."""
        found = self.stage.cluster.list("Event", self.namespace)
        return [event for event in found if (event["regarding"]["kind"], event["regarding"]["name"]) == (kind, name)]

    def mark(self) -> int:
        """Where the audit log ends now."""
        return self.stage.audit.mark()

    def writes(self, mark: int, *names: str) -> list[Write]:
        """What the operator wrote in this namespace after the mark; with names, only to objects called so."""
        found = self.stage.audit.since(mark, user=self.stage.release.operator_user, namespace=self.namespace)
        return [write for write in found if not names or write.name in names]

    def summary(self, mark: int, *names: str) -> list[str]:
        """The same in words, without Events."""
        return [str(write) for write in self.writes(mark, *names) if write.resource != "events"]
