"""The fan-out, drawn while it happens: who has how many of the messages."""

import asyncio
import base64
import html
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

from labkit.apparatus.children import ChildFailed
from labkit.apparatus.clients import Fleet
from labkit.apparatus.crowd.swarm import ranges
from labkit.evidence.screen import somebody_watches

# Eight pictures a second, the first and the last: never more than ten.
_PAUSE = 0.125
# A fleet that is frozen, or busy, holds up neither end of the block for longer than this.
_ANSWER_SECONDS = 0.5
# Numbers of clients that are a longer text than this are no help to somebody who listens.
_LISTED = 60
_WIDTH = 560
_LEFT = 34
# Colour and shape of each behaviour are those of the figures (charts/look.py), which would load matplotlib; a test
# compares the colours. A shape is a path around its middle, three units each way.
LOOKS = {
    "healthy": ("#0072B2", "m-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z"),
    "slow": ("#E69F00", "m-3-3h6v6h-6z"),
    "stalled": ("#D55E00", "m-3-2 1-1 2 2 2-2 1 1-2 2 2 2-1 1-2-2-2 2-1-1 2-2z"),
    "leaving": ("#56B4E9", "m0-3 3 6h-6z"),
    "vanishing": ("#999999", "m0 3-3-6h6z"),
}


@asynccontextmanager
async def live(fleet: Fleet, *, of: int) -> AsyncIterator[None]:
    """Draw how many of the messages each client has, in the cell's output, for as long as the block runs.

    Only where somebody watches: in a test, an export or a script it draws nothing and asks nothing. The last picture
    stays, also when the block raises. Counts begin where those of fleet.until() do: at connect() or clear().
    The trap: it is drawn on the server's own loop, eight times a second at most. Each time takes about 1 ms of this
    thread for 20 clients and 2 ms for 100. That is in report.cpu_seconds, and a message that is due just then waits for
    it; so no number that is compared with another comes from inside this block. Its task is one more on the loop.
    fleet: connected; when it is closed inside the block, the drawing ends there. of: how many messages each will get.
    Raises RuntimeError when the fleet is not connected, ValueError for an `of` below 1.
    """
    if of < 1:
        raise ValueError(f"of={of}: say how many messages each client will get, 1 or more.")
    if not fleet.is_open:
        raise RuntimeError(f"Fleet {fleet.name!r} is not connected. Is `await fleet.connect()` missing?")
    if not somebody_watches():
        yield
        return
    picture = _Picture(fleet, of)
    await _refresh_soon(picture)
    task = asyncio.create_task(_keep_up(picture), name="live")
    try:
        yield
    finally:
        task.cancel()
        # Its error, if it died of one, stays unread here: then the guard tells of it.
        await asyncio.wait([task])
        await _refresh_soon(picture)


