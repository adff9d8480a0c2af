"""Who may open a WebSocket, and how much a client may send: a middleware that WebSockets do not pass by.

    app.add_middleware(Guard, origins=("https://scores.example",), token=is_known, max_connections=5000)

It stands around any ASGI app, asks before the app hears of a connection, and knows nothing of what is broadcast there.

A token can be shown in four places, and `token_from` names those that count. Choose by who else reads it there.

    header        `Authorization: Bearer TOKEN`: no usual log has it. For programs and phone apps; a browser's script
                  cannot add a header to a WebSocket.
    subprotocol   `new WebSocket(url, ["bearer", TOKEN])`: what a browser's script can do. It is a header too; the token
                  may hold letters, digits and !#$%&'*+-.^_`|~ only, so no padded base64. "bearer" is what is answered.
    cookie        `token=TOKEN`: the browser keeps it and adds it by itself, on a stranger's page too; so `origins` must
                  be given with it.
    query         `?token=TOKEN`: the log of every proxy on the way has it, and so has the browser's history.

The guard takes the token out of the scope before anybody is asked. So the app never gets it, and neither does
uvicorn's log, which has the path and the query string of every WebSocket: uvicorn writes that line from the same scope.
The traps: a middleware outside the guard that copies the scope undoes this, so the guard goes outermost (the last
`add_middleware`); and at level DEBUG the library `websockets`, at level TRACE uvicorn, logs the whole handshake before
any app is asked.
source: notebook 02, "Who may come in?"
"""

import asyncio
import inspect
import ipaddress
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress

from starlette.types import ASGIApp, Receive, Scope, Send

from labkit.broadcast.parts.guard.arguments import (
    checked_count,
    checked_limits,
    checked_origins,
    checked_places,
    checked_token,
)
from labkit.broadcast.parts.guard.limits import ClosedByGuard, LimitedConnection
from labkit.broadcast.parts.guard.tokens import PLACES, take_from_query

__all__ = ["ClosedByGuard", "Guard", "TokenCheckFailed"]

_POLICY_VIOLATION = 1008
_RETRY_AFTER_SECONDS = 5


class TokenCheckFailed(RuntimeError):
    """The function that is asked for tokens raised; what it said is left out, since the token may be in it."""


