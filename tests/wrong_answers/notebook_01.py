"""Known answers to the exercises of notebook 01, "What does one open connection buy?"."""

import asyncio
import struct
import time
from contextlib import suppress

from bank import right, wrong
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, ConnectionClosedOK
from websockets.sync.client import connect as connect_and_block

# ---- X1.1, collect


@right("X1.1")
async def with_recv(url, count):
    """Receives by number, and closes by hand."""
    texts = []
    fan = await connect(url)
    try:
        for _ in range(count):
            texts.append(await fan.recv())
    except ConnectionClosedOK:
        pass
    finally:
        await fan.close()
    return texts


@right("X1.1")
async def returns_from_inside(url, count):
    """A return in the block closes, too."""
    async with connect(url) as fan:
        texts = []
        async for text in fan:
            texts += [text]
            if len(texts) >= count:
                return texts
        return texts


@wrong("X1.1", says="collect() was asked for 3. After 3 s your code has not come to its end: it waits in line")
async def takes_all_that_comes(url, count):
    """The loop ends when the server says goodbye, and this server does not."""
    async with connect(url) as fan:
        texts = [text async for text in fan]
    return texts[:count]


@wrong("X1.1", says="each has been sent 3, and no fourth comes. After 3 s your code has not come to its end")
async def counts_before_the_next(url, count):
    """Off by one: it needs another text to see that there are enough."""
    texts = []
    async with connect(url) as fan:
        async for text in fan:
            if len(texts) == count:
                break
            texts.append(text)
    return texts


@wrong("X1.1", says="collect(url, 3) returned ['0:0']")
async def returns_too_early(url, count):
    """The return stands one level too deep."""
    texts = []
    async with connect(url) as fan:
        for _ in range(count):
            texts.append(await fan.recv())
            return texts
    return None


@wrong("X1.1", says="collect() was asked for 3 scores, and the server had 3 connections")
async def asks_again_and_again(url, count):
    """Asking, with a WebSocket."""
    texts = []
    for _ in range(count):
        async with connect(url) as fan:
            texts.append(await fan.recv())
    return texts


@wrong("X1.1", says="collect() has returned its 3 scores, and at the server its connection is still open")
async def never_says_goodbye(url, count):
    """The connection outlives the function."""
    fan = await connect(url)
    return [await fan.recv() for _ in range(count)]


@wrong("X1.1", says="the server is told 1005 in place of 1000")
async def hangs_up(url, count):
    """The end of the notebook's cut line."""
    fan = await connect(url)
    texts = [await fan.recv() for _ in range(count)]
    fan.transport.abort()
    return texts


@wrong("X1.1", says="collect(url, 3) returned coroutines where texts should be")
async def forgets_await(url, count):
    """What is noted is the promise of a text."""
    texts = []
    async with connect(url) as fan:
        for _ in range(count):
            texts.append(fan.recv())
    return texts


@wrong("X1.1", says="Two fans collect 3 scores each, at the same time. Each has been told 0:0, 1:0 and 2:0")
async def shares_one_list(url, count, texts=[]):  # noqa: B006
    """A default is made once, for all calls."""
    async with connect(url) as fan:
        for _ in range(count):
            texts.append(await fan.recv())
    return texts


@wrong("X1.1", says="The 2 that had come are lost to the caller")
async def does_not_expect_the_goodbye(url, count):
    """recv() raises when nothing more can come."""
    async with connect(url) as fan:
        return [await fan.recv() for _ in range(count)]


@wrong("X1.1", says="said goodbye; collect() was asked for 4, and returned None")
async def swallows_what_has_come(url, count):
    """The error is caught, and the texts go with it."""
    async with connect(url) as fan:
        with suppress(ConnectionClosed):
            return [await fan.recv() for _ in range(count)]


@wrong("X1.1", says="For 4 s nobody else had a turn: your code keeps the loop to itself")
async def blocks(url, count):
    """The library's other client, which is not for a loop that a server shares."""
    with connect_and_block(url) as fan:
        return [fan.recv() for _ in range(count)]


# ---- X1.2, a header


