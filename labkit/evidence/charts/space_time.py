"""The space-time diagram of a broadcast: each message on its way from the server to each client."""

import pandas
from matplotlib.axes import Axes

from labkit.apparatus.clients import Deliveries
from labkit.apparatus.crowd.swarm import ranges
from labkit.evidence.charts.look import BEHAVIOUR_STYLES, Chart, new_axes, write_note, write_title
from labkit.evidence.charts.of_arrivals import of_run

_MOST_CLIENTS = 20
_MOST_MESSAGES = 12
# From here on, an axis in seconds reads better.
_LONG_MS = 2_000


def space_time(
    deliveries: Deliveries, *, title: str, run: int | None = None, messages: tuple[int, int] | None = None
) -> Chart:
    """Draw each message as a line from the server, at the moment when it was due, to each client, when it arrived.

    A message that a client never got is a dashed line that ends in a cross before the client; one that nobody got is a
    single short one, at the server.
    The trap: the lines begin when a message was due, not when it was sent; a slope holds the waiting, too.
    messages: the first and last seq to show, by default all. run: which publish(), by default the last.
    Raises ValueError when nothing of it arrived, or for what nobody could read: more than 20 clients or 12 messages.
    """
    rows = of_run(deliveries, run)
    first, last = messages or (1, int(rows["of"].iloc[0]))
    roster = deliveries.roster
    if len(roster) > _MOST_CLIENTS:
        raise ValueError(
            f"{len(roster)} clients are too many lines to read, {_MOST_CLIENTS} are the most. "
            "Publish to a smaller fleet for this figure, or draw arrivals()."
        )
    if last - first + 1 > _MOST_MESSAGES:
        raise ValueError(
            f"{last - first + 1} messages are too many to tell apart, {_MOST_MESSAGES} are the most. "
            f"Choose some: messages=({first}, {first + 7})."
        )
    due = _due_moments(rows)
    rows = rows[rows["seq"].between(first, last)]
    if rows.empty:
        raise ValueError(f"None of the messages {first} to {last} has arrived anywhere.")
    due = {seq: moment for seq, moment in due.items() if first <= seq <= last}
    started_at = min(due.values())
    arrived = {(row.seq, row.client): (row.arrived_at - started_at) * 1000 for row in rows.itertuples()}
    due_ms = {seq: (moment - started_at) * 1000 for seq, moment in due.items()}
    span_ms = max(*arrived.values(), *due_ms.values())
    unit, factor = ("s", 0.001) if span_ms >= _LONG_MS else ("ms", 1.0)

    since = "the first message" if first == 1 else f"message {min(due)}"
    figure, axes = new_axes(title, f"time since {since} was due ({unit})", "", height=2.1 + 0.2 * max(6, len(roster)))
    _draw_lines(axes, roster, {client for _, client in arrived})
    typical_ms = rows["latency_ms"].median()
    for seq, begins in due_ms.items():
        here = [arrived[seq, client] for client in roster if (seq, client) in arrived]
        if not here:
            _draw_lost(axes, begins * factor, (begins + typical_ms / 2) * factor, 0.55, f"message {seq} lost to all")
            continue
        for client, behaviour in roster.items():
            colour, marker = BEHAVIOUR_STYLES[behaviour]
            if (seq, client) in arrived:
                across = [begins * factor, arrived[seq, client] * factor]
                axes.plot(
                    across, [0, client], color=colour, linewidth=0.9, alpha=0.75, marker=marker, markersize=6,
                    markevery=[1], markeredgewidth=0, zorder=3, gid=f"message {seq} to {client}",
                )  # fmt: skip
            else:
                halfway = sorted(here)[len(here) // 2] * factor
                _draw_lost(axes, begins * factor, halfway, client - 0.38, f"message {seq} lost to {client}")
    _number_messages(axes, {seq: begins * factor for seq, begins in due_ms.items()}, span_ms * factor)
    axes.set_xlim(-0.04 * span_ms * factor, 1.04 * span_ms * factor)
    _name_behaviours(axes, roster, lost=len(arrived) < len(due_ms) * len(roster))

    table = _table(due_ms, arrived, roster)
    nowhere = sorted(set(range(first, last + 1)) - set(due_ms))
    unknown = f"message {ranges(nowhere)} arrived nowhere and is not drawn; " if nowhere else ""
    n = f"n = {len(due_ms)} {'message' if len(due_ms) == 1 else 'messages'}, {len(roster)} clients"
    write_note(axes, f"{n}; {unknown}lines begin when due; stamped by the {deliveries.stamped_by}")
    crowd = ", ".join(f"{amount} {each}" for each, amount in pandas.Series(roster).value_counts(sort=False).items())
    listed = "; ".join(
        f"message {seq}, due at {row['due (ms)']:.1f} ms, "
        + (
            f"reaches {row['reached']} of {len(roster)} after {row['first after (ms)']:.1f} to "
            f"{row['last after (ms)']:.1f} ms" + (f", never client {row['never at']}" if row["never at"] else "")
            if row["reached"]
            else "reaches nobody"
        )
        for seq, row in table.iterrows()
    )
    told = f" {unknown[0].upper()}{unknown[1:-2]}." if unknown else ""
    alt = f"{title}. Space-time diagram from the server to {len(roster)} clients ({crowd}): {listed}.{told}"
    return Chart(figure, axes, alt, table)


def _due_moments(rows: pandas.DataFrame) -> dict[int, float]:
    """Return when each message was due, in seconds; of those that arrived nowhere, too, where the schedule is known.

    publish() schedules evenly, so that two messages tell of all; from one alone nothing is known of the others.
    """
    known = (rows["arrived_at"] - rows["latency_ms"] / 1000).groupby(rows["seq"]).first()
    if len(known) == 1:
        return {int(known.index[0]): float(known.iloc[0])}
    first, last = known.index[0], known.index[-1]
    every = (known[last] - known[first]) / (last - first)
    return {
        seq: float(known[seq] if seq in known.index else known[first] + (seq - first) * every)
        for seq in range(1, int(rows["of"].iloc[0]) + 1)
    }


def _draw_lines(axes: Axes, roster: dict[int, str], reached: set[int]) -> None:
    """Draw the server's line and one for each client, with who waits in vain."""
    axes.axhline(0, color="#222222", linewidth=3.5, zorder=5, gid="server")
    for client, behaviour in roster.items():
        axes.axhline(client, color=BEHAVIOUR_STYLES[behaviour][0], linewidth=1, gid=f"client {client}")
        if client not in reached:
            axes.annotate(
                f"{behaviour}: never arrives", (1, client), (4, 0), xycoords=("axes fraction", "data"), fontsize=9,
                textcoords="offset points", va="center", color="#333333", annotation_clip=False,
            )  # fmt: skip
    axes.set_yticks([0, *roster], ["server", *(f"client {client}" for client in roster)], fontsize=9)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)
    axes.set_ylim(-1.1, len(roster) + 0.9)


