"""Exercises of notebook 01, "What does one open connection buy?": what is asked, three hints, and the trial of each."""

import asyncio
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from itertools import count as counting

from fastapi import WebSocket, WebSocketDisconnect
from websockets.exceptions import ConnectionClosed, InvalidURI

from labkit.apparatus.faults import Proxy, start_proxy
from labkit.apparatus.server import LabServer
from labkit.tutor.exercises import Exercise
from labkit.tutor.lines import standing
from labkit.tutor.trial import PATIENCE, NotYet, Trial

# ---- What several trials use.


async def send_scores(websocket: WebSocket, count: int, says_goodbye: bool) -> None:
    """Send 0:0, 1:0 and so on; then say goodbye, or listen until the fan leaves."""
    await websocket.accept()
    for goals in range(count):
        await websocket.send_text(f"{goals}:0")
    if says_goodbye:
        await websocket.close()
    else:
        await listen(websocket)


async def show(websocket: WebSocket, text: str) -> None:
    """Send one text, and listen until the fan leaves."""
    await websocket.accept()
    await websocket.send_text(text)
    await listen(websocket)


async def listen(websocket: WebSocket) -> None:
    """Receive until the fan leaves."""
    async for _ in websocket.iter_text():
        pass


async def over(it: Trial, call: asyncio.Task, story: str) -> asyncio.Task:
    """Wait until a call is over, with a result or an error; raise NotYet, with the story, if it does not end."""
    await asyncio.wait({call}, timeout=PATIENCE)
    if not call.done():
        raise NotYet(f"{story}. After {PATIENCE:g} s your code has not come to its end: {standing(call)}.")
    return call


async def happens(it: Trial, condition: Callable[[], object]) -> bool:
    """Wait for a condition, and return whether it came to hold."""
    try:
        await it.until(condition, "")
    except NotYet:
        return False
    return True


async def goodbye(it: Trial, connection: int, story: str) -> None:
    """Wait until the server is told of a connection's end; raise NotYet, with the story, if that is no goodbye."""
    await it.until(
        lambda: it.of(connection, "disconnect"),
        f"{story}, and at the server its connection is still open. Who says goodbye?",
    )
    code = it.of(connection, "disconnect")[0].detail
    it.require(code == 1000, f"{story}; the server is told {code} in place of 1000. Was that a goodbye?")


# ---- X1.1


async def try_collect(it: Trial, collect: Callable[..., Awaitable]) -> str:
    """More scores come than are asked for; two fans collect at once; the server says goodbye too early."""
    server = await it.serve(send_scores, 5, False)
    story = "The server has sent 5 scores and keeps the line open; collect() was asked for 3"
    heard = (await over(it, it.start(collect, server.ws_url(), 3), story)).result()
    connections = len({event.connection for event in it.events})
    it.require(
        connections == 1,
        f"collect() was asked for 3 scores, and the server had {connections} connections: each is told 0:0 first. "
        "How many does a fan need who wants to be told?",
    )
    told = ["0:0", "1:0", "2:0"]
    unawaited = isinstance(heard, list) and [each for each in heard if asyncio.iscoroutine(each)]
    it.require(
        not unawaited,
        "collect(url, 3) returned coroutines where texts should be: a call of an async function hands over its result "
        "to whoever awaits it.",
    )
    it.require(
        heard == told, f"The server has sent 0:0, 1:0, 2:0, 3:0 and 4:0; collect(url, 3) returned {heard!r:.90}."
    )
    await goodbye(it, 1, "collect() has returned its 3 scores")
    await two_at_once(it, collect)
    early = await it.serve(send_scores, 2, True, name="early")
    story = "The server has sent 2 scores and said goodbye; collect() was asked for 4"
    call = await over(it, it.start(collect, early.ws_url(), 4), story)
    with it.telling(
        ConnectionClosed, otherwise=f"{story}, and raised {{error}}. The 2 that had come are lost to the caller."
    ):
        heard = call.result()
    it.require(heard == told[:2], f"{story}, and returned {heard!r:.90}. What has come by then is to be returned.")
    return "Each call returned what it was sent, in order and no more, and every line ended in a goodbye, 1000."


