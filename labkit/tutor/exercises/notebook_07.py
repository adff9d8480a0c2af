"""Exercises of notebook 07, "How does a message reach fans on another server?": what is asked, hints, the trials."""

import asyncio
import json
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress

from fastapi import WebSocket, WebSocketDisconnect
from redis import asyncio as redis_py
from redis.asyncio.client import PubSub
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from starlette.websockets import WebSocketState

from labkit.apparatus.clients import Fleet
from labkit.apparatus.redis_server import URL_VARIABLE, RedisNotFound, RedisServer
from labkit.apparatus.server import LabServer
from labkit.broadcast import managers
from labkit.tutor.exercises import Exercise
from labkit.tutor.exercises.sharing import (
    FILLER,
    HURRY,
    RECEIVE_BUFFER_BYTES,
    SEND_BUFFER_BYTES,
    TURNS,
    Pace,
    comes_back,
    fill,
    heard_by,
    listen,
    note_timers,
    paced,
    under_way,
)
from labkit.tutor.lines import standing
from labkit.tutor.trial import PATIENCE, NotYet, Trial, awaitable, called

CHANNEL = "scores"
# How often a client of the check tries to connect again, at once: what is gone for good is known soon.
RETRIES = 3
# For so long nothing is published; by a hurried clock that is half a minute.
QUIET_SECONDS = 0.3
# What a right answer does takes milliseconds; only a wrong one is waited for as long as this.
SOON_SECONDS = 2.0
# From the socket of a relay to that of a fan in the same process it is a handful of turns of the loop.
SETTLING_TURNS = 50
# So much of what a fan has heard is quoted.
QUOTED = 10


# ---- what the trials share


async def redis_of(it: Trial) -> RedisServer:
    """Start a Redis for this trial alone: it will be broken, so never the one that REDIS_URL names."""
    os.environ.pop(URL_VARIABLE, None)
    with it.telling(RedisNotFound, otherwise="This check breaks a Redis, so it needs one of its own. {error}"):
        return await RedisServer(name="redis of the check").start()


class Redis(redis_py.Redis):
    """A real client whose line to Redis, or from Redis back, can be held up. .there and .back: Events, set for free."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__(*arguments, **options)
        self.there, self.back = asyncio.Event(), asyncio.Event()
        self.there.set()
        self.back.set()

    async def execute_command(self, *arguments: object, **options: object) -> object:
        """Send a command when the line there is free, and return the answer when the line back is."""
        await self.there.wait()
        answer = await super().execute_command(*arguments, **options)
        await self.back.wait()
        return answer


def client_of(redis_server: RedisServer) -> Redis:
    """Return a client as the notebook's, without limits in seconds: a hurried clock would run them down."""
    return Redis.from_url(
        redis_server.url,
        decode_responses=True,
        retry=Retry(NoBackoff(), RETRIES),
        socket_timeout=None,
        socket_connect_timeout=None,
    )


async def subscription_of(redis_server: RedisServer) -> PubSub:
    """Return a subscription to the channel; the confirmation has not been read."""
    subscription = client_of(redis_server).pubsub()
    await subscription.subscribe(CHANNEL)
    return subscription


async def subscribed(it: Trial, redis: Redis, count: int, otherwise: str) -> None:
    """Wait until Redis counts so many subscribers; it sees a moment later who has come or gone."""
    until = asyncio.get_running_loop().time() + PATIENCE
    while (await redis.pubsub_numsub(CHANNEL))[0][1] != count:
        it.require(asyncio.get_running_loop().time() < until, otherwise)


async def cut_subscribers(redis: Redis) -> None:
    """End every connection that a subscription has, from the side of Redis."""
    await redis.client_kill_filter(_type="pubsub")


async def settled(redis: Redis) -> None:
    """Wait until what Redis has passed on so far has gone through this process: an answer of Redis, and some turns."""
    await redis.ping()
    for _ in range(SETTLING_TURNS):
        await asyncio.sleep(0)


def in_words(texts: Iterable[object]) -> str:
    """Return what was heard in a line; a long text, and a long list, by its beginning."""
    said = [f"{text:.24}" if isinstance(text, str) else f"{text!r:.60}" for text in texts]
    more = [f"… and {len(said) - QUOTED} more"] if len(said) > QUOTED else []
    return " · ".join(said[:QUOTED] + more) or "nothing"


class QueueManager(managers.QueueManager):
    """The manager of notebook 06, which notes what it is handed. .handed the list."""

    def __init__(self) -> None:
        super().__init__()
        self.handed: list[object] = []

    async def broadcast(self, text: str) -> None:
        """Note a text, and put it into every fan's queue."""
        self.handed.append(text)
        await super().broadcast(text)


class Crowd:
    """A server with a manager of its own, and its fans. .name, .manager, .fleet."""

    def __init__(self, it: Trial, name: str) -> None:
        self.it = it
        self.name = name
        self.manager = QueueManager()
        self.fleet: Fleet | None = None

    async def open(self, *order: str) -> None:
        """Serve, and let fans come in this order."""
        server = await self.it.serve(self._stand, name=self.name, send_buffer_bytes=SEND_BUFFER_BYTES)
        self.fleet = await self.it.fleet(server, name=self.name, order=order, receive_buffer_bytes=RECEIVE_BUFFER_BYTES)
        size = len(order)
        await self.it.until(lambda: len(self.manager.clients) == size, f"The fans of {self.name} cannot come in.")

    async def _stand(self, websocket: WebSocket) -> None:
        await self.manager.connect(websocket)
        try:
            await listen(websocket)
        finally:
            self.manager.disconnect(websocket)

    @property
    def heard(self) -> list[str]:
        """What fan 1 has heard; those who sleep are not asked."""
        return heard_by(self.fleet)[1]


