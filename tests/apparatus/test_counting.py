"""Fleet(count_only=True): every message counts once, whatever its length and however many lie in one read."""

import asyncio

import pytest

from labkit import Fleet, serve, start_proxy


async def until(condition) -> None:
    """Wait for a condition on this side; the test's own time limit is 5 s."""
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("in_kernel", [False, True])
async def test_counts_are_exact_over_all_lengths(board, in_kernel):
    """Each length of header, messages larger than the buffer between short ones, and an empty one.

    The second byte of "Á" is that of a header: whatever a read begins with, inside a message it is none.
    """
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=3, count_only=True, in_kernel=in_kernel).connect()
    lengths = [0, 1, 2, 125, 126, 127, 65_535, 65_536, 300_000, 1, 0, *range(120, 130), 1_000_000, 5]
    texts = ["x" * length for length in lengths] + ["Á" * 400_000, "x" + "Á" * 400_000, "GOAL"]
    for text in texts * 3:
        await board.broadcast(text)
    await fleet.until(3 * len(texts))
    await fleet.settle()
    assert await fleet.counts() == dict.fromkeys((1, 2, 3), 3 * len(texts))
    fleet.clear()
    assert await fleet.counts() == dict.fromkeys((1, 2, 3), 0)


async def test_counts_are_those_of_the_moment(board, monkeypatch):
    """counts() reads the sockets itself, instead of waiting for a round, which here never comes."""
    monkeypatch.setattr("labkit.apparatus.crowd.counting._ROUND_SECONDS", 3600)
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=2, stalled=1, count_only=True, in_kernel=True).connect()

    async def until_counts(expected: dict[int, int]) -> None:
        async with asyncio.timeout(5):
            while await fleet.counts() != expected:
                await asyncio.sleep(0)

    for _ in range(3):
        await board.broadcast("GOAL")
    await until_counts({1: 3, 2: 3, 3: 0})
    await fleet.wake(3)
    await until_counts({1: 3, 2: 3, 3: 3})


async def test_counting_clients_answer_pings_and_close_frames(board):
    """What is no message goes the ordinary way, also between messages."""
    server = await serve(board.app, ping_interval=0.05, ping_timeout=1)
    proxy = await start_proxy(server)
    fleet = await Fleet(proxy, healthy=2, count_only=True).connect()
    proxy.clear()
    sent = 0
    async with asyncio.timeout(5):
        # Nothing but pongs goes up, ten bytes each.
        while proxy.bytes_up < 100:
            await board.broadcast("GOAL")
            sent += 1
            await asyncio.sleep(0.005)
    await fleet.until(sent)
    await fleet.leave(1)
    await until(lambda: server.connections == 1)
    await server.stop()
    await until(lambda: set(fleet.endings.values()) == {1000, 1012})
    assert await fleet.counts() == {1: sent, 2: sent}


async def test_counting_fleet_says_that_it_keeps_no_message(board):
    """An empty table would read as if nothing had arrived."""
    server = await serve(board.app)
    fleet = await Fleet(server, healthy=1, count_only=True).connect()
    with pytest.raises(RuntimeError, match=r"keeps no message\. Use `await fleet\.counts\(\)`"):
        _ = fleet.deliveries
    with pytest.raises(TimeoutError, match=r"1 \(healthy\) got 0"):
        await fleet.until(1, timeout=0.01)
