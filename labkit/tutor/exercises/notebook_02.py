"""Exercises of notebook 02, "What must an endpoint do?": what is asked, three hints, and the trial of each."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress

from fastapi import WebSocket
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from labkit.apparatus.server import LabServer
from labkit.tutor.exercises import Exercise
from labkit.tutor.lines import standing
from labkit.tutor.trial import PATIENCE, NotYet, Trial

QUESTIONS = ("Who plays?", "What is the score?", "Who scored?")

GOOD_TIP, GOOD_REPLY = '{"fan": "Ada", "goals": 2}', "Ada tips 2"
# What is sent, and what the learner is told of it.
BAD_TIPS = {
    "GOAL!": "which is no JSON",
    '{"fan": "Ada"}': "where the goals are missing",
    '["Ada", 2]': "which is JSON and no object",
    '{"fan": "Ada", "goals": "many"}': "with a word where the number of goals belongs",
    '{"fan": 7, "goals": 2}': "with a number where a name belongs",
    b"\x00\x01": "which is binary",
}

PAGES = ["https://lab.example", "http://localhost:8888"]
STRANGERS = [
    "https://stranger.example",
    "null",
    "http://lab.example",
    "https://lab.example:8443",
    "https://lab.example.evil.example",
    "https://evil-lab.example",
    "http://localhost",
]


# ---- what several trials do


async def says(fan: ClientConnection, words: str | bytes) -> None:
    """Send; a connection that is closed already is noticed by whoever listens for the answer."""
    with suppress(ConnectionClosed):
        await fan.send(words)


async def asks(it: Trial, fan: ClientConnection, question: str, story: str) -> None:
    """Ask a question and hear the answer to it."""
    await says(fan, question)
    await it.hears(fan, f"Received: {question}", story, who="it")


async def hears_something(it: Trial, fan: ClientConnection, number: int, story: str) -> object:
    """Return what a fan hears; raise NotYet, with the handler's own error if it had one, where it hears nothing."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await fan.recv()
    except TimeoutError:
        raise NotYet(f"{story}, and hears nothing.") from None
    except ConnectionClosed:
        crash = it.crash_of(number)
        why = f"your handler has ended with {crash}" if crash else "your handler has ended it"
        raise NotYet(f"{story}; the connection is closed with {fan.close_code}: {why}.") from None


async def ends_well(it: Trial, number: int, story: str) -> None:
    """Wait until the handler of a fan who has gone has ended, and see that it did so without an error."""
    await it.ended(number, story)
    crash = it.crash_of(number)
    it.require(not crash, f"{story}, and your handler ended with {crash}. The log shows a crash where a fan went home.")


# ---- X2.1


async def try_keep_answering(it: Trial, keep_answering: Callable[..., Awaitable]) -> str:
    """Two fans ask, one of them after a long silence; then fans leave in four ways."""
    server = await it.serve(keep_answering)
    async with AsyncExitStack() as stack:
        quiet = await it.comes_in(stack, server, "Fan 1")
        curious = await it.comes_in(stack, server, "Fan 2")
        for number, question in enumerate(QUESTIONS, 1):
            await asks(it, curious, question, f"Fan 2 has sent question {number} on its connection")
        # Silence is what this is about, and takes its time.
        await asyncio.sleep(1)
        await asks(it, quiet, "Any news?", "Fan 1 was silent for a second and more, and has asked now")
        await says(curious, "Who leads?")
        await says(quiet, "How long?")
        await says(curious, "Why?")
        story = "Fans 1 and 2 have asked at the same time"
        await it.hears(curious, "Received: Who leads?", story, who="fan 2")
        await it.hears(quiet, "Received: How long?", story, who="fan 1")
        await it.hears(curious, "Received: Why?", story, who="fan 2")
        await curious.close()
        await ends_well(it, 2, "Fan 2 has asked, heard its answers and said goodbye with 1000")
        await asks(it, quiet, "Who is left?", "Fan 2 has gone home, and fan 1 has asked again")
        fleet = await it.fleet(server, healthy=2)
        await fleet.hang_up(1)
        await ends_well(it, 3, "Fan 3 has come, said nothing and hung up (FIN)")
        await fleet.vanish(2)
        await ends_well(it, 4, "Fan 4 has come, said nothing and was reset (RST)")
        await asks(it, quiet, "Hello?", "Three fans have gone, and fan 1 has asked again")
        await quiet.close(1001)
        await ends_well(it, 1, "Fan 1 has closed its browser (1001)")
    return "Every question was answered on its own connection, and four fans left in four ways without an error."


