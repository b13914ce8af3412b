"""The chart's policies on a real API server: what they refuse to the operator, whatever RBAC says, and to people who make bots."""

import base64
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controlplane.cluster import ControlPlane, KubectlError, start_control_plane
from support.waiting import eventually
from workbench.chart import Release, install_chart

pytestmark = pytest.mark.cluster

LABEL = {"app.kubernetes.io/managed-by": "machinebot"}
AUDIENCE = "example.test"


@dataclass(frozen=True)
class Person:
    """Whoever talks to the API server, by the real kubectl."""

    cluster: ControlPlane
    kubeconfig: Path

    def kubectl(self, *arguments: str, content: Any = None) -> str:
        given = None if content is None else json.dumps(content)
        return self.cluster.kubectl(*arguments, f"--kubeconfig={self.kubeconfig}", input=given)

    def refused(self, *arguments: str, content: Any = None) -> str:
        """Why the API server refuses it."""
        with pytest.raises(KubectlError) as caught:
            self.kubectl(*arguments, content=content)
        return str(caught.value)

    def is_refused_by(self, policy: str, *arguments: str, content: Any = None) -> bool:
        try:
            self.kubectl(*arguments, content=content)
        except KubectlError as error:
            return f"ValidatingAdmissionPolicy '{policy}'" in str(error)
        return False


def secret(name: str, namespace: str = "ci", **fields: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": fields.pop("labels", LABEL)}
    if fields.get("type") == "kubernetes.io/service-account-token":
        metadata["annotations"] = {"kubernetes.io/service-account.name": "default"}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {}, **fields}


def service_account(name: str, namespace: str = "ci", labels: dict[str, str] | None = None) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": LABEL if labels is None else labels}
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}


def bot(name: str, *roles: str, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": "machinebot.dev/v1alpha1",
        "kind": "MachineBot",
        "metadata": {"name": name, "namespace": "ci"},
        "spec": {"roles": list(roles), **spec},
    }


def output(name: str) -> dict[str, Any]:
    return {
        "apiVersion": "machinebot.dev/v1alpha1",
        "kind": "MachineOutput",
        "metadata": {"name": name, "namespace": "ci"},
        "spec": {"bot": "deployer", "identity": {}},
    }


def impersonating(name: str, roles: Sequence[str]) -> dict[str, Any]:
    rule = {
        "apiGroups": ["machinebot.dev"],
        "resources": ["machineroles"],
        "resourceNames": list(roles),
        "verbs": ["impersonate"],
    }
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": [rule],
    }


def workload(name: str, kind: str = "Deployment", namespace: str = "ci", **pods: Any) -> dict[str, Any]:
    labels = {"app": name}
    metadata = {"labels": labels, "annotations": {"note": "kept", "restart.machinebot.dev/other": "1"}}
    container = {"name": "web", "image": "example.test/web", "env": [{"name": "A", "value": "b"}]}
    template = {"metadata": metadata, "spec": {"containers": [container], **pods}}
    spec: dict[str, Any] = {"selector": {"matchLabels": labels}, "template": template}
    if kind == "StatefulSet":
        spec["serviceName"] = name
    metadata = {"name": name, "namespace": namespace, "labels": labels}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": spec}


def bundle(name: str = "machinebot-trust", namespace: str = "ci", labels: dict[str, str] | None = None) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "labels": LABEL if labels is None else labels}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"jwks.json": "{}"}}


def lock(target: Any = None, labels: dict[str, str] | None = None) -> dict[str, Any]:
    """Of an instance, as the operator makes it, unless another target is given."""
    return {
        "apiVersion": "machinebot.dev/v1alpha1",
        "kind": "MachineLock",
        "metadata": {"name": "copied", "labels": LABEL if labels is None else labels},
        "spec": {"target": target or {"instance": "0d4f6a52-58d4-4dd3-a7a2-3d6f5b3a0c11"}, "message": "generation mismatch"},
    }


