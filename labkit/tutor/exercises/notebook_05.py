"""Exercises of notebook 05, "Where should this code live?": what is asked, three hints, and the trial of each."""

import asyncio
import inspect
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack, suppress

from fastapi import WebSocket, WebSocketDisconnect
from starlette.websockets import WebSocketState
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from labkit.apparatus.server import LabServer
from labkit.tutor.exercises import Exercise
from labkit.tutor.lines import line_in, name_of, standing
from labkit.tutor.trial import PATIENCE, NotYet, Trial, awaitable, called

FENCE = "fence"
# What a manager may stumble over; the errors of a typing mistake are shown as they are.
STUMBLES = (WebSocketDisconnect, RuntimeError, KeyError, ValueError)
# Seconds for sends that a broadcast has left to tasks of its own.
BEHIND = 1.0
# A set has no order: with so many, a walk meets one who is gone before it has met both who are here.
CROWD = 30

Fans = dict[int, ClientConnection]


# ---- what the four trials share


def made(manager_class: type, *verbs: str) -> object:
    """Return an instance of the learner's class; raise NotYet where it cannot be made or lacks a verb."""
    name = manager_class.__name__
    if not inspect.isclass(manager_class):
        raise NotYet(f"{name} is a function; the endpoint needs a class with the verbs {', '.join(verbs)}.")
    manager = called(manager_class)
    missing = [verb for verb in verbs if not callable(getattr(manager, verb, None))]
    if missing:
        raise NotYet(f"The endpoint calls {missing[0]}(), and your {name} has no such verb.")
    return manager


def endpoint_of(manager: object, let_go: Callable, late: Iterable[int] = ()) -> Callable:
    """Return an endpoint: connect, in the room that the address names, listen, and let go.

    let_go: calls the manager's disconnect. late: numbers of connections whose handlers do not come to that.
    """

    async def follow(websocket: WebSocket) -> None:
        await takes_in(manager, websocket, *websocket.query_params.values())
        try:
            async for _ in websocket.iter_text():
                pass
        finally:
            if websocket.scope["connection"] not in late:
                await let_go(websocket)

    return follow


async def takes_in(manager: object, websocket: WebSocket, *room: str) -> None:
    """Call `connect`; raise NotYet where the fan is not in afterwards."""
    await awaitable(manager.connect, websocket, *room)
    if websocket.application_state != WebSocketState.CONNECTED:
        raise NotYet("Your connect came back, and the fan still stands at the door: who accepts the connection?")


def at_once(it: Trial, manager: object) -> Callable:
    """Return what calls a plain `disconnect`."""

    async def let_go(websocket: WebSocket) -> None:
        it.result_of(manager.disconnect, websocket)

    return let_go


async def come(it: Trial, stack: AsyncExitStack, server: LabServer, path: str, *numbers: int) -> Fans:
    """Let fans come in, one after another; the numbers are those that their connections will have."""
    return {number: await it.comes_in(stack, server, f"Fan {number}", path=path) for number in numbers}


def said(error: BaseException) -> str:
    """Return an error in words, with the learner's line."""
    # Whoever looks up a connection gets its address in memory for a message.
    message = "" if " object at 0x" in str(error) else str(error)
    text = f"{name_of(error)}: {message}".removesuffix(": ").removesuffix(".")
    line = line_in(error)
    return f"{text}, in {line}" if line else text


async def comes_back(call: asyncio.Task, story: str) -> None:
    """Wait for a call of the learner's code; raise NotYet, with the story, where it fails or does not return."""
    await asyncio.wait({call}, timeout=PATIENCE)
    if not call.done():
        raise NotYet(f"{story} has not come back: {standing(call)}.")
    if call.cancelled():
        raise NotYet(f"{story} ended in a cancellation, and nobody had asked for one.")
    error = call.exception()
    if isinstance(error, STUMBLES):
        raise NotYet(f"{story} raised {said(error)}.")
    if error is not None:
        raise error


