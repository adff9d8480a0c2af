"""Runs one program and never outlives whoever asked for it. Started by children.py; standard library only.

usage: python _keeper.py FOLDER PROGRAM [ARGUMENT ...]

It prints "pid N" once the program runs, or the reason why it does not. For each line on its standard input it stops
the program, starts it anew in the same folder, and answers likewise. When its standard input closes, which happens
however the starter ends, it stops the program and removes FOLDER.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

GRACE_SECONDS = 0.5


def keep(folder: Path, arguments: list[str]) -> int:
    """Run a program in `folder`, anew for each line of standard input, until that closes; return its exit code."""
    program = start(folder, arguments)
    if program is None:
        shutil.rmtree(folder, ignore_errors=True)
        return 127
    signal.signal(signal.SIGTERM, lambda *_: stop(program))
    # The folder stays until the starter lets go: it may want to read the log of a program that died.
    for _ in sys.stdin.buffer:
        stop(program)
        program = start(folder, arguments) or program
    stop(program)
    shutil.rmtree(folder, ignore_errors=True)
    return program.returncode


def start(folder: Path, arguments: list[str]) -> subprocess.Popen | None:
    """Start the program, in a process group of its own, and say so; say why not, and return None, when it cannot be."""
    try:
        with open(folder / "output.log", "ab") as log:
            program = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder, process_group=0
            )
    except OSError as error:
        print(f"{arguments[0]}: {error.strerror}", flush=True)
        return None
    print(f"pid {program.pid}", flush=True)
    threading.Thread(target=collect, args=(program,)).start()
    return program


def collect(program: subprocess.Popen) -> None:
    """Wait for the end of the program, and end what it has started itself: killed, it could not do so."""
    program.wait()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(program.pid, signal.SIGKILL)


def stop(program: subprocess.Popen) -> None:
    """Ask the program to end, and make it end when it does not, frozen or not."""
    program.terminate()
    try:
        program.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        program.kill()
        program.wait()


if __name__ == "__main__":
    sys.exit(keep(Path(sys.argv[1]), sys.argv[2:]))
