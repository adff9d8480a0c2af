"""Other broadcast servers, each as its own documentation says to broadcast: what the benchmark stands beside.

    from peers import available, set_up
    set_up()                     # once: the environments in build/peers; says which peer cannot be had here, and why
    for peer in available(): ...

A peer is started as `[*peer.command, PORT]`, listens on 127.0.0.1, and prints `ready PACKAGE VERSION`. A line on its
stdin, `TURNS JOINED BODY_BYTES EVERY_US`, lets it broadcast, and `done` says that all was handed over. Handed over is
not yet sent: it ends when its stdin closes, whatever waits. Each text of BODY_BYTES begins with 20 digits, the
nanoseconds of CLOCK_MONOTONIC at which it was made.
"""

from peers.catalogue import Answer, Peer
from peers.environment import available, peer_python, set_up

__all__ = ["Answer", "Peer", "available", "peer_python", "set_up"]
