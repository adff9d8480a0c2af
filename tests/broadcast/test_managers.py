"""The ladder: how its classes are written, and what each does that the contract does not ask."""

import ast
import inspect
import re
from contextlib import suppress

import pytest
from fastapi import FastAPI, WebSocket
from starlette.websockets import WebSocketDisconnect

from labkit import Fleet, serve
from labkit.broadcast import managers
from labkit.broadcast.managers import (
    GatherManager,
    NaiveManager,
    QueueManager,
    SetManager,
    TimeoutManager,
    TolerantManager,
)
from labkit.broadcast.protocol import HubProtocol
from labkit.evidence.contract import FILLER, has_come_true, received, stage

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
in_lab = pytest.mark.usefixtures("lab")

LADDER = [NaiveManager, SetManager, TolerantManager, GatherManager, TimeoutManager, QueueManager]
on_every_rung = pytest.mark.parametrize("rung", LADDER)
THREE_VERBS = {"connect": ["websocket"], "disconnect": ["websocket"], "broadcast": ["text"]}


def members(manager):
    """Return the connections that a manager has in its registry."""
    names = ("active_connections", "connections", "clients")
    return next(list(getattr(manager, name)) for name in names if hasattr(manager, name))


# How they are written


def test_the_ladder_is_all_there_is():
    """The module holds the six classes in their order, imports, and nothing that a notebook cell would lack."""
    module = ast.parse(inspect.getsource(managers))
    docstring, *rest = module.body
    assert isinstance(docstring, ast.Expr)
    classes = [node.name for node in rest if isinstance(node, ast.ClassDef)]
    assert classes == [rung.__name__ for rung in LADDER]
    others = [node for node in rest if not isinstance(node, (ast.ClassDef, ast.Import, ast.ImportFrom))]
    assert not others


@on_every_rung
def test_rung_has_the_three_verbs_and_takes_options_by_name(rung):
    """connect(websocket), disconnect(websocket), broadcast(text); the second does not wait."""
    for verb, parameters in THREE_VERBS.items():
        method = getattr(rung, verb)
        assert list(inspect.signature(method).parameters) == ["self", *parameters]
        assert inspect.iscoroutinefunction(method) == (verb != "disconnect")
    _, *options = inspect.signature(rung.__init__).parameters.values()
    assert all(option.kind is option.KEYWORD_ONLY and option.default is not option.empty for option in options)


@on_every_rung
def test_rung_fits_into_a_notebook_cell(rung):
    """Without its docstring and blank lines a class has 25 lines at most."""
    source = inspect.getsource(rung)
    docstring = ast.parse(source).body[0].body[0]
    body = source.splitlines()[docstring.end_lineno :]
    # And the class statement.
    assert 1 + sum(bool(line.strip()) for line in body) <= 25


@on_every_rung
def test_docstring_says_what_is_new_what_is_broken_and_where_it_is_taught(rung):
    """ "Unlike the rung before", "Still breaks", and the notebook with its section."""
    docstring = inspect.getdoc(rung)
    place = LADDER.index(rung)
    opening = f"Unlike {LADDER[place - 1].__name__}: " if place else "The seed's own example, from its step 5"
    assert docstring.startswith(opening)
    assert "Still breaks: " in docstring
    assert re.fullmatch(r'source: notebook 0[1-7], "[^"]+"', docstring.splitlines()[-1])


# Clients that are gone


@in_lab
@pytest.mark.parametrize("ending", ["leave", "hang_up", "vanish"])
async def test_send_to_a_lost_client_raises_a_disconnect_and_then_a_runtime_error(ending):
    """However a client goes, the first send after it raises WebSocketDisconnect, and every later one RuntimeError."""
    async with stage(SetManager, healthy=1) as it:
        [websocket] = members(it.manager)
        await getattr(it.fleet, ending)(1)
        assert await has_come_true(lambda: it.server.connections == 0, within=2)
        with pytest.raises(WebSocketDisconnect):
            await websocket.send_text("GOAL")
        for _ in range(2):
            with pytest.raises(RuntimeError, match="once a close message has been sent"):
                await websocket.send_text("GOAL")


@in_lab
async def test_send_after_our_own_close_raises_a_runtime_error():
    """A connection that the server closed is the other case of a gone client."""
    async with stage(SetManager, healthy=1) as it:
        [websocket] = members(it.manager)
        await websocket.close()
        with pytest.raises(RuntimeError, match="once a close message has been sent"):
            await websocket.send_text("GOAL")


@on_every_rung
def test_disconnecting_a_stranger_is_an_error_only_as_the_seed_has_it(rung):
    """The seed's remove raises; every other rung may be told twice."""
    if rung is NaiveManager:
        with pytest.raises(ValueError, match="not in list"):
            rung().disconnect(object())
    else:
        rung().disconnect(object())


@in_lab
@pytest.mark.parametrize("rung", [TolerantManager, GatherManager, TimeoutManager, QueueManager])
async def test_broadcast_itself_drops_who_is_gone(rung):
    """Also where no endpoint calls disconnect, the registry holds after a broadcast only who is still there."""
    manager = rung()
    app = FastAPI()

    @app.websocket("/ws")
    async def forgetful(websocket: WebSocket):
        await manager.connect(websocket)
        with suppress(WebSocketDisconnect):
            while True:
                await websocket.receive_text()

    server = await serve(app)
    fleet = await Fleet(server, "/ws", healthy=3).connect()
    await fleet.leave(1)
    await fleet.vanish(2)
    assert await has_come_true(lambda: server.connections == 1, within=2)
    assert len(members(manager)) == 3
    await manager.broadcast("GOAL")
    await fleet.until(1, clients=[3])
    assert await has_come_true(lambda: len(members(manager)) == 1, within=2)
    # Nobody calls disconnect here, so the writer of the one who stayed is ended by hand.
    manager.disconnect(members(manager)[0])


