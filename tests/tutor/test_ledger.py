"""The ledger: one small file that survives restarts, neighbours and damage."""

import json
import os
import subprocess
import sys

import pytest
from jupyter_client.manager import start_new_kernel

from labkit.tutor import ledger as ledger_room
from labkit.tutor.ledger import change, ledger, ledger_path, read
from labkit.tutor.predict import compare, predict


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Keep this test's predictions in a file of its own, and this process without memories of other tests."""
    path = tmp_path / "folder" / "predictions.json"
    monkeypatch.setenv("BROADCAST_LAB_LEDGER", str(path))
    monkeypatch.setattr(ledger_room, "_in_memory", {})
    monkeypatch.setattr(ledger_room, "_told", set())
    return path


def answer_one(identifier="P3.1", answer="c", **options):
    """Answer a question with three options."""
    predict(identifier, "How many are left?", a="0", b="about 20", c="200", answer=answer, **options)


def rows_of(path) -> dict:
    """Return what is in the file, by id."""
    return {row["id"]: row for row in json.loads(path.read_text(encoding="utf-8"))["predictions"]}


def test_path_is_in_the_data_folder_of_the_user(monkeypatch):
    """Unless somebody chose another."""
    monkeypatch.delenv("BROADCAST_LAB_LEDGER", raising=False)
    assert ledger_path().name == "predictions.json"
    assert "broadcast-lab" in ledger_path().parts
    monkeypatch.setenv("BROADCAST_LAB_LEDGER", "~/mine.json")
    assert ledger_path().is_absolute()
    assert ledger_path().name == "mine.json"


def test_empty_ledger_shows_itself(path):
    """Before the first question, with nothing made on disk."""
    empty = ledger()
    assert empty.table.empty
    assert {"id", "question", "guess", "confidence", "measured", "right", "asked_at", "compared_at"} <= {*empty.table}
    assert empty.calibration is None
    assert "No predictions yet" in empty._repr_html_()
    assert str(path) in repr(empty)
    assert not path.parent.exists()


def test_table_and_calibration_figure(path):
    """Share right against confidence, with n; a guess that was not compared is in the table only."""
    for number, (answer, confidence) in enumerate(
        [("c", "certain"), ("a", "certain"), ("c", "guess"), ("c", None)], start=1
    ):
        answer_one(f"P3.{number}", answer, confidence=confidence)
        compare(f"P3.{number}", measured=200, option="c")
    answer_one("P3.10", "a", confidence="guess")
    shown = ledger()
    assert list(shown.table["id"]) == ["P3.1", "P3.2", "P3.3", "P3.4", "P3.10"]
    assert list(shown.table["right"])[:4] == [True, False, True, True]
    assert shown.table["guess"][1] == "a (0)"
    assert shown.table["measured"][0] == "c (200)"
    assert str(shown.table["asked_at"].dtype).endswith("UTC]")
    chart = shown.calibration
    assert dict(chart.table["n"]) == {"guess": 1, "certain": 2, "not said": 1}
    assert "When certain, right 1 of 2 times" in chart.alt
    assert "certain: right 1 of 2" in chart.alt
    assert chart.png().startswith(b"\x89PNG")
    page = shown._repr_html_()
    assert '<img alt="When certain' in page
    assert "✘ not right" in page
    assert "5 predictions asked, 5 answered before the measurement, 4 of those compared, 3 right." in repr(shown)


def test_file_holds_what_was_said_and_no_leftovers(path):
    """Readable by anybody, beside it the lock and nothing else."""
    answer_one(confidence="certain")
    assert rows_of(path)["P3.1"]["guess"] == "c"
    assert rows_of(path)["P3.1"]["confidence"] == "certain"
    assert {each.name for each in path.parent.iterdir()} == {"predictions.json", "predictions.json.lock"}


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        '{"predictions": {}}',
        '{"predictions": [1]}',
        '{"predictions": [{"id": "P3.1"}]}',
        '{"predictions": [{"id": "P3.1", "question": "?", "colour": "red"}]}',
        '{"predictions": [{"id": "P3.1", "question": 5}]}',
        '{"predictions": [{"id": "seven", "question": "?"}]}',
        '{"predictions": [{"id": "P3.1", "question": "?", "guess": Infinity}]}',
        '{"predictions": [{"id": "P3.1", "question": "?", "options": {"a": 1}}]}',
        "[" * 100_000,
        b"\xff\xfe\x00",
    ],
    ids=lambda damage: str(damage[:60]),
)
def test_damaged_file_is_set_aside_with_nothing_lost(path, damage, capsys):
    """One message, the old bytes under another name, and a ledger that works."""
    damage = damage if isinstance(damage, bytes) else damage.encode()
    path.parent.mkdir()
    path.write_bytes(damage)
    answer_one()
    said = capsys.readouterr().out
    aside = [each for each in path.parent.iterdir() if ".damaged-" in each.name]
    assert len(aside) == 1
    assert aside[0].read_bytes() == damage
    assert f"It is set aside as {aside[0]}; a new one begins." in said
    assert set(rows_of(path)) == {"P3.1"}


