"""A claim prints what holds; what does not hold is a finding for a learner and a failure in the tests."""

import json
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy
import pytest

from labkit import claim, claims
from labkit.evidence import claims as claims_room
from labkit.evidence.claims import STATEMENTS, ClaimFailed, claims_path

NOTEBOOKS = sorted((Path(__file__).resolve().parents[2] / "notebooks").glob("[0-9]*.ipynb"))


@pytest.fixture(autouse=True)
def path(tmp_path, monkeypatch):
    """Keep this test's claims in a folder of its own, and this process without memories of other tests."""
    monkeypatch.setenv("BROADCAST_LAB_LEDGER", str(tmp_path / "folder" / "predictions.json"))
    monkeypatch.delenv("BROADCAST_LAB_STRICT", raising=False)
    monkeypatch.setattr(claims_room, "_here", {})
    monkeypatch.setattr(claims_room, "_told", set())
    return tmp_path / "folder" / "claims.json"


def new_kernel(monkeypatch):
    """Forget what this process said, as a new kernel would not know it."""
    monkeypatch.setattr(claims_room, "_here", {})


def cited_in(path: Path) -> list[str]:
    """Return the rows that the claims of a notebook cite."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    return re.findall(r"\bclaim\(\s*\"([^\"]+)\"", code)


def test_claim_that_holds_is_printed_with_its_measurement(capsys):
    """With the number of observations."""
    claim("gather-faster", "the loop costs less", holds=True, measured="0.55 times", n=12)
    assert capsys.readouterr().out == "✔ the loop costs less (measured: 0.55 times, n = 12)\n"


def test_claim_that_fails_is_a_finding_for_a_learner(capsys):
    """The notebook goes on."""
    claim("gather-faster", "the loop costs less", holds=numpy.bool_(False))
    assert capsys.readouterr().out.startswith("✘ the loop costs less\n  Not so in this run")


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


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_cites_rows_that_name_it(notebook):
    """The table says which notebook settles a statement; a claim elsewhere is in the wrong place."""
    cited = cited_in(notebook)
    assert cited
    for key in cited:
        assert notebook.name[:2] in STATEMENTS[key].notebooks, key


@pytest.mark.parametrize("row", STATEMENTS)
def test_row_is_settled(row):
    """By a claim in each notebook that it names: no row of the table is open."""
    cited = {path.name[:2]: cited_in(path) for path in NOTEBOOKS}
    silent = [number for number in STATEMENTS[row].notebooks if row not in cited[number]]
    assert not silent, f"no claim cites {row!r} in notebooks {silent}"


def test_every_row_names_a_notebook_that_there_is():
    """A row that none names would never be settled, nor missed."""
    assert {path.name[:2] for path in NOTEBOOKS} == set(claims_room.NOTEBOOKS)
    assert all(each.notebooks for each in STATEMENTS.values())


def test_before_the_first_claim_nothing_has_run(path):
    """All rows are shown, and nothing is made on disk."""
    table = claims().table
    assert list(table.index) == list(STATEMENTS)
    assert {"says", "becomes", "where", "verdict", "measured"} <= {*table}
    assert set(table["verdict"]) == {"not run yet"}
    assert "23 statements of the seed text: 0 as measured, 0 not so here, 23 not run yet." in repr(claims())
    assert not path.parent.exists()


def test_verdict_is_what_all_claims_of_a_row_came_to(path):
    """One that does not hold is enough."""
    claim("sets", "a set raises", holds=True, measured="RuntimeError", n=1)
    assert claims().verdict("sets") == "as measured"
    claim("sets", "a list skips", holds=False, measured=[4, 8])
    shown = claims()
    assert shown.verdict("sets") == "not so here"
    assert (shown.table.loc["sets", "claims"], shown.table.loc["sets", "hold"]) == (2, 1)
    assert shown.table.loc["sets", "measured"].splitlines() == [
        "✔ a set raises (measured: RuntimeError, n = 1) – this kernel",
        "✘ a list skips (measured: [4, 8]) – this kernel",
    ]
    assert "✘ not so here (1 of 2): sets instead of lists → in a mass disconnect" in repr(shown)
    assert f"Kept in {path}" in repr(shown)


def test_cell_that_runs_again_says_it_anew(path):
    """The last run counts, here and in the file."""
    claim("sets", "a set raises", holds=False, measured=0)
    claim("sets", "a set raises", holds=True, measured=numpy.int64(1), n=numpy.int64(3))
    assert [(said.holds, said.measured, said.n) for said in claims().said["sets"]] == [(True, "1", 3)]
    assert len(json.loads(path.read_text(encoding="utf-8"))["claims"]) == 1


def test_next_kernel_sees_what_another_process_measured(path, capsys):
    """Each notebook has a kernel of its own, and the last one shows the table of all."""
    code = 'from labkit import claim; claim("sets", "a set raises", holds=True, measured="1 ghost", n=2)'
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    claim("heartbeats", "pings find all", holds=True)
    table = claims().table
    assert list(table.loc[["sets", "heartbeats"], "verdict"]) == ["as measured"] * 2
    assert re.fullmatch(
        r"✔ a set raises \(measured: 1 ghost, n = 2\) – \d{4}-\d\d-\d\d \d\d:\d\d", table.loc["sets", "measured"]
    )
    assert table.loc["heartbeats", "measured"].endswith("this kernel")


def test_later_run_counts_whichever_kernel_it_was(path):
    """A notebook that is open twice."""
    claim("sets", "a set raises", holds=False)
    code = 'from labkit import claim; claim("sets", "a set raises", holds=True)'
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    assert claims().verdict("sets") == "as measured"
    claim("sets", "a set raises", holds=False)
    assert claims().verdict("sets") == "not so here"
    assert "this kernel" in claims().table.loc["sets", "measured"]


def test_two_processes_at_once_lose_nothing(path):
    """Each says thirty things as fast as it can."""
    code = """
