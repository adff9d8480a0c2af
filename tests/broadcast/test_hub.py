"""The hub: what every client gets, in which order and how often, and what becomes of those who cannot keep up."""

import asyncio
import json
import logging
import re
import socket
import ssl
import subprocess
import sys
from contextlib import asynccontextmanager, suppress

import pytest
from fastapi import FastAPI, WebSocket
from starlette.websockets import WebSocketDisconnect
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from labkit import Fleet, serve
from labkit.apparatus.children import new_folder, start_child
from labkit.apparatus.faults import start_proxy
from labkit.apparatus.redis_server import RedisServer
from labkit.broadcast.hub import Hub, HubFull, Position
from labkit.broadcast.parts.hub.watch import Watch
from labkit.broadcast.protocol import HubProtocol, abort, connection_of
from labkit.evidence.contract import has_come_true

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

# Guards against hanging, and is never what a test measures.
PATIENCE = 15
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
# A thin network: a client that does not read is felt after some ten thousand bytes.
THIN = {"send_buffer_bytes": 4_096}
RECEIVE_BUFFER_BYTES = 4_096
# More than a thin network takes, and less than a write takes at once.
BODY = "x" * 50_000
on_both_protocols = pytest.mark.parametrize("protocol", [HubProtocol, WebSocketsSansIOProtocol])


class Site:
    """A hub behind a server, with the connections of its endpoints: /ws connects to the hub, /held only accepts.

    .websockets in the order in which they came, .endings the codes that their endpoints were told.
    """

    def __init__(self, hub):
        self.hub = hub
        self.websockets = []
        self.endings = []
        self.server = None
        self.app = FastAPI()
        self.app.websocket("/ws")(self._fan)
        self.app.websocket("/held")(self._held)

    async def _fan(self, websocket: WebSocket, room: str = "main", epoch: int | None = None, seq: int = 0):
        self.websockets.append(websocket)
        with suppress(WebSocketDisconnect):
            await self.hub.connect(websocket, room, None if epoch is None else (epoch, seq))
            await self._listen(websocket)

    async def _held(self, websocket: WebSocket):
        self.websockets.append(websocket)
        await websocket.accept()
        await self._listen(websocket)

    async def _listen(self, websocket):
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect as end:
            self.endings.append(end.code)
        finally:
            self.hub.disconnect(websocket)

    def fan(self, room="main", since=None, **options):
        """Connect a client of the websockets library, with the position that it has."""
        query = "" if since is None else f"&epoch={since[0]}&seq={since[1]}"
        return connect(self.server.ws_url(f"/ws?room={room}{query}"), compression=None, **options)

    @asynccontextmanager
    async def held(self, **options):
        """Connect a client that its endpoint has only accepted; give it, and its connection."""
        async with connect(self.server.ws_url("/held"), compression=None, **options) as client:
            yield client, self.websockets[-1]

    async def publish_until(self, count, room="main", each=lambda number: number):
        """Publish numbers from 1, one in each turn of the loop."""
        for number in range(1, count + 1):
            self.hub.publish(each(number), room)
            await asyncio.sleep(0)


@asynccontextmanager
async def site(*, name="main", protocol=HubProtocol, deflate=False, server_options=(), **options):
    """Start a hub with these options behind a server."""
    it = Site(Hub(**options))
    async with it.hub:
        it.server = await serve(it.app, name, protocol=protocol, deflate=deflate, **dict(server_options))
        try:
            yield it
        finally:
            await it.server.stop()


async def hear(fan):
    """Return the next text that a client gets."""
    return await asyncio.wait_for(fan.recv(), PATIENCE)


async def hear_all(fan, count):
    """Return what the next messages carry."""
    return [json.loads(await hear(fan))["data"] for _ in range(count)]


async def hear_until(fan, last):
    """Return the messages that a client gets up to the one that carries this."""
    heard = []
    while not heard or heard[-1]["data"] != last:
        heard.append(json.loads(await hear(fan)))
    return heard


async def hear_to_the_end(fan):
    """Return the texts that a client still gets, and the code of its end, None without a close frame."""
    texts = []
    async with asyncio.timeout(PATIENCE):
        try:
            while True:
                texts.append(await fan.recv())
        except ConnectionClosed as closed:
            return texts, closed.rcvd and closed.rcvd.code


def numbers_of(deliveries, client=1):
    """Return the numbers that the messages of a client begin with, of which a fleet keeps no more than their heads."""
    return [int(re.search(r'"data": \[(\d+)', each.text)[1]) for each in deliveries if each.client == client]


class RawClient:
    """A client of bare bytes, which keeps every frame, and answers none but the close frame."""

    def __init__(self, stream):
        self.stream = stream
        self._bytes = b""
        self._has_closed = False

    @classmethod
    async def open(cls, server, path="/ws", *, receive_buffer_bytes=None):
        """Shake hands with a server."""
        stream = socket.socket()
        if receive_buffer_bytes is not None:
            stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        stream.setblocking(False)
        client = cls(stream)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(stream, (server.host, server.port))
        request = f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        request += "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        await loop.sock_sendall(stream, request.encode())
        while b"\r\n\r\n" not in client._bytes:
            client._bytes += await asyncio.wait_for(loop.sock_recv(stream, 1), PATIENCE)
        assert client._bytes.startswith(b"HTTP/1.1 101")
        client._bytes = b""
        return client

    def say(self, *frames):
        """Send frames, as (opcode, payload), in one segment."""
        self._has_closed |= any(code == CLOSE for code, _ in frames)
        masked = (bytes([0x80 | code, 0x80 | len(payload)]) + bytes(4) + payload for code, payload in frames)
        self.stream.send(b"".join(masked))

    @property
    def segments(self):
        """How many segments with data have come."""
        # tcpi_data_segs_in of Linux's struct tcp_info.
        return int.from_bytes(self.stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 156)[152:], sys.byteorder)

    async def to_the_end(self):
        """Return all frames until the connection ends, and hang up; answer the close frame, unless it is an answer."""
        loop, frames = asyncio.get_running_loop(), []
        async with asyncio.timeout(PATIENCE):
            try:
                while data := await loop.sock_recv(self.stream, 2**20):
                    self._bytes += data
                    while (frame := self._next_frame()) is not None:
                        frames.append(frame)
                    if frames and frames[-1][0] == CLOSE and not self._has_closed:
                        self.say((CLOSE, b""))
            except ConnectionResetError:
                pass
        self.stream.close()
        return frames

    def _next_frame(self):
        """Take the next (opcode, payload) from what has come; None while it is not whole."""
        if len(self._bytes) < 2:
            return None
        more = {126: 2, 127: 8}.get(self._bytes[1], 0)
        length = int.from_bytes(self._bytes[2 : 2 + more]) if more else self._bytes[1]
        end = 2 + more + length
        if len(self._bytes) < end:
            return None
        opcode, payload = self._bytes[0], self._bytes[2 + more : end]
        self._bytes = self._bytes[end:]
        assert opcode & 0xF0 == 0x80, "a frame with an extension that nobody asked for, or a piece of a message"
        return opcode & 0x0F, payload

    def close(self):
        """Hang up."""
        self.stream.close()


