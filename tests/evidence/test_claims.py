"""A claim prints what holds; what does not hold is a finding for a learner and a failure in the tests."""

import json
import re
from pathlib import Path

import numpy
import pytest

from labkit import claim
from labkit.evidence.claims import STATEMENTS, ClaimFailed

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("[0-9]*.ipynb"))


def test_claim_that_holds_is_printed_with_its_measurement(capsys):
    """With the number of observations."""
    claim("gather-faster", "the loop costs less", holds=True, measured="0.55 times", n=12)
    assert capsys.readouterr().out == "✔ the loop costs less (measured: 0.55 times, n = 12)\n"


def test_claim_that_fails_is_a_finding_for_a_learner(capsys, monkeypatch):
    """The notebook goes on."""
    monkeypatch.delenv("BROADCAST_LAB_STRICT", raising=False)
    claim("gather-faster", "the loop costs less", holds=numpy.bool_(False))
    assert capsys.readouterr().out.startswith("✘ the loop costs less\n  Not so on this machine")


def test_claim_that_fails_raises_in_the_tests(monkeypatch):
    """CI holds every sentence that matters."""
    monkeypatch.setenv("BROADCAST_LAB_STRICT", "1")
    with pytest.raises(ClaimFailed, match=r"✘ the loop costs less \(measured: 2\)"):
        claim("gather-faster", "the loop costs less", holds=False, measured=2)


def test_unknown_row_is_refused():
    """Each claim settles a statement of the seed."""
    with pytest.raises(KeyError, match="no statement has the key 'gather'; there are: all-at-once"):
        claim("gather", "…", holds=True)


@pytest.mark.parametrize("value", [1, "yes", None, [True]])
def test_verdict_is_a_comparison(value):
    """A list is true as soon as it is not empty; that slip must not pass for evidence."""
    with pytest.raises(TypeError, match="give the comparison itself"):
        claim("gather-faster", "…", holds=value)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_cites_rows_that_name_it(path):
    """The table says which notebook settles a statement; a claim elsewhere is in the wrong place."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    cited = re.findall(r"\bclaim\(\s*\"([^\"]+)\"", code)
    assert cited
    for key in cited:
        assert path.name[:2] in re.findall(r"\b0[1-7]\b", STATEMENTS[key].where), key
