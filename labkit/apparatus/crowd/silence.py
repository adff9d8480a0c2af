"""Clients that notice silence: a frozen server keeps its connections, and says nothing."""

import asyncio

from labkit.apparatus.crowd.wire import Client

# How often in the time after which silence is noticed somebody looks, and after how many looks they ask with a ping.
_LOOKS = 4
_PING_AT = 2


class Watch:
    """Ends connections on which nothing has come for a while, as an app does with its heartbeat.

    One timer for the whole swarm. A client that has heard nothing for half of the time sends a ping, so that a server
    that merely has no news is not taken for a dead one.
    notice_after: seconds of silence; it is noticed up to a quarter of them later.
    """

    def __init__(self, clients: dict[int, Client], notice_after: float) -> None:
        self._clients = clients
        self._every = notice_after / _LOOKS
        self._loop = asyncio.get_running_loop()
        # What each client had heard at the last look, and for how many looks that has been all.
        self._heard: dict[int, tuple[tuple[int, int], int]] = {}
        self._timer = self._loop.call_later(self._every, self._look)

    def _look(self) -> None:
        for client in list(self._clients.values()):
            if client.ending is None and client.behaviour != "stalled":
                self._listen(client)
            else:
                self._heard.pop(client.number, None)
        self._timer = self._loop.call_later(self._every, self._look)

    def _listen(self, client: Client) -> None:
        """Ask a client that is quiet, and end one that has been quiet for too long."""
        now = (client.count, client.pongs)
        before, looks = self._heard.get(client.number, (None, 0))
        looks = looks + 1 if now == before else 0
        self._heard[client.number] = (now, looks)
        if looks == _PING_AT:
            client.ping()
        elif looks >= _LOOKS:
            client.end()

    def close(self) -> None:
        """Stop looking."""
        self._timer.cancel()
