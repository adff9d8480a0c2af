"""Known answers to the exercises of notebook 07, "How does a message reach fans on another server?"."""

import asyncio
import json
import uuid
from collections import Counter, deque
from typing import ClassVar

from bank import right, wrong
from fastapi import WebSocket
from redis.exceptions import ConnectionError as RedisConnectionError

# ---- X7.1, relay through Redis


@right("X7.1")
async def asks_for_what_is_text(subscription, manager):
    """A confirmation carries a count, and no text."""
    async for message in subscription.listen():
        if isinstance(message["data"], str):
            await manager.broadcast(message["data"])


@right("X7.1")
async def lets_redis_py_leave_them_out(subscription, manager):
    """Its own option; without a limit it waits for ever, and a confirmation comes out as None."""
    while True:
        message = await subscription.get_message(ignore_subscribe_messages=True, timeout=None)
        if message is not None:
            await manager.broadcast(message["data"])


@right("X7.1")
async def looks_every_second(subscription, manager):
    """With a limit, and silence is no end."""
    while True:
        match await subscription.get_message(timeout=1):
            case {"type": "message", "data": text}:
                await manager.broadcast(text)


@right("X7.1")
async def has_a_task_for_the_fans(subscription, manager):
    """A queue between the two, and one group that ends with an error of either."""
    texts = asyncio.Queue()

    async def take():
        async for message in subscription.listen():
            if message["type"] == "message":
                texts.put_nowait(message["data"])

    async def give():
        while True:
            await manager.broadcast(await texts.get())

    async with asyncio.TaskGroup() as group:
        group.create_task(take())
        group.create_task(give())


@wrong("X7.1", says="then “kick-off” is published. Your relay has handed 1 to the manager of server 1")
async def passes_on_whatever_comes(subscription, manager):
    """The relay of the notebook, whose lifespan had read the confirmation."""
    async for message in subscription.listen():
        await manager.broadcast(message["data"])


@wrong("X7.1", says="redis-py has connected and subscribed again; then “4:0” is published. Your relay has handed 1")
async def skips_the_first_only(subscription, manager):
    """Right until the first reconnect."""
    await subscription.get_message(timeout=5)
    async for message in subscription.listen():
        await manager.broadcast(message["data"])


@wrong("X7.1", says="“kick-off” is what was published; the rest is what Redis wraps around it")
async def hands_over_the_whole_message(subscription, manager):
    """The text is in it, somewhere."""
    async for message in subscription.listen():
        if message["type"] == "message":
            await manager.broadcast(message)


@wrong("X7.1", says="Your relay has come to its end, without an error, and had handed over 0 messages")
async def returns_at_the_confirmation(subscription, manager):
    """`return` where `continue` was meant."""
    async for message in subscription.listen():
        if message["type"] != "message":
            return
        await manager.broadcast(message["data"])


@wrong("X7.1", says="Your relay has come to its end, without an error, and had handed over one message")
async def passes_on_one_message(subscription, manager):
    """Waits for a goal, and goes home."""
    async for message in subscription.listen():
        if message["type"] == "message":
            await manager.broadcast(message["data"])
            break


@wrong("X7.1", says="Nothing was published for half a minute, by the hurried clock. Your relay has come to its end")
async def takes_silence_for_the_end(subscription, manager):
    """Nobody scores for a while."""
    while (message := await subscription.get_message(timeout=10)) is not None:
        if message["type"] == "message":
            await manager.broadcast(message["data"])


@wrong("X7.1", says="never hears “1:0”; the manager was not handed it. Your relay: it waits in line")
async def sends_to_each_fan_itself(subscription, manager):
    """Past the queues: whoever reads from Redis for all waits for one phone that sleeps."""
    async for message in subscription.listen():
        if message["type"] == "message":
            for websocket in list(manager.clients):
                await websocket.send_text(message["data"])


@wrong("X7.1", says="hears “GOAL” once, and it was published 2 times; the manager was not handed it")
async def leaves_out_what_it_knows(subscription, manager):
    """Two goals may have one text."""
    newest = None
    async for message in subscription.listen():
        if message["type"] == "message" and message["data"] != newest:
            newest = message["data"]
            await manager.broadcast(newest)


@wrong("X7.1", says="redis-py has raised a ConnectionError. Your relay ended all the same as if its work were")
async def swallows_the_end(subscription, manager):
    """A server that looks well, and is deaf."""
    try:
        async for message in subscription.listen():
            if message["type"] == "message":
                await manager.broadcast(message["data"])
    except Exception as error:
        print(error)


