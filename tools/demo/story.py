"""The steps of the demo."""

import base64
import json
import os
import pwd
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from controlplane.cluster import ControlPlane, start_control_plane
from controlplane.processes import tail
from demo.narration import Narrator
from workbench.chart import CHART, CLUSTER_NAME, Release, install_chart
from workbench.operator import OperatorProcess
from workbench.sshd import SSHServer, ssh, write_files

ROOT: Final = Path(__file__).parents[2]
"""The checkout."""

EXAMPLES: Final = ROOT / "examples"
"""What is applied."""

STEPS: Final = 8
"""How many steps are told."""

NAMESPACE: Final = "ci"
OUTPUT: Final = "deployer"
SECRET: Final = "deployer-ssh"  # noqa: S105 - a name
LOGIN: Final = "deploy"
"""The output of the examples that logs in, its Secret, and the login that it carries."""

HOST_NAMESPACE: Final = "hosts"
HOST: Final = "web-1"
HOST_NAME: Final = "web-1.node.example.test"
"""The output of the examples that the server has its host key from, and the name that it proves."""

READY: Final = "--timeout=60s"
"""For `kubectl wait`; a second is usual."""

POLL_SECONDS: Final = 0.5
"""How soon it is noticed that a part died while a person looks around."""

LOG_LINES: Final = 25
"""Of the operator's log where a step failed."""


class StepError(RuntimeError):
    """A step did not come out as it should; the text says how."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs once everything is up.

    Attributes:
        cluster: The control plane.
        operator: The operator.
        server: The sshd.
        files: The credential that the last login was with.
        suggestions: What to try next, and the command.
    """

    cluster: ControlPlane
    operator: OperatorProcess
    server: SSHServer
    files: dict[str, Path]
    suggestions: Sequence[tuple[str, str]]


