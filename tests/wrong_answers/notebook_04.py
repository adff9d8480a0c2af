"""Known answers to the exercises of notebook 04, "How does one message reach everyone?"."""

import asyncio
import random
from collections import deque

from bank import right, wrong
from fastapi import WebSocket, WebSocketDisconnect
from starlette.websockets import WebSocketState

# ---- X4.1, a safe broadcast


@right("X4.1")
async def gathers_and_reads_the_results(connections: set, text: str):
    """All at once; what came back is read, and what is ours is raised."""
    walked = list(connections)
    results = await asyncio.gather(*(each.send_text(text) for each in walked), return_exceptions=True)
    for connection, result in zip(walked, results, strict=True):
        if isinstance(result, (WebSocketDisconnect, RuntimeError)):
            connections.discard(connection)
        elif result is not None:
            raise result


@right("X4.1")
async def takes_off_behind_the_loop(connections: set, text: str):
    """As TolerantManager does."""
    gone = set()
    for connection in tuple(connections):
        try:
            await connection.send_text(text)
        except WebSocketDisconnect:
            gone.add(connection)
        except RuntimeError:
            gone.add(connection)
    connections -= gone


@wrong("X4.1", says="and their handlers took them off; your function raised WebSocketDisconnect")
async def catches_nothing(connections: set, text: str):
    """One who is gone ends it for those behind."""
    for connection in connections.copy():
        await connection.send_text(text)


@wrong("X4.1", says="are here, and never got “GOAL”.")
async def has_one_try_for_the_round(connections: set, text: str):
    """The error is caught, and the round is over all the same."""
    try:
        for connection in connections.copy():
            await connection.send_text(text)
    except (WebSocketDisconnect, RuntimeError):
        connections.discard(connection)


@wrong("X4.1", says="your function raised RuntimeError: Set changed size during iteration")
async def walks_the_register_itself(connections: set, text: str):
    """A handler takes somebody off while a send waits."""
    for connection in connections:
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(connection)


@wrong("X4.1", says="your function raised KeyError: the connection of fan ")
async def removes(connections: set, text: str):
    """The handler had been faster."""
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.remove(connection)


@wrong("X4.1", says="your function raised WebSocketDisconnected (a RuntimeError): Cannot call")
async def knows_one_of_two_errors(connections: set, text: str):
    """A connection that was closed from our side raises the other one."""
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except WebSocketDisconnect:
            connections.discard(connection)


@wrong(
    "X4.1", says="while its handler was busy, and nobody took them off; your function raised WebSocketDisconnect, in"
)
async def asks_the_state(connections: set, text: str):
    """The state changes when the handler hears of the goodbye, and not when the fan goes."""
    for connection in connections.copy():
        if connection.client_state == WebSocketState.CONNECTED:
            await connection.send_text(text)
        else:
            connections.discard(connection)


@wrong("X4.1", says="are gone, and still stand in the register")
async def binds_the_name_anew(connections: set, text: str):
    """A new set, which nobody else has ever seen."""
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections = connections - {connection}


@wrong("X4.1", says="which is no text: a mistake of ours; fans")
async def catches_everything(connections: set, text: str):
    """A mistake of ours looks as if everybody had gone."""
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except Exception:
            connections.discard(connection)


@wrong("X4.1", says="nobody got it, and your function said nothing")
async def swallows_our_own_mistake(connections: set, text: str):
    """Nobody is evicted, and nobody hears of it."""
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(connection)
        except Exception:
            pass


@wrong("X4.1", says="which nothing can encode: a mistake of ours; fans")
async def looks_for_the_mistake_that_we_named(connections: set, text: str):
    """One kind of mistake is kept out in front; every other looks as if everybody had gone."""
    if not isinstance(text, str):
        raise TypeError(f"a text is wanted, not {text!r}")
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except Exception:
            connections.discard(connection)


@wrong("X4.1", says="which nothing can encode: a mistake of ours; nobody got it, and your function said nothing")
async def swallows_the_mistake_that_we_did_not_name(connections: set, text: str):
    """A ValueError is taken for what a register raises."""
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(connection)
        except ValueError:
            pass


@wrong("X4.1", says="""the fans got "{'home': 1, 'away': 0}", and your function said nothing""")
async def makes_a_text_of_anything(connections: set, text: str):
    """Then nothing fails, and every fan sees our mistake but us."""
    for connection in connections.copy():
        try:
            await connection.send_text(str(text))
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(connection)