async def two_at_once(it: Trial, collect: Callable[..., Awaitable]) -> None:
    """Two calls at the same time, and three scores for each: not one more."""
    server = await it.serve(send_scores, 0, False, name="two")
    calls = [it.start(collect, server.ws_url(), 3) for _ in range(2)]
    story = "Two fans collect 3 scores each, at the same time"
    await it.until(
        lambda: len(it.of(2, "accept") + it.of(3, "accept")) == 2 or any(call.done() for call in calls),
        f"{story}, and they never are at the server both.",
    )
    sent = [[f"fan {fan}, {goals}:0" for goals in range(3)] for fan in (1, 2)]
    for texts in zip(*sent, strict=True):
        for number, text in enumerate(texts, 2):
            # A fan that has failed has a story of its own, below.
            with suppress(WebSocketDisconnect, RuntimeError, KeyError):
                await it.websockets[number].send_text(text)
    for call in calls:
        await over(it, call, f"{story}; each has been sent 3, and no fourth comes")
    heard = [call.result() for call in calls]
    it.require(
        heard in (sent, sent[::-1]),
        f"{story}. Each has been told 0:0, 1:0 and 2:0 with its own number; "
        f"returned were {heard[0]!r:.70} and {heard[1]!r:.70}.",
    )
    for number in (2, 3):
        await goodbye(it, number, f"{story}, and both have returned")


# ---- X1.2


async def try_read_header(it: Trial, read_header: Callable[[bytes], dict]) -> str:
    """A real server and a real fan talk through a proxy that keeps what passes; each frame is read."""
    count = 0
    async for what, frame, expected in frames_of_a_talk(it):
        story = f"{what}: {frame[:16].hex(' ')}{' …' if len(frame) > 16 else ''}"
        # Which frame it was says more than which line.
        with it.telling(LookupError, ValueError, struct.error, otherwise=f"{story}. Here your code raised {{error}}."):
            header = it.result_of(read_header, frame)
        it.require(isinstance(header, dict), f"{story}. A dict was asked for; read_header() returned {header!r:.60}.")
        for field, value in expected.items():
            it.require(field in header, f"{story}. Your dict has no {field!r}; it has {', '.join(map(str, header))}.")
            it.require(
                header[field] == value,
                f"{story}. There {field!r} should be {value}, and read_header() says {header[field]!r:.60}.",
            )
        count += 1
    return f"{count} frames off the wire, of both directions and up to 65,536 bytes long, were read rightly."


async def frames_of_a_talk(it: Trial) -> AsyncIterator[tuple[str, bytes, dict[str, int]]]:
    """Yield frames as they travelled: in words, in bytes, and the fields that read_header() should find.

    What was sent is known, so how long the header is follows from how long the frame is: nothing here reads a header.
    """
    server = await it.serve(listen_to_texts)
    wire = await start_proxy(server, name="wire", keep_bytes=True)
    async with it.fan(wire, compression=None) as fan:
        await it.until(lambda: it.of(1, "accept"), "The fan is not let in.")
        websocket = it.websockets[1]
        for size in (4, 125, 126, 65_535, 65_536):
            text = "GOAL" if size == 4 else "G" * size
            wire.clear()
            await websocket.send_text(text)
            await fan.recv()
            yield described("The server sends", text, wire, "down", size)
        for size in (4, 300, 70_000):
            text = "GOAL" if size == 4 else "G" * size
            await says(it, wire, fan.send(text))
            yield described("The fan sends", text, wire, "up", size)
        wire.clear()
        await websocket.send_text("GOAL")
        await websocket.send_text("half time")
        await fan.recv(), await fan.recv()
        frame = wire.links[0].down
        yield (
            "GOAL from the server, and the next frame, which came in one piece with it",
            frame,
            fields(1, 1, 0, 4, len(frame) - 4 - len("half time") - 2),
        )
        first = b""

        async def in_parts() -> AsyncIterator[str]:
            nonlocal first
            yield "half "
            await it.until(lambda: len(wire.links[0].up) >= len("half "), "The first part does not arrive.")
            first = wire.links[0].up
            yield "time"
            wire.clear()

        await says(it, wire, fan.send(in_parts()))
        yield "The first part of a message in parts", first, fields(0, 1, 1, 5, len(first) - 5)
        wire.clear()
        await (await fan.ping(b""))
        up, down = wire.links[0].up, wire.links[0].down
        yield "A ping of the fan, without a payload", up, fields(1, 9, 1, 0, len(up))
        yield "The server's pong to it", down, fields(1, 10, 0, 0, len(down))
        wire.clear()
        await websocket.close(1001, "going away")
        await fan.wait_closed()
        up, down = wire.links[0].up, wire.links[0].down
        yield "The server's close frame", down, fields(1, 8, 0, 12, len(down) - 12)
        yield "The fan's close frame", up, fields(1, 8, 1, 12, len(up) - 12)


