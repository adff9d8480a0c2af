"""Fleet(come_back=...): who comes back, when, with what in the address; and who does not."""

import asyncio
import json
import random
from collections import Counter

import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

from labkit import Fleet, serve, start_proxy
from labkit.apparatus.running import close_lab, stray_tasks
from labkit.apparatus.server import LabServer


async def until(condition) -> None:
    """Wait for a condition on this side; the test's own time limit is 5 s."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


def cut_all(server: LabServer) -> None:
    """End every connection as a killed server's ends: no close frame, no goodbye."""
    for connection in list(server._uvicorn.server_state.connections):
        connection.transport.abort()


class Scoreboard:
    """An app that greets as it is told and writes down which position each connection asked for."""

    def __init__(self, greeting: str | None = None) -> None:
        self.app = FastAPI()
        self.asked: list[dict[str, str]] = []
        self.connections: list[WebSocket] = []
        self.greeting = greeting

        @self.app.websocket("/ws")
        async def endpoint(websocket: WebSocket):
            self.asked.append(dict(websocket.query_params))
            await websocket.accept()
            if self.greeting is not None:
                await websocket.send_text(self.greeting)
            self.connections.append(websocket)
            try:
                while True:
                    await websocket.receive_text()
            except WebSocketDisconnect:
                self.connections.remove(websocket)

    async def broadcast(self, *texts: str) -> None:
        """Send texts to all, one after another."""
        for text in texts:
            for connection in self.connections.copy():
                await connection.send_text(text)


@pytest.mark.parametrize("in_kernel", [False, True])
async def test_clients_come_back_to_a_server_that_was_started_again(board, in_kernel):
    """While they are away they have their code; once back, none, and what is sent reaches them."""
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=5, slow=1, come_back=0, in_kernel=in_kernel).connect()
    await server.stop()
    await until(lambda: fleet.away == 6)
    assert fleet.endings == dict.fromkeys(range(1, 7), 1012)
    await serve(board.app, port=server.port)
    await fleet.all_back()
    assert fleet.away == 0
    assert fleet.endings == dict.fromkeys(range(1, 7))
    assert sorted((each.client, each.code) for each in fleet.returns) == [(number, 1012) for number in range(1, 7)]
    await board.broadcast("GOAL")
    await fleet.until(1)


async def test_cut_client_is_back_at_its_first_attempt(board):
    """An end without a close frame is 1006, and each loss of a client is a row of its own."""
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=3, come_back=0).connect()
    for losses in (3, 6):
        cut_all(server)
        await fleet.all_back(returns=losses)
        await until(lambda: len(board.connections) == 3)
    assert Counter(each.client for each in fleet.returns) == {1: 2, 2: 2, 3: 2}
    assert {(each.attempts, each.code) for each in fleet.returns} == {(1, 1006)}
    assert all(each.lost_at <= each.back_at for each in fleet.returns)


async def test_waits_are_drawn_by_chance_and_the_same_in_every_run(board):
    """Each client has a generator of its own, seeded with its number."""
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=20, come_back=0.5).connect()
    cut_all(server)
    await fleet.all_back(returns=20)
    waits = {each.client: each.back_at - each.lost_at for each in fleet.returns}
    assert all(waits[number] >= random.Random(number).uniform(0, 0.5) for number in range(1, 21))
    assert len({round(wait, 3) for wait in waits.values()}) > 10


async def test_who_comes_back_at_once_does_not_hammer_at_a_closed_door(board):
    """After attempts that fail it waits 0.1, 0.2 and then 0.4 s, also with come_back=0."""
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=2, come_back=0).connect()
    await server.stop()
    await until(lambda: min([each.attempts for each in fleet.returns], default=0) >= 3)
    await serve(board.app, port=server.port)
    await fleet.all_back(returns=2)
    for each in fleet.returns:
        assert each.attempts >= 4
        assert each.back_at - each.lost_at >= 0.1 + 0.2 + 0.4 * (each.attempts - 3)


