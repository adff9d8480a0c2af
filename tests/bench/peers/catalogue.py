"""Which peers there are, and how a client talks to each: data only."""

from typing import NamedTuple

_ANY_ID = "0" * 32


class Answer(NamedTuple):
    """What a client sends for each broadcast, without which the peer waits: `before`, a piece of what came, `after`.

    copied_at: where the piece begins, counted from the end of what came: negative. copied_bytes: how long it is.
    """

    before: str
    copied_at: int
    copied_bytes: int
    after: str


class Talk(NamedTuple):
    """How a client talks to a peer.

    path: what it connects to. greeting: the text it sends first; none where empty. welcome: what the text begins with
    that says it hears broadcasts from now on; where empty, it does as soon as it is connected. prefix: what a broadcast
    begins with; other texts are the peer's own. stamp_offset: where the body with its stamp begins, in bytes. answer:
    what each broadcast needs; None where it needs nothing.
    """

    path: str = "/ws"
    greeting: str = ""
    welcome: str = ""
    prefix: str = ""
    stamp_offset: int = 0
    answer: Answer | None = None


class Entry(NamedTuple):
    """A peer, wherever it may be had.

    name: the same for two entries where the second stands in for the first. package: under which it is installed and
    has its version. home: the environment it lives in, by the name of its folder. loads: what its program imports of
    it; in Node, with ${...} as in a template literal. needs: further packages of its program. program: a file, and
    words for it.
    """

    name: str
    package: str
    home: str
    loads: str
    needs: tuple[str, ...]
    program: tuple[str, ...]
    talk: Talk
    note: str


class Peer(NamedTuple):
    """A peer as it can, or cannot, be had on this machine.

    command: starts it; the port comes behind. loop: `asyncio`, `uvloop` or `node`. note: what it does to broadcast, and
    where that is documented. missing: empty, or a sentence that says why it cannot be had. The rest is as in `Talk`.
    """

    name: str
    version: str
    command: list[str]
    loop: str
    path: str
    greeting: str
    welcome: str
    prefix: str
    stamp_offset: int
    answer: Answer | None
    note: str
    missing: str


_EVENT = '42["message","'
SOCKET_IO = Talk(
    path="/socket.io/?EIO=4&transport=websocket",
    greeting="40",
    welcome="40{",
    prefix=_EVENT,
    stamp_offset=len(_EVENT),
)
_CALL_ENDS = '"},"response":null}'
PUBSUB = Talk(
    greeting='{"request":{"method":"subscribe","arguments":{"topics":["all"]},"call_id":"' + _ANY_ID + '"}}',
    welcome='{"request":null,"response":{"result":true',
    prefix='{"request":{"method":"notify"',
    stamp_offset=len(
        '{"request":{"method":"notify","arguments":{"subscription":{"id":"' + _ANY_ID + '","subscriber_id":"' + _ANY_ID
        + '","topic":"all","notifier_id":null},"data":"'
    ),
    answer=Answer(
        before='{"response":{"result":"None","result_type":"str","call_id":"',
        copied_at=-len(_ANY_ID + _CALL_ENDS),
        copied_bytes=len(_ANY_ID),
        after='"}}',
    ),
)  # fmt: skip
PLAIN = Talk()

_BINARY = "uws_${process.platform}_${process.arch}_${process.versions.modules}.node"
_REBUILT = f"./node_modules/@btc-vision/uwebsockets.js/{_BINARY}"
_UNOFFICIAL = f"./node_modules/@trufflesuite/uws-js-unofficial/binaries/{_BINARY}"

ENTRIES = (
    Entry(
        "websockets", "websockets", "venv", "websockets", (), ("with_websockets.py",), PLAIN,
        "websockets.broadcast(connections, text): topics/broadcast of its documentation",
    ),
    Entry(
        "picows", "picows", "venv", "picows", (), ("with_picows.py",), PLAIN,
        "transport.send for each listener: examples/broadcast_server.py",
    ),
    Entry(
        "aiohttp", "aiohttp", "venv", "aiohttp", (), ("with_aiohttp.py",), PLAIN,
        "await send_str for each connection: examples/web_ws.py",
    ),
    Entry(
        "python-socketio", "python-socketio", "venv", "socketio", ("uvicorn", "websockets"), ("with_socketio.py",),
        SOCKET_IO, "await sio.emit(event, text) under uvicorn: Emitting Events of its documentation",
    ),
    Entry(
        "encode/broadcaster", "broadcaster", "venv", "broadcaster", ("starlette", "uvicorn", "websockets"),
        ("with_broadcaster.py",), PLAIN,
        "a queue for each endpoint under uvicorn, over memory://: the chat of its README",
    ),
    Entry(
        "fastapi-websocket-pubsub", "fastapi-websocket-pubsub", "venv-pubsub", "fastapi_websocket_pubsub",
        ("fastapi", "uvicorn"), ("with_pubsub.py",), PUBSUB,
        "await endpoint.publish(topic, data) under uvicorn, a call that each client answers: its README",
    ),
    # Upstream is not on npm; these are builds of it by others. The first is of 2026 and on Linux wants a glibc of 2.38,
    # the second is of 2023 and wants Node 20 or older.
    Entry(
        "uWebSockets.js", "@btc-vision/uwebsockets.js", "node_modules", _REBUILT, (),
        ("with_uwebsockets.js", "@btc-vision/uwebsockets.js", "."), PLAIN,
        "app.publish(topic, text): examples/PubSub.js",
    ),
    Entry(
        "uWebSockets.js", "@trufflesuite/uws-js-unofficial", "node_modules", _UNOFFICIAL, (),
        ("with_uwebsockets.js", "@trufflesuite/uws-js-unofficial", "binaries"), PLAIN,
        "app.publish(topic, text): examples/PubSub.js",
    ),
    Entry(
        "ws", "ws", "node_modules", "ws", (), ("with_ws.js", "string"), PLAIN,
        "client.send(string) for each client: Server broadcast of its README",
    ),
    Entry(
        "ws, one buffer", "ws", "node_modules", "ws", (), ("with_ws.js", "buffer"), PLAIN,
        "client.send(buffer, {binary: false}), one buffer for all: Server broadcast of its README",
    ),
    Entry(
        "ws, one frame", "ws", "node_modules", "ws", (), ("with_ws.js", "frame"), PLAIN,
        "Sender.frame once, written to every socket: pull request 1016 of ws; beyond its documentation",
    ),
    Entry(
        "socket.io", "socket.io", "node_modules", "socket.io", (), ("with_socketio.js",), SOCKET_IO,
        "io.emit(event, text): Broadcasting events of its documentation",
    ),
)  # fmt: skip
