"""`python -m labkit proxy` and `up`, run as learners run them; test_doctor.py has what else `python -m labkit` does."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import pytest

COMMAND = [sys.executable, "-m", "labkit", "proxy"]
UP = [sys.executable, "-m", "labkit", "up"]
# Guards against hanging: importing takes long where others use the cores too.
PATIENCE = 60


def address_in(line: str) -> tuple[str, int]:
    """Return the address that the proxy's first line names."""
    host, _, port = line.split()[0].rpartition(":")
    return host, int(port)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_proxy_passes_bytes_on_and_tells_the_counts_at_ctrl_c(number):
    """One line when it listens, one when it ends, nothing on the error stream, and 0."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(20)
        target = f"127.0.0.1:{server.getsockname()[1]}"
        command = [*COMMAND, target, "--idle-timeout", "60", "--delay", "0.01"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as proxy:
            try:
                first = proxy.stdout.readline()
                with (
                    socket.create_connection(address_in(first), timeout=20) as client,
                    server.accept()[0] as connection,
                ):
                    client.sendall(b"x")
                    assert connection.recv(10) == b"x"
                    connection.sendall(b"yes")
                    assert client.recv(10) == b"yes"
                    proxy.send_signal(number)
                    assert client.recv(10) == b""
                rest, errors = proxy.communicate(timeout=20)
            finally:
                proxy.kill()
    assert target in first
    assert (rest, errors) == ("links: 1, bytes up: 1, bytes down: 3\n", "")
    assert proxy.returncode == 0


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("127.0.0.1",),
        ("127.0.0.1:http",),
        ("127.0.0.1:80", "--port", "high"),
        ("127.0.0.1:80", "--idle-timeout", "0"),
        ("127.0.0.1:80", "--delay", "-1"),
        ("127.0.0.1:80", "please"),
    ],
)
def test_wrong_arguments_print_the_usage_and_end_with_2(arguments):
    """The usage goes to the error stream, where mistakes belong."""
    run = subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("usage: python -m labkit proxy")


def test_taken_port_is_told_without_a_traceback():
    """One sentence, and 1."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        run = subprocess.run([*COMMAND, "127.0.0.1:80", "--port", port], capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.count("\n") == 1
    assert f"port {port} on 127.0.0.1 cannot be had" in run.stderr


def test_doctor_pays_nothing_for_the_proxy():
    """Where nothing is installed yet, the commands' module is imported all the same."""
    code = "import sys, labkit.__main__; print([name for name in sys.modules if name.startswith('labkit.apparatus')])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "[]", run.stderr


def surroundings(folder, **more):
    """Return an environment without a Redis of somebody else's, whose temporary files go into a folder."""
    return {name: value for name, value in os.environ.items() if name != "REDIS_URL"} | {"TMPDIR": str(folder)} | more


def exists(pid: int) -> bool:
    """Return whether a process of this number exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_prints_what_can_be_tried_and_leaves_nothing_at_ctrl_c(tmp_path, number):
    """The board opens, the goal as printed is taken, a server is killed as printed and the others carry on."""
    with subprocess.Popen(
        [*UP, "--servers", "2"],
        env=surroundings(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as site:
        try:
            lines = []
            while not (lines and "Ctrl+C stops everything." in lines[-1]):
                lines.append(site.stdout.readline())
                assert lines[-1], site.stderr.read()
            said = "".join(lines)
            url, token, goal = re.search(r'curl (\S+)/goal -H "Authorization: Bearer (\S+)" -d \'(.+)\'', said).groups()
            processes = [int(each) for each in re.findall(r"process (\d+)", said)]
            metrics = re.findall(r"(http\S+/metrics)", said)
            assert len(processes) == len(metrics) == 2
            headers = {"Authorization": f"Bearer {token}"}

            def post() -> int:
                request = urllib.request.Request(f"{url}/goal", goal.encode(), headers)
                with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                    return json.load(answer)["seq"]

            with urllib.request.urlopen(f"{url}/", timeout=PATIENCE) as page:
                assert b"Scoreboard" in page.read()
            for address in metrics:
                with urllib.request.urlopen(address, timeout=PATIENCE) as answer:
                    assert b"broadcast_clients" in answer.read()
            assert post() == 1
            os.kill(int(re.search(r"kill -9 (\d+)", said)[1]), signal.SIGKILL)
            assert site.stdout.readline() == "\n"
            assert site.stdout.readline() == "server 1 has ended; 1 of 2 run.\n"
            assert [post(), post()] == [2, 3]
            site.send_signal(number)
            rest, errors = site.communicate(timeout=PATIENCE)
        finally:
            site.kill()
    assert (rest.strip(), errors, site.returncode) == ("All stopped.", "", 0)
    assert not [pid for pid in processes if exists(pid)]
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_up_that_is_stopped_while_it_starts_leaves_nothing(tmp_path):
    """Ctrl+C at the first sign of life."""
    with subprocess.Popen(
        UP, env=surroundings(tmp_path), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as site:
        try:
            until = time.monotonic() + PATIENCE
            while not list(tmp_path.iterdir()) and time.monotonic() < until:
                time.sleep(0.01)
            site.send_signal(signal.SIGINT)
            said, errors = site.communicate(timeout=PATIENCE)
        finally:
            site.kill()
    assert (said.strip(), errors, site.returncode) == ("All stopped.", "", 0)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_up_that_cannot_start_says_why_in_one_message(tmp_path):
    """No traceback, nothing left, and 1."""
    nowhere = surroundings(tmp_path, REDIS_URL="redis://:secret@127.0.0.1:1/0")
    run = subprocess.run(UP, env=nowhere, capture_output=True, text=True, timeout=PATIENCE)
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.startswith("python -m labkit up: The Redis server that REDIS_URL names does not answer")
    assert run.stderr.count("\n") == 1
    assert "secret" not in run.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_up_says_that_its_port_is_taken(tmp_path):
    """The port is named, and all that had started has ended."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        run = subprocess.run(
            [*UP, "--servers", "1", "--port", port],
            env=surroundings(tmp_path),
            capture_output=True,
            text=True,
            timeout=PATIENCE,
        )
    assert (run.returncode, run.stdout) == (1, "")
    assert port in run.stderr
    assert "Traceback" not in run.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [("--servers", "0"), ("--servers", "many"), ("--port", "x"), ("please",)])
def test_wrong_arguments_of_up_print_the_usage_and_end_with_2(arguments):
    """As for the other commands."""
    run = subprocess.run([*UP, *arguments], capture_output=True, text=True, timeout=PATIENCE)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("usage: python -m labkit up")
