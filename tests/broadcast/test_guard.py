"""The guard before an app: who is refused, who is let go, what the app and the logs are told, and what stays free."""

import asyncio
import logging
from contextlib import asynccontextmanager, suppress

import httpx2
import pytest
from fastapi import FastAPI, WebSocket
from starlette.websockets import WebSocketDisconnect, WebSocketState
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from labkit import expecting, serve
from labkit.broadcast.guard import Guard, TokenCheckFailed
from labkit.broadcast.parts.guard import limits
from labkit.broadcast.protocol import HubProtocol, abort
from labkit.evidence.contract import has_come_true

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
in_lab = pytest.mark.usefixtures("lab")

HOME = "https://scores.example"
TOKEN = "ada-4711"
# Bytes of a message, where that is limited.
LIMIT = 300
# Guards against hanging, and is never what a test measures.
PATIENCE = 5


class Endpoint:
    """An app with one endpoint that answers, and notes what it was given and how it ended."""

    def __init__(self):
        self.websockets = []
        self.received = []
        self.endings = []
        self.task = None
        self.app = FastAPI()
        self.app.websocket("/{path}")(self.answer)

    async def answer(self, websocket: WebSocket):
        """Send back what comes, until the end; do as told by two of the words."""
        self.task = asyncio.current_task()
        await websocket.accept()
        self.websockets.append(websocket)
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                self.endings.append((message["code"], message.get("reason", "")))
                return
            words = message.get("text") or message.get("bytes")
            self.received.append(words)
            if words == "return":
                return
            if words == "raise":
                raise ValueError("as told")
            await (websocket.send_text if "text" in message else websocket.send_bytes)(words)


class Site:
    """One server with several guarded apps, each under a path of its own: a server of its own costs a test 0.2 s."""

    def __init__(self):
        self.guards = {}
        self.server = None

    async def __call__(self, scope, receive, send):
        """Hand a WebSocket to the guard of its path."""
        if scope["type"] == "websocket":
            await self.guards[scope["path"]](scope, receive, send)

    def add(self, path, app=None, **options):
        """Add a guarded app and return its guard and, where no app is given, the endpoint behind it."""
        endpoint = None if app else Endpoint()
        self.guards[path] = guard = Guard(app or endpoint.app, **options)
        return guard, endpoint

    async def open(self, protocol=WebSocketsSansIOProtocol):
        """Start the server."""
        self.server = await serve(self, protocol=protocol)
        return self

    def connect(self, path, **options):
        """Return a client that is to connect."""
        return connect(self.server.ws_url(path), **options)

    async def knock(self, path, **options):
        """Return "in" for a client that was let in and answered, the HTTP response for one that was refused."""
        return await knock(self.server, path, **options)


async def knock(server, path, **options):
    """Return "in" for a client that was let in and answered, the HTTP response for one that was refused."""
    try:
        async with connect(server.ws_url(path), **options) as client:
            await client.send("hello")
            return "in" if await client.recv() == "hello" else "unanswered"
    except InvalidStatus as refusal:
        return refusal.response


def bearer(token=TOKEN):
    """Return the options of a client that shows a token in the header."""
    return {"additional_headers": {"Authorization": f"Bearer {token}"}}


async def end_of(client):
    """Return the code and the reason that a client is closed with, past all answers before it."""
    async with asyncio.timeout(PATIENCE):
        with suppress(ConnectionClosed):
            while True:
                await client.recv()
    return client.close_code, client.close_reason


async def come_true(condition):
    """Wait until a condition holds; fail the test if it never does."""
    assert await has_come_true(condition, within=PATIENCE)


# ---- as a middleware, and what passes


