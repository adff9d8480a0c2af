"""One server of the scoreboard: its fans, its history, and the relay that carries Redis' news to both."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

from labkit.broadcast.backplane import Gap, Message, Position, PubSubBackplane, StreamBackplane
from labkit.broadcast.managers import QueueManager
from labkit.broadcast.parts.history import CatchUp, History
from labkit.broadcast.parts.metrics import Metrics
from labkit.broadcast.parts.settings import Settings
from labkit.broadcast.protocol import abort

log = logging.getLogger(__name__)

# How many messages may wait for one fan, beside what it missed before it came. Half the history at most: a fan that is
# let go for it then still finds there what it has not got.
_MOST_WAITING = 256
# A fan may have heard from its last server what this one hears a moment later; so long it has to hear it.
_BEHIND_SECONDS = 2.0
_CATCH_UP_SECONDS = 10.0
# What a fan that leaves, or is sent away, has to take the last bytes before its socket is closed for good.
_GOODBYE_SECONDS = 1.0
# A proxy in between takes a connection for dead on which nothing comes.
_SILENCE_SECONDS = 15.0
_TRY_AGAIN_LATER = 1013
# What sending to a fan that is gone raises; before it was accepted, Starlette lets the server's own error pass.
GONE = (WebSocketDisconnect, OSError)


class Fans(QueueManager):
    """Unlike QueueManager: a fan begins with texts of its own, before the first that is broadcast."""

    async def connect(self, websocket: WebSocket, begin: Callable[[], list[str]]) -> None:
        """Take a fan in; `begin` is asked for its first texts at the very moment from which it gets all others."""
        await websocket.accept()
        # From here to the end nothing waits, so nothing is broadcast in between: no message is lost, none comes twice.
        texts = begin()
        queue = asyncio.Queue(len(texts) + self.size)
        for text in texts:
            queue.put_nowait(text)
        self.clients[websocket] = queue, asyncio.create_task(self.write(websocket, queue))


class Scoreboard:
    """What one server holds while it runs; `async with Scoreboard(settings) as scoreboard:`, in the app's lifespan.

    Inside, Redis is connected and the history is filled. News reaches fans only by way of Redis, those of this server
    too: so all fans of all servers hear all news in one order.
    A fan that reads more slowly than news comes is let go, and comes back with its position: no gap is silent.
    Raises redis.exceptions.ConnectionError when Redis does not answer.
    .settings, .backplane, .history, .metrics.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        carrier = {"streams": StreamBackplane, "pubsub": PubSubBackplane}[settings.carrier]
        self.backplane = carrier(
            settings.redis_url, settings.channel, history=settings.history, timeout=settings.publish_timeout
        )
        self.metrics = Metrics(self.backplane)
        self.history = History(settings.history, settings.history_bytes)
        self._fans = Fans(size=min(_MOST_WAITING, settings.history // 2 + 1), when_full="disconnect")
        self._fans.make_room = self._let_go
        self._relay: asyncio.Task | None = None
        self._closings: set[asyncio.Task] = set()
        self._can_abort = True
        self._open = AsyncExitStack()

    async def __aenter__(self) -> "Scoreboard":
        await self._open.enter_async_context(self.backplane)
        newest = self.backplane.position
        self.history = History(self.settings.history, self.settings.history_bytes, newest)
        self._relay = asyncio.create_task(self._relay_all(), name=f"relay of {self.settings.channel}")
        self._relay.add_done_callback(self._on_relay_end)
        # The relay takes the first of the older messages in its first turn; the history is filled when it has the last.
        await asyncio.sleep(0)
        if newest is not None:
            await self.history.reached(newest, _CATCH_UP_SECONDS)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.history.close()
        self._relay.remove_done_callback(self._on_relay_end)
        for websocket in list(self._fans.clients):
            self._fans.disconnect(websocket)
        tasks = [self._relay, *self._closings]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await self._open.aclose()

    # ---- publishing

    async def publish(self, text: str, publish_id: str | None = None) -> Position:
        """Publish a JSON text and return its position once Redis has it.

        publish_id: whoever repeats a message gives the same one, and the message is published once.
        Raises BackplaneFull or NotPublished, as the backplane does.
        """
        with self.metrics.publishing.time():
            position = await self.backplane.publish(text, publish_id)
        self.metrics.published.inc()
        return position

    # ---- the relay

    async def _relay_all(self) -> None:
        """Carry what comes from Redis into the history and to the fans, in order."""
        async for event in self.backplane.events():
            if isinstance(event, Message):
                self.metrics.received.inc()
                message = Message(event.position, message_text(event))
                self.history.add(message)
                await self._broadcast(message.text)
                continue
            self.metrics.gaps.labels(str(event.settled).lower()).inc()
            if event.settled:
                self.history.settle(event)
            else:
                self.history.add_gap(event)
                await self._broadcast(gap_text(event))

    async def _broadcast(self, text: str) -> None:
        self.metrics.queued.inc(len(self._fans.clients))
        await self._fans.broadcast(text)
        # The broadcast itself never waits: without this, many messages at once would fill every queue before its writer
        # gets a turn.
        await asyncio.sleep(0)

    def _on_relay_end(self, relay: asyncio.Task) -> None:
        """Say that this server hears no more news, and send its fans away: they will find one that does."""
        error = None if relay.cancelled() else relay.exception()
        log.error("server %s hears no more news: its relay has ended", self.settings.server_name, exc_info=error)
        self.history.close()
        for websocket, (queue, _) in list(self._fans.clients.items()):
            self._let_go(self._fans, websocket, queue)

    def why_not_ready(self) -> list[str]:
        """Return the reasons for which this server should get no new fans, in words; none when it is ready."""
        reasons = []
        if self._relay is None or self._relay.done():
            reasons.append("the relay has ended: no news reaches the fans of this server")
        elif self.history.is_closed:
            reasons.append("this server is shutting down")
        if not self.backplane.is_connected:
            reasons.append("Redis is not connected")
        elif self.backplane.position is not None and self.history.newest != self.backplane.position:
            reasons.append("the fans have not yet been told all that has come from Redis")
        return reasons

    # ---- fans on a WebSocket

    async def serve(self, websocket: WebSocket, asked: Position | None) -> None:
        """Serve one fan until it leaves: where it starts, what it missed since `asked`, and all news from then on.

        Raises one of GONE when the fan goes before it is served.
        """
        await self._wait_for_news_that_a_fan_has_heard(asked)
        if self.history.is_closed:
            await websocket.accept()
            await websocket.close(_TRY_AGAIN_LATER, "this server takes no fans now; another may")
            return
        try:
            await self._fans.connect(websocket, lambda: self._first_texts(asked))
            self.metrics.fans.labels("websocket").inc()
            websocket.state.has_joined = True
            # A fan has nothing to say. Uvicorn reads on only when the last of its messages was taken.
            while (await websocket.receive())["type"] != "websocket.disconnect":
                pass
        finally:
            self._leave(websocket)

    def _first_texts(self, asked: Position | None) -> list[str]:
        """Return what a fan gets before it hears live news."""
        catch_up = self.history.since(asked)
        return [hello_text(catch_up, self.settings.server_name), *map(text_for_fans, catch_up.events)]

    def _leave(self, websocket: WebSocket) -> None:
        self._fans.disconnect(websocket)
        if getattr(websocket.state, "has_joined", False):
            self.metrics.fans.labels("websocket").dec()
        # Its goodbye waits behind what it never read, and the socket with it, for as long as the fan likes.
        asyncio.get_running_loop().call_later(_GOODBYE_SECONDS, self._abort, websocket)

    def _abort(self, websocket: WebSocket) -> bool:
        """Free the socket of a fan and return True; False where the server does not speak HubProtocol."""
        try:
            abort(websocket)
        except RuntimeError as error:
            if self._can_abort:
                log.warning("fans who do not read cannot be cut off: %s", error)
            self._can_abort = False
        return self._can_abort

    def _let_go(self, fans: QueueManager, websocket: WebSocket, _: asyncio.Queue) -> None:
        """Let a fan go whose queue is full, as labkit.broadcast.policies does; also where there is no abort()."""
        self.metrics.evicted.inc()
        fans.disconnect(websocket)
        if not self._abort(websocket):
            # The fan gets the close frame when it reads again; it waits behind the messages.
            closing = asyncio.create_task(self._close(websocket))
            self._closings.add(closing)
            closing.add_done_callback(self._closings.discard)

    async def _close(self, websocket: WebSocket) -> None:
        with suppress(*GONE, RuntimeError):
            await websocket.close(
                _TRY_AGAIN_LATER, "you read more slowly than news comes; come back with your position"
            )

    # ---- fans on an event stream

    async def follow(self, asked: Position | None) -> AsyncIterator[CatchUp | Message | Gap | None]:
        """Yield where a fan starts, what it missed since `asked`, and all news from then on, until the server stops.

        None comes where there has been nothing to say for a while.
        """
        with self.metrics.fans.labels("sse").track_inprogress():
            await self._wait_for_news_that_a_fan_has_heard(asked)
            catch_up = self.history.since(asked)
            yield catch_up
            after = catch_up.after
            if asked is not None and not catch_up.recovered:
                yield Gap("what came after your last event is not all here", asked, None, False)
            for event in catch_up.events:
                after = event.position if isinstance(event, Message) else after
                yield event
            async for event in self.history.follow(catch_up.cursor, after, silence=_SILENCE_SECONDS):
                yield event

    async def _wait_for_news_that_a_fan_has_heard(self, asked: Position | None) -> None:
        if asked is not None:
            await self.history.reached(asked, _BEHIND_SECONDS)


def hello_text(catch_up: CatchUp, server_name: str) -> str:
    """Return what a fan hears first."""
    return json.dumps({"position": catch_up.after, "recovered": catch_up.recovered, "server": server_name})


def message_text(message: Message) -> str:
    """Return a message as fans get it: the published JSON with its position around it."""
    epoch, seq = message.position
    return f'{{"epoch": {epoch}, "seq": {seq}, "data": {_as_json(message.text)}}}'


def _as_json(text: str) -> str:
    """Return a text that is JSON as it is, and any other as a JSON string: not only this app may publish here."""
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return json.dumps(text)
    return text


def gap_text(gap: Gap) -> str:
    """Return a gap as fans get it."""
    return json.dumps({"gap": {"after": gap.after, "until": gap.until}, "reason": gap.reason})


def text_for_fans(event: Message | Gap) -> str:
    """Return an event of the history as fans get it."""
    return event.text if isinstance(event, Message) else gap_text(event)
