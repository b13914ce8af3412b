"""The configuration: what is read from it, and what is answered to each mistake."""

import stat
from pathlib import Path
from typing import Any

import pytest
import yaml

from machinebot.agent.config import MAX_CONFIG, parse_config, read_config
from machinebot.agent.outputs import Output, outputs_of
from machinebot.agent.run import run_daemon
from machinebot.errors import Invalid
from machinebot.policy.credential import Usage
from machinebot.resources.meta import parse_duration

PIN = "sha256:" + "0" * 64
CERTIFICATE = "-----BEGIN CERTIFICATE-----"


def output(name: str = "ssh", **fields: Any) -> dict[str, Any]:
    return {"name": name, "directory": {"path": f"/var/lib/out/{name}"}, **(fields or {"identity": {}})}


def written(**changes: Any) -> dict[str, Any]:
    made = {
        "server": "https://machinebot.example.test",
        "onboarding": {"namespace": "ci", "joinToken": "runners", "method": "github"},
        "outputs": [output()],
        **changes,
    }
    return {key: value for key, value in made.items() if value is not ...}


def read(**changes: Any) -> tuple[Output, ...]:
    return outputs_of(parse_config(yaml.safe_dump(written(**changes)).encode()))


def refusal(content: bytes | None = None, **changes: Any) -> str:
    with pytest.raises(Invalid) as caught:
        outputs_of(parse_config(yaml.safe_dump(written(**changes)).encode() if content is None else content))
    assert caught.value.reason == "InvalidConfig"
    return caught.value.message


def test_everything_has_its_place() -> None:
    config = parse_config(
        yaml.safe_dump(
            written(
                ca={"pins": [PIN]},
                onboarding={"namespace": "ci", "joinToken": "here", "method": "token", "token": {"secretFile": "/run/secret"}},
                storage={"directory": "/var/lib/machinebot"},
                health={"listen": "[::1]:3001"},
                log={"format": "console", "level": "debug"},
            )
        ).encode()
    )
    assert config.ca is not None
    assert config.ca.pins == (PIN,)
    assert config.onboarding.settings == {"secretFile": "/run/secret"}
    assert config.health is not None
    assert config.health.address == ("::1", 3001)
    assert (config.log.format, config.log.level) == ("console", "debug")
    assert config.place == "https://machinebot.example.test ci/here"


@pytest.mark.parametrize(
    ("fields", "usages", "files"),
    [
        ({"identity": {"knownHosts": ["*.internal"]}}, {Usage.SSH_USER, Usage.IDENTITY}, {"key", "ssh_config", "tls.crt"}),
        ({"identity": None}, {Usage.SSH_USER, Usage.IDENTITY}, {"key"}),
        ({"sshHost": {"principals": ["a.test"]}}, {Usage.SSH_HOST}, {"ssh_host"}),
        ({"application": {}}, {Usage.IDENTITY}, {"tls.key"}),
        ({"database": {"user": "app", "format": "postgres"}}, {Usage.DATABASE_CLIENT}, set()),
        ({"kubernetes": {"server": "https://api.example.test:6443"}}, {Usage.KUBERNETES}, {"kubeconfig.yaml"}),
        ({"x509SVID": {}}, {Usage.WORKLOAD}, {"svid.pem"}),
        ({"jwtSVID": {"audiences": ["vault"]}}, {Usage.WORKLOAD_TOKEN}, {"jwt_svid"}),
        ({"identity": {}, "keystores": {"pkcs12": {}}}, {Usage.SSH_USER, Usage.IDENTITY}, {"keystore.p12", "keystore.password"}),
    ],
)
def test_every_type_of_output_is_one_of_the_agents(fields: dict[str, Any], usages: set[Usage], files: set[str]) -> None:
    found = read(outputs=[output(**fields)])[0]
    request = found.request(found.new_key())
    assert set(request.usages) == usages
    assert files <= found.files
    assert (request.public_key is None) == (usages == {Usage.WORKLOAD_TOKEN})


def test_an_output_is_asked_for_as_it_is_written() -> None:
    found = read(
        outputs=[
            output(identity={}, roles=["access"], credentialTTL="90m", renewBefore="30m", privateKey={"algorithm": "Ed25519"})
        ]
    )[0]
    request = found.request(found.new_key())
    assert (request.roles, request.lifetime_seconds) == (("access",), 5400)
    assert found.parsed.spec.renew_before_length == parse_duration("30m")


