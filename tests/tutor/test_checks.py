"""check(), hint() and solution(): three outcomes, and nothing that an answer does reaches the kernel."""

import asyncio
import inspect
import os
import runpy
import signal
import textwrap

import pytest

from labkit import check, close_lab, hint, solution
from labkit.apparatus import running
from labkit.tutor import checks, examiner, exercises

BEGIN = """
import asyncio, os, sys, time
from fastapi import WebSocket, WebSocketDisconnect
"""
REGISTER = """
async def keep_register(websocket, here):
    await websocket.accept()
    here.add(websocket)
"""


@pytest.fixture(scope="module", autouse=True)
def one_examiner():
    """Keep one warm process for this module; the tests are not async, since async ones close the lab."""
    yield
    asyncio.run(close_lab())


@pytest.fixture
def written(tmp_path):
    """Return a function that makes an answer of source text, as a cell does: from a file that nobody can import."""

    def write(source: str, name: str = "keep_register"):
        path = tmp_path / "cell.py"
        path.write_text(BEGIN + textwrap.dedent(source), encoding="utf-8")
        return runpy.run_path(str(path))[name]

    return write


def checked(answer: object, identifier: str = "X3.1") -> checks.Verdict:
    """Check an answer and return the verdict."""
    return asyncio.run(check(identifier, answer))


def test_model_answer_is_done_and_says_what_was_seen():
    """In a sentence, and without a way on that nobody needs any more."""
    verdict = checked(exercises.find("X3.1").model())
    assert verdict.outcome == "done"
    assert repr(verdict).startswith("✔ X3.1 done. Five fans left in five ways")
    assert "hint" not in repr(verdict)


def test_starter_is_not_attempted_and_needs_no_process():
    """It says what is asked, folded in HTML."""
    asyncio.run(close_lab())
    verdict = checked(exercises.find("X3.1").starter())
    assert verdict.outcome == "not attempted"
    assert repr(verdict).startswith("○ X3.1 not attempted. Fill in")
    assert verdict._repr_html_().startswith("<details>")
    assert running.find("child process", examiner.NAME) is None


def test_comments_and_names_do_not_make_a_starter_attempted(written):
    """Only code does."""
    starter = inspect.getsource(exercises.find("X3.1").starter())
    assert checked(written(starter.replace("keep_register", "mine") + "    # thinking\n", "mine")).outcome == (
        "not attempted"
    )
    assert checked(written(starter + "    print('tried')\n")).outcome == "not yet"


def test_own_exception_is_shown_short_with_its_line(written):
    """No traceback of ours, whether the handler raised or the call did."""
    verdict = checked(written("async def keep_register(websocket, here):\n    await websocket.acept()"))
    assert verdict.message == (
        "Your code raised AttributeError: 'WebSocket' object has no attribute 'acept', "
        "in line 5: `await websocket.acept()`."
    )
    assert "Traceback" not in repr(verdict)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("while True: pass", r"nobody else had a turn.*line 8: `while True: pass`"),
        ("time.sleep(600)", r"nobody else had a turn.*line 8: `time.sleep\(600\)`"),
        ("while True: asyncio.create_task(asyncio.sleep(600))", r"tasks of sleep\(\).*a flood"),
        ("sys.exit()", r"calls sys.exit\(\)"),
        ("os._exit(0)", r"ended the whole program \(exit code 0\)"),
        ("os._exit(3)", r"ended the whole program \(exit code 3\)"),
        ("os.kill(os.getpid(), 9)", r"ended the whole program \(signal 9\)"),
        ("x = [0] * 10**14", r"raised MemoryError, in line 8"),
        ("raise KeyboardInterrupt", r"raised KeyboardInterrupt, in line 8"),
    ],
    ids=lambda value: value.split("(")[0][:12],
)
def test_what_would_harm_a_kernel_is_named(written, line, says):
    """An endless loop, a flood, an exit: each in a sentence, and the next check is none the worse."""
    import re

    verdict = checked(written(f"{REGISTER}    {line}\n"))
    assert verdict.outcome == "not yet"
    assert re.search(says, verdict.message), verdict.message
    assert checked(exercises.find("X3.1").model()).outcome == "done"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("body", "asked"),
    [("pass", False), ("\n        try: 1 / 0\n        except ZeroDivisionError: pass", True)],
    ids=["no except", "except"],
)
def test_blocking_loop_is_asked_for_its_except_where_it_has_one(written, body, asked):
    """A question for what is not there leads astray."""
    verdict = checked(written(f"{REGISTER}    while True: {body}\n"))
    assert "nobody else had a turn" in verdict.message
    assert ("Does an `except` swallow an error there?" in verdict.message) == asked


