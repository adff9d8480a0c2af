"""The ledger: what the learner expected, kept in one small file, beside what was measured."""

import html
import json
import math
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.apparatus import notes
from labkit.apparatus.notes import PATH_VARIABLE
from labkit.tutor.calibration import draw_calibration

if TYPE_CHECKING:
    import pandas

    from labkit.evidence.charts.look import Chart

CONFIDENCES = ("guess", "fairly sure", "certain")
_LOCK_SECONDS = notes.LOCK_SECONDS
_UNSAID = "not said"
_NAME = "The ledger of predictions"


@dataclass(frozen=True)
class Prediction:
    """One question with what was answered and what was measured.

    guess: what counts, given before the first comparison: the key of an option, or a number. later: what was said after
    it. measured, matching, right: of the first comparison. matching: the key of the option that the measurement
    corresponds to. earlier: rows of the same id that were put away, oldest first. Moments are ISO texts in UTC.
    """

    id: str
    question: str
    options: dict[str, str] = field(default_factory=dict)
    unit: str | None = None
    asked_at: str | None = None
    guess: str | float | None = None
    confidence: str | None = None
    answered_at: str | None = None
    later: str | float | None = None
    later_at: str | None = None
    measured: str | float | None = None
    matching: str | None = None
    right: bool | None = None
    compared_at: str | None = None
    earlier: list[dict] = field(default_factory=list)

    def words(self, value: str | float | None) -> str:
        """Return an answer as a reader would say it: "c (200)" for an option, "20 times" for a number."""
        if value is None:
            return ""
        if self.options:
            return f"{value} ({self.options.get(value, 'an option that is gone')})"
        return f"{number_words(value)} {self.unit or ''}".strip()


_KINDS = {
    "id": str, "question": str, "options": dict, "unit": str | None, "asked_at": str | None,
    "guess": str | float | int | None, "confidence": str | None, "answered_at": str | None,
    "later": str | float | int | None, "later_at": str | None, "measured": str | float | int | None,
    "matching": str | None, "right": bool | None, "compared_at": str | None, "earlier": list,
}  # fmt: skip


def now() -> str:
    """Return this moment as a text that sorts, in UTC."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def number_words(value: float) -> str:
    """Return a number with three digits of precision, or all of them where it is whole."""
    if isinstance(value, int) or value == int(value):
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def in_order(identifier: str) -> tuple[int, ...]:
    """Return what sorts P3.2 before P3.10."""
    return tuple(int(number) for number in identifier.removeprefix("P").split("."))


# ---- the file

# What this kernel knows and the file does not: asked where nobody could answer, or where the file cannot be written.
_in_memory: dict[str, Prediction] = {}
_told: set[str] = set()


def ledger_path() -> Path:
    """Return where the ledger is: BROADCAST_LAB_LEDGER if that is set, else a file in the user's data folder."""
    return notes.folder() / (Path(os.environ.get(PATH_VARIABLE, "")).name or "predictions.json")


def _lock(path: Path) -> AbstractContextManager[None]:
    """Keep other kernels out while the ledger is read and written."""
    return notes.lock(path, timeout=_LOCK_SECONDS)


def _parse(text: str) -> dict[str, Prediction]:
    """Return the rows of a file's text; raise ValueError or TypeError for anything that predict() did not write."""
    content = json.loads(text)
    if not isinstance(content, dict) or not isinstance(content.get("predictions"), list):
        raise ValueError("there is no list of predictions in it")
    rows = [Prediction(**row) for row in content["predictions"]]
    for row in rows:
        for name, kinds in _KINDS.items():
            if not isinstance(getattr(row, name), kinds):
                raise ValueError(f"{name} of {row.id} is {getattr(row, name)!r}")
            if isinstance(getattr(row, name), float) and not math.isfinite(getattr(row, name)):
                raise ValueError(f"{name} of {row.id} is no finite number")
        if not all(isinstance(text, str) for text in row.options.values()):
            raise ValueError(f"an option of {row.id} is no text")
        in_order(row.id)
    return {row.id: row for row in rows}


def _load(path: Path) -> dict[str, Prediction]:
    """Return the rows of the file; one that is damaged is renamed, and the ledger begins afresh."""
    return notes.load(path, _parse, what=_NAME) or {}


def _save(path: Path, rows: dict[str, Prediction]) -> None:
    """Write all rows, in the order of the course."""
    ordered = [asdict(rows[identifier]) for identifier in sorted(rows, key=in_order)]
    notes.save(path, json.dumps({"about": "Broadcast Lab: predictions", "predictions": ordered}, indent=1))


def _tell_unusable(path: Path, error: OSError) -> None:
    """Say that the file cannot be used, why, and what to do."""
    notes.tell_unusable(path, error, what="Predictions", told=_told)


def read() -> dict[str, Prediction]:
    """Return all predictions by id: those of the file, and those that only this kernel knows."""
    path, rows = ledger_path(), None
    try:
        rows = notes.read(path, _parse, what=_NAME, timeout=_LOCK_SECONDS)
    except OSError as error:
        _tell_unusable(path, error)
    return {**(rows or {}), **_in_memory}


def change(
    identifier: str, update: Callable[[Prediction | None], Prediction], *, in_memory: bool = False
) -> Prediction:
    """Replace one prediction by what `update` makes of it (None where there is none yet), and return the new one.

    The file is read again under a lock, so that what another kernel wrote meanwhile stays. Where that is impossible,
    a message says so once, and the prediction lasts as long as this kernel.
    in_memory: leave the file as it is.
    """
    path = ledger_path()
    if not in_memory:
        try:
            with _lock(path):
                rows = _load(path)
                rows[identifier] = update(_in_memory.get(identifier) or rows.get(identifier))
                _save(path, rows)
            _in_memory.pop(identifier, None)
            return rows[identifier]
        except OSError as error:
            _tell_unusable(path, error)
    _in_memory[identifier] = update(read().get(identifier))
    return _in_memory[identifier]