@in_lab
async def test_fastapi_takes_it_as_a_middleware():
    """With each of its refusals and limits; startup and requests pass, from a foreign page and with a token too."""
    started = []

    @asynccontextmanager
    async def lifespan(app):
        started.append(app)
        yield

    app = FastAPI(lifespan=lifespan)
    app.get("/score")(lambda token: token)
    endpoint = Endpoint()
    app.websocket("/ws")(endpoint.answer)
    limits = {"max_connections": 1, "max_message_bytes": LIMIT, "messages_per_second": 1, "burst": 2}
    app.add_middleware(Guard, origins=[HOME], token=TOKEN, **limits)
    server = await serve(app)
    async with httpx2.AsyncClient() as http:
        response = await http.get(f"{server.url}/score?token=2:1", headers={"Origin": "https://stranger.example"})
    assert (started, response.json()) == ([app], "2:1")
    assert (await knock(server, "/ws", origin="null", **bearer())).status_code == 403
    assert (await knock(server, "/ws", origin=HOME)).status_code == 401
    async with connect(server.ws_url(), origin=HOME, **bearer()) as client:
        assert (await knock(server, "/ws", **bearer())).status_code == 503
        await client.send("x" * (LIMIT + 1))
        assert (await end_of(client))[0] == 1009
    await come_true(lambda: len(endpoint.endings) == 1)
    async with connect(server.ws_url(), **bearer()) as client:
        for _ in range(5):
            await client.send("hello")
        assert (await end_of(client))[0] == 1008


@in_lab
async def test_a_connection_costs_little_and_a_hub_finds_what_is_its_own():
    """No task for each; without limits the server's own two ends; the server's extensions as they were."""
    given = []

    async def plain(scope, receive, send):
        given.extend([receive.__self__, send.__self__])
        await send({"type": "websocket.close"})

    site = Site()
    site.add("/plain", plain, token=TOKEN, max_message_bytes=None, messages_per_second=None)
    _, endpoint = site.add("/guarded", origins=[HOME], token=TOKEN, max_per_client=9)
    site.guards["/bare"] = Endpoint().app
    await site.open(HubProtocol)
    assert (await site.knock("/plain", **bearer())).status_code == 403
    assert [type(each) for each in given] == [HubProtocol] * 2
    tasks = []
    for path in ("/bare", "/guarded"):
        before = asyncio.all_tasks()
        async with site.connect(path, **bearer()) as client:
            await client.send("hello")
            await client.recv()
            tasks.append(len(asyncio.all_tasks() - before))
            if path == "/guarded":
                abort(endpoint.websockets[0])
                assert (await end_of(client))[0] == 1006
    assert tasks[0] == tasks[1]


# ---- origins


@in_lab
async def test_pages_are_let_in_by_their_exact_origin():
    """And what is no browser, since it sends none. Others are refused, however like they are to one on the list."""
    site = Site()
    guard, endpoint = site.add("/listed", origins=[HOME, "http://localhost:8000"])
    site.add("/any")
    site.add("/none", origins=[])
    await site.open()
    foreign = ["null", "", "https://stranger.example", "http://scores.example", f"{HOME}/", f"{HOME}:443", HOME.upper()]
    foreign += ["https://www.scores.example", f"{HOME}.stranger.example", "http://localhost", "http://localhost:80001"]
    for origin in foreign:
        refusal = await site.knock("/listed", additional_headers={"Origin": origin})
        assert refusal.status_code == 403, origin
    assert refusal.body == b"Pages of this origin may not open a WebSocket here."
    assert (guard.connections, endpoint.websockets) == (0, [])
    for origin in (HOME, "http://localhost:8000", None):
        assert await site.knock("/listed", origin=origin) == "in", origin
    assert await site.knock("/any", origin="null") == "in"
    assert (await site.knock("/none", origin=HOME)).status_code == 403
    assert await site.knock("/none") == "in"


# ---- tokens

SHOWN = {
    "header": {"additional_headers": {"Authorization": f"bearer {TOKEN}"}},
    "subprotocol": {"subprotocols": ["json", "bearer", TOKEN, "text"]},
    "cookie": {"additional_headers": {"Cookie": f"theme=dark; token={TOKEN}; size=2"}},
    "query": {"query": f"?seq=1&%74oken={TOKEN}&epoch=2"},
}


def showing(place, path):
    """Return the address and the options of a client that shows its token in a place."""
    options = dict(SHOWN[place])
    return path + options.pop("query", ""), options