@in_lab
@pytest.mark.parametrize("rung", [TolerantManager, GatherManager, TimeoutManager])
async def test_bug_of_our_own_empties_no_registry(rung):
    """A payload that cannot be sent is an error for the caller, and everybody stays."""
    async with stage(rung, healthy=3) as it:
        with pytest.raises(AttributeError, match="encode"):
            await it.manager.broadcast({"goal": "not text"})
        assert len(members(it.manager)) == 3


# Clients that sleep


@in_lab
async def test_timeout_drops_the_sleeper_and_frees_its_socket():
    """After one gap the sleeper is out of the registry, and its connection is gone."""
    async with stage(lambda: TimeoutManager(timeout=0.1), protocol=HubProtocol, healthy=1, stalled=1) as it:
        await it.manager.broadcast(f"1 {FILLER}")
        await it.fleet.until(1)
        assert len(members(it.manager)) == 2
        await it.manager.broadcast("2 GOAL")
        assert len(members(it.manager)) == 1
        await it.fleet.until(2)
        assert await has_come_true(lambda: it.server.connections == 1, within=2)


@in_lab
async def test_timeout_under_another_protocol_says_what_is_missing():
    """A sleeper that cannot be freed is an error for the caller, not a leak."""
    async with stage(lambda: TimeoutManager(timeout=0.1), healthy=1, stalled=1) as it:
        await it.manager.broadcast(f"1 {FILLER}")
        await it.fleet.until(1)
        with pytest.raises(RuntimeError, match="does not speak HubProtocol"):
            await it.manager.broadcast("2 GOAL")


@in_lab
async def test_queue_keeps_the_newest_for_a_sleeper():
    """Of a hundred messages in a row the last four are there when it wakes up."""
    async with stage(lambda: QueueManager(size=4), healthy=1, stalled=1) as it:
        await it.manager.broadcast(f"1 {FILLER}")
        await it.fleet.until(1)
        for number in range(2, 102):
            # A coroutine that ends at its first step has waited for nobody.
            with pytest.raises(StopIteration):
                it.manager.broadcast(f"{number} GOAL").send(None)
        await it.fleet.wake(2)
        await it.fleet.until(5, clients=[1, 2])
        assert received(it.fleet.deliveries) == {1: [1, 98, 99, 100, 101], 2: [1, 98, 99, 100, 101]}


@in_lab
async def test_burst_disconnects_everyone():
    """Without a turn for the writers every queue is full, and this policy lets all of them go: what it still breaks."""
    async with stage(
        lambda: QueueManager(size=4, when_full="disconnect"), protocol=HubProtocol, healthy=2, stalled=1
    ) as it:
        for number in range(1, 6):
            with pytest.raises(StopIteration):
                it.manager.broadcast(f"{number} GOAL").send(None)
        assert await has_come_true(lambda: it.server.connections == 0, within=2)
        assert not it.manager.clients


@in_lab
async def test_latest_forgets_all_that_waited():
    """Six for a queue of four: the fifth empties it, and the sixth waits beside it."""
    async with stage(lambda: QueueManager(size=4, when_full="latest"), healthy=1, stalled=1) as it:
        await it.manager.broadcast(f"1 {FILLER}")
        await it.fleet.until(1)
        for number in range(2, 8):
            with pytest.raises(StopIteration):
                it.manager.broadcast(f"{number} GOAL").send(None)
        await it.fleet.wake(2)
        await it.fleet.until(3, clients=[1, 2])
        assert received(it.fleet.deliveries) == {1: [1, 6, 7], 2: [1, 6, 7]}


@in_lab
async def test_disconnect_costs_the_others_nothing():
    """With a turn for the writers between two messages, only the sleeper's queue fills, and only it has to go."""
    async with stage(
        lambda: QueueManager(size=4, when_full="disconnect"), protocol=HubProtocol, healthy=2, stalled=1
    ) as it:
        await it.manager.broadcast(f"1 {FILLER}")
        await it.fleet.until(1)
        for number in range(2, 12):
            await it.manager.broadcast(f"{number} GOAL")
            await it.fleet.until(number)
        assert it.server.connections == len(it.manager.clients) == 2


def test_unknown_policy_is_refused():
    """When the manager is made, not when the first queue is full."""
    with pytest.raises(KeyError, match="newest"):
        QueueManager(when_full="newest")


@in_lab
async def test_queue_leaves_no_writer_behind():
    """When clients have gone, sleeping or not, so have their queues and tasks."""
    async with stage(QueueManager, healthy=2, stalled=1) as it:
        writers = [writer for _, writer in it.manager.clients.values()]
        await it.manager.broadcast(f"1 {FILLER}")
        await it.manager.broadcast("2 GOAL")
        await it.fleet.until(2)
        await it.fleet.leave(1)
        await it.fleet.vanish(2, 3)
        assert await has_come_true(lambda: all(writer.done() for writer in writers), within=2)
        assert not it.manager.clients
