"""The SSH configuration of an identity output, read by the real ssh; its known_hosts lines, by the real ssh-keygen."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from machinebot.policy.credential import Purpose
from unit.outputs.builders import authority, content, output


def data(**settings: Any) -> dict[str, bytes]:
    return content(output({"identity": settings}))


def ssh_reads(config: bytes, host: str, directory: Path) -> dict[str, str]:
    """What the real ssh makes of a configuration for a host, by keyword in small letters."""
    path = directory / "ssh_config"
    path.write_bytes(config)
    shown = subprocess.run(["ssh", "-G", "-F", str(path), host], capture_output=True, text=True, check=True).stdout
    return dict(line.partition(" ")[::2] for line in shown.splitlines())


OURS = {
    "identityfile": "/id/key",
    "certificatefile": "/id/key-cert.pub",
    "userknownhostsfile": "/id/known_hosts",
    "globalknownhostsfile": "none",
    "identitiesonly": "yes",
    "stricthostkeychecking": "true",
    "updatehostkeys": "false",
}


@pytest.mark.parametrize(
    "host", ["example.test", "web-1.example.test", "a.b.example.test", "git.lan", "10.0.0.1", "backup", "a.dmz", "2001:db8::1"]
)
def test_ssh_takes_everything_for_a_login_from_the_configuration(tmp_path: Path, host: str) -> None:
    config = data(knownHosts=["*.lan", "10.0.0.?", "[backup]:2222", "[*.dmz]:22", "[2001:db8::1]:2222"])["ssh_config"]
    read = ssh_reads(config, host, tmp_path)
    assert OURS.items() <= read.items()


@pytest.mark.parametrize("host", ["other.test", "example.test.other", "notexample.test", "10.0.0.10"])
def test_other_hosts_get_nothing_of_it(tmp_path: Path, host: str) -> None:
    read = ssh_reads(data(knownHosts=["10.0.0.?"])["ssh_config"], host, tmp_path)
    assert "certificatefile" not in read
    assert read["userknownhostsfile"] != OURS["userknownhostsfile"]


def test_the_files_are_where_the_secret_is_mounted(tmp_path: Path) -> None:
    read = ssh_reads(data(mountPath="/var/run/secrets/ci.id")["ssh_config"], "example.test", tmp_path)
    assert read["identityfile"] == "/var/run/secrets/ci.id/key"
    assert read["certificatefile"] == "/var/run/secrets/ci.id/key-cert.pub"
    assert read["userknownhostsfile"] == "/var/run/secrets/ci.id/known_hosts"


def test_each_host_stands_once() -> None:
    config = data(knownHosts=["[git.lan]:22", "[git.lan]:2222", "git.lan", "example.test"])["ssh_config"]
    assert config.splitlines()[0] == b"Host example.test *.example.test git.lan"


def test_known_hosts_trusts_the_host_ca_for_the_cluster_and_what_was_asked_for_once() -> None:
    (anchor,) = authority().trust().of(Purpose.SSH_HOST)
    lines = data(knownHosts=["*.lan", "example.test", "[git.example.test]:2222"])["known_hosts"]
    assert lines == b"@cert-authority example.test,*.example.test,*.lan,[git.example.test]:2222 " + anchor.public + b"\n"


@pytest.mark.parametrize(
    ("host", "found"),
    [
        ("example.test", True),
        ("web.example.test", True),
        ("[git.lan]:2222", True),
        ("git.lan", False),
        ("[git.lan]:2223", False),
        ("[2001:db8::1]:2222", True),
        ("other.test", False),
    ],
)
def test_ssh_keygen_finds_the_ca_for_exactly_these_hosts(tmp_path: Path, host: str, found: bool) -> None:
    path = tmp_path / "known_hosts"
    path.write_bytes(data(knownHosts=["[git.lan]:2222", "[2001:db8::1]:2222"])["known_hosts"])
    done = subprocess.run(["ssh-keygen", "-F", host, "-f", str(path)], capture_output=True, text=True, check=False)
    assert ("@cert-authority" in done.stdout) == found, done