async def goes(it: Trial, number: int, story: str) -> None:
    """Wait until the handler of a fan who has gone has ended; raise NotYet where the manager stumbled over it."""
    await it.ended(number, story)
    error = it.crashes.get(number)
    if isinstance(error, NotYet):
        raise error
    it.require(error is None, f"{story}; the handler called disconnect, and ended in {it.crash_of(number)}.")


async def heard_by(it: Trial, fans: Fans) -> dict[int, list[str]]:
    """Send each fan a fence from the server's end, and return what it has heard before that."""
    heard = {}
    for number, fan in fans.items():
        heard[number] = []
        try:
            await it.websockets[number].send_text(FENCE)
            async with asyncio.timeout(PATIENCE):
                while (text := await fan.recv()) != FENCE:
                    heard[number].append(text)
        except (WebSocketDisconnect, RuntimeError, ConnectionClosed, TimeoutError):
            raise NotYet(f"Fan {number} wants to stay, and is no longer connected. Who closes it?") from None
    return heard


async def reaches(it: Trial, manager: object, fans: Fans, news: tuple[str, ...], expected: list[int], story: str):
    """Broadcast; raise NotYet unless the expected fans hear the text, each of them once, and the others nothing.

    news: the text, and its room if there are rooms.
    """
    shown = f"broadcast({', '.join(map(repr, news))})"
    await comes_back(it.start(manager.broadcast, *news), f"{story}; then {shown}")
    await reached(it, fans, news[0], expected, f"{story}; then came {shown}")


async def reached(it: Trial, fans: Fans, text: str, expected: list[int], story: str) -> None:
    """Raise NotYet unless the expected fans have heard the text, each of them once, and the others nothing."""
    with suppress(NotYet):
        # A broadcast may leave the sending to tasks, and they get a moment for it.
        await it.until(lambda: all(sent(it, number, text) for number in expected), "", within=BEHIND)
    heard = await heard_by(it, fans)
    missing = [number for number in expected if text not in heard[number]]
    it.require(not missing, f"{story}, and {named(missing)} never heard it.")
    others = [number for number in fans if number not in expected and heard[number]]
    it.require(not others, f"{story}, and {named(others)} heard it, for whom it was not meant.")
    for number in expected:
        count, beside = heard[number].count(text), [each for each in heard[number] if each != text]
        it.require(count == 1, f"{story}, and fan {number} heard it {count} times, in place of once.")
        it.require(not beside, f"{story}, and fan {number} heard {in_words(beside)} beside it.")


def sent(it: Trial, number: int, text: str) -> bool:
    """Whether a text has been sent on a connection."""
    return any(event.detail == text for event in it.of(number, "sent"))


def named(numbers: list[int]) -> str:
    """Return "fan 3" or "fans 3, 5 and 6"."""
    *first, last = map(str, numbers or ["none"])
    return f"fans {', '.join(first)} and {last}" if first else f"fan {last}"


# ---- X5.1


async def try_disconnect(it: Trial, manager_class: type) -> str:
    """Let go twice, refuse a fan, take a fan of another manager for one's own, and let a fan leave."""
    manager, other = (made(manager_class, "connect", "disconnect", "broadcast") for _ in range(2))

    async def members(websocket: WebSocket) -> None:
        try:
            if "token" not in websocket.query_params:
                await websocket.close()
                return
            await takes_in(manager, websocket)
            async for _ in websocket.iter_text():
                pass
        finally:
            it.result_of(manager.disconnect, websocket)

    server = await it.serve(members)
    elsewhere = await it.serve(endpoint_of(other, at_once(it, other)), name="elsewhere")
    async with AsyncExitStack() as stack:
        fans = await come(it, stack, server, "/ws?token=1", 1, 2, 3, 4)
        await reaches(it, manager, fans, ("GOAL 1",), [1, 2, 3, 4], "Four fans have come")
        story = "Fan 2 of 4 was let go"
        lets_go(it, manager, 2, story)
        await reaches(it, manager, fans, ("GOAL 2",), [1, 3, 4], story)
        story = "Fan 2 of 4 was let go twice"
        lets_go(it, manager, 2, story)
        await reaches(it, manager, fans, ("GOAL 3",), [1, 3, 4], story)
        with suppress(InvalidStatus):
            async with it.fan(server):
                pass
        story = "Fan 5 was refused before `connect`"
        await goes(it, 5, story)
        await reaches(it, manager, fans, ("GOAL 4",), [1, 3, 4], story)
        story = "Fan 6 follows another manager of your class, and this one was asked to let it go"
        stranger = await come(it, stack, elsewhere, "/ws", 6)
        lets_go(it, manager, 6, story)
        await reaches(it, other, stranger, ("from the other one",), [6], story)
        await fans.pop(3).close()
        story = "Fan 3 said goodbye"
        await goes(it, 3, story)
        await reaches(it, manager, fans, ("GOAL 5",), [1, 4], story)
        await fans.pop(2).close()
        await goes(it, 2, "Fan 2, let go twice before, said goodbye")
        await reaches(it, manager, fans, ("GOAL 6",), [1, 4], "Fan 2, too, is at home")
    return "Fans were let go twice, before they were in, and by the wrong manager; those who stayed heard every goal."


