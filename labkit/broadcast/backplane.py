"""What carries a message from the server on which it is published to all servers: two carriers, one interface.

    async with StreamBackplane(url) as backplane:
        receipt = backplane.publish("GOAL")              # never waits
        epoch, seq = await receipt                       # once Redis has it
        async for event in backplane.events():           # Message or Gap, in the one order of all servers
            ...

Redis Pub/Sub delivers at most once: what is published while a server is away is gone for it. A Redis Stream keeps the
newest messages, and a server that comes back reads on where it stopped. Both number every message, so that neither ever
loses one in silence.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import AsyncIterator

from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from labkit.broadcast.outbox import ANSWER_SECONDS, TROUBLE, BackplaneFull, NotPublished, Outbox, connect
from labkit.broadcast.parts.hub.events import Gap, Message, Position

__all__ = ["BackplaneFull", "Gap", "Message", "NotPublished", "Position", "PubSubBackplane", "StreamBackplane"]

log = logging.getLogger(__name__)

# After so much silence the carrier asks Redis whether there is really nothing new.
_IDLE_SECONDS = 0.5
# So many looks without an answer are a connection that is gone: longer than one silence and one question together.
_LOOK_SECONDS = 0.45
_MOST_LOOKS = 4
_FLUSH_SECONDS = 1.0
_READ_AT_ONCE = 500

_CUT = "the connection to Redis broke"
_BACK = "the connection to Redis is back"
_MISSED = "messages did not arrive"
_LOST = "Redis has lost what it had: a new epoch begins"
_BEHIND = "this server has fallen behind"


class _Patience:
    """Ends a timeout when it has looked several times in a row and nothing had happened in between.

    Unlike a deadline it does not take a process that was frozen for a silence: that one looks once, and goes on.
    """

    def __init__(self, limit: asyncio.Timeout) -> None:
        self._limit = limit
        self._looks = 0
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> "_Patience":
        self._timer = asyncio.get_running_loop().call_later(_LOOK_SECONDS, self._look)
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def renew(self) -> None:
        """Something has happened."""
        self._looks = 0

    def _look(self) -> None:
        self._looks += 1
        loop = asyncio.get_running_loop()
        if self._looks >= _MOST_LOOKS:
            self._limit.reschedule(loop.time())
        else:
            self._timer = loop.call_later(_LOOK_SECONDS, self._look)


class _Backplane(ABC):
    """What both carriers share: publishing, the supervised connection, and the account of what has arrived."""

    # What the carrier is called in the keys that it uses in Redis.
    carrier: str
    # Whether what is published while the connection is broken cannot be had afterwards.
    forgets: bool

    def __init__(
        self,
        url: str,
        channel: str = "broadcast",
        *,
        history: int = 1000,
        max_arrived: int = 10_000,
        max_waiting: int = 1_000,
        max_waiting_bytes: int = 16 * 2**20,
        timeout: float = 10.0,
    ) -> None:
        self.url = url
        self.channel = channel
        self.is_connected = False
        # The newest message that has arrived here, or where the count stood; None before it is entered.
        self.position: Position | None = None
        self._history = history
        self._max_arrived = max_arrived
        self._options = {"max_waiting": max_waiting, "max_waiting_bytes": max_waiting_bytes, "timeout": timeout}
        self._closed = True

    async def __aenter__(self) -> "_Backplane":
        self._events: deque[Message | Gap] = deque()
        self._grown, self._shrunk = asyncio.Event(), asyncio.Event()
        self._behind: Position | None = None
        self._outbox = Outbox(self.channel, self.carrier, keep=self._history, **self._options)
        try:
            self._client = await connect(self.url)
            try:
                await self._begin()
            except BaseException:
                await self._client.aclose()
                raise
        except TimeoutError:
            raise RedisConnectionError(f"Redis did not answer within {ANSWER_SECONDS:g} s. Is it frozen?") from None
        self._closed, self.is_connected = False, True
        self._tasks = [
            asyncio.create_task(self._outbox.run(self._client), name=f"publisher of {self.channel}"),
            asyncio.create_task(self._supervise(), name=f"listener of {self.channel}"),
        ]
        for task in self._tasks:
            # Whoever walks over events() comes to hear of the error of a task that has died.
            task.add_done_callback(lambda _: self._grown.set())
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            if self.is_connected:
                await self._outbox.until_empty(_FLUSH_SECONDS)
        finally:
            # Whoever is cancelled in here leaves nothing open all the same.
            self._closed, self.is_connected = True, False
            for task in self._tasks:
                task.cancel()
            self._outbox.close()
            self._grown.set()
            try:
                await asyncio.wait(self._tasks)
            finally:
                await self._end()
                await self._client.aclose()

    # ---- what a server calls

    def publish(self, text: str, publish_id: str | None = None) -> asyncio.Future[Position]:
        """Hand a text over and return its receipt, without waiting; awaited, it gives the Position once Redis has it.

        Publishing goes on in the background, in order, and is repeated when an answer was lost; what arrives twice is
        dropped by its publish id, for two minutes.
        publish_id: to be given by whoever may ask twice for the same message; by default a new one.
        Raises BackplaneFull when too much waits already, ValueError for a text that can never be sent. The receipt
        raises NotPublished when Redis does not confirm in time; the message may have got through even so.
        """
        if self._closed:
            raise RuntimeError("This backplane is closed. Is it used outside of its `async with`?")
        publisher, _ = self._tasks
        if publisher.done():
            publisher.result()
        return self._outbox.put(text, publish_id)

    async def events(self) -> AsyncIterator[Message | Gap]:
        """Yield each Message of all servers in their one order, and each Gap, until the backplane closes; for one loop.

        Every message that this server received before, and none twice; a Gap stands where something may be missing.
        """
        while True:
            while self._events:
                self._shrunk.set()
                yield self._events.popleft()
            if self._closed:
                return
            for task in self._tasks:
                if task.done():
                    task.result()
            self._grown.clear()
            await self._grown.wait()

    # ---- what a carrier does in its own way

    @abstractmethod
    async def _begin(self) -> None:
        """Begin to receive; nothing that is published afterwards is missed."""

    @abstractmethod
    async def _resume(self) -> None:
        """Begin to receive again after the connection broke, and raise a Gap event for what came meanwhile."""

    @abstractmethod
    async def _listen(self) -> None:
        """Take what arrives, for ever; raises when the connection breaks."""

    @abstractmethod
    async def _end(self) -> None:
        """Give back what only this carrier has open."""

    # ---- the connection

    async def _supervise(self) -> None:
        """Listen, and connect again for ever, after a wait that grows and that chance spreads over the servers."""
        backoff = ExponentialWithJitterBackoff(base=0.02, cap=1.0)
        failures = 0
        while True:
            try:
                if not self.is_connected:
                    await self._resume()
                    self.is_connected, failures = True, 0
                    log.info("backplane %s: %s", self.channel, _BACK)
                await self._listen()
            except TROUBLE as error:
                if self.is_connected:
                    log.warning("backplane %s: %s: %s", self.channel, _CUT, type(error).__name__)
                    self.is_connected = False
                    if self.forgets:
                        self._tell(_CUT, until=None)
                await self._end()
                failures += 1
                await asyncio.sleep(backoff.compute(failures))

    async def _newest(self) -> Position:
        """Ask Redis for its newest position; where it knows less than we do, tell of that and begin a new epoch."""
        known = self._outbox.known
        newest = await self._outbox.newest(self._client)
        if newest is not None and newest >= known:
            return newest
        begun = await self._outbox.settle(self._client)
        self._tell(_LOST, until=begun)
        self.position = begun
        return begun

    async def _on_silence(self) -> None:
        """See whether the silence is real: what Redis had at the last look and has not sent since, it will not send."""
        newest = await self._newest()
        behind, self._behind = self._behind, None
        if newest <= self.position:
            return
        if behind is None or behind <= self.position:
            self._behind = newest
            return
        self._tell(_LOST if behind.epoch != self.position.epoch else _MISSED, until=behind)
        self.position = behind
        self._outbox.know(behind)
        if self.forgets:
            # It was published, and this connection has not brought it: one that is half dead does not say so.
            raise RedisConnectionError("the subscription is silent, and Redis has news")

    # ---- the account

    def _take(self, position: Position, text: str) -> None:
        """Pass a message on, once; tell of what should have come before it."""
        last = self.position
        if position <= last:
            return
        self._make_room()
        if position.epoch != last.epoch:
            self._tell(_LOST, until=position.before())
        elif position.seq != last.seq + 1:
            self._tell(_MISSED, until=position.before())
        self.position = position
        self._outbox.know(position)
        self._add(Message(position, text))

    def _tell(self, reason: str, *, until: Position | None, settled: bool = False) -> None:
        self._make_room()
        self._add(Gap(reason, self.position, until, settled))

    def _make_room(self) -> None:
        """Where nobody walks, and Redis keeps nothing either: drop all that waits here, and tell of it."""
        if not self.forgets or len(self._events) < self._max_arrived:
            return
        first = self._events[0]
        after = first.after if isinstance(first, Gap) else first.position.before()
        self._events.clear()
        self._add(Gap(_BEHIND, after, self.position, settled=False))

    def _add(self, event: Message | Gap) -> None:
        self._events.append(event)
        self._grown.set()


class PubSubBackplane(_Backplane):
    """A Redis channel: every server hears what any server publishes while it is subscribed, and nothing of before.

    The trap: at most once. What is published while the connection of a server is broken is gone for that server, and so
    is what it does not read in time. It is told: a Gap with settled=False comes within two seconds of the loss.
    This end always reads from Redis, however slow whoever walks over events() is: what piles up beyond `max_arrived` is
    given up, and told. Otherwise Redis would cut the connection at its output buffer limit.

    url: as redis-py takes it, of one Redis or of any node of a cluster. channel: servers with the same one hear each
    other. max_waiting, max_waiting_bytes: what may wait to be published. timeout: seconds in which it must be.
    Entering it raises redis.exceptions.ConnectionError when Redis does not answer.
    source: notebook 07, "With Redis Pub/Sub all hear"
    """

    carrier = "pubsub"
    forgets = True
    _subscription = None

    async def _begin(self) -> None:
        await self._subscribe()
        # Later than the subscription: what is published from here on has a higher number.
        self.position = await self._outbox.settle(self._client)

    async def _resume(self) -> None:
        # Earlier than the subscription: what has a number by now was published while nobody listened here.
        newest = await self._newest()
        await self._subscribe()
        settled = newest == self.position
        self._tell(_BACK, until=newest, settled=settled)
        if not settled:
            self.position = newest

    async def _subscribe(self) -> None:
        self._subscription = self._client.pubsub()
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._subscription.subscribe(self._outbox.target)
        # The command is on its way; only its confirmation says that Redis counts us in.
        if await self._subscription.get_message(timeout=ANSWER_SECONDS) is None:
            raise RedisConnectionError(f"Redis did not confirm the subscription within {ANSWER_SECONDS:g} s")

    async def _listen(self) -> None:
        # The client library may connect again in here by itself, and would wait for an answer for ever.
        async with asyncio.timeout(None) as limit:
            with _Patience(limit) as patience:
                while True:
                    message = await self._subscription.get_message(timeout=_IDLE_SECONDS)
                    patience.renew()
                    if message is None:
                        await self._on_silence()
                        patience.renew()
                    elif message["type"] == "subscribe":
                        # The client library has connected again by itself, and subscribed again without a word.
                        raise RedisConnectionError("the subscription began anew")
                    else:
                        self._take_published(message["data"])

    def _take_published(self, data: str) -> None:
        position, _, text = data.partition(" ")
        try:
            position = Position.read(position)
        except ValueError:
            log.warning("backplane %s: left out what a stranger has published: %.40r", self.channel, data)
            return
        self._take(position, text)

    async def _end(self) -> None:
        if self._subscription is not None:
            await self._subscription.aclose()


class StreamBackplane(_Backplane):
    """A Redis Stream: every server reads all messages, at its own pace, and reads on where it stopped.

    A stream keeps the newest `history` messages at least. Whoever enters gets up to that many older ones first. After a
    broken connection a Gap with settled=True comes, and behind it what was published meanwhile. It comes with
    settled=False when that is more than the stream keeps, and when Redis has lost its data: then a new epoch begins.
    The trap: kept means as safe as this Redis keeps it. In memory only, a restart forgets everything; an append-only
    file survives it. A replica that takes over may lack the last messages; that is a lost tail, and is told.
    Reading waits while more than `max_arrived` events have not been walked over: Redis keeps the rest.

    url: as redis-py takes it, of one Redis or of any node of a cluster. channel: servers with the same one hear each
    other. max_waiting, max_waiting_bytes: what may wait to be published. timeout: seconds in which it must be.
    Entering it raises redis.exceptions.ConnectionError when Redis does not answer.
    source: notebook 07, "A stream remembers"
    """

    carrier = "stream"
    forgets = False
    # Behind the last entry that a stranger has put into the stream.
    _passed_over = Position(0, 0)

    async def _begin(self) -> None:
        newest = await self._outbox.settle(self._client)
        async with asyncio.timeout(ANSWER_SECONDS):
            kept = await self._client.xrevrange(self._outbox.target, count=self._history)
        entries = [entry for entry in kept if "text" in entry[1]]
        self.position = Position.read(entries[-1][0]).before() if entries else newest
        self._take_all(reversed(entries))

    async def _resume(self) -> None:
        newest = await self._newest()
        async with asyncio.timeout(ANSWER_SECONDS):
            oldest = await self._client.xrange(self._outbox.target, count=1)
        if newest.epoch != self.position.epoch:
            # What is left of the old epoch comes first; the first message of the new one, or silence, will tell.
            return
        begins_after = Position.read(oldest[0][0]).before() if oldest else newest
        settled = begins_after <= self.position
        # Between the two questions it may have been trimmed further than the first answer says.
        self._tell(_BACK, until=max(newest, begins_after), settled=settled)
        if not settled:
            self.position = begins_after

    async def _listen(self) -> None:
        while True:
            while len(self._events) >= self._max_arrived:
                self._shrunk.clear()
                await self._shrunk.wait()
            after = str(max(self.position, self._passed_over))
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._client.xread(
                    {self._outbox.target: after}, count=_READ_AT_ONCE, block=int(_IDLE_SECONDS * 1000)
                )
            if not answer:
                await self._on_silence()
            # Of one stream; the older protocol of Redis answers in pairs, the newer with a mapping.
            for entries in answer.values() if isinstance(answer, dict) else (pair[1] for pair in answer):
                self._take_all(entries)

    def _take_all(self, entries) -> None:
        for identifier, fields in entries:
            if "text" in fields:
                self._take(Position.read(identifier), fields["text"])
            else:
                log.warning("backplane %s: left out what a stranger has added: %s", self.channel, identifier)
                self._passed_over = Position.read(identifier)

    async def _end(self) -> None:
        """The stream has nothing open but the client."""
