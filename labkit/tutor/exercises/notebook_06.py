"""Exercises of notebook 06, "What does one sleeping phone cost everyone?": what is asked, three hints, the trials."""

import asyncio
import gc
import weakref
from collections.abc import Awaitable, Callable
from contextlib import suppress

from fastapi import WebSocket
from starlette.websockets import WebSocketState

from labkit.apparatus.server import LabServer
from labkit.tutor.exercises import Exercise
from labkit.tutor.exercises.sharing import (
    HURRY,
    TURNS,
    Pace,
    all_hear,
    comes_back,
    crowd,
    fill,
    goes_well,
    heard_by,
    inside,
    listen,
    naming,
    note_timers,
    of_text,
    paced,
    under_way,
)
from labkit.tutor.lines import line_in, standing
from labkit.tutor.trial import NotYet, Trial, awaitable, called

# Seconds that one send may take; long enough for a fan who reads on a busy machine.
LIMIT = 0.4
# So long the check waits where it hurries the limits of a call.
HURRIED_SECONDS = 0.7
AN_HOUR = 3600
# What no send can turn into bytes: a mistake of our own, in front of every fan.
NO_TEXT = {"goals": 3}


async def raises_our_own(it: Trial, function: Callable[..., Awaitable], websocket: WebSocket, *more: object) -> None:
    """Hand a dict to the learner's broadcast, to one fan who reads: that is no fan's fault, and has to come out."""
    one = {websocket}
    story = "The check made a mistake of its own: it handed over a dict where a text belongs"
    error = await comes_back(it.start(function, one, NO_TEXT, *more), story)
    if error is None:
        taken = "the fan, who reads everything, was dropped for it" if not one else "no fan heard anything"
        raise NotYet(f"{story}. Nothing was raised, and {taken}: a mistake like that would never be found.")
    it.require(one, f"{story}. The error came out, and the fan, who reads everything, was dropped for it.")


# ---- X6.1, a timeout that frees the socket


async def try_broadcast_in_time(it: Trial, broadcast_in_time: Callable[..., Awaitable]) -> str:
    """Four fans read, three sleep, one vanishes; then only those who read are left."""
    connections: set[WebSocket] = set()

    async def endpoint(websocket: WebSocket) -> None:
        # It takes nobody off: that is the learner's part.
        await websocket.accept()
        connections.add(websocket)
        await listen(websocket)

    healthy, asleep, vanishing = (1, 3, 5, 7), (2, 4, 6), 8
    note_timers()
    server, fleet = await crowd(it, endpoint, *["healthy", "stalled"] * 3, "healthy", "healthy")
    await it.until(lambda: len(connections) == 8, "8 fans are connected, and the check has not noted them.")

    def start(text: str, *, limit: float = LIMIT, pace: Pace | None = None) -> asyncio.Task:
        call = it.start(paced, pace or Pace(), broadcast_in_time, connections, text, limit)
        call.set_name("your broadcast")
        return call

    def here() -> list[int]:
        return [fan for fan, websocket in it.websockets.items() if websocket in connections]

    story = "Eight fans are here, and every buffer has room"
    await goes_well(start("kickoff"), story)
    await all_hear(it, fleet, (*healthy, vanishing), ["kickoff"], story)
    it.require(len(here()) == 8, f"{story}; after one broadcast only {here()} of them are in `connections`.")

    await fleet.vanish(vanishing)
    await it.ended(vanishing, "Fan 8 has vanished")
    pace = Pace()
    await goes_well(start("corner", pace=pace), "Fan 8 has vanished")
    await all_hear(it, fleet, healthy, ["kickoff", "corner"], "Fan 8 has vanished")
    together = " You have set one time limit for all sends together: how will you know whose send failed, or was late?"
    it.require(
        vanishing not in here(),
        "Fan 8 has vanished, you have sent to it, and it still is in `connections`."
        + (together if pace.timers == 1 else ""),
    )

    await fill(it, *asleep)
    await while_they_sleep(it, start("GOAL"), server, healthy, asleep, here)
    await all_hear(it, fleet, healthy, ["kickoff", "corner", "GOAL"], "Three of seven fans slept")
    await goes_well(start("replay"), "The sleepers are off the register")
    await all_hear(it, fleet, healthy, ["kickoff", "corner", "GOAL", "replay"], "The sleepers are off the register")

    connections.clear()
    await with_an_hour(it, endpoint, start, connections)
    await raises_our_own(it, broadcast_in_time, it.websockets[1], LIMIT)
    return "Three fans slept: their sockets are free, their time ran side by side, and four fans heard everything."


