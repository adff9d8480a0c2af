"""Answers to the exercises of notebook 03, "Who is here?"."""

from fastapi import WebSocket, WebSocketDisconnect


async def keep_register(websocket: WebSocket, here: set):
    await websocket.accept()
    here.add(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        here.discard(websocket)


async def tell_presence(websocket: WebSocket, here: set):
    async def tell_all():
        for other in here.copy():
            try:
                await other.send_text(f"{len(here)} here")
            except (WebSocketDisconnect, RuntimeError):
                # Whoever is leaving too is taken off by its own handler.
                pass

    await websocket.accept()
    here.add(websocket)
    await tell_all()
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        here.discard(websocket)
        await tell_all()


async def join_the_list(websocket: WebSocket, here: list):
    await websocket.accept()
    here.append(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        here.remove(websocket)


async def admit(websocket: WebSocket, here: set, limit: int):
    await websocket.accept()
    if len(here) >= limit:
        await websocket.close(1013, f"full: {limit} fans are here")
        return
    here.add(websocket)
    try:
        while True:
            await websocket.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        here.discard(websocket)
