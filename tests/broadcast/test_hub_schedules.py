"""The hub under random schedules: whatever fans do, and in whatever order, nobody misses anything in silence."""

import logging
import os
import random
import sys
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.configuration import set_hypothesis_home_dir
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test

sys.path.insert(0, str(Path(__file__).parent / "schedules"))
from stage import Evening, Rules

# Otherwise it makes a folder of its own wherever the tests are started.
set_hypothesis_home_dir(Path(__file__).parents[2] / "build" / "hypothesis")

pytestmark = [pytest.mark.skipif(sys.platform != "linux", reason="It counts descriptors in /proc.")]

ROOMS = st.sampled_from(["home", "away"])
SIZES = st.one_of(st.integers(1, 300), st.sampled_from([1, 70, 5_000, 30_000, 70_000, 200_000]))
TURNS = st.integers(0, 4)
RULES = st.builds(
    Rules,
    when_full=st.sampled_from(["disconnect", "drop_oldest", "latest"]),
    history=st.sampled_from([0, 3, 3, 10, 200]),
    history_bytes=st.sampled_from([1_000, 50_000, 1_000_000]),
    max_queue_bytes=st.sampled_from([2_000, 100_000, 1_000_000]),
    max_total_bytes=st.sampled_from([256 * 2**20, 256 * 2**20, 2**20]),
    stalled_after=st.sampled_from([0.5, 5.0]),
    send_buffer_bytes=st.sampled_from([4_096, 16_384]),
    receive_buffer_bytes=st.sampled_from([4_096, 65_536]),
    slice=st.sampled_from([1, 1, 2, 250]),
    write_bytes=st.sampled_from([500, 500, 65_536]),
    is_bound=st.sampled_from([False, False, True]),
    is_tcp=st.sampled_from([False, False, False, True]),
    ping_interval=st.sampled_from([None, 20.0]),
)
MOST_FANS = 12


