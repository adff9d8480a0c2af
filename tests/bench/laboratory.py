"""How fast the laboratory itself is: is it out of the way of what it measures?

usage: make bench   or   python tests/bench/laboratory.py
Prints the median and the spread of each figure; nothing is asserted, since a busy machine is no bug.
"""

import asyncio
import platform
import statistics
import time
from collections.abc import Awaitable, Callable

from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from labkit import Fleet, close_lab, publish, serve

REPETITIONS = 15
MESSAGES = 40


def board() -> tuple[FastAPI, Callable[[str], Awaitable[None]]]:
    """Return an app with the documented loop, and its broadcast."""
    app = FastAPI()
    connections: list[WebSocket] = []

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket) -> None:
        await websocket.accept()
        connections.append(websocket)
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            connections.remove(websocket)

    async def broadcast(text: str) -> None:
        for connection in connections.copy():
            await connection.send_text(text)

    return app, broadcast


def show(what: str, values: list[float], unit: str) -> None:
    """Print a line: median, spread, n."""
    print(
        f"{what:<58} {statistics.median(values):8.2f} {unit:<3}"
        f" ({min(values):.2f} to {max(values):.2f}, n = {len(values)})"
    )


async def timed(work: Awaitable[object]) -> float:
    """Return how many milliseconds something took."""
    started_at = time.perf_counter()
    await work
    return (time.perf_counter() - started_at) * 1000


async def start_and_stop() -> None:
    """Time serve(), stop() and close_lab() with clients that do not read."""
    starts, stops, closes = [], [], []
    for _ in range(REPETITIONS):
        app, broadcast = board()
        starts.append(await timed(serve(app, send_buffer_bytes=16_384)))
        server = await serve(app, send_buffer_bytes=16_384)
        await Fleet(server, healthy=3, stalled=3, receive_buffer_bytes=4_096).connect()
        await broadcast("x" * 1_000_000)
        stops.append(await timed(server.stop()))
        server = await serve(app, send_buffer_bytes=16_384)
        await Fleet(server, healthy=3, stalled=3, receive_buffer_bytes=4_096).connect()
        await broadcast("x" * 1_000_000)
        closes.append(await timed(close_lab()))
    show("serve() until connections are accepted", starts, "ms")
    show("server.stop() with 3 of 6 clients stalled, buffers full", stops, "ms")
    show("close_lab() with the same", closes, "ms")


async def crowds(size: int) -> None:
    """Time connecting a fleet, and put its CPU for a delivery beside the server's."""
    connects, servers, fleets = [], [], []
    for _ in range(5):
        app, broadcast = board()
        server = await serve(app)
        fleet = Fleet(server, healthy=size)
        connects.append(await timed(fleet.connect()))
        for _ in range(3):
            fleet.clear()
            before = fleet.cpu_seconds
            report = await publish(broadcast, count=MESSAGES, every=max(0.01, size * 5e-5))
            await fleet.until(MESSAGES)
            deliveries = size * MESSAGES
            servers.append(report.cpu_seconds / deliveries * 1e6)
            fleets.append((fleet.cpu_seconds - before) / deliveries * 1e6)
        await close_lab()
    show(f"{size} healthy clients connect", connects, "ms")
    show(f"server CPU for a delivery, docs loop, {size} clients", servers, "µs")
    show(f"fleet CPU for a delivery, {size} clients", fleets, "µs")
    show("  the fleet's by the server's", [f / s for f, s in zip(fleets, servers, strict=True)], "×")


async def main() -> None:
    """Print all figures."""
    print(f"Python {platform.python_version()} on {platform.system()} {platform.machine()}")
    await start_and_stop()
    for size in (100, 1000):
        await crowds(size)


if __name__ == "__main__":
    asyncio.run(main())