async def with_an_hour(
    it: Trial, endpoint: Callable, start: Callable[..., asyncio.Task], connections: set[WebSocket]
) -> None:
    """One fan reads and one sleeps, for a minute by the clock of the learner's call; each send may take an hour."""
    reads = len(it.handlers) + 1
    sleeps = reads + 1
    _, fleet = await crowd(it, endpoint, "healthy", "stalled", name="an hour")
    await it.until(lambda: len(connections) == 2, "2 fans are connected, and the check has not noted them.")
    await fill(it, sleeps)
    story = f"Two new fans, and one sleeps; this time each send may take an hour, `timeout` is {AN_HOUR}"
    call = start("whistle", limit=AN_HOUR, pace=Pace(HURRY))
    with suppress(NotYet):
        await it.until(lambda: call.done() or it.of(sleeps, "failed"), "", within=HURRIED_SECONDS)
    it.require(
        not call.done() and not it.of(sleeps, "failed"),
        f"{story}. Within a minute the sleeper's send was over, unsent: which limit was that?",
    )
    await fleet.wake(2)
    await goes_well(call, f"{story}. After a minute it wakes up")
    await all_hear(it, fleet, (1, 2), ["whistle"], f"{story}. After a minute it wakes up")
    it.require(
        {it.websockets[reads], it.websockets[sleeps]} == connections,
        f"{story}. After a minute it wakes up, and both hear it; {len(connections)} of 2 are in `connections` then.",
    )


async def while_they_sleep(
    it: Trial,
    call: asyncio.Task,
    server: LabServer,
    healthy: tuple[int, ...],
    asleep: tuple[int, ...],
    here: Callable[[], list[int]],
) -> None:
    """Judge a broadcast to fans of whom some sleep: who was sent to, when, who was dropped, whose socket is free."""
    story = "Fans 2, 4 and 6 sleep, fans 1, 3, 5 and 7 read"
    before = len(it.events)
    try:
        error = await comes_back(call, story)
    except NotYet as never:
        closing = [fan for fan in asleep if it.of(fan, "close")]
        if closing:
            raise NotYet(f"{never} A close frame has to pass the full buffer too, behind the messages.") from None
        raise
    if isinstance(error, TimeoutError):
        raise NotYet(
            f"{story}. A TimeoutError came out of your broadcast, in {line_in(error)}: whose time was up? "
            "Whoever called it cannot know, and nobody was dropped."
        )
    if isinstance(error, ExceptionGroup) and any(isinstance(each, TimeoutError) for each in inside(error)):
        raise NotYet(
            f"{story}. An ExceptionGroup came out of your broadcast, from {line_in(error)}; inside: TimeoutError, for "
            "a fan who sleeps. The first one cancelled all the others."
        )
    if error is not None:
        raise error
    begun = of_text(it, "GOAL")
    never = sorted({*healthy, *asleep} - set(begun))
    if never:
        raise NotYet(
            f"{story}. Your broadcast came back, and for {naming(never)} no send had begun: one time limit ended the "
            "whole round, for those behind the first sleeper too."
        )
    events = it.events[before:]
    first = next((place for place, event in enumerate(events) if event.what == "failed"), len(events))
    early = {event.connection for event in events[:first] if event.what == "send"}
    it.require(
        early >= {*healthy, *asleep},
        f"{story}. When the time of the first sleeper was up, sends had begun for {len(early & set(asleep))} of the 3 "
        "sleepers: each waits until the one before has had its time, and a hundred sleepers need a hundred times that.",
    )
    cut = [fan for fan in healthy if it.of(fan, "close", "disconnect")]
    if cut:
        raise NotYet(f"{story}. Your broadcast ended the connection of {naming(cut)}, who read everything.")
    off = [fan for fan in healthy if fan not in here()]
    if off:
        raise NotYet(f"{story}. Your broadcast took {naming(off)}, who read everything, off the register.")
    # An abort closes the socket at the loop's next turn.
    with suppress(NotYet):
        await it.until(lambda: server.connections == len(healthy), "", within=0.5)
    sockets = f"the server has {server.connections} connections open"
    kept = [fan for fan in asleep if fan in here()]
    if kept:
        raise NotYet(
            f"{story}. The time of the sleepers is over; {naming(kept)} still stand in `connections`, and {sockets}. "
            "What will the next broadcast do?"
        )
    it.require(
        server.connections == len(healthy),
        f"{story}. The sleepers are off the register, and {sockets}, where 4 fans read: who is forgotten keeps a "
        "socket and full buffers until the phone wakes up, perhaps never.",
    )


