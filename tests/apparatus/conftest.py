"""One small app that most tests of the apparatus serve: it takes everyone in and says nothing by itself."""

from dataclasses import dataclass, field

import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect


@dataclass
class Board:
    """An app, the connections in the order in which they came, and a loop that sends to all of them."""

    app: FastAPI = field(default_factory=FastAPI)
    connections: list[WebSocket] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)

    async def broadcast(self, text: str) -> None:
        """Send to all, one after another."""
        for connection in self.connections.copy():
            await connection.send_text(text)


@pytest.fixture
def board() -> Board:
    """Return a fresh board with its endpoint at /ws."""
    board = Board()

    @board.app.websocket("/ws")
    async def endpoint(websocket: WebSocket):
        await websocket.accept()
        board.connections.append(websocket)
        try:
            while True:
                board.heard.append(await websocket.receive_text())
        except WebSocketDisconnect:
            board.connections.remove(websocket)

    return board
