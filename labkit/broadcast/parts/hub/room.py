"""One room of a hub: its log, who is up to date with it, and the sweep that brings news to all of them.

Who is up to date is written to in one go. Whoever cannot take more leaves them, by an event, and goes on alone from
its own place in the log; when it has caught up it is one of them again.
"""

import asyncio
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import repeat
from typing import TYPE_CHECKING

from labkit.broadcast.parts.hub.events import Gap, Position
from labkit.broadcast.parts.hub.log import Log
from labkit.broadcast.parts.hub.members import Member, QueuedMember

if TYPE_CHECKING:
    from labkit.broadcast.hub import Hub

# How many clients are written to before the loop gets a turn: some two milliseconds.
SLICE = 250
# What goes out in one write, as long as it is more than one message.
WRITE_BYTES = 65_536
_send = socket.socket.send


class Room:
    """The clients of one room and what is sent to them; made and used by a Hub.

    .members all of them. .swept the place in the log up to which everybody who is up to date has got everything.
    """

    def __init__(self, hub: "Hub", name: str, log: Log) -> None:
        self.hub = hub
        self.name = name
        self.log = log
        self.members: set[Member | QueuedMember] = set()
        self.swept = log.end
        self._is_open = True
        # Those who are up to date: sockets that one may send on, and the others, with a write() of their own.
        self._sockets: dict[socket.socket, Member] = {}
        self._others: dict[Member, Member] = {}
        # Those who are not, and have a cursor; among them who only waits for the end of a sweep.
        self._behind: dict[Member | QueuedMember, None] = {}
        self._to_bring_up: dict[Member, None] = {}
        # Whoever is behind this place has more waiting than one may have.
        self._floor = 0
        # The sweep: what it writes, the place behind that, and the slices that are still to come.
        self._is_due = False
        self._frame = b""
        self._stop: int | None = None
        self._has_ended: asyncio.Event | None = None
        self._slices: deque[tuple[Callable, list]] = deque()
        self._still_to_come: set | None = None
        self._somebody_left = False
        # Where a client stands that is being written to at this moment by the room itself.
        self._writing_up_to: int | None = None

    @property
    def is_idle(self) -> bool:
        """Whether nobody is here, and nothing is on its way."""
        return not (self.members or self.log.followers or self._is_due or self._stop is not None)

    @property
    def unswept_bytes(self) -> int:
        """How many bytes have been published that not everybody was written who is up to date."""
        return self.log.bytes_between(self.swept, self.log.end)

    # ---- what comes in

    def keep(self, position: Position, frame: bytes, after: Position | None = None) -> None:
        """Take in the frame of a message; everybody gets it."""
        self.log.add(position, frame, after)
        self._came_in(frame)

    def keep_gap(self, gap: Gap, frame: bytes) -> None:
        """Take in a gap; everybody is told."""
        self.log.add_gap(gap, frame)
        self._came_in(frame)

    def _came_in(self, frame: bytes) -> None:
        self.hub.log_bytes += len(frame)
        self.sweep_soon()

    # ---- the sweep

    def sweep_soon(self) -> None:
        """Write what is new to everybody, at the loop's next turn: what else comes in this one goes along."""
        if not self._is_due and self._stop is None:
            self._is_due = True
            self.hub.loop.call_soon(self._begin)

    def _begin(self) -> None:
        self._is_due = False
        if self.swept == self.log.end:
            self.trim()
            return
        self._frame, self._stop = self.log.join(self.swept, self.log.end, WRITE_BYTES)
        self._somebody_left = False
        self._slices.clear()
        # A large message takes fewer clients in a turn.
        size = max(1, min(SLICE, SLICE * WRITE_BYTES // len(self._frame)))
        for write, registry in ((self._send_to, self._sockets), (self._write_to, self._others)):
            if registry:
                keys = list(registry)
                self._slices.extend([(write, keys[start : start + size]) for start in range(0, len(keys), size)])
        self._go_on()

    def _go_on(self) -> None:
        """Write to the next slice; the one after it has to wait for the loop's next turn."""
        self._still_to_come = None
        if self._slices:
            write, part = self._slices.popleft()
            if self._somebody_left:
                # Nobody is asked as long as all are there.
                part = [each for each in part if each in self._sockets or each in self._others]
            self._writing_up_to = self._stop
            write(part)
            self._writing_up_to = None
            self.hub.deliveries += len(part) * (self._stop - self.swept)
        if self._slices:
            self.hub.loop.call_soon(self._go_on)
        else:
            self._end()

    async def until_swept(self) -> None:
        """Wait until no more is left to write than goes out at once; clients that cannot take it do not count."""
        while self.unswept_bytes > WRITE_BYTES:
            self._has_ended = self._has_ended or asyncio.Event()
            await self._has_ended.wait()

    def _send_to(self, part: list[socket.socket]) -> None:
        """Send on the sockets themselves, in a loop that runs in C."""
        size = len(self._frame)
        sent: list[int] = []
        sends = map(_send, part, repeat(self._frame))
        while True:
            try:
                sent.extend(sends)
                break
            except OSError:
                # It would have to wait, or it is gone: the transport finds out which.
                sent.append(0)
        if sent.count(size) != len(part):
            frame = memoryview(self._frame)
            for each, count in zip(part, sent, strict=True):
                # One that was let go meanwhile, for what another one takes of the memory, is none of ours any more.
                if count != size and each in self._sockets:
                    self._sockets[each].write(frame[count:])

    def _write_to(self, part: list[Member]) -> None:
        for member in part:
            if not member.has_left:
                # uvloop raises where asyncio is silent: a connection that is about to be lost.
                with suppress(RuntimeError):
                    member.write(self._frame)

    def _end(self) -> None:
        self.swept, self._stop, self._frame = self._stop, None, b""
        if self._has_ended is not None:
            self._has_ended.set()
            self._has_ended = None
        self._limit()
        to_bring_up, self._to_bring_up = self._to_bring_up, {}
        for member in to_bring_up:
            self.bring_up(member)
        for member in self._behind:
            member.wake()
        self.trim()
        if self.swept < self.log.end:
            self.sweep_soon()

    # ---- who is behind

    def join(self, member: Member | QueuedMember) -> None:
        """Take a member in, which begins at its cursor."""
        self.members.add(member)
        member.exempt_until = self.log.end
        self._behind[member] = None
        if isinstance(member, Member):
            self.bring_up(member)

    def leave(self, member: Member | QueuedMember) -> None:
        """Let a member go."""
        member.has_left = True
        self.members.discard(member)
        if member in self._behind:
            del self._behind[member]
            # What was kept for it alone may go.
            self.sweep_soon()
        self._to_bring_up.pop(member, None)
        self._take_out(member)

    def _take_out(self, member: Member | QueuedMember) -> bool:
        """Take a member from those who are up to date, and return whether it was one of them."""
        registry, key = (self._sockets, member.plain_socket) if member.plain_socket else (self._others, member)
        was_there = registry.pop(key, None) is not None
        self._somebody_left |= was_there
        return was_there

    def fall_behind(self, member: Member) -> None:
        """Leave a member out that cannot take more now."""
        if member in self._behind:
            return
        place = self._place_of(member)
        if self._take_out(member):
            member.cursor = place
            self._behind[member] = None

    def _place_of(self, member: Member | QueuedMember) -> int:
        """Return the place up to which a member has been written to."""
        if member in self._behind:
            return member.cursor
        if self._writing_up_to is not None:
            return self._writing_up_to
        if self._stop is None:
            return self.swept
        if self._still_to_come is None:
            self._still_to_come = {each for _, part in self._slices for each in part}
        return self.swept if (member.plain_socket or member) in self._still_to_come else self._stop

    def bring_up(self, member: Member) -> None:
        """Write to a member what it lacks, until it is up to date or cannot take more."""
        if member.has_left or member not in self._behind:
            return
        if self._stop is not None and member.last is None:
            self._to_bring_up[member] = None
            return
        self._greet(member)
        while not (member.is_paused or member.transport.is_closing()):
            self._drop_what_is_too_much(member)
            end = self.swept if member.last is None else member.last
            if member.cursor >= end:
                break
            member.cursor = self._write_on(member, member.cursor, end)
        if member.is_paused or member.last is not None or member.transport.is_closing():
            return
        if member.cursor > self.swept:
            self._to_bring_up[member] = None
            return
        del self._behind[member]
        # What was kept for it alone may go.
        self.sweep_soon()
        if member.plain_socket:
            self._sockets[member.plain_socket] = member
        else:
            self._others[member] = member

    def _greet(self, member: Member) -> None:
        if member.greeting and not member.is_paused:
            greeting, member.greeting = member.greeting, b""
            member.write(greeting)

    def end_with(self, member: Member) -> None:
        """Give a member that is to be closed what is here now, and nothing that comes after."""
        if member.has_left:
            return
        place = self._place_of(member)
        if self._take_out(member):
            member.cursor = place
            self._behind[member] = None
        member.last = self.log.end
        self.bring_up(member)

    def _write_on(self, member: Member, start: int, stop: int) -> int:
        """Write from one place on towards another, as much as goes out at once; return the place behind it."""
        data, reached = self.log.join(start, stop, WRITE_BYTES)
        self.hub.deliveries += reached - start
        with suppress(RuntimeError):
            member.write(data)
        return reached

    def last_words(self, member: Member) -> None:
        """Write what was published before the connection's end, as much of it as the member takes without waiting."""
        if member.has_left or member.transport.is_closing():
            return
        self._greet(member)
        if member in self._behind:
            self._drop_what_is_too_much(member)
        place = self._place_of(member)
        end = self.log.end if member.last is None else member.last
        while place < end and not (member.is_paused or member.transport.is_closing()):
            place = self._write_on(member, place, end)

    def next_frame(self, member: QueuedMember) -> bytes | None:
        """Return what a member gets next that sends for itself; None when it is up to date."""
        self._drop_what_is_too_much(member)
        if member.cursor >= self.swept:
            # What was kept for it alone may go.
            self.sweep_soon()
            return None
        member.cursor += 1
        self.hub.deliveries += 1
        return self.log.entry(member.cursor - 1).frame

    # ---- the bound

    def _limit(self) -> None:
        """Find the place behind which too much waits, and let go whoever stands there, where the policy says so."""
        self._floor = max(self._floor, self.log.first)
        most = self.hub.max_queue_bytes
        while self._floor < self.swept - 1 and self.log.bytes_between(self._floor, self.swept) > most:
            self._floor += 1
        if self._behind and self.hub.when_full == "disconnect":
            for member in [each for each in self._behind if self._has_too_much(each)]:
                self.hub.evict(member, "slow")

    def _has_too_much(self, member: Member | QueuedMember) -> bool:
        # What was there when it came is not held against it.
        return member.cursor < self._floor and member.exempt_until < self._floor

    def _drop_what_is_too_much(self, member: Member | QueuedMember) -> None:
        if not self._has_too_much(member):
            return
        cursor = self.swept - 1 if self.hub.when_full == "latest" else self._floor
        self.hub.drops += cursor - member.cursor
        member.cursor = cursor

    def trim(self, *, hard: bool = False) -> None:
        """Let the log forget what is too old, but nothing that somebody still gets.

        hard: forget all that was kept for those who might come back.
        """
        if not (hard or self.log.holds_too_much):
            # Nobody has to be asked what is still needed.
            return
        needed = [self._floor if self._has_too_much(each) else each.cursor for each in self._behind]
        before = self.log.size_bytes
        # Who joins between a publish and its sweep stands beyond what is swept, and that is still for all the others.
        self.log.trim(min([self.swept, *needed]), hard=hard)
        if self._is_open:
            self.hub.log_bytes -= before - self.log.size_bytes

    def close(self) -> None:
        """Count no more in the hub's bytes; what is on its way still goes out."""
        self._is_open = False
        self.hub.log_bytes -= self.log.size_bytes
