"""The space-time diagram shows each message's way, and which one never came."""

import re

import pytest

from labkit import space_time
from labkit.apparatus.clients import Deliveries, Delivery


def made(arrivals: dict[tuple[int, int], float], roster: dict[int, str], *, of: int, every: float = 0.01) -> Deliveries:
    """Return deliveries: {(seq, client): seconds after it was due}."""
    rows = [
        Delivery(
            client, roster[client], f'{{"run": 7, "seq": {seq}, "of": {of}, "at": {100 + seq * every}, "body": ""}}',
            60, 100 + seq * every + wait,
        )
        for (seq, client), wait in arrivals.items()
    ]  # fmt: skip
    return Deliveries(rows, roster, "operating system")


@pytest.fixture
def deliveries() -> Deliveries:
    """Return three messages: one for both healthy clients, one for the first of them, one for nobody."""
    return made({(1, 1): 0.001, (1, 2): 0.002, (2, 1): 0.004}, {1: "healthy", 2: "slow", 3: "stalled"}, of=3)


def lines(chart) -> dict[str, list[tuple[float, float]]]:
    """Return the lines of the picture by what they stand for, as points."""
    return {
        line.get_gid(): [(round(float(x), 3), round(float(y), 3)) for x, y in zip(*line.get_data(), strict=True)]
        for line in chart.axes.lines
        if line.get_gid()
    }


def test_a_message_goes_from_the_server_when_due_to_the_client_when_it_arrived(deliveries):
    """The server's line is at 0, a client's at its number; the time is that since the first was due."""
    drawn = lines(space_time(deliveries, title="On their way"))
    assert drawn["message 1 to 1"] == [(0, 0), (1, 1)]
    assert drawn["message 1 to 2"] == [(0, 0), (2, 2)]
    assert drawn["message 2 to 1"] == [(10, 0), (14, 1)]
    assert {"server", "client 1", "client 2", "client 3"} <= set(drawn)


def test_what_never_arrived_ends_before_the_client(deliveries):
    """One that reached nobody ends at the server, at the moment that the schedule gave it."""
    drawn = lines(space_time(deliveries, title="Lost"))
    assert {name for name in drawn if "lost" in name} == {
        "message 1 lost to 3", "message 2 lost to 2", "message 2 lost to 3", "message 3 lost to all",
    }  # fmt: skip
    for name in ("message 1 lost to 3", "message 2 lost to 2"):
        (_, begins), (_, ends) = drawn[name]
        assert begins == 0
        assert int(name[-1]) - 1 < ends < int(name[-1])
    assert drawn["message 3 lost to all"][0] == (20, 0)
    assert drawn["message 3 lost to all"][1][1] < 1


def test_words_and_table_say_it_too(deliveries):
    """Who was reached, after how long, and who never."""
    chart = space_time(deliveries, title="Lost")
    assert chart.alt.startswith(
        "Lost. Space-time diagram from the server to 3 clients (1 healthy, 1 slow, 1 stalled): "
    )
    assert "message 1, due at 0.0 ms, reaches 2 of 3 after 1.0 to 2.0 ms, never client 3" in chart.alt
    assert "message 2, due at 10.0 ms, reaches 1 of 3 after 4.0 to 4.0 ms, never client 2-3" in chart.alt
    assert "message 3, due at 20.0 ms, reaches nobody." in chart.alt
    assert list(chart.table["reached"]) == [2, 1, 0]
    assert list(chart.table["never at"]) == ["3", "2-3", "1-3"]
    assert chart.png().startswith(b"\x89PNG")


def test_texts_in_the_picture(deliveries):
    """Lines have names, messages numbers, the sleeper says so, and n stands below."""
    axes = space_time(deliveries, title="Lost").axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["server", "client 1", "client 2", "client 3"]
    texts = [text.get_text() for text in axes.texts]
    assert {"1", "2", "3", "stalled: never arrives"} <= set(texts)
    assert not [text for text in texts if re.match("healthy|slow", text)]
    assert any(re.search(r"n = 3 messages, 3 clients; lines begin when due", text) for text in texts)
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {
        "healthy",
        "slow",
        "stalled",
        "never arrived",
    }


def test_some_messages_of_many(deliveries):
    """The time then counts from the first that is shown."""
    chart = space_time(deliveries, title="Only the second", messages=(2, 2))
    assert lines(chart)["message 2 to 1"] == [(0, 0), (4, 1)]
    assert not [name for name in lines(chart) if "message 1 " in name or "message 3 " in name]
    assert chart.axes.get_xlabel() == "time since message 2 was due (ms)"


def test_a_long_run_is_in_seconds():
    """So that an axis has no thousands on it."""
    chart = space_time(made({(1, 1): 0.5, (4, 1): 0.5}, {1: "healthy"}, of=4, every=1.0), title="Slowly")
    assert chart.axes.get_xlabel().endswith("(s)")
    assert lines(chart)["message 4 to 1"] == [(3, 0), (3.5, 1)]


def test_numbers_of_messages_that_are_due_together_stand_together():
    """Else they would cover each other."""
    burst = made({(seq, 1): 0.001 * seq for seq in (1, 2, 3, 4)}, {1: "healthy"}, of=4, every=0.0)
    assert "1-4" in [text.get_text() for text in space_time(burst, title="A burst").axes.texts]


def test_a_schedule_that_is_not_known_is_said():
    """From the one message that arrived nobody can tell when the others were due."""
    chart = space_time(made({(1, 1): 0.001}, {1: "healthy"}, of=3), title="One of three")
    assert "Message 2-3 arrived nowhere and is not drawn." in chart.alt
    assert not [name for name in lines(chart) if "lost" in name]


@pytest.mark.parametrize(
    ("arrivals", "clients", "of", "messages", "said"),
    [
        ({}, 1, 1, None, "No published message has arrived"),
        ({(1, 1): 0.001}, 21, 1, None, "21 clients are too many lines to read, 20 are the most"),
        ({(1, 1): 0.001}, 1, 60, None, r"60 messages are too many .* messages=\(1, 8\)"),
        ({(1, 1): 0.001}, 1, 60, (5, 8), "None of the messages 5 to 8 has arrived anywhere"),
    ],
)
def test_what_nobody_could_read_is_refused(arrivals, clients, of, messages, said):
    """With what to do instead."""
    roster = dict.fromkeys(range(1, clients + 1), "healthy")
    with pytest.raises(ValueError, match=said):
        space_time(made(arrivals, roster, of=of), title="Too much", messages=messages)