def split(frames):
    """Return what messages carry, and the code of the close frame, behind which there must be nothing."""
    *texts, (opcode, payload) = frames
    assert {each for each, _ in texts} <= {TEXT, PONG, PING}
    assert opcode == CLOSE
    return [json.loads(text)["data"] for each, text in texts if each == TEXT], int.from_bytes(payload[:2])


@pytest.fixture
async def redis_server(lab, monkeypatch):
    """Give a Redis of this test's own, in memory only."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    async with RedisServer() as redis_server:
        yield redis_server


# ---- what is published, and what arrives


@on_both_protocols
async def test_message_goes_out_in_an_envelope_and_a_text_as_it_is(protocol):
    """And the receipt, there at once, names the position that clients see."""
    async with site(protocol=protocol) as it, it.fan() as one, it.fan() as two:
        receipt = it.hub.publish({"home": 1, "för": ["★", None]})
        assert receipt.done()
        epoch, seq = await receipt
        await it.hub.broadcast("Tor! ★")
        assert (await it.hub.publish("x")) == (epoch, seq + 2) == (epoch, 3)
        expected = f'{{"epoch": {epoch}, "seq": 1, "data": {{"home":1,"för":["★",null]}}}}'
        for fan in (one, two):
            assert await hear(fan) == expected
            assert await hear(fan) == "Tor! ★"
            assert json.loads(await hear(fan))["data"] == "x"


async def test_what_json_cannot_carry_changes_nothing():
    """It is told to whoever publishes it; no number is given away, and the next message goes out."""
    async with site() as it, it.fan() as fan:
        circle = []
        circle.append(circle)
        for wrong, error in (
            ({"when": object()}, TypeError),
            ({(1, 2): 3}, TypeError),
            (float("nan"), ValueError),
            ([float("inf")], ValueError),
            (circle, ValueError),
            ("half \ud83d", UnicodeEncodeError),
        ):
            with pytest.raises(error):
                it.hub.publish(wrong)
        with pytest.raises(UnicodeEncodeError):
            await it.hub.broadcast("half \ud83d")
        assert (await it.hub.publish("GOAL")).seq == 1
        assert await hear_all(fan, 1) == ["GOAL"]
        assert it.hub.stats().publishes == 1


async def test_frames_of_any_length_arrive_whole():
    """At the borders between the three forms that the length of a frame has."""
    async with site() as it, it.fan() as fan:
        lengths = [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 200_000]
        for length in lengths:
            await it.hub.broadcast("x" * length)
        for length in lengths:
            assert await hear(fan) == "x" * length


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts segments")
async def test_messages_of_one_turn_go_out_in_one_write():
    """Sixteen messages are one segment; one in each turn are sixteen."""
    async with site() as it:
        client = await RawClient.open(it.server)
        before = client.segments
        for number in range(16):
            it.hub.publish(number)
        await has_come_true(lambda: client.segments > before, within=PATIENCE)
        assert client.segments == before + 1
        await it.publish_until(16)
        await has_come_true(lambda: client.segments > before + 16, within=PATIENCE)
        assert client.segments == before + 17
        await it.websockets[0].close()
        heard, _ = split(await client.to_the_end())
        assert heard == [*range(16), *range(1, 17)]


async def test_rooms_hear_only_their_own_and_count_for_themselves():
    """Two rooms, two counts."""
    async with site() as it, it.fan("a") as one, it.fan("b") as two:
        assert [(await it.hub.publish(n, "a")).seq for n in range(3)] == [1, 2, 3]
        assert (await it.hub.publish("b", "b")).seq == 1
        it.hub.publish("end", "a")
        assert await hear_all(one, 4) == [0, 1, 2, "end"]
        assert await hear_all(two, 1) == ["b"]
        assert it.hub.stats().rooms == 2


async def test_compressed_connection_takes_both_kinds_of_frames():
    """What the endpoint sends is compressed with a context that goes on over what the hub sends in between."""
    async with site(deflate=True) as it, connect(it.server.ws_url("/ws"), compression="deflate") as fan:
        [websocket] = it.websockets
        assert fan.response.headers["Sec-WebSocket-Extensions"].startswith("permessage-deflate")
        for number in range(20):
            await websocket.send_text(f"to you: {number} {BODY}")
            await it.hub.broadcast(f"to all: {number} {BODY}")
            assert await hear(fan) == f"to you: {number} {BODY}"
            assert await hear(fan) == f"to all: {number} {BODY}"


async def test_client_with_a_subprotocol_is_one_like_the_others():
    """Its endpoint accepts before the hub does."""
    it = Site(Hub())

    @it.app.websocket("/chat")
    async def chat(websocket: WebSocket):
        await websocket.accept(subprotocol="chat.v1")
        await it.hub.connect(websocket)
        await it._listen(websocket)

    it.server = await serve(it.app, protocol=HubProtocol)
    async with connect(it.server.ws_url("/chat"), subprotocols=["chat.v1"]) as fan:
        assert fan.subprotocol == "chat.v1"
        it.hub.publish("GOAL")
        assert await hear_all(fan, 1) == ["GOAL"]


async def test_endpoint_may_send_between_messages():
    """Each of both kinds in order and once, also while the client reads so slowly that both have to wait."""
    async with site(**THIN) as it:
        fleet = await Fleet(it.server, slow=1, receive_buffer_bytes=RECEIVE_BUFFER_BYTES, slow_pause=0.001).connect()
        [websocket] = it.websockets
        # The fleet reads 4096 bytes at a time, so this is some hundred reads.
        for number in range(60):
            it.hub.publish([number, BODY[:3_000]])
            await websocket.send_text(json.dumps({"data": [number + 1_000, BODY[:3_000]]}))
        await fleet.until(120, timeout=PATIENCE)
        heard = numbers_of(fleet.deliveries)
        assert [number for number in heard if number < 1_000] == list(range(60))
        assert [number for number in heard if number >= 1_000] == list(range(1_000, 1_060))


# ---- a sweep over more than one slice


async def test_order_is_kept_over_slices_while_members_come_go_and_sleep():
    """600 clients are more than two slices. Each turn brings a message; some leave, some sleep and wake up."""
    count = 60
    async with site(**THIN) as it:
        crowd = await Fleet(
            it.server, healthy=600, stalled=3, name="crowd", receive_buffer_bytes=RECEIVE_BUFFER_BYTES
        ).connect()
        async with it.held() as (a, one), it.held() as (b, two), it.held() as (c, three):
            held, newcomers, begins, going = [one, two, three], [a, b, c], [], []
            for number in range(1, count + 1):
                it.hub.publish([number, BODY[:2_000]])
                await asyncio.sleep(0)
                if number % 20 == 10:
                    # Nothing waits in here, so it joins in the middle of a sweep.
                    catch_up = await it.hub.connect(held.pop())
                    begins.append(catch_up.after.seq)
                if number == 20:
                    going.append(asyncio.create_task(crowd.vanish(*range(5, 600, 50))))
                    going.append(asyncio.create_task(crowd.leave(*range(7, 600, 50))))
                if number == 40:
                    going.append(asyncio.create_task(crowd.wake(601, 602, 603)))
            await asyncio.gather(*going)
            gone = {*range(5, 600, 50), *range(7, 600, 50)}
            it.hub.publish(["end"])
            stayers = [client for client in range(1, 604) if client not in gone]
            await crowd.until(count + 1, clients=stayers, timeout=PATIENCE)
            heard = {}
            for each in crowd.deliveries:
                heard.setdefault(each.client, []).append(int(re.search(r'"seq": (\d+)', each.text)[1]))
            assert all(heard[client] == list(range(1, count + 2)) for client in stayers)
            assert all(heard.get(client, []) == list(range(1, len(heard.get(client, [])) + 1)) for client in gone)
            for fan, begin in zip(reversed(newcomers), begins, strict=True):
                seqs = [said["seq"] for said in await hear_until(fan, ["end"])]
                assert seqs == list(range(begin + 1, count + 2))


async def test_newcomer_during_a_sweep_gets_what_is_published_after_it():
    """Not what the sweep still carries, and all that comes behind it, although nothing of that was kept for anybody."""
    async with site(history=0) as it:
        crowd = await Fleet(it.server, healthy=300).connect()
        async with it.held() as (fan, websocket):
            it.hub.publish("before")
            await asyncio.sleep(0)
            it.hub.publish("between")
            catch_up = await it.hub.connect(websocket)
            assert catch_up.after.seq == 2
            it.hub.publish("after")
            assert await hear_all(fan, 1) == ["after"]
            it.hub.publish("end")
            await crowd.until(4, timeout=PATIENCE)
            texts = {(each.client, json.loads(each.text)["data"]) for each in crowd.deliveries}
            assert len(texts) == 300 * 4


async def test_sweep_survives_whom_it_loses():
    """Half of the crowd is cut off between two slices; the other half hears of everything, and the room goes on."""
    async with site() as it:
        crowd = await Fleet(it.server, healthy=300).connect()
        it.hub.publish("GOAL")
        await asyncio.sleep(0)
        for websocket in it.websockets[1::2]:
            abort(websocket)
        it.hub.publish("end")
        await crowd.until(2, clients=list(range(1, 301, 2)), timeout=PATIENCE)
        assert await has_come_true(lambda: it.hub.stats().clients == 150, within=PATIENCE)
        assert it.server.connections == 150


# ---- coming back


@on_both_protocols
async def test_client_that_comes_back_gets_what_it_missed(protocol):
    """All of it, in order and once, and before that where it stands."""
    async with site(protocol=protocol) as it:
        positions = [await it.hub.publish(number) for number in range(10)]
        epoch = positions[0].epoch
        for seq in (0, 3, 9, 10):
            async with it.fan(since=(epoch, seq)) as fan:
                assert json.loads(await hear(fan)) == {"position": [epoch, seq], "recovered": True}
                last = await it.hub.publish(f"end of {seq}")
                heard = await hear_until(fan, f"end of {seq}")
                assert [said["data"] for said in heard[: 10 - seq]] == list(range(seq, 10))
                assert [said["seq"] for said in heard] == list(range(seq + 1, last.seq + 1))


async def test_client_is_told_what_cannot_be_recovered():
    """Too little kept, another epoch, a position that nobody has given: it gets what there is, and knows."""
    async with site(history=5) as it:
        for number in range(1, 11):
            last = await it.hub.publish(number)
            await asyncio.sleep(0)
        epoch = last.epoch
        kept, nothing = [6, 7, 8, 9, 10], []
        for since, after, expected, recovered in (
            ((epoch, 5), [epoch, 5], kept, True),
            ((epoch, 4), [epoch, 4], kept, False),
            ((0, 0), [0, 0], kept, False),
            ((epoch - 1, 8), [epoch - 1, 8], kept, False),
            ((epoch, 11), [epoch, 10], nothing, False),
            ((epoch + 1, 3), [epoch, 10], nothing, False),
        ):
            async with it.held() as (fan, websocket):
                await it.hub.connect(websocket, since=since)
                await websocket.send_text('{"data": "end"}')
                hello = json.loads(await hear(fan))
                assert (since, hello) == (since, {"position": after, "recovered": recovered})
                assert [said["data"] for said in await hear_until(fan, "end")] == [*expected, "end"]


async def test_history_is_bounded_in_bytes_too():
    """Of messages of 10 kB, 35 kB keep three."""
    async with site(history_bytes=35_000) as it:
        for number in range(10):
            last = await it.hub.publish([number, BODY[:10_000]])
            await asyncio.sleep(0)
        assert it.hub.stats().queue_bytes < 35_000
        async with it.fan(since=(last.epoch, 7)) as fan:
            assert json.loads(await hear(fan))["recovered"]
            assert [number for number, _ in await hear_all(fan, 3)] == [7, 8, 9]
        async with it.fan(since=(last.epoch, 6)) as fan:
            assert not json.loads(await hear(fan))["recovered"]


async def test_first_client_of_all_misses_nothing():
    """(0, 0) in a room where nothing was published is recovered; without a position there is no word about it."""
    async with site() as it, it.fan(since=(0, 0)) as first, it.fan() as second:
        assert json.loads(await hear(first)) == {"position": [0, 0], "recovered": True}
        it.hub.publish("GOAL")
        assert await hear_all(first, 1) == await hear_all(second, 1) == ["GOAL"]


async def test_positions_of_one_room_are_none_of_another():
    """Each has an epoch of its own."""
    async with site() as it:
        one = await it.hub.publish("a", "a")
        two = await it.hub.publish("b", "b")
        assert one.epoch != two.epoch
        async with it.fan("b", since=one) as fan:
            assert not json.loads(await hear(fan))["recovered"]


async def test_client_comes_back_while_every_turn_brings_a_message():
    """From any position, before, in the middle of and behind a sweep of several slices: nothing twice, no gap."""
    count = 60
    async with site(history=1_000) as it:
        await Fleet(it.server, healthy=300, count_only=True).connect()
        epoch = (await it.hub.publish(0)).epoch
        async with it.held() as (a, one), it.held() as (b, two), it.held() as (c, three), it.held() as (d, four):
            held, fans = [(one, 1), (two, 5), (three, 2), (four, 40)], [a, b, c, d]
            for number in range(2, count + 1):
                it.hub.publish(number)
                if number in (11, 22, 41, 42):
                    websocket, seq = held.pop(0)
                    await it.hub.connect(websocket, since=(epoch, seq))
                await asyncio.sleep(0)
            it.hub.publish("end")
            for fan, seq in zip(fans, (1, 5, 2, 40), strict=True):
                assert json.loads(await hear(fan)) == {"position": [epoch, seq], "recovered": True}
                heard = [said["seq"] for said in await hear_until(fan, "end")]
                assert heard == list(range(seq + 1, count + 2))


async def test_much_that_was_missed_is_not_held_against_whoever_comes_back():
    """Five megabytes of history for a client whose queue may have one, and news behind it."""
    async with site(max_queue_bytes=2**20, **THIN) as it:
        await it.publish_until(100, each=lambda number: [number, BODY])
        epoch, _ = await it.hub.publish([101, BODY])
        async with it.fan(since=(epoch, 0), max_queue=1) as fan:
            assert json.loads(await hear(fan))["recovered"]
            for number in range(102, 110):
                it.hub.publish([number, BODY])
            assert [number for number, _ in await hear_all(fan, 109)] == list(range(1, 110))
        assert it.hub.stats().evictions == {}


async def test_what_came_in_one_burst_is_not_held_against_whoever_comes_back_in_the_middle_of_it():
    """Published, not yet written to anybody, and there before the client was."""
    async with site(max_queue_bytes=10_000) as it, it.held() as (fan, websocket):
        epoch, _ = await it.hub.publish([0, ""])
        for number in range(1, 6):
            it.hub.publish([number, BODY[:10_000]])
        await it.hub.connect(websocket, since=(epoch, 1))
        assert json.loads(await hear(fan))["recovered"]
        assert [number for number, _ in await hear_all(fan, 5)] == [1, 2, 3, 4, 5]


# ---- who cannot keep up


async def sleeping(it, number=1, path="/ws", **behaviours):
    """Connect clients that never read, and others, and fill the buffers of those who do not; return the fleet."""
    fleet = await Fleet(it.server, path, receive_buffer_bytes=RECEIVE_BUFFER_BYTES, **behaviours).connect()
    it.hub.publish([number, BODY])
    await asyncio.sleep(0)
    return fleet


async def test_client_that_takes_nothing_is_cut_off_and_one_that_takes_a_little_is_not():
    """Its socket is freed; the others lose nothing, and the slow one needs many times what the sleeper was given."""
    async with site(stalled_after=0.2, **THIN) as it:
        fleet = await sleeping(it, healthy=2, slow=1, stalled=1, slow_pause=0.02)
        for number in range(2, 61):
            it.hub.publish([number, BODY[:5_000]])
            await asyncio.sleep(0)
        assert it.hub.stats().behind >= 1
        assert await has_come_true(lambda: it.server.connections == 3, within=PATIENCE)
        assert it.endings == [1005]
        await fleet.until(60, clients=[1, 2, 3], timeout=PATIENCE)
        assert all(numbers_of(fleet.deliveries, client) == list(range(1, 61)) for client in (1, 2, 3))
        assert numbers_of(fleet.deliveries, 4) == []
        stats = it.hub.stats()
        assert (stats.evictions, stats.clients, stats.behind, stats.drops) == ({"stalled": 1}, 3, 0, 0)


async def test_client_that_sleeps_before_it_is_connected_is_cut_off_too():
    """Nobody tells the hub that it begins to sleep."""
    async with site(stalled_after=0.2, **THIN) as it:
        await Fleet(it.server, "/held", stalled=1, receive_buffer_bytes=RECEIVE_BUFFER_BYTES).connect()
        [websocket] = it.websockets
        waiting = asyncio.create_task(websocket.send_text("x" * 10_000_000))
        await asyncio.sleep(0)
        waiting_too = asyncio.create_task(websocket.send_text("x"))
        await asyncio.sleep(0)
        await it.hub.connect(websocket)
        assert await has_come_true(lambda: it.server.connections == 0, within=PATIENCE)
        await asyncio.wait({waiting, waiting_too})
        assert isinstance(waiting_too.exception(), WebSocketDisconnect)
        assert it.hub.stats().evictions == {"stalled": 1}


@pytest.mark.parametrize("when_full", ["disconnect", "drop_oldest", "latest"])
async def test_policy_decides_what_a_full_queue_leaves(when_full):
    """Exactly what fits, the newest alone, or no connection; and never more bytes than the bound."""
    history = 5
    async with site(when_full=when_full, max_queue_bytes=20_000, history=history, stalled_after=60, **THIN) as it:
        fleet = await sleeping(it, healthy=1, stalled=1)
        most = 0
        for number in range(2, 102):
            it.hub.publish([number, BODY[:1_000]])
            # Without this even whoever reads would fall behind.
            await fleet.until(number, clients=[1], timeout=PATIENCE)
            most = max(most, it.hub.stats().queue_bytes)
        # The first message lies in the history and, what the network did not take of it, in the transport.
        assert most < 2 * len(BODY) + 20_000 + 2_000 * history
        assert numbers_of(fleet.deliveries) == list(range(1, 102))
        await fleet.wake(2)
        stats = it.hub.stats()
        if when_full == "disconnect":
            assert (stats.evictions, it.server.connections, numbers_of(fleet.deliveries, 2)) == ({"slow": 1}, 1, [])
            return
        size = len(f'{{"epoch": 1795704841774, "seq": 100, "data": [100,"{BODY[:1_000]}"]}}') + 4
        kept = 20_000 // size if when_full == "drop_oldest" else 1
        await fleet.until(1 + kept, clients=[2], timeout=PATIENCE)
        assert numbers_of(fleet.deliveries, 2) == [1, *range(102 - kept, 102)]
        stats = it.hub.stats()
        assert (stats.drops, stats.evictions, stats.clients) == (100 - kept, {}, 2)
        # It is one of the others again.
        it.hub.publish([102])
        await fleet.until(2 + kept, clients=[2], timeout=PATIENCE)


@on_both_protocols
async def test_what_was_kept_for_one_alone_goes_as_soon_as_it_has_it(protocol):
    """No message has to come for that."""
    async with site(protocol=protocol, history=0, max_queue_bytes=2**23, stalled_after=60, **THIN) as it:
        fleet = await sleeping(it, stalled=1)
        for number in range(2, 102):
            last = await it.hub.publish([number, BODY])
            await asyncio.sleep(0)
        assert len(it.hub.room("main").log) > 1
        await fleet.wake(1)
        await fleet.until(last.seq, clients=[1], timeout=PATIENCE)
        assert await has_come_true(lambda: it.hub.stats().queue_bytes == 0, within=PATIENCE)


async def test_unknown_policy_and_bounds_that_are_none_are_refused():
    """When the hub is made."""
    with pytest.raises(ValueError, match="drop_newest"):
        Hub(when_full="drop_newest")
    for wrong in ({"history": -1}, {"max_queue_bytes": 0}, {"stalled_after": 0}, {"history_bytes": 0}):
        with pytest.raises(ValueError, match="bound"):
            Hub(**wrong)


async def test_memory_is_bounded_over_all_rooms():
    """Ten rooms with three sleepers each: those who have slept longest go first, and whoever reads loses nothing."""
    bound = 1_000_000
    async with site(
        max_total_bytes=bound, max_queue_bytes=300_000, stalled_after=60, history_bytes=200_000, **THIN
    ) as it:
        rooms = [f"room{number}" for number in range(10)]
        fans = [
            await Fleet(it.server, f"/ws?room={room}", name=room, in_kernel=True, healthy=1).connect() for room in rooms
        ]
        for room in rooms:
            await Fleet(
                it.server, f"/ws?room={room}", name=f"sleepers of {room}", in_kernel=True, stalled=3,
                receive_buffer_bytes=RECEIVE_BUFFER_BYTES,
            ).connect()  # fmt: skip
        for number in range(1, 21):
            for room in rooms:
                it.hub.publish([number, BODY[:20_000]], room)
                await asyncio.sleep(0)
                assert it.hub.stats().queue_bytes <= bound
        for fan in fans:
            await fan.until(20, timeout=PATIENCE)
            assert numbers_of(fan.deliveries) == list(range(1, 21))
        stats = it.hub.stats()
        assert set(stats.evictions) <= {"memory", "slow"}
        assert stats.evictions["memory"]
        assert stats.clients == 40 - sum(stats.evictions.values())
        assert await has_come_true(lambda: it.server.connections == stats.clients, within=PATIENCE)


async def test_too_much_without_a_pause_is_refused():
    """In one room or in many; what was taken arrives, and a refused message gets no number."""
    async with site(max_total_bytes=300_000) as it, it.fan("a") as one, it.fan("b") as two:
        taken = {"a": [], "b": []}
        refused = None
        while refused is None:
            for room, numbers in taken.items():
                try:
                    numbers.append((await it.hub.publish(BODY, room)).seq)
                except HubFull as error:
                    refused = error
                assert it.hub.stats().queue_bytes <= 300_000
        assert "await" in str(refused)
        for fan, numbers in zip((one, two), taken.values(), strict=True):
            heard = [json.loads(await hear(fan))["seq"] for _ in numbers]
            assert heard == numbers == list(range(1, len(numbers) + 1))
        assert (await it.hub.publish("GOAL", "a")).seq == len(taken["a"]) + 1
        assert await hear_all(one, 1) == ["GOAL"]


async def test_message_larger_than_a_queue_reaches_whoever_reads():
    """One at a time; the policy is for those who fall behind."""
    async with site(max_queue_bytes=10_000, **THIN) as it:
        fleet = await Fleet(it.server, healthy=3).connect()
        for number in range(1, 4):
            await it.hub.broadcast(f'"data": [{number}] {"x" * 500_000}')
            await fleet.until(number, timeout=PATIENCE)
        assert numbers_of(fleet.deliveries) == [1, 2, 3]
        assert it.hub.stats().evictions == {}


# ---- the end of a connection

BURST = 20


@pytest.mark.parametrize(
    ("ending", "code"),
    [("endpoint", 4_000), ("client", 1_000), ("client, behind a ping", 1_000), ("too big", 1_009), ("shutdown", 1_012),
     ("drain", 1_012), ("silence", 1_011)],
)  # fmt: skip
async def test_nothing_comes_behind_a_close_frame(ending, code):
    """Whoever says goodbye, in the middle of a burst; what was published before the server's own comes first."""
    options = {"max_message_bytes": 50}
    if ending == "silence":
        options |= {"ping_interval": 0.1, "ping_timeout": 0.1}
    async with site(server_options=options.items()) as it:
        client = await RawClient.open(it.server)
        [websocket] = it.websockets
        hearing = asyncio.create_task(client.to_the_end())
        # What a client says here is read behind the first of the sweeps that the burst needs.
        goodbye = (CLOSE, b"\x03\xe8")
        if ending == "client":
            client.say(goodbye)
        elif ending == "client, behind a ping":
            client.say((PING, b"?"), goodbye)
        elif ending == "too big":
            client.say((TEXT, b"x" * 51))
        for number in range(BURST):
            it.hub.publish([number, BODY])
        if ending == "endpoint":
            await websocket.close(code)
        elif ending == "shutdown":
            await it.server.stop()
        elif ending == "drain":
            await it.hub.drain(over=0)
        number = BURST
        while it.hub.stats().clients:
            it.hub.publish([number, BODY[:1_000]])
            number += 1
            await asyncio.sleep(0)
        it.hub.publish("behind")
        heard, seen = split(await hearing)
        assert seen == code
        assert [number for number, _ in heard] == list(range(len(heard)))
        if ending in ("endpoint", "drain"):
            assert len(heard) >= BURST
        assert await has_come_true(lambda: it.server.connections == 0, within=PATIENCE)


