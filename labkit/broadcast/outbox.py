"""What waits to be published, and the place where it gets its number: Redis, one script for both carriers.

All servers number their messages in one place, so there is one order. A position is an epoch and a seq: the seq counts
from 1, and a new epoch begins whenever Redis has lost the count, so no two messages ever have the same position.
"""

import asyncio
import itertools
import math
import uuid
from collections import deque
from dataclasses import dataclass, field

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.exceptions import RedisError, ResponseError

from labkit.broadcast.parts.hub.events import Position

# Seconds for one answer. Together with the half second between two looks it keeps a silent Redis from staying unnoticed
# for two seconds.
ANSWER_SECONDS = 1.0
# What a connection to Redis may fail with; redis-py's own TimeoutError and ConnectionError are RedisErrors.
TROUBLE = (RedisError, OSError, TimeoutError)
# What one script call publishes at most. Redis sends nothing while a script runs, and a subscriber for whom too much
# piles up is cut off, so a call must be small in bytes too.
_BATCH = 64
_BATCH_BYTES = 256 * 1024
_REMEMBER_SECONDS = 120

# KEYS: the position; the stream, or the channel; then one key for each publish id.
# ARGV: "stream" or "pubsub"; epoch and seq of the newest message that the asker knows of; how many entries the stream
# keeps; for how many seconds a publish id is remembered; then the texts. Returns a position for each text, "epoch-seq".
# Without a text it only sees to it that the count goes on, and returns where it stands.
_SCRIPT = """
local carrier, keep, remember = ARGV[1], ARGV[4], ARGV[5]
local known_epoch, known_seq = tonumber(ARGV[2]), tonumber(ARGV[3])
local epoch, seq = string.match(redis.call('GET', KEYS[1]) or '0-0', '(%d+)-(%d+)')
epoch, seq = tonumber(epoch), tonumber(seq)

local function begin_epoch()
  local now = redis.call('TIME')
  epoch = math.max(now[1] * 1000 + math.floor(now[2] / 1000), known_epoch + 1, epoch + 1)
  seq = 0
end
if epoch == 0 or epoch < known_epoch or (epoch == known_epoch and seq < known_seq) then
  -- Somebody has seen more than this Redis knows of: it has lost data, and its numbers must not be given twice.
  begin_epoch()
end

local function position() return string.format('%.0f-%.0f', epoch, seq) end
local given = {}
for number = 3, #KEYS do
  local before = redis.call('GET', KEYS[number])
  if before then
    given[#given + 1] = before
  else
    seq = seq + 1
    local text = ARGV[number + 3]
    if carrier == 'stream' then
      local added = redis.pcall('XADD', KEYS[2], 'MAXLEN', '~', keep, position(), 'text', text)
      if type(added) == 'table' and added.err then
        -- A stranger has put something into the stream, under a higher number: ours go on above it.
        begin_epoch()
        seq = 1
        redis.call('XADD', KEYS[2], 'MAXLEN', '~', keep, position(), 'text', text)
      end
    else
      redis.call('PUBLISH', KEYS[2], position() .. ' ' .. text)
    end
    redis.call('SET', KEYS[number], position(), 'EX', remember)
    given[#given + 1] = position()
  end
end
redis.call('SET', KEYS[1], position())
if #KEYS == 2 then given[1] = position() end
return given
"""


class BackplaneFull(RuntimeError):
    """Too much waits to be published; the message was not taken. Redis is away, or slower than those who publish."""


class NotPublished(RuntimeError):
    """Redis did not confirm a message in time. It may have got through: repeat it under the same publish id."""


async def connect(url: str) -> Redis | RedisCluster:
    """Return a client for the Redis at this address, or the library's client for a cluster when it is one.

    Neither client repeats a command by itself: whoever repeats must know whether something was lost in between. Neither
    limits the time of an answer: wrap calls in `asyncio.timeout(ANSWER_SECONDS)`. The library's own limit on sending is
    asyncio.wait_for(), which on Python 3.11 may swallow a cancellation, and which costs a task for each command.
    Raises redis.exceptions.ConnectionError when nobody answers, ValueError for an address that is none.
    """
    options = {
        "decode_responses": True,
        "socket_timeout": None,
        "socket_connect_timeout": ANSWER_SECONDS,
        "retry": Retry(NoBackoff(), 0),
    }
    client = Redis.from_url(url, **options)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            is_cluster = (await client.info("cluster")).get("cluster_enabled")
    except ResponseError:
        # INFO is not allowed to everybody; those who run a cluster allow it to its clients.
        is_cluster = False
    except BaseException:
        await client.aclose()
        raise
    if not is_cluster:
        return client
    await client.aclose()
    cluster = RedisCluster.from_url(url, **options)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            # Otherwise it would ask for the slots with its first command, and a subscription is none to it.
            return await cluster.initialize()
    except BaseException:
        await cluster.aclose()
        raise