def lets_go(it: Trial, manager: object, number: int, story: str) -> None:
    """Call `disconnect`; raise NotYet, with the story, where it fails."""
    try:
        it.result_of(manager.disconnect, it.websockets[number])
    except STUMBLES as error:
        raise NotYet(f"{story}, and your disconnect raised {said(error)}.") from None


# ---- X5.2


async def try_rooms(it: Trial, manager_class: type) -> str:
    """Goals in two rooms and in one where nobody is; one room empties and fills again; one fan vanishes unseen."""
    manager = made(manager_class, "connect", "disconnect", "broadcast")
    late: set[int] = set()
    server = await it.serve(endpoint_of(manager, at_once(it, manager), late))
    final, semifinal = "/ws?room=final", "/ws?room=semifinal"
    async with AsyncExitStack() as stack:
        fans = await come(it, stack, server, final, 1, 2, 3) | await come(it, stack, server, semifinal, 4, 5)
        story = "Fans 1, 2 and 3 are in the final, 4 and 5 in the semifinal"
        await reaches(it, manager, fans, ("GOAL 1", "semifinal"), [4, 5], story)
        await reaches(it, manager, fans, ("GOAL 2", "final"), [1, 2, 3], story)
        rooms_are(it, manager, ["final", "semifinal"], story)
        await reaches(it, manager, fans, ("GOAL 3", "cup"), [], "Nobody is in the room “cup”")
        rooms_are(it, manager, ["final", "semifinal"], "A goal came for the room “cup”, where nobody is")

        await fans.pop(4).close()
        story = "Fan 4 left the semifinal, and fan 5 is still in it"
        await goes(it, 4, story)
        await reaches(it, manager, fans, ("GOAL 4", "semifinal"), [5], story)
        await reaches(it, manager, fans, ("GOAL 5", "final"), [1, 2, 3], story)
        story = "Fan 4, who had left, was let go once more"
        lets_go(it, manager, 4, story)
        await reaches(it, manager, fans, ("GOAL 6", "semifinal"), [5], story)

        fans.pop(5).transport.abort()
        story = "Fans 4 and 5, all who were in the semifinal, have left"
        await goes(it, 5, story)
        still = len(manager.rooms.get("semifinal", ()))
        it.require(not still, f"{story}, and {still} of them stand in it.")
        rooms_are(it, manager, ["final"], story)
        await reaches(it, manager, fans, ("GOAL 7", "semifinal"), [], story)
        fans |= await come(it, stack, server, semifinal, 6)
        await reaches(it, manager, fans, ("GOAL 8", "semifinal"), [6], f"{story}; fan 6 has come to it")

        late.add(2)
        fans.pop(2).transport.abort()
        await it.ended(2, "Fan 2 has vanished")
        story = "Fan 2 vanished from the final, and its handler had not let it go"
        await reaches(it, manager, fans, ("GOAL 9", "final"), [1, 3], story)
    return "Nine goals reached those in their room, once each, and nobody else; no room was left behind empty."


