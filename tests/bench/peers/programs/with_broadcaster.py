"""Broadcast with encode/broadcaster in a Starlette app: a queue and an `async for` in each endpoint, over `memory://`.

The documented chat, with two changes: its Redis is the memory backend that the same page lists, so that no second
process is measured; and `lifespan` stands for `on_startup` and `on_shutdown`, which Starlette 1 no longer has.

source: pypi.org/project/broadcaster/0.3.1
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import under_uvicorn
from broadcaster import Broadcast as Broadcaster
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket
from turns import Broadcast, run

CHANNEL = "chatroom"
broadcast = Broadcaster("memory://")


async def chatroom(websocket: WebSocket) -> None:
    """Receive and send until one of the two ends."""
    await websocket.accept()
    async with anyio.create_task_group() as task_group:

        async def receive() -> None:
            await receiver(websocket)
            task_group.cancel_scope.cancel()

        task_group.start_soon(receive)
        await sender(websocket)


async def receiver(websocket: WebSocket) -> None:
    """Publish what a client says."""
    async for message in websocket.iter_text():
        await broadcast.publish(channel=CHANNEL, message=message)


async def sender(websocket: WebSocket) -> None:
    """Send a client what is published."""
    async with broadcast.subscribe(channel=CHANNEL) as subscriber:
        async for event in subscriber:
            await websocket.send_text(event.message)


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    """Keep the backend connected while the app runs."""
    async with broadcast:
        yield


async def start(port: int) -> Broadcast:
    """Listen, and return the broadcast."""
    app = Starlette(routes=[WebSocketRoute("/ws", chatroom)], lifespan=lifespan)
    serving = await under_uvicorn.serve(app, port)

    async def to_all(text: str, _alive: object = serving) -> None:
        await broadcast.publish(channel=CHANNEL, message=text)

    return to_all


if __name__ == "__main__":
    run("broadcaster", start)
