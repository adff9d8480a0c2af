"""Answers to the exercises of notebook 01, "What does one open connection buy?"."""

import asyncio

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed


async def collect(url, count):
    texts = []
    async with connect(url) as fan:
        async for text in fan:
            texts.append(text)
            if len(texts) == count:
                break
    return texts


def read_header(frame):
    masked = frame[1] >> 7
    payload_bytes = frame[1] & 0x7F
    # How many further bytes hold the length, when seven bits are too few for it.
    further = {126: 2, 127: 8}.get(payload_bytes, 0)
    if further:
        payload_bytes = int.from_bytes(frame[2 : 2 + further], "big")
    return {
        "fin": frame[0] >> 7,
        "opcode": frame[0] & 0x0F,
        "masked": masked,
        "payload_bytes": payload_bytes,
        "header_bytes": 2 + further + 4 * masked,
    }


async def last_score(url):
    async with connect(url) as fan:
        home, away = (await fan.recv()).split(":")
        return int(home), int(away)


async def keep_collecting(url, enough, pause):
    texts = []
    while True:
        try:
            async with connect(url) as fan:
                async for text in fan:
                    texts.append(text)
                    if len(texts) == enough:
                        return texts
        except (ConnectionClosed, OSError):
            # The line was cut, or nobody listens: what is in `texts` stays there.
            pass
        await asyncio.sleep(pause)
