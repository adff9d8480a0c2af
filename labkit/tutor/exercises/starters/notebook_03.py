"""Starters of notebook 03, "Who is here?"."""

from fastapi import WebSocket, WebSocketDisconnect


async def keep_register(websocket: WebSocket, here: set):
    await websocket.accept()
    here.add(websocket)
    ...  # listen while the fan stays; then, however it ended, take the connection off


async def tell_presence(websocket: WebSocket, here: set):
    await websocket.accept()
    here.add(websocket)
    await websocket.send_text(f"{len(here)} here")
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        here.discard(websocket)


async def join_the_list(websocket: WebSocket, here: list):
    await websocket.accept()
    here.append(WebSocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        here.remove(WebSocket)


async def admit(websocket: WebSocket, here: set, limit: int): ...
