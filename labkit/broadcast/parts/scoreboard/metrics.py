"""What one server counts, for Prometheus to fetch: a collector for any hub, and the registry of the scoreboard."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from labkit.broadcast.hub import Hub

__all__ = ["CONTENT_TYPE_LATEST", "HubCollector", "Metrics"]

# Seconds: from a Redis beside the server to one that is away until the publisher gives up.
_PUBLISH_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_GAUGES = {
    "clients": "Clients that are connected now",
    "behind": "Of them those that have not taken yet what they were sent",
    "rooms": "Rooms that are open",
    "queue_bytes": "Bytes in the logs of all rooms and in connections",
}
_COUNTERS = {
    "publishes": "Messages that came into a room",
    "deliveries": "Messages handed to connections",
    "drops": "Messages left out for a client that was behind",
}


class HubCollector(Collector):
    """What hub.stats() says, as it is when Prometheus asks: `registry.register(HubCollector(hub))`."""

    def __init__(self, hub: "Hub") -> None:
        self._hub = hub

    def collect(self) -> Iterator[Metric]:
        """Yield each value; a reason for cutting clients off shows when it has occurred."""
        stats = self._hub.stats()
        for name, says in _GAUGES.items():
            yield GaugeMetricFamily(f"broadcast_{name}", says, value=getattr(stats, name))
        for name, says in _COUNTERS.items():
            yield CounterMetricFamily(f"broadcast_{name}", says, value=getattr(stats, name))
        evictions = CounterMetricFamily("broadcast_evictions", "Clients that were cut off", labels=["reason"])
        for reason, count in stats.evictions.items():
            evictions.add_metric([reason], count)
        yield evictions
        gaps = CounterMetricFamily("broadcast_gaps", "Gaps in what came over the backplane", labels=["settled"])
        for settled, count in self._hub.gaps.items():
            gaps.add_metric([str(settled).lower()], count)
        yield gaps
        lag = "How late the loop came to a timer, ten times a second"
        yield GaugeMetricFamily("broadcast_loop_lag_seconds", lag, value=stats.loop_lag_ms / 1000)
        yield GaugeMetricFamily(
            "broadcast_most_loop_lag_seconds", f"{lag}: the most", value=stats.most_loop_lag_ms / 1000
        )


class Metrics:
    """The counters of one server of the scoreboard, beside those of its hub.

    .streams fans who read the event stream; .published messages that Redis took from here; .publishing the seconds
    until it had one.
    """

    def __init__(self, hub: "Hub") -> None:
        registry = self._registry = CollectorRegistry()
        registry.register(HubCollector(hub))
        self.streams = Gauge("broadcast_streams", "Fans who read the event stream now", registry=registry)
        self.published = Counter("broadcast_published", "Messages that Redis took from here", registry=registry)
        self.publishing = Histogram(
            "broadcast_publish_seconds",
            "Time until Redis had a message",
            buckets=_PUBLISH_SECONDS,
            registry=registry,
        )
        # Asked when Prometheus does, and so never out of date.
        connected = Gauge("broadcast_backplane_connected", "Whether Redis is connected: 1 or 0", registry=registry)
        connected.set_function(lambda: float(hub.backplane.is_connected))
        seq = Gauge("broadcast_position_seq", "Number of the newest message received", registry=registry)
        seq.set_function(lambda: float(hub.heard.seq if hub.heard else 0))

    def exposition(self) -> bytes:
        """Return all values in the text format of Prometheus; its content type is CONTENT_TYPE_LATEST."""
        return generate_latest(self._registry)
