"""The top rung: a broadcaster that is as fast as the system's send(), and that no client can slow down.

    hub = Hub()

    @app.websocket("/ws")
    async def fans(websocket: WebSocket, epoch: int = 0, seq: int = 0):
        try:
            await hub.connect(websocket, room="final", since=(epoch, seq))
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            pass
        finally:
            hub.disconnect(websocket)

    hub.publish({"home": 1, "away": 0}, room="final")    # from anywhere on the loop; never waits

It is at its best behind HubProtocol on asyncio's own loop, and works on others, under TLS, and under any ASGI server.
"""

import asyncio
import logging
import math
import random
import time
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, NamedTuple

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from labkit.broadcast.parts.hub.events import Gap, Position
from labkit.broadcast.parts.hub.frames import text_frame
from labkit.broadcast.parts.hub.log import CatchUp, Entry, Log
from labkit.broadcast.parts.hub.members import GONE, Member, QueuedMember
from labkit.broadcast.parts.hub.relay import Relay
from labkit.broadcast.parts.hub.room import Room
from labkit.broadcast.parts.hub.texts import MAIN_ROOM, as_json, hello_text, message_text
from labkit.broadcast.parts.hub.watch import Lag, Watch
from labkit.broadcast.policies import WHEN_FULL
from labkit.broadcast.protocol import connection_of

if TYPE_CHECKING:
    from labkit.broadcast.backplane import PubSubBackplane, StreamBackplane

__all__ = ["Gap", "Hub", "HubFull", "Position", "Stats"]

log = logging.getLogger(__name__)

_SERVICE_RESTART = 1012
_TRY_AGAIN_LATER = 1013
# What a client has to answer a goodbye, before its socket is freed all the same.
_GOODBYE_SECONDS = 1.0
_BATCH_SECONDS = 0.1
# Rooms that nobody is in and that nothing was published to for the longest time are forgotten beyond so many.
_MOST_ROOMS = 10_000
# A client may have heard from its last server what this one hears a moment later; so long it has to hear it.
_BEHIND_SECONDS = 2.0
_HOW = "start it by serve(app, protocol=HubProtocol), or uvicorn with --ws labkit.broadcast.protocol:HubProtocol"


class HubFull(RuntimeError):
    """So much was published without a pause that it may not be kept; the message was not taken."""


class Stats(NamedTuple):
    """What a hub holds now, and has counted.

    clients, of them behind; rooms; queue_bytes in the logs and in connections. drops: messages that a policy left out,
    once for each client. evictions: {reason: clients cut off}. publishes; deliveries: messages handed to connections.
    loop_lag_ms: how late the loop was at the last look, ten times a second, and most_loop_lag_ms at the worst of all.
    """

    clients: int
    behind: int
    rooms: int
    queue_bytes: int
    drops: int
    evictions: dict[str, int]
    publishes: int
    deliveries: int
    loop_lag_ms: float
    most_loop_lag_ms: float