# ---- X7.1, relay through Redis


async def try_relay(it: Trial, relay: Callable[..., Awaitable]) -> str:
    """Two servers, one fan asleep; a silence, a cut, and the end of Redis."""
    redis_server = await redis_of(it)
    redis = client_of(redis_server)
    crowds = [Crowd(it, "server 1"), Crowd(it, "server 2")]
    await crowds[0].open("healthy", "stalled")
    await crowds[1].open("healthy")
    await fill(it, 2)
    note_timers()
    calls = []
    for crowd in crowds:
        subscription = await subscription_of(redis_server)
        calls.append(it.start(paced, Pace(HURRY), relay, subscription, crowd.manager))
        calls[-1].set_name("your relay")
    evening = Evening(it, redis, crowds, calls)
    await subscribed(it, redis, 2, "Two servers have subscribed, and Redis does not count both.")

    await evening.hears("Redis has confirmed both subscriptions", ["kick-off"])
    await evening.hears(
        "Four messages follow each other, two of them with the same text", ["1:0", "GOAL", "GOAL", "2:0"]
    )
    await asyncio.sleep(QUIET_SECONDS)
    await evening.hears("Nothing was published for half a minute, by the hurried clock", ["3:0"])
    await cut_subscribers(redis)
    await evening.resubscribed("Both subscriptions were cut")
    await evening.hears("Both subscriptions were cut, and redis-py has connected and subscribed again", ["4:0"])

    redis_server.child.kill()
    for call in calls:
        await evening.ends_loudly(call)
    return "Two crowds heard everything once and in order, through a silence and a cut; the end of Redis came out."


class Evening:
    """What is published while two relays of the learner's run. .texts all so far."""

    def __init__(self, it: Trial, redis: Redis, crowds: list[Crowd], calls: list[asyncio.Task]) -> None:
        self.it = it
        self.redis = redis
        self.crowds = crowds
        self.calls = calls
        self.texts: list[str] = []

    async def hears(self, before: str, texts: list[str]) -> None:
        """Publish, and see that both crowds hear it, and nothing besides. before: what happened last, as a story."""
        await settled(self.redis)
        for call in self.calls:
            self._not_ended(call, before)
        story = f"{before}; then “{texts[0]}” is published" if len(texts) == 1 else before
        for text in texts:
            await self.redis.publish(CHANNEL, text)
        self.texts += texts
        with suppress(NotYet):
            await self.it.until(self._is_decided, "")
        await settled(self.redis)
        for crowd, call in zip(self.crowds, self.calls, strict=True):
            for odd in self._odd(crowd):
                raise NotYet(
                    f"{story}. Your relay has handed {odd!r:.110} to the manager of {crowd.name}: {self._of_odd(odd)}"
                )
            self._not_ended(call, story)
            if crowd.heard != self.texts:
                raise NotYet(self._unheard(crowd, call, story))

    def _is_decided(self) -> bool:
        """Whether both crowds have heard everything, or something has happened that must not."""
        complete = all(len(crowd.heard) >= len(self.texts) for crowd in self.crowds)
        return complete or any(map(self._odd, self.crowds)) or any(call.done() for call in self.calls)

    def _odd(self, crowd: Crowd) -> list[object]:
        """Return what a manager was handed that nobody has published."""
        return [each for each in crowd.manager.handed if each not in self.texts]

    def _of_odd(self, odd: object) -> str:
        """Return in words what it is that nobody has published."""
        if isinstance(odd, dict) and odd.get("type") == "message" and odd.get("data") in self.texts:
            return (
                f"“{odd['data']}” is what was published; the rest is what Redis wraps around it, and a fan's writer "
                "cannot send that. What shall a fan read?"
            )
        return "nobody has published that, and a fan's writer cannot send it. Where does it come from?"

    def _unheard(self, crowd: Crowd, call: asyncio.Task, story: str) -> str:
        """Return in words what a fan heard, and where the relay is."""
        lost = next((text for text in self.texts if self.texts.count(text) > crowd.heard.count(text)), None)
        if lost is None:
            return f"{story}. Fan 1 of {crowd.name} hears {in_words(crowd.heard)}, where {in_words(self.texts)} is due."
        more = f" once, and it was published {self.texts.count(lost)} times" if lost in crowd.heard else ""
        hears = f"hears “{lost}”{more}" if more else f"never hears “{lost}”"
        handed = "was handed it" if crowd.manager.handed.count(lost) >= self.texts.count(lost) else "was not handed it"
        return f"{story}. Fan 1 of {crowd.name} {hears}; the manager {handed}. Your relay: {standing(call)}."

    def _not_ended(self, call: asyncio.Task, story: str) -> None:
        if not call.done():
            return
        if call.exception() is not None:
            raise call.exception()
        handed = len(self.crowds[self.calls.index(call)].manager.handed)
        raise NotYet(
            f"{story}. Your relay has come to its end, without an error, and had handed over "
            f"{f'{handed} messages' if handed != 1 else 'one message'}: from now on its server is deaf."
        )

    async def resubscribed(self, story: str) -> None:
        """Wait until both relays have subscribed again."""
        with suppress(NotYet):
            await subscribed(self.it, self.redis, 2, "")
        for call in self.calls:
            self._not_ended(call, story)
        await subscribed(self.it, self.redis, 2, f"{story}, and nobody has asked redis-py for the next message.")

    async def ends_loudly(self, call: asyncio.Task) -> None:
        """See that a relay whose Redis is gone ends with an error."""
        story = "Redis was killed, and redis-py has raised a ConnectionError"
        await asyncio.wait({call}, timeout=PATIENCE)
        if not call.done():
            raise NotYet(f"{story}. Nothing of it came out of your relay, {standing(call)}: who will ever know?")
        if call.cancelled() or call.exception() is None:
            raise NotYet(f"{story}. Your relay ended all the same as if its work were done: who will ever know?")