@right("X1.2")
def with_struct(frame):
    """Other tools, and truth values for the bits."""
    first, second = frame[:2]
    at = 2
    length = second & 127
    if length == 126:
        (length,) = struct.unpack_from("!H", frame, at)
        at += 2
    elif length == 127:
        (length,) = struct.unpack_from("!Q", frame, at)
        at += 8
    masked = bool(second & 128)
    at += 4 if masked else 0
    return {
        "fin": bool(first & 128),
        "opcode": first % 16,
        "masked": masked,
        "payload_bytes": length,
        "header_bytes": at,
        "at": at,
    }


def with_header(after):
    """Return a read_header() made of what `after` says of length and header; the three fields of bits are right."""

    def read_header(frame):
        payload_bytes, header_bytes = after(frame, frame[1] & 127, frame[1] >> 7)
        return {
            "fin": frame[0] >> 7,
            "opcode": frame[0] & 15,
            "masked": frame[1] >> 7,
            "payload_bytes": payload_bytes,
            "header_bytes": header_bytes,
        }

    read_header.__name__ = after.__name__
    return read_header


@wrong("X1.2", says="There 'payload_bytes' should be 126, and read_header() says 32256")
@with_header
def reads_from_the_wrong_end(frame, length, masked):
    """The network's order is not that of most processors."""
    further = {126: 2, 127: 8}.get(length, 0)
    if further:
        length = int.from_bytes(frame[2 : 2 + further], "little")
    return length, 2 + further + 4 * masked


@wrong("X1.2", says="There 'payload_bytes' should be 65536, and read_header() says 0")
@with_header
def always_reads_two(frame, length, masked):
    """Enough for all lengths that one tries by hand."""
    further = 2 if length >= 126 else 0
    if further:
        length = int.from_bytes(frame[2:4], "big")
    return length, 2 + further + 4 * masked


@wrong("X1.2", says="The server sends 125 letters: 81 7d")
@with_header
def takes_125_for_a_sign(frame, length, masked):
    """The last length that fits into seven bits."""
    further = 0 if length < 125 else 2 if length < 127 else 8
    if further:
        length = int.from_bytes(frame[2 : 2 + further], "big")
    return length, 2 + further + 4 * masked


@wrong("X1.2", says="There 'header_bytes' should be 6, and read_header() says 2")
@with_header
def forgets_the_key(frame, length, masked):
    """Between the length and the payload there are four bytes more."""
    further = {126: 2, 127: 8}.get(length, 0)
    if further:
        length = int.from_bytes(frame[2 : 2 + further], "big")
    return length, 2 + further


@wrong("X1.2", says="There 'header_bytes' should be 8, and read_header() says 4")
@with_header
def adds_the_key_to_short_frames(frame, length, masked):
    """Masked or long, but never both."""
    if length == 126:
        return int.from_bytes(frame[2:4], "big"), 4
    if length == 127:
        return int.from_bytes(frame[2:10], "big"), 10
    return length, 2 + 4 * masked


@wrong("X1.2", says="and the next frame, which came in one piece with it")
@with_header
def counts_what_it_got(frame, length, masked):
    """What has been read from a socket is not one frame."""
    header_bytes = 2 + {126: 2, 127: 8}.get(length, 0) + 4 * masked
    return len(frame) - header_bytes, header_bytes


@wrong("X1.2", says="There 'payload_bytes' should be 126, and read_header() says b'\\x00~'")
@with_header
def leaves_bytes(frame, length, masked):
    """Two bytes are not yet a number."""
    further = {126: 2, 127: 8}.get(length, 0)
    return frame[2 : 2 + further] if further else length, 2 + further + 4 * masked


@wrong("X1.2", says="Here your code raised error: unpack requires a buffer of 2 bytes")
@with_header
def reads_further_bytes_of_every_frame(frame, length, masked):
    """A short frame has none."""
    (short,) = struct.unpack("!H", frame[2:4])
    (long,) = struct.unpack("!Q", frame[2:10]) if length == 127 else (0,)
    further = {126: 2, 127: 8}.get(length, 0)
    return {126: short, 127: long}.get(length, length), 2 + further + 4 * masked


