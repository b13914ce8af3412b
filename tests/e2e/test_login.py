"""From `kubectl apply` of the examples to a login by ssh: the whole way that people go, in any order of the files."""

import functools
import random
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.cluster import ControlPlane, KubectlError
from e2e.support.login import HOST, log_in, mount, server
from e2e.support.objects import OURS, RENEW, Json, condition, get, is_ready, items, wait_ready
from e2e.support.whole import check_whole, serial
from support.waiting import eventually
from workbench.chart import Release
from workbench.operator import OperatorProcess

pytestmark = pytest.mark.cluster

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMESPACES = ("apps", "ci", "hosts")
SEED = 20260


def documents() -> list[Json]:
    found: list[Json] = []
    for path in sorted(EXAMPLES.glob("*.yaml")):
        found += [document for document in yaml.safe_load_all(path.read_text()) if document]
    return found


def shuffled() -> list[Json]:
    found = documents()
    random.Random(SEED).shuffle(found)  # noqa: S311 - an order, not a secret
    return found


def apply(cluster: ControlPlane, objects: list[Json]) -> None:
    """In exactly this order. What came before its namespace is refused, and for nothing else; a second pass brings it."""
    text = yaml.safe_dump_all(objects)
    complaints = _apply(cluster, text)
    if complaints:
        strange = [line for line in complaints if not re.search(r"namespaces? \"(apps|ci|hosts)\" not found", line)]
        assert strange == []
        assert _apply(cluster, text) == []


def _apply(cluster: ControlPlane, text: str) -> list[str]:
    """What kubectl complains of, by the line."""
    try:
        cluster.kubectl("apply", "--filename=-", input=text)
    except KubectlError as error:
        return [line for line in str(error).splitlines() if "rror" in line] or [str(error)]
    return []


def all_ready(cluster: ControlPlane) -> None:
    for namespace in NAMESPACES:
        wait_ready(cluster, namespace, "machinebots", "--all")
        wait_ready(cluster, namespace)
    cluster.kubectl("wait", "--for=condition=Ready", "machineroles", "--all", "--timeout=60s")


def remains(cluster: ControlPlane) -> list[str]:
    """Secrets and ServiceAccounts of ours outside the operator's own namespace."""
    found = [*items(cluster, "secrets", "", f"--selector={OURS}"), *items(cluster, "serviceaccounts", "", f"--selector={OURS}")]
    places = [(thing["metadata"]["namespace"], thing["metadata"]["name"]) for thing in found]
    return sorted(f"{namespace}/{name}" for namespace, name in places if namespace in NAMESPACES)


def expected_remains() -> list[str]:
    """What the examples must have made: a ServiceAccount for each bot, a Secret for each output."""
    found = []
    for each in documents():
        metadata, spec = each["metadata"], each.get("spec", {})
        if each["kind"] == "MachineBot":
            found.append(f"{metadata['namespace']}/machinebot-{metadata['name']}")
        if each["kind"] == "MachineOutput":
            found.append(f"{metadata['namespace']}/{spec.get('secret', {}).get('name', metadata['name'])}")
    assert {"ci/backup", "ci/deployer-ssh", "ci/machinebot-deployer", "hosts/machinebot-web-1", "hosts/web-1"} < set(found)
    return sorted(found)


def remove_all(cluster: ControlPlane) -> None:
    cluster.kubectl("delete", f"--filename={EXAMPLES}", "--ignore-not-found", "--timeout=60s")