async def listen_to_texts(websocket: WebSocket) -> None:
    """Accept, and listen until the fan leaves."""
    await websocket.accept()
    await listen(websocket)


async def says(it: Trial, wire: Proxy, sending: Awaitable) -> None:
    """Let the fan send, and wait until the server has it: then all of it has passed the proxy."""
    heard = len(it.of(1, "receive"))
    wire.clear()
    await sending
    await it.until(lambda: len(it.of(1, "receive")) > heard, "What the fan sends does not arrive.")


def described(who: str, text: str, wire: Proxy, way: str, size: int) -> tuple[str, bytes, dict[str, int]]:
    """Return a text message that has passed the proxy, as frames_of_a_talk() yields it."""
    frame = getattr(wire.links[0], way)
    what = text if len(text) <= 4 else f"{size} letters"
    return f"{who} {what}", frame, fields(1, 1, int(way == "up"), size, len(frame) - size)


def fields(fin: int, opcode: int, masked: int, payload_bytes: int, header_bytes: int) -> dict[str, int]:
    """Return the fields of a header by their names."""
    return {
        "fin": fin,
        "opcode": opcode,
        "masked": masked,
        "payload_bytes": payload_bytes,
        "header_bytes": header_bytes,
    }


# ---- X1.3


async def try_last_score(it: Trial, last_score: Callable[..., Awaitable]) -> str:
    """Twenty looks at the score; one at a text that is no score; one at a server that closes first."""
    server = await it.serve(show, "2:1")
    for look in range(1, 21):
        score = (await over(it, it.start(last_score, server.ws_url()), f"Look {look} of 20 at the score")).result()
        it.require(score == (2, 1), f"The server shows 2:1; look {look} of 20 returned {score!r:.60}.")
    if not await happens(it, lambda: server.connections == 0):
        raise NotYet(f"After 20 looks, one after another, nobody looks any more; the server holds {held(server)}.")
    codes = {event.detail for event in it.events if event.what == "disconnect"}
    it.require(
        codes == {1000},
        f"After 20 looks no connection is left, but the server was told {sorted(codes)} in place of 1000: "
        "as if each fan's line had been cut.",
    )
    paused = await it.serve(show, "half time", name="paused")
    story = "The server shows 'half time', which is no score"
    call = await over(it, it.start(last_score, paused.ws_url()), story)
    error = call.exception()
    it.require(
        error, f"{story}. The starter raised an error there; yours returned {not error and call.result()!r:.60}."
    )
    if not isinstance(error, ValueError):
        raise error
    if not await happens(it, lambda: paused.connections == 0):
        raise NotYet(
            f"{story}: your code raised {type(error).__name__}, as it should, and after it the server holds "
            f"{held(paused)}. Which of your lines run when one before them raises?"
        )
    closing = await it.serve(send_scores, 0, True, name="closing")
    call = await over(it, it.start(last_score, closing.ws_url()), "The server says goodbye before it shows a score")
    # Whether that is an error for the caller, the exercise leaves open; unread, it would count as a failure behind it.
    error = call.exception()
    if error and not isinstance(error, ConnectionClosed | ValueError):
        raise error
    if not await happens(it, lambda: closing.connections == 0):
        raise NotYet(f"The server has said goodbye before it showed a score, and still holds {held(closing)}.")
    return "After 20 looks, after a text that is no score and after a server's goodbye, no connection was left."


def held(server: LabServer) -> str:
    """Return how many connections a server holds, in words."""
    return "1 open connection" if server.connections == 1 else f"{server.connections} open connections"


# ---- X1.4

ENOUGH = 6
PAUSE = 0.15
# A sleep does not end early, the clock's grain apart: only who does not pause comes back before this.
PAUSED = 0.9 * PAUSE
TRIES = 3


