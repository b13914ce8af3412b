"""The command line for people on a real API server, as people run it: a process with a kubeconfig."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from machinebot.joins.methods.token import secret_hash
from support.inprocess import RunningOperator
from support.stage import Stage, Tenant
from support.waiting import eventually

pytestmark = [pytest.mark.cluster]
pytest_plugins = ["support.fixtures"]

ROOT = Path(__file__).parents[2]
Json = dict[str, Any]


class Person:
    """Somebody with a kubeconfig."""

    def __init__(self, kubeconfig: Path | None) -> None:
        self.kubeconfig = kubeconfig

    def run(self, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT / "operator"),
            "HOME": "/nonexistent",
            **({} if self.kubeconfig is None else {"KUBECONFIG": str(self.kubeconfig)}),
        }
        command = [sys.executable, "-m", "machinebot", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=cwd)

    def does(self, *arguments: str) -> str:
        """What a command that works prints."""
        done = self.run(*arguments)
        assert (done.returncode, done.stderr) == (0, ""), done
        return done.stdout

    def reads(self, *arguments: str) -> Json:
        """The same, as JSON."""
        content: Json = json.loads(self.does(*arguments, "-o", "json"))
        return content

    def fails(self, *arguments: str) -> str:
        """What a command complains of, in one line."""
        done = self.run(*arguments)
        assert done.returncode == 1, done
        assert done.stdout == ""
        assert done.stderr.startswith("machinebot: ")
        assert done.stderr.count("\n") == 1
        return done.stderr.removeprefix("machinebot: ").strip()


@pytest.fixture
def admin(stage: Stage) -> Person:
    return Person(stage.release.cluster.admin_kubeconfig)


@pytest.fixture
def nobody(stage: Stage) -> Person:
    """Somebody whom the API server knows and who may do nothing."""
    return Person(stage.release.cluster.kubeconfig(user="nobody"))


@pytest.fixture
def editor(stage: Stage, tenant: Tenant) -> Person:
    """Somebody with the ClusterRole edit in the tenant's namespace, who may give a bot no role."""
    stage.release.cluster.kubectl(
        "create", "rolebinding", "editor", "--clusterrole=edit", "--user=editor", f"--namespace={tenant.namespace}"
    )
    return Person(stage.release.cluster.kubeconfig(user="editor"))


@pytest.fixture
def locks(stage: Stage) -> Iterator[None]:
    """Takes away what locks are left."""
    yield
    stage.release.cluster.kubectl("delete", "machinelocks", "--all")


def obj(stage: Stage, kind: str, name: str, namespace: str = "") -> Json:
    place = [f"--namespace={namespace}"] if namespace else []
    found: Json = json.loads(stage.release.cluster.kubectl("get", kind, name, *place, "--output=json"))
    return found


# --- bots ---------------------------------------------------------------------------------------------------------------


def test_a_bot_is_printed_and_what_is_printed_is_taken(admin: Person, tenant: Tenant, role: str) -> None:
    flags = ("bots", "add", "deployer", f"--roles={role}", "--logins=deploy,app", "--trait=team=a,b", "-n", tenant.namespace)
    printed = admin.does(*flags)
    assert not tenant.has("MachineBot", "deployer")
    tenant.stage.release.cluster.kubectl("create", "--validate=strict", "--filename=-", input=printed)
    assert tenant.get("MachineBot", "deployer")["spec"] == {
        "roles": [role],
        "logins": ["deploy", "app"],
        "traits": {"team": ["a", "b"]},
    }
    assert admin.does(*flags, "--apply") == f"MachineBot {tenant.namespace}/deployer unchanged\n"
    said = admin.fails("bots", "add", "deployer", f"--roles={role}", "-n", tenant.namespace, "--apply")
    assert "which kubectl-create manages: change it there" in said


