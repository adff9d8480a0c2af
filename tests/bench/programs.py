"""Servers and swarms as child processes: started, told a line, asked for one, and ended by closing their input.

A child that outlives the benchmark would be idle for ever: each ends when its standard input closes, which happens
however this process ends.
"""

import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from labkit.apparatus.parts.ports import free_port

ROOT = Path(__file__).parents[2]
START_SECONDS = 30.0
CONNECT_SECONDS = 120.0
_END_SECONDS = 3.0
_LAST_WORDS_BYTES = 4096
_STILL_NS = 2_000_000
_STILL_TRIES = 50


class ProgramFailed(RuntimeError):
    """A program ended, was silent for too long, or said something unexpected; the message has what it said last."""


class Program:
    """A running program that speaks in lines. .name what it is called in messages, .pid its process number."""

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self.name = name
        # A file and no pipe, which a program that writes much would fill; without a name it leaves nothing behind.
        self._errors, path = tempfile.mkstemp()
        os.unlink(path)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            env=os.environ | (environment or {}),
            # Ctrl+C is for the benchmark alone, which then ends the others.
            start_new_session=True,
        )
        self.pid = self._process.pid
        self._read = b""

    def tell(self, line: str) -> None:
        """Write a line to the program; raise ProgramFailed when it is gone."""
        try:
            self._process.stdin.write(f"{line}\n".encode())
        except BrokenPipeError:
            raise ProgramFailed(f"{self.name} is gone. {self._last_words()}") from None

    def line(self, timeout: float) -> str:
        """Return the next line that the program prints; raise ProgramFailed when none comes within timeout seconds."""
        until = time.monotonic() + timeout
        while b"\n" not in self._read:
            readable, _, _ = select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))
            if not readable:
                raise ProgramFailed(f"{self.name} said nothing for {timeout:g} s. {self._last_words()}")
            more = os.read(self._process.stdout.fileno(), 65536)
            if not more:
                raise ProgramFailed(f"{self.name} has ended. {self._last_words()}")
            self._read += more
        line, self._read = self._read.split(b"\n", 1)
        return line.decode()

    def answer(self, word: str, timeout: float) -> list[str]:
        """Return the words behind `word` in the next line; raise ProgramFailed when it begins with another."""
        line = self.line(timeout)
        if not line.startswith(word):
            raise ProgramFailed(f"{self.name} said {line!r}, and not {word!r}. {self._last_words()}")
        return line.removeprefix(word).split()

    def _last_words(self) -> str:
        """Return the end of what the program has written to its standard error, in a sentence."""
        said = os.pread(self._errors, _LAST_WORDS_BYTES, max(0, os.fstat(self._errors).st_size - _LAST_WORDS_BYTES))
        lines = said.decode(errors="replace").strip().splitlines()[-4:]
        return "It wrote: " + " / ".join(lines) if lines else "It wrote no error."

    def close(self) -> None:
        """End the program by closing its standard input, or kill it when that is not enough; twice is no error."""
        if self._process.stdin.closed:
            return
        self._process.stdin.close()
        try:
            self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        os.close(self._errors)


class Server(Program):
    """A server under test. .port where it listens, .version as it said itself."""

    def __init__(self, name: str, command: Sequence[str], environment: dict[str, str] | None = None) -> None:
        self.port = free_port()
        super().__init__(name, [*command, str(self.port)], environment)
        try:
            self.version = self.answer("ready", START_SECONDS)[-1]
        except ProgramFailed:
            self.close()
            raise

    @classmethod
    def of_ours(cls, variant: str, *options: str, python: str = sys.executable) -> "Server":
        """Start one of our own ways to broadcast; python: the interpreter, where it is not this one."""
        command = [python, str(ROOT / "tests" / "bench" / "servers.py"), variant, *options]
        return cls(variant, command, {"PYTHONPATH": str(ROOT)})

    def settle(self) -> None:
        """Let one of our own servers collect its garbage."""
        self.tell("settle")
        self.answer("settled", START_SECONDS)


class Swarm(Program):
    """Clients of a server, all connected. .clients how many, .connect_seconds how long they took."""

    def __init__(self, command: Sequence[str], server: Server, clients: int, options: Sequence[str] = ()) -> None:
        super().__init__(f"swarm of {server.name}", [*command, str(server.port), str(clients), *options])
        self.clients = clients
        try:
            self.connect_seconds = int(self.answer("connected", CONNECT_SECONDS)[1]) / 1e9
        except ProgramFailed:
            self.close()
            raise


def cpu_ns(pid: int) -> int:
    """Return the CPU time of a process so far, of all its threads, in nanoseconds.

    Linux counts in nanoseconds (/proc/PID/task/*/schedstat). Elsewhere `ps` is asked, which counts in hundredths of a
    second: blocks are too short for it, and ratios then are rough.
    Raises ProgramFailed when the process has ended.
    """
    threads = Path(f"/proc/{pid}/task")
    if threads.exists():
        try:
            return sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads.iterdir())
        except OSError as error:
            raise ProgramFailed(f"process {pid} has ended, or one of its threads: {error}") from None
    said = subprocess.run(["ps", "-o", "time=", "-p", str(pid)], capture_output=True, text=True, check=True).stdout
    seconds = 0.0
    for part in said.strip().replace("-", ":").split(":"):
        seconds = seconds * 60 + float(part)
    return int(seconds * 1e9)


def cpu_ns_at_rest(pid: int) -> int:
    """Return the same once the process is still: what a server does after the last arrival belongs to its block."""
    before = cpu_ns(pid)
    for _ in range(_STILL_TRIES):
        time.sleep(_STILL_NS / 1e9)
        now = cpu_ns(pid)
        if now == before:
            break
        before = now
    return before


def resident_bytes(pid: int) -> int | None:
    """Return how much memory a process holds (VmRSS); None on systems without /proc."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    return next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmRSS"))
