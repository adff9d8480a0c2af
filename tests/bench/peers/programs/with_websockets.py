"""Broadcast with `websockets.broadcast()`: frames once, writes to each connection, waits for nobody.

source: websockets.readthedocs.io/en/stable/topics/broadcast.html
"""

from turns import BACKLOG, HOST, Broadcast, run
from websockets.asyncio.server import ServerConnection, broadcast, serve

CONNECTIONS: set[ServerConnection] = set()


async def handler(websocket: ServerConnection) -> None:
    """Keep a connection among the others until it closes."""
    CONNECTIONS.add(websocket)
    try:
        await websocket.wait_closed()
    finally:
        CONNECTIONS.remove(websocket)


async def start(port: int) -> Broadcast:
    """Listen, and return the broadcast."""
    server = await serve(handler, HOST, port, compression=None, ping_interval=None, backlog=BACKLOG)

    async def to_all(text: str, _alive: object = server) -> None:
        broadcast(CONNECTIONS, text)

    return to_all


if __name__ == "__main__":
    run("websockets", start)
