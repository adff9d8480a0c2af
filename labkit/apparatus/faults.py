"""A TCP proxy between clients and a server: it counts bytes, cuts what is idle, freezes, delays and resets."""

import asyncio
import errno
import socket

from labkit.apparatus import guard, running
from labkit.apparatus.descriptors import TooManyDescriptors, allow_descriptors
from labkit.apparatus.relay.link import PIECE_BYTES, Link
from labkit.apparatus.relay.target import HasAddress, Target, addresses_of, target_of
from labkit.apparatus.server import ServerFailed

# How long a socket that has sent its FIN stays there for the other end's: closed at once, it would answer with an RST.
_LINGER_SECONDS = 1.0


class Proxy:
    """A proxy that listens on a port of its own. Made by start_proxy().

    .name, .host, .port. .delay seconds added to every piece, each way; it may be set at any time, and what is on its
    way already keeps its own. .idle_timeout seconds, None for never.
    """

    kind = "server"
    size = 1

    def __init__(
        self,
        name: str,
        target: Target,
        addresses: list[tuple[int, tuple]],
        listener: socket.socket,
        *,
        idle_timeout: float | None,
        delay: float,
        keep_bytes: bool,
        buffer_bytes: int | None,
    ) -> None:
        self.name = name
        self.host, self.port = listener.getsockname()[:2]
        self.addresses = addresses
        self.idle_timeout = idle_timeout
        self.delay = delay
        self.keep_bytes = keep_bytes
        self._target = target
        self._buffer_bytes = buffer_bytes
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._links: list[Link] = []
        # Sockets that have sent their FIN, each with the timer that closes it at the latest.
        self._leaving: dict[socket.socket, asyncio.TimerHandle] = {}

    @property
    def _place(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def url(self) -> str:
        """The address of the proxy: as the target's, with another host and port."""
        return f"{self._target.scheme}://{self._target.userinfo}{self._place}{self._target.rest}"

    def ws_url(self, path: str = "/ws") -> str:
        """Return the WebSocket address of a path that begins with a slash."""
        return f"ws://{self._place}{path}"

    @property
    def links(self) -> tuple[Link, ...]:
        """All links so far, in order of connecting, those that have ended included."""
        return tuple(self._links)

    @property
    def connections(self) -> int:
        """How many links are open."""
        return sum(link.is_open for link in self._links)

    @property
    def bytes_up(self) -> int:
        """Bytes passed on from clients to the server since clear(), without the headers of TCP."""
        return sum(link.bytes_up for link in self._links)

    @property
    def bytes_down(self) -> int:
        """Bytes passed on from the server to clients since clear(), without the headers of TCP."""
        return sum(link.bytes_down for link in self._links)

    @property
    def is_open(self) -> bool:
        """Whether the proxy listens or has a link open."""
        return self._listener.fileno() != -1 or self.connections > 0

    def __repr__(self) -> str:
        state = f"{self.connections} links open" if self.is_open else "stopped"
        return f"<proxy {self.name!r} at {self._place} for {self._target.host}:{self._target.port}, {state}>"

    def clear(self) -> None:
        """Let all counts begin at 0 again, and forget the bytes kept; links keep their numbers."""
        for link in self._links:
            link.clear()

    # Faults

    def freeze(self, *numbers: int) -> None:
        """Pass nothing on from now on, either way; connections stay open, and neither end is told.

        What is sent meanwhile is not lost: it waits, as it does in a network where TCP sends it again and again.
        numbers: of links, from 1 in order of connecting; without any, all links, and nobody new gets through.
        """
        for link in self._chosen(numbers):
            link.freeze()
        if not numbers:
            self._loop.remove_reader(self._listener.fileno())

    def thaw(self, *numbers: int) -> None:
        """Pass on what was held, and go on: on the links of these numbers, or on all."""
        for link in self._chosen(numbers):
            link.thaw()
        if not numbers:
            self.listen()

    def cut(self, *numbers: int) -> None:
        """Close links in an orderly way, with a FIN to both ends and no close frame; what is on its way is lost.

        numbers: of links, from 1 in order of connecting; without any, all.
        """
        for link in self._chosen(numbers):
            link.end("cut")

    def reset(self, *numbers: int) -> None:
        """Reset links, with an RST to both ends; what is on its way is lost.

        numbers: of links, from 1 in order of connecting; without any, all.
        """
        for link in self._chosen(numbers):
            link.end("reset", reset=True)

    def _chosen(self, numbers: tuple[int, ...]) -> list[Link]:
        """Return the links of these numbers that are open, or all; raise ValueError for a number that no link has."""
        if not self.is_open:
            raise RuntimeError(f"Proxy {self.name!r} is closed.")
        for number in numbers:
            if number not in range(1, len(self._links) + 1):
                raise ValueError(f"no link has the number {number}; {len(self._links)} have connected so far.")
        return [link for link in self._links if link.is_open and (not numbers or link.number in numbers)]

    # Connections

    def listen(self) -> None:
        """Take in whoever connects."""
        self._loop.add_reader(self._listener.fileno(), self._on_client)

    def _on_client(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            # Gone again before it was taken in.
            return
        try:
            allow_descriptors(1, "connections to a server")
            self.prepare(client)
        except TooManyDescriptors as error:
            client.close()
            guard.record(f"proxy {self.name!r}", error)
            return
        except OSError:
            # What macOS says of the options of a connection that has been reset.
            client.close()
            return
        link = Link(self, len(self._links) + 1, client)
        self._links.append(link)
        link.connect()

    def prepare(self, connection: socket.socket) -> socket.socket:
        """Set the options of one of the proxy's own sockets, and return it."""
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _limit_buffers(connection, self._buffer_bytes)
        return connection

    def say_goodbye(self, connection: socket.socket) -> None:
        """Send a FIN, and close the socket when the other end has sent its own, or after a second."""
        try:
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            connection.close()
            return
        self._leaving[connection] = self._loop.call_later(_LINGER_SECONDS, self._let_go, connection)
        self._loop.add_reader(connection.fileno(), self._discard, connection)

    def _discard(self, connection: socket.socket) -> None:
        try:
            if connection.recv(PIECE_BYTES):
                return
        except BlockingIOError:
            return
        except OSError:
            # A reset ends it as well as a FIN.
            pass
        self._let_go(connection)

    def _let_go(self, connection: socket.socket) -> None:
        self._leaving.pop(connection).cancel()
        self._loop.remove_reader(connection.fileno())
        connection.close()

    async def close(self) -> None:
        """Listen no more and cut all links; a second call does nothing."""
        if self._listener.fileno() != -1:
            self._loop.remove_reader(self._listener.fileno())
            self._listener.close()
        for link in self._links:
            link.end("cut")
        for connection in list(self._leaving):
            self._let_go(connection)
        running.forget(self)

    stop = close


def _limit_buffers(connection: socket.socket, buffer_bytes: int | None) -> None:
    """Limit what the kernel takes on a socket, each way."""
    if buffer_bytes is not None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)


def _listen(host: str, port: int, name: str) -> socket.socket:
    """Return a listening socket; raise ServerFailed when the port is taken or not allowed."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        cause = "another program listens there. Leave `port` out to get a free one" if taken else str(error).rstrip(".")
        raise ServerFailed(f"Proxy {name!r} did not start: port {port} on {host} cannot be had: {cause}.") from None
    listener.setblocking(False)
    return listener


async def start_proxy(
    target: HasAddress | str | tuple[str, int],
    name: str | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    idle_timeout: float | None = None,
    delay: float = 0.0,
    keep_bytes: bool = False,
    buffer_bytes: int | None = None,
) -> Proxy:
    """Put a proxy in front of a server and return it once it accepts connections.

    The trap: it runs on this loop, beside the server, so use it to count, to break and to delay, never to measure cost.
    Starting a proxy under the name of an open one closes that one first, so a cell can run twice.
    target: a LabServer, a RedisServer, an address, or (host, port); a Fleet takes the proxy where it takes a server.
    name: by default "proxy " and the target's name. port: 0 for any free one.
    idle_timeout: seconds without a byte either way after which a link is cut, as load balancers do; None for never.
    delay: seconds that every piece is late, each way; many are on their way at once, so it takes no throughput.
    keep_bytes: whether links keep what passes, for link.up and link.down.
    buffer_bytes: the kernel's buffers at the proxy; left out, they take megabytes before a stalled client is felt.
    Raises TypeError or ValueError for a target that is none, ValueError for times that make no sense, and ServerFailed
    when the port is taken.
    """
    if delay < 0 or (idle_timeout is not None and idle_timeout <= 0):
        raise ValueError(f"delay={delay}, idle_timeout={idle_timeout}: give seconds, more than 0 for the timeout.")
    place = target_of(target)
    name = name or f"proxy {getattr(target, 'name', f'{place.host}:{place.port}')}"
    addresses = await addresses_of(place)
    previous = running.find(Proxy.kind, name)
    if previous is target:
        raise ValueError(f"{name!r} is what the proxy stands in front of; it needs a name of its own.")
    if previous is not None:
        await previous.close()
    guard.install()
    listener = _listen(host, port, name)
    _limit_buffers(listener, buffer_bytes)
    proxy = Proxy(
        name,
        place,
        addresses,
        listener,
        idle_timeout=idle_timeout,
        delay=delay,
        keep_bytes=keep_bytes,
        buffer_bytes=buffer_bytes,
    )
    running.register(proxy)
    proxy.listen()
    return proxy
