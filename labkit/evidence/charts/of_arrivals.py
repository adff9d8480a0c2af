"""Figures of deliveries: who got what, and when."""

from collections.abc import Mapping

import pandas
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator

from labkit.apparatus.clients import Deliveries
from labkit.evidence.charts.look import BEHAVIOUR_STYLES, TABLE_ROWS, VARIANT_STYLES, Chart, new_axes, write_note
from labkit.evidence.measure import arrivals_table


def of_run(deliveries: Deliveries, run: int | None) -> pandas.DataFrame:
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
    rows = of_run(deliveries, run)
    grouped = rows.groupby(["client", "behaviour"])["latency_ms"]
    places = grouped.quantile([0.25, 0.5, 0.75]).unstack().reset_index("behaviour")
    places.columns = ["behaviour", "q1_ms", "latency_ms", "q3_ms"]
    figure, axes = new_axes(title, "place in the registry", "arrival after it was due (ms)")
    axes.fill_between(places.index, places["q1_ms"], places["q3_ms"], color="#d0d0d0", linewidth=0)
    _scatter(axes, places.reset_index(), "client", "latency_ms")
    axes.set_ylim(bottom=0)
    messages = rows["seq"].nunique()
    spread = f"median of n = {messages} messages, band: quartiles" if messages > 1 else "n = 1 message"
    write_note(axes, f"{len(places)} clients, {spread}; stamped by the {deliveries.stamped_by}")
    first, last = places.iloc[0], places.iloc[-1]
    alt = (
        f"{title}. Arrival against place in the registry, {len(places)} clients, {spread}: place {first.name} at "
        f"{first.latency_ms:.1f} ms, place {last.name} at {last.latency_ms:.1f} ms, the latest of all at "
        f"{places.latency_ms.max():.1f} ms."
    )
    step = max(1, -(-len(places) // (TABLE_ROWS - 1)))
    rows_shown = sorted({*range(0, len(places), step), len(places) - 1})
    return Chart(figure, axes, alt, places.round(2).iloc[rows_shown])


def arrivals(deliveries: Deliveries, *, title: str, run: int | None = None) -> Chart:
    """Draw every delivery of one publish(): time across, clients up, one marker for each message that arrived.

    A client that nothing reaches has an empty line. run: which publish(), by default the last.
    Raises ValueError when nothing has arrived.
    """
    rows = of_run(deliveries, run)
    # The first scheduled moment is 0; it is the arrival of message 1 less its latency.
    started_at = (rows["arrived_at"] - rows["latency_ms"] / 1000).min()
    rows = rows.assign(seconds=rows["arrived_at"] - started_at)
    height = min(6.0, 2.2 + 0.12 * len(deliveries.roster))
    figure, axes = new_axes(title, "time since the first message was due (s)", "client", height=height)
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
    write_note(axes, f"n = {len(rows)} deliveries of {of} messages; stamped by the {deliveries.stamped_by}")
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


def latencies(
    variants: Mapping[str, Deliveries],
    *,
    title: str,
    run: int | Mapping[str, int] | None = None,
    behaviour: str = "healthy",
) -> Chart:
    """Draw for each variant the share of all expected deliveries that had arrived within a time; lost ones show.

    Expected is every published message of the run at every client of one behaviour, also what was never sent. A curve
    that ends below 100 % has lost the rest. Latency counts from the moment at which the message was due.
    variants: name -> deliveries of one fleet. run: which publish(), by default the last of each; with a name for each,
    one fleet can be its own variant: `run={"loop": first.run, "gather": second.run}`.
    The table's p50, p99 and max are of what arrived. Raises ValueError where nothing arrived, or nobody behaves so.
    """
    figure, axes = new_axes(title, "within this time after it was due (ms)", "share of all deliveries (%)")
    table, amounts, ends = {}, {}, []
    for name, deliveries in variants.items():
        clients = sum(each == behaviour for each in deliveries.roster.values())
        if not clients:
            raise ValueError(f"{name}: the fleet has no {behaviour} client.")
        try:
            rows = of_run(deliveries, run[name] if isinstance(run, Mapping) else run)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
        amounts[name] = (clients, int(rows["of"].iloc[0]))
        expected = clients * amounts[name][1]
        # The two clocks differ by microseconds, and a logarithmic axis has no place for 0.
        waits = rows.loc[rows["behaviour"] == behaviour, "latency_ms"].clip(lower=0.01).sort_values()
        shares = [100 * place / expected for place in range(1, len(waits) + 1)]
        table[name] = (100 * len(waits) / expected, waits.quantile(0.5), waits.quantile(0.99), waits.max())
        ends.append((name, list(waits), shares))
    right = max((waits[-1] for _, waits, _ in ends if waits), default=1.0) * 1.25
    left = min((waits[0] for _, waits, _ in ends if waits), default=0.1) / 1.25
    for place, (name, waits, shares) in enumerate(ends):
        colour, marker, line = VARIANT_STYLES[place % len(VARIANT_STYLES)]
        # It begins at nothing, and stays where its last arrival has left it.
        across, up = [left, *waits, right], [0.0, *shares, shares[-1] if shares else 0.0]
        marks = sorted({int(len(waits) * part / 6) for part in range(1, 7)} - {0})
        axes.plot(
            across, up, drawstyle="steps-post", label=name, color=colour, linestyle=line, marker=marker,
            markevery=marks, markersize=6, linewidth=1.8,
        )  # fmt: skip
    axes.set_xscale("log")
    # Over a short range the powers of ten alone would leave the axis without numbers.
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if right / left < 300 else (1,)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.minorticks_off()
    axes.set_xlim(left, right)
    axes.set_ylim(0, 104)
    _mark_ends(axes, {name: row[0] for name, row in table.items()})
    axes.legend(frameon=True, framealpha=0.85, edgecolor="none", fontsize=9, loc="best")
    sizes = sorted(set(amounts.values()))
    n = " or ".join(f"{clients} {behaviour} clients × {of} messages" for clients, of in sizes)
    stamped_by = ", ".join(dict.fromkeys(each.stamped_by for each in variants.values()))
    write_note(axes, f"each curve: n = {n}; stamped by the {stamped_by}")
    columns = ["arrived (%)", "p50 (ms)", "p99 (ms)", "max (ms)"]
    shown = pandas.DataFrame.from_dict(table, orient="index", columns=columns).round(1)
    listed = "; ".join(
        f"{name} {percent(share)} arrived"
        + (f", half of these within {p50:.1f} ms, the last at {longest:.1f} ms" if share else "")
        for name, (share, p50, _, longest) in table.items()
    )
    return Chart(figure, axes, f"{title}. Share of {n} that had arrived against time, a curve each: {listed}.", shown)


def percent(share: float) -> str:
    """Return a share of a hundred, never rounded up to all or down to nothing: 99.96 is "99.9 %"."""
    if share in (0, 100):
        return f"{share:.0f} %"
    return f"{share:.0f} %" if 1 <= share <= 99 else f"{min(max(share, 0.1), 99.9):.1f} %"


def _mark_ends(axes: Axes, shares: Mapping[str, float]) -> None:
    """Write beside each curve that ends below 100 % where it ends, in its colour; labels keep clear of each other."""
    place = -9.0
    for number, share in sorted(enumerate(shares.values()), key=lambda each: each[1]):
        if share >= 100:
            continue
        place = max(place + 6.5, share)
        axes.annotate(
            percent(share), (1, place), (5, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
            color=VARIANT_STYLES[number % len(VARIANT_STYLES)][0], fontweight="bold", va="center",
            annotation_clip=False,
        )  # fmt: skip
