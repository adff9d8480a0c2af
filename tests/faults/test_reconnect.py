"""A thousand fans lose their server at the same moment, and come back by chance over five seconds."""

import sys
from collections import Counter
from pathlib import Path

import pytest

# The test modules are not imported as a package, so what stands beside them is found by its folder.
sys.path.insert(0, str(Path(__file__).parent))
from match import PATIENCE, match

from labkit import Cluster

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

FANS = 1000
COME_BACK = 5.0
# The rate is counted in pieces of this many seconds.
PIECE = 0.5

REPETITIONS = [1, *(pytest.param(number, marks=pytest.mark.long) for number in range(2, 21))]


@pytest.mark.parametrize("repetition", REPETITIONS)
async def test_thousand_fans_come_back_evenly_and_miss_nothing(lab, monkeypatch, accounts, repetition):
    """All on one server, which is killed: the other two take them in, no moment brings three times the mean."""
    monkeypatch.delenv("REDIS_URL", raising=False)
    async with Cluster(servers=3, name="streams") as cluster:
        await cluster.balancer.only("server 1")
        async with match(cluster, fans=FANS, reporters=1, every=0.2, come_back=COME_BACK) as playing:
            await cluster.balancer.to_all()
            cluster.servers[0].kill()
            await playing.fans.all_back(timeout=PATIENCE, returns=FANS)
        account = await playing.over()
        returns = playing.fans.returns
        lost_at, back_at = max(each.lost_at for each in returns), sorted(each.back_at for each in returns)
        took = back_at[-1] - min(each.lost_at for each in returns)
        pieces = Counter(int((moment - back_at[0]) / PIECE) for moment in back_at)
        mean = FANS / ((back_at[-1] - back_at[0]) / PIECE)
        print(f"\nall {FANS} back after {took:.1f} s; at most {max(pieces.values()) / mean:.1f} times the mean rate")
        accounts.setdefault((cluster.name, f"{FANS} fans at once"), []).append(account)
        assert len(returns) == FANS
        assert lost_at - min(each.lost_at for each in returns) < COME_BACK
        assert max(pieces.values()) <= 3 * mean, pieces
        assert (account.delivered, account.doubled, account.disordered) == (account.expected, 0, 0), str(account)
