"""Settings of the operator process: each with its unit, default and consequence. The CLI and the chart fill them in."""

from dataclasses import dataclass
from typing import Literal

LogFormat = Literal["json", "console"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorSettings:
    """How one operator process runs. Flags of `machinebot operator`, and the environment variables named there."""

    namespace: str
    """The operator's own namespace: CA Secrets and the Lease live there."""

    identity: str
    """Name of this replica in the Lease; must differ between replicas. The pod's name."""

    listen_host: str = "0.0.0.0"  # noqa: S104 - a pod serves on its own address
    """Address for health and metrics."""

    listen_port: int = 8080
    """Port for health and metrics; 0 takes a free one and logs it."""

    watch_namespaces: tuple[str, ...] = ()
    """Namespaces whose bots and outputs are served; empty for all of the cluster."""

    workers: int = 16
    """How many objects are reconciled at a time. More give the API server more to do at once, not more speed."""

    sweep_interval: float = 300.0
    """Seconds between two full looks at the cluster, which find what a watch has missed. `/healthz` fails after three."""

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