def notes(**annotations: str | None) -> dict[str, Any]:
    """A patch of the annotations of a workload's pods; `__` stands for the slash."""
    plain = {key.replace("__", "/"): value for key, value in annotations.items()}
    return {"spec": {"template": {"metadata": {"annotations": plain}}}}


RESTART = {"spec": {"template": {"metadata": {"annotations": {"restart.machinebot.dev/uid": "1"}}}}}

CREATE = ("create", "--filename=-")
TRY = ("create", "--dry-run=server", "--filename=-")
PROBE_ROLES = [f"probe-{number}" for number in range(16)]
"""As many as the first two policies about roles look at: of two policies that refuse, the API server names either."""


@pytest.fixture(scope="module")
def release() -> Iterator[Release]:
    """The chart, with the operator's account bound to cluster-admin on top of its own rights, and every policy in force."""
    with start_control_plane() as cluster:
        installed = install_chart(cluster)
        for namespace in ("ci", "team-a"):
            cluster.kubectl("create", "namespace", namespace)
        account = f"--serviceaccount={installed.namespace}:{installed.name}"
        cluster.kubectl("create", "clusterrolebinding", "too-much", "--clusterrole=cluster-admin", account)
        cluster.kubectl("create", "rolebinding", "edit", "--clusterrole=edit", "--user=jane", "--user=joe", "--namespace=ci")
        give(cluster, "joe", "access", *PROBE_ROLES)
        wait_for_policies(cluster, installed)
        yield installed


def give(cluster: ControlPlane, user: str, *roles: str) -> None:
    """Let the user give these roles to bots."""
    cluster.kubectl(*CREATE, input=json.dumps(impersonating(f"give-{user}", roles)))
    cluster.kubectl("create", "clusterrolebinding", f"give-{user}", f"--clusterrole=give-{user}", f"--user={user}")


def wait_for_policies(cluster: ControlPlane, installed: Release) -> None:
    """By dry runs of what each policy must refuse."""
    operator = Person(cluster, cluster.service_account_kubeconfig(installed.namespace, installed.name))
    jane, joe = (Person(cluster, cluster.kubeconfig(user=user)) for user in ("jane", "joe"))
    token = ("create", "--raw=/api/v1/namespaces/ci/serviceaccounts/default/token?dryRun=All", "--filename=-")
    request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": ["other.test"]}}
    probes: list[tuple[Person, str, tuple[str, ...], Any]] = [
        (operator, "machinebot-fence-secrets", TRY, secret("probe", labels={})),
        (operator, "machinebot-fence-serviceaccounts", TRY, service_account("probe", labels={})),
        (operator, "machinebot-fence-tokens", token, request),
        (operator, "machinebot-fence-workloads", TRY, workload("probe")),
        (operator, "machinebot-fence-configmaps", TRY, bundle("probe")),
        (operator, "machinebot-fence-locks", TRY, lock(labels={})),
        (jane, "machinebot-bot-roles", TRY, bot("probe", "access")),
        (joe, "machinebot-bot-roles-3-to-16", TRY, bot("probe", *PROBE_ROLES[:2], "production")),
        (joe, "machinebot-bot-roles-17-to-32", TRY, bot("probe", *PROBE_ROLES, "production")),
    ]
    eventually("the default account", lambda: cluster.kubectl("get", "serviceaccount", "--namespace=ci", "--output=name") != "")
    for person, policy, command, content in probes:
        eventually(policy, lambda: person.is_refused_by(policy, *command, content=content))  # noqa: B023 - used at once
    eventually("joe's right", lambda: not joe.is_refused_by("machinebot-bot-roles", *TRY, content=bot("probe", "access")))


@pytest.fixture(scope="module")
def admin(release: Release) -> Person:
    return Person(release.cluster, release.cluster.admin_kubeconfig)


