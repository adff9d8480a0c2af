"""One client's way through a proxy: two connections, and two directions that each read at one and write at the other.

It stands on raw sockets and callbacks: a learner who lists the tasks of this loop sees none of it, a frozen link writes
nothing at all, and what is a FIN or an RST on one side becomes the same on the other.
"""

import asyncio
import errno
import socket
import struct
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from labkit.apparatus.faults import Proxy

Ending = Literal["client", "server", "idle", "cut", "reset", "refused"]

PIECE_BYTES = 64 * 1024
_UNDER_WAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK)


class _Direction:
    """One direction of a link: reads at the source, holds what is on its way, writes at the sink.

    Pieces wait in a queue until they are due. The source is not read while the sink takes nothing, so that the two ends
    feel each other's pace as they do without a proxy.
    """

    def __init__(self, link: "Link", origin: Literal["client", "server"], keep_bytes: bool) -> None:
        self.origin = origin
        self.passed = 0
        self.kept = bytearray() if keep_bytes else None
        # Whether the source's FIN has been passed on.
        self.finished = False
        self._link = link
        self._loop = asyncio.get_running_loop()
        self._source: socket.socket | None = None
        self._sink: socket.socket | None = None
        # (when it is due, what): bytes, b"" for a FIN, None for an RST.
        self._queue: deque[tuple[float, bytes | None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._source_ended = False
        self._reading = False
        self._writing = False

    def start(self, source: socket.socket, sink: socket.socket) -> None:
        """Begin to pass on what comes from the source."""
        self._source = source
        self._sink = sink
        self.pass_on()

    def stop(self) -> None:
        """Read and write no more; what is on its way is lost."""
        self._source_ended = True
        self._queue.clear()
        self.pause()

    def pause(self) -> None:
        """Let go of the two sockets until pass_on() is called."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._watch(reading=False, writing=False)

    def carry_reset(self) -> None:
        """Pass on that the source has reset the connection, behind all that is still on its way."""
        if self._writing:
            # An RST does not wait for room: what the sink has not taken by now, it never gets.
            self._queue.clear()
        self._source_ended = True
        self._queue.append((self._loop.time() + self._link.delay, None))
        self.pass_on()

    def _watch(self, *, reading: bool, writing: bool) -> None:
        """Tell the loop which of the two sockets to watch, where that changes."""
        if reading and not self._reading:
            self._loop.add_reader(self._source.fileno(), self._on_readable)
        elif self._reading and not reading:
            self._loop.remove_reader(self._source.fileno())
        if writing and not self._writing:
            self._loop.add_writer(self._sink.fileno(), self.pass_on)
        elif self._writing and not writing:
            self._loop.remove_writer(self._sink.fileno())
        self._reading, self._writing = reading, writing

    def _on_readable(self) -> None:
        try:
            piece = self._source.recv(PIECE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            self._link.on_reset(self)
            return
        self._source_ended = not piece
        self._link.on_piece(self, piece)
        self._queue.append((self._loop.time() + self._link.delay, piece))
        self.pass_on()

    def pass_on(self) -> None:
        """Write what is due and see when to go on; nothing happens while the link is frozen or not yet connected."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._source is None or self._link.is_frozen or not self._link.is_open:
            return
        is_full = False
        while self._queue and not is_full:
            due_at, piece = self._queue[0]
            if due_at > self._loop.time():
                self._timer = self._loop.call_at(due_at, self.pass_on)
                break
            try:
                is_full = not self._write(piece)
            except OSError:
                self._link.on_lost_sink(self)
                return
        if not self._link.is_open:
            return
        self._watch(reading=not is_full and not self._source_ended, writing=is_full)

    def _write(self, piece: bytes | None) -> bool:
        """Write the first piece of the queue; return whether the sink took all of it."""
        due_at, _ = self._queue.popleft()
        if piece is None:
            self._link.end(self.origin, reset=True)
        elif not piece:
            self._sink.shutdown(socket.SHUT_WR)
            self.finished = True
            self._link.on_finished()
        else:
            try:
                size = self._sink.send(piece)
            except BlockingIOError:
                size = 0
            self.passed += size
            if self.kept is not None:
                self.kept += piece[:size]
            if size < len(piece):
                self._queue.appendleft((due_at, piece[size:]))
                return False
        return True


class Link:
    """One client's way to the server through a proxy: two connections, and what went over them.

    .number its place in order of connecting, from 1. .is_open. .is_frozen. .ended_by who ended it or began to: None,
    "client", "server", "idle", "cut", "reset", or "refused" by the server.
    """

    def __init__(self, proxy: "Proxy", number: int, client: socket.socket) -> None:
        self.number = number
        self.ended_by: Ending | None = None
        self.is_open = True
        self.is_frozen = False
        self._proxy = proxy
        self._loop = asyncio.get_running_loop()
        self._client = client
        self._server: socket.socket | None = None
        self._addresses = deque(proxy.addresses)
        self._up = _Direction(self, "client", proxy.keep_bytes)
        self._down = _Direction(self, "server", proxy.keep_bytes)
        self._idle_timer: asyncio.TimerHandle | None = None
        self._active_at = 0.0

    @property
    def delay(self) -> float:
        """Seconds that a piece read now is to wait."""
        return self._proxy.delay

    @property
    def bytes_up(self) -> int:
        """Bytes passed on from the client to the server, without the headers of TCP."""
        return self._up.passed

    @property
    def bytes_down(self) -> int:
        """Bytes passed on from the server to the client, without the headers of TCP."""
        return self._down.passed

    @property
    def up(self) -> bytes:
        """The bytes passed on from the client to the server; raises RuntimeError where none are kept."""
        return self._kept(self._up)

    @property
    def down(self) -> bytes:
        """The bytes passed on from the server to the client; raises RuntimeError where none are kept."""
        return self._kept(self._down)

    def _kept(self, direction: _Direction) -> bytes:
        if direction.kept is None:
            raise RuntimeError("This proxy keeps no bytes. Is `keep_bytes=True` missing in start_proxy()?")
        return bytes(direction.kept)

    def __repr__(self) -> str:
        state = ("frozen" if self.is_frozen else "open") if self.is_open else f"ended by {self.ended_by}"
        return f"<link {self.number}: {self.bytes_up} bytes up, {self.bytes_down} bytes down, {state}>"

    def clear(self) -> None:
        """Let the counts begin at 0 again, and forget the bytes kept."""
        for direction in (self._up, self._down):
            direction.passed = 0
            if direction.kept is not None:
                direction.kept.clear()

    # What the proxy does with it

    def connect(self) -> None:
        """Connect to the server's first address, and to the next one when that does not answer."""
        while self._addresses:
            family, address = self._addresses.popleft()
            self._server = self._proxy.prepare(socket.socket(family, socket.SOCK_STREAM))
            if self._server.connect_ex(address) in _UNDER_WAY:
                self._loop.add_writer(self._server.fileno(), self._on_connected)
                return
            self._server.close()
        self._server = None
        self.end("refused")

    def _on_connected(self) -> None:
        self._loop.remove_writer(self._server.fileno())
        if self._server.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._server.close()
            self.connect()
            return
        self._active_at = self._loop.time()
        if self._proxy.idle_timeout is not None:
            self._watch_idleness()
        self._up.start(self._client, self._server)
        self._down.start(self._server, self._client)

    def _watch_idleness(self) -> None:
        """Cut the link if it has been quiet for too long, or look again when it could have been."""
        now, limit = self._loop.time(), self._proxy.idle_timeout
        if self.is_frozen:
            # In a frozen network the time does not count, or the cut would be heard through the ice.
            self._active_at = now
        if now - self._active_at >= limit:
            self.end("idle")
        else:
            self._idle_timer = self._loop.call_at(self._active_at + limit, self._watch_idleness)

    def freeze(self) -> None:
        """Pass nothing on, either way, until thaw()."""
        self.is_frozen = True
        for direction in (self._up, self._down):
            direction.pause()

    def thaw(self) -> None:
        """Pass on what was held, and go on."""
        self.is_frozen = False
        self._active_at = self._loop.time()
        for direction in (self._up, self._down):
            direction.pass_on()

    def end(self, by: Ending, *, reset: bool = False) -> None:
        """End both connections, with a FIN or with an RST; a second call does nothing."""
        if not self.is_open:
            return
        self.is_open = False
        self.ended_by = self.ended_by or by
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        for direction in (self._up, self._down):
            direction.stop()
        for connection in (self._client, self._server):
            if connection is None:
                continue
            # Still there when the server has not answered yet.
            self._loop.remove_writer(connection.fileno())
            if reset:
                # Of the two, one may be gone already, and macOS then refuses the option.
                with suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connection.close()
            else:
                self._proxy.say_goodbye(connection)

    # What its two directions tell it

    def on_piece(self, direction: _Direction, piece: bytes) -> None:
        """Note that something has come, b"" for a FIN."""
        self._active_at = self._loop.time()
        if not piece:
            self.ended_by = self.ended_by or direction.origin

    def on_reset(self, direction: _Direction) -> None:
        """The source of a direction has reset the connection: nothing reaches it any more, and its sink hears of it."""
        self.ended_by = self.ended_by or direction.origin
        (self._down if direction is self._up else self._up).stop()
        direction.carry_reset()

    def on_lost_sink(self, direction: _Direction) -> None:
        """The sink of a direction takes nothing because it has reset the connection."""
        self.on_reset(self._down if direction is self._up else self._up)

    def on_finished(self) -> None:
        """End what both sides have ended."""
        if self._up.finished and self._down.finished:
            self.end(self.ended_by)
