"""Predictions: asked before, kept, and drawn beside the measurement after."""

import html
import json
import os
import re
import subprocess
import sys

import nbformat
import pytest
from jupyter_client.manager import start_new_kernel

from labkit import bars, curves, matrix
from labkit.evidence.charts.look import Chart
from labkit.tutor import ledger as ledger_room
from labkit.tutor.ledger import read
from labkit.tutor.predict import compare, predict

OPTIONS = {"a": "0", "b": "about 20", "c": "200"}


@pytest.fixture(autouse=True)
def path(tmp_path, monkeypatch):
    """Keep this test's predictions in a file of its own, and this process without memories of other tests."""
    path = tmp_path / "predictions.json"
    monkeypatch.setenv("BROADCAST_LAB_LEDGER", str(path))
    monkeypatch.setattr(ledger_room, "_in_memory", {})
    monkeypatch.setattr(ledger_room, "_told", set())
    return path


def ask(answer=None, **more):
    """Ask the question with options."""
    predict("P3.1", "200 visitors come and go. How many entries are left?", answer=answer, **OPTIONS, **more)


def ask_number(answer=None, **more):
    """Ask the question for a number."""
    predict("P6.3", "How many of 60 messages reach the other nine?", unit="messages", answer=answer, **more)


def figure() -> Chart:
    """Return a figure of a result."""
    return bars({"loop": 21, "queue": 60}, title="One sleeper", unit="messages", of=60, n="n = 9 fans")


def words_in(chart: Chart) -> list[str]:
    """Return all texts that stand in the figure."""
    return [text.get_text() for text in chart.axes.texts]


def test_question_is_printed_with_how_to_answer(capsys, path):
    """Plain Python; a run that nobody sits at leaves no file."""
    ask()
    said = capsys.readouterr().out
    assert "P3.1 · Predict: 200 visitors come and go. How many entries are left?" in said
    assert "b  about 20" in said
    assert 'add answer="a"' in said
    assert not path.exists()


def test_answer_is_kept_and_shown_when_the_cell_runs_again(capsys):
    """And can be changed until it is compared."""
    ask("a", confidence="certain")
    ask()
    assert "Your guess: a (0), certain. You can change it" in capsys.readouterr().out
    ask("b")
    assert read()["P3.1"].guess == "b"
    assert read()["P3.1"].later is None


def test_first_guess_counts_after_the_comparison(capsys):
    """What is said afterwards is noted beside it."""
    ask("a")
    assert compare("P3.1", measured=200, option="c").right is False
    ask("c", confidence="certain")
    assert "Said after the measurement, and noted beside it: c (200)" in capsys.readouterr().out
    row = read()["P3.1"]
    assert (row.guess, row.later, row.right, row.confidence) == ("a", "c", False, None)
    again = compare("P3.1", measured=200, option="c")
    assert again.right is False
    assert "(what you said afterwards, c (200), does not count)" in again.sentence


def test_the_same_answer_again_is_no_change():
    """A cell with answer= in it runs twice."""
    ask("a")
    answered_at = read()["P3.1"].answered_at
    ask("a")
    compare("P3.1", measured=200, option="c")
    ask("a")
    assert read()["P3.1"].later is None
    assert read()["P3.1"].answered_at == answered_at


def test_no_answer_and_everything_runs_on(path):
    """In a test or an export; the sentence is kind, the figure as it was, the file not there."""
    ask()
    chart = figure()
    alt = chart.alt
    result = compare("P3.1", measured=200, option="c", ax=chart)
    assert result.right is None
    assert "the measurement says c (200); no guess of yours was there before" in repr(result)
    assert "<img" in result._repr_html_()
    assert chart.alt == alt
    assert not path.exists()
    ask("c")
    assert read()["P3.1"].guess is None
    assert "is noted and not counted" in compare("P3.1", measured=200, option="c").sentence


def test_a_run_without_a_reader_spends_nobodys_guess():
    """`make test` on the machine of a learner who has answered and not yet compared."""
    ask("a")
    kept = read()["P3.1"]
    ask()
    assert compare("P3.1", measured=200, option="c").guess == "a"
    ledger_room._in_memory.clear()
    assert read()["P3.1"] == kept


def test_second_comparison_changes_no_verdict():
    """The experiment is run again with another number."""
    ask_number(20)
    assert compare("P6.3", measured=21).right is True
    assert compare("P6.3", measured=60).right is False
    assert (read()["P6.3"].measured, read()["P6.3"].right) == (21, True)