@pytest.fixture(scope="module")
def operator(release: Release) -> Person:
    """With a token of the chart's ServiceAccount, as its pods have it."""
    return Person(release.cluster, release.cluster.service_account_kubeconfig(release.namespace, release.name))


@pytest.fixture(scope="module")
def jane(release: Release) -> Person:
    """Has `edit` in the namespace ci and may give no role."""
    return Person(release.cluster, release.cluster.kubeconfig(user="jane"))


@pytest.fixture(scope="module")
def joe(release: Release) -> Person:
    """Has `edit` in the namespace ci and may give the role `access`."""
    return Person(release.cluster, release.cluster.kubeconfig(user="joe"))


# --- the operator's fence: Secrets --------------------------------------------------------------------------------


@pytest.fixture
def foreign_secret(admin: Person) -> Iterator[str]:
    admin.kubectl(*CREATE, content=secret("foreign", labels={"app.kubernetes.io/managed-by": "Helm"}))
    yield "foreign"
    admin.kubectl("delete", "secret", "foreign", "--namespace=ci")


@pytest.fixture
def own_secret(operator: Person, admin: Person) -> Iterator[str]:
    operator.kubectl(*CREATE, content=secret("own"))
    yield "own"
    admin.kubectl("delete", "secret", "own", "--namespace=ci", "--ignore-not-found")


def test_the_operator_writes_and_removes_its_own_secrets(operator: Person, own_secret: str) -> None:
    operator.kubectl("replace", "--filename=-", content=secret(own_secret, data={"key": base64.b64encode(b"1").decode()}))
    operator.kubectl("annotate", "secret", own_secret, "a=b", "--namespace=ci")
    operator.kubectl("delete", "secret", own_secret, "--namespace=ci")
    pair = {"tls.crt": "", "tls.key": ""}
    operator.kubectl(*TRY, content=secret("tls", type="kubernetes.io/tls", data=pair))
    operator.kubectl(*TRY, content=secret("ca", namespace="machinebot-system"))


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(("annotate", "secret", "foreign", "a=b"), id="change"),
        pytest.param(("label", "--overwrite", "secret", "foreign", "app.kubernetes.io/managed-by=machinebot"), id="take over"),
        pytest.param(("label", "secret", "foreign", "app.kubernetes.io/managed-by-"), id="take off another's label"),
        pytest.param(("delete", "secret", "foreign"), id="delete"),
    ],
)
def test_the_operator_does_not_touch_a_foreign_secret(operator: Person, foreign_secret: str, command: tuple[str, ...]) -> None:
    assert foreign_secret in command
    reason = operator.refused(*command, "--namespace=ci")
    assert "may not touch a Secret without the label app.kubernetes.io/managed-by=machinebot" in reason


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(secret("new", labels={}), "only with the label", id="without a label"),
        pytest.param(secret("new", labels={"app.kubernetes.io/managed-by": "Helm"}), "only with the label", id="another's label"),
        pytest.param(secret("new", type="kubernetes.io/service-account-token"), "of type Opaque or", id="an account's token"),
        pytest.param(secret("new", type="kubernetes.io/basic-auth", data={"password": ""}), "of type Opaque or", id="password"),
        pytest.param(
            secret("new", namespace="kube-system", type="bootstrap.kubernetes.io/token"), "of type Opaque or", id="node"
        ),
        pytest.param(secret("new", namespace="kube-system"), "fence.refusedNamespaces", id="in kube-system"),
    ],
)
def test_the_operator_stores_only_plain_secrets_with_its_label(operator: Person, content: Any, message: str) -> None:
    assert message in operator.refused(*CREATE, content=content)


def test_the_operator_does_not_take_its_label_off(operator: Person, own_secret: str) -> None:
    reason = operator.refused("label", "secret", own_secret, "app.kubernetes.io/managed-by-", "--namespace=ci")
    assert "only with the label" in reason


