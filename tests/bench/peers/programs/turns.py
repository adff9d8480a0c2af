"""What all peers in Python share: how they start, how they take their turns, and how they end.

usage, of each program beside this one: python with_NAME.py LOOP PORT      LOOP is `asyncio` or `uvloop`
A program listens on 127.0.0.1 and prints `ready PACKAGE VERSION`. Each line on its stdin,
`TURNS JOINED BODY_BYTES EVERY_US`, is answered with `done`. It ends when its stdin closes.
"""

import asyncio
import os
import resource
import sys
import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version

HOST = "127.0.0.1"
# Thousands of clients connect at once, and the kernel refuses whom the queue does not hold.
BACKLOG = 4096
STAMP_BYTES = 20

Broadcast = Callable[[str], Awaitable[None]]


def run(package: str, start: Callable[[int], Awaitable[Broadcast]]) -> None:
    """Start a peer, and let it broadcast whenever stdin says so.

    start: listens on the port it is given, and returns what broadcasts a text to all who are connected.
    """
    loop, port = sys.argv[1:]
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with asyncio.Runner(loop_factory=_loop_factory(loop)) as runner:
        runner.run(_perform(package, start, int(port)))


def _loop_factory(loop: str) -> Callable[[], asyncio.AbstractEventLoop] | None:
    if loop == "asyncio":
        return None
    import uvloop

    return uvloop.new_event_loop


async def _perform(package: str, start: Callable[[int], Awaitable[Broadcast]], port: int) -> None:
    broadcast = await start(port)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    print("ready", package, version(package), flush=True)
    while order := await orders.readline():
        await _take_turns(broadcast, *map(int, order.split()))
        print("done", flush=True)
    # The clients are gone or about to go. Saying goodbye to thousands of them one by one would only take time.
    os._exit(0)


async def _take_turns(broadcast: Broadcast, turns: int, joined: int, body_bytes: int, every_us: int) -> None:
    """Broadcast `joined` texts in each turn, the first one interval from now; a late turn starts at once."""
    if body_bytes < STAMP_BYTES:
        raise ValueError(f"a text begins with a stamp of {STAMP_BYTES} bytes and cannot have {body_bytes}")
    clock = asyncio.get_running_loop().time
    due_at = clock()
    for _ in range(turns):
        due_at += every_us / 1_000_000
        # A turn that is late gives way too: what the loop never gets to, it cannot send.
        await asyncio.sleep(max(0.0, due_at - clock()))
        for _ in range(joined):
            await broadcast(_stamped(body_bytes))


def _stamped(body_bytes: int) -> str:
    return f"{time.monotonic_ns():0{STAMP_BYTES}d}".ljust(body_bytes, "x")
