"""One of our own ways to broadcast, as a server to be measured: a rung of the ladder, the hub, or a bare endpoint.

usage: python tests/bench/servers.py VARIANT [--loop uvloop] [--deflate] [--slice CLIENTS] PORT
VARIANT is a class of labkit.broadcast.managers, `hub`, `endpoint` (connects and reads, broadcasts nothing), or
`endpoint-uvicorn` (the same under uvicorn's own protocol class).
It prints "ready VARIANT VERSION" once it accepts connections. For each line "TURNS JOINED BODY_BYTES EVERY_US" on its
standard input it broadcasts so many turns, and prints "done" when all is handed over. "gap" before such a line prints
"gap NANOSECONDS" after it, the longest that the loop was kept from a ticker of one millisecond. "settle" collects
garbage and prints "settled". It ends when its standard input closes.
"""

import argparse
import asyncio
import gc
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.metadata import version

import uvicorn
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from labkit.broadcast import managers
from labkit.broadcast.protocol import HubProtocol

Broadcast = Callable[[str], Awaitable[None]]
_TICK_SECONDS = 0.001
_LOOPS = ("asyncio", "uvloop")


class Endpoint:
    """The three verbs without a broadcast: what an ordinary endpoint costs."""

    async def connect(self, websocket: WebSocket) -> None:
        """Take a client in."""
        await websocket.accept()

    def disconnect(self, websocket: WebSocket) -> None:
        """Let a client go, which nobody remembers."""

    async def broadcast(self, text: str) -> None:
        """Refuse: there is nobody to send to."""
        raise RuntimeError("The bare endpoint has no clients to broadcast to; measure its memory and its handshakes.")


def manager_of(variant: str, slice_clients: int | None) -> object:
    """Return the manager of a variant; slice_clients: how many clients the hub serves before it lets others run."""
    if variant.startswith("endpoint"):
        return Endpoint()
    if variant != "hub":
        return getattr(managers, variant)()
    # Only here: a rung can be measured where the hub's packages are not.
    from labkit.broadcast.hub import Hub
    from labkit.broadcast.parts.hub import room

    if slice_clients:
        room.SLICE = slice_clients
    return Hub()


def app_of(manager: object) -> FastAPI:
    """Return an app with the endpoint that FastAPI's documentation shows, whose clients are the manager's."""
    app = FastAPI()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        await manager.connect(websocket)
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            manager.disconnect(websocket)

    return app


async def play(broadcast: Broadcast, turns: int, joined: int, body_bytes: int, every_us: int) -> None:
    """Broadcast on an absolute schedule; a late turn starts at once, but gives way first, as that of any peer."""
    started_at = time.monotonic_ns()
    for turn in range(turns):
        left_ns = started_at + turn * every_us * 1000 - time.monotonic_ns()
        await asyncio.sleep(max(0, left_ns) / 1e9)
        for _ in range(joined):
            await broadcast(f"{time.monotonic_ns():020}".ljust(body_bytes, "x"))


async def longest_gap(work: Awaitable[None]) -> int:
    """Return the longest time, in ns, that the loop was away from a ticker of a millisecond while work was done."""
    gaps = [0]

    async def tick() -> None:
        before = time.monotonic_ns()
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = time.monotonic_ns()
            gaps.append(now - before)
            before = now

    ticker = asyncio.create_task(tick())
    # The ticker's first turn has to come before the work's.
    await asyncio.sleep(2 * _TICK_SECONDS)
    await work
    # What the work leaves to be done in later turns of the loop counts as well.
    await asyncio.sleep(0.1)
    ticker.cancel()
    return max(gaps)


async def obey(broadcast: Broadcast) -> None:
    """Do what the lines of standard input say, until it closes."""
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    watches_gap = False
    while line := await lines.readline():
        if line == b"settle\n":
            gc.collect()
            print("settled", flush=True)
        elif line == b"gap\n":
            watches_gap = True
        elif watches_gap:
            gap = await longest_gap(play(broadcast, *map(int, line.split())))
            print("done", flush=True)
            print("gap", gap, flush=True)
            watches_gap = False
        else:
            await play(broadcast, *map(int, line.split()))
            print("done", flush=True)


async def main(options: argparse.Namespace) -> None:
    """Serve until standard input closes."""
    # As many as there may be: a crowd that needs more says so itself.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    manager = manager_of(options.variant, options.slice)
    config = uvicorn.Config(
        app_of(manager),
        host="127.0.0.1",
        port=options.port,
        loop=options.loop,
        ws=WebSocketsSansIOProtocol if options.variant == "endpoint-uvicorn" else HubProtocol,
        ws_ping_interval=None,
        ws_per_message_deflate=options.deflate,
        log_level="warning",
        backlog=4096,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    while not server.started:
        if serving.done():
            await serving
            raise SystemExit("uvicorn ended before it had started")
        await asyncio.sleep(0.01)
    print("ready", options.variant, f"uvicorn-{version('uvicorn')}", flush=True)
    await obey(manager.broadcast)
    # An orderly end would say goodbye to thousands of clients of whom nobody wants to know any more.
    os._exit(0)


def run(options: argparse.Namespace) -> None:
    """Run on the loop that was asked for."""
    factory = None
    if options.loop == "uvloop":
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(main(options))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("variant")
    parser.add_argument("port", type=int)
    parser.add_argument("--loop", choices=_LOOPS, default=_LOOPS[0])
    parser.add_argument("--deflate", action="store_true")
    parser.add_argument("--slice", type=int)
    run(parser.parse_args())
