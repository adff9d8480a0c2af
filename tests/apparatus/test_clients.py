"""Fleet: behaviours do what they say, arrivals are stamped, and errors name the clients."""

import asyncio
import resource
import subprocess
import sys
import time

import pytest
from fastapi import FastAPI, WebSocket

from labkit import Fleet, serve
from labkit.apparatus.crowd.wire import ClientFailed
from labkit.apparatus.descriptors import TooManyDescriptors


async def until(condition) -> None:
    """Wait for a condition on this side; the test's own time limit is 5 s."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("in_kernel", [False, True])
async def test_every_client_receives_in_order(board, in_kernel):
    """Numbers follow the order of connecting, texts arrive whole, sizes are those of the message."""
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=5, in_kernel=in_kernel).connect()
    texts = ["GOAL", "ü" * 100, "x" * 126, "y" * 70_000]
    for text in texts:
        await board.broadcast(text)
    await fleet.until(4)
    for client in range(1, 6):
        mine = [each for each in fleet.deliveries if each.client == client]
        assert [each.size_bytes for each in mine] == [len(text.encode()) for text in texts]
        assert [each.text for each in mine[:3]] == texts[:3]
        assert mine[3].text == "y" * 256
    assert fleet.deliveries.roster == dict.fromkeys(range(1, 6), "healthy")


async def test_place_in_the_registry_is_the_client_number(board):
    """Client 3 is the third whom the server takes in."""
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=20).connect()
    await board.connections[2].send_text("for the third")
    await fleet.until(1, clients=[3])
    assert [(each.client, each.text) for each in fleet.deliveries] == [(3, "for the third")]


@pytest.mark.parametrize("in_kernel", [False, True])
async def test_counts_say_what_each_client_has(board, in_kernel):
    """Those who have nothing, too; clear() begins again."""
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=2, stalled=1, in_kernel=in_kernel).connect()
    await board.broadcast("one")
    await board.connections[1].send_text("two")
    await fleet.until(2, clients=[2])
    await fleet.until(1)
    assert await fleet.counts() == {1: 1, 2: 2, 3: 0}
    fleet.clear()
    assert await fleet.counts() == {1: 0, 2: 0, 3: 0}


async def test_arrivals_are_stamped_between_send_and_now(board):
    """The fleet's clock is this process's monotonic clock."""
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=3).connect()
    before = time.monotonic()
    await board.broadcast("GOAL")
    await fleet.until(1)
    after = time.monotonic()
    assert all(before <= each.arrived_at <= after for each in fleet.deliveries)
    assert fleet.deliveries.stamped_by == ("operating system" if sys.platform == "linux" else "reader")


async def test_stalled_client_reads_nothing_until_it_wakes(board):
    """Its socket stays open all the same."""
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=1, stalled=1).connect()
    await board.broadcast("GOAL")
    await fleet.until(1)
    assert [each.client for each in fleet.deliveries] == [1]
    assert server.connections == 2
    await fleet.wake(2)
    await fleet.until(1, clients="stalled")
    assert fleet.endings == {1: None, 2: None}


async def test_slow_client_reads_late_but_all(board):
    """Two megabytes trickle in, 4096 bytes at a time."""
    server = await serve(board.app)
    fleet = await Fleet(server, slow=1, slow_pause=0.001).connect()
    await board.broadcast("x" * 200_000)
    await fleet.until(1)
    assert fleet.deliveries[0].size_bytes == 200_000


async def test_leaving_and_vanishing_clients_go_after_their_messages(board):
    """One says goodbye with 1000, the other resets; neither gets a third message."""
    server = await serve(board.app)
    fleet = await Fleet(server, leaving=1, vanishing=1, healthy=1, leave_after=2).connect()
    await board.broadcast("one")
    await board.broadcast("two")
    await until(lambda: len(board.connections) == 1)
    await board.broadcast("three")
    await fleet.until(3)
    counts = [sum(each.client == client for each in fleet.deliveries) for client in (1, 2, 3)]
    assert counts == [2, 2, 3]
    assert fleet.endings == {1: 1000, 2: 1006, 3: None}


async def test_clients_leave_hang_up_and_vanish_on_command(board):
    """The server hears 1000 for a close frame; FIN and RST come without a code."""
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=4).connect()
    await fleet.leave(1)
    await fleet.hang_up(2)
    await fleet.vanish(3)
    await until(lambda: len(board.connections) == 1)
    await fleet.send("still here", clients=[4])
    await until(lambda: board.heard == ["still here"])
    with pytest.raises(ClientFailed, match="client 3 has ended with 1006"):
        await fleet.send("me too", clients=[3])
    assert fleet.endings == {1: 1000, 2: 1006, 3: 1006, 4: None}


async def test_frozen_fleet_answers_no_ping_and_is_closed(board):
    """A frozen process keeps its sockets; only a ping that nobody answers tells."""
    server = await serve(board.app, ping_interval=0.2, ping_timeout=0.2)
    fleet = await Fleet(server, healthy=2).connect()
    fleet.freeze()
    await until(lambda: server.connections == 0)
    fleet.thaw()
    await fleet.settle()
    assert set(fleet.endings.values()) == {1011}


async def test_until_names_who_misses_what(board):
    """The message has the numbers, the behaviours and the counts."""
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=3, stalled=1).connect()
    await board.connections[1].send_text("for the second")
    await fleet.until(1, clients=[2])
    with pytest.raises(
        TimeoutError, match=r"2 of 3 clients did not get 1 messages within 0.1 s: 1, 3 \(healthy\) got 0"
    ):
        await fleet.until(1, timeout=0.1)
    with pytest.raises(ValueError, match="no client has the number 9"):
        await fleet.until(1, clients=[9])


async def test_clear_starts_counting_again(board):
    """Two experiments on one fleet do not mix."""
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=2).connect()
    await board.broadcast("one")
    await fleet.until(1)
    fleet.clear()
    assert fleet.deliveries == []
    await board.broadcast("two")
    await fleet.until(1)
    assert {each.text for each in fleet.deliveries} == {"two"}


async def test_same_name_replaces_the_fleet(board):
    """A cell that connects a fleet can run twice."""
    server = await serve(board.app)
    first = await Fleet(server, healthy=3).connect()
    second = await Fleet(server, healthy=3).connect()
    await until(lambda: server.connections == 3)
    assert not first.is_open
    assert second.is_open


@pytest.mark.parametrize(
    ("path", "hint"), [("/nowhere", "HTTP 403. Is this the path"), ("/never", "Is the server's loop blocked")]
)
async def test_client_that_cannot_connect_is_named(board, path, hint, monkeypatch):
    """Which client, what the server answered, and the likely cause; nobody stays connected."""
    monkeypatch.setattr("labkit.apparatus.crowd.wire._HANDSHAKE_SECONDS", 0.2)

    @board.app.websocket("/never")
    async def never(websocket: WebSocket):
        await asyncio.Event().wait()

    server = await serve(board.app)
    fleet = Fleet(server, path, healthy=3, in_kernel=True)
    with pytest.raises(ClientFailed, match=rf"client 1 \(healthy\) could not connect: .*{hint}"):
        await fleet.connect()
    assert not fleet.is_open


async def test_stopped_server_is_named_as_the_cause(board):
    """Nobody listens any more."""
    server = await serve(board.app)
    await server.stop()
    with pytest.raises(ClientFailed, match=r"Connection refused\. Is the server still running"):
        await Fleet(server, healthy=1).connect()


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"sleepy": 1}, "no client behaves 'sleepy'; there are: healthy, slow"),
        ({"healthy": -1}, "healthy=-1: give a whole number"),
        ({"healthy": 1, "order": ["healthy"]}, "not both"),
    ],
)
def test_wrong_behaviours_are_refused(options, hint):
    """Before anything is started."""
    with pytest.raises(ValueError, match=hint):
        Fleet("ws://127.0.0.1:1", **options)


async def test_unconnected_fleet_says_what_is_missing(board):
    """The usual slip is a forgotten connect()."""
    server = await serve(board.app)
    with pytest.raises(RuntimeError, match=r"Is `await fleet.connect\(\)` missing"):
        _ = Fleet(server, healthy=1).deliveries


async def test_interrupted_connect_leaves_nothing():
    """Stop while the fleet connects: its process is gone."""
    app = FastAPI()
    arrived = asyncio.Event()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket):
        arrived.set()
        await asyncio.Event().wait()

    server = await serve(app)
    fleet = Fleet(server, healthy=3)
    connecting = asyncio.create_task(fleet.connect())
    async with asyncio.timeout(10):
        await arrived.wait()
    connecting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert not fleet.is_open


async def test_killed_fleet_is_told_as_such(board):
    """Not as a broken pipe."""
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=1).connect()
    fleet._process().kill()
    await until(lambda: server.connections == 0)
    with pytest.raises(RuntimeError, match="process has ended"):
        await fleet.until(1)


def test_fleet_beyond_the_hard_limit_says_the_number():
    """A process whose hard limit is 300 descriptors cannot hold 1,000 clients."""
    code = """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (200, 300))
