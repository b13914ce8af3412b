"""HTTPS in the chart: its port, its address and a certificate from outside, by the real helm."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from machinebot.authority.serving import dns_names
from support.verifier import fetch, public_of, trusting
from support.waiting import eventually
from workbench.chart import HelmError, Release, template_chart
from workbench.operator import OperatorProcess

pytestmark = pytest.mark.cluster

NAMESPACE = "machinebot-system"


def only(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    (found,) = [each for each in objects if each["kind"] == kind]
    return found


def container(objects: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    return found


def flags(objects: list[dict[str, Any]]) -> dict[str, str]:
    words = [word.removeprefix("--").partition("=") for word in container(objects)["args"]]
    return {name: value for name, _, value in words}


def values(**changes: Any) -> dict[str, Any]:
    return {"authority": {"clusterName": "example.test"}, **changes}


def test_the_service_leads_to_the_port_that_the_operator_serves() -> None:
    objects = template_chart(values())
    (port,) = [each for each in only(objects, "Service")["spec"]["ports"] if each["name"] == "https"]
    assert (port["port"], port["targetPort"]) == (443, "https")
    ports = {each["name"]: each["containerPort"] for each in container(objects)["ports"]}
    assert ports == {"http": 8080, "https": 8443}
    assert flags(objects)["listen-https"] == "0.0.0.0:8443"


def test_the_probes_stay_on_the_plain_port() -> None:
    probes = [container(template_chart(values()))[name] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert {probe["httpGet"]["port"] for probe in probes} == {"http"}


@pytest.mark.parametrize(
    ("changes", "url", "service"),
    [
        pytest.param({}, f"https://machinebot.{NAMESPACE}.svc", "machinebot", id="defaults"),
        pytest.param({"fullnameOverride": "identity"}, f"https://identity.{NAMESPACE}.svc", "identity", id="another name"),
        pytest.param(
            {"service": {"httpsPort": 8443}}, f"https://machinebot.{NAMESPACE}.svc:8443", "machinebot", id="another port"
        ),
        pytest.param({"https": {"url": "https://id.example.test"}}, "https://id.example.test", "machinebot", id="from outside"),
    ],
)
def test_the_address_is_the_one_that_clients_reach(changes: dict[str, Any], url: str, service: str) -> None:
    objects = template_chart(values(**changes), namespace=NAMESPACE)
    assert only(objects, "Service")["metadata"]["name"] == service
    assert (flags(objects)["url"], flags(objects)["service"]) == (url, service)


def test_a_certificate_from_outside_is_mounted_whole() -> None:
    objects = template_chart(values(https={"secretName": "id-tls"}))
    assert (flags(objects)["tls-cert"], flags(objects)["tls-key"]) == ("/tls/tls.crt", "/tls/tls.key")
    (mount,) = [each for each in container(objects)["volumeMounts"] if each["name"] == "tls"]
    # With a subPath the kubelet would never bring a renewed one.
    assert mount == {"name": "tls", "mountPath": "/tls", "readOnly": True}
    volumes = only(objects, "Deployment")["spec"]["template"]["spec"]["volumes"]
    assert {"name": "tls", "secret": {"secretName": "id-tls", "defaultMode": 0o440}} in volumes
    assert not {"tls-cert", "tls-key"} & flags(template_chart(values())).keys()


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"https": {"url": "http://id.example.test"}}, id="no TLS"),
        pytest.param({"https": {"url": "https://id.example.test/"}}, id="a slash at the end"),
        pytest.param({"https": {"secretName": "Upper"}}, id="no name"),
        pytest.param({"https": {"port": 1}}, id="unknown"),
        pytest.param({"service": {"httpsPort": 0}}, id="no port"),
    ],
)
def test_wrong_values_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(HelmError):
        template_chart(values(**changes))


def test_the_operator_as_the_chart_starts_it_serves_by_the_names_of_its_service(release: Release, tmp_path: Path) -> None:
    with OperatorProcess.from_release(release, tmp_path) as operator:
        operator.wait_ready()
        body = json.loads(
            eventually(
                "the authority is ready",
                lambda: (
                    (text := release.cluster.kubectl("get", "machineauthority", "default", "--output=json"))
                    and "BEGIN CERTIFICATE" in text
                    and text
                ),
            )
        )
        tls = trusting(public_of(body, "identity"))
        answer = eventually("HTTPS answers", lambda: fetch(operator.https_port, "/trust/ssh-user-ca", tls))
        assert (answer.status, answer.body) == (200, public_of(body, "ssh-user") + b"\n")
        pem = subprocess.run(
            ["openssl", "x509", "-inform", "DER", "-noout", "-ext", "subjectAltName"],
            input=answer.certificate,
            capture_output=True,
            check=True,
        ).stdout.decode()
        for name in dns_names(release.name, release.namespace, f"{release.name}.{release.namespace}.svc"):
            assert f"DNS:{name}" in pem
        assert operator.stop() == 0
