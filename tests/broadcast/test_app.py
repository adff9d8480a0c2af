"""The scoreboard, several servers of it on a real Redis: what fans, posters and operators get, and what faults cost."""

import asyncio
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager, suppress

import httpx2
import pytest
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from labkit import serve
from labkit.apparatus.faults import start_proxy
from labkit.apparatus.redis_server import RedisServer
from labkit.apparatus.server import ServerFailed
from labkit.broadcast.app import MAX_GOAL_BYTES, create_app
from labkit.broadcast.backplane import BackplaneFull
from labkit.broadcast.parts.scoreboard.settings import Settings
from labkit.broadcast.protocol import HubProtocol
from labkit.evidence.contract import has_come_true

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("lab"), pytest.mark.slow]

TOKEN = "not to be logged"
# Guards against hanging, and is never what a test measures.
PATIENCE = 20


@pytest.fixture
async def redis_server(lab, monkeypatch):
    """Give a Redis of this test's own."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    async with RedisServer() as server:
        yield server


class Site:
    """One server of the scoreboard, in this process or another one, and what a test does with it."""

    def __init__(self, server, http):
        self.server = server
        self.http = http

    @property
    def scoreboard(self):
        """What the server holds, where it is in this process."""
        return self.server.app.state.scoreboard

    async def post(self, body, token=TOKEN, **headers):
        """Post JSON and return the response."""
        headers = {"Authorization": f"Bearer {token}"} | headers if token is not None else headers
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.post(f"{self.server.url}/goal", content=content, headers=headers)

    async def goal(self, number):
        """Post a goal that everybody will recognise, and return its position."""
        return place((await self.post({"number": number})).json())

    async def get(self, path, **headers):
        """Return the response to GET."""
        return await self.http.get(self.server.url + path, headers=headers)

    def count(self, transport):
        """Return how many fans the server counts, where it is in this process."""
        if transport == "websocket":
            return self.scoreboard.hub.stats().clients
        return self.scoreboard.metrics.streams._value.get()

    async def metric(self, name):
        """Return the value of one line of /metrics."""
        [value] = re.findall(rf"^{re.escape(name)} (.+)$", (await self.get("/metrics")).text, re.MULTILINE)
        return float(value)

    def fan(self, asked=None, **options):
        """Connect a fan, with the position that it has."""
        query = f"?epoch={asked[0]}&seq={asked[1]}" if asked else ""
        return connect(self.server.ws_url(f"/ws{query}"), **options)


@asynccontextmanager
async def sites(redis_server, amount=1, *, protocol=HubProtocol, send_buffer_bytes=None, **settings):
    """Start some servers of one scoreboard."""
    async with httpx2.AsyncClient(timeout=PATIENCE) as http:
        opened = []
        try:
            for number in range(1, amount + 1):
                options = {"redis_url": redis_server.url, "token": TOKEN, "server_name": f"server {number}"} | settings
                app = create_app(Settings(**options))
                server = await serve(
                    app, options["server_name"], protocol=protocol, send_buffer_bytes=send_buffer_bytes
                )
                opened.append(Site(server, http))
            yield opened if amount > 1 else opened[0]
        finally:
            for site in opened:
                await site.server.stop()


class Elsewhere:
    """The addresses of a server in a process of its own."""

    host = "127.0.0.1"

    def __init__(self, port):
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def ws_url(self, path):
        """Return the WebSocket address of a path."""
        return f"ws://127.0.0.1:{self.port}{path}"


def place(said):
    """Return the position of a message or an answer."""
    return said["epoch"], said["seq"]


async def hear(fan):
    """Return the next thing that a fan hears."""
    return json.loads(await asyncio.wait_for(fan.recv(), PATIENCE))


async def ending(fan):
    """Return the close frame of a fan's connection, None where there was none; what it hears before is passed over."""
    async with asyncio.timeout(PATIENCE):
        try:
            while True:
                await fan.recv()
        except ConnectionClosed as closed:
            return closed.rcvd


