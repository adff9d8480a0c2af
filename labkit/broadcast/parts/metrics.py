"""What one server of the scoreboard counts, for Prometheus to fetch; each app has a registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from labkit.broadcast.backplane import PubSubBackplane, StreamBackplane

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]

# Seconds: from a Redis beside the server to one that is away until the publisher gives up.
_PUBLISH_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """The counters of one server.

    .fans, with the transport "websocket" or "sse"; .published, .received and .queued messages: the last counts each
    for every queue that it was put into. .gaps by whether they could be settled; .evicted fans who read too slowly.
    .publishing the seconds until Redis had a message.
    """

    def __init__(self, backplane: PubSubBackplane | StreamBackplane) -> None:
        registry = self._registry = CollectorRegistry()
        self.fans = Gauge("broadcast_fans", "Fans who are connected now", ["transport"], registry=registry)
        self.published = Counter("broadcast_published", "Messages that Redis took from here", registry=registry)
        self.received = Counter("broadcast_received", "Messages that came from Redis", registry=registry)
        self.queued = Counter("broadcast_queued", "Messages put into the queues of fans", registry=registry)
        self.gaps = Counter("broadcast_gaps", "Gaps in what came from Redis", ["settled"], registry=registry)
        self.evicted = Counter("broadcast_evicted", "Fans let go because they read too slowly", registry=registry)
        self.publishing = Histogram(
            "broadcast_publish_seconds",
            "Time until Redis had a message",
            buckets=_PUBLISH_SECONDS,
            registry=registry,
        )
        # Asked when Prometheus does, and so never out of date.
        connected = Gauge("broadcast_backplane_connected", "Whether Redis is connected: 1 or 0", registry=registry)
        connected.set_function(lambda: float(backplane.is_connected))
        seq = Gauge("broadcast_position_seq", "Number of the newest message received", registry=registry)
        seq.set_function(lambda: float(backplane.position.seq if backplane.position else 0))
        # Each label shows from the start: what appears only with the first gap cannot be seen to rise.
        for transport in ("websocket", "sse"):
            self.fans.labels(transport)
        for settled in ("true", "false"):
            self.gaps.labels(settled)

    def exposition(self) -> bytes:
        """Return all values in the text format of Prometheus; its content type is CONTENT_TYPE_LATEST."""
        return generate_latest(self._registry)