# ---- X7.2, what is missing?


class Numbering:
    """Numbers messages in Redis, as it will be done for all servers, and publishes them."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._epoch = 0

    async def number(self, text: str, sent_at: float = 0.0) -> dict:
        """Return a message with the next number; a numbering that Redis has lost begins again, with a new epoch."""
        seq = await self.redis.incr("seq")
        if seq == 1:
            seconds, microseconds = await self.redis.time()
            # Redis may lose its data twice in one millisecond.
            self._epoch = max(seconds * 1000 + microseconds // 1000, self._epoch + 1)
            await self.redis.set("epoch", self._epoch)
        return {"epoch": int(await self.redis.get("epoch")), "seq": seq, "sent_at": sent_at, "text": text}

    async def announce(self, text: str, sent_at: float = 0.0) -> dict:
        """Number a message, publish it, and return it."""
        message = await self.number(text, sent_at)
        await self.redis.publish(CHANNEL, json.dumps(message))
        return message


async def try_gap_detector(it: Trial, gap_detector: type) -> str:
    """A subscription that is cut, a reporter who repeats, two clocks, a Redis that forgets; then a table."""
    judge = Judgement(it, called(gap_detector), called(gap_detector))
    it.require(hasattr(judge.detector, "take"), "GapDetector has no method `take`.")
    redis_server = await redis_of(it)
    redis = client_of(redis_server)
    numbering = Numbering(redis)
    ear = Ear(await subscription_of(redis_server))
    await subscribed(it, redis, 1, "The check's own subscription is not there. That is a mistake of the course.")

    await numbering.number("warm-up")
    await numbering.number("line-up")
    await numbering.announce("kick-off", 10.0)
    judge.hears(await ear.next(), ("first", []), "A server comes in when two messages have gone by")
    await numbering.announce("1:0", 11.0)
    judge.hears(await ear.next(), ("next", []), "The same reporter goes on")
    second = await numbering.announce("1:1", 8.0)
    judge.hears(await ear.next(), ("next", []), "Another reporter goes on, whose clock is three seconds behind")
    judge.elsewhere(second)

    await cut_subscribers(redis)
    await subscribed(it, redis, 0, "The check's own subscription is not cut. That is a mistake of the course.")
    await numbering.announce("2:1", 13.0)
    await numbering.announce("3:1", 14.0)
    await ear.back()
    last = await numbering.announce("4:1", 12.0)
    judge.hears(await ear.next(), ("gap", [6, 7]), "The subscription was cut for a while, and redis-py said nothing")
    await redis.publish(CHANNEL, json.dumps(last | {"sent_at": 15.0}))
    judge.hears(await ear.next(), ("repeat", []), "The reporter has had no answer and says it once more")
    await redis.publish(CHANNEL, json.dumps(second | {"sent_at": 16.0}))
    judge.hears(await ear.next(), ("repeat", []), "Another reporter repeats an older one")
    await numbering.announce("5:1", 17.0)
    judge.hears(await ear.next(), ("next", []), "After two repeats it goes on")

    await redis.flushall()
    await numbering.announce("kick-off", 18.0)
    judge.hears(await ear.next(), ("new epoch", []), "Redis has lost its data, and numbers from 1 again")
    await numbering.announce("0:1", 19.0)
    judge.hears(await ear.next(), ("next", []), "The new numbering goes on")
    await redis.flushall()
    for text in ("kick-off", "1:0", "2:0"):
        await numbering.number(text)
    await numbering.announce("3:0", 20.0)
    judge.hears(await ear.next(), ("new epoch", [1, 2, 3]), "Redis has lost its data once more, and we hear of it late")
    await numbering.announce("4:0", 21.0)
    judge.hears(await ear.next(), ("next", []), "That numbering goes on")
    by_the_table(it, gap_detector)
    return "Over a cut line, two clocks, repeats and two losses of Redis, it was said each time what is missing."


class Ear:
    """A subscription that the check reads message by message, so that nothing reconnects before it shall."""

    def __init__(self, subscription: PubSub) -> None:
        self._subscription = subscription

    async def next(self) -> dict:
        """Return the next message that somebody published."""
        async with asyncio.timeout(PATIENCE):
            while (message := await self._subscription.get_message(timeout=PATIENCE))["type"] != "message":
                pass
        return json.loads(message["data"])

    async def back(self) -> None:
        """Read until redis-py has subscribed again."""
        async with asyncio.timeout(PATIENCE):
            while (await self._subscription.get_message(timeout=PATIENCE))["type"] != "subscribe":
                pass


class Judgement:
    """Hands messages to the learner's detector and judges what it says. .detector, and .other of another server."""

    def __init__(self, it: Trial, detector: object, other: object) -> None:
        self.it = it
        self.detector = detector
        self.other = other
        self._before = ""

    def hears(self, message: dict, due: tuple[str, list[int]], story: str) -> None:
        """Hand over a message, and see that the right thing is said of it."""
        said = self.it.result_of(self.detector.take, message)
        place = f"number {message['seq']}{self._before}"
        if due[0] != "repeat":
            self._before = f", after number {message['seq']}"
        if due[0] == "new epoch":
            place = f"number {message['seq']} of another numbering"
        self._judge(said, due, f"{story}: {place}")

    def _judge(self, said: object, due: tuple[str, list[int]], story: str) -> None:
        parts = said if isinstance(said, tuple | list) and len(said) == 2 else None
        it = self.it
        it.require(parts, f"{story}. Your take() returns {said!r:.60}; a word and a list are asked for.")
        word, missing = parts
        it.require(
            isinstance(missing, Iterable) and not isinstance(missing, str),
            f"{story}. Your take() returns {said!r:.60}; the second part should be a list of numbers.",
        )
        missing = list(missing)
        if (word, missing) == due:
            return
        it.require(word == due[0], f"{story}. Your take() says {word!r:.30}, missing {missing!r:.40}: is it that?")
        raise NotYet(f"{story}. Your take() says {word!r}, and that {missing!r:.60} are missing: count again.")

    def elsewhere(self, message: dict) -> None:
        """Hand the same message to the detector of another server, for which it is the first."""
        said = self.it.result_of(self.other.take, message)
        self._judge(said, ("first", []), "A second server, with a GapDetector of its own, hears its first message")


