"""The bank of known wrong answers: how a notebook's module notes them, and how they are read."""

import runpy
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent


class Known(NamedTuple):
    """An answer whose verdict is known. says: what the message must contain; None for a right answer."""

    exercise: str
    answer: Callable | type
    says: str | None

    @property
    def name(self) -> str:
        """The mistake in words, or what is different about a right answer."""
        return self.answer.__name__.replace("_", " ")


_noted: list[Known] = []


def wrong(exercise: str, *, says: str) -> Callable:
    """Note a wrong answer; its name is the mistake, its docstring says where such a thing is seen."""

    def note(answer):
        _noted.append(Known(exercise, answer, says))
        return answer

    return note


def right(exercise: str) -> Callable:
    """Note a right answer that is built in another way than the model."""

    def note(answer):
        _noted.append(Known(exercise, answer, None))
        return answer

    return note


def read() -> list[Known]:
    """Return all known answers of all notebooks.

    The modules are run, not imported: what they define then travels by its code, as what a notebook defines does.
    """
    _noted.clear()
    for path in sorted(FOLDER.glob("notebook_*.py")):
        runpy.run_path(str(path))
    return list(_noted)
