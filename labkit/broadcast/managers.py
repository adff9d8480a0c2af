"""The ladder: six ways to broadcast, one class for each rung, with the same three verbs on every rung.

`connect` takes a new client in, `disconnect` lets it go, `broadcast` sends one text to everyone who is connected at
that moment. Each class mends what the rung before breaks, and says what it still breaks itself. The bodies stand in the
notebooks line for line; `labkit.evidence.contract` runs all of them against the same six properties.

A send to a client that is gone raises one of two things: WebSocketDisconnect when the connection was lost, RuntimeError
when it was closed from our side.
"""

import asyncio
from contextlib import suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

from labkit.broadcast.policies import WHEN_FULL
from labkit.broadcast.protocol import abort


class NaiveManager:
    """The seed's own example, from its step 5: a list, and a loop that awaits one send after another.

    Two things differ from the print: the annotation is `list`, since `List` was never imported, and the message is
    called text, as on every rung. Still breaks: it walks the list that clients leave meanwhile, so a neighbour is
    skipped; one client that is gone ends the broadcast for the rest; a second disconnect raises ValueError; one client
    that does not read stops everyone.
    source: notebook 05, "The class as printed goes backwards"
    """

    def __init__(self):
        self.active_connections: list[WebSocket] = []

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        self.active_connections.append(websocket)

    def disconnect(self, websocket: WebSocket):
        self.active_connections.remove(websocket)

    async def broadcast(self, text: str):
        for connection in self.active_connections:
            await connection.send_text(text)


class SetManager:
    """Unlike NaiveManager: walks a copy, so nobody is skipped when a client leaves; disconnecting twice is no error.

    Still breaks: one client that is gone ends the broadcast for the rest; one that does not read stops everyone.
    source: notebook 03, "Changing while walking"
    """

    def __init__(self):
        self.connections: set[WebSocket] = set()

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        self.connections.add(websocket)

    def disconnect(self, websocket: WebSocket):
        self.connections.discard(websocket)

    async def broadcast(self, text: str):
        for websocket in self.connections.copy():
            await websocket.send_text(text)


class TolerantManager:
    """Unlike SetManager: a client that is gone is dropped, and the rest still get the message.

    It catches the two errors that a gone client raises and no other: a bug in our own code must not empty the registry.
    Still breaks: one client that does not read stops everyone.
    source: notebook 04, "One fan leaves during GOAL"
    """

    def __init__(self):
        self.connections: set[WebSocket] = set()

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        self.connections.add(websocket)

    def disconnect(self, websocket: WebSocket):
        self.connections.discard(websocket)

    async def broadcast(self, text: str):
        gone = set()
        for websocket in self.connections.copy():
            try:
                await websocket.send_text(text)
            except (WebSocketDisconnect, RuntimeError):
                gone.add(websocket)
        self.connections -= gone


class GatherManager:
    """Unlike TolerantManager: all sends wait at the same time, and the results say afterwards who is gone.

    For healthy clients this costs more than the loop; it pays where every send has to wait.
    Still breaks: broadcast returns when the last send does, so one client that does not read stops everyone as before.
    source: notebook 06, "Loop or gather?"
    """

    def __init__(self):
        self.connections: set[WebSocket] = set()

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        self.connections.add(websocket)

    def disconnect(self, websocket: WebSocket):
        self.connections.discard(websocket)

    async def broadcast(self, text: str):
        websockets = list(self.connections)
        sends = [websocket.send_text(text) for websocket in websockets]
        results = await asyncio.gather(*sends, return_exceptions=True)
        for websocket, result in zip(websockets, results, strict=True):
            if isinstance(result, (WebSocketDisconnect, RuntimeError)):
                self.disconnect(websocket)
            elif result is not None:
                raise result


class TimeoutManager:
    """Unlike GatherManager: a send may take `timeout` seconds; a client that takes longer loses its connection.

    The price is one gap of `timeout` seconds for everyone, once for each client that falls asleep.
    The trap: abort() needs a server that speaks HubProtocol. Without it, dropping a client leaves its socket open, for
    closing it would wait for a buffer that never empties.
    Still breaks: overlapping broadcasts overtake each other.
    source: notebook 06, "Who frees the socket?"
    """

    def __init__(self, *, timeout: float = 0.5):
        self.connections: set[WebSocket] = set()
        self.timeout = timeout

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        self.connections.add(websocket)

    def disconnect(self, websocket: WebSocket):
        self.connections.discard(websocket)

    async def broadcast(self, text: str):
        websockets = list(self.connections)
        sends = [asyncio.wait_for(websocket.send_text(text), self.timeout) for websocket in websockets]
        results = await asyncio.gather(*sends, return_exceptions=True)
        for websocket, result in zip(websockets, results, strict=True):
            if isinstance(result, TimeoutError):
                abort(websocket)
            if isinstance(result, (TimeoutError, WebSocketDisconnect, RuntimeError)):
                self.disconnect(websocket)
            elif result is not None:
                raise result


class QueueManager:
    """Unlike TimeoutManager: broadcast never waits; each client has a bounded queue, and a task that empties it.

    size: messages that may wait for one client. when_full: what becomes of a client whose queue is full; "drop_oldest"
    and "latest" leave a gap, "disconnect" lets it go and needs a server that speaks HubProtocol. One task for each
    client writes, so nothing overtakes. Raises KeyError for another policy; labkit.broadcast.policies has the three.
    Still breaks: after more than `size` calls without a pause everyone's queue is full, since the writers get no turn;
    with a policy that leaves gaps, the socket of a client that never reads stays open until the client goes.
    source: notebook 06, "The sleeping phone"
    """

    def __init__(self, *, size: int = 32, when_full: str = "drop_oldest"):
        self.size = size
        self.make_room = WHEN_FULL[when_full]
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
        for websocket, (queue, _) in list(self.clients.items()):
            if queue.full():
                self.make_room(self, websocket, queue)
            if websocket in self.clients:
                queue.put_nowait(text)
