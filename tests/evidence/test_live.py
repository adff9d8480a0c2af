"""The fan-out is drawn while it happens for somebody who watches, and costs nobody else anything."""

import asyncio
import base64
import html
import os
import re
from contextlib import suppress
from xml.etree import ElementTree

import pytest
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from jupyter_client.manager import start_new_kernel

from labkit import Fleet, live, serve
from labkit.apparatus.crowd.wire import BEHAVIOURS
from labkit.evidence.charts.look import BEHAVIOUR_STYLES
from labkit.evidence.live import LOOKS, draw, in_words

SVG = "{http://www.w3.org/2000/svg}"


def crowd(size: int, stalled: set[int]) -> dict[int, str]:
    """Return who behaves how."""
    return {client: "stalled" if client in stalled else "healthy" for client in range(1, size + 1)}


def heights(picture: str, behaviour: str) -> list[float]:
    """Return how high the boxes of a behaviour are filled."""
    fills = [
        path.get("d")
        for path in ElementTree.fromstring(picture).iter(f"{SVG}path")
        if path.get("fill") == LOOKS[behaviour][0] and "h-" in path.get("d")
    ]
    return [float(height) for height in re.findall(r"h[\d.]+v([\d.]+)", "".join(fills))]


def test_a_box_is_filled_by_what_its_client_has():
    """Nothing for nothing; and one message that is missing shows, of however many."""
    half, full, almost = heights(draw({1: 3, 2: 6, 3: 5, 4: 0}, crowd(4, {4}), 6), "healthy")
    assert full == 84
    assert half == full / 2
    assert heights(draw({1: 59}, crowd(1, set()), 60), "healthy")[0] <= full - 3
    assert almost < full
    assert heights(draw({1: 3, 4: 0}, crowd(4, {4}), 6), "stalled") == []


def test_every_client_is_in_the_picture_by_number_and_behaviour():
    """In shape as well as in colour; a large crowd has a number at each line."""
    tree = ElementTree.fromstring(draw({}, crowd(21, {21}), 60))
    texts = [text.text for text in tree.iter(f"{SVG}text")]
    assert {str(client) for client in range(1, 22)} <= set(texts)
    assert {"20 healthy", "1 stalled"} <= set(texts)
    texts = [text.text for text in ElementTree.fromstring(draw({}, crowd(120, {120}), 60)).iter(f"{SVG}text")]
    assert {"1", "51", "101"} <= set(texts)
    assert "2" not in texts


def test_picture_says_itself_in_words():
    """For those who listen: as its label and as its title."""
    tree = ElementTree.fromstring(draw({1: 60, 2: 60, 3: 0}, crowd(3, {3}), 60))
    words = "2 of 3 clients have all 60 messages. healthy clients 1-2 have 60; stalled client 3 has 0 of 60."
    assert tree.get("role") == "img"
    assert tree.get("aria-label") == words == tree.find(f"{SVG}title").text


def test_words_stay_short_however_many_have_however_much():
    """A list of a hundred numbers helps nobody."""
    assert "100 healthy clients have 0 to 99 of 99" in in_words(
        {n: n - 1 for n in range(1, 101)}, crowd(100, set()), 99
    )
    odd = in_words({n: n % 2 for n in range(1, 101)}, crowd(100, set()), 1)
    assert odd == (
        "50 of 100 clients have the message. 50 healthy clients have 1; 50 healthy clients have 0 of 1."
    )  # fmt: skip


def test_looks_are_those_of_the_figures():
    """One colour and one shape of its own for each behaviour."""
    assert set(LOOKS) == set(BEHAVIOURS)
    assert {name: look[0] for name, look in LOOKS.items()} == {name: BEHAVIOUR_STYLES[name][0] for name in LOOKS}
    assert len({look[1] for look in LOOKS.values()}) == len(LOOKS)


@pytest.fixture
def app() -> FastAPI:
    """Return an app that takes everyone in."""
    app = FastAPI()

    @app.websocket("/ws")
    async def endpoint(websocket: WebSocket):
        await websocket.accept()
        with suppress(WebSocketDisconnect):
            await websocket.receive_text()

    return app


async def test_without_a_front_end_nothing_is_shown_and_nobody_is_asked(app, capsys):
    """A fleet that is frozen would answer no question, and its block ends all the same."""
    fleet = await Fleet(await serve(app), healthy=2).connect()
    before = asyncio.all_tasks()
    fleet.freeze()
    async with asyncio.timeout(1), live(fleet, of=3):
        assert asyncio.all_tasks() == before
    fleet.thaw()
    assert capsys.readouterr().out == ""


async def test_what_cannot_be_drawn_is_said_everywhere(app):
    """Also where nothing is drawn, so that a slip shows before somebody watches."""
    fleet = Fleet(await serve(app), healthy=2)
    with pytest.raises(RuntimeError, match=r"not connected\. Is `await fleet\.connect\(\)` missing\?"):
        async with live(fleet, of=3):
            pass
    await fleet.connect()
    with pytest.raises(ValueError, match="of=0: say how many messages"):
        async with live(fleet, of=0):
            pass


