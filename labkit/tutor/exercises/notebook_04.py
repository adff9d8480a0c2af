"""Exercises of notebook 04, "How does one message reach everyone?": what is asked, three hints, and each trial."""

import asyncio
import inspect
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress

from fastapi import WebSocket, WebSocketDisconnect
from starlette.websockets import WebSocketState

from labkit.apparatus.clients import Fleet
from labkit.apparatus.server import LabServer
from labkit.tutor.exercises import Exercise
from labkit.tutor.lines import line_in, name_of, source_has, standing
from labkit.tutor.trial import NotYet, Trial, awaitable, called

# What a broadcast ends with when it meets somebody who is gone, or a register that has changed.
_OF_A_ROUND = (WebSocketDisconnect, RuntimeError, LookupError, ValueError)
# More than the small buffers on the way to a fan can take.
_FILLER = "x" * 500_000
_LONG_QUESTION = "who won in 1954?"
# Seconds for which a fan does not read while a round waits for it; a send given up sooner than that is noticed.
_TUNNEL_SECONDS = 0.3


async def error_of(it: Trial, task: asyncio.Task, story: str) -> BaseException | None:
    """Wait until a call has come back, and return the error that it ended with, if any; raise NotYet if it does not."""
    with suppress(NotYet):
        await it.until(task.done, "")
    it.require(task.done(), f"{story} has not come back: {standing(task)}.")
    return asyncio.CancelledError() if task.cancelled() else task.exception()


def said(error: BaseException, it: Trial) -> str:
    """Return an error and the learner's line in a few words; a connection in it by its fan's number."""
    text = str(error)
    for number, websocket in it.websockets.items():
        text = text.replace(repr(websocket), f"the connection of fan {number}")
    return f"{name_of(error)}: {text}".removesuffix(": ").removesuffix(".") + f", in {line_in(error)}"