@wrong("X1.2", says="There 'masked' should be 1, and read_header() says 128")
def leaves_the_bit_where_it_is(frame):
    """A bit that is set is not yet a 1."""
    masked = frame[1] & 0x80
    return {
        "fin": frame[0] >> 7,
        "opcode": frame[0] & 15,
        "masked": masked,
        "payload_bytes": frame[1] - masked if frame[1] - masked < 126 else int.from_bytes(frame[2:4], "big")
        if frame[1] - masked == 126 else int.from_bytes(frame[2:10], "big"),
        "header_bytes": 2 + {126: 2, 127: 8}.get(frame[1] - masked, 0) + (4 if masked else 0),
    }  # fmt: skip


@wrong("X1.2", says="The first part of a message in parts")
def believes_in_last_parts(frame):
    """0x81 minus 128 is 1, as long as the upper bit is set."""
    length = frame[1] & 127
    further = {126: 2, 127: 8}.get(length, 0)
    return {
        "fin": 1,
        "opcode": frame[0] - 128,
        "masked": frame[1] >> 7,
        "payload_bytes": int.from_bytes(frame[2 : 2 + further], "big") if further else length,
        "header_bytes": 2 + further + 4 * (frame[1] >> 7),
    }


@wrong("X1.2", says="A dict was asked for; read_header() returned (1, 1, 0, 4, 2)")
def returns_a_tuple(frame):
    """The values without their names."""
    return frame[0] >> 7, frame[0] & 15, frame[1] >> 7, frame[1] & 127, 2


@wrong("X1.2", says="is called without `await`. Is it `async`?")
async def waits_for_nothing(frame):
    """Not everything near a WebSocket has to be a coroutine function."""
    return {}


# ---- X1.3, the fan that never closes


@right("X1.3")
async def with_finally(url):
    """Closes by hand, also after an error."""
    fan = await connect(url)
    try:
        home, away = (await fan.recv()).split(":")
        return int(home), int(away)
    finally:
        await fan.close()


@right("X1.3")
async def reads_behind_the_block(url):
    """The text is all it needs of the connection."""
    async with connect(url) as fan:
        text = await fan.recv()
    return tuple(int(part) for part in text.split(":"))


@wrong("X1.3", says="After 20 looks, one after another, nobody looks any more; the server holds 20 open connections.")
async def deletes_the_name(url):
    """A name less is not a connection less."""
    fan = await connect(url)
    home, away = (await fan.recv()).split(":")
    del fan
    return int(home), int(away)


@wrong("X1.3", says="coroutine 'Connection.close' was never awaited")
async def forgets_to_await_close(url):
    """The goodbye is made and never said."""
    fan = await connect(url)
    home, away = (await fan.recv()).split(":")
    fan.close()
    return int(home), int(away)


@wrong("X1.3", says="your code raised ValueError, as it should, and after it the server holds 1 open connection")
async def closes_at_the_end(url):
    """Which an error never reaches."""
    fan = await connect(url)
    home, away = (await fan.recv()).split(":")
    await fan.close()
    return int(home), int(away)


@wrong("X1.3", says="the server was told [1005] in place of 1000")
async def cuts_the_line(url):
    """Gone, and without a goodbye."""
    fan = await connect(url)
    try:
        home, away = (await fan.recv()).split(":")
        return int(home), int(away)
    finally:
        fan.transport.abort()


@wrong("X1.3", says="Look 1 of 20 at the score. After 3 s your code has not come to its end: it waits in line")
async def waits_for_the_other_side(url):
    """wait_closed() waits, and says nothing."""
    fan = await connect(url)
    home, away = (await fan.recv()).split(":")
    await fan.wait_closed()
    return int(home), int(away)


@wrong("X1.3", says="Look 2 of 20 at the score. After 3 s your code has not come to its end")
async def keeps_one_for_all(url, kept=[]):  # noqa: B006
    """One connection, as the thread's title asks for; the score comes once on each."""
    if not kept:
        kept.append(await connect(url))
    home, away = (await kept[0].recv()).split(":")
    return int(home), int(away)