@right("X4.1")
async def asks_for_a_text_as_well(connections: set, text: str):
    """A question in front does no harm; what the sends raise is still sorted."""
    if not isinstance(text, str):
        raise TypeError(f"a text is wanted, not {text!r}")
    for connection in [*connections]:
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(connection)


@wrong("X4.1", says="are here, and your function took them off the register")
async def clears_the_register(connections: set, text: str):
    """One is gone, and all are taken off."""
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.clear()


@wrong("X4.1", says="coroutine 'WebSocket.send_text' was never awaited")
async def forgets_await(connections: set, text: str):
    """Python says why."""
    for connection in connections.copy():
        try:
            connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(connection)


@wrong("X4.1", says="TypeError: Passing coroutines is forbidden")
async def waits_for_coroutines(connections: set, text: str):
    """asyncio.wait() wants tasks."""
    await asyncio.wait([connection.send_text(text) for connection in connections])


@wrong("X4.1", says="and your function has come back. Who will hear what becomes of that send?")
async def starts_tasks_and_leaves(connections: set, text: str):
    """Back before the last send is through; what a send raises is nobody's."""

    async def tell(connection):
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(connection)

    for connection in connections.copy():
        asyncio.create_task(tell(connection))


@wrong("X4.1", says="8 fans are here, and nobody has gone; your function raised KeyError: 'pop from an empty set'")
async def pops(connections: set, text: str):
    """Takes everybody off to send to them, and one more."""
    while True:
        connection = connections.pop()
        await connection.send_text(text)


@wrong("X4.1", says="stand in the register again. Who has put them there?")
async def fills_the_register_anew(connections: set, text: str):
    """Who was here at the beginning, but for those whose send failed: nobody else counts."""
    here, gone = connections.copy(), set()
    for connection in here:
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            gone.add(connection)
    connections.clear()
    connections.update(here - gone)


@wrong("X4.1", says="after the round it is off the register, and never got “CORNER”.")
async def keeps_those_who_were_told(connections: set, text: str):
    """Who came during the round was not told, and is thrown out."""
    alive = set()
    for connection in connections.copy():
        try:
            await connection.send_text(text)
            alive.add(connection)
        except (WebSocketDisconnect, RuntimeError):
            pass
    connections &= alive


@wrong("X4.1", says="and your function has given up that send")
async def runs_out_of_patience(connections: set, text: str):
    """A slow fan is here, and its send is cut off in the middle."""
    for connection in connections.copy():
        try:
            async with asyncio.timeout(0.02):
                await connection.send_text(text)
        except TimeoutError:
            pass
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(connection)


# ---- X4.2, who was dropped


@right("X4.2")
async def with_a_set(connections: set, text: str):
    """The set is what is subtracted, and what is returned."""
    gone = set()
    for connection in list(connections):
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            gone.add(connection)
    connections.difference_update(gone)
    return gone


@right("X4.2")
async def with_gather(connections: set, text: str):
    """All at once; the results say who."""
    walked = list(connections)
    results = await asyncio.gather(*(each.send_text(text) for each in walked), return_exceptions=True)
    dropped = [each for each, result in zip(walked, results, strict=True) if result is not None]
    connections -= {*dropped}
    return dropped


@wrong("X4.2", says="your function returned None")
async def forgets_to_return(connections: set, text: str):
    """Notes them, and keeps it."""
    dropped = []
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(connection)
            dropped.append(connection)


@wrong("X4.2", says="are here, and never got “GOAL”.")
async def returns_at_the_first(connections: set, text: str):
    """The `return` stands in the loop."""
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(connection)
            return [connection]
    return []


@wrong("X4.2", says="your function returned one connection")
async def keeps_the_last(connections: set, text: str):
    """A name holds one, however many are gone."""
    dropped = None
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(connection)
            dropped = connection
    return dropped


@wrong("X4.2", says="your function returned 1. Who asks wants to know which")
async def counts(connections: set, text: str):
    """How many, not who."""
    dropped = 0
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(connection)
            dropped += 1
    return dropped


@wrong("X4.2", says="had got “GOAL” before it left; your function says that it was dropped")
async def compares_before_and_after(connections: set, text: str):
    """Who left by itself is missing afterwards, too."""
    before = connections.copy()
    for connection in before:
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(connection)
    return before - connections


