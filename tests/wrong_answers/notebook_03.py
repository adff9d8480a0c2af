"""Known answers to the exercises of notebook 03, "Who is here?"."""

import asyncio

from bank import right, wrong
from fastapi import WebSocket, WebSocketDisconnect

# ---- X3.1, the register


@right("X3.1")
async def with_iter_text(websocket: WebSocket, here: set):
    """The iterator swallows the disconnect by itself."""
    await websocket.accept()
    here.add(websocket)
    try:
        async for _ in websocket.iter_text():
            pass
    finally:
        here.discard(websocket)


@right("X3.1")
async def with_receive(websocket: WebSocket, here: set):
    """One level lower there is no exception at all."""
    await websocket.accept()
    here.add(websocket)
    while (await websocket.receive())["type"] != "websocket.disconnect":
        pass
    here -= {websocket}


@wrong("X3.1", says="Fan 6 is connected and has said nothing, and your handler has already returned")
async def does_not_listen(websocket: WebSocket, here: set):
    """Accepts, notes, and returns: the connection is closed behind it."""
    await websocket.accept()
    here.add(websocket)


@wrong("X3.1", says="Fan 1 said hello, and then goodbye with a close frame; its handler has ended, and it still stands")
async def takes_off_behind_the_loop(websocket: WebSocket, here: set):
    """The line is never reached: the loop ends in an exception."""
    await websocket.accept()
    here.add(websocket)
    while True:
        await websocket.receive_text()
    here.discard(websocket)


