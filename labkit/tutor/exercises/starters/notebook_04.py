"""Starters of notebook 04, "How does one message reach everyone?"."""

from fastapi import WebSocket, WebSocketDisconnect


async def safe_broadcast(connections: set, text: str):
    for connection in connections.copy():
        await connection.send_text(text)
        ...  # a fan who is gone must not end the round, nor stay on the register


async def send_and_report(connections: set, text: str):
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(connection)


async def tell_everyone(connections: list, text: str):
    for connection in connections:
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.remove(connection)


class FairManager:
    def __init__(self): ...

    async def connect(self, websocket: WebSocket): ...

    def disconnect(self, websocket: WebSocket): ...

    async def broadcast(self, text: str): ...
