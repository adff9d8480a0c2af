"""The contract: six properties that a manager keeps or breaks, each tried on a real server with real clients.

A manager is anything with `await connect(websocket)`, `disconnect(websocket)` and `await broadcast(text)`. Each
property is one function below, and its docstring is the guarantee. None of them helps an outcome along: they wait for
events, and a time limit ends a wait that would never end. Each has a server and a fleet of its own, so that all six
run side by side: most of their time is spent waiting for what does not happen.
"""

import asyncio
import gc
import itertools
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import pandas
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from labkit.apparatus.clients import Deliveries, Fleet
from labkit.apparatus.server import LabServer, serve
from labkit.evidence.measure import arrivals_table, publish

# A thin network: a client that does not read is felt after some 150 kB. Left alone, loopback hides 2.9 MB.
SEND_BUFFER_BYTES = 65_536
RECEIVE_BUFFER_BYTES = 4_096
# Fills both buffers and uvicorn's own on top, so that the next message for this client has to wait.
FILLER = "x" * 400_000
# Seconds for what should happen at once; many times what a busy laptop needs.
PATIENCE = 2.0
_stages = itertools.count(1)


class Manager(Protocol):
    """What the contract asks of a manager: the three verbs of the ladder."""

    async def connect(self, websocket: WebSocket) -> None:
        """Accept a client, and count it in from now on."""

    def disconnect(self, websocket: WebSocket) -> None:
        """Let a client go."""

    async def broadcast(self, text: str) -> None:
        """Send a text to everyone connected now."""


@dataclass(frozen=True)
class Outcome:
    """What became of one property: its name, whether the manager kept it, and what was seen, in a sentence."""

    property: str
    kept: bool
    seen: str

    def __str__(self) -> str:
        return f"{'✔' if self.kept else '✘'} {self.property}: {self.seen}"


class Stage:
    """One manager behind one server, with its fleet, and the broadcasts that were started and not waited for."""

    def __init__(self, manager: Manager, server: LabServer, fleet: Fleet) -> None:
        self.manager = manager
        self.server = server
        self.fleet = fleet
        self.calls: list[asyncio.Task] = []

    def start(self, text: str) -> asyncio.Task:
        """Call broadcast(text) in a task of its own and return the task."""
        self.calls.append(asyncio.create_task(self.manager.broadcast(text)))
        return self.calls[-1]

    async def finish(self) -> None:
        """Wait for all started broadcasts, but not longer than PATIENCE."""
        await asyncio.wait(self.calls, timeout=PATIENCE)

    def complaint(self) -> str:
        """Return "broadcast raised ..." when one of them did, else an empty string."""
        errors = [call.exception() for call in self.calls if call.done() and not call.cancelled()]
        return next((f"broadcast raised {type(error).__name__}" for error in errors if error), "")

    async def close(self) -> None:
        """Cancel what still waits, and give back fleet and server."""
        for call in self.calls:
            call.cancel()
        if self.calls:
            await self.finish()
        # An error that the property has judged, or did not ask for, is no failure in the background.
        self.complaint()
        await self.fleet.close()
        await self.server.stop()


def app_of(manager: Manager) -> FastAPI:
    """Return the app of every experiment: one endpoint, which connects, listens, and disconnects at the end."""
    app = FastAPI()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        await manager.connect(websocket)
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            pass
        finally:
            manager.disconnect(websocket)

    return app


@asynccontextmanager
async def stage(
    make_manager: Callable[[], Manager],
    *,
    protocol: type[asyncio.Protocol] = WebSocketsSansIOProtocol,
    ping: float = 20.0,
    **behaviours: int,
) -> AsyncIterator[Stage]:
    """Set up a Stage with a fresh manager and a fleet, and take it down whatever happens.

    protocol: as serve() takes it. ping: seconds, both the interval of uvicorn's pings and their timeout.
    behaviours: as Fleet takes them.
    """
    manager = make_manager()
    server = await serve(
        app_of(manager),
        f"contract {next(_stages)}",
        send_buffer_bytes=SEND_BUFFER_BYTES,
        ping_interval=ping,
        ping_timeout=ping,
        protocol=protocol,
    )
    fleet = Fleet(server, "/ws", receive_buffer_bytes=RECEIVE_BUFFER_BYTES, **behaviours)
    experiment = Stage(manager, server, fleet)
    try:
        await fleet.connect()
        yield experiment
    finally:
        await asyncio.shield(experiment.close())


# stage() for one manager: a property says only who its clients are.
OpenStage = Callable[..., AbstractAsyncContextManager[Stage]]


