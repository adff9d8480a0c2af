"""Figures: tables become matplotlib Axes, each with an alt text built from its data and the table beside it."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from typing import Literal

import pandas
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from labkit.apparatus.clients import Deliveries
from labkit.evidence.measure import arrivals_table

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
_LOOK = {
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "axes.axisbelow": True,
}
_TABLE_ROWS = 14
_DOTS_PER_INCH = 110


class Chart:
    """A figure that shows itself as an HTML image with alt text and its table beside.

    .axes the matplotlib Axes, for drawing more into it before it is shown. .alt the text for those who do not see it.
    .table the DataFrame behind it.
    """

    def __init__(self, figure: Figure, axes: Axes, alt: str, table: pandas.DataFrame) -> None:
        self.figure = figure
        self.axes = axes
        self.alt = alt
        self.table = table

    def __repr__(self) -> str:
        return self.alt

    def png(self) -> bytes:
        """Return the figure as a PNG image."""
        buffer = io.BytesIO()
        with rc_context(_LOOK):
            self.figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH, bbox_inches="tight")
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        image = base64.b64encode(self.png()).decode()
        more = len(self.table) - _TABLE_ROWS
        rest = f"<p>and {more} more rows in <code>.table</code></p>" if more > 0 else ""
        return (
            '<div style="display:flex;flex-wrap:wrap;gap:1.5em;align-items:flex-start">'
            f'<img alt="{html.escape(self.alt, quote=True)}" style="max-width:100%;width:560px;background:white" '
            f'src="data:image/png;base64,{image}">'
            f"<div>{self.table.head(_TABLE_ROWS).to_html(border=0)}{rest}</div></div>"
        )


def _axes(title: str, x_label: str, y_label: str, *, height: float = 3.8) -> tuple[Figure, Axes]:
    """Return a new figure and its axes in the course's look; pyplot, with its global state, stays out of it."""
    with rc_context(_LOOK):
        figure = Figure(figsize=(7.2, height), layout="constrained")
        axes = figure.add_subplot()
    _title(axes, title)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return figure, axes


def _title(axes: Axes, title: str, pad: float = 6) -> None:
    """Write the finding over the axes; pad: points between them."""
    axes.set_title(title, wrap=True, loc="left", fontsize=12.5, fontweight="bold", pad=pad)


def _note(axes: Axes, text: str) -> None:
    """Write n, spread and the source of the clock under the axes."""
    axes.annotate(
        text, (0, 0), (0, -42), xycoords="axes fraction", textcoords="offset points", fontsize=9, color="#555555",
        va="top", annotation_clip=False,
    )  # fmt: skip


def _of_run(deliveries: Deliveries, run: int | None) -> pandas.DataFrame:
    """Return the rows of one publish() run, the last one when None; raise ValueError when there are none."""
    table = arrivals_table(deliveries)
    if table.empty:
        raise ValueError("No published message has arrived. Was publish() called, and did fleet.until() wait for it?")
    return table[table["run"] == (table["run"].max() if run is None else run)]


def _scatter(axes: Axes, table: pandas.DataFrame, x: str, y: str) -> None:
    """Draw one marker a row, each behaviour in its colour and shape."""
    for behaviour, rows in table.groupby("behaviour", sort=False):
        colour, marker = BEHAVIOUR_STYLES[behaviour]
        axes.scatter(rows[x], rows[y], s=16, color=colour, marker=marker, linewidths=0, label=behaviour)