class Ground:
    """A server whose handler keeps a register, and a crowd that sleeps until it is woken.

    register: a set or a list, filled in the order of coming. .here the numbers of those who have not gone.
    .takes_off whether a handler takes its fan off the register when it has gone, as it should.
    .newcomer the number of the fan who came during a round; it is not one of .here.
    """

    def __init__(self, it: Trial, register: set[WebSocket] | list[WebSocket]) -> None:
        self.it = it
        self.register = register
        self.here: list[int] = []
        self.takes_off = True
        self.server = None
        self.fleet = None
        self.newcomer: int | None = None
        self._late_fleet = None

    async def open(self, size: int) -> None:
        """Let a crowd come in; everybody is asleep, since only a sleeper can have a small buffer."""
        self.server = await self.it.serve(self._listen, send_buffer_bytes=16_384)
        self.fleet = await self.it.fleet(self.server, stalled=size, receive_buffer_bytes=4_096)
        self.here = list(range(1, size + 1))

    async def _listen(self, websocket: WebSocket) -> None:
        await websocket.accept()
        add = self.register.append if isinstance(self.register, list) else self.register.add
        add(websocket)
        while (message := await websocket.receive())["type"] != "websocket.disconnect":
            if message["text"] == _LONG_QUESTION:
                # As with a slow database: meanwhile nobody listens to this fan.
                await asyncio.Event().wait()
        if self.takes_off and websocket in self.register:
            self.register.remove(websocket)

    async def wake_all_but(self, sleeper: int) -> None:
        """Let everybody read, except one."""
        await self.fleet.wake(*(number for number in self.here if number != sleeper))

    async def goes(self, number: int, act: Callable[..., Awaitable], how: str) -> None:
        """Let a fan go in some way, and wait until the server has noticed."""
        self.here.remove(number)
        await act(number)
        await self.it.ended(number, f"Fan {number} {how}")

    async def goes_unheard(self, number: int) -> None:
        """Let a fan go while its handler does not listen: then only a send can tell."""
        self.here.remove(number)
        await self.fleet.send(_LONG_QUESTION, clients=[number])
        await self.it.until(lambda: self.it.of(number, "receive"), f"Fan {number} said something, and is not heard.")
        before = self.server.connections
        await self.fleet.vanish(number)
        await self.it.until(lambda: self.server.connections < before, f"Fan {number} was reset, unnoticed.")

    async def close(self, number: int) -> None:
        """Let the server throw a fan out."""
        await self.it.websockets[number].close(1013)

    async def comes(self) -> None:
        """Let one more fan come in, and wait until it stands in the register."""
        self._late_fleet = await self.it.fleet(self.server, name="late", healthy=1)
        self.newcomer = max(self.it.websockets)
        await self.it.until(lambda: self.newcomer in self.registered(), f"Fan {self.newcomer} cannot come in.")

    # ---- rounds

    async def round(self, broadcast: Callable, text: object, story: str) -> object:
        """Call the learner's broadcast, wait until it has come back, and return what it returned."""
        return await self.end_of(self.it.start(broadcast, self.register, text), text, story)

    async def end_of(self, task: asyncio.Task, text: object, story: str) -> object:
        """Return what a round returned; tell what it raised, and who heard nothing because of that."""
        error = await error_of(self.it, task, f"{story}; your function")
        if isinstance(error, _OF_A_ROUND) and line_in(error):
            missing = [number for number in self.here if number not in self.told(text)]
            behind = f" Fans {missing} are here, and never got “{text}”." if missing else ""
            raise NotYet(f"{story}; your function raised {said(error, self.it)}.{behind}")
        return task.result()

    async def round_through_a_tunnel(
        self, broadcast: Callable, text: str, *, tunnel: int, leavers: list[int], story: str
    ) -> object:
        """Like round(), with somebody who does not read; while the round waits there, others leave and one comes."""
        await self.it.websockets[tunnel].send_text(_FILLER)
        task = self.it.start(broadcast, self.register, text)
        await self.it.until(
            lambda: task.done() or tunnel in self.order(text),
            f"Fan {tunnel} stands in the register; your function neither sends “{text}” to it nor comes back.",
        )
        for number in leavers:
            await self.goes(number, self.fleet.leave, "has left")
        await self.comes()
        await asyncio.wait({task}, timeout=_TUNNEL_SECONDS)
        self.it.require(
            not any(event.detail == "CancelledError" for event in self.it.of(tunnel, "failed")),
            f"Fan {tunnel} does not read, so that “{text}” waits for it; and your function has given up that send. A "
            "fan who is slow is here, and nobody knows now what it got.",
        )
        self.it.require(
            not task.done() or task.exception() or tunnel in self.told(text),
            f"Fan {tunnel} does not read, so that “{text}” waits for it; and your function has come back. Who will "
            "hear what becomes of that send?",
        )
        await self.fleet.wake(tunnel)
        result = await self.end_of(task, text, story)
        if tunnel in self.told(text):
            await self.hears(tunnel, text)
        return result

    async def newcomer_hears(self, broadcast: Callable, text: str, tunnel: int) -> None:
        """Broadcast once more; who came during the last round stands in the register, hears it, and leaves."""
        it, number = self.it, self.newcomer
        story = f"Fan {number} came while your function waited at fan {tunnel}"
        off = "is off the register, and " if number not in self.registered() else ""
        await self.round(broadcast, text, f"{story}, and stayed")
        it.require(not off and number in self.told(text), f"{story}; after the round it {off}never got “{text}”.")
        it.require(number in self.registered(), f"{story}; it heard “{text}”, and is off the register.")
        await it.until(
            lambda: text in [each.text for each in self._late_fleet.deliveries],
            f"“{text}” was sent to fan {number}, who is here, and has not arrived.",
        )
        await self._late_fleet.leave(1)
        await it.ended(number, f"Fan {number} has left")

    # ---- judging

    def order(self, text: object) -> list[int]:
        """Return to whom a text was sent, in the order of sending, whether or not it could be."""
        return [event.connection for event in self.it.events if event.what == "send" and event.detail == text]

    def told(self, text: object) -> list[int]:
        """Return to whom a text was sent and taken."""
        return [event.connection for event in self.it.events if event.what == "sent" and event.detail == text]

    def registered(self) -> list[int]:
        """Return the numbers of those who stand in the register."""
        return [number for number, websocket in self.it.websockets.items() if websocket in self.register]

    def all_told(self, text: str, story: str) -> None:
        """See that everybody who is here was told once."""
        told = self.told(text)
        missing = [number for number in self.here if number not in told]
        more = [number for number in self.here if told.count(number) > 1]
        self.it.require(not missing, f"{story}; fans {missing} are here, and never got “{text}”.")
        self.it.require(not more, f"{story}; fans {more} got “{text}” more than once.")

    def nobody_lost(self, story: str) -> None:
        """See that those who are here stand in the register."""
        lost = [number for number in self.here if number not in self.registered()]
        self.it.require(not lost, f"{story}; fans {lost} are here, and your function took them off the register.")

    def no_ghosts(self, story: str, question: str = "") -> None:
        """See that those who have gone do not stand in the register."""
        ghosts = [number for number in self.registered() if number not in (*self.here, self.newcomer)]
        said = f"{story}; fans {ghosts} are gone, and still stand in the register. {question}"
        self.it.require(not ghosts, said.rstrip())

    def nobody_put_back(self, story: str) -> None:
        """See that those whom their handlers took off do not stand in the register again."""
        again = [number for number in self.registered() if number not in (*self.here, self.newcomer)]
        self.it.require(
            not again, f"{story}; after the round fans {again} stand in the register again. Who has put them there?"
        )

    async def line_up(self, broadcast: Callable, text: str, story: str) -> list[int]:
        """Broadcast once while nobody is gone, and return the order in which the fans of a set had their turn."""
        await self.round(broadcast, text, story)
        self.all_told(text, story)
        self.nobody_lost(story)
        return self.order(text)

    async def all_hear(self, text: str) -> None:
        """See that everybody who is here has heard a text at the other end."""
        for number in self.here:
            await self.hears(number, text)

    async def hears(self, number: int, text: str) -> None:
        """See that a fan has heard a text at the other end."""
        await self.it.until(
            lambda: (number, text) in {(each.client, each.text) for each in self.fleet.deliveries},
            f"“{text}” was sent to fan {number}, who is here, and has not arrived.",
        )


