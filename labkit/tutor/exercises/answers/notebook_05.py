"""Answers to the exercises of notebook 05, "Where should this code live?"."""

from fastapi import WebSocket, WebSocketDisconnect


class CalmManager:
    def __init__(self):
        self.connections: list[WebSocket] = []

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        self.connections.append(websocket)

    def disconnect(self, websocket: WebSocket):
        if websocket in self.connections:
            self.connections.remove(websocket)

    async def broadcast(self, text: str):
        for websocket in self.connections.copy():
            await websocket.send_text(text)


class RoomwiseManager:
    def __init__(self):
        self.rooms: dict[str, set[WebSocket]] = {}

    async def connect(self, websocket: WebSocket, room: str):
        await websocket.accept()
        self.rooms.setdefault(room, set()).add(websocket)

    def disconnect(self, websocket: WebSocket):
        # A copy of the items: a room may be taken out on the way.
        for room, fans in list(self.rooms.items()):
            fans.discard(websocket)
            if not fans:
                del self.rooms[room]

    async def broadcast(self, text: str, room: str):
        for websocket in list(self.rooms.get(room, ())):
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
        for websocket in self.connections.copy():
            try:
                await websocket.send_text(text)
            except (WebSocketDisconnect, RuntimeError):
                self.disconnect(websocket)


class PresenceManager:
    def __init__(self):
        self.room_of: dict[WebSocket, str] = {}

    async def connect(self, websocket: WebSocket, room: str):
        await websocket.accept()
        self.room_of[websocket] = room
        await self.tell(room)

    async def disconnect(self, websocket: WebSocket):
        room = self.room_of.pop(websocket, None)
        if room is not None:
            await self.tell(room)

    async def tell(self, room: str):
        fans = [websocket for websocket, theirs in self.room_of.items() if theirs == room]
        for websocket in fans:
            try:
                await websocket.send_text(f"{room}: {len(fans)}")
            except (WebSocketDisconnect, RuntimeError):
                # Its own handler will let it go, and then the room hears of that.
                pass
