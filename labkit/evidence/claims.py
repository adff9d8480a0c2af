"""Claims: sentences of a notebook that are lines of code, and the statements of the seed text that they settle."""

import html
import json
import os
import re
import time
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from labkit.apparatus import notes, running

if TYPE_CHECKING:
    import pandas

NOTEBOOKS = ("01", "02", "03", "04", "05", "06", "07")


class Statement(NamedTuple):
    """A statement of the seed text. says: its words. becomes: what is left of it. where: notebook and experiment."""

    says: str
    becomes: str
    where: str

    @property
    def notebooks(self) -> list[str]:
        """Return the numbers of the notebooks that `where` names."""
        return [number for number in NOTEBOOKS if re.search(rf"\b{number}\b", self.where)]


# The course's table, one row for each statement; a claim cites its row by the key.
STATEMENTS = {
    "all-at-once": Statement(
        "sends all at once, not one by one",
        "N sends, one by one, in order; what can be shared is the encoding",
        "04 E1, 06 E8",
    ),
    "slow-without": Statement(
        "without broadcasting it is slow",
        "same writes either way; polling is what is slow",
        "01 E1 E2, 04 E1",
    ),
    "loudspeaker": Statement("like a loudspeaker", "until one listener falls asleep", "06 E3 E5 E6 E8, 07 E6"),
    "stays-open": Statement(
        "stays open, instant, both ways",
        "with limits: idle cuts, blocked loops",
        "01 E3 E4, 02 E2",
    ),
    "step-2": Statement("the endpoint of step 2", "closes with 1006", "02 E1 E5"),
    "async-tasks": Statement(
        "async handles many connections efficiently; broadcasting loops over tasks",
        "memory of each; the tasks only receive",
        "02 E0 E2, 03 E1",
    ),
    "track-clients": Statement(
        "track clients so that none is lost",
        "six ways to leave; the newcomer's race",
        "03 E2, 04 E4, 05 E2",
    ),
    "step-4": Statement(
        "the broadcast of step 4, pitfall 1 'correct'",
        "ValueError, evictions, head-of-line blocking",
        "04 E2 E3, 05 E2, 06 E3",
    ),
    "step-5": Statement("FastAPI's WebSocketManager; the class of step 5", "a pattern; goes backwards", "05 E1 E2"),
    "gather-faster": Statement(
        "gather is faster (step 6, pitfall 2)",
        "dearer for healthy clients; many times faster when each send waits",
        "06 E1 E2",
    ),
    "gather-robust": Statement("gather is more robust", "hangs with one sleeper; never removes", "06 E3 E4 E7"),
    "return-exceptions": Statement("return_exceptions=True is critical", "if the results are read", "06 E7"),
    "sets": Statement("sets instead of lists", "in a mass disconnect", "03 E3 E4"),
    "order": Statement(
        "order across servers; sequence numbers or timestamps",
        "already inside one process; sequence and epoch yes, timestamps no",
        "07 E2",
    ),
    "one-server": Statement("one server does not reach the others", "true", "07 Win"),
    "ignore-disconnects": Statement(
        "ignoring disconnects crashes the server",
        "it does not crash: it loses, leaks, or hangs; each shown",
        "03 E1 E2, 04 E2, 06 E3 E4 E6 E8",
    ),
    "not-only-websockets": Statement("SSE and push also broadcast", "true, same slow reader", "01 E5"),
    "redis-all": Statement(
        "Redis makes messages reach all",
        "at most once; Streams for more",
        "07 E1 E3 E4 E5 E6",
    ),
    "heartbeats": Statement(
        "heartbeats detect the dead",
        "not behind a full buffer; they kill the healthy whose handler does not listen",
        "03 E2, 02 E3, 06 E4 E6",
    ),
    "middleware": Statement("middleware for authentication", "HTTP middleware never sees a WebSocket", "02 E4"),
    "sticky": Statement(
        "sticky sessions or shared session stores",
        "for long-polling; for who you are, not for where you are",
        "07 E4",
    ),
    "very-large": Statement(
        "not for very large scale; one-to-one is direct; feels instant",
        "the capacity card; decision table",
        "06 E9, 05 E4, 07 E7",
    ),
    "publish-subscribe": Statement(
        "publish-subscribe, event-driven, public address",
        "run, with where the likeness ends",
        "05 E3 E5, 04 E1",
    ),
}


class ClaimFailed(AssertionError):
    """A claim did not hold in this run; raised in the tests only."""


