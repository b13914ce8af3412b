"""One control plane: etcd, kube-apiserver and kube-controller-manager on loopback, started, used and stopped from Python."""

import contextlib
import datetime as dt
import http.client
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from controlplane import authentication, commands, kubeconfig
from controlplane.authentication import Authentication
from controlplane.binaries import Binaries, ensure, version
from controlplane.commands import Layout
from controlplane.pki import Authority, token_signing_key, write_private
from controlplane.ports import LOOPBACK, ReservedPort, get
from controlplane.processes import Part, wait_until

START_SECONDS = 90.0
"""For the whole start-up, 4 to 7 s on two idle cores: only a machine that is broken or badly overloaded needs more."""
REQUEST_SECONDS = 10.0
"""For one of our own requests to the API server."""
KUBECTL_SECONDS = 120.0
"""For one kubectl by default; `kubectl wait` has its own time-out, which should be shorter."""
TOKEN_LIFETIME = dt.timedelta(hours=1)
"""Of `service_account_kubeconfig`; the API server issues no less than 10 minutes."""

API_SERVER_GRACE_SECONDS = 1.0
"""From SIGTERM to SIGKILL when it is to go away under its clients: by itself it would wait a minute for their watches."""

SERVER_NAMES = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
"""Besides the loopback address: the names that a client inside a cluster would use."""
MASTERS = "system:masters"
"""The group that RBAC lets do everything."""


class KubectlError(RuntimeError):
    """A kubectl that failed; the text is its command and what it wrote to standard error."""


