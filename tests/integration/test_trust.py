"""The trust bundle over real HTTPS on a real API server: every replica serves it, fresh, and real programs read it."""

import json
import os
import re
import ssl
import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from joserfc.jwk import KeySet
from spiffe import JwtBundle, TrustDomain, X509Bundle

from machinebot.client.pins import pins_of
from machinebot.errors import NotFound, Unavailable
from machinebot.outputs.trust import PIECES
from machinebot.policy.credential import Purpose
from machinebot.reconcile.authorities import CONTENT, secret_name
from support.inprocess import LOOPBACK, RunningOperator
from support.stage import Stage
from support.verifier import Answer, fetch, public_of, trusting
from support.waiting import eventually
from workbench.chart import CLUSTER_NAME

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("cleared")]
pytest_plugins = ["support.fixtures"]

DOMAIN = TrustDomain(CLUSTER_NAME)
ROOT = Path(__file__).parents[2]


@pytest.fixture
def tls(stage: Stage, running: RunningOperator) -> ssl.SSLContext:
    """A client that trusts the CA of identities of the authority `default`."""
    assert running.running
    return trusting(public_of(stage.authority_ready("default"), "identity"))


def serving(port: int, path: str, tls: ssl.SSLContext) -> Answer:
    """Wait until there is such a document."""

    def look() -> Answer:
        answer = fetch(port, path, tls)
        assert answer.status == 200, answer
        return answer

    return eventually(f"{path} is served", look)


def served(port: int, authority: str, tls: ssl.SSLContext) -> dict[str, bytes]:
    """Every piece of an authority."""
    return {name: serving(port, f"/authorities/{authority}/trust/{name}", tls).body for name in PIECES}


def run(*command: str | Path, stdin: bytes = b"") -> str:
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done
    return done.stdout.decode()


# --- what is served -----------------------------------------------------------------------------------------------------


def test_a_new_authority_is_served_at_once_and_a_deleted_one_no_more(
    stage: Stage, running: RunningOperator, tls: ssl.SSLContext
) -> None:
    made = stage.count()
    name = stage.authority()
    assert serving(running.https_port, f"/authorities/{name}/trust/ssh-user-ca", tls).body
    stage.clear(*made)
    eventually("it is gone", lambda: fetch(running.https_port, f"/authorities/{name}/trust/jwks", tls).status == 404)


def test_every_piece_is_what_the_status_says(stage: Stage, authority: str, running: RunningOperator, tls: ssl.SSLContext) -> None:
    body = stage.authority_ready(authority)
    pieces = served(running.https_port, authority, tls)
    for purpose in ("identity", "database", "kubernetes", "workload"):
        assert pieces[f"{purpose}-ca"] == public_of(body, purpose)
    assert pieces["ssh-user-ca"] == public_of(body, "ssh-user") + b"\n"
    assert pieces["ssh-host-ca"] == public_of(body, "ssh-host") + b"\n"
    assert pieces["known-hosts"] == (
        f"@cert-authority {CLUSTER_NAME},*.{CLUSTER_NAME} ".encode() + public_of(body, "ssh-host") + b"\n"
    )


def test_the_default_authority_is_found_without_its_name(running: RunningOperator, tls: ssl.SSLContext) -> None:
    for path in ("/trust", "/trust/identity-ca", "/jwks", "/.well-known/openid-configuration"):
        short, long = (fetch(running.https_port, f"{prefix}{path}", tls) for prefix in ("", "/authorities/default"))
        assert (short.status, short.body) == (200, long.body)


def test_the_list_leads_to_every_piece(authority: str, running: RunningOperator, tls: ssl.SSLContext) -> None:
    listed = json.loads(serving(running.https_port, f"/authorities/{authority}/trust", tls).body)
    assert [piece["name"] for piece in listed["pieces"]] == list(PIECES)
    assert (listed["authority"], listed["clusterName"]) == (authority, CLUSTER_NAME)
    for piece in listed["pieces"]:
        assert fetch(running.https_port, piece["path"], tls).status == 200


def test_the_certificate_is_ours_for_the_service_and_for_a_day(
    stage: Stage, running: RunningOperator, tls: ssl.SSLContext
) -> None:
    certificate = x509.load_der_x509_certificate(fetch(running.https_port, "/trust", tls).certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    base = f"machinebot.{stage.own_namespace}"
    assert names.get_values_for_type(x509.DNSName) == [
        f"{base}.svc",
        base,
        f"{base}.svc.cluster.local",
        "localhost",
    ]
    assert certificate.not_valid_after_utc - certificate.not_valid_before_utc == timedelta(hours=24)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.ObjectIdentifier("1.3.6.1.5.5.7.3.1")]