@on_both_protocols
async def test_what_was_published_a_moment_ago_comes_before_the_goodbye(protocol):
    """No turn of the loop in between."""
    async with site(protocol=protocol) as it, it.fan() as fan:
        hearing = asyncio.create_task(hear_to_the_end(fan))
        it.hub.publish("GOAL")
        await it.hub.drain(over=0)
        [text], code = await hearing
        assert (json.loads(text)["data"], code) == ("GOAL", 1012)


@pytest.mark.parametrize("ending", ["endpoint", "drain"])
async def test_all_that_was_published_comes_before_the_close_frame_of_a_slow_client_too(ending):
    """Half a megabyte, of which a thin network takes a hundredth at once."""
    async with site(**THIN) as it, it.fan(max_queue=1) as fan:
        for number in range(10):
            it.hub.publish([number, BODY])
        ending = asyncio.create_task(it.websockets[0].close() if ending == "endpoint" else it.hub.drain(over=0))
        texts, code = await hear_to_the_end(fan)
        await ending
        assert [json.loads(text)["data"][0] for text in texts] == list(range(10))
        assert code in (1000, 1012)


async def test_first_text_comes_first_also_where_the_endpoint_closes_at_once():
    """In the middle of a sweep, where a newcomer has to wait."""
    async with site() as it, it.fan(), it.held() as (fan, websocket):
        for number in range(3):
            epoch, _ = await it.hub.publish([number, BODY])
        await asyncio.sleep(0)
        await it.hub.connect(websocket, since=(epoch, 0))
        await websocket.close()
        texts, code = await hear_to_the_end(fan)
        assert json.loads(texts[0]) == {"position": [epoch, 0], "recovered": True}
        assert [json.loads(text)["data"][0] for text in texts[1:]] == [0, 1, 2]
        assert code == 1000