# ---- X2.2


async def try_take_tips(it: Trial, take_tips: Callable[..., Awaitable]) -> str:
    """One fan sends good tips and bad ones in turn, on one connection; another one stays beside it."""
    server = await it.serve(take_tips)
    async with AsyncExitStack() as stack:
        bystander = await it.comes_in(stack, server, "Fan 1")
        fan, number = await it.comes_in(stack, server, "Fan 2"), 2
        await says(fan, GOOD_TIP)
        await it.hears(fan, GOOD_REPLY, f"Fan 2 has sent the good tip {GOOD_TIP}", who="it")
        for words, what in BAD_TIPS.items():
            story = f"Fan 2 has sent {words!r}, {what}"
            # The good tip behind it is a fence: whoever hears its answer first was told nothing of the bad one.
            await says(fan, words)
            await says(fan, GOOD_TIP)
            try:
                await is_told(it, fan, number, story)
            except NotYet:
                if not isinstance(words, bytes) or fan.close_code != 1003:
                    raise
                # The fence may have come in before the close: what the handler makes of it is not asked here.
                await it.ended(number, f"{story}, and was closed with 1003")
                fan, number = await it.comes_in(stack, server, "Fan 3"), 3
                await says(fan, GOOD_TIP)
            await it.hears(fan, GOOD_REPLY, f"{story}, and then a good tip", who=f"fan {number}")
        await fan.close()
        await ends_well(it, number, f"Fan {number} has said goodbye with 1000")
        await says(bystander, GOOD_TIP)
        await it.hears(bystander, GOOD_REPLY, "Fan 1 has looked on all the while, and now sends a tip", who="it")
        await bystander.close()
    return f"{len(BAD_TIPS)} bad tips were answered, and every good one before, between and after them."


async def is_told(it: Trial, fan: ClientConnection, number: int, story: str) -> None:
    """See that a fan is told of its mistake, in words that are meant for it, and keeps its connection."""
    told = await hears_something(it, fan, number, story)
    it.require(
        told != GOOD_REPLY,
        f"{story}; it is told nothing of that: the next thing it hears is {told!r}, for a good tip sent later.",
    )
    it.require(isinstance(told, str), f"{story}; it hears {told!r:.60}, where a text was expected.")
    it.require(
        told.lower().startswith("error"), f"{story}; it hears {told!r:.80}, and not a text that begins with “error”."
    )
    it.require(
        "Traceback" not in told and 'File "' not in told,
        f"{story}; it is sent {len(told.splitlines())} lines of traceback. Who reads that learns how your server is "
        "built, and not what was wrong with the tip.",
    )


# ---- X2.3


async def try_follow_match(it: Trial, follow_match: Callable[..., Awaitable]) -> str:
    """A bad message is survived; a handler is cancelled, as a server does that stops; the other fan stays."""
    watching: set[WebSocket] = set()
    server = await it.serve(follow_match, watching)
    async with AsyncExitStack() as stack:
        stays = await it.comes_in(stack, server, "Fan 1")
        cancelled = await it.comes_in(stack, server, "Fan 2")
        await asks(it, stays, "Who plays?", "Fan 1 has asked a question")
        await asks(it, cancelled, "Who plays?", "Fan 2 has asked a question")
        await survives(it, stays)
        for number in (1, 2):
            it.require(
                it.websockets[number] in watching,
                f"Fan {number} has asked a question and is still connected, and does not stand in `watching`: which of "
                "your lines takes it off, and when?",
            )
        await is_cancelled(it, cancelled, 2)
        it.require(
            it.websockets[2] not in watching,
            "The handler of fan 2 was cancelled and has ended; its connection still stands in `watching`. "
            "Which of your lines are passed when an exception flies by?",
        )
        await asks(it, stays, "Who is left?", "Fan 2's handler was cancelled; fan 1 has asked another question")
        it.require(it.websockets[1] in watching, "Fan 2's handler was cancelled, and fan 1 was taken off with it.")
        await stays.close()
        await ends_well(it, 1, "Fan 1 has said goodbye with 1000")
        it.require(not watching, "Fan 1 has said goodbye, and still stands in `watching`.")
    return "A bad message was survived, and a handler that was cancelled ended as cancelled and cleaned up behind it."


