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


async def test_restarted_child_keeps_its_folder_its_log_and_its_number_is_new():
    """Whether it was killed, frozen or still running; one that is not ready in time is quoted."""
    child = await start_child(["sh", "-c", "echo run >> runs; wc -l < runs; exec sleep 600"], name="sleeper")
    folder = child.folder
    # Killed before its first word, it would count as one that never ran.
    assert wait_for(lambda: child.log == "1\n", 5)
    for run, fault in enumerate((child.kill, child.freeze, lambda: None), 2):
        pid = child.pid
        fault()

        async def says_its_run(run=run) -> bool:
            return str(run) in child.log.split()

        await child.restart(ready=says_its_run)
        assert child.pid != pid
        assert not exists(pid)
        assert child.is_running
    assert child.log.split() == ["1", "2", "3", "4"]
    with pytest.raises(ChildFailed, match=r"sleeper was not ready within 0.1 s. It said last"):
        await child.restart(ready=never_ready, timeout=0.1)
    await child.close()
    assert not folder.exists()
    with pytest.raises(ChildFailed, match="sleeper has been closed"):
        await child.restart()


async def test_program_that_is_gone_at_its_restart_is_named():
    """And the child can still be closed."""
    folder = new_folder()
    program = folder / "program"
    program.write_text("#!/bin/sh\nexec sleep 600\n")
    program.chmod(0o755)
    child = await start_child([str(program)], name="sleeper", folder=folder)
    program.unlink()
    with pytest.raises(ChildFailed, match=r"sleeper could not be started: .*program: No such file"):
        await child.restart()
    assert not child.is_running


@pytest.mark.parametrize("end", ["kill", "close"])
async def test_what_a_child_has_started_ends_with_it(end):
    """A killed program cannot stop its workers itself."""
    folder = new_folder()

    async def has_worker() -> bool:
        return (folder / "worker").exists() and (folder / "worker").read_text().endswith("\n")

    command = "sleep 600 & echo $! > worker; wait"
    child = await start_child(["sh", "-c", command], name="boss", folder=folder, ready=has_worker)
    worker = int((folder / "worker").read_text())
    assert exists(worker)
    if end == "kill":
        child.kill()
    else:
        await child.close()
    assert wait_for(lambda: not exists(worker), 5)


async def test_environment_is_the_one_given():
    """All of it, and nothing else."""
    child = await start_child(
        ["/bin/sh", "-c", "echo $SCORE $HOME; exec sleep 600"], name="s", environment={"SCORE": "2:1"}
    )
    assert wait_for(lambda: child.log == "2:1\n", 5)


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