def test_a_bot_is_created_configured_and_left_unchanged(admin: Person, tenant: Tenant, role: str, authority: str) -> None:
    def apply(*flags: str) -> str:
        said = admin.does(
            "bots", "add", "deployer", f"--roles={role}", f"--authority={authority}", "-n", tenant.namespace, "--apply", *flags
        )
        return said.removeprefix(f"MachineBot {tenant.namespace}/deployer ").strip()

    assert apply("--logins=deploy", "--trait=team=a") == "created"
    tenant.ready("deployer", "MachineBot")
    assert apply("--logins=deploy", "--trait=team=a") == "unchanged"
    assert apply("--logins=app") == "configured"
    spec = tenant.get("MachineBot", "deployer")["spec"]
    assert spec == {"roles": [role], "logins": ["app"], "authority": authority}, "what is not said any more is gone"


def test_who_may_not_give_a_role_is_told_so(editor: Person, tenant: Tenant, role: str) -> None:
    said = editor.fails("bots", "add", "deployer", f"--roles={role}", "-n", tenant.namespace, "--apply")
    assert f"editor may not give a bot the role {role}" in said


# --- tokens -------------------------------------------------------------------------------------------------------------


def test_a_join_token_is_created_with_its_rules(admin: Person, tenant: Tenant) -> None:
    flags = (
        *("tokens", "add", "ci", "--bot=deployer", "--method=github", "--expires=2099-01-01", "-n", tenant.namespace),
        *("--allow=repositoryID=1,ref=refs/heads/main", "--allow=repositoryID=2", "--set=audience=example.test"),
    )
    (printed,) = yaml.safe_load_all(admin.does(*flags))
    assert admin.does(*flags, "--apply") == f"MachineJoinToken {tenant.namespace}/ci created\n"
    stored = obj(tenant.stage, "mjt", "ci", tenant.namespace)["spec"]
    assert stored == printed["spec"]
    assert stored == {
        "bot": "deployer",
        "expires": "2099-01-01T00:00:00Z",
        "github": {"allow": [{"repositoryID": "1", "ref": "refs/heads/main"}, {"repositoryID": "2"}], "audience": "example.test"},
    }


