"""The process in which answers are tried, so that no answer can harm the kernel. Started by examiner.py.

Run as `python -m labkit.tutor.judge SOCKET` it answers requests on a Unix socket, one at a time. It has imported all
that a trial needs, and forks for each: whatever an answer does, an endless loop or `sys.exit()`, ends with the fork,
and the next trial begins where this one did. A request and its answer are each one length and one pickle.
"""

import asyncio
import contextlib
import io
import linecache
import os
import pickle
import select
import signal
import socket
import sys
import threading
import time
import warnings
from collections import Counter

import cloudpickle
from fastapi import WebSocketDisconnect

from labkit.apparatus import guard
from labkit.tutor import exercises, lines
from labkit.tutor.lines import line_in, line_of, name_of, source_has, standing
from labkit.tutor.trial import NotYet, Trial

# Seconds without a turn of the loop after which an answer counts as blocking; and for a trial as a whole.
BLOCKED_SECONDS = 4.0
TRIAL_SECONDS = 7.5
# The fork is killed then, whatever it does.
LIMIT_SECONDS = 9.0
# What a fork that has sent its verdict ends with; every other end is the doing of the answer.
ANSWERED = 86
FLOOD_TASKS = 5_000
# So many looks in a row at one line of the learner's that stands still: a quarter of a second.
HELD_LOOKS = 4
PRINTED_LINES = 12
_WATCH_SECONDS = 0.05


def main(path: str) -> None:
    """Serve requests until the keeper stops this process, or whoever started it is gone."""
    exercises.load()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    while True:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError, EOFError, pickle.UnpicklingError):
            judge_in_a_fork(connection)


def judge_in_a_fork(connection: socket.socket) -> None:
    """Fork, let the child judge and answer; answer for it when it cannot."""
    request = receive(connection)
    if request is None:
        return
    pid = os.fork()
    if pid == 0:
        # Never back into the loop above: two processes would accept from one socket.
        try:
            judge(connection, request)
            os._exit(ANSWERED)
        finally:
            os._exit(1)
    # The keeper sends this process SIGTERM; the fork must not be left behind.
    signal.signal(signal.SIGTERM, lambda *_: end(pid))
    try:
        status = wait_for(pid, connection)
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if status is None:
        send(connection, not_yet(f"Your code was stopped after {LIMIT_SECONDS:g} s: it let nobody else have a turn."))
    elif status != ANSWERED:
        how = f"signal {-status}" if status < 0 else f"exit code {status}"
        send(
            connection, not_yet(f"Your code ended the whole program ({how}); a server would be gone with all its fans.")
        )


def wait_for(pid: int, connection: socket.socket) -> int | None:
    """Wait for the fork and return its exit code, or None when it had to be killed; asker gone counts as that."""
    until = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < until:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        # Readable means end of file: the asker sends nothing after its request.
        if select.select([connection], [], [], 0.01)[0]:
            break
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def end(pid: int) -> None:
    """Kill the fork and end this process."""
    os.kill(pid, signal.SIGKILL)
    os._exit(0)


# ---- in the fork


