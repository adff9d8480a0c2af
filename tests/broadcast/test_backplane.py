"""The two carriers between servers: what they promise, what they lose, and that they never lose it in silence."""

import asyncio
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from labkit.apparatus.faults import start_proxy
from labkit.apparatus.redis_server import RedisServer
from labkit.broadcast.backplane import BackplaneFull, Gap, Message, NotPublished, PubSubBackplane, StreamBackplane

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("lab"), pytest.mark.slow]

both = pytest.mark.parametrize("carrier", [PubSubBackplane, StreamBackplane])
PATIENCE = 15


@pytest.fixture
async def redis_server(lab, monkeypatch):
    """Give a Redis of this test's own, in memory only."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    async with RedisServer() as redis_server:
        yield redis_server


class Walker:
    """Walks over a backplane's events in a task, and keeps them."""

    def __init__(self, backplane):
        self.events = []
        self._grown = asyncio.Condition()
        self.task = asyncio.create_task(self._walk(backplane))

    async def _walk(self, backplane):
        async for event in backplane.events():
            async with self._grown:
                self.events.append(event)
                self._grown.notify_all()

    @property
    def texts(self):
        """The messages, without their positions."""
        return [event.text for event in self.events if isinstance(event, Message)]

    @property
    def gaps(self):
        """The gaps alone."""
        return [event for event in self.events if isinstance(event, Gap)]

    async def until(self, condition):
        """Wait until what has been kept meets a condition."""
        async with asyncio.timeout(PATIENCE), self._grown:
            await self._grown.wait_for(lambda: condition(self))

    async def until_text(self, last):
        """Wait until a text has arrived."""
        await self.until(lambda walker: last in walker.texts)

    async def until_gap(self, *, settled):
        """Wait until a gap of this kind has been told."""
        await self.until(lambda walker: any(gap.settled is settled for gap in walker.gaps))


@asynccontextmanager
async def walked(carrier, url, **options):
    """Open a backplane with somebody who walks over it."""
    async with carrier(url, **options) as backplane:
        yield backplane, Walker(backplane)


@asynccontextmanager
async def behind_a_proxy(carrier, redis_server, **options):
    """Open a walked backplane whose way to Redis can be disturbed, and another one that goes straight."""
    proxy = await start_proxy(redis_server.url, name="way to Redis")
    async with walked(carrier, proxy.url, **options) as (_, walker), carrier(redis_server.url, **options) as straight:
        yield proxy, walker, straight
    await proxy.close()


@both
async def test_every_server_hears_what_any_server_publishes_in_one_order(redis_server, carrier):
    """Two servers publish at the same time; both receive everything, in the order of the positions in the receipts."""
    async with (
        walked(carrier, redis_server.url) as (one, at_one),
        walked(carrier, redis_server.url) as (two, at_two),
    ):
        receipts = {
            f"{name}{n}": server.publish(f"{name}{n}")
            for n in range(50)
            for name, server in zip("ab", (one, two), strict=True)
        }
        positions = await asyncio.gather(*receipts.values())
        await one.publish("end")
        await at_one.until_text("end")
        await at_two.until_text("end")
        assert at_one.events == at_two.events
        assert not at_one.gaps
        assert {event.text: event.position for event in at_one.events[:-1]} == dict(
            zip(receipts, positions, strict=True)
        )
        assert [event.position.seq for event in at_one.events] == list(range(1, 102))
        assert one.position == two.position == at_one.events[-1].position


@both
async def test_nothing_is_missed_at_the_start(redis_server, carrier):
    """What is published right after the block is entered arrives, although nobody walks yet."""
    async with carrier(redis_server.url) as somebody:
        for number in range(20):
            async with carrier(redis_server.url, history=1) as backplane:
                await somebody.publish(f"early {number}")
                await Walker(backplane).until_text(f"early {number}")


@both
async def test_text_arrives_as_it_was(redis_server, carrier):
    """Quotes, line ends, and letters of any alphabet survive the way."""
    text = '{"body": "Tor für Ö — ⚽\\n\\u0000"}\n'
    async with walked(carrier, redis_server.url) as (backplane, walker):
        await backplane.publish(text)
        await walker.until_text(text)


