"""The limit where there is no C compiler: a Python loop of socket.send(), one ready frame to every socket.

usage: python limit.py PORT
Slower than limit.c, which it stands in for with the same interface; whoever reads its ratios has to be told.
"""

import select
import socket
import sys
import time

from websockets.server import ServerProtocol

_PATIENCE_SECONDS = 5.0


def frame_of(body_bytes: int) -> bytes:
    """Return one unmasked text frame: the moment in 20 digits, filled up with x."""
    if body_bytes < 126:
        header = bytes([0x81, body_bytes])
    elif body_bytes < 65536:
        header = b"\x81\x7e" + body_bytes.to_bytes(2, "big")
    else:
        header = b"\x81\x7f" + body_bytes.to_bytes(8, "big")
    return header + f"{time.monotonic_ns():020}".encode().ljust(body_bytes, b"x")


def accept(listener: socket.socket) -> socket.socket | None:
    """Take a client in and shake hands; return None for something that is no WebSocket client."""
    client, _ = listener.accept()
    client.settimeout(_PATIENCE_SECONDS)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    protocol = ServerProtocol()
    try:
        while not (events := protocol.events_received()):
            protocol.receive_data(client.recv(4096))
        protocol.send_response(protocol.accept(events[0]))
        client.sendall(b"".join(protocol.data_to_send()))
    except OSError:
        client.close()
        return None
    client.setblocking(False)
    return client


def send_rest(client: socket.socket, rest: bytes) -> None:
    """Send what a socket did not take at once, waiting for it."""
    while rest:
        poller = select.poll()
        poller.register(client, select.POLLOUT)
        poller.poll()
        rest = rest[client.send(rest) :]


def send_to_all(clients: list[socket.socket], frame: bytes) -> int:
    """Send a frame to every client, let those go who are gone, and return how many could not take it at once."""
    gone = []
    waits = 0
    size = len(frame)
    for client in clients:
        try:
            sent = client.send(frame)
        except BlockingIOError:
            sent = 0
        except OSError:
            gone.append(client)
            continue
        if sent < size:
            waits += 1
            send_rest(client, frame[sent:])
    for client in gone:
        clients.remove(client)
        client.close()
    return waits


def broadcast(clients: list[socket.socket], turns: int, joined: int, body_bytes: int, every_us: int) -> int:
    """Broadcast on an absolute schedule; return how many times a client could not take all at once."""
    started_at = time.monotonic()
    waits = 0
    for turn in range(turns):
        time.sleep(max(0.0, started_at + turn * every_us / 1e6 - time.monotonic()))
        waits += send_to_all(clients, b"".join(frame_of(body_bytes) for _ in range(joined)))
    return waits


def main(port: int) -> None:
    """Serve until standard input closes."""
    clients: list[socket.socket] = []
    listener = socket.create_server(("127.0.0.1", port), backlog=2048)
    print("ready limit Python", flush=True)
    while True:
        readable, _, _ = select.select([sys.stdin, listener], [], [])
        if listener in readable and (client := accept(listener)):
            clients.append(client)
        if sys.stdin in readable:
            line = sys.stdin.readline()
            if not line:
                return
            waits = broadcast(clients, *map(int, line.split()))
            print(f"done, waited {waits} times", flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
