"""The Secret of a `kubernetes` output with `argoCD`: found, read and used as Argo CD does ("Declarative Setup", Clusters)."""

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controlplane.cluster import ControlPlane, KubectlError
from support.credentials import StoredSecret, write_all
from support.inprocess import RunningOperator
from support.kubernetes_access import Kubectl, User, kubectl_by_flags
from support.stage import API_VERSION, Stage, Tenant, unique
from support.waiting import eventually
from workbench.chart import CLUSTER_NAME

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("trusted")]
pytest_plugins = ["support.fixtures"]

SELECTOR = "argocd.argoproj.io/secret-type=cluster"
"""By which Argo CD looks for its clusters, in its own namespace."""

ROLE: dict[str, Any] = {"allow": {"kubernetesGroups": ["argocd:deployers"]}}


@dataclass(frozen=True)
class ArgoCluster:
    """A cluster as Argo CD reads it from a Secret; field by field, and nothing else counts."""

    name: str
    server: str
    project: str
    namespaces: tuple[str, ...]
    cluster_resources: bool
    config: dict[str, Any]
    labels: dict[str, str]

    @classmethod
    def read(cls, secret: StoredSecret) -> "ArgoCluster":
        data = {key: value.decode() for key, value in secret.data.items()}
        return cls(
            name=data["name"],
            server=data["server"].rstrip("/"),
            project=data.get("project", ""),
            namespaces=tuple(each.strip() for each in data.get("namespaces", "").split(",") if each.strip()),
            cluster_resources=data.get("clusterResources") == "true",
            config=json.loads(data["config"]),
            labels={key: value for key, value in secret.labels.items() if key != "argocd.argoproj.io/secret-type"},
        )

    def kubectl(self, plane: ControlPlane, directory: Path) -> Kubectl:
        """A client made from `config.tlsClientConfig` and nothing else. Kubectl is client-go, as Argo CD is, and the fields are
        those of client-go's TLSClientConfig, whose bytes are base64 in JSON.
        """
        assert self.config.keys() == {"tlsClientConfig"}
        tls = self.config["tlsClientConfig"]
        assert tls.keys() == {"insecure", "caData", "certData", "keyData"}
        files = {name: base64.b64decode(tls[name], validate=True) for name in ("caData", "certData", "keyData")}
        paths = write_all(directory / unique("tls"), files)
        return kubectl_by_flags(
            plane,
            directory,
            server=self.server,
            insecure_skip_tls_verify=json.dumps(tls["insecure"]),
            certificate_authority=paths["caData"],
            client_certificate=paths["certData"],
            client_key=paths["keyData"],
        )


@pytest.fixture(scope="module")
def trusted(stage: Stage, authority: str, operator_of_module: RunningOperator) -> Iterator[None]:
    """The API server takes the Kubernetes CA of the module's authority."""
    assert operator_of_module.running
    with stage.tenant(authority) as tenant:
        tenant.bot(roles=(stage.role(**ROLE),))
        tenant.output("cluster", kubernetes={})
        tenant.ready("cluster")
        authorities = tenant.secret("cluster").data["ca.crt"]
    with stage.release.cluster.accepting_clients(authorities):
        yield


@pytest.fixture
def argocd(tenant: Tenant) -> Tenant:
    """A namespace with a bot, as Argo CD's is."""
    tenant.bot("argocd", roles=(tenant.stage.role(**ROLE),))
    return tenant


def cluster_of(argocd: Tenant, name: str = "staging", *, secret: dict[str, Any] | None = None, **settings: Any) -> StoredSecret:
    """The Secret of an output for Argo CD that is Ready."""
    argocd.output(name, bot="argocd", secret=secret or {}, kubernetes={"argoCD": True, **settings})
    argocd.ready(name)
    return argocd.secret(name)


def test_argo_cd_finds_the_cluster_and_lists_with_its_client(argocd: Tenant, plane: ControlPlane, tmp_path: Path) -> None:
    cluster_of(argocd, context="staging")
    found = json.loads(
        plane.kubectl("get", "secrets", f"--namespace={argocd.namespace}", f"--selector={SELECTOR}", "--output=json")
    )["items"]
    (cluster,) = [ArgoCluster.read(StoredSecret(body)) for body in found]
    assert (cluster.name, cluster.server) == ("staging", plane.url)
    assert (cluster.project, cluster.namespaces, cluster.cluster_resources) == ("", (), False)
    client = cluster.kubectl(plane, tmp_path)
    assert client.whoami() == User(f"bot:{argocd.namespace}:argocd", ("argocd:deployers",))
    plane.kubectl(
        "create", "rolebinding", "argocd", "--clusterrole=edit", "--group=argocd:deployers", f"--namespace={argocd.namespace}"
    )
    listing = ("get", "configmaps", f"--namespace={argocd.namespace}", "--output=name")
    eventually("the role binding counts", lambda: _lists(client, listing))
    with pytest.raises(KubectlError, match=rf'Forbidden.*User "bot:{argocd.namespace}:argocd" cannot list'):
        client("get", "configmaps", "--all-namespaces")


def _lists(client: Kubectl, listing: tuple[str, ...]) -> bool:
    try:
        return client(*listing) == "configmap/kube-root-ca.crt\n"
    except KubectlError:
        return False