async def survives(it: Trial, fan: ClientConnection) -> None:
    """Send what the endpoint does not want, and see that it says so and goes on."""
    story = "Fan 1 has sent bytes where your handler wants text"
    await says(fan, b"\x00")
    await says(fan, "Still here?")
    told = await hears_something(it, fan, 1, story)
    it.require(
        str(told).lower().startswith("error"),
        f"{story}; it should hear 'error: text only', as before, and hears {told!r:.60}.",
    )
    answer = await hears_something(it, fan, 1, f"{story}, was told so, and has asked another question")
    it.require(
        answer == "Received: Still here?", f"{story}, and then asked 'Still here?'; the answer is {answer!r:.60}."
    )


async def is_cancelled(it: Trial, fan: ClientConnection, number: int) -> None:
    """Cancel the handler of a fan, and see by what it does next that it ends, and that it ends as cancelled."""
    handler, seen = it.handlers[number], len(it.events)
    handler.cancel()
    # A fence: who answers this one has not ended. Where the connection is closed already, all is well.
    await says(fan, "Anybody there?")
    story = f"The handler of fan {number} was cancelled, as a server does that stops"

    def answered() -> bool:
        return "Received: Anybody there?" in [event.detail for event in it.of(number, "sent")]

    try:
        await it.until(lambda: it.has_ended(number) or answered(), story)
    except NotYet:
        raise NotYet(f"{story}; {PATIENCE:g} s later it has still not ended: {standing(handler)}.") from None
    sent = [event.detail for event in it.events[seen:] if event.connection == number and event.what == "sent"]
    it.require(
        it.has_ended(number),
        f"{story}; it did not end. Since then it has sent {' and '.join(map(repr, sent))}: such a server never stops.",
    )
    crash = it.crash_of(number)
    it.require(not crash, f"{story}; it ended with {crash}, and not as cancelled.")
    it.require(
        it.of(number, "cancelled"),
        f"{story}; it ended as if its work were done, and kept the cancellation to itself. Whoever cancelled it, "
        "`asyncio.timeout()` for instance, is not told that it worked.",
    )


# ---- X2.4


async def try_admit_pages(it: Trial, admit_pages: Callable[..., Awaitable]) -> str:
    """Two pages that may come in, a program that names no page, and seven that may not."""
    server = await it.serve(admit_pages, PAGES)
    for page in PAGES:
        await gets_in(it, server, page, f"The page {page} stands in `pages`")
    await gets_in(it, server, None, "A program that sends no Origin, such as an app on a phone, wants to come in")
    outcomes = {}
    for page in STRANGERS:
        outcomes[page] = await knocks(it, server, page)
        if outcomes[page] is None:
            # One wait is enough to tell.
            break
    came_in = [page for page, outcome in outcomes.items() if outcome == "2:1"]
    it.require(
        not came_in,
        f"{len(came_in)} of {len(STRANGERS)} pages that do not stand in `pages` hear the score: {', '.join(came_in)}.",
    )
    for number, (page, outcome) in enumerate(outcomes.items(), len(PAGES) + 2):
        crash = it.crash_of(number)
        because = f" Your handler ended with {crash}." if crash else ""
        it.require(
            outcome == 403,
            f"The page {page} does not stand in `pages`; it should see HTTP 403, and {told_as(outcome)}{because}",
        )
    it.no_crash()
    for number, page in enumerate(STRANGERS, len(PAGES) + 2):
        it.require(
            not it.of(number, "http"),
            f"The page {page} sees 403, and your log holds an error for it: uvicorn says “ASGI callable returned "
            "without completing handshake”. You have answered with an HTTP response; a WebSocket can say no by itself.",
        )
    return f"{len(PAGES)} pages and a program came in, and {len(STRANGERS)} foreign pages saw HTTP 403."


async def gets_in(it: Trial, server: LabServer, page: str | None, story: str) -> None:
    """See that a page, or a program without one, hears the score, may stay, and leaves without an error."""
    try:
        async with it.fan(server, origin=page) as fan:
            number = len(it.websockets)
            await it.hears(fan, "2:1", story, who="it")
            await says(fan, "Thanks!")
    except (InvalidStatus, TimeoutError) as error:
        crash = it.crash_of(max(it.handlers))
        it.require(not crash, f"{story}; your handler ended with {crash}.")
        seen = f"HTTP {error.response.status_code}" if isinstance(error, InvalidStatus) else "no answer"
        raise NotYet(f"{story}, and sees {seen}.") from None
    await ends_well(it, number, f"{story}, heard 2:1 and left")
    it.require(
        it.of(number, "disconnect"),
        f"{story}; it heard 2:1, and then your handler returned while the fan was still there: the connection breaks.",
    )


