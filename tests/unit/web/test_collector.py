"""Gauges that are read off the resources when they are asked for."""

from collections.abc import Iterable

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from machinebot.policy.credential import AnchorState, Purpose, TrustAnchor
from machinebot.reconcile.world import OutputFacts
from machinebot.web.collector import ResourceCollector
from unit.policy.builders import NOW

READY = OutputFacts("ci", "out", "identity", "2027-01-01T00:00:00Z", "2027-01-02T00:00:00Z", "2027-01-01T12:00:00Z", "True")
FRESH = OutputFacts("ci", "fresh", "", None, None, None, "Unknown")
ANCHOR = TrustAnchor(
    purpose=Purpose.SSH_USER,
    id="0a1b",
    state=AnchorState.ACTIVE,
    public=b"ssh-ed25519 AAAA",
    fingerprint="SHA256:x",
    not_after=NOW,
)


def scraped(outputs: Iterable[OutputFacts] = (), anchors: Iterable[tuple[str, TrustAnchor]] = ()) -> dict[str, float]:
    """The samples as Prometheus reads them, with name and labels as text."""
    known_outputs, known_anchors = list(outputs), list(anchors)
    registry = CollectorRegistry()
    registry.register(ResourceCollector(lambda: known_outputs, lambda: known_anchors))
    lines = [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


def test_an_output_has_its_times_and_the_status_of_ready() -> None:
    place = 'name="out",namespace="ci",type="identity"'
    assert scraped([READY]) == {
        f"machinebot_output_expiration_timestamp_seconds{{{place}}}": 1798848000.0,
        f"machinebot_output_not_before_timestamp_seconds{{{place}}}": 1798761600.0,
        f"machinebot_output_renewal_timestamp_seconds{{{place}}}": 1798804800.0,
        'machinebot_output_ready_status{condition="True",name="out",namespace="ci"}': 1,
        'machinebot_output_ready_status{condition="False",name="out",namespace="ci"}': 0,
        'machinebot_output_ready_status{condition="Unknown",name="out",namespace="ci"}': 0,
    }


def test_an_output_without_a_credential_has_no_times() -> None:
    assert scraped([FRESH]) == {
        'machinebot_output_ready_status{condition="True",name="fresh",namespace="ci"}': 0,
        'machinebot_output_ready_status{condition="False",name="fresh",namespace="ci"}': 0,
        'machinebot_output_ready_status{condition="Unknown",name="fresh",namespace="ci"}': 1,
    }


def test_many_outputs() -> None:
    facts = [OutputFacts("ci", f"out-{number}", "sshHost", None, "2027-01-02T00:00:00Z", None, "False") for number in range(500)]
    assert len(scraped(facts)) == 500 * 4


@pytest.mark.parametrize("text", ["", "soon", "2027-01-02", "2027-01-02T00:00:00", "0001-01-01T00:00:00+14:00"])
def test_a_status_that_somebody_wrote_by_hand_does_not_take_the_others_along(text: str) -> None:
    forged = OutputFacts("ci", "forged", "identity", text, text, text, "Perhaps")
    samples = scraped([forged, READY])
    assert {name: value for name, value in samples.items() if "forged" not in name} == scraped([READY])
    assert [value for name, value in samples.items() if "forged" in name] == [0, 0, 0]


def test_labels_are_escaped() -> None:
    (name, *_) = scraped([OutputFacts('a"b', "c\\d", "e\nf", None, "2027-01-02T00:00:00Z", None, "True")])
    assert 'namespace="a\\"b"' in name
    assert 'name="c\\\\d"' in name
    assert 'type="e\\nf"' in name


def test_a_ca_generation_has_its_end_and_no_key() -> None:
    place = 'authority="default",id="0a1b",purpose="ssh-user",state="Active"'
    assert scraped((), [("default", ANCHOR)]) == {f"machinebot_ca_expiration_timestamp_seconds{{{place}}}": NOW.timestamp()}


def test_without_anything_there_is_nothing_to_tell() -> None:
    assert scraped() == {}


def test_every_family_has_a_help_text() -> None:
    for family in ResourceCollector(lambda: [READY], lambda: [("default", ANCHOR)]).collect():
        assert family.documentation.endswith((".", "past.", "else 0."))
        assert family.type == "gauge"