async def hear_all(fan, count):
    """Return the positions of the next messages."""
    return [place(await hear(fan)) for _ in range(count)]


async def hear_until(fan, position):
    """Return the positions that a fan hears, up to this one."""
    heard = []
    while position not in heard:
        said = await hear(fan)
        assert "data" in said, said
        heard.append(place(said))
    return heard


# ---- posting, and hearing it


async def test_goal_reaches_the_fans_of_all_servers(redis_server):
    """In the words of the interface, and the poster is told the position that fans see."""
    async with sites(redis_server, 3) as servers, servers[0].fan() as near, servers[2].fan() as far:
        assert (await hear(near))["server"] == "server 1"
        assert (await hear(far))["server"] == "server 3"
        answer = await servers[1].post({"home": 1, "away": 0})
        epoch, seq = place(answer.json())
        assert (answer.status_code, seq) == (200, 1)
        expected = f'{{"epoch": {epoch}, "seq": 1, "data": {{"home":1,"away":0}}}}'
        for fan in (near, far):
            assert await asyncio.wait_for(fan.recv(), PATIENCE) == expected


async def test_fan_is_told_where_it_starts(redis_server):
    """Nothing was published: nothing is missing. Something was: a newcomer gets none of it, and is told."""
    async with sites(redis_server) as site:
        async with site.fan() as fan:
            assert (await hear(fan))["recovered"] is True
        epoch, seq = await site.goal(1)
        async with site.fan() as fan:
            text = await fan.recv()
            assert text == f'{{"position": [{epoch}, {seq}], "recovered": false, "server": "server 1"}}'
        async with site.fan((0, 0)) as fan:
            assert (await hear(fan))["position"] == [0, 0]
            assert place(await hear(fan)) == (epoch, 1)


async def test_any_json_arrives_as_it_was(redis_server):
    """Values of all kinds, letters of any alphabet."""
    bodies = [b"1", b"null", b'"GOAL"', b"[]", '{"text": "Tor für Ö ⚽ \\u0000 </script>"}'.encode(), b" {\n} "]
    async with sites(redis_server) as site, site.fan() as fan:
        await hear(fan)
        for body in bodies:
            assert (await site.post(body)).status_code == 200
            assert (await hear(fan))["data"] == json.loads(body)


async def test_what_is_no_json_is_refused(redis_server):
    """With a reason, and no fan hears of it."""
    bodies = [b"", b"{", b"NaN", b"1e999", b"\xff", b'"\\ud800"', b"[" * 60_000, b"9" * 5_000]
    async with sites(redis_server) as site, site.fan() as fan:
        await hear(fan)
        for body in bodies:
            answer = await site.post(body)
            assert answer.status_code == 400, body
            assert "no JSON that could be passed on" in answer.json()["detail"]
        await site.goal(1)
        assert (await hear(fan))["data"] == {"number": 1}


async def test_body_is_bounded(redis_server):
    """The largest passes; a byte more does not, whether its length is announced or not."""
    largest = b'"' + b"x" * (MAX_GOAL_BYTES - 2) + b'"'

    async def pieces():
        yield largest
        yield b" "

    async with sites(redis_server) as site, site.fan() as fan:
        await hear(fan)
        assert (await site.post(largest)).status_code == 200
        assert len((await hear(fan))["data"]) == MAX_GOAL_BYTES - 2
        assert (await site.post(largest + b" ")).status_code == 413
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = await site.http.post(f"{site.server.url}/goal", content=pieces(), headers=headers)
        assert answer.status_code == 413


async def test_without_the_token_nothing_is_posted(redis_server):
    """401 and a challenge, as HTTP has it."""
    shown = [None, "Bearer", "Bearer wrong", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN} x", f"Basic {TOKEN}", "Bearer ü"]
    async with sites(redis_server) as site, site.fan() as fan:
        await hear(fan)
        for header in shown:
            headers = {} if header is None else {"Authorization": header.encode()}
            answer = await site.http.post(f"{site.server.url}/goal", content=b"1", headers=headers)
            assert answer.status_code == 401, header
            assert answer.headers["WWW-Authenticate"].startswith("Bearer")
        await site.goal(1)
        assert (await hear(fan))["data"] == {"number": 1}