@pytest.mark.parametrize(
    ("answer", "confidence", "expected"),
    [
        (
            "a",
            "certain",
            "✘ you were certain of a (0); the measurement says c (200): certain and mistaken is the moment",
        ),
        (
            "a",
            "fairly sure",
            "✘ you were fairly sure of a (0); the measurement says c (200): what did you take for granted?",
        ),
        ("a", "guess", "✘ you guessed a (0); the measurement says c (200): a guess costs nothing"),
        ("a", None, "✘ you expected a (0); the measurement says c (200): what did you take for granted?"),
        ("c", "certain", "✔ you were certain of c (200); the measurement says c (200): your picture of it holds here"),
        ("c", "guess", "✔ you guessed c (200); the measurement says c (200): a guess that came true; find the reason"),
    ],
)
def test_sentence_says_what_the_difference_means(answer, confidence, expected):
    """With how sure one was."""
    ask(answer, confidence=confidence)
    result = compare("P3.1", measured=200, option="c")
    assert result.sentence.startswith(f"P3.1 {expected}")
    assert html.escape(result.sentence) in result._repr_html_()


def test_later_comparison_says_which_one_counts():
    """A learner who has changed a number is told that the first verdict stays."""
    ask("a")
    assert "Your first run" not in compare("P3.1", measured=200, option="c").sentence
    later = compare("P3.1", measured=0, option="a").sentence
    assert later.endswith(" Your first run measured c (200), and that comparison is the one that counts.")


@pytest.mark.parametrize(
    ("guess", "measured", "factor", "right", "expected"),
    [
        (
            20,
            21,
            2,
            True,
            "20 messages; the measurement says 21 messages, 1.05 times your guess, within a factor of 2:",
        ),
        (21, 21, 1, True, "21 messages, exactly that:"),
        (60, 21, 2, False, "21 messages, your guess divided by 2.86:"),
        (5, 21, 2, False, "21 messages, 4.2 times your guess:"),
        (0, 21, 2, False, "21 messages, 21 more than that:"),
        (3, 0, 2, False, "0 messages, 3 less than that:"),
        (0, 0, 2, True, "0 messages, exactly that:"),
        (-3, -4, 2, True, "-4 messages, 1.33 times your guess, within a factor of 2:"),
    ],
)
def test_number_is_right_within_a_factor(guess, measured, factor, right, expected):
    """And the sentence says how far off it was."""
    ask_number(guess)
    result = compare("P6.3", measured=measured, factor=factor)
    assert result.right is right
    assert expected in result.sentence


def test_number_is_a_marked_line_in_the_figure():
    """With the words, in the figure and in its alt text; a second run marks it once."""
    ask_number(55, confidence="certain")
    chart = figure()
    compare("P6.3", measured=21, ax=chart)
    result = compare("P6.3", measured=21, ax=chart)
    assert words_in(chart).count("your guess: 55 messages, certain") == 1
    assert [list(line.get_xdata()) for line in chart.axes.lines if line.get_gid()] == [[55, 55]]
    assert chart.alt.count("your guess: 55 messages, certain") == 1
    page = result._repr_html_()
    assert html.unescape(re.search('<img alt="([^"]+)"', page)[1]) == chart.alt
    assert page.index("<img") < page.index(html.escape(result.sentence))
    assert chart.alt in repr(result)


def test_number_far_outside_is_an_arrow():
    """A line there would squeeze the measurement into a corner."""
    ask_number(1_000_000)
    chart = figure()
    limit = chart.axes.get_xlim()
    compare("P6.3", measured=21, ax=chart)
    assert "your guess: 1,000,000 messages →" in words_in(chart)
    assert chart.axes.get_xlim() == limit


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("guess", [0.5, 30, 2_900])
def test_number_on_a_line_chart_is_read_upwards(log, guess):
    """Also on a logarithmic axis, and where the axis has to grow for it."""
    import pandas

    table = pandas.DataFrame({"fans": [10, 100], "time (ms)": [10.0, 1000.0], "way": "loop"})
    chart = curves(table, x="fans", y="time (ms)", by="way", title="A race", log=log)
    ask_number(guess)
    compare("P6.3", measured=1000, ax=chart)
    marked = [line for line in chart.axes.lines if line.get_gid()]
    assert list(marked[0].get_ydata()) == [guess, guess]
    low, high = chart.axes.get_ylim()
    assert low <= guess <= high
    assert chart.png().startswith(b"\x89PNG")


def test_nothing_on_a_logarithmic_axis_is_told_in_a_box():
    """There is no place for 0 on it."""
    import pandas

    table = pandas.DataFrame({"fans": [10, 100], "time (ms)": [10.0, 1000.0], "way": "loop"})
    chart = curves(table, x="fans", y="time (ms)", by="way", title="A race", log=True)
    ask_number(0)
    compare("P6.3", measured=1000, ax=chart)
    assert any("your guess: 0 messages\nmeasured: 1,000 messages" in words for words in words_in(chart))


