"""Figures of values and tables: any numbers that cells have measured."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Literal

import pandas

from labkit.evidence.charts.look import (
    HATCHES,
    VARIANT_STYLES,
    Chart,
    new_axes,
    new_panels,
    write_footnote,
    write_note,
    write_title,
)


def _number(value: float) -> str:
    """Return a number with four digits that count, large ones in full: 0.0012, 57, 150,000."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _number_or_none(value: float | None) -> str:
    """Return a number as _number does, or in words that there is none."""
    return "not measured" if pandas.isna(value) else _number(value)


def bars(
    values: Mapping[str, float], *, title: str, unit: str, of: float | None = None, n: str = "", log: bool = False
) -> Chart:
    """Draw one horizontal bar for each named value, with the number at its end.

    values: name -> value. unit: what the numbers count, for the axis. of: the full amount, drawn as a line.
    n: how many observations stand behind each bar, in words. log: a logarithmic axis, for values above 0; it has no
    zero for a bar to begin at, so each value is a dot on a thin line.
    """
    # The label of `of` needs room of its own over the axes.
    figure, axes = new_axes(title, unit, "", height=(1.5 if of is None else 1.8) + 0.45 * max(2, len(values)))
    for place, (name, value) in enumerate(values.items()):
        colour, marker, _ = VARIANT_STYLES[place % len(VARIANT_STYLES)]
        if log:
            axes.axhline(place, color="#CCCCCC", linewidth=1, zorder=0)
            axes.plot([value], [name], marker=marker, color=colour, markersize=9)
        else:
            hatch = HATCHES[place % len(HATCHES)]
            axes.barh(name, value, color=colour, hatch=hatch, edgecolor="white", height=0.62)
        axes.annotate(
            _number(value), (value, place), (9 if log else 4, 0), textcoords="offset points", va="center",
            fontweight="bold", bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5} if log else None,
        )  # fmt: skip
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    if log:
        axes.set_xscale("log")
        axes.set_xlim(min(values.values()) / 2, max(values.values()) * 6)
        axes.margins(y=0.15)
    else:
        axes.margins(x=0.12)
        axes.xaxis.get_major_locator().set_params(integer=all(value == int(value) for value in values.values()))
    if of is not None:
        write_title(axes, title, pad=20)
        axes.axvline(of, color="#555555", linestyle="--", linewidth=1)
        axes.annotate(
            f"all {of:,.4g}", (of, 1), xycoords=("data", "axes fraction"), fontsize=9, color="#555555",
            ha="right", va="bottom", annotation_clip=False,
        )  # fmt: skip
    if n:
        write_note(axes, n)
    full = "" if of is None else f" of {of:,.4g}"
    listed = "; ".join(f"{name} {_number(value)}{full}" for name, value in values.items())
    table = pandas.DataFrame({unit: values})
    return Chart(figure, axes, f"{title}. {'Dot' if log else 'Bar'} chart, {unit}: {listed}.", table, reads="x")