@wrong("X7.1", says="Nothing of it came out of your relay, it waits in line")
async def tries_for_ever_in_silence(subscription, manager):
    """It may come back; nobody is told that it has gone."""
    while True:
        try:
            async for message in subscription.listen():
                if message["type"] == "message":
                    await manager.broadcast(message["data"])
        except RedisConnectionError:
            await asyncio.sleep(1)


@wrong("X7.1", says="coroutine 'QueueManager.broadcast' was never awaited")
async def forgets_the_await(subscription, manager):
    """A coroutine that nobody runs."""
    async for message in subscription.listen():
        if message["type"] == "message":
            manager.broadcast(message["data"])


# ---- X7.2, what is missing?


@right("X7.2")
class with_the_position_that_is_due:
    """Remembers what should come next."""

    def __init__(self):
        self.due = None

    def take(self, message: dict):
        epoch, seq = message["epoch"], message["seq"]
        if self.due is None:
            self.due = (epoch, seq + 1)
            return "first", []
        known, due = self.due
        if epoch == known and seq < due:
            return "repeat", []
        self.due = (epoch, seq + 1)
        if epoch != known:
            return "new epoch", [*range(1, seq)]
        return ("next", []) if seq == due else ("gap", [*range(due, seq)])


@right("X7.2")
class with_a_number_for_each_numbering:
    """A Counter: of a numbering that is new, nothing has been heard."""

    def __init__(self):
        self.newest = Counter()

    def take(self, message: dict):
        epoch, seq = message["epoch"], message["seq"]
        is_first, is_new, before = not self.newest, epoch not in self.newest, self.newest[epoch]
        if seq <= before:
            return ["repeat", ()]
        self.newest[epoch] = seq
        if is_first:
            return ["first", ()]
        missing = tuple(range(before + 1, seq))
        return ["new epoch" if is_new else "gap" if missing else "next", missing]


class Detector:
    """One way to do it, in steps that the answers below change."""

    def __init__(self):
        self.epoch, self.seq = None, 0

    def take(self, message: dict):
        epoch, seq = message["epoch"], message["seq"]
        if self.epoch is None:
            word, missing = "first", []
        elif epoch != self.epoch:
            word, missing = "new epoch", self.between(0, seq)
        elif seq <= self.seq:
            return self.again(epoch, seq)
        else:
            missing = self.between(self.seq, seq)
            word = self.word_for(missing)
        self.epoch, self.seq = epoch, seq
        return word, missing

    def between(self, before: int, seq: int):
        return list(range(before + 1, seq))

    def word_for(self, missing: list):
        return "gap" if missing else "next"

    def again(self, epoch: int, seq: int):
        return "repeat", []


@wrong("X7.2", says="Your take() says 'next', missing []")
class SwallowsTheGap(Detector):
    """What is later is the next one."""

    def take(self, message: dict):
        word, missing = super().take(message)
        return ("next", []) if word == "gap" else (word, missing)


@wrong("X7.2", says="whose clock is three seconds behind: number 5, after number 4. Your take() says 'repeat'")
class TrustsTheClocks(Detector):
    """Repeats by the time at which they were sent."""

    sent_at = 0.0

    def take(self, message: dict):
        if message["sent_at"] <= self.sent_at:
            return "repeat", []
        self.sent_at = message["sent_at"]
        return super().take(message)


@wrong("X7.2", says="Your take() says 'next', missing []")
class TakesALateClockForNew(Detector):
    """Whatever was sent later is no repeat."""

    sent_at = 0.0

    def take(self, message: dict):
        is_later, self.sent_at = message["sent_at"] > self.sent_at, max(self.sent_at, message["sent_at"])
        word, missing = super().take(message)
        return ("next", []) if word == "repeat" and is_later else (word, missing)


@wrong("X7.2", says="numbers from 1 again: number 1 of another numbering. Your take() says 'repeat'")
class ComparesAcrossNumberings(Detector):
    """`seq` alone."""

    def take(self, message: dict):
        return super().take(message | {"epoch": 1})


@wrong("X7.2", says="says it once more: number 8, after number 8. Your take() says 'gap', missing []")
class TakesARepeatForAGap(Detector):
    """Anything but the next one is a gap."""

    def again(self, epoch: int, seq: int):
        return "gap", []


