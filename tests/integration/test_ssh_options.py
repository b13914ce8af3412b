"""SSH outputs in real hands: `ssh -F` with the Secret of an `identity` output logs in to an sshd with the one of an `sshHost` output."""

import getpass
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controlplane.ports import LOOPBACK
from machinebot.outputs.base import EVERY_ALGORITHM
from support.credentials import ssh_certificate
from support.inprocess import RunningOperator
from support.logins import HOST, is_let_in, log_in, serving
from support.mounting import mount, mounted
from support.stage import Stage, Tenant, unique
from workbench.sshd import SSHServer, config_flags, ssh_agent

pytestmark = pytest.mark.cluster
pytest_plugins = ["support.fixtures"]

LOGINS = ["{{ internal.logins }}"]
ALLOW: dict[str, Any] = {"logins": LOGINS, "hostPrincipals": ["*.node.example.test", "web-1.lan"]}


@pytest.fixture(scope="module")
def tenant(stage: Stage, authority: str, operator_of_module: RunningOperator) -> Iterator[Tenant]:
    """A namespace for the whole module, with a bot `hosts` that has the role for everything."""
    assert operator_of_module.running
    with stage.tenant(authority) as made:
        made.bot("hosts", roles=(stage.role(allow=ALLOW),))
        yield made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the Secrets are mounted."""
    return tmp_path_factory.mktemp("mounts")


@pytest.fixture(scope="module")
def sshd(tenant: Tenant, folder: Path) -> Iterator[SSHServer]:
    """The host that most tests log in to."""
    with serving(folder, host(tenant, folder, "web-1")) as server:
        yield server


def host(tenant: Tenant, folder: Path, name: str, **spec: Any) -> Path:
    """The files of a new `sshHost` output."""
    tenant.output(name, bot="hosts", sshHost={"principals": [HOST, "web-1.lan"]}, **spec)
    return mounted(tenant, folder, name)


def identity(tenant: Tenant, folder: Path, name: str, *, bot: str = "hosts", **spec: Any) -> Path:
    """The files of a new `identity` output, which knows where it is mounted."""
    settings = {"mountPath": str(folder / name), **spec.pop("identity", {})}
    tenant.output(name, bot=bot, identity=settings, **spec)
    return mounted(tenant, folder, name)


# --- ssh_config ---------------------------------------------------------------------------------------------------------


def test_the_ssh_config_of_an_identity_alone_is_enough_to_log_is_let_in(tenant: Tenant, folder: Path, sshd: SSHServer) -> None:
    files = identity(tenant, folder, "by-name")
    assert {path.stat().st_mode & 0o777 for path in files.iterdir() if path.is_file()} == {0o400}
    assert log_in(sshd, files).stdout == "in\n", sshd.log.read_text()
    assert f'ID "bot:{tenant.namespace}:hosts"' in sshd.log.read_text(), "sshd logs which bot it was"


def test_a_host_must_have_the_name_that_it_is_called_by(tenant: Tenant, folder: Path, sshd: SSHServer) -> None:
    files = identity(tenant, folder, "strict")
    strange = log_in(sshd, files, name="web-2.node.example.test")
    assert strange.returncode == 255
    assert "Certificate invalid: name is not a listed principal" in strange.stderr


def test_a_host_outside_the_patterns_is_unknown_until_the_output_names_it(tenant: Tenant, folder: Path, sshd: SSHServer) -> None:
    refused = log_in(sshd, identity(tenant, folder, "without-lan"), name="web-1.lan")
    assert refused.returncode == 255
    assert "Host key verification failed" in refused.stderr
    files = identity(tenant, folder, "with-lan", identity={"knownHosts": ["*.lan"]})
    assert log_in(sshd, files, name="web-1.lan").stdout == "in\n", sshd.log.read_text()


def test_a_host_at_another_port_is_known_by_its_name(tenant: Tenant, folder: Path, sshd: SSHServer) -> None:
    files = identity(tenant, folder, "other-port")
    assert log_in(sshd, files, flags=["-p", "2222"]).stdout == "in\n", sshd.log.read_text()
    pinned = identity(tenant, folder, "pinned-port", identity={"knownHosts": ["[web-1.lan]:2222"]})
    assert log_in(sshd, pinned, name="web-1.lan", flags=["-p", "2222"]).stdout == "in\n", sshd.log.read_text()
    assert "Host key verification failed" in log_in(sshd, pinned, name="web-1.lan").stderr


def test_ssh_refuses_the_mode_that_volumes_have_by_default(tenant: Tenant, folder: Path, sshd: SSHServer) -> None:
    """Where the files belong to the user who reads them: hence `defaultMode: 0400`."""
    files = identity(tenant, folder, "open-to-all")
    refused = log_in(sshd, mount(files, tenant.secret("open-to-all").data, mode=0o644))
    assert refused.returncode == 255
    assert "UNPROTECTED PRIVATE KEY FILE" in refused.stderr


def test_the_files_are_looked_for_in_id_unless_the_output_says_otherwise(tenant: Tenant) -> None:
    tenant.output("usual-place", bot="hosts")
    tenant.ready("usual-place")
    lines = tenant.secret("usual-place").data["ssh_config"].decode().splitlines()
    assert lines[0] == "Host example.test *.example.test"
    assert [line.split()[-1] for line in lines if "/id/" in line] == ["/id/key", "/id/key-cert.pub", "/id/known_hosts"]


@pytest.mark.parametrize("algorithm", sorted(EVERY_ALGORITHM))
def test_private_keys_of_every_algorithm_log_in_and_serve(tenant: Tenant, folder: Path, algorithm: str) -> None:
    key = {"algorithm": algorithm}
    name = algorithm.lower()
    files = identity(tenant, folder, f"user-{name}", privateKey=key)
    with serving(folder, host(tenant, folder, f"host-{name}", privateKey=key)) as server:
        assert log_in(server, files).stdout == "in\n", server.log.read_text()


@pytest.mark.parametrize("algorithm", ["ECDSA-P384", "Ed25519", "RSA-4096"])
def test_cas_of_every_other_algorithm_are_trusted(
    stage: Stage, operator_of_module: RunningOperator, tmp_path: Path, algorithm: str
) -> None:
    assert operator_of_module.running
    authority = stage.authority(embedded={"keyAlgorithm": algorithm})
    stage.authority_ready(authority)
    with stage.tenant(authority) as made:
        made.bot("hosts", roles=(stage.role(allow=ALLOW),))
        files = identity(made, tmp_path, "user")
        with serving(tmp_path, host(made, tmp_path, "host")) as server:
            assert log_in(server, files).stdout == "in\n", server.log.read_text()


# --- options ------------------------------------------------------------------------------------------------------------


def optioned(tenant: Tenant, folder: Path, *options: dict[str, Any]) -> Path:
    """The files of an `identity` output whose roles have these options, one role for each."""
    roles = tuple(tenant.stage.role(allow={"logins": LOGINS}, options=each) for each in options)
    name = unique("optioned")
    return identity(tenant, folder, name, bot=tenant.bot(name, roles=roles))


AGENT: dict[str, tuple[tuple[dict[str, Any], ...], bool]] = {
    "by default": (({},), False),
    "allowed": (({"forwardAgent": True},), True),
    "forbidden by one role of two": (({"forwardAgent": True}, {"forwardAgent": False}), False),
}


@pytest.mark.parametrize(("options", "works"), AGENT.values(), ids=AGENT)
def test_agent_forwarding(
    tenant: Tenant,
    folder: Path,
    sshd: SSHServer,
    options: tuple[dict[str, Any], ...],
    works: bool,
) -> None:
    files = optioned(tenant, folder, *options)
    with ssh_agent(files / "key") as environment:
        look = 'test -S "$SSH_AUTH_SOCK" && ssh-add -L'
        done = log_in(sshd, files, look, flags=["-A"], environment=environment)
    if works:
        assert (files / "key.pub").read_text().strip() in done.stdout, done
    else:
        assert (done.returncode, done.stdout) == (1, ""), done


PORTS: dict[str, tuple[tuple[dict[str, Any], ...], bool]] = {
    "by default": (({},), True),
    "forbidden": (({"portForwarding": False},), False),
    "forbidden by one role of two": (({"portForwarding": False}, {}), False),
}


@pytest.mark.parametrize(("options", "works"), PORTS.values(), ids=PORTS)
def test_port_forwarding(
    tenant: Tenant,
    folder: Path,
    sshd: SSHServer,
    options: tuple[dict[str, Any], ...],
    works: bool,
) -> None:
    """The way out (-W, and -L, which opens the same channel) and the way in (-R)."""
    files = optioned(tenant, folder, *options)
    goal = f"{LOOPBACK}:{sshd.port}"
    flags = [*config_flags(files / "ssh_config", port=sshd.port, user=getpass.getuser()), "-W", goal, HOST]
    with subprocess.Popen(["ssh", *flags], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as out:
        assert out.stdin is not None
        assert out.stdout is not None
        assert out.stderr is not None
        assert out.stdout.readline().startswith(b"SSH-2.0-") is works
        out.stdin.close()
        said = out.stderr.read().decode()
        out.terminate()
    assert ("administratively prohibited" in said) is not works, said
    back = log_in(sshd, files, flags=["-o", "ExitOnForwardFailure=yes", "-R", f"0:{goal}"])
    assert (back.stdout == "in\n") is works, back
    assert ("remote port forwarding failed" in back.stderr) is not works, back
    assert is_let_in(sshd, files), "commands go on working"


TERMINAL: dict[str, tuple[tuple[dict[str, Any], ...], bool]] = {
    "by default": (({},), True),
    "forbidden": (({"permitPTY": False},), False),
    "forbidden by one role of two": (({}, {"permitPTY": False}), False),
}


@pytest.mark.parametrize(("options", "works"), TERMINAL.values(), ids=TERMINAL)
def test_a_terminal(
    tenant: Tenant,
    folder: Path,
    sshd: SSHServer,
    options: tuple[dict[str, Any], ...],
    works: bool,
) -> None:
    files = optioned(tenant, folder, *options)
    done = log_in(sshd, files, "tty", flags=["-tt"])
    assert done.stdout.startswith("/dev/") is works, done
    assert ("PTY allocation request failed" in done.stderr) is not works, done


ADDRESSES: dict[str, tuple[tuple[list[str], ...], bool]] = {
    "of another network": ((["10.0.0.0/8"],), False),
    "of its own network": ((["127.0.0.0/8"],), True),
    "of several networks": ((["10.0.0.0/8", "::1/128", "127.0.0.1"],), True),
    "a network in a network": ((["127.0.0.0/8"], ["127.0.0.0/30"]), True),
    "the strictest of two roles": ((["127.0.0.0/8", "10.0.0.0/8"], ["10.1.0.0/16"]), False),
}


@pytest.mark.parametrize(("networks", "works"), ADDRESSES.values(), ids=ADDRESSES)
def test_a_login_comes_from_the_addresses_of_the_role(
    tenant: Tenant, folder: Path, sshd: SSHServer, networks: tuple[list[str], ...], works: bool
) -> None:
    files = optioned(tenant, folder, *({"sourceAddresses": each} for each in networks))
    before = len(sshd.log.read_text())
    assert is_let_in(sshd, files) is works
    said = "not from a permitted source address (127.0.0.1)" in sshd.log.read_text()[before:]
    assert said is not works


def test_roles_without_a_common_address_give_no_credential(tenant: Tenant) -> None:
    roles = tuple(
        tenant.stage.role(allow={"logins": LOGINS}, options={"sourceAddresses": [network]})
        for network in ("10.0.0.0/8", "127.0.0.0/8")
    )
    tenant.bot("nowhere", roles=roles)
    tenant.output("nowhere", bot="nowhere")
    message = tenant.refused("NoSourceAddress", "nowhere")["message"]
    assert all(role in message for role in roles)


def test_what_is_for_people_is_never_in_a_certificate(tenant: Tenant, folder: Path) -> None:
    everything = {"forwardAgent": True, "portForwarding": True, "permitPTY": True}
    files = optioned(tenant, folder, everything)
    certificate = ssh_certificate((files / "key-cert.pub").read_bytes())
    assert set(certificate.extensions) == {b"permit-agent-forwarding", b"permit-port-forwarding", b"permit-pty"}
    assert certificate.critical_options == {}
