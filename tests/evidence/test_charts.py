"""A figure shows itself as an image with an alt text made from its data, and its table beside."""

import html
import re

import pandas
import pytest

from labkit import arrivals, bars, curves, matrix, staircase
from labkit.apparatus.clients import Deliveries, Delivery
from labkit.apparatus.crowd.wire import BEHAVIOURS
from labkit.evidence.charts import BEHAVIOUR_STYLES


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
    assert "A: kept reaches all; B: kept keeps order" in alts[5]
    assert "Dot chart, µs: set 0.08; list 70" in alts[6]


def test_axes_carry_units_and_the_note_n(deliveries, measurements):
    """Also for somebody who sees only the picture."""
    charts = all_charts(deliveries, measurements)
    assert charts[0].axes.get_ylabel() == "arrival after it was due (ms)"
    assert "(s)" in charts[1].axes.get_xlabel()
    for chart in charts[:5]:
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
