"""Child processes that die with this one: after a restart of the kernel, a kill, or Stop, no orphan stays.

Each program runs under a small keeper (_keeper.py) in a session of its own, so that Jupyter's Stop does not reach it.
The keeper holds the other end of a pipe: when this process ends, however it ends, the pipe closes, and the keeper
stops the program and removes its folder.
"""

import asyncio
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from labkit.apparatus import running

FOLDER_PREFIX = "broadcast-lab-"
_POLL_SECONDS = 0.01
_KEEPER = Path(__file__).with_name("_keeper.py")


class ChildFailed(RuntimeError):
    """A child process ended, or was not ready in time; the message ends in what it said last."""


class Child:
    """A running program, its folder and its log. Made by start_child().

    .pid the program's own process number, .folder its temporary folder (a Path, removed with it), .name.
    """

    kind = "child process"
    size = 1

    def __init__(self, name: str, folder: Path, keeper: subprocess.Popen, pid: int) -> None:
        self.name = name
        self.folder = folder
        self.pid = pid
        self._keeper = keeper

    @property
    def is_open(self) -> bool:
        """Whether the program, or the keeper that cleans up after it, is still there."""
        return self._keeper.poll() is None

    @property
    def is_running(self) -> bool:
        """Whether the program itself still runs; a frozen one does."""
        return self.is_open and _exists(self.pid)

    @property
    def log(self) -> str:
        """What the program has printed so far, both streams; empty once it is gone."""
        path = self.folder / "output.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def kill(self) -> None:
        """Kill the program as the system would when memory runs out: no goodbye."""
        self.send_signal(signal.SIGKILL)

    def freeze(self) -> None:
        """Stop the program where it stands; its sockets stay open and nobody answers them."""
        self.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let a frozen program go on."""
        self.send_signal(signal.SIGCONT)

    def send_signal(self, number: int) -> None:
        """Send the program a signal; raise ChildFailed when it is not running any more."""
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            raise ChildFailed(f"{self.name} (process {self.pid}) is not running any more.") from None

    async def restart(self, *, ready: Callable[[], Awaitable[bool]] | None = None, timeout: float = 10.0) -> None:
        """Stop the program where it still runs, and start it anew: the same command line, the same folder.

        The log goes on where it was. ready, timeout: as for start_child().
        Raises ChildFailed when it ends first or is not ready in time; another restart() may follow then.
        """
        if not self.is_open:
            raise ChildFailed(f"{self.name} has been closed, and its folder is gone. Start a new one.")
        self._keeper.stdin.write(b"again\n")
        self._keeper.stdin.flush()
        # Shielded: an answer that nobody waits for any more would be taken for that to the next restart.
        answer = await asyncio.shield(asyncio.to_thread(self._hear_of_next_run))
        if not answer.startswith(b"pid "):
            raise ChildFailed(_not_started(self.name, answer))
        await _until_ready(self, ready, timeout)

    def _hear_of_next_run(self) -> bytes:
        """Return what the keeper says of a restart, and take the new process number from it."""
        answer = self._keeper.stdout.readline()
        if answer.startswith(b"pid "):
            self.pid = int(answer.split()[1])
        return answer

    async def close(self) -> None:
        """Stop the program, wait until it is gone and its folder removed; a second call does nothing."""
        self._keeper.stdin.close()
        await asyncio.to_thread(self._keeper.wait)
        self._keeper.stdout.close()
        running.forget(self)


async def start_child(
    arguments: list[str],
    *,
    name: str,
    folder: Path | None = None,
    environment: dict[str, str] | None = None,
    ready: Callable[[], Awaitable[bool]] | None = None,
    timeout: float = 10.0,
) -> Child:
    """Start a program that dies with this process, and return its Child once `ready` says so.

    arguments: the command line. folder: the program's temporary folder, from new_folder(); removed when it ends.
    environment: all that the program is to find there; by default what is there for this process.
    ready: asked every 10 ms until it returns True. timeout: seconds to wait for that.
    Raises ChildFailed, with the end of the program's output, when it ends first or is not ready in time.
    """
    folder = folder or new_folder()
    keeper = _start_keeper(folder, arguments, environment)
    try:
        answer = await asyncio.to_thread(keeper.stdout.readline)
    except asyncio.CancelledError:
        keeper.stdin.close()
        raise
    if not answer.startswith(b"pid "):
        keeper.stdin.close()
        raise ChildFailed(_not_started(name, answer))
    child = Child(name, folder, keeper, int(answer.split()[1]))
    running.register(child)
    try:
        await _until_ready(child, ready, timeout)
    except BaseException:
        await asyncio.shield(child.close())
        raise
    return child


def _start_keeper(folder: Path, arguments: list[str], environment: dict[str, str] | None) -> subprocess.Popen:
    """Start the keeper; not through asyncio, whose subprocesses belong to one loop and complain when it ends first."""
    return subprocess.Popen(
        # Isolated and without site packages it starts in a few milliseconds.
        [sys.executable, "-I", "-S", str(_KEEPER), str(folder), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=environment,
        start_new_session=True,
    )


def _not_started(name: str, answer: bytes) -> str:
    """Return the keeper's reason for not starting a program, in a sentence."""
    return f"{name} could not be started: {answer.decode(errors='replace').strip() or 'no answer'}"


def new_folder() -> Path:
    """Make a temporary folder for one child; whoever starts the child with it need not remove it."""
    return Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX))


async def _until_ready(child: Child, ready: Callable[[], Awaitable[bool]] | None, timeout: float) -> None:
    """Wait for readiness; raise ChildFailed when the program ends first or the time is over."""
    until = time.monotonic() + timeout
    while ready is not None and not await ready():
        said = _last_lines(child.log)
        if not child.is_running:
            raise ChildFailed(f"{child.name} ended before it was ready. It said last:\n{said}")
        if time.monotonic() > until:
            raise ChildFailed(f"{child.name} was not ready within {timeout:g} s. It said last:\n{said}")
        await asyncio.sleep(_POLL_SECONDS)


def _last_lines(text: str, count: int = 6) -> str:
    """Return the last lines of a log, or a word for none."""
    return "\n".join(text.strip().splitlines()[-count:]) or "(nothing)"


def _exists(pid: int) -> bool:
    """Return whether a process of this number exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
