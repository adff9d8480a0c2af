"""The guess, drawn into the figure of the result."""

import textwrap
from typing import TYPE_CHECKING

from labkit.tutor.ledger import Prediction, measured_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLOUR = "#A3004F"
_SIZE = 10


def draw(
    axes: "Axes", row: Prediction, right: bool, measured: str | float, option: str | None, axis: str | None
) -> str:
    """Draw the guess into Axes, and return what was drawn in words, for the alt text.

    axis: along which a number is read, "x" or "y"; "none" where no axis counts anything; None to look at the Axes.
    """
    tag = f"guess {row.id}"
    again = [artist for artist in (*axes.lines, *axes.texts) if artist.get_gid() == tag]
    for artist in again:
        artist.remove()
    words = f"your guess: {row.words(row.guess)}"
    if row.confidence:
        words += f", {'no more than a guess' if row.confidence == 'guess' else row.confidence}"
    axis = axis or _reading_axis(axes)
    number = not row.options and axis != "none"
    if number and _draw_line(axes, row.guess, words, axis, tag, make_room=not again):
        return f"Marked in it, {words}."
    found = measured_words(row, measured, option)
    verdict = "✔ as you thought" if right else "✘ not as you thought"
    lines = [verdict, words, f"measured: {found}"]
    _draw_box(axes, [part for line in lines for part in textwrap.wrap(line, 72)], tag, make_room=not again)
    return f"In a box below it, {words}; measured: {found}."


def _reading_axis(axes: "Axes") -> str:
    """Return along which axis a value is read: x for horizontal bars, else y."""
    return "x" if any(getattr(each, "orientation", "") == "horizontal" for each in axes.containers) else "y"


def _draw_line(axes: "Axes", guess: float, words: str, axis: str, tag: str, *, make_room: bool) -> bool:
    """Draw a labelled line at a number, or an arrow to one that is far outside; return False where neither can be."""
    upright = axis == "x"
    low, high = sorted(axes.get_xlim() if upright else axes.get_ylim())
    scale = axes.get_xscale() if upright else axes.get_yscale()
    if scale == "log":
        if guess <= 0:
            return False
        near = low / 100 <= guess <= high * 100
        new_low, new_high = min(low, guess / 1.3), max(high, guess * 1.3)
    else:
        # Further away than this, the line would squeeze the measurement into a corner.
        pad = 0.06 * (high - low)
        near = low - 2 * (high - low) <= guess <= high + 2 * (high - low)
        new_low, new_high = (guess - pad if guess < low else low), (guess + pad if guess > high else high)
    if near:
        inverted = axes.xaxis_inverted() if upright else axes.yaxis_inverted()
        limits = (new_high, new_low) if inverted else (new_low, new_high)
        (axes.set_xlim if upright else axes.set_ylim)(limits)
        draw = axes.axvline if upright else axes.axhline
        draw(guess, color=_COLOUR, linestyle=(0, (5, 2)), linewidth=2, zorder=4, gid=tag)
    else:
        arrow = ("→" if upright else "↑") if guess > high else ("←" if upright else "↓")
        words = f"{words} {arrow}"
    look = {
        "fontsize": 10, "color": _COLOUR, "fontweight": "bold", "gid": tag, "zorder": 5, "annotation_clip": False,
        "bbox": {"facecolor": "white", "edgecolor": _COLOUR, "boxstyle": "round,pad=0.25", "alpha": 0.85},
    }  # fmt: skip
    if upright:
        if make_room and _reading_axis(axes) == "x":
            _add_strip(axes)
        low, high = sorted(axes.get_xlim())
        on_left = guess < (low + high) / 2 if scale != "log" else guess < (low * high) ** 0.5
        place = (guess, 0) if near else (0 if guess < low else 1, 0)
        frame = ("data" if near else "axes fraction", "axes fraction")
        axes.annotate(
            words, place, (6 if on_left else -6, 7), xycoords=frame, textcoords="offset points",
            ha="left" if on_left else "right", va="bottom", **look,
        )  # fmt: skip
    else:
        place = (0, guess) if near else (0, 0 if guess < low else 1)
        frame = ("axes fraction", "data" if near else "axes fraction")
        # Near the top, or above it, there is no room for the label over the line.
        _, share = axes.transAxes.inverted().transform(axes.transData.transform((low, guess)))
        below = share > 0.85
        axes.annotate(
            words, place, (8, -7 if below else 7), xycoords=frame, textcoords="offset points", ha="left",
            va="top" if below else "bottom", **look,
        )  # fmt: skip
    return True


def _add_strip(axes: "Axes") -> None:
    """Add a free strip below horizontal bars, so that the label covers none of them."""
    figure = axes.figure
    bottom, top = axes.get_ylim()
    share = 0.42 / figure.get_figheight()
    axes.set_ylim(bottom + share * 1.6 * (bottom - top), top)
    figure.set_figheight(figure.get_figheight() + 0.42)


def _draw_box(axes: "Axes", lines: list[str], tag: str, *, make_room: bool) -> None:
    """Write lines in a box below everything that is already drawn; the figure grows by it, the axes keep their size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure = axes.figure
    renderer = FigureCanvasAgg(figure).get_renderer()
    figure.draw_without_rendering()
    lowest = axes.get_tightbbox(renderer).y0
    if len(figure.axes) > 1:
        # The layout would widen the one panel that has the box; all places are settled, so it need not be asked again.
        figure.set_layout_engine("none")
        make_room = False
        lowest = figure.get_tightbbox(renderer).y0 * figure.dpi
    below = (lowest - axes.get_window_extent(renderer).y0) / figure.dpi * 72
    axes.annotate(
        "\n".join(lines), (0, 0), (4, below - 12), xycoords="axes fraction", textcoords="offset points", ha="left",
        va="top", fontsize=_SIZE, color=_COLOUR, family="DejaVu Sans", linespacing=1.4, gid=tag, annotation_clip=False,
        bbox={"facecolor": "white", "edgecolor": _COLOUR, "boxstyle": "round,pad=0.45"},
    )  # fmt: skip
    if make_room:
        # In inches: the lines, and what is around them.
        figure.set_figheight(figure.get_figheight() + len(lines) * _SIZE * 1.4 / 72 + 0.3)
