"""start_proxy(): counts to the byte, holds what it freezes, and tells both ends the same."""

import asyncio
import os
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from fastapi import FastAPI
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidMessage

from labkit import Fleet, close_lab, serve, start_proxy
from labkit.apparatus import guard, running
from labkit.apparatus.descriptors import open_descriptors
from labkit.apparatus.faults import Proxy
from labkit.apparatus.server import ServerFailed

pytestmark = pytest.mark.slow


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition, 10 s at most."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def crowd(proxy: Proxy, **behaviours: int) -> Fleet:
    """Connect a fleet on this loop, which starts at once, to the proxy."""
    return await Fleet(proxy, in_kernel=True, **behaviours).connect()


@asynccontextmanager
async def far_end(handler: Callable) -> AsyncIterator[tuple[str, int]]:
    """Serve plain TCP with a handler of asyncio's streams, and yield (host, port)."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()
    finally:
        server.close()


@asynccontextmanager
async def plain_client(proxy: Proxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect plainly, wait until the proxy has the link, and hang up at the end."""
    reader, writer = await asyncio.open_connection(proxy.host, proxy.port)
    try:
        yield reader, writer
    finally:
        writer.close()


async def full(direction: object) -> None:
    """Wait until the sink of a direction has taken nothing for 0.2 s, and more is there to be taken."""
    passed = -1
    while passed < direction.passed or not direction._writing:
        passed = direction.passed
        await asyncio.sleep(0.2)


async def how_it_ended(reader: asyncio.StreamReader) -> str:
    """Read to the end and say which it was, 10 s at most."""
    try:
        async with asyncio.timeout(10):
            await reader.read()
    except ConnectionResetError:
        return "RST"
    return "FIN"


# Counting


@pytest.mark.parametrize(
    ("text", "up", "down"), [("GOAL", 10, 6), ("x" * 200, 208, 204), ("y" * 70_000, 70_014, 70_010)]
)
async def test_counts_the_bytes_of_a_frame_each_way(board, text, up, down):
    """Header and payload, and four bytes of mask from the client only (RFC 6455, section 5.2)."""
    proxy = await start_proxy(await serve(board.app, ping_interval=None))
    async with connect(proxy.ws_url(), compression=None, ping_interval=None) as client, asyncio.timeout(10):
        proxy.clear()
        await client.send(text)
        await until(lambda: board.heard == [text])
        assert (proxy.bytes_up, proxy.bytes_down) == (up, 0)
        await board.broadcast(text)
        assert await client.recv() == text
        assert (proxy.bytes_up, proxy.bytes_down) == (up, down)


async def test_counts_of_links_add_up_and_begin_again(board):
    """The proxy's counts are those of all its links, ended ones included."""
    proxy = await start_proxy(await serve(board.app, ping_interval=None))
    fleet = await crowd(proxy, healthy=3)
    proxy.clear()
    assert [link.bytes_up for link in proxy.links] == [0, 0, 0]
    await fleet.send("GOAL", clients=[2])
    await fleet.send("GOAL", clients=[3])
    await until(lambda: len(board.heard) == 2)
    await fleet.vanish(3)
    await until(lambda: proxy.connections == 2)
    assert [link.bytes_up for link in proxy.links] == [0, 10, 10]
    assert proxy.bytes_up == 20


async def test_keeps_the_bytes_on_the_wire(board):
    """The upgrade request and its answer, then the two frames of one message; after clear() the frames alone."""
    proxy = await start_proxy(await serve(board.app, ping_interval=None), keep_bytes=True)
    async with connect(proxy.ws_url(), compression=None, ping_interval=None) as client, asyncio.timeout(10):
        (link,) = proxy.links
        assert link.up.startswith(b"GET /ws HTTP/1.1\r\n")
        assert link.down.startswith(b"HTTP/1.1 101 ")
        assert (len(link.up), len(link.down)) == (proxy.bytes_up, proxy.bytes_down)
        proxy.clear()
        await board.broadcast("GOAL")
        await client.recv()
        assert (link.up, link.down) == (b"", b"\x81\x04GOAL")


async def test_says_so_where_no_bytes_are_kept(board):
    """An empty answer would look as if nothing had passed."""
    proxy = await start_proxy(await serve(board.app))
    await crowd(proxy, healthy=1)
    with pytest.raises(RuntimeError, match="`keep_bytes=True` missing"):
        _ = proxy.links[0].up


