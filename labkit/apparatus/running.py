"""The account of everything that this process has open, so that one call can close it."""

import asyncio
import os
from collections.abc import Callable
from contextvars import Context
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

HEARTBEAT_SECONDS = 0.1
STRICT_VARIABLE = "BROADCAST_LAB_STRICT"

# Tasks of these packages belong to the notebook kernel or the test runner; they were there before the lab opened.
_NOT_OURS = {"IPython", "anyio", "comm", "ipykernel", "ipywidgets", "jupyter_client", "nbclient", "tornado", "zmq"}


class Resource(Protocol):
    """Something the lab has opened: a server, a fleet, a child process."""

    kind: str
    name: str

    @property
    def size(self) -> int:
        """How many of its kind it stands for: a fleet of 20 counts 20 clients."""

    @property
    def is_open(self) -> bool:
        """Whether anything of it still exists outside this registry."""

    async def close(self) -> None:
        """Give back everything it holds."""


# Fleets close first, so that servers see their clients go; child processes last, since servers may use them.
_KINDS = ("client", "server", "child process")
_PLURALS = {"client": "clients", "server": "servers", "task": "tasks", "child process": "child processes"}
_open: dict[tuple[str, str], Resource] = {}
_hooks: set[Callable[[], None]] = set()
_beating_on: asyncio.AbstractEventLoop | None = None


def strict() -> bool:
    """Return whether a failed claim or a missing expected failure raises, as it does in the tests."""
    return os.environ.get(STRICT_VARIABLE, "") not in ("", "0")


def _count(amount: int, kind: str) -> str:
    """Return an amount with its noun: "1 server", "2 servers"."""
    return f"{amount} {kind if amount == 1 else _PLURALS[kind]}"


@dataclass(frozen=True)
class Closed:
    """What close_lab() closed and cancelled, and what it could not get rid of.

    closed, left: kind -> how many. cancelled: the names of tasks that cells had left running.
    """

    closed: dict[str, int]
    left: dict[str, int]
    cancelled: tuple[str, ...] = ()

    @property
    def nothing_left(self) -> bool:
        """Whether the lab is empty."""
        return not any(self.left.values())

    def __repr__(self) -> str:
        parts = [_count(amount, kind) for kind, amount in self.closed.items() if amount]
        text = f"closed {', '.join(parts)}\n" if parts else ""
        if self.cancelled:
            text += f"cancelled {_count(len(self.cancelled), 'task')} still running: {', '.join(self.cancelled)}\n"
        left = ", ".join(f"{amount} {_PLURALS[kind]}" for kind, amount in self.left.items())
        return f"{text}{left} left"


def _beat(loop: asyncio.AbstractEventLoop) -> None:
    """Wake the loop, and ask to be woken again while anything is open."""
    global _beating_on
    if _open and loop is _beating_on:
        loop.call_later(HEARTBEAT_SECONDS, _beat, loop, context=Context())
    else:
        _beating_on = None


def start_heartbeat() -> None:
    """Keep the running loop waking up ten times a second while the lab has anything open.

    An idle loop sleeps in the selector and notices Jupyter's Stop button only when something else wakes it.
    A timer does this rather than a task, so that a learner who lists the tasks sees only their own.
    """
    global _beating_on
    loop = asyncio.get_running_loop()
    if _beating_on is not loop:
        _beating_on = loop
        _beat(loop)


def register(resource: Resource) -> None:
    """Put a resource into the account and start the heartbeat; a namesake of the same kind must be closed before."""
    _open[resource.kind, resource.name] = resource
    start_heartbeat()


def forget(resource: Resource) -> None:
    """Take a resource out of the account; one that is not in it is no error."""
    if _open.get((resource.kind, resource.name)) is resource:
        del _open[resource.kind, resource.name]


def at_close(hook: Callable[[], None]) -> None:
    """Have a function called at the end of the next close_lab(), once."""
    _hooks.add(hook)


def find(kind: str, name: str) -> Resource | None:
    """Return the open resource of this kind and name, or None."""
    return _open.get((kind, name))


def everything() -> list[Resource]:
    """Return all that is open, in the order in which close_lab() would close it."""
    return [resource for kind in _KINDS for (its, _), resource in list(_open.items()) if its == kind]


def stray_tasks() -> list[asyncio.Task]:
    """Return the tasks on this loop that neither the kernel nor the test runner owns, the current one left out."""
    return [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and _is_ours(task)]


def _is_ours(task: asyncio.Task) -> bool:
    """Return whether a task runs code of a cell, of labkit or of a library that labkit started."""
    coroutine = task.get_coro()
    code = getattr(coroutine, "cr_code", None) or getattr(coroutine, "gi_code", None)
    return code is None or not _NOT_OURS.intersection(Path(code.co_filename).parts)


async def close_lab() -> Closed:
    """Close every server, fleet and child process of this process, cancel stray tasks, and count what is left.

    It may be called at any time, any number of times; the next serve() or Fleet opens the lab again.
    Returns a Closed, whose text ends in "0 servers, 0 clients, 0 tasks, 0 child processes left" when all went well.
    """
    opened = everything()
    for kind in _KINDS:
        await asyncio.gather(*(resource.close() for resource in opened if resource.kind == kind))
    strays = stray_tasks()
    for task in strays:
        task.cancel()
    if strays:
        await asyncio.wait(strays, timeout=0.3)
    while _hooks:
        _hooks.pop()()
    remaining = {"server": 0, "client": 0, "task": len(stray_tasks()), "child process": 0}
    closed = dict.fromkeys(_KINDS, 0)
    for resource in opened:
        closed[resource.kind] += resource.size
        remaining[resource.kind] += resource.size if resource.is_open else 0
    return Closed(closed, remaining, tuple(_name_of(task) for task in strays))


def _name_of(task: asyncio.Task) -> str:
    """Return what a task runs, in the words of its source: "ticker()"."""
    coroutine = task.get_coro()
    return f"{getattr(coroutine, '__qualname__', type(coroutine).__name__)}()"