@wrong("X7.2", says="says it once more: number 8, after number 8. Your take() says 'gap', missing [6, 7]")
class StandsStillAtAGap(Detector):
    """Waits for what will never come."""

    def take(self, message: dict):
        before = self.epoch, self.seq
        word, missing = super().take(message)
        if word == "gap":
            self.epoch, self.seq = before
        return word, missing


@wrong("X7.2", says="when two messages have gone by: number 3. Your take() says 'gap', missing [1, 2]")
class ForgetsThatThereIsAFirst(Detector):
    """Nobody has missed what went by before they came."""

    def take(self, message: dict):
        self.epoch = self.epoch or message["epoch"]
        return super().take(message)


@wrong("X7.2", says="After two repeats it goes on: number 9, after number 8. Your take() says 'gap'")
class GoesBackWithARepeat(Detector):
    """The position follows whatever comes."""

    def again(self, epoch: int, seq: int):
        self.seq = seq
        return "repeat", []


@wrong("X7.2", says="Your take() says 'gap', and that [6, 7, 8] are missing: count again")
class CountsTheArrivedAsMissing(Detector):
    """One too many at the end."""

    def between(self, before: int, seq: int):
        missing = super().between(before, seq)
        return [*missing, seq] if missing else []


@wrong("X7.2", says="Your take() says 'gap', and that [5, 6, 7] are missing: count again")
class CountsTheLastAsMissing(Detector):
    """One too many at the beginning."""

    def between(self, before: int, seq: int):
        missing = super().between(before, seq)
        return [before, *missing] if missing else []


@wrong("X7.2", says="Your take() says 'new epoch', and that [] are missing: count again")
class ForgetsTheBeginningOfANumbering(Detector):
    """A new numbering begins where we hear of it."""

    def between(self, before: int, seq: int):
        return super().between(before, seq) if before else []


@wrong("X7.2", says="numbers from 1 again: number 1 of another numbering. Your take() says 'first'")
class BeginsAnewWithEachNumbering(Detector):
    """As if nothing had been heard before: then nobody learns that something is lost."""

    def take(self, message: dict):
        word, missing = super().take(message)
        return ("first", []) if word == "new epoch" else (word, missing)


@wrong("X7.2", says="A second server, with a GapDetector of its own, hears its first message. Your take() says")
class SharesOnePosition:
    """At the class, so for all of them."""

    known: ClassVar = {}

    def take(self, message: dict):
        known, epoch, seq = self.known, message["epoch"], message["seq"]
        word = "first" if not known else "new epoch" if epoch not in known else "next"
        if seq <= known.get(epoch, 0):
            return "repeat", []
        missing = [] if word == "first" else list(range(known.get(epoch, 0) + 1, seq))
        known[epoch] = seq
        return "gap" if word == "next" and missing else word, missing


@wrong("X7.2", says="Your take() returns 'first'; a word and a list are asked for")
class ReturnsTheWordAlone(Detector):
    """And what is missing?"""

    def take(self, message: dict):
        return super().take(message)[0]


@wrong("X7.2", says="the second part should be a list of numbers")
class CountsHowManyAreMissing(Detector):
    """How many, and not which."""

    def take(self, message: dict):
        word, missing = super().take(message)
        return word, len(missing)


# ---- X7.3, the goal that counts twice


class Told:
    """The constructor, and the half of the starter that is right."""

    def __init__(self, name: str, manager, redis):
        self.name = name
        self.manager = manager
        self.redis = redis
        self.key = uuid.uuid4().hex

    async def announce(self, text: str):
        await self.redis.publish("scores", text)

    async def pass_on(self, subscription):
        async for message in subscription.listen():
            if message["type"] == "message":
                await self.manager.broadcast(message["data"])


class LocalFirst(Told):
    """Tells its own fans itself, and leaves out what its own key has published."""

    async def announce(self, text: str):
        await self.manager.broadcast(text)
        await self.publish(text)

    async def publish(self, text: str):
        await self.redis.publish("scores", json.dumps({"from": self.sender(), "text": text}))

    def sender(self):
        return self.key

    async def pass_on(self, subscription):
        async for message in subscription.listen():
            if message["type"] == "message":
                goal = json.loads(message["data"])
                if goal["from"] != self.sender():
                    await self.manager.broadcast(goal["text"])


