"""Publish on a schedule, and turn what arrived into tables."""

import asyncio
import itertools
import json
import math
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pandas

from labkit.apparatus.clients import Deliveries
from labkit.apparatus.crowd.returning import POSITION

# Also inside a text that wraps it, as an object or as a quoted string, and without the spaces, as some encoders write.
_ENVELOPE = re.compile(r'\{\\?"run\\?": ?(\d+), ?\\?"seq\\?": ?(\d+), ?\\?"of\\?": ?(\d+), ?\\?"at\\?": ?([\d.]+)')
_POSITION = re.compile(POSITION)
_runs = itertools.count(1)


@dataclass(frozen=True)
class Report:
    """What publish() saw from the server's side.

    run: number of this run. count: messages asked for. calls: how many broadcasts came back. returned: whether all did.
    stuck_at: the seq of the call that never came back, or None. longest_call: seconds of the longest call that did.
    seconds: from the first scheduled moment to the end. cpu_seconds: CPU time of the server's thread meanwhile.
    """

    run: int
    count: int
    calls: int
    stuck_at: int | None
    longest_call: float
    seconds: float
    cpu_seconds: float

    @property
    def returned(self) -> bool:
        """Whether every call to broadcast came back in time."""
        return self.calls == self.count

    def __str__(self) -> str:
        if self.returned:
            return f"all {self.count} broadcasts returned; the longest took {self.longest_call * 1000:.1f} ms"
        never = "" if self.stuck_at is None else f"; number {self.stuck_at} never came back"
        return f"{self.calls} of {self.count} broadcasts returned{never}"


async def publish(
    broadcast: Callable[[str], Awaitable[object]],
    *,
    count: int = 1,
    every: float = 0.0,
    body_bytes: int = 100,
    timeout: float = 10.0,
) -> Report:
    """Call broadcast(text) `count` times on a schedule, one call at a time, and return a Report.

    The trap: a call that waits makes later messages late, and that is meant: their latency counts from the moment at
    which they were scheduled.
    The text is a JSON object {"run", "seq", "of", "at", "body"}: seq counts from 1, at is the scheduled moment in
    monotonic seconds, body is filler.
    every: seconds between two scheduled moments. body_bytes: size of the filler. timeout: seconds for everything;
    what is still unsent then stays unsent, and the call that is still waiting is cancelled.
    What broadcast raises goes through to the caller.
    """
    run = next(_runs)
    body = "x" * body_bytes
    longest = 0.0
    calls = 0
    cpu_before = time.thread_time()
    started_at = time.monotonic()
    call: asyncio.Task | None = None
    try:
        async with asyncio.timeout(timeout):
            for seq in range(1, count + 1):
                at = started_at + (seq - 1) * every
                # Also when late, give the loop one turn: a schedule must not be what blocks the server.
                await asyncio.sleep(max(0.0, at - time.monotonic()))
                text = json.dumps({"run": run, "seq": seq, "of": count, "at": round(at, 6), "body": body})
                called_at = time.monotonic()
                call = asyncio.ensure_future(broadcast(text))
                await call
                longest = max(longest, time.monotonic() - called_at)
                calls = seq
    except TimeoutError:
        pass
    stuck = calls + 1 if calls < count and call is not None and call.cancelled() else None
    seconds = time.monotonic() - started_at
    return Report(run, count, calls, stuck, longest, seconds, time.thread_time() - cpu_before)


def arrivals_table(deliveries: Deliveries) -> pandas.DataFrame:
    """Return one row for each delivery of a published message.

    Columns: client, behaviour, run, seq, of, latency_ms (from the scheduled moment), arrived_at (monotonic seconds).
    What publish() made is found also where a server has wrapped it, `{"epoch": 1, "seq": 2, "data": {"run": ...`, as
    long as it begins in the first bytes of the text that a delivery keeps. Other messages are left out.
    """
    rows = []
    for delivery in deliveries:
        match = _ENVELOPE.search(delivery.text)
        if match:
            run, seq, of = (int(match[place]) for place in (1, 2, 3))
            latency = (delivery.arrived_at - float(match[4])) * 1000
            rows.append((delivery.client, delivery.behaviour, run, seq, of, latency, delivery.arrived_at))
    columns = ["client", "behaviour", "run", "seq", "of", "latency_ms", "arrived_at"]
    return pandas.DataFrame(rows, columns=columns)


def positions_table(deliveries: Deliveries) -> pandas.DataFrame:
    """Return one row for each delivery that says its position, in order of arrival at the reader.

    A text does when it begins `{"epoch": E, "seq": S`: what a server sends that numbers its messages. Greetings, gaps
    and all other texts are left out.
    Columns: client, epoch, seq, arrived_at (monotonic seconds).
    """
    rows = []
    for delivery in deliveries:
        match = _POSITION.match(delivery.text)
        if match:
            rows.append((delivery.client, int(match[1]), int(match[2]), delivery.arrived_at))
    return pandas.DataFrame(rows, columns=["client", "epoch", "seq", "arrived_at"])


def latency_table(deliveries: Deliveries) -> pandas.DataFrame:
    """Return what each behaviour received, one row a behaviour, in the order in which they connected.

    Columns: clients, delivered, missing, p50_ms, p99_ms, max_ms; the latencies are empty where nothing arrived.
    missing counts the published messages that some client of this behaviour did not receive.
    """
    table = arrivals_table(deliveries)
    # Each message says of how many it is one, so a client that received nothing is known to miss them all.
    published = int(table.groupby("run")["of"].first().sum()) if len(table) else 0
    rows = {}
    for behaviour in dict.fromkeys(deliveries.roster.values()):
        clients = sum(each == behaviour for each in deliveries.roster.values())
        latencies = table.loc[table["behaviour"] == behaviour, "latency_ms"]
        delivered = len(latencies)
        p50, p99, longest = (latencies.quantile(share) if delivered else math.nan for share in (0.5, 0.99, 1.0))
        rows[behaviour] = (clients, delivered, clients * published - delivered, p50, p99, longest)
    columns = ["clients", "delivered", "missing", "p50_ms", "p99_ms", "max_ms"]
    result = pandas.DataFrame.from_dict(rows, orient="index", columns=columns).round(2)
    result.index.name = "behaviour"
    return result
