"""One client on a raw socket: handshake, frames, and the six ways to behave and to leave.

A library's client would cost the reading process more than the server pays to send (measured: 35 µs against 10), and
then the reader would draw the curves. So this one only stamps, counts and keeps the first bytes of each message.
"""

import asyncio
import os
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Literal, get_args

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake, InvalidStatus
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.uri import parse_uri

Behaviour = Literal["healthy", "slow", "stalled", "leaving", "vanishing"]
BEHAVIOURS: tuple[str, ...] = get_args(Behaviour)

HEAD_BYTES = 256
_HANDSHAKE_SECONDS = 5.0
_SLOW_READ_BYTES = 4096
# What a load balancer answers that reaches no server, or none in time.
_NO_SERVER_BEHIND = (502, 503, 504)
_ASK_BALANCER = "Does a server run behind the load balancer?"
_ASK_ENDPOINT = "Is this the path of the endpoint, and does the endpoint call accept()?"
# Linux's SO_TIMESTAMPNS: the kernel notes when a segment arrived, however late the process comes to read it.
_TIMESTAMP_OPTION = 35
_ANCILLARY_BYTES = 64
# One buffer for all clients of the process: they read one after another, and keep only a copy of the first bytes.
BUFFER = bytearray(256 * 1024)
VIEW = memoryview(BUFFER)
_WHOLE_BUFFER = (BUFFER,)
_SLOW_BUFFER = (VIEW[:_SLOW_READ_BYTES],)
# The first byte of a text message that is one frame: FIN and opcode 1.
WHOLE_TEXT = 0x81
_TIME_OF_DAY = struct.Struct("@qq")


class ClientFailed(ConnectionError):
    """A client could not connect; the message says which, what the server answered, and the likely cause."""


def ask_for_kernel_stamps(descriptor: socket.socket) -> None:
    """Ask the kernel to note the arrival time of each segment, where the system can (Linux)."""
    if sys.platform == "linux":
        descriptor.setsockopt(socket.SOL_SOCKET, _TIMESTAMP_OPTION, 1)


def stamp_of(ancillary: list[tuple[int, int, bytes]]) -> int | None:
    """Return the kernel's receive time in nanoseconds since the epoch, or None where it gave none."""
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == _TIMESTAMP_OPTION:
            seconds, nanoseconds = _TIME_OF_DAY.unpack(data)
            return seconds * 1_000_000_000 + nanoseconds
    return None


