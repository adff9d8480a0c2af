"""Starters of notebook 02, "What must an endpoint do?"."""

import json

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import BaseModel


async def keep_answering(websocket: WebSocket):
    await websocket.accept()
    question = await websocket.receive_text()
    await websocket.send_text(f"Received: {question}")
    # answer every question while the fan stays; when the fan has gone, end without an error


class Tip(BaseModel):
    fan: str
    goals: int


async def take_tips(websocket: WebSocket):
    await websocket.accept()
    try:
        while True:
            tip = Tip(**json.loads(await websocket.receive_text()))
            await websocket.send_text(f"{tip.fan} tips {tip.goals}")
    except WebSocketDisconnect:
        pass


async def follow_match(websocket: WebSocket, watching: set):
    await websocket.accept()
    watching.add(websocket)
    while True:
        try:
            question = await websocket.receive_text()
            await websocket.send_text(f"Received: {question}")
        except WebSocketDisconnect:
            break
        except BaseException:
            await websocket.send_text("error: text only")
    watching.discard(websocket)


async def admit_pages(websocket: WebSocket, pages: list): ...