async def try_safe_broadcast(it: Trial, safe_broadcast: Callable[..., Awaitable]) -> str:
    """A fan leaves while a round waits; three are gone before one begins; and a text is no text."""
    ground = Ground(it, set())
    await ground.open(8)
    order = await ground.line_up(safe_broadcast, "LINE-UP", "8 fans are here, and nobody has gone")
    tunnel, early, late = order[3], order[1], order[5]
    await ground.wake_all_but(tunnel)
    story = (
        f"While your function waited at fan {tunnel}, who did not read, fans {early} and {late} left, and their "
        "handlers took them off"
    )
    await ground.round_through_a_tunnel(safe_broadcast, "GOAL", tunnel=tunnel, leavers=[early, late], story=story)
    ground.all_told("GOAL", story)
    ground.nobody_lost(story)
    ground.nobody_put_back(story)
    await ground.newcomer_hears(safe_broadcast, "CORNER", tunnel)

    order = await ground.line_up(safe_broadcast, "HALF-TIME", "6 fans are here, and the rest went long ago")
    how = await three_go(ground, order)
    await ground.round(safe_broadcast, "PENALTY", how)
    ground.all_told("PENALTY", how)
    ground.no_ghosts(f"{how}, and a round has met all three")
    ground.nobody_lost(how)
    score = {"home": 1, "away": 0}
    await mistake_of_our_own(ground, safe_broadcast, score, "which is no text")
    # It is found when the text is encoded, before anything is written: the connection is none the worse.
    await mistake_of_our_own(ground, safe_broadcast, "\ud800", "half a character, which nothing can encode")
    await ground.round(safe_broadcast, "FULL TIME", "3 fans are here")
    ground.all_told("FULL TIME", "3 fans are here")
    await ground.all_hear("FULL TIME")
    return (
        "Two fans left and one came in the middle of a round, three left before one: all who stayed heard everything, "
        "and who had gone is off the register. Two mistakes of ours came out, and cost nobody a place."
    )


