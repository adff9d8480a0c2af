"""Redis Pub/Sub between servers: what it promises, and the gap that it does not tell of."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from labkit.apparatus.redis_server import RedisServer
from labkit.broadcast.backplane import PubSubBackplane

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("lab"), pytest.mark.slow]


@pytest.fixture
async def url(lab, monkeypatch):
    """Give the address of a Redis of this test's own."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    async with RedisServer() as redis_server:
        yield redis_server.url


class Listener:
    """Walks over a backplane's messages in a task, and keeps them."""

    def __init__(self, backplane):
        self.texts = []
        self._grown = asyncio.Condition()
        self.task = asyncio.create_task(self._listen(backplane))

    async def _listen(self, backplane):
        async for text in backplane.messages():
            async with self._grown:
                self.texts.append(text)
                self._grown.notify_all()

    async def until(self, last):
        """Wait until a text has arrived."""
        async with asyncio.timeout(5), self._grown:
            await self._grown.wait_for(lambda: last in self.texts)


@asynccontextmanager
async def listening(url, channel="broadcast"):
    """Open a backplane with somebody who listens on it."""
    async with PubSubBackplane(url, channel) as backplane:
        yield backplane, Listener(backplane)


async def test_every_server_hears_what_any_server_publishes_in_one_order(url):
    """Two servers publish at the same time; both receive everything, in the same order, and publish counts them."""
    async with listening(url) as (one, at_one), listening(url) as (two, at_two):
        sends = [server.publish(f"{name}{n}") for n in range(50) for name, server in (("a", one), ("b", two))]
        assert set(await asyncio.gather(*sends)) == {2}
        await one.publish("end")
        await at_one.until("end")
        await at_two.until("end")
        assert len(at_one.texts) == 101
        assert at_one.texts == at_two.texts


async def test_nothing_is_missed_at_the_start(url):
    """What is published right after the block is entered arrives, although nobody listens yet."""
    async with Redis.from_url(url) as somebody:
        for _ in range(20):
            async with PubSubBackplane(url) as backplane:
                assert await somebody.publish("broadcast", "early") == 1
                listener = Listener(backplane)
                await listener.until("early")


async def test_text_arrives_as_it_was(url):
    """Quotes, line ends, and letters of any alphabet survive the way."""
    text = '{"body": "Tor für Ö — ⚽\\n\\u0000"}\n'
    async with listening(url) as (backplane, listener):
        await backplane.publish(text)
        await listener.until(text)


async def test_channels_do_not_mix(url):
    """Servers of another channel hear nothing."""
    async with listening(url, "match 1") as (one, at_one), listening(url, "match 2") as (two, at_two):
        assert await one.publish("goal in 1") == 1
        await two.publish("goal in 2")
        await at_two.until("goal in 2")
        await at_one.until("goal in 1")
        assert (at_one.texts, at_two.texts) == (["goal in 1"], ["goal in 2"])


async def test_loop_ends_when_the_backplane_closes(url):
    """Whoever walks over the messages comes out of the loop, waiting or busy, and no connection stays."""
    async with listening(url) as (backplane, waiting):
        await backplane.publish("last")
        await waiting.until("last")
    await asyncio.wait_for(waiting.task, 1)

    async with PubSubBackplane(url) as backplane:
        await backplane.publish("last")
        busy = backplane.messages()
        assert await anext(busy) == "last"
    assert await anext(busy, "ended") == "ended"

    async with Redis.from_url(url) as somebody:
        assert len(await somebody.client_list()) == 1


async def test_listener_that_is_cancelled_stays_cancelled(url):
    """Cancelling the loop is not mistaken for closing, and another loop may go on."""
    async with listening(url) as (backplane, listener):
        await backplane.publish("one")
        await listener.until("one")
        listener.task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await listener.task
        await backplane.publish("two")
        await Listener(backplane).until("two")


async def test_broken_connection_is_mended_in_silence_and_leaves_a_gap(url):
    """After CLIENT KILL messages arrive again without an error; those that reached no server are gone."""
    async with listening(url) as (_, listener), Redis.from_url(url) as somebody:
        await somebody.publish("broadcast", "before")
        await listener.until("before")
        assert await somebody.client_kill_filter(_type="pubsub") == 1
        passed_on = []
        for n in range(10_000):
            if await somebody.publish("broadcast", f"after {n}"):
                passed_on.append(f"after {n}")
                break
        await listener.until(passed_on[-1])
        assert listener.texts == ["before", *passed_on]
        assert not listener.task.done()


@pytest.mark.slow
async def test_redis_that_does_not_answer_is_an_error(url):
    """A backplane without Redis says so after a few attempts."""
    nowhere = "redis://127.0.0.1:1/0"
    with pytest.raises(RedisConnectionError, match=r"127\.0\.0\.1:1\."):
        async with PubSubBackplane(nowhere):
            pytest.fail("the block was entered")


@pytest.mark.slow
async def test_redis_that_goes_away_for_good_ends_the_loop_with_an_error(monkeypatch):
    """The loop raises, publish raises, and the block can still be left."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    redis_server = await RedisServer().start()
    async with listening(redis_server.url) as (backplane, listener):
        await backplane.publish("one")
        await listener.until("one")
        await redis_server.stop()
        with pytest.raises(RedisConnectionError):
            await backplane.publish("two")
        with pytest.raises(RedisConnectionError):
            await listener.task
