"""uvicorn's WebSocket protocol class, extended: a connection that can be given up, and one that a hub can write to.

In a notebook `serve(app, protocol=HubProtocol)`, in a shell `uvicorn x:app --ws labkit.broadcast.protocol:HubProtocol`.
"""

import fcntl
import socket
import struct
import sys
import termios
from asyncio.selector_events import _SelectorSocketTransport
from http import HTTPStatus
from typing import Protocol

from starlette.websockets import WebSocket
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.protocol import Protocol as WebSocketsProtocol
from websockets.protocol import Side, State

from labkit.broadcast.parts.hub.waiting import Gate, Inbox


class AbortProtocol(WebSocketsSansIOProtocol):
    """Unlike uvicorn's own: hands each endpoint, in the scope of its connection, the means to abort it.

    source: notebook 06, "Who frees the socket?"
    """

    async def run_asgi(self):
        """Run the endpoint of this connection to its end."""
        # ASGI's extensions are the place for what one server offers and another does not.
        self.scope["extensions"]["labkit.abort"] = self.transport.abort
        await super().run_asgi()


class Writer(Protocol):
    """Who writes to a connection past its endpoint, and is told when it may not; none of these may wait."""

    def on_pause(self) -> None:
        """More waits in the connection's buffer than it should."""

    def on_resume(self) -> None:
        """The buffer is empty enough again."""

    def on_goodbye(self) -> None:
        """A close frame will be sent when the buffer is empty: write what is to come before it, and nothing after."""

    def on_leave(self) -> None:
        """This is the last moment to write: a close frame is about to be sent, or one has come, or it is lost."""

    def on_lost(self) -> None:
        """The connection is gone, and its socket with it."""


