"""A figure shows itself as an image with an alt text made from its data, and its table beside."""

import html
import re

import pandas
import pytest

from labkit import arrivals, bars, curves, latencies, matrix, staircase, tradeoff
from labkit.apparatus.clients import Deliveries, Delivery
from labkit.apparatus.crowd.wire import BEHAVIOURS
from labkit.evidence.charts.look import BEHAVIOUR_STYLES
from labkit.evidence.charts.of_arrivals import percent


@pytest.fixture
def deliveries() -> Deliveries:
    """Return three messages for two healthy clients; a third client gets nothing."""
    rows = [
        Delivery(
            client, "healthy", f'{{"run": 7, "seq": {seq}, "of": 3, "at": {10 + seq}.0, "body": ""}}', 60,
            10 + seq + client / 1000,
        )
        for seq in (1, 2, 3)
        for client in (1, 2)
    ]  # fmt: skip
    return Deliveries(rows, {1: "healthy", 2: "healthy", 3: "stalled"}, "operating system")


@pytest.fixture
def measurements() -> pandas.DataFrame:
    """Return three measurements of two ways at two sizes."""
    rows = [(way, n, n * cost * k) for way, cost in (("loop", 1), ("gather", 2)) for n in (10, 100) for k in (1, 2, 3)]
    return pandas.DataFrame(rows, columns=["way", "clients", "time (ms)"])


def policies() -> pandas.DataFrame:
    """Return what two policies gain and pay; one price is not known."""
    return pandas.DataFrame({"delivered (%)": [35.0, 100.0], "p99 (ms)": [None, 1205.0]}, index=["loop", "queue"])


def all_charts(deliveries, measurements):
    """Return one chart of each kind."""
    verdicts = pandas.DataFrame([[True, False], [None, True]], index=["A", "B"], columns=["reaches all", "keeps order"])
    return [
        staircase(deliveries, title="A slope"),
        arrivals(deliveries, title="A sleeper"),
        bars({"loop": 21, "queue": 60}, title="A loss", unit="messages", of=60, n="n = 1"),
        curves(measurements, x="clients", y="time (ms)", by="way", title="A race", log=True),
        curves(measurements, x="clients", y="time (ms)", by="way", title="A race"),
        matrix(verdicts, title="A contract", notes=["n = 1"]),
        bars({"set": 0.08, "list": 70}, title="A difference", unit="µs", n="n = 1", log=True),
        latencies({"loop": deliveries}, title="A loss"),
        tradeoff(policies(), title="A price", n="n = 3 turns"),
    ]


def test_every_chart_has_image_alt_text_and_table(deliveries, measurements):
    """For those who look, those who listen and those who read numbers; alt text survives the export."""
    for chart in all_charts(deliveries, measurements):
        page = chart._repr_html_()
        assert html.unescape(re.search('<img alt="([^"]+)"', page)[1]) == chart.alt == repr(chart)
        assert "<table" in page
        assert chart.png().startswith(b"\x89PNG")
        assert len(chart.table)


def test_alt_texts_say_the_numbers(deliveries, measurements):
    """Not only that there is a figure."""
    alts = [chart.alt for chart in all_charts(deliveries, measurements)]
    assert "place 1 at 1.0 ms, place 2 at 2.0 ms" in alts[0]
    assert "2 healthy got 6 deliveries, the last of message 3 of 3; 1 stalled got 0" in alts[1]
    assert "loop 21 of 60; queue 60 of 60" in alts[2]
    assert "loop 20 at 10, 200 at 100; gather 40 at 10, 400 at 100" in alts[3]
    assert "A: reaches all: kept, keeps order: broken; B: reaches all: not tried, keeps order: kept" in alts[5]
    assert "Dot chart, µs: set 0.08; list 70" in alts[6]
    assert "2 healthy clients × 3 messages" in alts[7]
    assert "loop 100 % arrived, half of these within 1.5 ms, the last at 2.0 ms" in alts[7]
    assert "delivered (%): loop 35, queue 100; p99 (ms): loop not measured, queue 1,205" in alts[8]


def test_axes_carry_units_and_the_note_n(deliveries, measurements):
    """Also for somebody who sees only the picture."""
    charts = all_charts(deliveries, measurements)
    assert charts[0].axes.get_ylabel() == "arrival after it was due (ms)"
    assert "(s)" in charts[1].axes.get_xlabel()
    assert "(ms)" in charts[7].axes.get_xlabel()
    for chart in (*charts[:5], charts[7]):
        notes = [text.get_text() for text in chart.axes.texts]
        assert any(re.search(r"n = \d", note) for note in notes)