class Guard:
    """An ASGI app around another one: refuses connections before `accept`, and closes those that send too much.

    Refused: 403 a page that is not on the list, 503 when the limit of connections is reached, 401 without a good token.
    The answer says which in one sentence; a script in a browser is shown none of it, only 1006. Closed: 1009 after a
    message that is too long, 1008 after too many. The app gets `websocket.disconnect` with the code, and what it sends
    afterwards raises as for any client that is gone.

    origins: addresses of pages as browsers send them, "https://scores.example", compared letter by letter; None for any
    page. Who sends no Origin is no browser and passes; a program can send any, so against programs there is the token.
    token: the one that is good, or a function that gets what was shown and returns whether it is, `async` or not. What
    else than True it returns is the app's `websocket.user`. None for no token. token_from: where it may be shown.
    max_connections: how many endpoints may run at once, those whose token is being checked included. A server process
    counts for itself, and a connection whose endpoint has ended is not counted while its goodbye is on the way.
    max_per_client: how many of them for one address, or one /64 of IPv6, which is what a household gets. The trap:
    behind a proxy all have the proxy's address, until uvicorn is told to believe it (--forwarded-allow-ips).
    max_message_bytes: of a whole message, text as UTF-8. The trap: until its last byte is here the server holds it, so
    give uvicorn its --ws-max-size too, which is 16 MiB when left out.
    messages_per_second: of one connection, on average; pings are the server's, and not counted. burst: how many may
    come at once; None for five seconds' worth. The trap: what a client sends while the network, the loop or the
    endpoint stands still comes at once afterwards, so a small burst closes connections that did nothing wrong.
    None switches a limit off.
    Raises TypeError or ValueError for an argument that cannot be meant.
    .connections how many are open; .by_address the same for each address, empty without max_per_client.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        origins: Iterable[str] | None = None,
        token: str | Callable[[str], object] | None = None,
        token_from: Iterable[str] = ("header", "subprotocol"),
        max_connections: int | None = 1000,
        max_per_client: int | None = None,
        max_message_bytes: int | None = 64 * 1024,
        messages_per_second: float | None = 20.0,
        burst: int | None = None,
    ) -> None:
        self.app = app
        self.connections = 0
        self.by_address: dict[str, int] = {}
        self._origins = None if origins is None else checked_origins(origins)
        self._is_good = checked_token(token)
        self._places = checked_places(token_from, self._origins)
        self._max_connections = checked_count("max_connections", max_connections)
        self._max_per_client = checked_count("max_per_client", max_per_client)
        self._limits = checked_limits(max_message_bytes, messages_per_second, burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a WebSocket in, or refuse it; what is no WebSocket passes untouched."""
        if scope["type"] != "websocket":
            await self.app(scope, receive, send)
            return
        # Before all else: the server logs every refusal, and writes the line from this very scope.
        shown, answer = self._take_token(scope) if self._is_good else (None, None)
        if not self._knows_page(scope):
            await _refuse(scope, send, 403, "Pages of this origin may not open a WebSocket here.")
            return
        address = _address_of(scope) if self._max_per_client else None
        full = self._why_full(address)
        if full:
            await _refuse(scope, send, 503, full, ("Retry-After", str(_RETRY_AFTER_SECONDS)))
            return
        # Nothing waits between the question and the count, so two cannot take the last place.
        self._count(address, 1)
        try:
            if self._is_good and not await self._lets_in(scope, shown):
                await self._refuse_token(scope, send, shown)
                return
            if answer or any(limit is not None for limit in self._limits[:2]):
                connection = LimitedConnection(self._limits, receive, send, scope.get("client"), answer)
                receive, send = connection.receive, connection.send
            # An app without Starlette may let the error through, as it may let the server's own.
            with suppress(ClosedByGuard):
                await self.app(scope, receive, send)
        finally:
            self._count(address, -1)

    # ---- who may come in

    def _take_token(self, scope: Scope) -> tuple[str | None, str | None]:
        """Take all tokens out of the scope; return the first, and the subprotocol to answer with if it came as one."""
        found = {place: PLACES[place].take(scope) for place in self._places}
        if "query" not in found:
            # It does not count there, and must not be logged all the same.
            take_from_query(scope)
        shown = next((tokens[0] for tokens in found.values() if tokens), None)
        # A browser that has offered subprotocols gives up where none of them is answered.
        return shown, "bearer" if found.get("subprotocol") else None

    def _knows_page(self, scope: Scope) -> bool:
        if self._origins is None:
            return True
        return all(value.decode("latin-1") in self._origins for name, value in scope["headers"] if name == b"origin")

    async def _lets_in(self, scope: Scope, shown: str | None) -> bool:
        """Return whether the token is good, and leave what else is known of its owner in the scope."""
        if shown is None:
            return False
        problem = ""
        try:
            user = self._is_good(shown)
            # A coroutine is true, whatever it would return.
            if inspect.isawaitable(user):
                user = await user
        except Exception as error:
            place = traceback.extract_tb(error.__traceback__)[-1]
            problem = f"{type(error).__name__} in {place.name}, line {place.lineno} of {place.filename}"
        if problem:
            # Out here, so that the error itself is not chained to it: KeyError quotes the token, and servers log that.
            raise TokenCheckFailed(f"checking a token raised {problem}; it must return True or False for any text")
        if user and user is not True:
            scope["user"] = user
        return bool(user)

    async def _refuse_token(self, scope: Scope, send: Send, shown: str | None) -> None:
        if shown is None:
            ways = ", or ".join(PLACES[place].way for place in self._places)
            await _refuse(scope, send, 401, f"This needs a token: {ways}.", ("WWW-Authenticate", "Bearer"))
        else:
            challenge = ("WWW-Authenticate", 'Bearer error="invalid_token"')
            await _refuse(scope, send, 401, "This token is not good here, or not any more.", challenge)

    # ---- how many

    def _why_full(self, address: str | None) -> str:
        """Return why nobody else can come in now, or empty text."""
        if self._max_connections is not None and self.connections >= self._max_connections:
            return f"All {self._max_connections} places of this server are taken. Try again later."
        if self._max_per_client is not None and self.by_address.get(address, 0) >= self._max_per_client:
            return f"Your address has {self._max_per_client} connections open, and may have no more. Close one first."
        return ""

    def _count(self, address: str | None, change: int) -> None:
        self.connections += change
        if address is not None:
            count = self.by_address.get(address, 0) + change
            if count:
                self.by_address[address] = count
            else:
                # Who has left leaves nothing behind: there are more addresses than memory.
                del self.by_address[address]


async def _refuse(scope: Scope, send: Send, status: int, sentence: str, *headers: tuple[str, str]) -> None:
    """Answer the handshake with a status and a sentence; where the server cannot, with the 403 of a close."""
    # Who has gone meanwhile needs no answer.
    with suppress(OSError):
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": sentence})
            return
        headers = (("Content-Type", "text/plain; charset=utf-8"), *headers)
        raw = [(name.lower().encode(), value.encode()) for name, value in headers]
        await send({"type": "websocket.http.response.start", "status": status, "headers": raw})
        await send({"type": "websocket.http.response.body", "body": sentence.encode()})
        # Until the connection is gone, uvicorn 0.54 takes the handshake for unfinished, and logs an error for every
        # stranger whose refusal returns before. A turn of the loop is enough, but not where uvicorn itself does TLS.
        await asyncio.sleep(0)


def _address_of(scope: Scope) -> str:
    """Return what counts as one client: its IPv4 address, or its /64 of IPv6."""
    host = (scope.get("client") or ("", 0))[0]
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        # A Unix socket has none, and a proxy may send any text.
        return host
    if address.version == 4:
        return str(address)
    # On a socket for both, IPv4 comes in the clothes of IPv6, and would be one network.
    return str(address.ipv4_mapped or ipaddress.ip_network((int(address), 64), strict=False))