async def test_client_may_be_let_go_twice_and_come_back_into_another_room():
    """While it stays connected; what comes in the first room it hears no more, and what was on its way it hears."""
    async with site() as it, it.held() as (fan, websocket):
        it.hub.disconnect(websocket)
        await it.hub.connect(websocket, "a")
        with pytest.raises(ValueError, match="'a' already"):
            await it.hub.connect(websocket, "b")
        it.hub.publish("in a", "a")
        await asyncio.sleep(0)
        it.hub.disconnect(websocket)
        it.hub.disconnect(websocket)
        it.hub.publish("no more", "a")
        await it.hub.connect(websocket, "b")
        it.hub.publish("no more", "a")
        it.hub.publish("in b", "b")
        assert await hear_all(fan, 2) == ["in a", "in b"]
        await websocket.send_text("from the endpoint")
        assert await hear(fan) == "from the endpoint"
        assert it.hub.stats().clients == 1


async def test_slow_client_may_change_rooms():
    """In the middle of a message that it takes slowly: it is not cut off for what it did not take in the other room."""
    async with site(stalled_after=0.2, **THIN) as it:
        fleet = await Fleet(it.server, "/held", stalled=1, receive_buffer_bytes=RECEIVE_BUFFER_BYTES).connect()
        [websocket] = it.websockets
        await it.hub.connect(websocket, "a")
        it.hub.publish([1, BODY], "a")
        await asyncio.sleep(0)
        assert it.hub.stats().behind == 1
        it.hub.disconnect(websocket)
        await it.hub.connect(websocket, "b")
        await fleet.wake(1)
        it.hub.publish([2], "b")
        await fleet.until(2, timeout=PATIENCE)
        assert await has_come_true(lambda: it.hub.stats().behind == 0, within=PATIENCE)
        # Whoever is cut off for sleeping as long as this one did would be by now.
        await fleet.settle(quiet=0.5)
        assert (it.hub.stats().evictions, it.server.connections) == ({}, 1)


