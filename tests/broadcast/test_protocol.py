"""A connection that is given up: what the server, the endpoint and the client see of it."""

import asyncio
import logging
import subprocess
import sys

import pytest
from fastapi import FastAPI, WebSocket
from starlette.websockets import WebSocketDisconnect
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from labkit import Fleet, serve
from labkit.broadcast.protocol import HubProtocol, abort
from labkit.evidence.contract import FILLER, has_come_true

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
in_lab = pytest.mark.usefixtures("lab")

SLEEPER = {"stalled": 1, "receive_buffer_bytes": 4_096}


class Endpoint:
    """An app with one endpoint that notes its connections, and how each of them ended."""

    def __init__(self):
        self.websockets = []
        self.endings = []
        self.app = FastAPI()
        self.app.websocket("/ws")(self.listen)

    async def listen(self, websocket: WebSocket):
        """Listen until the end, whatever it is."""
        await websocket.accept()
        self.websockets.append(websocket)
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect as end:
            self.endings.append(end.code)


async def sleeping(endpoint, **options):
    """Return a server and its one client, which sleeps behind full buffers, and the send that waits for it."""
    server = await serve(endpoint.app, send_buffer_bytes=65_536, **options)
    await Fleet(server, **SLEEPER).connect()
    [websocket] = endpoint.websockets
    await websocket.send_text(FILLER)
    waiting = asyncio.create_task(websocket.send_text("GOAL"))
    await asyncio.sleep(0)
    assert not waiting.done()
    return server, websocket, waiting


@in_lab
async def test_abort_frees_the_socket_of_a_client_that_never_reads():
    """The send that waited ends in an error, the endpoint is told, and the connection is gone."""
    endpoint = Endpoint()
    server, websocket, waiting = await sleeping(endpoint, protocol=HubProtocol)
    abort(websocket)
    with pytest.raises(WebSocketDisconnect):
        await waiting
    assert await has_come_true(lambda: server.connections == 0 and endpoint.endings == [1005], within=2)


@in_lab
async def test_close_does_not():
    """It waits behind the messages; this is why abort() is there."""
    server, websocket, waiting = await sleeping(Endpoint(), protocol=HubProtocol)
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(websocket.close(), 0.5)
    assert server.connections == 1
    assert not waiting.done()
    abort(websocket)
    await asyncio.wait({waiting})
    assert isinstance(waiting.exception(), WebSocketDisconnect)


@in_lab
async def test_abort_of_a_connection_that_is_gone_is_no_error():
    """Twice, or after a goodbye."""
    endpoint = Endpoint()
    server = await serve(endpoint.app, protocol=HubProtocol)
    async with connect(server.ws_url()):
        pass
    assert await has_come_true(lambda: server.connections == 0, within=2)
    [websocket] = endpoint.websockets
    abort(websocket)
    abort(websocket)


@in_lab
async def test_abort_under_another_protocol_says_what_is_missing():
    """And does nothing to the connection."""
    endpoint = Endpoint()
    server = await serve(endpoint.app)
    async with connect(server.ws_url()) as client:
        with pytest.raises(RuntimeError, match=r"serve\(app, protocol=HubProtocol\)"):
            abort(endpoint.websockets[0])
        await endpoint.websockets[0].send_text("still here")
        assert await client.recv() == "still here"


@in_lab
async def test_a_request_that_is_no_handshake_is_answered_as_before():
    """It has no endpoint, and nothing to abort."""
    server = await serve(Endpoint().app, protocol=HubProtocol)
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
    assert (await reader.readline()).startswith(b"HTTP/1.1 4")
    writer.close()


@in_lab
@pytest.mark.skipif(sys.platform != "linux", reason="TCP_USER_TIMEOUT is Linux's")
async def test_linux_gives_up_a_client_that_takes_nothing():
    """Under uvicorn's own protocol, and without a line in the app."""
    server, _, waiting = await sleeping(endpoint := Endpoint(), tcp_user_timeout=0.3)
    assert await has_come_true(lambda: server.connections == 0, within=10)
    assert await has_come_true(lambda: endpoint.endings == [1005], within=2)
    with pytest.raises(WebSocketDisconnect):
        await waiting


@in_lab
@pytest.mark.parametrize("protocol", [WebSocketsSansIOProtocol, HubProtocol])
async def test_log_has_the_address_without_its_query(protocol, caplog):
    """Tokens are handed over there; uvicorn's own class writes them down, and at level DEBUG the library does too."""
    server = await serve(Endpoint().app, protocol=protocol)
    with caplog.at_level(logging.DEBUG):
        async with connect(server.ws_url("/ws?token=secret")):
            pass
        assert await has_come_true(lambda: server.connections == 0, within=2)
    said = [record.getMessage() for record in caplog.records if record.name == "uvicorn.error"]
    assert any("/ws" in line and "accepted" in line for line in said)
    assert any("secret" in line for line in said) == (protocol is not HubProtocol)


@in_lab
async def test_refusal_in_words_is_no_error_in_the_log(caplog):
    """uvicorn 0.54 takes it for an endpoint that never answered."""

    async def refuse(scope, receive, send):
        await send({"type": "websocket.http.response.start", "status": 418, "headers": []})
        await send({"type": "websocket.http.response.body", "body": b"no"})

    server = await serve(refuse, protocol=HubProtocol)
    with pytest.raises(InvalidStatus, match="418"):
        await connect(server.ws_url())
    assert await has_come_true(lambda: server.connections == 0, within=2)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_uvicorn_finds_the_class_by_its_name():
    """As its command line would be given it."""
    code = "import uvicorn; c = uvicorn.Config('x:y', ws='labkit.broadcast.protocol:HubProtocol', lifespan='off')"
    code += "; c.app = lambda scope: None; c.load(); print(c.ws_protocol_class.__name__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "HubProtocol"
