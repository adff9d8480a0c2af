"""Answers to the exercises of notebook 02, "What must an endpoint do?"."""

from fastapi import WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ValidationError


async def keep_answering(websocket: WebSocket):
    await websocket.accept()
    try:
        while True:
            question = await websocket.receive_text()
            await websocket.send_text(f"Received: {question}")
    except WebSocketDisconnect:
        pass


class Tip(BaseModel):
    fan: str
    goals: int


async def take_tips(websocket: WebSocket):
    await websocket.accept()
    while True:
        message = await websocket.receive()
        if message["type"] == "websocket.disconnect":
            break
        try:
            # A binary message has no text, and nothing is no tip.
            tip = Tip.model_validate_json(message.get("text") or "")
            reply = f"{tip.fan} tips {tip.goals}"
        except ValidationError as error:
            reply = f"error: {error.errors()[0]['msg']}"
        await websocket.send_text(reply)


async def follow_match(websocket: WebSocket, watching: set):
    await websocket.accept()
    watching.add(websocket)
    try:
        while True:
            try:
                question = await websocket.receive_text()
                await websocket.send_text(f"Received: {question}")
            except WebSocketDisconnect:
                break
            # CancelledError is no Exception: it passes through here, and through `finally`.
            except Exception:
                await websocket.send_text("error: text only")
    finally:
        watching.discard(websocket)


async def admit_pages(websocket: WebSocket, pages: list):
    origin = websocket.headers.get("origin")
    if origin is not None and origin not in pages:
        # Before accept this becomes HTTP 403.
        await websocket.close(1008)
        return
    await websocket.accept()
    await websocket.send_text("2:1")
    async for _ in websocket.iter_text():
        pass
