"""The log of a room: whoever comes back gets what it missed, in order and once, and is told when that is not all."""

import asyncio
import random

import pytest

from labkit.broadcast.parts.hub.events import Gap, Position
from labkit.broadcast.parts.hub.frames import text_frame
from labkit.broadcast.parts.hub.log import Log

E = 1_767_225_600_000
ROOM = 1_000_000


FRAME = text_frame("x")


def keep(log, seq, epoch=E, frame=FRAME):
    """Add the message of this number, and let go what is too old for it."""
    log.add(Position(epoch, seq), frame)
    log.trim()


def keep_gap(log, reason, after, until):
    """Add a gap that is not settled."""
    log.add_gap(Gap(reason, after, until, False), FRAME)


def filled(*seqs, count=100, newest=None):
    """Return a log that these messages were added to."""
    log = Log(count, ROOM, newest, newest)
    for seq in seqs:
        keep(log, seq)
    return log


def entries(log, catch_up):
    """Return what a client gets."""
    return [log.entry(place) for place in range(catch_up.cursor, log.end)]


def numbers(log, asked):
    """Return the seqs of what a client gets, None for a gap."""
    return [None if entry.is_gap else entry.position.seq for entry in entries(log, log.since(asked))]


def test_who_asks_for_nothing_gets_nothing_and_stands_at_the_newest():
    """It has not been promised anything, so it is not told that it was recovered."""
    assert filled(1, 2).since(None) == ((E, 2), False, 2)


@pytest.mark.parametrize("newest", [None, Position(E, 0)])
@pytest.mark.parametrize("asked", [None, Position(0, 0)])
def test_where_nothing_was_published_nothing_is_missing(newest, asked):
    """Also for whoever asks for everything."""
    log = filled(newest=newest)
    assert log.since(asked).recovered
    assert numbers(log, asked) == []


@pytest.mark.parametrize("asked", range(10))
def test_every_place_in_the_log_gives_what_came_after_it(asked):
    """The log begins with message 5: whoever has 4 or more misses nothing."""
    log = filled(5, 6, 7, 8, 9)
    catch_up = log.since(Position(E, asked))
    assert numbers(log, Position(E, asked)) == list(range(max(asked + 1, 5), 10))
    assert catch_up.recovered == (asked >= 4)
    assert catch_up.after == (E, asked)


def test_what_makes_room_is_missing():
    """By count."""
    log = filled(*range(1, 11), count=3)
    assert numbers(log, Position(E, 7)) == [8, 9, 10]
    assert log.since(Position(E, 7)).recovered
    assert numbers(log, Position(E, 6)) == [8, 9, 10]
    assert not log.since(Position(E, 6)).recovered


def test_bytes_are_bounded_too():
    """Counted as they will be sent; a single message that is too large leaves nothing, and says so."""
    # A header of two bytes comes to each.
    log = Log(100, 14)
    for seq, text in enumerate(["aaaa", "éé", "éé", "éé"], start=1):
        keep(log, seq, frame=text_frame(text))
    assert numbers(log, Position(E, 1)) == [3, 4]
    assert not log.since(Position(E, 1)).recovered
    keep(log, 5, frame=text_frame("x" * 13))
    assert len(log) == 0
    assert not log.since(Position(E, 4)).recovered
    assert log.since(Position(E, 5)) == ((E, 5), True, 5)


def test_gap_stands_between_whoever_was_before_it_and_the_rest():
    """Who stands before it gets what is here, the gap in its place; who stands behind it misses nothing."""
    log = filled(1, 2, 3)
    keep_gap(log, "why", Position(E, 3), Position(E, 6))
    assert log.since(None).after == (E, 6)
    assert log.since(Position(E, 6)).recovered
    keep(log, 7)
    assert (numbers(log, Position(E, 2)), log.since(Position(E, 2)).recovered) == ([3, None, 7], False)
    assert (numbers(log, Position(E, 6)), log.since(Position(E, 6)).recovered) == ([7], True)


def test_gap_of_unknown_end_holds_until_the_next_message():
    """Then the number says how far it went; here, that it was empty."""
    log = filled(1, 2, 3)
    keep_gap(log, "why", Position(E, 3), None)
    assert not log.since(Position(E, 3)).recovered
    keep(log, 4)
    assert (log.since(Position(E, 3)).recovered, numbers(log, Position(E, 3))) == (True, [4])
    assert not log.since(Position(E, 1)).recovered


def test_gap_that_is_settled_later_holds_nobody_up():
    """The carrier is back, and nothing was published meanwhile."""
    log = filled(1, 2, 3)
    keep_gap(log, "cut", Position(E, 3), None)
    log.settle(Gap("back", Position(E, 3), Position(E, 3), True))
    assert (log.since(Position(E, 3)).recovered, numbers(log, Position(E, 3))) == (True, [])


