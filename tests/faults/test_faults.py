"""Each fault under load, with each carrier: what is lost, who is told, and that nothing comes twice or out of order."""

import sys
from pathlib import Path

import pytest

# The test modules are not imported as a package, so what stands beside them is found by its folder.
sys.path.insert(0, str(Path(__file__).parent))
import deeds
from match import match

from labkit import Cluster

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@pytest.fixture(scope="module")
async def streams(lab):
    """Give three servers behind nginx, each with a link of its own to a Redis that keeps an append-only file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("REDIS_URL", raising=False)
        async with Cluster(servers=3, links=True, persistent=True, name="streams") as cluster:
            yield cluster


@pytest.fixture(scope="module")
async def pubsub(lab):
    """Give the same on Redis Pub/Sub, with a Redis in memory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("REDIS_URL", raising=False)
        environment = {"CARRIER": "pubsub"}
        async with Cluster(servers=3, links=True, environment=environment, name="pubsub") as cluster:
            yield cluster


def named(*faults):
    """Return the parameter of a test for each of these faults, with its name in words."""
    return pytest.mark.parametrize("fault", faults, ids=lambda fault: fault.__name__.replace("_", " "))


# ---- the same in `make test`, once, and in `make long`, twenty times

REPETITIONS = [1, *(pytest.param(number, marks=pytest.mark.long) for number in range(2, 21))]
repeated = pytest.mark.parametrize("repetition", REPETITIONS)


async def played(cluster, fault, accounts, **options):
    """Play a match with a fault in it, note its account, and return it."""
    async with match(cluster, **options) as playing:
        await fault(cluster)
    account = await playing.over()
    accounts.setdefault((cluster.name, fault.__name__.replace("_", " ")), []).append(account)
    assert all(server.is_running for server in cluster.servers)
    return account


@repeated
@named(
    deeds.kill_a_server, deeds.freeze_a_server, deeds.drain_a_server, deeds.kill_redis, deeds.cut_readers,
    deeds.cut_the_network, deeds.reload_nginx,
)  # fmt: skip
async def test_with_streams_nothing_acknowledged_is_lost(streams, accounts, fault, repetition):
    """Wherever the fans come back, they get every confirmed goal, once and in order; the epoch stays."""
    account = await played(streams, fault, accounts)
    assert account.delivered == account.expected, str(account)
    assert (account.doubled, account.disordered) == (0, 0), str(account)
    assert account.epochs == 1


@repeated
async def test_with_streams_lost_data_is_told(streams, accounts, repetition):
    """FLUSHALL: a new epoch; who misses a goal is told."""
    account = await played(streams, deeds.flush_redis, accounts)
    assert account.epochs == 2
    assert account.tellings >= 45
    assert (account.silent, account.late, account.doubled, account.disordered) == (0, 0, 0, 0), str(account)


@repeated
@named(
    deeds.kill_a_server, deeds.freeze_a_server, deeds.drain_a_server, deeds.kill_redis, deeds.cut_subscribers,
    deeds.cut_the_network, deeds.reload_nginx, deeds.flush_redis, deeds.fill_the_output_buffer,
)  # fmt: skip
async def test_with_pubsub_every_loss_is_told(pubsub, accounts, fault, repetition):
    """Within two seconds, or as soon as the fan is back; nothing comes twice or out of order."""
    account = await played(pubsub, fault, accounts)
    assert (account.silent, account.late, account.doubled, account.disordered) == (0, 0, 0, 0), str(account)
