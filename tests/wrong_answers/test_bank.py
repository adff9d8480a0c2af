"""Every known answer gets its verdict: a wrong one with a message of its own, which does not tell the answer."""

import asyncio
import sys
from collections import defaultdict
from pathlib import Path

import pytest

# The test modules are not imported as a package, so the bank beside them is found by its folder.
sys.path.insert(0, str(Path(__file__).parent))
import bank

from labkit import check, close_lab
from labkit.tutor import exercises
from labkit.tutor.examiner import functions_in

pytestmark = pytest.mark.slow
KNOWN = bank.read()
EXERCISES = exercises.load()
# exercise -> the name of each answer -> its verdict; conftest.py prints it as a matrix.
verdicts = defaultdict(dict)


@pytest.fixture(scope="module", autouse=True)
def examiner():
    """Keep one warm process for all; close it at the end."""
    yield
    asyncio.run(close_lab())


@pytest.fixture(scope="module")
def matrix(request):
    """Return where the verdicts are noted for the matrix."""
    return request.config.stash.setdefault("verdicts", verdicts)


def judged(matrix: dict, identifier: str, name: str, answer: object):
    """Check an answer and note the verdict for the matrix."""
    verdict = asyncio.run(check(identifier, answer))
    matrix[identifier][name] = verdict
    return verdict


@pytest.mark.parametrize("identifier", EXERCISES)
def test_starter_is_not_attempted_and_model_is_done(matrix, identifier):
    """What the notebook begins with raises nothing, and what solution() shows is right."""
    exercise = EXERCISES[identifier]
    assert judged(matrix, identifier, "starter", exercise.starter()).outcome == "not attempted"
    verdict = judged(matrix, identifier, "model", exercise.model())
    assert verdict.outcome == "done", verdict
    assert verdict.printed == ""


@pytest.mark.parametrize("known", KNOWN, ids=lambda known: f"{known.exercise} {known.name}")
def test_known_answer_gets_its_verdict(matrix, known):
    """A right one that is built differently is done; a wrong one gets the message that is meant for it."""
    verdict = judged(matrix, known.exercise, known.name, known.answer)
    if known.says is None:
        assert verdict.outcome == "done", verdict
    else:
        assert verdict.outcome == "not yet"
        assert known.says in verdict.message


@pytest.mark.parametrize("identifier", EXERCISES)
def test_bank_holds_enough(identifier):
    """At least four mistakes and one right answer that is not the model, for each exercise."""
    mine = [known for known in KNOWN if known.exercise == identifier]
    assert sum(known.says is not None for known in mine) >= 4
    assert sum(known.says is None for known in mine) >= 1
    assert all(known.answer.__doc__ or known.answer.__name__ for known in mine)


@pytest.mark.parametrize("identifier", EXERCISES)
def test_messages_differ_and_none_tells_the_answer(matrix, identifier):
    """A learner who gets two of them knows that something has changed, and still has to find the line."""
    wrong = {known.name: known for known in KNOWN if known.exercise == identifier and known.says is not None}
    messages = {name: matrix[identifier][name].message for name in wrong}
    assert len(set(messages.values())) == len(messages)
    exercise = EXERCISES[identifier]
    solving = set(meaningful(exercise.model_source())) - set(meaningful(source(exercise.starter())))
    for name, message in messages.items():
        # A line that the learner wrote may be quoted.
        told = [line for line in solving - set(meaningful(source(wrong[name].answer))) if line in message]
        assert not told, (name, told)


def source(answer: object) -> str:
    """Return the text of the file that an answer was written in."""
    return Path(functions_in(answer)[0].__code__.co_filename).read_text(encoding="utf-8")


def meaningful(text: str) -> list[str]:
    """Return the lines of a program that say something by themselves."""
    return [line.strip() for line in text.splitlines() if len(line.strip()) >= 12]
