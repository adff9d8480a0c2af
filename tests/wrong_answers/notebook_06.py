"""Known answers to the exercises of notebook 06, "What does one sleeping phone cost everyone?"."""

import asyncio
from collections import deque
from contextlib import suppress

from bank import right, wrong
from fastapi import WebSocket, WebSocketDisconnect

from labkit.broadcast.protocol import abort

# ---- X6.1, a timeout that frees the socket


@right("X6.1")
async def with_a_function_for_each(connections: set, text: str, timeout: float):
    """Each send judges its own end."""

    async def send(websocket):
        try:
            async with asyncio.timeout(timeout):
                await websocket.send_text(text)
        except TimeoutError:
            connections.discard(websocket)
            abort(websocket)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(websocket)

    await asyncio.gather(*(send(websocket) for websocket in connections.copy()))


@right("X6.1")
async def with_wait(connections: set, text: str, timeout: float):
    """Tasks, one wait for all of them, and those that are left over are given up."""
    tasks = {asyncio.create_task(websocket.send_text(text)): websocket for websocket in connections}
    done, asleep = await asyncio.wait(tasks, timeout=timeout)
    for task in asleep:
        task.cancel()
        abort(tasks[task])
        connections.discard(tasks[task])
    for task in done:
        if isinstance(task.exception(), (WebSocketDisconnect, RuntimeError)):
            connections.discard(tasks[task])
        elif task.exception():
            raise task.exception()


async def results_of(connections: set, text: str, timeout: float):
    """Return (connection, result) for each send with a limit of its own, as the model has them."""
    websockets = list(connections)
    sends = [asyncio.wait_for(websocket.send_text(text), timeout) for websocket in websockets]
    return list(zip(websockets, await asyncio.gather(*sends, return_exceptions=True), strict=True))


@wrong("X6.1", says="The sleepers are off the register, and the server has 7 connections open, where 4 fans read")
async def drops_and_forgets_the_socket(connections: set, text: str, timeout: float):
    """Clean on our list; the descriptor stays."""
    for websocket, result in await results_of(connections, text, timeout):
        if isinstance(result, (TimeoutError, WebSocketDisconnect, RuntimeError)):
            connections.discard(websocket)
        elif result is not None:
            raise result


@wrong("X6.1", says="A close frame has to pass the full buffer too")
async def closes_politely(connections: set, text: str, timeout: float):
    """A goodbye for somebody who does not read."""
    for websocket, result in await results_of(connections, text, timeout):
        if isinstance(result, TimeoutError):
            connections.discard(websocket)
            await websocket.close()
        elif isinstance(result, (WebSocketDisconnect, RuntimeError)):
            connections.discard(websocket)
        elif result is not None:
            raise result


@wrong("X6.1", says="sends had begun for 1 of the 3 sleepers: each waits until the one before has had its time")
async def waits_for_each_in_turn(connections: set, text: str, timeout: float):
    """The limits add up."""
    for websocket in connections.copy():
        try:
            await asyncio.wait_for(websocket.send_text(text), timeout)
        except TimeoutError:
            connections.discard(websocket)
            abort(websocket)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(websocket)


@wrong("X6.1", says="one time limit ended the whole round, for those behind the first sleeper too")
async def has_one_limit_for_the_round(connections: set, text: str, timeout: float):
    """Who stands behind the first sleeper loses the message."""
    with suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            for websocket in connections.copy():
                try:
                    await websocket.send_text(text)
                except (WebSocketDisconnect, RuntimeError):
                    connections.discard(websocket)


@wrong("X6.1", says="A TimeoutError came out of your broadcast, in line")
async def has_one_limit_for_the_gather(connections: set, text: str, timeout: float):
    """Then nobody knows whose time was up."""
    websockets = list(connections)
    sends = [websocket.send_text(text) for websocket in websockets]
    results = await asyncio.wait_for(asyncio.gather(*sends, return_exceptions=True), timeout)
    for websocket, result in zip(websockets, results, strict=True):
        if isinstance(result, (WebSocketDisconnect, RuntimeError)):
            connections.discard(websocket)


