"""An in-process server: uvicorn as a task on the notebook's own loop, on a real port, safe to start again.

Later cells see the live state of the app and may call `await manager.broadcast(...)` themselves. That is why the server
is here and not in a process of its own.
"""

import asyncio
import errno
import inspect
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import Context

import uvicorn
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from labkit.apparatus import guard, running

_START_SECONDS = 10.0
# A stop lasts less than a second: connections and handlers get the first part of it to end by themselves.
_GRACE_SECONDS = 0.35
_LIMIT_SECONDS = 0.3


class ServerFailed(RuntimeError):
    """The server could not start; the message names the cause, and the kernel lives."""


class _Uvicorn(uvicorn.Server):
    """Uvicorn's server, which says when it is ready and leaves the signals to Jupyter."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Uvicorn would take SIGINT, and Jupyter's Stop in any cell would stop the server too.
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()


class LabServer:
    """A running server. Made by serve().

    .app the ASGI app, .name, .host, .port; .url "http://127.0.0.1:PORT".
    """

    kind = "server"
    size = 1

    def __init__(self, app: Callable, name: str, listener: socket.socket, config: dict) -> None:
        self.app = app
        self.name = name
        self.host, self.port = listener.getsockname()[:2]
        self.startup_error: BaseException | None = None
        self._listener = listener
        self._uvicorn = _Uvicorn(uvicorn.Config(self._watched_app, **config))
        self._task: asyncio.Task | None = None
        self._lifespan_task: asyncio.Task | None = None
        self._stop_task: asyncio.Task | None = None

    @property
    def url(self) -> str:
        """The address of the server, without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    def ws_url(self, path: str = "/ws") -> str:
        """Return the WebSocket address of a path that begins with a slash."""
        return f"ws://{self.host}:{self.port}{path}"

    @property
    def connections(self) -> int:
        """How many connections the server has open, whatever the app's own registry says."""
        return len(self._uvicorn.server_state.connections)

    @property
    def is_open(self) -> bool:
        """Whether the server runs, or a handler of it still does."""
        return bool(self._task and not self._task.done()) or any(
            not task.done() for task in self._uvicorn.server_state.tasks
        )

    def __repr__(self) -> str:
        state = f"{self.connections} connections" if self.is_open else "stopped"
        return f"<server {self.name!r} at {self.url}, {state}>"

    async def start(self) -> None:
        """Start to serve; return when connections are accepted. serve() calls this."""
        loop = asyncio.get_running_loop()
        # In an empty context, what handlers print goes to the running cell and not to the cell that started the server.
        self._task = loop.create_task(self._run(), name=f"server {self.name}", context=Context())
        ready = loop.create_task(self._uvicorn.ready.wait())
        try:
            await asyncio.wait({self._task, ready}, timeout=_START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not self._uvicorn.ready.is_set():
                raise ServerFailed(self._why_not())
        except BaseException:
            await asyncio.shield(self.stop())
            raise
        finally:
            ready.cancel()

    async def _run(self) -> None:
        try:
            await self._uvicorn.serve(sockets=[self._listener])
        except SystemExit:
            # Uvicorn leaves by sys.exit(), which in a task would end the kernel; start() tells why.
            return
        finally:
            self._listener.close()
        if self._stop_task is None:
            guard.record(f"server {self.name!r}", text="the server has stopped by itself")

    def _why_not(self) -> str:
        """Return the reason for a failed start, in a sentence."""
        if self.startup_error is not None:
            return (
                f"Server {self.name!r} did not start: the app's startup (lifespan) raised "
                f"{guard.describe(self.startup_error)}"
            )
        if self._task.done():
            return f"Server {self.name!r} did not start: uvicorn gave up without a reason."
        return (
            f"Server {self.name!r} was not ready within {_START_SECONDS:g} s. "
            "Does the app's startup (lifespan) wait for something that never comes?"
        )

    async def _watched_app(self, scope: dict, receive: Callable, send: Callable) -> None:
        """Pass a request to the app, and tell the guard of what it raises."""
        if scope["type"] == "lifespan":
            self._lifespan_task = asyncio.current_task()
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            if scope["type"] == "lifespan":
                self._note_lifespan(error)
            elif self._stop_task is not None:
                # Stopping cuts connections under their handlers; what they say to that is no failure.
                guard.dismiss(error)
            else:
                guard.record(f"handler of {scope['path']} on {self.name!r}", error)
            raise

    def _note_lifespan(self, error: Exception) -> None:
        """Keep a startup error for start() to tell; a shutdown error has nobody else to tell it."""
        if self._uvicorn.ready.is_set():
            guard.record(f"shutdown (lifespan) of {self.name!r}", error)
        else:
            self.startup_error = error
            guard.dismiss(error)

    async def stop(self) -> None:
        """Stop within a second, whatever clients and handlers do; a second call does nothing.

        Clients get a close frame with code 1012. A connection whose client does not read is aborted, and a handler
        that does not end is cancelled.
        """
        if self._stop_task is None:
            # A task of its own, so that Stop in the cell that stops the server does not leave it half stopped.
            self._stop_task = asyncio.get_running_loop().create_task(self._stop(), context=Context())
        await asyncio.shield(self._stop_task)

    close = stop

    async def _stop(self) -> None:
        self._uvicorn.should_exit = True
        await asyncio.wait({self._task}, timeout=_GRACE_SECONDS)
        for connection in list(self._uvicorn.server_state.connections):
            connection.transport.abort()
        for task in list(self._uvicorn.server_state.tasks):
            task.cancel()
        await asyncio.wait({self._task}, timeout=_LIMIT_SECONDS)
        # Uvicorn forgets its lifespan task when it is cut short in the middle of the app's startup.
        tasks = {task for task in (self._task, self._lifespan_task) if task is not None}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_LIMIT_SECONDS)
        self._listener.close()
        running.forget(self)