async def test_megabytes_pass_unharmed_both_ways():
    """Small buffers make every piece arrive in parts, and the reader is later than the writer."""

    async def echo(reader, writer):
        while piece := await reader.read(10_000):
            writer.write(piece)
            await writer.drain()
        writer.close()

    data = os.urandom(3_000_000)
    async with far_end(echo) as address:
        proxy = await start_proxy(address, buffer_bytes=8_192, delay=0.001)
        async with plain_client(proxy) as (reader, writer), asyncio.timeout(30):
            writer.write(data)
            writer.write_eof()
            assert await reader.read() == data
        assert proxy.bytes_up == proxy.bytes_down == len(data)


async def test_its_sockets_wait_for_no_acknowledgements(board):
    """TCP_NODELAY is on at both sides, or a delay of the proxy's own would be measured."""
    proxy = await start_proxy(await serve(board.app))
    await crowd(proxy, healthy=1)
    (link,) = proxy.links
    for connection in (link._client, link._server):
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


# Idleness


async def test_quiet_link_is_cut_and_a_ping_keeps_it_open(board):
    """While one link falls quiet and is cut, twice, the link beside it lives on what the server's pings send."""
    quiet = await start_proxy(await serve(board.app, "quiet", ping_interval=None), idle_timeout=0.5)
    pinged = await start_proxy(await serve(board.app, "pinged", ping_interval=0.1), idle_timeout=0.5)
    async with connect(pinged.ws_url(), ping_interval=None):
        for number in range(2):
            started_at = time.monotonic()
            async with connect(quiet.ws_url(), ping_interval=None) as client, asyncio.timeout(10):
                with pytest.raises(ConnectionClosed):
                    await client.recv()
                assert time.monotonic() - started_at >= 0.5
                assert client.close_code == 1006
            assert quiet.links[number].ended_by == "idle"
        await until(lambda: len(board.connections) == 1)
        assert pinged.links[0].is_open
        assert pinged.links[0].ended_by is None


# Freezing


async def test_frozen_link_holds_what_is_sent_either_way(board):
    """A later message over the link beside it arrives; on thaw the held ones arrive too, all, and in order."""
    proxy = await start_proxy(await serve(board.app))
    fleet = await crowd(proxy, healthy=2)
    proxy.freeze(1)
    texts = [str(number) for number in range(50)]
    for text in texts:
        await board.broadcast(text)
        await fleet.send(f"from 1: {text}", clients=[1])
    await fleet.send("from 2", clients=[2])
    await fleet.until(50, clients=[2])
    await until(lambda: board.heard)
    assert {each.client for each in fleet.deliveries} == {2}
    assert board.heard == ["from 2"]
    assert proxy.links[0].is_frozen
    proxy.thaw(1)
    await fleet.until(50, clients=[1])
    assert [each.text for each in fleet.deliveries if each.client == 1] == texts
    await until(lambda: len(board.heard) == 51)
    assert board.heard[1:] == [f"from 1: {text}" for text in texts]


async def test_what_is_on_its_way_freezes_too(board):
    """A message that waits for its delay when the link freezes is not passed on until it thaws."""
    proxy = await start_proxy(await serve(board.app))
    fleet = await crowd(proxy, healthy=2)
    proxy.delay = 0.2
    await board.broadcast("GOAL")
    await until(lambda: all(link._down._queue for link in proxy.links))
    proxy.freeze(1)
    await fleet.until(1, clients=[2])
    assert [each.client for each in fleet.deliveries] == [2]
    proxy.thaw(1)
    await fleet.until(1)


async def test_frozen_proxy_tells_nobody(board):
    """The server gives up on a client that answers no ping; the client hears of it only when the network thaws."""
    server = await serve(board.app, ping_interval=0.2, ping_timeout=0.2)
    proxy = await start_proxy(server, idle_timeout=0.3)
    fleet = await crowd(proxy, healthy=1)
    proxy.freeze()
    await until(lambda: server.connections == 0)
    assert fleet.endings == {1: None}
    assert proxy.connections == 1
    proxy.thaw()
    await until(lambda: fleet.endings == {1: 1011})


async def test_nobody_new_gets_through_a_frozen_proxy(board):
    """The handshake waits until the proxy thaws."""
    proxy = await start_proxy(await serve(board.app))
    proxy.freeze()
    connecting = asyncio.create_task(Fleet(proxy, healthy=1, in_kernel=True).connect())
    async with connect(running.find("server", "main").ws_url()):
        assert proxy.links == ()
    proxy.thaw()
    async with asyncio.timeout(10):
        await connecting
    assert proxy.connections == 1


