"""Both carriers on a Redis Cluster of three nodes, through the client library's own support for it."""

import asyncio

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

from labkit.apparatus.children import new_folder, start_child
from labkit.apparatus.parts.ports import free_port
from labkit.apparatus.redis_server import find_redis
from labkit.broadcast.backplane import Gap, PubSubBackplane, StreamBackplane
from labkit.broadcast.outbox import connect

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("lab"), pytest.mark.slow]

SLOTS = 16384
PATIENCE = 20


async def answers(port):
    """Return whether a node answers."""
    try:
        async with Redis(port=port, retry=Retry(NoBackoff(), 0)) as node:
            return await node.ping()
    except RedisConnectionError:
        return False


async def start_node(number):
    """Start one node that knows no other, and return its port and its child."""
    # The nodes talk to each other on a second port, 10,000 above the first: it should not be an outgoing connection's.
    port = min(free_port() for _ in range(20))
    options = ["--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes", "--save", "", "--dir", "."]
    options += ["--cluster-node-timeout", "1000"]
    child = await start_child(
        [str(find_redis().path), *options],
        name=f"node {number}",
        folder=new_folder(),
        ready=lambda: answers(port),
    )
    return port, child


@pytest.fixture
async def nodes(lab):
    """Give the ports of a cluster of three nodes, each with a third of the slots."""
    started = [await start_node(number) for number in range(3)]
    ports = [port for port, _ in started]
    for number, port in enumerate(ports):
        async with Redis(port=port, decode_responses=True) as node:
            await node.execute_command("CLUSTER ADDSLOTS", *range(SLOTS * number // 3, SLOTS * (number + 1) // 3))
            await node.execute_command("CLUSTER MEET", "127.0.0.1", ports[0])
    for port in ports:
        async with asyncio.timeout(PATIENCE), Redis(port=port, decode_responses=True) as node:
            while (await node.execute_command("CLUSTER INFO"))["cluster_state"] != "ok":
                await asyncio.sleep(0.05)
    return ports


@pytest.mark.parametrize("carrier", [PubSubBackplane, StreamBackplane])
async def test_servers_hear_each_other_whatever_nodes_they_were_pointed_to(nodes, carrier):
    """Three servers, each with the address of another node; channels on all nodes; one order, nothing lost."""
    urls = [f"redis://127.0.0.1:{port}/0" for port in nodes]
    client = await connect(urls[0])
    assert isinstance(client, RedisCluster)
    await client.aclose()
    for channel in ("one", "two", "three", "four"):
        async with carrier(urls[0], channel) as a, carrier(urls[1], channel) as b, carrier(urls[2], channel) as c:
            servers = (a, b, c)
            receipts = [servers[number % 3].publish(f"{number}") for number in range(99)]
            positions = await asyncio.gather(*receipts)
            assert sorted(position.seq for position in positions) == list(range(1, 100))
            expected = [f"{number}" for _, number in sorted((at, number) for number, at in enumerate(positions))]
            for server in servers:
                heard = []
                async with asyncio.timeout(PATIENCE):
                    async for event in server.events():
                        assert not isinstance(event, Gap)
                        heard.append(event.text)
                        if len(heard) == 99:
                            break
                assert heard == expected


async def test_stream_goes_on_when_every_connection_is_cut(nodes):
    """On all three nodes, five times under load: everything arrives once and in order."""
    async with (
        StreamBackplane(f"redis://127.0.0.1:{nodes[0]}/0") as publisher,
        StreamBackplane(f"redis://127.0.0.1:{nodes[1]}/0") as reader,
    ):
        receipts = []
        for number in range(200):
            receipts.append(publisher.publish(f"{number}"))
            if number % 40 == 20:
                for port in nodes:
                    async with Redis(port=port) as node:
                        await node.execute_command("CLIENT KILL", "TYPE", "normal", "SKIPME", "yes")
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*receipts)
            heard = []
            async for event in reader.events():
                if isinstance(event, Gap):
                    assert event.settled
                else:
                    heard.append(event.text)
                if len(heard) == 200:
                    break
        assert heard == [f"{number}" for number in range(200)]