def test_number_on_dots_is_read_across():
    """A logarithmic bars() has dots in the place of bars, and its values on the same axis."""
    chart = bars({"loop": 20, "queue": 900}, title="A race", unit="messages", log=True)
    ask_number(60)
    compare("P6.3", measured=20, ax=chart)
    assert [list(line.get_xdata()) for line in chart.axes.lines if line.get_gid()] == [[60, 60]]


def test_number_beside_a_matrix_is_told_in_a_box():
    """No axis of it counts anything."""
    import pandas

    chart = matrix(pandas.DataFrame({"reaches all": [True]}, index=["SetManager"]), title="One promise")
    ask_number(4)
    compare("P6.3", measured=1, ax=chart)
    assert not [line for line in chart.axes.lines if line.get_gid()]
    assert any("your guess: 4 messages\nmeasured: 1 messages" in words for words in words_in(chart))


@pytest.mark.parametrize("as_axes", [False, True])
def test_option_is_a_box_that_names_guess_and_measurement(as_axes):
    """In words and signs, not by colour alone; matplotlib's own Axes will do."""
    import pandas

    chart = matrix(pandas.DataFrame({"reaches all": [True, False]}, index=["A", "B"]), title="M", notes=["n = 1"])
    ask("a", confidence="guess")
    compare("P3.1", measured="all 200", option="c", ax=chart.axes if as_axes else chart)
    box = words_in(chart)[-1]
    assert "✘ not as you thought" in box
    assert "your guess: a (0), no more than a guess" in box
    assert "measured: all 200, that is c (200)" in box
    assert ("your guess: a (0)" in chart.alt) is not as_axes


def test_numpy_numbers_are_numbers(path):
    """Which is what a table gives."""
    import numpy

    ask_number(numpy.int64(20))
    compare("P6.3", measured=numpy.float64(21.5))
    assert json.loads(path.read_text(encoding="utf-8"))["predictions"][0]["measured"] == 21.5


def test_other_options_put_the_old_answer_away():
    """The course has changed: c is no longer what it was."""
    ask("c")
    predict("P3.1", "How many?", a="0", c="20")
    row = read()["P3.1"]
    assert row.guess is None
    assert row.earlier[0]["guess"] == "c"
    ask("c")
    predict("P3.1", "How many entries, in better words?", **OPTIONS)
    assert read()["P3.1"].guess == "c"


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (["3.1"], OPTIONS, r"'3\.1' is no id of a prediction.*such as \"P3\.1\""),
        (["P3"], OPTIONS, "'P3' is no id of a prediction"),
        (["P3.01"], OPTIONS, r"'P3\.01' is no id"),
        (["P3.1"], {}, "neither options nor a unit"),
        (["P3.1"], {**OPTIONS, "unit": "fans"}, "both options and a unit"),
        (["P3.1"], {"a": "0"}, "one option only"),
        (["P3.1"], {"a": "about 20", "b": " About  20"}, "options a and b of P3.1 are the same text.*copied"),
        (["P3.1"], {"a": "0", "b": 20}, "an option is a text, in quotes"),
        (["P3.1"], {**OPTIONS, "units": 3}, "If units was meant as a setting"),
        (["P3.1"], {**OPTIONS, "answer": "d"}, r"answer='d' is no option of P3\.1\. There are: a \(\"0\"\)"),
        (["P3.1"], {**OPTIONS, "answer": 200}, r"answer=200 is no option.*Did you mean answer=\"c\"\?"),
        (["P3.1"], {**OPTIONS, "answer": "C"}, r"Did you mean answer=\"c\"\?"),
        (["P3.1"], {**OPTIONS, "answer": ["c"]}, "is no option"),
        (["P6.3"], {"unit": "fans", "answer": "20"}, r"without quotes and without the unit \(fans\)"),
        (["P6.3"], {"unit": "fans", "answer": True}, "asks for a number"),
        (["P6.3"], {"unit": "fans", "answer": float("nan")}, "asks for a number"),
        (["P3.1"], {**OPTIONS, "answer": "a", "confidence": "sure"}, 'there are "guess", "fairly sure", "certain"'),
        (["P3.1"], {**OPTIONS, "confidence": "certain"}, "without an answer"),
    ],
)
def test_slip_in_a_question_is_named(arguments, options, message, path):
    """And nothing is kept of it."""
    with pytest.raises(ValueError, match=message):
        predict(*arguments, "How many?", **options)
    assert not path.exists()