def tradeoff(table: pandas.DataFrame, *, title: str, n: str = "") -> Chart:
    """Draw what each policy gains and what it pays: one panel of bars for each column, one row for each policy.

    table: rows are the policies; the columns' names are the axis labels, with their units. n: how many observations
    stand behind a bar, in words. An empty cell is drawn as a dash. .axes is the first panel's, .figure.axes has all.
    Raises ValueError for an empty table.
    """
    rows, columns = table.shape
    if not rows or not columns:
        raise ValueError("The table has no policy (row) or nothing to compare (column).")
    figure, panels = new_panels(title, columns, height=1.9 + 0.36 * max(2, rows))
    for axes, column in zip(panels, table, strict=True):
        values = [None if pandas.isna(value) else float(value) for value in table[column]]
        for place, value in enumerate(values):
            colour = VARIANT_STYLES[place % len(VARIANT_STYLES)][0]
            hatch = HATCHES[place % len(HATCHES)]
            axes.barh(place, value or 0, color=colour, hatch=hatch, edgecolor="white", height=0.62)
            axes.annotate(
                "–" if value is None else _number(value), (value or 0, place), (4, 0), textcoords="offset points",
                va="center", fontweight="bold", fontsize=10,
            )  # fmt: skip
        # Room for the number at the end of the longest bar.
        axes.set_xlim(0, 1.45 * max((value or 0 for value in values), default=0) or 1)
        axes.xaxis.get_major_locator().set_params(nbins=3)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel(textwrap.fill(str(column), 54 // columns))
    panels[0].set_yticks(range(rows), [str(name) for name in table.index])
    panels[0].invert_yaxis()
    if n:
        write_footnote(figure, n)
    listed = "; ".join(
        f"{column}: {', '.join(f'{name} {_number_or_none(value)}' for name, value in table[column].items())}"
        for column in table
    )
    alt = f"{title}. Bar charts side by side, one for each column: {listed}."
    return Chart(figure, panels[0], alt, table.round(3), reads="x")


def curves(
    table: pandas.DataFrame,
    *,
    x: str,
    y: str,
    by: str,
    title: str,
    log: bool | Literal["x"] = False,
    spread: str = "min to max",
) -> Chart:
    """Draw one line for each variant: the median of repeated measurements, with whiskers from least to most.

    table: one row for each measurement, with the columns x, y (whose names are the axis labels, units included) and by
    (the variant's name). log: True for both axes logarithmic, "x" for that one.
    """
    groups = table.groupby([by, x], sort=False)[y].agg(["median", "min", "max", "count"])
    figure, axes = new_axes(title, x, y)
    for place, name in enumerate(table[by].unique()):
        colour, marker, line = VARIANT_STYLES[place % len(VARIANT_STYLES)]
        rows = groups.loc[name].sort_index()
        whiskers = (rows["median"] - rows["min"], rows["max"] - rows["median"])
        axes.errorbar(
            rows.index,
            rows["median"],
            yerr=whiskers,
            label=name,
            color=colour,
            marker=marker,
            linestyle=line,
            capsize=3,
        )
    if log:
        axes.set_xscale("log")
    if log is True:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
    else:
        axes.set_ylim(bottom=0)
    values = sorted(table[x].unique())
    axes.set_xticks(values, [f"{value:,.4g}" for value in values])
    axes.minorticks_off()
    axes.legend(frameon=False)
    least, most = groups["count"].min(), groups["count"].max()
    n = f"{least}" if least == most else f"{least} to {most}"
    write_note(axes, f"median of n = {n}, whiskers: {spread}")
    medians = groups["median"].unstack(0)[list(table[by].unique())].round(3)
    listed = "; ".join(
        f"{name} " + ", ".join(f"{value:,.4g} at {place:,.4g}" for place, value in medians[name].dropna().items())
        for name in medians
    )
    return Chart(figure, axes, f"{title}. Line chart of {y} against {x}: {listed}.", medians)


def matrix(
    table: pandas.DataFrame,
    *,
    title: str,
    notes: Sequence[str] = (),
    words: tuple[str, str] = ("kept", "broken"),
    empty: str = "not tried",
) -> Chart:
    """Draw a table of True and False as a matrix of signs: a filled cell with ✔, an empty one with ✘.

    table: one row for each thing judged, one column for each property; a cell may be None.
    notes: sentences to write under the matrix. words: what True and False mean, for the table and the alt text; empty:
    what None means.
    """
    rows, columns = table.shape
    figure, axes = new_axes(title, "", "", height=1.5 + 0.42 * max(2, rows))
    looks = {True: ("#0072B2", "✔", "white"), False: ("#F6DDCF", "✘", "#9A3B00"), None: ("white", "–", "#555555")}
    for row in range(rows):
        for column in range(columns):
            value = table.iat[row, column]
            fill, sign, colour = looks[None if value is None else bool(value)]
            axes.barh(row, 1, left=column, height=1, color=fill, edgecolor="white", linewidth=2)
            # DejaVu Sans comes with matplotlib and has both signs.
            axes.text(
                column + 0.5, row, sign, ha="center", va="center", color=colour, fontsize=14, family="DejaVu Sans"
            )
    # What the names of the rows take in breadth is not there for the columns.
    width = (84 - max(len(str(each)) for each in table.index)) // columns
    labels = [textwrap.fill(str(each), max(1, width), break_long_words=False) for each in table]
    axes.set_xticks([column + 0.5 for column in range(columns)], labels)
    axes.set_yticks(range(rows), table.index)
    axes.invert_yaxis()
    axes.set_xlim(0, columns)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if notes:
        most_lines = max(label.count("\n") + 1 for label in labels)
        write_note(axes, "\n".join(notes), below=14 + 14 * max(2, most_lines))
    said = table.map(lambda value: empty if value is None else words[0] if value else words[1])
    listed = "; ".join(
        f"{name}: {', '.join(f'{column}: {word}' for column, word in row.items())}" for name, row in said.iterrows()
    )
    in_words = table.map(lambda value: looks[None if value is None else bool(value)][1]) + " " + said
    return Chart(figure, axes, f"{title}. Matrix of {rows} by {columns}: {listed}.", in_words, reads="none")
