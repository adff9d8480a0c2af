"""publish() keeps its schedule and its time limit; tables tell who got what, and when."""

import asyncio
import json
import time
from itertools import pairwise

import pytest

from labkit import arrivals_table, latency_table, publish
from labkit.apparatus.clients import Deliveries, Delivery
from labkit.evidence.measure import positions_table


def text_of(seq: int, of: int, at: float, run: int = 1) -> str:
    """Return a message as publish() writes it."""
    return json.dumps({"run": run, "seq": seq, "of": of, "at": at, "body": ""})


async def test_messages_count_from_one_and_say_of_how_many():
    """Each text carries what a table needs."""
    texts = []

    async def broadcast(text):
        texts.append(json.loads(text))

    report = await publish(broadcast, count=3, every=0.01, body_bytes=20)
    assert [text["seq"] for text in texts] == [1, 2, 3]
    assert {text["of"] for text in texts} == {3}
    assert {len(text["body"]) for text in texts} == {20}
    moments = [text["at"] for text in texts]
    assert [round(later - first, 3) for first, later in pairwise(moments)] == [0.01, 0.01]
    assert report.returned
    assert report.calls == 3
    assert report.stuck_at is None


async def test_next_run_has_the_next_number():
    """Two runs over one fleet can be told apart."""

    async def broadcast(text):
        pass

    first = await publish(broadcast)
    second = await publish(broadcast)
    assert second.run == first.run + 1


async def test_call_that_never_comes_back_is_named_and_cancelled():
    """It returns by its time limit and says which call it was."""
    cancelled = []

    async def broadcast(text):
        if json.loads(text)["seq"] == 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(3)
                raise

    report = await publish(broadcast, count=60, timeout=0.2)
    assert (report.calls, report.stuck_at, report.returned) == (2, 3, False)
    assert cancelled == [3]
    assert str(report) == "2 of 60 broadcasts returned; number 3 never came back"


async def test_calls_do_not_overlap_and_lateness_counts():
    """A broadcast that waits makes the next one late, measured from the scheduled moment."""
    running = 0
    rows = []

    async def broadcast(text):
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0.03)
        rows.append(Delivery(1, "healthy", text, len(text), time.monotonic()))
        running -= 1

    await publish(broadcast, count=3, every=0.0)
    latencies = arrivals_table(Deliveries(rows, {1: "healthy"}, "reader"))["latency_ms"]
    assert latencies.is_monotonic_increasing
    assert latencies.iloc[2] >= 90


async def test_error_of_broadcast_goes_through():
    """The experiment is the caller's."""

    async def broadcast(text):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await publish(broadcast, count=2)


async def test_interruption_cancels_the_call_under_way():
    """Stop in the cell leaves no task behind."""
    entered = asyncio.Event()
    ended = asyncio.Event()

    async def broadcast(text):
        entered.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    publishing = asyncio.create_task(publish(broadcast))
    await entered.wait()
    publishing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await publishing
    async with asyncio.timeout(5):
        await ended.wait()


def test_latency_table_counts_the_missing():
    """Also for clients that got nothing at all, and in the order of connecting."""
    rows = [
        Delivery(1, "healthy", text_of(1, 2, 10.0), 50, 10.001),
        Delivery(1, "healthy", text_of(2, 2, 10.5), 50, 10.503),
        Delivery(2, "healthy", text_of(1, 2, 10.0), 50, 10.002),
    ]
    table = latency_table(Deliveries(rows, {1: "healthy", 2: "healthy", 3: "stalled"}, "kernel"))
    assert list(table.index) == ["healthy", "stalled"]
    assert table.loc["healthy", ["clients", "delivered", "missing"]].tolist() == [2, 3, 1]
    assert table.loc["stalled", ["clients", "delivered", "missing"]].tolist() == [1, 0, 2]
    assert table.loc["healthy", "p50_ms"] == 2.0
    assert table.loc["healthy", "max_ms"] == 3.0
    assert table.loc["stalled"].isna().sum() == 3


def test_other_texts_are_left_out_of_the_tables():
    """A GOAL by hand has no scheduled moment."""
    deliveries = Deliveries([Delivery(1, "healthy", "GOAL", 4, 10.0)], {1: "healthy"}, "kernel")
    assert len(arrivals_table(deliveries)) == 0
    assert latency_table(deliveries).loc["healthy", "delivered"] == 0


@pytest.mark.parametrize(
    "wrap",
    [
        lambda text: f'{{"epoch": 1700000000000, "seq": 12, "data": {text}}}',
        lambda text: json.dumps({"epoch": 1700000000000, "seq": 12, "text": text}),
        lambda text: json.dumps({"data": json.loads(text)}, separators=(",", ":")),
    ],
)
def test_published_message_is_found_inside_what_wraps_it(wrap):
    """As an object, as a quoted string, and without spaces; the number is the one that publish() gave."""
    row = Delivery(1, "healthy", wrap(text_of(3, 5, 10.0))[:256], 300, 10.25)
    table = arrivals_table(Deliveries([row], {1: "healthy"}, "reader"))
    assert table[["run", "seq", "of", "latency_ms"]].values.tolist() == [[1, 3, 5, 250.0]]


def test_positions_are_read_where_a_text_begins_with_one():
    """In order of arrival, whatever the numbers; greetings, gaps and positions further inside are left out."""
    texts = [
        '{"position": [17, 4], "recovered": true, "server": "a"}',
        '{"epoch": 17, "seq": 6, "data": {"epoch": 1, "seq": 1}}',
        '{"epoch": 17, "seq": 5, "data": 0}',
        '{"gap": {"after": [17, 6], "until": null}, "reason": "lost"}',
        '{"epoch":18,"seq":1,"data":0}',
        '{"data": {"epoch": 17, "seq": 7}}',
    ]
    rows = [Delivery(2, "healthy", text, len(text), float(place)) for place, text in enumerate(texts)]
    table = positions_table(Deliveries(rows, {1: "healthy", 2: "healthy"}, "reader"))
    assert table.columns.tolist() == ["client", "epoch", "seq", "arrived_at"]
    assert table.values.tolist() == [[2, 17, 6, 1.0], [2, 17, 5, 2.0], [2, 18, 1, 4.0]]