async def test_server_without_a_token_takes_no_posts(redis_server):
    """It says why; an empty token does not fit an empty token."""
    async with sites(redis_server, token="") as site:
        for headers in ({}, {"Authorization": "Bearer"}, {"Authorization": "Bearer x"}):
            answer = await site.http.post(f"{site.server.url}/goal", content=b"1", headers=headers)
            assert answer.status_code == 403
            assert "without a TOKEN" in answer.json()["detail"]
            assert "WWW-Authenticate" in answer.headers


async def test_repeat_under_one_key_appears_once(redis_server):
    """On another server too, and at the same moment; the answer is the position of the first."""
    async with sites(redis_server, 2) as (one, two), one.fan() as fan:
        await hear(fan)
        posts = [site.post({"number": 1}, **{"Idempotency-Key": "goal 1"}) for site in (one, two) * 5]
        answers = {place(answer.json()) for answer in await asyncio.gather(*posts)}
        last = await two.goal(2)
        assert len(answers) == 1
        assert await hear_until(fan, last) == [*answers, last]
        too_long = await one.post(1, **{"Idempotency-Key": "x" * 201})
        assert too_long.status_code == 422


# ---- coming back


async def test_fans_who_come_and_go_get_everything_once_and_in_order(redis_server):
    """Eight fans leave at random moments, with or without a goodbye, and come back to a random server."""
    chance = random.Random(7)

    async def walk(servers, asked, last):
        heard, returns = [], 0
        while not (last.done() and asked == last.result()):
            async with chance.choice(servers).fan(asked) as fan:
                hello = await hear(fan)
                assert (hello["recovered"], tuple(hello["position"])) == (True, asked)
                returns += 1
                for _ in range(chance.randint(0, 25)):
                    if last.done() and asked == last.result():
                        break
                    asked = place(await hear(fan))
                    heard.append(asked)
                if chance.random() < 0.5:
                    fan.transport.abort()
        return heard, returns

    async with sites(redis_server, 2) as servers:
        start = await servers[0].goal(0)
        last = asyncio.get_running_loop().create_future()
        walks = [asyncio.create_task(walk(servers, start, last)) for _ in range(8)]
        positions = [await chance.choice(servers).goal(number) for number in range(1, 151)]
        last.set_result(positions[-1])
        for heard, returns in await asyncio.wait_for(asyncio.gather(*walks), PATIENCE):
            assert heard == positions
            assert returns > 3
        for site in servers:
            assert await has_come_true(lambda site=site: site.server.connections <= 1, within=5)
            assert await site.metric("broadcast_clients") == 0


async def test_fan_that_knows_more_than_the_server_hears_nothing_twice(redis_server):
    """Its last server was ahead of this one, which is cut off from Redis; it waits until this one knows as much."""
    proxy = await start_proxy(redis_server.url, name="link")
    async with sites(redis_server) as ahead, sites(redis_server, redis_url=proxy.url, server_name="behind") as behind:
        first = await ahead.goal(1)
        assert await has_come_true(lambda: behind.scoreboard.hub.heard == first, within=5)
        proxy.freeze()
        second = await ahead.goal(2)

        async def come_back():
            async with behind.fan(second) as fan:
                hello = await hear(fan)
                third = await ahead.goal(3)
                return hello, await hear_until(fan, third), third

        coming = asyncio.create_task(come_back())
        assert await has_come_true(lambda: behind.server.connections >= 1, within=5)
        proxy.thaw()
        hello, heard, third = await asyncio.wait_for(coming, PATIENCE)
        assert (hello["recovered"], tuple(hello["position"]), heard) == (True, second, [third])