def staircase(deliveries: Deliveries, *, title: str, run: int | None = None) -> Chart:
    """Draw when a message arrived at each client, against the client's place in the registry.

    With more than one message: the median for each place, and a band from the first to the third quartile.
    deliveries: of a fleet, numbered in the order in which it connected. run: which publish(), by default the last.
    Raises ValueError when nothing of it has arrived.
    """
    rows = _of_run(deliveries, run)
    grouped = rows.groupby(["client", "behaviour"])["latency_ms"]
    places = grouped.quantile([0.25, 0.5, 0.75]).unstack().reset_index("behaviour")
    places.columns = ["behaviour", "q1_ms", "latency_ms", "q3_ms"]
    figure, axes = _axes(title, "place in the registry", "arrival after it was due (ms)")
    axes.fill_between(places.index, places["q1_ms"], places["q3_ms"], color="#d0d0d0", linewidth=0)
    _scatter(axes, places.reset_index(), "client", "latency_ms")
    axes.set_ylim(bottom=0)
    messages = rows["seq"].nunique()
    spread = f"median of n = {messages} messages, band: quartiles" if messages > 1 else "n = 1 message"
    _note(axes, f"{len(places)} clients, {spread}; stamped by the {deliveries.stamped_by}")
    first, last = places.iloc[0], places.iloc[-1]
    alt = (
        f"{title}. Arrival against place in the registry, {len(places)} clients, {spread}: place {first.name} at "
        f"{first.latency_ms:.1f} ms, place {last.name} at {last.latency_ms:.1f} ms, the latest of all at "
        f"{places.latency_ms.max():.1f} ms."
    )
    step = max(1, -(-len(places) // (_TABLE_ROWS - 1)))
    rows_shown = sorted({*range(0, len(places), step), len(places) - 1})
    return Chart(figure, axes, alt, places.round(2).iloc[rows_shown])


def arrivals(deliveries: Deliveries, *, title: str, run: int | None = None) -> Chart:
    """Draw every delivery of one publish(): time across, clients up, one marker for each message that arrived.

    A client that nothing reaches has an empty line. run: which publish(), by default the last.
    Raises ValueError when nothing has arrived.
    """
    rows = _of_run(deliveries, run)
    # The first scheduled moment is 0; it is the arrival of message 1 less its latency.
    started_at = (rows["arrived_at"] - rows["latency_ms"] / 1000).min()
    rows = rows.assign(seconds=rows["arrived_at"] - started_at)
    height = min(6.0, 2.2 + 0.12 * len(deliveries.roster))
    figure, axes = _axes(title, "time since the first message was due (s)", "client", height=height)
    _scatter(axes, rows, "seconds", "client")
    silent = {number: each for number, each in deliveries.roster.items() if number not in set(rows["client"])}
    for number, behaviour in silent.items():
        axes.axhline(number, color=BEHAVIOUR_STYLES[behaviour][0], linewidth=1, linestyle=":")
        axes.annotate(
            f"{behaviour}: nothing arrived ", (1, number), xycoords=("axes fraction", "data"), fontsize=9,
            ha="right", va="bottom", color="#333333",
        )  # fmt: skip
    axes.set_ylim(0.2, len(deliveries.roster) + 0.8)
    axes.set_xlim(left=-0.02 * rows["seconds"].max())
    axes.yaxis.get_major_locator().set_params(integer=True)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False, fontsize=9)
    of = int(rows["of"].iloc[0])
    _note(axes, f"n = {len(rows)} deliveries of {of} messages; stamped by the {deliveries.stamped_by}")
    got = rows.groupby("behaviour", sort=False)["seq"].agg(["count", "max"])
    table = pandas.DataFrame(
        {
            "clients": pandas.Series(deliveries.roster).value_counts(sort=False),
            "delivered": got["count"],
            "last message": got["max"],
        }
    ).fillna(0).astype(int)  # fmt: skip
    table.index.name = "behaviour"
    listed = "; ".join(
        f"{row.clients} {behaviour} got {row.delivered} deliveries, the last of message {row['last message']} of {of}"
        for behaviour, row in table.iterrows()
    )
    alt = f"{title}. One line for each client, one mark for each arrival over {rows['seconds'].max():.2f} s: {listed}."
    return Chart(figure, axes, alt, table)


def _number(value: float) -> str:
    """Return a number with four digits that count, large ones in full: 0.0012, 57, 150,000."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def bars(
    values: Mapping[str, float], *, title: str, unit: str, of: float | None = None, n: str = "", log: bool = False
) -> Chart:
    """Draw one horizontal bar for each named value, with the number at its end.

    values: name -> value. unit: what the numbers count, for the axis. of: the full amount, drawn as a line.
    n: how many observations stand behind each bar, in words. log: a logarithmic axis, for values above 0; it has no
    zero for a bar to begin at, so each value is a dot on a thin line.
    """
    # The label of `of` needs room of its own over the axes.
    figure, axes = _axes(title, unit, "", height=(1.5 if of is None else 1.8) + 0.45 * max(2, len(values)))
    hatches = ("", "//", "..", "xx", "\\\\", "++")
    for place, (name, value) in enumerate(values.items()):
        colour, marker, _ = VARIANT_STYLES[place % len(VARIANT_STYLES)]
        if log:
            axes.axhline(place, color="#CCCCCC", linewidth=1, zorder=0)
            axes.plot([value], [name], marker=marker, color=colour, markersize=9)
        else:
            hatch = hatches[place % len(hatches)]
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
        _title(axes, title, pad=20)
        axes.axvline(of, color="#555555", linestyle="--", linewidth=1)
        axes.annotate(
            f"all {of:,.4g}", (of, 1), xycoords=("data", "axes fraction"), fontsize=9, color="#555555",
            ha="right", va="bottom", annotation_clip=False,
        )  # fmt: skip
    if n:
        _note(axes, n)
    full = "" if of is None else f" of {of:,.4g}"
    listed = "; ".join(f"{name} {_number(value)}{full}" for name, value in values.items())
    table = pandas.DataFrame({unit: values})
    return Chart(figure, axes, f"{title}. {'Dot' if log else 'Bar'} chart, {unit}: {listed}.", table)


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
    figure, axes = _axes(title, x, y)
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
    _note(axes, f"median of n = {n}, whiskers: {spread}")
    medians = groups["median"].unstack(0)[list(table[by].unique())].round(3)
    listed = "; ".join(
        f"{name} " + ", ".join(f"{value:,.4g} at {place:,.4g}" for place, value in medians[name].dropna().items())
        for name in medians
    )
    return Chart(figure, axes, f"{title}. Line chart of {y} against {x}: {listed}.", medians)


def matrix(
    table: pandas.DataFrame, *, title: str, notes: Sequence[str] = (), words: tuple[str, str] = ("kept", "broken")
) -> Chart:
    """Draw a table of True and False as a matrix of signs: a filled cell with ✔, an empty one with ✘.

    table: one row for each thing judged, one column for each property; a cell may be None for "not tried".
    notes: sentences to write under the matrix. words: what True and False mean, for the table and the alt text.
    """
    rows, columns = table.shape
    figure, axes = _axes(title, "", "", height=1.5 + 0.42 * max(2, rows))
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
    axes.set_xticks([column + 0.5 for column in range(columns)], [str(each).replace(" ", "\n", 1) for each in table])
    axes.set_yticks(range(rows), table.index)
    axes.invert_yaxis()
    axes.set_xlim(0, columns)
    axes.tick_params(length=0)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_visible(False)
    if notes:
        _note(axes, "\n".join(notes))
    listed = "; ".join(
        f"{name}: {words[0]} {', '.join(str(column) for column in table if row[column]) or 'nothing'}"
        for name, row in table.iterrows()
    )
    in_words = table.replace({True: f"✔ {words[0]}", False: f"✘ {words[1]}"})
    return Chart(figure, axes, f"{title}. Matrix of {rows} by {columns}: {listed}.", in_words)
