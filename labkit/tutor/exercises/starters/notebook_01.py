"""Starters of notebook 01, "What does one open connection buy?"."""

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def collect(url, count):
    texts = []
    async with connect(url) as fan:
        # one text is a beginning: take them until there are `count`, or until no more can come
        texts.append(await fan.recv())
    return texts


def read_header(frame):
    return {
        "fin": frame[0] >> 7,
        "opcode": frame[0] & 0x0F,
        "masked": frame[1] >> 7,
        "payload_bytes": frame[1] & 0x7F,
        "header_bytes": 2,
    }


async def last_score(url):
    fan = await connect(url)
    home, away = (await fan.recv()).split(":")
    return int(home), int(away)


async def keep_collecting(url, enough, pause):
    try:
        ...
    except (ConnectionClosed, OSError):
        ...