def _checked(app: object) -> Callable:
    """Return the app if it looks like one; raise TypeError with the likely cause if not."""
    if inspect.isclass(app):
        raise TypeError(
            f"serve() got the class {app.__name__}, not an app. Are the parentheses missing: {app.__name__}()?"
        )
    if isinstance(app, str):
        raise TypeError(f"serve() got the text {app!r}. Give it the app itself, not its name: serve(app).")
    # An ASGI app is a coroutine function, or an object with one as its __call__.
    if not inspect.iscoroutinefunction(app) and not inspect.iscoroutinefunction(type(app).__call__):
        raise TypeError(f"serve() needs an ASGI app, such as FastAPI(), and got {type(app).__name__}: {app!r:.80}")
    return app


def _listen(
    host: str, port: int, name: str, *, send_buffer_bytes: int | None, tcp_user_timeout: float | None
) -> socket.socket:
    """Return a bound socket; raise ServerFailed when the port is taken or not allowed."""
    if tcp_user_timeout is not None and not hasattr(socket, "TCP_USER_TIMEOUT"):
        raise ServerFailed(
            f"Server {name!r} did not start: this system ({sys.platform}) has no TCP_USER_TIMEOUT; Linux has. "
            "Leave `tcp_user_timeout` out, and abort the connections of clients that do not read."
        )
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named: asyncio sets TCP_NODELAY only then, and without it answers wait for acknowledgements.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if send_buffer_bytes is not None:
        # Linux hands the size on to every connection that this socket accepts.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
    if tcp_user_timeout is not None:
        # Handed on likewise; the kernel counts in milliseconds.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(tcp_user_timeout * 1000))
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        cause = "another program listens there. Leave `port` out to get a free one" if taken else str(error)
        raise ServerFailed(f"Server {name!r} did not start: port {port} on {host} cannot be had: {cause}.") from None
    return listener


async def serve(
    app: Callable,
    name: str = "main",
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    send_buffer_bytes: int | None = None,
    tcp_user_timeout: float | None = None,
    ping_interval: float | None = 20.0,
    ping_timeout: float | None = 20.0,
    max_message_bytes: int = 16 * 1024 * 1024,
    deflate: bool = False,
    protocol: type[asyncio.Protocol] = WebSocketsSansIOProtocol,
) -> LabServer:
    """Serve an ASGI app on this loop and return its LabServer once it accepts connections.

    The trap: anything that blocks the loop, `time.sleep` or `input()` in a cell, stops this server too.
    Starting a server under the name of a running one stops that one first, so a cell can run twice.
    name: what the server is called in messages. port: 0 for any free one.
    send_buffer_bytes: the kernel's send buffer for each connection; left out, loopback takes about 2.9 MB before
    anybody has to wait. tcp_user_timeout: seconds after which Linux gives up a connection whose client takes nothing
    of what was sent; None for never. ping_interval, ping_timeout: seconds, None for no pings.
    max_message_bytes: a longer message closes the connection with 1009. deflate: whether frames may be compressed.
    protocol: the class that speaks WebSocket for uvicorn.
    Raises TypeError for something that is no app, ServerFailed when the port is taken, the app's startup fails, or the
    system has no tcp_user_timeout.
    """
    _checked(app)
    previous = running.find("server", name)
    if previous is not None:
        await previous.close()
    guard.install()
    config = {
        # Said outright: uvicorn recognises a function by looking at it, and takes a bound method for something older.
        "interface": "asgi3",
        "ws": protocol,
        "ws_ping_interval": ping_interval,
        "ws_ping_timeout": ping_timeout,
        "ws_max_size": max_message_bytes,
        "ws_per_message_deflate": deflate,
        "timeout_graceful_shutdown": _GRACE_SECONDS + _LIMIT_SECONDS,
        # The guard prints one short line for a crashed handler, where uvicorn's own handlers print about 45.
        "log_config": None,
        "access_log": False,
    }
    listener = _listen(host, port, name, send_buffer_bytes=send_buffer_bytes, tcp_user_timeout=tcp_user_timeout)
    server = LabServer(app, name, listener, config)
    running.register(server)
    await server.start()
    return server
