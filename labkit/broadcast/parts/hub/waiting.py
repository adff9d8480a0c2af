"""A queue and an event for one waiter, small: asyncio's own hold 2.5 and 0.7 KiB for every connection.

Nobody but the endpoint of a connection takes from its queue; any number of senders may wait for its gate.
"""

import asyncio


class Inbox:
    """Like asyncio.Queue without a bound, as far as uvicorn uses one: what has come and was not taken yet."""

    __slots__ = ("_items", "_taker")

    def __init__(self) -> None:
        self._items: list = []
        self._taker: asyncio.Future | None = None

    def put_nowait(self, item: object) -> None:
        """Add an item, and wake whoever waits for it."""
        self._items.append(item)
        if self._taker is not None and not self._taker.done():
            self._taker.set_result(None)

    def empty(self) -> bool:
        """Return whether there is nothing to take."""
        return not self._items

    async def get(self) -> object:
        """Take the oldest item, as soon as there is one; raises RuntimeError when somebody waits here already."""
        while not self._items:
            if self._taker is not None and not self._taker.done():
                raise RuntimeError("Two tasks receive from one connection. Only its endpoint may.")
            taker = self._taker = asyncio.get_running_loop().create_future()
            try:
                await taker
            finally:
                # Who was cancelled may have been followed by another before it ends here.
                if self._taker is taker:
                    self._taker = None
        return self._items.pop(0)


class Gate:
    """Like asyncio.Event: open or shut, and whoever waits goes on when it opens."""

    __slots__ = ("_is_open", "_waiters")

    def __init__(self, *, is_open: bool) -> None:
        self._is_open = is_open
        self._waiters: list[asyncio.Future] | None = None

    def is_set(self) -> bool:
        """Return whether it is open."""
        return self._is_open

    def set(self) -> None:
        """Open it."""
        self._is_open = True
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)

    def clear(self) -> None:
        """Shut it."""
        self._is_open = False

    async def wait(self) -> bool:
        """Wait until it opens; one that is open does not give up the turn."""
        if not self._is_open:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters = self._waiters or []
            self._waiters.append(waiter)
            try:
                await waiter
            finally:
                if self._waiters is not None and waiter in self._waiters:
                    self._waiters.remove(waiter)
        return True