async def _refresh_soon(picture: "_Picture") -> None:
    """Refresh the picture, unless its fleet does not answer."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_ANSWER_SECONDS):
            await picture.refresh()


async def _keep_up(picture: "_Picture") -> None:
    """Refresh the picture until its fleet is closed."""
    watching = True
    while watching:
        await asyncio.sleep(_PAUSE)
        watching = await picture.refresh()


class _Picture:
    """One output of a cell, and the counts that it shows."""

    def __init__(self, fleet: Fleet, of: int) -> None:
        self._fleet = fleet
        self._of = of
        self._roster = dict(enumerate(fleet.behaviours, 1))
        self._counts: dict[int, int] | None = None
        self._handle = None

    async def refresh(self) -> bool:
        """Show the counts where they have changed; return whether the fleet is still there."""
        if not self._fleet.is_open:
            return False
        try:
            counts = await self._fleet.counts()
        except ChildFailed:
            return False
        if counts != self._counts:
            self._counts = counts
            self._show(counts)
        return True

    def _show(self, counts: dict[int, int]) -> None:
        """Display the picture, the first time as a new output of the cell."""
        words = in_words(counts, self._roster, self._of)
        image = base64.b64encode(draw(counts, self._roster, self._of).encode()).decode()
        page = (
            f'<img alt="{html.escape(words, quote=True)}" style="max-width:100%;width:{_WIDTH}px;background:white" '
            f'src="data:image/svg+xml;base64,{image}">'
        )
        bundle = {"text/html": page, "text/plain": words}
        if self._handle is None:
            from IPython.display import display

            self._handle = display(bundle, raw=True, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


def in_words(counts: Mapping[int, int], roster: Mapping[int, str], of: int) -> str:
    """Return who has how many messages, as a sentence for those who do not see the picture."""
    parts = []
    for behaviour in dict.fromkeys(roster.values()):
        groups: dict[int, list[int]] = {}
        for client, its in roster.items():
            if its == behaviour:
                groups.setdefault(counts.get(client, 0), []).append(client)
        if len(groups) > 4:
            amount = sum(map(len, groups.values()))
            parts.append(f"{amount} {behaviour} clients have {min(groups)} to {max(groups)}")
        else:
            for count, clients in sorted(groups.items(), reverse=True):
                named = ranges(clients)
                if len(clients) == 1:
                    parts.append(f"{behaviour} client {named} has {count}")
                elif len(named) <= _LISTED:
                    parts.append(f"{behaviour} clients {named} have {count}")
                else:
                    parts.append(f"{len(clients)} {behaviour} clients have {count}")
    return f"{_headline(counts, roster, of)}. {'; '.join(parts)} of {of}."


def _headline(counts: Mapping[int, int], roster: Mapping[int, str], of: int) -> str:
    """Return how far the broadcast has come."""
    complete = sum(counts.get(client, 0) >= of for client in roster)
    messages = "the message" if of == 1 else f"all {of} messages"
    return f"{complete} of {len(roster)} clients {'has' if complete == 1 else 'have'} {messages}"


def draw(counts: Mapping[int, int], roster: Mapping[int, str], of: int) -> str:
    """Return an SVG with a box for each client that fills from below, in its behaviour's colour and with its shape.

    counts: client -> messages it has. roster: client -> behaviour. Up to 100 clients carry their number; in a larger
    crowd each line of 50 begins with one.
    """
    columns, tall = _grid(len(roster))
    small = len(roster) > 100
    step = min(26.0, (_WIDTH - _LEFT - 4) / columns)
    line = tall + (4 if small else 26)
    frames: dict[str, list[str]] = {}
    fills: dict[str, list[str]] = {}
    shapes: dict[str, list[str]] = {}
    numbers = []
    for place, (client, behaviour) in enumerate(roster.items()):
        row, column = divmod(place, columns)
        x, y = _LEFT + column * step, 30 + row * line
        inside = step - 2
        frames.setdefault(behaviour, []).append(f"M{x:.1f} {y}h{inside:.1f}v{tall}h-{inside:.1f}z")
        count = counts.get(client, 0)
        # Who lacks one of many shall not look as if nothing were missing.
        full = tall if count >= of else min(tall * count / of, tall - 3)
        if full:
            fills.setdefault(behaviour, []).append(
                f"M{x:.1f} {y + tall - full:.1f}h{inside:.1f}v{full:.1f}h-{inside:.1f}z"
            )
        middle = x + inside / 2
        if not small:
            shapes.setdefault(behaviour, []).append(f"M{middle:.1f} {y + tall + 6}{LOOKS[behaviour][1]}")
            numbers.append(f'<text x="{middle:.1f}" y="{y + tall + 20}" text-anchor="middle">{client}</text>')
        elif column == 0:
            numbers.append(f'<text x="{_LEFT - 4}" y="{y + tall - 2}" text-anchor="end">{client}</text>')
        if small and behaviour != "healthy":
            # White around it, so that it is seen on an empty box and on a full one.
            shapes.setdefault(behaviour, []).append(f"M{middle:.1f} {y + tall / 2:.1f}{LOOKS[behaviour][1]}")
    legend_y = 30 + -(-len(roster) // columns) * line + 8
    parts = []
    for behaviour, boxes in frames.items():
        colour, shape = LOOKS[behaviour]
        parts.append(f'<path d="{"".join(boxes)}" fill="none" stroke="{colour}" stroke-width="0.8"/>')
        parts.append(f'<path d="{"".join(fills.get(behaviour, []))}" fill="{colour}"/>')
        edge = ' stroke="white" stroke-width="2" paint-order="stroke"' if small else ""
        parts.append(f'<path d="{"".join(shapes.get(behaviour, []))}" fill="{colour}"{edge}/>')
    x = _LEFT
    for behaviour, boxes in frames.items():
        colour, shape = LOOKS[behaviour]
        name = f"{len(boxes)} {behaviour}"
        parts.append(f'<path d="M{x + 4} {legend_y}{shape}" fill="{colour}"/>')
        parts.append(f'<text x="{x + 12}" y="{legend_y + 4}" font-size="11">{name}</text>')
        x += 30 + 7 * len(name)
    height = legend_y + 12
    words = html.escape(in_words(counts, roster, of), quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{words}" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" font-family="DejaVu Sans, Verdana, sans-serif" font-size="9" fill="#222222">'
        f'<title>{words}</title><rect width="100%" height="100%" fill="white"/>'
        f'<text x="{_LEFT}" y="18" font-size="13" font-weight="bold">{_headline(counts, roster, of)}</text>'
        f"{''.join(parts)}{''.join(numbers)}</svg>"
    )


def _grid(clients: int) -> tuple[int, int]:
    """Return how many boxes stand in a line, and how tall each is."""
    if clients <= 25:
        return max(1, clients), 84
    return (25, 34) if clients <= 100 else (50, 14)
