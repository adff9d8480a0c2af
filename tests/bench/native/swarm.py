"""The crowd where there is no C compiler, or no epoll: asyncio, and one buffer for all clients.

usage: python swarm.py PORT CLIENTS [NAME=VALUE ...]
The same options, lines and answers as those of swarm.c, which explains them; a delivery costs it four times as much.
"""

import asyncio
import statistics
import sys
import time

from labkit.apparatus.descriptors import allow_descriptors

AT_ONCE = 64
STAMP_DIGITS = 20
BUFFER = bytearray(256 * 1024)
_VIEW = memoryview(BUFFER)
_PATIENCE_SECONDS = 60
_CONTINUATION, _TEXT, _CLOSE, _PING, _PONG = 0, 1, 8, 9, 10
_NUMBERS = ("stamp_offset", "answer_at", "answer_bytes")
_TEXTS = ("path", "header", "greeting", "welcome", "prefix", "answer_before", "answer_after")


class Options:
    """What swarm.c lists; every text as bytes."""

    def __init__(self, words: list[str]) -> None:
        given = dict(word.split("=", 1) for word in words)
        self.path = b"/ws"
        for name in _TEXTS[1:]:
            setattr(self, name, b"")
        for name, value in given.items():
            if name not in _TEXTS + _NUMBERS:
                raise SystemExit(f"swarm: there is no option {name}")
            setattr(self, name, int(value) if name in _NUMBERS else value.encode())
        self.stamp_offset, self.answer_at, self.answer_bytes = (int(given.get(name, 0)) for name in _NUMBERS)

    def request(self, port: int) -> bytes:
        """Return the handshake."""
        lines = [
            b"GET %s HTTP/1.1" % self.path, b"Host: 127.0.0.1:%d" % port, b"Upgrade: websocket", b"Connection: Upgrade",
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", b"Sec-WebSocket-Version: 13",
        ]  # fmt: skip
        lines += [self.header] if self.header else []
        return b"\r\n".join(lines) + b"\r\n\r\n"


