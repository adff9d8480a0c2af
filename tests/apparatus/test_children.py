"""Child processes: ready before they are returned, gone with whoever started them, folder and all."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labkit.apparatus import running
from labkit.apparatus.children import ChildFailed, new_folder, start_child

SLEEPER = [sys.executable, "-c", "import time; print('up', flush=True); time.sleep(600)"]


def exists(pid: int) -> bool:
    """Return whether a process of this number runs; a zombie that nobody has collected does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition, seconds: float) -> bool:
    """Return whether a condition becomes true within so many seconds."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


async def test_child_runs_in_its_folder_and_goes_with_it():
    """close() ends the program and removes what it wrote."""
    child = await start_child(["sh", "-c", "echo here > file; exec sleep 600"], name="writer")
    assert wait_for((child.folder / "file").exists, 5)
    assert running.find("child process", "writer") is child
    await child.close()
    assert not exists(child.pid)
    assert not child.folder.exists()
    await child.close()


async def test_ready_is_waited_for():
    """The caller gets the child when it is of use."""
    folder = new_folder()

    async def says_up() -> bool:
        return "up" in (folder / "output.log").read_text()

    child = await start_child(SLEEPER, name="sleeper", folder=folder, ready=says_up)
    assert "up" in child.log


async def never_ready() -> bool:
    """Stand for a program that starts and does not answer."""
    return False


async def test_program_that_ends_early_is_quoted():
    """The error ends in what the program said last, and nothing stays."""
    failing = ["sh", "-c", "echo cannot open the port >&2; exit 3"]
    with pytest.raises(ChildFailed, match=r"failing ended before it was ready\. It said last:\ncannot open the port"):
        await start_child(failing, name="failing", ready=never_ready)
    assert running.everything() == []


async def test_program_that_is_never_ready_is_stopped():
    """The time limit is part of the message."""
    with pytest.raises(ChildFailed, match=r"sleeper was not ready within 0.2 s"):
        await start_child(SLEEPER, name="sleeper", ready=never_ready, timeout=0.2)
    assert running.everything() == []


async def test_missing_program_is_named():
    """And its folder does not stay."""
    folder = new_folder()
    with pytest.raises(ChildFailed, match="no-such-program: No such file or directory"):
        await start_child(["no-such-program"], name="missing", folder=folder)
    assert wait_for(lambda: not folder.exists(), 2)


async def test_frozen_child_can_be_closed():
    """A stopped process does not hear SIGTERM."""
    child = await start_child(SLEEPER, name="sleeper")
    child.freeze()
    await child.close()
    assert not exists(child.pid)


async def test_killed_child_is_not_running():
    """Signals to it afterwards say so."""
    child = await start_child(SLEEPER, name="sleeper")
    child.kill()
    assert wait_for(lambda: not child.is_running, 2)
    with pytest.raises(ChildFailed, match="is not running any more"):
        child.freeze()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nothing_survives_the_starter(number):
    """However the process ends that started a child, the child and its folder are gone within 2 s."""
    code = f"""
import asyncio, sys
from labkit.apparatus.children import start_child
async def main():
    child = await start_child({SLEEPER!r}, name="sleeper")
    print(child.pid, child.folder, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""
    starter = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    pid, folder = starter.stdout.readline().split()
    os.kill(starter.pid, number)
    starter.communicate()
    assert wait_for(lambda: not exists(int(pid)) and not Path(folder).exists(), 2)
