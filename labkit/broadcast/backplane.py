"""What carries a message from the server on which it is published to all servers: Redis Pub/Sub."""

import asyncio
from collections.abc import AsyncIterator

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

_CONFIRM_SECONDS = 5.0


class PubSubBackplane:
    """One server's end of a Redis channel: what any server publishes, every server receives, itself included.

    Use it as `async with PubSubBackplane(url) as backplane:`, in the lifespan of an app for example. Inside, the
    subscription is confirmed: nothing that is published from now on is missed at the start. At the end, whoever walks
    over messages() comes out of the loop.
    The trap: at most once. When the connection to Redis breaks, redis-py connects and subscribes again without a word,
    and what was published in between is gone; nobody is told. A server that reads too slowly is cut off by Redis.
    All messages go through one Redis, so all servers receive them in the same order.

    url: as redis-py takes it, such as RedisServer().url. channel: servers with the same one hear each other.
    Raises redis.exceptions.ConnectionError when Redis does not answer.
    source: notebook 07, "With Redis Pub/Sub all hear"
    """

    def __init__(self, url: str, channel: str = "broadcast") -> None:
        self.url = url
        self.channel = channel
        self._read: asyncio.Task | None = None
        self._closed = False

    async def __aenter__(self) -> "PubSubBackplane":
        self._closed = False
        # What Redis(host=...) does unasked, from_url() has to be told: connect again, up to ten times, waiting longer
        # each time. Only to listen: a publish that is tried again could arrive twice.
        retry = Retry(ExponentialWithJitterBackoff(base=0.01, cap=1.0), 10)
        self._publisher = Redis.from_url(self.url)
        self._listener = Redis.from_url(self.url, decode_responses=True, retry=retry)
        self._subscription = self._listener.pubsub()
        try:
            await self._subscription.subscribe(self.channel)
            # The command is on its way; only its confirmation says that Redis counts us in.
            if await self._subscription.get_message(timeout=_CONFIRM_SECONDS) is None:
                raise RedisConnectionError(f"Redis did not confirm the subscription within {_CONFIRM_SECONDS:g} s.")
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._close()

    async def publish(self, text: str) -> int:
        """Hand a text to Redis and return how many servers it was passed on to, this one included.

        Raises redis.exceptions.ConnectionError when Redis cannot be reached; the text may have got through even so.
        """
        return await self._publisher.publish(self.channel, text)

    async def messages(self) -> AsyncIterator[str]:
        """Yield every text published on the channel, one after another, until the backplane closes; for one loop only.

        Raises redis.exceptions.ConnectionError when Redis is gone and does not come back within a few seconds.
        """
        while not self._closed:
            self._read = asyncio.ensure_future(
                self._subscription.get_message(ignore_subscribe_messages=True, timeout=None)
            )
            try:
                message = await self._read
            except asyncio.CancelledError:
                # Either the backplane closes, and cancelled the read, or whoever walks here is cancelled.
                if self._closed:
                    return
                raise
            if message is not None:
                yield message["data"]

    async def _close(self) -> None:
        """End the read that is waiting, then both connections."""
        self._closed = True
        if self._read is not None and not self._read.done():
            self._read.cancel()
            await asyncio.wait({self._read})
        await self._subscription.aclose()
        await self._listener.aclose()
        await self._publisher.aclose()