def test_the_operator_deletes_no_secrets_by_the_collection(operator: Person, admin: Person, own_secret: str) -> None:
    for selector in ("", "?labelSelector=app.kubernetes.io/managed-by=machinebot"):
        reason = operator.refused("delete", f"--raw=/api/v1/namespaces/ci/secrets{selector}")
        assert "may not delete Secrets by the collection" in reason
    assert admin.kubectl("get", "secret", own_secret, "--namespace=ci", "--output=name").strip() == "secret/own"


# --- the operator's fence: tokens and ServiceAccounts -------------------------------------------------------------


def test_the_operator_gets_tokens_for_its_authority(operator: Person) -> None:
    token = operator.kubectl("create", "token", "default", "--namespace=ci", f"--audience={AUDIENCE}", "--duration=600s")
    claims = json.loads(base64.urlsafe_b64decode(token.split(".")[1] + "=="))
    assert claims["aud"] == [AUDIENCE]
    assert claims["exp"] - claims["iat"] == 600


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param(
            ("--audience=other.test", "--duration=600s"), "whose one audience is the authority's", id="another audience"
        ),
        pytest.param(("--duration=600s",), "whose one audience is the authority's", id="no audience: the API server's"),
        pytest.param(
            (f"--audience={AUDIENCE}", "--audience=https://kubernetes.default.svc", "--duration=600s"),
            "whose one audience is the authority's",
            id="another audience besides",
        ),
        pytest.param((f"--audience={AUDIENCE}", "--duration=3600s"), "at most 600 seconds", id="an hour"),
        pytest.param((f"--audience={AUDIENCE}",), "at most 600 seconds", id="no duration: an hour"),
    ],
)
def test_the_operator_gets_no_other_tokens(operator: Person, flags: tuple[str, ...], message: str) -> None:
    assert message in operator.refused("create", "token", "default", "--namespace=ci", *flags)


def test_the_operator_gets_no_tokens_of_the_clusters_own_controllers(operator: Person) -> None:
    flags = (f"--audience={AUDIENCE}", "--duration=600s", "--namespace=kube-system")
    assert "refusedNamespaces" in operator.refused("create", "token", "generic-garbage-collector", *flags)


def test_the_operator_makes_service_accounts_for_bots(operator: Person) -> None:
    operator.kubectl(*TRY, content=service_account("machinebot-deployer"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(service_account("machinebot-a", labels={}), "with the label", id="without a label"),
        pytest.param(service_account("deployer"), "named machinebot-*", id="any name"),
        pytest.param(service_account("machinebot-a", namespace="kube-system"), "refusedNamespaces", id="in kube-system"),
    ],
)
def test_the_operator_makes_no_other_service_accounts(operator: Person, content: Any, message: str) -> None:
    assert message in operator.refused(*CREATE, content=content)


def test_the_operator_changes_and_deletes_no_service_account(operator: Person, admin: Person) -> None:
    admin.kubectl(*CREATE, content=service_account("machinebot-kept"))
    for command in (
        ("annotate", "serviceaccount", "machinebot-kept", "a=b"),
        ("annotate", "serviceaccount", "default", "a=b"),
        ("delete", "serviceaccount", "machinebot-kept"),
        ("delete", "--raw=/api/v1/namespaces/ci/serviceaccounts"),
    ):
        namespace = () if "--raw" in command[1] else ("--namespace=ci",)
        assert "may not change or delete a ServiceAccount" in operator.refused(*command, *namespace)


# --- the operator's fence: locks ----------------------------------------------------------------------------------


def test_the_operator_locks_an_instance(operator: Person) -> None:
    operator.kubectl(*TRY, content=lock())


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(lock({"bot": {"namespace": "ci", "name": "deployer"}}), id="a bot"),
        pytest.param(lock({"role": "access"}), id="a role"),
        pytest.param(lock({"joinToken": {"namespace": "ci", "name": "github"}}), id="a join token"),
        pytest.param(lock(labels={}), id="without a label"),
        pytest.param(lock(labels={"app.kubernetes.io/managed-by": "Helm"}), id="another's label"),
    ],
)
def test_the_operator_locks_nothing_else(operator: Person, content: Any) -> None:
    assert "may lock only instances, with the label" in operator.refused(*CREATE, content=content)