class Schedule(RuleBasedStateMachine):
    """What may happen on an evening, in an order that hypothesis thinks of."""

    evening = None
    ending = "leave"

    @initialize(
        rules=RULES,
        rooms=st.lists(ROOMS, min_size=2, max_size=8),
        ending=st.sampled_from(["leave", "reset", "drain", "shutdown"]),
    )
    def begin(self, rules, rooms, ending):
        """Open the server; some are there from the beginning."""
        self.ending = ending
        self.evening = Evening(rules)
        self.evening.play(*((self.evening.enter, room, None, True, False) for room in rooms), turns=0)

    def fan(self, which):
        """Return one of the fans, or one that is gone."""
        return self.evening.fans[which % len(self.evening.fans)]

    def has_fans(self):
        """Whether somebody has come."""
        return self.evening is not None and bool(self.evening.fans)

    def let_in(self, *fan, turns):
        """Let a fan come, if there is place for one more.

        That is asked here and not in a precondition: on TCP it hangs on the system's clock, and hypothesis wants to
        find the same rules each time.
        """
        if sum(not fan.is_closed for fan in self.evening.fans) < MOST_FANS:
            self.evening.play((self.evening.enter, *fan), turns=turns)

    @rule(room=ROOMS, polite=st.booleans(), is_frozen=st.sampled_from([False, False, False, True]), turns=TURNS)
    def come(self, room, polite, is_frozen, turns):
        """A fan comes for the first time."""
        self.let_in(room, None, polite, is_frozen, turns=turns)

    @rule(room=ROOMS, back=st.integers(0, 20), is_frozen=st.sampled_from([False, False, False, True]), turns=TURNS)
    def come_back(self, room, back, is_frozen, turns):
        """A fan comes back with a position."""
        published = self.evening.rooms[room]
        asked = (published.epoch or 0, max(0, published.newest - back))
        self.let_in(room, asked, True, is_frozen, turns=turns)

    @rule(room=ROOMS, epochs=st.sampled_from([-1, 0, 1]), ahead=st.integers(-20, 20), zero=st.booleans(), turns=TURNS)
    def come_from_nowhere(self, room, epochs, ahead, zero, turns):
        """A fan comes with a position that may never have been."""
        published = self.evening.rooms[room]
        asked = (0, 0) if zero else ((published.epoch or 0) + epochs, max(0, published.newest + ahead))
        self.let_in(room, asked, True, False, turns=turns)

    @precondition(has_fans)
    @rule(which=st.integers(0, 30), turns=TURNS, what=st.sampled_from(["freeze", "freeze", "thaw", "ping"]))
    def sleep_or_wake(self, which, what, turns):
        """A fan stops reading, reads again, or pings."""
        self.evening.play((getattr(self.fan(which), what),), turns=turns)

    @precondition(has_fans)
    @rule(which=st.integers(0, 30), turns=TURNS, what=st.sampled_from(["leave", "reset"]))
    def go(self, which, what, turns):
        """A fan says goodbye, or vanishes."""
        self.evening.play((getattr(self.fan(which), what),), turns=turns)

    @rule(news=st.lists(st.tuples(ROOMS, SIZES), min_size=1, max_size=8), turns=TURNS)
    def publish_at_once(self, news, turns):
        """Several messages in one turn of the loop."""
        self.evening.play(*((self.evening.publish, room, size) for room, size in news), turns=turns)

    @rule(
        room=ROOMS,
        sizes=st.lists(SIZES, min_size=1, max_size=8),
        turns=TURNS,
        newcomers=st.lists(st.sampled_from([None, (0, 0)]), max_size=2),
    )
    def publish(self, room, sizes, turns, newcomers):
        """Several messages, one after the other, while others are coming in."""
        for asked in newcomers:
            self.let_in(room, asked, True, False, turns=0)
        for size in sizes:
            self.evening.play((self.evening.publish, room, size), turns=turns)

    @precondition(has_fans)
    @rule(which=st.integers(0, 30), size=st.sampled_from([1, 8_000]), news=st.booleans(), turns=TURNS)
    def say(self, which, size, news, turns):
        """The endpoint sends a text in between."""
        fan = self.fan(which)
        self.evening.play(
            *[(self.evening.publish, fan.room, size)] * news,
            (self.evening.say, fan, size),
            *[(self.evening.publish, fan.room, 1)] * news,
            turns=turns,
        )

    @precondition(has_fans)
    @rule(which=st.integers(0, 30), before=st.lists(SIZES, max_size=1), behind=st.lists(SIZES, max_size=2), turns=TURNS)
    def shut(self, which, before, behind, turns):
        """The endpoint closes a connection, between two messages perhaps."""
        fan, evening = self.fan(which), self.evening
        had_all = evening.has_all(fan)
        evening.play(
            *((evening.publish, fan.room, size) for size in before),
            (evening.shut, fan, had_all),
            *((evening.publish, fan.room, size) for size in behind),
            turns=turns,
        )

    @rule(seconds=st.sampled_from([0.01, 0.3, 1.0, 6.0, 30.0]))
    def wait(self, seconds):
        """Time passes."""
        self.evening.pass_time(seconds)

    @rule()
    def rest(self):
        """Nothing happens until everybody has everything."""
        self.evening.check_quiet()

    @rule()
    def wait_for_the_stalled(self):
        """So much time passes that nobody may be here who has taken nothing."""
        self.evening.check_stalled()

    @precondition(lambda self: self.evening is not None and len(self.evening.fans) > 10)
    @rule(over=st.sampled_from([0.05, 1.0]), now=st.sampled_from([False, False, False, True]), turns=TURNS)
    def drain(self, over, now, turns):
        """The hub sends everybody away; seldom, for little can happen afterwards."""
        if now and not self.evening.is_draining:
            self.evening.play((self.evening.drain, over), turns=turns)

    def teardown(self):
        """Everybody goes, and nothing may be left."""
        if self.evening is None:
            return
        try:
            self.evening.end(self.ending)
        finally:
            self.evening.close()


# How long a schedule takes says nothing here, and nothing is kept from one run to the next.
COMMON = {
    "deadline": None,
    "database": None,
    "stateful_step_count": 30,
    "suppress_health_check": list(HealthCheck),
}


@pytest.fixture(autouse=True)
def quiet_log():
    """A line for each of thousands of fans would bury what failed."""
    logger = logging.getLogger("uvicorn.error")
    level = logger.level
    logger.setLevel(logging.ERROR)
    yield
    logger.setLevel(level)


@pytest.mark.slow
def test_the_same_evenings_as_always():
    """60 schedules, the same in each run as long as this file, and the modules that are loaded with it, are."""
    run_state_machine_as_test(Schedule, settings=settings(max_examples=60, derandomize=True, **COMMON))


@pytest.mark.long
def test_two_thousand_evenings():
    """Others in each run; a failure says which, by a number that repeats them: BROADCAST_LAB_SEED=1234."""
    number = int(os.environ.get("BROADCAST_LAB_SEED", random.SystemRandom().randrange(2**32)))
    print(f"BROADCAST_LAB_SEED={number}")
    run_state_machine_as_test(hypothesis.seed(number)(Schedule), settings=settings(max_examples=2_000, **COMMON))
