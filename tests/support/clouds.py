"""AWS and Azure on loopback: moto's Security Token Service with a user and a role, and the servers of an Azure that is made up."""

import base64
import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import jwt
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from support.azure import ISSUER, PLACE, SIGNER, TENANT, VM, VM_ID, Issued, document, issue, new_key
from workbench.moto import ACCOUNT, MotoServer
from workbench.programs import find_program

AWS_HOSTS: Final = ("sts.eu-central-1.amazonaws.com", "sts.amazonaws.com", "sts.cn-north-1.amazonaws.com.cn")
AZURE_HOSTS: Final = ("sts.windows.net", "management.azure.com", "www.microsoft.com")

_TRUST: Final = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRole"}]}'
)


def today(**options: Any) -> dict[str, Any]:
    """Certificates here are held against the real clock."""
    now = datetime.now(UTC)
    return {"begins": now - timedelta(hours=1), "ends": now + timedelta(days=2), **options}


def written(directory: Path, name: str, issued: Issued) -> tuple[Path, Path]:
    """The certificate and its key as files, PEM."""
    certificate, key = directory / f"{name}.pem", directory / f"{name}.key"
    certificate.write_text(issued.pem)
    key.write_bytes(issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate, key


# --- AWS ------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AWS:
    """AWS with a user and a role, both called `deployer`.

    Attributes:
        server: Where it is.
        user: Credentials of the user, as AWS names their parts.
        role: Those of a session of the role, called i-0abc.
    """

    server: MotoServer
    user: Mapping[str, str]
    role: Mapping[str, str]


@contextlib.contextmanager
def serving_aws(web: Issued, directory: Path) -> Iterator[AWS]:
    """AWS for the length of the block; signatures are checked.

    Args:
        web: The authority of its certificate.
        directory: For its files; must exist.
    """
    certificate, key = written(directory, "server", issue("moto", web, names=AWS_HOSTS, **today()))
    authority, _ = written(directory, "authority", web)
    with MotoServer(directory, certificate=certificate, key=key, authority=authority) as server:
        server.call("iam", "2010-05-08", "CreateUser", UserName="deployer")
        user: Any = server.call("iam", "2010-05-08", "CreateAccessKey", UserName="deployer")["AccessKey"]
        server.call("iam", "2010-05-08", "CreateRole", RoleName="deployer", AssumeRolePolicyDocument=_TRUST)
        role = f"arn:aws:iam::{ACCOUNT}:role/deployer"
        session: Any = server.call("sts", "2011-06-15", "AssumeRole", RoleArn=role, RoleSessionName="i-0abc")["Credentials"]
        server.check_signatures()
        yield AWS(server, user, session)


def environment_of(credentials: Mapping[str, str]) -> dict[str, str]:
    """Credentials as environment variables."""
    names = {
        "AWS_ACCESS_KEY_ID": "AccessKeyId",
        "AWS_SECRET_ACCESS_KEY": "SecretAccessKey",
        "AWS_SESSION_TOKEN": "SessionToken",
    }
    return {name: credentials[field] for name, field in names.items() if field in credentials}


# --- Azure ----------------------------------------------------------------------------------------------------------------


class Cloud:
    """Azure's servers: what the metadata service says over HTTP, and the others over HTTPS."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.root = issue("Made Up Global Root", is_ca=True, **today())
        self.between = issue("Made Up TLS Issuing CA 01", self.root, is_ca=True, **today())
        self.key = new_key()
        self._last_token = ""
        self.last_token = ""
        self.signs_as(issue(SIGNER, self.between, names=(SIGNER,), place=PLACE, **today()))

    def signs_as(self, signer: Issued) -> None:
        """Have documents signed by this certificate."""
        self.signer = written(self.directory, "signer", signer)

    def metadata(self, path: str, query: Mapping[str, list[str]], headers: Mapping[str, str]) -> tuple[int, bytes]:
        """What the metadata service answers."""
        if headers.get("Metadata") != "true":
            return 400, b'{"error": "Required metadata header not specified"}'
        if path == "/metadata/attested/document":
            return 200, json.dumps({"encoding": "pkcs7", "signature": self.attested(query["nonce"][0])}).encode()
        self._last_token = self.token(query["resource"][0])
        return 200, json.dumps({"access_token": self._last_token, "token_type": "Bearer"}).encode()

    def attested(self, nonce: str) -> str:
        """A signed document, in base64."""
        now = datetime.now(UTC)
        dates = {
            name: f"{moment:%m/%d/%y %H:%M:%S} -0000"
            for name, moment in (("createdOn", now), ("expiresOn", now + timedelta(hours=6)))
        }
        content = self.directory / "document.json"
        content.write_bytes(document(nonce, timeStamp=dates))
        certificate, key = self.signer
        command = [find_program("openssl", package="openssl"), "cms", "-sign", "-binary", "-nodetach", "-md", "sha256"]
        command += ["-outform", "DER", "-in", str(content), "-signer", str(certificate), "-inkey", str(key)]
        return base64.b64encode(subprocess.run(command, check=True, capture_output=True, timeout=30).stdout).decode()

    def token(self, audience: str) -> str:
        """An access token of the machine."""
        now = int(datetime.now(UTC).timestamp())
        claims = {"aud": audience, "iss": ISSUER, "iat": now - 60, "nbf": now - 60, "exp": now + 3600, "xms_mirid": VM}
        return jwt.encode(claims, self.key, "RS256", headers={"kid": "azure-1"})

    def services(self, path: str, _query: Mapping[str, list[str]], headers: Mapping[str, str]) -> tuple[int, bytes]:
        """What the issuer, the Resource Manager and the store of certificates answer, by the host that is asked."""
        host = headers["Host"].partition(":")[0]
        if host == "www.microsoft.com" and f"http://{host}{path}" == PLACE:
            return 200, self.between.der
        if host == "sts.windows.net" and path == f"/{TENANT}/.well-known/openid-configuration":
            return 200, json.dumps({"issuer": ISSUER, "jwks_uri": "https://sts.windows.net/common/discovery/keys"}).encode()
        if host == "sts.windows.net" and path == "/common/discovery/keys":
            jwk = jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key(), as_dict=True)
            return 200, json.dumps({"keys": [{**jwk, "kid": "azure-1", "use": "sig"}]}).encode()
        if (host, path, headers["Authorization"]) == ("management.azure.com", VM, f"Bearer {self._last_token}"):
            return 200, json.dumps({"id": VM, "properties": {"vmId": VM_ID}}).encode()
        return 404, b"{}"
