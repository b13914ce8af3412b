"""Where the agent finds the proofs of clouds: metadata services over real HTTP, and AWS's own library."""

import base64
import json
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from machinebot.agent import metadata
from machinebot.agent.proofs import azure, gcp, iam
from machinebot.agent.proofs.base import Wanted
from machinebot.errors import Denied, Invalid, MachinebotError, Unavailable
from machinebot.joins import sts
from support.local_http import serve

CHALLENGE = "Nn7qT1lq0s5oX3b0Yk4v9fB2eW8rJ6uA"
MANAGER = "https://management.azure.com/"
WANTED = Wanted(audience=MANAGER, challenge=CHALLENGE, cluster_name="example.test")
Proving = Callable[[Mapping[str, Any], Wanted], dict[str, str]]


class Metadata:
    """A metadata service: keeps what it was asked, and answers alike to all of it unless by path."""

    def __init__(self, status: int = 200, body: bytes = b"", **by_path: bytes) -> None:
        self.status, self.body, self.by_path = status, body, by_path
        self.asked: list[tuple[str, dict[str, str], Mapping[str, str]]] = []

    def __call__(self, path: str, query: Mapping[str, list[str]], headers: Mapping[str, str]) -> tuple[int, bytes]:
        self.asked.append((path, {name: values[0] for name, values in query.items()}, dict(headers)))
        return self.status, self.by_path.get(path.rpartition("/")[2], self.body)


def proof_of(prove: Proving, service: Metadata, wanted: Wanted = WANTED, **settings: Any) -> dict[str, str]:
    with serve(service) as port:
        return prove({"metadataURL": f"http://127.0.0.1:{port}", **settings}, wanted)


def problem_of(prove: Proving, service: Metadata, **settings: Any) -> MachinebotError:
    with pytest.raises(MachinebotError) as caught:
        proof_of(prove, service, **settings)
    assert "hush" not in str(caught.value)
    return caught.value


def azure_service() -> Metadata:
    return Metadata(
        document=json.dumps({"encoding": "pkcs7", "signature": "c2lnbmVk"}).encode(),
        token=json.dumps({"access_token": "a.b.c", "token_type": "Bearer"}).encode(),
    )


# --- Azure ----------------------------------------------------------------------------------------------------------------


def test_azure_gives_document_and_token() -> None:
    service = azure_service()
    assert proof_of(azure.prove, service) == {"attestedData": "c2lnbmVk", "accessToken": "a.b.c"}
    (path, document, headers), (token_path, identity, _) = service.asked
    assert (path, token_path) == ("/metadata/attested/document", "/metadata/identity/oauth2/token")
    assert document == {"api-version": "2020-09-01", "nonce": CHALLENGE}
    assert identity == {"api-version": "2018-02-01", "resource": MANAGER}
    assert headers["Metadata"] == "true"


def test_azure_asks_for_the_identity_that_is_set() -> None:
    service = azure_service()
    proof_of(azure.prove, service, clientID="0b8d7f10-7c1e-4a51-bd5c-0c3c2c7f6f5e")
    assert service.asked[1][1]["client_id"] == "0b8d7f10-7c1e-4a51-bd5c-0c3c2c7f6f5e"


@pytest.mark.parametrize("audience", ["https://vault.azure.net/", "https://graph.microsoft.com/", "example.test", "", None])
def test_azure_gives_no_authority_a_token_for_something_else(audience: str | None) -> None:
    service = azure_service()
    wanted = Wanted(audience=audience, challenge=CHALLENGE, cluster_name="example.test")
    with pytest.raises(Denied) as caught:
        proof_of(azure.prove, service, wanted)
    assert caught.value.reason == "WrongAudience"
    assert service.asked == []


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"hush", id="no JSON"),
        pytest.param(b"{}", id="no field"),
        pytest.param(b'["hush"]', id="a list"),
        pytest.param(b'{"signature": 1}', id="a number"),
    ],
)
def test_azure_answers_something_else(body: bytes) -> None:
    problem = problem_of(azure.prove, Metadata(body=body))
    assert (type(problem), problem.reason) == (Unavailable, "ProofUnavailable")


