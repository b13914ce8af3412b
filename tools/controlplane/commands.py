"""The command lines of etcd, kube-apiserver and kube-controller-manager, with the reason for each flag. Pure."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane.binaries import Binaries
from controlplane.ports import LOOPBACK

CLUSTER_ISSUER = "https://kubernetes.default.svc"
"""A second audience that tokens may carry: what charts and examples written for real clusters ask for."""
SERVICE_ADDRESSES = "10.96.0.0/16"
"""ClusterIPs are handed out of it; no packet is ever routed there."""
ETCD_QUOTA_BYTES = 8 * 2**30
"""The most that etcd advises: a benchmark with history must not stop at the default 2 GiB."""
READS_IN_FLIGHT = 3000
WRITES_IN_FLIGHT = 1500
"""Together the seats that API priority and fairness (left on, as in a real cluster) shares out; defaults are 400 and 200."""
CLIENT_QPS = 500
"""Of the controller manager; its default of 20 makes deleting a namespace of a benchmark a matter of minutes."""
AUDIT_MEGABYTES = 10240
"""Before the audit log is rotated: never within a test, whose reader knows only the first file."""

CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "deployment-controller",
    "garbage-collector-controller",
    "namespace-controller",
    "replicaset-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "validatingadmissionpolicy-status-controller",
)
"""Those that Machinebot's resources meet; there are no nodes, and what serves nodes, volumes or a cloud would only burn CPU."""

WRITING_VERBS = ("create", "update", "patch", "delete", "deletecollection")
"""What `audit_policy` calls a write."""


@dataclass(frozen=True)
class Layout:
    """Where everything of one control plane stands, and its two ports."""

    directory: Path
    api_port: int
    etcd_port: int

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.directory / "pki"

    @property
    def client_ca(self) -> Path:
        """The CAs whose client certificates count, PEM; read again when it changes."""
        return self.pki / "client-ca.crt"

    @property
    def authentication_config(self) -> Path:
        """The issuers whose tokens count, besides the API server itself; read again when it changes."""
        return self.directory / "authentication.json"

    @property
    def kubeconfigs(self) -> Path:
        """One file for each user."""
        return self.directory / "kubeconfigs"

    @property
    def logs(self) -> Path:
        """One file for each part."""
        return self.directory / "logs"

    @property
    def audit_log(self) -> Path:
        """The API server's audit log, one JSON object a line."""
        return self.logs / "audit.log"

    @property
    def audit_policy(self) -> Path:
        """What the audit log holds."""
        return self.directory / "audit-policy.json"

    @property
    def url(self) -> str:
        """The API server's address, also the issuer of its ServiceAccount tokens."""
        return f"https://{LOOPBACK}:{self.api_port}"

    @property
    def etcd_url(self) -> str:
        """Etcd's address; plain HTTP, as loopback is all that it listens on."""
        return f"http://{LOOPBACK}:{self.etcd_port}"


def etcd(binaries: Binaries, layout: Layout) -> list[str | Path]:
    """One member, in no hurry to reach the disk."""
    return [
        binaries["etcd"],
        f"--data-dir={layout.directory / 'etcd'}",
        f"--listen-client-urls={layout.etcd_url}",
        f"--advertise-client-urls={layout.etcd_url}",
        f"--listen-peer-urls=http://{LOOPBACK}:0",  # there is no peer; the flag wants an address
        "--socket-reuse-port",  # we hold the port reserved, see ports.py
        "--unsafe-no-fsync",  # the data dies with the directory; a killed process loses nothing, only a lost machine would
        f"--quota-backend-bytes={ETCD_QUOTA_BYTES}",
        "--log-level=warn",
    ]


def api_server(binaries: Binaries, layout: Layout, *, audit: bool, configurable: bool, extra: Sequence[str]) -> list[str | Path]:
    """The API server with default admission plugins, RBAC and client certificates; `extra` flags come last and so win.

    Args:
        binaries: Where it is.
        layout: Where its files and ports are.
        audit: Whether it keeps an audit log.
        configurable: Whether it is new enough for an authentication configuration.
        extra: More flags.
    """
    audit_flags = [
        f"--audit-policy-file={layout.audit_policy}",
        f"--audit-log-path={layout.audit_log}",
        f"--audit-log-maxsize={AUDIT_MEGABYTES}",
        "--audit-log-mode=blocking",  # a request that was answered stands in the log
    ]
    given = {flag.partition("=")[0] for flag in extra}  # of some flags the first one counts, and of others all of them
    return [
        binaries["kube-apiserver"],
        f"--etcd-servers={layout.etcd_url}",
        f"--bind-address={LOOPBACK}",
        f"--advertise-address={LOOPBACK}",  # else it looks for a default route and fails where there is none
        f"--secure-port={layout.api_port}",
        "--permit-port-sharing",  # we hold the port reserved, see ports.py
        "--endpoint-reconciler-type=none",  # it refuses to publish a loopback address as an endpoint
        f"--tls-cert-file={layout.pki / 'apiserver.crt'}",
        f"--tls-private-key-file={layout.pki / 'apiserver.key'}",
        f"--client-ca-file={layout.client_ca}",
        *([f"--authentication-config={layout.authentication_config}"] if configurable else []),
        "--authorization-mode=RBAC",
        *(flag for flag in _service_account_flags(layout) if flag.partition("=")[0] not in given),
        f"--service-cluster-ip-range={SERVICE_ADDRESSES}",
        f"--max-requests-inflight={READS_IN_FLIGHT}",
        f"--max-mutating-requests-inflight={WRITES_IN_FLIGHT}",
        "--profiling=false",
        *(audit_flags if audit else []),
        *extra,
    ]


def _service_account_flags(layout: Layout) -> list[str]:
    """Tokens name an issuer that really answers: OIDC discovery and the keys are served at the issuer's own address."""
    return [
        f"--service-account-issuer={layout.url}",
        f"--service-account-jwks-uri={layout.url}/openid/v1/jwks",
        f"--service-account-signing-key-file={layout.pki / 'service-accounts.key'}",
        f"--service-account-key-file={layout.pki / 'service-accounts.pub'}",
        f"--api-audiences={layout.url},{CLUSTER_ISSUER}",
    ]


def controller_manager(binaries: Binaries, layout: Layout, kubeconfig: Path) -> list[str | Path]:
    """The controllers of `CONTROLLERS`, each with the rights of its own ServiceAccount, as in a real cluster."""
    return [
        binaries["kube-controller-manager"],
        f"--kubeconfig={kubeconfig}",
        f"--controllers={','.join(CONTROLLERS)}",
        "--use-service-account-credentials",
        f"--service-account-private-key-file={layout.pki / 'service-accounts.key'}",
        f"--root-ca-file={layout.pki / 'serving-ca.crt'}",
        "--leader-elect=false",  # there is one, and it starts seconds sooner
        "--secure-port=0",  # nobody asks it
        f"--kube-api-qps={CLIENT_QPS}",
        f"--kube-api-burst={2 * CLIENT_QPS}",
        "--profiling=false",
    ]


def audit_policy(*, reads: bool) -> bytes:
    """Who did what to which object, without contents: Metadata level, writes only unless `reads`."""
    written = {"level": "Metadata", "verbs": list(WRITING_VERBS)}
    rest = {"level": "Metadata" if reads else "None"}
    policy = {
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],  # one line a request
        "rules": [written, rest],
    }
    return json.dumps(policy, indent=2).encode()
