"""The agent as a process outside of the cluster, against the operator on a real API server."""

import http.client
import json
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509

from controlplane.cluster import ControlPlane
from controlplane.ports import ReservedPort
from machinebot.client.pins import pin_of
from machinebot.joins.methods.token import secret_hash
from support.agents import AgentFiles, notified, stop
from support.inprocess import RunningOperator
from support.joining import Client, client_of, join_token, pod_token
from support.stage import Stage, Tenant, unique
from support.verifier import public_of
from support.waiting import eventually
from workbench.chart import CLUSTER_NAME

pytestmark = [pytest.mark.cluster]
pytest_plugins = ["support.fixtures"]

SECRET = "d" * 64
EXPIRES = "2099-01-01T00:00:00Z"
OUTPUTS = {
    "ssh": {"identity": {}},
    "jwt": {"jwtSVID": {"audiences": ["vault"]}},
    "host": {"sshHost": {"principals": ["web.node.example.test"]}},
}


@pytest.fixture
def bot(stage: Stage, tenant: Tenant) -> str:
    allow = {"logins": ["deploy"], "jwtAudiences": ["vault"], "hostPrincipals": ["*.node.example.test"], "spiffePaths": ["*"]}
    return tenant.bot(roles=(stage.role(allow=allow),))


@pytest.fixture
def client(stage: Stage, running: RunningOperator) -> Client:
    eventually("it is ready", lambda: running.get("/readyz")[0] == 200)
    return client_of(stage, running.https_port)


@pytest.fixture
def seen(client: Client, tenant: Tenant) -> Callable[[str], str]:
    """Waits until the operator has seen a join token."""

    def wait(name: str) -> str:
        body = {"namespace": tenant.namespace, "joinToken": name, "publicKey": client.public_key}
        eventually(f"{name} is seen", lambda: client.post("/v1/challenge", body).status == 200)
        return name

    return wait


@pytest.fixture
def by_pod(
    plane: ControlPlane, tenant: Tenant, bot: str, client: Client, seen: Callable[[str], str], tmp_path: Path
) -> AgentFiles:
    """An agent with the token of a pod."""
    rules = {"allow": [{"serviceAccount": f"{tenant.namespace}:default"}]}
    name = seen(join_token(tenant, bot=bot, kubernetes=rules))
    (tmp_path / "token").write_text(pod_token(plane, tenant.namespace, audience=CLUSTER_NAME))
    onboarding = {
        "namespace": tenant.namespace,
        "joinToken": name,
        "method": "kubernetes",
        "kubernetes": {"tokenPath": str(tmp_path / "token")},
    }
    return AgentFiles(tmp_path, client.port, client.authority, onboarding, OUTPUTS)


@pytest.fixture
def by_secret(tenant: Tenant, bot: str, client: Client, seen: Callable[[str], str], tmp_path: Path) -> Iterator[AgentFiles]:
    """An agent with a secret in its environment."""
    name = seen(join_token(tenant, "machine", bot=bot, expires=EXPIRES, token={"secretHash": secret_hash(SECRET)}))
    onboarding = {"namespace": tenant.namespace, "joinToken": name, "method": "token"}
    held = ReservedPort(socket.SO_REUSEADDR)
    more = {"health": {"listen": f"127.0.0.1:{held.number}"}}
    environment = {"MACHINEBOT_JOIN_SECRET": SECRET}
    yield AgentFiles(tmp_path, client.port, client.authority, onboarding, OUTPUTS, more, environment)
    held.release()


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, check=False, text=True)
    assert done.returncode == 0, done
    return done.stdout


def health(agent: AgentFiles, path: str) -> tuple[int, str]:
    host, _, port = agent.more["health"]["listen"].partition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_a_oneshot_writes_files_that_programs_read(by_pod: AgentFiles, tenant: Tenant) -> None:
    done = by_pod.once()
    assert done.returncode == 0, done.stderr
    assert {json.loads(line)["message"] for line in done.stderr.splitlines()} == {
        "joined",
        "output written",
        "the CAs of the server are kept",
    }
    for name in OUTPUTS:
        assert by_pod.whole(name).serial
    ssh = by_pod.home / "ssh"
    told = run("ssh-keygen", "-L", "-f", ssh / "key-cert.pub")
    assert f"bot:{tenant.namespace}:deployer" in told
    assert "deploy" in told
    run("openssl", "verify", "-CAfile", ssh / "ca.crt", ssh / "tls.crt")
    assert run("ssh-keygen", "-y", "-f", ssh / "key").split()[:2] == (ssh / "key.pub").read_text().split()[:2]
    assert (by_pod.home / "jwt" / "jwt_svid").read_text().count(".") == 2


