"""Broadcast with fastapi-websocket-pubsub: a remote call to each client, the next after the answer of the one before.

The README calls `publish` without awaiting it, which does nothing but warn; here it is awaited.

source: pypi.org/project/fastapi-websocket-pubsub/1.0.1
"""

import under_uvicorn
from fastapi import FastAPI
from fastapi_websocket_pubsub import PubSubEndpoint
from turns import Broadcast, run

TOPIC = "all"


async def start(port: int) -> Broadcast:
    """Listen, and return the broadcast."""
    app = FastAPI()
    endpoint = PubSubEndpoint()
    endpoint.register_route(app, path="/ws")
    serving = await under_uvicorn.serve(app, port)

    async def to_all(text: str, _alive: object = serving) -> None:
        await endpoint.publish([TOPIC], data=text)

    return to_all


if __name__ == "__main__":
    run("fastapi-websocket-pubsub", start)
