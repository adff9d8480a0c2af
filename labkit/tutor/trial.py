"""What a trial is made of: a real server, real clients, the faults that matter, and a log of every event.

A trial is one coroutine for each exercise, in labkit/tutor/exercises. It calls the learner's code, waits for events,
and raises NotYet with what it saw. It runs in a process of its own (judge.py), on one loop with the learner's code, so
that one log holds the events of both ends in their order.
"""

import asyncio
import inspect
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from typing import NamedTuple

from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from labkit.apparatus import guard
from labkit.apparatus.clients import Fleet
from labkit.apparatus.crowd.wire import ClientFailed
from labkit.apparatus.server import LabServer, serve
from labkit.tutor.lines import line_in, name_of, standing

# Seconds for what takes milliseconds: only an answer that waits for what never comes reaches this.
PATIENCE = 3.0
_POLL_SECONDS = 0.005


class NotYet(Exception):
    """An answer does not yet do what is asked; the message tells the learner what was observed."""


class Event(NamedTuple):
    """One thing that happened at the server's end of a connection.

    connection: its number, from 1, in the order of connecting. what: "connect", "accept", "receive", "send", "sent",
    "failed", "close", "disconnect", "returned" or "raised". detail: the text, the close code or the error that belongs
    to it; of "failed" the error's name.
    """

    connection: int
    what: str
    detail: object = None


