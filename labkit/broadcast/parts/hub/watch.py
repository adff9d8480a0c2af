"""Who has stopped reading, and since when; and how late the loop is."""

import asyncio
from collections.abc import Callable

from labkit.broadcast.parts.hub.members import Member, QueuedMember

_TICK_SECONDS = 0.1
_ON_THE_WAY_SECONDS = 0.1


class Watch:
    """The clients that cannot take more now; whoever takes nothing for `seconds` is handed to give_up(member).

    The trap: it looks when the time is over. Who took something in between gets the whole time once more.
    .buffered_bytes what their connections held when they were last looked at.
    """

    def __init__(self, seconds: float, give_up: Callable[[Member | QueuedMember], None]) -> None:
        self.buffered_bytes = 0
        self._seconds = seconds
        self._give_up = give_up
        # The one that has been here for longest first.
        self._timers: dict[Member | QueuedMember, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._timers)

    def add(self, member: Member | QueuedMember) -> None:
        """Begin to watch a member."""
        self.remove(member)
        member.look()
        self.buffered_bytes += member.buffered_bytes
        loop = asyncio.get_running_loop()
        # What is on its way at this moment is no sign of life: its acknowledgement comes late.
        settled = min(_ON_THE_WAY_SECONDS, self._seconds / 4)
        self._timers[member] = loop.call_later(settled, self._settle, member, loop.time() + self._seconds)

    def remove(self, member: Member | QueuedMember) -> None:
        """Watch a member no more; one that is not watched is no error."""
        timer = self._timers.pop(member, None)
        if timer is not None:
            timer.cancel()
            self.buffered_bytes -= member.buffered_bytes

    def longest(self) -> Member | QueuedMember | None:
        """Return the one that has been watched for longest."""
        return next(iter(self._timers), None)

    def _settle(self, member: Member | QueuedMember, until: float) -> None:
        self._has_taken(member)
        self._timers[member] = asyncio.get_running_loop().call_at(until, self._judge, member)

    def _judge(self, member: Member | QueuedMember) -> None:
        if self._has_taken(member):
            # Behind those who have taken nothing for longer.
            del self._timers[member]
            self._timers[member] = asyncio.get_running_loop().call_later(self._seconds, self._judge, member)
        else:
            self.remove(member)
            self._give_up(member)

    def _has_taken(self, member: Member | QueuedMember) -> bool:
        """Return whether a member has taken something since the last look."""
        self.buffered_bytes -= member.buffered_bytes
        has_taken = member.look()
        self.buffered_bytes += member.buffered_bytes
        return has_taken

    def close(self) -> None:
        """Watch nobody any more."""
        for member in list(self._timers):
            self.remove(member)


class Lag:
    """How late the loop comes to a timer that is due ten times a second, in seconds: .last, and .most of all."""

    def __init__(self) -> None:
        self.last = 0.0
        self.most = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to measure, if that has not begun."""
        if self._timer is None:
            self._set(asyncio.get_running_loop())

    def _set(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + _TICK_SECONDS
        self._timer = loop.call_at(due, self._tick, loop, due)

    def _tick(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self.last = loop.time() - due
        self.most = max(self.most, self.last)
        self._set(loop)

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
