"""libcurl's WebSocket, which is C, through every scenario: python curl_client.py THREE_ADDRESSES

Prints a JSON line for each scenario of each client: one that offers to compress, and one that does not.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from select import select
from threading import Lock

from curl_cffi import CurlError, CurlOpt, CurlWsFlag
from curl_cffi.const import CurlECode, CurlInfo, CurlWsOption
from curl_cffi.requests import WebSocket
from messages import COUNTS, MANY, SERVERS, comes_in_pieces, digest, in_pieces, is_broadcast, is_the_end, message

# Guards against hanging.
PATIENCE = 30
CLIENTS = ("curl", "curl-deflate")


class Connection:
    """A connection of libcurl."""

    def __init__(self, address, *, deflate=False, subprotocols=""):
        # libcurl would keep its own pong until there is something else to send or a message to read, which on an idle
        # connection is never; so the pongs are sent here.
        chosen = CurlWsOption.NOAUTOPONG | (CurlWsOption.PERMESSAGE_DEFLATE if deflate else 0)
        self.answer = []
        options = {
            CurlOpt.NOPROXY: "*",
            CurlOpt.WS_OPTIONS: chosen,
            CurlOpt.HEADERFUNCTION: lambda line: self.answer.append(line.decode()) or len(line),
        }
        headers = {"Sec-WebSocket-Protocol": subprotocols} if subprotocols else None
        self.pongs = []
        self.websocket = WebSocket()
        self.websocket.connect(address, headers=headers, curl_options=options)
        self.socket = self.websocket.curl.getinfo(CurlInfo.ACTIVESOCKET)

    def header(self, name):
        """Return a header of the server's answer to the handshake, or ""."""
        for line in self.answer:
            key, _, value = line.partition(":")
            if key.lower() == name.lower():
                return value.strip()
        return ""

    def send(self, said):
        """Send a text or bytes."""
        self.send_frame(said, CurlWsFlag.TEXT if isinstance(said, str) else CurlWsFlag.BINARY)

    def send_in_pieces(self, said):
        """Send a text or bytes in three frames, cut wherever its third byte falls."""
        kind = CurlWsFlag.TEXT if isinstance(said, str) else CurlWsFlag.BINARY
        first, second, third = in_pieces(said.encode() if isinstance(said, str) else said)
        self.send_frame(first, kind | CurlWsFlag.CONT)
        self.send_frame(second, kind | CurlWsFlag.CONT)
        self.send_frame(third, kind)

    def send_frame(self, said, flags):
        """Send one frame."""
        self.websocket.send(said.encode() if isinstance(said, str) else said, flags, timeout=PATIENCE)

    def take(self):
        """Return what comes next and its flags: a piece of a message, a pong or a close; answer pings."""
        while True:
            try:
                data, frame = self.websocket.recv_fragment()
            except CurlError as error:
                if error.code != CurlECode.AGAIN:
                    raise
                if not select([self.socket], [], [], PATIENCE)[0]:
                    raise TimeoutError(f"nothing came for {PATIENCE} s") from None
                continue
            # The meaning of a frame is only valid until the next call.
            flags, is_last = frame.flags, frame.bytesleft == 0 and not frame.flags & CurlWsFlag.CONT
            if flags & CurlWsFlag.PING:
                self.send_frame(data, CurlWsFlag.PONG)
            else:
                return data, flags, is_last

    def recv(self):
        """Return the next message, text or bytes; keep the pongs that come before it."""
        pieces = []
        while True:
            data, flags, is_last = self.take()
            if flags & CurlWsFlag.CLOSE:
                raise EOFError(f"closed with {self.websocket.close_code} while a message was awaited")
            if flags & CurlWsFlag.PONG:
                self.pongs.append(data.decode())
                continue
            pieces.append(data)
            if is_last:
                message = b"".join(pieces)
                return message.decode() if flags & CurlWsFlag.TEXT else message

    def until_the_end(self):
        """Wait for the other side to end the connection, and return how it did."""
        try:
            while not self.take()[1] & CurlWsFlag.CLOSE:
                pass
        except CurlError as error:
            # Nothing more to read: the connection has gone without a goodbye.
            if error.code not in (CurlECode.GOT_NOTHING, CurlECode.RECV_ERROR):
                raise
            return {"code": 1006, "reason": ""}
        return {"code": self.websocket.close_code, "reason": self.websocket.close_reason}

    def goodbye(self, code=1000, reason=""):
        """Close, and return what the other side answered."""
        payload = code.to_bytes(2) + reason.encode() if code else b""
        self.send_frame(payload, CurlWsFlag.CLOSE)
        return self.until_the_end()


def bodies(connection):
    """Take all until "end"."""
    connection.send("ready")
    heard = []
    while (text := connection.recv()) != "end":
        heard.append(digest(text))
    return {"heard": heard, **connection.goodbye()}


