"""One server of the scoreboard: a hub on a backplane, and what its fans are told."""

from collections.abc import AsyncIterator

from starlette.websockets import WebSocket, WebSocketDisconnect

from labkit.broadcast.backplane import PubSubBackplane, StreamBackplane
from labkit.broadcast.hub import Gap, Hub, Position
from labkit.broadcast.parts.hub.log import CatchUp, Entry
from labkit.broadcast.parts.hub.texts import hello_text
from labkit.broadcast.parts.scoreboard.metrics import Metrics
from labkit.broadcast.parts.scoreboard.settings import Settings

# A proxy in between takes a connection for dead on which nothing comes.
_SILENCE_SECONDS = 15.0
# What sending to a fan that is gone raises; before it was accepted, Starlette lets the server's own error pass.
GONE = (WebSocketDisconnect, OSError)


class Scoreboard:
    """What one server holds while it runs; `async with Scoreboard(settings) as scoreboard:`, in the app's lifespan.

    Inside, Redis is connected and the history is filled. News reaches fans only by way of Redis, those of this server
    too: so all fans of all servers hear all news in one order.
    A fan that reads more slowly than news comes is let go, and comes back with its position: no gap is silent.
    Raises redis.exceptions.ConnectionError when Redis does not answer.
    .settings, .backplane, .hub, .metrics.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        carrier = {"streams": StreamBackplane, "pubsub": PubSubBackplane}[settings.carrier]
        self.backplane = carrier(
            settings.redis_url, settings.channel, history=settings.history, timeout=settings.publish_timeout
        )
        self.hub = Hub(history=settings.history, history_bytes=settings.history_bytes, backplane=self.backplane)
        self.metrics = Metrics(self.hub)

    async def __aenter__(self) -> "Scoreboard":
        await self.hub.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.hub.__aexit__(*error)

    async def publish(self, message: object, publish_id: str | None = None) -> Position:
        """Publish what JSON can carry and return its position once Redis has it.

        publish_id: whoever repeats a message gives the same one, and the message is published once.
        Raises ValueError for what JSON cannot carry, BackplaneFull or NotPublished, as the backplane does.
        """
        with self.metrics.publishing.time():
            position = await self.hub.publish(message, publish_id=publish_id)
        self.metrics.published.inc()
        return position

    def why_not_ready(self) -> list[str]:
        """Return the reasons for which this server should get no new fans, in words; none when it is ready."""
        reasons = []
        if not self.hub.is_hearing:
            reasons.append("the relay has ended: no news reaches the fans of this server")
        elif self.hub.is_draining:
            reasons.append("this server is shutting down")
        if not self.backplane.is_connected:
            reasons.append("Redis is not connected")
        elif self.backplane.position is not None and self.hub.heard != self.backplane.position:
            reasons.append("the fans have not yet been told all that has come from Redis")
        return reasons

    async def serve(self, websocket: WebSocket, asked: Position | None) -> None:
        """Serve one fan until it leaves: where it starts, what it missed since `asked`, and all news from then on.

        Raises one of GONE when the fan goes before it is served, or is sent away.
        """
        try:
            await self.hub.connect(websocket, since=asked, hello=self.hello)
            # A fan has nothing to say. Uvicorn reads on only when the last of its messages was taken.
            while (await websocket.receive())["type"] != "websocket.disconnect":
                pass
        finally:
            self.hub.disconnect(websocket)

    def hello(self, catch_up: CatchUp) -> str:
        """Return what a fan hears first."""
        return hello_text(catch_up.after, catch_up.recovered, server=self.settings.server_name)

    async def follow(self, asked: Position | None) -> AsyncIterator[CatchUp | Entry | Gap | None]:
        """Yield where a fan starts, what it missed since `asked`, and all news from then on, until the server stops.

        None comes where there has been nothing to say for a while.
        """
        with self.metrics.streams.track_inprogress():
            async for event in self.hub.follow(since=asked, silence=_SILENCE_SECONDS):
                yield event
                if isinstance(event, CatchUp) and asked is not None and not event.recovered:
                    yield Gap("what came after your last event is not all here", asked, None, False)