# ---- X6.2 and X6.4, room for some messages


async def try_mailbox_manager(it: Trial, mailbox_manager: type) -> str:
    """With room for 3: two fans read, two sleep; one of these wakes up, and one vanishes. Then a sleeper alone."""
    await try_room(it, mailbox_manager, 3, 3)
    await try_memory(it, mailbox_manager, 3, 3)
    return "A sleeper woke up to the last 3 messages, who reads heard all of them, and nothing was left behind."


async def try_latest_manager(it: Trial, latest_manager: type) -> str:
    """With room for one message: two fans read, two sleep; one wakes up, and one vanishes. Then a sleeper alone."""
    await try_room(it, latest_manager, 1)
    await try_memory(it, latest_manager, 1)
    return "A sleeper woke up to the newest message, who reads heard all of them, and nothing was left behind."


def endpoint_of(manager: object) -> Callable[[WebSocket], Awaitable[None]]:
    """Return the endpoint of the notebook: connect, listen, and disconnect at the end."""
    for verb in ("connect", "disconnect", "broadcast"):
        if not hasattr(manager, verb):
            raise NotYet(f"{type(manager).__name__} has no method `{verb}`.")

    async def endpoint(websocket: WebSocket) -> None:
        await awaitable(manager.connect, websocket)
        if websocket.application_state is WebSocketState.CONNECTING:
            raise NotYet("A fan is at the door; your connect() has come back, and has not accepted it.")
        try:
            await listen(websocket)
        finally:
            manager.disconnect(websocket)

    return endpoint


async def say(it: Trial, manager: object, text: str, story: str) -> None:
    """Let the learner's manager broadcast a text; it must come back though somebody sleeps, and wait for nobody."""
    call = it.start(manager.broadcast, text)
    call.set_name("your broadcast")
    for _ in range(TURNS):
        await asyncio.sleep(0)
    waits = "" if call.done() else standing(call)
    await goes_well(call, f"{story}. It is the turn of {text!r}")
    it.no_crash()
    if waits:
        raise NotYet(
            f"{story}. It is the turn of {text!r}, and your broadcast has to wait before it comes back: {waits}. "
            "What is there to wait for? Sending is the business of each fan's own task."
        )


async def try_room(it: Trial, make: type, room: int, *arguments: object) -> None:
    """Fans 1 and 3 read, fan 2 sleeps and wakes up, fan 4 vanishes in its sleep."""
    manager = called(make, *arguments)
    _, fleet = await crowd(it, endpoint_of(manager), "healthy", "stalled", "healthy", "stalled")
    await fill(it, 2, 4)
    texts = [f"{number} GOAL" for number in range(1, 13)]
    story = f"Fans 2 and 4 sleep, with room for {room} each; fans 1 and 3 read"
    for number, text in enumerate(texts, 1):
        await say(it, manager, text, story)
        await all_hear(it, fleet, (1, 3), texts[:number], story)

    await fleet.wake(2)
    with suppress(NotYet):
        await it.until(lambda: texts[-1] in heard_by(fleet)[2], "")
    it.no_crash()
    woken = heard_by(fleet)[2]
    judge_waking(woken, texts, room, let_go=bool(it.has_ended(2) or it.of(2, "failed", "close")))

    await fleet.vanish(4)
    await it.ended(4, "Fan 4 has vanished in its sleep")
    it.no_crash()
    story = "Fan 2 is awake, and fan 4 has vanished"
    await say(it, manager, "13 GOAL", story)
    await all_hear(it, fleet, (1, 3), [*texts, "13 GOAL"], story)
    await all_hear(it, fleet, (2,), [*woken, "13 GOAL"], story)
    await fleet.leave(1)
    await fleet.hang_up(2, 3)
    for fan in (1, 2, 3):
        await it.ended(fan, f"Fan {fan} has gone home")
    it.no_crash()
    await nothing_is_left(it, manager)