def test_the_secret_holds_nothing_but_what_argo_cd_reads(argocd: Tenant) -> None:
    secret = cluster_of(argocd)
    assert set(secret.data) == {"name", "server", "config"}
    assert secret.body["type"] == "Opaque"
    assert secret.data["name"].decode() == CLUSTER_NAME
    assert json.loads(secret.data["config"])["tlsClientConfig"]["insecure"] is False


def test_its_scope_is_what_the_output_says(argocd: Tenant, plane: ControlPlane, tmp_path: Path) -> None:
    secret = cluster_of(
        argocd,
        server=plane.url.replace("127.0.0.1", "localhost") + "/",
        certificateAuthority=plane.ca_pem.decode(),
        project="team-web",
        namespaces=["web", "web-staging"],
        clusterResources=True,
    )
    cluster = ArgoCluster.read(secret)
    assert (cluster.project, cluster.namespaces, cluster.cluster_resources) == ("team-web", ("web", "web-staging"), True)
    assert cluster.kubectl(plane, tmp_path).whoami().groups == ("argocd:deployers",)


@pytest.mark.parametrize("wanted", [False, None])
def test_what_has_no_namespace_is_left_alone_unless_it_is_asked_for(argocd: Tenant, wanted: bool | None) -> None:
    settings = {} if wanted is None else {"clusterResources": wanted}
    cluster = ArgoCluster.read(cluster_of(argocd, namespaces=["web"], **settings))
    assert (cluster.namespaces, cluster.cluster_resources) == (("web",), False)


def test_labels_of_the_output_are_labels_of_the_cluster(argocd: Tenant) -> None:
    # Generators of ApplicationSets select clusters by them.
    secret = cluster_of(argocd, secret={"labels": {"env": "staging"}, "annotations": {"example.test/owner": "web"}})
    assert ArgoCluster.read(secret).labels["env"] == "staging"
    assert secret.annotations["example.test/owner"] == "web"


def test_a_renewed_cluster_keeps_its_label_and_gets_a_new_key(argocd: Tenant, plane: ControlPlane, tmp_path: Path) -> None:
    old = cluster_of(argocd, secret={"labels": {"env": "staging"}})
    argocd.annotate("staging", renew="1")
    eventually("it is renewed", lambda: argocd.secret("staging").version != old.version)
    new = argocd.secret("staging")
    assert new.labels == old.labels
    assert new.data["config"] != old.data["config"]
    for secret in (old, new):
        assert ArgoCluster.read(secret).kubectl(plane, tmp_path).whoami().groups == ("argocd:deployers",)


def test_an_output_becomes_a_cluster_of_argo_cd_and_a_kubeconfig_again(argocd: Tenant) -> None:
    argocd.output("staging", bot="argocd", kubernetes={})
    argocd.ready("staging")
    uid = argocd.secret("staging").uid
    argocd.change("MachineOutput", "staging", kubernetes={"argoCD": True})
    eventually("it is a cluster", lambda: set(argocd.secret("staging").data) == {"name", "server", "config"})
    assert argocd.secret("staging").labels["argocd.argoproj.io/secret-type"] == "cluster"
    argocd.change("MachineOutput", "staging", kubernetes={"argoCD": False})
    eventually("it is a kubeconfig", lambda: set(argocd.secret("staging").data) == {"kubeconfig.yaml", "ca.crt"})
    assert "argocd.argoproj.io/secret-type" not in argocd.secret("staging").labels
    assert argocd.secret("staging").uid == uid


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a project without Argo CD": ({"kubernetes": {"project": "web"}}, "are for Argo CD: set argoCD: true, or leave them out"),
    "namespaces without Argo CD": (
        {"kubernetes": {"argoCD": False, "namespaces": ["web"]}},
        "are for Argo CD: set argoCD: true, or leave them out",
    ),
    "the namespace of kubectl": ({"kubernetes": {"argoCD": True, "namespace": "web"}}, "namespace is for kubectl"),
    "clusterResources alone": (
        {"kubernetes": {"argoCD": True, "clusterResources": True}},
        "clusterResources counts only beside namespaces",
    ),
    "the same namespace twice": ({"kubernetes": {"argoCD": True, "namespaces": ["a", "a"]}}, "Duplicate value"),
    "a namespace with a comma": (
        {"kubernetes": {"argoCD": True, "namespaces": ["a,kube-system"]}},
        "must be the name of an object",
    ),
    "its label by hand": (
        {"kubernetes": {"argoCD": True}, "secret": {"labels": {"argocd.argoproj.io/secret-type": "repository"}}},
        "labels of Argo CD and kubectl",
    ),
}


@pytest.mark.parametrize(("spec", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_argo_cd_would_pass_over_is_refused(argocd: Tenant, plane: ControlPlane, spec: dict[str, Any], message: str) -> None:
    body = {
        "apiVersion": API_VERSION,
        "kind": "MachineOutput",
        "metadata": {"name": "staging", "namespace": argocd.namespace},
        "spec": {"bot": "argocd", **spec},
    }
    with pytest.raises(KubectlError) as refusal:
        plane.kubectl("create", "--filename=-", "--validate=strict", input=json.dumps(body))
    assert message in str(refusal.value)


def test_a_secret_of_the_type_tls_has_no_place_for_it(argocd: Tenant) -> None:
    argocd.output("staging", bot="argocd", secret={"type": "kubernetes.io/tls"}, kubernetes={"argoCD": True})
    assert "leave secret.type out" in argocd.refused("NotTLS", "staging")["message"]