class Client:
    """One client: a non-blocking socket that reads as its behaviour says.

    .number its place, from 1. .behaviour. .count messages received. .ending the close code once it has ended, 1006 for
    an end without a close frame, None while it is open. .left whether it was the client that ended. .pongs received.
    arrived(client, head, size_bytes, read_at_ns, ancillary) is called for each whole message, and ended(client) when
    the connection has ended, whoever ended it. After that connect() may be called again.
    """

    __slots__ = (
        "_arrived", "_ended", "_head", "_keep", "_left_over", "_length", "_loop", "_missing", "_opcode", "_timer",
        "behaviour", "close_code", "count", "ending", "leave_after", "left", "number", "pongs", "slow_pause", "socket",
    )  # fmt: skip

    def __init__(
        self,
        number: int,
        behaviour: Behaviour,
        arrived: Callable,
        ended: Callable,
        *,
        leave_after: int,
        slow_pause: float,
    ) -> None:
        self.number = number
        self.behaviour = behaviour
        self.leave_after = leave_after
        self.slow_pause = slow_pause
        self.count = 0
        self.pongs = 0
        self.left = False
        self.socket: socket.socket | None = None
        self._arrived = arrived
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._begin()

    def _begin(self) -> None:
        """Set what a new connection begins with."""
        self.close_code: int | None = None
        self.ending: int | None = None
        self._left_over = b""
        # The frame being read: its opcode, length, how many bytes of it are still to come, and its first bytes.
        self._opcode = 0
        self._length = 0
        self._missing = 0
        self._head = b""
        self._keep = HEAD_BYTES

    async def connect(self, host: str, port: int, url: str, receive_buffer_bytes: int | None) -> None:
        """Open a connection and do the handshake; raise ClientFailed when either does not work.

        A client that has ended before keeps its ending until it is connected again.
        """
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ask_for_kernel_stamps(self.socket)
        if receive_buffer_bytes is not None and self.behaviour in ("slow", "stalled"):
            # Before connect(): the size is part of what the two ends agree on.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        try:
            async with asyncio.timeout(_HANDSHAKE_SECONDS):
                await self._loop.sock_connect(self.socket, (host, port))
                rest = await self._handshake(url)
        except TimeoutError:
            self._fail(f"no answer within {_HANDSHAKE_SECONDS:g} s. Is the server's loop blocked?")
        except InvalidStatus as error:
            of_balancer = error.response.status_code in _NO_SERVER_BEHIND
            self._fail(f"{error}. {_ASK_BALANCER if of_balancer else _ASK_ENDPOINT}")
        except InvalidHandshake as error:
            self._fail(f"{error}. {_ASK_ENDPOINT}")
        except OSError as error:
            # asyncio's own text names the address and not the reason.
            reason = os.strerror(error.errno) if error.errno else str(error)
            self._fail(f"{reason}. Is the server still running?")
        except BaseException:
            self._never_mind()
            raise
        self._begin()
        if rest:
            self._feed(memoryview(rest), time.time_ns(), [])
        if self.behaviour != "stalled":
            self.read_on()

    def _fail(self, reason: str) -> None:
        """Close the socket and raise ClientFailed."""
        self._never_mind()
        raise ClientFailed(f"client {self.number} ({self.behaviour}) could not connect: {reason}") from None

    def _never_mind(self) -> None:
        """Close the socket of a connection that did not come about."""
        self.socket.close()
        if self.ending is None:
            self.ending = CloseCode.ABNORMAL_CLOSURE

    async def _handshake(self, url: str) -> bytes:
        """Upgrade to WebSocket and return what came behind the response: the first frames, if any."""
        protocol = ClientProtocol(parse_uri(url))
        protocol.send_request(protocol.connect())
        await self._loop.sock_sendall(self.socket, b"".join(protocol.data_to_send()))
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = await self._loop.sock_recv(self.socket, 4096)
            if not data:
                raise ConnectionError("the server closed the connection during the handshake")
            answer += data
        head, rest = answer.split(b"\r\n\r\n", 1)
        if not head.startswith(b"HTTP/1.1 101"):
            # A refusal may announce a body, for which the library would wait; its first line says enough.
            protocol.receive_data(head.split(b"\r\n", 1)[0] + b"\r\n\r\n")
            protocol.receive_eof()
        else:
            protocol.receive_data(head + b"\r\n\r\n")
        if protocol.handshake_exc is not None:
            raise protocol.handshake_exc
        return rest

    # Reading

    def read_on(self) -> None:
        """Begin to read, or wake up a client that was stalled; one that has ended stays so."""
        if self.ending is not None:
            return
        if self.behaviour == "slow":
            self._timer = self._loop.call_later(self.slow_pause, self._read_slowly)
        else:
            self._loop.add_reader(self.socket.fileno(), self._on_readable)

    def _read_slowly(self) -> None:
        self._on_readable(_SLOW_BUFFER)
        if self.ending is None:
            self._timer = self._loop.call_later(self.slow_pause, self._read_slowly)

    def _on_readable(self, buffers: tuple = _WHOLE_BUFFER) -> None:
        try:
            size, ancillary, _, _ = self.socket.recvmsg_into(buffers, _ANCILLARY_BYTES)
        except BlockingIOError:
            return
        except OSError:
            size = 0
        if not size:
            self.end()
            return
        read_at = 0 if ancillary else time.time_ns()
        # Nearly every read is one short text frame, whole: that case has to be cheap.
        if not self._missing and not self._left_over and size > 4 and BUFFER[0] == WHOLE_TEXT:
            length = BUFFER[1]
            start = 2
            if length == 126:
                length = BUFFER[2] << 8 | BUFFER[3]
                start = 4
            # 127 announces a frame longer than any single segment.
            if length != 127 and length + start == size:
                self._on_message(bytes(VIEW[start : min(size, start + HEAD_BYTES)]), length, read_at, ancillary)
                return
        self._feed(VIEW[:size], read_at, ancillary)

    @property
    def is_within_a_frame(self) -> bool:
        """Whether what comes next belongs to a frame of which a part has come already."""
        return bool(self._missing or self._left_over)

    def _feed(self, data: memoryview, read_at: int, ancillary: list) -> None:
        """Cut what was read into frames (RFC 6455, section 5.2; a server does not mask)."""
        if self._left_over:
            data = memoryview(self._left_over + bytes(data))
            self._left_over = b""
        position, end = 0, len(data)
        while position < end:
            if not self._missing:
                start = self._header(data, position, end)
                if start is None:
                    self._left_over = bytes(data[position:])
                    return
                position = start
            taken = min(self._missing, end - position)
            if self._keep:
                kept = bytes(data[position : position + min(taken, self._keep)])
                self._head += kept
                self._keep -= len(kept)
            self._missing -= taken
            position += taken
            if not self._missing:
                self._on_frame(read_at, ancillary)
                if self.ending is not None:
                    return

    def _header(self, data: memoryview, position: int, end: int) -> int | None:
        """Read a frame's header and return where its payload begins, or None when the header is not whole yet."""
        if end - position < 2:
            return None
        length = data[position + 1] & 127
        start = position + 2
        if length > 125:
            size = 2 if length == 126 else 8
            if end - start < size:
                return None
            length = int.from_bytes(data[start : start + size])
            start += size
        self._opcode = data[position] & 15
        self._length = self._missing = length
        self._head = b""
        self._keep = HEAD_BYTES
        return start

    def _on_frame(self, read_at: int, ancillary: list) -> None:
        """Act on a whole frame: note a message, answer a ping, return a close frame."""
        if self._opcode in (Opcode.TEXT, Opcode.BINARY):
            self._on_message(self._head, self._length, read_at, ancillary)
        elif self._opcode == Opcode.PING:
            self._send_frame(Opcode.PONG, self._head)
        elif self._opcode == Opcode.PONG:
            self.pongs += 1
        elif self._opcode == Opcode.CLOSE:
            first = self.close_code is None
            self.close_code = int.from_bytes(self._head[:2]) if self._length else CloseCode.NO_STATUS_RCVD
            if first:
                self._send_frame(Opcode.CLOSE, self._head)

    def _on_message(self, head: bytes, length: int, read_at: int, ancillary: list) -> None:
        """Pass a message on, and go if this was the last one for a client that leaves."""
        self.count += 1
        self._arrived(self, head, length, read_at, ancillary)
        if self.count == self.leave_after:
            if self.behaviour == "leaving":
                self.leave()
            elif self.behaviour == "vanishing":
                self.vanish()

    # Writing and leaving

    async def send(self, text: str) -> None:
        """Send a text message to the server."""
        await self._loop.sock_sendall(self.socket, Frame(Opcode.TEXT, text.encode()).serialize(mask=True))

    def _send_frame(self, opcode: Opcode, payload: bytes) -> None:
        """Send a control frame; a socket that takes nothing more is left to its fate."""
        try:
            self.socket.send(Frame(opcode, payload).serialize(mask=True))
        except OSError:
            return

    def ping(self) -> None:
        """Ask the server for a sign of life; it answers with a pong."""
        self._send_frame(Opcode.PING, b"")

    def leave(self) -> None:
        """Say goodbye with a close frame, code 1000, and read on until the server closes."""
        self.left = True
        if self.ending is None:
            self._send_frame(Opcode.CLOSE, Close(CloseCode.NORMAL_CLOSURE, "").serialize())

    def hang_up(self) -> None:
        """End the connection with a FIN and no close frame, as a process does that ends."""
        self.left = True
        if self.ending is None:
            self.end()

    def vanish(self) -> None:
        """Reset the connection: no goodbye, an RST on the wire."""
        self.left = True
        if self.ending is None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.end()

    def end(self) -> None:
        """Close the socket and note how it ended; a second call does nothing."""
        if self.ending is None:
            self.ending = self.close_code or CloseCode.ABNORMAL_CLOSURE
            if self._timer is not None:
                self._timer.cancel()
            self._loop.remove_reader(self.socket.fileno())
            self.socket.close()
            self._ended(self)
