"""Metrics that are read off the resources at scrape time, so that they cannot drift from them."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from typing_extensions import override

from machinebot.clock import parse_rfc3339
from machinebot.policy.credential import TrustAnchor
from machinebot.reconcile.world import OutputFacts

LABELS = ("namespace", "name", "type")


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
        """What Prometheus scrapes."""
        ends = GaugeMetricFamily(
            "machinebot_output_expiration_timestamp_seconds", "When the credential of an output ends.", labels=LABELS
        )
        begins = GaugeMetricFamily(
            "machinebot_output_not_before_timestamp_seconds", "When the credential of an output begins.", labels=LABELS
        )
        renewals = GaugeMetricFamily(
            "machinebot_output_renewal_timestamp_seconds",
            "When the credential of an output is replaced; alert where this is past.",
            labels=LABELS,
        )
        ready = GaugeMetricFamily(
            "machinebot_output_ready_status",
            "1 for the status of the condition Ready that an output has, else 0.",
            labels=("namespace", "name", "condition"),
        )
        for facts in self._outputs():
            labels = (facts.namespace, facts.name, facts.type)
            for family, moment in ((ends, facts.not_after), (begins, facts.not_before), (renewals, facts.renew_at)):
                if moment is not None:
                    family.add_metric(labels, parse_rfc3339(moment).timestamp())
            for condition in ("True", "False", "Unknown"):
                ready.add_metric((facts.namespace, facts.name, condition), float(facts.ready == condition))
        yield from (ends, begins, renewals, ready, self._authorities())

    def _authorities(self) -> Metric:
        family = GaugeMetricFamily(
            "machinebot_ca_expiration_timestamp_seconds",
            "When a CA generation ends.",
            labels=("authority", "purpose", "id", "state"),
        )
        for authority, anchor in self._anchors():
            family.add_metric((authority, anchor.purpose, anchor.id, anchor.state), anchor.not_after.timestamp())
        return family
