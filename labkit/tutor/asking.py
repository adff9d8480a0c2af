"""How a question is shown, and how it is answered: as text, as a page, with buttons or in the call."""

import html
import math
import textwrap
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

from labkit.evidence.screen import running_shell, somebody_watches
from labkit.tutor.ledger import CONFIDENCES, Prediction, change, now

# ---- the answer


def record(identifier: str, guess: str | float, confidence: str | None) -> Prediction:
    """Keep an answer: before the first comparison it is the guess, after it a note beside the guess."""

    def answered(old: Prediction | None) -> Prediction:
        """Return the row with this answer; the same answer again is no change."""
        if old.compared_at is None:
            same = (old.guess, old.confidence) == (guess, confidence)
            return old if same else replace(old, guess=guess, confidence=confidence, answered_at=now())
        if guess == (old.guess if old.later is None else old.later):
            return old
        return replace(old, later=guess, later_at=now())

    return change(identifier, answered)


def _status(row: Prediction) -> str:
    """Return in a sentence or two what was answered, and whether it may still be changed."""
    sure = f", {'a guess' if row.confidence == 'guess' else row.confidence}" if row.confidence else ""
    later = (
        f" Said after the measurement, and noted beside it: {row.words(row.later)}." if row.later is not None else ""
    )
    if row.guess is not None and row.compared_at is None:
        return f"Your guess: {row.words(row.guess)}{sure}. You can change it until it is compared."
    if row.guess is not None:
        return f"Your guess: {row.words(row.guess)}{sure}. It has been compared, and is the one that counts.{later}"
    if row.compared_at is not None:
        return (
            f"The measurement was made before you had answered.{later} To be asked afresh: "
            f'from labkit import ledger; ledger().forget("{row.id}"), then run this cell again.'
        )
    return "Not answered yet."


def _how_to_answer(row: Prediction) -> str:
    """Return how to answer without buttons."""
    example = f'answer="{next(iter(row.options))}"' if row.options else "answer=20"
    return f'To answer in the cell: add {example}, and confidence="fairly sure" if you like, and run it again.'


# ---- the display

# What is on the screen for each prediction of this kernel, so that a second run and compare() can change it.
displays: "dict[str, _Display]" = {}


def widgets() -> ModuleType | None:
    """Return ipywidgets where somebody can click, or None.

    Whether a front end can also draw widgets only it knows: it takes from each output the richest form that it can
    show, so the question is an output of its own and reads well everywhere.
    """
    if not somebody_watches():
        return None
    try:
        import ipywidgets
    except ImportError:
        return None
    return ipywidgets


def show(row: Prediction, widgets: ModuleType | None) -> None:
    """Display the question, what was answered, and the buttons where there is somebody to click them."""
    if row.id in displays:
        displays.pop(row.id).close()
    open_to_clicks = row.guess is None or row.compared_at is None
    if running_shell() is None:
        print(_plain(row, buttons=False))
        return
    display = _Display(row, widgets if open_to_clicks else None)
    displays[row.id] = display


class _Display:
    """The outputs of one predict() call: the question as text that keeps up with the answer, and the buttons."""

    def __init__(self, row: Prediction, widgets: ModuleType | None) -> None:
        from IPython.display import display

        self.row = row
        self.buttons = None
        self._has_buttons = widgets is not None
        self._handle = display(self._bundle(), raw=True, display_id=True)
        if widgets is not None:
            self.buttons = _Buttons(row, widgets, self.refresh)
            self.buttons.show()

    def _bundle(self) -> dict[str, str]:
        """Return the question in both forms that every front end and every export can show."""
        return {
            "text/plain": _plain(self.row, buttons=self._has_buttons),
            "text/html": _page(self.row, buttons=self._has_buttons),
        }

    def refresh(self, row: Prediction) -> None:
        """Show what is known now; a guess that was compared can be clicked no more."""
        changed, self.row = row != self.row, row
        if row.guess is not None and row.compared_at is not None:
            self.close()
        if changed:
            self._handle.update(self._bundle(), raw=True)

    def close(self) -> None:
        """Take the buttons off the page; JupyterLab then also leaves them out of the notebook that it saves."""
        if self.buttons is not None:
            self.buttons.close()
            self.buttons = None


def _plain(row: Prediction, *, buttons: bool) -> str:
    """Return the question as text."""
    lines = textwrap.wrap(f"{row.id} · Predict: {row.question}", 100)
    lines += [f"  {key}  {text}" for key, text in row.options.items()] or [f"  a number of: {row.unit}"]
    lines.append(_status(row))
    if row.guess is None and row.compared_at is None and not buttons:
        lines.append(_how_to_answer(row))
    return "\n".join(lines)


