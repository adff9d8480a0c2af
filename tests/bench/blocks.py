"""Blocks: what a server's CPU is for one delivery, block by block, and beside each block one of the limit.

All servers of a stage run at the same time, each with a swarm of its own, and one of them works. A block is so many
turns of one server. Never is a warm block compared with a cold one: each is preceded by a turn that is not measured.
"""

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from programs import ProgramFailed, Server, Swarm, cpu_ns, cpu_ns_at_rest

DOCS_LOOP = "NaiveManager"
LIMIT = "limit"
# A turn begins so long after the one before, for each client; the machine is at most half busy then.
_PACE_US = 20
_BLOCK_SECONDS = 0.3
_LEAST_TURNS = 4
_MOST_TURNS = 100
# With fewer pairs there are no quartiles to speak of.
LEAST_PAIRS = 6
# Starting a server takes a core of this machine, and connecting to it too.
_STARTS_AT_ONCE = 2
_PATIENCE_SECONDS = 60
# A case whose turns take longer is not measured: 20 pairs of it would last an hour.
_LONGEST_TURN_SECONDS = 5.0


@dataclass(frozen=True)
class Case:
    """What is measured as one row: a variant, and how it broadcasts.

    loop: `asyncio`, `uvloop`, `node` or `C`. joined: messages in a turn. most_pairs: how many blocks at most.
    """

    variant: str
    loop: str = "asyncio"
    joined: int = 1
    body_bytes: int = 100
    deflate: bool = False
    most_pairs: int = 20

    @property
    def contestant(self) -> tuple[str, str, bool]:
        """Which server it needs: cases that differ in the messages only share one."""
        return self.variant, self.loop, self.deflate


@dataclass(frozen=True)
class Block:
    """What was measured in one block, for each delivery: .cpu_us and .swarm_us, and .last_arrival_ms for a turn."""

    cpu_us: float
    swarm_us: float
    last_arrival_ms: float


@dataclass
class Contestant:
    """A server with its swarm."""

    server: Server
    swarm: Swarm

    def close(self) -> None:
        """End both."""
        self.swarm.close()
        self.server.close()

    def play(self, turns: int, joined: int, body_bytes: int, every_us: int) -> tuple[int, float]:
        """Let the server broadcast; return the swarm's CPU in ns, and the median of publish to last arrival in ms.

        Raises ProgramFailed where a delivery is missing, too short or out of order.
        """
        timeout = turns * every_us / 1e6 + _PATIENCE_SECONDS
        self.swarm.tell(f"expect {turns} {joined} {body_bytes} {round(timeout * 1000)}")
        self.swarm.answer("expecting", _PATIENCE_SECONDS)
        self.server.tell(f"{turns} {joined} {body_bytes} {every_us}")
        self.server.answer("done", timeout)
        how, *numbers = self.swarm.line(timeout + 1).split()
        count, astray, closed, median_ns, _, swarm_ns = map(int, numbers)
        if how != "arrived" or astray or closed:
            expected = turns * joined * self.swarm.clients
            raise ProgramFailed(
                f"{self.server.name}: {count} of {expected} deliveries, {astray} of them too short, out of order or "
                f"too many, {closed} clients gone."
            )
        return swarm_ns, median_ns / 1e6

    def block(self, turns: int, joined: int, body_bytes: int, every_us: int) -> Block:
        """Measure so many turns, after one that warms up."""
        self.play(1, joined, body_bytes, every_us)
        before = cpu_ns_at_rest(self.server.pid)
        swarm_ns, last_arrival_ms = self.play(turns, joined, body_bytes, every_us)
        used_ns = cpu_ns_at_rest(self.server.pid) - before
        deliveries = turns * joined * self.swarm.clients
        return Block(used_ns / deliveries / 1000, swarm_ns / deliveries / 1000, last_arrival_ms)


@dataclass
class Pace:
    """How a case is measured.

    .every_us between turns, .turns in a block, .seconds for a pair, .turn_seconds that a turn took, .pairs how many.
    """

    every_us: int
    turns: int
    seconds: float
    turn_seconds: float = 0.0
    pairs: int = 0


@dataclass
class Series:
    """All blocks of a case: round -> its block and that of the limit beside it."""

    case: Case
    clients: int
    pace: Pace
    version: str
    pairs: dict[int, tuple[Block, Block]] = field(default_factory=dict)


def pace_of(contestant: Contestant, case: Case) -> Pace:
    """Calibrate: turns so far apart that the machine is not saturated, and so many that a block is long enough."""
    contestant.play(1, case.joined, case.body_bytes, 0)
    turns = 3
    started_at = time.monotonic()
    before = cpu_ns(contestant.server.pid)
    contestant.play(turns, case.joined, case.body_bytes, 0)
    busy_seconds = (cpu_ns_at_rest(contestant.server.pid) - before) / 1e9
    turn_seconds = max(busy_seconds, time.monotonic() - started_at - 0.002) / turns
    every_us = max(_PACE_US * contestant.swarm.clients, round(2e6 * turn_seconds))
    turns = min(_MOST_TURNS, max(_LEAST_TURNS, round(_BLOCK_SECONDS * 1e6 / every_us)))
    # A pair is two blocks, each with a turn before it.
    return Pace(every_us, turns, 2 * ((turns + 0.5) * every_us / 1e6 + 0.02), turn_seconds)


