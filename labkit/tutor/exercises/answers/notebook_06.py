"""Answers to the exercises of notebook 06, "What does one sleeping phone cost everyone?"."""

import asyncio
from contextlib import suppress

from fastapi import WebSocket, WebSocketDisconnect

from labkit.broadcast.protocol import abort


async def broadcast_in_time(connections: set, text: str, timeout: float):
    websockets = list(connections)
    sends = [asyncio.wait_for(websocket.send_text(text), timeout) for websocket in websockets]
    results = await asyncio.gather(*sends, return_exceptions=True)
    for websocket, result in zip(websockets, results, strict=True):
        if isinstance(result, TimeoutError):
            abort(websocket)
        if isinstance(result, (TimeoutError, WebSocketDisconnect, RuntimeError)):
            connections.discard(websocket)
        elif result is not None:
            raise result


class MailboxManager:
    def __init__(self, size: int):
        self.size = size
        self.clients: dict[WebSocket, tuple[asyncio.Queue, asyncio.Task]] = {}

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        queue = asyncio.Queue(self.size)
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
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(text)


async def tell_fans(connections: set, text: str):
    websockets = list(connections)
    tasks = [asyncio.create_task(websocket.send_text(text)) for websocket in websockets]
    # An error inside a task comes out only where somebody waits for the task.
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for websocket, result in zip(websockets, results, strict=True):
        if isinstance(result, (WebSocketDisconnect, RuntimeError)):
            connections.discard(websocket)
        elif result is not None:
            raise result


class LatestManager:
    def __init__(self):
        self.clients: dict[WebSocket, tuple[asyncio.Queue, asyncio.Task]] = {}

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        # Room for one message: the newest.
        box = asyncio.Queue(1)
        self.clients[websocket] = box, asyncio.create_task(self.write(websocket, box))

    def disconnect(self, websocket: WebSocket):
        if websocket in self.clients:
            self.clients.pop(websocket)[1].cancel()

    async def write(self, websocket: WebSocket, box: asyncio.Queue):
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                await websocket.send_text(await box.get())
        self.disconnect(websocket)

    async def broadcast(self, text: str):
        for box, _ in self.clients.values():
            if box.full():
                box.get_nowait()
            box.put_nowait(text)