@wrong("X6.1", says="Your broadcast ended the connection of fans 1, 3, 5 and 7, who read everything")
async def closes_the_healthy(connections: set, text: str, timeout: float):
    """One is late, and all have to go."""
    results = await results_of(connections, text, timeout)
    late = any(isinstance(result, TimeoutError) for _, result in results)
    for websocket, result in results:
        if late:
            abort(websocket)
        if late or isinstance(result, (WebSocketDisconnect, RuntimeError)):
            connections.discard(websocket)


@wrong("X6.1", says="Your broadcast took fans 1, 3, 5 and 7, who read everything, off the register")
async def mixes_up_the_results(connections: set, text: str, timeout: float):
    """`None` is the result of a send that went well."""
    results = await results_of(connections, text, timeout)
    late = any(isinstance(result, TimeoutError) for _, result in results)
    for websocket, result in results:
        if isinstance(result, TimeoutError):
            abort(websocket)
        if late or isinstance(result, (WebSocketDisconnect, RuntimeError)):
            connections.discard(websocket)


@wrong("X6.1", says="Nothing was raised, and the fan, who reads everything, was dropped for it")
async def catches_everything(connections: set, text: str, timeout: float):
    """Our own mistake empties the register."""
    for websocket, result in await results_of(connections, text, timeout):
        if isinstance(result, Exception):
            abort(websocket)
            connections.discard(websocket)


@wrong("X6.1", says="Nothing was raised, and no fan heard anything")
async def forgets_what_is_left(connections: set, text: str, timeout: float):
    """Three kinds of results out of four."""
    for websocket, result in await results_of(connections, text, timeout):
        if isinstance(result, TimeoutError):
            abort(websocket)
        if isinstance(result, (TimeoutError, WebSocketDisconnect, RuntimeError)):
            connections.discard(websocket)


@wrong("X6.1", says="Passing coroutines is forbidden, use tasks explicitly")
async def waits_on_coroutines(connections: set, text: str, timeout: float):
    """`asyncio.wait` takes tasks."""
    await asyncio.wait([websocket.send_text(text) for websocket in connections], timeout=timeout)


@wrong("X6.1", says="fans 2, 4 and 6 still stand in `connections`, and the server has 7 connections open")
async def tries_the_sleeper_each_time(connections: set, text: str, timeout: float):
    """The gap comes back with every message."""
    for websocket, result in await results_of(connections, text, timeout):
        if isinstance(result, (WebSocketDisconnect, RuntimeError)):
            connections.discard(websocket)
        elif result is not None and not isinstance(result, TimeoutError):
            raise result


@wrong("X6.1", says="fans 2, 4 and 6 still stand in `connections`, and the server has 4 connections open")
async def frees_and_forgets_to_drop(connections: set, text: str, timeout: float):
    """The socket is gone, and the entry is not."""
    for websocket, result in await results_of(connections, text, timeout):
        if isinstance(result, TimeoutError):
            abort(websocket)
        elif isinstance(result, (WebSocketDisconnect, RuntimeError)):
            connections.discard(websocket)
        elif result is not None:
            raise result


@wrong("X6.1", says="Fan 8 has vanished, you have sent to it, and it still is in `connections`")
async def looks_for_sleepers_only(connections: set, text: str, timeout: float):
    """Whoever is gone stays for ever."""
    for websocket, result in await results_of(connections, text, timeout):
        if isinstance(result, TimeoutError):
            abort(websocket)
            connections.discard(websocket)


@wrong("X6.1", says="3 seconds later your broadcast has not come back: it waits in line")
async def has_no_limit(connections: set, text: str, timeout: float):
    """The notebook's gather, as it was."""
    websockets = list(connections)
    sends = [websocket.send_text(text) for websocket in websockets]
    results = await asyncio.gather(*sends, return_exceptions=True)
    for websocket, result in zip(websockets, results, strict=True):
        if isinstance(result, (WebSocketDisconnect, RuntimeError)):
            connections.discard(websocket)


