"""The figure of clients that come back: a curve of those who are back, a needle for each tenth of a second."""

import pytest

from labkit.apparatus.clients import Return
from labkit.evidence.charts.of_returns import comebacks


def returns(*moments: float | None) -> list[Return]:
    """Return one loss for each client, all lost around 100 s, and back so many seconds after the first loss."""
    return [
        Return(client, 100.0 + client / 1000, None if moment is None else 100.001 + moment, 1, 1006)
        for client, moment in enumerate(moments, 1)
    ]


STEP = returns(0.01, 0.02, 0.03, 0.04)
SLOPE = returns(0.25, 0.75, 1.25, None)


def chart():
    """Return the figure of a step, and of a slope whose last client is away."""
    return comebacks({"at once": STEP, "with jitter": SLOPE}, title="A server dies")


def test_table_says_who_is_back_and_when():
    """Half and all are of those who were lost, so one who is away leaves a place empty."""
    table = chart().table
    assert table.loc["at once"].tolist() == [4, 4, 0.01, 0.02, 0.04, 4]
    assert table.loc["with jitter", ["lost", "back", "first back (s)", "half back (s)", "most in 0.1 s"]].tolist() == [
        4, 3, 0.25, 0.75, 1,
    ]  # fmt: skip
    assert table.isna().loc["with jitter", "all back (s)"]


def test_curves_rise_by_one_for_each_client():
    """Each ends at the right edge with as many as are back; the line above is all who were lost."""
    above = chart().axes
    curves = {line.get_label(): line for line in above.lines if not line.get_label().startswith("_")}
    assert list(curves["at once"].get_ydata()) == [0, 1, 2, 3, 4, 4]
    assert list(curves["with jitter"].get_ydata()) == [0, 1, 2, 3, 3]
    assert list(curves["with jitter"].get_xdata())[:-1] == pytest.approx([0, 0.25, 0.75, 1.25])
    assert curves["at once"].get_marker() != curves["with jitter"].get_marker()
    assert [line.get_ydata()[0] for line in above.lines if line.get_label().startswith("_")] == [4]


def test_needles_stand_where_somebody_came_back():
    """Their heights add up to those who are back."""
    below = chart().figure.axes[1]
    heights = [[end[1] for _, end in needles.get_segments()] for needles in below.collections[::2]]
    assert heights == [[4], [1, 1, 1]]


def test_alt_text_and_image():
    """For those who listen."""
    page = chart()._repr_html_()
    assert "A server dies. Clients back against time" in page
    assert "at once 4 of 4 back, the last after 0.04 s, 4 in the busiest tenth of a second" in page
    assert "with jitter 3 of 4 back, the last after 1.25 s, 1 in the busiest tenth" in page
    assert chart().png().startswith(b"\x89PNG")


def test_nobody_back_is_a_figure_all_the_same():
    """A curve that stays at nothing."""
    shown = comebacks({"frozen": returns(None, None)}, title="Nobody")
    assert shown.table.loc["frozen", ["lost", "back", "most in 0.1 s"]].tolist() == [2, 0, 0]
    assert "frozen 0 of 2 back, 0 in the busiest" in shown.alt


def test_nobody_lost_is_refused():
    """With the likely cause."""
    with pytest.raises(ValueError, match=r"at once: no client lost its connection\. Was a server killed"):
        comebacks({"at once": []}, title="x")