async def reaches_all(open_stage: OpenStage) -> tuple[bool, str]:
    """Everyone connected when broadcast is called gets the message."""
    seqs = range(1, 11)
    async with open_stage(healthy=5) as it:
        for seq in seqs:
            it.start(f"{seq} GOAL")
        await it.finish()
        await has_happened(it.fleet.until(len(seqs), timeout=PATIENCE))
        problem = it.complaint() or missed(it.fleet.deliveries, range(1, 6), seqs)
    return not problem, problem or "each of 5 clients got each of 10 messages"


async def survives_a_leaver(open_stage: OpenStage) -> tuple[bool, str]:
    """Clients that vanish while broadcast waits for another cost those who stay no message, and raise nothing.

    Clients 3 and 5 sleep, so whoever sends one by one waits in the middle. Then 1, 5 and 7 vanish, and 3 wakes up.
    """
    # Client 3 is not asked: who has a time limit may have dropped it by now.
    leavers, stayers = (1, 5, 7), (2, 4, 6)
    async with open_stage(stalled=7) as it:
        await it.fleet.wake(1, 2, 4, 6, 7)
        it.start(f"1 {FILLER}")
        await it.fleet.until(1, clients=[1, 2, 4, 6, 7], timeout=PATIENCE)
        second = it.start("2 GOAL")
        # It has returned, or it waits for a sleeper.
        await asyncio.wait({second}, timeout=0.1)
        await it.fleet.vanish(*leavers)
        await has_come_true(lambda: it.server.connections == 4, within=PATIENCE)
        await it.fleet.wake(3)
        await it.finish()
        it.start("3 GOAL")
        await it.finish()
        await has_happened(it.fleet.until(3, clients=list(stayers), timeout=0.5))
        problems = [it.complaint(), missed(it.fleet.deliveries, stayers, (2, 3))]
    problem = "; ".join(filter(None, problems))
    story = "clients 1, 5 and 7 left in the middle"
    return not problem, f"{story}; {problem or 'the others got that message and the next'}"


async def isolates_a_stalled_client(open_stage: OpenStage) -> tuple[bool, str]:
    """A client that does not read costs the others no message: all 30 of 64 kB arrive within two seconds."""
    count, limit = 30, 2.0
    async with open_stage(healthy=2, stalled=1) as it:
        report, _ = await asyncio.gather(
            publish(it.manager.broadcast, count=count, every=0.02, body_bytes=64_000, timeout=limit),
            it.fleet.until(count, timeout=limit),
            return_exceptions=True,
        )
        got = arrivals_table(it.fleet.deliveries).groupby("client")["seq"].nunique()
    fewest = min(int(got.get(client, 0)) for client in (1, 2))
    raised = f"broadcast raised {type(report).__name__}; " if isinstance(report, Exception) else ""
    seen = f"{raised}one of 3 clients slept; the others got {fewest} of {count} messages"
    return fewest == count and not raised, seen


async def keeps_order(open_stage: OpenStage) -> tuple[bool, str]:
    """Every client gets messages in the order in which broadcast was called, also when calls overlap.

    At each turn of the loop another call starts, while client 3 sleeps and wakes up again. Gaps are no disorder.
    """
    async with open_stage(healthy=2, stalled=1) as it:
        it.start(f"1 {FILLER}")
        await it.fleet.until(1, timeout=PATIENCE)
        awake = asyncio.create_task(it.fleet.wake(3))
        heard = asyncio.create_task(has_happened(it.fleet.until(3, clients=[3], timeout=PATIENCE)))
        for seq in itertools.count(2):
            it.start(f"{seq} GOAL")
            await asyncio.sleep(0)
            if heard.done():
                break
        await awake
        await it.finish()
        await it.fleet.settle()
        problem = it.complaint() or overtaken(it.fleet.deliveries)
    return not problem, problem or f"{seq} overlapping broadcasts, none of them overtaken at any client"


class Tracked(str):
    """A text that can be watched: whether anybody still holds it."""


async def bounds_memory(open_stage: OpenStage) -> tuple[bool, str]:
    """Messages for a client that does not read are not kept for ever: of 200 at most 64 are held a second later.

    The trap: this counts texts. What a manager turns into bytes and hands to the transport is not seen here.
    """
    count, bound = 200, 64
    async with open_stage(healthy=1, stalled=1) as it:
        it.start(f"1 {FILLER}")
        await it.fleet.until(1, timeout=PATIENCE)
        texts = []
        for seq in range(2, count + 2):
            text = Tracked(f"{seq} GOAL")
            texts.append(weakref.ref(text))
            it.start(text)
            del text

        def held() -> int:
            return sum(each() is not None for each in texts)

        # No new ones are made, so that the number only falls.
        await has_come_true(lambda: held() <= bound, within=1.0)
        # An error keeps its frames, and these the text, until a collection finds the circle.
        gc.collect()
        left = held()
    return left <= bound, f"one client slept; {left} of {count} messages were still held after a second at most"


