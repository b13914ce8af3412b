"""What the API server is told of client CAs and issuers of tokens, and how it is seen that it has taken them."""

import hashlib
import json
import socket
from pathlib import Path

import pytest

from controlplane import authentication
from controlplane.authentication import API_VERSION, Authentication
from controlplane.commands import Layout
from controlplane.pki import Authority
from controlplane.ports import LOOPBACK
from controlplane.processes import Part

METRICS = """
# HELP apiserver_authentication_config_controller_last_config_info Information about the last applied configuration.
apiserver_authentication_config_controller_last_config_info{{apiserver_id_hash="sha256:0",hash="sha256:{digest}"}} 1
apiserver_authentication_config_controller_automatic_reloads_total{{apiserver_id_hash="sha256:0",status="failure"}} {failures}
apiserver_authentication_config_controller_automatic_reloads_total{{apiserver_id_hash="sha256:0",status="success"}} 7
"""


def metrics(content: bytes, failures: int = 0) -> str:
    return METRICS.format(digest=hashlib.sha256(content).hexdigest(), failures=failures)


def test_an_empty_configuration_leaves_anonymous_requests_to_the_flag() -> None:
    assert json.loads(authentication.configuration(())) == {"apiVersion": API_VERSION, "kind": "AuthenticationConfiguration"}


def test_every_issuer_is_an_entry_in_its_order() -> None:
    entries = [{"issuer": {"url": "https://one"}}, {"issuer": {"url": "https://two"}}]
    assert json.loads(authentication.configuration(entries))["jwt"] == entries


def test_only_the_metric_of_this_very_content_says_that_it_counts() -> None:
    assert authentication.in_force(b"new", metrics(b"new"))
    assert not authentication.in_force(b"new", metrics(b"old"))
    assert not authentication.in_force(b"new", "")
    assert not authentication.in_force(b"new", metrics(b"new").replace("last_config_info", "something_else"))


@pytest.mark.parametrize(("text", "count"), [(metrics(b"", 0), 0), (metrics(b"", 3), 3), ("", 0)])
def test_refused_configurations_are_counted(text: str, count: int) -> None:
    assert authentication.failures(text) == count


def test_the_names_of_all_authorities_of_all_bundles_are_read() -> None:
    one, two, three = (Authority(name).certificate for name in ("one", "two", "three"))
    names = authentication.subjects([one + two, three])
    assert len(names) == 3
    assert authentication.subjects([two]) < names
    assert authentication.subjects([]) == frozenset()


@pytest.mark.parametrize("text", [b"", b"no certificate", b"-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n"])
def test_what_holds_no_certificate_is_no_authority(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"PEM|asn1"):
        authentication.subjects([text])


def test_a_file_is_replaced_as_a_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    path.write_bytes(b"old")
    with path.open("rb") as reader:
        authentication.replace(path, b"new")
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_old_api_server_is_given_no_issuer(tmp_path: Path) -> None:
    layout = Layout(tmp_path, api_port=1, etcd_port=2)
    layout.pki.mkdir()
    server = Part("kube-apiserver", [], tmp_path / "log", {})
    made = Authentication(layout, Authority("own").certificate, server, lambda: "", configurable=False)
    with pytest.raises(ValueError, match=r"1\.34 or newer"), made.tokens({}):
        pass


def test_nobody_there_is_told_as_such() -> None:
    with socket.socket() as free:
        free.bind((LOOPBACK, 0))
        with pytest.raises(ConnectionRefusedError):
            authentication.first_flight(free.getsockname()[1])