class Trial:
    """One run of an answer. .events the log. .crashes the errors that handlers ended with, by connection number.

    .websockets the connections and .handlers the tasks of their handlers, by that number too.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.crashes: dict[int, BaseException] = {}
        self.websockets: dict[int, WebSocket] = {}
        self.handlers: dict[int, asyncio.Task] = {}
        # Held, since the loop alone does not keep a task from being collected.
        self._calls: list[asyncio.Task] = []
        self._connections = 0

    # ---- setting up

    async def serve(
        self, endpoint: Callable | None = None, *arguments: object, app: Callable | None = None, **options
    ) -> LabServer:
        """Serve the learner's endpoint at /ws, or a whole app, and log every event of every connection from here on.

        endpoint: a coroutine function, called with the WebSocket and then `arguments`. options: those of serve().
        """
        return await serve(self._logged(app or self._app_of(endpoint, arguments)), **options)

    def _app_of(self, endpoint: Callable, arguments: tuple) -> FastAPI:
        app = FastAPI()

        @app.websocket("/ws")
        async def ws(websocket: WebSocket) -> None:
            self.websockets[websocket.scope["connection"]] = websocket
            await awaitable(endpoint, websocket, *arguments)

        return app

    def _logged(self, app: Callable) -> Callable:
        """Return the app, with every message of every WebSocket noted on its way."""

        async def logged(scope: dict, receive: Callable, send: Callable) -> None:
            if scope["type"] != "websocket":
                await app(scope, receive, send)
                return
            self._connections += 1
            number = scope["connection"] = self._connections
            self.handlers[number] = asyncio.current_task()
            note = self._noting(number)

            async def noted_receive() -> dict:
                message = await receive()
                note(message["type"].split(".")[1], message.get("text", message.get("bytes", message.get("code"))))
                return message

            async def noted_send(message: dict) -> None:
                what = message["type"].split(".")[1]
                detail = message.get("text", message.get("bytes", message.get("code")))
                note(what, detail)
                try:
                    await send(message)
                except BaseException as error:
                    # By its name only, since an error holds everything that it has passed through.
                    note("failed", type(error).__name__)
                    raise
                if what == "send":
                    note("sent", detail)

            try:
                await app(scope, noted_receive, noted_send)
            except asyncio.CancelledError:
                note("cancelled")
                raise
            except BaseException as error:
                # SystemExit too: uvicorn swallows what a handler ends with, and the trial has to know.
                self.crashes[number] = error
                guard.dismiss(error)
                note("raised", error)
                raise
            note("returned")

        return logged

    def _noting(self, number: int) -> Callable[..., None]:
        def note(what: str, detail: object = None) -> None:
            self.events.append(Event(number, what, detail))

        return note

    async def fleet(self, server: LabServer, path: str = "/ws", **options) -> Fleet:
        """Connect clients to a server of this trial; options are those of Fleet. What arrives is judged, not when."""
        try:
            return await Fleet(server, path, in_kernel=True, **options).connect()
        except ClientFailed as error:
            self.no_crash()
            newest = max(self.handlers, default=0)
            where = f" Its handler is there: {self.where(newest)}." if newest and not self.has_ended(newest) else ""
            raise NotYet(f"A fan cannot come in: {error}{where}") from None

    def fan(self, server: LabServer, path: str = "/ws", **options) -> connect:
        """Return the connection of one client that can speak and listen, to be used with `async with`."""
        return connect(server.ws_url(path), proxy=None, open_timeout=PATIENCE, close_timeout=1.0, **options)

    async def comes_in(self, stack: AsyncExitStack, server: LabServer, who: str, **options) -> ClientConnection:
        """Connect a fan that stays until the stack closes; raise the handler's error, or NotYet, where it cannot."""
        try:
            return await stack.enter_async_context(self.fan(server, **options))
        except (InvalidStatus, TimeoutError) as error:
            self.no_crash()
            raise NotYet(f"{who} cannot come in: {error}. What does your handler do before anything else?") from None

    async def stays(self, connection: int, say: Callable[[str], Awaitable], who: str) -> None:
        """Let a fan say three things; raise NotYet unless its handler has taken in all of them and goes on."""
        before = len(self.of(connection, "receive"))
        for number in range(3):
            with suppress(ConnectionClosed, ClientFailed):
                await say(f"I stay, {number}")
        await self.until(
            lambda: len(self.of(connection, "receive")) >= before + 3 or self.has_ended(connection),
            f"{who} has said three things, and your handler has not taken them in.",
        )
        self.require(
            not self.has_ended(connection),
            f"{who} has said three things and is still there. Your handler ended after the first of them, and with it "
            "the connection: for how long shall it listen?",
        )

    async def hears(self, fan: ClientConnection, expected: str, story: str, *, who: str = "that fan") -> None:
        """Let a client receive; raise NotYet, with the story that led here, unless it hears what is expected."""
        try:
            async with asyncio.timeout(PATIENCE):
                heard = await fan.recv()
        except TimeoutError:
            self.no_crash()
            raise NotYet(f"{story}; {who} should hear {expected!r}, and hears nothing.") from None
        except ConnectionClosed:
            self.no_crash()
            raise NotYet(f"{story}; {who} should hear {expected!r}, and is closed with {fan.close_code}.") from None
        self.require(heard == expected, f"{story}; {who} should hear {expected!r}, and hears {heard!r:.80}.")

    # ---- running the learner's code

    def start(self, function: Callable, *arguments: object) -> asyncio.Task:
        """Call the learner's coroutine function in a task of its own and return the task."""
        self._calls.append(asyncio.create_task(awaitable(function, *arguments)))
        return self._calls[-1]

    def result_of(self, function: Callable, *arguments: object) -> object:
        """Call the learner's plain function and return what it returns; raise NotYet for a coroutine function."""
        result = called(function, *arguments)
        if inspect.iscoroutine(result):
            result.close()
            raise NotYet(f"{result.__name__}() has nothing to wait for, and is called without `await`. Is it `async`?")
        return result

    def note_attempts(self, port: int) -> list[float]:
        """Note from now on when this process tries to connect to a port, in vain or not; return the growing list."""
        attempts = []

        def note(event: str, arguments: tuple) -> None:
            if event == "socket.connect" and arguments[1][1:2] == (port,):
                attempts.append(time.monotonic())

        # A hook cannot be taken out again; it ends with the process that tries this one answer.
        sys.addaudithook(note)
        return attempts

    # ---- judging

    def of(self, connection: int, *what: str) -> list[Event]:
        """Return the events of one connection, or those of them that are named."""
        return [each for each in self.events if each.connection == connection and (not what or each.what in what)]

    def has_ended(self, connection: int) -> bool:
        """Whether the handler of a connection has returned, raised or been cancelled."""
        return bool(self.of(connection, "returned", "raised", "cancelled"))

    async def ended(self, connection: int, story: str) -> None:
        """Wait until the handler of a connection has ended; raise NotYet, with the story so far, if not."""
        until = time.monotonic() + PATIENCE
        while not self.has_ended(connection):
            self._no_exit()
            if time.monotonic() > until:
                raise NotYet(f"{story}, and its handler has not ended: {self.where(connection)}.")
            await asyncio.sleep(_POLL_SECONDS)
        self._no_exit()

    def where(self, connection: int) -> str:
        """Return in words where the handler of a connection waits at this moment."""
        return standing(self.handlers[connection])

    async def until(self, condition: Callable[[], object], otherwise: str, *, within: float = PATIENCE) -> None:
        """Wait until a condition holds; if it never does, raise the learner's own error, or NotYet(otherwise)."""
        until = time.monotonic() + within
        while not condition():
            self._no_exit()
            if time.monotonic() > until:
                self.no_crash()
                raise NotYet(otherwise)
            await asyncio.sleep(_POLL_SECONDS)
        self._no_exit()

    def _no_exit(self) -> None:
        """Raise the SystemExit of a handler: uvicorn would swallow it here, and the program would end elsewhere."""
        for error in self.crashes.values():
            if isinstance(error, SystemExit):
                raise error

    def no_crash(self) -> None:
        """Raise the first error that a handler ended with, if there is one."""
        for error in self.crashes.values():
            raise error

    def crash_of(self, connection: int) -> str:
        """Return the error that a handler ended with, and the learner's line, for a story; or an empty string."""
        error = self.crashes.get(connection)
        if error is None:
            return ""
        # The first line is enough for a story: pydantic writes four for each field.
        said = f"{name_of(error)}: {error}".splitlines()[0].removesuffix(": ")
        line = line_in(error)
        return f"{said}, in {line}" if line else said

    def require(self, condition: object, otherwise: str) -> None:
        """Raise NotYet(otherwise) unless a condition holds."""
        if not condition:
            raise NotYet(otherwise)

    @contextmanager
    def telling(self, *errors: type[BaseException], otherwise: str) -> Iterator[None]:
        """Turn an error of a client, or of the learner's code, into NotYet(otherwise); `{error}` in it is filled in."""
        try:
            yield
        except errors as error:
            raise NotYet(otherwise.replace("{error}", f"{name_of(error)}: {error}")) from None


async def awaitable(function: Callable, *arguments: object) -> object:
    """Call a coroutine function and await it; raise NotYet where it cannot be called so, or is not one."""
    name = getattr(function, "__name__", type(function).__name__)
    # Asked before the call: a loop in it that cannot wait would never return.
    if inspect.isfunction(function) and not inspect.iscoroutinefunction(function):
        raise NotYet(f"{name}() is called with `await`, and is a plain function. Is it `async def {name}`?")
    result = called(function, *arguments)
    if not isinstance(result, Awaitable):
        raise NotYet(f"{name}() returned {result!r:.60} at once, and cannot be awaited.")
    return await result


def called(function: Callable, *arguments: object) -> object:
    """Call a function and return what it returns at once; raise NotYet where it takes other arguments."""
    name = getattr(function, "__name__", type(function).__name__)
    try:
        inspect.signature(function).bind(*arguments)
    except TypeError as error:
        signature = inspect.signature(function)
        raise NotYet(
            f"The check calls {name}() with {len(arguments)} arguments, and yours is {name}{signature}: {error}."
        ) from None
    return function(*arguments)
