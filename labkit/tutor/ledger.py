"""The ledger: what the learner expected, kept in one small file, beside what was measured."""

import fcntl
import html
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from platformdirs import user_data_path

from labkit.apparatus import guard
from labkit.tutor.calibration import draw_calibration

if TYPE_CHECKING:
    import pandas

    from labkit.evidence.charts import Chart

PATH_VARIABLE = "BROADCAST_LAB_LEDGER"
CONFIDENCES = ("guess", "fairly sure", "certain")
# The lock is held for milliseconds; who waits longer meets a frozen kernel or a file system that cannot lock.
_LOCK_SECONDS = 2.0
_UNSAID = "not said"


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
    chosen = os.environ.get(PATH_VARIABLE)
    return Path(chosen).expanduser().absolute() if chosen else user_data_path("broadcast-lab") / "predictions.json"


def _tell_once(text: str) -> None:
    """Print a message about the file, the first time only: a lesson asks often."""
    if text not in _told:
        _told.add(text)
        guard.tell(text)


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Keep other kernels out while the file is read and written; the system gives the lock back if this one dies.

    Raises OSError where the folder cannot be written, TimeoutError (an OSError) when somebody else keeps the lock.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_name(f"{path.name}.lock"), "w", encoding="utf-8") as lock:
        until = time.monotonic() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TimeoutError("another kernel keeps it locked") from None
                time.sleep(0.005)
        yield


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
    try:
        return _parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, TypeError, RecursionError) as error:
        aside = path.with_name(f"{path.name}.damaged-{datetime.now():%Y%m%d-%H%M%S-%f}")
        path.rename(aside)
        guard.tell(
            f"The ledger of predictions could not be read ({error}). It is set aside as {aside}; a new one begins."
        )
        return {}


def _save(path: Path, rows: dict[str, Prediction]) -> None:
    """Write the file beside its place and move it there, so that nobody ever reads half of it."""
    ordered = [asdict(rows[identifier]) for identifier in sorted(rows, key=in_order)]
    text = json.dumps({"about": "Broadcast Lab: predictions", "predictions": ordered}, indent=1)
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", suffix=".new", dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(f"{text}\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


def _tell_unusable(path: Path, error: OSError) -> None:
    """Say that the file cannot be used, why, and what to do."""
    _tell_once(
        f"Predictions cannot be kept in {path} ({error.strerror or error}); they last until this kernel ends. "
        f"To keep them, set {PATH_VARIABLE} to a file that can be written, and restart the kernel."
    )


def read() -> dict[str, Prediction]:
    """Return all predictions by id: those of the file, and those that only this kernel knows."""
    path, rows = ledger_path(), {}
    try:
        if path.exists():
            with _lock(path):
                rows = _load(path)
    except OSError as error:
        try:
            # Where nothing can be written, what is there can often still be read.
            rows = _parse(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError, RecursionError):
            _tell_unusable(path, error)
    return {**rows, **_in_memory}


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
