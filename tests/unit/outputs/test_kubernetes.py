"""The two forms of a kubernetes output: a kubeconfig, and a cluster of Argo CD."""

import base64
import json
from typing import Any

import pytest
import yaml

from machinebot.outputs.trust import certificates
from machinebot.outputs.types.kubernetes import ARGOCD_LABEL
from machinebot.policy.credential import Purpose
from unit.outputs.builders import API_SERVER, CLUSTER, authority, content, material, output

PEM = authority().trust().of(Purpose.IDENTITY)[0].public.decode()
"""Some CA certificate that is not the one of our own API server."""
ELSEWHERE = {"server": "https://api.staging.example.test", "certificateAuthority": PEM}


def plain(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


@pytest.mark.parametrize(
    ("settings", "server", "ca", "name", "namespace"),
    [
        pytest.param({}, API_SERVER.server, API_SERVER.certificate_authority, CLUSTER, "default", id="our own cluster"),
        pytest.param(ELSEWHERE, ELSEWHERE["server"], PEM.encode(), CLUSTER, "default", id="another"),
        pytest.param(
            {**ELSEWHERE, "context": "staging", "namespace": "apps"},
            ELSEWHERE["server"],
            PEM.encode(),
            "staging",
            "apps",
            id="with other names",
        ),
    ],
)
def test_a_kubeconfig_has_everything_in_it(settings: dict[str, Any], server: str, ca: bytes, name: str, namespace: str) -> None:
    wanted = output({"kubernetes": settings})
    made = material(wanted)
    data = wanted.type.render(wanted.settings, made)
    config = yaml.safe_load(data["kubeconfig.yaml"])
    assert config["current-context"] == name
    ((cluster,), (context,), (user,)) = (config[each] for each in ("clusters", "contexts", "users"))
    assert cluster["name"] == context["name"] == user["name"] == name
    assert context["context"] == {"cluster": name, "user": name, "namespace": namespace}
    assert cluster["cluster"]["server"] == server
    assert plain(cluster["cluster"]["certificate-authority-data"]) == ca
    assert plain(user["user"]["client-certificate-data"]) == made.issued.x509_certificate
    assert plain(user["user"]["client-key-data"]) == made.key.pkcs8
    assert data["ca.crt"] == certificates(authority().trust().of(Purpose.KUBERNETES)), "the client CA, not the server's"


@pytest.mark.parametrize("settings", [{}, {**ELSEWHERE, "context": "staging"}], ids=["our own cluster", "another"])
def test_a_cluster_of_argo_cd_has_the_keys_that_it_reads(settings: dict[str, str]) -> None:
    wanted = output({"kubernetes": {**settings, "argoCD": True}})
    made = material(wanted)
    data = wanted.type.render(wanted.settings, made)
    assert data["name"].decode() == settings.get("context", CLUSTER)
    assert data["server"].decode() == settings.get("server", API_SERVER.server)
    tls = json.loads(data["config"])["tlsClientConfig"]
    assert tls.pop("insecure") is False
    assert {name: plain(text) for name, text in tls.items()} == {
        "caData": PEM.encode() if settings else API_SERVER.certificate_authority,
        "certData": made.issued.x509_certificate,
        "keyData": made.key.pkcs8,
    }


@pytest.mark.parametrize(
    ("settings", "labels"), [({}, {}), ({"argoCD": False}, {}), ({"argoCD": True}, {ARGOCD_LABEL: "cluster"})]
)
def test_argo_cd_finds_its_clusters_by_a_label(settings: dict[str, Any], labels: dict[str, str]) -> None:
    wanted = output({"kubernetes": settings})
    assert wanted.type.labels(wanted.settings) == labels


def test_numbers_and_words_of_yaml_stay_text() -> None:
    """`context: no` or `context: 1` would be read as something else without quotes."""
    for name in ("no", "1", "1e3", "null", "2027-01-01", "0x1f"):
        config = yaml.safe_load(content(output({"kubernetes": {"context": name, "namespace": "1"}}))["kubeconfig.yaml"])
        assert config["current-context"] == config["contexts"][0]["name"] == name
        assert config["contexts"][0]["context"]["namespace"] == "1"
