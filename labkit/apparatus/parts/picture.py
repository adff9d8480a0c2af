"""The picture of a cluster: fans above, the balancer, the servers, Redis below, each with its state and its counts."""

import asyncio
import html
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from labkit.apparatus.parts.counts import ClusterFacts, RedisFacts, ServerFacts

# Four pictures a second; of a large crowd fewer, so that looking takes a fifth of a core at most.
_PAUSE = 0.25
_REST = 4
_MARGIN = 20
_COLUMN = 200
_BOX = 168
_DOTS_IN_A_ROW = 12
_ROWS = 5
# Okabe-Ito, each beside its word and with a shape of its own: a path around its middle, seven units each way.
_LOOKS = {
    "running": ("#009E73", "m-7 0a7 7 0 1 0 14 0a7 7 0 1 0-14 0z"),
    "frozen": ("#56B4E9", "m-6-7h4v14h-4zm8 0h4v14h-4z"),
    "draining": ("#E69F00", "m-7-5h14l-7 12z"),
    "drained": ("#777777", "m-7-2h14v4h-14z"),
    "killed": ("#D55E00", "m-7-4 3-3 4 4 4-4 3 3-4 4 4 4-3 3-4-4-4 4-3-3 4-4z"),
    "ended": ("#D55E00", "m0-7 7 7-7 7-7-7z"),
    "stopped": ("#777777", "m-6-6h12v12h-12z"),
}
_FAN = "#0072B2"
_INK = "#222222"
_QUIET = "#666666"
_LINE = "#9a9a9a"
# Where a fan hears what is published.
_HEARS = ("running", "draining")


class Picture:
    """A cluster at one moment. In a notebook it shows itself as a drawing, elsewhere as text with the same facts.

    .facts the counts, .svg the drawing, .alt the text for those who do not see it.
    """

    def __init__(self, facts: ClusterFacts) -> None:
        self.facts = facts

    @property
    def alt(self) -> str:
        """The facts in sentences."""
        servers = "; ".join(_in_words(server) for server in self.facts.servers)
        balancer = f"nginx ({self.facts.balancer}, {self.facts.method})"
        return f"{headline(self.facts)}. {balancer}: {servers}. {redis_in_words(self.facts.redis)}."

    @property
    def svg(self) -> str:
        """The drawing, as text."""
        return draw(self.facts, self.alt)

    def __repr__(self) -> str:
        facts = self.facts
        lines = [
            f"cluster {facts.name!r} at {facts.url}",
            headline(facts),
            f"  nginx ({facts.method}) {facts.balancer}",
            *(f"    {_in_words(server)}" for server in facts.servers),
            f"  {redis_in_words(facts.redis)}",
        ]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        return f'<div style="max-width:{width_of(self.facts)}px">{self.svg}</div>'


def headline(facts: ClusterFacts) -> str:
    """Return the picture's finding: how many fans there are, and how many servers they can hear."""
    running = sum(server.state in _HEARS for server in facts.servers)
    servers = f"{running} of {_count(len(facts.servers), 'server')} {'runs' if running == 1 else 'run'}"
    cut_off = sum(server.connections for server in facts.servers if _is_silent(server))
    silence = f", {cut_off:,} of them hear nothing" if cut_off else ""
    return f"{servers}, {_count(facts.fans, 'fan')}{silence}"


def _in_words(server: ServerFacts) -> str:
    parts = [f"{server.name} {server.state}", _count(server.connections, "connection")]
    if not server.in_service and server.state != "drained":
        parts.append("no new fans")
    if server.link:
        parts.append(f"link to Redis {server.link}")
    return ", ".join(parts)


def redis_in_words(redis: RedisFacts | None) -> str:
    """Return what Redis does, in a line."""
    if redis is None:
        return "No Redis: the servers do not know of each other"
    return ", ".join([f"Redis {redis.state}", *redis_counts(redis)])


def redis_counts(redis: RedisFacts) -> list[str]:
    """Return the counts of Redis, each with its noun; none where it does not answer."""
    if redis.published is None:
        return []
    streams = [f"stream {name:.20} keeps {amount:,}" for name, amount in redis.streams[:2]]
    return [
        f"{_count(redis.published, 'message')} published",
        _count(redis.subscribers, "subscriber"),
        _count(redis.clients, "other connection"),
        *streams,
    ]


def _count(amount: int, noun: str) -> str:
    return f"{amount:,} {noun}{'' if amount == 1 else 's'}"


def width_of(facts: ClusterFacts) -> int:
    """Return the width of the drawing, in units of its own and in pixels where there is room."""
    return 2 * _MARGIN + _COLUMN * max(3, len(facts.servers))


