"""The figure of clients that come back: how many are there again, and how many came at a time."""

from collections.abc import Mapping, Sequence

import pandas
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from labkit.apparatus.clients import Return
from labkit.evidence.charts.look import LOOK, VARIANT_STYLES, Chart, write_note

_TENTH = 0.1


def comebacks(variants: Mapping[str, Sequence[Return]], *, title: str) -> Chart:
    """Draw how clients that lost their connection come back: above how many are back, below how many in each 0.1 s.

    Both against the time since the first of a variant noticed its loss. A curve that ends below the line has lost
    the rest: they are away still.
    variants: name -> `fleet.returns`, or a part of it, in which each client is lost once.
    The table has one row a variant: how many were lost and are back, when the first, half and the last of all were
    back, empty where it did not come to that, and how many came in the busiest tenth of a second.
    Raises ValueError where nobody lost a connection.
    """
    waits = {name: _waits(name, returns) for name, returns in variants.items()}
    lost = {name: len(returns) for name, returns in variants.items()}
    until = max((seconds[-1] for seconds in waits.values() if seconds), default=1.0) * 1.05
    tenths = {name: _each_tenth(seconds, until) for name, seconds in waits.items()}

    with rc_context(LOOK):
        figure = Figure(figsize=(7.2, 4.8), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    figure.suptitle(title, wrap=True, x=0.01, ha="left", fontsize=12.5, fontweight="bold")
    for place, name in enumerate(variants):
        _draw_back(above, place, name, waits[name], until)
        _draw_tenths(below, place, tenths[name])
    for amount in set(lost.values()):
        above.axhline(amount, color="#555555", linestyle="--", linewidth=1, zorder=1)
    above.set_ylim(0, 1.08 * max(lost.values()))
    above.set_ylabel("clients back")
    above.legend(frameon=False, loc="lower right")
    below.set_xlim(0, until)
    below.set_ylim(bottom=0)
    below.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    below.set_ylabel("back in\neach 0.1 s")
    below.set_xlabel("time since the first noticed its loss (s)")
    n = " or ".join(str(amount) for amount in dict.fromkeys(lost.values()))
    write_note(below, f"n = {n} clients who lost their connection, 1 run each")

    table = _table(lost, waits, tenths)
    listed = "; ".join(
        f"{name} {row['back']:.0f} of {row['lost']:.0f} back"
        + (f", the last after {waits[name][-1]:.2f} s" if waits[name] else "")
        + f", {row['most in 0.1 s']:.0f} in the busiest tenth of a second"
        for name, row in table.iterrows()
    )
    alt = f"{title}. Clients back against time, and how many in each tenth of a second: {listed}."
    return Chart(figure, above, alt, table)


def _waits(name: str, returns: Sequence[Return]) -> list[float]:
    """Return after how many seconds each client was back, counted from the first loss of all, in order."""
    if not returns:
        raise ValueError(f"{name}: no client lost its connection. Was a server killed, and has the fleet come_back=?")
    began = min(each.lost_at for each in returns)
    return sorted(each.back_at - began for each in returns if each.back_at is not None)


def _each_tenth(seconds: Sequence[float], until: float) -> list[int]:
    """Return how many fall into each tenth of a second."""
    counts = [0] * (int(until / _TENTH) + 1)
    for moment in seconds:
        counts[int(moment / _TENTH)] += 1
    return counts


def _draw_back(axes: Axes, place: int, name: str, seconds: Sequence[float], until: float) -> None:
    """Draw the number of those who are back as a curve of steps."""
    colour, marker, line = VARIANT_STYLES[place % len(VARIANT_STYLES)]
    axes.plot(
        [0, *seconds, until], [0, *range(1, len(seconds) + 1), len(seconds)], drawstyle="steps-post", label=name,
        color=colour, linestyle=line, marker=marker, markevery=max(1, len(seconds) // 6), markersize=6,
    )  # fmt: skip


def _draw_tenths(axes: Axes, place: int, counts: Sequence[int]) -> None:
    """Draw a needle for each tenth of a second in which somebody came back."""
    colour, marker, _ = VARIANT_STYLES[place % len(VARIANT_STYLES)]
    needles = [((tenth + 0.5) * _TENTH, count) for tenth, count in enumerate(counts) if count]
    axes.vlines([moment for moment, _ in needles], 0, [count for _, count in needles], color=colour, linewidth=1.2)
    axes.scatter(*zip(*needles, strict=True) if needles else ([], []), color=colour, marker=marker, s=28, zorder=3)


def _table(
    lost: Mapping[str, int], waits: Mapping[str, Sequence[float]], tenths: Mapping[str, Sequence[int]]
) -> pandas.DataFrame:
    """Return one row a variant."""
    rows = {}
    for name, seconds in waits.items():
        # When so many of all who were lost were back, if ever.
        moments = [
            seconds[count - 1] if count <= len(seconds) else None for count in (1, -(-lost[name] // 2), lost[name])
        ]
        rows[name] = (lost[name], len(seconds), *moments, max(tenths[name]))
    columns = ["lost", "back", "first back (s)", "half back (s)", "all back (s)", "most in 0.1 s"]
    return pandas.DataFrame.from_dict(rows, orient="index", columns=columns).round(2)