# epoch and seq of what arrives, one after another, and what is due.
TABLE = (
    ((1, 1, "first"), (1, 2, "next"), (1, 4, "gap", 3), (1, 4, "repeat"), (1, 3, "repeat"), (1, 5, "next")),
    ((1, 7, "first"), (1, 7, "repeat"), (1, 10, "gap", 8, 9), (1, 12, "gap", 11), (1, 13, "next")),
    ((1, 5, "first"), (2, 6, "new epoch", 1, 2, 3, 4, 5), (2, 6, "repeat"), (2, 8, "gap", 7), (3, 1, "new epoch")),
    ((1, 1, "first"), (2, 1, "new epoch"), (3, 1, "new epoch"), (3, 2, "next")),
)


def by_the_table(it: Trial, gap_detector: type) -> None:
    """Judge sequences that no Redis has to be broken for."""
    for row in TABLE:
        judge = Judgement(it, called(gap_detector), None)
        told = []
        for epoch, seq, word, *missing in row:
            message = {"epoch": epoch, "seq": seq, "sent_at": float(len(told)), "text": "GOAL"}
            told.append(f"{epoch}-{seq}")
            judge.hears(message, (word, missing), f"One after another come, as epoch-seq, {', '.join(told)}")


# ---- X7.3, the goal that counts twice


async def try_scoreboard(it: Trial, scoreboard: type) -> str:
    """Three servers of one name announce, in turn and at once, over a line that is held up there and then back."""
    redis_server = await redis_of(it)
    crowds = [Crowd(it, f"server {number}") for number in (1, 2, 3)]
    for crowd in crowds:
        await crowd.open("healthy")
    lines = [client_of(redis_server) for _ in crowds]
    # Copies of one program, and so of one name.
    places = zip(crowds, lines, strict=True)
    boards = [called(scoreboard, "scoreboard", crowd.manager, redis) for crowd, redis in places]
    for method in ("announce", "pass_on"):
        it.require(hasattr(boards[0], method), f"Scoreboard has no method `{method}`.")
    relays = [it.start(board.pass_on, await subscription_of(redis_server)) for board in boards]
    match = Match(it, crowds, boards, relays, lines[1])
    with suppress(NotYet):
        await subscribed(it, lines[1], 3, "")
    await match.nobody_fails("Three servers have subscribed, and nobody has announced anything")

    await match.announces(1, "kick-off")
    await match.all_hear("Server 1 has announced “kick-off”")
    await match.announces(1, "GOAL")
    await match.all_hear("Server 1 has announced “GOAL”")
    await match.announces(2, "GOAL")
    await match.all_hear("Server 1 has announced “GOAL”, and then server 2 has announced another “GOAL”")

    lines[0].there.clear()
    slow = match.begins(1, "1:0")
    for _ in range(TURNS):
        await asyncio.sleep(0)
    await match.announces(3, "1:1")
    story = "Server 1 announced “1:0”, and its line to Redis was slow; server 3 announced “1:1” meanwhile"
    await match.some_hear((2, 3), "1:1", story)
    lines[0].there.set()
    await match.comes_back(slow, story)
    await match.same_order(["1:0", "1:1"], story)

    lines[0].back.clear()
    slow = match.begins(1, "2:1")
    story = "Server 1 announced “2:1”, and the answer of Redis was slow; server 2 announced “2:2” meanwhile"
    await match.some_hear((2, 3), "2:1", story)
    await match.announces(2, "2:2")
    await match.some_hear((3,), "2:2", story)
    lines[0].back.set()
    await match.comes_back(slow, story)
    await match.same_order(["2:1", "2:2"], story)
    return "Three crowds heard every announcement once, two equal ones twice, and all in one order over slow lines."


