"""What is going on in a cluster, asked of the operating system and of Redis: so it holds for any app."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TABLE = Path("/proc/net/tcp")
# A line of Linux's table of sockets: the local port, in hexadecimal, where the state is 01, established.
_ESTABLISHED = re.compile(rb": [0-9A-F]{8}:([0-9A-F]{4}) [0-9A-F]{8}:[0-9A-F]{4} 01 ")
_ANSWER_SECONDS = 0.2
# One look at so many keys finds the streams of a lab.
_KEYS = 1_000
_PUBLISHING = ("cmdstat_publish", "cmdstat_spublish", "cmdstat_xadd")


@dataclass(frozen=True)
class ServerFacts:
    """A server. connections: open ones. in_service: whether new fans are sent there. link: its state, or empty."""

    name: str
    state: str
    connections: int
    in_service: bool
    link: str


@dataclass(frozen=True)
class RedisFacts:
    """Redis; all counts are None where it does not answer.

    subscribers: connections that have subscribed. clients: the others. published: calls of PUBLISH and XADD so far.
    streams: name -> entries that it keeps.
    """

    state: str
    subscribers: int | None = None
    clients: int | None = None
    published: int | None = None
    streams: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class ClusterFacts:
    """A cluster at one moment. fans: connections at the balancer. redis: None where the cluster has none."""

    name: str
    url: str
    balancer: str
    method: str
    fans: int
    servers: tuple[ServerFacts, ...]
    redis: RedisFacts | None


def connections_at(listening: dict[int, int | None]) -> dict[int, int]:
    """Return how many connections are open at each port, from the operating system.

    listening: port -> number of the process that listens there, or None where there is none any more.
    The trap: what a frozen process has not taken in yet counts as well, since for the client it is open.
    """
    try:
        table = _TABLE.read_bytes()
    except OSError:
        return {port: _connections_of(pid, port) if pid else 0 for port, pid in listening.items()}
    found = Counter(_ESTABLISHED.findall(table))
    return {port: found[b"%04X" % port] for port in listening}


def _connections_of(pid: int, port: int) -> int:
    """Return how many connections a process and its children have open at a port: the slower way, of macOS."""
    # ipykernel brings it; whoever draws nothing need not load it.
    import psutil

    try:
        process = psutil.Process(pid)
        family = [process, *process.children()]
        sockets = [each for one in family for each in one.net_connections(kind="tcp")]
    except psutil.Error:
        return 0
    return sum(each.status == psutil.CONN_ESTABLISHED and each.laddr.port == port for each in sockets)


def ask_redis(url: str, state: str, *, look_for_streams: bool) -> RedisFacts:
    """Return what Redis says of itself; it has a fifth of a second to answer.

    look_for_streams: whether its keys are looked through; not those of a server that others use.
    """
    from redis import Redis
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError
    from redis.retry import Retry

    if state != "running":
        return RedisFacts(state)
    limits = {"socket_timeout": _ANSWER_SECONDS, "socket_connect_timeout": _ANSWER_SECONDS}
    try:
        with Redis.from_url(url, retry=Retry(NoBackoff(), 0), decode_responses=True, **limits) as client:
            pipeline = client.pipeline(transaction=False)
            pipeline.info("clients").info("commandstats").client_list(_type="pubsub")
            clients, commands, subscribers = pipeline.execute()
            streams = _streams(client) if look_for_streams else ()
    except (RedisError, OSError):
        return RedisFacts("running, but it does not answer")
    return RedisFacts(
        state,
        subscribers=len(subscribers),
        # This question is a connection too.
        clients=clients["connected_clients"] - len(subscribers) - 1,
        published=sum(commands[name]["calls"] for name in _PUBLISHING if name in commands),
        streams=streams,
    )


def _streams(client: object) -> tuple[tuple[str, int], ...]:
    """Return the streams among the keys of a server, each with its length."""
    names: Iterable[str] = client.scan(count=_KEYS, _type="stream")[1]
    return tuple((name, client.xlen(name)) for name in sorted(names))