async def three_go(ground: Ground, order: list[int]) -> str:
    """Let three go in three ways, and stay in the register, others behind them; return that as a story."""
    ground.takes_off = False
    left, closed, reset = order[1], order[3], order[4]
    await ground.goes(left, ground.fleet.leave, "has left")
    await ground.goes(closed, ground.close, "was closed by the server")
    await ground.goes_unheard(reset)
    return (
        f"Fan {left} had left, fan {closed} was closed by the server, fan {reset} was reset while its handler was "
        "busy, and nobody took them off"
    )


async def mistake_of_our_own(ground: Ground, broadcast: Callable, text: object, what: str) -> None:
    """Hand over what cannot be sent to anybody: the error is ours, and must reach us."""
    it, before = ground.it, len(ground.it.events)
    task = it.start(broadcast, ground.register, text)
    story = f"We called your function with {text!r}, {what}: a mistake of ours"
    error = await error_of(it, task, f"{story}; your function")
    ground.nobody_lost(story)
    got = [event.detail for event in it.events[before:] if event.what == "sent"]
    it.require(
        error,
        f"{story}; {f'the fans got {got[0]!r}' if got else 'nobody got it'}, and your function said nothing. Which "
        "errors belong to a fan who is gone, and which to us?",
    )


async def try_send_and_report(it: Trial, send_and_report: Callable[..., Awaitable]) -> str:
    """Fans leave in the middle of a round, several before one, none, and all."""
    ground = Ground(it, set())
    await ground.open(8)
    order = await ground.line_up(send_and_report, "LINE-UP", "8 fans are here, and nobody has gone")
    tunnel, early, late = order[3], order[1], order[5]
    await ground.wake_all_but(tunnel)
    story = (
        f"While your function waited at fan {tunnel}, who did not read, fans {early} and {late} left and were taken off"
    )
    result = await ground.round_through_a_tunnel(
        send_and_report, "GOAL", tunnel=tunnel, leavers=[early, late], story=story
    )
    ground.all_told("GOAL", story)
    ground.nobody_lost(story)
    dropped = named(it, result, story)
    only_the_gone(ground, dropped, story)
    it.require(
        early not in dropped,
        f"{story}. Fan {early} had got “GOAL” before it left; your function says that it was dropped.",
    )
    # Who sends to all at once has sent to this one, too, before it left.
    it.require(
        late in dropped or late in ground.told("GOAL") or late not in ground.order("GOAL"),
        f"{story}. Fan {late} left before its turn; your send to it failed, and your function does not name it.",
    )

    await ground.newcomer_hears(send_and_report, "KICK-OFF", tunnel)
    order = await ground.line_up(send_and_report, "HALF-TIME", "6 fans are here, and the rest went long ago")
    how = await three_go(ground, order)
    await reported(ground, send_and_report, "PENALTY", how, sorted({order[1], order[3], order[4]}))
    await reported(ground, send_and_report, "CORNER", "3 fans are here, and nobody has gone since the last round", [])
    await ground.all_hear("CORNER")
    rest = ground.here.copy()
    for number in rest:
        await ground.goes(number, ground.fleet.hang_up, "has hung up")
    await reported(ground, send_and_report, "FULL TIME", f"Fans {rest}, the last, have hung up", rest)
    return "With some gone, none and all of them, your function named exactly those who could not be told."