def judge_waking(heard: list[str], texts: list[str], room: int, *, let_go: bool) -> None:
    """Judge what a fan hears when it wakes up: at most one message that was on its way, then the newest ones."""
    story = f"Fan 2 slept while {len(texts)} messages went out, with room for {room}. It wakes up and hears "
    story += f"{' · '.join(heard)}" if heard else "none of them"
    # The first one may have been on its way before the others came.
    waited = [text for text in heard if text != texts[0]]
    if not waited and let_go:
        raise NotYet(f"{story}, and then nothing more: you have let it go. It may miss messages; it has not gone.")
    if not waited:
        raise NotYet(f"{story}, and then nothing more: who sends to a fan that has slept?")
    if waited != sorted(waited, key=texts.index):
        raise NotYet(f"{story}: that is not the order in which they were sent.")
    if waited[-1] != texts[-1]:
        raise NotYet(f"{story}: the newest is not among them. Which message has to go when there is no room?")
    if len(waited) > room:
        raise NotYet(f"{story}: {texts[0]!r} may have been on its way, and {len(waited)} more had waited.")
    if len(waited) < room:
        raise NotYet(f"{story}: {texts[0]!r} may have been on its way, and where {room} fit, {len(waited)} had waited.")
    if waited != texts[-room:]:
        raise NotYet(f"{story}: the {room} that waited are not the newest.")


def still_running() -> list[str]:
    """Return where the tasks stand that wait in the learner's code."""
    stories = (standing(task) for task in asyncio.all_tasks())
    return [story for story in stories if "in line" in story]


async def nothing_is_left(it: Trial, manager: object) -> None:
    """See that everybody who has gone is forgotten: no task that waits for work, no connection that is kept."""
    with suppress(NotYet):
        await it.until(lambda: not still_running(), "", within=1.0)
    running = still_running()
    if running:
        raise NotYet(
            f"All four fans have gone, and {len(running)} of your tasks still run: of the first one, {running[0]}. "
            "Who ends a task when its fan goes?"
        )
    watched = {fan: weakref.ref(websocket) for fan, websocket in it.websockets.items()}
    it.websockets.clear()
    gc.collect()
    kept = [fan for fan, websocket in watched.items() if websocket() is not None]
    if kept:
        raise NotYet(
            f"All four fans have gone, and your {type(manager).__name__} still holds {naming(kept)}: "
            "every fan who ever came would stay in memory."
        )


class Tracked(str):
    """A text that can be watched: whether anybody still holds it."""


async def try_memory(it: Trial, make: type, room: int, *arguments: object) -> None:
    """One fan, and it sleeps; of 40 messages only those are held for which there is room."""
    manager = called(make, *arguments)
    first = len(it.handlers) + 1
    _, fleet = await crowd(it, endpoint_of(manager), "stalled", name="alone")
    await fill(it, first)
    watched = []
    for number in range(1, 41):
        text = Tracked(f"{number} GOAL")
        watched.append(weakref.ref(text))
        await say(it, manager, text, "The only fan sleeps")
        del text
    # The log holds the text of each send that has begun, also of one that was given up.
    it.events.clear()
    gc.collect()
    held = sum(text() is not None for text in watched)
    # One more is on its way, and one may be between the two.
    it.require(
        held <= room + 2,
        f"The only fan sleeps, with room for {room}; 40 messages went out, and {held} of them are still in memory. "
        "When a fan wakes up is too late to throw away what does not fit.",
    )
    await fleet.vanish(1)
    await it.ended(first, "The only fan has vanished")
    it.no_crash()


# ---- X6.3, tasks that nobody waits for


