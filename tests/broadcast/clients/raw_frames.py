"""Frames by hand over a plain socket: what no library sends, and what the server answers to it, frame by frame."""

import asyncio
import os
import socket
import struct
import zlib
from dataclasses import dataclass

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
NAMES = {CONT: "continuation", TEXT: "text", BINARY: "binary", CLOSE: "close", PING: "ping", PONG: "pong"}
# Guards against hanging.
PATIENCE = 30


def frame(opcode, data=b"", *, fin=True, rsv=0, masked=True, length=None):
    """Return the bytes of one frame as a client sends it.

    rsv: the three reserved bits, 4 for a compressed message. length: what the frame says of itself, where it lies.
    """
    data = data.encode() if isinstance(data, str) else data
    size = len(data) if length is None else length
    head = bytes([fin << 7 | rsv << 4 | opcode])
    mask_bit = masked << 7
    if size < 126:
        head += bytes([mask_bit | size])
    elif size < 65_536:
        head += struct.pack("!BH", mask_bit | 126, size)
    else:
        head += struct.pack("!BQ", mask_bit | 127, size)
    if not masked:
        return head + data
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))


def closing(code=None, reason=""):
    """Return a client's close frame, without a body where there is no code."""
    return frame(CLOSE, b"" if code is None else struct.pack("!H", code) + reason.encode())


def byte_by_byte(data):
    """Return the bytes as segments of one byte each."""
    return [bytes([byte]) for byte in data]


class Compressor:
    """A client's half of permessage-deflate, which remembers what it has sent before."""

    def __init__(self):
        self.stream = zlib.compressobj(wbits=-12)

    def frames(self, text, pieces=1):
        """Return a text as a compressed message in this many frames."""
        data = self.stream.compress(text.encode()) + self.stream.flush(zlib.Z_SYNC_FLUSH)
        data = data.removesuffix(b"\x00\x00\xff\xff")
        size = -(-len(data) // pieces)
        cuts = [data[index : index + size] for index in range(0, len(data), size)]
        return [
            frame(TEXT if index == 0 else CONT, cut, fin=index == len(cuts) - 1, rsv=4 if index == 0 else 0)
            for index, cut in enumerate(cuts)
        ]


@dataclass(frozen=True)
class Heard:
    """Between two segments: wait until so many frames, all in all, have come from the server; pings are not counted."""

    frames: int


@dataclass(frozen=True)
class Say:
    """Between two segments: somebody else has this broadcast to the room of this connection.

    waits: whether the next segment is sent only when the broadcast has returned.
    """

    text: str
    waits: bool = True


@dataclass(frozen=True)
class Answer:
    """Answer the server's next ping, which may be yet to come, and send this with the pong in one segment."""

    before: bytes = b""
    behind: bytes = b""


# Read no more, and read again.
PAUSE = "pause"
RESUME = "resume"
HALF_CLOSE = "half-close"
RESET = "reset"


@dataclass
class Case:
    """What a client sends, and what it has to hear, and the endpoint to see.

    sent: segments, each of them sent when the server has taken the last one, and what happens in between.
    answer: [opcode's name, data] for each frame of the server; text is decoded, a close is ["close", code, reason];
    ["end"] at last. seen: the endpoint's messages, and [code, reason]. early: what is sent before the server has
    answered the handshake. apart: whether broadcasts, echoes and pongs may come in another order among each other than
    here; broadcasts begin with "goal" then. late: whether it ends only when the server stops.
    """

    sent: list
    answer: list
    seen: list
    scenario: str = "echo"
    server: str = "quiet"
    deflate: bool = False
    early: bytes = b""
    apart: bool = False
    late: bool = False


async def turns():
    """Let the server on this loop take what was sent, and its endpoint run."""
    # Loopback hands it over at once; the loop finds it at its next look, and the endpoint runs after that.
    for _ in range(4):
        await asyncio.sleep(0)


class Wire:
    """A connection on which the test itself is the client."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self.inflating = zlib.decompressobj(wbits=-15)
        self.frames = []
        self.pings = asyncio.Queue()
        self.more = asyncio.Condition()

    @classmethod
    async def open(cls, host, port, path, *, deflate=False, early=b""):
        """Connect, and shake hands."""
        reader, writer = await asyncio.open_connection(host, port)
        lines = [
            f"GET {path} HTTP/1.1",
            "Host: test",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        ]
        if deflate:
            lines.append("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
        writer.write("\r\n".join([*lines, "", ""]).encode())
        if early:
            # In a segment of its own, when the server has seen the handshake.
            await turns()
            writer.write(early)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101"), answer
        assert (b"permessage-deflate" in answer) == deflate, answer
        return cls(reader, writer)

    async def read_frame(self):
        """Return the next frame of the server as it stands in a Case."""
        first, second = await self.reader.readexactly(2)
        assert not second & 0x80, "the server has masked a frame"
        size = second & 0x7F
        if size > 125:
            size = int.from_bytes(await self.reader.readexactly(2 if size == 126 else 8))
        data = await self.reader.readexactly(size)
        assert first & 0x80, "the server has sent a message in pieces"
        opcode, compressed = first & 0x0F, first & 0x40
        if compressed:
            data = self.inflating.decompress(data + b"\x00\x00\xff\xff")
        if opcode == TEXT:
            return ["text", data.decode()]
        if opcode == CLOSE and data:
            return ["close", int.from_bytes(data[:2]), data[2:].decode()]
        return [NAMES[opcode], data]

    async def listen(self):
        """Note all frames to the end, how it ended too, and keep the server's pings apart."""
        ending = None
        while ending is None:
            try:
                heard = await self.read_frame()
                if heard[0] == "ping":
                    self.pings.put_nowait(heard[1])
                    continue
            except asyncio.IncompleteReadError as error:
                heard = ending = ["end"] if not error.partial else ["end", error.partial]
            except ConnectionError:
                # The server had closed before it read all that was sent.
                heard = ending = ["end"]
            async with self.more:
                self.frames.append(heard)
                self.more.notify_all()

    async def heard(self, count):
        """Wait until so many frames have come."""
        async with self.more:
            await self.more.wait_for(lambda: len(self.frames) >= count)

    async def send(self, data):
        """Send a segment, and let the server on this loop take it before the next one."""
        self.writer.write(data)
        await turns()


async def go_through(case, host, port, path, say):
    """Be the client of a case, and return what the server sent; say: a coroutine function that broadcasts a text."""
    wire = await Wire.open(host, port, path, deflate=case.deflate, early=case.early)
    listening = asyncio.create_task(wire.listen())
    saying = []
    try:
        async with asyncio.timeout(PATIENCE):
            for step in case.sent:
                if isinstance(step, bytes):
                    await wire.send(step)
                elif isinstance(step, Heard):
                    await wire.heard(step.frames)
                elif isinstance(step, Say):
                    saying.append(asyncio.create_task(say(step.text)))
                    if step.waits:
                        await saying[-1]
                elif isinstance(step, Answer):
                    await wire.send(step.before + frame(PONG, await wire.pings.get()) + step.behind)
                elif step == PAUSE:
                    wire.writer.transport.pause_reading()
                elif step == RESUME:
                    wire.writer.transport.resume_reading()
                elif step == HALF_CLOSE:
                    wire.writer.write_eof()
                else:
                    linger = struct.pack("ii", 1, 0)
                    wire.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    wire.writer.transport.abort()
            await asyncio.gather(listening, *saying)
    except TimeoutError:
        wire.frames.append(["nothing more"])
    finally:
        for task in (listening, *saying):
            task.cancel()
        wire.writer.close()
    return wire.frames