class Match:
    """What three servers announce. .texts all of it so far; .crowds, each with what its fan has heard."""

    def __init__(
        self, it: Trial, crowds: list[Crowd], boards: list[object], relays: list[asyncio.Task], redis: Redis
    ) -> None:
        self.it = it
        self.crowds = crowds
        self.boards = boards
        self.relays = relays
        self.redis = redis
        self.texts: list[str] = []

    def begins(self, number: int, text: str) -> asyncio.Task:
        """Let a server announce a text, and do not wait for it."""
        self.texts.append(text)
        task = self.it.start(self.boards[number - 1].announce, text)
        task.set_name("your announce()")
        return task

    async def announces(self, number: int, text: str) -> None:
        """Let a server announce a text, and wait until that has come back."""
        await self.comes_back(self.begins(number, text), f"Server {number} announces “{text}”")

    async def comes_back(self, task: asyncio.Task, story: str) -> None:
        """Wait until an announcement has come back; raise its own error, or that of a relay."""
        error = await comes_back(task, story)
        if error is not None:
            raise error
        await self.nobody_fails(story)

    async def nobody_fails(self, story: str) -> None:
        """See that each pass_on() still runs, and has handed nothing but texts to its manager."""
        await settled(self.redis)
        for crowd, relay in zip(self.crowds, self.relays, strict=True):
            if relay.done() and relay.exception() is not None:
                raise relay.exception()
            self.it.require(not relay.done(), f"{story}. The pass_on() of {crowd.name} has come to its end.")
            odd = [each for each in crowd.manager.handed if not isinstance(each, str)]
            self.it.require(
                not odd, f"{story}. The manager of {crowd.name} was handed {odd!r:.80}, which no writer can send."
            )

    async def some_hear(self, numbers: Iterable[int], text: str, story: str) -> None:
        """Wait until the fans of these servers have heard a text."""
        crowds = [self.crowds[number - 1] for number in numbers]
        with suppress(NotYet):
            await self.it.until(lambda: all(text in crowd.heard for crowd in crowds), "")
        await self.nobody_fails(story)
        for crowd in crowds:
            self.it.require(text in crowd.heard, f"{story}. The fan of {crowd.name} never hears “{text}”.")

    async def all_hear(self, story: str) -> None:
        """See that each fan has heard all texts in their order, each once."""
        await self._complete(story)
        for crowd in self.crowds:
            self.it.require(
                crowd.heard == self.texts,
                f"{story}. The fan of {crowd.name} hears {in_words(crowd.heard)}, where {in_words(self.texts)} is due.",
            )

    async def same_order(self, texts: list[str], story: str) -> None:
        """See that each fan has heard these two texts besides the others, once, and all in one order."""
        await self._complete(story)
        orders = [[text for text in crowd.heard if text in texts] for crowd in self.crowds]
        if len({tuple(order) for order in orders}) > 1:
            heard = [f"{each.name}: {in_words(order)}" for each, order in zip(self.crowds, orders, strict=True)]
            raise NotYet(f"{story}. Fans of one match hear two orders ({'; '.join(heard)}): whose board is right?")

    async def _complete(self, story: str) -> None:
        """Wait until everybody has heard as many texts as there are, and see that nothing is lost or heard again."""
        with suppress(NotYet):
            await self.it.until(
                lambda: all(len(each.heard) >= len(self.texts) for each in self.crowds), "", within=SOON_SECONDS
            )
        await self.nobody_fails(story)
        for text in dict.fromkeys(self.texts):
            due = self.texts.count(text)
            wrong = [crowd for crowd in self.crowds if crowd.heard.count(text) != due]
            came = [f"{times(crowd.heard.count(text))} to the fan of {crowd.name}" for crowd in wrong]
            if wrong:
                raise NotYet(
                    f"{story}. “{text}” comes {', '.join(came)}; {times(due)} is due. The fan of {wrong[0].name} has "
                    f"heard, all in all: {in_words(wrong[0].heard)}."
                )


def times(count: int) -> str:
    """Return how often in words."""
    return {0: "never", 1: "once", 2: "twice"}.get(count, f"{count} times")


# ---- X7.4, back again


