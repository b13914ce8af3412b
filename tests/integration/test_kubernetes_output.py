"""`kubernetes` outputs at a real API server: whom it takes the bot for, what RBAC then gives, and what is refused before."""

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from controlplane.cluster import ControlPlane, KubectlError
from machinebot.resources.output import PrivateKeyAlgorithm
from support.credentials import StoredSecret, write_all
from support.inprocess import RunningOperator
from support.kubernetes_access import Kubectl, User, kubectl_with, user_of_certificate
from support.stage import API_VERSION, Stage, Tenant, unique
from support.waiting import eventually
from workbench.chart import CLUSTER_NAME

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("trusted")]
pytest_plugins = ["support.fixtures"]

VIEWERS: dict[str, Any] = {"allow": {"kubernetesGroups": ["machinebot:viewers"]}}


def issued(tenant: Tenant, rules: dict[str, Any], name: str = "cluster", **settings: Any) -> StoredSecret:
    """The Secret of a `kubernetes` output of a bot whose one role has those rules."""
    if not tenant.has("MachineBot", "deployer"):
        tenant.bot(roles=(tenant.stage.role(**rules),))
    tenant.output(name, kubernetes=settings)
    tenant.ready(name)
    return tenant.secret(name)


@pytest.fixture(scope="module")
def trusted(stage: Stage, authority: str, operator_of_module: RunningOperator) -> Iterator[bytes]:
    """The API server takes the Kubernetes CA of the module's authority, given to it as documented: the key ca.crt."""
    assert operator_of_module.running
    with stage.tenant(authority) as tenant:
        authorities = issued(tenant, VIEWERS).data["ca.crt"]
    with stage.release.cluster.accepting_clients(authorities):
        yield authorities


@pytest.fixture
def room(stage: Stage) -> Iterator[str]:
    """A namespace that the bots' own is not: where they are let work."""
    name = unique("room")
    stage.cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield name
    stage.cluster.delete("Namespace", "", name)


# --- who it is ----------------------------------------------------------------------------------------------------------

WHO: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], User]] = {
    "groups alone, so that the user is the bot": (
        {"allow": {"kubernetesGroups": ["team:deployers", "machinebot:viewers"]}},
        {},
        {},
        User("bot:{namespace}:deployer", ("machinebot:viewers", "team:deployers")),
    ),
    "a user alone": ({"allow": {"kubernetesUsers": ["team:deployer"]}}, {}, {}, User("team:deployer", ())),
    "a user and groups": (
        {"allow": {"kubernetesUsers": ["deployer@example.test"], "kubernetesGroups": ["a", "b"]}},
        {},
        {},
        User("deployer@example.test", ("a", "b")),
    ),
    "one of several users": ({"allow": {"kubernetesUsers": ["a", "b", "c"]}}, {}, {"user": "b"}, User("b", ())),
    "names from traits": (
        {
            "allow": {
                "kubernetesUsers": ["team:{{ external.team }}"],
                "kubernetesGroups": ["{{ internal.kubernetes_groups }}", "on-call"],
            }
        },
        {"traits": {"team": ["web"], "kubernetes_groups": ["g1", "g2"]}},
        {},
        User("team:web", ("g1", "g2", "on-call")),
    ),
    "names that are denied left out": (
        {"allow": {"kubernetesUsers": ["a", "b"], "kubernetesGroups": ["g1", "g2"]}, "deny": {"kubernetesGroups": ["*2"]}},
        {},
        {"user": "a"},
        User("a", ("g1",)),
    ),
    "a group of Kubernetes itself, stated by the role": (
        {"allow": {"kubernetesGroups": ["system:monitoring"]}},
        {},
        {},
        User("bot:{namespace}:deployer", ("system:monitoring",)),
    ),
    "a name of 64 characters": ({"allow": {"kubernetesUsers": ["u" * 64]}}, {}, {}, User("u" * 64, ())),
}