@wrong("X6.1", says="`timeout` is 3600. Within a minute the sleeper's send was over, unsent: which limit was that?")
async def has_a_limit_of_its_own(connections: set, text: str, timeout: float):
    """The argument is there, and nobody looks at it."""
    await broadcast_within(connections, text, 1.5)


async def broadcast_within(connections: set, text: str, seconds: float):
    """Do all that is asked, with a limit that is given here."""
    for websocket, result in await results_of(connections, text, seconds):
        if isinstance(result, TimeoutError):
            abort(websocket)
        if isinstance(result, (TimeoutError, WebSocketDisconnect, RuntimeError)):
            connections.discard(websocket)
        elif result is not None:
            raise result


@wrong("X6.1", says="it still is in `connections`. You have set one time limit for all sends together")
async def has_one_limit_and_looks_away(connections: set, text: str, timeout: float):
    """The round has a limit, and its results are thrown away."""
    sends = [websocket.send_text(text) for websocket in connections]
    with suppress(TimeoutError):
        await asyncio.wait_for(asyncio.gather(*sends, return_exceptions=True), timeout)


@wrong("X6.1", says="An ExceptionGroup came out of your broadcast, from line")
async def has_limits_in_a_group(connections: set, text: str, timeout: float):
    """The first who is late ends the round for all."""

    async def send(websocket):
        try:
            async with asyncio.timeout(timeout):
                await websocket.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(websocket)

    async with asyncio.TaskGroup() as group:
        for websocket in connections.copy():
            group.create_task(send(websocket))


# ---- X6.2, a bounded queue


class Mailboxes:
    """The starter, for the answers that change one method of it."""

    def __init__(self, size: int):
        self.size = size
        self.clients: dict[WebSocket, tuple[asyncio.Queue, asyncio.Task]] = {}

    def room(self):
        return asyncio.Queue(self.size)

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        queue = self.room()
        self.clients[websocket] = queue, asyncio.create_task(self.write(websocket, queue))

    def disconnect(self, websocket: WebSocket):
        if websocket in self.clients:
            self.clients.pop(websocket)[1].cancel()

    async def write(self, websocket: WebSocket, queue: asyncio.Queue):
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                await websocket.send_text(await queue.get())
        self.disconnect(websocket)

    async def broadcast(self, text: str):
        for queue, _ in self.clients.values():
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(text)


@right("X6.2")
class WithADeque:
    """The deque drops its oldest by itself; an event says that there is something."""

    def __init__(self, size: int):
        self.size = size
        self.boxes = {}

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        box = deque(maxlen=self.size), asyncio.Event()
        self.boxes[websocket] = *box, asyncio.create_task(self.write(websocket, *box))

    def disconnect(self, websocket: WebSocket):
        if websocket in self.boxes:
            self.boxes.pop(websocket)[2].cancel()

    async def write(self, websocket: WebSocket, waiting: deque, filled: asyncio.Event):
        with suppress(WebSocketDisconnect, RuntimeError):
            while await filled.wait():
                while waiting:
                    await websocket.send_text(waiting.popleft())
                filled.clear()
        self.disconnect(websocket)

    async def broadcast(self, text: str):
        for waiting, filled, _ in self.boxes.values():
            waiting.append(text)
            filled.set()


@wrong("X6.2", says="the newest is not among them. Which message has to go when there is no room?")
class DropsTheNewest(Mailboxes):
    """Who sleeps wakes up to old news."""

    async def broadcast(self, text: str):
        for queue, _ in self.clients.values():
            if not queue.full():
                queue.put_nowait(text)


