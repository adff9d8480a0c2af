"""What QueueManager does with a client whose queue is full: three policies, a few lines each, as in notebook 06.

A policy is called with the manager, the connection and its full queue. Afterwards the queue has room, or the manager
has let the connection go.
"""

import asyncio

from starlette.websockets import WebSocket

from labkit.broadcast.protocol import abort


def drop_oldest(manager, websocket: WebSocket, queue: asyncio.Queue):
    """Leave out what has waited longest: the client gets the newest `size` messages, with a gap before them."""
    queue.get_nowait()


def latest(manager, websocket: WebSocket, queue: asyncio.Queue):
    """Leave out all that waits: where a new message makes the older ones worthless, as a score does."""
    while not queue.empty():
        queue.get_nowait()


def disconnect(manager, websocket: WebSocket, queue: asyncio.Queue):
    """Let the client go and free its socket: a gap would be worse than no connection. It may come back and ask."""
    manager.disconnect(websocket)
    abort(websocket)


WHEN_FULL = {"drop_oldest": drop_oldest, "latest": latest, "disconnect": disconnect}