def test_the_digest_of_an_output_tells_what_it_is_made_from() -> None:
    first = read()[0].inputs
    assert read()[0].inputs == first
    assert read(outputs=[output(identity={}, directory={"path": "/var/lib/out/ssh", "owner": 5})])[0].inputs == first
    for changes in (
        {"outputs": [output(identity={"knownHosts": ["a"]})]},
        {"outputs": [output(identity={}, roles=["access"])]},
        {"server": "https://other.example.test"},
        {"onboarding": {"namespace": "ci", "joinToken": "others", "method": "github"}},
    ):
        assert read(**changes)[0].inputs != first


@pytest.mark.parametrize("mode", ["0750", 0o750, "750"])
def test_modes_are_read_with_and_without_quotes(mode: Any) -> None:
    found = read(outputs=[output(identity={}, directory={"path": "/o", "mode": mode})])[0]
    assert stat.filemode(found.directory.mode | stat.S_IFDIR) == "drwxr-x---"
    assert found.owned().file_mode == 0o640


def test_a_relative_path_begins_at_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read(outputs=[output(identity={}, directory={"path": "out/ssh"})])[0].directory.path == tmp_path / "out" / "ssh"


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("no server", {"server": ...}, "server: is missing: write it"),
    ("a server without TLS", {"server": "http://m.example.test"}, "write it as https://machinebot.example.test"),
    ("an unknown key", {"sever": "x"}, "sever: there is no such key: write server"),
    ("an unknown key far from all", {"zzz": 1}, "zzz: there is no such key: there are ca, health, log,"),
    ("an unknown key below", {"onboarding": {"namespace": "ci", "joinToken": "r", "method": "github", "jointoken": "r"}}, "onboarding.jointoken: there is no such key: write joinToken"),
    ("snake case", {"onboarding": {"namespace": "ci", "join_token": "r", "method": "github"}}, "onboarding.joinToken: is missing"),
    ("a method that there is not", {"onboarding": {"namespace": "ci", "joinToken": "r", "method": "tpm"}}, "onboarding.method: Input should be 'token', 'kubernetes'"),
    ("the block of another method", {"onboarding": {"namespace": "ci", "joinToken": "r", "method": "github", "token": {}}}, "token is for the method token, and the method is github"),
    ("a secret in the file", {"onboarding": {"namespace": "ci", "joinToken": "r", "method": "token", "token": {"secret": "s3cret"}}}, "onboarding.token.secret: there is no such key: write secretFile"),
    ("a capital in a name", {"onboarding": {"namespace": "CI", "joinToken": "r", "method": "github"}}, "onboarding.namespace: must be a name as Kubernetes has them"),
    ("both kinds of trust", {"ca": {"pins": [PIN], "file": "/a"}}, "ca: write one of file and pins"),
    ("no kind of trust", {"ca": {}}, "ca: write one of file and pins"),
    ("a pin that is none", {"ca": {"pins": ["sha256:00"]}}, "ca.pins.0: write sha256: and 64 hex digits"),
    ("no outputs", {"outputs": []}, "outputs:"),
    ("outputs that are none", {"outputs": ["ssh"]}, "outputs.0:"),
    ("a port that is none", {"health": {"listen": "127.0.0.1:http"}}, 'health.listen: write an address with a port, such as "127.0.0.1:3001"'),
    ("a level that is none", {"log": {"level": "trace"}}, "log.level: write one of debug, info, warning and error"),
    ("no type", {"outputs": [{"name": "a", "directory": {"path": "/o"}}]}, "outputs.0: exactly one type of output must be set"),
    ("two types", {"outputs": [output(identity={}, application={})]}, "outputs.0: exactly one type of output must be set"),
    ("a type of tbot", {"outputs": [output(ssh_host={})]}, "outputs.0.ssh_host: there is no such key: write sshHost"),
    ("the Secret of a MachineOutput", {"outputs": [output(identity={}, secret={"name": "a"})]}, "outputs.0.secret: there is no such key"),
    ("no name", {"outputs": [{"identity": {}, "directory": {"path": "/o"}}]}, "outputs.0.name: is missing"),
    ("no directory", {"outputs": [{"name": "a", "identity": {}}]}, "outputs.0.directory: is missing"),
    ("an unknown key of the type", {"outputs": [output(identity={"knownHost": ["a"]})]}, "outputs.0.identity.knownHost: there is no such key"),
    ("an unknown key of the private key", {"outputs": [output(identity={}, privateKey={"size": 2048})]}, "outputs.0.privateKey.size: there is no such key"),
    ("a setting in a list that is none", {"outputs": [output(sshHost={"principals": ["*"]})]}, "principals.0"),
    ("settings that are none", {"outputs": [output(identity="all")]}, "outputs.0.identity: write the settings of the type, or {} for none"),
    ("a duration that is none", {"outputs": [output(identity={}, credentialTTL="1d")]}, 'write hours, minutes and seconds such as "24h"'),
    ("both renewals", {"outputs": [output(identity={}, renewBefore="1h", renewBeforePercentage=50)]}, "exclude each other"),
    ("an algorithm that does not fit", {"outputs": [output(jwtSVID={"audiences": ["a"]}, privateKey={"algorithm": "Ed25519"})]}, "leave privateKey out"),
    ("an API server that is not named", {"outputs": [output(kubernetes={})]}, "outputs.0.kubernetes.server: write the address of the API server"),
    ("Argo CD", {"outputs": [output(kubernetes={"server": "https://a.test", "argoCD": True})]}, "outputs.0.kubernetes.argoCD: is for Secrets of Argo CD"),
    ("a password in a Secret", {"outputs": [output(identity={}, keystores={"pkcs12": {"passwordSecretRef": {"name": "a"}}})]}, "a password is made"),
    ("keystores without a certificate", {"outputs": [output(sshHost={"principals": ["a.test"]}, keystores={"pkcs12": {}})]}, "leave keystores out"),
    ("one name twice", {"outputs": [output(), output(identity={}, directory={"path": "/other"})]}, "there are two outputs 'ssh'"),
    ("one directory twice", {"outputs": [output(), output("b", identity={}, directory={"path": "/var/lib/out/../out/ssh/"})]}, "is the directory of the output 'ssh' too"),
    ("the directory of the storage", {"storage": {"directory": "/var/lib/out/ssh"}}, "is the directory of storage too"),
    ("a mode for all", {"outputs": [output(identity={}, directory={"path": "/o", "mode": "0755"})]}, 'write "0700", or "0750"'),
    ("a mode that is none", {"outputs": [output(identity={}, directory={"path": "/o", "mode": "rwx"})]}, 'write "0700", or "0750"'),
    ("a path that is none", {"outputs": [output(identity={}, directory={"path": ""})]}, "write a path"),
    ("a blank where ssh reads none", {"outputs": [output(identity={}, directory={"path": "/a b"})]}, "mountPath"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words"), [pytest.param(*row[1:], id=row[0]) for row in MISTAKES])
def test_a_mistake_is_answered_by_what_to_write(changes: dict[str, Any], words: str) -> None:
    message = refusal(**changes)
    assert words in message
    assert "s3cret" not in message


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "this is no configuration"),
        (b"- a", "this is no configuration"),
        (b"server: [", "this is no YAML in line 1"),
        (b"server: a\nserver: b", "the key 'server' stands there twice"),
        (b"a: &a [1]\nb: *a", "aliases are not read"),
        (b"\xff\xfe\xfd", "this is no YAML"),
        (b"a: !!python/object:os.system x", "this is no YAML"),
        (b"[" * 5000, "this is no YAML"),
        (b"? [a, b]\n: c", "this is no"),
        (b"a: 2027-99-99", "this is no"),
    ],
)
def test_what_is_no_configuration_is_told(content: bytes, words: str) -> None:
    assert words in refusal(content)


def test_files_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    for path, words in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(Invalid) as caught:
            read_config(path)
        assert words in caught.value.message
    long = tmp_path / "long.yaml"
    long.write_bytes(b"#" * (MAX_CONFIG + 1))
    with pytest.raises(Invalid, match="longer than"):
        read_config(long)


@pytest.mark.parametrize("field", ["owner", "group"])
def test_owners_that_there_are_not_are_told(field: str) -> None:
    found = read(outputs=[output(identity={}, directory={"path": "/o", field: "nobody-of-that-name"})])[0]
    with pytest.raises(Invalid, match="this machine has no"):
        found.owned()


def test_names_and_numbers_of_owners() -> None:
    directory = {"path": "/o", "owner": "root", "group": 7}
    owned = read(outputs=[output(identity={}, directory=directory)])[0].owned()
    assert (owned.owner, owned.group) == (0, 7)


def test_a_secret_that_counts_once_needs_storage_in_a_daemon() -> None:
    config = parse_config(yaml.safe_dump(written(onboarding={"namespace": "ci", "joinToken": "r", "method": "token"})).encode())
    with pytest.raises(Invalid, match="directory: /var/lib/machinebot"):
        run_daemon(config, outputs_of(config))