@wrong("X6.2", says="It is the turn of '5 GOAL'; 3 seconds later your broadcast has not come back: it waits in line")
class WaitsForRoom(Mailboxes):
    """`put` waits for the sleeper, and everybody with it."""

    async def broadcast(self, text: str):
        for queue, _ in list(self.clients.values()):
            await queue.put(text)


@wrong("X6.2", says="Your code raised QueueFull, in line")
class OnlyBoundsTheQueue(Mailboxes):
    """The size is there, and nobody makes room."""

    async def broadcast(self, text: str):
        for queue, _ in self.clients.values():
            queue.put_nowait(text)


@wrong("X6.2", says="where 3 fit, 2 had waited")
class ClearsAll(Mailboxes):
    """Makes more room than is needed."""

    async def broadcast(self, text: str):
        for queue, _ in self.clients.values():
            if queue.full():
                while not queue.empty():
                    queue.get_nowait()
            queue.put_nowait(text)


@wrong("X6.2", says="and 4 more had waited")
class IsOffByOne(Mailboxes):
    """Asks too late whether there is room."""

    def room(self):
        return asyncio.Queue()

    async def broadcast(self, text: str):
        for queue, _ in self.clients.values():
            if queue.qsize() > self.size:
                queue.get_nowait()
            queue.put_nowait(text)


@wrong("X6.2", says="and 11 more had waited")
class NeverMakesRoom(Mailboxes):
    """The size is kept, and nobody asks for it."""

    def room(self):
        return asyncio.Queue(32)


@wrong("X6.2", says="never hears '1 GOAL'")
class HasOneQueueForAll(Mailboxes):
    """Each message goes to one fan only: the one who was quickest."""

    def room(self):
        self.queue = getattr(self, "queue", None) or asyncio.Queue(self.size)
        return self.queue

    async def broadcast(self, text: str):
        if self.queue.full():
            self.queue.get_nowait()
        self.queue.put_nowait(text)


@wrong("X6.2", says="never hears '5 GOAL'")
class DropsForEveryone(Mailboxes):
    """One has no room, and nobody hears it."""

    async def broadcast(self, text: str):
        if not any(queue.full() for queue, _ in self.clients.values()):
            for queue, _ in self.clients.values():
                queue.put_nowait(text)


@wrong("X6.2", says="and then nothing more: you have let it go. It may miss messages; it has not gone.")
class KillsTheWriter(Mailboxes):
    """The task goes in place of a message."""

    async def broadcast(self, text: str):
        for websocket, (queue, _) in list(self.clients.items()):
            if queue.full():
                self.disconnect(websocket)
            else:
                queue.put_nowait(text)


@wrong("X6.2", says="It is the turn of '1 GOAL', and your broadcast has to wait before it comes back: it waits in line")
class PausesForEachFan(Mailboxes):
    """Waits in the right order, and a thousand fans are ten seconds."""

    async def broadcast(self, text: str):
        for queue, _ in list(self.clients.values()):
            if queue.full():
                await queue.get()
            await queue.put(text)
            await asyncio.sleep(0.01)


@right("X6.2")
class WaitsForWhatIsThere(Mailboxes):
    """`get` of a full queue and `put` into one with room come back at once."""

    async def broadcast(self, text: str):
        for queue, _ in list(self.clients.values()):
            if queue.full():
                await queue.get()
            await queue.put(text)


@wrong("X6.2", says="3 of your tasks still run: of the first one, it waits in line")
class ForgetsTheWriter(Mailboxes):
    """The queue goes, and the task waits at it for ever."""

    def disconnect(self, websocket: WebSocket):
        self.clients.pop(websocket, None)


@wrong("X6.2", says="When a fan wakes up is too late to throw away what does not fit")
class ThrowsAwayWhenItSends(Mailboxes):
    """The sleeper never sends, and its queue grows."""

    def room(self):
        return asyncio.Queue()

    async def write(self, websocket: WebSocket, queue: asyncio.Queue):
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                text = await queue.get()
                while queue.qsize() >= self.size:
                    text = queue.get_nowait()
                await websocket.send_text(text)

    async def broadcast(self, text: str):
        for queue, _ in self.clients.values():
            queue.put_nowait(text)