def test_another_epoch_is_told_with_or_without_a_gap():
    """Positions grow from one epoch to the next; what the old one had last is nobody's to say."""
    log = filled(1, 2)
    keep(log, 1, epoch=E + 5)
    late = log.since(Position(E, 1))
    assert ([entry.position for entry in entries(log, late)], late.recovered) == ([(E, 2), (E + 5, 1)], False)
    assert not log.since(Position(E, 2)).recovered
    assert log.since(Position(E + 5, 0)).recovered
    ahead = log.since(Position(E + 9, 3))
    assert ahead == ((E + 5, 1), False, 3)


def test_no_schedule_loses_doubles_or_hides_anything():
    """Random messages, gaps, epochs and bounds: what a fan holds plus what it gets is all, or it is told."""
    chance = random.Random(5)
    for _ in range(300):
        log = Log(chance.randint(1, 20), ROOM)
        published, epoch, seq = [], E, 0
        for _ in range(chance.randint(0, 40)):
            what = chance.random()
            if what < 0.06:
                epoch, seq = epoch + chance.randint(1, 9), 0
                keep_gap(log, "lost", log.newest, Position(epoch, 0))
            elif what < 0.14:
                skipped = chance.randint(0, 3)
                published += [Position(epoch, seq + n) for n in range(1, skipped + 1)]
                seq += skipped
                until = chance.choice([None, Position(epoch, seq)])
                keep_gap(log, "gap", log.newest, until)
            else:
                seq += 1
                published.append(Position(epoch, seq))
                keep(log, seq, epoch)
        for asked in [*published, Position(E, 0)]:
            catch_up = log.since(asked)
            told = entries(log, catch_up)
            got = [entry.position for entry in told if not entry.is_gap]
            # A gap of unknown end that nothing came after may hide a message: nobody can be recovered then.
            missed = [position for position in published if position > asked]
            assert got == sorted(set(got))
            assert set(got) <= set(missed)
            if catch_up.recovered and log.newest is not None:
                assert got == missed, (asked, log.newest)
                assert len(told) == len(got), "no gap is told to whom nothing is missing"


async def test_follower_gets_what_is_there_and_what_comes_then_the_end():
    """In order, once; close() ends it while it waits."""
    log = filled(1, 2)
    got = []

    async def walk():
        async for event in log.follow(1, Position(E, 1)):
            got.append(event.position.seq)

    walking = asyncio.create_task(walk())
    await asyncio.sleep(0)
    keep(log, 3)
    keep(log, 4)
    await asyncio.sleep(0)
    assert got == [2, 3, 4]
    log.close()
    await asyncio.wait_for(walking, 1)


async def test_follower_that_is_too_slow_is_told_what_it_missed():
    """The log does not wait for it."""
    log = filled(1, 2, count=3)
    walk = log.follow(0, Position(E, 0))
    assert (await anext(walk)).position == (E, 1)
    for seq in range(3, 9):
        keep(log, seq)
    gap = await anext(walk)
    assert (gap.after, gap.until, gap.settled) == ((E, 1), (E, 5), False)
    assert [(await anext(walk)).position.seq for _ in range(3)] == [6, 7, 8]
    await walk.aclose()


def test_what_somebody_still_gets_is_kept():
    """However long ago it was; the rest goes by count."""
    log = filled(1, 2, count=2)
    for seq in range(3, 9):
        log.add(Position(E, seq), FRAME)
        log.trim(keep_from=4)
    assert (log.first, len(log)) == (4, 4)
    assert log.join(4, 8, ROOM) == (FRAME * 4, 8)
    log.trim()
    assert len(log) == 2
    log.trim(hard=True)
    assert (len(log), log.size_bytes, log.end) == (0, 0, 8)


def test_frames_are_joined_up_to_a_bound_and_one_at_least():
    """The place behind them says where to go on."""
    log = filled(1, 2, 3)
    assert log.join(0, 3, 2 * len(FRAME)) == (FRAME * 2, 2)
    assert log.join(0, 3, 1) == (FRAME, 1)
    assert log.join(2, 3, 1) == (FRAME, 3)
    assert log.bytes_between(1, 3) == 2 * len(FRAME)


def test_room_that_counts_along_misses_nothing():
    """What was published in another room is not for this one."""
    log = filled(1)
    log.advance(Position(E, 5), Position(E, 0))
    log.add(Position(E, 6), FRAME, after=Position(E, 5))
    assert (log.since(Position(E, 1)).recovered, numbers(log, Position(E, 1))) == (True, [6])
    assert (log.since(Position(E, 4)).recovered, numbers(log, Position(E, 4))) == (True, [6])