@pytest.mark.parametrize("labels", [LABEL, {}], ids=["its own", "a person's"])
def test_the_operator_changes_and_deletes_no_lock(operator: Person, admin: Person, labels: dict[str, str]) -> None:
    admin.kubectl(*CREATE, content=lock(labels=labels))
    for command in (
        ("annotate", "machinelock", "copied", "a=b"),
        ("patch", "machinelock", "copied", "--type=merge", '--patch={"spec":{"expires":"2027-01-01T00:00:00Z"}}'),
        ("delete", "machinelock", "copied"),
        ("delete", "--raw=/apis/machinebot.dev/v1alpha1/machinelocks"),
    ):
        assert "may not change or delete a MachineLock" in operator.refused(*command)
    status = '--patch={"status":{"observedGeneration":1}}'
    operator.kubectl("patch", "machinelock", "copied", "--subresource=status", "--type=merge", status)
    admin.kubectl("delete", "machinelock", "copied")


# --- the operator's fence: workloads and ConfigMaps ---------------------------------------------------------------

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")


@pytest.fixture(scope="module")
def workloads(admin: Person) -> str:
    for kind in WORKLOADS:
        admin.kubectl(*CREATE, content=workload("web", kind))
    return "web"


def merge(kind: str, name: str, patch: Any, *flags: str) -> tuple[str, ...]:
    return ("patch", kind.lower(), name, "--namespace=ci", "--type=merge", f"--patch={json.dumps(patch)}", *flags)


@pytest.mark.parametrize("kind", WORKLOADS)
def test_the_operator_restarts_a_workload(operator: Person, admin: Person, workloads: str, kind: str) -> None:
    operator.kubectl(*merge(kind, workloads, RESTART))
    operator.kubectl(
        *merge(kind, workloads, notes(**{"restart.machinebot.dev__uid": "2", "restart.machinebot.dev__other": None}))
    )
    path = "--output=jsonpath={.spec.template.metadata.annotations}"
    assert json.loads(admin.kubectl("get", kind.lower(), workloads, "--namespace=ci", path)) == {
        "note": "kept",
        "restart.machinebot.dev/uid": "2",
    }
    admin.kubectl(*merge(kind, workloads, notes(**{"restart.machinebot.dev__other": "1", "restart.machinebot.dev__uid": None})))