async def try_tell_fans(it: Trial, tell_fans: Callable[..., Awaitable]) -> str:
    """Seven fans come and one vanishes; then three sleep while a feed goes on, and wake up."""
    connections: set[WebSocket] = set()

    async def endpoint(websocket: WebSocket) -> None:
        # It takes nobody off: that is the learner's part.
        await websocket.accept()
        connections.add(websocket)
        await listen(websocket)

    healthy, asleep, vanishing = (1, 3, 5), (2, 4, 6), 7
    note_timers()
    _, fleet = await crowd(it, endpoint, *["healthy", "stalled"] * 3, "healthy")
    await it.until(lambda: len(connections) == 7, "7 fans are connected, and the check has not noted them.")
    unread: list[str] = []
    # Errors that nobody reads come out here, as they would in the log.
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: unread.append(context["message"]))

    await fleet.vanish(vanishing)
    await it.ended(vanishing, "Fan 7 has vanished")
    await one_round(it, tell_fans, connections, unread)
    await all_hear(it, fleet, healthy, ["kickoff"], "Fan 7 has vanished")

    await fill(it, *asleep)
    texts = [f"{number} GOAL" for number in range(1, 11)]
    returned: list[int] = []
    awake = asyncio.Event()

    async def feed() -> None:
        for text in texts:
            await awaitable(tell_fans, connections, text)
            returned.append(sum(under_way(it, fan) for fan in asleep))
            if len(returned) > 1:
                await awake.wait()

    call = it.start(paced, Pace(HURRY), feed)
    call.set_name("your function")
    await while_the_feed_waits(it, call, connections, asleep, texts, returned)
    off = [fan for fan in asleep if it.websockets[fan] not in connections]
    if off:
        raise NotYet(
            f"Fans 2, 4 and 6 sleep. Your function waits for them, and {naming(off)} went off `connections` meanwhile. "
            "A sleeper has not gone."
        )
    awake.set()
    await fleet.wake(*asleep)
    story = "Fans 2, 4 and 6 slept while ten messages went out one after another, and woke up"
    await goes_well(call, story)
    await all_hear(it, fleet, (*healthy, *asleep), ["kickoff", *texts], story)

    await raises_our_own(it, tell_fans, it.websockets[1])
    gc.collect()
    it.require(not unread, f"{len(unread)} errors were read by nobody: {unread[:1]}.")
    return "Whenever your function came back, its sends had ended and who was gone was dropped; the order was kept."


async def one_round(it: Trial, tell_fans: Callable, connections: set[WebSocket], unread: list[str]) -> None:
    """Judge one call while one of seven fans has vanished: what had ended when it came back, and who was dropped."""
    seen = []

    async def call_it() -> None:
        await awaitable(tell_fans, connections, "kickoff")
        # At this very moment, before any other task has a turn.
        seen.append((len(of_text(it, "kickoff")), sum(under_way(it, fan) for fan in it.websockets)))

    call = it.start(call_it)
    call.set_name("your function")
    await goes_well(call, "Fan 7 has vanished")
    begun, waiting = seen[0]
    await it.until(lambda: len(of_text(it, "kickoff")) == 7, "7 fans are here, and not all of them were sent to.")
    with suppress(NotYet):
        await it.until(lambda: not any(under_way(it, fan) for fan in it.websockets), "")
    gc.collect()
    stands = "still stands in `connections`" if it.websockets[7] in connections else "is off the register by then"
    error = "its error was read by nobody" if unread else "its error was read"
    it.require(
        begun == 7 and not waiting,
        f"Your function came back when {begun} of 7 sends had begun, and {begun - waiting} had ended. One of them "
        f"fails afterwards, since fan 7 has vanished: the fan {stands}, and {error}. Who waits for a send, and "
        "hears how it ends?",
    )
    it.require(
        it.websockets[7] not in connections,
        f"Fan 7 has vanished. Your function waited for all sends, {error}, and fan 7 still stands in `connections`.",
    )
    it.require(
        len(connections) == 6, f"One of 7 fans has vanished, and {len(connections)} are left: whose send has failed?"
    )


