"""serve(): starts again under a name, survives what fails at the start, and always stops."""

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from labkit import Fleet, expecting, serve
from labkit.apparatus import running
from labkit.apparatus.server import ServerFailed


def answers(port: int) -> bool:
    """Return whether anybody listens on a port."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


async def test_client_receives_what_the_cell_sends(board):
    """A server in this loop has state that a cell can use."""
    server = await serve(board.app)
    async with connect(server.ws_url()) as client:
        await client.send("hello")
        while not board.heard:
            await asyncio.sleep(0)
        await board.broadcast("GOAL")
        assert await client.recv() == "GOAL"
        assert server.connections == 1


async def test_binds_loopback_only(board):
    """Nobody outside this machine can connect unless a host is given."""
    server = await serve(board.app)
    assert server.host == "127.0.0.1"


async def test_connections_do_not_wait_for_acknowledgements(board):
    """TCP_NODELAY is on, as under uvicorn's own command: with Nagle's algorithm every latency would be another."""
    server = await serve(board.app)
    async with connect(server.ws_url()):
        (connection,) = server._uvicorn.server_state.connections
        its_socket = connection.transport.get_extra_info("socket")
        assert its_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_same_name_replaces_other_name_stands_beside(board):
    """A cell that starts a server can run twice, and leaks no port."""
    first = await serve(board.app, name="scores")
    other = await serve(board.app, name="other")
    second = await serve(board.app, name="scores")
    assert not answers(first.port)
    assert answers(second.port)
    assert answers(other.port)
    assert len(running.everything()) == 2


async def test_fixed_port_can_be_used_again_at_once(board):
    """A restart on the same port works while an old connection lingers."""
    server = await serve(board.app)
    async with connect(server.ws_url()):
        again = await serve(board.app, port=server.port)
        assert again.port == server.port


@pytest.mark.parametrize(
    ("wrong", "hint"),
    [
        (FastAPI, r"parentheses missing: FastAPI\(\)"),
        ("app", "Give it the app itself"),
        ([1, 2], "got list"),
        (print, "needs an ASGI app"),
    ],
)
async def test_something_that_is_no_app_is_named(wrong, hint):
    """What is served by mistake is named, and nothing starts."""
    with pytest.raises(TypeError, match=hint):
        await serve(wrong)
    assert running.everything() == []


async def test_taken_port_is_an_ordinary_error(board):
    """uvicorn would end the process here."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ServerFailed, match=f"port {taken.getsockname()[1]} .* another program listens there"):
            await serve(board.app, port=taken.getsockname()[1])
    assert running.everything() == []


async def test_startup_error_names_its_cause():
    """The app's own exception reaches the cell that served it."""

    @asynccontextmanager
    async def lifespan(app):
        raise OSError("no database")
        yield

    with pytest.raises(ServerFailed, match=r"startup \(lifespan\) raised OSError: no database"):
        await serve(FastAPI(lifespan=lifespan))
    assert running.everything() == []


async def test_interrupted_start_leaves_nothing():
    """Stop while the app starts up: no server, no port, no task."""
    entered = asyncio.Event()

    @asynccontextmanager
    async def lifespan(app):
        entered.set()
        await asyncio.Event().wait()
        yield

    starting = asyncio.create_task(serve(FastAPI(lifespan=lifespan)))
    async with asyncio.timeout(10):
        await entered.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert running.everything() == []
    assert running.stray_tasks() == []


async def test_handler_error_is_told_once_and_short(capsys):
    """uvicorn alone would print about 45 lines."""
    app = FastAPI()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket):
        await websocket.accept()
        raise ValueError("no such team")

    server = await serve(app)
    with expecting(ValueError):
        async with connect(server.ws_url()) as client:
            with pytest.raises(ConnectionClosed):
                await client.recv()
    output = capsys.readouterr()
    assert output.out.count("no such team") == 1
    assert len(output.out.splitlines()) == 1
    assert output.err == ""


async def test_stops_whatever_clients_and_handlers_do(board):
    """A sleeper with a full buffer, a handler that listens to nobody, and one that waits for ever."""

    @board.app.websocket("/deaf")
    async def deaf(websocket: WebSocket):
        await websocket.accept()
        await asyncio.Event().wait()

    server = await serve(board.app, send_buffer_bytes=16_384)
    await Fleet(server, stalled=2, healthy=1, receive_buffer_bytes=4_096).connect()
    await Fleet(server, "/deaf", name="deaf", healthy=1).connect()
    await board.broadcast("x" * 1_000_000)
    stuck = asyncio.create_task(board.broadcast("y"))
    async with asyncio.timeout(5):
        await server.stop()
    assert not server.is_open
    assert server.connections == 0
    stuck.cancel()


async def test_stop_tells_clients_1012_and_runs_shutdown():
    """A reader hears that the service restarts; the app's shutdown code runs."""
    seen = []

    @asynccontextmanager
    async def lifespan(app):
        yield
        seen.append("shutdown")

    app = FastAPI(lifespan=lifespan)

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket):
        await websocket.accept()
        await websocket.receive_text()

    server = await serve(app)
    async with connect(server.ws_url()) as client:
        await server.stop()
        with pytest.raises(ConnectionClosed) as closed:
            await client.recv()
    assert closed.value.rcvd.code == 1012
    assert seen == ["shutdown"]
    await server.stop()
