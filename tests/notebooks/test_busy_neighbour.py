"""What `make test` runs once passes twenty times running, while somebody else keeps the other core busy."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

# The test modules are not imported as a package, so the helpers beside them are found by their folder.
sys.path.insert(0, str(Path(__file__).parent))
import lesson
import prepare

from labkit.tutor import exercises

pytestmark = [pytest.mark.long, pytest.mark.parametrize("turn", range(1, 21))]
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--color=no"]


@pytest.fixture
def busy_neighbour():
    """Keep one core busy for as long as the test lasts."""
    neighbour = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    yield
    neighbour.kill()
    neighbour.wait()


def run(arguments: list[str], **environment: str) -> None:
    """Run pytest, and fail with what it printed when it fails."""
    result = subprocess.run(PYTEST + arguments, capture_output=True, text=True, env={**os.environ, **environment})
    assert result.returncode == 0, result.stdout[-4000:]


def test_every_known_answer_gets_its_verdict(busy_neighbour, turn):
    """No check flakes: the same verdict, with the same message."""
    run([str(Path(__file__).parents[1] / "wrong_answers")])


@pytest.mark.parametrize("number", exercises.NOTEBOOKS)
def test_notebook_runs_and_its_claims_hold(busy_neighbour, turn, number, tmp_path):
    """Strictly, with the guard behind it."""
    name = next(name for name in lesson.NAMES if name.startswith(number))
    path = tmp_path / f"{name}.ipynb"
    prepare.nbformat.write(prepare.prepared(lesson.FOLDER / f"{name}.ipynb", twice=False), path)
    options = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=120", "-c", os.devnull]
    ledger = str(tmp_path / "predictions.json")
    run([*options, str(path)], BROADCAST_LAB_STRICT="1", BROADCAST_LAB_LEDGER=ledger)
