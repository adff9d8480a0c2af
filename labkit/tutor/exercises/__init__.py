"""The exercises, one module for each notebook: statement, hints and trial. `starters` and `answers` hold the code.

The three folders have the same modules. A starter is what the notebook's cell begins with; an answer is one way to do
it. Both have the name of the learner's own function, and a test puts every answer into its notebook's cell.
"""

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from importlib import import_module

from labkit.tutor.trial import Trial

NOTEBOOKS = ("01", "02", "03", "04", "05", "06", "07")


@dataclass(frozen=True)
class Exercise:
    """An exercise that is checked by running the answer.

    identifier: X, the notebook's number, a point and a number. answer: the name of the function or class asked for.
    statement: what is asked, in a sentence or two. hints: three, from a nudge to nearly everything.
    trial: a coroutine function of a Trial and the answer; it raises NotYet, or returns what was seen, in a sentence.
    """

    identifier: str
    answer: str
    statement: str
    hints: tuple[str, str, str]
    trial: Callable[[Trial, object], Awaitable[str]]

    def starter(self) -> object:
        """Return the function or class that the notebook gives to begin with."""
        return getattr(self._module("starters"), self.answer)

    def model(self) -> object:
        """Return one right answer."""
        return getattr(self._module("answers"), self.answer)

    def model_source(self) -> str:
        """Return the source of that answer."""
        return inspect.getsource(self.model())

    def _module(self, folder: str) -> object:
        return import_module(f"{__name__}.{folder}.notebook_0{self.identifier[1]}")


def load() -> dict[str, Exercise]:
    """Return all exercises by their identifier, in the order of the course."""
    modules = [import_module(f"{__name__}.notebook_{number}") for number in NOTEBOOKS]
    return {exercise.identifier: exercise for module in modules for exercise in module.EXERCISES}


def find(identifier: str) -> Exercise:
    """Return an exercise; raise KeyError, naming those that there are, for an identifier that is none."""
    every = load()
    if identifier not in every:
        raise KeyError(f"there is no exercise {identifier!r}; there are: {', '.join(every)}.")
    return every[identifier]
