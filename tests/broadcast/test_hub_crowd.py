"""The hub with many clients for a long time, and with bad company."""

import asyncio
import time

import pytest

from labkit import Fleet, publish, serve
from labkit.broadcast.hub import Hub
from labkit.broadcast.protocol import HubProtocol
from labkit.evidence.contract import app_of, has_come_true

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("lab")]

MINUTES = 5
CLIENTS = 10_000


class NotingHub(Hub):
    """Unlike Hub: notes when a client paused that did not go on, and when it was given up."""

    def __init__(self, **options):
        super().__init__(**options)
        self.paused_at = {}
        self.evicted = []

    def watch(self, member):
        """Note the moment."""
        self.paused_at[member] = time.monotonic()
        super().watch(member)

    def evict(self, member, reason):
        """Note for how long it had been paused, and its transport."""
        self.evicted.append((reason, time.monotonic() - self.paused_at[member], member.transport))
        super().evict(member, reason)


@pytest.mark.slow
async def test_stalled_and_slow_clients_cost_the_healthy_nothing():
    """Of 100 healthy, five slow and a stalled one the last is cut off, its socket freed, and nobody else loses any."""
    hub = NotingHub(stalled_after=0.5)
    server = await serve(app_of(hub), protocol=HubProtocol, send_buffer_bytes=16_384)
    fleet = Fleet(server, healthy=100, slow=5, stalled=1, receive_buffer_bytes=4_096, slow_pause=0.005)
    await fleet.connect()
    [stalled] = [number for number, behaviour in enumerate(fleet.behaviours, 1) if behaviour == "stalled"]
    count = 0
    while not hub.evicted:
        count += 1
        await hub.broadcast(f"{count} {'x' * 2_000}")
        await asyncio.sleep(0.01)
    [(reason, seconds, transport)] = hub.evicted
    assert reason == "stalled"
    assert seconds >= 0.5
    assert await has_come_true(lambda: transport.get_extra_info("socket").fileno() < 0, within=2)
    assert server.connections == 105
    await fleet.until(count, clients=[number for number in range(1, 107) if number != stalled], timeout=20)


@pytest.mark.long
async def test_ten_thousand_clients_lose_nothing_in_five_minutes():
    """A message a second; every client gets each of them."""
    hub = Hub()
    server = await serve(app_of(hub), protocol=HubProtocol)
    fleet = await Fleet(server, healthy=CLIENTS, count_only=True).connect()
    report = await publish(hub.broadcast, count=MINUTES * 60, every=1.0, timeout=MINUTES * 60 + 60)
    await fleet.until(MINUTES * 60, timeout=30)
    stats = hub.stats()
    print(f"{CLIENTS} clients, {report}, {report.cpu_seconds:.1f} s of CPU, {stats}")
    assert set((await fleet.counts()).values()) == {MINUTES * 60}
    assert stats.clients == CLIENTS
    assert not stats.evictions