def judge(connection: socket.socket, request: bytes) -> None:
    """Try the answer and send what came of it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    printed = io.StringIO()
    answered = threading.Lock()

    def answer_once(verdict: dict) -> None:
        # The watchdog and the trial may come to a verdict at once; the first one counts.
        if answered.acquire(blocking=False):
            send(connection, verdict | {"printed": lines_of(printed)})

    quiet = contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed)
    with quiet[0], quiet[1], warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        verdict = verdict_on(request, answer_once)
        if verdict["outcome"] == "not yet":
            verdict["message"] += never_awaited(warned)
        elif never_awaited(warned):
            verdict = not_yet("What was asked has happened, and yet something was left undone." + never_awaited(warned))
    answer_once(verdict)


def verdict_on(request: bytes, answer_once) -> dict:
    """Unpack an answer, run its trial, and return the verdict."""
    try:
        identifier, pickled, sources = pickle.loads(request)
        for name, source in sources.items():
            # An entry without a time is never looked up on disk again.
            linecache.cache[name] = (sum(map(len, source)), None, source, name)
        lines.files.update(sources)
        exercise = exercises.find(identifier)
        answer = cloudpickle.loads(pickled)
        # Not asyncio.run(): that waits for every task to end, and a task of the learner's may refuse to.
        loop = asyncio.new_event_loop()
        return {"outcome": "done", "message": loop.run_until_complete(run_trial(exercise, answer, answer_once))}
    except NotYet as error:
        return not_yet(str(error))
    except SystemExit:
        return not_yet(
            "Your code calls sys.exit(), which ends the whole program, a server with all its fans. A function returns."
        )
    except BaseException as error:
        return not_yet(own_error(error))


async def run_trial(exercise, answer: object, answer_once) -> str:
    """Run a trial under the watchdog, and return its closing sentence."""
    it = Trial()
    loop = asyncio.get_running_loop()
    watchdog = Watchdog(loop, answer_once)
    guard.install()
    task = asyncio.create_task(exercise.trial(it, answer))
    try:
        done, _ = await asyncio.wait({task}, timeout=TRIAL_SECONDS)
        if not done:
            raise NotYet(f"After {TRIAL_SECONDS:g} s this has not come to an end: {standing(task)}.")
        sentence = outcome_of(task, it)
        if watchdog.held_in:
            raise NotYet(
                f"What was asked has happened, and everybody else had to wait for it: {watchdog.held_in} kept the loop "
                "to itself, so that nobody had a turn."
            )
        try:
            guard.check()
        except guard.BackgroundFailure as failure:
            raise NotYet(f"What was asked has happened, but something failed behind it. {failure}") from None
        return sentence
    finally:
        # A verdict is there; what is still running ends with this process, and nobody has to wait for it.
        watchdog.stop()
        task.cancel()


def outcome_of(task: asyncio.Task, it: Trial) -> str:
    """Return a trial's sentence, or raise its error; where a client stumbled over a crashed handler, that one's."""
    error = task.exception()
    if error is not None and not isinstance(error, NotYet) and not line_in(error):
        it.no_crash()
    return task.result()


class Watchdog(threading.Thread):
    """Looks from outside whether the loop still turns, and how many tasks it has; ends the process when need be."""

    def __init__(self, loop: asyncio.AbstractEventLoop, answer_once) -> None:
        super().__init__(daemon=True)
        self._loop = loop
        self._answer_once = answer_once
        self._starter = os.getppid()
        self._turned_at = time.monotonic()
        self._stopped = threading.Event()
        self._main = threading.main_thread().ident
        # The learner's line that stood still, and for how many looks, while the loop did not turn.
        self._standing = ("", 0)
        self.held_in = ""
        self._tick()
        self.start()

    def _tick(self) -> None:
        self._turned_at = time.monotonic()
        if not self._stopped.is_set():
            self._loop.call_later(_WATCH_SECONDS, self._tick)

    def stop(self) -> None:
        """Stop watching."""
        self._stopped.set()

    def run(self) -> None:
        """Watch until stopped."""
        while not self._stopped.wait(_WATCH_SECONDS):
            if os.getppid() != self._starter:
                os._exit(0)
            self._look()
            verdict = self._flooded() or self._blocked()
            if verdict:
                self._answer_once(verdict)
                os._exit(ANSWERED)

    def _look(self) -> None:
        """Note a line of the learner's own that holds the loop: the innermost one, the same for several looks."""
        line = line_of(sys._current_frames()[self._main])
        turned = time.monotonic() - self._turned_at < 2 * _WATCH_SECONDS
        before, looks = self._standing
        self._standing = (line, looks + 1 if line and line == before and not turned else 0)
        if self._standing[1] >= HELD_LOOKS:
            self.held_in = line

    def _blocked(self) -> dict | None:
        if time.monotonic() - self._turned_at < BLOCKED_SECONDS:
            return None
        frame = sys._current_frames()[self._main]
        while frame is not None and not line_of(frame):
            frame = frame.f_back
        line = line_of(frame)
        where = f" It is in {line}." if line else ""
        if line and "sleep" not in line and source_has(frame.f_code, r"except\b"):
            where += " Does an `except` swallow an error there? Then the loop goes round without waiting."
        return not_yet(f"For {BLOCKED_SECONDS:g} s nobody else had a turn: your code keeps the loop to itself.{where}")

    def _flooded(self) -> dict | None:
        try:
            tasks = asyncio.all_tasks(self._loop)
        except RuntimeError:
            # The set changed too fast to be read; the next look will do.
            return None
        if len(tasks) < FLOOD_TASKS:
            return None
        name, count = Counter(task.get_coro().__qualname__ for task in tasks).most_common(1)[0]
        return not_yet(f"Your code had started {count} tasks of {name}() and none of them had ended: a flood.")


def not_yet(message: str) -> dict:
    """Return a verdict."""
    return {"outcome": "not yet", "message": message, "printed": ""}


def own_error(error: BaseException) -> str:
    """Return the learner's own exception in a sentence, with their line; or whose mistake it is if not theirs."""
    said = f"{name_of(error)}: {error}" if str(error) else name_of(error)
    line = line_in(error)
    if line:
        meaning = (
            " That is how an endpoint hears that its fan has gone." if isinstance(error, WebSocketDisconnect) else ""
        )
        return f"Your code raised {said}, in {line}.{meaning}"
    return f"The check itself failed, with {said}. That is a mistake of the course, not yours."


def never_awaited(warned: list) -> str:
    """Return what Python warned of coroutines that nobody awaited, or an empty string."""
    texts = dict.fromkeys(str(each.message) for each in warned if "never awaited" in str(each.message))
    return "".join(f" Python adds: {text}." for text in texts)


def lines_of(printed: io.StringIO) -> str:
    """Return the first lines that the answer printed, without what the laboratory says."""
    # Half a character, printed, could not be sent to the page.
    text = printed.getvalue().encode(errors="backslashreplace").decode()
    said = [line for line in text.splitlines() if not line.startswith(("✘ ", "✔ expected"))]
    more = [f"… and {len(said) - PRINTED_LINES} lines more"] if len(said) > PRINTED_LINES else []
    return "\n".join(said[:PRINTED_LINES] + more)


# ---- on the wire


def receive(connection: socket.socket) -> bytes | None:
    """Return the next message, or None when the other side has gone."""
    head = connection.recv(8, socket.MSG_WAITALL)
    if len(head) < 8:
        return None
    body = connection.recv(int.from_bytes(head), socket.MSG_WAITALL)
    return body if len(body) == int.from_bytes(head) else None


def send(connection: socket.socket, verdict: dict) -> None:
    """Send a verdict; an asker that has gone needs none."""
    body = pickle.dumps(verdict)
    with contextlib.suppress(OSError):
        connection.sendall(len(body).to_bytes(8) + body)


if __name__ == "__main__":
    main(sys.argv[1])