def test_every_behaviour_has_a_colour_and_a_shape_of_its_own():
    """Not by colour alone."""
    assert set(BEHAVIOURS) <= set(BEHAVIOUR_STYLES)
    for column in zip(*BEHAVIOUR_STYLES.values(), strict=True):
        assert len(set(column)) == len(BEHAVIOUR_STYLES)


def test_nothing_published_is_said():
    """An empty figure would look like a result."""
    with pytest.raises(ValueError, match=r"No published message has arrived. Was publish\(\) called"):
        arrivals(Deliveries([], {1: "healthy"}, "kernel"), title="Nothing")


def first(deliveries: Deliveries, rows: int) -> Deliveries:
    """Return only the first deliveries, as if the others had been lost."""
    return Deliveries(deliveries[:rows], deliveries.roster, deliveries.stamped_by)


def test_curve_of_latencies_ends_where_messages_were_lost(deliveries):
    """The share is of all that were expected, also of those that were never sent; the sleeper's are not among them."""
    chart = latencies({"loop": first(deliveries, 3), "queue": deliveries}, title="Lost")
    loop, queue = (line.get_ydata() for line in chart.axes.lines)
    assert (max(loop), max(queue)) == (50, 100)
    assert all(rising[0] == 0 and list(rising) == sorted(rising) for rising in (loop, queue))
    assert list(chart.table["arrived (%)"]) == [50, 100]
    assert list(chart.table["max (ms)"]) == [2, 2]
    texts = [text.get_text() for text in chart.axes.texts]
    assert "50 %" in texts
    assert "100 %" not in texts
    assert chart.axes.get_xscale() == "log"
    # Half of all had arrived after 1 ms, at the first client.
    assert max(share for wait, share in zip(*chart.axes.lines[1].get_data(), strict=True) if wait < 1.5) == 50


def test_share_that_lacks_little_is_not_called_all():
    """A lost message in a thousand is lost."""
    assert [percent(share) for share in (100, 99.96, 99.5, 50, 0.04, 0)] == [
        "100 %", "99.9 %", "99.5 %", "50 %", "0.1 %", "0 %",
    ]  # fmt: skip


def test_latencies_of_one_fleet_are_told_apart_by_run(deliveries):
    """Two ways, one after the other, at the same clients."""
    later = [row._replace(text=row.text.replace('"run": 7', '"run": 8')) for row in deliveries[:2]]
    both = Deliveries([*deliveries, *later], deliveries.roster, "kernel")
    chart = latencies({"a": both, "b": both}, title="Two", run={"a": 7, "b": 8})
    assert list(chart.table["arrived (%)"].round()) == [100, 33]
    assert list(latencies({"the last": both}, title="One").table["arrived (%)"].round()) == [33]


def test_latencies_say_which_variant_has_nothing(deliveries):
    """An empty curve would look like a result."""
    with pytest.raises(ValueError, match="loop: No published message has arrived"):
        latencies({"loop": first(deliveries, 0)}, title="Nothing")
    with pytest.raises(ValueError, match="loop: the fleet has no vanishing client"):
        latencies({"loop": deliveries}, title="Nobody", behaviour="vanishing")
    asleep = latencies({"loop": deliveries}, title="Asleep", behaviour="stalled")
    assert "loop 0 % arrived." in asleep.alt
    assert asleep.png().startswith(b"\x89PNG")


def test_tradeoff_has_a_panel_for_each_column():
    """Labels with units, bars as long as the values, numbers at their ends, and rows named once."""
    chart = tradeoff(policies(), title="A price", n="n = 3 turns")
    panels = chart.figure.axes
    assert [axes.get_xlabel() for axes in panels] == ["delivered (%)", "p99 (ms)"]
    assert [[bar.get_width() for bar in axes.patches] for axes in panels] == [[35, 100], [0, 1205]]
    assert [[text.get_text() for text in axes.texts] for axes in panels] == [["35", "100"], ["–", "1,205"]]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["loop", "queue"]
    assert len({bar.get_hatch() for bar in panels[0].patches}) == 2
    assert chart.figure.get_supxlabel() == "n = 3 turns"
    with pytest.raises(ValueError, match="no policy"):
        tradeoff(pandas.DataFrame(), title="Nothing")
