"""Predictions: asked before a run, drawn beside the measurement after it."""

import html
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from labkit.tutor import asking, drawing
from labkit.tutor.ledger import (
    CONFIDENCES,
    Prediction,
    change,
    is_in_memory,
    known,
    measured_words,
    now,
    number_words,
    put_away,
    read,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from labkit.evidence.charts.look import Chart


def predict(
    identifier: str,
    question: str,
    *,
    answer: str | float | None = None,
    confidence: str | None = None,
    unit: str | None = None,
    **options: str,
) -> None:
    """Ask what the learner expects, and keep the answer until compare().

    Where somebody sits at a front end there are buttons, or a field for a number; everywhere else the answer is given
    in the call: answer="c". Nothing waits for it: with no answer, everything runs on.
    The trap: Run All reaches compare() before anybody can click, and what is said after that is noted, not counted.

    identifier: P, the notebook's number, a point and a number: "P3.1". options: at least two texts by their letter, or
    instead of them unit: what the number counts. confidence: "guess", "fairly sure" or "certain".
    Raises ValueError for an id, an answer, a confidence or options that cannot be meant.
    """
    _check_question(identifier, options, unit)
    guess = _checked_answer(identifier, options, unit, answer)
    if confidence is not None and confidence not in CONFIDENCES:
        raise ValueError(f"confidence={confidence!r}: there are {_listed(CONFIDENCES)}.")
    if confidence is not None and guess is None:
        raise ValueError(f"confidence={confidence!r} without an answer: give answer= as well.")
    widgets = asking.widgets()

    def asked(old: Prediction | None) -> Prediction:
        """Return the row of this question, with what was answered to it before, in this kernel or in another."""
        if old is None:
            return Prediction(identifier, question, options, unit, asked_at=now())
        if (old.options, old.unit) != (options, unit):
            # The course has changed: an answer to other options is no answer to these.
            return Prediction(identifier, question, options, unit, asked_at=now(), earlier=put_away(old))
        return replace(old, question=question)

    # A run that nobody sits at (a test, an export) leaves no row that a learner would later find taken.
    row = change(identifier, asked, in_memory=guess is None and widgets is None)
    if guess is not None:
        row = asking.record(identifier, guess, confidence)
    asking.show(row, widgets)


def compare(
    identifier: str,
    *,
    measured: str | float,
    option: str | None = None,
    ax: "Axes | Chart | None" = None,
    axis: str | None = None,
    factor: float = 2.0,
) -> "Comparison":
    """Draw the guess into the figure of the result, and return in a sentence what the difference means.

    The trap: only the first comparison is kept in the ledger, so that a second run with another number changes no
    verdict; what is shown is always of this call.

    measured: what this run gave. option: the letter that it corresponds to, where the question had options.
    ax: the Chart of the result, whose alt text then names the guess too and which the comparison shows; or matplotlib
    Axes; or None. axis: "x" or "y", along which a number is read; by default as the figure is read.
    factor: a number is right when it is off by at most this factor; 1 asks for the number itself.
    Raises KeyError for an id that was never asked, ValueError for an option or a measurement that cannot be meant.
    """
    asked = known(identifier, read())
    measured = _checked_measurement(asked, measured, option, factor)

    def compared(old: Prediction | None) -> Prediction:
        """Return the row with its first comparison, whichever kernel made it."""
        row = old or asked
        if row.compared_at is not None:
            return row
        right = None if row.guess is None else _is_right(row, measured, option, factor)
        return replace(row, measured=measured, matching=option, right=right, compared_at=now())

    row = change(identifier, compared, in_memory=is_in_memory(identifier))
    if identifier in asking.displays:
        asking.displays[identifier].refresh(row)
    return Comparison(row, measured, option, factor, ax, axis)


class Comparison:
    """A guess beside a measurement. Shows itself as a sentence, under the Chart that it was drawn into.

    .sentence what the difference means. .guess and .confidence what counts, or None. .measured of this run.
    .right whether they agree, or None without a guess. .chart the Chart, or None.
    """

    def __init__(
        self,
        prediction: Prediction,
        measured: str | float,
        option: str | None,
        factor: float,
        ax: "Axes | Chart | None",
        axis: str | None,
    ) -> None:
        self.id = prediction.id
        self.guess = prediction.guess
        self.confidence = prediction.confidence
        self.measured = measured
        self.right = None if self.guess is None else _is_right(prediction, measured, option, factor)
        self.sentence = _sentence(prediction, self.right, measured, option, factor)
        if self.right is not None and prediction.measured not in (None, measured):
            first = measured_words(prediction, prediction.measured, prediction.matching)
            self.sentence += f" Your first run measured {first}, and that comparison is the one that counts."
        # Both matplotlib's Axes and a Chart have .axes; only a Chart has an alt text to complete.
        self.chart = ax if hasattr(ax, "alt") else None
        if ax is not None and self.guess is not None:
            drawn = drawing.draw(ax.axes, prediction, self.right, measured, option, axis or getattr(ax, "reads", None))
            if self.chart is not None and drawn not in self.chart.alt:
                self.chart.alt = f"{self.chart.alt} {drawn}"

    def __repr__(self) -> str:
        return self.sentence if self.chart is None else f"{self.chart.alt}\n{self.sentence}"

    def _repr_html_(self) -> str:
        above = "" if self.chart is None else self.chart._repr_html_()
        return f'{above}<p class="prediction-compared">{html.escape(self.sentence)}</p>'


# ---- what can be meant


def _listed(words: object) -> str:
    """Return words in quotes, with commas."""
    return ", ".join(f'"{word}"' for word in words)


def _check_question(identifier: str, options: Mapping[str, str], unit: str | None) -> None:
    """Raise ValueError unless this is a question with an id of its own, and options or a unit."""
    if not isinstance(identifier, str) or not re.fullmatch(r"P[1-9]\d*\.[1-9]\d*", identifier):
        raise ValueError(
            f"{identifier!r} is no id of a prediction: that is P, the notebook's number, a point and a number, "
            'such as "P3.1".'
        )
    if (unit is None) == (not options):
        seen = "both options and a unit" if options else "neither options nor a unit"
        raise ValueError(
            f'{identifier} has {seen}. Give two or more options, a="…", b="…", or for a number unit="messages".'
        )
    if len(options) == 1:
        raise ValueError(f"{identifier} has one option only; what else might somebody expect? Give two or more.")
    for key, text in options.items():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(
                f"{key}={text!r} in {identifier}: an option is a text, in quotes. "
                f"If {key} was meant as a setting: there are answer, confidence and unit."
            )
    texts = [" ".join(text.split()).casefold() for text in options.values()]
    for key, text in zip(options, texts, strict=True):
        same = [other for other, its in zip(options, texts, strict=True) if its == text and other != key]
        if same:
            raise ValueError(
                f'options {key} and {same[0]} of {identifier} are the same text, "{options[key]}". '
                "Was one copied and not changed?"
            )


def _checked_answer(
    identifier: str, options: Mapping[str, str], unit: str | None, answer: object
) -> str | float | None:
    """Return an answer as it is kept; raise ValueError for one that is no option, or no number."""
    if answer is None:
        return None
    if options:
        if isinstance(answer, str) and answer in options:
            return answer
        meant = [
            key for key, text in options.items() if str(answer).strip().casefold() in (text.casefold(), key.casefold())
        ]
        hint = f'Did you mean answer="{meant[0]}"?' if meant else "Give the letter, not the text."
        there = ", ".join(f'{key} ("{text}")' for key, text in options.items())
        raise ValueError(f"answer={answer!r} is no option of {identifier}. There are: {there}. {hint}")
    number = _as_number(answer)
    if number is None:
        raise ValueError(
            f"answer={answer!r}: {identifier} asks for a number, without quotes and without the unit ({unit})."
        )
    return number


def _as_number(value: object) -> float | None:
    """Return an int or a float for a finite number, numpy's included, or None."""
    value = value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value


def _checked_measurement(prediction: Prediction, measured: object, option: str | None, factor: float) -> str | float:
    """Return what was measured as it is kept; raise ValueError where it and the question do not fit."""
    identifier, options = prediction.id, prediction.options
    if factor < 1:
        raise ValueError(f"factor={factor!r}: 1 asks for the number itself, 2 allows half and double.")
    number = _as_number(measured)
    if not options:
        if option is not None:
            raise ValueError(f"{identifier} asks for a number; option={option!r} belongs to a question with options.")
        if number is None:
            raise ValueError(
                f"measured={measured!r}: {identifier} asks for a number ({prediction.unit}). Did the experiment run?"
            )
        return number
    if option not in options:
        raise ValueError(
            f"option={option!r} in compare({identifier!r}): say which option the measurement {measured!r} "
            f"corresponds to: {_listed(options)}."
        )
    return str(measured) if number is None else number


def _is_right(prediction: Prediction, measured: str | float, option: str | None, factor: float) -> bool:
    """Return whether the guess and the measurement agree."""
    if prediction.options:
        return prediction.guess == option
    guess = prediction.guess
    if guess * measured <= 0:
        # There is no factor to nothing, nor to the other side of it.
        return guess == measured
    return max(guess / measured, measured / guess) <= factor


# ---- the sentence

_SAID = {"guess": "guessed", "fairly sure": "were fairly sure of", "certain": "were certain of", None: "expected"}
_WHEN_RIGHT = {
    "guess": "a guess that came true; find the reason, and next time you know",
    "fairly sure": "your picture of it carries this far",
    "certain": "your picture of it holds here",
    None: "your picture of it holds here",
}
_WHEN_WRONG = {
    "guess": "a guess costs nothing, and now there is a measurement to build on",
    "fairly sure": "what did you take for granted? Read on with that question",
    "certain": "certain and mistaken is the moment to learn, so name what you took for granted before you read on",
    None: "what did you take for granted? Read on with that question",
}


def _sentence(row: Prediction, right: bool | None, measured: str | float, option: str | None, factor: float) -> str:
    """Return in one sentence what the difference between guess and measurement means."""
    found = measured_words(row, measured, option)
    if right is None:
        later = row.later is not None
        after = f"; what you said afterwards, {row.words(row.later)}, is noted and not counted" if later else ""
        none = "no guess of yours was there before (Run All waits for none)"
        return f"{row.id} – the measurement says {found}; {none}{after}."
    said = f"you {_SAID[row.confidence]} {row.words(row.guess)}"
    means = (_WHEN_RIGHT if right else _WHEN_WRONG)[row.confidence]
    later = f" (what you said afterwards, {row.words(row.later)}, does not count)" if row.later is not None else ""
    off = "" if row.options else f", {_difference(row.guess, measured)}"
    allowed = f", within a factor of {number_words(factor)}" if off and right and row.guess != measured else ""
    return f"{row.id} {'✔' if right else '✘'} {said}{later}; the measurement says {found}{off}{allowed}: {means}."


def _difference(guess: float, measured: float) -> str:
    """Return how far a number is from the guess, as a factor where there is one."""
    if guess == measured:
        return "exactly that"
    if guess * measured <= 0:
        return f"{number_words(abs(measured - guess))} {'more' if measured > guess else 'less'} than that"
    if abs(measured) >= abs(guess):
        return f"{number_words(measured / guess)} times your guess"
    return f"your guess divided by {number_words(guess / measured)}"
