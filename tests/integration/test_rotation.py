"""The CAs are rotated while everybody goes on: real logins and calls with what the Secrets hold at each stage."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from support.logins import HOST, is_let_in, serving
from support.mounting import mounted
from support.rotation import OVERLAP, Rotation, rotation
from support.stage import Stage
from workbench.nginx import ClientFiles, NginxServer

pytestmark = pytest.mark.cluster
pytest_plugins = ["support.fixtures"]

LITTLE = timedelta(minutes=10)
"""More than what passes by itself between two steps of the clock."""

WEB = "web.apps.svc"
ALLOW: dict[str, Any] = {
    "logins": ["{{ internal.logins }}"],
    "hostPrincipals": [HOST],
    "dnsNames": [WEB],
    "spiffePaths": ["/ns/*"],
}
OUTPUTS: dict[str, dict[str, Any]] = {
    "user": {"identity": {}},
    "host": {"sshHost": {"principals": [HOST]}},
    "caller": {"application": {}},
    "called": {"x509SVID": {"dnsNames": [WEB]}},
}
"""A user of a host, and a caller of a web server."""

TRUST: dict[str, tuple[str, bytes]] = {
    "user": ("known_hosts", b"@cert-authority example.test,*.example.test "),
    "host": ("ssh_host-user-ca.pub", b"ecdsa-sha2-nistp256 "),
    "caller": ("ca.crt", b"-----BEGIN CERTIFICATE-----"),
    "called": ("svid_bundle.pem", b"-----BEGIN CERTIFICATE-----"),
}
"""Where each Secret tells whom to trust, and how a generation of the CA begins there."""


@dataclass(frozen=True)
class Rotating(Rotation):
    """Four outputs whose authority rotates its CAs."""

    folder: Path

    def states(self) -> list[str]:
        """The generations of each CA, which are all at the same stage."""
        body = self.tenant.stage.cluster.get("MachineAuthority", "", self.tenant.authority)
        assert body is not None
        found: dict[str, list[str]] = {}
        for anchor in body["status"]["authorities"]:
            found.setdefault(anchor["purpose"], []).append(anchor["state"])
        (states,) = {tuple(each) for each in found.values()}
        return list(states)

    def mount(self, stage: str) -> Path:
        """The Secrets as they are now, mounted in a place of their own."""
        place = self.folder / stage
        self.tenant.change("MachineOutput", "user", identity={"mountPath": str(place / "user")})
        self.running.settle()
        for name in OUTPUTS:
            mounted(self.tenant, place, name)
        return place

    def trusted(self) -> dict[str, int]:
        """How many generations each Secret trusts."""
        return {name: self.tenant.secret(name).data[key].count(start) for name, (key, start) in TRUST.items()}

    def signed_by(self) -> Mapping[str, frozenset[str]]:
        """The generations that signed each."""
        return {name: frozenset(self.tenant.status(name)["authorities"].values()) for name in OUTPUTS}

    def all_trust(self, count: int) -> bool:
        """Whether each Secret trusts so many generations."""
        return set(self.trusted().values()) == {count}


@pytest.fixture
def rotating(stage: Stage, tmp_path: Path) -> Iterator[Rotating]:
    """The authority is made so far in the past that its heir is due a little ago, and the outputs a little before that."""
    with rotation(stage, LITTLE) as made:
        tenant = made.tenant
        tenant.bot(roles=(stage.role(allow=ALLOW),))
        for each, spec in OUTPUTS.items():
            tenant.output(each, **spec)
        for each in OUTPUTS:
            tenant.ready(each)
        yield Rotating(tenant, made.running, made.clock, tmp_path)


def test_logins_and_calls_work_all_through_a_rotation_of_the_cas(rotating: Rotating) -> None:
    """No output is issued anew for a new generation: it is published for 26 hours before it signs, and nothing lives that long."""
    tenant = rotating.tenant
    assert rotating.states() == ["Active"]
    stages = [rotating.mount("first-alone")]
    first = rotating.signed_by()
    assert rotating.all_trust(1)

    mark = tenant.mark()
    rotating.at(timedelta(0))
    assert rotating.states() == ["Active", "Prepared"]
    assert tenant.summary(mark) == []

    rotating.at(timedelta(hours=13))
    assert {tenant.status(name)["issueReason"] for name in OUTPUTS} == {"Expiring"}
    assert rotating.all_trust(2), "everybody knows the heir before it signs"
    assert rotating.signed_by() == first
    rotating.at(timedelta(0))
    stages.append(rotating.mount("heir-published"))
    assert rotating.signed_by() == first

    rotating.at(OVERLAP - LITTLE)
    assert rotating.states() == ["Active", "Prepared"]
    rotating.at(OVERLAP + LITTLE)
    assert rotating.states() == ["Active", "Old"]
    rotating.at(timedelta(0))
    stages.append(rotating.mount("heir-signs"))
    second = rotating.signed_by()
    assert all(second[name].isdisjoint(first[name]) for name in OUTPUTS)
    assert rotating.all_trust(2), "what the first one has signed is good still"

    rotating.at(2 * (OVERLAP + LITTLE))
    assert rotating.states() == ["Active"]
    rotating.at(timedelta(0))
    stages.append(rotating.mount("heir-alone"))
    assert rotating.signed_by() == second
    assert rotating.all_trust(1)

    for number, stage in enumerate(stages):
        neighbours = [abs(number - other) <= 1 for other in range(len(stages))]
        assert logins(stage, stages) == neighbours, f"to the host of {stage.name}"
        assert calls(stage, stages) == neighbours, f"to the web server of {stage.name}"


def logins(to: Path, stages: list[Path]) -> list[bool]:
    """Whether the user of each stage gets in at the host of one."""
    with serving(to, to / "host") as server:
        return [is_let_in(server, stage / "user") for stage in stages]


def calls(to: Path, stages: list[Path]) -> list[bool]:
    """Whether the caller of each stage is answered by the web server of one; both verify the other."""
    own = to / "called"
    found = []
    with NginxServer(
        to, certificate=own / "svid.pem", key=own / "svid_key.pem", client_authorities=to / "caller" / "ca.crt"
    ) as server:
        for stage in stages:
            files = ClientFiles(stage / "caller" / "tls.crt", stage / "caller" / "tls.key")
            answer = server.call(WEB, stage / "called" / "svid_bundle.pem", files)
            assert answer.status in (200, 400) or "SSL certificate problem" in answer.error, answer
            found.append(answer.status == 200)
    return found