@dataclass
class _Waiting:
    """A message that Redis has not confirmed yet. until: when to give up, on the loop's clock."""

    text: bytes
    publish_id: str
    until: float
    receipt: asyncio.Future = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Outbox:
    """Publishes in order, and again after a lost answer; what is repeated arrives once.

    carrier: "stream" or "pubsub". keep: entries that the stream keeps, at least. max_waiting, max_waiting_bytes: what
    may wait for Redis, in messages and in bytes. timeout: seconds after which a message that waits is given up.
    .known the newest position that this server has seen, confirmed or received.
    """

    def __init__(
        self, channel: str, carrier: str, *, keep: int, max_waiting: int, max_waiting_bytes: int, timeout: float
    ) -> None:
        # In braces, so that a cluster keeps all of it on one node.
        self.target = f"{{{channel}}}:{carrier}"
        self.position_key = f"{self.target}:position"
        self.known: Position | None = None
        self._id_prefix = f"{self.target}:published:"
        self._carrier = carrier
        self._keep = keep
        self._max_waiting = max_waiting
        self._max_waiting_bytes = max_waiting_bytes
        self._timeout = timeout
        # A message that is still repeated must not be forgotten.
        self._remember = max(_REMEMBER_SECONDS, math.ceil(2 * timeout))
        self._waiting: deque[_Waiting] = deque()
        self._waiting_bytes = 0
        self._filled = asyncio.Event()
        self._emptied = asyncio.Event()
        self._last_error: BaseException | None = None

    def put(self, text: str, publish_id: str | None) -> asyncio.Future:
        """Take a message and return the future of its Position; raise BackplaneFull for one too many.

        Raises ValueError for what cannot be sent at all: here, where one message is concerned, and not in the
        background, where all are.
        """
        publish_id = publish_id or uuid.uuid4().hex
        publish_id.encode()
        content = text.encode()
        if len(content) > self._max_waiting_bytes:
            raise ValueError(
                f"a text of {len(content)} bytes never fits: no more than {self._max_waiting_bytes} may wait."
            )
        if len(self._waiting) >= self._max_waiting or self._waiting_bytes + len(content) > self._max_waiting_bytes:
            reason = f" ({self._last_error})" if self._last_error else ""
            raise BackplaneFull(
                f"{len(self._waiting)} messages wait for Redis already{reason}. Is it running, and does it keep up?"
            )
        waiting = _Waiting(content, publish_id, asyncio.get_running_loop().time() + self._timeout)
        self._waiting.append(waiting)
        self._waiting_bytes += len(content)
        self._filled.set()
        self._emptied.clear()
        return waiting.receipt

    async def run(self, client: Redis | RedisCluster) -> None:
        """Publish what waits, for ever."""
        backoff = ExponentialWithJitterBackoff(base=0.05, cap=0.5)
        failures = 0
        while True:
            self._give_up_late()
            if not self._waiting:
                self._emptied.set()
                self._filled.clear()
                await self._filled.wait()
            batch = self._next_batch()
            try:
                positions = await self._ask(client, batch)
            except TROUBLE as error:
                self._last_error = error
                failures += 1
                await asyncio.sleep(backoff.compute(failures))
                continue
            self._last_error, failures = None, 0
            for waiting, position in zip(batch, positions, strict=True):
                self._remove_first()
                # Whoever awaited the receipt may have been cancelled, and the receipt with it.
                if not waiting.receipt.done():
                    waiting.receipt.set_result(position)

    def _next_batch(self) -> list[_Waiting]:
        """Return what is to be published next, in order: one message at least."""
        batch, size_bytes = [], 0
        for waiting in itertools.islice(self._waiting, _BATCH):
            size_bytes += len(waiting.text)
            if batch and size_bytes > _BATCH_BYTES:
                break
            batch.append(waiting)
        return batch

    async def settle(self, client: Redis | RedisCluster) -> Position:
        """Return the newest position in Redis, where a new epoch begins first if Redis knows less than we do."""
        return (await self._ask(client, []))[0]

    async def newest(self, client: Redis | RedisCluster) -> Position | None:
        """Return the newest position in Redis, None where it has no count."""
        async with asyncio.timeout(ANSWER_SECONDS):
            position = await client.get(self.position_key)
        return Position.read(position) if position else None

    async def _ask(self, client: Redis | RedisCluster, batch: list[_Waiting]) -> list[Position]:
        keys = [self.position_key, self.target, *(self._id_prefix + waiting.publish_id for waiting in batch)]
        known = self.known or Position(0, 0)
        options = [self._carrier, *known, self._keep, self._remember]
        # EVAL, not EVALSHA: a Redis that has come back empty knows the script no more, and the text is short.
        async with asyncio.timeout(ANSWER_SECONDS):
            given = await client.eval(_SCRIPT, len(keys), *keys, *options, *(waiting.text for waiting in batch))
        positions = [Position.read(position) for position in given]
        self.know(max(positions))
        return positions

    def know(self, position: Position) -> None:
        """Note that a message of this position exists."""
        if self.known is None or position > self.known:
            self.known = position

    def _give_up_late(self) -> None:
        """Fail the receipts of what has waited too long; the oldest waits longest."""
        now = asyncio.get_running_loop().time()
        while self._waiting and self._waiting[0].until <= now:
            self._fail(self._remove_first(), f"Redis did not confirm it within {self._timeout:g} s")

    def _remove_first(self) -> _Waiting:
        first = self._waiting.popleft()
        self._waiting_bytes -= len(first.text)
        return first

    def _fail(self, waiting: _Waiting, reason: str) -> None:
        if not waiting.receipt.done():
            seen = (
                f"; the last error was {type(self._last_error).__name__}: {self._last_error}"
                if self._last_error
                else ""
            )
            waiting.receipt.set_exception(
                NotPublished(
                    f"{reason}{seen}. It may have got through: repeat it under publish_id={waiting.publish_id!r}"
                )
            )

    async def until_empty(self, timeout: float) -> None:
        """Wait until nothing waits any more, `timeout` seconds at most."""
        try:
            async with asyncio.timeout(timeout):
                while self._waiting:
                    await self._emptied.wait()
        except TimeoutError:
            return

    def close(self) -> None:
        """Fail what still waits."""
        while self._waiting:
            self._fail(self._remove_first(), "the backplane was closed first")