@right("X7.3")
class WithAnEnvelope(Told):
    """Everything through Redis, with a number that a repeat would have too."""

    async def announce(self, text: str):
        await self.redis.publish("scores", json.dumps({"id": uuid.uuid4().hex, "text": text}))

    async def pass_on(self, subscription):
        seen = deque(maxlen=100)
        async for message in subscription.listen():
            if message["type"] == "message":
                goal = json.loads(message["data"])
                if goal["id"] not in seen:
                    seen.append(goal["id"])
                    await self.manager.broadcast(goal["text"])


@right("X7.3")
class WaitsToHearItself(Told):
    """announce() comes back when the own fans have been told, by the relay as all others."""

    def __init__(self, name: str, manager, redis):
        super().__init__(name, manager, redis)
        self.told = asyncio.Condition()
        self.ours = deque()

    async def announce(self, text: str):
        self.ours.append(text)
        await super().announce(text)
        async with self.told:
            await self.told.wait_for(lambda: text not in self.ours)

    async def pass_on(self, subscription):
        async for message in subscription.listen():
            if message["type"] == "message":
                await self.manager.broadcast(message["data"])
                async with self.told:
                    if message["data"] in self.ours:
                        self.ours.remove(message["data"])
                    self.told.notify_all()


@wrong("X7.3", says="“kick-off” comes twice to the fan of server 1; once is due")
class ChangesTheTwoLines(Told):
    """The other way round it is twice as well."""

    async def announce(self, text: str):
        await self.redis.publish("scores", text)
        await self.manager.broadcast(text)


@wrong("X7.3", says="“kick-off” comes never to the fan of server 2, never to the fan of server 3; once is due")
class KnowsItselfByName(LocalFirst):
    """Three copies of one program have one name."""

    def sender(self):
        return self.name


@wrong("X7.3", says="its line to Redis was slow; server 3 announced “1:1” meanwhile. Fans of one match hear two orders")
class TellsItsOwnFirst(LocalFirst):
    """Known by a key of its own: once for each fan, and two orders."""


@wrong(
    "X7.3", says="the answer of Redis was slow; server 2 announced “2:2” meanwhile. Fans of one match hear two orders"
)
class TellsItsOwnAfterwards(LocalFirst):
    """What others announce while the answer is on its way comes before it, here only."""

    async def announce(self, text: str):
        await self.publish(text)
        await self.manager.broadcast(text)


@wrong("X7.3", says="another “GOAL”. “GOAL” comes once to the fan of server 1; twice is due")
class FiltersItsOwnByText(Told):
    """Another server's goal has the same text."""

    def __init__(self, name: str, manager, redis):
        super().__init__(name, manager, redis)
        self.mine = set()

    async def announce(self, text: str):
        self.mine.add(text)
        await self.manager.broadcast(text)
        await self.redis.publish("scores", text)

    async def pass_on(self, subscription):
        async for message in subscription.listen():
            if message["type"] == "message" and message["data"] not in self.mine:
                await self.manager.broadcast(message["data"])


@wrong("X7.3", says="“GOAL” comes once to the fan of server 1, once to the fan of server 3; twice is due")
class DropsWhatItHasHeard(Told):
    """Two equal goals are one goal then, but for the server that announces."""

    def __init__(self, name: str, manager, redis):
        super().__init__(name, manager, redis)
        self.newest = None

    async def announce(self, text: str):
        self.newest = None
        await super().announce(text)

    async def pass_on(self, subscription):
        async for message in subscription.listen():
            if message["type"] == "message" and message["data"] != self.newest:
                self.newest = message["data"]
                await self.manager.broadcast(message["data"])


@wrong("X7.3", says="server 3 announced “1:1” meanwhile. “1:0” comes twice to the fan of server 1")
class SkipsTheNextOne(Told):
    """So many of mine are to come; whose the next one is, it does not ask."""

    def __init__(self, name: str, manager, redis):
        super().__init__(name, manager, redis)
        self.to_skip = 0

    async def announce(self, text: str):
        self.to_skip += 1
        await self.manager.broadcast(text)
        await self.redis.publish("scores", text)

    async def pass_on(self, subscription):
        async for message in subscription.listen():
            if message["type"] == "message" and self.to_skip:
                self.to_skip -= 1
            elif message["type"] == "message":
                await self.manager.broadcast(message["data"])


@wrong("X7.3", says="“kick-off” comes never to the fan of server 1; once is due")
class LeavesOutItsOwnFans(LocalFirst):
    """The filter is there, and the first line is gone too."""

    async def announce(self, text: str):
        await self.publish(text)


