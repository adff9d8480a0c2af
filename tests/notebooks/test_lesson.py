"""The architecture of a lesson: what every notebook opens with, holds to, and closes with."""

import ast
import re
import statistics
import sys
from pathlib import Path

import pytest

# The test modules are not imported as a package, so the helper beside them is found by its folder.
sys.path.insert(0, str(Path(__file__).parent))
import lesson

from labkit.tutor.checks import syntax_tree

QUESTIONS = (
    "What does one open connection buy?",
    "What must an endpoint do?",
    "Who is here?",
    "How does one message reach everyone?",
    "Where should this code live?",
    "What does one sleeping phone cost everyone?",
    "How does a message reach fans on another server?",
)

each_notebook = pytest.mark.parametrize("name", lesson.NAMES)


def test_the_seven_are_there_and_no_other():
    """They match the seven build-up steps of the text that the course is built from."""
    assert sorted(path.stem for path in lesson.FOLDER.glob("*.ipynb")) == list(lesson.NAMES)


@each_notebook
def test_opens_with_question_verbs_minutes_and_needs(name):
    """A learner sees at once what this is for and how long it takes."""
    number = name[:2]
    first = lesson.prose_cells(name)[0]
    assert first.startswith(f"# {number} · {QUESTIONS[int(number) - 1]}\n")
    assert "**You will be able to**" in first
    assert len(re.findall(r"\*\w+\*", first.split("**You will be able to**")[1])) <= 3
    assert re.search(r"\d+ minutes", first)
    assert "needs" in first


@each_notebook
def test_first_three_code_cells_show_something(name):
    """The win comes first: by the third code cell a server runs and somebody receives."""
    opening = "\n".join(lesson.code_cells(name)[:3])
    assert "serve(" in opening
    assert "Fleet(" in opening or "connect(" in opening


@each_notebook
def test_closes_with_recap_transfer_reading_and_an_empty_lab(name):
    """What this rung fixes, what it still breaks, where else it applies, and nothing left running."""
    ending = "\n".join(lesson.prose_cells(name)[-3:])
    assert "still break" in ending
    assert "**Carry it over.**" in ending
    assert "**Read on.**" in ending
    assert lesson.code_cells(name)[-1].strip() == "await close_lab()"


@each_notebook
def test_cells_are_short_and_prose_is_read_in_one_breath(name):
    """Median at most 8 lines, none over 25; no prose cell over 140 words."""
    lengths = [sum(bool(line.strip()) for line in source.splitlines()) for source in lesson.code_cells(name)]
    assert statistics.median(lengths) <= 8
    assert max(lengths) <= 25
    assert max(len(source.split()) for source in lesson.prose_cells(name)) <= 140


@each_notebook
def test_outputs_are_not_committed(name):
    """A learner would see the answer before the question."""
    for cell in lesson.read(name).cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@each_notebook
def test_broadcast_is_in_view(name):
    """What the lesson is about stands in a cell; nobody imports a hub or a policy without having written it."""
    taught_before = {
        "NaiveManager": "05",
        "SetManager": "03",
        "TolerantManager": "04",
        "GatherManager": "06",
        "TimeoutManager": "06",
        "QueueManager": "06",
    }
    code = "\n".join(lesson.code_cells(name))
    for line in re.findall(r"from labkit\.broadcast\.\w+ import ([^\n]+|\([^)]+\))", code):
        for manager in re.findall(r"\w+", line):
            assert taught_before[manager] < name[:2], f"{manager} is not yet written when this notebook imports it"


@each_notebook
def test_there_are_claims_and_no_words_that_belittle(name):
    """Sentences of fact are lines of code; nothing is `simply` so."""
    assert "claim(" in "\n".join(lesson.code_cells(name))
    prose = "\n".join(lesson.prose_cells(name))
    assert not re.findall(r"\b(?:simply|just|obviously|of course)\b", prose, re.IGNORECASE)


@each_notebook
def test_no_milliseconds_in_prose(name):
    """Numbers in prose hold on any laptop; milliseconds appear only in live output."""
    assert not re.findall(r"\d\s?ms\b", "\n".join(lesson.prose_cells(name)))


@each_notebook
def test_every_import_is_used_in_the_lesson_or_by_the_learner(name):
    """hint and solution are for cells that the learner adds."""
    tree = syntax_tree("\n".join(lesson.code_cells(name)))
    imports = [node for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    imported = {(alias.asname or alias.name).split(".")[0] for node in imports for alias in node.names}
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    assert imported - used <= {"hint", "solution"}
    if "check" in used:
        assert {"hint", "solution"} <= imported