# --- read by the programs that use it -----------------------------------------------------------------------------------


def test_ssh_keygen_reads_the_ssh_pieces(authority: str, running: RunningOperator, tls: ssl.SSLContext, tmp_path: Path) -> None:
    for name in ("ssh-user-ca", "ssh-host-ca"):
        (tmp_path / name).write_bytes(serving(running.https_port, f"/authorities/{authority}/trust/{name}", tls).body)
        assert "SHA256:" in run("ssh-keygen", "-l", "-f", tmp_path / name)
    known = tmp_path / "known_hosts"
    known.write_bytes(serving(running.https_port, f"/authorities/{authority}/trust/known-hosts", tls).body)
    for host in (CLUSTER_NAME, f"web.node.{CLUSTER_NAME}"):
        assert "found" in run("ssh-keygen", "-F", host, "-f", known)


@pytest.mark.parametrize("name", ["identity-ca", "database-ca", "kubernetes-ca", "workload-ca"])
def test_openssl_reads_the_certificates(
    authority: str, running: RunningOperator, tls: ssl.SSLContext, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "ca.pem"
    file.write_bytes(serving(running.https_port, f"/authorities/{authority}/trust/{name}", tls).body)
    assert CLUSTER_NAME in run("openssl", "storeutl", "-noout", "-text", "-certs", file)
    run("openssl", "verify", "-CAfile", file, file)


def test_libraries_read_the_keys(authority: str, running: RunningOperator, tls: ssl.SSLContext) -> None:
    pieces = served(running.https_port, authority, tls)
    keys = KeySet.import_key_set(json.loads(pieces["jwks"]))
    assert [key.kid for key in keys.keys] == list(JwtBundle.parse(DOMAIN, pieces["jwks"]).jwt_authorities)
    bundle = json.loads(pieces["spiffe-bundle"])
    assert bundle["spiffe_sequence"] > 0
    assert bundle["spiffe_refresh_hint"] == 300
    by_use = {use: [key for key in bundle["keys"] if key["use"] == use] for use in ("x509-svid", "jwt-svid")}
    assert sum(map(len, by_use.values())) == len(bundle["keys"])
    assert all("kid" not in key and len(key["x5c"]) == 1 for key in by_use["x509-svid"])
    jwt = JwtBundle.parse(DOMAIN, json.dumps({"keys": by_use["jwt-svid"]}).encode())
    assert set(jwt.jwt_authorities) == {key.kid for key in keys.keys}
    pem = "".join(f"-----BEGIN CERTIFICATE-----\n{key['x5c'][0]}\n-----END CERTIFICATE-----\n" for key in by_use["x509-svid"])
    assert X509Bundle.parse(DOMAIN, pem.encode()) == X509Bundle.parse(DOMAIN, pieces["workload-ca"])


# --- the command line and the page of the docs --------------------------------------------------------------------------


def machinebot(*arguments: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "machinebot", *arguments]
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(ROOT / "operator"),
        "HOME": "/nonexistent",
        **({} if kubeconfig is None else {"KUBECONFIG": str(kubeconfig)}),
    }
    return subprocess.run(command, capture_output=True, check=False, env=environment)


def test_the_command_line_prints_what_is_served(
    stage: Stage, authority: str, running: RunningOperator, tls: ssl.SSLContext, tmp_path: Path
) -> None:
    admin = stage.release.cluster.admin_kubeconfig
    ca_file = tmp_path / "identity-ca.pem"
    ca_file.write_bytes(machinebot("trust", "identity-ca", kubeconfig=admin).stdout)
    url = f"https://localhost:{running.https_port}"
    for piece in ("ssh-user-ca", "known-hosts", "jwks", "spiffe-bundle"):
        wanted = serving(running.https_port, f"/authorities/{authority}/trust/{piece}", tls).body
        by_status = machinebot("trust", piece, f"--authority={authority}", kubeconfig=admin)
        by_https = machinebot("trust", piece, f"--authority={authority}", f"--url={url}", f"--ca-file={ca_file}")
        assert (by_status.returncode, by_status.stdout, by_status.stderr) == (0, wanted, b"")
        assert (by_https.returncode, by_https.stdout, by_https.stderr) == (0, wanted, b"")
    (pin,) = pins_of(ca_file.read_bytes())
    assert machinebot("trust", "identity-ca", "--pins", kubeconfig=admin).stdout.decode() == f"{pin}\n"


