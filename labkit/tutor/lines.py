"""Where in the learner's code something is: the line at which a task waits, or that an error came through."""

import asyncio
import inspect
import linecache
import re
import traceback

# The files that the learner's code came from; the judge fills them in.
files: set[str] = set()


def line_of(frame: object, line_number: int | None = None) -> str:
    """Return "line 5: `await websocket.receive_text()`" for a frame of the learner's code, else an empty string."""
    if frame is None or frame.f_code.co_filename not in files:
        return ""
    number = line_number or frame.f_lineno
    return f"line {number}: `{linecache.getline(frame.f_code.co_filename, number).strip()}`"


def line_in(error: BaseException) -> str:
    """Return the innermost line of the learner's code that an error passed through, or an empty string."""
    frames = reversed(list(traceback.walk_tb(error.__traceback__)))
    return next(filter(None, (line_of(frame, number) for frame, number in frames)), "")


def name_of(error: BaseException) -> str:
    """Return the name of an error's class; with its kind, where one letter tells it from another of another kind."""
    name = type(error).__name__
    return f"{name} (a RuntimeError)" if name == "WebSocketDisconnected" else name


def source_has(function: object, pattern: str) -> bool:
    """Whether a line of a function begins with what a pattern says. function: the function, or its code.

    Read from the lines themselves: `inspect` would walk all modules, and whoever asks may compete with an endless loop.
    """
    code = getattr(function, "__code__", function)
    if not inspect.iscode(code):
        return False
    numbers = [number for _, _, number in code.co_lines() if number]
    lines = linecache.getlines(code.co_filename)[code.co_firstlineno - 1 : max(numbers, default=0)]
    return any(re.match(rf"\s*(?:{pattern})", line) for line in lines)


def standing(task: asyncio.Task) -> str:
    """Return in words where a task waits: the innermost line that the learner wrote, if it passes one."""
    coroutine, place = task.get_coro(), None
    while inspect.iscoroutine(coroutine):
        place = line_of(coroutine.cr_frame) or place
        coroutine = coroutine.cr_await
    return f"it waits in {place}" if place else "it waits in code that is not yours"