@both
async def test_text_that_cannot_be_sent_stops_nobody_else(redis_server, carrier):
    """Half of a surrogate pair has no bytes: whoever publishes it is told at once, and the next message goes out."""
    async with carrier(redis_server.url) as backplane:
        with pytest.raises(UnicodeEncodeError):
            backplane.publish("GOAL \ud800")
        with pytest.raises(UnicodeEncodeError):
            backplane.publish("GOAL", publish_id="\ud800")
        with pytest.raises(ValueError, match="never fits"):
            backplane.publish("x" * (16 * 2**20 + 1))
        assert (await backplane.publish("GOAL")).seq == 1


@both
async def test_channels_do_not_hear_each_other(redis_server, carrier):
    """Neither the other channel nor the other carrier."""
    other = {PubSubBackplane: StreamBackplane, StreamBackplane: PubSubBackplane}[carrier]
    async with (
        walked(carrier, redis_server.url, channel="one") as (one, at_one),
        carrier(redis_server.url, channel="two") as two,
        other(redis_server.url, channel="one") as stranger,
    ):
        await two.publish("for the other channel")
        await stranger.publish("by the other carrier")
        await one.publish("end")
        await at_one.until_text("end")
        assert at_one.texts == ["end"]


@both
async def test_publish_never_waits_and_the_walk_ends_with_the_block(redis_server, carrier):
    """publish() is no coroutine; what was handed over last still gets out; afterwards it is an error."""
    async with walked(carrier, redis_server.url) as (backplane, walker):
        await backplane.publish("first words")
        receipt = backplane.publish("last words")
        assert not receipt.done()
    assert (await receipt).seq == 2
    await asyncio.wait_for(walker.task, PATIENCE)
    with pytest.raises(RuntimeError, match="is closed"):
        backplane.publish("too late")


@both
async def test_no_redis_is_said_when_the_block_is_entered(carrier):
    """A server that cannot hear the others must not start."""
    with pytest.raises(RedisConnectionError):
        async with carrier("redis://127.0.0.1:1/0"):
            pass


@both
async def test_a_message_that_is_repeated_by_its_id_arrives_once(redis_server, carrier):
    """From another server too; the receipt of the repetition names the first position."""
    async with walked(carrier, redis_server.url) as (one, walker), carrier(redis_server.url) as two:
        first = await one.publish("GOAL", publish_id="goal-17")
        assert await two.publish("GOAL", publish_id="goal-17") == first
        assert (await one.publish("end")).seq == 2
        await walker.until_text("end")
        assert walker.texts == ["GOAL", "end"]


@both
async def test_lost_acknowledgement_is_no_second_message(redis_server, carrier):
    """Redis gets a message, and freezes before it answers: the publisher repeats it, and it arrives once, in order."""
    async with walked(carrier, redis_server.url) as (backplane, walker):
        await backplane.publish("before")
        redis_server.freeze()
        receipts = [backplane.publish("GOAL"), backplane.publish("after")]
        # Its own account of the last failure is what says that an answer has not come in time.
        async with asyncio.timeout(PATIENCE):
            while backplane._outbox._last_error is None:
                await asyncio.sleep(0.01)
        redis_server.thaw()
        assert [position.seq for position in await asyncio.gather(*receipts)] == [2, 3]
        await backplane.publish("end")
        await walker.until_text("end")
        assert walker.texts[-3:] == ["GOAL", "after", "end"] or carrier is PubSubBackplane
        assert len(set(walker.texts)) == len(walker.texts)


@both
async def test_what_waits_is_bounded_and_what_waits_too_long_is_given_up(redis_server, carrier):
    """BackplaneFull at once for one too many, NotPublished for those that Redis does not confirm; then it goes on."""
    async with carrier(redis_server.url, max_waiting=3, max_waiting_bytes=1000, timeout=1.5) as backplane:
        redis_server.freeze()
        receipts = [backplane.publish(f"{number}") for number in range(3)]
        with pytest.raises(BackplaneFull, match="3 messages wait for Redis already"):
            backplane.publish("one too many")
        with pytest.raises(NotPublished, match=r"did not confirm it within 1\.5 s.* repeat it under publish_id="):
            await receipts[0]
        await asyncio.wait(receipts)
        large = backplane.publish("x" * 600)
        with pytest.raises(BackplaneFull):
            backplane.publish("x" * 600)
        assert all(isinstance(receipt.exception(), NotPublished) for receipt in receipts)
        redis_server.thaw()
        assert (await large).seq > 0
        assert (await backplane.publish("again")).seq > 0


