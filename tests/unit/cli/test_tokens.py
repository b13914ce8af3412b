"""Join tokens from flags."""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from typer.testing import CliRunner

from machinebot.cli.main import app
from machinebot.cli.tokens import MAX_FILE, Asked, join_token, method
from machinebot.errors import Invalid
from machinebot.joins.registry import JOIN_METHODS

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def spec(method: str, *allow: str, settings: tuple[str, ...] = (), expires: str | None = None) -> dict[str, object]:
    return join_token("ci", "x", Asked("deployer", method, allow, settings, expires), NOW).spec


@pytest.mark.parametrize("each", JOIN_METHODS.values(), ids=lambda each: each.name)
def test_a_method_is_known_by_both_of_its_names(each: object) -> None:
    assert method(each.name) is each  # type: ignore[attr-defined]
    assert method(each.field) is each  # type: ignore[attr-defined]


def test_rules_and_settings_go_where_the_schema_has_them() -> None:
    assert spec("github", "repositoryID=1,ref=refs/heads/main", "sub=a\\,b=c", settings=("audience=x=y",), expires="1h") == {
        "bot": "deployer",
        "expires": "2026-01-01T01:00:00Z",
        "github": {
            "allow": [{"repositoryID": "1", "ref": "refs/heads/main"}, {"sub": "a,b=c"}],
            "audience": "x=y",
        },
    }


def test_a_nested_setting_is_reached_by_dots_and_read_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_text('{"keys": []}')
    found = spec(
        "kubernetes",
        "serviceAccount=ci:x",
        settings=("type=static_jwks", f"staticJWKS.jwks=@{tmp_path / 'keys.json'}"),
    )
    assert found["kubernetes"] == {
        "allow": [{"serviceAccount": "ci:x"}],
        "type": "static_jwks",
        "staticJWKS": {"jwks": '{"keys": []}'},
    }


ID = "0b0e0000-0000-4000-8000-000000000000"