class Demo:
    """The demo.

    Args:
        narrator: Tells it.
        directory: For logs and files; somebody else removes it.
    """

    steps = STEPS

    def __init__(self, narrator: Narrator, directory: Path) -> None:
        self._tell = narrator
        self._directory = directory
        self._operator: OperatorProcess | None = None

    @contextmanager
    def run(self) -> Iterator[Stage]:
        """Every step up to the second login; inside the block everything runs."""
        step = self._tell.step
        with ExitStack() as running:
            cluster, operator = self._begin(running)
            with step("Look at what there is now"):
                self._look(cluster)
            server = self._start_server(cluster, running)
            with step("Log in over SSH with the files of the Secret deployer-ssh, and nothing else"):
                self._login(cluster, server)
            with step("Have the credential replaced now, and log in with the new one"):
                files = self._rotate(cluster, server)
            yield Stage(cluster, operator, server, files, SUGGESTIONS)

    def operator_log(self) -> str:
        """The end of the operator's log, or that there is none."""
        return "    (it was not started)" if self._operator is None else tail(self._operator.log, LOG_LINES)

    # --- steps ----------------------------------------------------------------------------------------------------

    def _begin(self, running: ExitStack) -> tuple[ControlPlane, OperatorProcess]:
        """The steps that every story begins with: a cluster, the operator, and the examples, Ready."""
        step = self._tell.step
        with step("Start a real Kubernetes control plane on this machine"):
            cluster = running.enter_context(start_control_plane(self._directory / "cluster"))
            self._tell.explain(f"etcd, kube-apiserver and kube-controller-manager run; the API server is {cluster.url}")
        with step("Install Machinebot with Helm, as on any cluster"):
            release = self._install(cluster)
        with step("Start the operator as the chart's Deployment says"):
            operator = running.enter_context(self._prepare_operator(release))
            operator.wait_ready()
        with step("Apply the examples and wait until everything is Ready"):
            self._apply(cluster)
        return cluster, operator

    def _start_server(self, cluster: ControlPlane, running: ExitStack) -> SSHServer:
        with self._tell.step("Start an OpenSSH server with the host certificate of the Secret web-1"):
            return running.enter_context(self._server(cluster))

    def _install(self, cluster: ControlPlane) -> Release:
        self._tell.command(
            f"helm install machinebot {CHART.relative_to(ROOT)} --namespace machinebot-system --create-namespace "
            f"--set authority.clusterName={CLUSTER_NAME}"
        )
        release = install_chart(cluster)
        self._show(cluster, "get", "crds", "--output=name")
        return release

    def _prepare_operator(self, release: Release) -> OperatorProcess:
        self._operator = operator = OperatorProcess.from_release(release, self._directory)
        self._tell.explain(
            "There is no kubelet here that could run the pod, so it is a process on this machine instead,",
            f"with the Deployment's arguments and the rights of {release.operator_user}:",
        )
        self._tell.command(shlex.join(["machinebot", *operator.command[operator.command.index("operator") :]]))
        return operator

    def _apply(self, cluster: ControlPlane) -> None:
        self._tell.command("kubectl apply -f examples/")
        self._tell.output(cluster.kubectl("apply", "-f", str(EXAMPLES)))
        self._show(cluster, "wait", "--for=condition=Ready", "machineauthority/default", READY)
        self._show(cluster, "wait", "--for=condition=Ready", "machinebots,machineoutputs", "--all", "-A", READY)

    def _look(self, cluster: ControlPlane) -> None:
        events = "custom-columns=OUTPUT:.involvedObject.name,MESSAGE:.message"
        for line in (
            "get machine-identity -A",
            "get secrets -A -l app.kubernetes.io/managed-by=machinebot",
            f"get events -n {NAMESPACE} --field-selector reason=Issued -o {events}",
        ):
            self._show(cluster, *line.split())
        self._tell.explain("The lives of these credentials, and who reduced them:")
        columns = "NAME:.metadata.name,TTL:.status.ttl,REDUCED BY:.status.ttlReducedBy,LOGINS:.status.granted.logins[*].name"
        self._show(cluster, "get", "machineoutputs", "-A", "-o", f"custom-columns={columns}")

    def _server(self, cluster: ControlPlane) -> SSHServer:
        files = self._files(cluster, HOST_NAMESPACE, HOST, "server")
        self._tell.explain(
            "HostKey, HostCertificate and TrustedUserCAKeys of its sshd_config are the files of that Secret.",
            f"It lets in whoever has a certificate of our CA with the login {LOGIN}. It knows no passwords and no keys.",
        )
        return SSHServer(
            self._directory / "server",
            trusted_user_ca_keys=files["ssh_host-user-ca.pub"],
            host_key=files["ssh_host"],
            host_certificate=files["ssh_host-cert.pub"],
            authorized_principals=[LOGIN],
        )

    def _login(self, cluster: ControlPlane, server: SSHServer) -> None:
        files = self._files(cluster, NAMESPACE, SECRET, "client")
        self._show_certificate(files["key-cert.pub"])
        self._ssh(server, files)

    def _rotate(self, cluster: ControlPlane, server: SSHServer) -> dict[str, Path]:
        before = _serial(cluster)
        wish = "demo-1"
        self._show(cluster, "annotate", "mout", OUTPUT, "-n", NAMESPACE, f"machinebot.dev/renew={wish}", "--overwrite")
        fulfilled = "jsonpath={.status.renewToken}=" + wish
        self._show(cluster, "wait", "-n", NAMESPACE, f"--for={fulfilled}", f"mout/{OUTPUT}", READY)
        after = _serial(cluster)
        self._tell.explain(f"serial before: {before}", f"serial after:  {after}")
        if before == after:
            raise StepError("the serial is still the same: nothing was issued")
        files = self._files(cluster, NAMESPACE, SECRET, "client")
        self._ssh(server, files)
        return files

    # --- helpers --------------------------------------------------------------------------------------------------

    def _show(self, cluster: ControlPlane, *arguments: str) -> None:
        self._tell.command(shlex.join(["kubectl", *arguments]))
        self._tell.output(cluster.kubectl(*arguments))

    def _files(self, cluster: ControlPlane, namespace: str, name: str, folder: str) -> dict[str, Path]:
        """Writes a Secret's keys as files, as the kubelet does where a pod mounts it."""
        secret = json.loads(cluster.kubectl("get", "secret", name, "-n", namespace, "-o", "json"))
        content = {key: base64.b64decode(value) for key, value in secret["data"].items()}
        files = write_files(self._directory / folder, content)
        self._tell.explain(f"Secret {namespace}/{name} as files in {self._directory / folder}:", f"  {' '.join(sorted(files))}")
        return files

    def _show_certificate(self, path: Path) -> None:
        self._tell.command(f"ssh-keygen -L -f {path}")
        self._tell.output(_certificate(path))

    def _ssh(self, server: SSHServer, files: dict[str, Path]) -> None:
        self._tell.command(command_line(server, files))
        done = ssh(
            *REMOTE,
            port=server.port,
            user=account(),
            key=files["key"],
            certificate=files["key-cert.pub"],
            known_hosts=files["known_hosts"],
            host_key_alias=HOST_NAME,
        )
        if done.returncode != 0:
            raise StepError(f"ssh ended with {done.returncode}:\n{done.stderr}\nthe end of sshd's log:\n{tail(server.log)}")
        self._tell.output(done.stdout)
        self._tell.explain("The server's log about it:")
        self._tell.output(_accepted(server.log))


