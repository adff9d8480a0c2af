"""What every connection waits with: as asyncio's own queue and event do, as far as uvicorn and Starlette use them."""

import asyncio

import pytest

from labkit.broadcast.parts.hub.waiting import Gate, Inbox

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize("make", [asyncio.Queue, Inbox])


@BOTH
async def test_what_comes_is_taken_in_its_order(make):
    """Before anybody asks, and while somebody waits."""
    inbox = make()
    inbox.put_nowait(1)
    inbox.put_nowait(2)
    assert [await inbox.get(), await inbox.get(), inbox.empty()] == [1, 2, True]
    waiting = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    inbox.put_nowait(3)
    assert await waiting == 3


@BOTH
async def test_whoever_was_cancelled_may_be_followed_by_another_in_the_same_turn(make):
    """As where an endpoint waits for two things, and gives one of them up."""
    inbox = make()
    given_up = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    given_up.cancel()
    following = asyncio.create_task(inbox.get())
    await asyncio.wait([given_up])
    await asyncio.sleep(0)
    inbox.put_nowait("message")
    assert await asyncio.wait_for(following, 1) == "message"


async def test_two_who_receive_from_one_connection_are_an_error():
    """With a queue of asyncio's, each would get a part of the messages."""
    inbox = Inbox()
    waiting = asyncio.create_task(inbox.get())
    await asyncio.sleep(0)
    with pytest.raises(RuntimeError, match="Two tasks receive"):
        await inbox.get()
    waiting.cancel()


@pytest.mark.parametrize("make", [asyncio.Event, lambda: Gate(is_open=False)])
async def test_gate_lets_all_pass_when_it_opens_and_does_not_keep_who_gave_up(make):
    """Whoever passes an open one does not give up the turn."""
    gate = make()
    waiting = [asyncio.create_task(gate.wait()) for _ in range(3)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    await asyncio.sleep(0)
    assert len(gate._waiters) == 2
    gate.set()
    assert await asyncio.gather(*waiting[1:]) == [True, True]
    with pytest.raises(StopIteration):
        gate.wait().send(None)
    gate.clear()
    assert not gate.is_set()