def test_ledger_sets_a_damaged_file_aside_too(path, capsys):
    """Whoever looks first."""
    path.parent.mkdir()
    path.write_text("no", encoding="utf-8")
    assert ledger().predictions == []
    assert "set aside" in capsys.readouterr().out


def test_a_place_that_cannot_be_written_gives_one_message_and_the_lesson_runs_on(path, tmp_path, capsys, monkeypatch):
    """In memory: here a file stands where the folder should be, which stops root as well."""
    (tmp_path / "folder").write_text("in the way", encoding="utf-8")
    answer_one()
    said = capsys.readouterr().out
    assert f"Predictions cannot be kept in {path}" in said
    assert "set BROADCAST_LAB_LEDGER" in said
    assert compare("P3.1", measured=200, option="c").right is True
    answer_one("P3.2", "a")
    assert "cannot be kept" not in capsys.readouterr().out
    assert len(ledger().table) == 2
    assert (tmp_path / "folder").read_text(encoding="utf-8") == "in the way"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_write_permission(path, capsys):
    """What is there can still be read."""
    answer_one()
    path.parent.chmod(0o500)
    try:
        answer_one("P3.2", "a")
        assert "cannot be kept" in capsys.readouterr().out
        assert set(read()) == {"P3.1", "P3.2"}
    finally:
        path.parent.chmod(0o700)


def test_a_neighbour_that_keeps_the_lock_does_not_stop_the_lesson(path, capsys, monkeypatch):
    """A frozen kernel holds it; after a moment the lesson goes on in memory."""
    monkeypatch.setattr(ledger_room, "_LOCK_SECONDS", 0.05)
    with ledger_room._lock(path):
        answer_one()
    assert "another kernel keeps it locked" in capsys.readouterr().out
    assert read()["P3.1"].guess == "c"
    answer_one(answer="a")
    assert rows_of(path)["P3.1"]["guess"] == "a"


def test_two_processes_at_once_lose_nothing(path):
    """Each writes thirty predictions as fast as it can."""
    code = """
import contextlib, io, sys
from labkit.tutor.predict import predict
for number in range(1, 31):
    predict(f"P{sys.argv[1]}.{number}", "?", a="yes", b="no", answer="a")
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", code, notebook], stdout=subprocess.PIPE, text=True)
        for notebook in ("1", "2")
    ]
    for writer in writers:
        assert "cannot be kept" not in writer.communicate(timeout=60)[0]
        assert writer.returncode == 0
    assert set(rows_of(path)) == {f"P{notebook}.{number}" for notebook in (1, 2) for number in range(1, 31)}


def test_a_write_that_fails_leaves_the_old_file_and_no_crumbs(path, monkeypatch, capsys):
    """As on a full disk."""
    answer_one()
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ledger_room.os, "fsync", full)
    answer_one("P3.2", "a")
    assert "No space left on device" in capsys.readouterr().out
    assert path.read_bytes() == before
    assert {each.name for each in path.parent.iterdir()} == {"predictions.json", "predictions.json.lock"}
    assert set(read()) == {"P3.1", "P3.2"}


def test_forget_asks_afresh_and_keeps_the_old_answer(path):
    """For whoever ran all cells before thinking."""
    answer_one()
    compare("P3.1", measured=0, option="a")
    ledger().forget("P3.1")
    answer_one(answer="a")
    row = rows_of(path)["P3.1"]
    assert (row["guess"], row["compared_at"]) == ("a", None)
    assert row["earlier"][0]["guess"] == "c"
    with pytest.raises(KeyError, match=r"no prediction P3\.2 has been asked; asked so far: P3\.1"):
        ledger().forget("P3.2")


def test_change_gives_what_is_in_the_file(path):
    """Not what this kernel believed to be there."""
    answer_one()
    text = path.read_text(encoding="utf-8").replace('"guess": "c"', '"guess": "b"')
    path.write_text(text, encoding="utf-8")
    assert change("P3.1", lambda row: row).guess == "b"


@pytest.mark.slow
def test_guess_survives_a_restart_of_the_kernel(path):
    """Answered in one kernel, compared in the next, which never asked."""
    manager, client = start_new_kernel(kernel_name="python3", env={**os.environ})
    try:
        ask = (
            "from labkit.tutor.predict import compare, predict\n"
            'predict("P3.1", "How many?", a="0", c="200", answer="a", confidence="certain")'
        )
        assert client.execute_interactive(ask, timeout=60)["content"]["status"] == "ok"
        manager.restart_kernel(now=True)
        client.wait_for_ready(timeout=60)
        shown = []

        def note(message):
            if message["msg_type"] == "execute_result":
                shown.append(message["content"]["data"])

        code = 'from labkit.tutor.predict import compare\ncompare("P3.1", measured=200, option="c")'
        reply = client.execute_interactive(code, timeout=60, output_hook=note)
        assert reply["content"]["status"] == "ok"
        assert "you were certain of a (0); the measurement says c (200)" in shown[0]["text/html"]
        assert "certain and mistaken is the moment to learn" in shown[0]["text/plain"]
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