def test_a_secret_is_in_a_file_alone(admin: Person, tenant: Tenant, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    flags = ("tokens", "add", "jenkins", "--bot=deployer", "--method=token", "--expires=12h", "-n", tenant.namespace, "--apply")
    done = admin.run(*flags, f"--secret-file={file}")
    assert done.returncode == 0
    assert file.stat().st_mode & 0o777 == 0o600
    secret = file.read_text()
    assert len(secret) == 64
    assert secret not in done.stdout + done.stderr
    stored = obj(tenant.stage, "mjt", "jenkins", tenant.namespace)
    assert stored["spec"]["token"] == {"secretHash": secret_hash(secret)}
    assert secret not in json.dumps(stored)


def test_a_secret_goes_through_a_pipe(admin: Person, tenant: Tenant) -> None:
    done = admin.run(
        *("tokens", "add", "pipe", "--bot=deployer", "--method=token", "--expires=12h", "-n", tenant.namespace, "--apply"),
        "--secret-file=-",
    )
    assert done.stderr == f"MachineJoinToken {tenant.namespace}/pipe created\n"
    assert obj(tenant.stage, "mjt", "pipe", tenant.namespace)["spec"]["token"] == {"secretHash": secret_hash(done.stdout)}


def test_a_secret_is_never_put_in_the_place_of_another(admin: Person, tenant: Tenant, tmp_path: Path) -> None:
    flags = ("tokens", "add", "once", "--bot=deployer", "--method=token", "--expires=12h", "-n", tenant.namespace, "--apply")
    assert admin.run(*flags, f"--secret-file={tmp_path / 'first'}").returncode == 0
    before = obj(tenant.stage, "mjt", "once", tenant.namespace)
    said = admin.fails(*flags, f"--secret-file={tmp_path / 'second'}")
    assert "there is a MachineJoinToken" in said
    assert "already" in said
    assert not (tmp_path / "second").exists(), "a secret that lets nobody in"
    assert obj(tenant.stage, "mjt", "once", tenant.namespace)["spec"] == before["spec"]


# --- locks --------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("locks")
def test_locks_are_made_listed_and_removed(admin: Person, tenant: Tenant, stage: Stage, role: str) -> None:
    tenant.bot(roles=(role,))
    bot = f"{tenant.namespace}/deployer"
    said = admin.does("locks", "add", "--bot", bot, "--message", "leaked \x1b[31mkey", "--ttl", "12h")
    name = f"bot.{tenant.namespace}.deployer"
    assert said == f"MachineLock {name} created: the bot {bot} is locked\n"
    assert obj(stage, "mlock", name)["spec"]["target"] == {"bot": {"namespace": tenant.namespace, "name": "deployer"}}
    admin.does("locks", "add", "--role", role, "--name", "a-role")
    (mine,) = [each for each in admin.reads("locks", "ls")["locks"] if each["name"] == name]
    assert mine["state"] == "active"
    assert mine["message"] == "leaked \x1b[31mkey"
    table = admin.does("locks", "ls")
    assert "\x1b" not in table
    assert f"the bot {bot}" in table
    again = admin.does("locks", "add", "--bot", bot)
    assert "configured" in again
    assert obj(stage, "mlock", name)["spec"].keys() == {"target"}
    assert admin.does("locks", "rm", name, "a-role") == f"MachineLock {name} deleted\nMachineLock a-role deleted\n"
    assert not [each for each in admin.reads("locks", "ls")["locks"] if each["name"] in (name, "a-role")]


@pytest.mark.usefixtures("locks")
def test_a_target_that_is_not_there_is_locked_and_told(admin: Person) -> None:
    done = admin.run("locks", "add", "--join-token", "ci/nothing")
    assert done.returncode == 0
    assert "the join token ci/nothing is not there now" in done.stderr


@pytest.mark.usefixtures("locks")
def test_no_lock_is_removed_where_one_is_not_there(admin: Person) -> None:
    admin.run("locks", "add", "--role", "nothing", "--name", "stays")
    assert "there is no MachineLock 'goes'" in admin.fails("locks", "rm", "stays", "goes")
    assert [each["name"] for each in admin.reads("locks", "ls")["locks"]] == ["stays"]


# --- status -------------------------------------------------------------------------------------------------------------


def test_status_shows_what_is_ready_and_what_is_not(admin: Person, tenant: Tenant, role: str) -> None:
    tenant.bot(roles=(role,))
    tenant.output("good", credentialTTL="1h")
    tenant.ready("good")
    tenant.output("bad", bot="nobody")
    tenant.refused("BotMissing", "bad")
    content = admin.reads("status", "-n", tenant.namespace)
    good, bad = sorted(content["outputs"], key=lambda each: bool(each["problem"]))
    assert (good["name"], good["state"], good["type"]) == ("good", "ready", "identity")
    assert good["notAfter"] == tenant.status("good")["notAfter"]
    assert good["serial"] == tenant.secret("good").serial
    assert (bad["name"], bad["state"], bad["reason"]) == ("bad", "not ready", "BotMissing")
    assert content["problems"] == 1
    assert [each["name"] for each in content["bots"]] == ["deployer"]
    table = admin.does("status", "-n", tenant.namespace, "--wide")
    assert f"{tenant.namespace}/bad  " in table
    assert "BotMissing: " in table
    assert tenant.secret("good").serial in table
    assert table.endswith("; to look at: 1\n")
    assert admin.run("status", "-n", tenant.namespace, "--check").returncode == 1
    tenant.delete("MachineOutput", "bad")
    assert admin.run("status", "-n", tenant.namespace, "--check").returncode == 0


def test_status_shows_what_is_overdue(admin: Person, tenant: Tenant, role: str, running: RunningOperator) -> None:
    tenant.bot(roles=(role,))
    tenant.output()
    tenant.ready()
    running.settle()
    running.crash()
    tenant.put_status({"renewAt": "2026-01-01T00:00:00Z"})
    (found,) = admin.reads("status", "-n", tenant.namespace)["outputs"]
    assert (found["state"], found["problem"]) == ("overdue", True)
    assert "does the operator run?" in found["message"]


def test_status_of_a_tenant_leaves_out_what_is_the_clusters(editor: Person, tenant: Tenant, role: str) -> None:
    tenant.bot(roles=(role,))
    content = editor.reads("status", "-n", tenant.namespace)
    assert (content["authorities"], content["locks"]) == (None, None)
    assert len(content["bots"]) == 1
    assert "is forbidden" in editor.fails("status", "-A")


def test_status_of_all_namespaces(admin: Person, tenant: Tenant, authority: str) -> None:
    assert tenant.namespace
    assert authority in [each["name"] for each in admin.reads("status", "-A")["authorities"]]


# --- inspect ------------------------------------------------------------------------------------------------------------


def test_inspect_shows_a_secret_and_a_directory_alike(admin: Person, tenant: Tenant, role: str, tmp_path: Path) -> None:
    tenant.bot(roles=(role,))
    tenant.output()
    tenant.ready()
    secret = tenant.secret()
    for name, content in secret.data.items():
        (tmp_path / name).write_bytes(content)
    stored = admin.reads("inspect", "web", "-n", tenant.namespace)
    filed = Person(None).reads("inspect", str(tmp_path))
    assert stored["credentials"] == filed["credentials"]
    by_form = {each["form"]: each for each in stored["credentials"] if not each["authority"]}
    ssh, x509 = by_form["SSH user certificate"], by_form["X.509 certificate"]
    assert ssh["serial"] == x509["serial"] == secret.serial
    assert ssh["names"] == ["deploy"]
    assert ssh["subject"] == f"bot:{tenant.namespace}:deployer"
    assert ssh["privateKey"] in secret.data
    assert x509["privateKey"] in secret.data
    assert x509["files"] == ["tls.crt", "tlscert"]
    assert any(name.startswith("URI:spiffe://") for name in x509["names"])
    table = admin.does("inspect", "secret/web", "-n", tenant.namespace)
    assert table.startswith(f"Secret {tenant.namespace}/web\n")
    private = secret.data["tls.key"].decode().splitlines()[1]
    assert private not in table + json.dumps(stored)


def test_inspect_shows_a_token_without_its_signature(admin: Person, tenant: Tenant, stage: Stage) -> None:
    role = stage.role(allow={"spiffePaths": ["/ns/*"], "jwtAudiences": ["vault"]})
    tenant.bot(roles=(role,))
    tenant.output("web", jwtSVID={"audiences": ["vault"]})
    tenant.ready()
    (token,) = [each.decode().strip() for each in tenant.secret().data.values() if each.startswith(b"ey")]
    printed = admin.does("inspect", "web", "-n", tenant.namespace)
    assert "aud:vault" in printed
    assert token.rpartition(".")[2] not in printed
    (found,) = [each for each in admin.reads("inspect", "web", "-n", tenant.namespace)["credentials"] if each["form"] == "JWT"]
    assert found["serial"] == tenant.status()["serial"]


# --- renew --------------------------------------------------------------------------------------------------------------


def test_renew_waits_for_the_new_credential(admin: Person, tenant: Tenant, role: str) -> None:
    tenant.bot(roles=(role,))
    for name in ("one", "two"):
        tenant.output(name)
    old = {name: str(tenant.ready(name)["status"]["serial"]) for name in ("one", "two")}
    said = admin.does("renew", "one", "two", "-n", tenant.namespace, "--wait")
    new = {name: tenant.status(name)["serial"] for name in ("one", "two")}
    for name in ("one", "two"):
        assert old[name] != new[name]
        assert f"{tenant.namespace}/{name} renewed: serial {old[name]} -> {new[name]}, ends in " in said
    assert tenant.status("one")["issueReason"] == "Requested"


def test_renew_takes_labels_or_all(admin: Person, tenant: Tenant, role: str) -> None:
    tenant.bot(roles=(role,))
    for name in ("one", "two"):
        tenant.output(name)
        tenant.ready(name)
    tenant.stage.release.cluster.kubectl("label", "mout", "one", "app=web", f"--namespace={tenant.namespace}")
    assert admin.does("renew", "-l", "app=web", "-n", tenant.namespace, "--wait").count("renewed") == 1
    assert admin.does("renew", "--all", "-n", tenant.namespace, "--wait").count("renewed") == 2
    assert admin.does("renew", "one", "-n", tenant.namespace) == f"{tenant.namespace}/one is to be renewed\n"


def test_renew_says_why_it_did_not_come_true(admin: Person, tenant: Tenant, role: str) -> None:
    tenant.bot(roles=(role,))
    tenant.output("bad", bot="missing")
    tenant.refused("BotMissing", "bad")
    done = admin.run("renew", "bad", "-n", tenant.namespace, "--wait", "--timeout=1")
    assert done.returncode == 1
    assert f"{tenant.namespace}/bad was not renewed within 1 s: BotMissing: " in done.stderr
    assert "was asked for" in admin.fails("renew", "bad", "nothing", "-n", tenant.namespace)


def test_who_may_look_and_not_change_is_told_so(stage: Stage, tenant: Tenant, role: str) -> None:
    tenant.bot(roles=(role,))
    for name in ("one", "two"):
        tenant.output(name)
    stage.release.cluster.kubectl(
        "create", "rolebinding", "viewer", "--clusterrole=view", "--user=viewer", f"--namespace={tenant.namespace}"
    )
    viewer = Person(stage.release.cluster.kubeconfig(user="viewer"))
    assert len(viewer.reads("status", "-n", tenant.namespace)["outputs"]) == 2
    assert 'User "viewer" cannot patch' in viewer.fails("renew", "--all", "-n", tenant.namespace)
    assert 'User "viewer" cannot get resource "secrets"' in viewer.fails("inspect", "one", "-n", tenant.namespace)


# --- doctor -------------------------------------------------------------------------------------------------------------


def levels(content: Json) -> dict[str, str]:
    return {each["check"]: each["level"] for each in content["checks"]}


def test_doctor_finds_a_good_installation_good(admin: Person, stage: Stage, tenant: Tenant, running: RunningOperator) -> None:
    assert tenant.namespace
    assert running.running
    stage.authority_ready("default")
    content = admin.reads("doctor")
    wanted = dict.fromkeys(("API server", "clock", "CRDs", "admission policies", "authorities", "leader"), "ok")
    assert levels(content) | wanted == levels(content), content
    assert levels(content)["HTTPS"] == "skip"


def test_doctor_checks_https(admin: Person, stage: Stage, running: RunningOperator, tmp_path: Path) -> None:
    stage.authority_ready("default")
    ca = tmp_path / "ca.pem"
    eventually("it is served", lambda: admin.run("trust", "identity-ca").returncode == 0)
    ca.write_text(admin.does("trust", "identity-ca"))
    url = f"https://localhost:{running.https_port}"
    eventually(
        "HTTPS answers",
        lambda: levels(json.loads(admin.run("doctor", "--url", url, "--ca-file", str(ca), "-o", "json").stdout))["HTTPS"] == "ok",
    )
    done = admin.run("doctor", "--url", url, "-o", "json")
    assert done.returncode == 1
    assert levels(json.loads(done.stdout))["HTTPS"] == "fail"


def test_doctor_finds_a_silent_leader(admin: Person, running: RunningOperator) -> None:
    running.crash()
    done = eventually("the Lease is old", lambda: _failing(admin, "leader"), interval=0.5)
    assert "has not renewed the Lease" in done["message"]
    done = admin.run("doctor", "--operator-namespace", "elsewhere")
    assert done.returncode == 1
    assert "there is no Lease elsewhere/machinebot" in done.stdout


def _failing(admin: Person, check: str) -> Json | None:
    content = json.loads(admin.run("doctor", "-o", "json").stdout)
    return next((each for each in content["checks"] if each["check"] == check and each["level"] == "fail"), None)


def test_doctor_of_somebody_without_rights_skips(nobody: Person) -> None:
    done = nobody.run("doctor", "-o", "json")
    assert done.stderr == ""
    found = levels(json.loads(done.stdout))
    assert (found["API server"], found["CRDs"], found["clock"]) == ("ok", "ok", "ok")
    assert {found[name] for name in ("authorities", "leader", "outputs", "locks", "admission policies")} == {"skip"}


# --- failures -----------------------------------------------------------------------------------------------------------

READERS = (
    ("status",),
    ("inspect", "secret/web"),
    ("locks", "ls"),
    ("locks", "add", "--role", "x"),
    ("locks", "rm", "x"),
    ("renew", "--all"),
    ("bots", "add", "x", "--roles", "x", "--apply"),
    ("tokens", "add", "x", "--bot", "x", "--method", "github", "--allow", "repositoryID=1", "--apply"),
)


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_who_may_not_is_told_so(nobody: Person, command: tuple[str, ...]) -> None:
    assert 'User "nobody" cannot' in nobody.fails(*command)


@pytest.mark.parametrize("command", READERS, ids=" ".join)
def test_without_a_cluster_the_way_out_is_told(command: tuple[str, ...], tmp_path: Path) -> None:
    assert "set KUBECONFIG" in Person(None).fails(*command)
    config = tmp_path / "config"
    config.write_text(
        json.dumps(
            {
                "current-context": "x",
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x", "namespace": "mine"}}],
                "clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:1"}}],
                "users": [{"name": "x", "user": {}}],
            }
        )
    )
    assert "the API server does not answer" in Person(config).fails(*command)
    config.write_text("not: [a kubeconfig")
    assert "kubeconfig" in Person(config).fails(*command).lower()


