"""The newest messages of one room, in order: what a client that comes back has missed, and whether that is all of it.

It is also everybody's queue. A client that is behind has no messages of its own, only its place in here, so a thousand
sleepers cost no more memory than one, beyond the rest of one write for each.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from labkit.broadcast.parts.hub.events import Gap, Position
from labkit.broadcast.parts.hub.frames import text_of


class Entry(NamedTuple):
    """One frame. position: of its message; for a gap where it ends, None while nobody knows. end: bytes so far."""

    position: Position | None
    is_gap: bool
    frame: bytes
    end: int

    @property
    def text(self) -> str:
        """The text that the frame carries."""
        return text_of(self.frame)


class CatchUp(NamedTuple):
    """Where a client begins.

    after: the position that it starts from, None while nobody knows; whoever comes back with it gets what follows.
    recovered: whether what follows is everything that was published after the position it asked for.
    cursor: the place in the log from which it gets everything.
    """

    after: Position | None
    recovered: bool
    cursor: int


class Log:
    """The newest `count` frames of at most `max_bytes` altogether: messages, and the gaps that could not be settled.

    Each entry has a place, counted from 0 for ever; `first` is the place of the oldest that is here, `end` the one that
    comes next. trim() may be told to leave what somebody still has to get.
    The log is complete from one position on: the one before its oldest message, or where the last gap ended. A client
    that comes back from there or later misses nothing. Positions only grow, from one epoch to the next too.
    .newest the position of the newest message, of another room perhaps that counts along; None where nothing has been
    published yet. .complete_after None while it is not known.
    """

    def __init__(
        self, count: int, max_bytes: int, newest: Position | None = None, complete_after: Position | None = None
    ) -> None:
        self.newest = newest
        self.complete_after = complete_after
        self.first = 0
        self.is_closed = False
        self.followers = 0
        self._count = count
        self._max_bytes = max_bytes
        self._entries: deque[Entry] = deque()
        # Bytes of all frames ever: those of entries that are gone, and of all.
        self._gone_bytes = 0
        self._all_bytes = 0
        self._changed: asyncio.Event | None = None

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def end(self) -> int:
        """The place of the entry that comes next."""
        return self.first + len(self._entries)

    @property
    def size_bytes(self) -> int:
        """How many bytes the frames have that are here."""
        return self._all_bytes - self._gone_bytes

    @property
    def holds_too_much(self) -> bool:
        """Whether more is here than is kept for those who come back."""
        return len(self._entries) > self._count or self.size_bytes > self._max_bytes

    # ---- what comes in

    def advance(self, newest: Position | None, complete_after: Position | None) -> None:
        """Follow a count that goes on in other rooms too: what has come up to `newest` is here, or not for here."""
        self.newest = newest
        if self.complete_after is None and complete_after is not None:
            self._know(complete_after)

    def add(self, position: Position, frame: bytes, after: Position | None = None) -> None:
        """Keep the frame of a message, the newest of all. after: the position that it follows, by default seq - 1."""
        after = after or position.before()
        if self.complete_after is None:
            self._know(after)
        elif self.newest != after:
            self.complete_after = after
        self.newest = position
        self._keep(position, False, frame)

    def add_gap(self, gap: Gap, frame: bytes) -> None:
        """Keep a gap that could not be settled: nobody who stands before it can be told that nothing is missing."""
        # Where nobody knows how far it goes, the next message will show.
        self.complete_after = gap.until
        self.newest = gap.until or self.newest
        self._keep(gap.until, True, frame)

    def settle(self, gap: Gap) -> None:
        """Take back what an earlier gap has said of the messages since: none of them is missing after all."""
        if self.complete_after is None and gap.until == self.newest:
            self._know(gap.until)

    def _know(self, until: Position) -> None:
        """Note how far the gaps went of which that was not known."""
        self.complete_after = until
        for place, entry in enumerate(self._entries):
            if entry.position is None:
                self._entries[place] = entry._replace(position=until)

    def _keep(self, position: Position | None, is_gap: bool, frame: bytes) -> None:
        self._all_bytes += len(frame)
        self._entries.append(Entry(position, is_gap, frame, self._all_bytes))
        if self._changed is not None:
            # Wakes everybody who waits; whoever begins to wait from now on waits for the next time.
            self._changed.set()
            self._changed = None

    def trim(self, keep_from: int | None = None, *, hard: bool = False) -> None:
        """Let the oldest go while there are too many. keep_from: leave what has this place or a later one.

        hard: let everything go that may go.
        """
        keep_from = self.end if keep_from is None else keep_from
        while self.first < keep_from and self._entries and (hard or self.holds_too_much):
            oldest = self._entries.popleft()
            self.first += 1
            self._gone_bytes = oldest.end
            if not oldest.is_gap and self.complete_after is not None:
                self.complete_after = max(self.complete_after, oldest.position)

    # ---- who comes back

    def since(self, asked: Position | None) -> CatchUp:
        """Return where a client begins that has everything up to a position; with None it begins now.

        Position(0, 0) is before everything: whoever asks for that gets all that is here.
        """
        if asked is None:
            return CatchUp(self.newest, self._is_untouched(), self.end)
        cursor = self._later_than(asked)
        complete = self.complete_after is not None and self.complete_after <= asked <= self.newest
        if complete or (asked == (0, 0) and self._is_untouched()):
            return CatchUp(asked, True, cursor)
        return CatchUp(asked if cursor < self.end else self.newest, False, cursor)

    def _is_untouched(self) -> bool:
        """Return whether nothing has been published yet, as far as this server can know."""
        return not self._entries and (self.newest is None or self.newest.seq == 0)

    def _later_than(self, asked: Position) -> int:
        """Return the place of the first entry after a position; searched from the end, where most clients are."""
        place = self.end
        for entry in reversed(self._entries):
            if entry.position is not None and entry.position <= asked:
                break
            place -= 1
        return place

    # ---- what goes out

    def bytes_between(self, start: int, stop: int) -> int:
        """Return how many bytes the entries from one place up to another have, without the second."""
        return self._end_of(stop) - self._end_of(start)

    def _end_of(self, place: int) -> int:
        """Return the bytes of all frames before a place."""
        if place <= self.first:
            return self._gone_bytes
        return self._entries[place - self.first - 1].end

    def join(self, start: int, stop: int, max_bytes: int) -> tuple[bytes, int]:
        """Return frames from one place on as one, and the place behind them; until `stop`, or `max_bytes` and one."""
        if stop - start == 1:
            return self._entries[start - self.first].frame, stop
        frames, size = [], 0
        for entry in islice(self._entries, start - self.first, stop - self.first):
            if size and size + len(entry.frame) > max_bytes:
                break
            frames.append(entry.frame)
            size += len(entry.frame)
        return b"".join(frames), start + len(frames)

    def entry(self, place: int) -> Entry:
        """Return the entry of a place."""
        return self._entries[place - self.first]

    async def follow(
        self, cursor: int, after: Position | None, *, silence: float | None = None
    ) -> AsyncIterator[Entry | Gap | None]:
        """Yield the entries from a CatchUp's cursor on, as they come, until close(); `after` is its position.

        Nothing waits for whoever walks here: where it is slower than the log forgets, it gets a Gap instead.
        silence: after so many seconds without an entry it yields None.
        """
        self.followers += 1
        try:
            while not self.is_closed:
                if cursor < self.first:
                    yield Gap("this client read more slowly than messages came", after, self._before_the_first(), False)
                    cursor = self.first
                elif cursor < self.end:
                    entry = self.entry(cursor)
                    after = entry.position or after
                    cursor += 1
                    yield entry
                elif not await self.change(silence):
                    yield None
        finally:
            self.followers -= 1

    def _before_the_first(self) -> Position | None:
        """Return the position before the oldest message that is still here; the newest of all when none is."""
        return next((entry.position.before() for entry in self._entries if not entry.is_gap), self.newest)

    async def change(self, within: float | None = None) -> bool:
        """Wait for the next change and return True; False when it does not come within so many seconds."""
        self._changed = self._changed or asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(within):
                return await self._changed.wait()
        return False

    def close(self) -> None:
        """End every follow()."""
        self.is_closed = True
        if self._changed is not None:
            self._changed.set()
