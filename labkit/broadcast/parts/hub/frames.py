"""A text as the bytes that go out: one WebSocket frame, made once and sent to everybody (RFC 6455, section 5.2)."""

_WHOLE_TEXT = b"\x81"


def text_frame(text: str) -> bytes:
    """Return the frame of a text message, as a server sends it: whole, not masked, not compressed.

    A client that has agreed to compression takes it as well: each message says for itself whether it is compressed.
    Raises UnicodeEncodeError for half of a surrogate pair, which no frame can carry.
    """
    payload = text.encode()
    length = len(payload)
    if length < 126:
        return b"%c%c%b" % (0x81, length, payload)
    if length < 65_536:
        return _WHOLE_TEXT + b"\x7e" + length.to_bytes(2) + payload
    return _WHOLE_TEXT + b"\x7f" + length.to_bytes(8) + payload


def text_of(frame: bytes) -> str:
    """Return the text of a frame that text_frame() has made."""
    length = frame[1]
    return frame[2 if length < 126 else 4 if length == 126 else 10 :].decode()