def draw(facts: ClusterFacts, words: str) -> str:
    """Return the drawing as an SVG; `words` for those who do not see it."""
    width = width_of(facts)
    each = _fans_for_a_dot(facts)
    first = (width - _COLUMN * len(facts.servers)) / 2 + _COLUMN / 2
    middles = [first + _COLUMN * place for place in range(len(facts.servers))]
    top = 62
    rows = max([1, *(-(-_dots(server, each) // _DOTS_IN_A_ROW) for server in facts.servers)])
    nginx = top + 12 * rows + 22
    server_top = nginx + 34 + 50
    redis = server_top + 78 + 46
    bottom = server_top + 78 if facts.redis is None else redis + 56
    parts = [_text(_MARGIN, 26, headline(facts), size=16, weight="bold")]
    for server, middle in zip(facts.servers, middles, strict=True):
        parts += _fans(server, middle, nginx - 14, each)
        parts += _road(server, middle, nginx + 34, server_top, facts)
        parts += _server(server, middle, server_top)
        if facts.redis:
            parts += _wire(server, middle, server_top + 78, redis, facts.redis)
    parts += _bar(nginx, 34, width, f"nginx · {facts.method}", facts.balancer, facts.url.removeprefix("http://"))
    if facts.redis:
        published, *others = redis_counts(facts.redis) or [""]
        parts += _bar(redis, 56 if others else 34, width, "Redis", facts.redis.state, published)
        parts.append(_text(_MARGIN + 16, redis + 45, " · ".join(others), size=12))
    notes = [f"One dot is {each:,} fans."] if each > 1 else []
    notes += ["Who is hollow hears nothing."] if any(map(_is_silent, facts.servers)) else []
    parts.append(_text(_MARGIN, 44, " ".join(notes), size=11, colour=_QUIET))
    label = html.escape(words, quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{label}" width="100%" '
        f'viewBox="0 0 {width} {bottom + 12}" font-family="DejaVu Sans, Verdana, sans-serif">'
        f"<title>{html.escape(headline(facts))}</title><desc>{label}</desc>"
        '<rect width="100%" height="100%" fill="white"/>'
        f"{''.join(parts)}</svg>"
    )


def _fans_for_a_dot(facts: ClusterFacts) -> int:
    """Return how many fans a dot stands for: 1, 2, 5, 10 and so on, so that every server's dots have room."""
    most = max([0, *(server.connections for server in facts.servers)])
    steps = (step * 10**power for power in range(7) for step in (1, 2, 5))
    return next(step for step in steps if -(-most // step) <= _DOTS_IN_A_ROW * _ROWS)


def _is_silent(server: ServerFacts) -> bool:
    """Return whether a server has fans and tells them nothing."""
    return server.connections > 0 and server.state not in _HEARS


def _dots(server: ServerFacts, each: int) -> int:
    return -(-server.connections // each)


def _fans(server: ServerFacts, middle: float, bottom: float, each: int) -> list[str]:
    """Return the fans of a server, as dots that stand on the balancer in the server's column."""
    dots = _dots(server, each)
    path = []
    for number in range(dots):
        row, column = divmod(number, _DOTS_IN_A_ROW)
        in_row = min(_DOTS_IN_A_ROW, dots - row * _DOTS_IN_A_ROW)
        x = middle + (column - (in_row - 1) / 2) * 12
        path.append(f"M{x:.1f} {bottom - row * 12:.1f}m-4 0a4 4 0 1 0 8 0a4 4 0 1 0-8 0z")
    fill = "white" if _is_silent(server) else _FAN
    return [f'<path d="{"".join(path)}" fill="{fill}" stroke="{_FAN}" stroke-width="1.4"/>'] if path else []


def _road(server: ServerFacts, middle: float, top: float, bottom: float, facts: ClusterFacts) -> list[str]:
    """Return the line from the balancer to a server, the wider the more fans it carries, with its count."""
    share = server.connections / max(1, *(each.connections for each in facts.servers))
    open_to_new = server.in_service and server.state in ("running", "frozen") and facts.balancer == "running"
    colour = _FAN if server.connections else _LINE
    dashes = "" if open_to_new else ' stroke-dasharray="5 5"'
    line = (
        f'<path d="M{middle} {top}V{bottom - 9}" stroke="{colour}" stroke-width="{1.5 + 6 * share:.1f}"{dashes}/>'
        f'<path d="M{middle} {bottom - 1}m-7-10h14l-7 10z" fill="{colour}"/>'
    )
    words = "" if open_to_new else "no new fans"
    return [line, _text(middle + 12, (top + bottom) / 2 + 2, words, size=11, colour=_QUIET)]


def _server(server: ServerFacts, middle: float, top: float) -> list[str]:
    """Return a server's box: its name, its state as a shape and a word, its connections."""
    colour, shape = _LOOKS[server.state]
    left = middle - _BOX / 2
    dashes = "" if server.state in ("running", "frozen", "draining") else ' stroke-dasharray="6 4"'
    return [
        f'<rect x="{left}" y="{top}" width="{_BOX}" height="78" rx="9" fill="{colour}" fill-opacity="0.1" '
        f'stroke="{colour}" stroke-width="2.2"{dashes}/>',
        _text(middle, top + 23, server.name, size=15, weight="bold", anchor="middle"),
        f'<path d="M{left + 26} {top + 42}{shape}" fill="{colour}"/>',
        _text(left + 42, top + 47, server.state, size=13),
        _text(left + 19, top + 67, _count(server.connections, "connection"), size=13),
    ]


def _wire(server: ServerFacts, middle: float, top: float, bottom: float, redis: RedisFacts) -> list[str]:
    """Return the line between a server and Redis; broken where nothing can pass."""
    works = server.state in _HEARS and redis.state == "running" and server.link in ("", "open")
    if works:
        arrows = f"M{middle} {top + 1}m-5 8 5-8 5 8M{middle} {bottom - 1}m-5-8 5 8 5-8"
        lines = f'<path d="M{middle} {top + 2}V{bottom - 2}{arrows}" fill="none" stroke="{_INK}" stroke-width="1.6"/>'
    else:
        lines = (
            f'<path d="M{middle} {top + 2}V{bottom - 2}" stroke="{_LINE}" stroke-width="1.6" stroke-dasharray="3 5"/>'
        )
    words = f"link {server.link}" if server.link else ""
    return [lines, _text(middle + 12, (top + bottom) / 2 + 4, words, size=11, colour=_QUIET)]


def _bar(top: float, height: float, width: int, name: str, state: str, words: str) -> list[str]:
    """Return a part that all servers share, as wide as the picture: name and state, and at its right some words."""
    colour, shape = _LOOKS.get(state, _LOOKS["ended"])
    left = _MARGIN + 28 + 9.4 * len(name)
    return [
        f'<rect x="{_MARGIN}" y="{top}" width="{width - 2 * _MARGIN}" height="{height}" rx="9" fill="{colour}" '
        f'fill-opacity="0.1" stroke="{colour}" stroke-width="2.2"/>',
        _text(_MARGIN + 16, top + 22, name, size=15, weight="bold"),
        f'<path d="M{left + 8:.0f} {top + 17}{shape}" fill="{colour}"/>',
        _text(left + 24, top + 22, state, size=13),
        _text(width - _MARGIN - 16, top + 22, words, size=13, anchor="end"),
    ]


def _text(
    x: float, y: float, words: str, *, size: int, weight: str = "normal", anchor: str = "start", colour: str = _INK
) -> str:
    """Return a line of text; nothing for no words."""
    if not words:
        return ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" font-weight="{weight}" text-anchor="{anchor}" '
        f'fill="{colour}">{html.escape(words)}</text>'
    )


# Live


@asynccontextmanager
async def kept_up(picture: Callable[[], Picture]) -> AsyncIterator[None]:
    """Show a picture in the cell's output, anew four times a second while the block runs; the last one stays.

    Where nobody watches, in a test or an export, the last one is all that is shown; outside a notebook, nothing.
    """
    shell = _shell()
    if shell is None:
        yield
        return
    output = _Output(picture)
    task = None
    if shell.get_parent().get("content", {}).get("allow_stdin"):
        await output.refresh()
        task = asyncio.create_task(_keep_up(output), name="cluster drawn")
    try:
        yield
    finally:
        if task is not None:
            task.cancel()
            # Its error, if it died of one, stays unread here: then the guard tells of it.
            await asyncio.wait([task])
        await output.refresh()


async def _keep_up(output: "_Output") -> None:
    took = 0.0
    while True:
        await asyncio.sleep(max(_PAUSE, _REST * took))
        began_at = time.monotonic()
        await output.refresh()
        took = time.monotonic() - began_at


class _Output:
    """One output of a cell, and the picture that it shows."""

    def __init__(self, picture: Callable[[], Picture]) -> None:
        self._picture = picture
        self._facts: ClusterFacts | None = None
        self._handle = None

    async def refresh(self) -> None:
        """Show the picture where a fact of it has changed, the first time as a new output of the cell."""
        # In a thread: the system takes its time to list the sockets of thousands of fans.
        picture = await asyncio.to_thread(self._picture)
        if picture.facts == self._facts:
            return
        self._facts = picture.facts
        if self._handle is None:
            from IPython.display import display

            self._handle = display(picture, display_id=True)
        else:
            self._handle.update(picture)


def _shell() -> object | None:
    """Return IPython's shell where this runs in a kernel; whoever has not loaded IPython is in none."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell if hasattr(shell, "kernel") else None
