"""Starters of notebook 06, "What does one sleeping phone cost everyone?"."""

import asyncio
from contextlib import suppress

from fastapi import WebSocket, WebSocketDisconnect


async def broadcast_in_time(connections: set, text: str, timeout: float):
    websockets = list(connections)
    sends = [websocket.send_text(text) for websocket in websockets]  # each with a time limit of its own
    results = await asyncio.gather(*sends, return_exceptions=True)
    for websocket, result in zip(websockets, results, strict=True):
        if isinstance(result, (WebSocketDisconnect, RuntimeError)):
            connections.discard(websocket)
        ...  # who was too slow is dropped too, and its socket freed; what nobody expected is raised


class MailboxManager:
    def __init__(self, size: int):
        self.size = size
        self.clients: dict[WebSocket, tuple[asyncio.Queue, asyncio.Task]] = {}

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        queue = asyncio.Queue()
        self.clients[websocket] = queue, asyncio.create_task(self.write(websocket, queue))

    def disconnect(self, websocket: WebSocket):
        if websocket in self.clients:
            self.clients.pop(websocket)[1].cancel()

    async def write(self, websocket: WebSocket, queue: asyncio.Queue):
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                await websocket.send_text(await queue.get())
        self.disconnect(websocket)

    async def broadcast(self, text: str):
        for queue, _ in self.clients.values():
            queue.put_nowait(text)


async def tell_fans(connections: set, text: str):
    for websocket in connections.copy():
        try:
            asyncio.create_task(websocket.send_text(text))  # noqa: RUF006
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(websocket)


class LatestManager:
    async def connect(self, websocket: WebSocket): ...

    def disconnect(self, websocket: WebSocket): ...

    async def broadcast(self, text: str): ...