def rooms_are(it: Trial, manager: object, expected: list[str], story: str) -> None:
    """Raise NotYet unless the rooms that the manager keeps are those in which somebody is."""
    rooms = getattr(manager, "rooms", None)
    it.require(
        isinstance(rooms, Mapping),
        f"{story}: the goals went where they should. `rooms` is to be a dict, from the name of a room to those who "
        f"are in it; yours is {rooms!r:.60}.",
    )
    it.require(
        sorted(map(str, rooms)) == expected,
        f"{story}. The rooms with somebody in them are {expected}, and your `rooms` holds {sorted(map(str, rooms))}: "
        "with a room for each match, what does a season leave behind?",
    )


# ---- X5.3


async def try_bad_connection(it: Trial, manager_class: type) -> str:
    """One vanishes while the loop waits for it and one comes, others go otherwise, and a text is no text."""
    manager = made(manager_class, "connect", "disconnect", "broadcast")
    late: set[int] = set()
    server = await it.serve(endpoint_of(manager, at_once(it, manager), late), send_buffer_bytes=16_384)
    async with AsyncExitStack() as stack:
        fans = await come(it, stack, server, "/ws", 1, 2, 3)
        tunnel = await it.fleet(server, stalled=1, receive_buffer_bytes=4_096)
        fans |= await come(it, stack, server, "/ws", 5, 6, 7, 8, 9)

        # This one fills what lies between; the next message for fan 4 has to wait.
        await it.websockets[4].send_text("x" * 500_000)
        call = it.start(manager.broadcast, "GOAL 1")
        await it.until(
            lambda: it.of(4, "send")[-1].detail == "GOAL 1" or call.done(),
            "Nine fans are here; your broadcast goes on and on, and fan 4 has not been sent the goal.",
        )
        newcomer = await come(it, stack, server, "/ws", 10)
        await newcomer[10].send("I am in")
        await it.until(lambda: it.of(10, "receive"), "Fan 10 has come, said something, and is not heard.")
        was_in = stands_in(manager, it.websockets[10])
        await tunnel.vanish(1)
        story = "Fan 4 of 9 vanished while your broadcast waited for it"
        await comes_back(call, f"{story}; then broadcast('GOAL 1')")
        await reached(it, fans, "GOAL 1", list(fans), story)
        await goes(it, 4, "Fan 4 has vanished")
        # Whether it heard that goal, too, is left open: it came in the middle.
        await heard_by(it, newcomer)
        story = "Fan 10 came while your broadcast waited for fan 4"
        if was_in and not stands_in(manager, it.websockets[10]):
            story += "; after the round it was off the list"
        await reaches(it, manager, fans | newcomer, ("CORNER",), [*fans, 10], story)
        await newcomer[10].close()
        await goes(it, 10, "Fan 10 said goodbye")

        late.update({6, 8})
        fans.pop(6).transport.abort()
        await it.ended(6, "Fan 6 has vanished")
        story = "Fan 6 had vanished, and nobody had let it go yet"
        await reaches(it, manager, fans, ("GOAL 2",), list(fans), story)
        it.require(
            not stands_in(manager, it.websockets[6]),
            f"{story}. GOAL 2 met it, and it stands there still: with each one who goes so, the list gets longer, and "
            "each goal dearer.",
        )

        await it.websockets[8].close()
        fans.pop(8)
        await it.ended(8, "Fan 8 was closed from our side")
        story = "Fan 8 was closed from our side, and stood in the list"
        await reaches(it, manager, fans, ("GOAL 3",), list(fans), story)
        await tells_a_mistake(it, manager, fans)
    return "Three connections went bad in three ways, and everyone else heard every goal; a caller's mistake was heard."


def stands_in(manager: object, websocket: WebSocket) -> bool:
    """Whether a connection stands in one of the containers that a manager keeps."""
    return any(websocket in kept for kept in vars(manager).values() if isinstance(kept, (list, tuple, set, dict)))


