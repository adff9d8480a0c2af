"""What the way through Redis costs: from publish to a fan, by each carrier, against the server's own broadcast.

usage: make bench   or   python tests/bench/hop.py
Blocks of the three ways take turns in one run; nothing is asserted, since a busy machine is no bug.
"""

import asyncio

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from laboratory import show

from labkit import Fleet, RedisServer, arrivals_table, close_lab, publish, serve
from labkit.broadcast.backplane import PubSubBackplane, StreamBackplane
from labkit.broadcast.managers import QueueManager

BLOCKS = 20
MESSAGES = 50
EVERY = 0.005
FANS = 10


def board(manager: QueueManager) -> FastAPI:
    """Return an app whose fans are the manager's."""
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


async def relay(carrier: PubSubBackplane | StreamBackplane, manager: QueueManager) -> None:
    """Hand to the fans what comes from Redis."""
    async for message in carrier.events():
        await manager.broadcast(message.text)


async def main() -> None:
    """Print the median latency of each way, and what each carrier adds, block by block."""
    manager = QueueManager()
    server = await serve(board(manager))
    fleet = await Fleet(server, healthy=FANS).connect()
    async with (
        RedisServer() as redis_server,
        PubSubBackplane(redis_server.url) as pubsub,
        StreamBackplane(redis_server.url) as stream,
    ):
        relays = [asyncio.create_task(relay(carrier, manager)) for carrier in (pubsub, stream)]

        async def by_pubsub(text: str) -> None:
            await pubsub.publish(text)

        async def by_stream(text: str) -> None:
            await stream.publish(text)

        ways = {"local": manager.broadcast, "Pub/Sub": by_pubsub, "stream": by_stream}
        medians = {way: [] for way in ways}
        for _ in range(BLOCKS):
            for way, broadcast in ways.items():
                fleet.clear()
                await publish(broadcast, count=MESSAGES, every=EVERY)
                await fleet.until(MESSAGES)
                medians[way].append(arrivals_table(fleet.deliveries)["latency_ms"].median())
    await asyncio.gather(*relays)
    await close_lab()
    for way, values in medians.items():
        show(f"publish to a fan, {way}, median of {MESSAGES} × {FANS} fans", values, "ms")
    for way in ("Pub/Sub", "stream"):
        added = [there - here for there, here in zip(medians[way], medians["local"], strict=True)]
        show(f"  {way} adds", added, "ms")


if __name__ == "__main__":
    asyncio.run(main())
