"""The two programs that have to be fast, compiled on the spot: the limit, and the crowd that receives."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
BUILD = HERE.parents[2] / "build" / "bench"
_COMPILE_SECONDS = 60


def command_of(name: str, build: Path = BUILD) -> list[str]:
    """Return the command line of a program, "limit" or "swarm": compiled from C, or in Python where that cannot be.

    build: the folder for what is compiled; a program that is newer than its source is kept.
    """
    source = HERE / f"{name}.c"
    program = build / name
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return [str(program)]
    if why_not(source, program):
        return [sys.executable, str(HERE / f"{name}.py")]
    return [str(program)]


def why_not(source: Path, program: Path) -> str:
    """Compile a program; return what the compiler said where it failed, and nothing where it did not."""
    compiler = shutil.which("cc")
    if compiler is None:
        return "there is no cc on PATH"
    program.parent.mkdir(parents=True, exist_ok=True)
    # Two runs at the same time, or one that is stopped, must not leave half a program under the name.
    fresh = program.with_suffix(f".{os.getpid()}")
    done = subprocess.run(
        [compiler, "-O2", "-o", fresh, source], capture_output=True, text=True, timeout=_COMPILE_SECONDS
    )
    if done.returncode:
        return done.stderr.strip()
    fresh.replace(program)
    return ""
