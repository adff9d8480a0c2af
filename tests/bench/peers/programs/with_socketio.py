"""Broadcast with python-socketio, an ASGI app under uvicorn: `emit` without a room reaches everybody.

source: python-socketio.readthedocs.io/en/stable/server.html, "Emitting Events"
"""

import socketio
import under_uvicorn
from turns import Broadcast, run

# Its clients are asked for a sign of life this seldom: not within any measurement.
SECONDS_BETWEEN_PINGS = 3600


async def start(port: int) -> Broadcast:
    """Listen, and return the broadcast."""
    sio = socketio.AsyncServer(async_mode="asgi", ping_interval=SECONDS_BETWEEN_PINGS)
    serving = await under_uvicorn.serve(socketio.ASGIApp(sio), port)

    async def to_all(text: str, _alive: object = serving) -> None:
        await sio.emit("message", text)

    return to_all


if __name__ == "__main__":
    run("python-socketio", start)
