"""Runs one program and never outlives whoever asked for it. Started by children.py; standard library only.

usage: python keeper.py FOLDER PROGRAM [ARGUMENT ...]

It prints "pid N" once the program runs, or the reason why it does not. It stops the program when its standard input
closes, which happens however the starter ends, and then removes FOLDER.
"""

import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

GRACE_SECONDS = 0.5


def keep(folder: Path, arguments: list[str]) -> int:
    """Run a program in `folder` until it ends and the starter has let go; return its exit code."""
    try:
        with open(folder / "output.log", "ab") as log:
            program = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=folder)
    except OSError as error:
        print(f"{arguments[0]}: {error.strerror}", flush=True)
        shutil.rmtree(folder, ignore_errors=True)
        return 127
    signal.signal(signal.SIGTERM, lambda *_: stop(program))
    print(f"pid {program.pid}", flush=True)
    watcher = threading.Thread(target=wait_for_starter, args=(program,))
    watcher.start()
    code = program.wait()
    # The folder stays until the starter lets go: it may want to read the log of a program that died.
    watcher.join()
    shutil.rmtree(folder, ignore_errors=True)
    return code


def wait_for_starter(program: subprocess.Popen) -> None:
    """Block until standard input closes, then stop the program."""
    sys.stdin.buffer.read()
    stop(program)


def stop(program: subprocess.Popen) -> None:
    """Ask the program to end, and make it end when it does not, frozen or not."""
    program.terminate()
    try:
        program.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        program.kill()


if __name__ == "__main__":
    sys.exit(keep(Path(sys.argv[1]), sys.argv[2:]))