def test_the_command_line_says_what_to_do(stage: Stage, running: RunningOperator, tmp_path: Path) -> None:
    admin, url = stage.release.cluster.admin_kubeconfig, f"--url=https://localhost:{running.https_port}"
    nobody = stage.release.cluster.service_account_kubeconfig("default", "default")
    (tmp_path / "empty.pem").write_bytes(b"")
    for arguments, kubeconfig, words in (
        (["trust", "jwks", "--authority=nobody"], admin, "there is no MachineAuthority 'nobody'"),
        (["trust", "jwks"], nobody, "this takes the verb get on machineauthorities"),
        (["trust", "jwks"], None, "set KUBECONFIG"),
        (["trust", "jwks", url], None, "write --ca-file FILE"),
        (["trust", "jwks", url, f"--ca-file={tmp_path / 'empty.pem'}"], None, "the CA file cannot be used"),
        (["trust", "jwks", "--context=nobody"], admin, "set KUBECONFIG"),
        (["trust", "private-keys"], admin, "write one of ssh-user-ca"),
        (["trust", "jwks", "--pins"], admin, "jwks holds no CA certificates"),
        (["trust", "ssh-user-ca", "--pins"], admin, "ssh-user-ca holds no CA certificates"),
    ):
        done = machinebot(*arguments, kubeconfig=kubeconfig)
        assert (done.returncode, done.stdout) == (1, b""), done
        assert done.stderr.startswith(b"machinebot: ")
        assert words in done.stderr.decode()
        assert done.stderr.count(b"\n") == 1


def test_the_script_of_the_docs_keeps_a_file_fresh(
    stage: Stage, running: RunningOperator, tls: ssl.SSLContext, tmp_path: Path
) -> None:
    text = (ROOT / "docs" / "trust.md").read_text()
    script = next(block for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE) if "#!/bin/sh" in block)
    file, ca = tmp_path / "ca.pub", tmp_path / "identity-ca.pem"
    ca.write_bytes(public_of(stage.authority_ready("default"), "identity"))
    for old, new in (
        ("https://machinebot.machinebot-system.svc", f"https://localhost:{running.https_port}"),
        ("/etc/ssh/machinebot-identity-ca.pem", str(ca)),
        ("/etc/ssh/machinebot-user-ca.pub", str(file)),
    ):
        assert old in script
        script = script.replace(old, new)
    wanted = serving(running.https_port, "/trust/ssh-user-ca", tls).body
    run("sh", "-c", script)
    assert file.read_bytes() == wanted
    before = file.stat()
    run("sh", "-c", script)
    assert (file.read_bytes(), file.stat().st_ino) == (wanted, before.st_ino), "304: nothing is written"
    done = subprocess.run(["sh", "-c", script.replace("ssh-user-ca", "nothing")], capture_output=True, check=False)
    assert done.returncode != 0
    assert file.read_bytes() == wanted


# --- every replica ------------------------------------------------------------------------------------------------------


def test_a_standby_serves_the_same_and_goes_on_when_the_leader_dies(
    stage: Stage, authority: str, running: RunningOperator, tls: ssl.SSLContext
) -> None:
    with stage.operator() as standby:
        for name in PIECES:
            path = f"/authorities/{authority}/trust/{name}"
            mine, other = (serving(port, path, tls) for port in (standby.https_port, running.https_port))
            assert (mine.body, mine.tag) == (other.body, other.tag)
        assert not standby.operator.leads
        running.crash()
        assert fetch(standby.https_port, f"/authorities/{authority}/trust/jwks", tls).status == 200
        standby.wait_leading()
        later = stage.authority()
        assert serving(standby.https_port, f"/authorities/{later}/trust/jwks", tls)


def test_a_new_certificate_takes_over_without_a_failed_request(
    stage: Stage, authority: str, running: RunningOperator, tls: ssl.SSLContext
) -> None:
    del running
    stage.authority_ready(authority)
    with stage.operator() as operator:
        path = f"/authorities/{authority}/trust/jwks"
        seen, failed, done = [serving(operator.https_port, path, tls).certificate], [], threading.Event()

        def ask() -> None:
            while not done.is_set():
                try:
                    answer = fetch(operator.https_port, path, tls)
                    seen.append(answer.certificate)
                    if answer.status != 200:
                        failed.append(answer)
                except OSError as error:
                    failed.append(error)

        asking = threading.Thread(target=ask)
        asking.start()
        for length in (timedelta(hours=-13), timedelta(hours=13)):
            before = len(set(seen))
            operator.clock.step(length)
            eventually("another certificate is shown", lambda known=before: len(set(seen)) > known)
        done.set()
        asking.join()
        assert failed == []