def told(events):
    """Return the numbers that never arrived; fail for one that comes twice or late, or that no gap had announced."""
    lost, newest, is_told = [], None, False
    for event in events:
        if isinstance(event, Gap):
            is_told = is_told or not event.settled
            continue
        if newest is not None:
            assert event.position > newest
            missing = range(newest.seq + 1, event.position.seq)
            assert is_told or not missing, f"{list(missing)} in silence"
            lost += missing
        newest, is_told = event.position, False
    return lost


async def test_pubsub_tells_of_everything_that_a_cut_subscription_costs(redis_server):
    """Its connection is cut ten times under load: what does not arrive is told in its place, nothing comes twice."""
    async with walked(PubSubBackplane, redis_server.url) as (_, walker), PubSubBackplane(redis_server.url) as publisher:
        for number in range(500):
            receipt = publisher.publish(f"{number}")
            if number % 50 == 25:
                # Right after a cut there may be no subscription yet that could be cut.
                async with asyncio.timeout(PATIENCE):
                    while not await redis_server.cut_subscribers():
                        await asyncio.sleep(0.01)
            await receipt
        while "end" not in walker.texts:
            await publisher.publish("end")
        lost = told(walker.events)
        assert len(walker.gaps) >= 10
        assert len(walker.texts) + len(lost) >= 500


async def test_pubsub_says_so_when_nothing_was_missed(redis_server):
    """A cut during which nobody published is settled afterwards."""
    async with walked(PubSubBackplane, redis_server.url) as (backplane, walker):
        only = await backplane.publish("only")
        await walker.until_text("only")
        assert await redis_server.cut_subscribers() == 1
        await walker.until_gap(settled=True)
        assert walker.gaps[-1] == Gap("the connection to Redis is back", only, only, settled=True)


async def test_half_dead_subscription_is_begun_anew(redis_server):
    """Its connection alone is silent, all others answer: told, and what is published afterwards arrives again."""
    async with behind_a_proxy(PubSubBackplane, redis_server) as (proxy, walker, straight):
        large = "x" * 5000
        await straight.publish(large)
        await walker.until_text(large)
        # The links are numbered from 1; the subscription's is the one that has brought it.
        brought = [link.bytes_down > len(large) for link in proxy.links]
        proxy.freeze(brought.index(True) + 1)
        await straight.publish("meanwhile")
        await walker.until_gap(settled=False)
        await walker.until(lambda walker: walker.gaps[-1].settled)
        await straight.publish("after")
        await walker.until_text("after")
        assert walker.texts == [large, "after"]


@both
async def test_what_a_stranger_puts_there_is_left_out(redis_server, carrier):
    """A text without a number, an entry without a text: nobody's walk ends, and whoever enters later gets in."""
    async with walked(carrier, redis_server.url) as (backplane, walker), Redis.from_url(redis_server.url) as stranger:
        await backplane.publish("before")
        if carrier is PubSubBackplane:
            await stranger.publish(backplane._outbox.target, "hello")
        else:
            await stranger.xadd(backplane._outbox.target, {"hello": "world"})
        await backplane.publish("after")
        await walker.until_text("after")
        assert walker.texts == ["before", "after"]
        async with walked(carrier, redis_server.url) as (newcomer, late):
            await newcomer.publish("end")
            await late.until_text("end")
            await walker.until_text("end")


async def test_block_that_is_cancelled_while_it_closes_leaves_nothing(redis_server):
    """Redis is frozen, a message waits, and the one who closes is cancelled: no task, no connection stays."""

    async def use():
        async with StreamBackplane(redis_server.url) as backplane:
            redis_server.freeze()
            receipts.append(backplane.publish("last words"))
            closing.set()

    receipts, closing = [], asyncio.Event()
    using = asyncio.create_task(use())
    await closing.wait()
    await asyncio.sleep(0)
    using.cancel()
    await asyncio.wait({using}, timeout=PATIENCE)
    assert using.cancelled()
    assert isinstance(receipts[0].exception(), NotPublished)
    assert not [task for task in asyncio.all_tasks() if " of broadcast" in task.get_name()]
    redis_server.thaw()


