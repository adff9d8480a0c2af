"""What the trials of several notebooks share: a thin network, a hurried clock, and who has heard what."""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass

from fastapi import WebSocket, WebSocketDisconnect

from labkit.apparatus.clients import Fleet
from labkit.apparatus.server import LabServer
from labkit.broadcast.protocol import HubProtocol
from labkit.tutor.lines import line_in, standing
from labkit.tutor.trial import PATIENCE, NotYet, Trial, awaitable

# A thin network, as in labkit.evidence.contract: whoever does not read is felt after one message of this size.
SEND_BUFFER_BYTES = 65_536
RECEIVE_BUFFER_BYTES = 4_096
FILLER = "x" * 400_000
# So much faster pass the limits of a call that the check hurries.
HURRY = 100
# A broadcast that only puts something somewhere needs one turn of the loop.
TURNS = 10


async def listen(websocket: WebSocket) -> None:
    """Listen to a fan until it has gone."""
    with suppress(WebSocketDisconnect):
        while True:
            await websocket.receive_text()


async def crowd(it: Trial, endpoint: Callable, *order: str, name: str = "main") -> tuple[LabServer, Fleet]:
    """Serve an endpoint on a thin network, and let fans come in this order."""
    server = await it.serve(endpoint, name=name, protocol=HubProtocol, send_buffer_bytes=SEND_BUFFER_BYTES)
    return server, await it.fleet(server, order=order, receive_buffer_bytes=RECEIVE_BUFFER_BYTES)


async def fill(it: Trial, *fans: int) -> None:
    """Fill what lies between the server and these fans; the next send to each of them has to wait."""
    for fan in fans:
        await it.websockets[fan].send_text(FILLER)


@dataclass
class Pace:
    """How fast the loop's clock runs for one call of the learner's, and how many limits or pauses it has set."""

    speed: float = 1
    timers: int = 0


_pace: ContextVar[Pace | None] = ContextVar("pace", default=None)


def note_timers() -> None:
    """From here on, count and hurry what `paced` calls, and the tasks that they start, ask of the loop's clock."""
    loop = asyncio.get_running_loop()
    plain = loop.call_at

    def call_at(when: float, *arguments: object, **options: object) -> asyncio.TimerHandle:
        pace = _pace.get()
        if pace is not None:
            pace.timers += 1
            when = loop.time() + (when - loop.time()) / pace.speed
        return plain(when, *arguments, **options)

    loop.call_at = call_at


async def paced(pace: Pace, function: Callable[..., Awaitable], *arguments: object) -> object:
    """Call a coroutine function of the learner's while its clock is watched; only for a task of its own."""
    _pace.set(pace)
    return await awaitable(function, *arguments)


def inside(error: BaseException) -> list[BaseException]:
    """Return the errors in a group and in the groups within it; of any other error, that one."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for each in error.exceptions for leaf in inside(each)]
    return [error]


async def comes_back(call: asyncio.Task, story: str) -> BaseException | None:
    """Wait until a call of the learner's has ended and return its error, if there is one; NotYet if it never does."""
    await asyncio.wait({call}, timeout=PATIENCE)
    if not call.done():
        raise NotYet(f"{story}; {PATIENCE:g} seconds later {call.get_name()} has not come back: {standing(call)}.")
    return call.exception()


async def goes_well(call: asyncio.Task, story: str) -> None:
    """Wait until a call of the learner's has come back; raise its error as it is, but that of a gone fan in words."""
    error = await comes_back(call, story)
    if isinstance(error, WebSocketDisconnect):
        raise NotYet(
            f"{story}. Out of {call.get_name()} came a WebSocketDisconnect, from {line_in(error)}: one fan is gone, "
            "and whoever has called gets the error of that one send."
        )
    if isinstance(error, ExceptionGroup) and any(isinstance(each, WebSocketDisconnect) for each in inside(error)):
        where = line_in(error)
        raise NotYet(
            f"{story}. Out of {call.get_name()} came an ExceptionGroup, from {where}; inside: WebSocketDisconnect, for "
            "a fan who has gone. A group cancels all its other tasks when one fails: who was sent nothing then?"
        )
    if error is not None:
        raise error


def heard_by(fleet: Fleet) -> dict[int, list[str]]:
    """Return what each fan has heard, but for the filler."""
    heard: dict[int, list[str]] = {fan: [] for fan in fleet.deliveries.roster}
    for delivery in fleet.deliveries:
        if not delivery.text.startswith("xxx"):
            heard[delivery.client].append(delivery.text)
    return heard


async def all_hear(it: Trial, fleet: Fleet, fans: Collection[int], texts: list[str], story: str) -> None:
    """See that each of these fans hears these texts in this order, and nothing else."""

    def complete() -> bool:
        heard = heard_by(fleet)
        return all(texts[-1] in heard[fan] for fan in fans)

    with suppress(NotYet):
        await it.until(complete, "")
    it.no_crash()
    for fan, heard in heard_by(fleet).items():
        if fan in fans and heard != texts:
            lost = next((text for text in texts if text not in heard), None)
            what = f"never hears {lost!r}" if lost else f"hears {' · '.join(heard)}, where {' · '.join(texts)} is due"
            raise NotYet(f"{story}; fan {fan} {what}.")


def of_text(it: Trial, text: object) -> list[int]:
    """Return the connections for which a send of this text has begun."""
    return [event.connection for event in it.events if event.what == "send" and event.detail == text]


def under_way(it: Trial, fan: int) -> int:
    """Return how many sends to a fan have begun and not ended."""
    return len(it.of(fan, "send")) - len(it.of(fan, "sent", "failed"))


def naming(fans: Collection[int]) -> str:
    """Return fans in words: "fan 4", "fans 4, 6 and 7"."""
    *most, last = [str(fan) for fan in fans]
    return f"fans {', '.join(most)} and {last}" if most else f"fan {last}"
