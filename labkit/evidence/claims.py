"""Claims: sentences of a notebook that are lines of code, and the statements of the seed text that they settle."""

from typing import NamedTuple

from labkit.apparatus import running


class Statement(NamedTuple):
    """A statement of the seed text. says: its words. becomes: what is left of it. where: notebook and experiment."""

    says: str
    becomes: str
    where: str


# The course's table, one row for each statement; a claim cites its row by the key.
STATEMENTS = {
    "all-at-once": Statement(
        "sends all at once, not one by one",
        "N sends in order; what is shared is the encoding",
        "04 E1, 06 E8",
    ),
    "slow-without": Statement(
        "without broadcasting it is slow",
        "same writes either way; polling is what is slow",
        "01 E1, 04 E1",
    ),
    "loudspeaker": Statement("like a loudspeaker", "until one listener closes the door", "06 E3"),
    "stays-open": Statement(
        "stays open, instant, both ways",
        "with limits: idle cuts, blocked loops",
        "01 E3 E4, 02 E2",
    ),
    "step-2": Statement("the endpoint of step 2", "closes with 1006", "02 E1"),
    "async-tasks": Statement(
        "async handles many connections efficiently; broadcasting loops over tasks",
        "memory of each; the tasks only receive",
        "02 E0 E2, 03 E1",
    ),
    "track-clients": Statement(
        "track clients so that none is lost",
        "six ways to leave; the newcomer's race",
        "03 E2, 04 E4, 05 E2",
    ),
    "step-4": Statement(
        "the broadcast of step 4, pitfall 1 'correct'",
        "ValueError, evictions, head-of-line blocking",
        "04 E2 E3, 05 E2, 06 E3",
    ),
    "step-5": Statement("FastAPI's WebSocketManager; the class of step 5", "a pattern; goes backwards", "05 E1"),
    "gather-faster": Statement(
        "gather is faster (step 6, pitfall 2)",
        "dearer for healthy clients; about N times faster when each send waits",
        "06 E1 E2",
    ),
    "gather-robust": Statement("gather is more robust", "hangs with one sleeper; never removes", "06 E3 E7"),
    "return-exceptions": Statement("return_exceptions=True is critical", "if the results are read", "06 E7"),
    "sets": Statement("sets instead of lists", "in a mass disconnect", "03 E3 E4"),
    "order": Statement(
        "order across servers; sequence numbers or timestamps",
        "already inside one process; sequence and epoch yes, timestamps no",
        "07 E2",
    ),
    "one-server": Statement("one server does not reach the others", "true", "07 Win"),
    "ignore-disconnects": Statement(
        "ignoring disconnects crashes the server",
        "it does not crash: it loses, leaks, or hangs; each shown",
        "03 E1 E2, 04 E2, 06 E3",
    ),
    "not-only-websockets": Statement("SSE and push also broadcast", "true, same slow reader", "01 E5"),
    "redis-all": Statement("Redis makes messages reach all", "at most once; Streams for more", "07 E1 E3 E5"),
    "heartbeats": Statement(
        "heartbeats detect the dead",
        "not behind a full buffer; they kill the healthy whose handler does not listen",
        "03 E2, 02 E3, 06 E4",
    ),
    "middleware": Statement("middleware for authentication", "HTTP middleware never sees a WebSocket", "02 E4"),
    "sticky": Statement(
        "sticky sessions or shared session stores",
        "for long-polling; for who you are, not for where you are",
        "07 E4",
    ),
    "very-large": Statement(
        "not for very large scale; one-to-one is direct; feels instant",
        "the capacity card; decision table",
        "06 E9, 05 E4, 07 E7",
    ),
    "publish-subscribe": Statement(
        "publish-subscribe, event-driven, public address",
        "run, with where the likeness ends",
        "05 E2 E5, 04 E1",
    ),
}


class ClaimFailed(AssertionError):
    """A claim did not hold in this run; raised in the tests only."""


def claim(statement: str, sentence: str, *, holds: bool, measured: object = None, n: int | None = None) -> None:
    """Print a sentence with ✔ or ✘ and what was measured.

    The trap: what is claimed must be a count, a code or an order, or a ratio of three or more; the rest is shown as
    an observation, since a laptop's clock is noise. For a learner a ✘ is a finding about their machine, and the
    notebook goes on; in the tests it raises ClaimFailed.
    statement: the key of a row in STATEMENTS. holds: whether this run bears the sentence out. measured: the value
    behind it. n: how many observations that was.
    Raises KeyError for an unknown row, TypeError when holds is not a bool.
    """
    if statement not in STATEMENTS:
        raise KeyError(f"no statement has the key {statement!r}; there are: {', '.join(STATEMENTS)}.")
    # A comparison of numpy values gives numpy's own bool; anything else is an unfinished comparison.
    if type(holds).__name__ not in ("bool", "bool_"):
        raise TypeError(f"holds={holds!r}: give the comparison itself, such as holds=count == 20.")
    details = [f"measured: {measured}"] if measured is not None else []
    details += [f"n = {n}"] if n is not None else []
    text = f"{'✔' if holds else '✘'} {sentence}" + (f" ({', '.join(details)})" if details else "")
    print(text)
    if not holds:
        if running.strict():
            raise ClaimFailed(text)
        print("  Not so on this machine, in this run. Run the cells of this experiment again: does it stay so?")