def chat(connection):
    """Say one thing after the other, some of it in pieces, each when the last one has come back."""
    connection.send("ready")
    heard, echoes = [], []
    while (text := connection.recv()) != "begin":
        heard.append(text)
    for number in range(len(COUNTS)):
        (connection.send_in_pieces if comes_in_pieces(number) else connection.send)(message(number))
        while is_broadcast(said := connection.recv()):
            heard.append(said)
        echoes.append(digest(said))
    while not is_the_end(said := connection.recv()):
        heard.append(said)
    return {"heard": heard, "echoes": echoes, **connection.goodbye()}


def idle_pings(connection):
    """Wait until the server has had enough of the pongs that libcurl sends."""
    said = connection.recv()
    connection.send("thanks")
    return {"said": said, **connection.goodbye()}


def busy_pings(connection):
    """The same, listening."""
    ticks = []
    while (tick := connection.recv()) != "enough":
        ticks.append(tick)
    connection.send("thanks")
    in_order = ticks == [f"tick {number}" for number in range(1, len(ticks) + 1)]
    return {"ticked": bool(ticks), "inOrder": in_order, **connection.goodbye()}


def client_pings(connection):
    """Ping three times at once, and once more behind a message."""
    sent = ["one", "two", "", "ü"]
    for payload in sent[:3]:
        connection.send_frame(payload, CurlWsFlag.PING)
    connection.send("between")
    connection.send_frame(sent[3], CurlWsFlag.PING)
    connection.send("behind")
    echoes = [connection.recv(), connection.recv()]
    assert connection.pongs == sent, connection.pongs
    return {"echoes": echoes, "pongs": len(sent), **connection.goodbye()}


def client_closes(connection):
    """Say why."""
    return connection.goodbye(4002, "bye – ü")


def client_closes_without_a_word(connection):
    """Say nothing."""
    return connection.goodbye(None)


def server_closes(connection):
    """Ask for it."""
    connection.send("close me")
    return connection.until_the_end()


def server_closes_normally(connection):
    """Ask for it."""
    connection.send("close me")
    return connection.until_the_end()


def endpoint_raises(connection):
    """Ask for it."""
    connection.send("raise")
    return connection.until_the_end()


def too_big(connection):
    """Send the longest message that is allowed, and one that is longer by a byte."""
    connection.send("x" * 1_000)
    echo = connection.recv()
    connection.send("x" * 1_001)
    return {"echoed": len(echo), **connection.until_the_end()}


def too_big_in_pieces(connection):
    """The same in pieces, none of which is too long."""
    connection.send_frame("x" * 400, CurlWsFlag.TEXT | CurlWsFlag.CONT)
    connection.send_frame("x" * 600, CurlWsFlag.TEXT)
    echo = connection.recv()
    connection.send_frame("x" * 400, CurlWsFlag.TEXT | CurlWsFlag.CONT)
    connection.send_frame("x" * 601, CurlWsFlag.TEXT)
    return {"echoed": len(echo), **connection.until_the_end()}


def subprotocol(connection):
    """Ask for two."""
    connection.send("hello")
    said = connection.recv()
    return {"said": said, "chosen": connection.header("Sec-WebSocket-Protocol"), **connection.goodbye()}


def idle(connection):
    """Say the same before and after all others have had their turn; compressed, it points back to the first time."""
    echoes = []
    connection.send(MANY)
    echoes.append(connection.recv() == MANY)
    called = connection.recv()
    connection.send(MANY)
    echoes.append(connection.recv() == MANY)
    connection.send(MANY.encode())
    echoes.append(connection.recv() == MANY.encode())
    deflate = connection.header("Sec-WebSocket-Extensions").startswith("permessage-deflate")
    return {"called": called, "echoes": echoes, "deflate": deflate, **connection.goodbye()}


def plain_idle(connection):
    """The same where nothing is compressed."""
    return idle(connection)


def shutdown(connection):
    """Wait for it, in a room."""
    connection.send("ready")
    return connection.until_the_end()


def drain(connection):
    """Wait for it, in a room."""
    connection.send("ready")
    return connection.until_the_end()


def lonely_shutdown(connection):
    """Wait for it, without a room, and without having said anything."""
    return connection.until_the_end()


SCENARIOS = (
    bodies,
    chat,
    idle_pings,
    busy_pings,
    client_pings,
    client_closes,
    client_closes_without_a_word,
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


def main(*addresses):
    """Go through all scenarios of all clients at once, in a thread each."""
    printing = Lock()

    def run(client, act):
        scenario = act.__name__
        wanted = "chat.v2, chat.v1" if scenario == "subprotocol" else ""
        try:
            url = f"{addresses[SERVERS.get(scenario, 0)]}/ws/{scenario}/{client}"
            connection = Connection(url, deflate=client.endswith("deflate"), subprotocols=wanted)
            report = {"client": client, "scenario": scenario, **act(connection)}
            connection.websocket.terminate()
        except Exception as error:
            report = {"client": client, "scenario": scenario, "error": repr(error)}
        with printing:
            print(json.dumps(report), flush=True)

    with ThreadPoolExecutor(len(CLIENTS) * len(SCENARIOS)) as threads:
        for client in CLIENTS:
            for act in SCENARIOS:
                threads.submit(run, client, act)


if __name__ == "__main__":
    main(*sys.argv[1:])
