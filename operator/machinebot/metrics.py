"""Every metric of the operator but those that are read off the resources at scrape time (`machinebot.web.collector`)."""

from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second sample for each counter that nobody asks for


class Metrics:
    """The counters, gauges and histograms, bound to one registry so that tests can have their own."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry: Final = registry if registry is not None else REGISTRY
        self.issues = Counter(
            "machinebot_issues",
            "Credentials issued, and attempts that failed.",
            ["type", "reason", "result"],
            registry=self.registry,
        )
        self.joins = Counter(
            "machinebot_joins", "Joins of bots, by method and result.", ["method", "result"], registry=self.registry
        )
        self.join_requests = Counter(
            "machinebot_join_requests",
            "Requests to the join API, by path and result: success, refused or TooManyRequests.",
            ["path", "result"],
            registry=self.registry,
        )
        self.join_seconds = Histogram(
            "machinebot_join_request_seconds",
            "Seconds for one request to the join API.",
            ["path"],
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5),
            registry=self.registry,
        )
        self.issuer_fetches = Counter(
            "machinebot_issuer_fetches",
            "Fetches of the keys of OpenID issuers, by result: good, or the reason why not.",
            ["result"],
            registry=self.registry,
        )
        self.reconcile_seconds = Histogram(
            "machinebot_reconcile_seconds",
            "Seconds from taking an object off the queue to being done with it.",
            ["kind"],
            buckets=(0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
            registry=self.registry,
        )
        self.reconcile_errors = Counter(
            "machinebot_reconcile_errors",
            "Reconciles that ended in an error, by its reason.",
            ["kind", "reason"],
            registry=self.registry,
        )
        self.queue_depth = Gauge("machinebot_queue_depth", "Objects that wait to be looked at.", registry=self.registry)
        self.last_sweep = Gauge(
            "machinebot_last_sweep_timestamp_seconds", "When the last full look at the cluster ended.", registry=self.registry
        )
        self.sweep_corrections = Counter(
            "machinebot_sweep_corrections",
            "Changes that a watch had missed and a sweep found.",
            ["kind"],
            registry=self.registry,
        )
        self.leader = Gauge("machinebot_leader", "1 where this replica leads, else 0.", registry=self.registry)
        self.events_dropped = Counter(
            "machinebot_events_dropped",
            "Kubernetes Events that were not posted, since too many waited or the API server refused them.",
            registry=self.registry,
        )
        self.api_requests = Counter(
            "machinebot_api_requests",
            "Requests to the Kubernetes API server; code 0 where no answer came.",
            ["verb", "resource", "code"],
            registry=self.registry,
        )
        self.api_seconds = Histogram(
            "machinebot_api_request_seconds",
            "Seconds for one request to the Kubernetes API server.",
            ["verb"],
            buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 5, 30),
            registry=self.registry,
        )
