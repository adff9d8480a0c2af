"""Small files in the learner's own folder: shared by several kernels, written whole or not at all, never lost."""

import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from platformdirs import user_data_path

from labkit.apparatus import guard

PATH_VARIABLE = "BROADCAST_LAB_LEDGER"
# The lock is held for milliseconds; who waits longer meets a frozen kernel or a file system that cannot lock.
LOCK_SECONDS = 2.0

Content = TypeVar("Content")


def folder() -> Path:
    """Return where notes are kept: beside the file that BROADCAST_LAB_LEDGER names, else in the user's data folder."""
    chosen = os.environ.get(PATH_VARIABLE)
    return Path(chosen).expanduser().absolute().parent if chosen else user_data_path("broadcast-lab")


@contextmanager
def lock(path: Path, *, timeout: float = LOCK_SECONDS) -> Iterator[None]:
    """Keep other kernels out while the file is read and written; the system gives the lock back if this one dies.

    timeout: seconds to wait for another kernel; the event loop waits as well.
    Raises OSError where the folder cannot be written, TimeoutError (an OSError) when somebody else keeps the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f"{path.name}.lock"), "w", encoding="utf-8") as file:
        until = time.monotonic() + timeout
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TimeoutError("another kernel keeps it locked") from None
                time.sleep(0.005)
        yield


def load(path: Path, parse: Callable[[str], Content], *, what: str) -> Content | None:
    """Return what a file holds, or None where there is none; one that is damaged is renamed, and said to be.

    The trap: it is for whoever has the lock, since it may rename.
    parse: makes the content of the text; ValueError, TypeError or RecursionError mean damage. what: "The ledger".
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, RecursionError) as error:
        aside = path.with_name(f"{path.name}.damaged-{datetime.now():%Y%m%d-%H%M%S-%f}")
        path.rename(aside)
        guard.tell(f"{what} could not be read ({error}). It is set aside as {aside}; a new one begins.")
        return None


def read(path: Path, parse: Callable[[str], Content], *, what: str, timeout: float = LOCK_SECONDS) -> Content | None:
    """Return what a file holds, or None where there is none, without making anything on disk in that case.

    Raises OSError where it can be read neither under the lock nor without.
    """
    try:
        if not path.exists():
            return None
        with lock(path, timeout=timeout):
            return load(path, parse, what=what)
    except OSError as error:
        try:
            # Where nothing can be written, what is there can often still be read.
            return parse(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, RecursionError):
            raise error from None


def save(path: Path, text: str) -> None:
    """Write the file beside its place and move it there, so that nobody ever reads half of it."""
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".new", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def tell_unusable(path: Path, error: OSError, *, what: str, told: set[str]) -> None:
    """Say that a file cannot be used, why, and what to do; the first time only, since a lesson asks often.

    what: in the plural, "Predictions". told: what has been said before, which this adds to.
    """
    text = (
        f"{what} cannot be kept in {path} ({error.strerror or error}); they last until this kernel ends. "
        f"To keep them, set {PATH_VARIABLE} to a file in a folder that can be written, and restart the kernel."
    )
    if text not in told:
        told.add(text)
        guard.tell(text)