@in_lab
async def test_a_token_is_taken_from_where_it_counts():
    """The app gets neither it nor less of anything else, and who shows none is told where to."""
    site = Site()
    doors = {place: site.add(f"/{place}", origins=[HOME], token=TOKEN, token_from=[place])[1] for place in SHOWN}
    await site.open()
    for place, endpoint in doors.items():
        path, options = showing(place, f"/{place}")
        assert await site.knock(path, **options) == "in", place
        assert TOKEN not in repr(endpoint.websockets[0].scope), place
        for other in SHOWN.keys() - {place}:
            path, options = showing(other, f"/{place}")
            refusal = await site.knock(path, **options)
            assert (refusal.status_code, refusal.headers["WWW-Authenticate"]) == (401, "Bearer"), (place, other)
        assert refusal.body.startswith(b"This needs a token: ")
        assert place in refusal.body.decode()
        assert len(endpoint.websockets) == 1, place
    seen = {place: endpoint.websockets[0] for place, endpoint in doors.items()}
    assert seen["subprotocol"].scope["subprotocols"] == ["json", "text"]
    assert seen["subprotocol"].headers["sec-websocket-protocol"] == "json, text"
    assert seen["cookie"].cookies == {"theme": "dark", "size": "2"}
    assert seen["query"].url.query == "seq=1&epoch=2"


@in_lab
async def test_a_wrong_token_is_refused_and_a_browser_gets_an_answer():
    """401 for a part of the token, for more than it, for none; a browser gives up when no subprotocol is answered."""

    async def choosy(scope, receive, send):
        await WebSocket(scope, receive, send).accept("json")

    site = Site()
    guard, endpoint = site.add("/ws", token=TOKEN, max_message_bytes=None, messages_per_second=None)
    site.add("/choosy", choosy, token=TOKEN)
    await site.open()
    for wrong in ("ada-471", f"{TOKEN}1", "ADA-4711", "", "über"):
        refusal = await site.knock("/ws", **bearer(wrong))
        assert (refusal.status_code, refusal.headers["WWW-Authenticate"]) == (401, 'Bearer error="invalid_token"')
        assert wrong == "" or wrong.encode() not in refusal.body
    assert (guard.connections, endpoint.websockets) == (0, [])
    for path, answer in (("/ws", "bearer"), ("/choosy", "json")):
        async with site.connect(path, subprotocols=["bearer", TOKEN, "json"]) as client:
            assert client.subprotocol == answer
    # Another scheme of authorization is the app's.
    basic = {"subprotocols": ["bearer", TOKEN], "additional_headers": {"Authorization": "Basic YTpi"}}
    assert await site.knock("/ws", **basic) == "in"
    assert endpoint.websockets[-1].headers["authorization"] == "Basic YTpi"
    assert "user" not in endpoint.websockets[-1].scope


@in_lab
async def test_a_function_may_say_who_it_is():
    """At once or later; what it returns is the app's user. One that raises lets nobody in, and quotes no token."""
    known = {TOKEN: {"name": "Ada"}}

    async def ask(token):
        await asyncio.sleep(0)
        return known.get(token)

    site = Site()
    doors = {path: site.add(path, token=check)[1] for path, check in (("/now", known.get), ("/later", ask))}
    guard, endpoint = site.add("/raises", token={}.__getitem__)
    await site.open()
    for path, door in doors.items():
        assert await site.knock(path, **bearer()) == "in"
        assert door.websockets[0].user == {"name": "Ada"}
        assert (await site.knock(path, **bearer("bo-1"))).status_code == 401
    with expecting(TokenCheckFailed, match="KeyError") as failures:
        assert (await site.knock("/raises", **bearer())).status_code == 500
    [error] = failures.errors
    assert TOKEN not in str(error)
    assert error.__context__ is None
    assert (guard.connections, endpoint.websockets) == (0, [])


class Lines(logging.Handler):
    """Keeps every line that is logged, with its arguments, which a log in JSON has one by one."""

    def __init__(self):
        super().__init__(logging.DEBUG)
        self.lines = []
        self.setFormatter(logging.Formatter())

    def emit(self, record):
        """Keep a line."""
        self.lines.append(f"{self.format(record)} {record.args!r}")


@pytest.fixture
def logged():
    """Give the list of all that is logged, where uvicorn logs as it usually does and everybody else all they can."""
    handler = Lines()
    names = {"": logging.DEBUG, "uvicorn": logging.INFO, "uvicorn.error": logging.INFO, "uvicorn.access": logging.INFO}
    # The clients of these tests know the token, and are not the server.
    names["websockets"] = logging.WARNING
    loggers = {logging.getLogger(name): level for name, level in names.items()}
    before = {logger: logger.level for logger in loggers}
    for logger, level in loggers.items():
        logger.setLevel(level)
        logger.addHandler(handler)
    yield handler.lines
    for logger, level in before.items():
        logger.setLevel(level)
        logger.removeHandler(handler)