CONTAINERS = {"containers": [{"name": "web", "image": "example.test/other", "env": [{"name": "A", "value": "b"}]}]}
STRANGER = {"name": "stranger", "image": "example.test/web"}
TAMPERING: dict[str, tuple[dict[str, Any], str]] = {
    "an image": ({"spec": {"template": {"spec": CONTAINERS}}}, "nothing of a workload but"),
    "an account": ({"spec": {"template": {"spec": {"serviceAccountName": "other"}}}}, "nothing of a workload but"),
    "a container": ({"spec": {"template": {"spec": {"initContainers": [STRANGER]}}}}, "nothing of a workload but"),
    "a volume": ({"spec": {"template": {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}}}, "nothing of a workload but"),
    "a label of the pods": ({"spec": {"template": {"metadata": {"labels": {"team": "a"}}}}}, "nothing of a workload but"),
    "a finalizer of the pods": ({"spec": {"template": {"metadata": {"finalizers": ["example.test/a"]}}}}, "nothing of a"),
    "readiness": ({"spec": {"minReadySeconds": 7}}, "nothing of a workload but"),
    "history": ({"spec": {"revisionHistoryLimit": 7}}, "nothing of a workload but"),
    "an annotation of the pods": (notes(note="changed"), "only annotations of pods that begin"),
    "an annotation of the pods removed": (notes(note=None), "only annotations of pods that begin"),
    "an annotation of the pods added": (notes(other="1"), "only annotations of pods that begin"),
    "the annotation of kubectl": (notes(**{"kubectl.kubernetes.io__restartedAt": "now"}), "only annotations of pods that begin"),
    "a restart with more": (
        {"spec": {"minReadySeconds": 7, "template": RESTART["spec"]["template"]}},
        "nothing of a workload but",
    ),
    "a label": ({"metadata": {"labels": {"team": "a"}}}, "no metadata of a workload"),
    "a label removed": ({"metadata": {"labels": {"app": None}}}, "no metadata of a workload"),
    "an annotation": ({"metadata": {"annotations": {"restart.machinebot.dev/uid": "1"}}}, "no metadata of a workload"),
    "an owner": (
        {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Secret", "name": "a", "uid": "a"}]}},
        "no metadata of a workload",
    ),
    "a finalizer": ({"metadata": {"finalizers": ["example.test/a"]}}, "no metadata of a workload"),
}


@pytest.mark.parametrize("kind", WORKLOADS)
@pytest.mark.parametrize(("patch", "message"), TAMPERING.values(), ids=TAMPERING)
def test_the_operator_changes_nothing_else_of_a_workload(
    operator: Person, workloads: str, kind: str, patch: dict[str, Any], message: str
) -> None:
    assert message in operator.refused(*merge(kind, workloads, patch, "--dry-run=server"))


def test_the_operator_neither_makes_nor_deletes_nor_scales_a_workload(operator: Person, workloads: str) -> None:
    for command, content in (
        (TRY, workload("mine")),
        (("delete", "deployment", workloads, "--namespace=ci"), None),
        (("delete", "--raw=/apis/apps/v1/namespaces/ci/daemonsets"), None),
        (("scale", "statefulset", workloads, "--replicas=0", "--namespace=ci"), None),
        (merge("Deployment", workloads, {"status": {"replicas": 3}}, "--subresource=status"), None),
    ):
        assert "may not make, delete or scale a workload" in operator.refused(*command, content=content), command


def test_the_operator_restarts_nothing_in_kube_system(operator: Person, admin: Person) -> None:
    admin.kubectl(*CREATE, content=workload("dns", namespace="kube-system"))
    patch = f"--patch={json.dumps(RESTART)}"
    command = ("patch", "deployment", "dns", "--namespace=kube-system", "--type=merge", patch)
    assert "fence.refusedNamespaces" in operator.refused(*command)


def test_a_large_workload_stays_within_the_cost_that_the_api_server_allows(operator: Person, admin: Person) -> None:
    environment = [{"name": f"N{number}", "value": "x" * 200} for number in range(500)]
    containers = [{"name": f"c{number}", "image": "example.test/web", "env": environment} for number in range(5)]
    body = workload("large", containers=containers)
    body["spec"]["template"]["metadata"]["annotations"] |= {f"note-{number}": "x" * 200 for number in range(500)}
    admin.kubectl(*CREATE, content=body)
    operator.kubectl(*merge("Deployment", "large", RESTART))


def test_the_operator_publishes_trust_bundles(operator: Person) -> None:
    operator.kubectl(*TRY, content=bundle("machinebot-trust-other", namespace="kube-system"))
    operator.kubectl(*CREATE, content=bundle())
    operator.kubectl("replace", "--filename=-", content={**bundle(), "data": {"a": "b"}})
    operator.kubectl("delete", "configmap", "machinebot-trust", "--namespace=ci")


def test_the_operator_touches_no_other_config_map(operator: Person, admin: Person) -> None:
    admin.kubectl(*CREATE, content=bundle("machinebot-trust-foreign", labels={}))
    admin.kubectl(*CREATE, content=bundle("own"))
    selected = "?labelSelector=app.kubernetes.io/managed-by=machinebot"
    theirs, labelled = ("configmap", "machinebot-trust-foreign"), ("configmap", "own")
    for command, content, message in (
        (("annotate", *theirs, "a=b", "--namespace=ci"), None, "may not touch a ConfigMap without the label"),
        (
            ("label", *theirs, "app.kubernetes.io/managed-by=machinebot", "--namespace=ci"),
            None,
            "may not touch a ConfigMap without the label",
        ),
        (("delete", *theirs, "--namespace=ci"), None, "may not touch a ConfigMap without the label"),
        (("annotate", *labelled, "a=b", "--namespace=ci"), None, "only ConfigMaps named machinebot-trust*"),
        (("delete", *labelled, "--namespace=ci"), None, "only ConfigMaps named machinebot-trust*"),
        (("delete", f"--raw=/api/v1/namespaces/ci/configmaps{selected}"), None, "none by the collection"),
        (TRY, bundle("aws-auth", namespace="kube-system"), "only ConfigMaps named machinebot-trust*"),
        (TRY, bundle("machinebot-trust-new", labels={}), "only ConfigMaps named machinebot-trust*"),
    ):
        assert message in operator.refused(*command, content=content), command


def test_the_fence_is_nobody_elses(admin: Person, jane: Person) -> None:
    jane.kubectl(*TRY, content=secret("mine", labels={}, type="kubernetes.io/basic-auth", data={"username": "YQ=="}))
    jane.kubectl(*TRY, content=service_account("mine", labels={}))
    jane.kubectl(*TRY, content=workload("mine"))
    jane.kubectl(*TRY, content=bundle("mine", labels={}))
    admin.kubectl("create", "token", "default", "--namespace=ci", "--duration=3600s")


# --- who may give a bot a role ------------------------------------------------------------------------------------


@pytest.fixture
def joes_bot(joe: Person, admin: Person) -> Iterator[str]:
    joe.kubectl(*CREATE, content=bot("deployer", "access", logins=["deploy"]))
    yield "deployer"
    admin.kubectl("delete", "machinebot", "deployer", "--namespace=ci", "--ignore-not-found")


def test_who_may_not_give_the_role_makes_no_bot_and_is_told_whom_to_ask(jane: Person) -> None:
    reason = jane.refused(*CREATE, content=bot("deployer", "access"))
    assert "jane may not give a bot the role access" in reason
    assert "ask an administrator of the cluster" in reason
    assert "the verb impersonate on machineroles.machinebot.dev/access" in reason


def test_who_may_give_the_role_makes_the_bot(joe: Person, joes_bot: str) -> None:
    assert joe.kubectl("get", "machinebot", joes_bot, "--namespace=ci", "--output=jsonpath={.spec.roles}") == '["access"]'


def test_each_role_is_asked_about(joe: Person) -> None:
    assert "the role production" in joe.refused(*CREATE, content=bot("deployer", "access", "production"))


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param({"logins": ["root"]}, id="logins"),
        pytest.param({"traits": {"logins": ["root"]}}, id="traits"),
        pytest.param({"serviceAccountName": "default"}, id="account"),
        pytest.param({"maxSessionTTL": "1h"}, id="lifetime"),
    ],
)
def test_somebody_elses_bot_is_not_changed(jane: Person, joes_bot: str, patch: Any) -> None:
    reason = jane.refused(
        "patch", "machinebot", joes_bot, "--namespace=ci", "--type=merge", f"--patch={json.dumps({'spec': patch})}"
    )
    assert "jane may not give a bot the role access, or change a bot that has it" in reason


