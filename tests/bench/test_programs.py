"""The benchmark's programs: what they count is what was sent, and none stays behind."""

import asyncio
import os
import select
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
from websockets.asyncio.server import ServerConnection, serve

# The test modules are not imported as a package, so the rooms beside them are found by their folder.
sys.path.insert(0, str(Path(__file__).parent))
import native
import report
from blocks import Block, Case, Contestant, Pace, Series, share_out
from programs import Program, ProgramFailed, Server, Swarm, cpu_ns

CLIENTS = 5
TURNS = 3
IN_PYTHON = {name: [sys.executable, str(native.HERE / f"{name}.py")] for name in ("limit", "swarm")}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """Compile both programs anew; skip where there is no compiler."""
    folder = tmp_path_factory.mktemp("compiled")
    for name in ("limit", "swarm"):
        said = native.why_not(native.HERE / f"{name}.c", folder / name)
        if said.startswith("there is no cc"):
            pytest.skip(said)
        assert not said, said
    return {name: [str(folder / name)] for name in ("limit", "swarm")}


@pytest.fixture
def running():
    """Give a place for programs to be closed after the test."""
    with ExitStack() as stack:
        yield stack


def contestant_of(server: Server, swarm_command: list[str], running: ExitStack) -> Contestant:
    """Return a server with five clients."""
    running.callback(server.close)
    contestant = Contestant(server, Swarm(swarm_command, server, CLIENTS))
    running.callback(contestant.swarm.close)
    return contestant


def counted(contestant: Contestant, joined: int, body_bytes: int) -> list[int]:
    """Let a server broadcast, and return what the swarm counted: messages, those astray, clients gone."""
    contestant.swarm.tell(f"expect {TURNS} {joined} {body_bytes} 20000")
    contestant.swarm.answer("expecting", 20)
    contestant.server.tell(f"{TURNS} {joined} {body_bytes} 1000")
    contestant.server.answer("done", 20)
    return [int(word) for word in contestant.swarm.answer("arrived", 20)[:3]]


@pytest.mark.parametrize(("joined", "body_bytes"), [(1, 100), (4, 100), (1, 126), (2, 70_000)])
def test_the_c_programs_count_exactly(compiled, running, joined, body_bytes):
    """All lengths of a header; messages that share a read, and one that takes many."""
    contestant = contestant_of(Server("limit", compiled["limit"]), compiled["swarm"], running)
    for _ in range(2):
        assert counted(contestant, joined, body_bytes) == [CLIENTS * TURNS * joined, 0, 0]


@pytest.mark.parametrize("swarm", ["compiled", "in Python"])
def test_the_python_limit_stands_in(request, running, swarm):
    """Where there is no compiler the same is counted, by either swarm."""
    command = request.getfixturevalue("compiled")["swarm"] if swarm == "compiled" else IN_PYTHON["swarm"]
    contestant = contestant_of(Server("limit", IN_PYTHON["limit"]), command, running)
    for joined, body_bytes in ((4, 100), (2, 70_000)):
        assert counted(contestant, joined, body_bytes) == [CLIENTS * TURNS * joined, 0, 0]


def test_ours_speak_the_interface(compiled, running):
    """The hub stands for the rungs, which are started in the same way."""
    contestant = contestant_of(Server.of_ours("hub"), compiled["swarm"], running)
    for joined in (1, 4):
        assert counted(contestant, joined, 100) == [CLIENTS * TURNS * joined, 0, 0]
    assert contestant.server.version.startswith("uvicorn-")
    contestant.server.tell("gap")
    contestant.play(1, 1, 100, 0)
    assert int(contestant.server.answer("gap", 20)[0]) > 0


TALK = (
    "greeting=hello", "welcome=welcome", "prefix=say ", "stamp_offset=4",
    "answer_before=got ", "answer_at=-4", "answer_bytes=3", "answer_after=!",
)  # fmt: skip


async def talk(connection: ServerConnection, may_begin: asyncio.Event) -> list[str]:
    """Play a server that is greeted, pings in both ways, sends chatter and fragments; return what it was answered."""
    heard = [await connection.recv()]
    await connection.send("say not yet")
    await connection.send("welcome!")
    await may_begin.wait()
    await connection.send("2")
    heard.append(await connection.recv())
    for number in range(TURNS):
        await (await connection.ping("x" * 125))
        text = f"say {time.monotonic_ns():020}{'x' * 400}id{number}."
        await connection.send([text[:10], text[10:50], text[50:]])
        heard.append(await connection.recv())
    return heard