async def test_one_connection_has_one_hub():
    """Two that write to one socket would tear each other's frames."""
    async with site() as it, it.fan() as fan:
        with pytest.raises(ValueError, match="another hub"):
            await Hub().connect(it.websockets[0])
        it.hub.publish("GOAL")
        assert await hear_all(fan, 1) == ["GOAL"]


@pytest.mark.parametrize("accepted", [False, True])
async def test_client_that_has_gone_meanwhile_is_a_disconnect(accepted):
    """Before the hub could take it, or accept it."""
    it = Site(Hub())
    raised, arrived, may_go_on = [], asyncio.Event(), asyncio.Event()

    @it.app.websocket("/late")
    async def late(websocket: WebSocket):
        if accepted:
            await websocket.accept()
        arrived.set()
        await may_go_on.wait()
        with pytest.raises(WebSocketDisconnect) as caught:
            await it.hub.connect(websocket)
        raised.append(caught.value)

    it.server = await serve(it.app, protocol=HubProtocol)
    connecting = asyncio.create_task(RawClient.open(it.server, "/late"))
    await arrived.wait()
    if accepted:
        (await connecting).close()
    else:
        connecting.cancel()
        await asyncio.wait({connecting})
        del connecting
    assert await has_come_true(lambda: it.server.connections == 0, within=PATIENCE)
    may_go_on.set()
    assert await has_come_true(lambda: raised, within=PATIENCE)
    assert it.hub.stats().clients == 0


