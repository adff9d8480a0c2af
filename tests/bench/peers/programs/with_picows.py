"""Broadcast with picows: a transport's `send` for each client, over weak references to their listeners.

source: github.com/tarasko/picows, examples/broadcast_server.py
"""

from weakref import ReferenceType, ref

from picows import WSFrame, WSListener, WSMsgType, WSTransport, WSUpgradeRequest, ws_create_server
from turns import BACKLOG, HOST, Broadcast, run


class Client(WSListener):
    """One client's end on the server."""

    def __init__(self, clients: set[ReferenceType["Client"]]) -> None:
        self.transport: WSTransport | None = None
        self._clients = clients

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Be one of those who hear broadcasts."""
        self.transport = transport
        self._clients.add(ref(self))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        """Be none of them any more."""
        self._clients.remove(ref(self))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Answer a close."""
        if frame.msg_type == WSMsgType.CLOSE:
            transport.send_close(frame.get_close_code(), frame.get_close_message())
            transport.disconnect()


async def start(port: int) -> Broadcast:
    """Listen, and return the broadcast."""
    clients: set[ReferenceType[Client]] = set()

    def listener(request: WSUpgradeRequest) -> Client:
        return Client(clients)

    server = await ws_create_server(listener, HOST, port, backlog=BACKLOG)

    async def to_all(text: str, _alive: object = server) -> None:
        message = text.encode()
        for reference in clients:
            client = reference()
            if client is not None:
                client.transport.send(WSMsgType.TEXT, message)

    return to_all


if __name__ == "__main__":
    run("picows", start)
