"""Where in the learner's code something is: the line at which a task waits, or that an error came through."""

import asyncio
import inspect
import linecache
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


def standing(task: asyncio.Task) -> str:
    """Return in words where a task waits: the innermost line that the learner wrote, if it passes one."""
    coroutine, place = task.get_coro(), None
    while inspect.iscoroutine(coroutine):
        place = line_of(coroutine.cr_frame) or place
        coroutine = coroutine.cr_await
    return f"it waits in {place}" if place else "it waits in code that is not yours"
