"""Starters of notebook 07, "How does a message reach fans on another server?"."""

from collections import deque

from fastapi import WebSocket


async def relay(subscription, manager):
    async for message in subscription.listen():  # noqa: B007
        ...  # what somebody published goes to this server's fans; what Redis says by itself does not


class GapDetector:
    def __init__(self):
        self.sent_at = None

    def take(self, message: dict) -> tuple[str, list[int]]:
        if self.sent_at is None:
            word = "first"
        elif message["sent_at"] > self.sent_at:
            word = "next"
        else:
            return "repeat", []
        self.sent_at = message["sent_at"]
        return word, []


class Scoreboard:
    def __init__(self, name: str, manager, redis):
        self.name = name
        self.manager = manager
        self.redis = redis

    async def announce(self, text: str):
        await self.manager.broadcast(text)
        await self.redis.publish("scores", text)

    async def pass_on(self, subscription):
        async for message in subscription.listen():
            if message["type"] == "message":
                await self.manager.broadcast(message["data"])


async def resume(websocket: WebSocket, epoch: int, seq: int, history: deque, fans: set): ...
