"""Answers to the exercises of notebook 07, "How does a message reach fans on another server?"."""

from collections import deque

from fastapi import WebSocket


async def relay(subscription, manager):
    async for message in subscription.listen():
        # Redis confirms a subscription by a message too, and confirms it again after every reconnect.
        if message["type"] == "message":
            await manager.broadcast(message["data"])


class GapDetector:
    def __init__(self):
        self.epoch = None
        self.seq = 0

    def take(self, message: dict) -> tuple[str, list[int]]:
        epoch, seq = message["epoch"], message["seq"]
        if self.epoch is None:
            word, missing = "first", []
        elif epoch != self.epoch:
            word, missing = "new epoch", list(range(1, seq))
        elif seq > self.seq:
            missing = list(range(self.seq + 1, seq))
            word = "gap" if missing else "next"
        else:
            return "repeat", []
        self.epoch, self.seq = epoch, seq
        return word, missing


class Scoreboard:
    def __init__(self, name: str, manager, redis):
        self.name = name
        self.manager = manager
        self.redis = redis

    async def announce(self, text: str):
        # Its own fans hear it from pass_on() as well: one door, one order.
        await self.redis.publish("scores", text)

    async def pass_on(self, subscription):
        async for message in subscription.listen():
            if message["type"] == "message":
                await self.manager.broadcast(message["data"])


async def resume(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set):
    await websocket.accept()
    # A send may wait, and goals fall meanwhile: after each one we look again.
    while message := next((each for each in history if each[:2] > (epoch, seq)), None):
        if message[:2] != (epoch, seq + 1):
            await websocket.send_text("gap")
        epoch, seq, text = message
        await websocket.send_text(text)
    # Nothing waits between the last look and this line, so no goal falls between them.
    fans.add(websocket)
