"""uvicorn's WebSocket protocol class, extended: a connection can be given up at once, whatever its buffers hold.

In a notebook `serve(app, protocol=HubProtocol)`, in a shell `uvicorn x:app --ws labkit.broadcast.protocol:HubProtocol`.
"""

from starlette.websockets import WebSocket
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class HubProtocol(WebSocketsSansIOProtocol):
    """Unlike uvicorn's own: hands each endpoint, in the scope of its connection, the means to abort it.

    source: notebook 06, "Who frees the socket?"
    """

    async def run_asgi(self):
        """Run the endpoint of this connection to its end."""
        # ASGI's extensions are the place for what one server offers and another does not.
        self.scope["extensions"]["labkit.abort"] = self.transport.abort
        await super().run_asgi()


def abort(websocket: WebSocket) -> None:
    """Give a connection up: its socket is closed at the loop's next turn, and what waits in its buffers is dropped.

    The trap: no close frame, so the client is not told why; `await websocket.close()` is for one that still reads. A
    client that has stopped reading would never get to the close frame, and close() waits behind a full buffer with the
    messages. The endpoint is told as of any lost connection: WebSocketDisconnect with code 1005.
    A connection that is gone already is no error.
    Raises RuntimeError when the connection was not accepted by HubProtocol.
    source: notebook 06, "Who frees the socket?"
    """
    extensions = websocket.scope.get("extensions") or {}
    if "labkit.abort" not in extensions:
        raise RuntimeError(
            "This connection cannot be aborted: its server does not speak HubProtocol. "
            "Start it by serve(app, protocol=HubProtocol), or uvicorn with --ws labkit.broadcast.protocol:HubProtocol."
        )
    extensions["labkit.abort"]()
