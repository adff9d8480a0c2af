"""Broadcast Lab: a laboratory for broadcasting with FastAPI and WebSockets.

The lesson is in the notebooks. Here is what a laboratory holds: servers to start, crowds of clients, clocks, tables,
figures. Names are resolved on first use (PEP 562), so that a server or a fleet process never pays for pandas and
pyplot, and importing this package changes nothing in the process.
"""

from importlib import import_module

_ROOMS = {
    "labkit.apparatus.clients": ("Delivery", "Fleet"),
    "labkit.apparatus.cluster": ("Cluster",),
    "labkit.apparatus.faults": ("start_proxy",),
    "labkit.apparatus.guard": ("expecting",),
    "labkit.apparatus.redis_server": ("RedisServer",),
    "labkit.apparatus.running": ("close_lab",),
    "labkit.apparatus.server": ("serve",),
    "labkit.evidence.charts.of_arrivals": ("arrivals", "latencies", "staircase"),
    "labkit.evidence.charts.of_returns": ("comebacks",),
    "labkit.evidence.charts.of_values": ("bars", "curves", "matrix", "tradeoff"),
    "labkit.evidence.charts.space_time": ("space_time",),
    "labkit.evidence.claims": ("claim", "claims"),
    "labkit.evidence.contract": ("contract_table", "run_contract"),
    "labkit.evidence.live": ("live",),
    "labkit.evidence.measure": ("arrivals_table", "latency_table", "positions_table", "publish"),
    "labkit.tutor.checks": ("check", "hint", "solution"),
    "labkit.tutor.ledger": ("ledger",),
    "labkit.tutor.predict": ("compare", "predict"),
}
_ROOM_OF = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = sorted(_ROOM_OF)


def __getattr__(name: str) -> object:
    """Return a public name from the room that it lives in; raise AttributeError for any other."""
    if name not in _ROOM_OF:
        raise AttributeError(f"labkit has no {name!r}. It has: {', '.join(__all__)}")
    return getattr(import_module(_ROOM_OF[name]), name)


def __dir__() -> list[str]:
    """Return the public names, for tab completion."""
    return __all__