def is_in_memory(identifier: str) -> bool:
    """Return whether a prediction is known to this kernel only."""
    return identifier in _in_memory


def put_away(old: Prediction) -> list[dict]:
    """Return what the next row of this id carries as its earlier ones: nothing that was answered is ever dropped."""
    row = asdict(old)
    earlier = row.pop("earlier")
    answered = old.guess is not None or old.later is not None
    return [*earlier, row] if answered else earlier


# ---- what the learner sees


class Ledger:
    """All predictions so far. Shows itself as the calibration figure and a table, with the path of the file.

    .table a DataFrame, one row for each prediction. .calibration a Chart of the share that was right for each
    confidence, or None while no guess has been compared. .path the file.
    """

    def __init__(self, predictions: list[Prediction], path: Path) -> None:
        self.predictions = predictions
        self.path = path

    @cached_property
    def table(self) -> "pandas.DataFrame":
        """Return one row for each prediction: what was asked, guessed and measured, and when (UTC)."""
        import pandas

        columns = ("id", "question", "guess", "confidence", "measured", "right", "later")
        moments = ("asked_at", "answered_at", "compared_at", "later_at")
        rows = [
            {
                **{name: getattr(each, name) for name in (*columns, *moments)},
                "guess": each.words(each.guess) or None,
                "measured": measured_words(each, each.measured, each.matching) or None,
                "later": each.words(each.later) or None,
            }
            for each in self.predictions
        ]
        table = pandas.DataFrame(rows, columns=[*columns, *moments], dtype=object)
        for name in moments:
            table[name] = pandas.to_datetime(table[name], utc=True, errors="coerce")
        return table

    @cached_property
    def calibration(self) -> "Chart | None":
        """Return how often the guesses of each confidence were right, with n and a 95 % interval."""
        judged = [each for each in self.predictions if each.guess is not None and each.right is not None]
        counts = {}
        for confidence in (*CONFIDENCES, _UNSAID):
            verdicts = [each.right for each in judged if (each.confidence or _UNSAID) == confidence]
            if verdicts:
                counts[confidence] = (sum(verdicts), len(verdicts))
        return draw_calibration(counts) if counts else None

    def forget(self, *identifiers: str) -> None:
        """Ask these predictions afresh: run their cells again. What was answered stays in the file, under `earlier`.

        Raises KeyError for one that is not in the ledger.
        """
        for identifier in identifiers:
            known(identifier, read())
            change(
                identifier,
                lambda old: Prediction(
                    old.id, old.question, old.options, old.unit, asked_at=now(), earlier=put_away(old)
                ),
                in_memory=is_in_memory(identifier),
            )
            print(f"{identifier} is as if it had never been answered. Run its cell again.")

    def _summary(self) -> str:
        """Return the numbers in a sentence."""
        if not self.predictions:
            return 'No predictions yet. The cells with predict("P…") ask for them.'
        answered = [each for each in self.predictions if each.guess is not None]
        compared = [each for each in answered if each.right is not None]
        right = sum(each.right for each in compared)
        return (
            f"{len(self.predictions)} predictions asked, {len(answered)} answered before the measurement, "
            f"{len(compared)} of those compared, {right} right."
        )

    def _shown(self) -> "pandas.DataFrame":
        """Return the table as one reads it: without moments, and verdicts as words."""
        table = self.table[["id", "question", "guess", "confidence", "measured", "right"]].copy()
        verdicts = {True: "✔ right", False: "✘ not right"}
        table["right"] = [verdicts.get(each, "") for each in table["right"]]
        return table.fillna("").set_index("id")

    def __repr__(self) -> str:
        parts = [self._summary()]
        if self.predictions:
            parts.append(self._shown().to_string())
        if self.calibration is not None:
            parts.append(self.calibration.alt)
        return "\n\n".join([*parts, f"Kept in {self.path}"])

    def _repr_html_(self) -> str:
        parts = [f"<p>{html.escape(self._summary())}</p>"]
        if self.calibration is not None:
            parts.append(self.calibration._repr_html_())
        if self.predictions:
            parts.append(self._shown().to_html(border=0))
        parts.append(f"<p>Kept in <code>{html.escape(str(self.path))}</code></p>")
        return "\n".join(parts)


def ledger() -> Ledger:
    """Return all predictions so far, in the order of the course, with the figure of how sure one may be."""
    predictions = read()
    return Ledger([predictions[identifier] for identifier in sorted(predictions, key=in_order)], ledger_path())


def known(identifier: str, predictions: dict[str, Prediction]) -> Prediction:
    """Return a prediction by its id; raise KeyError, with those there are, for an unknown one."""
    if identifier in predictions:
        return predictions[identifier]
    there = ", ".join(sorted(predictions, key=in_order)) or "none"
    # No quotes in it: a traceback shows the message of a KeyError in quotes of its own.
    raise KeyError(
        f"no prediction {identifier} has been asked; asked so far: {there}. Was the cell that asks {identifier} run?"
    )


def measured_words(prediction: Prediction, measured: str | float | None, matching: str | None) -> str:
    """Return what was measured in words; where an option corresponds to it, with that option, once."""
    if measured is None:
        return ""
    number = not isinstance(measured, str)
    text = number_words(measured) if number else measured
    if not prediction.options:
        return f"{text} {prediction.unit or ''}".strip()
    option = prediction.words(matching)
    return option if text == prediction.options.get(matching) else f"{text}, that is {option}"