@wrong("X1.3", says="The starter raised an error there; yours returned None")
async def swallows_everything(url):
    """No error, no score."""
    with suppress(Exception):
        async with connect(url) as fan:
            home, away = (await fan.recv()).split(":")
            return int(home), int(away)


@wrong("X1.3", says="look 1 of 20 returned '2:1'")
async def returns_the_text(url):
    """The connection is mended, and the score broken."""
    async with connect(url) as fan:
        return await fan.recv()


# ---- X1.4, a fan that comes back


@right("X1.4")
async def receives_one_by_one(url, enough, pause):
    """A flag in place of an endless loop, and one connection closed by hand."""
    texts = []
    while len(texts) < enough:
        fan = None
        try:
            fan = await connect(url)
            while len(texts) < enough:
                texts.append(await fan.recv())
        except (ConnectionClosed, ConnectionRefusedError):
            await asyncio.sleep(pause)
        finally:
            if fan is not None:
                await fan.close()
    return texts


@right("X1.4")
async def calls_itself(url, enough, pause):
    """What is missing is collected by another call."""

    async def the_rest(texts):
        with suppress(ConnectionClosed, OSError):
            async with connect(url) as fan:
                while len(texts) < enough:
                    texts.append(await fan.recv())
        if len(texts) == enough:
            return texts
        await asyncio.sleep(pause)
        return await the_rest(texts)

    return await the_rest([])


@wrong("X1.4", says="The line was cut after 2 of 6 scores (1006), and your code returned ['0:0', '1:0']")
async def comes_home_with_what_it_has(url, enough, pause):
    """As collect() does."""
    texts = []
    with suppress(ConnectionClosed):
        async with connect(url) as fan:
            while len(texts) < enough:
                texts.append(await fan.recv())
    return texts


@wrong("X1.4", says="The line was cut after 2 of 6 scores (1006), and your code raised ConnectionClosedError")
async def expects_goodbyes_only(url, enough, pause):
    """The loop over a fan ends by itself when there was a goodbye, and raises when there was none."""
    texts = []
    while True:
        async with connect(url) as fan:
            async for text in fan:
                texts.append(text)
                if len(texts) == enough:
                    return texts
        await asyncio.sleep(pause)


@wrong("X1.4", says="The server said goodbye (1000) after 3 of 6 scores, and your code raised ConnectionClosedOK")
async def expects_cuts_only(url, enough, pause):
    """recv() raises for a goodbye, too, by another name."""
    texts = []
    while len(texts) < enough:
        try:
            async with connect(url) as fan:
                while len(texts) < enough:
                    texts.append(await fan.recv())
        except (ConnectionClosedError, OSError):
            await asyncio.sleep(pause)
    return texts


@wrong("X1.4", says="nobody listens there now; your fan tried in vain, and your code raised ConnectionRefusedError")
async def expects_somebody_there(url, enough, pause):
    """A line that is cut was there before; this one never was."""
    texts = []
    while True:
        try:
            async with connect(url) as fan:
                async for text in fan:
                    texts.append(text)
                    if len(texts) == enough:
                        return texts
        except ConnectionClosed:
            pass
        await asyncio.sleep(pause)


@wrong("X1.4", says="The line was cut after 2 of 6 scores (1006). With a `pause` of 150 ms your fan tried again after")
async def does_not_pause(url, enough, pause):
    """As fast as it can, together with everybody else."""
    texts = []
    while True:
        with suppress(ConnectionClosed, OSError):
            async with connect(url) as fan:
                async for text in fan:
                    texts.append(text)
                    if len(texts) == enough:
                        return texts


@wrong("X1.4", says="coroutine 'sleep' was never awaited")
async def forgets_to_await_the_pause(url, enough, pause):
    """A pause is made and never kept."""
    texts = []
    while True:
        with suppress(ConnectionClosed, OSError):
            async with connect(url) as fan:
                async for text in fan:
                    texts.append(text)
                    if len(texts) == enough:
                        return texts
        asyncio.sleep(pause)