def _draw_lost(axes: Axes, begins: float, ends: float, height: float, tag: str) -> None:
    """Draw a dashed line from the server that ends in a cross at a height below the client's line."""
    axes.plot(
        [begins, ends], [0, height], color="#333333", linewidth=0.8, linestyle=(0, (3, 3)), marker="x", markersize=6,
        markeredgewidth=1.6, markevery=[1], zorder=4, gid=tag,
    )  # fmt: skip


def _number_messages(axes: Axes, begins: dict[int, float], span: float) -> None:
    """Write the messages' numbers under the server's line, together where they would cover each other."""
    groups: list[list[int]] = []
    for seq, moment in begins.items():
        if groups and moment - begins[groups[-1][0]] < 0.035 * span:
            groups[-1].append(seq)
        else:
            groups.append([seq])
    for seqs in groups:
        axes.annotate(
            ranges(seqs), (begins[seqs[0]], 0), (0, -4), textcoords="offset points", ha="center", va="top", fontsize=9,
            fontweight="bold", color="#222222",
        )  # fmt: skip


def _name_behaviours(axes: Axes, roster: dict[int, str], *, lost: bool) -> None:
    """Write over the diagram which mark means what."""
    for behaviour in dict.fromkeys(roster.values()):
        colour, marker = BEHAVIOUR_STYLES[behaviour]
        axes.plot([], [], color=colour, marker=marker, linewidth=1, label=behaviour)
    if lost:
        axes.plot([], [], color="#333333", marker="x", linewidth=0.8, linestyle=(0, (3, 3)), label="never arrived")
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 0.985), ncols=6, frameon=False, fontsize=9, borderaxespad=0,
        columnspacing=1.4, handletextpad=0.5,
    )  # fmt: skip
    write_title(axes, axes.get_title(loc="left"), pad=24)


def _table(due_ms: dict[int, float], arrived: dict[tuple[int, int], float], roster: dict[int, str]) -> pandas.DataFrame:
    """Return one row a message: when due, how many it reached, the first and last wait, and whom it never reached."""
    rows = {}
    for seq, due in due_ms.items():
        waits = [arrived[seq, client] - due for client in roster if (seq, client) in arrived]
        never = ranges([client for client in roster if (seq, client) not in arrived])
        rows[seq] = (due, len(waits), min(waits, default=None), max(waits, default=None), never)
    columns = ["due (ms)", "reached", "first after (ms)", "last after (ms)", "never at"]
    table = pandas.DataFrame.from_dict(rows, orient="index", columns=columns).round(1)
    table.index.name = "message"
    return table