@in_lab
async def test_no_token_is_in_any_line_of_any_log(logged):
    """Wherever it is shown, right or wrong, and whatever comes of it."""
    site = Site()
    everywhere = {"origins": [HOME], "token": TOKEN, "token_from": list(SHOWN), "burst": 3, "max_connections": 1}
    guard, _ = site.add("/ws", **everywhere)
    site.add("/header", token=TOKEN)
    await site.open()
    for place in SHOWN:
        path, options = showing(place, "/ws")
        assert await site.knock(path, **options) == "in"
        await come_true(lambda: guard.connections == 0)
    in_query = f"/ws?token={TOKEN}"
    assert (await site.knock(f"{in_query}0")).status_code == 401
    assert (await site.knock(in_query, origin="null")).status_code == 403
    async with site.connect(in_query) as client:
        assert (await site.knock(in_query)).status_code == 503
        for _ in range(9):
            await client.send("hello")
        assert (await end_of(client))[0] == 1008
    assert (await site.knock(f"/header?token={TOKEN}")).status_code == 401
    text = "\n".join(logged)
    for expected in ("/ws?seq=1&epoch=2", "[accepted]", '" 401', '" 403', '" 503', "closed with 1008"):
        assert expected in text
    assert TOKEN not in text
    # At this level `websockets` logs the handshake before any app is asked, as the guard's description warns.
    logging.getLogger("uvicorn.error").setLevel(logging.DEBUG)
    assert await site.knock("/header", **bearer()) == "in"
    assert TOKEN in "\n".join(logged)


# ---- how many


async def goodbye(client, endpoint):
    """Leave as one should."""
    await client.close()


async def vanish(client, endpoint):
    """Leave without a word."""
    client.transport.abort()


async def have_it_return(client, endpoint):
    """Have the endpoint return."""
    await client.send("return")


async def have_it_crash(client, endpoint):
    """Have the endpoint raise."""
    await client.send("raise")


async def send_too_much(client, endpoint):
    """Have the guard close."""
    await client.send("x" * (LIMIT + 1))


async def cancel(client, endpoint):
    """Have the endpoint's task cancelled, as a server does that stops."""
    endpoint.task.cancel()


@in_lab
async def test_a_place_is_free_again_however_a_connection_ends():
    """And taken until then: the next one is refused with 503, and told when to come back."""
    site = Site()
    guard, endpoint = site.add("/ws", max_connections=1, max_per_client=1, max_message_bytes=LIMIT)
    await site.open()
    with expecting(ValueError, match="as told"):
        for leave in (goodbye, vanish, have_it_return, have_it_crash, send_too_much, cancel):
            async with site.connect("/ws") as client:
                await client.send("hello")
                await client.recv()
                refusal = await site.knock("/ws")
                assert (refusal.status_code, refusal.headers["Retry-After"]) == (503, "5"), leave
                assert refusal.body == b"All 1 places of this server are taken. Try again later."
                await leave(client, endpoint)
                assert await has_come_true(lambda: guard.connections == 0, within=PATIENCE), leave
            assert guard.by_address == {}, leave
    assert await site.knock("/ws") == "in"


@in_lab
async def test_no_more_than_the_limit_are_in_and_each_address_has_its_own():
    """Many come at once; a network of IPv6 is one client; uvicorn believes a proxy on this machine about addresses."""
    site = Site()
    guard, _ = site.add("/all", max_connections=5)
    per_client, _ = site.add("/each", max_per_client=2)
    await site.open()
    clients = await asyncio.gather(*(site.connect("/all") for _ in range(12)), return_exceptions=True)
    refused = [client for client in clients if isinstance(client, InvalidStatus)]
    assert (len(refused), guard.connections) == (7, 5)

    def come_from(address):
        return site.connect("/each", additional_headers={"X-Forwarded-For": address})

    addresses = ["192.0.2.1", "192.0.2.2", "::ffff:192.0.2.1", "2001:db8::1", "2001:db8::ffff:0:2", "2001:db8:0:1::1"]
    clients = [client for client in clients if client not in refused] + [await come_from(each) for each in addresses]
    assert sorted(per_client.by_address.values()) == [1, 1, 2, 2]
    for full in ("192.0.2.1", "2001:db8::3"):
        with pytest.raises(InvalidStatus) as refusal:
            await come_from(full)
        assert refusal.value.response.status_code == 503
        assert refusal.value.response.body.startswith(b"Your address has 2 connections open")
    await asyncio.gather(*(client.close() for client in clients))
    await come_true(lambda: (guard.connections, per_client.connections) == (0, 0))
    assert per_client.by_address == {}