@pytest.mark.slow
def test_waiting_for_ever_is_named_with_the_line(written):
    """Somewhere in the middle of a call the code waits for what never comes."""
    verdict = checked(written("async def keep_register(websocket, here):\n    await asyncio.Event().wait()"))
    assert verdict.outcome == "not yet"
    assert "Its handler is there: it waits in line 5: `await asyncio.Event().wait()`" in verdict.message


def test_what_the_answer_prints_is_shown_and_not_endlessly(written):
    """The learner's own print is a way to look into the trial."""
    verdict = checked(written(f"{REGISTER}    for number in range(1000): print('line', number)\n"))
    assert verdict.printed.startswith("line 0\n")
    assert verdict.printed.endswith("lines more")
    assert len(verdict.printed.splitlines()) == 13


def test_half_a_character_that_the_answer_prints_can_be_shown(written):
    """X4.1 hands one over, and whoever wonders prints it."""
    verdict = checked(written(f"{REGISTER}    print('got', chr(0xD800))\n"))
    assert verdict.printed.splitlines()[0] == "got \\ud800"


def test_error_that_looks_like_a_typing_mistake_is_named_with_its_kind(written):
    """One letter tells WebSocketDisconnected from WebSocketDisconnect, and they are caught by different names."""
    body = "    await websocket.close()\n    await websocket.send_text('GOAL')\n"
    verdict = checked(written(REGISTER + body))
    assert "WebSocketDisconnected (a RuntimeError): Cannot call" in verdict.message


def test_forgotten_await_is_named(written):
    """Python's own warning, which a server's log would hide."""
    verdict = checked(written("async def keep_register(websocket, here):\n    websocket.accept()"))
    assert "coroutine 'WebSocket.accept' was never awaited" in verdict.message


def test_failure_in_the_background_is_not_done(written):
    """All that was asked for happens, and a task that nobody waits for dies."""
    model = inspect.getsource(exercises.find("X3.1").model())
    bug = "    here.add(websocket)\n    async def bug(): raise ZeroDivisionError\n    asyncio.create_task(bug())\n"
    verdict = checked(written(model.replace("    here.add(websocket)\n", bug)))
    assert verdict.outcome == "not yet"
    assert "something failed behind it" in verdict.message
    assert "ZeroDivisionError" in verdict.message


def test_answer_that_uses_something_alive_is_told_what(written):
    """A server of the notebook cannot travel to another process."""
    verdict = checked(
        written("""
        import threading
        server = threading.Lock()
        async def keep_register(websocket, here):
            async def inner():
                server.acquire()
            await inner()
        """)
    )
    assert verdict.outcome == "not yet"
    assert "Your answer uses `server` of this notebook" in verdict.message


def test_answer_may_use_other_functions_and_models_of_the_notebook(written):
    """They travel with it, and their lines are named as well."""
    verdict = checked(
        written("""
        from pydantic import BaseModel
        class Cheer(BaseModel):
            fan: str
        def helper():
            return Cheer(fan=1)
        async def keep_register(websocket, here):
            helper()
        """)
    )
    assert "ValidationError" in verdict.message
    assert "`return Cheer(fan=1)`" in verdict.message


@pytest.mark.parametrize("base", ["labkit", "cell"])
def test_class_may_inherit_all_that_it_has(written, base):
    """A class is a class, without a method of its own too."""
    cell = inspect.getsource(exercises.find("X5.3").model()).replace("HushedManager", "TolerantManager")
    source = "from labkit.broadcast.managers import TolerantManager\n" if base == "labkit" else f"{cell}\n"
    hushed = written(f'{source}class HushedManager(TolerantManager):\n    """inherit all"""\n', "HushedManager")
    assert checked(hushed, "X5.3").outcome == "done"