OPEN = """\
import asyncio
from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from labkit import Fleet, live, publish, serve
app = FastAPI()
connections = set()
@app.websocket("/ws")
async def endpoint(websocket: WebSocket):
    await websocket.accept()
    connections.add(websocket)
    try:
        await websocket.receive_text()
    except WebSocketDisconnect:
        connections.discard(websocket)
async def broadcast(text):
    for websocket in connections.copy():
        await websocket.send_text(text)
async def new_fleet():
    return await Fleet(server, healthy=5, stalled=1).connect()
server = await serve(app)
fleet = await new_fleet()
"""
LEFT = "print([task.get_name() for task in asyncio.all_tasks() if task.get_name() == 'live'])"


class Watched:
    """A kernel with somebody in front of it, and what it has shown."""

    def __init__(self) -> None:
        self.manager, self.client = start_new_kernel(kernel_name="python3", env={**os.environ})

    def run(self, source: str, *, allow_stdin: bool = True, stop_at: str = "") -> tuple[list[dict], str, str]:
        """Run a cell; return its display messages, what it printed and the name of its error, or an empty string."""
        shown, printed = [], []

        def note(message):
            if message["msg_type"] in ("display_data", "update_display_data"):
                shown.append(message)
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])
                if stop_at and stop_at in message["content"]["text"]:
                    self.manager.interrupt_kernel()

        reply = self.client.execute_interactive(source, allow_stdin=allow_stdin, timeout=60, output_hook=note)
        return shown, "".join(printed), reply["content"].get("ename", "")


@pytest.fixture(scope="module")
def watched():
    """Start one kernel with a server for the tests of this file."""
    watched = Watched()
    assert watched.run(OPEN)[2] == ""
    yield watched
    watched.client.stop_channels()
    watched.manager.shutdown_kernel(now=True)


def alt_of(message: dict) -> str:
    """Return the alt text of what a display message shows."""
    return html.unescape(re.search('<img alt="([^"]+)"', message["content"]["data"]["text/html"])[1])


@pytest.mark.slow
def test_somebody_who_watches_sees_it_happen(watched):
    """One output that changes at most ten times a second; the last picture has everything."""
    source = (
        "fleet = await new_fleet()\nasync with live(fleet, of=120):\n"
        "    await publish(broadcast, count=120, every=0.0125)\n    await fleet.until(120)"
    )
    shown, _, error = watched.run(source)
    assert error == ""
    kinds = [message["msg_type"] for message in shown]
    assert kinds == ["display_data"] + ["update_display_data"] * (len(shown) - 1)
    assert len({message["content"]["transient"]["display_id"] for message in shown}) == 1
    assert alt_of(shown[0]).startswith("0 of 6 clients have all 120 messages.")
    last = "5 of 6 clients have all 120 messages. healthy clients 1-5 have 120; stalled client 6 has 0 of 120."
    assert alt_of(shown[-1]) == last == shown[-1]["content"]["data"]["text/plain"]
    image = re.search('src="data:image/svg\\+xml;base64,([^"]+)"', shown[-1]["content"]["data"]["text/html"])[1]
    assert heights(base64.b64decode(image).decode(), "healthy") == [84.0] * 5
    # It was more than a first and a last picture, and eleven of them take at least a second.
    assert len(shown) >= 5
    moments = [message["header"]["date"] for message in shown]
    assert all((later - earlier).total_seconds() >= 1 for earlier, later in zip(moments, moments[10:], strict=False))


@pytest.mark.slow
def test_an_error_or_stop_in_the_block_goes_through_and_leaves_the_last_picture(watched):
    """And nothing that still draws."""
    source = (
        "fleet = await new_fleet()\nasync with live(fleet, of=1):\n"
        "    await broadcast('GOAL')\n    await fleet.until(1)\n    "
    )
    for end, stop_at, names in (
        ("1 / 0", "", {"ZeroDivisionError"}),
        ("print('waiting', flush=True); await asyncio.sleep(60)", "waiting", {"CancelledError", "KeyboardInterrupt"}),
    ):
        shown, _, error = watched.run(source + end, stop_at=stop_at)
        assert error in names
        assert alt_of(shown[-1]).startswith("5 of 6 clients have the message.")
        assert watched.run(LEFT) == ([], "[]\n", "")


@pytest.mark.slow
def test_a_fleet_that_is_closed_or_frozen_in_the_block_ends_the_drawing_quietly(watched):
    """What was seen last stays; nothing waits for who does not answer."""
    for end in ("await fleet.close()", "fleet.freeze()"):
        source = (
            f"fleet = await new_fleet()\nasync with live(fleet, of=1):\n    {end}\n    await asyncio.sleep(0.3)\n{LEFT}"
        )
        shown, printed, error = watched.run(source)
        assert (printed, error) == ("[]\n", "")
        assert [alt_of(message)[:18] for message in shown] == ["0 of 6 clients hav"]
    watched.run("fleet.thaw()")


@pytest.mark.slow
def test_a_program_that_runs_the_notebook_through_sees_nothing(watched):
    """It says with each cell that nobody can be asked."""
    source = "fleet = await new_fleet()\nasync with live(fleet, of=1):\n    await broadcast('GOAL')"
    assert watched.run(source, allow_stdin=False) == ([], "", "")