@wrong("X4.2", says="left before its turn; your send to it failed, and your function does not name it")
async def names_only_whom_it_takes_off(connections: set, text: str):
    """The handler had been faster, and the one who could not be told is nobody's."""
    gone = []
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            if connection in connections:
                gone.append(connection)
            connections.discard(connection)
    return gone


@right("X4.2")
async def skips_who_has_left(connections: set, text: str):
    """Nothing is sent to who is off the register by now, and so nothing fails."""
    gone = []
    for connection in connections.copy():
        if connection not in connections:
            continue
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(connection)
            gone.append(connection)
    return gone


@wrong("X4.2", says="are here, and were told")
async def returns_who_is_left(connections: set, text: str):
    """The others."""
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(connection)
    return connections


@wrong("X4.2", says="among those whom your function names is Address(")
async def names_the_address(connections: set, text: str):
    """Who asks cannot find that in the register."""
    dropped = []
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(connection)
            dropped.append(connection.client)
    return dropped


@wrong("X4.2", says="had been dropped in a round before, not in this")
async def keeps_the_default(connections: set, text: str, dropped=[]):  # noqa: B006
    """A default value is made once, and lives on."""
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(connection)
            dropped.append(connection)
    return dropped


@wrong("X4.2", says="are gone, and still stand in the register")
async def names_and_keeps(connections: set, text: str):
    """The removal is gone with the change."""
    dropped = []
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            dropped.append(connection)
    return dropped


@wrong("X4.2", says="nobody has gone since the last round; your function returned None")
async def returns_nothing_for_nobody(connections: set, text: str):
    """Who asks how many there are gets a TypeError."""
    dropped = []
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(connection)
            dropped.append(connection)
    return dropped or None


@wrong("X4.2", says="your function raised KeyError")
async def removes_from_the_set(connections: set, text: str):
    """The handler had been faster."""
    dropped = []
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.remove(connection)
            dropped.append(connection)
    return dropped


@wrong("X4.2", says="after the round it is off the register, and never got “KICK-OFF”.")
async def keeps_whom_it_told(connections: set, text: str):
    """Who came during the round was not told, and is thrown out unnamed."""
    alive, dropped = set(), []
    for connection in connections.copy():
        try:
            await connection.send_text(text)
            alive.add(connection)
        except (WebSocketDisconnect, RuntimeError):
            dropped.append(connection)
    connections &= alive
    return dropped


# ---- X4.3, the list changes meanwhile


@right("X4.3")
async def rebuilds_the_list(connections: list, text: str):
    """The list stays the same object; what it holds is asked for afterwards."""
    gone = []
    for connection in [*connections]:
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            gone.append(connection)
    connections[:] = [each for each in connections if each not in gone]


@right("X4.3")
async def does_not_mind_the_error(connections: list, text: str):
    """Removing twice is caught where it happens."""
    for connection in list(connections):
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            try:
                connections.remove(connection)
            except ValueError:
                pass


@wrong("X4.3", says="Fan 3 had hung up and still stood in the list; your loop sent to fans [1, 2, 3, 5, 6, 7, 8]")
async def asks_before_it_removes(connections: list, text: str):
    """The half that does not help: fan 4 moved up, and the loop moved on."""
    for connection in connections:
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            if connection in connections:
                connections.remove(connection)


@wrong("X4.3", says="and their handlers took them off; your loop sent to fans")
async def removes_behind_the_loop(connections: list, text: str):
    """The loop itself changes nothing any more; the handlers still do."""
    gone = []
    for connection in connections:
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            gone.append(connection)
    for connection in gone:
        if connection in connections:
            connections.remove(connection)


@wrong("X4.3", says="ValueError: list.remove(x): x not in list")
async def walks_a_copy_and_removes(connections: list, text: str):
    """The correction in most answers: right, until a handler is faster."""
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.remove(connection)


@wrong("X4.3", says="got “GOAL” more than once")
async def walks_backwards(connections: list, text: str):
    """Safe against one's own removals, and not against those of others."""
    for connection in reversed(connections):
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            if connection in connections:
                connections.remove(connection)