@pytest.fixture(scope="module")
def operating(rough_release: Release, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    with OperatorProcess.from_release(rough_release, tmp_path_factory.mktemp("operator")) as process:
        process.wait_ready()
        yield process
        assert process.stop() == 0


@pytest.fixture
def cluster(rough_plane: ControlPlane, operating: OperatorProcess) -> Iterator[ControlPlane]:
    """With the operator at work and, at the end, no bot and no output left; the namespaces stay."""
    assert operating.running
    yield rough_plane
    for namespace in NAMESPACES:
        rough_plane.kubectl("delete", "machinebots,machineoutputs", "--all", f"--namespace={namespace}")
    eventually("nothing of ours is left", lambda: remains(rough_plane) == [])


@pytest.mark.parametrize(
    "objects",
    [
        pytest.param(documents(), id="forward"),
        pytest.param(documents()[::-1], id="reverse"),
        pytest.param(shuffled(), id="shuffled"),
    ],
)
def test_the_examples_become_ready_in_any_order(cluster: ControlPlane, objects: list[Json]):
    remove_all(cluster)
    apply(cluster, objects)
    all_ready(cluster)
    for output in items(cluster, "machineoutputs", "ci"):
        assert output["status"]["type"] == "identity"
        check_whole(output, get(cluster, "secret", "ci", output["status"]["secret"]["name"]))


def test_what_was_deleted_and_applied_again_becomes_ready_again(cluster: ControlPlane):
    apply(cluster, documents())
    all_ready(cluster)
    first = {thing["metadata"]["name"]: serial(thing) for thing in items(cluster, "secrets", "ci", f"--selector={OURS}")}
    remove_all(cluster)
    apply(cluster, documents())
    all_ready(cluster)
    second = {thing["metadata"]["name"]: serial(thing) for thing in items(cluster, "secrets", "ci", f"--selector={OURS}")}
    assert first.keys() == second.keys() == {"deployer-ssh", "backup"}
    assert all(first[name] != second[name] for name in first)


def test_bots_and_outputs_that_are_deleted_and_made_again_at_once_become_ready(cluster: ControlPlane):
    """Their namespace stays, so that what the garbage collector has not yet taken is in the way of the new ones."""
    apply(cluster, documents())
    all_ready(cluster)
    uids = {thing["metadata"]["uid"] for thing in items(cluster, "machineoutputs", "ci")}
    text = (EXAMPLES / "bot.yaml").read_text()
    cluster.kubectl("replace", "--force", "--filename=-", input=text)
    wait_ready(cluster, "ci", "machinebots", "--all")
    wait_ready(cluster, "ci")
    assert uids.isdisjoint({thing["metadata"]["uid"] for thing in items(cluster, "machineoutputs", "ci")})
    for output in items(cluster, "machineoutputs", "ci"):
        check_whole(output, get(cluster, "secret", "ci", output["status"]["secret"]["name"]))


def test_deleting_bots_and_outputs_leaves_nothing_behind(cluster: ControlPlane):
    apply(cluster, documents())
    all_ready(cluster)
    assert remains(cluster) == expected_remains()
    for namespace in NAMESPACES:
        cluster.kubectl("delete", "machinebots,machineoutputs", "--all", f"--namespace={namespace}")
    eventually("nothing of ours is left", lambda: remains(cluster) == [])


def test_deleting_a_bot_alone_takes_its_credentials_away_and_says_so(cluster: ControlPlane):
    apply(cluster, documents())
    all_ready(cluster)
    cluster.kubectl("delete", "machinebot", "deployer", "--namespace=ci")
    eventually(
        "the bot's Secrets and ServiceAccount are gone", lambda: not any(name.startswith("ci/") for name in remains(cluster))
    )
    for name in ("deployer", "backup"):
        told = eventually("status says why", functools.partial(_not_ready, cluster, name))
        assert told["reason"] == "BotMissing"
        assert "there is no MachineBot 'deployer'" in told["message"]


def _not_ready(cluster: ControlPlane, name: str) -> Json:
    output = get(cluster, "machineoutput", "ci", name)
    told = condition(output)
    return told if told["status"] == "False" and "secret" not in output["status"] else {}


def test_a_login_with_the_files_of_the_secrets(cluster: ControlPlane, tmp_path: Path):
    apply(cluster, documents())
    all_ready(cluster)
    host = mount(tmp_path / "host", get(cluster, "secret", "hosts", "web-1"))
    deployer = mount(tmp_path / "deployer", get(cluster, "secret", "ci", "deployer-ssh"))
    backup = mount(tmp_path / "backup", get(cluster, "secret", "ci", "backup"))
    assert {path.stat().st_mode & 0o777 for path in deployer.iterdir() if path.is_file()} == {0o600}

    with server(tmp_path / "deploy-only", host, "deploy") as sshd:
        assert log_in(sshd, deployer).stdout == "in\n", sshd.log.read_text()
        strange = log_in(sshd, deployer, host="web-2.node.example.test")
        assert strange.returncode == 255
        assert "Certificate invalid: name is not a listed principal" in strange.stderr
        refused = log_in(sshd, backup)
        assert refused.returncode == 255
        assert "Permission denied" in refused.stderr
        assert "does not contain an authorized principal" in sshd.log.read_text()
    with server(tmp_path / "app-only", host, "app") as sshd:
        assert log_in(sshd, backup).stdout == "in\n", sshd.log.read_text()
        assert log_in(sshd, deployer).returncode == 255
    with server(tmp_path / "root-only", host) as sshd:  # no mapping: only a principal called like the account
        assert log_in(sshd, deployer).returncode == 255
        assert log_in(sshd, backup).returncode == 255


def test_a_client_that_trusts_another_authority_does_not_log_in(cluster: ControlPlane, tmp_path: Path):
    apply(cluster, documents())
    all_ready(cluster)
    host = mount(tmp_path / "host", get(cluster, "secret", "hosts", "web-1"))
    deployer = mount(tmp_path / "deployer", get(cluster, "secret", "ci", "deployer-ssh"))
    wrong = tmp_path / "wrong"
    shutil.copytree(deployer, wrong)
    users = (host / "ssh_host-user-ca.pub").read_text().split()[:2]
    (wrong / "known_hosts").write_text(f"@cert-authority *.example.test {' '.join(users)}\n")
    with server(tmp_path / "sshd", host, "deploy") as sshd:
        refused = log_in(sshd, wrong)
        assert refused.returncode == 255
        assert "Host key verification failed" in refused.stderr
        assert log_in(sshd, deployer).stdout == "in\n", sshd.log.read_text()


def test_a_renewal_that_was_asked_for_gives_a_new_certificate_that_logs_in(cluster: ControlPlane, tmp_path: Path):
    apply(cluster, documents())
    all_ready(cluster)
    host = mount(tmp_path / "host", get(cluster, "secret", "hosts", "web-1"))
    old = get(cluster, "secret", "ci", "deployer-ssh")
    cluster.kubectl("annotate", "machineoutput", "deployer", f"{RENEW}=now", "--namespace=ci")
    renewed = eventually("the renewal is answered", lambda: _renewed(cluster, "now"))
    new = get(cluster, "secret", "ci", "deployer-ssh")
    assert serial(new) != serial(old)
    assert renewed["status"]["issueReason"] == "Requested"
    assert new["metadata"]["uid"] == old["metadata"]["uid"]
    check_whole(renewed, new)
    with server(tmp_path / "sshd", host, "deploy") as sshd:
        assert log_in(sshd, mount(tmp_path / "new", new)).stdout == "in\n", sshd.log.read_text()
        assert log_in(sshd, mount(tmp_path / "old", old)).stdout == "in\n", "the old one is good until it ends"
    assert _renewed(cluster, "now")["status"]["serial"] == str(serial(new)), "one wish, one renewal"


def _renewed(cluster: ControlPlane, wish: str) -> Any:
    output = get(cluster, "machineoutput", "ci", "deployer")
    return output if is_ready(output) and output["status"].get("renewToken") == wish else None


def test_the_host_certificate_is_renewed_while_clients_go_on(cluster: ControlPlane, tmp_path: Path):
    apply(cluster, documents())
    all_ready(cluster)
    deployer = mount(tmp_path / "deployer", get(cluster, "secret", "ci", "deployer-ssh"))
    first = get(cluster, "secret", "hosts", "web-1")
    with server(tmp_path / "sshd", mount(tmp_path / "host", first), "deploy") as sshd:
        assert log_in(sshd, deployer).stdout == "in\n", sshd.log.read_text()
        cluster.kubectl("annotate", "machineoutput", "web-1", f"{RENEW}=1", "--namespace=hosts")
        second = eventually("another host certificate", lambda: _other_serial(cluster, first))
        mount(tmp_path / "host", second)
        sshd.stop()
        sshd.start()
        assert log_in(sshd, deployer).stdout == "in\n", sshd.log.read_text()
    facts = get(cluster, "machineoutput", "hosts", "web-1")["status"]["granted"]["hostPrincipals"]
    assert [fact["name"] for fact in facts] == [HOST]


def _other_serial(cluster: ControlPlane, old: Json) -> Json | None:
    new = get(cluster, "secret", "hosts", "web-1")
    return new if serial(new) != serial(old) else None
