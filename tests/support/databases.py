"""The credentials of databases that the tests log in with: made by the running operator, mounted, one directory an output."""

import base64
import contextlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from support.mounting import mount
from support.stage import Stage
from workbench.databases import TLSFiles
from workbench.postgres import HOST

NAMES = [HOST, "localhost"]
"""By which clients reach the servers."""

ROLE: dict[str, Any] = {
    "allow": {
        "logins": ["{{ internal.logins }}"],
        "kubernetesUsers": ["app"],
        "dbUsers": ["app", "clerk", "node"],
        "dbNames": ["orders", "reports"],
        "dnsNames": ["*.data.svc", "localhost"],
        "spiffePaths": ["/ns/*"],
    }
}

Names = tuple[str, str, str]
"""Keys of a Secret: certificate, private key, CAs."""

CLIENTS: dict[str, Names] = {
    "tls": ("tls.crt", "tls.key", "ca.crt"),
    "postgres": ("postgresql.crt", "postgresql.key", "root.crt"),
    "mysql": ("client-cert.pem", "client-key.pem", "ca.pem"),
    "mongo": ("mongo.crt", "mongo.crt", "mongo.cas"),
    "cockroach": ("client.app.crt", "client.app.key", "ca.crt"),
}
"""The files of the client `app` in each format."""

SERVERS: dict[str, Names] = {
    "tls": ("tls.crt", "tls.key", "ca.crt"),
    "postgres": ("server.crt", "server.key", "root.crt"),
    "mysql": ("server-cert.pem", "server-key.pem", "ca.pem"),
    "mongo": ("mongo.crt", "mongo.crt", "mongo.cas"),
    "cockroach": ("node.crt", "node.key", "ca.crt"),
}
"""The files of a server in each format."""

ALGORITHMS = {name.lower(): name for name in ("ECDSA-P256", "ECDSA-P384", "Ed25519", "RSA-2048", "RSA-4096")}

OUTPUTS: dict[str, dict[str, Any]] = {
    **{f"app-{name}": {"database": {"format": name, "user": "app"}} for name in CLIENTS},
    **{f"server-{name}": {"database": {"format": name, "server": True, "dnsNames": NAMES}} for name in SERVERS},
    **{f"app-{name}": {"database": {"user": "app"}, "privateKey": {"algorithm": key}} for name, key in ALGORITHMS.items()},
    **{
        f"server-{name}": {"database": {"server": True, "dnsNames": NAMES}, "privateKey": {"algorithm": key}}
        for name, key in ALGORITHMS.items()
    },
    "app-orders": {"database": {"user": "app", "database": "orders"}},
    "app-reports": {"database": {"user": "app", "database": "reports"}},
    "clerk": {"database": {"user": "clerk"}},
    "clerk-orders": {"database": {"user": "clerk", "database": "orders"}},
    "elsewhere": {"database": {"server": True, "dnsNames": ["other.data.svc"]}},
    "identity": {"identity": {}},
    "kubernetes": {"kubernetes": {}},
    "workload": {"x509SVID": {"dnsNames": NAMES, "keys": {"svid": "tls.crt", "key": "tls.key", "bundle": "ca.crt"}}},
}
"""Every credential that the tests of logins use, by the name of its output."""


@dataclass(frozen=True)
class Premises:
    """The credentials, mounted.

    Attributes:
        directory: A directory for each output, by its name.
    """

    directory: Path

    def client(self, output: str) -> TLSFiles:
        """The files of a client."""
        return self._files(output, CLIENTS)

    def server(self, output: str) -> TLSFiles:
        """The files of a server."""
        return self._files(output, SERVERS)

    def stranger(self, output: str) -> TLSFiles:
        """A certificate of any kind in the hands of a client that trusts the CA of the databases."""
        return replace(self._files(output, {}), authorities=self.client("app-tls").authorities)

    def _files(self, output: str, formats: Mapping[str, Names]) -> TLSFiles:
        names = formats.get(output.partition("-")[2], CLIENTS["tls"])
        certificate, key, authorities = (self.directory / output / name for name in names)
        return TLSFiles(certificate, key, authorities)


@contextlib.contextmanager
def issued(stage: Stage, authority: str, directory: Path, names: Collection[str] = OUTPUTS.keys()) -> Iterator[Premises]:
    """Outputs of the table, all by default, issued by the operator that runs and mounted as their pods would see them."""
    with stage.tenant(authority) as tenant:
        tenant.bot(roles=(stage.role(**ROLE),))
        for name in names:
            tenant.output(name, **OUTPUTS[name])
        for name in names:
            tenant.ready(name)
            data = tenant.secret(name).data
            mount(directory / name, pair_of(data["kubeconfig.yaml"]) if name == "kubernetes" else data)
        yield Premises(directory)


def pair_of(kubeconfig: bytes) -> dict[str, bytes]:
    """The certificate and the key that stand in a kubeconfig."""
    user = yaml.safe_load(kubeconfig)["users"][0]["user"]
    return {
        "tls.crt": base64.b64decode(user["client-certificate-data"]),
        "tls.key": base64.b64decode(user["client-key-data"]),
    }
