"""A real kernel: Stop at an await, killed with children, and where handlers print."""

import os
import signal
import time
from pathlib import Path

import pytest
from jupyter_client.manager import start_new_kernel

pytestmark = pytest.mark.slow

OPEN = """\
import asyncio
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from labkit import Fleet, close_lab, serve
app = FastAPI()
connections = []
@app.websocket("/ws")
async def endpoint(websocket: WebSocket):
    await websocket.accept()
    connections.append(websocket)
    try:
        while True:
            print("heard", await websocket.receive_text())
    except WebSocketDisconnect:
        connections.remove(websocket)
server = await serve(app)
fleet = await Fleet(server, healthy=3).connect()
print(fleet._child.pid, fleet._child.folder)"""


class Notebook:
    """A kernel and its client, with one verb."""

    def __init__(self):
        self.manager, self.client = start_new_kernel(kernel_name="python3")

    def run(self, source: str, *, interrupt: bool = False) -> tuple[str, str]:
        """Run a cell and return what it printed and the name of its error, or an empty string."""
        printed = []

        def note(message):
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])
                if interrupt and "waiting" in message["content"]["text"]:
                    self.manager.interrupt_kernel()

        reply = self.client.execute_interactive(source, output_hook=note, timeout=30)
        return "".join(printed), reply["content"].get("ename", "")


@pytest.fixture
def notebook():
    """Start a kernel as JupyterLab does, and shut it down after the test."""
    notebook = Notebook()
    yield notebook
    notebook.client.stop_channels()
    if notebook.manager.is_alive():
        notebook.manager.shutdown_kernel()


def is_alive(pid: int) -> bool:
    """Return whether a process of this number runs."""
    return Path(f"/proc/{pid}").exists()


@pytest.mark.parametrize(
    "waiting",
    ["await asyncio.sleep(600)", "await asyncio.Event().wait()", "await fleet.until(99, timeout=600)"],
)
def test_stop_ends_the_cell_and_nothing_else(notebook, waiting):
    """The server serves on, the fleet stays connected, and the next cell runs."""
    assert notebook.run(OPEN)[1] == ""
    _, error = notebook.run(f"print('waiting', flush=True)\n{waiting}", interrupt=True)
    assert error in ("CancelledError", "KeyboardInterrupt")
    printed, error = notebook.run(
        "await connections[0].send_text('on')\nawait fleet.until(1, clients=[1])\nprint(server)"
    )
    assert error == ""
    assert "3 connections" in printed
    printed, error = notebook.run("print(await close_lab())")
    assert "0 servers, 0 clients, 0 tasks, 0 child processes left" in printed


def test_stop_while_a_server_and_a_fleet_start_leaves_nothing(notebook):
    """Interrupted at their own awaits."""
    notebook.run(OPEN)
    source = """
from contextlib import asynccontextmanager
@asynccontextmanager
async def slow(app):
    print("waiting", flush=True)
    await asyncio.Event().wait()
    yield
await serve(FastAPI(lifespan=slow), name="slow")"""
    assert notebook.run(source, interrupt=True)[1] in ("CancelledError", "KeyboardInterrupt")
    printed, _ = notebook.run(
        "from labkit.apparatus import running\nprint([each.name for each in running.everything()])"
    )
    assert "slow" not in printed


def test_handler_prints_into_the_running_cell(notebook):
    """Not into the cell that started the server, which may be far up."""
    notebook.run(OPEN)
    printed, _ = notebook.run("await fleet.send('hello', clients=[2])\nawait asyncio.sleep(0.3)")
    assert "heard hello" in printed


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_kernel_leaves_no_child_and_no_folder(notebook, number):
    """Within two seconds, however it ended."""
    pid, folder = notebook.run(OPEN)[0].split()[-2:]
    os.kill(notebook.manager.provisioner.pid, number)
    until = time.monotonic() + 2
    while time.monotonic() < until and (is_alive(int(pid)) or Path(folder).exists()):
        time.sleep(0.02)
    assert not is_alive(int(pid))
    assert not Path(folder).exists()
