"""Serve a peer's ASGI app with uvicorn, as that peer's documentation does."""

import asyncio

import uvicorn
from turns import BACKLOG, HOST


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it accepts connections."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    async def startup(self, sockets: list | None = None) -> None:
        await super().startup(sockets)
        self.accepting.set()


async def serve(app: object, port: int) -> asyncio.Task:
    """Return the task that serves, as soon as connections are accepted: no deflate, no pings, warnings only."""
    config = uvicorn.Config(
        app,
        host=HOST,
        port=port,
        backlog=BACKLOG,
        log_level="warning",
        ws_ping_interval=None,
        ws_per_message_deflate=False,
    )
    server = _Server(config)
    serving = asyncio.create_task(server.serve())
    await server.accepting.wait()
    return serving