def test_slip_in_a_comparison_is_named():
    """Also when nobody has answered, so that the author hears of it."""
    with pytest.raises(KeyError, match=r"no prediction P3\.9 has been asked; asked so far: none"):
        compare("P3.9", measured=1)
    ask()
    ask_number()
    with pytest.raises(ValueError, match=r"say which option the measurement 200 corresponds to: \"a\", \"b\", \"c\""):
        compare("P3.1", measured=200)
    with pytest.raises(ValueError, match=r"P6\.3 asks for a number; option='c' belongs to"):
        compare("P6.3", measured=200, option="c")
    with pytest.raises(ValueError, match=r"P6\.3 asks for a number \(messages\)\. Did the experiment run"):
        compare("P6.3", measured=float("nan"))
    with pytest.raises(ValueError, match="1 asks for the number itself"):
        compare("P6.3", measured=20, factor=0.5)


def test_importing_loads_nothing_heavy_and_writes_nothing(path):
    """A check's child process may import the wing."""
    code = (
        "import sys, labkit.tutor.predict; "
        "print([name for name in ('pandas', 'matplotlib', 'ipywidgets', 'IPython') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert not path.exists()


CELLS = (
    "from labkit import bars\nfrom labkit.tutor.predict import compare, predict\n"
    "from labkit.tutor.ledger import ledger",
    'predict("P3.1", "200 <visitors> come. How many are left?", a="0", b="about 20", c="200", answer="a")\n'
    'predict("P6.2", "By how much?", unit="times")',
    'compare("P3.1", measured=200, option="c", ax=bars({"left": 200}, title="Nobody goes", unit="entries"))',
    'compare("P6.2", measured=97.3)',
    "ledger()",
)


@pytest.mark.slow
def test_executed_and_exported_notebook_reads_well(tmp_path):
    """Question, options, answer, figure with alt text and sentence are text in the page; no dead button is."""
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    NotebookClient(notebook, timeout=120, kernel_name="python3").execute()
    page, _ = HTMLExporter().from_notebook_node(notebook)
    body = page[page.index("<body") :]
    assert "200 &lt;visitors&gt; come. How many are left?" in body
    assert "about 20</li>" in body
    assert "Your guess: a (0). It has been compared" in body
    assert re.search('<img[^>]+alt="Nobody goes[^"]+your guess: a \\(0\\); measured: c \\(200\\)', body)
    assert "you expected a (0); the measurement says c (200)" in body
    assert "no guess of yours was there before" in body
    assert "2 predictions asked, 1 answered before the measurement" in body
    assert "widget-view" not in body
    outputs = [output for cell in notebook.cells for output in cell.outputs]
    assert all({"text/plain", "text/html"} <= set(output["data"]) for output in outputs)


@pytest.mark.slow
def test_a_front_end_that_can_be_asked_gets_buttons_and_a_click_is_kept(path):
    """Clicked as a front end does it, with a message, while a later cell waits; compare() takes the buttons away."""
    manager, client = start_new_kernel(kernel_name="python3", env={**os.environ})
    try:
        shown, opened, closed = [], {}, set()

        def note(message):
            if message["msg_type"] in ("display_data", "update_display_data"):
                shown.append(message["content"]["data"])
            if message["msg_type"] == "comm_open":
                opened[message["content"]["comm_id"]] = message["content"]["data"]["state"]
            if message["msg_type"] == "comm_close":
                closed.add(message["content"]["comm_id"])

        def run(source):
            reply = client.execute_interactive(source, timeout=60, output_hook=note)
            assert reply["content"]["status"] == "ok", reply["content"]

        run(f"{CELLS[0]}\n{CELLS[1].replace(', answer=' + chr(34) + 'a' + chr(34), '')}")
        views = [data for data in shown if "application/vnd.jupyter.widget-view+json" in data]
        assert len(views) == 2
        assert 'add answer="a"' in views[0]["text/plain"]
        assert "Not answered yet." in shown[0]["text/plain"]

        def send(comm, data):
            content = {"comm_id": comm, "data": {"buffer_paths": [], **data}}
            client.shell_channel.send(client.session.msg("comm_msg", content))

        named = {state.get("description") or state.get("placeholder"): each for each, state in opened.items()}
        number = named["a number, then Enter"]
        send(named["a: 0"], {"method": "custom", "content": {"event": "click"}})
        send(named["b: about 20"], {"method": "custom", "content": {"event": "click"}})
        send(number, {"method": "update", "state": {"value": "50 times"}})
        run("import asyncio\nfrom labkit.tutor.ledger import read\n"
            "while read()['P6.2'].guess is None:\n    await asyncio.sleep(0.01)")  # fmt: skip
        rows = {row["id"]: row for row in json.loads(path.read_text(encoding="utf-8"))["predictions"]}
        assert (rows["P3.1"]["guess"], rows["P6.2"]["guess"]) == ("b", 50)
        run('compare("P3.1", measured=200, option="c")')
        assert any("It has been compared" in data["text/plain"] for data in shown)
        assert {named["a: 0"], named["b: about 20"]} <= closed
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