async def test_fan_from_before_the_history_is_told(redis_server):
    """It gets what is still there, and that more is gone."""
    async with sites(redis_server, history=5) as site:
        positions = [await site.goal(number) for number in range(200)]
        async with site.fan(positions[0]) as fan:
            assert (await hear(fan))["recovered"] is False
            assert await hear_until(fan, positions[-1]) == positions[-5:]
        async with site.fan(positions[-6]) as fan:
            assert (await hear(fan))["recovered"] is True
            assert await hear_until(fan, positions[-1]) == positions[-5:]


async def test_server_that_starts_later_knows_what_was(redis_server):
    """Its history is filled before its first fan comes."""
    async with sites(redis_server) as old:
        positions = [await old.goal(number) for number in range(30)]
        async with sites(redis_server, server_name="new") as new, new.fan(positions[3]) as fan:
            assert (await hear(fan))["recovered"] is True
            assert await hear_until(fan, positions[-1]) == positions[4:]


async def test_position_that_is_none_is_answered_clearly(redis_server):
    """1008 and a reason, so that nobody takes it for a position."""
    async with sites(redis_server) as site:
        for query in ("epoch=1", "seq=1", "epoch=x&seq=1", "epoch=1&seq=-1", "epoch=&seq=", "epoch=1&seq=1e3"):
            async with connect(site.server.ws_url(f"/ws?{query}")) as fan:
                closed = await ending(fan)
                assert closed.code == 1008, query
                assert "two whole numbers" in closed.reason


async def test_pages_of_strangers_do_not_get_in(redis_server):
    """A browser names the page's origin; what is no browser names none."""
    async with sites(redis_server, origins="https://scores.example, http://localhost:8000/") as site:
        for origin in ("https://scores.example", "http://localhost:8000", None):
            async with site.fan(origin=origin) as fan:
                await hear(fan)
        for origin in ("https://evil.example", "https://scores.example.evil.example", "null"):
            with pytest.raises(InvalidStatus, match="403"):
                async with site.fan(origin=origin):
                    pytest.fail("a stranger got in")


async def test_what_fans_send_is_ignored(redis_server):
    """Text, bytes, much of it; the news goes on."""
    async with sites(redis_server) as site, site.fan() as fan:
        await hear(fan)
        for _ in range(200):
            await fan.send("x" * 1000)
            await fan.send(b"x" * 1000)
        last = await site.goal(1)
        assert await hear_until(fan, last) == [last]


# ---- fans who do not read, or vanish


class Sleeper:
    """A fan on a raw socket that asks for the news and reads none of it."""

    def __init__(self, site, path="/ws"):
        self.site = site
        self.path = path

    async def __aenter__(self):
        self.socket = socket.socket()
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.socket.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.socket, (self.site.server.host, self.site.server.port))
        upgrade = (
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        )
        request = f"GET {self.path} HTTP/1.1\r\nHost: x\r\n{upgrade if self.path == '/ws' else ''}\r\n"
        await loop.sock_sendall(self.socket, request.encode())
        return self

    async def __aexit__(self, *_):
        self.socket.close()


async def test_fan_that_does_not_read_is_let_go_and_may_come_back(redis_server):
    """Its socket is freed, everybody else goes on; and from the history it gets all that it missed."""
    async with sites(redis_server, send_buffer_bytes=16_384) as site, site.fan() as healthy:
        await hear(healthy)
        start = await site.goal(0)
        async with Sleeper(site):
            assert await has_come_true(lambda: site.count("websocket") == 2, within=5)
            hearing = asyncio.create_task(hear_all(healthy, 400))
            for number in range(1, 400):
                last = await site.scoreboard.publish({"number": number, "filler": "x" * 10_000})
            assert (await hearing)[-1] == last
            assert await site.metric('broadcast_evictions_total{reason="slow"}') == 1
            assert await has_come_true(lambda: site.count("websocket") == 1, within=5)
        async with site.fan(start) as fan:
            assert (await hear(fan))["recovered"] is True
            assert len(await hear_until(fan, last)) == 399


