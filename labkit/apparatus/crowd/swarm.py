"""A crowd of clients on one event loop, and the process that such a crowd has to itself.

Run as `python -m labkit.apparatus.crowd.swarm SOCKET` it answers requests on a Unix socket: one request a connection,
a JSON line each way. A request that is dropped halfway is cancelled.
"""

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from labkit.apparatus.crowd import wire
from labkit.apparatus.crowd.counting import CountingClient, Rounds
from labkit.apparatus.crowd.naming import ranges
from labkit.apparatus.crowd.returning import Returning
from labkit.apparatus.crowd.silence import Watch
from labkit.apparatus.crowd.wire import Client, ClientFailed
from labkit.apparatus.descriptors import allow_descriptors

READING = ("healthy", "slow")
_PROGRESS_EVERY = 50
_LINE_LIMIT_BYTES = 2**30


class Swarm:
    """All clients of a fleet, the deliveries they have seen, and who waits for them."""

    def __init__(self) -> None:
        self.clients: dict[int, Client] = {}
        self._rows: list[tuple[int, bytes, int, int, list]] = []
        self._waiting: list[tuple[set[int], int, asyncio.Event]] = []
        self._returning: Returning | None = None
        self._watch: Watch | None = None
        self._rounds: Rounds | None = None

    async def ask(self, verb: str, progress: Callable[[int], None] = lambda done: None, **options: object) -> object:
        """Do what a request says and return the answer; the remote swarm has the same method."""
        if verb == "connect":
            return await self.connect(progress=progress, **options)
        answer = getattr(self, verb)(**options)
        return await answer if asyncio.iscoroutine(answer) else answer

    def ask_now(self, verb: str, **options: object) -> object:
        """Like ask(), for the verbs that do not wait."""
        return getattr(self, verb)(**options)

    async def connect(
        self,
        *,
        url: str,
        behaviours: list[str],
        receive_buffer_bytes: int | None,
        leave_after: int,
        slow_pause: float,
        come_back: float | None,
        notice_after: float | None,
        count_only: bool,
        progress: Callable[[int], None] = lambda done: None,
    ) -> int:
        """Connect one client after another, so that a client's number is its place in the server's registry."""
        allow_descriptors(len(behaviours), "clients")
        address = urlsplit(url)

        async def connect(client: Client, url: str) -> None:
            await client.connect(address.hostname, address.port, url, receive_buffer_bytes)

        arrived = self._arrived
        if come_back is not None:
            self._returning = Returning(come_back, connect, url)
            arrived = self._arrived_and_noted
        if notice_after is not None:
            self._watch = Watch(self.clients, notice_after)
        if count_only:
            self._rounds = Rounds(self.clients, self._tell)
            arrived = _forget
        kind = CountingClient if count_only else Client
        for number, behaviour in enumerate(behaviours, 1):
            client = kind(number, behaviour, arrived, self._ended, leave_after=leave_after, slow_pause=slow_pause)
            self.clients[number] = client
            await connect(client, url)
            if number % _PROGRESS_EVERY == 0:
                progress(number)
        return len(behaviours)

    def _arrived(self, client: Client, head: bytes, size: int, read_at: int, ancillary: list) -> None:
        self._rows.append((client.number, head, size, read_at, ancillary))
        if self._waiting:
            self._tell(client)

    def _arrived_and_noted(self, client: Client, head: bytes, size: int, read_at: int, ancillary: list) -> None:
        """Like _arrived(), where clients come back: only there does a message cost the note of its position."""
        self._returning.note(client.number, head)
        self._arrived(client, head, size, read_at, ancillary)

    def _tell(self, client: Client) -> None:
        """Tell those who wait for messages what this client has."""
        for missing, count, done in self._waiting:
            if client.count >= count:
                missing.discard(client.number)
                if not missing:
                    done.set()

    def _ended(self, client: Client) -> None:
        if self._returning is not None:
            self._returning.lost(client)

    async def until(self, *, count: int, timeout: float, clients: list[int] | str | None = None) -> None:
        """Wait until each of these clients has received `count` messages; raise TimeoutError naming who has not."""
        chosen = self.choose(clients, default=READING)
        missing = {each.number for each in chosen if each.count < count}
        if not missing:
            return
        done = asyncio.Event()
        waiter = (missing, count, done)
        self._waiting.append(waiter)
        try:
            async with asyncio.timeout(timeout):
                await done.wait()
        except TimeoutError:
            raise TimeoutError(self._who_misses(sorted(missing), count, len(chosen), timeout)) from None
        finally:
            self._waiting.remove(waiter)

    def _who_misses(self, numbers: list[int], count: int, of: int, timeout: float) -> str:
        """Return a sentence on who has not received how many messages."""
        groups: dict[str, list[int]] = {}
        for number in numbers:
            client = self.clients[number]
            gone = "" if client.ending is None else f", gone with {client.ending}"
            groups.setdefault(f"({client.behaviour}{gone}) got {client.count}", []).append(number)
        listed = "; ".join(f"{ranges(each)} {what}" for what, each in groups.items())
        return (
            f"{len(numbers)} of {of} clients did not get {count} messages within {timeout:g} s: {listed}. "
            "Does broadcast() wait for somebody, or has it forgotten them?"
        )

    async def settle(self, *, quiet: float, timeout: float) -> None:
        """Wait until nothing has arrived anywhere for `quiet` seconds, `timeout` seconds at most."""
        until = time.monotonic() + timeout
        before = -1
        while self._received() != before and time.monotonic() < until:
            before = self._received()
            await asyncio.sleep(min(quiet, until - time.monotonic()))

    def _received(self) -> int:
        """Return how many messages all clients have together."""
        return sum(client.count for client in self.clients.values())

    async def send(self, *, text: str, clients: list[int] | str | None = None) -> None:
        """Send a text message from each of these clients, all who are still there when None."""
        for client in self.choose(clients, default=wire.BEHAVIOURS):
            if client.ending is not None and clients is not None:
                raise ClientFailed(f"client {client.number} has ended with {client.ending}; it can send nothing more.")
            if client.ending is None:
                await client.send(text)

    def act(self, *, what: str, clients: list[int]) -> None:
        """Let these clients leave, hang_up, vanish, or read_on (wake up)."""
        for client in self.choose(clients, default=()):
            getattr(client, what)()
            if client.left and self._returning is not None:
                self._returning.give_up(client.number)

    def choose(self, clients: Iterable[int] | str | None, *, default: tuple[str, ...]) -> list[Client]:
        """Return clients by number, by behaviour, or those of the default behaviours."""
        behaviours = default if clients is None else (clients,)
        if clients is None or isinstance(clients, str):
            return [each for each in self.clients.values() if each.behaviour in behaviours]
        unknown = [number for number in clients if number not in self.clients]
        if unknown:
            raise ValueError(f"no client has the number {ranges(unknown)}; there are 1 to {len(self.clients)}.")
        return [self.clients[number] for number in clients]

    def deliveries(self) -> dict:
        """Return what has arrived: each different text once, and a row for each delivery that points to it.

        Rows are [client, text number, size_bytes, arrived_at in monotonic ns, whether the kernel stamped it].
        """
        # The kernel stamps in time of day; the rest of the lab counts in monotonic time.
        offset = time.time_ns() - time.monotonic_ns()
        texts: dict[bytes, int] = {}
        rows = []
        for number, head, size, read_at, ancillary in self._rows:
            stamp = wire.stamp_of(ancillary)
            place = texts.setdefault(head, len(texts))
            rows.append((number, place, size, (stamp or read_at) - offset, stamp is not None))
        return {"texts": [text.decode(errors="replace") for text in texts], "rows": rows}

    def clear(self) -> None:
        """Forget what has arrived, so that the next count begins at 0."""
        self._rows.clear()
        for client in self.clients.values():
            client.count = 0

    def counts(self) -> dict[str, int]:
        """Return how many messages each client has."""
        if self._rounds is not None:
            self._rounds.go()
        return {str(number): client.count for number, client in self.clients.items()}

    def endings(self) -> dict[str, int | None]:
        """Return how each client ended: its close code, or None while it is connected."""
        return {str(number): client.ending for number, client in self.clients.items()}

    def away(self) -> int:
        """Return how many clients are away and mean to come back."""
        return 0 if self._returning is None else self._returning.away

    def returns(self) -> list[list]:
        """Return all losses: [client, lost_at, back_at, attempts, code], times in monotonic seconds."""
        absences = [] if self._returning is None else self._returning.absences
        return [[each.number, each.lost_at, each.back_at, each.attempts, each.code] for each in absences]

    async def all_back(self, *, timeout: float, returns: int) -> None:
        """Wait until nobody is away; raise TimeoutError naming who is."""
        await self._returning.all_back(timeout=timeout, returns=returns)

    def cpu_seconds(self) -> float:
        """Return the CPU time that this process has used."""
        return time.process_time()

    async def close(self) -> None:
        """Hang up all clients, and let nobody come back."""
        for each in (self._watch, self._rounds):
            if each is not None:
                each.close()
        if self._returning is not None:
            await self._returning.close()
        for client in self.clients.values():
            if client.socket is not None:
                client.hang_up()


def _forget(client: Client, head: bytes, size: int, read_at: int, ancillary: list) -> None:
    """Take a message that only counts."""


async def _answer(swarm: Swarm, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request; stop working on it when the asker hangs up."""

    def say(**message: object) -> None:
        writer.write(json.dumps(message).encode() + b"\n")

    request = json.loads(await reader.readline())
    work = asyncio.ensure_future(swarm.ask(request.pop("verb"), lambda done: say(progress=done), **request))
    gone = asyncio.ensure_future(reader.read())
    await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
    if not work.done():
        work.cancel()
    elif work.exception() is not None:
        say(error=type(work.exception()).__name__, message=str(work.exception()))
    else:
        say(answer=work.result())
    gone.cancel()
    writer.close()


async def _main(path: str) -> None:
    """Serve one swarm on a Unix socket until the keeper stops this process."""
    swarm = Swarm()
    server = await asyncio.start_unix_server(lambda *pair: _answer(swarm, *pair), path, limit=_LINE_LIMIT_BYTES)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
