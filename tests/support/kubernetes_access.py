"""Whom the API server takes the holder of a client certificate, of a token or of a kubeconfig for, and what kubectl then does."""

import http.client
import json
import ssl
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from controlplane.cluster import ControlPlane, KubectlError
from controlplane.pki import write_private
from workbench.chart import CLUSTER_NAME

SECONDS = 30.0
"""For one request."""

_REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
_BODY = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"})

_JWT = """
issuer:
  url: ISSUER # spec.issuer of the MachineAuthority
  audiences: [AUDIENCE]
claimValidationRules:
  - expression: claims.sub.startsWith("spiffe://CLUSTER/ns/")
    message: only bots of this cluster
  - expression: claims.exp - claims.nbf <= 86400
    message: no longer than a day
claimMappings:
  username:
    expression: claims.sub
  groups:
    expression: >- # all bots of one namespace, by the path that is given to a bot alone
      claims.sub.matches("^spiffe://[^/]+/ns/[^/]+/bot/[^/]+$") ? ["machinebot:" + claims.sub.split("/")[4]] : []
userValidationRules:
  - expression: "!user.username.startsWith('system:')"
    message: names of Kubernetes itself are not given
"""
"""An entry of `jwt`, as the documentation has it."""


@dataclass(frozen=True)
class User:
    """A user as the API server sees one. The groups are without `system:authenticated`, which everybody is in."""

    name: str
    groups: tuple[str, ...]


def user_of_certificate(plane: ControlPlane, certificate: Path, key: Path) -> User | None:
    """Whom the API server takes the holder of a client certificate for; None where it does not take it.

    The certificate is shown whatever CAs the API server asks for.

    Args:
        plane: The control plane; see `accepting_clients`.
        certificate: PEM file.
        key: PEM file of its private key; it may be the same file.
    """
    context = _context(plane)
    context.load_cert_chain(certificate, key)
    return _ask(plane, context, {})


def user_of_token(plane: ControlPlane, token: str) -> User | None:
    """Whom the API server takes the bearer of a token for; None where it does not take it. See `accepting_tokens`."""
    return _ask(plane, _context(plane), {"Authorization": f"Bearer {token}"})


def _context(plane: ControlPlane) -> ssl.SSLContext:
    return ssl.create_default_context(cadata=plane.ca_pem.decode())


def _ask(plane: ControlPlane, context: ssl.SSLContext, headers: Mapping[str, str]) -> User | None:
    address = urlsplit(plane.url)
    connection = http.client.HTTPSConnection(address.hostname or "", address.port, context=context, timeout=SECONDS)
    try:
        connection.request("POST", _REVIEW, _BODY, {"Content-Type": "application/json", **headers})
        answer = connection.getresponse()
        body = json.loads(answer.read())
    finally:
        connection.close()
    if answer.status == http.HTTPStatus.UNAUTHORIZED:
        return None
    # Nothing shown makes system:anonymous, who is forbidden to ask: then the question was wrong.
    assert answer.status == http.HTTPStatus.CREATED, body
    return _user(body)


def jwt_authenticator(issuer: str, audience: str, certificate_authority: str) -> dict[str, Any]:
    """An entry of `jwt` in the API server's AuthenticationConfiguration that takes a `jwtSVID`; see `accepting_tokens`.

    Args:
        issuer: Of the authority.
        audience: For which tokens are taken.
        certificate_authority: CAs of our HTTPS, PEM.
    """
    text = _JWT.replace("ISSUER", issuer).replace("AUDIENCE", audience).replace("CLUSTER", CLUSTER_NAME)
    entry: dict[str, Any] = yaml.safe_load(text)
    entry["issuer"]["certificateAuthority"] = certificate_authority
    return entry


@dataclass(frozen=True)
class Kubectl:
    """The real kubectl with a kubeconfig that it finds by KUBECONFIG, and flags that every command of it has."""

    plane: ControlPlane
    kubeconfig: Path
    flags: tuple[str, ...] = ()

    def __call__(self, *arguments: str) -> str:
        """Run it and return its standard output.

        Raises:
            KubectlError: It failed; the text is what it wrote to standard error.
        """
        command = [str(self.plane.binaries["kubectl"]), *arguments, *self.flags]
        environment = {**self.plane.env, "KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SECONDS, check=False
        )
        if done.returncode != 0:
            raise KubectlError(done.stderr.strip())
        return done.stdout

    def whoami(self) -> User:
        """Whom the API server takes it for.

        Raises:
            KubectlError: For nobody.
        """
        return _user(json.loads(self("auth", "whoami", "--output=json")))


def kubectl_with(plane: ControlPlane, content: bytes, directory: Path) -> Kubectl:
    """Kubectl with that kubeconfig, as it is, in a file that only its owner may read, as a volume has it."""
    path = directory / f"{len(list(directory.iterdir()))}.yaml"
    write_private(path, content)
    path.chmod(0o400)
    return Kubectl(plane, path)


def kubectl_by_flags(plane: ControlPlane, directory: Path, **flags: str | Path) -> Kubectl:
    """Kubectl without a kubeconfig: everything that it logs in with stands in its flags, `client_key` for `--client-key`."""
    nothing = directory / "nothing.yaml"
    nothing.touch()
    return Kubectl(plane, nothing, tuple(f"--{name.replace('_', '-')}={value}" for name, value in flags.items()))


def _user(review: Mapping[str, Any]) -> User:
    info = review["status"]["userInfo"]
    return User(name=info["username"], groups=tuple(sorted(set(info.get("groups", ())) - {"system:authenticated"})))