class Stand:
    """A server that fans come back to, fed by Redis. .history and .fans, as the learner's function gets them.

    .done the numbers of what has been sent to everybody who was among the fans. .called an Event, set when a fan has
    come and resume() is about to be called; .came the connections for which it has come back.
    """

    def __init__(self, it: Trial, resume: Callable[..., Awaitable], redis_server: RedisServer) -> None:
        self.it = it
        self.resume = resume
        self.numbering = Numbering(client_of(redis_server))
        self.history: deque[tuple[int, int, str]] = deque(maxlen=40)
        self.fans: set[WebSocket] = set()
        self.done: list[int] = []
        self.came: list[int] = []
        self.called = asyncio.Event()
        self.epoch = 0
        self._redis_server = redis_server
        self._server: LabServer | None = None

    async def open(self) -> None:
        """Serve, subscribe, and feed what Redis passes on."""
        self._server = await self.it.serve(self._stand, send_buffer_bytes=SEND_BUFFER_BYTES)
        self.it.start(self._feed, await subscription_of(self._redis_server))
        await subscribed(self.it, self.numbering.redis, 1, "The check does not hear its own Redis.")

    async def _stand(self, websocket: WebSocket) -> None:
        epoch, seq = int(websocket.query_params["epoch"]), int(websocket.query_params["seq"])
        self.called.set()
        try:
            await awaitable(self.resume, websocket, epoch, seq, self.history, self.fans)
            if websocket.application_state is WebSocketState.CONNECTING:
                raise NotYet("A fan is at the door; your resume() has come back, and has not accepted it.")
            if websocket.application_state is WebSocketState.DISCONNECTED:
                raise NotYet("A fan came back, and your resume() has closed its connection.")
            self.came.append(websocket.scope["connection"])
            # It may have listened itself until the fan went.
            if websocket.client_state is WebSocketState.CONNECTED:
                await listen(websocket)
        finally:
            self.fans.discard(websocket)

    async def _feed(self, subscription: PubSub) -> None:
        async for message in subscription.listen():
            if message["type"] == "message":
                message = json.loads(message["data"])
                await self.take(message["epoch"], message["seq"], message["text"])

    async def take(self, epoch: int, seq: int, text: str) -> None:
        """Keep a message, and send it to whoever is among the fans at this moment."""
        if epoch != self.epoch:
            self.history.clear()
        self.epoch = epoch
        self.history.append((epoch, seq, text))
        for fan in self.fans.copy():
            with suppress(WebSocketDisconnect, RuntimeError):
                await fan.send_text(text)
        self.done.append(seq)

    async def goals(self, *texts: str) -> None:
        """Publish, and wait until all of it is in the history."""
        for text in texts:
            message = await self.numbering.announce(text)
        newest = message["epoch"], message["seq"]
        await self.it.until(
            lambda: self.history and self.history[-1][:2] == newest,
            f"“{texts[-1]:.24}” has been published, and the check's relay does not get to it: "
            f"it still sends “{self.history[-1][2] if self.history else ''}”, to a fan who does not read.",
        )

    async def returns(self, epoch: int, seq: int, *, behaviour: str = "healthy") -> "Back":
        """Let a fan come back with its position."""
        number = len(self.it.handlers) + 1
        fleet = await self.it.fleet(
            self._server,
            f"/ws?epoch={epoch}&seq={seq}",
            name=f"fan {number}",
            order=[behaviour],
            receive_buffer_bytes=RECEIVE_BUFFER_BYTES,
        )
        return Back(self, fleet, number)


class Back:
    """A fan who has come back. .number of its connection; .heard what it has heard; .fleet, a crowd of one."""

    def __init__(self, stand: Stand, fleet: Fleet, number: int) -> None:
        self.it = stand.it
        self.stand = stand
        self.fleet = fleet
        self.number = number

    @property
    def heard(self) -> list[str]:
        """What the fan has heard so far, by the first word."""
        return [each.text.split(" ")[0] for each in self.fleet.deliveries]

    async def hears(self, texts: list[str], story: str) -> None:
        """See that the fan hears these texts in this order, and nothing else; several `gap` in a row count as one."""
        with suppress(NotYet):
            await self.it.until(
                lambda: self.heard[-1:] == texts[-1:] and len(self.heard) >= len(texts), "", within=SOON_SECONDS
            )
        await settled(self.stand.numbering.redis)
        self.it.no_crash()
        heard = self.heard
        heard = [text for place, text in enumerate(heard) if text != "gap" or heard[place - 1 : place] != ["gap"]]
        if heard == texts:
            return
        is_inside = not self.it.has_ended(self.number) and self.number not in self.stand.came
        place = f" Your resume() has not come back: {self.it.where(self.number)}." if is_inside else ""
        raise NotYet(f"{story}. It hears {in_words(heard)}{self._so(heard, texts)}{place}")

    async def goes(self) -> None:
        """Let the fan vanish, and wait until its handler has ended."""
        await self.fleet.vanish(1)
        await self.it.ended(self.number, f"Fan {self.number} has vanished")

    def _so(self, heard: list[str], texts: list[str]) -> str:
        """Return what is wrong with what was heard."""
        if "gap" in texts and "gap" not in heard:
            return ": something is missing there, and nobody has told it."
        if "gap" in heard and "gap" not in texts:
            return ": nothing is missing that the server has not got, and it was told of a gap."
        odd = next((text for text in heard if text not in texts), None)
        if odd is not None:
            return f": “{odd}” is not for this fan."
        twice = next((text for text in texts if heard.count(text) > 1), None)
        if twice is not None:
            return f": “{twice}” came {heard.count(twice)} times."
        lost = next((text for text in texts if text not in heard), None)
        if lost is not None:
            return f": “{lost}” never came."
        return f", where {in_words(texts)} is due."


