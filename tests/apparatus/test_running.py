"""close_lab(): closes everything, cancels what cells forgot, and counts honestly what would not go."""

import asyncio

from labkit import Fleet, close_lab, serve
from labkit.apparatus import running


async def test_everything_is_closed_and_counted(board):
    """In one call, with the numbers in words."""
    server = await serve(board.app)
    await serve(board.app, name="other")
    fleet = await Fleet(server, healthy=3, stalled=1).connect()
    closed = await close_lab()
    assert closed.closed == {"client": 4, "server": 2, "child process": 1}
    assert repr(closed).endswith("0 servers, 0 clients, 0 tasks, 0 child processes left")
    assert closed.nothing_left
    assert not server.is_open
    assert not fleet.is_open


async def test_empty_lab_can_be_closed_again():
    """Nothing to do is no error."""
    assert repr(await close_lab()) == "0 servers, 0 clients, 0 tasks, 0 child processes left"


async def test_forgotten_task_is_cancelled_and_named():
    """A cell's task that still runs is the usual thing to forget."""

    async def ticker():
        await asyncio.Event().wait()

    task = asyncio.create_task(ticker())
    await asyncio.sleep(0)
    closed = await close_lab()
    assert task.cancelled()
    assert "cancelled 1 task still running: " in repr(closed)
    assert "ticker()" in repr(closed)


async def test_task_that_refuses_to_end_is_counted_as_left():
    """The sentence does not say 0 when it is not so."""
    done = asyncio.Event()

    async def stubborn():
        while not done.is_set():
            try:
                await done.wait()
            except asyncio.CancelledError:
                continue

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    closed = await close_lab()
    assert not closed.nothing_left
    assert "1 tasks" in repr(closed)
    done.set()
    await task


async def test_the_lab_opens_again(board):
    """After close_lab() the next cell can start anew."""
    await serve(board.app)
    await close_lab()
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=1).connect()
    await board.broadcast("GOAL")
    await fleet.until(1)


async def test_heartbeat_beats_while_anything_is_open(board):
    """Stop in a notebook needs a loop that wakes up; an empty lab lets it sleep."""
    await serve(board.app)
    assert running._beating_on is asyncio.get_running_loop()
    await close_lab()
    await asyncio.sleep(2 * running.HEARTBEAT_SECONDS)
    assert running._beating_on is None
