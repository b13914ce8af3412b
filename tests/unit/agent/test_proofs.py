"""Proofs: found where each platform puts them, read anew at each call, refused where they are none, and never shown."""

import importlib
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qs, urlsplit

import pytest

from machinebot.agent.config import MethodName
from machinebot.agent.proofs.base import MAX_TOKEN, Prove, Wanted
from machinebot.errors import Invalid, MachinebotError, Unavailable
from unit.client.server import Asked, Said, Server, identity_ca, server_context, serving

WANTED = Wanted(audience="example.test", challenge=None, cluster_name="example.test")
TOKEN = "eyJhbGciOiJSUzI1NiJ9.e30.c2ln"


def prover(method: str) -> Prove:
    found: Prove = importlib.import_module(f"machinebot.agent.proofs.{method}").prove
    return found


@pytest.fixture(autouse=True)
def _no_platform(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "MACHINEBOT_JOIN_SECRET",
        "MACHINEBOT_GITLAB_JWT",
        "MACHINEBOT_OIDC_TOKEN",
        "KUBERNETES_TOKEN_PATH",
        "CIRCLE_OIDC_TOKEN",
        "CIRCLE_OIDC_TOKEN_V2",
        "SPACELIFT_OIDC_TOKEN",
        "TFC_WORKLOAD_IDENTITY_TOKEN",
        "BITBUCKET_STEP_OIDC_TOKEN",
        "ACTIONS_ID_TOKEN_REQUEST_URL",
        "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
        "SYSTEM_OIDCREQUESTURI",
        "SYSTEM_ACCESSTOKEN",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("method", get_args(MethodName))
def test_every_method_has_a_proof(method: str) -> None:
    assert callable(prover(method))


# --- environment and files ----------------------------------------------------------------------------------------------

ENVIRONMENT: list[tuple[str, str, dict[str, Any], str]] = [
    ("token", "MACHINEBOT_JOIN_SECRET", {}, "secret"),
    ("token", "OTHER", {"env": "OTHER"}, "secret"),
    ("gitlab", "MACHINEBOT_GITLAB_JWT", {}, "token"),
    ("gitlab", "OTHER", {"tokenEnv": "OTHER"}, "token"),
    ("circleci", "CIRCLE_OIDC_TOKEN_V2", {}, "token"),
    ("circleci", "CIRCLE_OIDC_TOKEN", {}, "token"),
    ("spacelift", "SPACELIFT_OIDC_TOKEN", {}, "token"),
    ("terraform_cloud", "TFC_WORKLOAD_IDENTITY_TOKEN", {}, "token"),
    ("terraform_cloud", "TFC_WORKLOAD_IDENTITY_TOKEN_BOT", {"tag": "BOT"}, "token"),
    ("bitbucket", "BITBUCKET_STEP_OIDC_TOKEN", {}, "token"),
    ("oidc", "MACHINEBOT_OIDC_TOKEN", {}, "token"),
    ("oidc", "OTHER", {"tokenEnv": "OTHER"}, "token"),
]
NAMES = [f"{row[0]} {row[1]}" for row in ENVIRONMENT]


@pytest.mark.parametrize(("method", "name", "settings", "field"), ENVIRONMENT, ids=NAMES)
def test_a_token_in_the_environment(
    method: str, name: str, settings: dict[str, Any], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    prove = prover(method)
    with pytest.raises(Invalid) as caught:
        prove(settings, WANTED)
    assert caught.value.reason == "ProofMissing"
    assert name in caught.value.message or method == "circleci"
    monkeypatch.setenv(name, f" {TOKEN}\n")
    assert prove(settings, WANTED) == {field: TOKEN}
    monkeypatch.setenv(name, "later")
    assert prove(settings, WANTED) == {field: "later"}


@pytest.mark.parametrize(("method", "name", "settings", "field"), ENVIRONMENT, ids=NAMES)
@pytest.mark.parametrize("bad", ["", " \n", "two words", "line\nline", "ü", "x" * (MAX_TOKEN + 1), "bell\a"])
def test_what_is_no_token_is_refused_and_not_shown(
    method: str, name: str, settings: dict[str, Any], field: str, bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, bad)
    with pytest.raises(Invalid) as caught:
        prover(method)(settings, WANTED)
    assert caught.value.reason == "ProofMissing"
    assert field
    assert not bad.strip() or bad not in caught.value.message


def test_circleci_prefers_the_newer_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIRCLE_OIDC_TOKEN", "old")
    monkeypatch.setenv("CIRCLE_OIDC_TOKEN_V2", "new")
    assert prover("circleci")({}, WANTED) == {"token": "new"}


FILES = [("token", "secretFile", "secret"), ("kubernetes", "tokenPath", "token"), ("oidc", "tokenFile", "token")]


@pytest.mark.parametrize(("method", "setting", "field"), FILES)
def test_a_token_in_a_file_is_read_anew(method: str, setting: str, field: str, tmp_path: Path) -> None:
    path, prove = tmp_path / "token", prover(method)
    with pytest.raises(Unavailable) as caught:
        prove({setting: str(path)}, WANTED)
    assert caught.value.reason == "ProofMissing"
    for content in ("first", "second\n"):
        path.write_text(content)
        assert prove({setting: str(path)}, WANTED) == {field: content.strip()}
    for bad in (b"", b"\xff\xfe", b"a b", b"x" * (MAX_TOKEN + 2)):
        path.write_bytes(bad)
        with pytest.raises(Invalid):
            prove({setting: str(path)}, WANTED)


def test_kubernetes_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("good")
    monkeypatch.setenv("KUBERNETES_TOKEN_PATH", str(tmp_path / "token"))
    assert prover("kubernetes")({}, WANTED) == {"token": "good"}


def test_the_hint_names_the_audience(monkeypatch: pytest.MonkeyPatch) -> None:
    for method in ("gitlab", "oidc", "terraform_cloud"):
        with pytest.raises(Invalid, match=r"vault\.test"):
            prover(method)({}, Wanted(audience="vault.test", challenge=None, cluster_name="example.test"))
    monkeypatch.setenv("KUBERNETES_TOKEN_PATH", "/nonexistent")
    with pytest.raises(Unavailable, match=r"example\.test"):
        prover("kubernetes")({}, Wanted(audience=None, challenge=None, cluster_name="example.test"))


# --- platforms that are asked -------------------------------------------------------------------------------------------

CA = identity_ca()


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A platform whose certificate the machine trusts."""
    (tmp_path / "ca.pem").write_bytes(CA.anchor.public)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with serving(lambda _: Said(), server_context(CA)) as server:
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_URL", f"{server.url}/idtoken/1?api-version=2.0")
        monkeypatch.setenv("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "password")
        monkeypatch.setenv("SYSTEM_OIDCREQUESTURI", f"{server.url}/org/_apis/oidctoken")
        monkeypatch.setenv("SYSTEM_ACCESSTOKEN", "password")
        yield server


def query(asked: Asked) -> dict[str, list[str]]:
    return parse_qs(urlsplit(asked.path).query)


def test_github_is_asked_with_our_audience(platform: Server) -> None:
    platform.answer = lambda _: Said(body=b'{"value": "id-token", "count": 1}')
    assert prover("github")({}, Wanted("https://a.test/x?y&z", None, "example.test")) == {"token": "id-token"}
    asked = platform.seen[0]
    assert asked.method == "GET"
    assert urlsplit(asked.path).path == "/idtoken/1"
    assert query(asked) == {"api-version": ["2.0"], "audience": ["https://a.test/x?y&z"]}
    assert asked.headers["authorization"] == "Bearer password"


def test_azure_devops_is_asked(platform: Server) -> None:
    platform.answer = lambda _: Said(body=b'{"oidcToken": "id-token"}')
    assert prover("azure_devops")({}, WANTED) == {"token": "id-token"}
    asked = platform.seen[0]
    assert (asked.method, urlsplit(asked.path).path, query(asked)) == ("POST", "/org/_apis/oidctoken", {"api-version": ["7.1"]})
    assert asked.headers["authorization"] == "Bearer password"


@pytest.mark.parametrize("method", ["github", "azure_devops"])
@pytest.mark.parametrize(
    "said",
    [
        pytest.param(Said(401, b"Unauthorized: password"), id="refused"),
        pytest.param(Said(302, b"", {"Location": "https://elsewhere.test/"}), id="a redirect"),
        pytest.param(Said(200, b"password"), id="no JSON"),
        pytest.param(Said(200, b"[]"), id="a list"),
        pytest.param(Said(200, b'{"value": 1, "oidcToken": null}'), id="no text"),
        pytest.param(Said(200, b'{"other": "x"}'), id="another field"),
        pytest.param(Said(200, b"x" * 2_000_000), id="too long"),
    ],
)
def test_a_platform_that_answers_something_else(platform: Server, method: str, said: Said) -> None:
    platform.answer = lambda _: said
    with pytest.raises(Unavailable) as caught:
        prover(method)({}, WANTED)
    assert caught.value.reason == "ProofUnavailable"
    assert "password" not in str(caught.value)
    assert len(platform.seen) == 1


@pytest.mark.parametrize("method", ["github", "azure_devops"])
def test_a_platform_that_gives_blanks_for_a_token(platform: Server, method: str) -> None:
    platform.answer = lambda _: Said(body=b'{"value": "a b", "oidcToken": ""}')
    with pytest.raises(Invalid):
        prover(method)({}, WANTED)


@pytest.mark.parametrize("url", ["http://169.254.169.254/token", "ftp://x", "file:///etc/passwd", "https://a:b@c.test/"])
def test_a_password_goes_over_tls_only(platform: Server, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("ACTIONS_ID_TOKEN_REQUEST_URL", "SYSTEM_OIDCREQUESTURI"):
        monkeypatch.setenv(name, url)
    for method in ("github", "azure_devops"):
        with pytest.raises(MachinebotError) as caught:
            prover(method)({}, WANTED)
        assert caught.value.reason == "ProofUnavailable"
    assert platform.seen == []


def test_a_platform_whose_certificate_nobody_knows(platform: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    assert ssl.get_default_verify_paths()
    with pytest.raises(Unavailable) as caught:
        prover("github")({}, WANTED)
    assert caught.value.reason == "ProofUnavailable"
    assert platform.seen == []


@pytest.mark.parametrize(
    ("method", "name", "words"),
    [
        ("github", "ACTIONS_ID_TOKEN_REQUEST_URL", "id-token: write"),
        ("github", "ACTIONS_ID_TOKEN_REQUEST_TOKEN", "id-token: write"),
        ("azure_devops", "SYSTEM_ACCESSTOKEN", "$(System.AccessToken)"),
        ("azure_devops", "SYSTEM_OIDCREQUESTURI", "Azure Pipelines"),
    ],
)
def test_what_the_job_lacks_is_named(
    platform: Server, method: str, name: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(name)
    with pytest.raises(Invalid) as caught:
        prover(method)({}, WANTED)
    assert caught.value.reason == "ProofMissing"
    assert name in caught.value.message
    assert words in caught.value.message
    assert platform.seen == []