@on_both_protocols
async def test_drain_sends_all_away_a_few_at_a_time(protocol):
    """With 1012, in an order that chance draws, behind all that was published; a newcomer is sent away with 1013."""
    async with site(protocol=protocol) as it:
        fans = [await it.fan() for _ in range(40)]
        hearing = [asyncio.create_task(hear_to_the_end(fan)) for fan in fans]
        for number in range(10):
            it.hub.publish(number)
        draining = asyncio.create_task(it.hub.drain(over=1.0))
        counts = set()
        while not draining.done():
            counts.add(it.hub.stats().clients)
            if it.hub.stats().clients < 30 and 41 not in counts:
                counts.add(41)
                async with it.fan() as late:
                    assert await hear_to_the_end(late) == ([], 1013)
            await asyncio.sleep(0)
        await draining
        for texts, code in await asyncio.gather(*hearing):
            assert [json.loads(text)["data"] for text in texts] == list(range(10))
            assert code == 1012
        assert len(counts) > 5
        assert it.hub.stats().clients == 0


async def test_drain_does_not_wait_for_sleepers():
    """Whoever does not read its goodbye is cut off."""
    async with site(stalled_after=60, **THIN) as it:
        await sleeping(it, stalled=2)
        it.hub.publish([2, BODY])
        await it.hub.drain(over=0)
        assert await has_come_true(lambda: it.server.connections == 0, within=PATIENCE)
        assert it.hub.stats().evictions == {"drained": 2}


# ---- servers of another kind


async def test_without_the_protocol_class_it_says_so_once(caplog):
    """And works with queues; a client that takes nothing is let go, and costs the others nothing."""
    with caplog.at_level(logging.WARNING, "labkit"):
        async with site(
            protocol=WebSocketsSansIOProtocol, stalled_after=0.3, server_options=(("send_buffer_bytes", 4_096),)
        ) as it:
            fleet = await Fleet(it.server, healthy=3, stalled=1, receive_buffer_bytes=RECEIVE_BUFFER_BYTES).connect()
            it.hub.publish([1, "x" * 400_000])
            for number in range(2, 50):
                it.hub.publish([number])
            assert await has_come_true(lambda: it.hub.stats().evictions == {"stalled": 1}, within=PATIENCE)
            assert it.hub.stats().clients == 3
            await fleet.until(49, clients=[1, 2, 3], timeout=PATIENCE)
            assert all(numbers_of(fleet.deliveries, client) == list(range(1, 50)) for client in (1, 2, 3))
            await fleet.leave(1)
            await fleet.vanish(2)
            assert await has_come_true(lambda: it.hub.stats().clients == 1, within=PATIENCE)
    assert sum("does not speak HubProtocol" in record.getMessage() for record in caplog.records) == 1


ELSEWHERE = """
import asyncio, json
from fastapi import FastAPI, WebSocket
from starlette.websockets import WebSocketDisconnect
from labkit.broadcast.hub import Hub
from labkit.broadcast.protocol import abort

app = FastAPI()
hub = Hub(stalled_after=0.5, send_buffer_bytes=4_096, history=1_000, history_bytes=2**26, max_queue_bytes=2**26)

@app.websocket("/ws")
async def fan(websocket: WebSocket, epoch: int = -1, seq: int = 0):
    try:
        await hub.connect(websocket, since=None if epoch < 0 else (epoch, seq))
        while True:
            await obey(websocket, json.loads(await websocket.receive_text()))
    except WebSocketDisconnect:
        pass
    finally:
        hub.disconnect(websocket)

async def obey(websocket, order):
    for number in range(*order.get("numbers", [0])):
        hub.publish([number, "x" * order["size"]])
        if number % order["each"] == 0:
            await asyncio.sleep(0)
    if "leave" in order:
        abort(websocket)
    if "close" in order:
        await websocket.close(order["close"])
        raise WebSocketDisconnect
    if "stats" in order:
        stats = hub.stats()
        loop = type(asyncio.get_running_loop()).__module__.partition(".")[0]
        await websocket.send_text(json.dumps({"stats": [loop, stats.clients, stats.evictions]}))
"""