def claim(statement: str, sentence: str, *, holds: bool, measured: object = None, n: int | None = None) -> None:
    """Print a sentence with ✔ or ✘ and what was measured, and keep it for claims().

    The trap: what is claimed must be a count, a code or an order, or a ratio of three or more; the rest is shown as
    an observation, since a laptop's clock is noise. For a learner a ✘ is a finding about their machine, and the
    notebook goes on; in the tests it raises ClaimFailed.
    statement: the key of a row in STATEMENTS. holds: whether this run bears the sentence out. measured: the value
    behind it. n: how many observations that was.
    Raises KeyError for an unknown row, TypeError when holds is not a bool.
    """
    if statement not in STATEMENTS:
        raise KeyError(f"no statement has the key {statement!r}; there are: {', '.join(STATEMENTS)}.")
    # A comparison of numpy values gives numpy's own bool; anything else is an unfinished comparison.
    if type(holds).__name__ not in ("bool", "bool_"):
        raise TypeError(f"holds={holds!r}: give the comparison itself, such as holds=count == 20.")
    said = Said(
        statement, str(sentence), bool(holds), None if measured is None else str(measured),
        None if n is None else int(n), time.time(),
    )  # fmt: skip
    print(said)
    _keep(said)
    if not holds:
        if running.strict():
            raise ClaimFailed(str(said))
        print(
            "  Not so in this run. If you have changed something, that is its answer; if not, run the cells of this "
            "experiment again: does it stay so?"
        )


# ---- what was said, in this kernel and in others


@dataclass(frozen=True)
class Said:
    """What a claim said the last time it ran. row: a key of STATEMENTS. measured: as a text. at: seconds since 1970."""

    row: str
    sentence: str
    holds: bool
    measured: str | None
    n: int | None
    at: float

    def __str__(self) -> str:
        details = [f"measured: {self.measured}"] if self.measured is not None else []
        details += [f"n = {self.n}"] if self.n is not None else []
        return f"{'✔' if self.holds else '✘'} {self.sentence}" + (f" ({', '.join(details)})" if details else "")


_KINDS = {"row": str, "sentence": str, "holds": bool, "measured": str | None, "n": int | None, "at": float | int}
_NAME = "The file of measured claims"
_Spoken = dict[tuple[str, str], Said]
# What the claims of this kernel said, by row and sentence: a cell that runs again says it anew.
_here: _Spoken = {}
_told: set[str] = set()


def claims_path() -> Path | None:
    """Return the file in which claims outlive their kernel: claims.json, beside the predictions.

    None in a test run that was given no folder, so that no test ever writes into the learner's.
    """
    if running.strict() and not os.environ.get(notes.PATH_VARIABLE):
        return None
    return notes.folder() / "claims.json"


def _parse(text: str) -> _Spoken:
    """Return what a file's text says; raise ValueError or TypeError for anything that claim() did not write."""
    content = json.loads(text)
    if not isinstance(content, dict) or not isinstance(content.get("claims"), list):
        raise ValueError("there is no list of claims in it")
    rows = [Said(**row) for row in content["claims"]]
    for row in rows:
        for name, kinds in _KINDS.items():
            if not isinstance(getattr(row, name), kinds):
                raise ValueError(f"{name} of {row.sentence!r} is {getattr(row, name)!r}")
        # Beyond that no calendar goes, and NaN is on neither side of it.
        if not 0 <= row.at < 1e11:
            raise ValueError(f"{row.sentence!r} was said {row.at} seconds after 1970")
    return {(row.row, row.sentence): row for row in rows}


def _newest(kept: _Spoken) -> _Spoken:
    """Return what the file holds together with what this kernel said, the later of both where they name the same."""
    newer = {key: said for key, said in _here.items() if key not in kept or said.at >= kept[key].at}
    return {**kept, **newer}


def _keep(said: Said) -> None:
    """Note what was said, in this kernel and in the file; a file that cannot be used stops no lesson."""
    _here[said.row, said.sentence] = said
    path = claims_path()
    if path is None:
        return
    try:
        with notes.lock(path):
            spoken = _newest(notes.load(path, _parse, what=_NAME) or {})
            rows = [asdict(spoken[key]) for key in sorted(spoken)]
            notes.save(path, json.dumps({"about": "Broadcast Lab: measured claims", "claims": rows}, indent=1))
    except OSError as error:
        notes.tell_unusable(path, error, what="Measured claims", told=_told)


# ---- what the learner sees