async def knocks(it: Trial, server: LabServer, page: str) -> object:
    """Return what a page sees: an HTTP status, the text it hears, a close code in a tuple, or None for nothing."""
    try:
        async with it.fan(server, origin=page) as fan, asyncio.timeout(PATIENCE):
            return await fan.recv()
    except InvalidStatus as error:
        await it.ended(len(it.websockets), f"The page {page} was refused")
        return error.response.status_code
    except ConnectionClosed:
        return (fan.close_code,)
    except TimeoutError:
        return None


def told_as(outcome: object) -> str:
    """Return what a page saw in place of 403, in words."""
    match outcome:
        case (code,):
            return f"is let in first, and then closed with {code}. At which moment is a refusal an HTTP status?"
        case int() if outcome >= 500:
            return f"sees HTTP {outcome}: the server says that the mistake is its own. Who says no here?"
        case int():
            return f"sees HTTP {outcome}."
        case None:
            return f"for {PATIENCE:g} s nothing comes: neither a refusal nor the score."
    return f"hears {outcome!r:.60}."


EXERCISES = [
    Exercise(
        identifier="X2.1",
        answer="keep_answering",
        statement="Fill in the rest of keep_answering(): answer every question while the fan stays, and end without an "
        "error when the fan has gone, however it went.",
        hints=(
            "The starter answers one question and returns. Which two of its lines belong to every question?",
            "A loop that listens has no end of its own. It ends when the fan goes: what does receive_text() do then?",
            "Put the endless loop into a `try`, and let the one exception pass that says that the fan has gone. The "
            "`except` stands outside of the loop, so that the loop is over when it is reached.",
        ),
        trial=try_keep_answering,
    ),
    Exercise(
        identifier="X2.2",
        answer="take_tips",
        statement="Change take_tips() so that whoever sends a bad tip is told so, in a text that begins with “error”, "
        "and keeps the connection. Binary may be answered too, or closed with 1003.",
        hints=(
            "Send the starter something bad and look at what it raises. Where does that exception go, and what does it "
            "take along on its way?",
            "Give each message a `try` of its own, inside the loop. Tip.model_validate_json(text) checks JSON and "
            "shape at once, so there is one exception to catch. The goodbye is not a bad tip: let it out of the loop.",
            "receive() hands over a dict: first see whether its type is a disconnect, then whether there is a text in "
            "it. Answer a ValidationError with a line that begins with “error”, and go on with the loop.",
        ),
        trial=try_take_tips,
    ),
    Exercise(
        identifier="X2.3",
        answer="follow_match",
        statement="Find the bug in follow_match(): questions, bad input and goodbyes all go well; but when the server "
        "stops and cancels it, it does not end. Let it end as cancelled, and leave nobody behind in `watching`.",
        hints=(
            "cancel() raises an exception at the `await` where the task stands. Which line of the starter gets it?",
            "print(asyncio.CancelledError.__mro__) shows the family of that exception. Do the same with KeyError, "
            "which a bad message raises. Which classes stand in one of the two families only?",
            "Catch less: the class of ordinary errors. Then the cancellation flies past the last line too, which takes "
            "the connection off. Move that line to where it runs on every way out.",
        ),
        trial=try_follow_match,
    ),
    Exercise(
        identifier="X2.4",
        answer="admit_pages",
        statement="Make admit_pages(): a page whose Origin stands in `pages`, and a program that sends no Origin, come "
        "in, hear “2:1” and stay as long as they like. Every other page sees HTTP 403, and the log no error.",
        hints=(
            "websocket.headers is there before accept(). It takes names in any case, and .get() of a missing one is "
            "None.",
            "An origin is scheme, host and port together. Two of them are the same page or they are not: which "
            "comparison does not mistake the beginning of a text for the whole?",
            "Three cases: no header, a header that stands in the list, any other. In the third call close() before "
            "accept(), and return. In the other two accept, send, and listen until the fan goes.",
        ),
        trial=try_admit_pages,
    ),
]
