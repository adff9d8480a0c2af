"""Try every peer: do its clients get what it broadcasts, exactly once, in order?

usage: python tests/bench/peers/try_out.py [asyncio | uvloop]
Sets the peers up where they are not, and prints a line for each. Ends with 1 where one that can be had did not deliver.
"""

import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

# As a script, this file has its own folder on the path, and not the one that the peers are in.
sys.path.insert(0, str(Path(__file__).parents[1]))

from labkit.apparatus.parts.ports import free_port
from peers import Peer, available, set_up

CLIENTS = 10
TURNS = 3
JOINED = 2
BODY_BYTES = 100
EVERY_US = 20_000
# The second line finds a peer that has broadcast before.
LINES = 2
ALL = LINES * TURNS * JOINED
PATIENCE_SECONDS = 20


async def line_from(program: asyncio.subprocess.Process) -> str:
    """Return the next line that a peer prints."""
    return (await program.stdout.readline()).decode().strip()


async def welcomed(client: ClientConnection, peer: Peer) -> None:
    """Greet, and wait until the client hears broadcasts."""
    if peer.greeting:
        await client.send(peer.greeting)
    while peer.welcome and not (await client.recv()).startswith(peer.welcome):
        pass


async def heard(client: ClientConnection, peer: Peer, bodies: list[str]) -> None:
    """Note the bodies of all broadcasts until the peer ends the connection, answered where it wants an answer."""
    try:
        async for text in client:
            if not text.startswith(peer.prefix):
                continue
            bodies.append(text[peer.stamp_offset :][:BODY_BYTES])
            if peer.answer:
                before, at, size, after = peer.answer
                await client.send(before + text[at:][:size] + after)
    except ConnectionClosed:
        pass


def wrong_with(bodies: list[str]) -> str:
    """Return what is wrong with what a client heard; nothing where all is right."""
    if len(bodies) != ALL:
        return f"a client got {len(bodies)} of {ALL}"
    if any(len(body) != BODY_BYTES or body[20:].strip("x") for body in bodies):
        return f"a body is not of {BODY_BYTES} bytes: {bodies[0]!r}"
    stamps = [int(body[:20]) for body in bodies]
    if stamps != sorted(set(stamps)):
        return f"stamps out of order or twice: {stamps}"
    return ""


async def try_one(peer: Peer) -> str:
    """Return what is wrong with a peer; nothing where all is right."""
    port = free_port()
    pipe = asyncio.subprocess.PIPE
    program = await asyncio.create_subprocess_exec(*peer.command, str(port), stdin=pipe, stdout=pipe)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), AsyncExitStack() as clients:
            ready = await line_from(program)
            if not ready.startswith("ready ") or not ready.endswith(f" {peer.version}"):
                return f"it said {ready!r} instead of being ready with version {peer.version}"
            url = f"ws://127.0.0.1:{port}{peer.path}"
            crowd = [await clients.enter_async_context(connect(url, compression=None)) for _ in range(CLIENTS)]
            await asyncio.gather(*(welcomed(client, peer) for client in crowd))
            heard_by = [[] for _ in crowd]
            pairs = zip(crowd, heard_by, strict=True)
            listening = [asyncio.create_task(heard(client, peer, bodies)) for client, bodies in pairs]
            for _ in range(LINES):
                program.stdin.write(f"{TURNS} {JOINED} {BODY_BYTES} {EVERY_US}\n".encode())
                if (said := await line_from(program)) != "done":
                    return f"it said {said!r} instead of `done`"
            # Handed over is not yet sent, and the peer ends with its stdin.
            while any(len(bodies) < ALL for bodies in heard_by):
                await asyncio.sleep(0.01)
            program.stdin.close()
            await asyncio.gather(*listening)
            if code := await program.wait():
                return f"it ended with {code}"
            return next(filter(None, map(wrong_with, heard_by)), "")
    except TimeoutError:
        return f"it was not through within {PATIENCE_SECONDS} s"
    finally:
        if program.returncode is None:
            program.kill()
            await program.wait()


async def main(loop: str = "asyncio") -> int:
    """Print a line for each peer; return 1 where one failed."""
    set_up()
    failed = 0
    for peer in available(loop=loop):
        if peer.missing:
            continue
        wrong = await try_one(peer)
        failed |= bool(wrong)
        print(f"{peer.name:<26}{peer.version:<22}{peer.loop:<9}{wrong or 'exact'}", flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