# --- Google Cloud ---------------------------------------------------------------------------------------------------------


def test_gcp_gives_a_full_token() -> None:
    service = Metadata(body=b"a.b.c\n")
    assert proof_of(gcp.prove, service) == {"token": "a.b.c"}
    ((path, query, headers),) = service.asked
    assert path == "/computeMetadata/v1/instance/service-accounts/default/identity"
    assert query == {"audience": MANAGER, "format": "full"}
    assert headers["Metadata-Flavor"] == "Google"


def test_gcp_of_another_account_for_the_cluster() -> None:
    service = Metadata(body=b"a.b.c")
    proof_of(gcp.prove, service, Wanted(None, None, "example.test"), serviceAccount="ci@acme.iam.gserviceaccount.com")
    ((path, query, _),) = service.asked
    assert path.endswith("/ci@acme.iam.gserviceaccount.com/identity")
    assert query["audience"] == "example.test"


@pytest.mark.parametrize("body", [b"", b"hush hush", "hüsh".encode(), b"hush\nhush"])
def test_gcp_gives_no_token(body: bytes) -> None:
    problem = problem_of(gcp.prove, Metadata(body=body))
    assert (type(problem), problem.reason) == (Invalid, "ProofMissing")


# --- both -----------------------------------------------------------------------------------------------------------------

BOTH = pytest.mark.parametrize("prove", [azure.prove, gcp.prove], ids=["azure", "gcp"])


@BOTH
@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        pytest.param(400, Invalid, "ProofMissing", id="no identity"),
        pytest.param(404, Invalid, "ProofMissing", id="nothing there"),
        pytest.param(302, Unavailable, "ProofUnavailable", id="a redirect"),
        pytest.param(410, Unavailable, "ProofUnavailable", id="under maintenance"),
        pytest.param(429, Unavailable, "ProofUnavailable", id="too many requests"),
        pytest.param(500, Unavailable, "ProofUnavailable", id="broken"),
    ],
)
def test_status(prove: Proving, status: int, kind: type[MachinebotError], reason: str) -> None:
    problem = problem_of(prove, Metadata(status, b"hush"))
    assert (type(problem), problem.reason) == (kind, reason)


@BOTH
def test_answer_that_is_too_long(prove: Proving) -> None:
    problem = problem_of(prove, Metadata(body=b"x" * (metadata.MAX_ANSWER + 1)))
    assert (type(problem), problem.reason) == (Unavailable, "ProofUnavailable")


@BOTH
def test_nobody_answers(prove: Proving) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(Unavailable) as caught:
            prove({"metadataURL": f"http://127.0.0.1:{held.getsockname()[1]}"}, WANTED)
    assert caught.value.reason == "ProofUnavailable"


