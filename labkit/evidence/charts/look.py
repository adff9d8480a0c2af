"""The look of all figures: colours and markers, axes with their notes, and how a figure shows itself."""

import base64
import html
import io
from typing import Literal

import pandas
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# One colour (Okabe-Ito) and one marker for each behaviour, in the whole course.
BEHAVIOUR_STYLES = {
    "healthy": ("#0072B2", "o"),
    "slow": ("#E69F00", "s"),
    "stalled": ("#D55E00", "X"),
    "leaving": ("#56B4E9", "^"),
    "vanishing": ("#999999", "v"),
    "silent": ("#CC79A7", "P"),
}
# Ways to broadcast differ by colour, marker and line, in the order in which they are given.
VARIANT_STYLES = (
    ("#222222", "o", "-"),
    ("#009E73", "s", "--"),
    ("#7B4FA3", "^", "-."),
    ("#8A5A00", "D", ":"),
    ("#5A6B7B", "v", "-"),
    ("#B2477A", "P", "--"),
)
HATCHES = ("", "//", "..", "xx", "\\\\", "++")
LOOK = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
}
TABLE_ROWS = 14
_DOTS_PER_INCH = 110


class Chart:
    """A figure that shows itself as an HTML image with alt text and its table beside.

    .axes the matplotlib Axes, for drawing more into it before it is shown. .alt the text for those who do not see it.
    .table the DataFrame behind it. .reads the axis along which a value is read, "x" or "y", or "none" where no axis
    counts anything.
    """

    def __init__(
        self, figure: Figure, axes: Axes, alt: str, table: pandas.DataFrame, *, reads: Literal["x", "y", "none"] = "y"
    ) -> None:
        self.figure = figure
        self.axes = axes
        self.alt = alt
        self.table = table
        self.reads = reads

    def __repr__(self) -> str:
        return self.alt

    def png(self) -> bytes:
        """Return the figure as a PNG image."""
        buffer = io.BytesIO()
        with rc_context(LOOK):
            self.figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, bbox_inches="tight")
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        image = base64.b64encode(self.png()).decode()
        more = len(self.table) - TABLE_ROWS
        rest = f"<p>and {more} more rows in <code>.table</code></p>" if more > 0 else ""
        return (
            '<div style="display:flex;flex-wrap:wrap;gap:1.5em;align-items:flex-start">'
            f'<img alt="{html.escape(self.alt, quote=True)}" style="max-width:100%;width:560px;background:white" '
            f'src="data:image/png;base64,{image}">'
            f"<div>{self.table.head(TABLE_ROWS).to_html(border=0)}{rest}</div></div>"
        )


def new_axes(title: str, x_label: str, y_label: str, *, height: float = 3.8) -> tuple[Figure, Axes]:
    """Return a new figure and its axes in the course's look; pyplot, with its global state, stays out of it."""
    with rc_context(LOOK):
        figure = Figure(figsize=(7.2, height), layout="constrained")
        axes = figure.add_subplot()
    write_title(axes, title)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return figure, axes


def new_panels(title: str, count: int, *, height: float) -> tuple[Figure, list[Axes]]:
    """Return a new figure with panels side by side that share their rows, under one title."""
    with rc_context(LOOK):
        figure = Figure(figsize=(7.2, height), layout="constrained")
        panels = list(figure.subplots(1, count, sharey=True, squeeze=False)[0])
    figure.suptitle(title, wrap=True, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
    for axes in panels[1:]:
        axes.tick_params(axis="y", length=0)
    return figure, panels


def write_title(axes: Axes, title: str, pad: float = 6) -> None:
    """Write the finding over the axes; pad: points between them."""
    axes.set_title(title, wrap=True, loc="left", fontsize=12.5, fontweight="bold", pad=pad)


def write_note(axes: Axes, text: str, *, below: float = 42) -> None:
    """Write n, spread and the source of the clock under the axes. below: how far, in points."""
    axes.annotate(
        text, (0, 0), (0, -below), xycoords="axes fraction", textcoords="offset points", fontsize=9, color="#555555",
        va="top", annotation_clip=False,
    )  # fmt: skip


def write_footnote(figure: Figure, text: str) -> None:
    """Write n and spread under all panels of a figure."""
    figure.supxlabel(text, x=0.01, ha="left", fontsize=9, color="#555555")
