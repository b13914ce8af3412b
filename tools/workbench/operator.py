"""The operator as a process on this machine, as the chart's Deployment would run it: same arguments, account and end."""

import datetime as dt
import http.client
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from prometheus_client.parser import text_string_to_metric_families

from controlplane.ports import LOOPBACK, ReservedPort, get
from controlplane.processes import ProgramError, spawn, tail, wait_until
from workbench.chart import Release
from workbench.deployment import ENTRYPOINT, Container, read, with_flag

SOURCE: Final = Path(__file__).parents[2] / "operator"
"""The product's source root: what is run is this checkout, installed or not."""

PROGRAM: Final = (sys.executable, "-m", "machinebot")
"""What stands in for the image's entry point."""

READY_SECONDS: Final = 60.0
"""From start to /readyz; a few seconds on an idle machine."""

REQUEST_SECONDS: Final = 5.0
"""For one request to the operator's own port."""

TOKEN_LIFETIME: Final = dt.timedelta(hours=24)
"""Of the operator's token, which nobody renews in its file as the kubelet would."""


class OperatorProcess:
    """One replica of the operator. It may be started again after its end, on the same port, with the same identity.

    Make it with `from_release`. As a context manager it is killed at the end of the block if it still runs. It never
    outlives this process.
    """

    def __init__(self, container: Container, *, kubeconfig: Path, directory: Path, program: Sequence[str] = PROGRAM) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._port = ReservedPort(socket.SO_REUSEADDR)
        self._https_port = ReservedPort(socket.SO_REUSEADDR)
        self._grace_seconds = container.grace_seconds
        self.name = container.pod.name
        """Name of the pod that it stands for, and its identity in the Lease."""
        self.log = directory / f"{self.name}.log"
        """What it writes to standard output and standard error; a restart appends."""
        self.command = _command(container, self._port.number, self._https_port.number, program)
        """The command line, the ports replaced by free ones."""
        self.environment = _environment(container, kubeconfig, directory)
        """The whole environment: nothing of ours but the PATH."""

    @classmethod
    def from_release(
        cls,
        release: Release,
        directory: Path,
        *,
        pod_name: str = "machinebot-0",
        flags: Mapping[str, str] | None = None,
        program: Sequence[str] = PROGRAM,
    ) -> Self:
        """The operator of an installed chart, not yet started. It has the rights of the chart's ServiceAccount and no others.

        Args:
            release: The installed chart; its Deployment is read from the API server.
            directory: For the log and as home; must exist. Several replicas may share it.
            pod_name: Name of the pod it stands for; each replica needs its own.
            flags: Flags to set or replace, such as {"--sweep-interval": "2"}.
            program: What to run in place of the image's entry point.

        Raises:
            controlplane.cluster.KubectlError: the Deployment or its ServiceAccount is not there.
            ValueError: the Deployment needs more of a kubelet than there is.
        """
        container = read(release.cluster, release.namespace, release.name, pod_name=pod_name)
        arguments = container.arguments
        for flag, value in (flags or {}).items():
            arguments = with_flag(arguments, flag, value)
        container = Container(container.pod, arguments, container.environment, container.grace_seconds)
        pod = container.pod
        kubeconfig = release.cluster.service_account_kubeconfig(pod.namespace, pod.service_account, duration=TOKEN_LIFETIME)
        return cls(container, kubeconfig=kubeconfig, directory=directory, program=program)

    def __enter__(self) -> Self:
        """Start it; see `wait_ready`."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Kill it if it still runs, and give back its ports."""
        self.close()

    def close(self) -> None:
        """Kill it if it still runs, and give back its ports: it cannot be started again."""
        self.kill9()
        self._port.release()
        self._https_port.release()

    def start(self) -> None:
        """Start it and return at once.

        Raises:
            ProgramError: it runs already.
        """
        if self.running:
            raise ProgramError(f"{self.name} runs already")
        with self.log.open("ab") as output:
            self._process = spawn(self.command, output=output, environment=self.environment, own_session=True)

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """Return once /readyz answers 200.

        Raises:
            ProgramError: it ended, or was not ready within `seconds`; the text holds the end of its log.
        """
        try:
            wait_until(f"{self.name}'s /readyz", self._is_ready, seconds=seconds, parts=())
        except ProgramError as error:
            raise ProgramError(f"{error}\nthe end of {self.log}:\n{tail(self.log)}") from None

    def kill9(self) -> None:
        """End it by SIGKILL, as a node that fails would, and return when it is gone; it may be gone already, or paused."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> int:
        """End it by SIGTERM, as the kubelet does, and return its exit code; 0 is a clean end.

        Raises:
            ProgramError: it does not run, or had to be killed after the pod's grace period.
        """
        process = self._running_process()
        process.terminate()
        try:
            return process.wait(self._grace_seconds)
        except subprocess.TimeoutExpired:
            self.kill9()
            message = f"{self.name} was still there {self._grace_seconds:.0f} s after SIGTERM; the end of {self.log}:"
            raise ProgramError(f"{message}\n{tail(self.log)}") from None

    def pause(self) -> None:
        """Freeze it by SIGSTOP: it keeps its connections and does nothing, like a node that hangs."""
        self._running_process().send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on after `pause`."""
        self._running_process().send_signal(signal.SIGCONT)

    @property
    def running(self) -> bool:
        """True from start until its end, also while it is paused."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Its process id, for /proc.

        Raises:
            ProgramError: it does not run.
        """
        return self._running_process().pid

    @property
    def url(self) -> str:
        """Where it serves health and metrics, `http://127.0.0.1:PORT`; the same after a restart."""
        return f"http://{LOOPBACK}:{self._port.number}"

    @property
    def https_port(self) -> int:
        """Where it serves HTTPS, on the loopback address; the same after a restart."""
        return self._https_port.number

    def get(self, path: str) -> tuple[int, bytes]:
        """One GET at its port: (status, body).

        Raises:
            OSError: it does not answer.
        """
        connection = http.client.HTTPConnection(LOOPBACK, self._port.number, timeout=REQUEST_SECONDS)
        return get(connection, path)

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics: `name` or `name{label="value",...}`, labels sorted, to its value.

        Raises:
            OSError: it does not answer, or not with 200.
        """
        status, body = self.get("/metrics")
        if status != http.HTTPStatus.OK:
            raise OSError(f"/metrics answered {status}")
        return parse_metrics(body.decode())

    def _is_ready(self) -> bool:
        self._running_process()
        return self.get("/readyz")[0] == http.HTTPStatus.OK

    def _running_process(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise ProgramError(f"{self.name} was not started")
        if (code := self._process.poll()) is not None:
            raise ProgramError(f"{self.name} ended with exit code {code}; the end of {self.log}:\n{tail(self.log)}")
        return self._process


def parse_metrics(text: str) -> dict[str, float]:
    """The samples of the Prometheus text format; see `OperatorProcess.metrics`."""
    samples: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sorted(sample.labels.items()))
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


def _command(container: Container, port: int, https_port: int, program: Sequence[str]) -> tuple[str, ...]:
    if container.arguments[: len(ENTRYPOINT)] != ENTRYPOINT:
        raise ValueError(f"the container runs {container.arguments[0]}, not the image's own program")
    arguments = with_flag(container.arguments[len(ENTRYPOINT) :], "--listen", f"{LOOPBACK}:{port}")
    return (*program, *with_flag(arguments, "--listen-https", f"{LOOPBACK}:{https_port}"))


def _environment(container: Container, kubeconfig: Path, directory: Path) -> dict[str, str]:
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(directory),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(SOURCE),
        "PYTHONUNBUFFERED": "1",
        **container.environment,
        "KUBECONFIG": str(kubeconfig),
    }
