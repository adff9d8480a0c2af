"""What is sent by hand, frame by frame, and what must come of it.

uvicorn's own class answers all of it the same way: it runs through every case too, as the control.
"""

from unittest.mock import ANY

from raw_frames import (
    BINARY,
    CLOSE,
    CONT,
    HALF_CLOSE,
    PAUSE,
    PING,
    PONG,
    RESET,
    RESUME,
    TEXT,
    Answer,
    Case,
    Compressor,
    Heard,
    Say,
    byte_by_byte,
    closing,
    frame,
)

GOODBYE = closing(1000, "bye")
BYE = [["close", 1000, "bye"], ["end"]]
ENDED = [1000, "bye"]
# Of what a peer does wrong, the library's own words are not ours to promise.
WRONG = [["close", 1002, ANY], ["end"]]
IS_WRONG = [1002, ANY]
SHUT_DOWN = [["close", 1012, ""], ["end"]]
LONG = "Again and again and again. " * 10
KEYED = frame(TEXT, "Hello")
PACKED, PIECES = Compressor(), Compressor()
PIECES_1, PIECES_2 = PIECES.frames(LONG, pieces=3), PIECES.frames(LONG, pieces=3)
BALL = "⚽".encode()
# The longest message that the server takes which compresses.
MOST_BYTES = 2 * 1024 * 1024
# More than the system takes for a client that does not read.
GOALS = [f"goal {number} " + "é" * 250_000 for number in range(16)]

