"""Starters of notebook 05, "Where should this code live?"."""

from fastapi import WebSocket, WebSocketDisconnect


class CalmManager:
    def __init__(self):
        self.connections: list[WebSocket] = []

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        self.connections.append(websocket)

    def disconnect(self, websocket: WebSocket): ...  # let this fan go; twice, or for a stranger, it does no harm

    async def broadcast(self, text: str):
        for websocket in self.connections.copy():
            await websocket.send_text(text)


class RoomwiseManager:
    def __init__(self):
        self.connections: set[WebSocket] = set()

    async def connect(self, websocket: WebSocket, room: str):
        await websocket.accept()
        self.connections.add(websocket)

    def disconnect(self, websocket: WebSocket):
        self.connections.discard(websocket)

    async def broadcast(self, text: str, room: str):
        for websocket in self.connections.copy():
            try:
                await websocket.send_text(text)
            except (WebSocketDisconnect, RuntimeError):
                self.disconnect(websocket)


class HushedManager:
    def __init__(self):
        self.connections: list[WebSocket] = []

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        self.connections.append(websocket)

    def disconnect(self, websocket: WebSocket):
        if websocket in self.connections:
            self.connections.remove(websocket)

    async def broadcast(self, text: str):
        try:
            for websocket in self.connections.copy():
                await websocket.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            self.disconnect(websocket)


class PresenceManager:
    async def connect(self, websocket: WebSocket, room: str): ...

    async def disconnect(self, websocket: WebSocket): ...
