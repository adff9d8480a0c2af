"""What is said in the scenarios, the same in every language."""

import hashlib

CHARACTERS = "aü€🎉"
COUNTS = (1, 0, 10, 10, 125, 10, 10, 250_000, 126, 10, 10, 1, 65_535, 10, 10, 10, 65_536, 10, 10, 10)
MANY = "The same words again and again. " * 20
# Which of the three servers, where it is not the first: on the others nothing is compressed, and a message may have
# 1,000 bytes; on the third there are no pings.
SERVERS = {"too_big": 2, "too_big_in_pieces": 2, "plain_idle": 1, "shutdown": 2, "lonely_shutdown": 2}


def message(number):
    """Return a client's message of this number: 1 B, 125 B, 126 B, 65,535 B, 65,536 B and 1 MB are among them.

    Every fifth is bytes, the others text.
    """
    text = CHARACTERS[number % 4] * COUNTS[number]
    return text.encode() if number % 5 == 4 else text


def comes_in_pieces(number):
    """Return whether a client sends this message in three frames, where it can."""
    return number % 3 == 2


def in_pieces(message):
    """Return a text or bytes in three pieces."""
    third = -(-len(message) // 3)
    return message[:third], message[third : 2 * third], message[2 * third :]


def digest(message):
    """Return the beginning of a message's SHA-256, behind "t " for text and "b " for bytes."""
    data = message.encode() if isinstance(message, str) else message
    return ("t " if isinstance(message, str) else "b ") + hashlib.sha256(data).hexdigest()[:16]


def is_broadcast(said):
    """Return whether this is no echo, but what the room is told."""
    return isinstance(said, str) and said.startswith("{")


def is_the_end(said):
    """Return whether this is the last broadcast of the chat."""
    return is_broadcast(said) and "the end" in said
