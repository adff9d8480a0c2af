"""Where a proxy passes things on to."""

import asyncio
import socket
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

_PORTS = {"http": 80, "ws": 80, "https": 443, "wss": 443, "redis": 6379}


class HasAddress(Protocol):
    """What a proxy can stand in front of: a LabServer, a RedisServer, another proxy."""

    url: str


class Target(NamedTuple):
    """Where a proxy passes things on to. scheme, userinfo and rest: what stands around "host:port" in its address."""

    host: str
    port: int
    scheme: str = "http"
    userinfo: str = ""
    rest: str = ""


def target_of(target: HasAddress | str | tuple[str, int]) -> Target:
    """Return where the target is; raise ValueError for something that names no host or no port."""
    if isinstance(target, tuple):
        return Target(*target)
    # An address of the form http://::1:8000 could not be taken apart again.
    if hasattr(target, "host") and hasattr(target, "port"):
        return Target(target.host, target.port)
    text = target if isinstance(target, str) else getattr(target, "url", None)
    if not isinstance(text, str):
        raise TypeError(f"start_proxy() needs a running server or an address, and got {type(target).__name__}.")
    parts = urlsplit(text if "://" in text else f"http://{text}")
    try:
        port = parts.port or _PORTS.get(parts.scheme if "://" in text else "")
    except ValueError:
        port = None
    if not parts.hostname or not port:
        raise ValueError('a proxy needs a host and a port to pass things on to, such as "127.0.0.1:8000".')
    userinfo, at, _ = parts.netloc.rpartition("@")
    rest = parts.path + (f"?{parts.query}" if parts.query else "")
    return Target(parts.hostname, port, parts.scheme, userinfo + at, rest)


async def addresses_of(target: Target) -> list[tuple[int, tuple]]:
    """Return the address families and socket addresses of a target, in the order in which they are to be tried."""
    try:
        # Asked in a thread even for "127.0.0.1", the loop would keep that thread.
        found = socket.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
    return [(family, address) for family, _, _, _, address in found]
