"""The one-hour demonstration: the cells it uses run by themselves, and the sheet names what is there."""

import re
import sys
from pathlib import Path

import nbformat
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import lesson
import prepare
from nbclient import NotebookClient

sys.path.insert(0, str(lesson.FOLDER))
import demonstration

SHEET = (lesson.FOLDER / "README.md").read_text(encoding="utf-8").partition("## The one-hour demonstration")[2]
KINDS = {"slide", "subslide", "fragment", "notes", "skip"}
each_notebook = pytest.mark.parametrize("name", demonstration.NOTEBOOKS, ids=lambda name: name[:2])


@each_notebook
def test_every_cell_says_whether_it_is_shown(name):
    """A new cell is a decision: it is on a slide, or it is skipped."""
    cells = nbformat.read(lesson.FOLDER / name, as_version=4).cells
    assert {cell.metadata.get("slideshow", {}).get("slide_type") for cell in cells} <= KINDS


@each_notebook
def test_excerpt_begins_and_ends_as_a_notebook_does(name):
    """With its title, and with an empty lab."""
    cells = demonstration.excerpt(name).cells
    assert cells[0].metadata.slideshow.slide_type == "slide"
    assert cells[0].source.startswith(f"# {name[:2]} · ")
    assert cells[-1].source.strip() == "await close_lab()"


@each_notebook
@pytest.mark.slow
def test_excerpt_runs_by_itself(name, tmp_path, monkeypatch):
    """What is left out is not missed: strictly, with the guard behind it."""
    monkeypatch.setenv("BROADCAST_LAB_STRICT", "1")
    monkeypatch.setenv("BROADCAST_LAB_LEDGER", str(tmp_path / "predictions.json"))
    path = tmp_path / name
    nbformat.write(demonstration.excerpt(name), path)
    NotebookClient(prepare.prepared(path, twice=False), timeout=120).execute()


def test_sheet_asks_the_predictions_that_are_shown():
    """Each vote on the sheet is in the excerpt, and the other way round, in the same order."""
    shown = [
        identifier
        for name in demonstration.NOTEBOOKS
        for cell in demonstration.excerpt(name).cells
        for identifier in re.findall(r"^predict\(\s*\"(P\d\.\d)\"", cell.source, re.MULTILINE)
    ]
    assert shown
    assert list(dict.fromkeys(re.findall(r"\bP\d\.\d\b", SHEET))) == shown


def test_sheet_quotes_headings_that_are_shown():
    """Where to go on is said by a heading, in bold."""
    headings = {
        heading
        for name in demonstration.NOTEBOOKS
        for cell in demonstration.excerpt(name).cells
        if cell.cell_type == "markdown"
        for heading in re.findall(r"^#+ (.+)$", cell.source, re.MULTILINE)
    }
    quoted = re.findall(r"\*\*“(.+?)”\*\*", SHEET)
    assert len(quoted) >= 6
    assert set(quoted) <= headings


def test_tool_says_how_it_is_used(monkeypatch, tmp_path, capsys):
    """Without a folder it writes nothing; with one it writes both."""
    monkeypatch.setattr(sys, "argv", ["demonstration.py"])
    with pytest.raises(SystemExit, match=r"usage: python notebooks/demonstration\.py FOLDER"):
        demonstration.main()
    monkeypatch.setattr(sys, "argv", ["demonstration.py", str(tmp_path / "new" / "folder")])
    demonstration.main()
    assert {path.name for path in (tmp_path / "new" / "folder").iterdir()} == set(demonstration.NOTEBOOKS)