async def tells_a_mistake(it: Trial, manager: object, fans: Fans) -> None:
    """Broadcast what is no text; the caller must hear of that, and no fan may be let go for it."""
    mistaken = it.start(manager.broadcast, 7)
    await asyncio.wait({mistaken}, timeout=PATIENCE)
    story = "Somebody called broadcast(7), which is no text; no connection was bad"
    it.require(mistaken.done(), f"{story}. Your broadcast has not come back: {standing(mistaken)}.")
    raised = mistaken.cancelled() or mistaken.exception()
    heard = sorted({text for texts in (await heard_by(it, fans)).values() for text in texts})
    it.require(
        raised or not heard,
        f"{story}. Your broadcast came back as if all were well, and the fans heard {', '.join(map(repr, heard))}: who "
        "shall find this mistake?",
    )
    await reaches(it, manager, fans, ("GOAL 4",), list(fans), story)
    it.require(raised, f"{story}. Your broadcast came back as if all were well: who shall find this mistake?")


# ---- X5.4


async def try_presence(it: Trial, manager_class: type) -> str:
    """Fans come to two rooms and leave them, one is let go twice, and a crowd is gone before its handlers know."""
    manager = made(manager_class, "connect", "disconnect")
    late: set[int] = set()

    async def let_go(websocket: WebSocket) -> None:
        await awaitable(manager.disconnect, websocket)

    server = await it.serve(endpoint_of(manager, let_go, late))
    final, semifinal = "/ws?room=final", "/ws?room=semifinal"
    async with AsyncExitStack() as stack:
        fans: Fans = {}
        for number, path, text in (
            (1, final, "final: 1"),
            (2, final, "final: 2"),
            (3, semifinal, "semifinal: 1"),
            (4, final, "final: 3"),
        ):
            fans |= await come(it, stack, server, path, number)
            room = text.partition(":")[0]
            inside = [each for each in fans if (each == 3) == (room == "semifinal")]
            await hear(it, fans, text, inside, f"Fan {number} has come to the {room}")

        gone = it.websockets[2]
        await fans.pop(2).close()
        story = "Fan 2 has left the final"
        await goes(it, 2, story)
        await hear(it, fans, "final: 2", [1, 4], story)
        story = "Fan 2, who had left, was let go once more"
        await comes_back(it.start(manager.disconnect, gone), f"{story}; disconnect()")
        await hear(it, fans, "", [], story)
        await fans.pop(3).close()
        story = "Fan 3, the only one, has left the semifinal"
        await goes(it, 3, story)
        await hear(it, fans, "", [], story)
        fans |= await come(it, stack, server, semifinal, 5)
        await hear(it, fans, "semifinal: 1", [5], f"{story}; fan 5 has come to it")
        await fans.pop(5).close()
        await goes(it, 5, "Fan 5 has left the semifinal")
        fans.pop(4).transport.abort()
        await goes(it, 4, "Fan 4 has vanished")
        await heard_by(it, fans)
        await beside_a_crowd(it, stack, manager, server, fans, late)
    return "Fans came to two rooms and left them; each room heard its own number after each change, and no other."


async def beside_a_crowd(
    it: Trial, stack: AsyncExitStack, manager: object, server: LabServer, fans: Fans, late: set[int]
) -> None:
    """A fan comes while many who are gone are still noted; then their handlers let them go."""
    first = max(it.websockets) + 1
    crowd = range(first, first + CROWD)
    late.update(crowd)
    fleet = await it.fleet(server, "/ws?room=final", healthy=CROWD)
    await fleet.hang_up(*range(1, CROWD + 1))
    for number in crowd:
        await it.ended(number, f"{CROWD} fans have hung up")
    await heard_by(it, fans)
    newcomer = first + CROWD
    fans |= await come(it, stack, server, "/ws?room=final", newcomer)
    await it.until(
        lambda: it.has_ended(newcomer) or any(event.detail != FENCE for event in it.of(newcomer, "sent")),
        f"Fan {newcomer} has come to the final, and hears nothing: {CROWD} who are gone were still noted there. "
        "Where did the round end?",
        within=BEHIND,
    )
    story = f"Fan {newcomer} came to the final, while {CROWD} who are gone were still noted there"
    it.require(
        newcomer not in it.crashes,
        f"{story}: your connect raised {it.crash_of(newcomer)}, so that the newcomer is thrown out for their sake.",
    )
    heard = await heard_by(it, fans)
    deaf = [number for number in fans if not heard[number]]
    it.require(not deaf, f"{story}; {named(deaf)} heard nothing of it. Where did the round end?")
    for number in crowd:
        await comes_back(it.start(manager.disconnect, it.websockets[number]), f"{story}; then disconnect() of one")
    last = await heard_by(it, fans)
    for number in fans:
        latest = [*heard[number], *last[number]][-1]
        it.require(
            latest == "final: 2",
            f"{story}. Now they have all been let go, two are left, and the latest that fan {number} knows is "
            f"{latest!r}.",
        )