def share_out(paces: dict[Case, Pace], seconds: float, least_pairs: int = LEAST_PAIRS) -> None:
    """Give each case its pairs, so that all together take no longer than seconds.

    Those that are to have the most come first, and the cheap among them; the rest is sure of least_pairs.
    """
    reserved = sum(least_pairs * pace.seconds for pace in paces.values())
    for case, pace in sorted(paces.items(), key=lambda item: (-item[0].most_pairs, item[1].seconds)):
        reserved -= least_pairs * pace.seconds
        affordable = int((seconds - reserved) / pace.seconds)
        pace.pairs = min(case.most_pairs, max(least_pairs, affordable))
        seconds -= pace.pairs * pace.seconds


def measure(
    cases: Sequence[Case],
    clients: int,
    start: Callable[[Case, int], Contestant],
    *,
    until: float,
    least_pairs: int = LEAST_PAIRS,
    say: Callable[[str], object],
) -> list[Series]:
    """Run a stage: all cases with so many clients each, in rounds; return the blocks of each.

    start: starts a case's server and its swarm. until: the time.monotonic() at which it should be over; where time is
    short, dear cases get fewer pairs, though no fewer than least_pairs. say: is told what is going on, and why a case
    is left out.
    """
    with contextlib.ExitStack() as running:
        started_at = time.monotonic()
        contestants = started([Case(LIMIT, "C"), *cases], clients, start, running, say)
        if Case(LIMIT, "C").contestant not in contestants:
            raise ProgramFailed("The limit does not run here, and without it there is nothing to divide by.")
        all_series = calibrated([case for case in cases if case.contestant in contestants], clients, contestants, say)
        share_out({series.case: series.pace for series in all_series}, until - time.monotonic(), least_pairs)
        estimate = sum(series.pace.seconds * series.pace.pairs for series in all_series)
        say(f"  {len(all_series)} cases are ready after {time.monotonic() - started_at:.0f} s; {estimate:.0f} s to go")
        play_rounds(all_series, contestants, until, say)
    return all_series


def started(
    cases: Sequence[Case],
    clients: int,
    start: Callable[[Case, int], Contestant],
    running: contextlib.ExitStack,
    say: Callable[[str], object],
) -> dict[tuple, Contestant]:
    """Start all servers that the cases need, connect their swarms, and see to it that they are closed."""
    contestants = {}

    def start_one(case: Case) -> None:
        try:
            contestant = start(case, clients)
        except ProgramFailed as failure:
            say(f"  left out: {failure}")
            return
        running.callback(contestant.close)
        contestants[case.contestant] = contestant

    with ThreadPoolExecutor(_STARTS_AT_ONCE) as threads:
        wanted = {case.contestant: case for case in cases}
        list(threads.map(start_one, wanted.values()))
    return contestants


def calibrated(
    cases: Sequence[Case], clients: int, contestants: dict[tuple, Contestant], say: Callable[[str], object]
) -> list[Series]:
    """Return an empty series for each case that delivers, and does so in reasonable time."""
    all_series = []
    broken = set()
    message_seconds: dict[tuple, float] = {}
    for case in cases:
        contestant = contestants[case.contestant]
        # What was measured for one message says what many will take, and at most that.
        turn_seconds = case.joined * message_seconds.get(case.contestant, 0.0)
        if case.contestant in broken:
            continue
        if turn_seconds > _LONGEST_TURN_SECONDS:
            say(f"  left out: {case.variant} with {case.joined} messages, which might take {turn_seconds:.0f} s a turn")
            continue
        try:
            pace = pace_of(contestant, case)
        except ProgramFailed as failure:
            say(f"  left out: {failure}")
            broken.add(case.contestant)
            continue
        message_seconds[case.contestant] = pace.turn_seconds / case.joined
        all_series.append(Series(case, clients, pace, contestant.server.version))
    return all_series


def play_rounds(
    all_series: Sequence[Series], contestants: dict[tuple, Contestant], until: float, say: Callable[[str], object]
) -> None:
    """Let the cases take turns, in another order each round, until each has its pairs; where it is late, some fewer."""
    limit = contestants[Case(LIMIT, "C").contestant]
    rounds = max((series.pace.pairs for series in all_series), default=0)
    # The order is drawn anew in each run: no seed, for nothing depends on it.
    order = random.Random()
    out = set()
    for number in range(rounds):
        if time.monotonic() > until and number >= rounds // 2 and number >= LEAST_PAIRS:
            say(f"  late: {number} of {rounds} rounds")
            break
        # A case with fewer pairs than there are rounds is spread over all of them.
        playing = [s for s in all_series if (number + 1) * s.pace.pairs // rounds > number * s.pace.pairs // rounds]
        for series in order.sample(playing, len(playing)):
            if series.case.contestant in out:
                continue
            try:
                series.pairs[number] = pair(contestants[series.case.contestant], limit, series, number % 2 == 0)
            except ProgramFailed as failure:
                say(f"  left out from now on: {failure}")
                out.add(series.case.contestant)


def pair(contestant: Contestant, limit: Contestant, series: Series, limit_first: bool) -> tuple[Block, Block]:
    """Measure a block of a case, and one of the limit beside it: the same turns, the same pace, one message each."""
    case, pace = series.case, series.pace

    def of_limit() -> Block:
        return limit.block(pace.turns, 1, case.body_bytes, pace.every_us)

    first = of_limit() if limit_first else None
    block = contestant.block(pace.turns, case.joined, case.body_bytes, pace.every_us)
    return block, first or of_limit()