# ---- X6.3, tasks that nobody waits for


@right("X6.3")
async def in_a_task_group(connections: set, text: str):
    """The group waits, and each task catches for itself."""

    async def send(websocket):
        try:
            await websocket.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(websocket)

    async with asyncio.TaskGroup() as group:
        for websocket in connections.copy():
            group.create_task(send(websocket))


@right("X6.3")
async def waits_for_the_tasks(connections: set, text: str):
    """All have begun; then one after another is asked how it ended."""
    tasks = {websocket: asyncio.create_task(websocket.send_text(text)) for websocket in connections}
    for websocket, task in tasks.items():
        try:
            await task
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(websocket)


kept: set[asyncio.Task] = set()


@wrong(
    "X6.3",
    says="when 0 of 7 sends had begun, and 0 had ended. One of them fails afterwards, since fan 7 has vanished: the "
    "fan still stands in `connections`, and its error was read by nobody",
)
async def keeps_a_reference(connections: set, text: str):
    """What the documentation advises against the collector, and no more."""
    tasks = kept
    for websocket in connections.copy():
        task = asyncio.create_task(websocket.send_text(text))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


@wrong("X6.3", says="the fan is off the register by then, and its error was read. Who waits for a send, and hears")
async def reads_in_a_callback(connections: set, text: str):
    """The error is read, and the caller is still the first to be done."""
    for websocket in connections.copy():
        task = asyncio.create_task(websocket.send_text(text))
        task.add_done_callback(lambda task, websocket=websocket: task.exception() and connections.discard(websocket))


@wrong("X6.3", says="the sends for 2 others have not begun: whoever stands behind a sleeper")
async def waits_for_each(connections: set, text: str):
    """A task that is waited for at once is no task."""
    for websocket in connections.copy():
        try:
            await asyncio.create_task(websocket.send_text(text))
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(websocket)


@wrong("X6.3", says="Out of your function came a WebSocketDisconnect, from line")
async def gathers_and_raises(connections: set, text: str):
    """The first error ends the waiting for all."""
    await asyncio.gather(*(websocket.send_text(text) for websocket in connections))


@wrong("X6.3", says="Your function waited for all sends, its error was read, and fan 7 still stands in `connections`")
async def gathers_and_looks_away(connections: set, text: str):
    """The results are there, and nobody looks at them."""
    await asyncio.gather(*(websocket.send_text(text) for websocket in connections), return_exceptions=True)


@wrong("X6.3", says="Your function waited for all sends, its error was read by nobody, and fan 7 still stands")
async def gives_them_a_turn(connections: set, text: str):
    """Enough for who reads, for today."""
    for websocket in connections.copy():
        asyncio.create_task(websocket.send_text(text))
    for _ in range(3):
        await asyncio.sleep(0)


@wrong("X6.3", says="Passing coroutines is forbidden, use tasks explicitly")
async def waits_for_coroutines(connections: set, text: str):
    """`asyncio.wait` takes tasks."""
    await asyncio.wait([websocket.send_text(text) for websocket in connections])


@wrong("X6.3", says="Your function came back twice meanwhile, and 6 sends to sleepers were still under way")
async def waits_a_moment(connections: set, text: str):
    """Comes back, and leaves a task behind for each message and sleeper; half a second, or half a minute."""
    tasks = {asyncio.create_task(websocket.send_text(text)): websocket for websocket in connections}
    done, _ = await asyncio.wait(tasks, timeout=30)
    for task in done:
        if task.exception():
            connections.discard(tasks[task])


