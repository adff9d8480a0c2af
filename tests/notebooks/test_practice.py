"""The exercises of each notebook stand in it as they stand in labkit, and the model answers pass in their place."""

import ast
import re
import sys
from pathlib import Path

import nbformat
import pytest
from bs4 import BeautifulSoup
from nbclient import NotebookClient
from nbconvert import HTMLExporter

# The test modules are not imported as a package, so the helpers beside them are found by their folder.
sys.path.insert(0, str(Path(__file__).parent))
import lesson
import prepare

from labkit.tutor import exercises
from labkit.tutor.checks import syntax_tree

EXERCISES = exercises.load()
NAMES = [name for name in lesson.NAMES if name[:2] in exercises.NOTEBOOKS]
each_exercise = pytest.mark.parametrize("identifier", EXERCISES)


def notebook_of(identifier: str) -> str:
    """Return the name of the notebook that an exercise belongs to."""
    return next(name for name in lesson.NAMES if name[1] == identifier[1])


def definition(source: str, name: str) -> ast.AST | None:
    """Return the syntax tree of a function or a class in a piece of source, or None."""
    found = [node for node in ast.walk(syntax_tree(source)) if getattr(node, "name", None) == name]
    return found[0] if found else None


def is_starter(source: str, identifier: str) -> bool:
    """Return whether a cell ends in the check of this exercise."""
    return source.rstrip().endswith(f'await check("{identifier}", {EXERCISES[identifier].answer})')


@each_exercise
def test_starter_cell_is_the_starter_of_labkit(identifier):
    """One cell of its notebook, with the same syntax tree, and the check of that very function as its last line."""
    cells = [source for source in lesson.code_cells(notebook_of(identifier)) if is_starter(source, identifier)]
    assert len(cells) == 1
    exercise = EXERCISES[identifier]
    path = Path(sys.modules[exercise.starter().__module__].__file__)
    expected = definition(path.read_text(encoding="utf-8"), exercise.answer)
    assert ast.dump(definition(cells[0], exercise.answer)) == ast.dump(expected)


@each_exercise
def test_exercise_has_its_place_under_practice(identifier):
    """A heading with the kind of the exercise, in the order in which exercises fade."""
    kinds = ("fill in", "modify", "find the bug", "make")
    prose = "\n".join(lesson.prose_cells(notebook_of(identifier)))
    headings = [line for line in prose.splitlines() if line.startswith("### X")]
    mine = [line for line in headings if line.startswith(f"### {identifier} · ")]
    assert len(mine) == 1
    found = [next(kind for kind in kinds if f"· {kind}: " in line) for line in headings]
    assert found == sorted(found, key=kinds.index)


@pytest.mark.parametrize("name", NAMES)
def test_notebook_has_three_exercises_or_four(name):
    """Fewer are no practice; for more nobody has the time."""
    assert 3 <= sum(notebook_of(identifier) == name for identifier in EXERCISES) <= 4


@pytest.fixture(scope="module", params=NAMES)
def answered(request, tmp_path_factory):
    """Run a notebook once, every starter replaced by the model answer; return its name and itself, with outputs."""
    name = request.param
    notebook = prepare.prepared(lesson.FOLDER / f"{name}.ipynb", twice=False)
    for cell in notebook.cells:
        for identifier, exercise in EXERCISES.items():
            if is_starter(cell.source, identifier):
                starter = definition(cell.source, exercise.answer)
                lines = cell.source.splitlines()
                lines[starter.lineno - 1 : starter.end_lineno] = exercise.model_source().splitlines()
                cell.source = "\n".join(lines)
                cell.metadata.exercise = identifier
    ledger = tmp_path_factory.mktemp(name) / "predictions.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BROADCAST_LAB_STRICT", "1")
        patch.setenv("BROADCAST_LAB_LEDGER", str(ledger))
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(lesson.FOLDER)}}).execute()
    return name, notebook


@pytest.mark.slow
def test_all_model_answers_in_their_cells_are_done(answered):
    """As a learner would: from the first cell to the last, `done` everywhere."""
    name, notebook = answered
    verdicts = {cell.metadata.exercise: shown(cell) for cell in notebook.cells if "exercise" in cell.metadata}
    assert list(verdicts) == [identifier for identifier in EXERCISES if notebook_of(identifier) == name]
    for identifier, verdict in verdicts.items():
        assert verdict.startswith(f"✔ {identifier} done."), verdict


@pytest.mark.slow
def test_exported_page_says_in_words_what_a_front_end_shows(answered):
    """Every prediction stands in it as text, and every figure has an alt text."""
    _, notebook = answered
    page, _ = HTMLExporter().from_notebook_node(notebook)
    text = BeautifulSoup(page, "html.parser")
    asked = [
        identifier for cell in notebook.cells for identifier in re.findall(r'predict\(\s*"(P\d\.\d)"', cell.source)
    ]
    outputs = " ".join(output.get_text(" ") for output in text.select(".jp-OutputArea-output"))
    assert asked
    assert [identifier for identifier in asked if identifier not in outputs] == []
    images = text.select(".jp-OutputArea-output img")
    assert images
    assert all(image.get("alt", "").strip() not in ("", "No description has been provided for this image")
               for image in images)  # fmt: skip


def shown(cell: nbformat.NotebookNode) -> str:
    """Return the text of the value that a cell shows."""
    return next(output.data["text/plain"] for output in cell.outputs if output.output_type == "execute_result")
