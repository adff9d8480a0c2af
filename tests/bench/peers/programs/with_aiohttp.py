"""Broadcast with aiohttp: one awaited `send_str` after the other.

source: github.com/aio-libs/aiohttp, examples/web_ws.py, which docs.aiohttp.org names under "Server Examples"
"""

from aiohttp import web
from turns import BACKLOG, HOST, Broadcast, run

SOCKETS: web.AppKey[list[web.WebSocketResponse]] = web.AppKey("sockets", list)


async def endpoint(request: web.Request) -> web.WebSocketResponse:
    """Keep a connection among the others until it closes."""
    websocket = web.WebSocketResponse(compress=False)
    await websocket.prepare(request)
    request.app[SOCKETS].append(websocket)
    try:
        async for _ in websocket:
            pass
    finally:
        request.app[SOCKETS].remove(websocket)
    return websocket


async def start(port: int) -> Broadcast:
    """Listen, and return the broadcast."""
    app = web.Application()
    app[SOCKETS] = []
    app.router.add_get("/ws", endpoint)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, HOST, port, backlog=BACKLOG).start()

    async def to_all(text: str) -> None:
        for websocket in app[SOCKETS]:
            await websocket.send_str(text)

    return to_all


if __name__ == "__main__":
    run("aiohttp", start)
