"""The story of machines outside of the cluster: the agent joins by a secret and as a pod, and logs in with what it got."""

import json
import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import yaml
from typing_extensions import override

from controlplane.cluster import ControlPlane
from demo.story import NAMESPACE, READY, Demo, Stage, StepError
from workbench.chart import CLUSTER_NAME
from workbench.operator import PROGRAM, SOURCE, OperatorProcess
from workbench.sshd import SSHServer

AGENT_STEPS: Final = 9
"""How many steps are told."""

BOT: Final = "deployer"
ROLE: Final = "deploy"
"""The bot and the role of the examples that the agents use."""

ONE_MACHINE: Final = "build-7"
ALL_PODS: Final = "runners"
"""The join tokens that are made."""

ACCOUNT: Final = "runner"
POD: Final = "runner-1"
"""The ServiceAccount and the pod whose token is used."""

AGENT_SECONDS: Final = 90.0
"""For one `machinebot`; the agent itself gives up after 60 s of an operator that is away."""

SERVER_NAME: Final = "localhost"
"""A name that the certificate of the join API is good for, and that leads to this machine."""


class AgentDemo(Demo):
    """The story. It begins as the other one does."""

    steps = AGENT_STEPS

    @contextmanager
    @override
    def run(self) -> Iterator[Stage]:
        """Every step up to the last login; inside the block everything runs."""
        step = self._tell.step
        with ExitStack() as running:
            cluster, operator = self._begin(running)
            server = self._start_server(cluster, running)
            with step("Let one machine in by a secret that counts once"):
                self._make_secret(cluster)
            with step("Run the agent outside of the cluster: it joins by the secret; log in with its files"):
                self._join_by_secret(cluster, operator, server)
            with step("Try the same secret on another machine"):
                self._try_again(operator)
            with step("Let pods of a ServiceAccount in, and run the agent with the token of one; log in with its files"):
                files = self._join_as_pod(cluster, operator, server)
            yield Stage(cluster, operator, server, files, self._suggestions(operator))

    # --- steps ----------------------------------------------------------------------------------------------------

    def _make_secret(self, cluster: ControlPlane) -> None:
        words = f"tokens add {ONE_MACHINE} -n {NAMESPACE} --bot {BOT} --method token --expires 12h --apply".split()
        self._machinebot([*words, "--secret-file", str(self._secret)], cluster.env)
        self._ready(cluster, ONE_MACHINE)
        self._show(cluster, "get", "mjt", ONE_MACHINE, "-n", NAMESPACE, "-o", "jsonpath={.spec}")
        self._tell.explain("The resource has the hash alone, so that it may stand in Git; the secret goes to the machine.")

    def _join_by_secret(self, cluster: ControlPlane, operator: OperatorProcess, server: SSHServer) -> None:
        onboarding = {"joinToken": ONE_MACHINE, "method": "token", "token": {"secretFile": str(self._secret)}}
        self._identity_ca(cluster)
        self._run_agent("machine", operator, onboarding)
        self._log_in("machine", server)
        instance = "custom-columns=INSTANCE:.status.instance.id,GENERATION:.status.instance.generation"
        self._show(cluster, "get", "mjt", ONE_MACHINE, "-n", NAMESPACE, "-o", instance)

    def _try_again(self, operator: OperatorProcess) -> None:
        onboarding = {"joinToken": ONE_MACHINE, "method": "token", "token": {"secretFile": str(self._secret)}}
        said = self._run_agent("other", operator, onboarding, refused=True)
        if "SecretUsed" not in said:
            raise StepError("the agent failed, but not since the secret was used already")

    def _join_as_pod(self, cluster: ControlPlane, operator: OperatorProcess, server: SSHServer) -> dict[str, Path]:
        words = f"tokens add {ALL_PODS} -n {NAMESPACE} --bot {BOT} --method kubernetes --allow".split()
        self._machinebot([*words, f"serviceAccount={NAMESPACE}:{ACCOUNT}", "--apply"], cluster.env)
        self._ready(cluster, ALL_PODS)
        token = self._pod_token(cluster)
        onboarding = {"joinToken": ALL_PODS, "method": "kubernetes", "kubernetes": {"tokenPath": str(token)}}
        self._run_agent("pod", operator, onboarding)
        return self._log_in("pod", server)

    def _ready(self, cluster: ControlPlane, name: str) -> None:
        self._show(cluster, "wait", "-n", NAMESPACE, "--for=condition=Ready", f"mjt/{name}", READY)

    # --- the agent ------------------------------------------------------------------------------------------------

    @property
    def _secret(self) -> Path:
        return self._directory / "secret"

    @property
    def _ca(self) -> Path:
        return self._directory / "identity-ca.pem"

    def _identity_ca(self, cluster: ControlPlane) -> None:
        """What the agent knows the join API by."""
        self._ca.write_text(self._machinebot(["trust", "identity-ca"], cluster.env, to=self._ca))

    def _pod_token(self, cluster: ControlPlane) -> Path:
        """The token of a pod as a file."""
        self._tell.explain(
            "There is no kubelet here that runs a pod and projects its token into it, so kubectl asks for that very token:",
            f"for the audience {CLUSTER_NAME}, for ten minutes, bound to the pod.",
        )
        self._show(cluster, "create", "serviceaccount", ACCOUNT, "-n", NAMESPACE)
        spec = {"serviceAccountName": ACCOUNT, "automountServiceAccountToken": False}
        metadata = {"name": POD, "namespace": NAMESPACE}
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {**spec, "containers": [CONTAINER]}}
        self._tell.output(cluster.kubectl("create", "--filename=-", input=json.dumps(body)))
        arguments = f"create token {ACCOUNT} -n {NAMESPACE} --audience={CLUSTER_NAME} --duration=10m"
        bound = f"--bound-object-kind=Pod --bound-object-name={POD}"
        path = self._directory / "pod-token"
        self._tell.command(f"kubectl {arguments} {bound} > {path}")
        path.write_text(cluster.kubectl(*arguments.split(), *bound.split()))
        return path

    def _run_agent(self, name: str, operator: OperatorProcess, onboarding: Mapping[str, object], *, refused: bool = False) -> str:
        """Writes a configuration and runs the agent by it; returns what it said."""
        place = self._directory / name
        place.mkdir()
        config = {
            "server": _url(operator),
            "ca": {"file": str(self._ca)},
            "onboarding": {"namespace": NAMESPACE, **onboarding},
            "storage": {"directory": str(place / "identity")},
            "outputs": [{"name": "ssh", "roles": [ROLE], "identity": {}, "directory": {"path": str(place / "ssh")}}],
            "log": {"format": "console"},
        }
        path = place / "agent.yaml"
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        if not refused:
            self._tell.command(f"cat {path}")
            self._tell.output(path.read_text())
        # Nothing of the cluster: neither a kubeconfig nor a ServiceAccount.
        return self._machinebot(["agent", "--config", str(path), "--oneshot"], {}, refused=refused)

    def _log_in(self, name: str, server: SSHServer) -> dict[str, Path]:
        place = self._directory / name / "ssh"
        files = {path.name: path for path in place.iterdir() if not path.name.startswith(".")}
        self._tell.explain(f"Its files, in {place}:", f"  {' '.join(sorted(files))}")
        self._show_certificate(files["key-cert.pub"])
        self._ssh(server, files)
        return files

    def _machinebot(
        self, arguments: list[str], environment: Mapping[str, str], *, to: Path | None = None, refused: bool = False
    ) -> str:
        """Runs our program and tells it; returns what it printed.

        Args:
            arguments: Its arguments.
            environment: Its environment, but for what it takes to find it.
            to: The file that its output goes to, instead of to the screen.
            refused: Whether it must fail.

        Raises:
            StepError: It ended otherwise.
        """
        self._tell.command(shlex.join(["machinebot", *arguments]) + (f" > {to}" if to else ""))
        done = subprocess.run(
            [*PROGRAM, *arguments],
            env={
                "PATH": os.environ.get("PATH", os.defpath),
                "HOME": str(self._directory),
                **environment,
                "PYTHONPATH": str(SOURCE),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=AGENT_SECONDS,
            check=False,
        )
        if to is None or done.returncode:
            self._tell.output(done.stdout)
        if (done.returncode != 0) is not refused:
            raise StepError(f"machinebot {arguments[0]} ended with {done.returncode}")
        return done.stdout

    def _suggestions(self, operator: OperatorProcess) -> tuple[tuple[str, str], ...]:
        config = self._directory / "machine" / "agent.yaml"
        once = f"machinebot agent --config {config} --oneshot"
        return (
            ("replace the first machine's credential by hand: its identity is renewed, and its secret is not needed again", once),
            ("who has come lately, some 30 seconds behind", f"kubectl get mbot {BOT} -n {NAMESPACE} -o yaml"),
            ("what the join API offers to everybody", f"curl -s --cacert {self._ca} {_url(operator)}/v1/trust"),
            ("lock the bot", f"machinebot locks add --bot {NAMESPACE}/{BOT} --message 'a look at locks'"),
            ("see its agents refused", once),
        )


def _url(operator: OperatorProcess) -> str:
    """Where the join API is."""
    return f"https://{SERVER_NAME}:{operator.https_port}"


CONTAINER: Final = {"name": "runner", "image": "runner"}
"""The container of the pod, which no kubelet ever starts."""
