"""The control plane that everything else is tested on: it is real, it can go away and come back, and it leaves nothing behind."""

import http.client
import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from controlplane.authentication import NotTakenError
from controlplane.cluster import ControlPlane, KubectlError, start_control_plane
from controlplane.commands import CLUSTER_ISSUER
from controlplane.pki import Authority
from controlplane.ports import get
from controlplane.processes import ProgramError
from support.kubernetes_access import User, user_of_certificate
from support.waiting import DEADLINE, eventually

pytestmark = pytest.mark.cluster

TOOLS = Path(__file__).parents[2] / "tools"

POLICY = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: no-forbidden-words}
spec:
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  validations: [{expression: "!object.metadata.name.contains('forbidden')", message: "such a name is forbidden"}]
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: no-forbidden-words}
spec: {policyName: no-forbidden-words, validationActions: [Deny]}
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    with start_control_plane(audit_log=True) as running:
        yield running


@pytest.fixture
def namespace(cluster: ControlPlane, request: pytest.FixtureRequest) -> str:
    """A namespace of the test's own, with its `default` ServiceAccount."""
    name = f"t-{abs(hash(request.node.name)):x}"[:40]
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", f"--namespace={name}", "--timeout=60s")
    return name


def processes_of(directory: Path) -> set[str]:
    """The names of the live programs whose command line names this directory."""
    names = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it ended while we looked
        if any(str(directory).encode() in word for word in command):
            names.add(Path(command[0].decode()).name)
    return names


def test_it_is_a_kubernetes(cluster: ControlPlane) -> None:
    assert "kube-system" in cluster.kubectl("get", "namespaces", "--output=name")
    server = json.loads(cluster.kubectl("version", "--output=json"))["serverVersion"]
    assert (server["major"], int(server["minor"].rstrip("+"))) >= ("1", 30)


def test_a_user_without_rights_is_refused(cluster: ControlPlane) -> None:
    with pytest.raises(KubectlError, match=r'secrets is forbidden: User "alice" cannot list'):
        cluster.kubectl("get", "secrets", user="alice", groups=["dev"])
    who = json.loads(cluster.kubectl("auth", "whoami", "--output=json", user="alice", groups=["dev"]))
    assert who["status"]["userInfo"]["username"] == "alice"
    assert who["status"]["userInfo"]["groups"] == ["dev", "system:authenticated"]


def pair_of(authority: Authority, directory: Path, user: str = "carol") -> tuple[Path, Path]:
    return authority.client(user, ["dev"]).write(directory, user)


def test_clients_of_another_authority_count_inside_the_block_and_nowhere_else(cluster: ControlPlane, tmp_path: Path) -> None:
    first, second = Authority("first"), Authority("second")
    carol, dora = pair_of(first, tmp_path), pair_of(second, tmp_path, "dora")
    assert user_of_certificate(cluster, *carol) is None
    with cluster.accepting_clients(first.certificate):
        assert user_of_certificate(cluster, *carol) == User("carol", ("dev",))
        with cluster.accepting_clients(second.certificate, first.certificate):
            assert user_of_certificate(cluster, *dora) == User("dora", ("dev",))
        assert user_of_certificate(cluster, *dora) is None
        assert user_of_certificate(cluster, *carol) == User("carol", ("dev",))
        cluster.kubectl("get", "namespaces")
    assert user_of_certificate(cluster, *carol) is None


def test_something_else_than_a_certificate_is_no_authority_of_clients(cluster: ControlPlane) -> None:
    before = cluster.directory.joinpath("pki", "client-ca.crt").read_bytes()
    with pytest.raises(ValueError, match="PEM"), cluster.accepting_clients(b"-----BEGIN"):
        pass
    assert cluster.directory.joinpath("pki", "client-ca.crt").read_bytes() == before


def test_an_issuer_of_tokens_that_is_no_https_address_is_refused_and_forgotten(cluster: ControlPlane) -> None:
    entry = {"issuer": {"url": "http://plain.example.test", "audiences": ["x"]}, "claimMappings": {"username": {"claim": "sub"}}}
    with pytest.raises(NotTakenError, match=r"kube-apiserver\.log"), cluster.accepting_tokens(entry):
        pass
    assert b"plain.example.test" not in cluster.directory.joinpath("authentication.json").read_bytes()
    cluster.kubectl("get", "namespaces")


