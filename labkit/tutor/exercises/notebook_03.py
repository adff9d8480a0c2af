"""Exercises of notebook 03, "Who is here?": what is asked, three hints, and the trial of each."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from fastapi import WebSocket
from websockets.exceptions import InvalidStatus

from labkit.tutor.exercises import Exercise
from labkit.tutor.trial import Trial


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

    await fleet.send("hello", clients=[1])
    await leaves(fleet.leave, 1, "said hello, and then goodbye with a close frame")
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
    """Fans come and go one by one; then two go at the same moment."""
    here: set[WebSocket] = set()
    server = await it.serve(tell_presence, here)
    async with AsyncExitStack() as stack:
        fans = []
        for number in (1, 2, 3, 4):
            fans.append(await stack.enter_async_context(it.fan(server)))
            for who, fan in enumerate(fans, 1):
                await it.hears(fan, f"{number} here", f"Fan {number} has come", who=f"fan {who}")
        await fans[1].close()
        for who in (1, 3, 4):
            await it.hears(fans[who - 1], "3 here", "Fan 2 of 4 has said goodbye", who=f"fan {who}")
        it.no_crash()
        # Handler 3 sees its fan go while fan 4, gone as well, still stands in the register.
        gone = it.websockets[2]
        here.add(gone)
        fans[2].transport.abort()
        await it.ended(3, "Fan 3 has vanished")
        it.require(
            not it.crashes,
            "Fan 3 left while another, already gone, was still in the register: your handler tried to tell that one, "
            f"and raised {type(it.crashes.get(3)).__name__}. Who comes behind it in the round is told nothing.",
        )
        here.discard(gone)
        it.require(len(here) == 2, f"Fans 1 and 4 are left, and {len(here)} stand in `here`.")
    return "Four fans came and two went, and each time everyone who was here heard the new count."


async def try_join_the_list(it: Trial, join_the_list: Callable[..., Awaitable]) -> str:
    """Three fans come, a broadcast walks the list, and the first and the last leave."""
    here: list[WebSocket] = []
    server = await it.serve(join_the_list, here)
    fleet = await it.fleet(server, healthy=3)
    await it.until(lambda: len(here) >= 3, f"3 fans are connected, and the list has {len(here)} entries.")
    it.require(
        all(isinstance(entry, WebSocket) for entry in here),
        f"3 fans are connected, and the list holds {here[0]!r:.60}: a broadcast would call send_text on that. "
        "What is it, and what did the server hand to your function?",
    )
    it.require(
        here == list(it.websockets.values()), f"3 fans are connected, and the list has {len(here)} entries for them."
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
        fans = [await stack.enter_async_context(it.fan(server)) for _ in range(limit)]
        story = f"The limit is {limit}; {limit} fans have come"
        await it.until(lambda: len(here) == limit, f"{story}, and `here` does not hold all of them.")
        with it.telling(
            InvalidStatus,
            otherwise="The refused fan sees HTTP 403 in place of a close frame: a browser shows its page neither the "
            "code nor a reason. What must come before a close frame can be sent?",
        ):
            late = await stack.enter_async_context(it.fan(server))
        await it.until(
            lambda: late.close_code or fans[0].close_code or len(here) > limit,
            f"The limit is {limit}. Fan {limit + 1} has come; it is not let in, and nobody tells it.",
        )
        it.require(len(here) <= limit, f"The limit is {limit}, and {len(here)} fans stand in `here`.")
        it.require(not fans[0].close_code, f"Fan {limit + 1} has come, and fan 1, who was in, is closed instead.")
        it.require(
            late.close_code == 1013,
            f"The refused fan is closed with {late.close_code}. Its app cannot tell that from "
            f"{'a goodbye' if late.close_code == 1000 else 'a broken line'}: 1013 means “try again later”.",
        )
        it.require(late.close_reason, "The refused fan is told 1013 and no reason. What shall its screen show?")
        it.require(len(here) == limit, f"One was refused, and now {len(here)} of {limit} places are taken.")
        await fans[0].close()
        await it.until(lambda: len(here) < limit, f"One of {limit} has left, and {limit} places are still taken.")
        await stack.enter_async_context(it.fan(server))
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