def root() -> str:
    """A CA certificate, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "root")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key()).serial_number(1)
    builder = builder.not_valid_before(NOW).not_valid_after(NOW + timedelta(days=1))
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


FLAGS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "azure": ((f"subscriptionID={ID},resourceGroups=a,resourceGroups=b",), (f"tenantID={ID}", f"rootCertificates={root()}")),
    "azureDevOps": ((f"projectID={ID}",), (f"organizationID={ID}",)),
    "bitbucket": (
        (f"workspaceUUID={{{ID}}},repositoryUUID={{{ID}}}",),
        ("audience=x", "identityProviderURL=https://api.bitbucket.org/2.0/workspaces/x/pipelines-config/identity/oidc"),
    ),
    "circleci": ((f"projectID={ID}",), (f"organizationID={ID}",)),
    "gcp": (("projectIDs=a-project,serviceAccounts=x@a-project.iam.gserviceaccount.com",), ()),
    "github": (("repositoryID=1",), ()),
    "gitlab": (("projectID=1,refProtected=true",), ("domain=gitlab.example.test",)),
    "iam": (("account=111111111111",), ()),
    "kubernetes": (("serviceAccount=ci:x",), ()),
    "oidc": ((), ("issuer=https://id.example.test", "audience=x", "mustMatch.sub=x", "mustMatch.example.test/team=y")),
    "spacelift": (("spaceID=root",), ("hostname=x.app.spacelift.io",)),
    "terraformCloud": (("organizationID=org-1,workspaceID=ws-1",), ()),
    "token": ((), ("secretHash=sha256:" + "0" * 64,)),
}
"""Flags for each method, by its field."""


@pytest.mark.parametrize("field", JOIN_METHODS)
def test_every_method_can_be_written_by_flags(field: str) -> None:
    allow, settings = FLAGS[field]
    assert spec(field, *allow, settings=settings, expires="1h").keys() == {"bot", "expires", field}


def test_lists_booleans_and_keys_with_dots_are_understood() -> None:
    assert spec("azure", *FLAGS["azure"][0], settings=FLAGS["azure"][1])["azure"]["allow"][0]["resourceGroups"] == ["a", "b"]  # type: ignore[index]
    assert spec("gitlab", *FLAGS["gitlab"][0])["gitlab"]["allow"][0]["refProtected"] is True  # type: ignore[index]
    found = spec("oidc", settings=FLAGS["oidc"][1])["oidc"]
    assert found["mustMatch"] == {"sub": "x", "example.test/team": "y"}  # type: ignore[index]


@pytest.mark.parametrize(
    ("name", "allow", "settings", "words"),
    [
        pytest.param("jenkins", (), (), "there is no join method 'jenkins': write one of", id="no method"),
        pytest.param("github", (), (), "spec.github.allow: is missing", id="no rule"),
        pytest.param("github", ("repo=1",), (), "--allow: there is no field 'repo': write one of repositoryID", id="unknown"),
        pytest.param("github", ("repositoryID",), (), "is no setting: write --allow key=value", id="no value"),
        pytest.param("github", ("repositoryID=1,",), (), "'' is no setting", id="a comma too many"),
        pytest.param("github", ("repositoryID=1,repositoryID=2",), (), "is there twice", id="twice"),
        pytest.param("github", ("ref=x",), (), "a rule must have at least one of", id="no restriction"),
        pytest.param("github", ("repositoryID=",), (), "must have 1 to", id="empty"),
        pytest.param("github", ("repositoryID=1",), ("audence=x",), "--set: there is no field 'audence'", id="setting"),
        pytest.param("github", (), ("allow=x",), "takes no single value: write its resource as YAML", id="rules as a setting"),
        pytest.param("github", ("repositoryID=1",), ("audience.x=y",), "there is no field 'x'", id="below a text"),
        pytest.param("github", ("repositoryID=1",), (".=y",), "is no setting", id="dots alone"),
        pytest.param("kubernetes", ("serviceAccount=x",), (), "must be namespace:name of one ServiceAccount", id="account"),
        pytest.param("kubernetes", ("serviceAccount=a:b",), ("oidc=x",), "write oidc.issuer", id="no fields"),
        pytest.param("kubernetes", ("serviceAccount=a:b",), ("type=other",), "must be one of in_cluster", id="enum"),
        pytest.param("token", ("x=y",), (), "it has no rules", id="rules for a secret"),
        pytest.param("token", (), ("secretHash=sha256:" + "0" * 64,), "token needs expires", id="no end"),
        pytest.param("github", ("repositoryID=@/nonexistent",), (), "/nonexistent cannot be read", id="no file"),
    ],
)
def test_a_mistake_is_told_with_what_to_write(name: str, allow: tuple[str, ...], settings: tuple[str, ...], words: str) -> None:
    with pytest.raises(Invalid) as caught:
        spec(name, *allow, settings=settings)
    assert words in caught.value.message


def test_a_file_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (MAX_FILE + 1))
    with pytest.raises(Invalid, match="longer than"):
        spec("github", "repositoryID=1", settings=(f"staticJWKS=@{tmp_path / 'large'}",))


# --- secrets ------------------------------------------------------------------------------------------------------------


def run(*arguments: str) -> tuple[int, str, str]:
    flags = ("tokens", "add", "x", "--bot=deployer", "--method=token", "-n", "ci", "--expires=12h")
    result = CliRunner().invoke(app, [*flags, *arguments], env={"KUBECONFIG": "/nonexistent"})
    return result.exit_code, result.stdout, result.stderr


def test_a_secret_goes_into_a_file_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    code, said, complaint = run(f"--secret-file={file}")
    assert code == 0
    secret = file.read_text()
    assert (len(secret), file.stat().st_mode & 0o777) == (64, 0o600)
    assert f"secretHash: sha256:{hashlib.sha256(secret.encode()).hexdigest()}" in said
    assert secret not in said + complaint
    assert f"the secret is in {file}" in complaint


def test_two_secrets_differ(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(f"--secret-file={tmp_path / name}")
    assert (tmp_path / "a").read_text() != (tmp_path / "b").read_text()


def test_no_file_is_written_over_and_no_link_followed(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("there", "link", "no/folder"):
        code, said, complaint = run(f"--secret-file={tmp_path / name}")
        assert (code, said) == (1, "")
        assert "cannot be made" in complaint
    assert (tmp_path / "there").read_text() == "precious"
    assert not (tmp_path / "elsewhere").exists()


def test_a_resource_that_is_not_stored_leaves_no_secret(tmp_path: Path) -> None:
    code, _, _ = run(f"--secret-file={tmp_path / 'secret'}", "--apply")
    assert code == 1
    assert not (tmp_path / "secret").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        pytest.param([], "write --secret-file FILE", id="nowhere"),
        pytest.param(["--secret-file=-"], "standard output is taken by the resource", id="two things on standard output"),
    ],
)
def test_where_the_secret_goes_must_be_said(flags: list[str], words: str) -> None:
    code, said, complaint = run(*flags)
    assert (code, said) == (1, "")
    assert words in complaint


def test_a_secret_file_is_for_secrets_alone(tmp_path: Path) -> None:
    flags = ["tokens", "add", "x", "--bot=b", "--method=github", "-n=ci", "--allow=repositoryID=1"]
    result = CliRunner().invoke(app, [*flags, f"--secret-file={tmp_path / 'x'}"])
    assert result.exit_code == 1
    assert "github has no secret" in result.stderr