from labkit.apparatus.descriptors import TooManyDescriptors, allow_descriptors
allow_descriptors(200, "clients")
assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 200
try:
    allow_descriptors(1000, "clients")
except TooManyDescriptors as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "1000 clients need" in result.stdout
    assert "this system allows 300" in result.stdout


async def test_too_large_a_fleet_connects_nobody(board):
    """The error comes before the first client."""
    server = await serve(board.app)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if hard > 2_000_000 or hard == resource.RLIM_INFINITY:
        pytest.skip("this system has no limit that a fleet of this size would meet")
    with pytest.raises(TooManyDescriptors, match=f"this system allows {hard}"):
        await Fleet(server, healthy=hard).connect()
    assert server.connections == 0


async def test_fleet_says_whether_it_was_never_connected_or_is_closed(board):
    """The first is a line that is missing, the second a cell to run again."""
    server = await serve(board.app)
    fleet = Fleet(server, healthy=1)
    with pytest.raises(RuntimeError, match=r"is not connected\. Is `await fleet\.connect\(\)` missing\?"):
        _ = fleet.deliveries
    await fleet.connect()
    await Fleet(server, healthy=1).connect()
    with pytest.raises(RuntimeError, match=r"a newer fleet of its name has closed it\. Run the cell"):
        _ = fleet.deliveries
    await fleet.connect()
    assert len(fleet.deliveries) == 0
