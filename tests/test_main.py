"""`python -m labkit proxy`, run as a learner runs it; what else `python -m labkit` does is in test_doctor.py."""

import signal
import socket
import subprocess
import sys

import pytest

COMMAND = [sys.executable, "-m", "labkit", "proxy"]


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
