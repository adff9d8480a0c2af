"""All clients at once on the same servers: what each says of each scenario, and what the endpoints saw."""

import asyncio
import importlib.util
import json
import os
import shutil
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import library_client
import playwright
from cases import CASES, MOST_BYTES
from house import Broken, House, Rooms, watched
from playwright.async_api import async_playwright
from raw_frames import PATIENCE, go_through
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from labkit import serve
from labkit.apparatus import guard
from labkit.apparatus.guard import expecting
from labkit.apparatus.running import close_lab
from labkit.broadcast.hub import Hub
from labkit.broadcast.protocol import HubProtocol
from labkit.evidence.contract import has_come_true

FOLDER = Path(__file__).parent
PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, PROGRAMS)), None)
# The wheel that drives browsers brings a Node of its own, in which WebSocket is what it is in browsers.
NODE = Path(playwright.__file__).parent / "driver" / "node"
# As each of them says what is missing, or "".
_NO_NODE = "" if NODE.exists() else "the playwright wheel of this system brings no Node"
_NO_CHROMIUM = "" if CHROMIUM else f"no Chromium on PATH: none of {', '.join(PROGRAMS)}"
_NO_CURL = "" if importlib.util.find_spec("curl_cffi") else "no curl_cffi, which has no wheel for this system"

# Client -> why it cannot be had here, or "".
MISSING = {
    "websockets": "",
    "websockets-plain": "",
    "node": _NO_NODE,
    "chromium": _NO_CHROMIUM,
    "curl": _NO_CURL,
    "curl-deflate": _NO_CURL,
}
CLIENTS = [client for client, missing in MISSING.items() if not missing]
COMPRESSING = {"websockets", "node", "chromium", "curl-deflate"}

# Who broadcasts, through which protocol class. The first is the control: nothing of ours is in it.
KINDS = {
    "endpoints on uvicorn's own": (Rooms, WebSocketsSansIOProtocol),
    "endpoints on HubProtocol": (Rooms, HubProtocol),
    "hub on HubProtocol": (lambda: Hub(history=1_000, max_queue_bytes=2**26), HubProtocol),
    "hub on uvicorn's own": (lambda: Hub(history=1_000, max_queue_bytes=2**26), WebSocketsSansIOProtocol),
}

SIZES = {20: 65_535, 60: 65_536, 100: 1_000_000, 150: 125, 151: 126}
# What the room is told: of one byte to a megabyte, and not in ASCII either.
BODIES = [chr(33 + number % 90) * SIZES.get(number, 1 + number % 3) for number in range(198)]
BODIES += ["Tor für 東京 – ⚽🎉 " * 20, "é" * 500_000]

# What comes to an end only when the servers stop, or when all the others have.
LATE = {"idle", "plain_idle", "drain", "shutdown", "lonely_shutdown"}
# What a client has no means for: browsers send no pings and nothing in pieces, the library no close without a code.
_LIBRARY_LACKS = {"client_closes_without_a_word"}
_BROWSERS_LACK = {"client_pings", "too_big_in_pieces"}
LACKS = {"websockets": _LIBRARY_LACKS, "websockets-plain": _LIBRARY_LACKS}
LACKS |= {"node": _BROWSERS_LACK, "chromium": _BROWSERS_LACK}
SCENARIOS = sorted({*library_client.SCENARIOS, *_LIBRARY_LACKS})


def takes_part(client, scenario):
    """Return whether a client is here and has the means for a scenario."""
    return client in CLIENTS and scenario not in LACKS.get(client, ())


@dataclass
class Evening:
    """What came of all scenarios and cases.

    reports {(client, scenario): what the client says}, seen {(client, scenario): what its endpoint saw}; answers
    {case: the frames that the server sent}, and seen_of {case: what the endpoint saw}.
    """

    reports: dict = field(default_factory=dict)
    seen: dict = field(default_factory=dict)
    answers: dict = field(default_factory=dict)
    seen_of: dict = field(default_factory=dict)
    began_at: float = field(default_factory=time.monotonic)

    def report(self, report):
        """Note what a client says of a scenario."""
        self.reports[report.pop("client"), report.pop("scenario")] = report

    async def has_heard_from_all(self, scenarios):
        """Wait until every client has told of each of these."""
        awaited = {(client, each) for client in CLIENTS for each in scenarios if takes_part(client, each)}
        await self.until(lambda: self.reports.keys() >= awaited)

    async def until(self, condition):
        """Wait for something, but for everything together only so long: what is missing then, the tests will miss."""
        await has_come_true(condition, within=max(0.0, self.began_at + PATIENCE - time.monotonic()))