@pytest.mark.parametrize("status", ["502 Bad Gateway", "503 Service Unavailable"])
async def test_load_balancer_without_a_server_is_asked_again(board, status):
    """Its answer has a body, and its connection may stay open; the client comes back when there is a server."""
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=1, come_back=0).connect()
    await server.stop()
    asked = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        await reader.readuntil(b"\r\n\r\n")
        asked += 1
        body = f"<html><center><h1>{status}</h1></center></html>".encode()
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", server.port):
        await until(lambda: asked >= 2)
        with pytest.raises(TimeoutError, match=rf"HTTP {status[:3]}\. Does a server run behind"):
            await fleet.all_back(timeout=0.01)
    await serve(board.app, port=server.port)
    await fleet.all_back()
    assert fleet.returns[0].attempts > 2


async def test_client_asks_for_what_follows_its_last_message():
    """Nothing, then the position of the greeting, then that of the message: what is no news changes nothing."""
    scores = Scoreboard()
    server = await serve(scores.app)
    fleet = await Fleet(server, healthy=1, come_back=0).connect()

    async def again(losses: int) -> dict[str, str]:
        cut_all(server)
        await fleet.all_back(returns=losses)
        return scores.asked[-1]

    scores.greeting = '{"position": [1700000000000, 7], "recovered": false, "server": "a"}'
    assert await again(1) == {}
    await fleet.until(1)
    assert await again(2) == {"epoch": "1700000000000", "seq": "7"}
    await scores.broadcast('{"epoch": 1700000000000, "seq": 9, "data": {"epoch": 1, "seq": 1}}', "hello", '{"gap": {}}')
    await fleet.until(5)
    scores.greeting = '{"position": [1700000000000, 20], "recovered": true, "server": "b"}'
    assert await again(3) == {"epoch": "1700000000000", "seq": "9"}
    await fleet.until(6)
    assert await again(4) == {"epoch": "1700000000000", "seq": "9"}


async def test_client_that_was_told_of_a_loss_goes_on_from_there():
    """A greeting that recovers nothing replaces a position of a numbering that is gone."""
    scores = Scoreboard()
    server = await serve(scores.app, "new numbering")
    fleet = await Fleet(server, "/ws?room=north", healthy=1, come_back=0).connect()
    await scores.broadcast('{"epoch": 1, "seq": 9, "data": null}')
    await fleet.until(1)
    scores.greeting = '{"position": [2, 3], "recovered": false, "server": "a"}'
    cut_all(server)
    await fleet.until(2)
    cut_all(server)
    await fleet.until(3)
    assert scores.asked == [
        {"room": "north"},
        {"room": "north", "epoch": "1", "seq": "9"},
        {"room": "north", "epoch": "2", "seq": "3"},
    ]


async def test_client_that_goes_by_itself_stays_gone(board):
    """On command or as its behaviour says; only the one whom the server dropped comes back."""
    server = await serve(board.app)
    order = ["healthy", "healthy", "healthy", "leaving", "vanishing", "healthy"]
    fleet = await Fleet(server, order=order, come_back=0).connect()
    await board.broadcast("GOAL")
    await fleet.leave(1)
    await fleet.hang_up(2)
    await fleet.vanish(3)
    await until(lambda: len(board.connections) == 1)
    await board.connections[0].close(1000)
    await fleet.all_back(returns=1)
    await until(lambda: len(board.connections) == 1)
    assert [(each.client, each.code) for each in fleet.returns] == [(6, 1000)]
    assert fleet.endings == {1: 1000, 2: 1006, 3: 1006, 4: 1000, 5: 1006, 6: None}


