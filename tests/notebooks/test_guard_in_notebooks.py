"""What nbval cannot see by itself: each kind of background failure fails the notebook's test, tried one by one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import prepare

pytestmark = pytest.mark.slow

IMPORTS = """\
import asyncio, threading
from fastapi import FastAPI, WebSocket
from websockets.asyncio.client import connect
from labkit import claim, close_lab, expecting, serve"""

CRASHING_APP = """\
app = FastAPI()
@app.websocket("/ws")
async def endpoint(websocket: WebSocket):
    await websocket.accept()
    raise ValueError("crashed")
server = await serve(app)
async with connect(server.ws_url()) as client:
    await client.wait_closed()"""

IDLE_SERVER = "server = await serve(FastAPI())"

CASES = {
    "quiet": ([IDLE_SERVER], None),
    "crashed_handler": ([CRASHING_APP], "handler of /ws on 'main': ValueError: crashed"),
    "dead_task": (
        [IDLE_SERVER, "async def die():\n    raise ValueError('dead')", "task = asyncio.create_task(die())"],
        "ValueError: dead",
    ),
    "dead_thread": (
        [IDLE_SERVER, "thread = threading.Thread(target=lambda: 1 / 0)\nthread.start()\nthread.join()"],
        "ZeroDivisionError",
    ),
    "stopped_server": (
        [IDLE_SERVER, "server._uvicorn.should_exit = True\nawait asyncio.wait({server._task})"],
        "the server has stopped by itself",
    ),
    "expected_failure": (
        ["with expecting(ValueError):\n    " + CRASHING_APP.replace("\n", "\n    ")],
        None,
    ),
    "failed_claim": (["claim('one-server', 'the moon is near', holds=False)"], "ClaimFailed"),
    "running_task": (
        [IDLE_SERVER, "async def tick():\n    await asyncio.Event().wait()", "task = asyncio.create_task(tick())"],
        "the notebook left behind: .*cancelled 1 task",
    ),
    "forgotten_close": ([IDLE_SERVER], "the notebook left behind: closed 1 server"),
}


def write(path: Path, cells: list[str], *, closes: bool) -> None:
    """Write a prepared notebook with these code cells."""
    sources = [IMPORTS, *cells, *(["await close_lab()"] if closes else [])]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    nbformat.write(notebook, path)
    nbformat.write(prepare.prepared(path, twice=False), path)


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> str:
    """Run all small notebooks through nbval, as `make test` runs the real ones, and return what pytest printed."""
    folder = tmp_path_factory.mktemp("notebooks")
    for name, (cells, _) in CASES.items():
        write(folder / f"{name}.ipynb", cells, closes=name not in ("running_task", "forgotten_close"))
    options = ["--nbval-lax", "--nbval-current-env", "--tb=short", "--color=no", "-rA", "-p", "no:cacheprovider"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-c", os.devnull, str(folder)],
        capture_output=True,
        text=True,
        env={**os.environ, "BROADCAST_LAB_STRICT": "1"},
        cwd=folder,
    )
    return result.stdout


@pytest.mark.parametrize("name", CASES)
def test_background_failure_fails_the_notebook(output, name):
    """And a notebook without one, or with one that it expects, passes."""
    _, failure = CASES[name]
    summary = output.split("short test summary info")[-1].splitlines()
    cells = [line.split()[0] for line in summary if f"{name}.ipynb::" in line]
    if failure is None:
        assert set(cells) == {"PASSED"}
    else:
        assert cells.count("FAILED") == 1
        assert re.search(failure, output, re.DOTALL)
