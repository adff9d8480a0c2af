"""Answers to the exercises of notebook 04, "How does one message reach everyone?"."""

from fastapi import WebSocket, WebSocketDisconnect


async def safe_broadcast(connections: set, text: str):
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            # Its handler may have been faster; discard() does not mind.
            connections.discard(connection)


async def send_and_report(connections: set, text: str):
    dropped = []
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(connection)
            dropped.append(connection)
    return dropped


async def tell_everyone(connections: list, text: str):
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            if connection in connections:
                connections.remove(connection)


class FairManager:
    def __init__(self):
        self.connections: list[WebSocket] = []

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        self.connections.append(websocket)

    def disconnect(self, websocket: WebSocket):
        if websocket in self.connections:
            self.connections.remove(websocket)

    async def broadcast(self, text: str):
        for connection in self.connections.copy():
            try:
                await connection.send_text(text)
            except (WebSocketDisconnect, RuntimeError):
                self.disconnect(connection)
        # Who was first this time is last the next time; slices do not mind when nobody is here.
        self.connections = self.connections[1:] + self.connections[:1]