@wrong(
    "X6.3", says="came back while fans 2, 4 and 6 slept; their sends were ended early, and they are off `connections`"
)
async def has_a_limit_as_in_the_first_exercise(connections: set, text: str):
    """Here nobody has asked for one, and a sleeper comes back."""
    websockets = list(connections)
    sends = [asyncio.wait_for(websocket.send_text(text), 10) for websocket in websockets]
    for websocket, result in zip(websockets, await asyncio.gather(*sends, return_exceptions=True), strict=True):
        if isinstance(result, (TimeoutError, WebSocketDisconnect, RuntimeError)):
            connections.discard(websocket)
        elif result is not None:
            raise result


@wrong("X6.3", says="their sends were ended early, and '1 GOAL' never reaches them. A sleeper has not gone.")
async def gives_up_the_send(connections: set, text: str):
    """The fan stays, and its message is lost."""

    async def send(websocket):
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(2):
                    await websocket.send_text(text)
        except (WebSocketDisconnect, RuntimeError):
            connections.discard(websocket)

    await asyncio.gather(*(send(websocket) for websocket in connections.copy()))


@wrong("X6.3", says="A TimeoutError came out of your function, in line")
async def has_a_limit_for_all(connections: set, text: str):
    """One limit around the gather."""
    websockets = list(connections)
    async with asyncio.timeout(0.5):
        sends = [websocket.send_text(text) for websocket in websockets]
        results = await asyncio.gather(*sends, return_exceptions=True)
    connections -= {each for each, result in zip(websockets, results, strict=True) if result is not None}


@wrong("X6.3", says="Out of your function came an ExceptionGroup, from line")
async def lets_the_group_raise(connections: set, text: str):
    """A group waits for its tasks; whose error it was is for us to ask."""
    async with asyncio.TaskGroup() as group:
        for websocket in connections.copy():
            group.create_task(websocket.send_text(text))


@wrong("X6.3", says="One of 7 fans has vanished, and 0 are left: whose send has failed?")
async def drops_all_for_one(connections: set, text: str):
    """One error, and no name at it."""
    try:
        async with asyncio.TaskGroup() as group:
            for websocket in connections:
                group.create_task(websocket.send_text(text))
    except* (WebSocketDisconnect, RuntimeError):
        connections.clear()


@wrong("X6.3", says="Nothing was raised, and the fan, who reads everything, was dropped for it")
async def drops_for_any_error(connections: set, text: str):
    """A mistake of our own, and the register is empty."""
    websockets = list(connections)
    results = await asyncio.gather(*(each.send_text(text) for each in websockets), return_exceptions=True)
    connections -= {each for each, result in zip(websockets, results, strict=True) if result is not None}


# ---- X6.4, latest only


class Boxes:
    """One way to do it, for the answers that change one method of it."""

    def __init__(self):
        self.clients: dict[WebSocket, tuple[asyncio.Queue, asyncio.Task]] = {}

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        box = asyncio.Queue()
        self.clients[websocket] = box, asyncio.create_task(self.write(websocket, box))

    def disconnect(self, websocket: WebSocket):
        if websocket in self.clients:
            self.clients.pop(websocket)[1].cancel()

    async def write(self, websocket: WebSocket, box: asyncio.Queue):
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                await websocket.send_text(await box.get())
        self.disconnect(websocket)

    async def broadcast(self, text: str):
        for box, _ in self.clients.values():
            while not box.empty():
                box.get_nowait()
            box.put_nowait(text)


@right("X6.4")
class EmptiesTheQueue(Boxes):
    """A queue without a size, and never more than one in it."""

    async def broadcast(self, text: str):
        for box, _ in self.clients.values():
            with suppress(asyncio.QueueEmpty):
                box.get_nowait()
            box.put_nowait(text)


