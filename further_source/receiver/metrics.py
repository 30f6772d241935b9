"""What a receiver tells of itself, in Prometheus' format."""

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from further_source.receiver.storage import Storage

__all__ = ["OUTCOMES", "Metrics"]

OUTCOMES = (
    "stored",
    "quarantined",
    "unauthorized",
    "too_large",
    "timeout",
    "disconnected",
    "overload",
    "storage",
    "identity",
)


class Metrics:
    """Deliveries by outcome since the start, and what waits in the inbox."""

    def __init__(self, storage: Storage) -> None:
        self.registry = CollectorRegistry()
        self._deliveries = Counter(
            "further_deliveries", "Deliveries by what became of them", ["outcome"], registry=self.registry
        )
        for outcome in OUTCOMES:
            self._deliveries.labels(outcome)
        self.registry.register(_BacklogCollector(storage))

    def count(self, outcome: str) -> None:
        self._deliveries.labels(outcome).inc()


class _BacklogCollector(Collector):
    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def collect(self) -> Iterator[Metric]:
        backlog = self._storage.backlog()
        yield GaugeMetricFamily("further_inbox_files", "Files that wait to be loaded", value=backlog.files)
        yield GaugeMetricFamily(
            "further_inbox_oldest_seconds", "How long the oldest of them has waited", value=backlog.oldest_seconds
        )