async def reported(ground: Ground, broadcast: Callable, text: str, story: str, gone: list[int]) -> None:
    """Broadcast, and see that exactly these are off the register, and named."""
    result = await ground.round(broadcast, text, story)
    ground.all_told(text, story)
    ground.no_ghosts(f"{story}, and a round has met them")
    ground.nobody_lost(story)
    dropped = named(ground.it, result, story)
    only_the_gone(ground, dropped, story)
    missing = [number for number in gone if number not in dropped]
    ground.it.require(not missing, f"{story}. Your function names {dropped}; fans {missing} were dropped too.")
    more = [number for number in dropped if number not in gone]
    ground.it.require(
        not more,
        f"{story}. Your function names {dropped}; fans {more} had been dropped in a round before, not in this.",
    )
    ground.it.require(
        len(dropped) == len(gone), f"{story}. Your function names {dropped}: somebody stands there more than once."
    )


def named(it: Trial, result: object, story: str) -> list[int]:
    """Return the numbers of those whom an answer names; raise NotYet where what it returned names nobody."""
    it.require(result is not None, f"{story}; your function returned None. Who was dropped?")
    it.require(
        not isinstance(result, WebSocket),
        f"{story}; your function returned one connection. Several may be gone, or none: what can hold any number?",
    )
    it.require(
        isinstance(result, Collection) and not isinstance(result, str),
        f"{story}; your function returned {result!r:.60}. Who asks wants to know which, as a list or a set.",
    )
    numbers = {websocket: number for number, websocket in it.websockets.items()}
    strangers = [entry for entry in result if not isinstance(entry, WebSocket) or entry not in numbers]
    it.require(
        not strangers,
        f"{story}; among those whom your function names is {next(iter(strangers), None)!r:.60}, which never stood in "
        "the register.",
    )
    return sorted(numbers[entry] for entry in result)


def only_the_gone(ground: Ground, dropped: list[int], story: str) -> None:
    """See that nobody who is here is named."""
    wrongly = [number for number in dropped if number in ground.here]
    ground.it.require(not wrongly, f"{story}. Your function names {dropped}; fans {wrongly} are here, and were told.")


async def try_tell_everyone(it: Trial, tell_everyone: Callable[..., Awaitable]) -> str:
    """The loop takes somebody off; then handlers do, while it waits at fan 5, and somebody comes."""
    ground = Ground(it, [])
    await ground.open(8)
    await ground.wake_all_but(5)
    ground.takes_off = False
    await ground.goes(3, ground.fleet.hang_up, "has hung up")
    story = "Fan 3 had hung up and still stood in the list"
    await ground.round(tell_everyone, "KICK-OFF", story)
    ground.all_told("KICK-OFF", f"{story}; your loop sent to fans {ground.order('KICK-OFF')}")
    rebound = source_has(tell_everyone, rf"{next(iter(inspect.signature(tell_everyone).parameters))}\s*=[^=]")
    question = "Is the list that you changed the one that you were given?" if rebound else ""
    ground.no_ghosts(f"{story}, and a round has met it", question)
    ground.nobody_lost(story)

    ground.takes_off = True
    story = "While your loop waited at fan 5, who did not read, fans 2 and 7 left, and their handlers took them off"
    await ground.round_through_a_tunnel(tell_everyone, "GOAL", tunnel=5, leavers=[2, 7], story=story)
    ground.all_told("GOAL", f"{story}; your loop sent to fans {ground.order('GOAL')}")
    ground.nobody_lost(story)
    ground.no_ghosts(story)
    await ground.newcomer_hears(tell_everyone, "CORNER", 5)
    await ground.round(tell_everyone, "FULL TIME", "5 fans are here")
    ground.all_told("FULL TIME", "5 fans are here")
    await ground.all_hear("FULL TIME")
    return "The list changed in the middle of a round, by the loop and by others; fans 1, 4, 5, 6 and 8 heard it all."


