"""A client of the join API for tests, one request at a time, and the tokens of pods that it joins by."""

import base64
import http.client
import json
import secrets
import ssl
import tempfile
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from controlplane.cluster import ControlPlane
from support.cluster import Json
from support.stage import API_VERSION, Stage, Tenant
from support.verifier import HOST, public_of, trusting
from support.waiting import eventually

SSH = {"name": "ssh", "usages": ["ssh-user"]}
X509 = {"name": "x509", "usages": ["identity"]}


@dataclass(frozen=True)
class Answered:
    """What the join API said."""

    status: int
    body: Json
    headers: dict[str, str]

    @property
    def reason(self) -> str:
        """Why it was refused; empty where it was not."""
        return str(self.body.get("reason", ""))


@dataclass
class Client:
    """One instance: a key, and the identity that it has got, if any.

    Attributes:
        port: Port of the join API on the loopback address.
        authority: CA certificates of the join API, PEM.
    """

    port: int
    authority: bytes
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    identity: Json | None = None
    identity_key: ec.EllipticCurvePrivateKey | None = None

    @property
    def public_key(self) -> str:
        """The public key as it is sent."""
        return encoded(self.key)

    def new_key(self) -> None:
        """Make another key."""
        self.key = ec.generate_private_key(ec.SECP256R1())

    def join(self, namespace: str, token: str, proof: Json, **fields: Any) -> Answered:
        """Join, and keep the identity."""
        body = {"namespace": namespace, "joinToken": token, "publicKey": self.public_key, "proof": proof, **fields}
        return self._keep(self.post("/v1/join", body))

    def renew(self, **fields: Any) -> Answered:
        """Renew with a new key, unless one is given, and keep the identity."""
        if "publicKey" not in fields:
            self.new_key()
        return self._keep(self.post("/v1/renew", {"publicKey": self.public_key, **fields}))

    def issue(self, *outputs: Json) -> Answered:
        """Ask for credentials."""
        return self.post("/v1/issue", {"outputs": [wanted(each) for each in outputs]})

    def post(self, path: str, body: Json | bytes, *, content_type: str = "application/json") -> Answered:
        """One request, with the identity as client certificate where there is one."""
        context = trusting(self.authority)
        if self.identity is not None and self.identity_key is not None:
            with tempfile.NamedTemporaryFile() as pair:
                pair.write(self.identity["certificate"].encode() + pem(self.identity_key))
                pair.flush()
                context.load_cert_chain(pair.name)
        return request(self.port, context, path, body, content_type=content_type)

    def _keep(self, answered: Answered) -> Answered:
        if answered.status == http.client.OK:
            self.identity, self.identity_key = answered.body["identity"], self.key
        return answered


def request(
    port: int, context: ssl.SSLContext, path: str, body: Json | bytes, *, content_type: str = "application/json"
) -> Answered:
    """One POST over a connection of its own."""
    connection = http.client.HTTPSConnection(HOST, port, timeout=20, context=context)
    try:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        connection.request("POST", path, data, {"Content-Type": content_type})
        answer = connection.getresponse()
        return Answered(answer.status, json.loads(answer.read()), dict(answer.getheaders()))
    finally:
        connection.close()


def wanted(output: Json) -> Json:
    """An output with a key of its own."""
    return {"publicKey": encoded(ec.generate_private_key(ec.SECP256R1())), **output}


def encoded(key: ec.EllipticCurvePrivateKey) -> str:
    """A public key as it is sent."""
    return base64.b64encode(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).decode()


def pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    """A private key as a file has it."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def client_of(stage: Stage, port: int, authority: str = "default") -> Client:
    """A client that trusts the authority whose operator serves at the port."""
    return Client(port, public_of(stage.authority_ready(authority), "identity"))


def join_token(tenant: Tenant, name: str = "runners", *, bot: str = "deployer", **method: Any) -> str:
    """Make a MachineJoinToken."""
    return tenant.make("MachineJoinToken", name, {"bot": bot, **method})


def pod_token(plane: ControlPlane, namespace: str, account: str = "default", *, audience: str, seconds: int = 600) -> str:
    """A token of a ServiceAccount, bound to a pod that is made for it; nothing runs."""
    name = f"pod-{secrets.token_hex(4)}"
    body = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "serviceAccountName": account,
            "automountServiceAccountToken": False,
            "containers": [{"name": "none", "image": "none"}],
        },
    }
    eventually(
        "the ServiceAccount",
        lambda: plane.kubectl("get", "serviceaccount", account, f"--namespace={namespace}", "--ignore-not-found"),
    )
    plane.kubectl("create", "--filename=-", input=json.dumps(body))
    command = ("create", "token", account, f"--namespace={namespace}", f"--audience={audience}", f"--duration={seconds}s")
    return plane.kubectl(*command, "--bound-object-kind=Pod", f"--bound-object-name={name}").strip()


__all__ = [
    "API_VERSION",
    "SSH",
    "X509",
    "Answered",
    "Client",
    "client_of",
    "encoded",
    "join_token",
    "pod_token",
    "request",
    "wanted",
]