def test_who_shows_nothing_is_anonymous_still(cluster: ControlPlane) -> None:
    address = urlsplit(cluster.url)
    tls = ssl.create_default_context(cadata=cluster.ca_pem.decode())
    connection = http.client.HTTPSConnection(address.hostname or "", address.port, context=tls, timeout=DEADLINE)
    status, body = get(connection, "/api/v1/namespaces")
    assert (status, b'User \\"system:anonymous\\" cannot' in body) == (http.HTTPStatus.FORBIDDEN, True)


def test_rights_of_a_group_reach_its_users(cluster: ControlPlane, namespace: str) -> None:
    cluster.kubectl("create", "rolebinding", "view", "--clusterrole=view", "--group=viewers", f"--namespace={namespace}")
    command = ["get", "configmaps", f"--namespace={namespace}"]
    eventually("the role binding reaches the authorizer", lambda: _allowed(cluster, *command))
    with pytest.raises(KubectlError, match="forbidden"):
        cluster.kubectl(*command, user="bob", groups=["others"])


def _allowed(cluster: ControlPlane, *command: str) -> bool:
    try:
        cluster.kubectl(*command, user="bob", groups=["viewers"])
    except KubectlError:
        return False
    return True


def test_a_service_account_token_passes_a_token_review(cluster: ControlPlane, namespace: str) -> None:
    token = cluster.kubectl("create", "token", "default", f"--namespace={namespace}", f"--audience={CLUSTER_ISSUER}").strip()
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token, "audiences": [CLUSTER_ISSUER]},
    }
    answer = json.loads(cluster.kubectl("create", "--filename=-", "--output=json", input=json.dumps(review)))
    assert answer["status"]["authenticated"] is True
    assert answer["status"]["user"]["username"] == f"system:serviceaccount:{namespace}:default"
    assert answer["status"]["audiences"] == [CLUSTER_ISSUER]


def test_oidc_discovery_answers_a_service_account(cluster: ControlPlane, namespace: str) -> None:
    kubeconfig = f"--kubeconfig={cluster.service_account_kubeconfig(namespace, 'default')}"
    assert f"{namespace}:default" in cluster.kubectl(kubeconfig, "auth", "whoami", "--output=json")
    discovery = json.loads(cluster.kubectl(kubeconfig, "get", "--raw", "/.well-known/openid-configuration"))
    assert discovery["issuer"] == cluster.url
    assert discovery["jwks_uri"] == f"{cluster.url}/openid/v1/jwks"
    keys = json.loads(cluster.kubectl(kubeconfig, "get", "--raw", "/openid/v1/jwks"))["keys"]
    assert [key["alg"] for key in keys] == ["RS256"]


def test_admission_policies_are_enforced(cluster: ControlPlane, namespace: str) -> None:
    cluster.kubectl("apply", "--filename=-", input=POLICY)
    create = ["create", "configmap", "forbidden-fruit", f"--namespace={namespace}", "--dry-run=server"]

    def refused() -> bool:
        try:
            cluster.kubectl(*create)
        except KubectlError as error:
            return "such a name is forbidden" in str(error)
        return False

    eventually("the policy is in force", refused)


def test_garbage_is_collected_and_namespaces_go_away(cluster: ControlPlane, namespace: str) -> None:
    here = f"--namespace={namespace}"
    cluster.kubectl("create", "configmap", "owner", here)
    uid = cluster.kubectl("get", "configmap", "owner", here, "--output=jsonpath={.metadata.uid}")
    owned = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "owned",
            "ownerReferences": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": uid}],
        },
    }
    cluster.kubectl("create", "--filename=-", here, input=json.dumps(owned))
    cluster.kubectl("delete", "configmap", "owner", here)
    cluster.kubectl("wait", "--for=delete", "configmap/owned", here, "--timeout=60s")
    cluster.kubectl("delete", "namespace", namespace, "--timeout=60s")


