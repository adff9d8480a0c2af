"""What is said in JSON: to clients, and from one server to the others."""

import json

from labkit.broadcast.parts.hub.events import Gap, Position

MAIN_ROOM = "main"
# Behind this, and before the end of the line, stands where a text belongs; no JSON begins with it.
_HEADER = "\x1e"


def as_json(message: object) -> str:
    """Return a message as JSON; raise TypeError or ValueError for what JSON cannot carry."""
    return json.dumps(message, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def hello_text(after: Position | None, recovered: bool, **more: object) -> str:
    """Return what a client hears first that may have missed something."""
    return json.dumps({"position": after, "recovered": recovered, **more})


def message_text(position: Position, data: str) -> str:
    """Return a message as clients get it. data: JSON; any other text becomes a JSON string."""
    return f'{{"epoch": {position.epoch}, "seq": {position.seq}, "data": {data}}}'


def gap_text(gap: Gap) -> str:
    """Return a gap as clients get it."""
    return json.dumps({"gap": {"after": gap.after, "until": gap.until}, "reason": gap.reason})


def packed(room: str, text: str, *, is_raw: bool) -> str:
    """Return a text for the other servers; JSON for the main room goes as it is, for whoever reads it in Redis."""
    if room == MAIN_ROOM and not is_raw:
        return text
    return f"{_HEADER}{as_json([room, is_raw])}\n{text}"


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def unpacked(text: str) -> tuple[str, str, bool]:
    """Return room, text, and whether it goes out raw; what a stranger has published is for the main room.

    A text that is not raw is JSON: whatever else has come is a JSON string.
    """
    room, is_raw = MAIN_ROOM, False
    if text.startswith(_HEADER):
        header, _, rest = text[1:].partition("\n")
        try:
            given, says_raw = json.loads(header)
        except (ValueError, TypeError, RecursionError):
            given = says_raw = None
        if isinstance(given, str) and isinstance(says_raw, bool):
            room, is_raw, text = given, says_raw, rest
    if not is_raw:
        try:
            # Python takes NaN for JSON, and no browser does.
            json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            text = json.dumps(text)
    return room, text, is_raw