async def frees_the_socket(open_stage: OpenStage) -> tuple[bool, str]:
    """A client that never reads again loses its socket within three times ping interval + ping timeout."""
    ping = 0.3
    limit = 3 * (ping + ping)
    async with open_stage(ping=ping, healthy=3, stalled=1) as it:
        it.start(f"1 {FILLER}")
        it.start("2 GOAL")
        started_at = time.monotonic()
        freed = await has_come_true(lambda: it.server.connections <= 3, within=limit)
        seconds = time.monotonic() - started_at
        count = it.server.connections
    if freed:
        return True, f"the sleeping client's socket was freed after {seconds:.1f} s"
    return False, f"one of 4 clients slept; after {limit:.1f} s the server had {count} connections open instead of 3"


PROPERTIES: dict[str, Callable[[OpenStage], Awaitable[tuple[bool, str]]]] = {
    "reaches all": reaches_all,
    "survives a leaver": survives_a_leaver,
    "isolates a stalled client": isolates_a_stalled_client,
    "keeps order": keeps_order,
    "bounds memory": bounds_memory,
    "frees the socket": frees_the_socket,
}


async def run_contract(
    make_manager: Callable[[], Manager],
    properties: Sequence[str] | None = None,
    *,
    protocol: type[asyncio.Protocol] = WebSocketsSansIOProtocol,
) -> list[Outcome]:
    """Run a manager against the properties, side by side, and return an Outcome for each; about 3 s.

    make_manager: called once for each property, so a class will do. properties: names from PROPERTIES, by default all.
    protocol: the class that speaks WebSocket for uvicorn, as serve() takes it; some managers need their own.
    Raises ValueError for a property that does not exist, and what a client says that cannot connect.
    source: notebook 05, "A contract"
    """
    names = list(PROPERTIES if properties is None else properties)
    for name in names:
        if name not in PROPERTIES:
            raise ValueError(f"no property is called {name!r}; there are: {', '.join(PROPERTIES)}.")
    open_stage = partial(stage, make_manager, protocol=protocol)
    outcomes = await asyncio.gather(*(outcome_of(name, open_stage) for name in names), return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return outcomes


async def outcome_of(name: str, open_stage: OpenStage) -> Outcome:
    """Return what became of one property; one that never got as far as its own question is not kept."""
    try:
        kept, seen = await PROPERTIES[name](open_stage)
    except TimeoutError as error:
        kept, seen = False, str(error)
    return Outcome(name, kept, seen)


def contract_table(outcomes: dict[str, list[Outcome]]) -> pandas.DataFrame:
    """Return one row for each rung and one column for each property: True where kept, False where not, None untried.

    outcomes: {name of the rung: what run_contract() returned}, in the order of the rows.
    """
    kept = {rung: {each.property: each.kept for each in its} for rung, its in outcomes.items()}
    names = list(dict.fromkeys(name for its in kept.values() for name in its))
    rows = [[its.get(name) for name in names] for its in kept.values()]
    return pandas.DataFrame(rows, index=pandas.Index(kept, name="rung"), columns=names)


async def has_happened(event: Awaitable[object]) -> bool:
    """Wait for something with a time limit of its own; return False, and raise nothing, when it did not happen."""
    try:
        await event
    except TimeoutError:
        return False
    return True


async def has_come_true(condition: Callable[[], bool], *, within: float) -> bool:
    """Look every 10 ms until a condition holds, or `within` seconds are over; return whether it holds."""
    until = time.monotonic() + within
    while not condition():
        if time.monotonic() > until:
            return False
        await asyncio.sleep(0.01)
    return True


def received(deliveries: Deliveries) -> dict[int, list[int]]:
    """Return {client: the numbers of its messages as they arrived}; each text here begins with its number."""
    numbers: dict[int, list[int]] = {client: [] for client in deliveries.roster}
    for delivery in deliveries:
        numbers[delivery.client].append(int(delivery.text.split(" ", 1)[0]))
    return numbers


def missed(deliveries: Deliveries, clients: Iterable[int], seqs: Iterable[int]) -> str:
    """Return "clients 4 and 6 never got message 3" for the first message somebody misses, or an empty string."""
    got = received(deliveries)
    for seq in seqs:
        without = [client for client in clients if seq not in got[client]]
        if without:
            return f"{naming(without)} never got message {seq}"
    return ""


def overtaken(deliveries: Deliveries) -> str:
    """Return "client 3 got message 9 before message 2" for the first disorder, or an empty string."""
    for client, numbers in received(deliveries).items():
        for before, after in itertools.pairwise(numbers):
            if before > after:
                return f"client {client} got message {before} before message {after}"
    return ""


def naming(clients: Sequence[int]) -> str:
    """Return clients in words: "client 4", "clients 4, 6 and 7"."""
    *most, last = [str(client) for client in clients]
    return f"clients {', '.join(most)} and {last}" if most else f"client {last}"
