"""Exercises, as the learner meets them: check() runs an answer, hint() helps on, solution() shows one way."""

import ast
import gc
import html
import inspect
import linecache
import re
from dataclasses import dataclass

from labkit.apparatus.children import ChildFailed
from labkit.tutor import exercises
from labkit.tutor.examiner import CannotTravel, examine, functions_in

SIGNS = {"not attempted": "○", "not yet": "✘", "done": "✔"}
_hints_shown: dict[str, int] = {}


@dataclass(frozen=True)
class Verdict:
    """What became of an answer. outcome: "not attempted", "not yet" or "done". printed: what the answer printed."""

    identifier: str
    outcome: str
    message: str
    printed: str = ""

    def __repr__(self) -> str:
        printed = f"\nYour code printed:\n{self.printed}" if self.printed else ""
        return f"{self._headline()} {self.message}{self._help()}{printed}"

    def _headline(self) -> str:
        return f"{SIGNS[self.outcome]} {self.identifier} {self.outcome}."

    def _help(self) -> str:
        return "" if self.outcome == "done" else f' Stuck? hint("{self.identifier}")'

    def _repr_html_(self) -> str:
        printed = (
            f"<details><summary>Your code printed</summary><pre>{html.escape(self.printed)}</pre></details>"
            if self.printed
            else ""
        )
        body = _marked(f"{self.message}{self._help()}")
        if self.outcome == "not attempted":
            # Folded, so that a page which somebody only reads is not full of tasks.
            return f"<details><summary><b>{self._headline()}</b></summary><p>{body}</p></details>"
        return f"<p><b>{self._headline()}</b> {body}</p>{printed}"


def _marked(text: str) -> str:
    """Return a text as HTML; what stands in backticks is code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", html.escape(text))


class Shown:
    """A hint or a solution, as text and as HTML."""

    def __init__(self, text: str, as_html: str) -> None:
        self._text = text
        self._html = as_html

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        return self._html


async def check(identifier: str, answer: object) -> Verdict:
    """Run an answer against a real server, real clients and the faults of its exercise, and return the Verdict.

    The answer runs in a process of its own: a loop without end, or `sys.exit()`, does no harm here. It may use what it
    is given, what it imports and other functions of the notebook, but nothing alive: no server, no connection.
    identifier: "X3.1", say. answer: the function or the class itself, without parentheses.
    Raises KeyError for an exercise that does not exist.
    """
    exercise = exercises.find(identifier)
    problem = _misunderstood(exercise, answer)
    if problem:
        return Verdict(identifier, "not yet", problem)
    if _is_starter(exercise, answer):
        return Verdict(identifier, "not attempted", exercise.statement)
    try:
        return Verdict(identifier, **await examine(identifier, answer))
    except (CannotTravel, ChildFailed) as error:
        return Verdict(identifier, "not yet", str(error))


def hint(identifier: str) -> Shown:
    """Return the next of the three hints to an exercise; after the third, that one again.

    Raises KeyError for an exercise that does not exist.
    """
    hints = exercises.find(identifier).hints
    number = min(_hints_shown.get(identifier, 0) + 1, len(hints))
    _hints_shown[identifier] = number
    after = f'The next: hint("{identifier}")' if number < len(hints) else f'One way to do it: solution("{identifier}")'
    text = f"Hint {number} of {len(hints)} to {identifier}. {hints[number - 1]}"
    return Shown(f"{text}\n{after}", f"<p>{_marked(text)}</p><p>{_marked(after)}</p>")


def solution(identifier: str) -> Shown:
    """Return one answer to an exercise, folded where there is HTML. The tests run it as they run yours.

    Raises KeyError for an exercise that does not exist.
    """
    exercise = exercises.find(identifier)
    source = exercise.model_source()
    folded = f"<details><summary>One answer to {identifier}</summary><pre>{html.escape(source)}</pre></details>"
    return Shown(f"One answer to {identifier}:\n\n{source}", folded)


def _misunderstood(exercise: "exercises.Exercise", answer: object) -> str:
    """Return what is wrong with the thing handed in, or an empty string."""
    name = exercise.answer
    if inspect.iscoroutine(answer):
        answer.close()
        return f"check() got what {name}() returns. Hand in the function itself: {name}, without parentheses."
    wants_class = inspect.isclass(exercise.starter())
    # A class may inherit all that it has.
    if not functions_in(answer) and not (wants_class and inspect.isclass(answer)):
        kind = "a class" if wants_class else "a function"
        return f"check() wants {kind} such as {name}, and got {type(answer).__name__}: {answer!r:.60}"
    return ""


def _is_starter(exercise: "exercises.Exercise", answer: object) -> bool:
    """Return whether the answer is still the code that the notebook gives to begin with, names and comments aside."""
    mine = _definition(answer)
    return mine is not None and mine == _definition(exercise.starter())


def _definition(thing: object) -> str | None:
    """Return a function's or a class's syntax tree as text, without its own name; None where there is no source."""
    functions = functions_in(thing)
    if not functions:
        return None
    file = functions[0].__code__.co_filename
    try:
        tree = syntax_tree("".join(linecache.getlines(file)))
    except SyntaxError:
        return None
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    found = [node for node in ast.walk(tree) if isinstance(node, kinds) and node.name == thing.__name__]
    if not found:
        return None
    found[-1].name = "answer"
    return ast.dump(found[-1])


def syntax_tree(source: str) -> ast.Module:
    """Return the syntax tree of a cell, which may await at its top level, as a module may not."""
    flags = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST
    try:
        return compile(source, "<cell>", "exec", flags)
    except SystemError:
        # Python 3.11 loses count of its depth when garbage is collected in the middle; there is none the second time.
        gc.collect()
        return compile(source, "<cell>", "exec", flags)