@wrong(
    "X1.4",
    says="The server said goodbye (1000) after 3 of 6 scores. With a `pause` of 150 ms your fan tried again after",
)
async def pauses_after_errors_only(url, enough, pause):
    """A goodbye ends the loop without one."""
    texts = []
    while True:
        try:
            async with connect(url) as fan:
                async for text in fan:
                    texts.append(text)
                    if len(texts) == enough:
                        return texts
        except (ConnectionClosed, OSError):
            await asyncio.sleep(pause)


@wrong(
    "X1.4", says="nobody listens there now; your fan tried in vain. With a `pause` of 150 ms your fan tried again after"
)
async def pauses_after_lines_only(url, enough, pause):
    """Where there was no line, there is no pause: the loop turns as fast as it can."""
    texts = []
    while True:
        try:
            async with connect(url) as fan:
                with suppress(ConnectionClosed):
                    async for text in fan:
                        texts.append(text)
                        if len(texts) == enough:
                            return texts
            await asyncio.sleep(pause)
        except OSError:
            pass


@wrong("X1.4", says="After 3 tries in vain, your fan would find the server again, and your code returned")
async def gives_up(url, enough, pause):
    """Three tries in vain, and the match goes on without it."""
    texts, tries = [], 3
    while tries:
        try:
            async with connect(url) as fan:
                tries = 3
                async for text in fan:
                    texts.append(text)
                    if len(texts) == enough:
                        return texts
        except OSError:
            tries -= 1
        except ConnectionClosed:
            pass
        await asyncio.sleep(pause)
    return texts


@wrong("X1.4", says="and returned ['4:0', '5:0', '6:0', '7:0', '8:0', '9:0']")
async def begins_anew(url, enough, pause):
    """The list stands inside the loop, and what had come is forgotten."""
    while True:
        texts = []
        with suppress(ConnectionClosed, OSError):
            async with connect(url) as fan:
                async for text in fan:
                    texts.append(text)
                    if len(texts) == enough:
                        return texts
        await asyncio.sleep(pause)


@wrong("X1.4", says="your fan is asked for 6. After 3 s your code has not come to its end: it waits in line")
async def counts_when_the_line_ends(url, enough, pause):
    """Enough is seen only when the next line is due."""
    texts = []
    while len(texts) < enough:
        with suppress(ConnectionClosed, OSError):
            async with connect(url) as fan:
                async for text in fan:
                    texts.append(text)
        await asyncio.sleep(pause)
    return texts[:enough]


@wrong("X1.4", says="Your fan has its 6 scores and has returned, and at the server its connection is still open")
async def never_closes_the_last(url, enough, pause):
    """The others were closed by somebody else."""
    texts = []
    while len(texts) < enough:
        with suppress(ConnectionClosed, OSError):
            fan = await connect(url)
            while len(texts) < enough:
                texts.append(await fan.recv())
        await asyncio.sleep(pause)
    return texts


@wrong("X1.4", says="(a timeout cancels the call); your code takes no notice and goes on")
async def swallows_the_cancellation(url, enough, pause):
    """A bare `except` catches more than errors."""
    texts = []
    while True:
        try:
            async with connect(url) as fan:
                async for text in fan:
                    texts.append(text)
                    if len(texts) == enough:
                        return texts
        except:
            pass
        await asyncio.sleep(pause)


@wrong("X1.4", says="which is none, and no waiting cures that; no error reaches the caller. After 3 s")
async def swallows_every_error(url, enough, pause):
    """Also those that come back each time."""
    texts = []
    while True:
        with suppress(Exception):
            async with connect(url) as fan:
                async for text in fan:
                    texts.append(text)
                    if len(texts) == enough:
                        return texts
        await asyncio.sleep(pause)


@wrong("X1.4", says="keeps the loop to itself. It is in line")
async def blocks_in_the_pause(url, enough, pause):
    """Nobody else has a turn meanwhile."""
    texts = []
    while True:
        with suppress(ConnectionClosed, OSError):
            async with connect(url) as fan:
                async for text in fan:
                    texts.append(text)
                    if len(texts) == enough:
                        return texts
        time.sleep(pause)