def test_class_without_the_verbs_is_told_which(written):
    """It is tried as any other."""
    hushed = written("class HushedManager: pass\n", "HushedManager")
    assert "your HushedManager has no such verb" in checked(hushed, "X5.3").message


def test_line_of_a_base_in_another_cell_is_named(written):
    """What is inherited is the learner's own as well."""
    base = "class Base:\n    def __init__(self): self.lost = 1 / 0\n    async def connect(self): ...\n"
    hushed = written(f"{base}class HushedManager(Base): pass\n", "HushedManager")
    assert "`def __init__(self): self.lost = 1 / 0`" in checked(hushed, "X5.3").message


async def _coroutine(websocket, here):
    """Do nothing."""


@pytest.mark.parametrize("handed_in", [None, 3, print, exercises.Exercise], ids=["None", "int", "builtin", "class"])
def test_what_is_no_answer_is_said(handed_in):
    """None is what a cell hands in whose function forgot to return one."""
    verdict = checked(handed_in)
    assert verdict.outcome == "not yet"
    assert verdict.message


def test_call_in_place_of_the_function_is_said():
    """The parentheses too many."""
    verdict = checked(_coroutine(None, None))
    assert "without parentheses" in verdict.message


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("async def keep_register(websocket): pass", "The check calls keep_register() with 2 arguments"),
        ("def keep_register(websocket, here): pass", "Is it `async def keep_register`?"),
    ],
    ids=["arguments", "not async"],
)
def test_function_of_another_shape_is_said(written, source, says):
    """Before it is run against anything."""
    assert says in checked(written(source)).message


def test_unknown_exercise_is_a_key_error_that_lists_the_others():
    """For all three verbs."""
    for call in (hint, solution, lambda identifier: asyncio.run(check(identifier, print))):
        with pytest.raises(KeyError, match=r"there is no exercise 'X9\.9'; there are: .*X3\.1"):
            call("X9.9")


def test_hints_come_one_at_a_time(monkeypatch):
    """From a nudge to nearly everything; the last one says where the answer is."""
    monkeypatch.setattr(checks, "_hints_shown", {})
    shown = [repr(hint("X3.1")) for _ in range(4)]
    assert [text[:6] for text in shown] == ["Hint 1", "Hint 2", "Hint 3", "Hint 3"]
    assert 'The next: hint("X3.1")' in shown[0]
    assert 'solution("X3.1")' in shown[2]


def test_solution_is_folded_and_is_the_code_that_is_tested():
    """What a learner copies is done."""
    shown = solution("X3.1")
    assert inspect.getsource(exercises.find("X3.1").model()) in repr(shown)
    assert shown._repr_html_().startswith("<details>")


def test_killed_examiner_is_replaced():
    """By the system, when memory runs out; the learner notices a second's delay."""
    answer = exercises.find("X3.1").model()
    checked(answer)
    first = running.find("child process", examiner.NAME)
    os.kill(first.pid, signal.SIGKILL)
    assert checked(answer).outcome == "done"
    assert running.find("child process", examiner.NAME).pid != first.pid


def test_stop_during_a_check_leaves_the_next_one_well(written):
    """Jupyter's Stop cancels the cell; the fork ends with it."""

    async def stopped():
        task = asyncio.create_task(check("X3.1", written(f"{REGISTER}    time.sleep(600)\n")))
        while running.find("child process", examiner.NAME) is None:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await check("X3.1", exercises.find("X3.1").model())

    assert asyncio.run(stopped()).outcome == "done"


def test_nothing_is_left_of_a_check():
    """The warm process is a child like any other."""
    checked(exercises.find("X3.1").model())
    pid = running.find("child process", examiner.NAME).pid
    assert asyncio.run(close_lab()).nothing_left
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_hints_are_three_and_statements_are_sentences():
    """For every exercise of the course."""
    for exercise in exercises.load().values():
        assert len(exercise.hints) == 3
        assert all(text.endswith((".", "?")) for text in (*exercise.hints, exercise.statement))