async def try_fair_manager(it: Trial, manager_class: type) -> str:
    """Rounds to six fans, to seven after one has left and two have come, and to five; the first and last are noted."""
    manager, elsewhere = called(manager_class), called(manager_class)
    for verb in ("connect", "disconnect", "broadcast"):
        it.require(hasattr(manager, verb), f"Your FairManager has no {verb}().")
    # A third one: what a first broadcast sets right must not hide what it was before.
    await Rounds(it, called(manager_class)).one("WARM-UP", [], "Nobody has come yet")

    server = await it.serve(stand, it, manager)
    fleet = await it.fleet(server, healthy=6)
    neighbour = await it.serve(stand, it, elsewhere, name="another match")
    # Fan 7 watches another match: its manager is another one.
    await it.fleet(neighbour, healthy=1)
    question = " Does another FairManager share your list?" if share(manager, elsewhere) else ""
    try:
        await fair_rounds(it, manager, server, fleet)
    except NotYet as refusal:
        raise NotYet(f"{refusal}{question}") from None
    return (
        "With 6 fans, 7 and 5, everybody was first once and last once, and heard every round once. Nobody left during "
        "a round here, which X4.1 is about."
    )


def share(manager: object, other: object) -> bool:
    """Whether two managers keep connections in one and the same container."""
    names = [name for name in dir(manager) if not name.startswith("__")]
    kept = [(getattr(manager, name, None), getattr(other, name, None)) for name in names]
    return any(
        mine is theirs and any(isinstance(each, WebSocket) for each in mine)
        for mine, theirs in kept
        if isinstance(mine, (list, set, dict, deque))
    )


async def fair_rounds(it: Trial, manager: object, server: LabServer, fleet: Fleet) -> None:
    """Broadcast to six fans, to seven after one has left and two have come, and to five."""
    rounds = Rounds(it, manager)
    await rounds.fair([1, 2, 3, 4, 5, 6])
    await rounds.some(2, [1, 2, 3, 4, 5, 6])
    await leaves(it, fleet, 3)
    await it.fleet(server, name="late", healthy=2)
    await rounds.fair([1, 2, 4, 5, 6, 8, 9])
    await rounds.some(3, [1, 2, 4, 5, 6, 8, 9])
    await leaves(it, fleet, 1)
    await leaves(it, fleet, 6)
    await rounds.fair([2, 4, 5, 8, 9])
    await fleet.until(len(rounds.texts), clients=[2, 4, 5])
    heard = [each.text for each in fleet.deliveries if each.client == 2]
    it.require(heard == rounds.texts, f"Fan 2 was here all the time, and heard {heard}.")


async def stand(websocket: WebSocket, it: Trial, manager: object) -> None:
    """Connect a fan to the learner's manager, listen, and disconnect it."""
    await awaitable(manager.connect, websocket)
    it.require(
        websocket.application_state == WebSocketState.CONNECTED,
        "A fan has come, connect() has come back, and the fan has not been let in.",
    )
    async for _ in websocket.iter_text():
        pass
    it.result_of(manager.disconnect, websocket)


async def leaves(it: Trial, fleet: object, number: int) -> None:
    """Let a fan leave, and wait until disconnect() has been called for it."""
    await fleet.leave(number)
    await it.ended(number, f"Fan {number} has left")
    it.no_crash()


