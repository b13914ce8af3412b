"""`application` outputs where they are used: a real nginx that asks for a certificate, and curl with the files of the Secret."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from machinebot.outputs.base import EVERY_ALGORITHM
from support.inprocess import RunningOperator
from support.mounting import mounted
from support.stage import Stage, Tenant
from workbench.chart import CLUSTER_NAME
from workbench.nginx import Answer, ClientFiles, NginxServer

pytestmark = pytest.mark.cluster
pytest_plugins = ["support.fixtures"]

HOST = "web.apps.svc"
ALLOW: dict[str, Any] = {
    "logins": ["deploy"],
    "kubernetesUsers": ["deployer"],
    "dbUsers": ["app"],
    "dnsNames": [HOST],
    "spiffePaths": ["/ns/*"],
}

TLS = ("tls.crt", "tls.key")

ACCEPTED: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "application": ({"application": {}}, TLS),
    "application as kubernetes.io/tls": ({"application": {}, "secret": {"type": "kubernetes.io/tls"}}, TLS),
    "application with other keys": (
        {"application": {}, "secret": {"keys": {"tls.crt": "client.pem", "tls.key": "client-key.pem"}}},
        ("client.pem", "client-key.pem"),
    ),
    **{f"application {name}": ({"application": {}, "privateKey": {"algorithm": name}}, TLS) for name in sorted(EVERY_ALGORITHM)},
    "identity": ({"identity": {}}, TLS),
    "identity as tbot calls it": ({"identity": {}}, ("tlscert", "tls.key")),
}
"""Outputs whose certificate is one of the CA for identities, and the files of it."""

REFUSED: dict[str, tuple[dict[str, Any], tuple[str, str]]] = {
    "of a database's user": ({"database": {"user": "app"}}, TLS),
    "of a database's server": ({"database": {"server": True, "dnsNames": [HOST]}}, TLS),
    "of a workload": ({"x509SVID": {"dnsNames": [HOST]}}, ("svid.pem", "svid_key.pem")),
}
"""Certificates of other purposes. The one of Kubernetes stands in a kubeconfig: see test_purposes.py."""


@dataclass(frozen=True)
class Web:
    """An nginx whose own certificate is a workload's, and who may come in."""

    tenant: Tenant
    folder: Path
    server: NginxServer
    authorities: Path

    def files(self, name: str, files: tuple[str, str], **spec: Any) -> ClientFiles:
        """The files of a new output."""
        self.tenant.output(name, **spec)
        directory = mounted(self.tenant, self.folder, name)
        return ClientFiles(*(directory / each for each in files))

    def call(self, client: ClientFiles | None, *flags: str) -> Answer:
        """By curl, which verifies the server."""
        return self.server.call(HOST, self.authorities, client, *flags)


@pytest.fixture(scope="module")
def tenant(stage: Stage, authority: str, operator_of_module: RunningOperator) -> Iterator[Tenant]:
    """A namespace for the whole module."""
    assert operator_of_module.running
    with stage.tenant(authority) as made:
        made.bot(roles=(stage.role(allow=ALLOW),))
        yield made


@pytest.fixture(scope="module")
def web(tenant: Tenant, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    """The server's own certificate is an `x509SVID`; it trusts the `ca.crt` of an `application`."""
    folder = tmp_path_factory.mktemp("web")
    tenant.output("server", x509SVID={"dnsNames": [HOST]})
    tenant.output("trust", application={})
    own, trust = (mounted(tenant, folder, name) for name in ("server", "trust"))
    with NginxServer(
        folder, certificate=own / "svid.pem", key=own / "svid_key.pem", client_authorities=trust / "ca.crt"
    ) as server:
        yield Web(tenant, folder, server, own / "svid_bundle.pem")


def slug(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower())


@pytest.mark.parametrize("case", ACCEPTED)
def test_a_server_that_trusts_ca_crt_lets_the_bot_in_by_its_name(web: Web, case: str) -> None:
    spec, files = ACCEPTED[case]
    client = web.files(slug(case), files, **spec)
    answer = web.call(client)
    assert answer == Answer(200, f"CN=bot:{web.tenant.namespace}:deployer,O={CLUSTER_NAME}\n", ""), web.server.log.read_text()
    wanted = spec.get("secret", {}).get("type", "Opaque")
    assert web.tenant.secret(slug(case)).body["type"] == wanted


def test_who_shows_no_certificate_is_refused(web: Web) -> None:
    answer = web.call(None)
    assert answer.status == 400
    assert "No required SSL certificate was sent" in answer.body


@pytest.mark.parametrize("case", REFUSED)
def test_certificates_of_other_purposes_are_refused(web: Web, case: str) -> None:
    spec, files = REFUSED[case]
    client, before = web.files(slug(case), files, **spec), len(web.server.log.read_text())
    answer = web.call(client)
    assert answer.status == 400
    assert "The SSL certificate error" in answer.body
    said = web.server.log.read_text()[before:]
    # curl sends the CA of a workload along, since it trusts it for the server: for the server it is a stranger's all the same.
    why = "19:self-signed certificate in certificate chain" if "x509SVID" in spec else "21:unable to verify the first certificate"
    assert f"client SSL certificate verify error: ({why})" in said, said


def test_a_certificate_without_its_private_key_is_worth_nothing(web: Web) -> None:
    mine = web.files("mine", TLS, application={})
    other = web.files("other", TLS, application={})
    answer = web.call(ClientFiles(other.certificate, mine.key))
    assert answer.status == 0
    assert "private key" in answer.error


def test_a_bot_of_the_same_name_elsewhere_is_another_one(web: Web, stage: Stage) -> None:
    with stage.tenant(web.tenant.authority) as elsewhere:
        elsewhere.bot(roles=(stage.role(allow={"logins": ["deploy"]}),))
        elsewhere.output("web", application={})
        files = mounted(elsewhere, web.folder / "elsewhere", "web")
        answer = web.call(ClientFiles(files / "tls.crt", files / "tls.key"))
        assert answer.body == f"CN=bot:{elsewhere.namespace}:deployer,O={CLUSTER_NAME}\n"