@pytest.mark.parametrize(("rules", "bot", "settings", "who"), WHO.values(), ids=WHO.keys())
def test_the_api_server_takes_the_bot_for_whom_its_roles_say(
    tenant: Tenant,
    plane: ControlPlane,
    tmp_path: Path,
    rules: dict[str, Any],
    bot: dict[str, Any],
    settings: dict[str, Any],
    who: User,
) -> None:
    tenant.bot(roles=(tenant.stage.role(**rules),), **bot)
    kubectl = kubectl_with(plane, issued(tenant, rules, **settings).data["kubeconfig.yaml"], tmp_path)
    assert kubectl.whoami() == User(who.name.format(namespace=tenant.namespace), who.groups)


@pytest.mark.parametrize("algorithm", get_args(PrivateKeyAlgorithm))
def test_kubectl_logs_in_with_every_algorithm_of_the_private_key(
    tenant: Tenant, plane: ControlPlane, tmp_path: Path, algorithm: str
) -> None:
    tenant.bot(roles=(tenant.stage.role(**VIEWERS),))
    tenant.output("cluster", kubernetes={}, privateKey={"algorithm": algorithm})
    tenant.ready("cluster")
    kubectl = kubectl_with(plane, tenant.secret("cluster").data["kubeconfig.yaml"], tmp_path)
    assert kubectl.whoami().groups == ("machinebot:viewers",)


def test_a_bot_with_a_long_name_is_known_by_a_short_one(tenant: Tenant, plane: ControlPlane, tmp_path: Path) -> None:
    name = tenant.bot("d" * 60, roles=(tenant.stage.role(**VIEWERS),))
    tenant.output("cluster", bot=name, kubernetes={})
    tenant.ready("cluster")
    who = kubectl_with(plane, tenant.secret("cluster").data["kubeconfig.yaml"], tmp_path).whoami()
    assert (len(who.name), who.name[:4], who.name.count(":")) == (64, "bot:", 1)


# --- what it may --------------------------------------------------------------------------------------------------------


def grant(plane: ControlPlane, room: str, kubectl: Kubectl, *subject: str) -> None:
    """Bind the subject to `edit` there, and wait until the authorizer knows."""
    plane.kubectl("create", "rolebinding", unique("binding"), "--clusterrole=edit", *subject, f"--namespace={room}")
    eventually("the role binding counts", lambda: may(kubectl, "create", "configmaps", f"--namespace={room}"))


def may(kubectl: Kubectl, *question: str) -> bool:
    """`kubectl auth can-i`."""
    try:
        return kubectl("auth", "can-i", *question).strip() == "yes"
    except KubectlError:
        return False


def test_the_rights_of_its_group_are_what_it_has(tenant: Tenant, plane: ControlPlane, tmp_path: Path, room: str) -> None:
    group = unique("team:deployers")
    secret = issued(tenant, {"allow": {"kubernetesGroups": [group]}})
    kubectl = kubectl_with(plane, secret.data["kubeconfig.yaml"], tmp_path)
    grant(plane, room, kubectl, f"--group={group}")
    listing = ("get", "pods,configmaps", f"--namespace={room}", "--output=name")
    eventually("the namespace has its ConfigMap", lambda: kubectl(*listing) == "configmap/kube-root-ca.crt\n")
    for elsewhere in (f"--namespace={tenant.namespace}", "--namespace=kube-system", "--all-namespaces"):
        with pytest.raises(KubectlError, match=rf'User "bot:{tenant.namespace}:deployer" cannot list resource "pods"'):
            kubectl("get", "pods", elsewhere)