class ControlPlane:
    """A running control plane. Make it with `start_control_plane`, which also ends it.

    Its methods block; they are safe to call from several threads.
    """

    def __init__(self, directory: Path, binaries: Binaries, *, audit_log: bool, audit_reads: bool, flags: Sequence[str]) -> None:
        self._ports = (ReservedPort(), ReservedPort())
        self._layout = Layout(directory, api_port=self._ports[0].number, etcd_port=self._ports[1].number)
        self._serving_authority = Authority("machinebot-controlplane-serving")
        self._client_authority = Authority("machinebot-controlplane-clients")
        self._lock = threading.Lock()
        self._kubeconfigs: dict[tuple[str, tuple[str, ...]], Path] = {}
        self.binaries = binaries
        """The programs it runs."""
        self.directory = directory
        """Where its logs, keys, kubeconfigs and data are."""
        self.url = self._layout.url
        """The API server's address, `https://127.0.0.1:PORT`; also the issuer of its ServiceAccount tokens."""
        self.ca_pem = self._serving_authority.certificate
        """The authority of the API server's serving certificate, PEM."""
        self.audit_log = self._layout.audit_log if audit_log or audit_reads else None
        """The API server's audit log, None when it was not asked for."""
        self._write_files(audit_reads=audit_reads)
        self.admin_kubeconfig = self.kubeconfig(user="admin", groups=[MASTERS])
        """The kubeconfig of a member of `system:masters`."""
        self._tls = self._admin_tls()
        configurable = version("kube-apiserver", binaries["kube-apiserver"]) >= authentication.OLDEST
        self._etcd, self._api_server, self._controller_manager = self._make_parts(flags, configurable=configurable)
        own = self._client_authority.certificate
        self._authentication = Authentication(self._layout, own, self._api_server, self.server_metrics, configurable=configurable)

    @property
    def env(self) -> dict[str, str]:
        """The environment for a program that works on this cluster: ours, with KUBECONFIG, and kubectl and helm first on PATH.

        It keeps kubectl's and helm's caches in the cluster's directory and their personal settings out.
        """
        path = [*map(str, self.binaries.directories), os.environ.get("PATH", os.defpath)]
        helm = {f"HELM_{name}_HOME": str(self.directory / "helm" / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        return {
            **os.environ,
            **helm,
            "PATH": os.pathsep.join(path),
            "KUBECONFIG": str(self.admin_kubeconfig),
            "KUBECACHEDIR": str(self.directory / "kubectl"),
            "KUBERC": "off",
        }

    @property
    def pids(self) -> Mapping[str, int]:
        """The process id of each part that runs, by program name."""
        return {part.name: part.pid for part in self._parts if part.running}

    @property
    def api_server_pid(self) -> int:
        """The process id of the kube-apiserver.

        Raises:
            processes.ProgramError: it does not run.
        """
        return self._api_server.pid

    @property
    def _parts(self) -> tuple[Part, ...]:
        return (self._etcd, self._api_server, self._controller_manager)

    def check(self) -> None:
        """Do nothing while every part that was started and not stopped by us is alive.

        Raises:
            processes.ProgramError: one died; the text holds the end of its log.
        """
        for part in self._parts:
            part.check()

    def start(self, *, controller_manager: bool = True, seconds: float = START_SECONDS) -> None:
        """Start the parts, and return once the API server is ready and the `default` namespace exists.

        With the controller manager, also once it made the `default` ServiceAccount there.

        Raises:
            processes.ProgramError: a part died or was not ready within `seconds`.
        """
        self._etcd.start()
        wait_until("etcd's health", self._etcd_is_healthy, seconds=seconds, parts=[self._etcd])
        self.start_api_server(seconds=seconds)
        if controller_manager:
            self._controller_manager.start()
        wanted = "/api/v1/namespaces/default" + ("/serviceaccounts/default" if controller_manager else "")
        wait_until(wanted, lambda: self._get(wanted)[0] == http.HTTPStatus.OK, seconds=seconds, parts=self._parts)

    def stop(self) -> None:
        """End every part, the API server before its etcd, and give back the ports. The directory stays."""
        for part in reversed(self._parts):
            part.stop()
        for port in self._ports:
            port.release()

    def start_api_server(self, *, seconds: float = START_SECONDS) -> None:
        """Start the API server again, on the same port with the same data, and return once /readyz says so.

        Raises:
            processes.ProgramError: it runs already, died, or was not ready within `seconds`.
        """
        self._api_server.start()
        parts = [self._etcd, self._api_server]
        wait_until("the API server's /readyz", self._api_server_is_ready, seconds=seconds, parts=parts)

    def stop_api_server(self) -> None:
        """End the API server and return when it is gone: connections are refused, watches end. The rest goes on."""
        self._api_server.stop(API_SERVER_GRACE_SECONDS)

    @contextlib.contextmanager
    def api_server_stopped(self) -> Iterator[None]:
        """The API server is gone inside the block (connections are refused) and ready again after it.

        The controller manager is gone too, and does its work again after the block: left alone with refused connections it
        backs off for more than a minute, and what comes next would wait for ServiceAccounts and for the end of namespaces.
        """
        managed = self._controller_manager.running
        self._controller_manager.stop()
        self.stop_api_server()
        try:
            yield
        finally:
            self.start_api_server()
            if managed:
                self._controller_manager.start()
                self._wait_for_controllers()

    def _wait_for_controllers(self) -> None:
        """Returns once a new namespace has its ServiceAccount."""
        name = f"probe-{secrets.token_hex(4)}"
        self.kubectl("create", "namespace", name)
        wanted = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        wait_until(wanted, lambda: self._get(wanted)[0] == http.HTTPStatus.OK, seconds=START_SECONDS, parts=self._parts)
        self.kubectl("delete", "namespace", name, "--wait=false")

    @contextlib.contextmanager
    def api_server_paused(self) -> Iterator[None]:
        """The API server hangs inside the block: it accepts connections and never answers. It goes on after it."""
        self._api_server.send(signal.SIGSTOP)
        try:
            yield
        finally:
            self._api_server.send(signal.SIGCONT)

    def kubeconfig(self, *, user: str, groups: Iterable[str] = ()) -> Path:
        """A kubeconfig with a client certificate for any user in any groups; asked again, the same file.

        Raises:
            ValueError: the user or a group is empty or longer than 64 characters.
        """
        who = (user, tuple(groups))
        with self._lock:
            if who not in self._kubeconfigs:
                pair = self._client_authority.client(*who)
                content = kubeconfig.with_certificate(self.url, self.ca_pem, user, pair)
                self._kubeconfigs[who] = self._write_kubeconfig(content)
            return self._kubeconfigs[who]

    def service_account_kubeconfig(self, namespace: str, name: str, *, duration: dt.timedelta = TOKEN_LIFETIME) -> Path:
        """A kubeconfig with a fresh token of a ServiceAccount that exists, good for `duration` (10 minutes at least).

        Raises:
            KubectlError: there is no such ServiceAccount, or the duration was refused.
        """
        seconds = f"{duration.total_seconds():.0f}s"
        token = self.kubectl("create", "token", name, f"--namespace={namespace}", f"--duration={seconds}").strip()
        content = kubeconfig.with_token(self.url, self.ca_pem, f"{namespace}-{name}", token)
        with self._lock:
            return self._write_kubeconfig(content)

    @contextlib.contextmanager
    def accepting_clients(self, *authorities: bytes) -> Iterator[None]:
        """Inside the block the API server takes client certificates of these CAs too (PEM, one or more in each).

        It counts for new connections from the first line of the block on, and no more after it.

        Raises:
            ValueError: one is no PEM certificate.
            processes.ProgramError: the API server did not take them in time.
        """
        with self._authentication.clients(authorities):
            yield

    @contextlib.contextmanager
    def accepting_tokens(self, authenticator: Mapping[str, Any]) -> Iterator[None]:
        """Inside the block the API server takes tokens of one more issuer.

        Args:
            authenticator: An entry of `jwt` in its AuthenticationConfiguration. The issuer must answer when the block is
                entered, since the API server fetches its keys first; that takes 10 s. Tokens that it has seen within the last
                10 s may still pass after the block.

        Raises:
            ValueError: the kube-apiserver is too old for it.
            authentication.NotTakenError: the API server refused the entry, or the issuer did not answer it.
            processes.ProgramError: it took too long.
        """
        with self._authentication.tokens(authenticator):
            yield

    def kubectl(
        self,
        *arguments: str,
        input: str | bytes | None = None,  # noqa: A002  # the word that subprocess.run has for it
        user: str | None = None,
        groups: Iterable[str] = (),
        timeout: float = KUBECTL_SECONDS,
    ) -> str:
        """Run the real kubectl and return its standard output; as administrator unless a `user` is named.

        Raises:
            KubectlError: it failed, or took longer than `timeout` seconds.
        """
        who = self.admin_kubeconfig if user is None else self.kubeconfig(user=user, groups=groups)
        command = [str(self.binaries["kubectl"]), *arguments]
        given = input.encode() if isinstance(input, str) else input
        try:
            done = subprocess.run(
                command,
                input=given,
                stdin=subprocess.DEVNULL if given is None else None,
                capture_output=True,
                env={**self.env, "KUBECONFIG": str(who)},
                timeout=timeout,
                check=True,
            )
        except subprocess.CalledProcessError as error:
            raise KubectlError(f"kubectl {' '.join(arguments)}: {error.stderr.decode(errors='replace').strip()}") from None
        except subprocess.TimeoutExpired:
            raise KubectlError(f"kubectl {' '.join(arguments)}: not done after {timeout:.0f} s") from None
        return done.stdout.decode()

    def server_metrics(self) -> str:
        """The API server's own metrics, in the Prometheus text format.

        Raises:
            OSError: it does not answer, or not with 200.
        """
        status, body = self._get("/metrics")
        if status != http.HTTPStatus.OK:
            raise OSError(f"/metrics answered {status}")
        return body.decode()

    def audit_events(self) -> list[dict[str, Any]]:
        """The requests in the audit log, oldest first: every answered request stands in it.

        Raises:
            ValueError: there is no audit log; ask for it at the start.
        """
        if self.audit_log is None:
            raise ValueError("this control plane was started without an audit log")
        lines = self.audit_log.read_bytes().splitlines(keepends=True) if self.audit_log.exists() else []
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    def _write_files(self, *, audit_reads: bool) -> None:
        layout = self._layout
        for directory in (layout.pki, layout.kubeconfigs, layout.logs):
            directory.mkdir(mode=0o700)
        serving = self._serving_authority.serving("kube-apiserver", dns_names=SERVER_NAMES, addresses=[LOOPBACK])
        serving.write(layout.pki, "apiserver")
        self._client_authority.client("admin", [MASTERS]).write(layout.pki, "admin")
        (layout.pki / "serving-ca.crt").write_bytes(self._serving_authority.certificate)
        private, public = token_signing_key()
        write_private(layout.pki / "service-accounts.key", private)
        (layout.pki / "service-accounts.pub").write_bytes(public)
        layout.audit_policy.write_bytes(commands.audit_policy(reads=audit_reads))

    def _write_kubeconfig(self, content: bytes) -> Path:
        path = self._layout.kubeconfigs / f"{len(list(self._layout.kubeconfigs.iterdir()))}.kubeconfig"
        write_private(path, content)
        return path

    def _make_parts(self, flags: Sequence[str], *, configurable: bool) -> tuple[Part, Part, Part]:
        layout, binaries, environment = self._layout, self.binaries, dict(os.environ)

        def part(name: str, command: Sequence[str | Path]) -> Part:
            return Part(name, command, layout.logs / f"{name}.log", environment)

        manager_kubeconfig = self.kubeconfig(user="system:kube-controller-manager")
        audit = self.audit_log is not None
        api_server = commands.api_server(binaries, layout, audit=audit, configurable=configurable, extra=flags)
        manager = commands.controller_manager(binaries, layout, manager_kubeconfig)
        return (
            part("etcd", commands.etcd(binaries, layout)),
            part("kube-apiserver", api_server),
            part("kube-controller-manager", manager),
        )

    def _admin_tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.ca_pem.decode())
        context.load_cert_chain(self._layout.pki / "admin.crt", self._layout.pki / "admin.key")
        return context

    def _get(self, path: str) -> tuple[int, bytes]:
        """One GET as administrator: (status, body). Speaks to loopback directly, whatever proxies the environment names."""
        connection = http.client.HTTPSConnection(LOOPBACK, self._layout.api_port, context=self._tls, timeout=REQUEST_SECONDS)
        return get(connection, path)

    def _api_server_is_ready(self) -> bool:
        return self._get("/readyz")[0] == http.HTTPStatus.OK

    def _etcd_is_healthy(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self._layout.etcd_port, timeout=REQUEST_SECONDS)
        return get(connection, "/health")[0] == http.HTTPStatus.OK


@contextlib.contextmanager
def start_control_plane(
    directory: Path | None = None,
    *,
    audit_log: bool = False,
    audit_reads: bool = False,
    controller_manager: bool = True,
    binaries: Binaries | None = None,
    api_server_flags: Sequence[str] = (),
    seconds: float = START_SECONDS,
) -> Iterator[ControlPlane]:
    """Run a control plane for the length of the block.

    Args:
        directory: Where to keep everything, also afterwards; made if missing, must be empty. Default: a temporary one,
            removed at the end.
        audit_log: Log every write (who, what, when; no contents) to `ControlPlane.audit_log`.
        audit_reads: Log the reads as well.
        controller_manager: Without it no ServiceAccount appears by itself, no garbage is collected, no namespace goes away.
        binaries: All programs; by default found, or built now, which takes minutes the first time.
        api_server_flags: More flags for the kube-apiserver; they win over ours.
        seconds: For each step of the start-up.

    Raises:
        processes.ProgramError: it did not start; the text holds the end of the log of the part that failed.
        golang.GoMissingError: the programs must be built and there is no Go to do it with.
        FileExistsError: `directory` is not empty.
    """
    programs = binaries or ensure()
    with contextlib.ExitStack() as at_end:
        home = _home(directory, at_end)
        cluster = ControlPlane(home, programs, audit_log=audit_log, audit_reads=audit_reads, flags=api_server_flags)
        at_end.callback(cluster.stop)
        cluster.start(controller_manager=controller_manager, seconds=seconds)
        yield cluster


def _home(directory: Path | None, at_end: contextlib.ExitStack) -> Path:
    if directory is None:
        home = Path(tempfile.mkdtemp(prefix="machinebot-controlplane-"))
        at_end.callback(shutil.rmtree, home, ignore_errors=True)
        return home
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        raise FileExistsError(f"{directory} is not empty")
    return directory.absolute()