async def test_link_that_froze_is_not_cut_for_its_silence(board):
    """The time counts again from the thaw; meanwhile a link that is only quiet is cut."""
    proxy = await start_proxy(await serve(board.app, ping_interval=None), idle_timeout=0.3)
    fleet = await crowd(proxy, healthy=2)
    proxy.freeze(1)
    await until(lambda: proxy.links[1].ended_by == "idle")
    assert proxy.links[0].is_open
    proxy.thaw()
    await until(lambda: proxy.links[0].ended_by == "idle")
    await until(lambda: fleet.endings == {1: 1006, 2: 1006})


# Delay


async def test_delayed_messages_travel_together(board):
    """Each is late by the delay, all twenty together by far less than twenty times that, and none overtakes."""
    proxy = await start_proxy(await serve(board.app))
    fleet = await crowd(proxy, healthy=1)
    proxy.delay = 0.1
    texts = [str(number) for number in range(20)]
    started_at = time.monotonic()
    for text in texts:
        await board.broadcast(text)
        # The proxy reads each one by itself.
        await asyncio.sleep(0)
    await fleet.until(20)
    arrived_at = [each.arrived_at for each in fleet.deliveries]
    assert min(arrived_at) >= started_at + 0.1
    assert max(arrived_at) - started_at < 20 * 0.1 / 3
    assert [each.text for each in fleet.deliveries] == texts


async def test_shorter_delay_overtakes_nothing(board):
    """What comes after the change waits behind what is on its way."""
    proxy = await start_proxy(await serve(board.app))
    fleet = await crowd(proxy, healthy=1)
    proxy.delay = 0.2
    await board.broadcast("first")
    await until(lambda: proxy.links[0]._down._queue)
    proxy.delay = 0
    await board.broadcast("second")
    await fleet.until(2)
    assert [each.text for each in fleet.deliveries] == ["first", "second"]


async def test_delay_counts_each_way(board):
    """A question and its answer take two of them."""
    proxy = await start_proxy(await serve(board.app), delay=0.05)
    async with connect(proxy.ws_url()) as client:
        started_at = time.monotonic()
        await (await client.ping())
        assert time.monotonic() - started_at >= 0.1


# Ending


@pytest.mark.parametrize(("how", "seen"), [("cut", "FIN"), ("reset", "RST")])
async def test_both_ends_see_how_a_link_is_ended(how, seen):
    """Only the link named; the one beside it goes on."""
    endings = []

    async def read_to_the_end(reader, writer):
        endings.append(await how_it_ended(reader))
        writer.close()

    async with far_end(read_to_the_end) as address:
        proxy = await start_proxy(address)
        async with plain_client(proxy) as (first, _), plain_client(proxy) as (_, second):
            await until(lambda: proxy.connections == 2)
            getattr(proxy, how)(1)
            assert await how_it_ended(first) == seen
            await until(lambda: endings == [seen])
            assert [link.ended_by for link in proxy.links] == [how, None]
            second.write(b"still here")
            await until(lambda: proxy.links[1].bytes_up == 10)
            getattr(proxy, how)()
            await until(lambda: endings == [seen, seen])


@pytest.mark.parametrize("how", ["cut", "reset"])
async def test_websocket_ends_see_1006(board, how):
    """No close frame came, and the server's handler ends."""
    proxy = await start_proxy(await serve(board.app))
    fleet = await crowd(proxy, healthy=2)
    getattr(proxy, how)(2)
    await until(lambda: fleet.endings == {1: None, 2: 1006})
    await until(lambda: len(board.connections) == 1)


async def test_cut_lets_no_sender_see_a_reset():
    """A client in the middle of sending gets the FIN, too; closed at once, the socket would answer with an RST."""

    async def never_read(reader, writer):
        writer.transport.pause_reading()
        await gone.wait()
        writer.close()

    gone = asyncio.Event()
    async with far_end(never_read) as address:
        proxy = await start_proxy(address, buffer_bytes=8_192)
        async with plain_client(proxy) as (reader, writer):
            writer.write(bytes(5_000_000))
            await until(lambda: proxy.bytes_up)
            proxy.cut()
            assert await how_it_ended(reader) == "FIN"
            gone.set()