@BOTH
def test_silence_ends(prove: Proving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(Unavailable) as caught:
        prove({"metadataURL": f"http://127.0.0.1:{silent.getsockname()[1]}"}, WANTED)
    assert caught.value.reason == "ProofUnavailable"


@BOTH
def test_proxies_are_not_asked(prove: Proving, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    service = azure_service()
    service.body = b"a.b.c"
    assert proof_of(prove, service)


@BOTH
@pytest.mark.parametrize(
    "address",
    [
        "https://169.254.169.254",
        "169.254.169.254",
        "http://",
        "http://user@169.254.169.254",
        "http://169.254.169.254/metadata",
        "http://169.254.169.254?x",
        "http://169.254.169.254:x",
        "http://[::1",
        "file:///etc/passwd",
        "",
    ],
)
def test_address_that_is_none(prove: Proving, address: str) -> None:
    with pytest.raises(Invalid) as caught:
        prove({"metadataURL": address}, WANTED)
    assert caught.value.reason == "InvalidSpec"


# --- AWS ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials of whoever runs the tests."""
    for name in (
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_REGION",
        "AWS_DEFAULT_REGION",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def from_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ASIAIOSFODNN7EXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hush")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session")


def request_of(settings: Mapping[str, Any]) -> sts.UnverifiedRequest:
    data = base64.b64decode(iam.prove(settings, WANTED)["request"])
    assert b"hush" not in data
    return sts.take_apart(data)


def test_iam_signs_what_the_authority_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    from_environment(monkeypatch)
    request = request_of({"region": "eu-central-1"})
    assert request.unverified_challenge == CHALLENGE
    assert request.host("aws") == "sts.eu-central-1.amazonaws.com"
    assert request.headers["x-amz-security-token"] == "session"
    signed = request.headers["authorization"].partition("SignedHeaders=")[2].partition(",")[0].split(";")
    assert {"host", "x-amz-date", "x-amz-security-token", "x-machinebot-challenge"} <= set(signed)
    assert "content-length" not in signed


@pytest.mark.parametrize(
    ("variables", "settings", "host"),
    [
        pytest.param({}, {}, "sts.amazonaws.com", id="none"),
        pytest.param({"AWS_REGION": "eu-west-1"}, {}, "sts.eu-west-1.amazonaws.com", id="AWS_REGION"),
        pytest.param({"AWS_DEFAULT_REGION": "eu-west-2"}, {}, "sts.eu-west-2.amazonaws.com", id="AWS_DEFAULT_REGION"),
        pytest.param(
            {"AWS_REGION": "eu-west-1", "AWS_DEFAULT_REGION": "eu-west-2"},
            {},
            "sts.eu-west-1.amazonaws.com",
            id="AWS_REGION first",
        ),
        pytest.param(
            {"AWS_REGION": "eu-west-1"},
            {"region": "us-gov-west-1"},
            "sts.us-gov-west-1.amazonaws.com",
            id="the setting first of all",
        ),
        pytest.param({"AWS_REGION": "cn-north-1"}, {}, "sts.cn-north-1.amazonaws.com.cn", id="China"),
    ],
)
def test_iam_region(
    monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str], settings: Mapping[str, str], host: str
) -> None:
    from_environment(monkeypatch)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert request_of(settings).headers["host"] == host


def test_iam_reads_profiles(tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("[ci]\naws_access_key_id = AKIAIOSFODNN7EXAMPLE\naws_secret_access_key = hush\n")
    (tmp_path / "config").write_text("[profile ci]\nregion = eu-north-1\n")
    request = request_of({"profile": "ci"})
    assert request.host("aws") == "sts.eu-north-1.amazonaws.com"
    assert "Credential=AKIAIOSFODNN7EXAMPLE/" in request.headers["authorization"]


@pytest.mark.parametrize("region", ["eu-nowhere-1", "eu-central-1.example.test", "us-iso-east-1"])
def test_iam_region_that_is_none(monkeypatch: pytest.MonkeyPatch, region: str) -> None:
    from_environment(monkeypatch)
    with pytest.raises(Invalid) as caught:
        iam.prove({"region": region}, WANTED)
    assert caught.value.reason == "InvalidSpec"


def test_iam_without_credentials() -> None:
    with pytest.raises(Unavailable) as caught:
        iam.prove({}, WANTED)
    assert caught.value.reason == "ProofMissing"


def test_iam_with_a_profile_that_is_not_there() -> None:
    with pytest.raises(Unavailable) as caught:
        iam.prove({"profile": "ci"}, WANTED)
    assert caught.value.reason == "ProofUnavailable"


def test_iam_without_awss_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "botocore", None)
    with pytest.raises(Invalid) as caught:
        iam.prove({}, WANTED)
    assert "pip install machinebot[aws]" in caught.value.message