@pytest.mark.parametrize("swarm", ["compiled", "in Python"])
async def test_a_swarm_speaks_as_the_peers_want_it(request, swarm):
    """It greets, is welcome, answers pings, and answers each broadcast with a piece of it; chatter is not counted."""
    command = request.getfixturevalue("compiled")["swarm"] if swarm == "compiled" else IN_PYTHON["swarm"]
    may_begin = asyncio.Event()
    heard = []

    async def serve_one(connection: ServerConnection) -> None:
        heard.append(await talk(connection, may_begin))

    async with serve(serve_one, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        program = await asyncio.to_thread(Program, "swarm", [*command, str(port), str(CLIENTS), *TALK])
        try:
            await asyncio.to_thread(program.answer, f"connected {CLIENTS}", 20)
            program.tell(f"expect {TURNS} 1 400 20000")
            await asyncio.to_thread(program.answer, "expecting", 20)
            may_begin.set()
            assert (await asyncio.to_thread(program.answer, "arrived", 20))[:2] == [str(CLIENTS * TURNS), "0"]
        finally:
            program.close()
    assert heard == [["hello", "3", "got id0!", "got id1!", "got id2!"]] * CLIENTS


def test_what_is_too_short_is_seen(compiled, running):
    """A server that sends less than it was told is not measured as a fast one."""
    contestant = contestant_of(Server("limit", compiled["limit"]), compiled["swarm"], running)
    contestant.swarm.tell(f"expect {TURNS} 1 101 20000")
    contestant.swarm.answer("expecting", 20)
    contestant.server.tell(f"{TURNS} 1 100 1000")
    count, astray, closed = map(int, contestant.swarm.answer("arrived", 20)[:3])
    assert (count, astray, closed) == (CLIENTS * TURNS, CLIENTS * TURNS, 0)


def test_a_server_that_goes_is_said_to_be_gone(compiled, running):
    """What is missing is no delivery; the failure names the server and its clients."""
    contestant = contestant_of(Server("limit", compiled["limit"]), compiled["swarm"], running)
    contestant.swarm.tell(f"expect {TURNS} 1 100 20000")
    contestant.swarm.answer("expecting", 20)
    contestant.server.close()
    assert contestant.swarm.answer("missing", 20)[:3] == ["0", "0", str(CLIENTS)]


def test_a_word_that_was_not_asked_for_is_a_failure_that_quotes_it(compiled, running):
    """Who said what, instead of a wrong number."""
    contestant = contestant_of(Server("limit", compiled["limit"]), compiled["swarm"], running)
    contestant.swarm.tell("expect 1 1 100 20000")
    with pytest.raises(ProgramFailed, match="swarm of limit said 'expecting', and not 'arrived'"):
        contestant.swarm.answer("arrived", 20)


def test_a_block_has_cpu(compiled, running):
    """The server's and the swarm's, and a moment of the last arrival."""
    contestant = contestant_of(Server("limit", compiled["limit"]), compiled["swarm"], running)
    block = contestant.block(TURNS, 1, 100, 1000)
    assert min(block.cpu_us, block.swarm_us, block.last_arrival_ms) > 0
    assert cpu_ns(os.getpid()) > 0


def test_programs_die_with_whoever_started_them(compiled):
    """However the benchmark ends, its programs' standard input closes, and they end; so do their clients."""
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from programs import Server, Swarm
server = Server("limit", {compiled["limit"]!r})
swarm = Swarm({compiled["swarm"]!r}, server, 5)
print(server.pid, swarm.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    # The pipe that they have inherited nothing of closes with the killed process; its output ends then.
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert done.returncode == -9
    for pid in map(int, done.stdout.split()):
        wait_for_end(pid)


def wait_for_end(pid: int) -> None:
    """Wait until a process that is not ours is gone."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    readable, _, _ = select.select([handle], [], [], 20)
    os.close(handle)
    assert readable, f"process {pid} has outlived its benchmark"


def test_pairs_are_shared_out():
    """Who is to have twenty comes first, the cheap ones first of all; nobody gets fewer than six."""
    cases = {
        Case("other", most_pairs=12): Pace(0, 0, 0.1),
        Case("dear"): Pace(0, 0, 2.0),
        Case("cheap"): Pace(0, 0, 0.1),
    }
    for seconds, pairs in ((1000.0, [12, 20, 20]), (30.0, [12, 13, 20]), (0.0, [6, 6, 6])):
        share_out(cases, seconds)
        assert [pace.pairs for pace in cases.values()] == pairs


def test_rows_have_what_was_promised():
    """The limit's row first; ratios by the block beside, and by the docs loop's block of the nearest round."""
    pace = Pace(2000, 10, 0.1)
    one, two, four = (Block(cpu_us, 1.0, 1.0) for cpu_us in (1.0, 2.0, 4.0))
    docs = Series(Case("NaiveManager"), 100, pace, "1", {0: (two, one), 1: (four, two)})
    hub = Series(Case("hub", joined=4), 100, pace, "1", {0: (one, one), 9: (four, two)})
    limit_row, docs_row, hub_row = report.rows_of([docs, hub])
    assert {
        "variant", "clients", "body_bytes", "joined", "deflate", "loop", "cpu_us_per_delivery", "ratio_to_limit",
        "ratio_to_docs_loop", "blocks",
    } <= set(limit_row) & set(docs_row) & set(hub_row)  # fmt: skip
    assert (limit_row["variant"], limit_row["blocks"], limit_row["ratio_to_docs_loop"]) == ("limit", 4, 0.5)
    assert (docs_row["ratio_to_limit"], docs_row["ratio_to_docs_loop"]) == (2.0, 1.0)
    assert (hub_row["ratio_to_limit"], hub_row["ratio_to_docs_loop"], hub_row["joined"]) == (1.5, 0.75, 4)
    assert "| hub | asyncio | 100 | 100 | 4 |" in report.markdown([limit_row, docs_row, hub_row], [], [])