def test_the_damage_of_one_ca_takes_no_trust_away(
    stage: Stage, authority: str, running: RunningOperator, tls: ssl.SSLContext
) -> None:
    name = stage.authority()
    stage.authority_ready(name)
    before = served(running.https_port, name, tls)
    others = served(running.https_port, authority, tls)
    patch: dict[str, Any] = {"stringData": {CONTENT: "{}"}}
    stage.cluster.patch("Secret", stage.own_namespace, secret_name(name, Purpose.IDENTITY), patch)
    eventually("the leader says so", lambda: stage._told("MachineAuthority", "", name, "False", "CASecretDamaged"))
    running.settle()
    assert served(running.https_port, name, tls) == before
    assert served(running.https_port, authority, tls) == others
    with stage.operator() as fresh:
        assert serving(fresh.https_port, f"/authorities/{authority}/trust/jwks", tls).body == others["jwks"]
        assert serving(fresh.https_port, f"/authorities/{name}/trust/jwks", tls).body == before["jwks"]
        missing = fetch(fresh.https_port, f"/authorities/{name}/trust/identity-ca", tls)
        assert (missing.status, json.loads(missing.body)["reason"]) == (503, "AuthorityNotReady")


def test_another_authority_of_the_same_name_has_another_trust(
    stage: Stage, running: RunningOperator, tls: ssl.SSLContext
) -> None:
    made = stage.count()
    name = stage.authority()
    path = f"/authorities/{name}/trust/jwks"
    first = serving(running.https_port, path, tls).body
    stage.cluster.delete("MachineAuthority", "", name)
    eventually("it is gone", lambda: fetch(running.https_port, path, tls).status == 404)
    running.settle()  # Secrets that vanish before an authority does are made again
    stage.clear(*made)
    stage.authority(name)

    def replaced() -> bool:
        answer = fetch(running.https_port, path, tls)
        return answer.status == 200 and answer.body != first

    eventually("the new one is served", replaced)
    assert (
        public_of(stage.authority_ready(name), "workload")
        == fetch(running.https_port, f"/authorities/{name}/trust/workload-ca", tls).body
    )


def test_an_api_server_that_is_away_takes_no_trust_away(authority: str, running: RunningOperator, tls: ssl.SSLContext) -> None:
    before = served(running.https_port, authority, tls)
    with running.line.failing(lambda call: call.verb in ("list", "watch", "get")) as met:
        running.operator._trust._changed.set()
        eventually("looks fail", lambda: met)
        assert served(running.https_port, authority, tls) == before
        assert running.get("/readyz") == (200, "ok\n")


def test_what_the_watches_miss_is_found_by_a_look(
    stage: Stage, authority: str, running: RunningOperator, tls: ssl.SSLContext
) -> None:
    assert authority
    with stage.operator(sweep_interval=1) as other:
        eventually("it is ready", lambda: other.get("/readyz")[0] == 200)
        with other.line.failing(lambda call: call.verb == "watch"):
            name = stage.authority()
            stage.authority_ready(name)
            assert running.running
            assert serving(other.https_port, f"/authorities/{name}/trust/jwks", tls)


def test_a_replica_that_has_read_nothing_is_not_ready(stage: Stage, running: RunningOperator) -> None:
    eventually("the one that serves is ready", lambda: running.get("/readyz") == (200, "ok\n"))
    nobody = stage.release.cluster.service_account_kubeconfig("default", "default")
    with stage.operator(kubeconfig=nobody, watch_kubeconfig=stage.kubeconfig) as other:
        assert other.get("/readyz") == (503, "the trust of the authorities has not been read yet\n")
        assert other.get("/healthz")[0] == 200


def test_before_anything_could_be_read_the_keeper_says_so(running: RunningOperator) -> None:
    assert running.running
    keeper = running.operator._trust
    assert isinstance(keeper.get("default").issuer, str)
    with pytest.raises(NotFound, match="AuthorityMissing"):
        keeper.get("nobody")
    keeper_of_now = type(keeper)(running.line, namespace=LOOPBACK, url="https://x", interval=1, directory=running.world)
    with pytest.raises(Unavailable, match="AuthorityNotReady"):
        keeper_of_now.get("default")
