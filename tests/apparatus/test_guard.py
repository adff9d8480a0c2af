"""The guard hears every failure in the background, and lets pass those, and only those, that were announced."""

import asyncio
import logging
import threading

import pytest

from labkit import close_lab, expecting, serve
from labkit.apparatus import guard


@pytest.fixture(autouse=True)
async def listening():
    """Listen on the loop of the test."""
    guard.install()


async def fail(error: Exception) -> None:
    """Stand for a task that dies."""
    raise error


async def test_dead_task_is_found_while_somebody_still_holds_it():
    """asyncio itself would speak only once the task is collected."""
    kept = asyncio.create_task(fail(ValueError("dead")))
    await asyncio.wait({kept})
    with pytest.raises(guard.BackgroundFailure, match="ValueError: dead"):
        guard.check()
    kept.exception()


async def test_dropped_task_is_found():
    """A task that nobody holds tells when it is collected."""
    await asyncio.wait({asyncio.create_task(fail(ValueError("dropped")))})
    with pytest.raises(guard.BackgroundFailure, match="ValueError: dropped"):
        guard.check()


async def test_thread_error_is_found():
    """Python would print it and go on."""
    thread = threading.Thread(target=lambda: 1 / 0, name="worker")
    thread.start()
    thread.join()
    with pytest.raises(guard.BackgroundFailure, match="thread worker: ZeroDivisionError"):
        guard.check()


async def test_callback_error_is_found():
    """Of a callback that the loop calls."""
    asyncio.get_running_loop().call_soon(lambda: 1 / 0)
    await asyncio.sleep(0)
    with pytest.raises(guard.BackgroundFailure, match="ZeroDivisionError"):
        guard.check()


async def test_error_record_of_a_library_is_found():
    """What uvicorn, asyncio and websockets log as an error is one."""
    logging.getLogger("uvicorn.error").error("something is wrong")
    with pytest.raises(guard.BackgroundFailure, match=r"uvicorn.error: something is wrong"):
        guard.check()


async def test_server_that_ends_by_itself_is_found():
    """Cells after it would fail with something less clear."""

    async def app(scope, receive, send):
        pass

    server = await serve(app)
    server._uvicorn.should_exit = True
    await asyncio.wait({server._task})
    with pytest.raises(guard.BackgroundFailure, match="server 'main': the server has stopped by itself"):
        guard.check()


async def test_check_starts_afresh():
    """The same failure is not told twice."""
    logging.getLogger("asyncio").error("once")
    with pytest.raises(guard.BackgroundFailure):
        guard.check()
    guard.check()


async def test_expected_background_failure_passes(capsys):
    """It is shown as expected, and the check is silent."""
    with expecting(ValueError) as seen:
        task = asyncio.create_task(fail(ValueError("the lesson")))
        await asyncio.wait({task})
    assert [str(error) for error in seen.errors] == ["the lesson"]
    assert "✔ expected, in background" in capsys.readouterr().out
    task.exception()


async def test_expected_foreground_failure_ends_the_block(capsys):
    """The rest of the cell goes on."""
    with expecting(ValueError, match="x not in list"):
        [].remove(1)
    assert "✔ expected: ValueError: list.remove(x): x not in list" in capsys.readouterr().out


async def test_other_failures_are_not_taken(monkeypatch):
    """Neither another class in the cell, nor another one behind it."""
    monkeypatch.delenv("BROADCAST_LAB_STRICT", raising=False)
    with pytest.raises(KeyError), expecting(ValueError):
        {}["missing"]
    with expecting(KeyError) as seen:
        logging.getLogger("asyncio").error("something else")
    assert seen.errors == []
    with pytest.raises(guard.BackgroundFailure, match="something else"):
        guard.check()


async def test_nothing_failed_is_said_and_raised_in_the_tests(capsys, monkeypatch):
    """A failure that is the lesson and does not come is news."""
    monkeypatch.delenv("BROADCAST_LAB_STRICT", raising=False)
    with expecting(ValueError):
        pass
    assert "✘ expected ValueError, and nothing of the kind failed" in capsys.readouterr().out
    monkeypatch.setenv("BROADCAST_LAB_STRICT", "1")
    with pytest.raises(AssertionError, match="expected ValueError"), expecting(ValueError):
        pass


async def test_close_lab_takes_the_guard_off():
    """The process is then as it was."""
    loop = asyncio.get_running_loop()
    await close_lab()
    assert loop.get_exception_handler() is None
    assert threading.excepthook is threading.__excepthook__ or "guard" not in threading.excepthook.__module__