def test_a_role_is_neither_added_nor_taken_by_who_may_not_give_it(joe: Person, admin: Person, joes_bot: str) -> None:
    def spec(*roles: str) -> str:
        return f"--patch={json.dumps({'spec': {'roles': list(roles)}})}"

    command = ("patch", "machinebot", joes_bot, "--namespace=ci", "--type=merge")
    assert "the role production" in joe.refused(*command, spec("access", "production"))
    admin.kubectl(*command, spec("access", "production"))
    assert "the role production" in joe.refused(*command, f"--patch={json.dumps({'spec': {'logins': ['other']}})}")
    joe.kubectl(*command, spec("access"))


def test_metadata_is_free_to_change_and_so_are_outputs(jane: Person, joes_bot: str) -> None:
    jane.kubectl("label", "machinebot", joes_bot, "team=a", "--namespace=ci")
    jane.kubectl("annotate", "machinebot", joes_bot, "note=b", "--namespace=ci")
    jane.kubectl(*TRY, content=output("deployer-ssh"))
    jane.kubectl("delete", "machinebot", joes_bot, "--namespace=ci")


def test_the_operator_reports_on_a_bot_whose_roles_it_may_not_give(release: Release, admin: Person, joes_bot: str) -> None:
    """Here without cluster-admin, which would let it do everything: its own rights have no `impersonate`."""
    cluster = release.cluster
    cluster.kubectl("create", "clusterrolebinding", "status", "--clusterrole=machinebot-operator", "--user=reporter")
    reporter = Person(cluster, cluster.kubeconfig(user="reporter"))
    path = f"--raw=/apis/machinebot.dev/v1alpha1/namespaces/ci/machinebots/{joes_bot}"
    stored = json.loads(admin.kubectl("get", path))
    stored["status"]["outputs"] = 3
    reporter.kubectl("replace", f"{path}/status", "--filename=-", content=stored)
    assert 'cannot update resource "machinebots"' in reporter.refused("replace", path, "--filename=-", content=stored)
    assert admin.kubectl("get", "machinebot", joes_bot, "--namespace=ci", "--output=jsonpath={.status.outputs}") == "3"