def test_what_it_does_stands_in_the_audit_log_under_its_name(
    tenant: Tenant, plane: ControlPlane, tmp_path: Path, room: str
) -> None:
    kubectl = kubectl_with(plane, issued(tenant, VIEWERS).data["kubeconfig.yaml"], tmp_path)
    grant(plane, room, kubectl, f"--user=bot:{tenant.namespace}:deployer")
    kubectl("create", "configmap", "mine", f"--namespace={room}")
    written = [event for event in plane.audit_events() if event["objectRef"].get("namespace") == room]
    mine = [event["user"]["username"] for event in written if event["objectRef"].get("name") == "mine"]
    assert mine == [f"bot:{tenant.namespace}:deployer"]


def test_a_user_whom_nobody_gave_a_right_is_let_in_and_gets_nothing(tenant: Tenant, plane: ControlPlane, tmp_path: Path) -> None:
    secret = issued(tenant, {"allow": {"kubernetesUsers": ["nobody-in-particular"]}})
    kubectl = kubectl_with(plane, secret.data["kubeconfig.yaml"], tmp_path)
    for resource in ("pods", "secrets", "configmaps"):
        with pytest.raises(KubectlError, match=rf'Forbidden.*User "nobody-in-particular" cannot list resource "{resource}"'):
            kubectl("get", resource)


# --- how it is made -----------------------------------------------------------------------------------------------------


def test_the_default_server_is_the_one_of_the_operator(tenant: Tenant, plane: ControlPlane) -> None:
    kubeconfig = yaml.safe_load(issued(tenant, VIEWERS).data["kubeconfig.yaml"])
    (cluster,) = kubeconfig["clusters"]
    assert cluster["name"] == kubeconfig["current-context"] == CLUSTER_NAME
    assert cluster["cluster"] == {
        "server": plane.url,
        "certificate-authority-data": base64.b64encode(plane.ca_pem).decode(),
    }
    assert kubeconfig["contexts"][0]["context"]["namespace"] == "default"


def test_every_setting_counts(tenant: Tenant, plane: ControlPlane, tmp_path: Path, room: str) -> None:
    group = unique("team:deployers")
    settings = {
        "server": plane.url.replace("127.0.0.1", "localhost"),
        "certificateAuthority": plane.ca_pem.decode(),
        "context": "staging",
        "namespace": room,
    }
    secret = issued(tenant, {"allow": {"kubernetesGroups": [group]}}, **settings)
    kubectl = kubectl_with(plane, secret.data["kubeconfig.yaml"], tmp_path)
    grant(plane, room, kubectl, f"--group={group}")
    assert kubectl("config", "get-contexts", "--output=name") == "staging\n"
    assert kubectl("config", "view", "--output=jsonpath={.clusters[0].cluster.server}") == settings["server"]
    listing = ("get", "configmaps", "--output=name")
    eventually("the namespace has its ConfigMap", lambda: kubectl(*listing) == "configmap/kube-root-ca.crt\n")


def test_a_server_whose_certificate_is_of_another_authority_is_not_spoken_to(
    tenant: Tenant, plane: ControlPlane, tmp_path: Path, trusted: bytes
) -> None:
    secret = issued(tenant, VIEWERS, certificateAuthority=trusted.decode())
    with pytest.raises(KubectlError, match="certificate signed by unknown authority"):
        kubectl_with(plane, secret.data["kubeconfig.yaml"], tmp_path).whoami()


# --- how it is replaced -------------------------------------------------------------------------------------------------


def test_after_a_renewal_the_new_certificate_and_the_old_one_are_good(
    tenant: Tenant, plane: ControlPlane, tmp_path: Path
) -> None:
    old = issued(tenant, VIEWERS)
    serial = tenant.status("cluster")["serial"]
    tenant.annotate("cluster", renew="1")
    eventually("it is renewed", lambda: tenant.status("cluster")["serial"] != serial)
    new = tenant.secret("cluster")
    keys = [yaml.safe_load(secret.data["kubeconfig.yaml"])["users"][0]["user"] for secret in (old, new)]
    assert all(keys[0][field] != keys[1][field] for field in keys[0])
    for secret in (new, old):
        assert kubectl_with(plane, secret.data["kubeconfig.yaml"], tmp_path).whoami().groups == ("machinebot:viewers",)