@wrong("X7.3", says="announced “1:1” meanwhile. “1:1” comes never to the fan of server 1; once is due")
class DoesNotListenMeanwhile(Told):
    """Until its own has come back it passes nothing on."""

    mine = None

    async def announce(self, text: str):
        self.mine = text
        await self.manager.broadcast(text)
        await self.redis.publish("scores", text)

    async def pass_on(self, subscription):
        async for message in subscription.listen():
            if message["type"] != "message":
                continue
            if self.mine is None:
                await self.manager.broadcast(message["data"])
            elif message["data"] == self.mine:
                self.mine = None


@wrong("X7.3", says="has no method `pass_on`")
class HasNoRelay:
    """One of two."""

    def __init__(self, name: str, manager, redis):
        self.redis = redis

    async def announce(self, text: str):
        await self.redis.publish("scores", text)


# ---- X7.4, back again


@right("X7.4")
async def looks_at_the_whole_rest(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set):
    """In rounds: all that is missed now, and again, until a round is empty."""
    await websocket.accept()
    if history and history[0][0] != epoch:
        epoch, seq = history[0][0], -1
    while missed := [each for each in history if each[1] > seq]:
        if missed[0][1] > seq + 1:
            await websocket.send_text("gap")
        for message in missed:
            await websocket.send_text(message[2])
        seq = missed[-1][1]
    fans.add(websocket)


@right("X7.4")
async def with_a_stand_in(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set):
    """Among the fans at once, but with a queue; a writer of its own keeps the order."""
    await websocket.accept()
    missed = [each for each in history if each[:2] > (epoch, seq)]
    queue = asyncio.Queue()
    if missed and missed[0][:2] != (epoch, seq + 1):
        queue.put_nowait("gap")
    for _, _, text in missed:
        queue.put_nowait(text)

    class StandIn:
        async def send_text(self, text):
            queue.put_nowait(text)

    stand_in = StandIn()
    fans.add(stand_in)

    async def write():
        try:
            while True:
                await websocket.send_text(await queue.get())
        finally:
            fans.discard(stand_in)

    async def listen():
        async for _ in websocket.iter_text():
            pass
        writer.cancel()

    writer = asyncio.create_task(write())
    await listen()


async def catch_up(websocket: WebSocket, epoch: int, seq: int, history: deque):
    """Do it right up to the last line, for the answers that change the rest."""
    while message := next((each for each in history if each[:2] > (epoch, seq)), None):
        if message[:2] != (epoch, seq + 1):
            await websocket.send_text("gap")
        epoch, seq, text = message
        await websocket.send_text(text)


@wrong("X7.4", says="It hears 3 · 4: “3” is not for this fan")
async def repeats_the_last(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set):
    """One too early: the fan has that one."""
    await websocket.accept()
    await catch_up(websocket, epoch, seq - 1, history)
    fans.add(websocket)


@wrong("X7.4", says="It hears 6 · 7")
async def leaves_out_the_first(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set):
    """One too late."""
    await websocket.accept()
    await catch_up(websocket, epoch, seq + 1, history)
    fans.add(websocket)


@wrong("X7.4", says="It hears 1 · 2 · 3 · 4: “1” is not for this fan")
async def sends_the_whole_history(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set):
    """Everybody is told everything."""
    await websocket.accept()
    for _, _, text in list(history):
        await websocket.send_text(text)
    fans.add(websocket)


@wrong("X7.4", says="It hears 5 · 6 · 8 · 7")
async def registers_first(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set):
    """Then two send to one fan, and the new overtakes the old."""
    await websocket.accept()
    fans.add(websocket)
    for each in list(history):
        if each[:2] > (epoch, seq):
            await websocket.send_text(each[2])


@wrong("X7.4", says="It hears 5 · 6 · 8 · 7 · 8: “8” came 2 times")
async def registers_first_and_looks_again(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set):
    """Two ways to the same fan."""
    await websocket.accept()
    fans.add(websocket)
    await catch_up(websocket, epoch, seq, history)


@wrong("X7.4", says="“8” was published, and then it read. It hears 5 · 6 · 7: “8” never came")
async def takes_one_picture(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set):
    """The newcomer's race: what falls while the picture is sent is in nobody's hands."""
    await websocket.accept()
    await catch_up(websocket, epoch, seq, history.copy())
    fans.add(websocket)


@wrong("X7.4", says="at every turn of the loop a goal fell, up to 31. It hears")
async def takes_a_breath(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set):
    """One turn between the last look and the register."""
    await websocket.accept()
    await catch_up(websocket, epoch, seq, history)
    await asyncio.sleep(0)
    fans.add(websocket)


