"""Metrics that are read off the resources at scrape time, so that they cannot drift from them."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from machinebot.clock import parse_rfc3339
from machinebot.policy.credential import TrustAnchor
from machinebot.reconcile.world import OutputFacts

_TIMES: Final[tuple[tuple[str, str, Callable[[OutputFacts], str | None]], ...]] = (
    ("expiration", "When the credential of an output ends.", lambda facts: facts.not_after),
    ("not_before", "When the credential of an output begins.", lambda facts: facts.not_before),
    (
        "renewal",
        "When the credential of an output is replaced; alert where this is past.",
        lambda facts: facts.renew_at,
    ),
)
"""Name, help text, and where the time is found."""


def _seconds(text: str | None) -> float | None:
    """Seconds since 1970. None where a status that somebody else wrote holds no time: it must not take the others along."""
    try:
        return None if text is None else parse_rfc3339(text).timestamp()
    except ValueError:
        return None


class ResourceCollector(Collector):
    """Gauges of every output and CA.

    Args:
        outputs: Every output's facts.
        anchors: Every published CA generation, with the name of its authority.
    """

    def __init__(
        self, outputs: Callable[[], Iterable[OutputFacts]], anchors: Callable[[], Iterable[tuple[str, TrustAnchor]]]
    ) -> None:
        self._outputs = outputs
        self._anchors = anchors

    @override
    def collect(self) -> Iterator[Metric]:
        """What Prometheus scrapes; one family at a time, since each has a sample for every output."""
        for name, text, moment in _TIMES:
            family = GaugeMetricFamily(f"machinebot_output_{name}_timestamp_seconds", text, labels=("namespace", "name", "type"))
            for facts in self._outputs():
                value = _seconds(moment(facts))
                if value is not None:
                    family.add_metric((facts.namespace, facts.name, facts.type), value)
            yield family
        yield self._ready()
        yield self._authorities()

    def _ready(self) -> Metric:
        family = GaugeMetricFamily(
            "machinebot_output_ready_status",
            "1 for the status of the condition Ready that an output has, else 0.",
            labels=("namespace", "name", "condition"),
        )
        for facts in self._outputs():
            for condition in ("True", "False", "Unknown"):
                family.add_metric((facts.namespace, facts.name, condition), float(facts.ready == condition))
        return family

    def _authorities(self) -> Metric:
        family = GaugeMetricFamily(
            "machinebot_ca_expiration_timestamp_seconds",
            "When a CA generation ends.",
            labels=("authority", "purpose", "id", "state"),
        )
        for authority, anchor in self._anchors():
            family.add_metric((authority, anchor.purpose, anchor.id, anchor.state), anchor.not_after.timestamp())
        return family
