"""The server's side of the scenarios: an endpoint for each, and what it saw of each client."""

import asyncio
import json
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

from fastapi import FastAPI, WebSocket
from fastapi.responses import FileResponse, HTMLResponse
from messages import COUNTS
from starlette.websockets import WebSocketDisconnect

# How many pings of the server each client has to answer, one after the other.
PINGS = 4
SCENARIOS = Path(__file__).with_name("scenarios.mjs")


class Broken(Exception):
    """What the endpoint raises in which a client looks for a goodbye in vain."""


class Rooms:
    """The control: the endpoints send themselves, to one client of a room after the other.

    It has the hub's verbs. One broadcast at a time, for a send that waits would let the next one overtake it.
    """

    def __init__(self):
        self.rooms = defaultdict(set)
        self.turns = defaultdict(asyncio.Lock)

    async def connect(self, websocket, room):
        """Accept, and add to the room."""
        await websocket.accept()
        self.rooms[room].add(websocket)

    def disconnect(self, websocket):
        """Take out of every room."""
        for members in self.rooms.values():
            members.discard(websocket)

    async def broadcast(self, text, room):
        """Send to all in the room; who has gone meanwhile is passed over."""
        async with self.turns[room]:
            for websocket in self.rooms[room].copy():
                with suppress(WebSocketDisconnect, RuntimeError):
                    await websocket.send_text(text)

    async def publish(self, text, room):
        """Send a text as the hub wraps it up."""
        await self.broadcast(json.dumps({"data": text}, ensure_ascii=False), room)

    async def drain(self, over):
        """Close all as the hub does."""
        for websocket in set().union(*self.rooms.values()):
            await websocket.close(1012, "come back")


def watched(protocol):
    """Return this protocol class, which in addition lets the endpoint see how far the connection is.

    In its scope's extensions: how many pings were answered, whether anything came behind the handshake, and the end.
    """

    class Watched(protocol):
        pings_answered = 0
        heard_early = None

        def connection_made(self, transport):
            self.lost = asyncio.Event()
            super().connection_made(transport)

        def handle_pong(self, event):
            awaited = self.pending_ping_payload
            super().handle_pong(event)
            if awaited is not None and self.pending_ping_payload is None:
                self.pings_answered += 1

        async def run_asgi(self):
            self.heard_early = asyncio.Event()
            self.scope["extensions"] |= {
                "pings_answered": lambda: self.pings_answered,
                "heard_early": self.heard_early,
                "lost": self.lost,
            }
            await super().run_asgi()

        def data_received(self, data):
            super().data_received(data)
            if self.heard_early is not None:
                self.heard_early.set()

        def connection_lost(self, exc):
            super().connection_lost(exc)
            self.lost.set()

    return Watched