@wrong("X7.4", says="Your code raised RuntimeError: deque mutated during iteration, in line")
async def walks_the_living_history(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set):
    """Goals fall while it walks."""
    await websocket.accept()
    for each in history:
        if each[:2] > (epoch, seq):
            await websocket.send_text(each[2])
    fans.add(websocket)


@wrong("X7.4", says="the history holds 30, 31 and 32. It hears 30 · 31 · 32: something is missing there, and nobody")
async def says_nothing_of_a_gap(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set):
    """As much as there is, as if it were all."""
    await websocket.accept()
    while message := next((each for each in history if each[:2] > (epoch, seq)), None):
        epoch, seq, text = message
        await websocket.send_text(text)
    fans.add(websocket)


@wrong("X7.4", says="the history lost 7 and 8, and then it read. It hears 4 · 5 · 6 · 9 · 10 · 11 · 12 · 13, and no")
async def asks_for_a_gap_once(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set):
    """At the door nothing is missing; what the history loses while a send waits, nobody is told."""
    await websocket.accept()
    if history and (history[0][0] != epoch or history[0][1] > seq + 1):
        await websocket.send_text("gap")
        epoch, seq = history[0][0], history[0][1] - 1
    while history and history[-1][1] > seq:
        for _, number, text in list(history):
            if number > seq:
                await websocket.send_text(text)
                seq = number
    fans.add(websocket)


@wrong(
    "X7.4",
    says="whenever your send to it waited, a goal fell, up to 17; and then “18” was published. It hears 14 · 15 · 16",
)
async def looks_twice(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set):
    """What falls in the first look is seen in the second; and what falls in that?"""
    await websocket.accept()
    for _ in range(2):
        missed = [each for each in history if each[:2] > (epoch, seq)]
        if missed and missed[0][:2] != (epoch, seq + 1):
            await websocket.send_text("gap")
        for message in missed:
            epoch, seq, text = message
            await websocket.send_text(text)
    fans.add(websocket)


@wrong("X7.4", says="with number 32 of the numbering before: Redis has lost its data")
async def forgets_the_epoch(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set):
    """32 is beyond 3, so nothing can be missing."""
    await websocket.accept()
    while message := next((each for each in history if each[1] > seq), None):
        if message[1] != seq + 1:
            await websocket.send_text("gap")
        _, seq, text = message
        await websocket.send_text(text)
    fans.add(websocket)


@wrong("X7.4", says="and it was told of a gap")
async def wants_the_fans_own_message(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set):
    """The one it has is gone from the history; all that it needs is there."""
    await websocket.accept()
    if (epoch, seq) not in [each[:2] for each in history]:
        await websocket.send_text("gap")
    while message := next((each for each in history if each[:2] > (epoch, seq)), None):
        epoch, seq, text = message
        await websocket.send_text(text)
    fans.add(websocket)


@wrong("X7.4", says="It hears gap: “30” never came")
async def tells_of_the_gap_and_stops(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set):
    """What is still there would have helped."""
    await websocket.accept()
    if history[0][:2] > (epoch, seq + 1):
        await websocket.send_text("gap")
    else:
        await catch_up(websocket, epoch, seq, history)
    fans.add(websocket)


@wrong("X7.4", says="then number 4 came. It hears nothing: “4” never came")
async def forgets_the_register(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set):
    """Up to date, and never told again."""
    await websocket.accept()
    await catch_up(websocket, epoch, seq, history)


@wrong("X7.4", says="It hears 7 · 6 · 5")
async def sends_the_newest_first(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set):
    """The most important one, and then the rest."""
    await websocket.accept()
    for each in reversed(history.copy()):
        if each[:2] > (epoch, seq):
            await websocket.send_text(each[2])
    fans.add(websocket)


@wrong("X7.4", says="your resume() has come back, and has not accepted it")
async def forgets_to_accept(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set):
    """Nobody opens the door."""
    await catch_up(websocket, epoch, seq, history)
    fans.add(websocket)


@wrong("X7.4", says="with number 29, while the history holds 30, 31 and 32. It hears")
async def counts_places(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set):
    """A number is a place only as long as nothing has gone from the front."""
    await websocket.accept()
    place = seq
    while place < len(history):
        await websocket.send_text(history[place][2])
        place += 1
    fans.add(websocket)