def test_edit_reaches_neither_status_nor_what_belongs_to_administrators(jane: Person, joes_bot: str) -> None:
    patch = '--patch={"status":{"outputs":3}}'
    command = ("patch", "machinebot", joes_bot, "--namespace=ci", "--type=merge", patch, "--subresource=status")
    assert "machinebots/status" in jane.refused(*command)
    role = {"apiVersion": "machinebot.dev/v1alpha1", "kind": "MachineRole", "metadata": {"name": "mine"}, "spec": {}}
    assert 'cannot create resource "machineroles"' in jane.refused(*CREATE, content=role)
    assert 'cannot create resource "machinelocks"' in jane.refused(*CREATE, content=lock())
    patch = '--patch={"spec":{"namespaces":["*"]}}'
    assert 'cannot get resource "machineroles"' in jane.refused("patch", "machinerole", "access", "--type=merge", patch)
    assert 'cannot delete resource "machineauthorities"' in jane.refused("delete", "machineauthority", "default")


def test_as_many_roles_as_a_bot_may_have_are_asked_about_one_by_one(release: Release, admin: Person) -> None:
    """The API server stops one expression after two questions to its authorizer, and one policy after 28."""
    cluster = release.cluster
    roles = [f"role-{number}" for number in range(32)]
    cluster.kubectl("create", "rolebinding", "many", "--clusterrole=edit", "--user=mary", "--namespace=ci")
    give(cluster, "mary", *roles)
    mary = Person(cluster, cluster.kubeconfig(user="mary"))
    for policy in ("machinebot-bot-roles", "machinebot-bot-roles-3-to-16", "machinebot-bot-roles-17-to-32"):
        eventually(policy, lambda: not mary.is_refused_by(policy, *TRY, content=bot("many", *roles)))  # noqa: B023 - used at once
    mary.kubectl(*TRY, content=bot("many", *roles))
    for place in range(32):
        asked = [*roles[:place], "production", *roles[place + 1 :]]
        assert "mary may not give a bot the role production," in mary.refused(*TRY, content=bot("many", *asked))
    assert "32 items" in admin.refused(*TRY, content=bot("many", *roles, "one-more"))