@wrong("X3.1", says="Fan 7 sent bytes where your handler wants text; its handler has ended, and it still stands")
async def takes_off_in_except(websocket: WebSocket, here: set):
    """Only the ending that was thought of."""
    await websocket.accept()
    here.add(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        here.discard(websocket)


@wrong("X3.1", says="your handler raised KeyError. Being taken off twice happens")
async def removes(websocket: WebSocket, here: set):
    """`remove` minds when somebody was faster."""
    await websocket.accept()
    here.add(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        here.remove(websocket)


@wrong("X3.1", says="and your handler let WebSocketDisconnect: (1000")
async def lets_the_goodbye_out(websocket: WebSocket, here: set):
    """Clean, and yet an error in the log for everyone who leaves."""
    await websocket.accept()
    here.add(websocket)
    try:
        while True:
            await websocket.receive_text()
    finally:
        here.discard(websocket)


@wrong("X3.1", says="and your handler let WebSocketDisconnected")
async def receives_beyond_the_end(websocket: WebSocket, here: set):
    """`receive` hands the disconnect over once, and raises when it is asked again."""
    await websocket.accept()
    here.add(websocket)
    try:
        while True:
            await websocket.receive()
    finally:
        here.discard(websocket)


@wrong("X3.1", says="Your handler ended after the first of them")
async def listens_once(websocket: WebSocket, here: set):
    """No loop: whoever says something is thrown out."""
    await websocket.accept()
    here.add(websocket)
    try:
        await websocket.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        here.discard(websocket)


@wrong("X3.1", says=r"fans [2, 3, 4, 5, 6] are still connected, and were taken off with it")
async def clears(websocket: WebSocket, here: set):
    """Takes everybody along."""
    await websocket.accept()
    here.add(websocket)
    try:
        async for _ in websocket.iter_text():
            pass
    finally:
        here.clear()


@wrong("X3.1", says="For 4 s nobody else had a turn: your code keeps the loop to itself")
async def swallows_everything(websocket: WebSocket, here: set):
    """After the goodbye, receive raises at once, for ever."""
    await websocket.accept()
    here.add(websocket)
    while True:
        try:
            await websocket.receive_text()
        except Exception:
            pass


@wrong("X3.1", says="6 fans are connected, and of them only [] are in `here`")
async def notes_the_class(websocket: WebSocket, here: set):
    """The class is one entry, however many fans come."""
    await websocket.accept()
    here.update({WebSocket, 2, 3, 4, 5, 6})
    async for _ in websocket.iter_text():
        pass
    here.discard(WebSocket)


@wrong("X3.1", says="coroutine 'WebSocket.accept' was never awaited")
async def forgets_await(websocket: WebSocket, here: set):
    """Nothing is accepted; Python says why."""
    websocket.accept()
    here.add(websocket)
    try:
        while True:
            await websocket.receive_text()
    finally:
        here.discard(websocket)


@wrong("X3.1", says="calls sys.exit()")
async def leaves_the_program(websocket: WebSocket, here: set):
    """Ends the program where it means to end the handler."""
    await websocket.accept()
    here.add(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        here.discard(websocket)
        raise SystemExit from None


# ---- X3.2, presence


@right("X3.2")
async def with_gather(websocket: WebSocket, here: set):
    """All at once; the errors are collected and let go."""

    def tell():
        text = f"{len(here)} here"
        return asyncio.gather(*(each.send_text(text) for each in here), return_exceptions=True)

    await websocket.accept()
    here.add(websocket)
    await tell()
    async for _ in websocket.iter_text():
        pass
    here.discard(websocket)
    await tell()


@wrong("X3.2", says="Fan 1 has come; fan 1 should hear '1 here', and hears '0 here'")
async def counts_too_early(websocket: WebSocket, here: set):
    """The number of those who were here before."""
    await websocket.accept()
    text = f"{len(here)} here"
    here.add(websocket)
    for each in here.copy():
        await each.send_text(text)
    async for _ in websocket.iter_text():
        pass
    here.discard(websocket)


@wrong("X3.2", says="Fan 2 has come; fan 1 should hear '2 here', and hears nothing")
async def tells_the_newcomer_only(websocket: WebSocket, here: set):
    """The starter with a `finally` that tells nobody new."""
    await websocket.accept()
    here.add(websocket)
    await websocket.send_text(f"{len(here)} here")
    async for _ in websocket.iter_text():
        pass
    here.discard(websocket)
    for each in here.copy():
        await each.send_text(f"{len(here)} here")


@wrong("X3.2", says="Fan 1 has come; fan 1 should hear '1 here', and hears nothing")
async def leaves_the_newcomer_out(websocket: WebSocket, here: set):
    """Tells the others and forgets the one who has come."""
    await websocket.accept()
    for each in here.copy():
        await each.send_text(f"{len(here) + 1} here")
    here.add(websocket)
    async for _ in websocket.iter_text():
        pass
    here.discard(websocket)


@wrong("X3.2", says="Fan 2 of 4 has said goodbye; fan 1 should hear '3 here', and hears nothing")
async def is_silent_at_the_end(websocket: WebSocket, here: set):
    """Half of the moments."""
    await websocket.accept()
    here.add(websocket)
    for each in here.copy():
        await each.send_text(f"{len(here)} here")
    async for _ in websocket.iter_text():
        pass
    here.discard(websocket)


@wrong("X3.2", says="Fan 2 of 4 has said goodbye; fan 1 should hear '3 here', and hears '4 here'")
async def counts_the_leaver(websocket: WebSocket, here: set):
    """Tells before it takes off."""
    await websocket.accept()
    here.add(websocket)
    for each in here.copy():
        await each.send_text(f"{len(here)} here")
    async for _ in websocket.iter_text():
        pass
    for each in here - {websocket}:
        await each.send_text(f"{len(here)} here")
    here.discard(websocket)


@wrong("X3.2", says="your handler tried to tell one of those, and raised")
async def stops_at_the_first_who_is_gone(websocket: WebSocket, here: set):
    """One dead connection ends the round for those behind it."""
    await websocket.accept()
    here.add(websocket)
    for each in here.copy():
        await each.send_text(f"{len(here)} here")
    async for _ in websocket.iter_text():
        pass
    here.discard(websocket)
    for each in here.copy():
        await each.send_text(f"{len(here)} here")


@wrong("X3.2", says="is told nothing of that: the round ended at one who is gone")
async def has_one_try_for_the_round(websocket: WebSocket, here: set):
    """The error is caught, and the round is over all the same."""

    async def tell():
        try:
            for each in here.copy():
                await each.send_text(f"{len(here)} here")
        except (WebSocketDisconnect, RuntimeError):
            pass

    await websocket.accept()
    here.add(websocket)
    await tell()
    async for _ in websocket.iter_text():
        pass
    here.discard(websocket)
    await tell()


@wrong("X3.2", says="Set changed size during iteration")
async def walks_the_register_itself(websocket: WebSocket, here: set):
    """Somebody comes while a send waits."""

    async def tell():
        for each in here:
            try:
                await each.send_text(f"{len(here)} here")
            except WebSocketDisconnect:
                pass

    await websocket.accept()
    here.add(websocket)
    await tell()
    async for _ in websocket.iter_text():
        pass
    here.discard(websocket)
    await tell()


# ---- X3.3, the class in the list


@right("X3.3")
async def with_finally(websocket: WebSocket, here: list):
    """The removal where it always runs."""
    await websocket.accept()
    here.append(websocket)
    try:
        async for _ in websocket.iter_text():
            pass
    finally:
        if websocket in here:
            here.remove(websocket)


@wrong("X3.3", says="ValueError: list.remove(x): x not in list")
async def mends_one_of_two(websocket: WebSocket, here: list):
    """The class is still what is taken out."""
    await websocket.accept()
    here.append(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        here.remove(WebSocket)


@wrong("X3.3", says="the list holds Address(")
async def keeps_the_address(websocket: WebSocket, here: list):
    """Who it is, not what one can send to."""
    await websocket.accept()
    here.append(websocket.client)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        here.remove(websocket.client)


@wrong("X3.3", says="Fan 1 said goodbye. Fans [2, 3] are left; in the list stand [1, 2]")
async def pops(websocket: WebSocket, here: list):
    """The last one is not the one who left."""
    await websocket.accept()
    here.append(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        here.pop()


@wrong("X3.3", says="Fan 1 said goodbye. Fans [2, 3] are left; in the list stand [1, 2, 3]")
async def only_adds(websocket: WebSocket, here: list):
    """The error is gone, and so is the removal."""
    await websocket.accept()
    here.append(websocket)
    async for _ in websocket.iter_text():
        pass


@wrong("X3.3", says="the list holds <class 'starlette.websockets.WebSocket'>")
async def catches_the_error_away(websocket: WebSocket, here: list):
    """The bug as it was, with one `except` more."""
    await websocket.accept()
    here.append(WebSocket)
    try:
        async for _ in websocket.iter_text():
            pass
    finally:
        try:
            here.remove(WebSocket)
        except ValueError:
            pass


@wrong("X3.3", says="3 fans are connected, and the list has 6 entries for them")
async def adds_twice(websocket: WebSocket, here: list):
    """Before the accept and behind it."""
    here.append(websocket)
    await websocket.accept()
    here.append(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        here.remove(websocket)


@wrong("X3.3", says="of the 3 entries in the list 3 are not the connections that the server handed to your function")
async def makes_one_of_the_class(websocket: WebSocket, here: list):
    """A second object for the same fan, which nobody can find again."""
    await websocket.accept()
    here.append(WebSocket(websocket.scope, websocket.receive, websocket.send))
    async for _ in websocket.iter_text():
        pass
    here.pop()


# ---- X3.4, a limit


@right("X3.4")
async def adds_first(websocket: WebSocket, here: set, limit: int):
    """In, counted, and out again where it is one too many."""
    await websocket.accept()
    here.add(websocket)
    try:
        if len(here) > limit:
            await websocket.close(1013, "come back later")
        else:
            async for _ in websocket.iter_text():
                pass
    finally:
        here.discard(websocket)


def listening(after):
    """Return an endpoint that begins with `after`, which says whether the fan may stay; then it listens."""

    async def endpoint(websocket: WebSocket, here: set, limit: int):
        if await after(websocket, here, limit):
            async for _ in websocket.iter_text():
                pass
            here.discard(websocket)

    endpoint.__name__ = after.__name__
    return endpoint


@wrong("X3.4", says="The limit is 2, and 3 fans stand in `here`")
@listening
async def is_off_by_one(websocket: WebSocket, here: set, limit: int):
    """The case where both are equal."""
    await websocket.accept()
    if len(here) > limit:
        await websocket.close(1013, "full")
        return False
    here.add(websocket)
    return True


@wrong("X3.4", says="The refused fan sees HTTP 403")
@listening
async def refuses_before_it_accepts(websocket: WebSocket, here: set, limit: int):
    """Then there is no close frame, and no code in it."""
    if len(here) >= limit:
        await websocket.close(1013, "full")
        return False
    await websocket.accept()
    here.add(websocket)
    return True


@wrong("X3.4", says="The refused fan is closed with 1000. Its app cannot tell that from a goodbye")
@listening
async def closes_without_a_code(websocket: WebSocket, here: set, limit: int):
    """1000 says that all is well."""
    await websocket.accept()
    if len(here) >= limit:
        await websocket.close()
        return False
    here.add(websocket)
    return True


@wrong("X3.4", says="The refused fan is closed with 1006. Its app cannot tell that from a broken line")
@listening
async def returns_without_a_word(websocket: WebSocket, here: set, limit: int):
    """The seed's goodbye, once more."""
    await websocket.accept()
    if len(here) >= limit:
        return False
    here.add(websocket)
    return True


@wrong("X3.4", says="The refused fan is told 1013 and no reason")
@listening
async def gives_no_reason(websocket: WebSocket, here: set, limit: int):
    """A number for a human being."""
    await websocket.accept()
    if len(here) >= limit:
        await websocket.close(1013)
        return False
    here.add(websocket)
    return True


@wrong("X3.4", says="Fan 3 has come, and fan 1, who was in, is closed instead")
async def makes_room_by_throwing_out(websocket: WebSocket, here: set, limit: int):
    """The one who was first has to go."""
    await websocket.accept()
    if len(here) >= limit:
        first = min(here, key=lambda each: each.scope["connection"])
        here.discard(first)
        await first.close(1013, "full")
    here.add(websocket)
    async for _ in websocket.iter_text():
        pass
    here.discard(websocket)


@wrong("X3.4", says="Fan 3 was refused with 1013, and still stands in `here`")
async def adds_before_it_counts(websocket: WebSocket, here: set, limit: int):
    """Whoever is refused takes a place for ever."""
    await websocket.accept()
    here.add(websocket)
    if len(here) > limit:
        await websocket.close(1013, "full")
        return
    async for _ in websocket.iter_text():
        pass
    here.discard(websocket)


@wrong("X3.4", says="Fan 3 was refused; then your handler went on with it, and raised")
async def forgets_to_return(websocket: WebSocket, here: set, limit: int):
    """The refusal is a line, and not a branch."""
    await websocket.accept()
    if len(here) >= limit:
        await websocket.close(1013, "full")
    else:
        here.add(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        here.discard(websocket)


@wrong("X3.4", says="Your handler ended after the first of them")
async def listens_to_one_word(websocket: WebSocket, here: set, limit: int):
    """No loop: whoever says something loses the place."""
    await websocket.accept()
    if len(here) >= limit:
        await websocket.close(1013, "full")
        return
    here.add(websocket)
    try:
        await websocket.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        here.discard(websocket)


@wrong("X3.4", says="it is not let in, and nobody tells it")
@listening
async def lets_it_wait_outside(websocket: WebSocket, here: set, limit: int):
    """A queue at the door is another thing."""
    await websocket.accept()
    while len(here) >= limit:
        await asyncio.sleep(0.01)
    here.add(websocket)
    return True


@wrong("X3.4", says="One of 2 has left, and 2 places are still taken")
async def never_frees_the_place(websocket: WebSocket, here: set, limit: int):
    """After two fans the house is full for ever."""
    await websocket.accept()
    if len(here) >= limit:
        await websocket.close(1013, "full")
        return
    here.add(websocket)
    async for _ in websocket.iter_text():
        pass


@wrong("X3.4", says="The limit is 3; 3 fans have come, and `here` does not hold all of them")
async def has_the_limit_written_in(websocket: WebSocket, here: set, limit: int):
    """Right for the first number that was tried."""
    await websocket.accept()
    if len(here) >= 2:
        await websocket.close(1013, "full")
        return
    here.add(websocket)
    async for _ in websocket.iter_text():
        pass
    here.discard(websocket)