async def while_the_feed_waits(
    it: Trial,
    call: asyncio.Task,
    connections: set[WebSocket],
    asleep: tuple[int, ...],
    texts: list[str],
    returned: list[int],
) -> None:
    """Judge a feed whose first message waits for three sleepers: who is sent to meanwhile, and what piles up."""
    story = "Fans 2, 4 and 6 sleep"
    with suppress(NotYet):
        await it.until(lambda: set(asleep) <= set(of_text(it, texts[0])) or call.done(), "", within=1.0)
    begun = len(set(asleep) & set(of_text(it, texts[0])))
    it.require(
        begun == 3 or call.done(),
        f"{story}. Your function waits for one of them, {standing(call).removeprefix('it waits ')}; the sends for "
        f"{3 - begun} others have not begun: whoever stands behind a sleeper hears nothing.",
    )
    # A send to a sleeper does not end. A limit does: more than a minute of the call's own clock goes by here.
    with suppress(NotYet):
        await it.until(lambda: len(returned) > 1 or call.done(), "", within=HURRIED_SECONDS)
    if call.done() and isinstance(call.exception(), TimeoutError):
        raise NotYet(
            f"{story}. A TimeoutError came out of your function, in {line_in(call.exception())}. "
            "A sleeper has not gone: for how long shall the function wait for it?"
        )
    if call.done() and call.exception() is not None:
        raise call.exception()
    if not returned:
        return
    ended = [fan for fan in asleep if it.of(fan, "failed", "close")]
    if ended:
        off = [fan for fan in ended if it.websockets[fan] not in connections]
        what = "they are off `connections`" if off else f"{texts[0]!r} never reaches them"
        raise NotYet(
            f"Your function came back while {naming(asleep)} slept; their sends were ended early, and {what}. "
            "A sleeper has not gone."
        )
    times = "once" if len(returned) == 1 else "twice"
    raise NotYet(
        f"{story}. Your function came back {times} meanwhile, and {returned[-1]} sends to sleepers were still under "
        "way: with every message there are more."
    )


EXERCISES = [
    Exercise(
        identifier="X6.1",
        answer="broadcast_in_time",
        statement="Fill in broadcast_in_time(): each send gets `timeout` seconds. Who needs longer is dropped and its "
        "socket freed, who is gone is dropped, and any other error is raised.",
        hints=(
            "Two things are missing: a limit for each send, and what becomes of the other results. "
            "What does `gather` hand back for a send that took too long?",
            "There are four kinds of results: nothing, a TimeoutError, the two errors of a fan who has gone, and what "
            "nobody expected. Taking a connection off the register does not close its socket.",
            "Give each send to `asyncio.wait_for`. For a TimeoutError call `abort`; for that one and for the two "
            "errors of the gone discard the connection; raise what is left and is not None.",
        ),
        trial=try_broadcast_in_time,
    ),
    Exercise(
        identifier="X6.2",
        answer="MailboxManager",
        statement="Change MailboxManager so that at most `size` messages wait for a fan. When there is no room, the "
        "oldest that waits goes; nobody else notices, and broadcast() waits for nobody.",
        hints=(
            "Where do a sleeper's messages pile up, and which line puts them there?",
            "`asyncio.Queue` takes a size. A full queue has to be relieved of one message before the new one fits, "
            "and without waiting: the queue of a sleeper never gets emptier by itself.",
            "Make each queue with room for `self.size`. In broadcast(), ask whether this queue is full; if it is, take "
            "one out without waiting, and then put the new one in.",
        ),
        trial=try_mailbox_manager,
    ),
    Exercise(
        identifier="X6.3",
        answer="tell_fans",
        statement="Find the bug in tell_fans(): gone fans stay in the register though there is an `except` for them, "
        "and the log says “Task exception was never retrieved”. There is no time limit here: who sleeps stays in "
        "`connections`, and the function waits until the phone wakes up.",
        hints=(
            "At which moment does `create_task` return, and at which does the send fail? Where is the `try` by then?",
            "A task tells how it ended only to somebody who waits for it. All tasks must have begun before you wait "
            "for the first one, or a sleeper holds up the others.",
            "Keep the tasks in a list, wait for all of them with `gather` and `return_exceptions=True`, and go through "
            "the results: drop who is gone, raise anything else.",
        ),
        trial=try_tell_fans,
    ),
    Exercise(
        identifier="X6.4",
        answer="LatestManager",
        statement="Make LatestManager, with connect(), disconnect() and broadcast(): for each fan at most one message "
        "waits, the newest. Who reads hears all, who wakes up hears the newest, and who goes leaves nothing behind.",
        hints=(
            "broadcast() must not wait for anybody. So something else sends: what did the notebook give to each fan?",
            "A box for each fan, with room for one message, and a task that takes from the box and sends. A new "
            "message takes the place of the one that lies there.",
            "connect() accepts, makes an `asyncio.Queue(1)` and a task, and keeps both by connection. broadcast() "
            "empties a full box before it fills it. disconnect() takes both out again and cancels the task.",
        ),
        trial=try_latest_manager,
    ),
]
