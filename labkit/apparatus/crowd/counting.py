"""Clients that only count: for a server at full speed, where a reader that looks at each message would be the limit.

An ordinary client is woken for each message and keeps its beginning. These are not woken at all: one timer goes round
and empties every socket, so that many messages share one read, and the server's send wakes nobody.
"""

import asyncio
from collections.abc import Callable

from labkit.apparatus.crowd import wire
from labkit.apparatus.crowd.wire import Client

# Ten rounds a second: an until() comes this much late, and a fan's socket takes 100 messages of 1 kB meanwhile.
_ROUND_SECONDS = 0.1


class CountingClient(Client):
    """Unlike Client: reads when the round comes to it, keeps no text and no time, and counts whole messages."""

    __slots__ = ("is_reading",)

    def _begin(self) -> None:
        super()._begin()
        self.is_reading = False

    def read_on(self) -> None:
        """Take part in the rounds from now on."""
        self.is_reading = True

    def read(self) -> None:
        """Count what lies in the socket, and leave it empty."""
        size = len(wire.BUFFER)
        while size == len(wire.BUFFER) and self.ending is None:
            try:
                size = self.socket.recv_into(wire.BUFFER)
            except BlockingIOError:
                return
            except OSError:
                size = 0
            if size:
                self._count(size)
            else:
                self.end()

    def _count(self, size: int) -> None:
        """Step from header to header over short text frames; anything else goes the ordinary way."""
        position = messages = 0
        buffer = wire.BUFFER
        # The rest of a longer message is no header, whatever its bytes look like.
        short_until = 0 if self.is_within_a_frame else size
        while position + 4 <= short_until and buffer[position] == wire.WHOLE_TEXT:
            length = buffer[position + 1]
            following = position + 2 + length
            if length == 126:
                following = position + 4 + (buffer[position + 2] << 8 | buffer[position + 3])
            if length == 127 or following > size:
                break
            position = following
            messages += 1
        self.count += messages
        if position < size:
            self._feed(wire.VIEW[position:size], 0, [])


class Rounds:
    """Goes round a swarm's counting clients, ten times a second.

    has_read(client) is called for each of them that received something.
    """

    def __init__(self, clients: dict[int, CountingClient], has_read: Callable[[Client], None]) -> None:
        self._clients = clients
        self._has_read = has_read
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_ROUND_SECONDS, self._again)

    def _again(self) -> None:
        self.go()
        self._timer = self._loop.call_later(_ROUND_SECONDS, self._again)

    def go(self) -> None:
        """Read every socket once, now."""
        for client in list(self._clients.values()):
            if client.is_reading and client.ending is None:
                before = client.count
                client.read()
                if client.count != before:
                    self._has_read(client)

    def close(self) -> None:
        """Stop going round."""
        self._timer.cancel()
