"""What is measured beside the blocks: memory for a connection, connecting, and how long a publish keeps the loop."""

import contextlib
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from blocks import DOCS_LOOP, Case, Contestant, started
from grid import HUB
from programs import ProgramFailed, Server, Swarm, resident_bytes

ENDPOINTS = {"endpoint": "HubProtocol", "endpoint-uvicorn": "uvicorn's own class"}
CONNECTS = (1000, 5000)
_REPETITIONS = 3
GAP_CLIENTS = 10_000
_GAP_TURNS = 3
_GAP_EVERY_US = 200_000
_GAP_PAIRS = 9
# More than there are clients: no slices at all.
_UNSLICED = 1_000_000


class Finding(NamedTuple):
    """One line beside the blocks: what, the values of all repetitions, and their unit."""

    what: str
    values: list[float]
    unit: str

    def __str__(self) -> str:
        return (
            f"{self.what}: {statistics.median(self.values):.2f} {self.unit} "
            f"({min(self.values):.2f} to {max(self.values):.2f}, n = {len(self.values)})"
        )


def connections(swarm: Sequence[str]) -> list[Finding]:
    """Measure what an idle connection of an ordinary endpoint holds, and how long connecting takes.

    Each repetition has a fresh process, in which the first 1,000 connections pay for what is loaded once.
    """
    kib = {variant: [] for variant in ENDPOINTS}
    seconds = {(variant, clients): [] for variant in ENDPOINTS for clients in CONNECTS}
    for _ in range(_REPETITIONS):
        for variant in ENDPOINTS:
            before = after = None
            server = Server.of_ours(variant)
            crowds = []
            try:
                for clients in CONNECTS:
                    crowds.append(Swarm(swarm, server, clients))
                    seconds[variant, clients].append(crowds[-1].connect_seconds)
                    server.settle()
                    before, after = after, resident_bytes(server.pid)
            finally:
                for each in (*crowds, server):
                    each.close()
            if after is not None:
                kib[variant].append((after - before) / CONNECTS[-1] / 1024)
    findings = [
        Finding(f"memory for an idle connection of a FastAPI endpoint, {ENDPOINTS[variant]}", values, "KiB")
        for variant, values in kib.items()
        if values
    ]
    for (variant, clients), values in seconds.items():
        findings.append(Finding(f"connecting {clients:,} clients, {ENDPOINTS[variant]}", values, "s"))
    return findings


def gaps(swarm: Sequence[str], say: Callable[[str], object]) -> list[Finding]:
    """Measure the longest gap of the loop during one publish to 10,000 clients, and what the hub's slices cost."""
    ways = {
        "hub": (HUB,),
        "hub, unsliced": (HUB, "--slice", str(_UNSLICED)),
        "docs loop": (DOCS_LOOP,),
    }
    longest: dict[str, list[float]] = {}
    ratios = []

    def start(case: Case, clients: int) -> Contestant:
        server = Server.of_ours(*ways[case.variant])
        try:
            return Contestant(server, Swarm(swarm, server, clients))
        except ProgramFailed:
            server.close()
            raise

    with contextlib.ExitStack() as stack:
        cases = [Case(way) for way in ways]
        found = started(cases, GAP_CLIENTS, start, stack, say)
        running = {case.variant: found[case.contestant] for case in cases if case.contestant in found}
        for number in range(_GAP_PAIRS):
            for way, contestant in running.items():
                longest.setdefault(way, []).append(longest_gap(contestant))
            if "hub" in running and "hub, unsliced" in running:
                both = ("hub", "hub, unsliced") if number % 2 else ("hub, unsliced", "hub")
                used = {way: running[way].block(_GAP_TURNS, 1, 100, _GAP_EVERY_US).cpu_us for way in both}
                ratios.append(used["hub"] / used["hub, unsliced"])
    findings = [
        Finding(f"longest gap of the loop in one publish to {GAP_CLIENTS:,} clients, {way}", values, "ms")
        for way, values in longest.items()
    ]
    if ratios:
        findings.append(Finding(f"CPU of the hub by that of the hub unsliced, {GAP_CLIENTS:,} clients", ratios, "×"))
    return findings


def longest_gap(contestant: Contestant) -> float:
    """Return for how many ms one publish kept the loop from its other tasks, at most."""
    contestant.play(1, 1, 100, 0)
    contestant.server.tell("gap")
    contestant.play(1, 1, 100, 0)
    return int(contestant.server.answer("gap", 60)[0]) / 1e6