async def test_client_that_is_away_can_be_told_to_stay_there(board):
    """Nobody waits for it any longer, and its return never comes."""
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=2, come_back=0).connect()
    await server.stop()
    await until(lambda: fleet.away == 2)
    await fleet.leave(1)
    assert fleet.away == 1
    await serve(board.app, port=server.port)
    await fleet.all_back()
    assert fleet.endings == {1: 1012, 2: None}
    assert {each.client for each in fleet.returns if each.back_at is None} == {1}


async def test_all_back_names_who_is_away_and_why(board):
    """Or says that nobody has noticed a loss; or that these clients never come back."""
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=3, come_back=0).connect()
    await fleet.all_back()
    with pytest.raises(TimeoutError, match=r"all clients are connected, but only 0 of 1 connections were lost"):
        await fleet.all_back(timeout=0.01, returns=1)
    await server.stop()
    await until(lambda: min([each.attempts for each in fleet.returns], default=0) >= 1)
    with pytest.raises(TimeoutError, match=r"3 clients are still away.* \(lost with 1012, .*Connection refused"):
        await fleet.all_back(timeout=0.01)
    other = await Fleet(await serve(board.app), healthy=1, name="others").connect()
    with pytest.raises(RuntimeError, match=r"do not come back\. Give the fleet come_back"):
        await other.all_back()


@pytest.mark.parametrize("in_kernel", [False, True])
@pytest.mark.parametrize("come_back", [0, 60])
async def test_closing_while_clients_are_away_leaves_nothing(board, in_kernel, come_back):
    """Neither in the middle of an attempt nor during a long wait."""
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=10, come_back=come_back, notice_after=5, in_kernel=in_kernel).connect()
    await server.stop()
    await until(lambda: fleet.away == 10)
    await fleet.close()
    assert not stray_tasks()
    assert "0 clients, 0 tasks, 0 child processes left" in repr(await close_lab())


async def test_interrupted_wait_for_all_to_be_back_can_be_repeated(board):
    """Stop in the cell that waits changes nothing for the clients."""
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=2, come_back=0).connect()
    await server.stop()
    waiting = asyncio.create_task(fleet.all_back(returns=2))
    await until(lambda: fleet.away == 2)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await serve(board.app, port=server.port)
    await fleet.all_back(returns=2)
    assert set(fleet.endings.values()) == {None}


async def test_frozen_server_is_noticed_by_its_silence(board):
    """The connections stay open and nobody says anything; without notice_after nobody would ever come back."""
    server = await serve(board.app)
    proxy = await start_proxy(server)
    fleet = await Fleet(proxy, healthy=3, come_back=0, notice_after=0.4).connect()
    proxy.freeze()
    await until(lambda: fleet.away == 3)
    proxy.thaw()
    await fleet.all_back(returns=3)
    assert {each.code for each in fleet.returns} == {1006}


async def test_server_without_news_is_not_taken_for_a_frozen_one(board):
    """It answers pings; three of them take longer than the time after which silence is noticed."""
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=2, come_back=0, notice_after=0.2, in_kernel=True).connect()
    await until(lambda: all(client.pongs >= 3 for client in fleet._swarm.clients.values()))
    assert fleet.returns == []


async def test_thousand_clients_come_back_at_once(board):
    """All in one moment, each with its own connection."""
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=1000, come_back=0).connect()
    cut_all(server)
    await fleet.all_back(timeout=30, returns=1000)
    await until(lambda: server.connections == 1000)
    await board.broadcast(json.dumps({"epoch": 1, "seq": 1}))
    await fleet.until(1)


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"come_back": -1}, "come_back=-1: give seconds, 0 or more"),
        ({"notice_after": 0}, "notice_after=0: give seconds, 0.01 or more"),
        ({"come_back": 0, "count_only": True}, "only counts keeps no position"),
        ({"count_only": True, "order": ["leaving"]}, "a leaving client cannot only count"),
    ],
)
def test_options_that_exclude_each_other_are_refused(options, hint):
    """Before anything is started."""
    with pytest.raises(ValueError, match=hint):
        Fleet("ws://127.0.0.1:1", **options)