# --- what is no key to an API server ------------------------------------------------------------------------------------

OTHERS: dict[str, tuple[dict[str, Any], dict[str, Any], tuple[str, str]]] = {
    "identity": ({"logins": ["deploy"]}, {"identity": {}}, ("tls.crt", "tls.key")),
    "application": ({"logins": ["deploy"]}, {"application": {}}, ("tls.crt", "tls.key")),
    "database": ({"dbUsers": ["admin"]}, {"database": {"user": "admin"}}, ("tls.crt", "tls.key")),
    "database server": (
        {"dnsNames": ["*.svc"], "dbUsers": ["node"]},
        {"database": {"server": True, "format": "mongo", "dnsNames": ["db.svc"]}},
        ("mongo.crt", "mongo.crt"),
    ),
    "x509SVID": ({"spiffePaths": ["/*"]}, {"x509SVID": {}}, ("svid.pem", "svid_key.pem")),
}


@pytest.mark.parametrize(("allow", "spec", "files"), OTHERS.values(), ids=OTHERS.keys())
def test_certificates_for_something_else_are_unauthorized(
    tenant: Tenant, plane: ControlPlane, tmp_path: Path, allow: dict[str, Any], spec: dict[str, Any], files: tuple[str, str]
) -> None:
    tenant.bot(roles=(tenant.stage.role(allow={**allow, "kubernetesGroups": ["machinebot:viewers"]}),))
    tenant.output(**spec)
    tenant.ready()
    paths = write_all(tmp_path, tenant.secret().data)
    certificate, key = (paths[name] for name in files)
    assert user_of_certificate(plane, certificate, key) is None


# --- what is refused ----------------------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any], str, str]] = {
    "neither user nor group": (
        {"allow": {"logins": ["deploy"]}},
        {},
        {},
        "NoKubernetesNames",
        "neither a Kubernetes user nor a group",
    ),
    "all names denied": (
        {
            "allow": {"kubernetesUsers": ["a"], "kubernetesGroups": ["g"]},
            "deny": {"kubernetesUsers": ["*"], "kubernetesGroups": ["*"]},
        },
        {},
        {},
        "NoKubernetesNames",
        "neither a Kubernetes user nor a group",
    ),
    "several users and none chosen": (
        {"allow": {"kubernetesUsers": ["a", "b"]}},
        {},
        {},
        "UserNotChosen",
        r"'a', 'b'.* write it into kubernetes\.user",
    ),
    "a user that no role allows": (
        {"allow": {"kubernetesUsers": ["a"]}},
        {},
        {"user": "b"},
        "NameNotAllowed",
        r"no role allows the Kubernetes user 'b'.*allow\.kubernetesUsers",
    ),
    "a user where the roles give groups alone": (VIEWERS, {}, {"user": "b"}, "NameNotAllowed", "no role allows"),
    "a user that a role denies": (
        {"allow": {"kubernetesUsers": ["a", "b"]}, "deny": {"kubernetesUsers": ["b"]}},
        {},
        {"user": "b"},
        "NameDenied",
        "denies the Kubernetes user 'b'",
    ),
    "system:masters": (
        {"allow": {"kubernetesGroups": ["system:masters"]}},
        {},
        {},
        "ForbiddenName",
        "write a group of your own and bind it to cluster-admin",
    ),
    "system:masters put together from a trait": (
        {"allow": {"kubernetesGroups": ["system:{{ external.team }}"]}},
        {"traits": {"team": ["masters"]}},
        {},
        "ReservedName",
        "only a role may write one",
    ),
    "a group of Kubernetes from a trait": (
        {"allow": {"kubernetesGroups": ["{{ internal.kubernetes_groups }}"]}},
        {"traits": {"kubernetes_groups": ["system:nodes"]}},
        {},
        "ReservedName",
        "'system:nodes' from the trait 'kubernetes_groups'",
    ),
    "another bot's name from a trait": (
        {"allow": {"kubernetesUsers": ["{{ internal.kubernetes_users }}"]}},
        {"traits": {"kubernetes_users": ["bot:ci:admin"]}},
        {},
        "ReservedName",
        "'bot:ci:admin' from the trait 'kubernetes_users'",
    ),
    "a user longer than a certificate takes": (
        {"allow": {"kubernetesUsers": ["team:{{ external.team }}"]}},
        {"traits": {"team": ["t" * 60]}},
        {},
        "InvalidName",
        "at most 64 characters",
    ),
    "CA certificates that are cut off": (
        VIEWERS,
        {},
        {"certificateAuthority": "-----BEGIN CERTIFICATE-----\nTUlJ\n"},
        "InvalidSpec",
        "must be CA certificates in PEM.* is it cut off",
    ),
}