def test_a_server_is_known_by_a_pin(by_pod: AgentFiles, client: Client) -> None:
    ca = x509.load_pem_x509_certificates(client.authority)[0]
    by_pod.more["ca"] = {"pins": [pin_of(ca)]}
    done = by_pod.once()
    assert done.returncode == 0, done.stderr
    by_pod.more["ca"] = {"pins": ["sha256:" + "0" * 64]}
    done = by_pod.once()
    assert done.returncode == 1
    assert "CAPinMismatch" in done.stderr


def test_a_refused_output_fails_the_oneshot_and_says_why(by_pod: AgentFiles) -> None:
    by_pod.outputs = {**OUTPUTS, "bad": {"identity": {}, "roles": ["unknown"]}}
    done = by_pod.once()
    assert done.returncode == 1
    failed = [json.loads(line) for line in done.stderr.splitlines() if "ERROR" in line]
    assert [(line["output"], line["reason"]) for line in failed] == [("bad", "RoleNotOfBot")]
    assert by_pod.whole("ssh").serial


@pytest.mark.usefixtures("cleared")
def test_a_daemon_lives_through_restarts_signals_and_a_lock(by_secret: AgentFiles, stage: Stage, tenant: Tenant) -> None:
    with notified(by_secret.home / "notify") as systemd:
        with by_secret.daemon(NOTIFY_SOCKET=str(by_secret.home / "notify")) as process:
            eventually("it is ready", lambda: systemd.recv(4096).startswith(b"READY=1\n"), interval=0)
            status, body = health(by_secret, "/readyz")
            assert (status, json.loads(body)["ready"]) == (200, True)
            first = {name: by_secret.whole(name) for name in OUTPUTS}
            process.send_signal(signal.SIGUSR1)
            eventually("all is renewed", lambda: all(by_secret.whole(name) != first[name] for name in OUTPUTS))
            eventually(
                "it says so",
                lambda: 'machinebot_joins_total{method="renewal",result="success"} 1.0' in health(by_secret, "/metrics")[1],
            )
            process.kill()
        second = {name: by_secret.whole(name) for name in OUTPUTS}
        by_secret.environment.clear()  # the secret is used up, and not needed any more
        with by_secret.daemon(NOTIFY_SOCKET=str(by_secret.home / "notify")) as process:
            eventually("it is ready again", lambda: health(by_secret, "/readyz")[0] == 200)
            assert {name: by_secret.whole(name) for name in OUTPUTS} == second, "nothing is issued"
            instance = tenant.get("MachineJoinToken", "machine")["status"]["instance"]
            assert instance["generation"] == 2
            lock = unique("lock")
            make_lock(stage, lock, {"instance": instance["id"]})
            process.send_signal(signal.SIGHUP)
            eventually("it is told", lambda: json.loads(health(by_secret, "/readyz")[1])["identity"].get("reason") == "Locked")
            assert health(by_secret, "/readyz")[0] == 200
            assert {name: by_secret.whole(name) for name in OUTPUTS} == second, "the files stay"
            stage.release.cluster.kubectl("delete", "machinelock", lock)
            eventually("it goes on", lambda: renewed(by_secret, process, second))
            assert stop(process) == 0
    assert SECRET not in (by_secret.home / "log").read_text()


def make_lock(stage: Stage, name: str, target: dict[str, str]) -> None:
    body = {
        "apiVersion": "machinebot.dev/v1alpha1",
        "kind": "MachineLock",
        "metadata": {"name": name},
        "spec": {"target": target, "message": "a test"},
    }
    stage.release.cluster.kubectl("create", "--filename=-", input=json.dumps(body))


def renewed(agent: AgentFiles, process: subprocess.Popen[bytes], before: dict[str, object]) -> bool:
    process.send_signal(signal.SIGUSR1)
    return all(agent.whole(name) != before[name] for name in OUTPUTS)


def test_the_ca_of_the_operator_is_the_one_in_its_status(stage: Stage, client: Client) -> None:
    assert client.authority == public_of(stage.authority_ready("default"), "identity")