@pytest.mark.parametrize("delay", [0.0, 0.05])
async def test_reset_of_the_client_reaches_the_server_behind_its_data(delay):
    """What was sent before is passed on before, and the link names who ended it."""
    received = []

    async def read_to_the_end(reader, writer):
        try:
            while piece := await reader.read(100):
                received.append(piece)
        except ConnectionResetError:
            received.append("RST")
        writer.close()

    async with far_end(read_to_the_end) as address:
        proxy = await start_proxy(address, delay=delay)
        async with plain_client(proxy) as (_, writer):
            writer.write(b"last words")
            await until(lambda: received == [b"last words"])
            linger = struct.pack("ii", 1, 0)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            writer.close()
            await until(lambda: len(received) == 2)
        assert received == [b"last words", "RST"]
        assert proxy.links[0].ended_by == "client"
        assert not proxy.links[0].is_open


async def test_reset_does_not_wait_for_a_server_that_does_not_read():
    """The way up is full; the RST goes through all the same."""
    writers = []

    async def never_read(reader, writer):
        writer.transport.pause_reading()
        writers.append(writer)

    async with far_end(never_read) as address:
        proxy = await start_proxy(address, buffer_bytes=8_192)
        async with plain_client(proxy) as (_, writer):
            writer.write(bytes(5_000_000))
            await until(lambda: writers and proxy.links)
            await full(proxy.links[0]._up)
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            # The client's side is not read while the way up is full: what is sent down finds the reset.
            writers[0].write(b"hello?")
            await until(lambda: not proxy.links[0].is_open)
        assert proxy.links[0].ended_by == "client"
        writers[0].close()


@pytest.mark.parametrize("delay", [0.0, 0.05])
async def test_half_close_is_passed_on(delay):
    """The server sees the client's FIN, and its own goodbye still gets through."""

    async def answer_at_the_end(reader, writer):
        said = await reader.read()
        writer.write(b"goodbye, " + said)
        writer.close()

    async with far_end(answer_at_the_end) as address:
        proxy = await start_proxy(address, delay=delay)
        async with plain_client(proxy) as (reader, writer), asyncio.timeout(10):
            writer.write(b"fan")
            writer.write_eof()
            assert await reader.read() == b"goodbye, fan"
        await until(lambda: not proxy.links[0].is_open)
        assert proxy.links[0].ended_by == "client"


async def test_close_frames_pass(board):
    """The codes of both ends are those without a proxy."""
    server = await serve(board.app)
    proxy = await start_proxy(server)
    fleet = await crowd(proxy, healthy=2)
    await fleet.leave(1)
    await until(lambda: fleet.endings == {1: 1000, 2: None})
    await server.stop()
    await until(lambda: fleet.endings == {1: 1000, 2: 1012})
    await until(lambda: proxy.connections == 0)


# Pace


async def test_stalled_client_is_felt_by_the_server(board):
    """The proxy swallows no more than its buffers: the sender waits until the client wakes up, and nothing is lost."""
    server = await serve(board.app, send_buffer_bytes=16_384, ping_interval=None)
    proxy = await start_proxy(server, buffer_bytes=8_192)
    fleet = await Fleet(proxy, stalled=1, receive_buffer_bytes=4_096).connect()
    text = "x" * 32_000
    sent = []

    async def send_all():
        for number in range(100):
            await board.broadcast(text)
            sent.append(number)

    sending = asyncio.create_task(send_all())
    # Unhindered, the loop would be through in a fraction of this.
    _, waiting = await asyncio.wait({sending}, timeout=1)
    assert waiting
    assert len(sent) * len(text) < 500_000
    await fleet.wake(1)
    await sending
    await fleet.until(100, clients=[1], timeout=30)
    assert {each.size_bytes for each in fleet.deliveries} == {32_000}


# Starting and closing


async def test_refused_connection_is_closed_and_noted(board, capsys):
    """The client sees a FIN at once, and nothing is printed or counted as a failure."""
    server = await serve(board.app)
    proxy = await start_proxy(server)
    await server.stop()
    async with plain_client(proxy) as (reader, writer):
        writer.write(b"hello?")
        assert await how_it_ended(reader) == "FIN"
    assert [link.ended_by for link in proxy.links] == ["refused"]
    assert proxy.connections == 0
    with pytest.raises((InvalidHandshake, InvalidMessage)):
        await connect(proxy.ws_url())
    guard.check()
    assert capsys.readouterr() == ("", "")


async def test_every_address_of_a_name_is_tried(board):
    """Of "localhost" the first may be ::1, where nobody listens."""
    server = await serve(board.app)
    proxy = await start_proxy(f"localhost:{server.port}")
    proxy.addresses.insert(0, (socket.AF_INET, ("127.0.0.1", 1)))
    async with connect(proxy.ws_url()):
        assert proxy.connections == 1


