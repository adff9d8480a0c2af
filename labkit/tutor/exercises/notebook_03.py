"""Exercises of notebook 03, "Who is here?": what is asked, three hints, and the trial of each."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

from fastapi import WebSocket
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from labkit.apparatus.server import LabServer
from labkit.tutor.exercises import Exercise
from labkit.tutor.trial import PATIENCE, NotYet, Trial


async def try_keep_register(it: Trial, keep_register: Callable[..., Awaitable]) -> str:
    """Five fans leave in five ways, one of them after somebody else has taken it off; a sixth stays."""
    here: set[WebSocket] = set()
    server = await it.serve(keep_register, here)
    fleet = await it.fleet(server, healthy=6)
    await it.until(lambda: len(here) == 6 or it.has_ended(6), f"6 fans are connected, and {len(here)} are in `here`.")
    it.no_crash()
    it.require(
        not it.has_ended(6),
        "Fan 6 is connected and has said nothing, and your handler has already returned. "
        "When a handler returns, its connection is closed: who waits for what the fan does?",
    )
    entered = [number for number, websocket in it.websockets.items() if websocket in here]
    it.require(entered == [1, 2, 3, 4, 5, 6], f"6 fans are connected, and of them only {entered} are in `here`.")

    async def leaves(act: Callable[..., Awaitable], number: int, how: str) -> None:
        stay = {each for each, websocket in it.websockets.items() if websocket in here} - {number}
        await act(number)
        await gone(number, how)
        lost = [each for each in stay if it.websockets[each] not in here]
        it.require(not lost, f"Fan {number} {how}; fans {lost} are still connected, and were taken off with it.")

    async def gone(number: int, how: str) -> None:
        await it.ended(number, f"Fan {number} {how}")
        it.require(
            it.websockets[number] not in here, f"Fan {number} {how}; its handler has ended, and it still stands here."
        )

    await it.stays(6, lambda text: fleet.send(text, clients=[6]), "Fan 6")
    await fleet.send("hello", clients=[1])
    await leaves(fleet.leave, 1, "said hello, and then goodbye with a close frame")
    crash = it.crash_of(1)
    it.require(
        not crash,
        f"Fan 1 said goodbye and is off the register, and your handler let {crash} through: the log shows an error for "
        "every fan who goes home.",
    )
    await leaves(fleet.hang_up, 2, "hung up without a word (FIN)")
    await leaves(fleet.vanish, 3, "was reset (RST)")
    async with it.fan(server) as rude:
        await rude.send(b"\x00")
    await gone(7, "sent bytes where your handler wants text")
    here.discard(it.websockets[4])
    await leaves(fleet.leave, 4, "had been taken off by somebody else, and then said goodbye")
    it.require(
        4 not in it.crashes,
        "Fan 4 had been taken off the register by somebody else before it left; then your handler raised "
        f"{type(it.crashes.get(4)).__name__}. Being taken off twice happens: it must do no harm.",
    )
    it.require(it.websockets[6] in here, "Fan 6 is still connected, and is no longer in `here`.")
    return "Five fans left in five ways, and none of them stands in the register; those who stayed do."


async def try_tell_presence(it: Trial, tell_presence: Callable[..., Awaitable]) -> str:
    """Fans come and go one by one; one goes while others are gone already; one comes while a round stands waiting."""
    here: set[WebSocket] = set()
    server = await it.serve(tell_presence, here, send_buffer_bytes=16_384)
    async with AsyncExitStack() as stack:
        fans = {}
        for number in (1, 2, 3, 4):
            fans[number] = await it.comes_in(stack, server, f"Fan {number}")
            await all_hear(it, fans, f"{number} here", f"Fan {number} has come")
        await fans.pop(2).close()
        await all_hear(it, fans, "3 here", "Fan 2 of 4 has said goodbye")
        it.no_crash()
        await beside_the_gone(it, fans, here)
        await while_a_round_waits(it, stack, server, fans, here)
    for number in it.websockets:
        await it.ended(number, "All fans have gone home")
    return "Fans came and went, one of them in the middle of a round, and everyone who was here heard each new count."


async def all_hear(it: Trial, fans: dict[int, ClientConnection], expected: str, story: str) -> None:
    """See that each of these fans hears the same text."""
    for number, fan in fans.items():
        await it.hears(fan, expected, story, who=f"fan {number}")


async def beside_the_gone(it: Trial, fans: dict[int, ClientConnection], here: set[WebSocket]) -> None:
    """Fan 3 leaves while a hundred who are gone stand in the register, as they do when many leave at one moment."""
    gone = set()

    async def note(websocket: WebSocket) -> None:
        await websocket.accept()
        gone.add(websocket)
        await websocket.receive()

    elsewhere = await it.serve(note, name="elsewhere")
    crowd = await it.fleet(elsewhere, healthy=100)
    await crowd.hang_up(*range(1, 101))
    await it.until(lambda: elsewhere.connections == 0, "A hundred fans have hung up, and the server has not noticed.")
    # A set has no order: with so many, a walk meets one of them before it has met both who are here.
    here |= gone
    fans.pop(3).transport.abort()
    await it.ended(3, "Fan 3 has vanished")
    story = "Fan 3 left while others, already gone, were still in the register"
    it.require(
        not it.crashes,
        f"{story}: your handler tried to tell one of those, and raised {type(it.crashes.get(3)).__name__}. "
        "Who comes behind it in the round is told nothing.",
    )
    here -= gone
    for number, fan in fans.items():
        await it.websockets[number].send_text("fence")
        it.require(
            (await fan.recv()) != "fence" and (await fan.recv()) == "fence",
            f"{story}; fan {number} is here, and is told nothing of that: the round ended at one who is gone.",
        )
    it.require(len(here) == 2, f"Fans 1 and 4 are left, and {len(here)} stand in `here`.")


async def while_a_round_waits(
    it: Trial, stack: AsyncExitStack, server: LabServer, fans: dict[int, ClientConnection], here: set[WebSocket]
) -> None:
    """A fan does not read; the round for the next one waits there, and in this moment one more comes."""
    stalled = await it.fleet(server, stalled=1, receive_buffer_bytes=4_096)
    sleeper = max(it.websockets)
    await all_hear(it, fans, "3 here", "A fan has come who does not read")
    # This one fills what lies between; the next message for the sleeper has to wait.
    await it.websockets[sleeper].send_text("x" * 500_000)
    for count in (4, 5):
        fans[count + 2] = await it.comes_in(stack, server, f"Fan {count + 2}")
        await it.until(lambda count=count: len(here) == count, f"{count} fans are here, and `here` says {len(here)}.")
    await it.until(
        lambda: it.of(sleeper, "send")[-1].detail != "x" * 500_000,
        "Another fan has come, and who was here is not told.",
    )
    await stalled.wake(1)
    story = "A fan came while your round stood waiting at one who did not read"
    for number, fan in fans.items():
        try:
            while (await asyncio.wait_for(fan.recv(), PATIENCE)) != "5 here":
                pass
        except (TimeoutError, ConnectionClosed):
            error = next(iter(it.crashes.values()), None)
            raised = f" Your handler raised {type(error).__name__}: {error}." if error else ""
            raise NotYet(f"{story}; fan {number} never hears “5 here”.{raised}") from None
    # It has heard “3 here”, the filler, and the two that waited; so both rounds have gone on.
    with it.telling(TimeoutError, otherwise=f"{story}; it reads again, and never hears “5 here”."):
        await stalled.until(4, clients=[1], timeout=PATIENCE)
    await stalled.close()
    it.require(not it.crashes, f"{story}: your handler raised {'; '.join(map(repr, it.crashes.values()))}.")


async def try_join_the_list(it: Trial, join_the_list: Callable[..., Awaitable]) -> str:
    """Three fans come, a broadcast walks the list, and the first and the last leave."""
    here: list[WebSocket] = []
    server = await it.serve(join_the_list, here)
    fleet = await it.fleet(server, healthy=3)
    await it.until(lambda: len(here) >= 3, f"3 fans are connected, and the list has {len(here)} entries.")
    it.require(
        all(isinstance(entry, WebSocket) for entry in here),
        f"3 fans are connected, and the list holds {here[0]!r:.90}: a broadcast would call send_text on that. "
        "What is it, and what did the server hand to your function?",
    )
    theirs = list(it.websockets.values())
    it.require(len(here) == 3, f"3 fans are connected, and the list has {len(here)} entries for them.")
    it.require(
        here == theirs,
        f"3 fans are connected, and of the 3 entries in the list {sum(entry not in theirs for entry in here)} are not "
        "the connections that the server handed to your function.",
    )
    for entry in list(here):
        await entry.send_text("GOAL")
    await fleet.until(1)
    for number, left in ((1, [2, 3]), (3, [2])):
        await fleet.leave(number)
        await it.ended(number, f"Fan {number} said goodbye")
        it.no_crash()
        names = [each for each, websocket in it.websockets.items() if websocket in here]
        it.require(names == left, f"Fan {number} said goodbye. Fans {left} are left; in the list stand {names}.")
    return "Three fans stood in the list, GOAL reached each of them, and who left is off it."


async def try_admit(it: Trial, admit: Callable[..., Awaitable]) -> str:
    """With places for two, and then for three: the next one is refused, and comes in when a place is free."""
    for limit in (2, 3):
        await try_limit(it, admit, limit)
    it.no_crash()
    return (
        "With 2 places and with 3, the next fan was refused with 1013 and a reason, and came in when a place was free."
    )


async def try_limit(it: Trial, admit: Callable[..., Awaitable], limit: int) -> None:
    """One more than the limit comes; one leaves; another one comes."""
    here: set[WebSocket] = set()
    server = await it.serve(admit, here, limit, name=f"limit {limit}")
    async with AsyncExitStack() as stack:
        fans = [await it.comes_in(stack, server, f"Fan {number} of {limit}") for number in range(1, limit + 1)]
        story = f"The limit is {limit}; {limit} fans have come"
        await it.until(lambda: len(here) == limit, f"{story}, and `here` does not hold all of them.")
        with it.telling(
            InvalidStatus,
            otherwise="The refused fan sees HTTP 403 in place of a close frame: a browser shows its page neither the "
            "code nor a reason. What must come before a close frame can be sent?",
        ):
            late = await stack.enter_async_context(it.fan(server))
        first, refused = (sorted(it.websockets)[place] for place in (-limit - 1, -1))
        with suppress(ConnectionClosed):
            # Who hears this has let the fan in.
            await late.send("hello")
        await it.until(
            lambda: late.close_code or it.of(first, "close") or it.of(refused, "receive"),
            f"The limit is {limit}. Fan {limit + 1} has come; it is not let in, and nobody tells it.",
        )
        it.require(not it.of(first, "close"), f"Fan {limit + 1} has come, and fan 1, who was in, is closed instead.")
        it.require(late.close_code, f"The limit is {limit}, and {len(here)} fans stand in `here`.")
        await it.ended(refused, f"Fan {limit + 1} was refused")
        crash = it.crash_of(refused)
        it.require(not crash, f"Fan {limit + 1} was refused; then your handler went on with it, and raised {crash}.")
        it.require(
            it.websockets[refused] not in here,
            f"Fan {limit + 1} was refused with {late.close_code}, and still stands in `here`.",
        )
        it.require(len(here) == limit, f"One was refused, and {len(here)} of {limit} are in.")
        it.require(
            late.close_code == 1013,
            f"The refused fan is closed with {late.close_code}. Its app cannot tell that from "
            f"{'a goodbye' if late.close_code == 1000 else 'a broken line'}: 1013 means “try again later”.",
        )
        it.require(late.close_reason, "The refused fan is told 1013 and no reason. What shall its screen show?")
        await it.stays(first, fans[0].send, "Fan 1")
        await fans[0].close()
        await it.until(lambda: len(here) < limit, f"One of {limit} has left, and {limit} places are still taken.")
        await it.comes_in(stack, server, "Another fan")
        await it.until(lambda: len(here) == limit, "A place was free, and the next fan did not get it.")


EXERCISES = [
    Exercise(
        identifier="X3.1",
        answer="keep_register",
        statement="Fill in the rest of keep_register(): listen while the fan stays, and take it off however it leaves.",
        hints=(
            "An endpoint hears of an ending only while it receives. With which loop did notebook 02 listen?",
            "The loop may end in an exception that you expect, or in one that nobody thought of. Which part of a `try` "
            "statement runs in both cases?",
            "Receive in an endless loop inside `try`. Let the expected disconnect pass. Take the connection off in the "
            "part that always runs, with the verb that does not mind when it is gone already.",
        ),
        trial=try_keep_register,
    ),
    Exercise(
        identifier="X3.2",
        answer="tell_presence",
        statement="Change tell_presence() so that everyone who is here is told the number, such as “3 here”, whenever "
        "a fan has come or gone; the newcomer too.",
        hints=(
            "There are two moments at which the number changes. At which lines of the starter is it already new?",
            "Write a small function that walks over a copy of `here` and sends to each, and call it at both moments: "
            "after the adding, and after the taking off.",
            "Somebody in the register may be gone already. Then the send raises, and who comes behind is told nothing: "
            "give each send a `try` of its own.",
        ),
        trial=try_tell_presence,
    ),
    Exercise(
        identifier="X3.3",
        answer="join_the_list",
        statement="Find the bug in join_the_list(): fans come and go, the list grows and shrinks, and the first "
        "broadcast ends in “missing 1 required positional argument: 'data'”.",
        hints=(
            "Print `here` after three fans have come. What are its entries?",
            "`WebSocket` is the class, the pattern after which connections are made. Which name is this fan's own?",
            "There are two lines that name the class where they mean the connection: one puts it in, one takes it out.",
        ),
        trial=try_join_the_list,
    ),
    Exercise(
        identifier="X3.4",
        answer="admit",
        statement="Make admit(): at most `limit` fans stand in `here`. Who comes too many is refused with close code "
        "1013 and a reason; when somebody leaves, the place is free again.",
        hints=(
            "Keep the register as in X3.1. The refusal is a branch before the adding, and ends in `return`.",
            "`await websocket.close(code, reason)` sends a close frame. Frames exist only on a connection that has "
            "been accepted; before that, a refusal is an HTTP status.",
            "Accept; compare `len(here)` with `limit`, and think of the case where the two are equal; close and "
            "return, or go on as in X3.1.",
        ),
        trial=try_admit,
    ),
]