class Claims:
    """What the seed says, what became of it, and what was measured here; shows itself as a table.

    .table a DataFrame, one row for each statement. .said all that was measured, by the statement's key. .path the file,
    or None. .notebook the notebook it is about, or None for the course.
    """

    def __init__(self, spoken: _Spoken, path: Path | None, notebook: str | None) -> None:
        self.path = path
        self.notebook = notebook
        self.statements = {
            key: each for key, each in STATEMENTS.items() if notebook is None or notebook in each.notebooks
        }
        self.said = {
            key: sorted((said for said in spoken.values() if said.row == key), key=lambda said: said.at)
            for key in self.statements
        }
        # Which of them this kernel said is known now; it may say something else before the table is shown.
        self._here = dict(_here)

    def verdict(self, row: str) -> str:
        """Return what the claims that cite a row came to: "as measured", "not so here" or "not run yet"."""
        if not self.said[row]:
            return "not run yet"
        return "as measured" if all(said.holds for said in self.said[row]) else "not so here"

    def _run(self, said: Said) -> str:
        """Return which run a value is from: "this kernel", or the local time of another's."""
        if self._here.get((said.row, said.sentence)) == said:
            return "this kernel"
        return f"{datetime.fromtimestamp(said.at):%Y-%m-%d %H:%M}"

    @cached_property
    def table(self) -> "pandas.DataFrame":
        """Return one row for each statement; `measured` has one line for each claim that has run."""
        import pandas

        rows = [
            {
                **each._asdict(),
                "verdict": self.verdict(key),
                "claims": len(self.said[key]),
                "hold": sum(said.holds for said in self.said[key]),
                "measured": "\n".join(f"{said} – {self._run(said)}" for said in self.said[key]),
            }
            for key, each in self.statements.items()
        ]
        return pandas.DataFrame(rows, index=pandas.Index(list(self.statements), name="row"))

    def _sign(self, row: str) -> str:
        """Return the verdict with its sign, and how many claims it rests on."""
        held, count = sum(said.holds for said in self.said[row]), len(self.said[row])
        sign = {"as measured": "✔", "not so here": "✘", "not run yet": "–"}[self.verdict(row)]
        return f"{sign} {self.verdict(row)}" + (f" ({held} of {count})" if count else "")

    def _summary(self) -> str:
        """Return the numbers in a sentence."""
        verdicts = [self.verdict(row) for row in self.statements]
        counts = ", ".join(f"{verdicts.count(each)} {each}" for each in ("as measured", "not so here", "not run yet"))
        whose = f", those of notebook {self.notebook}" if self.notebook else ""
        return f"{len(verdicts)} statements of the seed text{whose}: {counts}."

    def _ending(self) -> str:
        """Return what counts, before the place where it is kept."""
        return "Of each claim the last run counts. Kept in " + ("this kernel only." if self.path is None else "")

    def __repr__(self) -> str:
        lines = [self._summary(), ""]
        for row, each in self.statements.items():
            lines.append(f"{self._sign(row)}: {each.says} → {each.becomes} [{each.where}]")
            lines += [f"    {said} – {self._run(said)}" for said in self.said[row]]
        return "\n".join([*lines, "", f"{self._ending()}{self.path or ''}"])

    def _repr_html_(self) -> str:
        path = "" if self.path is None else f"<code>{html.escape(str(self.path))}</code>"
        heads = ("the seed says", "what became of it", "notebook and experiment", "on this machine")
        return "\n".join(
            [
                # Jupyter sets tables to the right, which suits numbers only.
                '<table style="text-align:left;width:100%;max-width:72em">',
                f'<caption style="text-align:left">{html.escape(self._summary())}</caption>',
                f"<thead><tr>{''.join(_cell('th', head, 'col') for head in heads)}</tr></thead><tbody>",
                *(self._row_html(row) for row in self.statements),
                f"</tbody></table><p>{html.escape(self._ending())}{path}</p>",
            ]
        )

    def _row_html(self, row: str) -> str:
        """Return a row of the page, with what was measured folded away behind the verdict."""
        each, here = self.statements[row], html.escape(self._sign(row))
        if self.said[row]:
            lines = "".join(
                f'<li style="list-style:none;margin:0 0 0.4em">{html.escape(f"{said} – {self._run(said)}")}</li>'
                for said in self.said[row]
            )
            here = f'<details><summary>{here}</summary><ul style="margin:0.3em 0;padding:0">{lines}</ul></details>'
        # Lines break between notebooks, never between a notebook and its experiment.
        where = _cell(
            "td", ", ".join(part.replace(" ", "\N{NO-BREAK SPACE}") for part in each.where.split(", ")), width="8em"
        )
        said = f"{_cell('th', each.says, 'row', width='26%')}{_cell('td', each.becomes, width='28%')}{where}"
        return f'<tr>{said}<td style="{_CELL}">{here}</td></tr>'


_CELL = "text-align:left;vertical-align:top"


def _cell(tag: str, text: str, scope: str | None = None, *, width: str | None = None) -> str:
    """Return a cell of a table, as HTML."""
    scope = f' scope="{scope}"' if scope else ""
    weight = ";font-weight:normal" if scope == ' scope="row"' else ""
    wide = f";width:{width}" if width else ""
    return f'<{tag}{scope} style="{_CELL}{weight}{wide}">{html.escape(text)}</{tag}>'


def claims(*, notebook: str | None = None) -> Claims:
    """Return what the seed says, what became of it, and what was measured on this machine.

    The values are of all seven notebooks, whichever kernel ran them; of each claim the last run counts.
    notebook: "03" for the statements that notebook 03 has a part in.
    Raises ValueError for a notebook that there is not.
    """
    if notebook is not None and notebook not in NOTEBOOKS:
        raise ValueError(f"notebook={notebook!r}: there are {', '.join(NOTEBOOKS)}, each in quotes.")
    path, kept = claims_path(), None
    if path is not None:
        try:
            kept = notes.read(path, _parse, what=_NAME)
        except OSError as error:
            notes.tell_unusable(path, error, what="Measured claims", told=_told)
    return Claims(_newest(kept or {}), path, notebook)