REMOTE: Final = ("id", "-un")
"""What is run on the server."""

SUGGESTIONS: Final = (
    (
        "delete a credential, and see it come back",
        "kubectl delete secret deployer-ssh -n ci; sleep 1; kubectl get secret deployer-ssh -n ci",
    ),
    (
        "spoil one, and see it repaired; the event says why",
        """kubectl patch secret backup -n ci -p '{"data":{"key":"c3BvaWx0"}}'; sleep 1; kubectl get events -n ci""",
    ),
    ("which login came from where, and why it lives so long", "kubectl get mout deployer -n ci -o yaml"),
    (
        "take the login away: the role denies it now, and the output says NoLogins",
        """kubectl patch mrole deploy --type=merge -p '{"spec":{"deny":{"logins":["deploy"]}}}'; sleep 1; kubectl get mout -A""",
    ),
    ("give it back", """kubectl patch mrole deploy --type=merge -p '{"spec":{"deny":null}}'"""),
    (
        "ask for too much: refused, with what to write instead",
        """kubectl patch mauth default --type=merge -p '{"spec":{"maxTTL":"48h"}}'""",
    ),
)
"""What to try next, and the command."""


def account() -> str:
    """The account of this machine that the demo logs in to: that of the person who runs it."""
    return pwd.getpwuid(os.geteuid()).pw_name


def command_line(server: SSHServer, files: dict[str, Path]) -> str:
    """The login as a person would type it."""
    options = {
        "CertificateFile": files["key-cert.pub"],
        "UserKnownHostsFile": files["known_hosts"],
        "StrictHostKeyChecking": "yes",
        "HostKeyAlias": HOST_NAME,
        "IdentitiesOnly": "yes",
    }
    flags = " ".join(f"-o {name}={value}" for name, value in options.items())
    where = f"{account()}@127.0.0.1 {' '.join(REMOTE)}"
    return f"ssh -F none -p {server.port} -i {files['key']} {flags} {where}"


def _serial(cluster: ControlPlane) -> str:
    return cluster.kubectl("get", "mout", OUTPUT, "-n", NAMESPACE, "-o", "jsonpath={.status.serial}")


def _certificate(path: Path) -> str:
    """What the real ssh-keygen says about a certificate."""
    program = shutil.which("ssh-keygen")
    if program is None:
        raise StepError("there is no ssh-keygen on this machine: apt-get install openssh-client")
    done = subprocess.run([program, "-L", "-f", str(path)], capture_output=True, text=True, timeout=30, check=True)
    return "\n".join(done.stdout.splitlines()[1:])


def _accepted(log: Path) -> str:
    """The last line of sshd's log about a login that it accepted."""
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.startswith("Accepted publickey")]
    if not lines:
        raise StepError(f"sshd's log knows of no login:\n{tail(log)}")
    return re.sub(r" from \S+ port \d+ ssh2", "", lines[-1])
