"""The newest messages of one server, in order: what a fan who comes back has missed, and whether that is all of it."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import NamedTuple

from labkit.broadcast.backplane import Gap, Message, Position

# What a gap counts in a history that is bounded by bytes: it has a reason and two positions, never more than this.
_GAP_BYTES = 500


class CatchUp(NamedTuple):
    """What a fan gets before it hears live news.

    after: the position that it starts from, None while nobody knows; whoever comes back with it gets what follows.
    recovered: whether `events` are everything that was published after the position it asked for.
    cursor: where in the history what comes next will be, for follow().
    """

    after: Position | None
    recovered: bool
    events: list[Message | Gap]
    cursor: int


class History:
    """The newest `count` events of at most `max_bytes` altogether: messages, and the gaps that could not be settled.

    The history is complete from one position on: the one before its oldest message, or where the last gap ended.
    A fan that comes back from there or later misses nothing; any other gets what is here and is told that more is gone.
    Positions only ever grow, from one epoch to the next too, so comparing two says which comes later.
    newest: where Redis stood when this server began to listen; older messages may be added first all the same.
    .newest the position that the next message will follow; None where nothing has been published yet.
    """

    def __init__(self, count: int, max_bytes: int, newest: Position | None = None) -> None:
        self.newest = newest
        self.is_closed = False
        self._complete_after = newest
        self._events: deque[Message | Gap] = deque()
        self._bytes = 0
        self._count = count
        self._max_bytes = max_bytes
        # How many events have made room already: the events have numbers that stay theirs.
        self._dropped = 0
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        return len(self._events)

    def add(self, message: Message) -> None:
        """Keep a message, the newest of all; what is too old for it goes."""
        epoch, seq = message.position
        if self._complete_after is None or message.position != self._next():
            self._complete_after = Position(epoch, seq - 1)
        self.newest = message.position
        self._keep(message)

    def add_gap(self, gap: Gap) -> None:
        """Keep a gap that could not be settled: nobody who stands before it can be told that nothing is missing."""
        # Where nobody knows how far it goes, the next message will show.
        self._complete_after = gap.until
        if gap.until is not None:
            self.newest = gap.until
        self._keep(gap)

    def settle(self, gap: Gap) -> None:
        """Take back what an earlier gap has said of the messages since: none of them is missing after all."""
        if self._complete_after is None and gap.until == self.newest:
            self._complete_after = gap.until

    def since(self, asked: Position | None) -> CatchUp:
        """Return what came after a position; nothing, from now on, for a fan that asks for none.

        Position(0, 0) is before everything: whoever asks for that gets all that is here.
        """
        cursor = self._dropped + len(self._events)
        if asked is None:
            return CatchUp(self.newest, self._is_untouched(), [], cursor)
        missed = self._later_than(asked)
        complete = self._complete_after is not None and self._complete_after <= asked <= self.newest
        if complete or (asked == (0, 0) and self._is_untouched()):
            # A gap is noted here all the same where it turned out to have been empty.
            return CatchUp(asked, True, [event for event in missed if isinstance(event, Message)], cursor)
        return CatchUp(asked if missed else self.newest, False, missed, cursor)

    async def reached(self, asked: Position, timeout: float) -> None:
        """Wait until this server has heard what a fan has heard from another one; `timeout` seconds at most."""
        until = asyncio.get_running_loop().time() + timeout
        while not self.is_closed and (self.newest is None or self.newest < asked):
            if not await self._change_comes(until - asyncio.get_running_loop().time()):
                return

    async def follow(
        self, cursor: int, after: Position | None, *, silence: float | None = None
    ) -> AsyncIterator[Message | Gap | None]:
        """Yield the events from a CatchUp's cursor on, as they come, until close(); `after` is its position.

        Nothing waits for whoever walks here: where it is slower than the history forgets, it gets a Gap instead.
        silence: after so many seconds without an event it yields None.
        """
        while not self.is_closed:
            if cursor < self._dropped:
                until = self._before_the_first()
                yield Gap("this fan read more slowly than news came", after, until, False)
                cursor = self._dropped
            elif cursor < self._dropped + len(self._events):
                event = self._events[cursor - self._dropped]
                after = event.position if isinstance(event, Message) else event.until or after
                cursor += 1
                yield event
            elif not await self._change_comes(silence):
                yield None

    def close(self) -> None:
        """End every follow() and reached()."""
        self.is_closed = True
        self._announce()

    def _next(self) -> Position | None:
        """Return the position that follows the newest one."""
        return self.newest and Position(self.newest.epoch, self.newest.seq + 1)

    def _is_untouched(self) -> bool:
        """Return whether nothing has been published yet, as far as this server can know."""
        return not self._events and (self.newest is None or self.newest.seq == 0)

    def _later_than(self, asked: Position) -> list[Message | Gap]:
        """Return the events after a position, oldest first; the search begins at the end, where most fans are."""
        later = []
        for event in reversed(self._events):
            position = event.position if isinstance(event, Message) else event.until
            if position is not None and position <= asked:
                break
            later.append(event)
        return later[::-1]

    def _before_the_first(self) -> Position | None:
        """Return the position before the oldest message that is still here; the newest of all when none is."""
        for event in self._events:
            if isinstance(event, Message):
                return Position(event.position.epoch, event.position.seq - 1)
        return self.newest

    def _keep(self, event: Message | Gap) -> None:
        self._events.append(event)
        self._bytes += _size_bytes(event)
        while len(self._events) > self._count or self._bytes > self._max_bytes:
            oldest = self._events.popleft()
            self._bytes -= _size_bytes(oldest)
            self._dropped += 1
            if isinstance(oldest, Message) and self._complete_after is not None:
                self._complete_after = max(self._complete_after, oldest.position)
        self._announce()

    async def _change_comes(self, within: float | None) -> bool:
        """Wait for the next change and return True; False when it does not come within so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                return await self._changed.wait()
        return False

    def _announce(self) -> None:
        """Wake everybody who waits; whoever begins to wait from now on waits for the next time."""
        self._changed.set()
        self._changed = asyncio.Event()


def _size_bytes(event: Message | Gap) -> int:
    return len(event.text.encode()) if isinstance(event, Message) else _GAP_BYTES