@in_lab
async def test_who_waits_for_the_check_of_a_token_has_a_place():
    """Else any number of strangers could wait there; it is free again when the server stops under the check."""
    asked, answers = asyncio.Event(), asyncio.Event()

    async def ask(token):
        asked.set()
        await answers.wait()

    site = Site()
    guard, _ = site.add("/ws", token=ask, max_connections=1)
    site.guards["/plain"] = without_words = Without(Guard(Endpoint().app, token=TOKEN))
    await site.open()
    waiting = asyncio.create_task(site.knock("/ws", **bearer()))
    await asyncio.wait_for(asked.wait(), PATIENCE)
    assert (await site.knock("/ws", **bearer())).status_code == 503
    # A server that cannot answer a handshake in words has the close before accept, which is 403 for all.
    refusal = await site.knock("/plain")
    assert (without_words.sent, refusal.status_code, refusal.body) == (["websocket.close"], 403, b"")
    await site.server.stop()
    assert guard.connections == 0
    assert (await waiting).status_code == 500


class Without:
    """Stands before a guard and hides that the server can answer a handshake."""

    def __init__(self, guard):
        self.guard = guard
        self.sent = []

    async def __call__(self, scope, receive, send):
        """Pass all on but that extension, and note what is sent."""

        async def noted(message):
            self.sent.append(message["type"])
            await send(message)

        await self.guard({**scope, "extensions": {}}, receive, noted)


# ---- how much

