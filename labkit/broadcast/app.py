"""The scoreboard as one would ship it: a page, WebSockets, an event stream and a way to post; on any number of servers.

    uvicorn labkit.broadcast.app:app --ws labkit.broadcast.protocol:HubProtocol

Settings come from environment variables (settings.py). Each server holds its own fans; what is posted to any of them
reaches the fans of all by way of Redis.
"""

import asyncio
import hmac
import json
import re
import signal
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from importlib.resources import files
from typing import Annotated

import uvicorn
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from fastapi.sse import KEEPALIVE_COMMENT, EventSourceResponse, format_sse_event

from labkit.broadcast.backplane import BackplaneFull, Gap, NotPublished, Position
from labkit.broadcast.parts.hub.log import CatchUp, Entry
from labkit.broadcast.parts.hub.texts import gap_text
from labkit.broadcast.parts.scoreboard.metrics import CONTENT_TYPE_LATEST
from labkit.broadcast.parts.scoreboard.settings import Settings
from labkit.broadcast.scoreboard import GONE, Scoreboard

MAX_GOAL_BYTES = 64 * 1024
_COME_BACK_MS = 1000
_SHUTDOWN_SECONDS = 3
_PAGE = {"board.html": "text/html", "board.css": "text/css", "board.js": "text/javascript"}
# The page loads its own two files, talks to its own server, and nothing else.
_PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self' ws: wss:; "
    "img-src data:; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
}
# Proxies are told to pass events on as they come.
_STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
_NUMBER = re.compile(r"[0-9]{1,16}")
_ID = re.compile(r"([0-9]{1,16})-([0-9]{1,16})")


def create_app(settings: Settings | None = None) -> FastAPI:
    """Return the scoreboard as an app; nothing is opened before it starts, and each start opens everything anew.

    settings: read from the environment at each start when left out.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with Scoreboard(settings or Settings()) as scoreboard:
            app.state.scoreboard = scoreboard
            with _told_to_stop(scoreboard.hub.stop_listening):
                yield

    # The interactive pages of FastAPI load their script from elsewhere; /openapi.json says the same.
    app = FastAPI(title="Scoreboard", lifespan=lifespan, docs_url=None, redoc_url=None)
    _add_page(app)
    _add_fans(app)
    _add_posting(app)
    _add_watching(app)
    return app


def _scoreboard(request: Request) -> Scoreboard:
    return request.app.state.scoreboard


TheScoreboard = Annotated[Scoreboard, Depends(_scoreboard)]


# ---- the page


def _add_page(app: FastAPI) -> None:
    """Add the board; its addresses are relative, so that it also works under a path of a proxy."""
    for name, media_type in _PAGE.items():
        content = files("labkit.web").joinpath(name).read_bytes()
        path = "/" if name == "board.html" else f"/{name}"

        def page(content: bytes = content, media_type: str = media_type) -> Response:
            return Response(content, media_type=media_type, headers=_PAGE_HEADERS)

        app.add_route(path, lambda _, page=page: page(), methods=["GET"])


# ---- fans


def _add_fans(app: FastAPI) -> None:
    @app.websocket("/ws")
    async def listen(websocket: WebSocket, epoch: str | None = None, seq: str | None = None) -> None:
        scoreboard: Scoreboard = websocket.app.state.scoreboard
        with suppress(*GONE):
            if not scoreboard.settings.allows(websocket.headers.get("origin")):
                # Before accept() this is HTTP's 403: a stranger's page is told no more.
                await websocket.close()
                return
            try:
                asked = _asked_for(epoch, seq)
            except ValueError as error:
                # Only an accepted connection can be told in words.
                await websocket.accept()
                await websocket.close(1008, str(error))
                return
            await scoreboard.serve(websocket, asked)

    @app.get("/events", response_class=StreamingResponse)
    async def stream(
        scoreboard: TheScoreboard, asked: Annotated[Position | None, Depends(_last_event)]
    ) -> EventSourceResponse:
        async def events() -> AsyncIterator[bytes]:
            async for event in scoreboard.follow(asked):
                yield _as_sse(event, scoreboard)

        # Handed over whole. For an endpoint that yields, FastAPI puts a task and a buffer in between, and logs an error
        # for every reader who leaves while something waits there (0.165).
        return EventSourceResponse(events(), headers=_STREAM_HEADERS)


def _asked_for(epoch: str | None, seq: str | None) -> Position | None:
    """Return the position that a fan names in its query, None where it names none; raise ValueError for half of one."""
    if epoch is None and seq is None:
        return None
    if not all(_NUMBER.fullmatch(number or "") for number in (epoch, seq)):
        raise ValueError("epoch and seq are two whole numbers, as you got them; leave both out to begin anew")
    return Position(int(epoch), int(seq))


def _last_event(last_event_id: Annotated[str | None, Header()] = None) -> Position | None:
    """Return the position that a fan's EventSource sends when it comes back."""
    if not last_event_id:
        return None
    match = _ID.fullmatch(last_event_id)
    if match is None:
        raise HTTPException(400, "Last-Event-ID is the id of the last event, such as 1767225600000-12, or left out.")
    return Position(int(match[1]), int(match[2]))


