"""The clients of a room, seen from the server: how each is written to, and where it stands in the room's log."""

import asyncio
import logging
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from labkit.broadcast.parts.hub.frames import text_of
from labkit.broadcast.protocol import HubProtocol, abort

if TYPE_CHECKING:
    from labkit.broadcast.parts.hub.room import Room

log = logging.getLogger(__name__)

_TRY_AGAIN_LATER = 1013
# What asyncio holds at most before it says that it is full, where one cannot write to the socket oneself.
_HIGH_WATER_BYTES = 65_536
_KERNEL_SECONDS_MORE = 5.0
# What sending to a client that is gone raises, and closing one that is closed.
GONE = (WebSocketDisconnect, RuntimeError, OSError)


class Member:
    """A client that is written to straight through its connection.

    .cursor is its place in the log while it is behind; while it is up to date the room knows better. .exempt_until is
    where the room stood when it came: what was there already is not held against it. .last is where it ends once it is
    to be closed. .greeting is a frame that it gets before anything else. .buffered_bytes is what the transport held at
    the last look, .unsent_bytes what the client had not taken.
    """

    __slots__ = (
        "buffered_bytes", "connection", "cursor", "exempt_until", "greeting", "has_left", "is_paused", "last",
        "plain_socket", "room", "transport", "unsent_bytes", "websocket", "write",
    )  # fmt: skip

    def __init__(self, websocket: WebSocket, connection: HubProtocol, room: "Room", cursor: int) -> None:
        self.websocket = websocket
        self.room = room
        self.cursor = cursor
        self.exempt_until = cursor
        self.greeting = b""
        self.last: int | None = None
        self.buffered_bytes = 0
        self.unsent_bytes = 0
        self.has_left = False
        self.connection = connection
        self.transport = connection.transport
        self.write = self.transport.write
        self.plain_socket = connection.plain_socket
        self.is_paused = not connection.writable.is_set()

    def start(self, *, send_buffer_bytes: int | None, stalled_after: float) -> None:
        """Begin to hear of the connection's pauses and of its end."""
        plain = self.transport.get_extra_info("socket")
        if plain is not None and plain.family in (socket.AF_INET, socket.AF_INET6):
            self._set_options(plain, send_buffer_bytes, stalled_after)
        if self.connection.writer is not None:
            # The same client in its last room.
            self.connection.writer.on_lost()
        self.connection.writer = self
        # With 0, a connection that is not paused has an empty buffer: then one may send on the socket itself.
        self.transport.set_write_buffer_limits(0 if self.plain_socket else _HIGH_WATER_BYTES)
        if self.is_paused:
            self.room.hub.watch(self)

    def _set_options(self, plain: socket.socket, send_buffer_bytes: int | None, stalled_after: float) -> None:
        # A connection that is lost already takes no options on some systems; it will say so itself.
        with suppress(OSError):
            if send_buffer_bytes is not None:
                plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                # Behind our own clock, for what the system still holds when nobody here looks any more.
                milliseconds = round((stalled_after + _KERNEL_SECONDS_MORE) * 1000)
                plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, milliseconds)

    def on_pause(self) -> None:
        """The client takes less than it is sent."""
        self.is_paused = True
        self.room.fall_behind(self)
        self.room.hub.watch(self)

    def on_resume(self) -> None:
        """The client has taken all that waited."""
        self.is_paused = False
        self.room.hub.unwatch(self)
        # Not in here: where the connection is lost by a write in here, asyncio ends it twice.
        self.connection.loop.call_soon(self.room.bring_up, self)

    def on_goodbye(self) -> None:
        """The connection is to be closed as soon as the client can take it."""
        self.room.end_with(self)

    def on_leave(self) -> None:
        """The connection is about to end."""
        self.room.last_words(self)
        self.room.hub.disconnect(self.websocket)

    def on_lost(self) -> None:
        """The connection has ended."""
        self.room.hub.unwatch(self)

    def look(self) -> bool:
        """Return whether the client has taken something since the last look: then it is slow, and not stalled."""
        before, self.unsent_bytes = self.unsent_bytes, self.connection.unsent_bytes()
        self.buffered_bytes = self.transport.get_write_buffer_size()
        return self.unsent_bytes < before

    def cut_off(self) -> None:
        """Free the client's socket, whatever it has not read; one that is freed already is no error."""
        self.transport.abort()

    async def finish(self) -> None:
        """Nothing has to be waited for here: a close frame goes behind what was published before."""

    def wake(self) -> None:
        """Messages have come; the room writes them itself."""

    def stop(self) -> None:
        """Nothing has to be given back; the connection goes on telling of itself until it is lost."""


class QueuedMember:
    """A client whose server does not speak HubProtocol: a task of its own sends it one text after another."""

    plain_socket = None
    greeting = b""
    buffered_bytes = 0

    def __init__(self, websocket: WebSocket, room: "Room", cursor: int) -> None:
        self.websocket = websocket
        self.room = room
        self.cursor = cursor
        self.exempt_until = cursor
        self.has_left = False
        self._news = asyncio.Event()
        self._is_finishing = False
        self._task: asyncio.Task | None = None

    async def finish(self) -> None:
        """Send what was published, and no more."""
        self._is_finishing = True
        self.wake()
        await asyncio.wait([self._task])

    def start(self, **_: object) -> None:
        """Begin to send."""
        self._task = asyncio.create_task(self._send_all(), name=f"hub: a client of {self.room.name}")

    async def _send_all(self) -> None:
        try:
            if self.greeting:
                await self._send(self.greeting)
            while True:
                frame = self.room.next_frame(self)
                if frame is None and self._is_finishing and self.cursor >= self.room.log.end:
                    return
                if frame is None:
                    self._news.clear()
                    await self._news.wait()
                else:
                    await self._send(frame)
        except WebSocketDisconnect:
            # Starlette notes that the app knows of the end, and the next receive() would be an error. But the endpoint
            # is to hear of it there, as of any other.
            self.websocket.application_state = WebSocketState.CONNECTED
            self.room.hub.disconnect(self.websocket)
        except GONE:
            self.room.hub.disconnect(self.websocket)

    async def _send(self, frame: bytes) -> None:
        self.room.hub.watch(self)
        try:
            await self.websocket.send_text(text_of(frame))
        finally:
            self.room.hub.unwatch(self)

    def look(self) -> bool:
        """Return False: what the client takes of a text cannot be seen from here."""
        return False

    def cut_off(self) -> None:
        """Free the client's socket where the server can; else it goes only if the client reads the close frame."""
        try:
            abort(self.websocket)
        except RuntimeError:
            self.room.hub.in_background(self._close())

    async def _close(self) -> None:
        try:
            await self.websocket.close(_TRY_AGAIN_LATER, "you read more slowly than messages come; come back")
        except GONE:
            log.debug("hub: a client of %s was gone before its goodbye", self.room.name)

    def stop(self) -> None:
        """Send no more."""
        if self._task is not asyncio.current_task():
            self._task.cancel()

    def wake(self) -> None:
        """Messages have come."""
        self._news.set()
