"""What is done to a cluster in the middle of a match, and undone again; each says how it is known to have happened."""

import asyncio

from redis.asyncio import Redis

# How long a server or a link stands still.
FROZEN_SECONDS = 5
CUT_SECONDS = 3


async def kill_a_server(cluster):
    """kill -9, and the same server again on its port."""
    cluster.servers[0].kill()
    await cluster.servers[0].restart()


async def freeze_a_server(cluster):
    """Its connections stand, to its fans, to nginx and to Redis, and nobody is behind them."""
    cluster.servers[1].freeze()
    await asyncio.sleep(FROZEN_SECONDS)
    cluster.servers[1].thaw()


async def drain_a_server(cluster):
    """Out of nginx, its fans sent away with 1012, and back again: a new version, for example."""
    await cluster.servers[2].drain()
    await cluster.servers[2].restart()


async def kill_redis(cluster):
    """Killed, and started again on its port: with its append-only file, or empty."""
    cluster.redis.kill()
    await cluster.redis.restart()


async def cut_readers(cluster):
    """CLIENT KILL TYPE normal: those who read a stream, and all who publish."""
    assert await cluster.redis.cut_clients() >= len(cluster.servers)


async def cut_subscribers(cluster):
    """CLIENT KILL TYPE pubsub."""
    assert await cluster.redis.cut_subscribers() == len(cluster.servers)


async def cut_the_network(cluster):
    """Between one server and Redis nothing gets through, either way, and neither end is told."""
    cluster.servers[0].link.freeze()
    await asyncio.sleep(CUT_SECONDS)
    cluster.servers[0].link.thaw()


async def reload_nginx(cluster):
    """New workers with the same configuration, while the old ones keep their connections."""
    await cluster.balancer.reload()


async def flush_redis(cluster):
    """FLUSHALL: Redis forgets everything, and no connection breaks."""
    async with Redis.from_url(cluster.redis.url) as client:
        await client.flushall()


async def fill_the_output_buffer(cluster):
    """One server stands still while much is published, until Redis has dropped it at its output buffer limit."""
    async with Redis.from_url(cluster.redis.url) as client:
        usual = (await client.config_get("client-output-buffer-limit"))["client-output-buffer-limit"]
        await client.config_set("client-output-buffer-limit", "pubsub 256kb 256kb 1")
        cluster.servers[1].freeze()
        # More than loopback takes for somebody who does not read; another channel of the same server would do as well.
        while len(await client.client_list(_type="pubsub")) == len(cluster.servers):
            for _ in range(10):
                await client.publish("{scoreboard}:pubsub", f"1-1 {'x' * 100_000}")
        cluster.servers[1].thaw()
        await client.config_set("client-output-buffer-limit", usual)