async def test_pubsub_tells_of_a_last_message_that_nobody_follows(redis_server):
    """What never arrived is told although nothing comes after it: Redis is asked how far the count is."""
    async with behind_a_proxy(PubSubBackplane, redis_server) as (_, walker, straight):
        await straight.publish("before")
        await walker.until_text("before")
        async with Redis.from_url(redis_server.url) as somebody:
            # The count goes on, and no text is sent: as for a server whose subscription has a hole.
            await somebody.set(straight._outbox.position_key, f"{straight.position.epoch}-5")
        await walker.until(lambda walker: any(gap.until and gap.until.seq == 5 for gap in walker.gaps))


@both
async def test_silent_network_is_noticed_and_what_came_meanwhile_is_told_or_brought(redis_server, carrier):
    """The way to Redis swallows everything for a while: no FIN, no RST."""
    async with behind_a_proxy(carrier, redis_server) as (proxy, walker, straight):
        await straight.publish("before")
        await walker.until_text("before")
        proxy.freeze()
        last = [await straight.publish(f"meanwhile {number}") for number in range(5)][-1]
        if carrier is PubSubBackplane:
            await walker.until_gap(settled=False)
        else:
            await asyncio.sleep(2)
        proxy.thaw()
        await walker.until(
            lambda walker: any(gap.until == last for gap in walker.gaps) or "meanwhile 4" in walker.texts
        )
        await straight.publish("after")
        await walker.until_text("after")
        if carrier is StreamBackplane:
            assert walker.texts == ["before", *(f"meanwhile {number}" for number in range(5)), "after"]
            assert all(gap.settled for gap in walker.gaps)


async def test_stream_misses_nothing_when_connections_are_cut_again_and_again(redis_server):
    """A thousand messages, every connection of Redis cut ten times meanwhile: all arrive once and in order."""
    async with (
        walked(StreamBackplane, redis_server.url) as (_, walker),
        StreamBackplane(redis_server.url) as publisher,
    ):
        receipts = []
        for number in range(1000):
            receipts.append(publisher.publish(f"{number}"))
            if number % 100 == 50:
                await receipts[-1]
                await redis_server.cut_clients()
            await asyncio.sleep(0)
        await asyncio.gather(*receipts)
        await walker.until_text("999")
        assert walker.texts == [f"{number}" for number in range(1000)]
        assert all(gap.settled for gap in walker.gaps)
        assert walker.gaps


async def test_stream_brings_the_newest_messages_to_whoever_comes_later(redis_server):
    """As many as `history` says, in order, before anything new."""
    async with StreamBackplane(redis_server.url) as publisher:
        for number in range(10):
            await publisher.publish(f"{number}")
        async with walked(StreamBackplane, redis_server.url, history=4) as (_, walker):
            await publisher.publish("new")
            await walker.until_text("new")
            assert walker.texts == ["6", "7", "8", "9", "new"]
            assert not walker.gaps


async def test_stream_tells_what_it_does_not_keep_any_more(redis_server):
    """Away for longer than the stream keeps: the gap is real, told with its numbers, and the rest follows in order."""
    async with behind_a_proxy(StreamBackplane, redis_server, history=100) as (proxy, walker, straight):
        first = await straight.publish("before")
        await walker.until_text("before")
        proxy.freeze()
        receipts = [straight.publish(f"{number}") for number in range(1000)]
        last = (await asyncio.gather(*receipts))[-1]
        proxy.reset()
        proxy.thaw()
        await walker.until_text("999")
        (gap,) = [gap for gap in walker.gaps if not gap.settled]
        assert (gap.after, gap.until) == (first, last)
        kept = [int(text) for text in walker.texts[1:]]
        assert 100 <= len(kept) < 900
        assert kept == list(range(1000 - len(kept), 1000))


@both
async def test_flushall_begins_a_new_epoch_although_nobody_publishes(redis_server, carrier):
    """Redis forgets everything and says nothing: both servers tell, and the next message has a number of its own."""
    async with (
        walked(carrier, redis_server.url) as (one, at_one),
        walked(carrier, redis_server.url) as (two, at_two),
    ):
        before = await one.publish("before")
        await at_one.until_text("before")
        await at_two.until_text("before")
        async with Redis.from_url(redis_server.url) as somebody:
            await somebody.flushall()
        await at_one.until_gap(settled=False)
        await at_two.until_gap(settled=False)
        after = await two.publish("after")
        await at_one.until_text("after")
        await at_two.until_text("after")
        assert after.epoch > before.epoch
        assert after.seq == 1
        assert at_one.texts == at_two.texts == ["before", "after"]
        assert [gap.after for gap in at_one.gaps] == [before]