@right("X6.4")
class WithAnEvent:
    """The newest text and an event for each fan; the handler itself ends the task."""

    def __init__(self):
        self.newest, self.fans = "", {}

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        news = asyncio.Event()
        self.fans[websocket] = news, asyncio.create_task(self.write(websocket, news))

    def disconnect(self, websocket: WebSocket):
        _, task = self.fans.pop(websocket)
        task.cancel()

    async def write(self, websocket: WebSocket, news: asyncio.Event):
        with suppress(WebSocketDisconnect, RuntimeError):
            while await news.wait():
                news.clear()
                await websocket.send_text(self.newest)

    async def broadcast(self, text: str):
        self.newest = text
        for news, _ in self.fans.values():
            news.set()


@right("X6.4")
class WithATaskForEachMessage:
    """No box: the newest task takes the place of the one that still waits."""

    def __init__(self):
        self.tasks = {}

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        self.tasks[websocket] = None

    def disconnect(self, websocket: WebSocket):
        task = self.tasks.pop(websocket, None)
        if task:
            task.cancel()

    async def send(self, websocket: WebSocket, text: str):
        with suppress(WebSocketDisconnect, RuntimeError):
            await websocket.send_text(text)

    async def broadcast(self, text: str):
        for websocket, task in self.tasks.items():
            if task:
                task.cancel()
            self.tasks[websocket] = asyncio.create_task(self.send(websocket, text))


@wrong("X6.4", says="and 11 more had waited")
class KeepsABacklog(Boxes):
    """Who wakes up reads through the whole evening."""

    async def broadcast(self, text: str):
        for box, _ in self.clients.values():
            box.put_nowait(text)


@wrong("X6.4", says="It wakes up and hears 1 GOAL · 2 GOAL: the newest is not among them")
class KeepsTheOldest(Boxes):
    """The box is full, and what comes is thrown away."""

    async def broadcast(self, text: str):
        for box, _ in self.clients.values():
            if box.empty():
                box.put_nowait(text)


@wrong("X6.4", says="It wakes up and hears 1 GOAL, and then nothing more")
class SendsWhenNothingIsUnderWay(Boxes):
    """No box at all: what comes while a send waits is lost."""

    async def write(self, websocket: WebSocket, box: asyncio.Queue):
        with suppress(WebSocketDisconnect, RuntimeError):
            while True:
                await websocket.send_text(await box.get())
                while not box.empty():
                    box.get_nowait()


@wrong("X6.4", says="3 seconds later your broadcast has not come back: it waits in line")
class SendsByItself(Boxes):
    """Without a task for each fan, everyone waits for the sleeper."""

    async def broadcast(self, text: str):
        for websocket in list(self.clients):
            await websocket.send_text(text)


@wrong("X6.4", says="never hears '1 GOAL'")
class HasOneBoxForAll(Boxes):
    """Whoever looks first takes it out for all."""

    async def connect(self, websocket: WebSocket):
        await websocket.accept()
        self.box = getattr(self, "box", None) or asyncio.Queue()
        self.clients[websocket] = self.box, asyncio.create_task(self.write(websocket, self.box))


@wrong("X6.4", says="3 of your tasks still run: of the first one, it waits in line")
class ForgetsTheTask(Boxes):
    """The box is gone, and a task waits for it."""

    def disconnect(self, websocket: WebSocket):
        self.clients.pop(websocket, None)


@wrong("X6.4", says="still holds fans 1, 2, 3 and 4: every fan who ever came would stay in memory")
class ForgetsTheBox(Boxes):
    """The task is gone, and the box stays."""

    def disconnect(self, websocket: WebSocket):
        self.clients[websocket][1].cancel()


@wrong("X6.4", says="has no method `disconnect`")
class HasNoDisconnect:
    """Two of three verbs."""

    async def connect(self, websocket: WebSocket):
        await websocket.accept()

    async def broadcast(self, text: str):
        pass


@wrong("X6.4", says="your connect() has come back, and has not accepted it")
class NeverAccepts(Boxes):
    """Nobody opens the door."""

    async def connect(self, websocket: WebSocket):
        box = asyncio.Queue()
        self.clients[websocket] = box, asyncio.create_task(self.write(websocket, box))
