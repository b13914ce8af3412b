"""A metric that cannot be told."""

from collections.abc import Iterator

from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from typing_extensions import override


class Broken(Collector):
    """Fails whenever it is asked."""

    @override
    def describe(self) -> Iterator[Metric]:
        return iter(())

    @override
    def collect(self) -> Iterator[Metric]:
        raise RuntimeError("broken metric")