@both
async def test_lost_tail_is_lost_data(redis_server, carrier):
    """A Redis that stands where it stood a while ago, as a replica may that takes over: no number is given twice."""
    async with walked(carrier, redis_server.url) as (backplane, walker):
        third = [await backplane.publish(f"{number}") for number in range(3)][-1]
        await walker.until_text("2")
        async with Redis.from_url(redis_server.url) as somebody:
            await somebody.set(backplane._outbox.position_key, f"{third.epoch}-1")
        after = await backplane.publish("after")
        await walker.until_text("after")
        assert after.epoch > third.epoch
        assert walker.gaps[0].after == third
        assert not walker.gaps[0].settled


@both
async def test_restart_in_memory_is_told(redis_server, carrier):
    """Redis is killed and comes back empty: a new epoch, and everybody is told."""
    async with walked(carrier, redis_server.url) as (backplane, walker):
        before = await backplane.publish("before")
        await walker.until_text("before")
        redis_server.kill()
        receipt = backplane.publish("while it is away")
        await redis_server.restart()
        after = await receipt
        await walker.until(
            lambda walker: any(gap.until and gap.until.epoch > before.epoch for gap in walker.gaps if not gap.settled)
        )
        assert after.epoch > before.epoch
        assert any(gap.after == before and not gap.settled for gap in walker.gaps)


async def test_restart_with_an_append_only_file_loses_nothing_that_was_acknowledged(monkeypatch):
    """Killed under load: every receipt that was given holds, in the old epoch, once and in order."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    async with (
        RedisServer(persistent=True) as redis_server,
        walked(StreamBackplane, redis_server.url) as (_, walker),
        StreamBackplane(redis_server.url) as publisher,
    ):
        receipts = [publisher.publish(f"{number}") for number in range(200)]
        await receipts[50]
        redis_server.kill()
        receipts += [publisher.publish(f"{number}") for number in range(200, 300)]
        await redis_server.restart()
        positions = await asyncio.gather(*receipts)
        await walker.until_text("299")
        assert walker.texts == [f"{number}" for number in range(300)]
        assert [position.seq for position in positions] == list(range(1, 301))
        assert len({position.epoch for position in positions}) == 1
        assert all(gap.settled for gap in walker.gaps)


async def test_server_that_does_not_walk_still_reads_from_redis_and_is_told(redis_server):
    """A limit at which Redis cuts slow subscribers, and a walker that waits: not cut, and what was given up is told."""
    async with Redis.from_url(redis_server.url) as somebody:
        await somebody.config_set("client-output-buffer-limit", "pubsub 1mb 1mb 1")
        async with (
            PubSubBackplane(redis_server.url, max_arrived=50) as idle,
            PubSubBackplane(redis_server.url) as publisher,
        ):
            receipts = [publisher.publish(f"{number} {'x' * 50_000}") for number in range(200)]
            last = (await asyncio.gather(*receipts))[-1]
            async with asyncio.timeout(PATIENCE):
                while idle.position != last:
                    await asyncio.sleep(0.01)
            walker = Walker(idle)
            await publisher.publish("end")
            await walker.until_text("end")
            assert idle.is_connected
            assert walker.gaps[0].reason == "this server has fallen behind"
            assert [gap.settled for gap in walker.gaps] == [False]
            numbers = [event.position.seq for event in walker.events if isinstance(event, Message)]
            assert numbers == list(range(walker.gaps[0].until.seq + 1, 202))


async def test_stream_that_is_not_walked_over_waits_in_redis(redis_server):
    """It reads no further than it may keep, and goes on when it is walked over: nothing is lost."""
    async with (
        StreamBackplane(redis_server.url, max_arrived=50) as idle,
        StreamBackplane(redis_server.url) as publisher,
    ):
        await asyncio.gather(*[publisher.publish(f"{number}") for number in range(900)])
        walker = Walker(idle)
        await walker.until_text("899")
        assert walker.texts == [f"{number}" for number in range(900)]
        assert not walker.gaps


async def test_receipt_that_nobody_waits_for_any_more_harms_nobody(redis_server):
    """A handler is cancelled in `await receipt`; the messages behind it are published."""
    async with walked(StreamBackplane, redis_server.url) as (backplane, walker):
        backplane.publish("first").cancel()
        await backplane.publish("second")
        await walker.until_text("second")
        assert walker.texts == ["first", "second"]
