"""Failures in the background: seen once, short, in the running cell; and no notebook test passes over one.

A handler that crashes, a task that dies unread, a thread that raises, a server that ends by itself: none of them stops
a cell. The guard hears of each, says so, and keeps it until check() is called. `expecting` marks the failures that are
the lesson.
"""

import asyncio
import gc
import logging
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, field

from labkit.apparatus import running

_LOGGERS = ("asyncio", "uvicorn.error", "websockets")


class BackgroundFailure(RuntimeError):
    """Something failed in the background that no `expecting` block had announced."""


@dataclass
class Expectation:
    """The failures that an `expecting` block has seen.

    types: exception classes. match: a piece of the message, or empty. errors: what was seen, in order.
    """

    types: tuple[type[BaseException], ...]
    match: str = ""
    errors: list[BaseException] = field(default_factory=list)

    def takes(self, error: BaseException | None) -> bool:
        """Return whether this failure is one of those announced, and note it if so."""
        if not isinstance(error, self.types) or self.match not in str(error):
            return False
        if not any(error is seen for seen in self.errors):
            self.errors.append(error)
        return True


_expectations: list[Expectation] = []
_failures: list[str] = []
# Errors already told, so that uvicorn's log record of an error that serve() saw first is not told twice.
_told: list[BaseException] = []


def describe(error: BaseException) -> str:
    """Return an error in one line, with the innermost line of the learner's own code if it came from there."""
    text = f"{type(error).__name__}: {error}" if str(error) else repr(error)
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if "ipykernel_" in frame.filename or frame.filename.startswith("<"):
            return f"{text} (in {frame.name}, line {frame.lineno}: {frame.line})"
    return text


def tell(text: str) -> None:
    """Print into the running cell, whichever cell the caller was created in."""
    Context().run(print, text)


def record(where: str, error: BaseException | None = None, text: str = "") -> None:
    """Note a background failure and print it in one line, unless it was told before; a cancellation is no failure."""
    if isinstance(error, asyncio.CancelledError):
        return
    if error is not None:
        if any(error is seen for seen in _told):
            return
        _told.append(error)
        text = describe(error)
    if any(expectation.takes(error) for expectation in reversed(_expectations)):
        tell(f"✔ expected, in {where}: {text}")
        return
    _failures.append(f"{where}: {text}")
    tell(f"✘ {where}: {text}")


def dismiss(error: BaseException) -> None:
    """Let an error pass that somebody else tells of, also when uvicorn logs it later."""
    _told.append(error)


@contextmanager
def expecting(*types: type[BaseException], match: str = "") -> Iterator[Expectation]:
    """Mark the failures that are the lesson: in this block they are shown and allowed, in the cell and behind it.

    The trap: a background failure counts only while the block is open, so wait inside it for the thing to happen.
    types: the exception classes expected. match: a piece that their message must contain.
    Yields an Expectation, whose .errors holds what was seen. Where nothing failed it says so, and raises
    AssertionError in the tests.
    """
    expectation = Expectation(types, match)
    _expectations.append(expectation)
    try:
        yield expectation
    except types as error:
        if not expectation.takes(error):
            raise
        print(f"✔ expected: {describe(error)}")
    finally:
        collect()
        _expectations.remove(expectation)
    if not expectation.errors:
        names = " or ".join(each.__name__ for each in types)
        text = f"expected {names}, and nothing of the kind failed in this block"
        if running.strict():
            raise AssertionError(text)
        print(f"✘ {text}")


class _Listener(logging.Handler):
    """Turns ERROR records of uvicorn, asyncio and websockets into noted failures."""

    def emit(self, log_record: logging.LogRecord) -> None:
        # What uvicorn says of a lifespan or of its own shutdown, the LabServer sees itself and tells better.
        if log_record.funcName == "shutdown" or "lifespan" in log_record.pathname:
            return
        error = log_record.exc_info[1] if log_record.exc_info else None
        record(log_record.name, error, log_record.getMessage().strip().splitlines()[0])


_listener = _Listener(level=logging.ERROR)
_previous_thread_hook = None


def _on_loop_error(loop: asyncio.AbstractEventLoop, context: dict) -> None:
    """Note what asyncio would have logged: a task whose error nobody read, a callback that raised."""
    source = context.get("task") or context.get("future") or context.get("handle") or "event loop"
    name = source.get_name() if isinstance(source, asyncio.Task) else type(source).__name__
    record(f"background {name}" if source != "event loop" else source, context.get("exception"), context["message"])


def _on_thread_error(arguments: threading.ExceptHookArgs) -> None:
    """Note an error that ended a thread."""
    name = arguments.thread.name if arguments.thread else "a thread that has ended"
    record(f"thread {name}", arguments.exc_value)


def install() -> None:
    """Listen on the running loop, to threads and to the loggers, until close_lab(); a second call changes nothing."""
    global _previous_thread_hook
    asyncio.get_running_loop().set_exception_handler(_on_loop_error)
    if threading.excepthook is not _on_thread_error:
        _previous_thread_hook, threading.excepthook = threading.excepthook, _on_thread_error
    for name in _LOGGERS:
        logging.getLogger(name).addHandler(_listener)
    running.at_close(uninstall)


def uninstall() -> None:
    """Give the loop, the threads and the loggers back as they were; what was noted stays until check()."""
    global _previous_thread_hook
    asyncio.get_running_loop().set_exception_handler(None)
    if threading.excepthook is _on_thread_error:
        threading.excepthook = _previous_thread_hook or threading.__excepthook__
    for name in _LOGGERS:
        logging.getLogger(name).removeHandler(_listener)


def collect() -> None:
    """Note the tasks that have died with an error nobody has read, those still referenced included.

    asyncio speaks of such a task only when the last reference to it goes, which in a notebook may be never.
    """
    gc.collect()
    for thing in gc.get_objects():
        # A done task keeps this flag until somebody reads its error; there is no public name for it. isinstance() would
        # ask each thing for its class, and a proxy of something that is gone raises.
        if issubclass(type(thing), asyncio.Task) and thing.done() and getattr(thing, "_log_traceback", False):
            record(f"background {thing.get_name()}", thing.exception())


def check() -> None:
    """Raise BackgroundFailure with all that failed unannounced since the last check, and start afresh."""
    collect()
    failures, _failures[:] = list(_failures), []
    _told.clear()
    if failures:
        listed = "\n".join(f"  - {failure}" for failure in failures)
        raise BackgroundFailure(f"{len(failures)} failed in the background, and no cell expected it:\n{listed}")