async def test_server_without_hub_protocol_lets_go_all_the_same(redis_server, caplog):
    """Said once in the log; the fan hears it when it reads again, at the end of what was on its way."""
    async with sites(redis_server, protocol=WebSocketsSansIOProtocol, send_buffer_bytes=16_384) as site:
        async with site.fan(max_queue=1) as one, site.fan(max_queue=1) as two:
            for _ in range(500):
                await site.scoreboard.publish("x" * 30_000)
            assert await has_come_true(lambda: site.count("websocket") == 0, within=5)
            for fan in (one, two):
                assert (await ending(fan)).code == 1013
        assert await site.metric('broadcast_evictions_total{reason="slow"}') == 2
    assert sum("does not speak HubProtocol" in record.message for record in caplog.records) == 1


async def test_fans_who_vanish_at_any_moment_leave_nothing(redis_server):
    """In the handshake, in the catch-up, later; by a reset."""
    chance = random.Random(3)
    async with sites(redis_server) as site:
        for number in range(50):
            await site.goal(number)

        async def vanish():
            reader, writer = await asyncio.open_connection(site.server.host, site.server.port)
            request = (
                b"GET /ws?epoch=0&seq=0 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            )
            writer.write(request[: chance.choice([20, len(request)])])
            for _ in range(chance.randint(0, 4)):
                await asyncio.sleep(0)
            if chance.random() < 0.5 and len(request) > 20:
                await asyncio.wait([asyncio.create_task(reader.read(chance.randint(1, 3000)))], timeout=0.1)
            writer.transport.abort()

        await asyncio.gather(*(vanish() for _ in range(100)))
        # What is left is the connection of this test's own requests.
        assert await has_come_true(lambda: site.server.connections <= 1, within=5)
        assert await has_come_true(lambda: site.count("websocket") == 0, within=5)
        assert await site.metric("broadcast_clients") == 0


# ---- the event stream


class Stream:
    """A fan on the event stream, who reads events as they come."""

    def __init__(self, site, last_event_id=None):
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        self._opened = site.http.stream("GET", f"{site.server.url}/events", headers=headers)

    async def __aenter__(self):
        self.response = await self._opened.__aenter__()
        self._lines = self.response.aiter_lines()
        return self

    async def __aexit__(self, *error):
        await self._opened.__aexit__(*error)

    async def event(self):
        """Return the next event: its fields, the data decoded; None at the end of the stream."""
        fields = {}
        async for line in self._lines:
            if not line and fields:
                return fields | {"data": json.loads(fields["data"])}
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
        return None


async def test_event_stream_resumes_from_the_same_history(redis_server):
    """Ids are positions; who comes back elsewhere with the last one gets what it missed, then what comes."""
    async with sites(redis_server, 2) as (one, two):
        start = await one.goal(0)
        async with Stream(one) as fan:
            hello = await fan.event()
            assert (hello["event"], hello["id"]) == ("hello", f"{start[0]}-{start[1]}")
            first = await one.goal(1)
            said = await fan.event()
            assert (place(said["data"]), said["data"]["data"]) == (first, {"number": 1})
        missed = [await one.goal(number) for number in (2, 3, 4)]
        async with Stream(two, said["id"]) as fan:
            hello = await fan.event()
            assert hello["data"] == {"position": list(first), "recovered": True, "server": "server 2"}
            assert [place((await fan.event())["data"]) for _ in missed] == missed
            last = await one.goal(5)
            assert (await fan.event())["id"] == f"{last[0]}-{last[1]}"
        for site in (one, two):
            assert await has_come_true(lambda site=site: site.count("sse") == 0, within=5)


async def test_event_stream_tells_of_a_gap(redis_server):
    """To who comes back too late; an id that is none is refused."""
    async with sites(redis_server, history=3) as site:
        positions = [await site.goal(number) for number in range(150)]
        async with Stream(site, f"{positions[0][0]}-1") as fan:
            assert (await fan.event())["data"]["recovered"] is False
            gap = await fan.event()
            assert (gap["event"], gap["data"]["gap"]["after"]) == ("gap", list(positions[0]))
            assert [place((await fan.event())["data"]) for _ in range(3)] == positions[-3:]
        for wrong in ("1", "x-y", "1-2-3", "-1-2"):
            assert (await site.get("/events", **{"Last-Event-ID": wrong})).status_code == 400


async def test_reader_of_the_event_stream_who_sleeps_costs_nobody_anything(redis_server):
    """It pulls from the history: what it does not take stays there, and goes when its time has come."""
    async with sites(redis_server, send_buffer_bytes=16_384, history=20) as site, site.fan() as healthy:
        await hear(healthy)
        async with Sleeper(site, "/events"):
            assert await has_come_true(lambda: site.count("sse") == 1, within=5)
            for number in range(300):
                last = await site.scoreboard.publish({"number": number, "filler": "x" * 10_000})
                assert place(await hear(healthy)) == last
            assert len(site.scoreboard.hub.room("main").log) == 20
        assert await has_come_true(lambda: site.count("sse") == 0, within=5)


# ---- Redis, and the end


async def test_redis_that_dies_is_told_to_everybody_and_comes_back(redis_server):
    """Not ready, with the reason; posts fail and say what may have happened; fans are told; then it all goes on."""
    async with sites(redis_server, publish_timeout=1.5) as site, site.fan() as fan, Stream(site) as stream:
        assert (await site.get("/ready")).json() == {"ready": True, "reasons": [], "server": "server 1"}
        await hear(fan)
        before = await site.goal(1)
        assert place(await hear(fan)) == before
        redis_server.kill()
        assert await has_come_true(lambda: not site.scoreboard.backplane.is_connected, within=5)
        ready = await site.get("/ready")
        assert (ready.status_code, ready.json()["reasons"]) == (503, ["Redis is not connected"])
        assert (await site.get("/health")).status_code == 200
        assert await site.metric("broadcast_backplane_connected") == 0
        lost = await site.post({"number": 2})
        assert lost.status_code == 504
        assert "repeat it with the same Idempotency-Key" in lost.json()["detail"]
        assert lost.headers["Retry-After"]

        await redis_server.restart()
        said = await hear(fan)
        assert said["gap"]["after"] == list(before)
        assert list(said) == ["gap", "reason"]
        assert await has_come_true(lambda: not site.scoreboard.why_not_ready(), within=5)
        after = await site.goal(3)
        while "gap" in said:
            said = await hear(fan)
        assert place(said) == after
        assert after > before
        events = [await stream.event() for _ in range(4)]
        assert [event.get("event") for event in events][:3] == ["hello", None, "gap"]
        assert await site.metric('broadcast_gaps_total{settled="false"}') >= 1
        async with site.fan(before) as late:
            assert (await hear(late))["recovered"] is False


async def test_too_much_that_waits_for_redis_is_refused(redis_server):
    """503, a reason, and when to try again; nothing waits without a bound."""
    async with sites(redis_server) as site:
        redis_server.kill()
        receipts = []
        with suppress(BackplaneFull):
            while len(receipts) < 100_000:
                receipts.append(site.scoreboard.backplane.publish("1"))
        full = await site.post(1)
        assert full.status_code == 503
        assert full.headers["Retry-After"]
        assert "wait for Redis already" in full.json()["detail"]
        await redis_server.restart()
        assert all(isinstance(seq, int) for _, seq in await asyncio.wait_for(asyncio.gather(*receipts), PATIENCE))


async def test_pubsub_tells_its_losses(redis_server):
    """The carrier without a memory: the cut is told, and nobody from before it is told that nothing is missing."""
    async with sites(redis_server, carrier="pubsub") as site, site.fan() as fan:
        await hear(fan)
        first = await site.goal(1)
        assert place(await hear(fan)) == first
        await redis_server.cut_subscribers()
        assert "gap" in await hear(fan)
        assert await has_come_true(lambda: not site.scoreboard.why_not_ready(), within=5)
        last = await site.goal(2)
        said = await hear(fan)
        while "gap" in said:
            said = await hear(fan)
        assert place(said) == last


async def test_relay_that_ends_is_seen(redis_server, caplog):
    """In the log and by /ready; its fans go, and new ones are sent elsewhere."""
    async with sites(redis_server) as site, site.fan() as fan, Stream(site) as stream:
        await hear(fan)
        await stream.event()
        site.scoreboard.hub._relay._task.cancel()
        assert await ending(fan) is None
        assert await asyncio.wait_for(stream.event(), PATIENCE) is None
        ready = await site.get("/ready")
        assert ready.status_code == 503
        assert "no news reaches the fans" in ready.json()["reasons"][0]
        async with site.fan() as late:
            assert (await ending(late)).code == 1013
    assert any("no more news comes to this server" in record.message for record in caplog.records)


async def test_no_redis_no_start(redis_server):
    """A server that could not hear anything does not take fans."""
    with pytest.raises(ServerFailed, match="ConnectionError"):
        async with sites(redis_server, redis_url="redis://127.0.0.1:1/0"):
            pytest.fail("it started")


async def test_same_app_starts_again(redis_server):
    """As when a cell runs twice: nothing is left from the first time, and history comes from Redis."""
    async with httpx2.AsyncClient() as http:
        app = create_app(Settings(redis_url=redis_server.url, token=TOKEN))
        first = Site(await serve(app), http)
        position = await first.goal(1)
        again = Site(await serve(app), http)
        async with again.fan((position[0], 0)) as fan:
            assert (await hear(fan))["recovered"] is True
            assert await hear_until(fan, position) == [position]
        await again.server.stop()


def start(command, environment):
    """Start a program whose whole output is read in one piece."""
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
    )


