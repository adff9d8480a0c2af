"""Clients that come back: who is away, how long each waits before it tries again, and what it asks for."""

import asyncio
import random
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from labkit.apparatus.crowd.naming import ranges
from labkit.apparatus.crowd.wire import Client, ClientFailed

# Where a text begins with the place of its message in the history; measure.py reads the same.
POSITION = r'\{"epoch": ?(\d+), ?"seq": ?(\d+)'
_MESSAGE = re.compile(POSITION.encode())
_WELCOME = re.compile(rb'\{"position": ?\[(\d+), ?(\d+)\]')
_NEWS = b'{"epoch"'
_GREETING = b'{"position"'
# What a server says that has not got everything since the position that it was asked for.
_NOT_RECOVERED = re.compile(rb'"recovered": ?false')
# The range of the wait doubles after a failure, up to this many times the first.
_WIDEST = 4
# Whoever comes back at once does not hammer at a closed door: the shortest wait after a failure, doubled likewise.
# A thousand clients that try every 50 ms take a whole core from the server that is about to start.
_AFTER_FAILURE = 0.1
# How many runs of numbers an error names.
_NAMED = 20


@dataclass
class Absence:
    """One loss of one client's connection, and how it got back.

    number of the client. code it was lost with. lost_at, back_at: monotonic seconds, back_at None while it is away.
    attempts so far. failure: why the last one failed.
    """

    number: int
    code: int
    lost_at: float
    back_at: float | None = None
    attempts: int = 0
    failure: str = "it has not tried yet"


class Returning:
    """Brings the clients of one swarm back when their connections end.

    Each client waits by chance from a generator of its own that is seeded with its number: the waits of a fleet differ
    from each other as chance has it, and are the same in every run.
    come_back: the first range of the wait, in seconds. connect(client, url) opens a connection. url: without position.
    """

    def __init__(self, come_back: float, connect: Callable[[Client, str], Awaitable[None]], url: str) -> None:
        self.absences: list[Absence] = []
        self._come_back = come_back
        self._connect = connect
        self._url = url
        self._chance: dict[int, random.Random] = {}
        # The beginning of the text that has each client's position; it is read only when somebody asks.
        self._heads: dict[int, bytes] = {}
        self._away: dict[int, tuple[Absence, asyncio.Task]] = {}
        self._waiting: list[tuple[int, asyncio.Event]] = []

    @property
    def away(self) -> int:
        """How many clients are away and mean to come back."""
        return len(self._away)

    def note(self, number: int, head: bytes) -> None:
        """Remember the text that says where in the history a client is; other texts say nothing of it.

        A greeting names the server's newest message, which is where a client begins that has no message yet, or that
        was told that what it missed is gone.
        """
        begins_here = number not in self._heads or _NOT_RECOVERED.search(head)
        if head.startswith(_NEWS) or (head.startswith(_GREETING) and begins_here):
            self._heads[number] = head

    def address(self, number: int) -> str:
        """Return the address that a client comes back to: with its position, if it has one."""
        head = self._heads.get(number, b"")
        found = _MESSAGE.match(head) or _WELCOME.match(head)
        if found is None:
            return self._url
        return f"{self._url}{'&' if '?' in self._url else '?'}epoch={int(found[1])}&seq={int(found[2])}"

    def lost(self, client: Client) -> None:
        """Note that a client's connection has ended, and let it come back unless that was its own doing."""
        if client.left:
            return
        absence = Absence(client.number, int(client.ending), time.monotonic())
        self.absences.append(absence)
        task = asyncio.get_running_loop().create_task(self._bring_back(client, absence), name=f"client {client.number}")
        self._away[client.number] = (absence, task)

    def give_up(self, number: int) -> None:
        """Let a client that is away stay there; one that is not is left alone."""
        if number in self._away:
            self._away.pop(number)[1].cancel()
            self._tell()

    async def _bring_back(self, client: Client, absence: Absence) -> None:
        """Wait, try, and wait longer, until the client is back."""
        chance = self._chance.setdefault(client.number, random.Random(client.number))
        widening, shortest = 1, 0.0
        while absence.back_at is None:
            await asyncio.sleep(max(shortest, chance.uniform(0, widening * self._come_back)))
            absence.attempts += 1
            try:
                await self._connect(client, self.address(client.number))
            except (ClientFailed, OSError) as error:
                absence.failure = str(error)
                shortest = widening * _AFTER_FAILURE
                widening = min(2 * widening, _WIDEST)
            else:
                absence.back_at = time.monotonic()
        del self._away[client.number]
        self._tell()

    def _tell(self) -> None:
        """Wake those who wait for everybody to be back."""
        for returns, done in self._waiting:
            if self._all_back(returns):
                done.set()

    def _all_back(self, returns: int) -> bool:
        return not self._away and len(self.absences) >= returns

    async def all_back(self, *, timeout: float, returns: int) -> None:
        """Wait until nobody is away and there have been `returns` losses; raise TimeoutError that says who is."""
        if self._all_back(returns):
            return
        done = asyncio.Event()
        waiter = (returns, done)
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                await done.wait()
        except TimeoutError:
            raise TimeoutError(self._who_is_away(returns, timeout)) from None
        finally:
            self._waiting.remove(waiter)

    def _who_is_away(self, returns: int, timeout: float) -> str:
        """Return a sentence on who has not come back, and what the last of them saw."""
        if not self._away:
            return (
                f"all clients are connected, but only {len(self.absences)} of {returns} connections were lost within "
                f"{timeout:g} s. Does the server still hold them, frozen or not?"
            )
        attempts: dict[int, dict[int, int]] = {}
        for absence, _ in self._away.values():
            attempts.setdefault(absence.code, {})[absence.number] = absence.attempts
        listed = "; ".join(
            f"{_some(ranges(list(each)))} (lost with {code}, {min(each.values())} to {max(each.values())} attempts)"
            for code, each in attempts.items()
        )
        last, _ = list(self._away.values())[-1]
        return f"{self.away} clients are still away after {timeout:g} s: {listed}. The last says: {last.failure}"

    async def close(self) -> None:
        """Let everybody who is away stay there."""
        tasks = [task for _, task in self._away.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._away.clear()


def _some(listed: str) -> str:
    """Return the beginning of a long list of ranges."""
    runs = listed.split(", ")
    return listed if len(runs) <= _NAMED else f"{', '.join(runs[:_NAMED])} and more"