@pytest.mark.parametrize(
    ("loop", "is_safe"),
    [("asyncio", True), ("uvloop", False), pytest.param("uvloop", True, marks=pytest.mark.long)],
)
async def test_other_transports_keep_the_promises(loop, is_safe):
    """On another loop and under TLS, where messages go through the transport: order, resume, sleepers, goodbyes."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    async with elsewhere(loop, is_safe) as (address, context, child):

        def fan(query="", **options):
            return connect(f"{address}/ws{query}", ssl=context, compression=None, **options)

        async def order(client, **what):
            await client.send(json.dumps({"each": 1, "size": 100} | what))

        async with fan() as boss, fan() as listener, fan(max_queue=1) as late:

            async def all_hear(first, last):
                everybody = await asyncio.gather(*(hear_all(client, last - first) for client in (boss, listener, late)))
                assert [[number for number, _ in heard] for heard in everybody] == [list(range(first, last))] * 3

            # In turns of their own, many in one turn, and far more than the buffers hold.
            for first, last, size, each in ((1, 301, 100, 1), (301, 601, 100, 100), (601, 651, 50_000, 10)):
                await order(boss, numbers=[first, last], size=size, each=each)
                await all_hear(first, last)
            await order(boss, numbers=[651, 652])
            epoch = json.loads(await hear(boss))["epoch"]
            await hear_all(listener, 1)
            async with fan(f"?epoch={epoch}&seq=640") as back:
                assert json.loads(await hear(back)) == {"position": [epoch, 640], "recovered": True}
                assert [number for number, _ in await hear_all(back, 11)] == list(range(641, 652))

            sleeper = await asleep(address, context)
            await order(boss, numbers=[652, 681], size=50_000)
            await hear_all(late, 1)
            await all_hear(652, 681)
            said = None
            async with asyncio.timeout(PATIENCE):
                while said != [loop, 3, {"stalled": 1}]:
                    await order(boss, stats=True)
                    said = json.loads(await hear(boss))["stats"]
            sleeper.transport.abort()

            # Aborted between a message and its sweep; the others hear of it, and of the next.
            async with fan() as leaver:
                await order(leaver, numbers=[681, 682], leave=True)
                with pytest.raises(ConnectionClosed):
                    await hear_all(leaver, 2)
            await order(boss, numbers=[682, 692], size=50_000, each=100, close=4_000)
            texts, code = await hear_to_the_end(boss)
            assert [json.loads(text)["data"][0] for text in texts] == list(range(681, 692))
            assert code == 4_000
            for client in (listener, late):
                assert [number for number, _ in await hear_all(client, 11)] == list(range(681, 692))
        assert "Traceback" not in child.log, child.log


@asynccontextmanager
async def elsewhere(loop, is_safe):
    """Start uvicorn by its command line in a process of its own; give its address, the TLS context, and the child."""
    folder = new_folder()
    (folder / "elsewhere.py").write_text(ELSEWHERE)
    command = [
        sys.executable,
        "-m",
        "uvicorn",
        "elsewhere:app",
        "--app-dir",
        str(folder),
        "--loop",
        loop,
        "--port",
        "0",
    ]
    command += ["--ws", "labkit.broadcast.protocol:HubProtocol"]
    context = None
    if is_safe:
        trustme = pytest.importorskip("trustme")
        authority = trustme.CA()
        certificate = authority.issue_cert("127.0.0.1")
        certificate.private_key_pem.write_to_path(folder / "key.pem")
        certificate.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
        command += ["--ssl-keyfile", str(folder / "key.pem"), "--ssl-certfile", str(folder / "certificate.pem")]
        context = ssl.create_default_context()
        authority.configure_trust(context)

    async def is_ready():
        return "Uvicorn running on" in (folder / "output.log").read_text()

    child = await start_child(command, name=f"uvicorn on {loop}", folder=folder, ready=is_ready)
    try:
        port = re.search(r"running on https?://127.0.0.1:(\d+)", child.log)[1]
        yield f"{'wss' if is_safe else 'ws'}://127.0.0.1:{port}", context, child
    finally:
        await child.close()


async def asleep(address, context):
    """Connect a client that reads nothing, and return it."""
    stream = socket.socket()
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
    stream.connect(("127.0.0.1", int(address.rpartition(":")[2])))
    stream.setblocking(False)
    client = await connect(f"{address}/ws", ssl=context, compression=None, sock=stream, ping_interval=None)
    client.transport.pause_reading()
    return client


# ---- several servers


@pytest.fixture(params=["PubSubBackplane", "StreamBackplane"])
def carrier(request):
    """Give both carriers."""
    return getattr(pytest.importorskip("labkit.broadcast.backplane"), request.param)


async def test_two_servers_have_one_order_and_one_position(redis_server, carrier):
    """Both publish at once into two rooms; what both have is equal, and a client goes on at the other server."""
    async with (
        site(name="one", backplane=carrier(redis_server.url)) as one,
        site(name="two", backplane=carrier(redis_server.url)) as two,
        one.fan("a") as at_one, two.fan("a") as at_two, two.fan("b") as elsewhere_at_two,
    ):  # fmt: skip
        receipts = []
        for number in range(50):
            receipts += [one.hub.publish(f"one {number}", "a"), two.hub.publish(f"two {number}", "a")]
            one.hub.publish(number, "b")
        positions = await asyncio.gather(*receipts)
        end = await two.hub.publish("end", "a")
        heard = await hear_until(at_one, "end")
        assert heard == await hear_until(at_two, "end")
        assert [Position(said["epoch"], said["seq"]) for said in heard] == [*sorted(positions), end]
        for name in ("one", "two"):
            its = [said["data"] for said in heard if said["data"].startswith(name)]
            assert its == [f"{name} {number}" for number in range(50)]
        assert await hear_all(elsewhere_at_two, 50) == list(range(50))
        # With the position from one server to the other, and from one room to the other.
        middle = heard[60]
        since = (middle["epoch"], middle["seq"])
        async with two.fan("a", since=since) as back, one.fan("b", since=since) as crossing:
            assert json.loads(await hear(back)) == {"position": [*since], "recovered": True}
            assert await hear_until(back, "end") == heard[61:]
            assert json.loads(await hear(crossing)) == {"position": [*since], "recovered": True}
            rest = await hear_until(crossing, 49)
            assert [said["data"] for said in rest] == list(range(rest[0]["data"], 50))
            assert rest[0]["seq"] > since[1]
        await one.hub.broadcast("as it is", "a")
        assert await hear(at_one) == await hear(at_two) == "as it is"


async def test_gap_is_told_where_the_way_to_redis_was_cut(redis_server, carrier):
    """Pub/Sub forgets: all are told, and whoever comes back hears that something is missing. A stream catches up."""
    forgets = carrier.__name__ == "PubSubBackplane"
    proxy = await start_proxy(redis_server.url, name="way to Redis")
    async with (
        site(name="one", backplane=carrier(redis_server.url)) as one,
        site(name="two", backplane=carrier(proxy.url)) as two,
        two.fan("a") as fan,
    ):
        first = await one.hub.publish("before", "a")
        assert await hear_all(fan, 1) == ["before"]
        proxy.freeze()
        await one.hub.publish("missed", "a")
        proxy.reset()
        proxy.thaw()
        said = [json.loads(await hear(fan))]
        if forgets:
            # The first gap has no end yet; the second says how far it goes.
            said.append(json.loads(await hear(fan)))
            assert [each["gap"]["after"] for each in said] == [[*first]] * 2
            assert said[1]["gap"]["until"] == [first.epoch, first.seq + 1]
        else:
            assert said[0]["data"] == "missed"
        await one.hub.publish("after", "a")
        assert await hear_all(fan, 1) == ["after"]
        async with two.fan("a", since=first) as back:
            assert json.loads(await hear(back))["recovered"] is not forgets
    await proxy.close()


async def test_what_a_stranger_publishes_harms_nobody(redis_server):
    """JSON reaches the main room, and any other text as a string; no text ends the news, and none is bad JSON."""
    from redis.asyncio import Redis

    from labkit.broadcast.backplane import StreamBackplane

    texts = [
        '{"a": 1}',
        "no JSON",
        "NaN",
        "[Infinity]",
        "\x1e[[1], false]\nx",
        "\x1e[null, true]\nx",
        "\x1e" + "[" * 100_000,
    ]
    async with (
        site(backplane=StreamBackplane(redis_server.url, history=100)) as it,
        it.fan() as fan,
        Redis.from_url(redis_server.url) as stranger,
    ):
        position = await it.hub.publish("first")
        for number, text in enumerate(texts, position.seq + 1):
            # As another version of this program would.
            await stranger.xadd("{broadcast}:stream", {"text": text}, f"{position.epoch}-{number}")
        await stranger.set("{broadcast}:stream:position", f"{position.epoch}-{number}")
        await it.hub.publish("last")
        heard = []
        while not heard or heard[-1]["data"] != "last":
            heard.append(json.loads(await hear(fan), parse_constant=pytest.fail))
        assert [said["data"] for said in heard[:5]] == ["first", {"a": 1}, "no JSON", "NaN", "[Infinity]"]


async def test_hub_with_a_backplane_has_to_be_entered():
    """Otherwise what is published would stay on this server without a word."""
    from labkit.broadcast.backplane import StreamBackplane

    hub = Hub(backplane=StreamBackplane("redis://127.0.0.1:1"))
    with pytest.raises(RuntimeError, match="async with"):
        hub.publish("GOAL")


# ---- what it leaves behind


async def test_nothing_is_left_of_a_hub(caplog):
    """No task and no timer, whatever its clients were doing; and no token in the log."""
    loop = asyncio.get_running_loop()
    caplog.set_level(logging.DEBUG)
    async with site(**THIN) as it:
        own_server = it.server
        for protocol, query in ((HubProtocol, "token=SECRET"), (WebSocketsSansIOProtocol, "")):
            it.server = await serve(it.app, f"server of {protocol.__name__}", protocol=protocol)
            fleet = await sleeping(it, path=f"/ws?{query}", name=protocol.__name__, healthy=2, stalled=2)
            await fleet.until(1, timeout=PATIENCE)
            await fleet.leave(1)
        it.server = own_server
        assert it.hub.stats().behind
        it.hub.publish([2, BODY])
        await it.hub.drain(over=0)
    assert it.hub.stats()[:3] == (0, 0, 0)
    # Let what was called for the next turn happen.
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    places = [task.get_coro().cr_code.co_filename for task in asyncio.all_tasks()]
    places += [repr(timer) for timer in loop._scheduled if not timer.cancelled()]
    assert [place for place in places if "labkit/broadcast" in place] == []
    assert it.hub.stats().queue_bytes == 0
    assert "hub: a client of the room" in caplog.text
    assert "SECRET" not in caplog.text


def test_hub_loads_no_redis():
    """Nor anything of the laboratory, for a server that has no use for it."""
    code = "import sys, labkit.broadcast.hub; print(sorted({'redis', 'pandas', 'labkit.apparatus'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- what a second reader found


async def test_two_pongs_in_one_read_are_two_signs_of_life():
    """Nobody asked for them, which is allowed; the connection stays, and has no parser any more."""
    async with site() as it:
        client = await RawClient.open(it.server)
        assert await has_come_true(lambda: it.hub.stats().clients == 1, within=PATIENCE)
        connection = connection_of(it.websockets[0])
        client.say((TEXT, b"hello"))
        assert await has_come_true(lambda: connection._conn is not None, within=PATIENCE)
        client.say((PONG, b"one"), (PONG, b"two"))
        assert await has_come_true(lambda: connection._conn is None, within=PATIENCE)
        client.say((PING, b"still here?"), (CLOSE, b""))
        assert (PONG, b"still here?") in await client.to_the_end()


async def test_slow_client_that_leaves_in_the_middle_ends_once_and_in_silence(caplog):
    """It takes what waits in the transport, and is gone before the rest of its backlog is written."""
    async with site(send_buffer_bytes=16_384) as it:
        client = await RawClient.open(it.server, receive_buffer_bytes=8_000)
        assert await has_come_true(lambda: it.hub.stats().clients == 1, within=PATIENCE)
        for _ in range(30):
            await it.hub.broadcast("x" * 20_000)
            await asyncio.sleep(0)
        [member] = it.hub.room("main").members
        transport = member.transport
        while transport.get_write_buffer_size() > 8_000:
            with suppress(BlockingIOError):
                client.stream.recv(2_000)
            await asyncio.sleep(0)
        # The loop stands still, so that the transport does not hear of it yet: all that is on its way is taken.
        client.stream.settimeout(0.05)
        with suppress(TimeoutError):
            while client.stream.recv(100_000):
                pass
        client.close()
        assert await has_come_true(lambda: it.server.connections == 0, within=PATIENCE)
    assert [record for record in caplog.records if record.name == "asyncio"] == []


async def test_drain_leaves_alone_who_has_left_the_hub():
    """Its endpoint talks on with it."""
    async with site() as it, it.fan() as stays, it.fan() as leaves:
        assert await has_come_true(lambda: it.hub.stats().clients == 2, within=PATIENCE)
        websocket = it.websockets[1]
        draining = asyncio.create_task(it.hub.drain(over=0.2))
        await asyncio.sleep(0)
        it.hub.disconnect(websocket)
        await draining
        await websocket.send_text("still here")
        assert await hear(leaves) == "still here"
        with pytest.raises(ConnectionClosed):
            await hear(stays)
        assert stays.close_code == 1012


async def test_nobody_follows_a_hub_that_has_stopped_listening():
    """Whoever comes then is told at once that there is nothing; a server waits for its responses before it stops."""
    async with Hub() as hub:
        hub.stop_listening()
        async with asyncio.timeout(PATIENCE):
            assert [entry async for entry in hub.follow("a room that nobody has opened")] == []


class Watched:
    """A client as a Watch sees it. takes: whether it has taken something at each look; .looks how many there were."""

    buffered_bytes = 0

    def __init__(self, *, takes):
        self.takes = takes
        self.looks = 0

    def look(self):
        """Say so."""
        self.looks += 1
        return self.takes


async def test_longest_is_who_has_taken_nothing_for_longest():
    """Not who has been slow for longest."""
    given_up = []
    watch = Watch(0.2, given_up.append)
    slow, stalled = Watched(takes=True), Watched(takes=False)
    watch.add(slow)
    assert await has_come_true(lambda: slow.looks == 2, within=PATIENCE)
    watch.add(stalled)
    # The third look is the judgement, and comes before that of the other.
    assert await has_come_true(lambda: slow.looks == 3, within=PATIENCE)
    assert watch.longest() is stalled or given_up == [stalled]
    assert await has_come_true(lambda: given_up == [stalled], within=PATIENCE)
    watch.close()