class HubProtocol(WebSocketsSansIOProtocol):
    """Unlike AbortProtocol: lets one Writer write straight to the connection, and tells it when it may not.

    Nobody has to ask before each write whether the connection is closing or full: whoever is told leaves it out.
    The scope's extensions hand it out as "labkit.connection", beside AbortProtocol's "labkit.abort". The log names
    addresses without their query, in which tokens are handed over. A connection on which nothing comes in holds no
    parser: that, and a smaller queue, is a third of its memory.
    source: notebook 06, "Encode once"
    """

    writer: Writer | None = None
    # Whether a Writer may still write: from the handshake to the first sign of an end.
    is_writable = False

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        # At level DEBUG it would log the handshake with all that is secret in it.
        self.conn.debug = False
        self.queue = Inbox()
        self.writable = Gate(is_open=True)

    def handle_connect(self, event):
        """Begin the handshake, and the endpoint with it, at the loop's next turn."""
        super().handle_connect(event)
        if self.response.status_code == HTTPStatus.SWITCHING_PROTOCOLS:
            self.scope["extensions"] |= {"labkit.abort": self.transport.abort, "labkit.connection": self}

    def on_task_complete(self, task):
        """The endpoint has ended, and uvicorn has closed the transport."""
        self._leave()
        super().on_task_complete(task)

    async def send(self, message):
        """Do what the endpoint says; its close frame comes behind everything that was written before."""
        if not self.handshake_complete:
            await self._shake_hands(message)
            return
        if message["type"] == "websocket.close":
            if self.writer is not None:
                self.writer.on_goodbye()
            # uvicorn waits here too; a writer that goes on where it was may shut the gate again.
            while not self.writable.is_set():
                await self.writable.wait()
            self._leave()
        await super().send(message)

    async def _shake_hands(self, message):
        # uvicorn writes the address with its query into its log.
        scope, self.scope = self.scope, {**self.scope, "query_string": b""}
        try:
            await super().send(message)
        finally:
            self.scope = scope
        if message["type"] == "websocket.http.response.body" and not message.get("more_body"):
            # uvicorn 0.54 takes a refusal in words for an endpoint that never answered, and logs an error
            # (Kludex/uvicorn, pull request 3138).
            self.handshake_complete = True
        if message["type"] == "websocket.accept" and not self.transport.is_closing():
            self.is_writable = True
            self.request = self.response = None
            self._forget_parser()

    # ---- the parser, which is there while it is needed

    @property
    def conn(self):
        """The parser, and what it knows of this connection; made anew where an idle connection has none."""
        if self._conn is None:
            self._conn = WebSocketsProtocol(Side.SERVER, max_size=self.config.ws_max_size, logger=self.logger)
            self._conn.debug = False
        return self._conn

    @conn.setter
    def conn(self, conn):
        self._conn = conn

    def handle_pong(self, event):
        """A sign of life: whoever sent nothing but that is idle."""
        super().handle_pong(event)
        self._forget_parser()

    def _forget_parser(self):
        """Drop the parser where it stands between two messages, and has nothing to remember for the next."""
        conn = self._conn
        # Of two pongs that come together, the first has dropped it.
        if conn is None:
            return
        if conn.state is not State.OPEN or conn.extensions or conn.current_size is not None or conn.writes:
            return
        inmost = conn.parser
        while inmost.gi_yieldfrom is not None:
            inmost = inmost.gi_yieldfrom
        # So it is called where the library waits for the first byte of a frame.
        if inmost.__name__ == "at_eof":
            self._conn = None

    # ---- the ends of a connection, each before uvicorn acts on it

    def handle_ping(self):
        """Answer a ping; where a close frame came right behind it, that is answered in the same write."""
        if self.conn.close_sent is not None:
            self._leave()
        super().handle_ping()

    def handle_close(self, event):
        """The client says goodbye."""
        self._leave()
        super().handle_close(event)

    def handle_parser_exception(self):
        """The client has broken the rules: 1002, 1007 or 1009."""
        self._leave()
        super().handle_parser_exception()

    def keepalive_timeout(self):
        """The client has not answered a ping: 1011."""
        self._leave()
        super().keepalive_timeout()

    def shutdown(self):
        """The server ends: 1012."""
        self._leave()
        super().shutdown()

    def connection_lost(self, exc):
        """Nothing more can be sent or heard."""
        self._leave()
        super().connection_lost(exc)
        if self.writer is not None:
            self.writer.on_lost()
            self.writer = None

    def _leave(self):
        if self.is_writable:
            self.is_writable = False
            if self.writer is not None:
                self.writer.on_leave()

    def pause_writing(self):
        """The transport holds more than it should."""
        super().pause_writing()
        if self.writer is not None:
            self.writer.on_pause()

    def resume_writing(self):
        """The transport has room again."""
        if self.writer is not None:
            self.writer.on_resume()
        super().resume_writing()

    # ---- for the Writer

    @property
    def plain_socket(self) -> socket.socket | None:
        """The socket itself, where asyncio's own transport sends on it unchanged; None under TLS and on other loops.

        Whoever sends on it must do so only while the transport's buffer is empty.
        """
        if isinstance(self.transport, _SelectorSocketTransport):
            return self.transport._sock
        return None

    def unsent_bytes(self) -> int:
        """Return how many bytes the client has not taken: in the transport and, where Linux tells, in the system."""
        unsent = self.transport.get_write_buffer_size()
        plain = self.transport.get_extra_info("socket")
        if sys.platform == "linux" and plain is not None and plain.fileno() >= 0:
            unsent += struct.unpack("i", fcntl.ioctl(plain.fileno(), termios.TIOCOUTQ, bytes(4)))[0]
        return unsent


def connection_of(websocket: WebSocket) -> HubProtocol | None:
    """Return the connection behind a WebSocket; None where its server does not speak HubProtocol."""
    return (websocket.scope.get("extensions") or {}).get("labkit.connection")


def abort(websocket: WebSocket) -> None:
    """Give a connection up: its socket is closed at the loop's next turn, and what waits in its buffers is dropped.

    The trap: no close frame, so the client is not told why; `await websocket.close()` is for one that still reads. A
    client that has stopped reading would never get to the close frame, and close() waits behind a full buffer with the
    messages. The endpoint is told as of any lost connection: WebSocketDisconnect with code 1005.
    A connection that is gone already is no error.
    Raises RuntimeError when the connection was not accepted by HubProtocol.
    source: notebook 06, "Who frees the socket?"
    """
    extensions = websocket.scope.get("extensions") or {}
    if "labkit.abort" not in extensions:
        raise RuntimeError(
            "This connection cannot be aborted: its server does not speak HubProtocol. "
            "Start it by serve(app, protocol=HubProtocol), or uvicorn with --ws labkit.broadcast.protocol:HubProtocol."
        )
    extensions["labkit.abort"]()