class Rounds:
    """Broadcasts one after another through a manager, and notes for each to whom it was sent. .texts all so far."""

    def __init__(self, it: Trial, manager: object) -> None:
        self.it = it
        self.manager = manager
        self.texts: list[str] = []

    async def one(self, text: str, fans: list[int], story: str) -> list[int]:
        """Broadcast once, and return the order of sending; each of these fans, and nobody else, is sent to once."""
        it = self.it
        task = it.start(self.manager.broadcast, text)
        error = await error_of(it, task, f"{story}; broadcast()")
        if error and line_in(error):
            raise NotYet(f"{story}; broadcast() raised {said(error, it)}.")
        task.result()
        order = [event.connection for event in it.events if event.what == "send" and event.detail == text]
        it.require(
            7 not in order,
            f"{story}; it was also sent to fan 7, who watches another match, with a FairManager of its own.",
        )
        left = [number for number in order if number not in fans]
        it.require(
            not left, f"{story}; it was also sent to fans {left}, who have left: disconnect() was called for them."
        )
        missing = [number for number in fans if number not in order]
        it.require(not missing, f"{story}; it was sent to {order}, and fans {missing} never got it.")
        it.require(len(order) == len(fans), f"{story}; it was sent to {order}: somebody heard it more than once.")
        return order

    async def some(self, count: int, fans: list[int]) -> list[list[int]]:
        """Broadcast some times, and return the order of sending of each."""
        orders = []
        for _ in range(count):
            text = f"round {len(self.texts) + 1}"
            self.texts.append(text)
            orders.append(await self.one(text, fans, f"Fans {fans} are here in {text}"))
        return orders

    async def fair(self, fans: list[int]) -> None:
        """Broadcast as often as there are fans; everybody is first once, and last once."""
        begin = len(self.texts) + 1
        orders = await self.some(len(fans), fans)
        story = f"Fans {fans} were here in rounds {begin} to {len(self.texts)}"
        first, last = [order[0] for order in orders], [order[-1] for order in orders]
        self.it.require(
            sorted(first) == fans, f"{story}. First were {first}, one after another: each of them should be it once."
        )
        self.it.require(
            sorted(last) == fans, f"{story}. Everybody was first once; last were {last}: each should be it once, too."
        )


EXERCISES = [
    Exercise(
        identifier="X4.1",
        answer="safe_broadcast",
        statement="Fill in the rest of safe_broadcast(): everybody who is here gets the text, who is gone is taken off "
        "`connections`, and a mistake of our own evicts nobody and is not hidden.",
        hints=(
            "What ends the loop when a fan is gone? Is it around the whole loop, or around one send, that it has to "
            "be caught?",
            "A gone client raises one of two errors: which two did the notebook find? A text that is no text raises "
            "another one, and that one you want to see.",
            "Inside the loop: try to send; where one of these two errors comes, take this connection off with the verb "
            "that does not mind when its handler was faster.",
        ),
        trial=try_safe_broadcast,
    ),
    Exercise(
        identifier="X4.2",
        answer="send_and_report",
        statement="Change send_and_report() so that it returns a list or a set of the connections that it could not "
        "send to and dropped: nobody else, and an empty one when nobody was.",
        hints=(
            "At which line of the starter do you know that this fan could not be told?",
            "Begin with something empty, and put a connection in at that line. Where does `return` stand, so that the "
            "loop still meets everybody?",
            "A list made in the first line of the function, an `append` beside the removal, and one `return` behind "
            "the loop. Comparing the register before and after names those who left by themselves, too.",
        ),
        trial=try_send_and_report,
    ),
    Exercise(
        identifier="X4.3",
        answer="tell_everyone",
        statement="Find the bug in tell_everyone(): now and then a fan who is here, and did nothing, misses a message; "
        "no error, nothing in the log.",
        hints=(
            "Put five names on paper, and a finger on the third. Now cross out the first, close up, and move the "
            "finger on by one place. Whom did it miss?",
            "Two change the list while the loop walks along it: the loop itself, and, whenever it waits, the handlers. "
            "What can it walk along that nobody changes?",
            "Walk along a copy. Then somebody you meet may be off the list already, and `remove` minds that: ask "
            "before you remove.",
        ),
        trial=try_tell_everyone,
    ),
    Exercise(
        identifier="X4.4",
        answer="FairManager",
        statement="Make FairManager, with connect(), disconnect() and broadcast(): as long as nobody comes or goes, in "
        "any N broadcasts to N fans everybody is first once and last once. Fans may come and go between broadcasts.",
        hints=(
            "A list keeps its order, and so the same fan is always last. When may you change the order, and by how "
            "little?",
            "Whoever was first this time could go to the end for the next one. Who is last then, round after round?",
            "Keep a list. In broadcast(), walk along a copy; when the loop is through, move the first to the end, in a "
            "way that also works when the list is empty. The other two verbs add and remove.",
        ),
        trial=try_fair_manager,
    ),
]
