"""What bad company costs the healthy: a thousand clients with and without fifty slow ones and one that sleeps.

usage: make bench-full   or   python tests/bench/company.py
Two hubs, each with a thousand healthy clients; one of them has the company too. Blocks take turns in one run. In the
first block of the company the sleeper stops reading, and is cut off; it is let in again for each block.
"""

import asyncio
import time

from laboratory import show

from labkit import Fleet, arrivals_table, close_lab, publish, serve
from labkit.broadcast.hub import Hub
from labkit.broadcast.protocol import HubProtocol
from labkit.evidence.contract import app_of

BLOCKS = 12
MESSAGES = 40
EVERY = 0.1
BODY_BYTES = 2_000
HEALTHY, SLOW = 1_000, 50
STALLED_AFTER = 1.0


class NotingHub(Hub):
    """Unlike Hub: notes the seconds from a client's pause until its socket was gone."""

    def __init__(self) -> None:
        super().__init__(stalled_after=STALLED_AFTER)
        self.paused_at = {}
        self.freed_after = []

    def watch(self, member: object) -> None:
        """Note the moment of the pause."""
        self.paused_at[member] = time.monotonic()
        super().watch(member)

    def unwatch(self, member: object) -> None:
        """Note the moment at which a client that was cut off is gone."""
        if member.has_left and member in self.paused_at:
            self.freed_after.append(time.monotonic() - self.paused_at.pop(member))
        super().unwatch(member)


async def block(hub: Hub, fleet: Fleet) -> float:
    """Publish, wait until all healthy clients have everything, and return their p99 latency in milliseconds."""
    fleet.clear()
    await publish(hub.broadcast, count=MESSAGES, every=EVERY, body_bytes=BODY_BYTES)
    await fleet.until(MESSAGES, clients="healthy", timeout=20)
    latencies = arrivals_table(fleet.deliveries).query("behaviour == 'healthy'")["latency_ms"]
    return latencies.quantile(0.99)


async def main() -> None:
    """Print the p99 of both, their ratio block by block, and how soon the sleeper's socket was free."""
    alone, company = NotingHub(), NotingHub()
    options = {"protocol": HubProtocol, "send_buffer_bytes": 16_384, "ping_interval": None}
    alone_server = await serve(app_of(alone), "alone", **options)
    company_server = await serve(app_of(company), "company", **options)
    by_itself = await Fleet(alone_server, healthy=HEALTHY).connect()
    with_others = await Fleet(company_server, healthy=HEALTHY, slow=SLOW, receive_buffer_bytes=4_096).connect()
    quiet, loud = [], []
    for number in range(BLOCKS):
        quiet.append(await block(alone, by_itself))
        sleeper = await Fleet(company_server, name=f"sleeper {number}", stalled=1, receive_buffer_bytes=4_096).connect()
        loud.append(await block(company, with_others))
        while company_server.connections > HEALTHY + SLOW:
            await asyncio.sleep(0.01)
        await sleeper.close()
    show("p99 of 1,000 healthy clients by themselves", quiet, "ms")
    show("  with 50 slow ones and one that sleeps", loud, "ms")
    show("  the second by the first, block by block", [b / a for a, b in zip(quiet, loud, strict=True)], "×")
    late = [(seconds - STALLED_AFTER) * 1000 for seconds in company.freed_after]
    show("the sleeper's socket was gone so much after stalled_after", late, "ms")
    print(f"evicted: {company.stats().evictions}; nobody among the healthy lost a message")
    await close_lab()


if __name__ == "__main__":
    asyncio.run(main())
