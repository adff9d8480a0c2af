"""How much one client may send: the two ends of its connection, and what becomes of them when it was too much."""

import asyncio
import logging
from contextlib import suppress
from typing import NamedTuple

from starlette.types import Message, Receive, Send

log = logging.getLogger(__name__)

_POLICY_VIOLATION = 1008
_TOO_BIG = 1009
# What the close frame gets where the client does not read: it waits behind all that was sent before.
_CLOSE_SECONDS = 1.0


class ClosedByGuard(OSError):
    """A message for a client that the guard has let go; Starlette makes WebSocketDisconnect of it."""


class Limits(NamedTuple):
    """What one connection may send; None for no limit."""

    max_message_bytes: int | None
    messages_per_second: float | None
    burst: float


class LimitedConnection:
    """The two ends of one connection as the app gets them: no task, no queue, a few numbers."""

    __slots__ = ("_answer", "_client", "_end", "_left", "_limits", "_now", "_receive", "_seen_at", "_send")

    def __init__(self, limits: Limits, receive: Receive, send: Send, client: tuple | None, answer: str | None) -> None:
        self._limits = limits
        self._receive = receive
        self._send = send
        self._client = client
        self._answer = answer
        # What the app is told once the guard has let the client go; None until then.
        self._end: Message | None = None
        # A token bucket: how many messages may come at this moment, and when that was reckoned.
        self._left = limits.burst
        self._now = asyncio.get_running_loop().time
        self._seen_at = self._now()

    async def receive(self) -> Message:
        """Return the server's next message, or the end after one that was too much."""
        if self._end is not None:
            return self._end
        message = await self._receive()
        if message["type"] == "websocket.receive":
            broken = self._broken_by(message)
            if broken:
                return await self._let_go(*broken)
        return message

    async def send(self, message: Message) -> None:
        """Pass the app's message on; raise ClosedByGuard when the client was let go."""
        if self._end is not None:
            return self._too_late(message)
        if self._answer is not None and message["type"] == "websocket.accept":
            message = {**message, "subprotocol": message.get("subprotocol") or self._answer}
        try:
            await self._send(message)
        except RuntimeError:
            # Between here and the server this message was overtaken by the close.
            if self._end is None:
                raise
            self._too_late(message)

    def _too_late(self, message: Message) -> None:
        # Closing what is closed is no error, with uvicorn neither.
        if message["type"] != "websocket.close":
            raise ClosedByGuard(f"the guard has closed this connection: {self._end['reason']}")

    def _broken_by(self, message: Message) -> tuple[int, str] | None:
        """Return the code and the reason to close with; None for a message that is within the limits."""
        most, per_second, burst = self._limits
        if most is not None:
            size = _size_bytes(message)
            if size > most:
                return _TOO_BIG, f"a message of {size} bytes; it may have {most}"
        if per_second is not None:
            now = self._now()
            self._left = min(burst, self._left + (now - self._seen_at) * per_second)
            self._seen_at = now
            if self._left < 1:
                return _POLICY_VIOLATION, f"more than {per_second:g} messages a second"
            self._left -= 1
        return None

    async def _let_go(self, code: int, reason: str) -> Message:
        """Close the connection and return what the app is told; a client that does not read is not waited for."""
        # From here on the app's own messages stop, those that another task is about to send too.
        self._end = {"type": "websocket.disconnect", "code": code, "reason": reason}
        log.info("%s:%s closed with %d: %s", *(self._client or ("", "")), code, reason)
        # It may be closed already by the app, or gone.
        with suppress(OSError, RuntimeError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._send({"type": "websocket.close", "code": code, "reason": reason})
        return self._end


def _size_bytes(message: Message) -> int:
    text = message.get("text")
    if text is None:
        return len(message.get("bytes") or b"")
    # Python knows without looking whether a text is ASCII.
    return len(text) if text.isascii() else len(text.encode())
