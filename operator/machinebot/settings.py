"""Settings of the operator process: each with its unit, default and consequence. The CLI and the chart fill them in."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

LogFormat = Literal["json", "console"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSettings:
    """How one operator process runs. Flags of `machinebot operator`, and the environment variables named there."""

    namespace: str
    """The operator's own namespace: CA Secrets and the Lease live there."""

    identity: str
    """Name of this replica in the Lease; must differ between replicas. The pod's name."""

    listen_host: str = "0.0.0.0"  # noqa: S104 - a pod serves on its own address
    """Address for health and metrics, without TLS."""

    listen_port: int = 8080
    """Port for health and metrics; 0 takes a free one and logs it."""

    https_host: str = "0.0.0.0"  # noqa: S104 - a pod serves on its own address
    """Address for HTTPS: the join API and the trust bundle."""

    https_port: int = 8443
    """Port for HTTPS; 0 takes a free one and logs it."""

    tls_certificate: Path | None = None
    """File with the certificate of HTTPS and its chain, PEM; read again when it changes. Default: one is made in this process,
    signed by the CA of identities of the authority `default`, for 24 hours."""

    tls_private_key: Path | None = None
    """File with its private key, PEM, without a passphrase. Both or neither."""

    service: str = "machinebot"
    """Name of the Service in front of the replicas: clients reach HTTPS by it."""

    url: str = ""
    """Address at which others in the cluster reach our HTTPS, without a slash at the end. Authorities without an `issuer` of
    their own are found below it. Default: that of the Service, `https://<service>.<namespace>.svc`."""

    watch_namespaces: tuple[str, ...] = ()
    """Namespaces whose bots and outputs are served; empty for all of the cluster."""

    workers: int = 16
    """How many objects are reconciled at a time. More give the API server more to do at once, not more speed."""

    sweep_interval: float = 300.0
    """Seconds between two full looks at the cluster, which find what a watch has missed. `/healthz` fails after three."""

    join_address_rate: float = 20.0
    """Requests to the join API a second, in the long run, that one client address may make; then it is told 429."""

    join_address_burst: int = 100
    """Requests that it may make at once after a pause. Runners behind one gateway share an address."""

    join_token_rate: float = 50.0
    """Joins a second, in the long run, by one join token."""

    join_token_burst: int = 200
    """Joins at once by one join token after a pause."""

    lease_name: str = "machinebot"
    """Name of the Lease."""

    lease_duration: float = 10.0
    """Seconds after which a silent leader is replaced. A killed leader is replaced within this and `lease_retry`."""

    lease_renew_deadline: float = 6.0
    """Seconds for which a leader goes on without having renewed its Lease; then it stops. Below `lease_duration`."""

    lease_retry: float = 2.0
    """Seconds between two attempts at the Lease."""

    request_timeout: float = 30.0
    """Seconds for one request to the API server."""

    log_format: LogFormat = "json"
    """`json`: one object a line, for machines; `console`: for people."""

    log_level: str = "info"
    """debug, info, warning or error."""

    @property
    def service_url(self) -> str:
        """`url`, or its default."""
        return self.url or f"https://{self.service}.{self.namespace}.svc"

    @property
    def service_host(self) -> str:
        """The host in it."""
        return urlsplit(self.service_url).hostname or ""