@wrong("X4.3", says="IndexError: list index out of range")
async def counts_the_places(connections: list, text: str):
    """There were eight when it began."""
    for place in range(len(connections)):
        try:
            await connections[place].send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.remove(connections[place])


@wrong("X4.3", says="fans [3] are gone, and still stand in the register")
async def only_swallows(connections: list, text: str):
    """Nobody is skipped, and nobody is ever taken off."""
    for connection in connections.copy():
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            pass


@wrong("X4.3", says="still stand in the register. Is the list that you changed the one that you were given?")
async def makes_a_new_list(connections: list, text: str):
    """Who asked keeps the old one, and so do the handlers."""
    for connection in connections:
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections = [each for each in connections if each is not connection]


@wrong("X4.3", says="fans [1, 2, 4, 5, 6, 7, 8] are here, and your function took them off the register")
async def empties_the_list(connections: list, text: str):
    """Whoever has been told is off."""
    while connections:
        try:
            await connections.pop(0).send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            pass


@wrong("X4.3", says="still stood in the list; your function raised WebSocketDisconnect, in line")
async def walks_a_copy_and_catches_nothing(connections: list, text: str):
    """The copy is there, and the `try` is gone."""
    for connection in connections.copy():
        await connection.send_text(text)


@wrong("X4.3", says="Fan 9 came while your function waited at fan 5; after the round it is off the register, and never")
async def rebuilds_the_list_from_the_copy(connections: list, text: str):
    """The copy is older than who came during the round."""
    walk, gone = connections.copy(), []
    for connection in walk:
        try:
            await connection.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            gone.append(connection)
    connections[:] = [each for each in walk if each in connections and each not in gone]


# ---- X4.4, a fair rotation


class Register:
    """What all of these share: a list, and two verbs that are right."""

    def __init__(self):
        self.connections = []

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        self.connections.append(websocket)

    def disconnect(self, websocket: WebSocket):
        if websocket in self.connections:
            self.connections.remove(websocket)


@right("X4.4")
class Counts(Register):
    """The list stays as it is; a number says who begins."""

    def __init__(self):
        super().__init__()
        self.rounds = 0

    async def broadcast(self, text: str):
        if self.connections:
            begin = self.rounds % len(self.connections)
            self.rounds += 1
            for connection in self.connections[begin:] + self.connections[:begin]:
                await connection.send_text(text)


@right("X4.4")
class Rotates_a_deque:
    """A deque can turn by itself."""

    def __init__(self):
        self.connections = deque()

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        self.connections.append(websocket)

    def disconnect(self, websocket: WebSocket):
        self.connections.remove(websocket)

    async def broadcast(self, text: str):
        walked = list(self.connections)
        self.connections.rotate(1)
        await asyncio.gather(*(connection.send_text(text) for connection in walked))


@wrong("X4.4", says="First were [1, 1, 1, 1, 1, 1]")
class Does_not_rotate(Register):
    """The plain loop."""

    async def broadcast(self, text: str):
        for connection in self.connections.copy():
            await connection.send_text(text)


@wrong("X4.4", says="First were [1, 6, 1, 6, 1, 6]")
class Turns_round(Register):
    """Fair between two; those in the middle are never first."""

    async def broadcast(self, text: str):
        for connection in self.connections.copy():
            await connection.send_text(text)
        self.connections.reverse()


@wrong("X4.4", says="First were [1, 3, 5, 1, 3, 5]")
class Turns_by_two(Register):
    """Half of them are never first."""

    async def broadcast(self, text: str):
        for connection in self.connections.copy():
            await connection.send_text(text)
        self.connections = self.connections[2:] + self.connections[:2]


@wrong("X4.4", says="each of them should be it once")
class Shuffles(Register):
    """Fair in the long run, and not in six rounds."""

    async def broadcast(self, text: str):
        for connection in random.sample(self.connections, len(self.connections)):
            await connection.send_text(text)


@wrong("X4.4", says="Everybody was first once; last were [6, 6, 6, 6, 6, 5]")
class Draws_one_to_the_front(Register):
    """The others keep their order, and fan 6 pays."""

    def __init__(self):
        super().__init__()
        self.turn = 0

    async def broadcast(self, text: str):
        if not self.connections:
            return
        first = self.connections[self.turn % len(self.connections)]
        self.turn += 1
        for connection in [first] + [each for each in self.connections if each is not first]:
            await connection.send_text(text)