async def try_resume(it: Trial, resume: Callable[..., Awaitable]) -> str:
    """Fans come back with nothing missed, with something, on a slow line, among goals, too late, and in a new epoch.

    Then while a send waits: more goals fall than the history holds, and one in every send.
    """
    redis_server = await redis_of(it)
    stand = Stand(it, resume, redis_server)
    await stand.open()
    await stand.goals("1", "2", "3")
    epoch = stand.epoch

    first = await stand.returns(epoch, 3)
    await it.until(
        lambda: stand.fans or first.number in stand.came,
        f"Fan 1 came back with number 3, the newest that there was, and is not in `fans`: {it.where(first.number)}.",
    )
    await stand.goals("4")
    await first.hears(["4"], "Fan 1 came back with number 3, the newest that there was; then number 4 came")
    await first.goes()
    await stand.goals(f"5 {FILLER}", f"6 {FILLER}", "7")
    story = "A fan had number 4 and vanished; three goals fell, and it came back with number 4"
    again = await stand.returns(epoch, 4)
    await again.hears(["5", "6", "7"], story)
    await again.goes()

    await on_a_slow_line(it, stand, epoch)
    await among_goals(it, stand, epoch)
    await too_late(it, stand)
    await overtaken(it, stand)
    await in_every_send(it, stand)
    await it.until(lambda: not stand.fans, f"All fans have gone, and {len(stand.fans)} are left in `fans`.")
    it.no_crash()
    return "Fans came back in time, too late, and while goals fell: each heard what it had missed once, or of a gap."


async def on_a_slow_line(it: Trial, stand: Stand, epoch: int) -> None:
    """A fan that does not read catches up; while its sends wait, a goal falls. Then it reads."""
    fan = await stand.returns(epoch, 4, behaviour="stalled")
    with suppress(NotYet):
        await it.until(lambda: under_way(it, fan.number) or fan.number in stand.came, "", within=SOON_SECONDS)
    it.no_crash()
    story = (
        f"Fan {fan.number} came back with number 4, on a slow line; while your send to it waited, “8” was published, "
        "and then it read"
    )
    await stand.goals("8")
    with suppress(NotYet):
        await it.until(lambda: 8 in stand.done or "8" in [each.detail for each in it.of(fan.number, "send")], "")
    await fan.fleet.wake(1)
    await fan.hears(["5", "6", "7", "8"], story)
    await stand.goals("9")
    await fan.hears(["5", "6", "7", "8", "9"], f"{story}. Afterwards “9” was published")
    await fan.goes()


async def among_goals(it: Trial, stand: Stand, epoch: int) -> None:
    """A goal falls at every turn of the loop while a fan comes back: any wait at the wrong moment loses one."""
    number = len(it.handlers) + 1
    stand.called.clear()

    async def shower() -> None:
        await stand.called.wait()
        for seq in range(10, 31):
            await stand.take(epoch, seq, str(seq))
            await asyncio.sleep(0)

    goals = it.start(shower)
    fan = await stand.returns(epoch, 7)
    await asyncio.wait({goals}, timeout=PATIENCE)
    # They did not come from Redis, which goes on behind them.
    await stand.numbering.redis.set("seq", 30)
    await stand.goals("31")
    texts = [str(seq) for seq in range(8, 32)]
    await fan.hears(texts, f"Fan {number} came back with number 7, and at every turn of the loop a goal fell, up to 31")
    await fan.goes()


async def too_late(it: Trial, stand: Stand) -> None:
    """The history holds three messages: a fan comes back in time, one too late, and one from another numbering."""
    epoch = stand.epoch
    stand.history = deque(stand.history, maxlen=3)
    await stand.goals("32")
    cases = [
        (epoch, 29, ["30", "31", "32"], "with number 29, while the history holds 30, 31 and 32"),
        (epoch, 28, ["gap", "30", "31", "32"], "with number 28, while the history holds 30, 31 and 32"),
        (epoch, 3, ["gap", "30", "31", "32"], "with number 3, while the history holds 30, 31 and 32"),
    ]
    await one_after_another(it, stand, cases)
    await stand.numbering.redis.flushall()
    await stand.goals("1", "2", "3")
    how = "of the numbering before: Redis has lost its data, and the history holds 1, 2 and 3 of a new one"
    cases = [
        (epoch, 32, ["gap", "1", "2", "3"], f"with number 32 {how}"),
        (epoch, 2, ["gap", "1", "2", "3"], f"with number 2 {how}"),
        (stand.epoch, 2, ["3"], "with number 2 of the new numbering"),
    ]
    await one_after_another(it, stand, cases)


async def overtaken(it: Trial, stand: Stand) -> None:
    """While a send waits, more goals fall than the history holds: what the answer has not kept itself is lost."""
    epoch = stand.epoch
    stand.history = deque(stand.history, maxlen=5)
    await stand.goals(f"4 {FILLER}", f"5 {FILLER}", "6")
    fan = await stand.returns(epoch, 3, behaviour="stalled")
    with suppress(NotYet):
        await it.until(lambda: under_way(it, fan.number) or fan.number in stand.came, "", within=SOON_SECONDS)
    it.no_crash()
    await stand.goals(*[str(seq) for seq in range(7, 14)])
    await fan.fleet.wake(1)
    with suppress(NotYet):
        await it.until(lambda: fan.heard[-1:] == ["13"], "", within=SOON_SECONDS)
    # Who has made a copy may send what the history has lost; where a number is left out, `gap` stands for it.
    held = [str(seq) for seq in range(9, 14)]
    due: list[str] = []
    lost: list[str] = []
    for text in ["4", "5", "6", "7", "8"]:
        if text in fan.heard:
            due.append(text)
        else:
            lost.append(text)
            due += ["gap"] if due[-1:] != ["gap"] else []
    due += held
    story = f"Fan {fan.number} came back with number 3, on a slow line; while your send to it waited,"
    if lost and fan.heard == [text for text in due if text != "gap"]:
        *most, last = lost
        gone = f"{', '.join(most)} and {last}" if most else last
        raise NotYet(
            f"{story} so many goals fell that the history lost {gone}, and then it read. It hears "
            f"{in_words(fan.heard)}, and no `gap` between."
        )
    await fan.hears(due, f"{story} 7 to 13 were published, which left 9 to 13 in the history, and then it read")
    await fan.goes()


