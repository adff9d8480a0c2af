"""The calibration figure: how often the guesses of each confidence were right."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from labkit.evidence.charts.look import Chart


def draw_calibration(counts: dict[str, tuple[int, int]]) -> "Chart":
    """Draw the share that was right for each confidence: {confidence: (right, n)}."""
    import pandas

    from labkit.evidence.charts.of_values import bars

    right, n = (sum(column) for column in zip(*counts.values(), strict=True))
    title = f"Right {right} of {n} times"
    if "certain" in counts:
        title = "When certain, right {} of {} times".format(*counts["certain"])
    unit = "share that was right (%)"
    shares = {name: 100 * right / n for name, (right, n) in counts.items()}
    chart = bars(
        {f"{name}: {right} of {n}": shares[name] for name, (right, n) in counts.items()},
        title=title, unit=unit, of=100,
        n=f"n = {n} {'guess' if n == 1 else 'guesses'}, made before the measurement; whiskers: 95 % interval (Wilson)",
    )  # fmt: skip
    # A number at the end of a bar would stand on the whisker; "4 of 5" beside the name says it better.
    for text in list(chart.axes.texts)[: len(counts)]:
        text.remove()
    # One thing is counted in all rows, so they look alike, and lighter than the whiskers on them.
    for patch in chart.axes.patches:
        patch.set(facecolor="#B9CCE0", hatch=None)
    rows = []
    for place, (name, (right, n)) in enumerate(counts.items()):
        low, high = _wilson(right, n)
        share = shares[name]
        chart.axes.errorbar(
            share, place, xerr=[[max(0, share - low)], [max(0, high - share)]], color="#222222", capsize=5, linewidth=2
        )
        rows.append({"right": right, "n": n, "share (%)": round(share), "from": round(low), "to": round(high)})
    chart.axes.set_xlim(0, 108)
    chart.table = pandas.DataFrame(rows, index=pandas.Index(counts, name="confidence"))
    listed = "; ".join(f"{name}: right {right} of {n}" for name, (right, n) in counts.items())
    chart.alt = f"{title}. Bar chart of the {unit} for each confidence, with 95 % intervals. {listed}."
    return chart


def _wilson(right: int, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share, in per cent, by Wilson's formula, which holds for a small n too."""
    z = 1.96
    share = right / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return 100 * (middle - half), 100 * (middle + half)
