"""The client of the `websockets` library, on asyncio, through every scenario."""

import asyncio

from messages import COUNTS, MANY, SERVERS, comes_in_pieces, digest, in_pieces, is_broadcast, is_the_end, message
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def goodbye(connection, code=1000, reason=""):
    """Close, and return how the connection ended."""
    await connection.close(code, reason)
    return end_of(connection)


def end_of(connection):
    """Return what the client knows of the end of a connection."""
    return {"code": connection.close_code, "reason": connection.close_reason}


async def until_the_end(connection):
    """Wait for the other side to end the connection, and return how it did."""
    try:
        while True:
            await connection.recv()
    except ConnectionClosed:
        return end_of(connection)


async def bodies(connection):
    """Take all until "end"."""
    await connection.send("ready")
    heard = []
    while (text := await connection.recv()) != "end":
        heard.append(digest(text))
    return {"heard": heard, **await goodbye(connection)}


async def chat(connection):
    """Say everything at once, some of it in pieces, and listen meanwhile."""
    await connection.send("ready")
    heard, echoes = [], []
    while (text := await connection.recv()) != "begin":
        heard.append(text)
    speaking = asyncio.create_task(speak(connection))
    while not is_the_end(said := await connection.recv()):
        (heard.append if is_broadcast(said) else echoes.append)(said)
    await speaking
    return {"heard": heard, "echoes": [digest(echo) for echo in echoes], **await goodbye(connection)}


async def speak(connection):
    """Send all messages."""
    for number in range(len(COUNTS)):
        said = message(number)
        await connection.send(iter(in_pieces(said)) if comes_in_pieces(number) else said)


async def idle_pings(connection):
    """Wait until the server has had enough of the pongs that the library sends."""
    said = await connection.recv()
    await connection.send("thanks")
    return {"said": said, **await goodbye(connection)}


async def busy_pings(connection):
    """The same, listening."""
    ticks = []
    while (tick := await connection.recv()) != "enough":
        ticks.append(tick)
    await connection.send("thanks")
    in_order = ticks == [f"tick {number}" for number in range(1, len(ticks) + 1)]
    return {"ticked": bool(ticks), "inOrder": in_order, **await goodbye(connection)}


async def client_pings(connection):
    """Ping three times at once, and once more between two messages."""
    waiting = [await connection.ping(payload) for payload in ("one", "two", "")]
    await connection.send("between")
    waiting.append(await connection.ping("ü"))
    await connection.send("behind")
    await asyncio.gather(*waiting)
    echoes = [await connection.recv(), await connection.recv()]
    return {"echoes": echoes, "pongs": len(waiting), **await goodbye(connection)}


async def client_closes(connection):
    """Say why."""
    return await goodbye(connection, 4002, "bye – ü")


async def server_closes(connection):
    """Ask for it."""
    await connection.send("close me")
    return await until_the_end(connection)


async def server_closes_normally(connection):
    """Ask for it."""
    await connection.send("close me")
    return await until_the_end(connection)


async def endpoint_raises(connection):
    """Ask for it."""
    await connection.send("raise")
    return await until_the_end(connection)


async def too_big(connection):
    """Send the longest message that is allowed, and one that is longer by a byte."""
    await connection.send("x" * 1_000)
    echo = await connection.recv()
    await connection.send("x" * 1_001)
    return {"echoed": len(echo), **await until_the_end(connection)}


async def too_big_in_pieces(connection):
    """The same in pieces, none of which is too long."""
    await connection.send(iter(("x" * 400, "x" * 600)))
    echo = await connection.recv()
    await connection.send(iter(("x" * 400, "x" * 601)))
    return {"echoed": len(echo), **await until_the_end(connection)}


async def subprotocol(connection):
    """Ask for two."""
    await connection.send("hello")
    said = await connection.recv()
    return {"said": said, "chosen": connection.subprotocol, **await goodbye(connection)}


async def idle(connection):
    """Say the same before and after all others have had their turn; compressed, it points back to the first time."""
    echoes = []
    await connection.send(MANY)
    echoes.append(await connection.recv() == MANY)
    called = await connection.recv()
    await connection.send(MANY)
    echoes.append(await connection.recv() == MANY)
    await connection.send(MANY.encode())
    echoes.append(await connection.recv() == MANY.encode())
    deflate = bool(connection.protocol.extensions)
    return {"called": called, "echoes": echoes, "deflate": deflate, **await goodbye(connection)}


async def plain_idle(connection):
    """The same where nothing is compressed."""
    return await idle(connection)


async def shutdown(connection):
    """Wait for it, in a room."""
    await connection.send("ready")
    return await until_the_end(connection)


async def drain(connection):
    """Wait for it, in a room."""
    await connection.send("ready")
    return await until_the_end(connection)


async def lonely_shutdown(connection):
    """Wait for it, without a room, and without having said anything."""
    return await until_the_end(connection)


SCENARIOS = {
    act.__name__: act
    for act in (
        bodies,
        chat,
        idle_pings,
        busy_pings,
        client_pings,
        client_closes,
        server_closes,
        server_closes_normally,
        endpoint_raises,
        too_big,
        too_big_in_pieces,
        subprotocol,
        idle,
        plain_idle,
        drain,
        shutdown,
        lonely_shutdown,
    )
}


async def play(addresses, client, report, **options):
    """Go through all scenarios at once; call report() with what became of each, as soon as it is known.

    addresses: the three servers, such as "ws://127.0.0.1:1234". client: the name to go by. options: of connect().
    """

    async def run(scenario, act):
        address = addresses[SERVERS.get(scenario, 0)]
        wanted = {"subprotocols": ["chat.v2", "chat.v1"]} if scenario == "subprotocol" else {}
        try:
            async with connect(f"{address}/ws/{scenario}/{client}", max_size=None, **wanted, **options) as connection:
                report({"client": client, "scenario": scenario, **await act(connection)})
        except Exception as error:
            report({"client": client, "scenario": scenario, "error": repr(error)})

    await asyncio.gather(*(run(scenario, act) for scenario, act in SCENARIOS.items()))