async def try_keep_collecting(it: Trial, keep_collecting: Callable[..., Awaitable]) -> str:
    """The line ends in three ways, nobody listens for a while; then the caller loses patience; then a wrong address."""
    await try_match(it, keep_collecting)
    await try_impatience(it, keep_collecting)
    await try_pausing(it, keep_collecting)
    story = "The address is 'scoreboard', which is none, and no waiting cures that"
    call = await over(it, it.start(keep_collecting, "scoreboard", 1, PAUSE), f"{story}; no error reaches the caller")
    error = call.exception()
    it.require(error, f"{story}; your code returned {not error and call.result()!r:.60} in place of an error.")
    if not isinstance(error, InvalidURI | ValueError):
        raise error
    return (
        f"{ENOUGH} scores came over 4 connections and past {TRIES} tries in vain, each once and in order; "
        "and who lost patience was let go."
    )


async def try_match(it: Trial, keep_collecting: Callable[..., Awaitable]) -> None:
    """A cut line, a goodbye, a server that is stopped, and for a while no server at all."""
    goals = counting()
    ends_after = {1: 2, 2: 1, 3: 1, 4: ENOUGH}
    # When each line ended, at the server: after that a pause is due.
    ended_at = []

    async def match(websocket: WebSocket) -> None:
        await websocket.accept()
        number = websocket.scope["connection"]
        for _ in range(ends_after.get(number, 0)):
            await websocket.send_text(f"{next(goals)}:0")
        ended_at.append(time.monotonic())
        # A handler that returns without a close frame leaves the fan with 1006, as a cut line does.
        if number == 2:
            await websocket.close()
        elif number > 2:
            await listen(websocket)

    server = await it.serve(match, name="match")
    attempts = it.note_attempts(server.port)
    call = it.start(keep_collecting, server.ws_url(), ENOUGH, PAUSE)

    async def goes_on(condition: Callable[[], object], story: str) -> None:
        if not await happens(it, lambda: call.done() or condition()):
            raise NotYet(f"{story}. After {PATIENCE:g} s it has not tried again: {standing(call)}.")
        if not condition():
            with it.telling(ConnectionClosed, OSError, otherwise=f"{story}, and your code raised {{error}}."):
                raise NotYet(f"{story}, and your code returned {call.result()!r:.70}.")

    def pauses(ended_at: float, tried_at: float, story: str) -> None:
        pause = tried_at - ended_at
        it.require(
            pause > PAUSED,
            f"{story}. With a `pause` of {1000 * PAUSE:g} ms your fan tried again after {1000 * pause:.1f} ms. "
            "If thousands do that, who serves them?",
        )

    await goes_on(lambda: it.of(1, "accept"), "The match has begun, and nobody has come")
    story = f"The line was cut after 2 of {ENOUGH} scores (1006)"
    await goes_on(lambda: it.of(2, "accept"), story)
    pauses(ended_at[0], attempts[1], story)
    story = f"The server said goodbye (1000) after 3 of {ENOUGH} scores"
    await goes_on(lambda: it.of(3, "accept"), story)
    pauses(ended_at[1], attempts[2], story)
    await it.until(lambda: it.of(3, "sent"), "The server cannot send.")
    stopped_at = time.monotonic()
    await server.stop()
    # Bound and not listening: whoever tries is refused, and no other program takes the port meanwhile.
    with socket.socket() as keeps_the_port:
        keeps_the_port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keeps_the_port.bind((server.host, server.port))
        story = f"After 4 of {ENOUGH} scores the server was stopped (1012), and nobody listens there now"
        for number in range(TRIES):
            before = [stopped_at, *attempts[3:]]
            await goes_on(lambda number=number: len(attempts) > 3 + number, story)
            pauses(before[number], attempts[3 + number], story)
            story += "; your fan tried in vain" if number == 0 else ", and again"
    await it.serve(match, name="match", port=server.port)
    story = f"The server is back, and has sent 0:0 to 9:0 in all; your fan is asked for {ENOUGH}"
    await goes_on(lambda: it.of(4, "accept"), f"After {TRIES} tries in vain, your fan would find the server again")
    await over(it, call, story)
    heard = call.result()
    it.require(heard == [f"{each}:0" for each in range(ENOUGH)], f"{story}, and returned {heard!r:.120}.")
    await goodbye(it, 4, f"Your fan has its {ENOUGH} scores and has returned")


