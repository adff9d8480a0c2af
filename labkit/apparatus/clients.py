"""Fleet: a crowd of real clients, in a process of its own, numbered in the order in which they connect."""

import asyncio
import json
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from labkit.apparatus import guard, running
from labkit.apparatus.children import Child, ChildFailed, new_folder, start_child
from labkit.apparatus.crowd.swarm import Swarm
from labkit.apparatus.crowd.wire import BEHAVIOURS, Behaviour, ClientFailed
from labkit.apparatus.descriptors import TooManyDescriptors, allow_descriptors
from labkit.apparatus.server import LabServer

_LINE_LIMIT_BYTES = 2**30
_BAR_FROM = 200
# A process that is frozen or busy for longer than this does not answer a property.
_NOW_SECONDS = 10
_PROCESS_GONE = "The fleet's process has ended. Was it killed, or did it run out of memory?"
# What a fleet process may answer with, beside the answer.
_ERRORS = {each.__name__: each for each in (ClientFailed, TimeoutError, TooManyDescriptors, ValueError)}


class Delivery(NamedTuple):
    """One message arriving at one client.

    client: its number, from 1. behaviour. text: the first 256 bytes of the message. size_bytes: of the whole message.
    arrived_at: seconds, on the monotonic clock.
    """

    client: int
    behaviour: str
    text: str
    size_bytes: int
    arrived_at: float


class Return(NamedTuple):
    """One loss of one client's connection, and its way back.

    client: its number. lost_at, back_at: when it noticed and when it was connected again, in monotonic seconds;
    back_at is None for one that is not back. attempts: how many it took so far. code: what the connection ended with,
    1006 for an end without a close frame.
    """

    client: int
    lost_at: float
    back_at: float | None
    attempts: int
    code: int


class Deliveries(list[Delivery]):
    """All deliveries of a fleet so far, in order of arrival at the reader.

    .roster {client number: behaviour}, also of those who got nothing.
    .stamped_by "operating system" where it stamped every arrival, else "reader": then a late reader shows as latency.
    """

    def __init__(self, rows: list[Delivery], roster: dict[int, str], stamped_by: str) -> None:
        super().__init__(rows)
        self.roster = roster
        self.stamped_by = stamped_by


class _RemoteSwarm:
    """Talks to a swarm in a process of its own: one connection to its Unix socket for each request."""

    def __init__(self, path: Path) -> None:
        self._path = str(path)

    async def is_ready(self) -> bool:
        """Return whether the process answers."""
        try:
            await self.ask("cpu_seconds")
        except ChildFailed:
            return False
        return True

    async def ask(self, verb: str, progress: Callable[[int], None] = lambda done: None, **options: object) -> object:
        """Send a request and return the answer; cancelling this cancels the work."""
        with _told_when_gone():
            reader, writer = await asyncio.open_unix_connection(self._path, limit=_LINE_LIMIT_BYTES)
            try:
                writer.write(json.dumps({"verb": verb, **options}).encode() + b"\n")
                while True:
                    answer = _read(await reader.readline())
                    if "progress" not in answer:
                        return answer["answer"]
                    progress(answer["progress"])
            finally:
                writer.close()

    def ask_now(self, verb: str, **options: object) -> object:
        """Like ask(), without giving up the loop: for a property that is read after the experiment."""
        with _told_when_gone(), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(_NOW_SECONDS)
            connection.connect(self._path)
            connection.sendall(json.dumps({"verb": verb, **options}).encode() + b"\n")
            with connection.makefile("rb") as lines:
                return _read(lines.readline())["answer"]


@contextmanager
def _told_when_gone() -> Iterator[None]:
    """Turn what a socket says of a process that has ended into a sentence."""
    try:
        yield
    except (FileNotFoundError, ConnectionRefusedError, ConnectionResetError, BrokenPipeError):
        raise ChildFailed(_PROCESS_GONE) from None


def _read(line: bytes) -> dict:
    """Return an answer's message, or raise the error that it carries."""
    if not line:
        raise ChildFailed(_PROCESS_GONE)
    message = json.loads(line)
    if "error" in message:
        raise _ERRORS.get(message["error"], RuntimeError)(message["message"])
    return message