async def test_same_name_replaces_the_proxy(board):
    """A cell that starts a proxy can run twice; another name stands beside."""
    server = await serve(board.app)
    first = await start_proxy(server)
    other = await start_proxy(server, "other")
    second = await start_proxy(server, port=first.port)
    assert second.port == first.port
    assert (first.is_open, other.is_open, second.is_open) == (False, True, True)
    assert [each.name for each in running.everything()] == ["main", "other", "proxy main"]
    with pytest.raises(ValueError, match="'main' is what the proxy stands in front of"):
        await start_proxy(server, "main")
    assert server.is_open


async def test_close_leaves_nothing(board):
    """Links that are open, frozen, delayed, full or saying goodbye: no socket, no task, no timer that fires."""
    before = open_descriptors()
    server = await serve(board.app, ping_interval=None)
    tasks = asyncio.all_tasks()
    proxy = await start_proxy(server, idle_timeout=60, buffer_bytes=8_192)
    assert asyncio.all_tasks() == tasks
    fleet = await Fleet(proxy, healthy=3, stalled=2).connect()
    proxy.delay = 0.05
    await board.broadcast("x" * 20_000)
    proxy.freeze(1)
    proxy.cut(5)
    closed = await close_lab()
    assert str(closed).splitlines()[-1] == "0 servers, 0 clients, 0 tasks, 0 child processes left"
    assert closed.closed == {"client": fleet.size, "server": 2, "child process": 1}
    assert not proxy.is_open
    assert not proxy._leaving
    await until(lambda: open_descriptors() <= before)
    await proxy.close()


async def test_clients_of_a_closed_proxy_are_told(board):
    """Both ends see the connection end."""
    proxy = await start_proxy(await serve(board.app))
    fleet = await crowd(proxy, healthy=2)
    await proxy.close()
    await until(lambda: fleet.endings == {1: 1006, 2: 1006})
    await until(lambda: not board.connections)
    with pytest.raises(RuntimeError, match="Proxy 'proxy main' is closed"):
        proxy.thaw()


@pytest.mark.parametrize(
    ("target", "url"),
    [
        (("127.0.0.1", 8000), "http://127.0.0.1:PORT"),
        ("127.0.0.1:8000", "http://127.0.0.1:PORT"),
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:PORT/0"),
        ("redis://:secret@127.0.0.1/3?timeout=2", "redis://:secret@127.0.0.1:PORT/3?timeout=2"),
        ("ws://127.0.0.1/ws", "ws://127.0.0.1:PORT/ws"),
    ],
)
async def test_address_is_the_targets_with_another_port(target, url):
    """A library that was given the target's address takes the proxy's, and no password is shown by chance."""
    proxy = await start_proxy(target)
    assert proxy.url == url.replace("PORT", str(proxy.port))
    assert "secret" not in repr(proxy)


async def test_proxies_stand_in_a_row(board):
    """A proxy is a target too; numbers are those of the links of each."""
    inner = await start_proxy(await serve(board.app), "inner")
    outer = await start_proxy(inner, "outer")
    fleet = await crowd(outer, healthy=2)
    assert (inner.connections, outer.connections) == (2, 2)
    inner.cut(2)
    await until(lambda: fleet.endings == {1: None, 2: 1006})
    assert outer.links[1].ended_by == "server"


@pytest.mark.parametrize(
    ("target", "options", "error", "hint"),
    [
        ("127.0.0.1", {}, ValueError, "needs a host and a port"),
        ("http://:8000", {}, ValueError, "needs a host and a port"),
        ("127.0.0.1:99999", {}, ValueError, "needs a host and a port"),
        (FastAPI(), {}, TypeError, "needs a running server or an address, and got FastAPI"),
        ("127.0.0.1:1", {"delay": -1}, ValueError, "delay=-1, .* give seconds"),
        ("127.0.0.1:1", {"idle_timeout": 0}, ValueError, "idle_timeout=0: give seconds"),
    ],
)
async def test_wrong_arguments_are_refused(target, options, error, hint):
    """Before anything is opened."""
    with pytest.raises(error, match=hint):
        await start_proxy(target, **options)
    assert running.everything() == []


async def test_taken_port_and_unknown_link_are_ordinary_errors(board):
    """Each says what was asked for."""
    server = await serve(board.app)
    with pytest.raises(ServerFailed, match=rf"Proxy 'proxy main' .* port {server.port} .* another program listens"):
        await start_proxy(server, port=server.port)
    proxy = await start_proxy(server)
    for fault in (proxy.freeze, proxy.thaw, proxy.cut, proxy.reset):
        with pytest.raises(ValueError, match="no link has the number 1; 0 have connected so far"):
            fault(1)