def test_a_deployment_gets_its_pods(cluster: ControlPlane, namespace: str) -> None:
    here = f"--namespace={namespace}"
    cluster.kubectl("create", "deployment", "web", "--image=example.test/web", "--replicas=2", here)
    pods = ["get", "pods", here, "--output=name"]
    eventually("two pods", lambda: len(cluster.kubectl(*pods).split()) == 2)


def test_writes_stand_in_the_audit_log_and_reads_do_not(cluster: ControlPlane, namespace: str) -> None:
    cluster.kubectl("create", "configmap", "audited", f"--namespace={namespace}")
    cluster.kubectl("get", "configmap", "audited", f"--namespace={namespace}")
    events = [event for event in cluster.audit_events() if event["objectRef"].get("name") == "audited"]
    assert [(event["verb"], event["user"]["username"]) for event in events] == [("create", "admin")]
    assert "requestObject" not in events[0]


def test_the_server_tells_its_metrics(cluster: ControlPlane) -> None:
    assert "apiserver_request_total{" in cluster.server_metrics()


def test_the_environment_is_enough_for_other_programs(cluster: ControlPlane) -> None:
    listed = subprocess.run(["kubectl", "get", "nodes"], env=cluster.env, capture_output=True, text=True, check=True)
    assert listed.stderr == "No resources found\n"
    found = subprocess.run(["helm", "list", "--short"], env=cluster.env, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == ""


def test_the_api_server_goes_away_and_comes_back(cluster: ControlPlane, namespace: str) -> None:
    cluster.kubectl("create", "configmap", "kept", f"--namespace={namespace}")
    before = cluster.api_server_pid
    with cluster.api_server_stopped():
        with pytest.raises(ConnectionRefusedError):
            cluster.server_metrics()
        with pytest.raises(ProgramError, match="kube-apiserver does not run"):
            _ = cluster.api_server_pid
        cluster.check()
    assert cluster.api_server_pid != before
    assert cluster.kubectl("get", "configmap", "kept", f"--namespace={namespace}", "--output=name") == "configmap/kept\n"


def test_the_api_server_hangs_and_goes_on(cluster: ControlPlane) -> None:
    with cluster.api_server_paused(), pytest.raises(KubectlError, match="not done after 1 s"):
        cluster.kubectl("get", "namespaces", timeout=1)
    cluster.kubectl("get", "namespaces")


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(FileExistsError, match="is not empty"), start_control_plane(tmp_path):
        pass


def test_a_wrong_flag_shows_what_the_server_said_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(ProgramError, match=r"kube-apiserver died with exit code 1[\s\S]*--no-such-flag"),
        start_control_plane(tmp_path / "here", api_server_flags=["--no-such-flag"]),
    ):
        pass
    assert processes_of(tmp_path) == set()


@pytest.fixture
def up(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """`controlplane up` in `tmp_path/up`, ready."""
    command = [sys.executable, "-m", "controlplane", "up", f"--directory={tmp_path / 'up'}"]
    environment = {**os.environ, "PYTHONPATH": str(TOOLS)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as helper:
        try:
            assert helper.stdout is not None
            assert helper.stdout.readline().startswith(f"export KUBECONFIG={tmp_path / 'up'}/")
            yield helper
        finally:
            helper.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills the children of a killed parent")
def test_a_killed_helper_leaves_no_process_behind(up: subprocess.Popen[str], tmp_path: Path) -> None:
    assert processes_of(tmp_path) >= {"etcd", "kube-apiserver", "kube-controller-manager"}
    up.kill()
    up.wait()
    eventually("the kernel killed the parts", lambda: processes_of(tmp_path) == set())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_helper_told_to_end_stops_everything_first(up: subprocess.Popen[str], tmp_path: Path, number: signal.Signals) -> None:
    up.send_signal(number)
    assert up.wait(DEADLINE) == 0
    assert processes_of(tmp_path) == set()
    assert (tmp_path / "up" / "logs" / "kube-apiserver.log").exists()