class Fleet:
    """Real clients of a server, each with a behaviour, in a process of their own.

    The trap: with in_kernel=True they share the server's loop, read only when it yields, and measure the wrong thing;
    use that to show what arrives, never when.
    The kernel stamps an arrival, also while the fleet's process is busy or frozen. But messages that lie together in a
    client's socket are read together, and then all get the stamp of the last of them.
    The number of each behaviour is given by its name, and clients connect in the order of the names, from number 1:
    `Fleet(server, healthy=4, stalled=1)` makes client 5 the stalled one. For any other order there is `order`.
    A new fleet closes the one that has its name.
    With `come_back` a client whose connection ends opens a new one, as an app does, unless it went by itself (leave,
    hang_up, vanish: those stay gone). It waits by chance, and adds `epoch=E&seq=S` to the address when it has a
    position: of the last text that begins `{"epoch": E, "seq": S`, or of a greeting `{"position": [E, S]`. Greetings
    and gaps count as deliveries, as any text does. The trap: only who notices comes back. A stalled client reads
    nothing, not even the end; and a frozen server keeps its connections, which without `notice_after` nobody gives up.

    server: a LabServer, or a WebSocket address to which `path` is added. name: by default the server's.
    order: the behaviours one by one, instead of numbers by name: `order=["healthy", "stalled", "healthy"]`.
    receive_buffer_bytes: the kernel's receive buffer of the slow and stalled clients.
    leave_after: how many messages a leaving or vanishing client receives before it goes.
    slow_pause: seconds that a slow client waits between two reads of at most 4096 bytes.
    come_back: seconds; the wait before an attempt is drawn evenly from 0 to this, 0 for at once. After a failure the
    range doubles, up to 4 times the first, and the wait is at least 0.1 s, then 0.2 s, then 0.4 s. A client draws from
    a generator that is seeded with its number, so that its waits are the same in every run.
    notice_after: seconds without any sign from the server after which a client gives its connection up; after half of
    them it sends a ping, so that a server without news is not taken for a dead one.
    count_only: clients count messages and keep none: `counts()` and `until()` work, `deliveries` does not. They read
    ten times a second, many messages at once, so that the crowd costs little beside a server at full speed.
    Raises ValueError for a behaviour that does not exist, a number below 0, or options that exclude each other.
    """

    kind = "client"

    def __init__(
        self,
        server: LabServer | str,
        path: str = "/ws",
        *,
        name: str | None = None,
        order: Sequence[Behaviour] = (),
        in_kernel: bool = False,
        receive_buffer_bytes: int | None = None,
        leave_after: int = 1,
        slow_pause: float = 0.05,
        come_back: float | None = None,
        notice_after: float | None = None,
        count_only: bool = False,
        **behaviours: int,
    ) -> None:
        if order and behaviours:
            raise ValueError("give the behaviours either by number or one by one in `order`, not both.")
        for behaviour in (*behaviours, *order):
            if behaviour not in BEHAVIOURS:
                raise ValueError(f"no client behaves {behaviour!r}; there are: {', '.join(BEHAVIOURS)}.")
        for behaviour, amount in behaviours.items():
            if not isinstance(amount, int) or amount < 0:
                raise ValueError(f"{behaviour}={amount!r}: give a whole number of clients, 0 or more.")
        self.name = name or (server if isinstance(server, str) else server.name)
        self.url = server + path if isinstance(server, str) else server.ws_url(path)
        self.behaviours = list(order) or [each for each, amount in behaviours.items() for _ in range(amount)]
        _refuse_what_excludes_itself(self.behaviours, come_back, notice_after, count_only)
        self._in_kernel = in_kernel
        self._options = {
            "receive_buffer_bytes": receive_buffer_bytes,
            "leave_after": leave_after,
            "slow_pause": slow_pause,
            "come_back": come_back,
            "notice_after": notice_after,
            "count_only": count_only,
        }
        self._child: Child | None = None
        self._swarm: Swarm | _RemoteSwarm | None = None
        self._closed = False

    def __repr__(self) -> str:
        state = "connected" if self.is_open else "not connected"
        return f"<fleet {self.name!r}: {self.size} clients of {self.url}, {state}>"

    @property
    def size(self) -> int:
        """How many clients the fleet has."""
        return len(self.behaviours)

    @property
    def is_open(self) -> bool:
        """Whether the fleet's clients exist, connected or not."""
        return self._swarm is not None and (self._child is None or self._child.is_open)

    async def connect(self) -> "Fleet":
        """Connect all clients, one after another, and return the fleet.

        A fleet of 200 or more shows a progress bar. Raises ClientFailed, naming the client and what it saw, or
        TooManyDescriptors; then no client stays connected.
        """
        previous = running.find(self.kind, self.name)
        if previous is not None:
            await previous.close()
        guard.install()
        # The server's end of each connection is in this process.
        allow_descriptors(self.size, "clients")
        if self._in_kernel:
            self._swarm = Swarm()
        else:
            await self._start_process()
        running.register(self)
        try:
            with _bar(self.size) as progress:
                await self._swarm.ask(
                    "connect", progress=progress, url=self.url, behaviours=self.behaviours, **self._options
                )
        except BaseException:
            await asyncio.shield(self.close())
            raise
        return self

    async def _start_process(self) -> None:
        folder = new_folder()
        path = folder / "swarm.sock"
        swarm = _RemoteSwarm(path)
        self._child = await start_child(
            [sys.executable, "-m", "labkit.apparatus.crowd.swarm", str(path)],
            name=f"fleet {self.name}",
            folder=folder,
            ready=swarm.is_ready,
        )
        self._swarm = swarm

    def _connected(self) -> Swarm | _RemoteSwarm:
        if self._swarm is None and self._closed:
            raise RuntimeError(
                f"Fleet {self.name!r} is closed: it could not connect, or close(), close_lab() or a newer fleet of its "
                "name has closed it. Run the cell that makes it again."
            )
        if self._swarm is None:
            raise RuntimeError(f"Fleet {self.name!r} is not connected. Is `await fleet.connect()` missing?")
        return self._swarm

    async def until(self, count: int, *, timeout: float = 5.0, clients: list[int] | str | None = None) -> None:
        """Wait until clients have received `count` messages each, counted since they connected or since clear().

        timeout: seconds. clients: numbers, or a behaviour; by default all healthy and slow ones.
        Raises TimeoutError that names who has received how many.
        """
        await self._connected().ask("until", count=count, timeout=timeout, clients=clients)

    async def counts(self) -> dict[int, int]:
        """Return how many messages each client has received since it connected or since clear(), without waiting.

        Cheap for the fleet's process, unlike `deliveries`, which carries every message over.
        """
        return {int(number): count for number, count in (await self._connected().ask("counts")).items()}

    async def settle(self, *, quiet: float = 0.2, timeout: float = 5.0) -> None:
        """Wait until nothing has arrived at any client for `quiet` seconds, `timeout` seconds at most."""
        await self._connected().ask("settle", quiet=quiet, timeout=timeout)

    async def send(self, text: str, *, clients: list[int] | str | None = None) -> None:
        """Send a text message from clients by number or behaviour, by default from all who are still connected.

        Raises ClientFailed when a client named by its number has ended.
        """
        await self._connected().ask("send", text=text, clients=clients)

    async def leave(self, *clients: int) -> None:
        """Let clients say goodbye: a close frame with code 1000."""
        await self._connected().ask("act", what="leave", clients=clients)

    async def hang_up(self, *clients: int) -> None:
        """Let clients end without a close frame: a FIN, as when an app is closed."""
        await self._connected().ask("act", what="hang_up", clients=clients)

    async def vanish(self, *clients: int) -> None:
        """Let clients reset the connection: an RST, no goodbye."""
        await self._connected().ask("act", what="vanish", clients=clients)

    async def wake(self, *clients: int) -> None:
        """Let stalled clients read from now on."""
        await self._connected().ask("act", what="read_on", clients=clients)

    def freeze(self) -> None:
        """Stop the whole process where it stands: sockets open, nobody behind them. Undone by thaw()."""
        self._process().freeze()

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._process().thaw()

    def _process(self) -> Child:
        self._connected()
        if self._child is None:
            raise RuntimeError("A fleet with in_kernel=True has no process of its own to freeze.")
        return self._child

    @property
    def deliveries(self) -> Deliveries:
        """All that has arrived since connect() or clear(). Wait with until() or settle() before you read it."""
        if self._options["count_only"]:
            raise RuntimeError(
                f"Fleet {self.name!r} was made with count_only=True and keeps no message. Use `await fleet.counts()`."
            )
        answer = self._connected().ask_now("deliveries")
        texts = answer["texts"]
        rows = [
            Delivery(client, self.behaviours[client - 1], texts[place], size, arrived_at / 1e9)
            for client, place, size, arrived_at, _ in answer["rows"]
        ]
        by_kernel = all(row[4] for row in answer["rows"])
        return Deliveries(rows, dict(enumerate(self.behaviours, 1)), "operating system" if by_kernel else "reader")

    @property
    def endings(self) -> dict[int, int | None]:
        """How each client ended: its close code, 1006 for none, or None while it is connected, also when it is back."""
        return {int(number): code for number, code in self._connected().ask_now("endings").items()}

    @property
    def returns(self) -> list[Return]:
        """Every connection that was lost and not by the client's doing, in order of the losses; clear() keeps them."""
        return [Return(*row) for row in self._connected().ask_now("returns")]

    @property
    def away(self) -> int:
        """How many clients have lost their connection and are not back yet."""
        return self._connected().ask_now("away")

    async def all_back(self, timeout: float = 10.0, *, returns: int = 0) -> None:
        """Wait until no client is away.

        The trap: right after a server is killed its clients have not noticed yet, and nobody is away. `returns` says
        how many losses there must have been since connect() before this looks: `returns=1` waits for the first.
        timeout: seconds. Raises TimeoutError that names who is still away and why, RuntimeError without `come_back`.
        """
        swarm = self._connected()
        if self._options["come_back"] is None:
            raise RuntimeError(f"The clients of fleet {self.name!r} do not come back. Give the fleet come_back=5.0.")
        await swarm.ask("all_back", timeout=timeout, returns=returns)

    @property
    def cpu_seconds(self) -> float:
        """CPU time that the fleet's process has used since it started, in seconds."""
        return self._connected().ask_now("cpu_seconds")

    def clear(self) -> None:
        """Forget what has arrived, so that counts begin at 0 again."""
        self._connected().ask_now("clear")

    async def close(self) -> None:
        """Hang up all clients and end their process; a second call does nothing."""
        if self._child is not None:
            await self._child.close()
        elif self._swarm is not None:
            await self._swarm.close()
        self._swarm = None
        self._closed = True
        running.forget(self)


