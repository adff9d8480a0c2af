"""The Makefile: what each command would do, and how it fails. Nothing is installed here."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# What `make test` runs at the same time as all other tests.
BESIDE = "tests/browser tests/evidence tests/faults tests/wrong_answers"
IGNORED = " ".join(f"--ignore {folder}" for folder in BESIDE.split())

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="this machine has no make")


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run make in a folder, as if nobody had started it from a make of their own."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=folder, env=variables, capture_output=True, text=True, timeout=60)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Return a folder with a space in its name that holds what make needs, and nothing made yet."""
    folder = tmp_path / "broadcast lab"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    return folder


def pretend_set_up(folder: Path, *, stamp: str | None) -> None:
    """Put a .venv there whose Python runs; `stamp` says for which folder its installation was completed."""
    (folder / ".venv" / "bin").mkdir(parents=True)
    python = folder / ".venv" / "bin" / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    if stamp is not None:
        (folder / ".venv" / "ready").write_text(stamp, encoding="utf-8")


def test_make_alone_lists_the_targets(house):
    """Who types nothing else learns what there is, and nothing happens."""
    run = make(house)
    assert run.returncode == 0
    assert [line.split()[1] for line in run.stdout.splitlines()] == [
        "help", "lab", "up", "demo", "test", "check", "long", "bench", "bench-full", "doctor", "pins", "clean",
    ]  # fmt: skip
    assert not (house / ".venv").exists()


def test_no_python_that_will_do_is_said_clearly_and_leaves_nothing(house):
    """The message names the version that is needed and the way to name another Python."""
    run = make(house, "lab", "PYTHON=/no/such/python3")
    assert run.returncode != 0
    assert "needs Python 3.11 or newer" in run.stderr
    assert "/no/such/python3" in run.stderr
    assert "make lab PYTHON=" in run.stderr
    assert not (house / ".venv").exists()


def test_make_up_hands_its_arguments_on(house):
    """As `make lab` does."""
    pretend_set_up(house, stamp=str(house))
    run = make(house, "--dry-run", "up", "ARGS=--servers 5 --port 8000")
    assert run.stdout.splitlines() == ["exec .venv/bin/python -m labkit up --servers 5 --port 8000"]


def test_make_test_runs_the_tests_and_then_the_notebooks(house):
    """The last summary to be printed is pytest's own."""
    pretend_set_up(house, stamp=str(house))
    run = make(house, "--dry-run", "test")
    assert run.stdout.splitlines() == [
        "mkdir -p build",
        ".venv/bin/python tests/notebooks/prepare.py build/notebooks",
        f"{{ .venv/bin/python -m pytest {BESIDE} && "
        f'BROADCAST_LAB_STRICT=1 BROADCAST_LAB_LEDGER="{house}/build/predictions.json" '
        ".venv/bin/python -m pytest --nbval-lax --nbval-current-env --nbval-cell-timeout=120 build/notebooks; } "
        "> build/lessons.txt 2>&1 & lessons=$!; \\",
        f".venv/bin/python -m pytest tests {IGNORED}; others=$?; \\",
        "wait $lessons; lessons=$?; cat build/lessons.txt; test $others -eq 0 -a $lessons -eq 0",
    ]


@pytest.mark.parametrize("failing", [f"pytest {BESIDE}", f"pytest tests {IGNORED}", "--nbval-lax"])
def test_make_test_fails_when_either_half_does(house, failing):
    """They run side by side; what the answers and the notebooks printed is shown, whichever half failed."""
    pretend_set_up(house, stamp=str(house))
    python = house / ".venv" / "bin" / "python"
    python.write_text(
        '#!/bin/sh\ncase "$*" in -c*) exec "' + sys.executable + '" "$@";; esac\n'
        f'echo "ran $*"\ncase "$*" in *"{failing}"*) exit 1;; esac\n', encoding="utf-8"
    )  # fmt: skip
    run = make(house, "test")
    assert run.returncode != 0
    assert f"ran -m pytest {BESIDE}" in run.stdout
    assert f"ran -m pytest tests {IGNORED}" in run.stdout
    assert ("ran -m pytest --nbval-lax" in run.stdout) == (failing != f"pytest {BESIDE}")


def test_a_finished_set_up_is_not_done_again(house):
    """The second start goes straight to JupyterLab, with the arguments that it was given."""
    pretend_set_up(house, stamp=str(house))
    run = make(house, "--dry-run", "lab", "ARGS=--no-browser --port 8899")
    assert "pip install" not in run.stdout
    assert "/lab/tree/notebooks/01_websocket_basics.ipynb" in run.stdout
    assert run.stdout.rstrip().endswith("--no-browser --port 8899")


@pytest.mark.parametrize("stamp", [None, "/the/folder/before/it/was/moved"])
def test_an_interrupted_or_moved_set_up_is_done_again(house, stamp):
    """Neither half an installation nor one that points into another folder counts."""
    pretend_set_up(house, stamp=stamp)
    assert "pip install" in make(house, "--dry-run", "lab").stdout


@pytest.mark.parametrize("name", ["pyproject.toml", "constraints.txt"])
def test_new_requirements_or_pins_are_installed(house, name):
    """A changed file is newer than the stamp."""
    pretend_set_up(house, stamp=str(house))
    stamp = (house / ".venv" / "ready").stat().st_mtime
    os.utime(house / name, (stamp + 2, stamp + 2))
    assert "pip install" in make(house, "--dry-run", "test").stdout


def test_clean_removes_what_make_made_and_leaves_notebooks(house):
    """The learner's work stays."""
    pretend_set_up(house, stamp=str(house))
    (house / "build" / "notebooks").mkdir(parents=True)
    for wing in ("labkit", "tests", "notebooks"):
        (house / wing / "__pycache__").mkdir(parents=True)
    (house / "notebooks" / "mine.ipynb").write_text("{}", encoding="utf-8")
    run = make(house, "clean")
    assert run.returncode == 0, run.stderr
    left = sorted(str(path.relative_to(house)) for path in house.rglob("*"))
    kept = ["Makefile", "constraints.txt", "labkit", "notebooks", "notebooks/mine.ipynb", "pyproject.toml", "tests"]
    assert left == kept