class Hub:
    """Unlike QueueManager: no task and no queue for a client, one frame for all, and nobody is asked before a write.

    history, history_bytes: what each room keeps for clients that come back; the older goes when either is full.
    max_queue_bytes: what may wait for one client, beyond what it asked for when it came. max_total_bytes: what may wait
    altogether. when_full: "disconnect", "drop_oldest" or "latest", as in labkit.broadcast.policies; the last two leave
    gaps that a client sees by its seq alone, and with a backplane not even there. stalled_after: seconds after which a
    client is cut off that takes nothing of what it is sent. send_buffer_bytes: of the system for each connection; left
    alone it may hide megabytes, and with them minutes of delay. backplane: what carries messages to the hubs of other
    servers and back; then it has to be entered, `async with hub:`.
    Raises ValueError for another policy, and for a bound that is none.
    The trap: everything happens on one loop. From another thread: `loop.call_soon_threadsafe(hub.publish, message)`.
    source: notebook 06, "Encode once"
    """

    def __init__(
        self,
        *,
        history: int = 200,
        history_bytes: int = 8 * 2**20,
        max_queue_bytes: int = 2**20,
        max_total_bytes: int = 256 * 2**20,
        when_full: str = "disconnect",
        stalled_after: float = 5.0,
        send_buffer_bytes: int | None = None,
        backplane: "PubSubBackplane | StreamBackplane | None" = None,
    ) -> None:
        if when_full not in WHEN_FULL:
            raise ValueError(f"when_full is one of {', '.join(WHEN_FULL)}, and not {when_full!r}.")
        if history < 0 or min(history_bytes, max_queue_bytes, max_total_bytes, stalled_after) <= 0:
            raise ValueError("A bound is above 0; only `history` may be 0, for nothing to come back to.")
        self.history = history
        self.history_bytes = history_bytes
        self.max_queue_bytes = max_queue_bytes
        self.max_total_bytes = max_total_bytes
        self.when_full = when_full
        self.stalled_after = stalled_after
        self.send_buffer_bytes = send_buffer_bytes
        self.backplane = backplane
        self.drops = 0
        self.deliveries = 0
        self.log_bytes = 0
        self.loop: asyncio.AbstractEventLoop | None = None
        # The one that was used least lately first.
        self._rooms: OrderedDict[str, Room] = OrderedDict()
        self._members: dict[WebSocket, Member | QueuedMember] = {}
        self._watch = Watch(stalled_after, lambda member: self.evict(member, "stalled"))
        self._lag = Lag()
        self._publishes = 0
        self._evictions: Counter[str] = Counter()
        self._last_epoch = 0
        self._relay: Relay | None = None
        self._is_draining = False
        self._has_said_queues = False
        self._tasks: set[asyncio.Task] = set()

    # ---- the three verbs of the ladder

    async def connect(
        self,
        websocket: WebSocket,
        room: str = MAIN_ROOM,
        since: tuple[int, int] | None = None,
        *,
        hello: Callable[[CatchUp], str] | None = None,
    ) -> CatchUp:
        """Accept a client, unless that is done, and count it in: it gets all that is published in the room from now on.

        since: the position of the last message that the client has. What it missed comes first, in order and once, and
        before that a text: {"position": [epoch, seq], "recovered": whether that is all of it}. (0, 0) asks for
        everything; left out, the client begins now, and gets no such text. hello: makes another first text.
        Raises WebSocketDisconnect when the client has gone meanwhile, and when this hub takes no more clients: then it
        has been sent away with 1013. ValueError for a client that is in a room already, of this hub or of another.
        """
        if websocket in self._members:
            raise ValueError(f"This client is in the room {self._members[websocket].room.name!r} already.")
        asked = None if since is None else Position(*since)
        await self._hear_what_others_have(asked)
        if websocket.application_state is WebSocketState.CONNECTING:
            try:
                await websocket.accept()
            except OSError:
                raise WebSocketDisconnect(1006) from None
        if self._is_draining:
            await websocket.close(_TRY_AGAIN_LATER, "this server takes no clients now; another may")
            raise WebSocketDisconnect(_TRY_AGAIN_LATER)
        # From here on nothing waits, so nothing is published in between: no message is lost, and none comes twice.
        self.loop = asyncio.get_running_loop()
        its_room = self.room(room)
        catch_up = its_room.log.since(asked)
        member = self._member(websocket, its_room, catch_up.cursor)
        if hello is not None:
            member.greeting = text_frame(hello(catch_up))
        elif asked is not None:
            member.greeting = text_frame(hello_text(catch_up.after, catch_up.recovered))
        self._members[websocket] = member
        member.start(send_buffer_bytes=self.send_buffer_bytes, stalled_after=self.stalled_after)
        if member.has_left:
            # What waited for it already was too much for the memory: it was cut off.
            raise WebSocketDisconnect(1006)
        its_room.join(member)
        self._lag.start()
        return catch_up

    def _member(self, websocket: WebSocket, room: Room, cursor: int) -> Member | QueuedMember:
        connection = connection_of(websocket)
        if connection is None:
            if not self._has_said_queues:
                self._has_said_queues = True
                log.warning("hub: this server does not speak HubProtocol, so each client gets a task; %s", _HOW)
            return QueuedMember(websocket, room, cursor)
        if not connection.is_writable:
            raise WebSocketDisconnect(1006)
        if connection.writer is not None and not connection.writer.has_left:
            raise ValueError("This client is in a room of another hub. Two of them would tear each other's frames.")
        return Member(websocket, connection, room, cursor)

    def disconnect(self, websocket: WebSocket) -> None:
        """Let a client go; one that is not here is no error."""
        member = self._members.pop(websocket, None)
        if member is not None:
            member.room.leave(member)
            member.stop()
            if not self._members:
                self._lag.stop()

    async def broadcast(self, text: str, room: str = MAIN_ROOM) -> None:
        """Publish a text as it is, without a position around it; waits for the loop where much is on its way already.

        It never waits for a client. With a backplane it waits until Redis has the text, and raises NotPublished where
        that takes too long.
        """
        if self.backplane is None:
            await self._put(room, text, is_raw=True)[0].until_swept()
        else:
            await self._publish(room, text, is_raw=True)

    # ---- publishing

    def publish(
        self, message: object, room: str = MAIN_ROOM, *, publish_id: str | None = None
    ) -> asyncio.Future[Position]:
        """Publish a message, anything that JSON can carry, and return its receipt; never waits.

        Clients get {"epoch": …, "seq": …, "data": message}. The receipt is a Future of the Position: there at once, or
        with a backplane when Redis has the message. publish_id: as the backplane takes it.
        Raises TypeError or ValueError for what JSON cannot carry, HubFull when too much was published without a pause,
        BackplaneFull as the backplane does.
        """
        return self._publish(room, as_json(message), is_raw=False, publish_id=publish_id)

    def _publish(
        self, name: str, text: str, *, is_raw: bool, publish_id: str | None = None
    ) -> asyncio.Future[Position]:
        if self._relay is not None:
            return self._relay.publish(name, text, is_raw, publish_id)
        if self.backplane is not None:
            raise RuntimeError("The backplane of this hub is not entered. Is it used outside of its `async with hub`?")
        receipt = asyncio.get_running_loop().create_future()
        receipt.set_result(self._put(name, text, is_raw=is_raw)[1])
        return receipt

    def _put(self, name: str, text: str, *, is_raw: bool) -> tuple[Room, Position]:
        """Put a text into a room of this server alone, and return both room and position."""
        self.loop = asyncio.get_running_loop()
        room = self.room(name)
        epoch, seq = room.log.newest
        position = Position(epoch, seq + 1)
        frame = text_frame(text if is_raw else message_text(position, text))
        if self._is_full_with(len(frame)):
            self._make_room(len(frame))
            if self._is_full_with(len(frame)):
                raise HubFull(
                    f"{self.log_bytes} bytes are on their way to clients, and max_total_bytes is "
                    f"{self.max_total_bytes}. Is there an await between the messages?"
                )
        self._publishes += 1
        room.keep(position, frame)
        return room, position

    def deliver(self, room: Room, position: Position, frame: bytes, after: Position | None = None) -> None:
        """Put the frame of a message into a room that has come over the backplane; the relay calls this."""
        self._publishes += 1
        room.keep(position, frame, after)
        self._make_room()

    # ---- rooms

    def room(self, name: str) -> Room:
        """Return a room; one that is not there is opened."""
        room = self._rooms.get(name)
        if room is None:
            self._forget_a_room()
            room = self._rooms[name] = Room(self, name, self._new_log())
        self._rooms.move_to_end(name)
        if self._relay is not None:
            room.log.advance(self._relay.heard, self._relay.complete_after)
        return room

    def rooms(self) -> list[Room]:
        """Return all rooms, up to date with what has been heard."""
        return [self.room(name) for name in list(self._rooms)]

    def _new_log(self) -> Log:
        if self._relay is not None:
            return Log(self.history, self.history_bytes, self._relay.heard, self._relay.complete_after)
        # A room that was forgotten and is opened again must not give a number twice.
        self._last_epoch = max(time.time_ns() // 1_000_000, self._last_epoch + 1)
        begin = Position(self._last_epoch, 0)
        return Log(self.history, self.history_bytes, begin, begin)

    def _forget_a_room(self) -> None:
        """Where there are too many: forget the one that nobody is in and that was used least lately."""
        if len(self._rooms) < _MOST_ROOMS:
            return
        empty = next((room for room in self._rooms.values() if room.is_idle), None)
        if empty is not None:
            del self._rooms[empty.name]
            empty.close()
            if self._relay is not None:
                # A room that is opened later does not know what was forgotten with this one.
                self._relay.complete_after = self._relay.heard

    # ---- bounds

    def watch(self, member: Member | QueuedMember) -> None:
        """Look after a member that cannot take more now."""
        self._watch.add(member)
        self._make_room()

    def unwatch(self, member: Member | QueuedMember) -> None:
        """A member takes what it is sent, or is gone."""
        self._watch.remove(member)

    def evict(self, member: Member | QueuedMember, reason: str) -> None:
        """Cut a member off, and free its socket."""
        self._evictions[reason] += 1
        log.info("hub: a client of the room %r was cut off: %s", member.room.name, reason)
        self._watch.remove(member)
        self.disconnect(member.websocket)
        member.cut_off()

    def _is_full_with(self, more: int) -> bool:
        return self.log_bytes + self._watch.buffered_bytes + more > self.max_total_bytes

    def _make_room(self, more: int = 0) -> None:
        """Where all together hold too much: forget history, then cut off whoever has taken nothing for longest."""
        if not self._is_full_with(more):
            return
        for room in self._rooms.values():
            room.trim(hard=True)
            if not self._is_full_with(more):
                return
        while self._is_full_with(more) and (member := self._watch.longest()) is not None:
            self.evict(member, "memory")
            member.room.trim(hard=True)

    # ---- what one may know

    def stats(self) -> Stats:
        """Return what the hub holds now, and has counted since it was made."""
        return Stats(
            clients=len(self._members),
            behind=len(self._watch),
            rooms=len(self._rooms),
            queue_bytes=self.log_bytes + self._watch.buffered_bytes,
            drops=self.drops,
            evictions=dict(self._evictions),
            publishes=self._publishes,
            deliveries=self.deliveries,
            loop_lag_ms=self._lag.last * 1000,
            most_loop_lag_ms=self._lag.most * 1000,
        )

    async def follow(
        self, room: str = MAIN_ROOM, since: tuple[int, int] | None = None, *, silence: float | None = None
    ) -> AsyncIterator[CatchUp | Entry | Gap | None]:
        """Yield where a listener begins that is no WebSocket, and then all entries as they come, until the hub closes.

        Nothing waits for it: where it is slower than the room forgets it gets a Gap. silence: after so many seconds
        without an entry it yields None.
        """
        asked = None if since is None else Position(*since)
        await self._hear_what_others_have(asked)
        if self._is_draining:
            return
        its_log = self.room(room).log
        catch_up = its_log.since(asked)
        yield catch_up
        async for entry in its_log.follow(catch_up.cursor, catch_up.after, silence=silence):
            yield entry

    async def _hear_what_others_have(self, asked: Position | None) -> None:
        """Wait for what a client may have heard from another server a moment before it comes here."""
        if asked is not None and self._relay is not None:
            await self._relay.reached(asked, _BEHIND_SECONDS)

    # ---- the end

    async def drain(self, over: float = 5.0) -> None:
        """Take no more clients, and send those who are here away with 1012 within `over` seconds, a few at a time.

        So they do not all come back to the next server at the same moment. Each gets all that was published before;
        whoever does not read even its goodbye is cut off a second later.
        """
        self._is_draining = True
        members = list(self._members.values())
        random.shuffle(members)
        batches = max(1, round(over / _BATCH_SECONDS))
        size = max(1, math.ceil(len(members) / batches))
        goodbyes = []
        begun_at = asyncio.get_running_loop().time()
        for batch, start in enumerate(range(0, len(members), size)):
            # By chance more or less, so that two servers that drain together do not fall into step.
            due_at = begun_at + (batch + random.random()) * over / batches
            await asyncio.sleep(due_at - asyncio.get_running_loop().time())
            goodbyes += [self.in_background(self._say_goodbye(member)) for member in members[start : start + size]]
        await asyncio.gather(*goodbyes)

    async def _say_goodbye(self, member: Member | QueuedMember) -> None:
        if member.has_left:
            return
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await member.finish()
                await member.websocket.close(_SERVICE_RESTART, "this server ends; come back with your position")
        except TimeoutError:
            self.evict(member, "drained")
        except GONE:
            self.disconnect(member.websocket)
        else:
            self.disconnect(member.websocket)
            # A client that does not answer the close frame keeps its socket for as long as it likes.
            self.in_background(self._see_out(member))

    async def _see_out(self, member: Member | QueuedMember) -> None:
        await asyncio.sleep(_GOODBYE_SECONDS)
        member.cut_off()

    def send_all_away(self) -> None:
        """Cut everybody off, and take nobody in: no more news comes here, and another server has it."""
        self.stop_listening()
        for member in list(self._members.values()):
            self.evict(member, "no news")

    @property
    def is_draining(self) -> bool:
        """Whether no more clients are taken."""
        return self._is_draining

    @property
    def is_hearing(self) -> bool:
        """Whether what is published reaches the clients of this hub; False when its relay has ended."""
        return self.backplane is None or (self._relay is not None and not self._relay.has_ended)

    @property
    def heard(self) -> Position | None:
        """The newest position that has come over the backplane."""
        return self._relay and self._relay.heard

    @property
    def gaps(self) -> dict[bool, int]:
        """{whether it could be settled: how many gaps there were in what came over the backplane}."""
        return self._relay.gaps if self._relay is not None else {True: 0, False: 0}

    def in_background(self, work: Coroutine) -> asyncio.Task:
        """Start what nobody waits for, and see to it that it does not outlive the hub."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def __aenter__(self) -> "Hub":
        """Enter the backplane, and hear all that it still has; without one there is nothing to do."""
        self.loop = asyncio.get_running_loop()
        if self.backplane is not None:
            self._relay = Relay(self, self.backplane)
            try:
                await self._relay.__aenter__()
            except BaseException:
                self._relay = None
                raise
        return self

    async def __aexit__(self, *error: object) -> None:
        """Let go of all clients, leave the backplane, and leave nothing running."""
        self.stop_listening()
        for websocket in list(self._members):
            self.disconnect(websocket)
        self._watch.close()
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._relay is not None:
            await self._relay.__aexit__(*error)
            self._relay = None
        while self._rooms:
            self._rooms.popitem()[1].close()
        self._is_draining = False

    def stop_listening(self) -> None:
        """Take no more clients, and end every follow(): a server waits for its responses to end before it stops."""
        self._is_draining = True
        if self._relay is not None:
            self._relay.close()
        for room in self._rooms.values():
            room.log.close()