async def try_impatience(it: Trial, keep_collecting: Callable[..., Awaitable]) -> None:
    """The server has nothing to say, and the caller cancels, as asyncio.timeout() does."""
    silent = await it.serve(listen_to_texts, name="silent")
    call = it.start(keep_collecting, silent.ws_url(), 1, PAUSE)
    await it.until(lambda: it.of(5, "accept") or call.done(), "A fan collects for a second time, and does not come in.")
    await cancelled(call, "The server is silent, and the caller loses patience (a timeout cancels the call)")
    if not await happens(it, lambda: silent.connections == 0):
        raise NotYet("The caller has lost patience; the call has ended, and its connection is open still.")


async def try_pausing(it: Trial, keep_collecting: Callable[..., Awaitable]) -> None:
    """Nobody listens, the pause is long, and others need the loop."""
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]
        attempts = it.note_attempts(port)
        call = it.start(keep_collecting, f"ws://127.0.0.1:{port}/ws", 1, 30.0)
        await it.until(lambda: attempts or call.done(), "Nobody listens, and your fan has not tried once.")
        # Refused later than the fan, which by now is in its pause: who blocks the loop there never gets to this line.
        with suppress(OSError):
            await asyncio.open_connection("127.0.0.1", port)
        await cancelled(call, "Nobody listens, and the caller loses patience during the pause")


async def cancelled(call: asyncio.Task, story: str) -> None:
    """Cancel a call; raise NotYet, with the story, if it goes on or takes the cancellation for something else."""
    call.cancel()
    await asyncio.wait({call}, timeout=PATIENCE)
    if not call.done():
        raise NotYet(f"{story}; your code takes no notice and goes on: {standing(call)}.")
    if not call.cancelled():
        raise NotYet(f"{story}; your code takes no notice, and returned {call.result()!r:.60}.")


EXERCISES = [
    Exercise(
        identifier="X1.1",
        answer="collect",
        statement="Fill in the rest of collect(): on one connection, take `count` texts in the order in which they "
        "come, say goodbye, return them. If the server says goodbye earlier, return what has come.",
        hints=(
            "The notebook's first fan opens a connection and receives twice. How would it receive `count` times?",
            "A connection can be walked over: `async for text in fan`. That loop takes one text after another, and "
            "ends by itself where the server says goodbye.",
            "Inside `async with connect(url) as fan`, walk over the fan and append. Look at the length right after "
            "each append, not before the next text: a next text may never come. Return behind the block.",
        ),
        trial=try_collect,
    ),
    Exercise(
        identifier="X1.2",
        answer="read_header",
        statement="Change read_header() so that it is right for longer frames, and for masked ones. If the seven bits "
        "say 126, the length stands in the next 2 bytes; if they say 127, in the next 8; the most significant byte "
        "comes first. `header_bytes` counts all that stands before the payload, a masking key of 4 bytes included.",
        hints=(
            "The seven bits hold a length, or one of two signs that it stands elsewhere. Which values are the signs?",
            '`int.from_bytes(frame[2:4], "big")` reads a number from two bytes. The header grows by as many bytes as '
            "you read, and by the key.",
            "First find how many further bytes hold the length: 0, 2 or 8. Read them if there are any. Then add up: "
            "the two bytes that are always there, the further ones, and 4 if the frame is masked.",
        ),
        trial=try_read_header,
    ),
    Exercise(
        identifier="X1.3",
        answer="last_score",
        statement="Find the bug in last_score(): every look returns the right score, and after a day of looks the "
        "server has no place left for anybody.",
        hints=(
            "Call it three times, and print `server.connections` after each.",
            "Who closes this connection, and when? Ask the same for a look that ends in an error.",
            "`async with` closes at the end of its block, also where an error ends it. Put the reading inside.",
        ),
        trial=try_last_score,
    ),
    Exercise(
        identifier="X1.4",
        answer="keep_collecting",
        statement="Make keep_collecting(): collect `enough` texts over as many connections as it takes. However the "
        "line ends, and also where nobody listens, wait `pause` seconds and connect again; keep what has come. "
        "Other errors, and the caller's loss of patience, go through.",
        hints=(
            "Begin with X1.1, and put an endless loop around its connection. What must stand outside that loop?",
            "Two kinds of error mean “try again”: `ConnectionClosed`, a line that was cut, and `OSError`, a server "
            "that does not listen. Catch these two; any other is somebody else's.",
            "Outside: the list. In the loop: a `try` around the connection, which returns as soon as there are enough; "
            "an `except` for the two errors; and behind both an awaited `asyncio.sleep`, for a goodbye needs a pause "
            "too.",
        ),
        trial=try_keep_collecting,
    ),
]