async def run_program(evening, *command):
    """Run a client's program to its end; it prints a JSON line for each scenario."""
    process = await asyncio.create_subprocess_exec(*map(str, command), stdout=asyncio.subprocess.PIPE)
    try:
        async for line in process.stdout:
            evening.report(json.loads(line))
        assert await process.wait() == 0, command
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@asynccontextmanager
async def browser():
    """Start Chromium once for all evenings, and give a Future of it; of None where there is none."""

    async def start():
        # Chromium refuses to run its sandbox as root, which is who one is in most containers.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        return await driver.chromium.launch(executable_path=CHROMIUM, args=arguments)

    if not CHROMIUM:
        yield None
        return
    async with async_playwright() as driver:
        started = asyncio.create_task(start())
        yield started
        await (await started).close()


async def browse(evening, started, url, addresses):
    """Go through the scenarios in a page that comes from the server itself."""
    page = await (await started).new_page()
    await page.expose_function("report", evening.report)
    await page.goto(url)
    play = "async (addresses) => (await import('/scenarios.mjs')).play(addresses, 'chromium', window.report)"
    await page.evaluate(play, addresses)
    await page.close()


async def spend(kind, started):
    """Let all clients meet on four servers of this kind, stop these while some still listen, and return the Evening."""
    make_broadcaster, protocol = KINDS[kind]
    protocol = watched(protocol)
    broadcaster, drained = make_broadcaster(), make_broadcaster()
    house = House(broadcaster, drained, CLIENTS)
    evening = Evening(seen=house.seen)
    options = {
        # Pings come fast here; whoever is late with a pong is not thrown out for it.
        "main": {
            "deflate": True,
            "max_message_bytes": MOST_BYTES,
            "ping_interval": 0.05,
            "ping_timeout": PATIENCE,
        },
        "plain": {"max_message_bytes": 1_000, "ping_interval": 0.05, "ping_timeout": PATIENCE},
        # No pong is due here in the middle of what is written byte by byte, nor while the server closes without waiting
        # for an answer: a client that writes then may not look any more for the goodbye that came before.
        "quiet": {"max_message_bytes": 1_000, "ping_interval": None},
        "strict": {"ping_interval": 2.5, "ping_timeout": 0.3},
    }
    servers = {
        name: await serve(house.app, f"{name}, {kind}", protocol=protocol, **each) for name, each in options.items()
    }
    addresses = [servers[name].ws_url("") for name in ("main", "plain", "quiet")]

    async def broadcast_bodies():
        await house.complete["bodies"].wait()
        for number, body in enumerate([*BODIES, "end"]):
            await broadcaster.broadcast(body, room="bodies")
            # Two of three times the loop has no turn in between.
            if number % 3 == 0:
                await asyncio.sleep(0)

    async def write_by_hand(number, name, case):
        server, room = servers[case.server], f"case-{number}"
        path = f"/ws/{case.scenario}/{room}"
        evening.seen_of[name] = house.seen[room, case.scenario]
        evening.answers[name] = await go_through(
            case, server.host, server.port, path, lambda text: broadcaster.broadcast(text, room=room)
        )

    async with asyncio.timeout(PATIENCE + 15), asyncio.TaskGroup() as group:
        # These first: one of them has only until the first ping.
        for number, (name, case) in enumerate(CASES.items()):
            group.create_task(write_by_hand(number, name, case))
        broadcasting = group.create_task(broadcast_bodies())
        if "chromium" in CLIENTS:
            group.create_task(browse(evening, started, servers["main"].url, addresses))
        if "node" in CLIENTS:
            group.create_task(run_program(evening, NODE, FOLDER / "node.mjs", *addresses))
        if "curl" in CLIENTS:
            script = FOLDER / "curl_client.py"
            group.create_task(run_program(evening, sys.executable, script, *addresses))
        for client, options in (("websockets", {}), ("websockets-plain", {"compression": None})):
            group.create_task(library_client.play(addresses, client, evening.report, **options))
        early = {name for name, case in CASES.items() if not case.late}
        await evening.until(lambda: evening.answers.keys() >= early)
        await evening.has_heard_from_all(set(SCENARIOS) - LATE)
        broadcasting.cancel()
        for each in LATE:
            await evening.until(house.complete[each].is_set)
        for room in ("idle", "plain_idle"):
            await broadcaster.broadcast("called", room=room)
        await evening.has_heard_from_all({"idle", "plain_idle"})
        await drained.drain(over=0.1)
        await evening.has_heard_from_all({"drain"})
        await asyncio.gather(*(server.stop() for server in servers.values()))
    return evening


async def spend_all(kinds):
    """Return {kind: its Evening, or the error that ended it}, and what failed in the background, or None."""
    evenings, failure = {}, None
    with expecting(Broken, UnicodeDecodeError):
        async with browser() as started:
            for kind in kinds:
                try:
                    evenings[kind] = await spend(kind, started)
                except Exception as error:
                    # The other evenings are not to blame.
                    evenings[kind] = error
    closed = await close_lab()
    try:
        guard.check()
        assert closed.nothing_left, closed
    except (guard.BackgroundFailure, AssertionError) as error:
        failure = error
    return evenings, failure