async def test_process_that_is_told_to_stop_stops(redis_server):
    """With fans of every kind, one of them asleep, and without a time limit of uvicorn's; no token in its log."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "labkit.broadcast.app:app", "--port", str(port)]
    command += ["--ws", "labkit.broadcast.protocol:HubProtocol", "--log-level", "debug"]
    environment = os.environ | {"REDIS_URL": redis_server.url, "TOKEN": TOKEN, "SERVER_NAME": "alone"}
    with start(command, environment) as process:
        try:
            lines = []
            while not (lines and "Uvicorn running" in lines[-1]):
                lines.append(await asyncio.to_thread(process.stdout.readline))
                assert lines[-1], "".join(lines)
            async with httpx2.AsyncClient(timeout=PATIENCE) as http:
                site = Site(Elsewhere(port), http)
                async with site.fan() as fan, Stream(site) as stream, Sleeper(site), Sleeper(site, "/events"):
                    assert (await hear(fan))["server"] == "alone"
                    await stream.event()
                    assert (await site.post(1, token="wrong")).status_code == 401
                    for number in range(100):
                        await site.post({"number": number, "filler": "x" * 60_000})
                    process.send_signal(signal.SIGTERM)
                    assert (await ending(fan)).code == 1012
                    while await stream.event() is not None:
                        pass
                    output, _ = await asyncio.to_thread(process.communicate, timeout=PATIENCE)
        finally:
            process.kill()
    output = "".join(lines) + output
    assert "Application shutdown complete" in output, output
    assert TOKEN not in output
    # Uvicorn cuts the stream of the one who sleeps, and shows where.
    assert output.count("Exception in ASGI application") <= 1, output


# ---- the page


async def test_page_loads_nothing_from_elsewhere(redis_server):
    """Three files, relative addresses, and a policy that lets the browser load nothing else."""
    async with sites(redis_server) as site:
        page = await site.get("/")
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert "default-src 'none'" in page.headers["content-security-policy"]
        for name in ("board.css", "board.js"):
            assert f'"{name}"' in page.text
            assert (await site.get(f"/{name}")).status_code == 200
        for address in re.findall(r'(?:src|href)="([^"]*)"', page.text):
            assert address in ("board.css", "board.js", "data:,")
