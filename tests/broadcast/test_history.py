"""The history: whoever comes back gets what it missed, in order and once, and is told when that is not all."""

import asyncio
import random

import pytest

from labkit.broadcast.backplane import Gap, Message, Position
from labkit.broadcast.parts.history import History

E = 1_767_225_600_000
ROOM = 1_000_000


def message(seq, epoch=E, text="x"):
    """Return a message of this number."""
    return Message(Position(epoch, seq), text)


def filled(*seqs, count=100, newest=None):
    """Return a history that these messages were added to."""
    history = History(count, ROOM, newest)
    for seq in seqs:
        history.add(message(seq))
    return history


def numbers(catch_up):
    """Return the seqs of what a fan gets, None for a gap."""
    return [event.position.seq if isinstance(event, Message) else None for event in catch_up.events]


def test_who_asks_for_nothing_gets_nothing_and_stands_at_the_newest():
    """It has not been promised anything, so it is not told that it was recovered."""
    assert filled(1, 2).since(None) == ((E, 2), False, [], 2)


@pytest.mark.parametrize("newest", [None, Position(E, 0)])
@pytest.mark.parametrize("asked", [None, Position(0, 0)])
def test_where_nothing_was_published_nothing_is_missing(newest, asked):
    """Also for whoever asks for everything."""
    catch_up = filled(newest=newest).since(asked)
    assert catch_up.recovered
    assert catch_up.events == []


@pytest.mark.parametrize("asked", range(10))
def test_every_place_in_the_history_gives_what_came_after_it(asked):
    """The history begins with message 5: whoever has 4 or more misses nothing."""
    catch_up = filled(5, 6, 7, 8, 9).since(Position(E, asked))
    assert numbers(catch_up) == list(range(max(asked + 1, 5), 10))
    assert catch_up.recovered == (asked >= 4)
    assert catch_up.after == (E, asked)


def test_what_makes_room_is_missing():
    """By count."""
    history = filled(*range(1, 11), count=3)
    assert numbers(history.since(Position(E, 7))) == [8, 9, 10]
    assert history.since(Position(E, 7)).recovered
    assert numbers(history.since(Position(E, 6))) == [8, 9, 10]
    assert not history.since(Position(E, 6)).recovered


def test_bytes_are_bounded_too():
    """Counted as they will be sent; a single message that is too large leaves nothing, and says so."""
    history = History(100, 10)
    for seq, text in enumerate(["aaaa", "éé", "éé", "éé"], start=1):
        history.add(message(seq, text=text))
    assert numbers(history.since(Position(E, 1))) == [3, 4]
    assert not history.since(Position(E, 1)).recovered
    history.add(message(5, text="x" * 11))
    assert len(history) == 0
    assert not history.since(Position(E, 4)).recovered
    assert history.since(Position(E, 5)) == ((E, 5), True, [], 5)


def test_gap_stands_between_whoever_was_before_it_and_the_rest():
    """Who stands before it gets what is here, the gap in its place; who stands behind it misses nothing."""
    history = filled(1, 2, 3)
    history.add_gap(Gap("why", Position(E, 3), Position(E, 6), False))
    assert history.since(None).after == (E, 6)
    assert history.since(Position(E, 6)).recovered
    history.add(message(7))
    before = history.since(Position(E, 2))
    assert (numbers(before), before.recovered) == ([3, None, 7], False)
    behind = history.since(Position(E, 6))
    assert (numbers(behind), behind.recovered) == ([7], True)


def test_gap_of_unknown_end_holds_until_the_next_message():
    """Then the number says how far it went; here, that it was empty."""
    history = filled(1, 2, 3)
    history.add_gap(Gap("why", Position(E, 3), None, False))
    assert not history.since(Position(E, 3)).recovered
    history.add(message(4))
    assert history.since(Position(E, 3)) == ((E, 3), True, [message(4)], 5)
    assert not history.since(Position(E, 1)).recovered