async def in_every_send(it: Trial, stand: Stand) -> None:
    """Whenever a send waits, another goal falls: whoever looks a fixed number of times misses one."""
    epoch = stand.epoch
    await stand.goals(f"14 {FILLER}", f"15 {FILLER}")
    number = len(it.handlers) + 1
    seq = 15

    async def fall() -> None:
        nonlocal seq
        seen = 0
        while seq < 20 and number not in stand.came:
            # A text as long as this is on its way for many turns of the loop, and the next send waits for all of them.
            if len(it.of(number, "send")) > seen and under_way(it, number):
                seen, seq = len(it.of(number, "send")), seq + 1
                await stand.take(epoch, seq, f"{seq} {FILLER}")
            await asyncio.sleep(0)

    goals = it.start(fall)
    fan = await stand.returns(epoch, 13, behaviour="stalled")
    await fan.fleet.wake(1)
    await asyncio.wait({goals}, timeout=PATIENCE)
    goals.cancel()
    # They did not come from Redis, which goes on behind them.
    await stand.numbering.redis.set("seq", seq)
    await stand.goals(str(seq + 1))
    texts = [str(each) for each in range(14, seq + 2)]
    story = f"Fan {number} came back with number 13, on a slow line; whenever your send to it waited, a goal fell"
    await fan.hears(texts, f"{story}, up to {seq}; and then “{seq + 1}” was published")
    await fan.goes()


async def one_after_another(it: Trial, stand: Stand, cases: list[tuple[int, int, list[str], str]]) -> None:
    """Let fans come back, each with its position, hear what is due, and vanish."""
    for epoch, seq, texts, how in cases:
        fan = await stand.returns(epoch, seq)
        await fan.hears(texts, f"Fan {fan.number} came back {how}")
        await fan.goes()


EXERCISES = [
    Exercise(
        identifier="X7.1",
        answer="relay",
        statement="Fill in relay(): what somebody published goes to this server's manager, what Redis says by itself "
        "does not, and when Redis is gone for good the error comes out.",
        hints=(
            "Look at the first message that a new subscriber got, in the notebook: what is its type, and what stands "
            "under `data`? A reconnect subscribes again.",
            "Two kinds of messages come out of listen(), for ever. Ask each one for its type, and pass on one kind: "
            "the text alone, to the manager, which knows its fans.",
            "One `if` on the type of the message, and behind it one awaited broadcast of what stands under `data`. No "
            "`try`, no end of the loop: the error of listen() ends it.",
        ),
        trial=try_relay,
    ),
    Exercise(
        identifier="X7.2",
        answer="GapDetector",
        statement="Change GapDetector so that it goes by `epoch` and `seq`: take() says first, next, repeat, gap or "
        "new epoch, and which numbers are missing.",
        hints=(
            "Which two things does the detector have to remember of a message, so that the next one can be compared "
            "with it? The clock is neither.",
            "Ask in this order: is it the first of all? Is the numbering another one? Is the number beyond the newest? "
            "Only then: what lies between the newest and this one?",
            "`range` counts what is missing: from the newest + 1 up to this number; in a new numbering from 1. A "
            "repeat returns before anything is remembered.",
        ),
        trial=try_gap_detector,
    ),
    Exercise(
        identifier="X7.3",
        answer="Scoreboard",
        statement="Find the bug in Scoreboard: the server that announces tells its own fans twice. Every fan of every "
        "server shall hear each announcement once, and all of them in one order.",
        hints=(
            "Follow one text on paper, from announce() of server 1 to a fan of server 1, and to a fan of server 2. How "
            "many ways are there to each of them?",
            "One way of two has to go. Keep the short one, and the other servers decide by themselves what comes "
            "before it: two orders. And a name or a text does not tell whose message it is.",
            "Whoever announces is nobody special: its fans can hear it as all others do, from pass_on(). Which line of "
            "announce() is one too many?",
        ),
        trial=try_scoreboard,
    ),
    Exercise(
        identifier="X7.4",
        answer="resume",
        statement="Make resume(): a fan who comes back with its position hears what it has missed, in order and once, "
        "then what comes; or `gap`, where something is missing that the history has not got any more.",
        hints=(
            "Every send may have to wait, and a goal may fall meanwhile. What does that do to a loop over `history`, "
            "and to what you knew of it before?",
            "Look, send, and look again, until nothing is left that is beyond the fan's position; only then into "
            "`fans`, and without any `await` in between. Positions compare as tuples.",
            "In a `while`: find the first message of the history that is beyond (epoch, seq). Is it not the one that "
            "follows directly, send gap first. Send it, let it be the new position. After the loop, add the fan.",
        ),
        trial=try_resume,
    ),
]