@wrong("X4.4", says="Nobody has come yet; broadcast() raised ZeroDivisionError")
class Divides_by_nobody(Register):
    """The remainder, when nobody is here."""

    def __init__(self):
        super().__init__()
        self.rounds = 0

    async def broadcast(self, text: str):
        begin = self.rounds % len(self.connections)
        self.rounds += 1
        for connection in self.connections[begin:] + self.connections[:begin]:
            await connection.send_text(text)


@wrong("X4.4", says="are here in round 2; it was sent to [2, 3, 4, 5, 6], and fans [1] never got it")
class Skips_one(Register):
    """Off by one, where the two halves meet."""

    def __init__(self):
        super().__init__()
        self.begin = 0

    async def broadcast(self, text: str):
        for connection in self.connections[self.begin :] + self.connections[: max(self.begin - 1, 0)]:
            await connection.send_text(text)
        self.begin = (self.begin + 1) % max(len(self.connections), 1)


@wrong("X4.4", says="First were [1, 1, 1, 1, 1, 1, 1]")
class Runs_out(Register):
    """The number grows for ever, and a slice beyond the end is empty."""

    def __init__(self):
        super().__init__()
        self.begin = 0

    async def broadcast(self, text: str):
        for connection in self.connections[self.begin :] + self.connections[: self.begin]:
            await connection.send_text(text)
        self.begin += bool(self.connections)


@wrong("X4.4", says="and fans [8, 9] never got it")
class Fixes_the_order(Register):
    """The order is made once; who comes later is not in it."""

    def __init__(self):
        super().__init__()
        self.order = []

    def disconnect(self, websocket: WebSocket):
        super().disconnect(websocket)
        self.order.remove(websocket)

    async def broadcast(self, text: str):
        self.order = self.order or self.connections.copy()
        for connection in self.order:
            await connection.send_text(text)
        self.order = self.order[1:] + self.order[:1]


@wrong("X4.4", says="are here in round 9; broadcast() raised WebSocketDisconnect")
class Keeps_who_has_left(Register):
    """disconnect() finds nobody in a copy."""

    def disconnect(self, websocket: WebSocket):
        if websocket in self.connections:
            self.connections.copy().remove(websocket)

    async def broadcast(self, text: str):
        for connection in self.connections.copy():
            await connection.send_text(text)
        self.connections = self.connections[1:] + self.connections[:1]


@wrong("X4.4", says="fans [2] never got it. Does another FairManager share your list?")
class Shares_its_list_and_skips(Register):
    """What is seen is another mistake; what lies under it is said as well."""

    everybody = []  # noqa: RUF012

    def __init__(self):
        self.connections = self.everybody

    async def broadcast(self, text: str):
        for connection in self.connections[:1] + self.connections[2:6]:
            await connection.send_text(text)


@wrong("X4.4", says="with a FairManager of its own. Does another FairManager share your list?")
class Shares_its_list_until_it_broadcasts(Register):
    """The first broadcast makes a list of its own, with everybody in it."""

    connections = []  # noqa: RUF012

    def __init__(self):
        pass

    async def broadcast(self, text: str):
        for connection in self.connections.copy():
            await connection.send_text(text)
        self.connections = self.connections[1:] + self.connections[:1]


@wrong("X4.4", says="broadcast() raised RuntimeError: deque mutated during iteration")
class Turns_in_the_loop(Register):
    """Walks what it turns."""

    def __init__(self):
        self.connections = deque()

    async def broadcast(self, text: str):
        for connection in self.connections:
            await connection.send_text(text)
            self.connections.rotate(-1)


@wrong("X4.4", says="connect() has come back, and the fan has not been let in")
class Does_not_accept(Register):
    """On the list, and still at the door."""

    async def connect(self, websocket: WebSocket):
        self.connections.append(websocket)

    async def broadcast(self, text: str):
        for connection in self.connections.copy():
            await connection.send_text(text)


@wrong("X4.4", says="disconnect() has nothing to wait for, and is called without `await`")
class Disconnects_in_a_coroutine(Register):
    """Who does not await it has not called it."""

    async def disconnect(self, websocket: WebSocket):
        super().disconnect(websocket)

    async def broadcast(self, text: str):
        for connection in self.connections.copy():
            await connection.send_text(text)
        self.connections = self.connections[1:] + self.connections[:1]
