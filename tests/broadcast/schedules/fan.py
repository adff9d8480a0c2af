"""A client made of one plain socket: it reads, stops reading, says goodbye or vanishes when it is told to."""

import asyncio
import json
import os
import socket
import struct

TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
_READ_BYTES = 65_536
_LINGER_NOT = struct.pack("ii", 1, 0)
_HANDSHAKE = (
    "GET /ws?fan={} HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Torn(AssertionError):
    """What came is no sequence of whole frames, or goes on behind a goodbye."""


def frame(opcode: int, data: bytes = b"") -> bytes:
    """Return a short frame as a client sends it."""
    mask = os.urandom(4)
    return bytes([0x80 | opcode, 0x80 | len(data)]) + mask + bytes(each ^ mask[n % 4] for n, each in enumerate(data))


class Fan:
    """One client of one room. asked: the position that it comes with, or None. polite: it answers a goodbye.

    .frames what has come and nobody has looked at, as (opcode, data). .code of the server's close frame.
    .is_closed its socket is. .frozen_at the loop's time at which it stopped reading, None while it reads.
    .entrance what the server's end noted when it came in; .evicted why the hub has cut it off.
    """

    def __init__(self, number: int, room: str, asked, *, polite: bool) -> None:
        self.number = number
        self.room = room
        self.asked = asked
        self.polite = polite
        self.frames: list[tuple[int, bytes]] = []
        self.fault: Exception | None = None
        self.code: int | None = None
        self.is_closed = False
        self.has_said_goodbye = False
        self.frozen_at: float | None = None
        # What the schedule notes about it.
        self.websocket = None
        self.entrance = None
        self.evicted: str | None = None
        self.was_shut = False
        # Up to which message it has to have everything before the hub may send it away.
        self.due: int | None = None
        self.was_unread = False
        self.settled_bytes = 0
        self.heard_hello = False
        self.expected: int | None = None
        self.missed = 0
        self.says = asyncio.Lock()
        self.notes_sent = 0
        self.notes_heard = 0
        self.pings_sent = 0
        self.pongs_heard = 0
        self._buffer = bytearray()
        self._is_in = False

    def __repr__(self) -> str:
        return f"fan {self.number}"

    def connect(self, address, family: int, receive_buffer_bytes: int) -> None:
        """Connect, ask to be let in, and read from now on."""
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        if family == socket.AF_INET:
            # Otherwise a word waits for the acknowledgement of the one before, by a clock that nobody here knows of.
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # The system accepts a connection by itself.
        self._socket.connect(address)
        self._socket.setblocking(False)
        self.address = self._socket.getsockname()
        self._send(_HANDSHAKE.format(self.number).encode())
        self.thaw()

    @property
    def is_awake(self) -> bool:
        """Whether it reads."""
        return self.frozen_at is None and not self.is_closed

    def freeze(self) -> None:
        """Read no more."""
        if self.is_awake:
            self._loop.remove_reader(self._socket)
            self.frozen_at, self.due = self._loop.time(), None

    def thaw(self) -> None:
        """Read again."""
        if not self.is_closed:
            self.frozen_at = None
            self._loop.add_reader(self._socket, self._read)

    def reset(self) -> None:
        """Vanish without a goodbye."""
        if not self.is_closed:
            if self._socket.family == socket.AF_INET:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NOT)
            self.was_unread = True
            self.close()

    def leave(self) -> None:
        """Say goodbye, and go on reading until the server has closed the connection."""
        if self._may_speak:
            self.has_said_goodbye, self.due = True, None
            self._send(frame(CLOSE, struct.pack("!H", 1000)))

    def ping(self) -> None:
        """Ask for a pong."""
        if self._may_speak:
            self.pings_sent += 1
            self._send(frame(PING, b"%d" % self.pings_sent))

    def close(self) -> None:
        """Close the socket."""
        if not self.is_closed:
            self._loop.remove_reader(self._socket)
            self.is_closed = True
            self._socket.close()

    @property
    def _may_speak(self) -> bool:
        # Before it has read that it is let in, a client says nothing.
        return self._is_in and not self.is_closed and not self.has_said_goodbye

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError:
            # The server's end is gone; reading tells what it was.
            return

    def _read(self) -> None:
        try:
            data = self._socket.recv(_READ_BYTES)
            if self._socket.family == socket.AF_INET and data:
                # Otherwise the other end learns of it after 40 ms that no clock here knows of.
                self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        except BlockingIOError:
            return
        except OSError:
            data = b""
            # A word to an end that is closed, and its own system drops what it has not read.
            self.was_unread = self.was_unread or self._socket.family == socket.AF_INET
        if not data:
            self.close()
            return
        self._buffer += data
        try:
            self._take()
        except Exception as error:
            self.fault = error
            self.close()

    def _take(self) -> None:
        if not self._is_in:
            head, end, rest = self._buffer.partition(b"\r\n\r\n")
            if not end:
                return
            if not head.startswith(b"HTTP/1.1 101 "):
                raise Torn(f"{self} was answered {bytes(head[:80])!r}")
            self._is_in, self._buffer = True, rest
        while (whole := self._next_frame()) is not None:
            # The library answers a ping that crosses its goodbye, and RFC 6455 forbids only data (5.5.1).
            if self.code is not None and whole[0] != PONG:
                raise Torn(f"{self} got a frame behind a goodbye: {whole!r:.80}")
            opcode, data = whole
            if opcode == CLOSE:
                self.code = int.from_bytes(data[:2])
                if self.polite and not self.has_said_goodbye:
                    self._send(frame(CLOSE, data[:2]))
            elif opcode == PING:
                self._send(frame(PONG, data))
            else:
                self.frames.append(whole)

    def _next_frame(self) -> tuple[int, bytes] | None:
        if len(self._buffer) < 2:
            return None
        first, length = self._buffer[:2]
        if first & 0x70 or not first & 0x80 or first & 15 not in (TEXT, CLOSE, PING, PONG) or length & 0x80:
            raise Torn(f"{self} got what is no whole frame: {bytes(self._buffer[:40])!r}")
        start = {126: 4, 127: 10}.get(length, 2)
        if start > 2:
            length = int.from_bytes(self._buffer[2:start])
        if len(self._buffer) < start + length:
            return None
        data = bytes(self._buffer[start : start + length])
        del self._buffer[: start + length]
        return first & 15, data

    def looked_at(self) -> list[dict]:
        """Return the texts that have come since the last time, and count the pongs."""
        frames, self.frames = self.frames, []
        for opcode, data in frames:
            if opcode == PONG:
                self.pongs_heard += 1
                assert data == b"%d" % self.pongs_heard, f"{self}: pong {data!r} is not number {self.pongs_heard}"
        return [json.loads(data) for opcode, data in frames if opcode == TEXT]
