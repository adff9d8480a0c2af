"""Each rung of the ladder stands in a notebook as it stands in labkit, docstrings aside."""

import ast
import re
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import lesson

from labkit.broadcast import managers, policies, protocol

SOURCE = Path(managers.__file__).read_text(encoding="utf-8")
RUNGS = [node.name for node in ast.parse(SOURCE).body if isinstance(node, ast.ClassDef)]


def test_rungs_are_named_as_in_the_design():
    """From the seed's own class up."""
    assert RUNGS == [
        "NaiveManager",
        "SetManager",
        "TolerantManager",
        "GatherManager",
        "TimeoutManager",
        "QueueManager",
    ]


@pytest.mark.parametrize("rung", RUNGS)
def test_rung_is_the_cell_of_the_notebook_that_it_cites(rung):
    """The docstring names notebook and section; that notebook has the section, and in a cell the same syntax tree."""
    cited = re.search(r"source: notebook (\d\d), \"([^\"]+)\"", getattr(managers, rung).__doc__)
    assert cited, f"{rung} does not cite its notebook"
    name = next(name for name in lesson.NAMES if name.startswith(cited[1]))
    headings = re.findall(r"^#+ (.+)$", "\n".join(lesson.prose_cells(name)), re.MULTILINE)
    assert cited[2] in headings
    cells = [found[rung] for found in map(lesson.definitions_in, parsable(name)) if rung in found]
    assert cells, f"notebook {name} defines no {rung}"
    assert ast.unparse(lesson.definitions_in(SOURCE)[rung]) in [ast.unparse(cell) for cell in cells]


PARTS = [(protocol, "AbortProtocol"), *((policies, policy) for policy in policies.WHEN_FULL)]


@pytest.mark.parametrize(("room", "part"), PARTS)
def test_what_the_rungs_stand_on_is_a_cell_of_notebook_06(room, part):
    """The same syntax tree, docstring aside."""
    name = next(name for name in lesson.NAMES if name.startswith("06"))
    source = Path(room.__file__).read_text(encoding="utf-8")
    cells = [found[part] for found in map(lesson.definitions_in, parsable(name)) if part in found]
    assert cells, f"notebook 06 defines no {part}"
    assert ast.unparse(lesson.definitions_in(source)[part]) in [ast.unparse(cell) for cell in cells]


def parsable(name: str) -> list[str]:
    """Return the code cells without the lines that only IPython understands."""
    return [re.sub(r"^[%!].*$", "", source, flags=re.MULTILINE) for source in lesson.code_cells(name)]


@pytest.mark.parametrize(("rung", "before"), list(zip(RUNGS[1:], RUNGS, strict=False)))
def test_rung_says_how_it_differs_from_the_one_before(rung, before):
    """And what it still breaks."""
    documentation = getattr(managers, rung).__doc__
    assert documentation.startswith(f"Unlike {before}: ")
    assert "Still breaks: " in documentation