CASES = {
    "a message": Case([frame(TEXT, "hé"), Heard(1), GOODBYE], [["text", "hé"], *BYE], ["hé", ENDED]),
    "an empty message": Case([frame(TEXT), Heard(1), GOODBYE], [["text", ""], *BYE], ["", ENDED]),
    "bytes": Case([frame(BINARY, b"\xff"), Heard(1), GOODBYE], [["binary", b"\xff"], *BYE], [b"\xff", ENDED]),
    "fragments": Case(
        [frame(TEXT, "He", fin=False), frame(CONT, "l", fin=False), frame(CONT, "lo"), Heard(1), GOODBYE],
        [["text", "Hello"], *BYE],
        ["Hello", ENDED],
    ),
    "fragments of bytes": Case(
        [frame(BINARY, b"\xff\x00", fin=False), frame(CONT, b"\xfe"), Heard(1), GOODBYE],
        [["binary", b"\xff\x00\xfe"], *BYE],
        [b"\xff\x00\xfe", ENDED],
    ),
    "fragments in one segment": Case(
        [frame(TEXT, "He", fin=False) + frame(CONT, "l", fin=False) + frame(CONT, "lo"), Heard(1), GOODBYE],
        [["text", "Hello"], *BYE],
        ["Hello", ENDED],
    ),
    "empty fragments": Case(
        [frame(TEXT, fin=False), frame(CONT, fin=False), frame(CONT, "x", fin=False), frame(CONT), Heard(1), GOODBYE],
        [["text", "x"], *BYE],
        ["x", ENDED],
    ),
    "fragments cut in a character": Case(
        [frame(TEXT, BALL[:1], fin=False), frame(CONT, BALL[1:2], fin=False), frame(CONT, BALL[2:]), Heard(1), GOODBYE],
        [["text", "⚽"], *BYE],
        ["⚽", ENDED],
    ),
    "a ping between two fragments": Case(
        [frame(TEXT, "He", fin=False), frame(PING, "!"), Heard(1), frame(CONT, "llo"), Heard(2), GOODBYE],
        [["pong", b"!"], ["text", "Hello"], *BYE],
        ["Hello", ENDED],
    ),
    "a broadcast between two fragments": Case(
        [
            *(frame(TEXT, "He", fin=False), Say("goal 1"), Heard(1), Say("goal 2"), Heard(2)),
            *(frame(CONT, "l", fin=False), Say("goal 3"), Heard(3), frame(CONT, "lo"), Heard(4), Say("goal 4")),
            *(Heard(5), GOODBYE),
        ],
        [["text", "goal 1"], ["text", "goal 2"], ["text", "goal 3"], ["text", "Hello"], ["text", "goal 4"], *BYE],
        ["Hello", ENDED],
    ),
    "a broadcast within a frame": Case(
        [
            *(KEYED[:1], Say("goal 1"), Heard(1), KEYED[1:2], Say("goal 2"), Heard(2)),
            *(KEYED[2:4], Say("goal 3"), Heard(3), KEYED[4:8], Say("goal 4"), Heard(4), KEYED[8:], Heard(5), GOODBYE),
        ],
        [["text", "goal 1"], ["text", "goal 2"], ["text", "goal 3"], ["text", "goal 4"], ["text", "Hello"], *BYE],
        ["Hello", ENDED],
    ),
    "byte by byte": Case(
        [
            *byte_by_byte(frame(TEXT, "hé") + frame(PING, "p") + frame(TEXT, "x" * 126)),
            Heard(3),
            *byte_by_byte(GOODBYE),
        ],
        [["text", "hé"], ["pong", b"p"], ["text", "x" * 126], *BYE],
        ["hé", "x" * 126, ENDED],
    ),
    "fragments byte by byte": Case(
        [
            *byte_by_byte(frame(TEXT, BALL[:2], fin=False) + frame(PING) + frame(CONT, BALL[2:] + b"!")),
            *(Heard(2), *byte_by_byte(GOODBYE)),
        ],
        [["pong", b""], ["text", "⚽!"], *BYE],
        ["⚽!", ENDED],
    ),
    "many messages in one segment": Case(
        [b"".join(frame(TEXT, str(number)) for number in range(20)), Heard(20), GOODBYE],
        [*(["text", str(number)] for number in range(20)), *BYE],
        [*map(str, range(20)), ENDED],
    ),
    "a message and half of the next": Case(
        [
            KEYED + KEYED[:7],
            Heard(1),
            Say("goal"),
            Heard(2),
            KEYED[7:] + KEYED[:1],
            Heard(3),
            KEYED[1:],
            Heard(4),
            GOODBYE,
        ],
        [["text", "Hello"], ["text", "goal"], ["text", "Hello"], ["text", "Hello"], *BYE],
        ["Hello", "Hello", "Hello", ENDED],
    ),
    "idle, then each kind of frame": Case(
        [
            *(Say("goal 1"), Heard(1), frame(PING, "a"), Heard(2), Say("goal 2"), Heard(3), frame(PONG, "unasked")),
            *(frame(TEXT, "b"), Heard(4), frame(BINARY, "c"), Heard(5), frame(PING, "d" * 125), Heard(6), GOODBYE),
        ],
        [
            *(["text", "goal 1"], ["pong", b"a"], ["text", "goal 2"], ["text", "b"], ["binary", b"c"]),
            *(["pong", b"d" * 125], *BYE),
        ],
        ["b", b"c", ENDED],
    ),
    "pings in one segment": Case(
        [frame(PING, "1") + frame(PING, "2") + frame(PING, "3"), Heard(3), GOODBYE],
        [["pong", b"1"], ["pong", b"2"], ["pong", b"3"], *BYE],
        [ENDED],
    ),
    "a close at once": Case(
        [closing(4000, "enough – ü")], [["close", 4000, "enough – ü"], ["end"]], [[4000, "enough – ü"]]
    ),
    "a close behind a broadcast": Case([Say("goal"), Heard(1), GOODBYE], [["text", "goal"], *BYE], [ENDED]),
    "a close without a code": Case([closing()], [["close", b""], ["end"]], [[1005, ""]]),
    "a close in a fragmented message": Case([frame(TEXT, "He", fin=False), GOODBYE], WRONG, [IS_WRONG]),
    "a close in a fragmented message, in one segment": Case(
        [frame(TEXT, "He", fin=False) + GOODBYE], WRONG, [IS_WRONG]
    ),
    "a close with one byte": Case([frame(CLOSE, b"\x03")], WRONG, [IS_WRONG]),
    "a close with a code that nobody may send": Case([closing(1005)], WRONG, [IS_WRONG]),
    "a close with half a character": Case(
        [frame(CLOSE, b"\x03\xe8\xe2")], [["close", 1007, ANY], ["end"]], [[1007, ANY]]
    ),
    "a message behind the close": Case([GOODBYE + KEYED], BYE, [ENDED]),
    "a broadcast behind the close": Case([GOODBYE, Say("late"), Say("later")], BYE, [ENDED]),
    "a continuation of nothing": Case([frame(CONT, "llo")], WRONG, [IS_WRONG]),
    "a continuation behind a whole message": Case(
        [KEYED, Heard(1), frame(CONT, "!")], [["text", "Hello"], *WRONG], ["Hello", IS_WRONG]
    ),
    "a message between two fragments": Case([frame(TEXT, "He", fin=False), frame(TEXT, "llo")], WRONG, [IS_WRONG]),
    "a ping in fragments": Case([frame(PING, "a", fin=False)], WRONG, [IS_WRONG]),
    "a ping that is too long": Case([frame(PING, "a" * 126)], WRONG, [IS_WRONG]),
    "a frame without a mask": Case([frame(TEXT, "Hello", masked=False)], WRONG, [IS_WRONG]),
    "a frame without a mask, later": Case(
        [KEYED, Heard(1), Say("goal"), Heard(2), frame(TEXT, "Hello", masked=False), Say("late")],
        [["text", "Hello"], ["text", "goal"], *WRONG],
        ["Hello", IS_WRONG],
    ),
    "an unknown opcode": Case([frame(3, "Hello")], WRONG, [IS_WRONG]),
    "a reserved bit": Case([frame(TEXT, "Hello", rsv=1)], WRONG, [IS_WRONG]),
    "compressed without an agreement": Case([frame(TEXT, "Hello", rsv=4)], WRONG, [IS_WRONG]),
    "text that is no text": Case([frame(TEXT, b"\xff")], [["close", 1007, ANY], ["end"]], [[1007, ANY]]),
    "text that is no text, in fragments": Case(
        [frame(TEXT, BALL[:2], fin=False), Say("goal"), Heard(1), frame(CONT, "x")],
        [["text", "goal"], ["close", 1007, ANY], ["end"]],
        [[1007, ANY]],
    ),
    "too long": Case(
        [frame(TEXT, "x" * 1_000), Heard(1), frame(TEXT, b"x", length=1_001)],
        [["text", "x" * 1_000], ["close", 1009, ANY], ["end"]],
        ["x" * 1_000, [1009, ANY]],
    ),
    "very long": Case([frame(BINARY, length=1 << 40)], [["close", 1009, ANY], ["end"]], [[1009, ANY]]),
    "too long in fragments": Case(
        [frame(TEXT, "x" * 600, fin=False), Say("goal"), Heard(1), frame(CONT, "x" * 401)],
        [["text", "goal"], ["close", 1009, ANY], ["end"]],
        [[1009, ANY]],
    ),
    "long enough in fragments": Case(
        [frame(TEXT, "x" * 600, fin=False), Say("goal"), Heard(1), frame(CONT, "x" * 400), Heard(2), GOODBYE],
        [["text", "goal"], ["text", "x" * 1_000], *BYE],
        ["x" * 1_000, ENDED],
    ),
    "half-closed": Case([KEYED, Heard(1), HALF_CLOSE], [["text", "Hello"], ["end"]], ["Hello", [1005, ""]]),
    "half-closed when idle": Case([Say("goal"), Heard(1), HALF_CLOSE], [["text", "goal"], ["end"]], [[1005, ""]]),
    "half-closed within a frame": Case([KEYED[:7], HALF_CLOSE], [["end"]], [[1005, ""]]),
    "half-closed in a fragmented message": Case([frame(TEXT, "He", fin=False), HALF_CLOSE], [["end"]], [[1005, ""]]),
    "reset": Case([KEYED, Heard(1), RESET], [["text", "Hello"], ["end"]], ["Hello", [1005, ""]]),
    "reset within a frame": Case([KEYED[:7], RESET], [["end"]], [[1005, ""]]),
    "compressed": Case(
        [
            *(*PACKED.frames(LONG), Heard(1), Say(LONG), Heard(2), *PACKED.frames(LONG), Heard(3), Say(LONG), Heard(4)),
            *(frame(TEXT, "not compressed"), Heard(5), *PACKED.frames(LONG), Heard(6), GOODBYE),
        ],
        [*[["text", LONG]] * 4, ["text", "not compressed"], ["text", LONG], *BYE],
        [LONG, LONG, "not compressed", LONG, ENDED],
        server="main",
        deflate=True,
    ),
    "compressed, in pieces": Case(
        [
            *(PIECES_1[0], Say("goal 1"), Heard(1), PIECES_1[1], frame(PING, "!"), Heard(2), PIECES_1[2], Heard(3)),
            *(PIECES_2[0], Say("goal 2"), Heard(4), *PIECES_2[1:], Heard(5), GOODBYE),
        ],
        [["text", "goal 1"], ["pong", b"!"], ["text", LONG], ["text", "goal 2"], ["text", LONG], *BYE],
        [LONG, LONG, ENDED],
        server="main",
        deflate=True,
    ),
    "compressed badly": Case(
        [*Compressor().frames(LONG), Heard(1), Say("goal"), Heard(2), frame(TEXT, b"\xff\xff", rsv=4)],
        [["text", LONG], ["text", "goal"], *WRONG],
        [LONG, IS_WRONG],
        server="main",
        deflate=True,
    ),
    "too long when unpacked": Case(
        [b"".join(Compressor().frames("x" * (MOST_BYTES + 1)))],
        [["close", 1009, ANY], ["end"]],
        [[1009, ANY]],
        server="main",
        deflate=True,
    ),
    "closed by the endpoint": Case(
        [KEYED, Heard(1), closing(4001)],
        [["close", 4001, "no token – über"], ["end"]],
        ["Hello", "websocket.disconnect"],
        scenario="server_closes",
    ),
    "closed by the endpoint, with messages and broadcasts behind it": Case(
        [KEYED, Heard(1), Say("late"), KEYED, frame(TEXT, "He", fin=False), Say("later"), frame(CONT), closing(4001)],
        [["close", 4001, "no token – über"], ["end"]],
        ["Hello", "websocket.disconnect"],
        scenario="server_closes",
    ),
    "closed by the endpoint, then a pong, and what is wrong": Case(
        [KEYED, Heard(1), frame(PONG, "late"), frame(CONT, "llo")],
        [["close", 4001, "no token – über"], ["end"]],
        ["Hello", "websocket.disconnect"],
        scenario="server_closes",
    ),
    "a pong between two fragments": Case(
        [
            *(frame(TEXT, "th", fin=False), Answer(), frame(CONT, "a", fin=False), Answer()),
            *(frame(CONT, "n", fin=False), Answer(), Answer(), Heard(1), frame(CONT, "ks"), GOODBYE),
        ],
        [["text", "enough"], *BYE],
        ["thanks", ENDED],
        scenario="idle_pings",
        server="main",
    ),
    "pongs when idle": Case(
        [
            frame(PONG, "wrong"),
            Answer(),
            Answer(),
            Answer(),
            *byte_by_byte(frame(PONG, "wrong")),
            Answer(),
            Heard(1),
            GOODBYE,
        ],
        [["text", "enough"], *BYE],
        [ENDED],
        scenario="idle_pings",
        server="main",
    ),
    "a pong with all that may stand beside it": Case(
        [
            *(Answer(behind=KEYED[:3]), KEYED[3:], Heard(1), Answer(behind=frame(PING, "1")), Heard(2)),
            *(Answer(before=frame(PING, "2")), Heard(3), Answer(before=KEYED, behind=KEYED), Heard(5)),
            *(Answer(before=frame(TEXT, "He", fin=False), behind=frame(CONT, "llo")), Heard(6)),
            *(Answer(behind=frame(TEXT, "He", fin=False)), Say("goal"), Heard(7)),
            *(
                Answer(behind=frame(CONT, "l", fin=False)),
                Answer(),
                frame(CONT, "lo"),
                Heard(8),
                Answer(behind=GOODBYE),
            ),
        ],
        [
            *(["text", "Hello"], ["pong", b"1"], ["pong", b"2"], ["text", "Hello"], ["text", "Hello"]),
            *(["text", "Hello"], ["text", "goal"], ["text", "Hello"], *BYE),
        ],
        [*["Hello"] * 5, ENDED],
        server="main",
    ),
    "a pong, and what is wrong": Case([Answer(behind=frame(CONT, "llo"))], WRONG, [IS_WRONG], server="main"),
    "a pong, and what is too long": Case(
        [Answer(), Answer(), frame(TEXT, b"x", length=1_001)],
        [["close", 1009, ANY], ["end"]],
        [[1009, ANY]],
        server="plain",
    ),
    "a pong, and what is too long in fragments": Case(
        [frame(TEXT, "x" * 600, fin=False), Answer(), Say("goal"), Heard(1), frame(CONT, "x" * 401)],
        [["text", "goal"], ["close", 1009, ANY], ["end"]],
        [[1009, ANY]],
        server="plain",
    ),
    "a frame before the handshake is answered": Case(
        [Heard(1), GOODBYE], [["text", "Hello"], *BYE], ["Hello", ENDED], scenario="late_answer", early=KEYED
    ),
    "half a frame before the handshake is answered": Case(
        [KEYED[5:], Heard(1), GOODBYE],
        [["text", "Hello"], *BYE],
        ["Hello", ENDED],
        scenario="late_answer",
        early=KEYED[:5],
    ),
    "a fragment before the handshake is answered": Case(
        [frame(CONT, "llo"), Heard(1), GOODBYE],
        [["text", "Hello"], *BYE],
        ["Hello", ENDED],
        scenario="late_answer",
        early=frame(TEXT, "He", fin=False),
    ),
    "without a pong": Case([], [["close", 1011, "keepalive ping timeout"], ["end"]], [[1005, ""]], server="strict"),
    "without a pong, in the middle of a message": Case(
        [Say("goal"), Heard(1), KEYED, Heard(2), frame(TEXT, "He", fin=False)],
        [["text", "goal"], ["text", "Hello"], ["close", 1011, "keepalive ping timeout"], ["end"]],
        ["Hello", [1005, ""]],
        server="strict",
    ),
    "a shutdown": Case([Say("goal")], [["text", "goal"], *SHUT_DOWN], [[1012, ""]], late=True),
    "a shutdown within a frame": Case([KEYED[:7]], SHUT_DOWN, [[1012, ""]], late=True),
    "a shutdown in a fragmented message": Case(
        [frame(TEXT, "He", fin=False), Say("goal")], [["text", "goal"], *SHUT_DOWN], [[1012, ""]], late=True
    ),
    "a shutdown, with compression": Case(
        [*Compressor().frames(LONG), Heard(1), Say("goal")],
        [["text", LONG], ["text", "goal"], *SHUT_DOWN],
        [LONG, [1012, ""]],
        server="main",
        deflate=True,
        late=True,
    ),
    "a shutdown behind a close that is not answered": Case(
        [KEYED],
        [["close", 4001, "no token – über"], ["end"]],
        ["Hello", "websocket.disconnect"],
        scenario="server_closes",
        late=True,
    ),
    "a reader that sleeps": Case(
        [
            *(PAUSE, *(Say(goal, waits=False) for goal in GOALS), frame(PING, "1"), KEYED, frame(PING, "2")),
            *(frame(TEXT, "He", fin=False), Say("goal last", waits=False), frame(CONT, "llo!"), frame(PING, "3")),
            *(RESUME, Heard(len(GOALS) + 6), GOODBYE),
        ],
        [
            *(["text", goal] for goal in GOALS),
            *(["text", "goal last"], ["pong", b"1"], ["text", "Hello"], ["pong", b"2"], ["text", "Hello!"]),
            *(["pong", b"3"], *BYE),
        ],
        ["Hello", "Hello!", ENDED],
        apart=True,
    ),
}
