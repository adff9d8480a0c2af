"""What is measured: which variants, with how many clients, and how each is started.

The headline is what the README's table shows; the grid crosses everything with everything.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass

from blocks import DOCS_LOOP, LIMIT, Case, Contestant
from native import command_of
from programs import ProgramFailed, Server, Swarm

try:
    import peers
except ModuleNotFoundError as error:
    if error.name != "peers":
        raise
    peers = None

RUNGS = (DOCS_LOOP, "SetManager", "TolerantManager", "GatherManager", "TimeoutManager", "QueueManager")
HUB = "hub"
# The goal names it: the hub is not to be behind it.
FASTEST_PEER = "uWebSockets.js"
_FEWER_PAIRS = 12
_DEFLATE = "header=Sec-WebSocket-Extensions: permessage-deflate"
_JOINED = (4, 16, 64)
_BODIES = (100, 1024)


@dataclass(frozen=True)
class Stage:
    """Cases that are measured at the same time. .share of the run's time, by the shares of the others."""

    clients: int
    cases: tuple[Case, ...]
    share: float


class Field:
    """All that can be started here. .peers by their names and loops, .missing a line for each that cannot be had."""

    def __init__(self, say: Callable[[str], object]) -> None:
        self.missing: list[str] = []
        self.peers: dict[tuple[str, str], object] = {}
        self.limit = command_of("limit")
        self.swarm = command_of("swarm")
        # The Python that has uvloop; without one, what is to run on uvloop is left out.
        self.uvloop_python: str | None = None
        if peers is None:
            self.missing.append("tests/bench/peers is not there: nobody else is measured.")
        else:
            self._look_for_peers(say)
        if self.limit[0] == sys.executable:
            self.missing.append("There is no C compiler: the limit is a Python loop of socket.send(), slower than C.")
        if self.swarm[0] == sys.executable:
            self.missing.append(
                "There is no C compiler or no epoll: the swarm is in Python, and may be what is measured."
            )

    def _look_for_peers(self, say: Callable[[str], object]) -> None:
        peers.set_up(say=say)
        for peer in [*peers.available(), *peers.available(loop="uvloop")]:
            if peer.missing:
                self.missing.append(peer.missing)
            else:
                self.peers[peer.name, peer.loop] = peer
        self.missing = list(dict.fromkeys(self.missing))
        try:
            Server.of_ours(DOCS_LOOP, "--loop", "uvloop", python=str(peers.peer_python())).close()
            self.uvloop_python = str(peers.peer_python())
        except (ProgramFailed, OSError) as failure:
            self.missing.append(f"Ours on uvloop are left out: {failure}")

    def peer_cases(self, *loops: str, **options: object) -> list[Case]:
        """Return a case for each peer that runs on one of these loops."""
        return [Case(name, loop, **options) for name, loop in self.peers if loop in loops]

    def start(self, case: Case, clients: int) -> Contestant:
        """Start a case's server, and connect its swarm; raise ProgramFailed where that cannot be."""
        options = [_DEFLATE] if case.deflate else []
        if case.variant == LIMIT:
            server = Server(LIMIT, self.limit)
        elif (case.variant, case.loop) in self.peers:
            peer = self.peers[case.variant, case.loop]
            server = Server(peer.name, peer.command)
            options += talk_of(peer)
        else:
            words = ["--deflate"] if case.deflate else []
            python = self.uvloop_python if case.loop == "uvloop" else sys.executable
            server = Server.of_ours(case.variant, "--loop", case.loop, *words, python=python)
        try:
            return Contestant(server, Swarm(self.swarm, server, clients, options))
        except ProgramFailed:
            server.close()
            raise


def talk_of(peer: object) -> list[str]:
    """Return the options of a swarm that talks to a peer."""
    options = {
        "path": peer.path,
        "greeting": peer.greeting,
        "welcome": peer.welcome,
        "prefix": peer.prefix,
        "stamp_offset": peer.stamp_offset,
    }
    if peer.answer:
        options["answer_before"] = peer.answer.before
        options["answer_at"] = peer.answer.copied_at
        options["answer_bytes"] = peer.answer.copied_bytes
        options["answer_after"] = peer.answer.after
    return [f"{name}={value}" for name, value in options.items() if value]


def ladder(**options: object) -> list[Case]:
    """Return a case for each rung, and one for the hub."""
    return [Case(variant, **options) for variant in (*RUNGS, HUB)]


def headline(known: Field) -> list[Stage]:
    """Return what `make bench` measures, in a quarter of an hour."""
    fastest = [case for case in known.peer_cases("node") if case.variant == FASTEST_PEER]
    others = known.peer_cases("asyncio", "node", most_pairs=_FEWER_PAIRS)
    others = [case for case in others if case.variant != FASTEST_PEER]
    uvloop = [Case(variant, "uvloop", most_pairs=_FEWER_PAIRS) for variant in (DOCS_LOOP, HUB)]
    thousand = [
        *ladder(),
        *fastest,
        *[Case(HUB, joined=joined, most_pairs=_FEWER_PAIRS) for joined in _JOINED],
        Case(LIMIT, "C", joined=16, most_pairs=_FEWER_PAIRS),
        *[Case(variant, body_bytes=1024, most_pairs=_FEWER_PAIRS) for variant in (DOCS_LOOP, HUB)],
        *(uvloop if known.uvloop_python else []),
        *others,
    ]
    return [
        Stage(100, (*ladder(), *fastest), 2.3),
        Stage(1000, tuple(thousand), 6),
        Stage(5000, (*ladder(), *fastest), 4.7),
    ]


def whole_grid(known: Field) -> list[Stage]:
    """Return what `make bench-full` measures, in some hours: all crossed with all."""
    loops = ("asyncio", "uvloop") if known.uvloop_python else ("asyncio",)
    stages = []
    for clients in (100, 1000, 5000):
        for body_bytes in _BODIES:
            cases = []
            for joined in (1, *_JOINED):
                cases += [Case(LIMIT, "C", joined, body_bytes)] if joined > 1 else []
                for loop in loops:
                    cases += ladder(loop=loop, joined=joined, body_bytes=body_bytes)
                cases += known.peer_cases(*loops, "node", joined=joined, body_bytes=body_bytes)
            cases += [Case(variant, body_bytes=body_bytes, deflate=True) for variant in (DOCS_LOOP, HUB)]
            stages.append(Stage(clients, tuple(cases), clients))
    return stages