def _refuse_what_excludes_itself(
    behaviours: list[str], come_back: float | None, notice_after: float | None, count_only: bool
) -> None:
    """Raise ValueError for options that no client can follow together."""
    for name, seconds, least in (("come_back", come_back, 0), ("notice_after", notice_after, 0.01)):
        if seconds is not None and not seconds >= least:
            raise ValueError(f"{name}={seconds!r}: give seconds, {least:g} or more.")
    if count_only and come_back is not None:
        raise ValueError("a client that only counts keeps no position to come back with: leave out one of the two.")
    for behaviour in behaviours:
        if count_only and behaviour not in ("healthy", "stalled"):
            raise ValueError(f"a {behaviour} client cannot only count: count_only is for healthy and stalled ones.")


class _bar:
    """A progress bar for a large fleet where IPython can show one; nothing elsewhere."""

    def __init__(self, total: int) -> None:
        self._bar = None
        if total >= _BAR_FROM and "IPython" in sys.modules:
            from IPython import get_ipython
            from IPython.display import ProgressBar

            if get_ipython() is not None:
                self._bar = ProgressBar(total)

    def __enter__(self) -> Callable[[int], None]:
        if self._bar is not None:
            self._bar.display()
        return self._advance

    def _advance(self, done: int) -> None:
        if self._bar is not None:
            self._bar.progress = done

    def __exit__(self, *_: object) -> None:
        return None