def _as_sse(event: CatchUp | Entry | Gap | None, scoreboard: Scoreboard) -> bytes:
    """Return what a fan on an event stream gets: messages unnamed, the start as "hello" and gaps as "gap"."""
    if event is None:
        return KEEPALIVE_COMMENT
    if isinstance(event, Gap):
        return format_sse_event(event="gap", data_str=gap_text(event))
    if isinstance(event, Entry):
        if event.is_gap:
            return format_sse_event(event="gap", data_str=event.text)
        return format_sse_event(data_str=event.text, id=str(event.position))
    # The browser keeps the id, so that whoever has heard no message yet also knows where it stands.
    place = str(event.after) if event.after else None
    return format_sse_event(event="hello", data_str=scoreboard.hello(event), id=place, retry=_COME_BACK_MS)


# ---- posting


def _may_post(
    scoreboard: TheScoreboard,
    shown: Annotated[HTTPAuthorizationCredentials | None, Depends(HTTPBearer(auto_error=False))],
) -> None:
    """Let pass who shows the token; raise 401 for anybody else, 403 where there is no token."""
    token = scoreboard.settings.token.get_secret_value()
    if not token:
        raise HTTPException(
            403, "Nobody may post: this server was started without a TOKEN.", headers={"WWW-Authenticate": "Bearer"}
        )
    # The comparison takes as long for a nearly right token as for a wrong one.
    if shown is None or not hmac.compare_digest(shown.credentials.encode(), token.encode()):
        challenge = "Bearer" if shown is None else 'Bearer error="invalid_token"'
        raise HTTPException(
            401, "Posting needs the header `Authorization: Bearer TOKEN`.", headers={"WWW-Authenticate": challenge}
        )


def _add_posting(app: FastAPI) -> None:
    @app.post("/goal", dependencies=[Depends(_may_post)], max_body_size=MAX_GOAL_BYTES)
    async def post(
        request: Request,
        scoreboard: TheScoreboard,
        idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
    ) -> dict[str, int]:
        """Publish a goal, or any other JSON, to all fans of all servers; answer once Redis has it."""
        try:
            position = await scoreboard.publish(json.loads(await request.body()), idempotency_key)
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, f"The body is no JSON that could be passed on: {error}") from None
        except BackplaneFull as error:
            raise HTTPException(503, f"Not published: {error}", headers={"Retry-After": "1"}) from None
        except NotPublished:
            raise HTTPException(
                504,
                "Redis did not confirm it in time. It may have got through: repeat it with the same Idempotency-Key. "
                "Without that header a repetition may appear twice.",
                headers={"Retry-After": "1"},
            ) from None
        return position._asdict()


# ---- watching


def _add_watching(app: FastAPI) -> None:
    @app.get("/health")
    async def health(scoreboard: TheScoreboard) -> dict[str, str]:
        """Answer, which is all that is asked: the process lives, and its loop turns."""
        return {"status": "alive", "server": scoreboard.settings.server_name}

    @app.get("/ready")
    async def ready(scoreboard: TheScoreboard) -> JSONResponse:
        """Say whether this server should get fans: 200, or 503 with the reasons."""
        reasons = scoreboard.why_not_ready()
        content = {"ready": not reasons, "reasons": reasons, "server": scoreboard.settings.server_name}
        return JSONResponse(content, 503 if reasons else 200)

    @app.get("/metrics")
    async def metrics(scoreboard: TheScoreboard) -> Response:
        """Give what this server has counted to Prometheus."""
        return Response(scoreboard.metrics.exposition(), media_type=CONTENT_TYPE_LATEST)


@contextmanager
def _told_to_stop(tell: Callable[[], None]) -> Iterator[None]:
    """Call `tell` when uvicorn is told to stop: it waits for all responses to end, and an event stream has no end.

    An app hears of its end only afterwards. So uvicorn's own signal handlers, where they are in place, get company.
    A reader who sleeps does not let its stream end at all; where uvicorn was given no limit for that, it gets one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = {number: signal.getsignal(number) for number in numbers}
    replaced = {}
    for number, handler in handlers.items():
        if isinstance(getattr(handler, "__self__", None), uvicorn.Server):

            def handle(number: int, frame: object, handler: Callable = handler) -> None:
                config = handler.__self__.config
                if config.timeout_graceful_shutdown is None:
                    config.timeout_graceful_shutdown = _SHUTDOWN_SECONDS
                loop.call_soon_threadsafe(tell)
                handler(number, frame)

            replaced[number] = handle
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handle in replaced.items():
            if signal.getsignal(number) is handle:
                signal.signal(number, handlers[number])


app = create_app()