class House:
    """An app with an endpoint for each scenario, at /ws/SCENARIO/CLIENT, and one page for browsers.

    broadcaster: a Hub, or Rooms; drained: another one, which is drained before the servers stop. guests: the clients
    without which no broadcast begins.
    .seen {(client, scenario): the messages that the endpoint got, and last [code, reason] of its end}.
    """

    def __init__(self, broadcaster, drained, guests):
        self.broadcaster = broadcaster
        self.drained = drained
        self.guests = frozenset(guests)
        self.seen = defaultdict(list)
        self.here = defaultdict(set)
        self.complete = defaultdict(asyncio.Event)
        self.said = 0
        self.app = FastAPI()
        self.app.websocket("/ws/{scenario}/{client}")(self.answer)
        self.app.get("/")(lambda: HTMLResponse("<!doctype html><title>Scenarios</title>"))
        self.app.get("/scenarios.mjs")(lambda: FileResponse(SCENARIOS, media_type="text/javascript"))

    async def answer(self, websocket: WebSocket, scenario: str, client: str):
        """Run the endpoint of a scenario, and note how it ended."""
        seen = self.seen[client, scenario]
        try:
            await getattr(self, scenario)(websocket, client, seen)
        except WebSocketDisconnect as end:
            seen.append([end.code, end.reason or ""])
            # The endpoint is slow to leave its room: what is broadcast meanwhile must not come behind the end.
            await websocket.scope["extensions"]["lost"].wait()
        finally:
            self.broadcaster.disconnect(websocket)
            self.drained.disconnect(websocket)

    def arrive(self, room, client):
        """Note that a client is ready in a room; the last one of all guests opens it."""
        self.here[room].add(client)
        if self.here[room] >= self.guests:
            self.complete[room].set()

    async def listen(self, websocket, room, client, seen, broadcaster=None):
        """Listen in a room until the end, whatever it is."""
        await (broadcaster or self.broadcaster).connect(websocket, room=room)
        while True:
            text = await websocket.receive_text()
            if text == "ready":
                self.arrive(room, client)
            else:
                seen.append(text)

    async def bodies(self, websocket, client, seen):
        """Listen to what is broadcast to this room."""
        await self.listen(websocket, "bodies", client, seen)

    async def shutdown(self, websocket, client, seen):
        """Listen until the server goes away."""
        await self.listen(websocket, "shutdown", client, seen)

    async def drain(self, websocket, client, seen):
        """Listen until the room is drained."""
        await self.listen(websocket, "drain", client, seen, self.drained)

    async def lonely_shutdown(self, websocket, client, seen):
        """Listen until the server goes away, without being in a room."""
        await websocket.accept()
        self.arrive("lonely_shutdown", client)
        seen.append(await websocket.receive_text())

    async def chat(self, websocket, client, seen):
        """Send each message back, and tell the room of it."""
        await self.broadcaster.connect(websocket, room="chat")
        await websocket.receive_text()
        self.arrive("chat", client)
        await self.complete["chat"].wait()
        await websocket.send_text("begin")
        while True:
            await self.echo_one(websocket)
            self.said += 1
            await self.broadcaster.publish(f"★ {self.said}: {client}", room="chat")
            if self.said == len(self.guests) * len(COUNTS):
                await self.broadcaster.publish("★ the end", room="chat")

    async def echo_one(self, websocket):
        """Send the next message back as what it came, text or bytes; return it."""
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message["code"], message.get("reason"))
        text = message.get("text")
        if text is not None:
            await websocket.send_text(text)
            return text
        await websocket.send_bytes(message["bytes"])
        return message["bytes"]

    async def echo(self, websocket, client, seen):
        """Send each message back, in a room of its client's name."""
        await self.broadcaster.connect(websocket, room=client)
        while True:
            seen.append(await self.echo_one(websocket))

    async def late_answer(self, websocket, client, seen):
        """Accept only when the client has sent something, which is too early; and echo."""
        await websocket.scope["extensions"]["heard_early"].wait()
        await self.echo(websocket, client, seen)

    async def too_big(self, websocket, client, seen):
        """Echo what is not."""
        await self.echo(websocket, client, seen)

    async def too_big_in_pieces(self, websocket, client, seen):
        """Echo what is not."""
        await self.echo(websocket, client, seen)

    async def client_pings(self, websocket, client, seen):
        """Let the protocol answer, and echo."""
        await self.echo(websocket, client, seen)

    async def idle_pings(self, websocket, client, seen):
        """Say "enough" when the client has answered some pings, with nothing said in between."""
        await websocket.accept()
        await self.until_answered(websocket)
        await websocket.send_text("enough")
        seen.append(await websocket.receive_text())
        seen.append(await websocket.receive_text())

    async def busy_pings(self, websocket, client, seen):
        """The same with a broadcast before each look."""
        await self.broadcaster.connect(websocket, room=f"busy {client}")
        await self.until_answered(websocket, room=f"busy {client}")
        await websocket.send_text("enough")
        seen.append(await websocket.receive_text())
        seen.append(await websocket.receive_text())

    async def until_answered(self, websocket, room=None):
        """Return when the client of this connection has answered its pings; broadcast to the room meanwhile."""
        ticks = 0
        while websocket.scope["extensions"]["pings_answered"]() < PINGS:
            await asyncio.sleep(0.005)
            if room:
                ticks += 1
                await self.broadcaster.broadcast(f"tick {ticks}", room=room)

    async def client_closes(self, websocket, client, seen):
        """Wait for the goodbye."""
        await self.listen(websocket, "client_closes", client, seen)

    async def client_closes_without_a_word(self, websocket, client, seen):
        """Wait for the goodbye."""
        await self.listen(websocket, "client_closes_without_a_word", client, seen)

    async def server_closes(self, websocket, client, seen):
        """Close as 4001, in a room."""
        await self.broadcaster.connect(websocket, room=client)
        seen.append(await websocket.receive_text())
        await websocket.close(4001, "no token – über")
        seen.append((await websocket.receive())["type"])
        await websocket.scope["extensions"]["lost"].wait()

    async def server_closes_normally(self, websocket, client, seen):
        """Close as 1000."""
        await websocket.accept()
        seen.append(await websocket.receive_text())
        await websocket.close(reason="done")

    async def endpoint_raises(self, websocket, client, seen):
        """Raise, in a room, and after a message."""
        await self.broadcaster.connect(websocket, room="endpoint_raises")
        seen.append(await websocket.receive_text())
        raise Broken(client)

    async def subprotocol(self, websocket, client, seen):
        """Choose the second of what is offered."""
        await websocket.accept(subprotocol=websocket.scope["subprotocols"][1])
        await self.echo_one(websocket)
        seen.append(await websocket.receive_text())

    async def idle(self, websocket, client, seen):
        """Echo once, be idle with the client until all others are done, and listen again."""
        await self.be_idle(websocket, "idle", client, seen)

    async def plain_idle(self, websocket, client, seen):
        """The same where nothing is compressed."""
        await self.be_idle(websocket, "plain_idle", client, seen)

    async def be_idle(self, websocket, room, client, seen):
        """Echo once, wait with the client for what the room is told, and listen again."""
        await self.broadcaster.connect(websocket, room=room)
        seen.append(await self.echo_one(websocket))
        self.arrive(room, client)
        seen.append(await self.echo_one(websocket))
        seen.append(await self.echo_one(websocket))
        seen.append(await websocket.receive_text())