def _page(row: Prediction, *, buttons: bool) -> str:
    """Return the question as HTML, which is also what an exported page shows."""
    given = row.guess if row.guess is not None else row.later
    items = "".join(
        f'<li style="list-style:none"><b>{html.escape(key)}</b>&ensp;{html.escape(text)}'
        f"{' ◀ your answer' if key == given else ''}</li>"
        for key, text in row.options.items()
    )
    asked = f'<ul style="margin:0.3em 0;padding-left:1.2em">{items}</ul>' if items else ""
    number = f" <em>(a number: {html.escape(row.unit)})</em>" if row.unit else ""
    status = _status(row)
    if row.guess is None and row.compared_at is None and not buttons:
        status = f"{status} {_how_to_answer(row)}"
    return (
        '<div style="border-left:4px solid #888;padding:0.2em 0 0.2em 0.9em">'
        f'<p style="margin:0"><strong>{row.id} · Predict.</strong> {html.escape(row.question)}{number}</p>{asked}'
        f'<p style="margin:0"><small>{html.escape(status)}</small></p></div>'
    )


class _Buttons:
    """Buttons for the options, or a field for the number, and for the confidence; each click is kept at once.

    The trap: ipykernel 7 gives a widget no answer while a cell runs, and a control that waits for the answer sends
    nothing more, ever. The click of a plain button waits for none; a field is replaced by a new one after each number.
    """

    def __init__(self, row: Prediction, widgets: ModuleType, refresh: Callable[[Prediction], None]) -> None:
        self._row = row
        self._widgets = widgets
        self._refresh = refresh
        self._guess = row.guess if row.guess is not None else row.later
        self._confidence = row.confidence
        self._note = widgets.Label("")
        if row.options:
            # A long text gets a button with its letter only: the text is in the question above.
            short = max(map(len, row.options.values())) <= 28
            self._answers = {
                key: self._button(f"{key}: {text}" if short else key, text, self._choose, key)
                for key, text in row.options.items()
            }
            self._line = widgets.HBox(list(self._answers.values()))
        else:
            self._answers = {}
            self._line = widgets.HBox([])
            self._renew_field("" if self._guess is None else f"{self._guess:g}")
        self._sure = {
            each: self._button(each, f"How sure? {each}", self._choose_confidence, each) for each in CONFIDENCES
        }
        sure = widgets.HBox([widgets.Label("How sure? (optional)"), *self._sure.values()])
        self._box = widgets.VBox([self._line, sure, self._note])
        self._mark()

    def _button(self, description: str, tooltip: str, choose: Callable[[str], None], value: str) -> Any:
        """Return a button that hands over its value when it is clicked."""
        button = self._widgets.Button(description=description, tooltip=tooltip, layout={"width": "auto"})
        button.on_click(lambda _: choose(value))
        return button

    def _mark(self) -> None:
        """Put a sign on what is chosen, which also those see who do not see its colour."""
        for chosen, buttons in ((self._guess, self._answers), (self._confidence, self._sure)):
            for value, button in buttons.items():
                button.icon = "check" if value == chosen else ""
                button.button_style = "info" if value == chosen else ""

    def _choose(self, key: str) -> None:
        """Take an option."""
        self._guess = key
        self._keep()

    def _choose_confidence(self, confidence: str) -> None:
        """Take a confidence; before there is an answer it waits for one."""
        self._confidence = confidence
        self._keep()

    def _renew_field(self, text: str) -> None:
        """Put a new field with this text in the place of the old one."""
        old = self._line.children
        # A number field of ipywidgets cannot be empty, and 0 is an answer; so this is a text field.
        field = self._widgets.Text(
            text, placeholder="a number, then Enter", continuous_update=False, layout={"width": "12em"},
            tooltip=f"your guess, in {self._row.unit}",
        )  # fmt: skip
        field.observe(lambda change: self._typed(change["new"]), "value")
        self._line.children = [field, self._widgets.Label(self._row.unit)]
        for each in old:
            each.close()

    def _typed(self, text: str) -> None:
        """Take a number."""
        number = _typed_number(text, self._row.unit)
        wrong = number is None and text.strip()
        self._note.value = "That is no number: digits, and a point for decimals, such as 20 or 1.5." if wrong else ""
        self._renew_field(text)
        if number is not None:
            self._guess = number
            self._keep()

    def _keep(self) -> None:
        """Keep what is chosen now. Runs between the awaits of whichever cell is running."""
        self._mark()
        if self._guess is not None:
            self._refresh(record(self._row.id, self._guess, self._confidence))

    def show(self) -> None:
        """Display them; a front end that draws no widgets shows how to answer without."""
        from IPython.display import display

        view = self._box._repr_mimebundle_()
        display({**view, "text/plain": _how_to_answer(self._row)}, raw=True)

    def close(self) -> None:
        """Take all of them off the page."""
        for widget in _all_in(self._box):
            widget.close()


def _all_in(box: Any) -> list[Any]:
    """Return a box with everything inside, the innermost first."""
    return [inner for child in getattr(box, "children", ()) for inner in _all_in(child)] + [box]


def _typed_number(text: str, unit: str | None) -> float | None:
    """Return a number as somebody types it, with or without its unit, or None."""
    text = text.strip().removesuffix(unit or "").strip()
    try:
        number = float(text.replace(" ", ""))
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number == int(number) else number