def test_unknown_names_are_told(admin: Person, tenant: Tenant) -> None:
    assert "there is no Secret" in admin.fails("inspect", "nothing", "-n", tenant.namespace)
    assert "no output of the namespace" in admin.fails("renew", "--all", "-n", tenant.namespace)
    assert 'namespaces "nowhere" not found' in admin.fails("bots", "add", "x", "--roles=access", "-n", "nowhere", "--apply")
    assert "has no context 'other'" in admin.fails("status", "--context=other")


def test_the_namespace_of_the_context_is_taken(stage: Stage, tenant: Tenant, role: str, tmp_path: Path) -> None:
    content = json.loads(stage.release.cluster.admin_kubeconfig.read_text())
    content["contexts"][0]["context"]["namespace"] = tenant.namespace
    config = tmp_path / "config"
    config.write_text(json.dumps(content))
    tenant.bot(roles=(role,))
    assert [each["namespace"] for each in Person(config).reads("status")["bots"]] == [tenant.namespace]


def test_it_is_a_plugin_of_kubectl(admin: Person, stage: Stage, tmp_path: Path) -> None:
    """kubectl finds the script on PATH and hands on all that comes after its name."""
    script = tmp_path / "kubectl-machinebot"
    script.write_text(f"#!{sys.executable}\nfrom machinebot.cli.main import run\nrun()\n")
    script.chmod(0o755)
    assert admin.kubeconfig is not None
    environment = {
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "KUBECONFIG": str(admin.kubeconfig),
        "PYTHONPATH": str(ROOT / "operator"),
        "HOME": "/nonexistent",
    }
    kubectl = str(stage.release.cluster.binaries["kubectl"])
    usage = subprocess.run([kubectl, "machinebot", "--help"], capture_output=True, text=True, check=True, env=environment)
    assert "Usage: kubectl machinebot" in usage.stdout
    listed = subprocess.run(
        [kubectl, "machinebot", "locks", "ls", "-o", "json"], capture_output=True, text=True, check=True, env=environment
    )
    assert json.loads(listed.stdout).keys() == {"locks"}
