"""Ports that stay free while nobody listens on them, so that a killed server comes back on its own."""

import secrets
import socket
from pathlib import Path

_LOWEST = 10_000
# Where Linux begins to give ports to outgoing connections, and the file that says so; macOS begins higher.
_OUTGOING_FROM = 32_768
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_ATTEMPTS = 200


def free_port() -> int:
    """Return a port on loopback that nobody listens on, and that no outgoing connection is given.

    The trap of port 0: its ports lie where those of outgoing connections do. Of a thousand fans that come back after a
    server was killed, one may be given just the port that this server wants to listen on again.
    Somebody else may take the port before it is used; whoever listens on it has to be ready for that.
    """
    below = _outgoing_from()
    for _ in range(_ATTEMPTS if below > _LOWEST else 0):
        # Not from `random`, whose numbers belong to the experiments.
        port = _LOWEST + secrets.randbelow(below - _LOWEST)
        if _is_free(port):
            return port
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def _outgoing_from() -> int:
    """Return the lowest port that this system gives to outgoing connections."""
    try:
        return int(_RANGE.read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return _OUTGOING_FROM


def _is_free(port: int) -> bool:
    """Return whether a port on loopback can be listened on."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