async def hear(it: Trial, fans: Fans, text: str, expected: list[int], story: str) -> None:
    """Raise NotYet unless the expected fans hear one text, and the others nothing."""
    it.no_crash()
    with suppress(NotYet):
        await it.until(lambda: all(sent(it, number, text) for number in expected), "", within=BEHIND)
    heard = await heard_by(it, fans)
    for number, texts in heard.items():
        should = [text] if number in expected else []
        it.require(
            texts == should,
            f"{story}; fan {number} should hear {in_words(should)}, and hears {in_words(texts)}.",
        )


def in_words(texts: list[str]) -> str:
    """Return texts in quotes, or "nothing"."""
    return ", ".join(f"“{text:.60}”" for text in texts) or "nothing"


EXERCISES = [
    Exercise(
        identifier="X5.1",
        answer="CalmManager",
        statement="Fill in disconnect() of CalmManager: the fan hears nothing from then on, the others stay, and to "
        "let go of one who is not there is no error.",
        hints=(
            "What does `remove` of a list do when the thing is not in it? Try it with a list of numbers.",
            "Either ask first whether the fan is in the list, or catch that one error. A set has a verb that asks no "
            "questions.",
            "One `if` with `in`, and under it the removal. Nothing else may happen: nobody but this fan goes.",
        ),
        trial=try_disconnect,
    ),
    Exercise(
        identifier="X5.2",
        answer="RoomwiseManager",
        statement="Change RoomwiseManager so that broadcast(text, room) reaches the fans of that room only, once "
        "each. `rooms` maps each room's name to those who are in it; a room in which nobody is does not stand there.",
        hints=(
            "A dict from the name of a room to a set of fans. What has to happen when the first one comes to a room?",
            "`disconnect` is not told the room: look into each, or note for each fan where it is. And who goes last "
            "switches off the light.",
            "`setdefault(room, set())` when one comes, `get(room, ())` when a goal comes: the second one makes no "
            "entry. Walk over copies, and delete a room when its set is empty.",
        ),
        trial=try_rooms,
    ),
    Exercise(
        identifier="X5.3",
        answer="HushedManager",
        statement="Find the bug in HushedManager: one fan vanishes, no error is seen, and others do not hear the goal. "
        "Who is gone shall still be let go, and a mistake of the caller still be seen.",
        hints=(
            "Nine fans, and the fourth is gone. Which line runs after its `send_text`, and which fan is sent to next?",
            "An exception leaves everything that stands between its `raise` and its `except`. What stands there that "
            "should go on?",
            "Change the places of `for` and `try`. Keep the copy, the two kinds of error, and the line that lets go.",
        ),
        trial=try_bad_connection,
    ),
    Exercise(
        identifier="X5.4",
        answer="PresenceManager",
        statement="Make PresenceManager: connect(websocket, room) accepts; disconnect(websocket), awaited too, lets "
        "go. After each change all who are in that room hear its name and number, such as “final: 3”; others nothing.",
        hints=(
            "Note for each fan its room. After which lines is the number in a room another one?",
            "Write a third verb that tells one room, and await it from both: after the noting, and after the taking "
            "off. Where nobody was taken off, nothing has changed, and nothing is told.",
            "`pop(websocket, None)` gives the room, or None for one who is not noted. In the telling each send has a "
            "`try` of its own; who is gone is taken off by its own handler, and the room hears of that then.",
        ),
        trial=try_presence,
    ),
]