import sys
from labkit import claim
for number in range(30):
    claim(sys.argv[1], f"sentence {number}", holds=True)
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", code, row], stdout=subprocess.PIPE, text=True)
        for row in ("sets", "order")
    ]
    for writer in writers:
        assert "cannot be kept" not in writer.communicate(timeout=60)[0]
        assert writer.returncode == 0
    shown = claims()
    assert (len(shown.said["sets"]), len(shown.said["order"])) == (30, 30)
    assert {each.name for each in path.parent.iterdir()} == {"claims.json", "claims.json.lock"}


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        '{"claims": {}}',
        '{"claims": [1]}',
        '{"claims": [{"row": "sets", "sentence": "a"}]}',
        '{"claims": [{"row": "sets", "sentence": "a", "holds": 1, "measured": null, "n": null, "at": 1}]}',
        '{"claims": [{"row": "sets", "sentence": "a", "holds": true, "measured": 5, "n": null, "at": 1}]}',
        '{"claims": [{"row": "sets", "sentence": "a", "holds": true, "measured": null, "n": null, "at": NaN}]}',
        "[" * 100_000,
        b"\xff\xfe\x00",
    ],
    ids=lambda damage: str(damage[:90]),
)
def test_damaged_file_is_set_aside_with_nothing_lost(path, damage, capsys):
    """One message, the old bytes under another name, and claims that work."""
    damage = damage if isinstance(damage, bytes) else damage.encode()
    path.parent.mkdir()
    path.write_bytes(damage)
    claim("sets", "a set raises", holds=True)
    aside = [each for each in path.parent.iterdir() if ".damaged-" in each.name]
    assert len(aside) == 1
    assert aside[0].read_bytes() == damage
    assert f"It is set aside as {aside[0]}; a new one begins." in capsys.readouterr().out
    assert claims().verdict("sets") == "as measured"


def test_row_that_the_course_has_no_more_is_kept_and_not_shown(path, monkeypatch):
    """An older course's claims are no damage."""
    claim("sets", "a set raises", holds=True)
    path.write_text(path.read_text(encoding="utf-8").replace('"sets"', '"bags"'), encoding="utf-8")
    new_kernel(monkeypatch)
    claim("order", "in order", holds=True)
    assert claims().verdict("sets") == "not run yet"
    assert '"bags"' in path.read_text(encoding="utf-8")


def test_a_place_that_cannot_be_written_gives_one_message_and_the_lesson_runs_on(path, capsys):
    """In memory: here a file stands where the folder should be, which stops root as well."""
    path.parent.write_text("in the way", encoding="utf-8")
    claim("sets", "a set raises", holds=True)
    assert f"Measured claims cannot be kept in {path}" in capsys.readouterr().out
    claim("sets", "a list skips", holds=True)
    assert "✔ as measured (2 of 2)" in repr(claims())
    assert "cannot be kept" not in capsys.readouterr().out


def test_no_test_writes_into_the_folder_of_a_learner(tmp_path, monkeypatch):
    """A strict run without a folder of its own keeps what it said in memory; a learner's run is kept."""
    monkeypatch.delenv("BROADCAST_LAB_LEDGER")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert claims_path().name == "claims.json"
    assert "broadcast-lab" in claims_path().parts
    monkeypatch.setenv("BROADCAST_LAB_STRICT", "1")
    assert claims_path() is None
    with pytest.raises(ClaimFailed):
        claim("sets", "a set raises", holds=False)
    assert claims().verdict("sets") == "not so here"
    assert repr(claims()).endswith("Kept in this kernel only.")
    assert os.listdir(tmp_path) == []


def test_one_notebook_shows_the_rows_it_has_a_part_in():
    """For its closing section."""
    shown = claims(notebook="01")
    assert list(shown.statements) == ["slow-without", "stays-open", "not-only-websockets"]
    assert "3 statements of the seed text, those of notebook 01:" in shown._repr_html_()
    assert list(shown.table.index) == list(shown.statements)


@pytest.mark.parametrize("notebook", ["3", "08", 3, ""])
def test_unknown_notebook_is_refused(notebook):
    """With those there are."""
    with pytest.raises(ValueError, match="there are 01, 02, 03, 04, 05, 06, 07, each in quotes"):
        claims(notebook=notebook)


class Page(HTMLParser):
    """Collects the tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        """Note a tag and that it is open."""
        self.tags.append(tag)
        self.open.append(tag)

    def handle_endtag(self, tag):
        """Note that the innermost tag is closed."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """Note what a reader sees."""
        self.text += data


def test_page_shows_every_text_as_text(path):
    """A frame may hold anything, and its measurement is text all the same; each row is one row of the table."""
    claim("sets", '<b>bold</b> & "quoted"', holds=False, measured="<script>alert(1)</script>", n=3)
    page = Page(claims()._repr_html_())
    assert page.open == []
    assert not {"script", "b"}.intersection(page.tags)
    assert '✘ <b>bold</b> & "quoted" (measured: <script>alert(1)</script>, n = 3) – this kernel' in page.text
    assert page.tags.count("tr") == 1 + len(STATEMENTS)
    assert page.tags.count("details") == 1
    assert "✘ not so here (0 of 1)" in page.text
    assert page.text.count("– not run yet") == len(STATEMENTS) - 1
    for statement in STATEMENTS.values():
        assert statement.says in page.text
        assert statement.becomes in page.text