# Each is exactly at the limit, and so is what it is sent as: letters of one and of several bytes, and fragments.
MESSAGES = {
    "ascii": "x" * LIMIT,
    "two bytes": "ü" * (LIMIT // 2),
    "four bytes": "🎉" * (LIMIT // 4),
    "bytes": b"x" * LIMIT,
    "fragments": ["x" * 100] * 3,
    "fragments of bytes": [b"x" * 150] * 2,
}


@in_lab
async def test_a_message_at_the_limit_passes_and_one_byte_more_does_not():
    """1009 for the client, and the same for the app, which never gets the message."""
    site = Site()
    _, endpoint = site.add("/ws", max_message_bytes=LIMIT)
    await site.open()
    end = (1009, f"a message of {LIMIT + 1} bytes; it may have {LIMIT}")
    for number, (kind, words) in enumerate(MESSAGES.items(), 1):
        parts = words if isinstance(words, list) else [words]
        more = "x" if isinstance(parts[0], str) else b"x"
        async with site.connect("/ws") as client:
            await client.send(words)
            assert await client.recv() == more[:0].join(parts), kind
            await client.send([*parts, more] if words is parts else words + more)
            assert await end_of(client) == end, kind
        await come_true(lambda: endpoint.endings == [end] * number)  # noqa: B023
    assert endpoint.received == ["x" * 300, "ü" * 150, "🎉" * 75, b"x" * 300, "x" * 300, b"x" * 300]


@in_lab
async def test_a_burst_passes_and_a_flood_does_not():
    """1008 for client and app. The pace is what is tested, so this one sleeps; it asks nothing of the machine's."""
    site = Site()
    _, endpoint = site.add("/slow", messages_per_second=2.5, burst=10)
    _, saver = site.add("/saves", messages_per_second=100, burst=3)
    site.add("/paced", messages_per_second=100, burst=1)
    await site.open()
    loop = asyncio.get_running_loop()
    end = (1008, "more than 2.5 messages a second")
    async with site.connect("/slow") as client, site.connect("/slow") as neighbour:
        started_at = loop.time()
        for number in range(10):
            await client.send(str(number))
        assert [await client.recv() for _ in range(10)] == [str(number) for number in range(10)]
        for _ in range(100):
            await client.send("flood")
        assert await end_of(client) == end
        await come_true(lambda: endpoint.endings == [end])
        assert len(endpoint.received) <= 10 + (loop.time() - started_at) * 2.5
        # A flood on one connection costs the others nothing.
        for number in range(10):
            await neighbour.send(str(number))
            assert await neighbour.recv() == str(number)
    # Who keeps to the pace stays, and who is silent saves up no more than a burst.
    async with site.connect("/paced") as client, site.connect("/saves") as silent:
        await silent.send("hello")
        for _ in range(20):
            await client.send("hello")
            assert await client.recv() == "hello"
            await asyncio.sleep(0.01)
        started_at = loop.time()
        for _ in range(25):
            await silent.send("flood")
        assert (await end_of(silent))[0] == 1008
    assert 3 <= saver.received.count("flood") <= 3 + (loop.time() - started_at) * 100


# ---- after the end


async def late_sends(site):
    """Starlette makes WebSocketDisconnect of it; closing once more is no error, since that is what is wanted."""
    _, endpoint = site.add("/late", max_message_bytes=100)
    async with site.connect("/late") as client:
        await client.send("x" * 101)
        await end_of(client)
        [websocket] = endpoint.websockets
        with pytest.raises(WebSocketDisconnect):
            await websocket.send_text("too late")
        # As one that has sent nothing since.
        websocket.application_state = WebSocketState.CONNECTED
        await websocket.close()


async def sends_all_the_time(site):
    """A task of its own that sends meets no other error, at whatever moment the end comes."""
    errors = []

    async def tell(scope, receive, send):
        websocket = WebSocket(scope, receive, send)
        await websocket.accept()
        telling = asyncio.create_task(tell_all(websocket))
        with suppress(WebSocketDisconnect):
            while True:
                await websocket.receive_text()
        await asyncio.wait({telling})
        errors.append(telling.exception())

    async def tell_all(websocket):
        while True:
            await websocket.send_text("x" * 10_000)
            await asyncio.sleep(0)

    site.add("/tell", tell, max_message_bytes=100)
    async with site.connect("/tell") as client:
        for _ in range(20):
            await client.recv()
        await client.send("x" * 101)
        assert (await end_of(client))[0] == 1009
        await come_true(lambda: errors)
    assert isinstance(errors[0], WebSocketDisconnect)


async def no_starlette(site):
    """An app gets an OSError, and may let it through: no failure is logged."""
    told = []

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        told.append(await receive())
        try:
            await send({"type": "websocket.send", "text": "too late"})
        except OSError as error:
            told.append(error)
            raise

    guard, _ = site.add("/bare", app, max_message_bytes=100)
    async with site.connect("/bare") as client:
        await client.send("x" * 101)
        await end_of(client)
        await come_true(lambda: guard.connections == 0)
    end, error = told
    assert (end["type"], end["code"]) == ("websocket.disconnect", 1009)
    assert "a message of 101 bytes" in str(error)


async def held_up_sends(site):
    """Here a middleware between guard and server holds messages up, and the close overtakes one.

    It goes on before the client has answered: of a client that is gone, uvicorn itself would say so.
    """
    let_through = asyncio.Event()
    guard, endpoint = site.add("/held", max_message_bytes=100)

    async def held_up(scope, receive, send):
        async def slow_send(message):
            if message["type"] == "websocket.send":
                await let_through.wait()
            await send(message)
            if message["type"] == "websocket.close":
                let_through.set()

        await guard(scope, receive, slow_send)

    site.guards["/held"] = held_up
    async with site.connect("/held") as client:
        await come_true(lambda: endpoint.websockets)
        sending = asyncio.create_task(endpoint.websockets[0].send_text("overtaken"))
        client.transport.pause_reading()
        await client.send("x" * 101)
        await asyncio.wait({sending})
        client.transport.resume_reading()
    assert isinstance(sending.exception(), WebSocketDisconnect)


async def closed_by_the_app(site):
    """What comes too much behind the app's own close changes nothing about that."""
    told, closed = [], asyncio.Event()

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await closed.wait()
        await send({"type": "websocket.close", "code": 4000})
        told.append(await receive())

    site.add("/closed", app, max_message_bytes=100)
    async with site.connect("/closed") as client:
        await client.send("x" * 101)
        [connection] = site.server._uvicorn.server_state.connections
        # It is there, and the app has not asked for it.
        await come_true(lambda: connection.queue.qsize() == 1)
        closed.set()
        assert (await end_of(client))[0] == 4000
        await come_true(lambda: told)
    assert told[0]["type"] == "websocket.disconnect"


async def client_that_sleeps(site):
    """The close frame waits behind full buffers; the app is told all the same, and as often as it asks."""
    websockets, told, first = [], [], asyncio.Event()

    async def app(scope, receive, send):
        websockets.append(websocket := WebSocket(scope, receive, send))
        await websocket.accept()
        await first.wait()
        told.extend([await receive(), await receive()])

    guard, _ = site.add("/sleepy", app, max_message_bytes=100)
    async with site.connect("/sleepy") as client:
        client.transport.pause_reading()
        [websocket] = websockets
        await websocket.send_text("x" * 8_000_000)
        stuck = asyncio.create_task(websocket.send_text("stuck"))
        await client.send("x" * 101)
        first.set()
        await come_true(lambda: guard.connections == 0)
        assert [end["code"] for end in told] == [1009, 1009]
        assert not stuck.done()
        client.transport.abort()
        await asyncio.wait({stuck})
    assert isinstance(stuck.exception(), WebSocketDisconnect)


@in_lab
async def test_the_end_is_an_end_that_the_app_knows(monkeypatch):
    """WebSocketDisconnect or OSError, as of any client that is gone; never RuntimeError, and nobody is waited for."""
    monkeypatch.setattr(limits, "_CLOSE_SECONDS", 0.05)
    site = await Site().open()
    for case in (late_sends, sends_all_the_time, no_starlette, held_up_sends, closed_by_the_app, client_that_sleeps):
        await case(site)
        await come_true(lambda: site.server.connections == 0)


# ---- what the guard is told


async def nothing(scope, receive, send):
    """Do nothing: for a guard that is not run."""


@pytest.mark.parametrize(
    "origin",
    [
        f"{HOME}/",
        f"{HOME}:443",
        "http://scores.example:80",
        HOME.upper(),
        "scores.example",
        "null",
        "*",
        "",
        "https://ü.x",
    ],
)
def test_an_origin_that_no_browser_sends_is_refused_at_once(origin):
    """It would let nobody in, or with "null" everybody."""
    with pytest.raises(ValueError, match="no browser sends the origin"):
        Guard(nothing, origins=[HOME, origin])


@pytest.mark.parametrize("origin", ["http://localhost:8000", "https://[::1]:8443", "http://scores.example:443"])
def test_an_origin_that_a_browser_may_send_is_taken(origin):
    """With a port, an address instead of a name, and the other scheme's port."""
    Guard(nothing, origins=[origin])


@pytest.mark.parametrize(
    ("wrong", "error", "match"),
    [
        ({"origins": HOME}, TypeError, "origins is a list of texts"),
        ({"origins": [7]}, TypeError, "origins is a list of texts"),
        ({"token": ""}, ValueError, "0 characters"),
        ({"token": "a secret"}, ValueError, "8 characters"),
        ({"token": b"secret"}, TypeError, "here it is bytes"),
        ({"token_from": "header"}, TypeError, "token_from is a list"),
        ({"token_from": ["heder"]}, ValueError, "header, subprotocol, cookie, query"),
        ({"token_from": []}, ValueError, "at least one"),
        ({"token_from": ["cookie"]}, ValueError, "give `origins`"),
        ({"max_connections": 0}, ValueError, "max_connections is 0"),
        ({"max_connections": 2.5}, TypeError, "max_connections is a whole number"),
        ({"max_per_client": True}, TypeError, "max_per_client is a whole number"),
        ({"max_message_bytes": -1}, ValueError, "max_message_bytes is -1"),
        ({"messages_per_second": 0}, ValueError, "more than 0"),
        ({"messages_per_second": float("nan")}, ValueError, "more than 0"),
        ({"messages_per_second": float("inf")}, ValueError, "more than 0"),
        ({"messages_per_second": "20"}, TypeError, "is a number"),
        ({"burst": 0}, ValueError, "burst is 0"),
        ({"burst": 5, "messages_per_second": None}, ValueError, "nothing that it could limit"),
    ],
    ids=str,
)
def test_an_argument_that_cannot_be_meant_is_refused_at_once(wrong, error, match):
    """With what was seen, and never with the token."""
    with pytest.raises(error, match=match) as refusal:
        Guard(nothing, **wrong)
    assert "secret" not in str(refusal.value)