class Crowd:
    """All clients, and what is expected of them."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.clients: list[Client] = []
        self.connected = self.closed = self.count = self.astray = self.expected = 0
        self.turns = self.joined = self.body_bytes = self.cpu_before = 0
        self.last_arrivals: list[int] = []
        self._over: asyncio.TimerHandle | None = None

    def expect(self, turns: int, joined: int, body_bytes: int, timeout_ms: int) -> None:
        """Begin to count a block."""
        self.turns, self.joined, self.body_bytes = turns, joined, body_bytes
        self.last_arrivals = [0] * (turns * joined)
        self.count = 0
        self.expected = len(self.clients) * turns * joined
        for client in self.clients:
            client.received = client.last_stamp = 0
        self._over = asyncio.get_running_loop().call_later(timeout_ms / 1000, self._report, "missing")
        self.cpu_before = time.process_time_ns()
        print("expecting", flush=True)

    def arrived(self, client: "Client", stamp: int, size: int, is_compressed: bool) -> None:
        """Take in a broadcast."""
        place = client.received
        if not self.expected or place == len(self.last_arrivals):
            self.astray += 1
            return
        if stamp < client.last_stamp or (size < self.body_bytes and not is_compressed):
            self.astray += 1
        client.last_stamp = stamp
        client.received = place + 1
        if stamp > 0:
            self.last_arrivals[place] = max(self.last_arrivals[place], client.read_at - stamp)
        self.count += 1
        if self.count == self.expected:
            self._report("arrived")

    def left(self) -> None:
        """Count a client that is gone; with the last of them there is nothing more to wait for."""
        self.closed += 1
        if self.expected and self.closed == len(self.clients):
            self._report("missing")

    def _report(self, how: str) -> None:
        self._over.cancel()
        cpu = time.process_time_ns() - self.cpu_before
        joined = self.joined
        latest = [max(self.last_arrivals[turn * joined : (turn + 1) * joined]) for turn in range(self.turns)]
        middle = statistics.median_high(latest)
        print(how, self.count, self.astray, self.closed, middle, max(latest), cpu, flush=True)
        self.astray = self.expected = 0


class Client(asyncio.BufferedProtocol):
    """One client: steps from frame to frame, and keeps only what is not complete yet."""

    def __init__(self, crowd: Crowd, request: bytes) -> None:
        self.crowd = crowd
        self.request = request
        self.welcome: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_open = False
        self.received = self.last_stamp = self.read_at = 0
        self.rest = b""
        self.parts: list[bytes] = []
        self.is_compressed = False

    def connection_made(self, transport: asyncio.Transport) -> None:
        """Ask for WebSocket."""
        self.transport = transport
        transport.write(self.request)

    def get_buffer(self, hint: int) -> memoryview:
        """Give the buffer that all share."""
        return _VIEW

    def buffer_updated(self, size: int) -> None:
        """Take what came."""
        self.read_at = time.monotonic_ns()
        data = self.rest + BUFFER[:size]
        at = 0
        if not self.is_open:
            at = data.find(b"\r\n\r\n") + 4
            if at < 4:
                self.rest = data
                return
            self._upgraded(data[:at])
        while (end := self._frame_end(data, at)) is not None:
            self._frame(data, at, *end)
            at = end[1]
        self.rest = bytes(data[at:])

    def _upgraded(self, answer: bytes) -> None:
        if b" 101" not in answer[:16]:
            self.welcome.set_exception(ConnectionError(f"the server does not upgrade: {answer[:60]!r}"))
            return
        self.is_open = True
        options = self.crowd.options
        if options.greeting:
            self.send(_TEXT, options.greeting)
        if not options.welcome:
            self.welcome.set_result(None)

    @staticmethod
    def _frame_end(data: bytes, at: int) -> tuple[int, int] | None:
        """Return where the payload of the frame at a place begins and ends; None when it is not complete."""
        if len(data) < at + 2:
            return None
        length, begin = data[at + 1], at + 2
        if length > 125:
            begin += 2 if length == 126 else 8
            if len(data) < begin:
                return None
            length = int.from_bytes(data[at + 2 : begin], "big")
        return (begin, begin + length) if len(data) >= begin + length else None

    def _frame(self, data: bytes, at: int, begin: int, end: int) -> None:
        """Take one complete frame."""
        opcode = data[at] & 15
        if opcode == _PING:
            self.send(_PONG, data[begin:end])
        elif opcode == _CLOSE:
            self.transport.close()
        elif opcode < _CLOSE:
            if opcode != _CONTINUATION:
                self.is_compressed = bool(data[at] & 64)
            self.parts.append(data[begin:end])
            if data[at] & 128:
                message = b"".join(self.parts)
                self.parts.clear()
                self._message(message)

    def _message(self, text: bytes) -> None:
        """Take one complete message: a broadcast, or chatter of its protocol."""
        options = self.crowd.options
        if not self.welcome.done() or (not self.is_compressed and not text.startswith(options.prefix)):
            if not self.welcome.done() and text.startswith(options.welcome):
                self.welcome.set_result(None)
            # Engine.IO, which Socket.IO speaks, asks in a text of its own whether its client is there.
            if text == b"2":
                self.send(_TEXT, b"3")
            return
        if options.answer_bytes:
            begin = len(text) + options.answer_at
            piece = text[begin : begin + options.answer_bytes]
            self.send(_TEXT, options.answer_before + piece + options.answer_after)
        digits = text[options.stamp_offset : options.stamp_offset + STAMP_DIGITS]
        stamp = 0 if self.is_compressed else int(digits) if digits.isdigit() else -1
        self.crowd.arrived(self, stamp, len(text), self.is_compressed)

    def send(self, opcode: int, text: bytes) -> None:
        """Send a short frame, masked with zeros."""
        size = len(text)
        length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        self.transport.write(bytes([0x80 | opcode]) + length + bytes(4) + text)

    def connection_lost(self, error: Exception | None) -> None:
        """Count the loss, or say that there never was a connection."""
        if not self.welcome.done():
            self.welcome.set_exception(ConnectionError("a connection was closed during its handshake"))
        self.crowd.left()


async def main(port: int, total: int, words: list[str]) -> None:
    """Connect all, then do what the lines of standard input say, until it closes."""
    allow_descriptors(total, "clients")
    loop = asyncio.get_running_loop()
    crowd = Crowd(Options(words))
    request = crowd.options.request(port)
    room = asyncio.Semaphore(AT_ONCE)

    async def connect() -> None:
        async with room:
            _, client = await loop.create_connection(lambda: Client(crowd, request), "127.0.0.1", port)
            crowd.clients.append(client)
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await client.welcome

    started_at = time.monotonic_ns()
    await asyncio.gather(*(connect() for _ in range(total)))
    print("connected", total, time.monotonic_ns() - started_at, flush=True)
    lines = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        crowd.expect(*map(int, line.split()[1:]))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]))