@pytest.mark.parametrize(("rules", "bot", "settings", "reason", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_cannot_be_is_refused_before_anything_is_minted(
    tenant: Tenant,
    rules: dict[str, Any],
    bot: dict[str, Any],
    settings: dict[str, Any],
    reason: str,
    message: str,
) -> None:
    tenant.bot(roles=(tenant.stage.role(**rules),), **bot)
    tenant.output("cluster", kubernetes=settings)
    told = tenant.refused(reason, "cluster")
    assert re.search(message, told["message"]), told["message"]
    assert not tenant.has("Secret", "cluster")


def test_a_refusal_names_the_role_that_would_do(tenant: Tenant) -> None:
    useful, name = tenant.stage.role(**VIEWERS), unique("never-seen")
    tenant.bot(roles=(tenant.stage.role(allow={"logins": ["deploy"]}),))
    chosen = tenant.stage.role(allow={"kubernetesUsers": [name]})
    tenant.output("nothing", kubernetes={})
    tenant.output("user", kubernetes={"user": name})
    assert useful in tenant.refused("NoKubernetesNames", "nothing")["message"]
    assert f"the role {chosen!r} allows it" in tenant.refused("NameNotAllowed", "user")["message"]


IMPOSSIBLE: dict[str, tuple[dict[str, Any], str]] = {
    "base64 of CA certificates": (
        {"certificateAuthority": base64.b64encode(b"-----BEGIN CERTIFICATE-----\n").decode()},
        "must be CA certificates in PEM, as they are (not base64 of them)",
    ),
    "a file name instead of CA certificates": (
        {"certificateAuthority": "/etc/kubernetes/pki/ca.crt"},
        "must be CA certificates in PEM, as they are (not base64 of them)",
    ),
    "a server without TLS": ({"server": "http://10.0.0.1:8080"}, "must be the https address of an API server"),
    "a server without a scheme": ({"server": "api.example.test:6443"}, "must be the https address of an API server"),
    "a context with a blank": ({"context": "my cluster"}, "must be a name such as staging, without blanks"),
    "a namespace that cannot be": ({"namespace": "Web_1"}, "must be the name of an object"),
    "a user with a wildcard": ({"user": "team:*"}, "must be a Kubernetes user such as deployer, in full"),
    "an unknown setting": ({"cluster": "staging"}, 'unknown field "spec.kubernetes.cluster"'),
}


@pytest.mark.parametrize(("settings", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_what_can_be_seen_in_the_object_alone_is_refused_by_the_api_server(
    tenant: Tenant, plane: ControlPlane, settings: dict[str, Any], message: str
) -> None:
    body = {
        "apiVersion": API_VERSION,
        "kind": "MachineOutput",
        "metadata": {"name": "cluster", "namespace": tenant.namespace},
        "spec": {"bot": "deployer", "kubernetes": settings},
    }
    with pytest.raises(KubectlError) as refusal:
        plane.kubectl("create", "--filename=-", "--validate=strict", input=json.dumps(body))
    assert message in str(refusal.value)