def test_gap_that_is_settled_later_holds_nobody_up():
    """The carrier is back, and nothing was published meanwhile."""
    history = filled(1, 2, 3)
    history.add_gap(Gap("cut", Position(E, 3), None, False))
    history.settle(Gap("back", Position(E, 3), Position(E, 3), True))
    assert history.since(Position(E, 3)).recovered


def test_another_epoch_is_told_with_or_without_a_gap():
    """Positions grow from one epoch to the next; what the old one had last is nobody's to say."""
    history = filled(1, 2)
    history.add(message(1, epoch=E + 5))
    late = history.since(Position(E, 1))
    assert ([event.position for event in late.events], late.recovered) == ([(E, 2), (E + 5, 1)], False)
    assert not history.since(Position(E, 2)).recovered
    assert history.since(Position(E + 5, 0)).recovered
    ahead = history.since(Position(E + 9, 3))
    assert ahead == ((E + 5, 1), False, [], 3)


def test_no_schedule_loses_doubles_or_hides_anything():
    """Random messages, gaps, epochs and bounds: what a fan holds plus what it gets is all, or it is told."""
    chance = random.Random(5)
    for _ in range(300):
        history = History(chance.randint(1, 20), ROOM)
        published, epoch, seq = [], E, 0
        for _ in range(chance.randint(0, 40)):
            what = chance.random()
            if what < 0.06:
                epoch, seq = epoch + chance.randint(1, 9), 0
                history.add_gap(Gap("lost", history.newest, Position(epoch, 0), False))
            elif what < 0.14:
                skipped = chance.randint(0, 3)
                published += [Position(epoch, seq + n) for n in range(1, skipped + 1)]
                seq += skipped
                until = chance.choice([None, Position(epoch, seq)])
                history.add_gap(Gap("gap", history.newest, until, False))
            else:
                seq += 1
                published.append(Position(epoch, seq))
                history.add(message(seq, epoch))
        for asked in [*published, Position(E, 0)]:
            catch_up = history.since(asked)
            got = [event.position for event in catch_up.events if isinstance(event, Message)]
            # A gap of unknown end that nothing came after may hide a message: nobody can be recovered then.
            missed = [position for position in published if position > asked]
            assert got == sorted(set(got))
            assert set(got) <= set(missed)
            if catch_up.recovered and history.newest is not None:
                assert got == missed, (asked, history.newest)


async def test_follower_gets_what_is_there_and_what_comes_then_the_end():
    """In order, once; close() ends it while it waits."""
    history = filled(1, 2)
    got = []

    async def walk():
        async for event in history.follow(1, Position(E, 1)):
            got.append(event.position.seq)

    walking = asyncio.create_task(walk())
    await asyncio.sleep(0)
    history.add(message(3))
    history.add(message(4))
    await asyncio.sleep(0)
    assert got == [2, 3, 4]
    history.close()
    await asyncio.wait_for(walking, 1)


async def test_follower_that_is_too_slow_is_told_what_it_missed():
    """The history does not wait for it."""
    history = filled(1, 2, count=3)
    walk = history.follow(0, Position(E, 0))
    assert (await anext(walk)).position == (E, 1)
    for seq in range(3, 9):
        history.add(message(seq))
    gap = await anext(walk)
    assert (gap.after, gap.until, gap.settled) == ((E, 1), (E, 5), False)
    assert [(await anext(walk)).position.seq for _ in range(3)] == [6, 7, 8]
    await walk.aclose()


async def test_reached_waits_for_a_position_but_not_for_ever():
    """It returns when the message is here, when the time is over, and when the history closes."""
    history = filled(1)
    waiting = asyncio.create_task(history.reached(Position(E, 3), 60))
    await asyncio.sleep(0)
    history.add(message(2))
    await asyncio.sleep(0)
    assert not waiting.done()
    history.add(message(3))
    await asyncio.wait_for(waiting, 1)
    await asyncio.wait_for(history.reached(Position(E, 9), 0.01), 1)
    waiting = asyncio.create_task(history.reached(Position(E, 9), 60))
    await asyncio.sleep(0)
    history.close()
    await asyncio.wait_for(waiting, 1)
