"""The figure of a run: a dot for each row with its quartiles, by how much it is over the limit."""

import io
from collections.abc import Sequence

from blocks import DOCS_LOOP, LIMIT
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator
from report import title_of

# Okabe-Ito: ours, the hub, other servers in Python, and in other languages.
_COLOURS = {"ours": "#0072B2", "hub": "#D55E00", "Python": "#009E73", "other": "#CC79A7", "limit": "#222222"}
_MARKERS = {"ours": "o", "hub": "D", "Python": "s", "other": "^", "limit": "|"}
_WORDS = {
    "hub": "the hub",
    "ours": "rungs of the ladder",
    "Python": "other libraries, Python",
    "other": "other libraries, Node",
    "limit": "the limit itself, joined",
}
_LOOK = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False}


def kind_of(row: dict) -> str:
    """Return to which group of dots a row belongs."""
    if row["variant"] in ("hub", LIMIT):
        return row["variant"]
    if row["variant"].endswith("Manager"):
        return "ours"
    return "other" if row["loop"] == "node" else "Python"


def label_of(row: dict) -> str:
    """Return what stands beside a row's dot: the variant, and what is out of the ordinary about it."""
    words = [title_of(row)]
    words += [f"{row['joined']} joined"] if row["joined"] > 1 else []
    words += [f"{row['body_bytes']:,} B"] if row["body_bytes"] != 100 else []
    words += ["uvloop"] if row["loop"] == "uvloop" else []
    return ", ".join(words)


def finding_of(rows: Sequence[dict], clients: int) -> str:
    """Return the title of the figure: what the rows of the plain case say about the hub and the docs loop."""
    plain = {
        row["variant"]: row["ratio_to_limit"]
        for row in rows
        if row["clients"] == clients and row["joined"] == 1 and row["body_bytes"] == 100
        and row["loop"] != "uvloop" and not row["deflate"]
    }  # fmt: skip
    words = {"hub": "the hub takes", DOCS_LOOP: "the docs loop", "uWebSockets.js": "uWebSockets.js"}
    said = [f"{words[name]} {plain[name]:.2f}" for name in words if name in plain]
    if not said:
        return f"CPU for a delivery to {clients:,} clients"
    return f"With {clients:,} clients {', '.join(said)} times the CPU of a C loop of send()"


def draw(rows: Sequence[dict]) -> bytes:
    """Return the figure as a PNG: a panel for each number of clients, rows from the cheapest to the dearest."""
    shown = [row for row in rows if not (row["variant"] == LIMIT and row["joined"] == 1)]
    sizes = list(dict.fromkeys(row["clients"] for row in shown))
    counts = [sum(row["clients"] == size for row in shown) for size in sizes]
    with rc_context(_LOOK):
        figure = Figure(figsize=(9, 1.6 + 0.27 * sum(counts) + 0.5 * len(sizes)), layout="constrained")
        panels = figure.subplots(len(sizes), 1, sharex=True, squeeze=False, height_ratios=[n + 1 for n in counts])
        for axes, size in zip(panels[:, 0], sizes, strict=True):
            draw_panel(axes, sorted((row for row in shown if row["clients"] == size), key=_ratio))
            axes.set_title(f"{size:,} clients", loc="left", fontsize=10.5, fontweight="bold")
        last = panels[-1, 0]
        last.set_xscale("log")
        last.set_xlabel("server CPU for one delivery, by that of a C loop of send() beside it (×, logarithmic)")
        values = [row["ratio_to_limit"] for row in shown]
        last.set_xlim(min(*values, 0.9) / 1.5, max(*values, 1.1) * 2.2)
        last.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        last.xaxis.set_minor_locator(NullLocator())
        last.xaxis.set_major_formatter("{x:g}")
        handles = {}
        for axes in panels[:, 0]:
            for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
                handles.setdefault(label, handle)
        figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
        # The figure is about a thousand clients where it has them.
        middle = 1000 if 1000 in sizes else sizes[-1]
        figure.suptitle(finding_of(rows, middle), x=0.01, ha="left", fontsize=12.5, fontweight="bold", wrap=True)
        image = io.BytesIO()
        figure.savefig(image, format="png", dpi=110)
    return image.getvalue()


def draw_panel(axes: object, rows: Sequence[dict]) -> None:
    """Draw the dots of one number of clients."""
    for place, row in enumerate(rows):
        kind = kind_of(row)
        middle = row["ratio_to_limit"]
        low, high = row["ratio_to_limit_quartiles"]
        axes.errorbar(
            [middle], [place], xerr=[[middle - low], [high - middle]], color=_COLOURS[kind], marker=_MARKERS[kind],
            markersize=7, linestyle="none", capsize=3, label=_WORDS[kind],
        )  # fmt: skip
        axes.annotate(f"{middle:#.3g}", (high, place), (7, 0), textcoords="offset points", va="center", fontsize=9)
    axes.set_yticks(range(len(rows)), [label_of(row) for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.axvline(1, color="#555555", linestyle="--", linewidth=1, zorder=0)
    axes.grid(axis="x", color="#e4e4e4")
    axes.set_axisbelow(True)


def _ratio(row: dict) -> float:
    return row["ratio_to_limit"]
