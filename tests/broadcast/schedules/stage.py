"""One evening of a hub: a real server, fans who do as they like, and what each of them has to hear of it."""

import asyncio
import os
import socket
import tempfile
from collections import Counter
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import uvicorn
from clock import JumpingLoop
from fan import Fan
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocketDisconnect

from labkit.broadcast.hub import Hub, HubFull
from labkit.broadcast.parts.hub import room as room_module
from labkit.broadcast.parts.hub.frames import text_frame
from labkit.broadcast.protocol import HubProtocol

# What goes wrong with a connection that the test itself has broken.
_GONE = (WebSocketDisconnect, RuntimeError, OSError)
_BOUND_WRITE_BYTES = 65_536
# A goodbye waits so long for an answer, and uvicorn's own for ten seconds.
_ALL_HAS_ENDED_SECONDS = 12.0
# Enough for whoever reads nothing: once the whole time if it took something just now, and once more.
_STALLED_TIMES = 2.5
_QUIET_SECONDS = 1e-6


class Rules(NamedTuple):
    """What is the same for a whole evening. is_bound: written to as on other loops. slice: see room.SLICE."""

    when_full: str
    history: int
    history_bytes: int
    max_queue_bytes: int
    max_total_bytes: int
    stalled_after: float
    send_buffer_bytes: int
    receive_buffer_bytes: int
    slice: int
    write_bytes: int
    is_bound: bool
    is_tcp: bool
    ping_interval: float | None


class Entrance(NamedTuple):
    """What was true when a fan came in. newest: number of the newest message. kept: from which on all must be there."""

    catch_up: object
    newest: int
    kept: int


@dataclass
class Published:
    """What was published in one room."""

    epoch: int | None = None
    data: list = field(default_factory=list)
    ends: list[int] = field(default_factory=lambda: [0])
    biggest: int = 0

    @property
    def newest(self) -> int:
        """The number of the newest message."""
        return len(self.data)

    def bytes_since(self, newest: int) -> int:
        """Return how many bytes were published since a message."""
        return self.ends[-1] - self.ends[newest]


class BoundProtocol(HubProtocol):
    """As on uvloop and under TLS, where nobody can write to the socket itself."""

    plain_socket = None


class NotedHub(Hub):
    """Unlike Hub: it tells whom it cuts off."""

    note = None

    def evict(self, member, reason):
        """Tell, and do it."""
        self.note(member.websocket, reason)
        super().evict(member, reason)


class _Uvicorn(uvicorn.Server):
    def capture_signals(self):
        """Leave the signals to the test."""
        return nullcontext()


def open_files() -> Counter[str]:
    """Return what this process has open, by what it is."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        # The folder itself is open while it is listed.
        with suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))
    return Counter(found)


class Evening:
    """A server, its fans, and the model. Every method may be called at any time, in any order; check() raises."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.before = open_files()
        self.fans: list[Fan] = []
        self.rooms: dict[str, Published] = {"home": Published(), "away": Published()}
        self.errors: list[BaseException] = []
        self.evictions: Counter[str] = Counter()
        self.tasks: set[asyncio.Task] = set()
        self.is_draining = False
        self.constants = room_module.SLICE, room_module.WRITE_BYTES
        room_module.SLICE, room_module.WRITE_BYTES = rules.slice, rules.write_bytes
        self.folder = tempfile.TemporaryDirectory()
        self.loop = JumpingLoop()
        self.loop.is_anything_on_its_way = self.is_anything_on_its_way
        self.loop.set_exception_handler(self.note_error)
        self.hub = NotedHub(
            history=rules.history,
            history_bytes=rules.history_bytes,
            max_queue_bytes=rules.max_queue_bytes,
            max_total_bytes=rules.max_total_bytes,
            when_full=rules.when_full,
            stalled_after=rules.stalled_after,
        )
        self.hub.note = self.note_eviction
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        if self.rules.is_tcp:
            listener = socket.create_server(("127.0.0.1", 0))
        else:
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(Path(self.folder.name) / "evening"))
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.rules.send_buffer_bytes)
        listener.listen()
        self.listener, self.address = listener, listener.getsockname()
        config = uvicorn.Config(
            Starlette(routes=[WebSocketRoute("/ws", self.endpoint)]),
            ws=BoundProtocol if self.rules.is_bound else HubProtocol,
            ws_per_message_deflate=False,
            ws_ping_interval=self.rules.ping_interval,
            lifespan="off",
            log_config=None,
            access_log=False,
        )
        self.server = _Uvicorn(config)
        self.serving = self.loop.create_task(self.server.serve(sockets=[listener]))
        await self.hub.__aenter__()
        await asyncio.sleep(_QUIET_SECONDS)

    # ---- the server's side

    async def endpoint(self, websocket) -> None:
        """Do as the hub's docstring says, and note how the fan came in."""
        fan = self.fans[int(websocket.query_params["fan"])]
        fan.websocket = websocket
        if not self.rules.is_tcp:
            # A Unix socket does not inherit it.
            plain = websocket.scope["extensions"]["labkit.connection"].transport.get_extra_info("socket")
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.rules.send_buffer_bytes)
        try:
            catch_up = await self.hub.connect(websocket, room=fan.room, since=fan.asked)
        except WebSocketDisconnect:
            # It has gone meanwhile, or no more are taken.
            return
        try:
            self.came_in(fan, catch_up)
        except AssertionError as error:
            # uvicorn would only log it.
            self.errors.append(error)
        try:
            while True:
                await websocket.receive_text()
        except WebSocketDisconnect:
            pass
        finally:
            self.hub.disconnect(websocket)

    def came_in(self, fan: Fan, catch_up) -> None:
        """Judge what the hub says of a fan's position."""
        published = self.rooms[fan.room]
        published.epoch = self.hub.room(fan.room).log.newest.epoch
        newest, epoch = published.newest, published.epoch
        fan.entrance = Entrance(catch_up, newest, self.kept_since(published))
        fan.settled_bytes = published.ends[-1]
        if fan.asked is None:
            first = newest
            assert catch_up.after == (epoch, newest), (fan, catch_up, epoch, newest)
        else:
            # Places are counted from 0 and messages from 1, and there is no gap in one room.
            first = catch_up.cursor
            asked = 0 if fan.asked == (0, 0) else fan.asked[1]
            is_ours = fan.asked == (0, 0) or (fan.asked[0] == epoch and asked <= newest)
            if catch_up.recovered:
                assert is_ours, f"{fan} asked for {fan.asked} of {epoch}, which never was, and is told it was recovered"
                assert first == asked, f"{fan} asked for {fan.asked}, is recovered, and begins behind {first}"
                assert catch_up.after == fan.asked
            else:
                assert not (is_ours and fan.entrance.kept <= asked and fan.asked != (0, 0)), (
                    f"{fan} asked for {fan.asked}, all since {fan.entrance.kept} must be kept, and it is not recovered"
                )
                is_behind = is_ours or fan.asked[0] < epoch
                assert first <= newest
                assert not is_behind or first <= max(fan.entrance.kept, asked if is_ours else 0), (fan, fan.entrance)
        fan.expected = first + 1

    def kept_since(self, published: Published) -> int:
        """Return the number of the message since which a room has to have everything still."""
        kept = published.newest
        while (
            kept > 0
            and published.newest - kept < self.rules.history
            and published.bytes_since(kept - 1) <= self.rules.history_bytes
            and not self.is_tight
        ):
            kept -= 1
        return kept

    @property
    def is_tight(self) -> bool:
        """Whether the bound for all together may be reached, which takes history too."""
        return self.rules.max_total_bytes < 10 * 2**20

    def note_error(self, _, context: dict) -> None:
        """Keep what went wrong in a callback or in a task."""
        self.errors.append(context.get("exception") or AssertionError(context["message"]))

    def note_eviction(self, websocket, reason: str) -> None:
        """Judge whether the hub may cut this fan off."""
        fan = self.fans[int(websocket.query_params["fan"])]
        self.evictions[reason] += 1
        fan.evicted = reason
        published = self.rooms[fan.room]
        if reason == "slow":
            waits = published.ends[-1] - fan.settled_bytes
            if self.rules.when_full != "disconnect" or waits <= self.rules.max_queue_bytes:
                self.errors.append(AssertionError(f"{fan} was cut off as slow, and {waits} bytes may wait"))
        elif reason == "stalled":
            if fan.frozen_at is None or self.loop.now - fan.frozen_at < self.rules.stalled_after - _QUIET_SECONDS:
                self.errors.append(AssertionError(f"{fan} was cut off as stalled: {fan.frozen_at=}, {self.loop.now=}"))
        elif reason == "memory":
            if not self.is_tight:
                self.errors.append(AssertionError(f"{fan} was cut off for memory"))
        elif reason == "drained" and (fan.frozen_at is None or not self.is_draining):
            self.errors.append(AssertionError(f"{fan} was cut off when drained, and reads"))

    def is_anything_on_its_way(self) -> bool:
        """Whether the system still carries something to a fan who reads."""
        if not self.rules.is_tcp:
            # What is sent on a Unix socket is there at once.
            return False
        awake = {fan.address for fan in self.fans if fan.is_awake}
        return any(
            connection.client in awake and HubProtocol.unsent_bytes(connection) > 0
            for connection in self.server.server_state.connections
        )

    # ---- what happens; all of it on the loop

    def play(self, *actions, turns: int) -> None:
        """Do several things in one turn of the loop, and let it take so many more."""

        async def act():
            for action, *arguments in actions:
                action(*arguments)
            for _ in range(turns):
                await asyncio.sleep(0)

        self.loop.run_until_complete(act())
        self.check()

    def pass_time(self, seconds: float) -> None:
        """Let time pass; the smallest bit of it passes only when nothing is left to do."""
        self.loop.run_until_complete(asyncio.sleep(seconds))
        self.check()

    def enter(self, room: str, asked, polite: bool, is_frozen: bool) -> None:
        """A fan comes; is_frozen: and does not even read the answer to its handshake."""
        fan = Fan(len(self.fans), room, asked, polite=polite)
        self.fans.append(fan)
        fan.connect(self.address, self.listener.family, self.rules.receive_buffer_bytes)
        if is_frozen:
            fan.freeze()

    def publish(self, room: str, size: int) -> None:
        """Publish a message of about so many bytes."""
        published = self.rooms[room]
        data = [published.newest, room, "x" * size]
        try:
            position = self.hub.publish(data, room=room).result()
        except HubFull:
            assert self.is_tight
            return
        published.epoch = published.epoch or position.epoch
        assert position == (published.epoch, published.newest + 1)
        frame = text_frame(
            f'{{"epoch": {position.epoch}, "seq": {position.seq}, "data": [{data[0]},"{room}","{data[2]}"]}}'
        )
        published.data.append(data)
        published.ends.append(published.ends[-1] + len(frame))
        published.biggest = max(published.biggest, len(frame))

    def say(self, fan: Fan, size: int) -> None:
        """The endpoint sends a text of its own."""
        if fan.websocket is not None and fan.entrance is not None:
            fan.notes_sent += 1
            text = f'{{"note": {fan.notes_sent}, "more": "{"y" * size}"}}'
            self._in_background(self._send(fan, text))

    async def _send(self, fan: Fan, text: str) -> None:
        # An endpoint sends one text after the other; of two tasks that wait for one client, either may go first.
        async with fan.says:
            await fan.websocket.send_text(text)

    def has_all(self, fan: Fan) -> bool:
        """Whether a fan reads, has everything, and nobody has said goodbye to it."""
        is_here = (
            fan.is_awake and fan.entrance and not (fan.has_said_goodbye or fan.was_shut or fan.evicted or fan.code)
        )
        return bool(is_here) and not self.is_draining and fan.expected > self.rooms[fan.room].newest

    def shut(self, fan: Fan, had_all: bool) -> None:
        """The endpoint closes the connection. had_all: before this turn; then what came in this one comes first."""
        if fan.websocket is not None and fan.entrance is not None:
            fan.was_shut, fan.due = True, self.rooms[fan.room].newest if had_all else None
            self._in_background(fan.websocket.close(4000))

    def drain(self, over: float) -> None:
        """The hub sends everybody away."""
        self.is_draining = True
        for fan in self.fans:
            if fan.is_awake and fan.entrance and not (fan.has_said_goodbye or fan.was_shut or fan.evicted or fan.code):
                fan.due = self.rooms[fan.room].newest
        self._in_background(self.hub.drain(over))

    def _in_background(self, work) -> None:
        async def try_to():
            with suppress(*_GONE):
                await work

        task = self.loop.create_task(try_to())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    # ---- what must be true

    def check(self) -> None:
        """Raise what went wrong; compare what each fan has heard with what was published."""
        for error in self.errors:
            raise error
        for fan in self.fans:
            if fan.fault is not None:
                raise fan.fault
            for text in fan.looked_at():
                self._hear(fan, text)
            if fan.code and fan.due is not None:
                assert fan.expected > fan.due, f"{fan} was sent away with {fan.expected - 1} of {fan.due} messages"
            if fan.is_closed and not (fan.code or fan.was_unread or fan.evicted or self.is_draining):
                raise AssertionError(f"{fan} was let go without a word")
        stats = self.hub.stats()
        assert stats.evictions == self.evictions
        assert stats.publishes == sum(published.newest for published in self.rooms.values())
        assert self.hub.log_bytes <= self.most_log_bytes(), (self.hub.log_bytes, self.most_log_bytes())
        for connection in self.server.server_state.connections:
            assert connection.transport.get_write_buffer_size() <= self.most_buffered_bytes()
        assert stats.queue_bytes <= self.hub.log_bytes + stats.behind * self.most_buffered_bytes()
        if self.rules.when_full == "disconnect":
            self._check_who_is_behind()
        missed = sum(fan.missed for fan in self.fans)
        assert missed <= stats.drops, f"{missed} messages are missing, and the hub knows of {stats.drops}"

    def most_log_bytes(self) -> int:
        """Return what may wait in the rooms: history, what somebody still gets, and what comes in at this moment."""
        rules, rooms = self.rules, [each for each in self.rooms.items() if each[1].epoch is not None]
        unswept = {name: self.hub.room(name).unswept_bytes for name, _ in rooms}
        bounds = rules.history_bytes + rules.max_queue_bytes
        return min(
            sum(bounds + self._asked_bytes(name) + published.biggest + unswept[name] for name, published in rooms),
            rules.max_total_bytes + sum(published.biggest + unswept[name] for name, published in rooms),
        )

    def _asked_bytes(self, name: str) -> int:
        """Return the most that somebody asked for who came into this room, and that was not written to it yet."""
        ends = self.rooms[name].ends
        waiting = [(fan.entrance.newest, place) for fan, place in self._behind() if fan.room == name]
        return max((ends[newest] - ends[place] for newest, place in waiting if place < newest), default=0)

    def _behind(self) -> list[tuple[Fan, int]]:
        """Return who is behind, and the number of the last message that was written to each of them."""
        members = [(fan, self.hub._members.get(fan.websocket)) for fan in self.fans if fan.entrance is not None]
        return [(fan, each.cursor) for fan, each in members if each in self.hub.room(fan.room)._behind]

    def most_buffered_bytes(self) -> int:
        """Return what may wait in one connection: a write, and what its endpoint has said."""
        biggest = max(published.biggest for published in self.rooms.values())
        said = 8_100 * max((fan.notes_sent for fan in self.fans), default=0)
        return max(self.rules.write_bytes, biggest) + said + (_BOUND_WRITE_BYTES if self.rules.is_bound else 0) + 1_000

    def _hear(self, fan: Fan, text: dict) -> None:
        if "note" in text:
            fan.notes_heard += 1
            assert text["note"] == fan.notes_heard, f"{fan} heard {text!r:.60} instead of note {fan.notes_heard}"
        elif "position" in text:
            catch_up = fan.entrance.catch_up
            assert not fan.heard_hello
            assert fan.asked is not None
            assert text == {"position": list(catch_up.after), "recovered": catch_up.recovered}
            fan.heard_hello = True
        else:
            self._hear_news(fan, text)

    def _hear_news(self, fan: Fan, text: dict) -> None:
        published = self.rooms[fan.room]
        assert fan.heard_hello or fan.asked is None, f"{fan} heard news before its greeting"
        assert text["epoch"] == published.epoch
        gap = text["seq"] - fan.expected
        assert gap >= 0, f"{fan} expects {fan.expected}, and hears {text['seq']} again"
        assert gap == 0 or self.rules.when_full != "disconnect", (
            f"{fan} expects {fan.expected}, and hears {text['seq']}"
        )
        assert text["data"] == published.data[text["seq"] - 1]
        fan.missed += gap
        fan.expected = text["seq"] + 1

    def check_quiet(self) -> None:
        """Wait until nothing is left to do, and raise unless everybody who reads has everything."""
        self.pass_time(_QUIET_SECONDS)
        present = 0
        for fan in self.fans:
            is_here = not (fan.is_closed or fan.has_said_goodbye or fan.evicted or fan.code)
            present += is_here
            if is_here and fan.is_awake and not self.is_draining and not fan.was_shut:
                published = self.rooms[fan.room]
                assert fan.expected == published.newest + 1, (
                    f"{fan} has all before {fan.expected} of {published.newest}"
                )
                assert fan.heard_hello or fan.asked is None
                assert fan.pongs_heard == fan.pings_sent, (fan, vars(fan))
                assert fan.notes_heard == fan.notes_sent
                fan.settled_bytes = published.ends[-1]
        stats = self.hub.stats()
        if not self.is_draining and not any(fan.was_shut for fan in self.fans) and not self.rules.ping_interval:
            assert stats.clients == present, f"{present} fans are here, and the hub has {stats.clients}"
        if not any(fan.was_unread or fan.evicted or fan.frozen_at is not None or fan.was_shut for fan in self.fans):
            missed = sum(fan.missed for fan in self.fans)
            if not self.is_draining and not any(fan.has_said_goodbye for fan in self.fans):
                assert stats.drops == missed, f"{missed} messages are missing, and the hub says {stats.drops}"
        if self.rules.when_full == "disconnect":
            assert stats.drops == 0

    def _check_who_is_behind(self) -> None:
        """Raise where more waits for somebody than may; what was there when the fan came does not count."""
        for fan, place in self._behind():
            published = self.rooms[fan.room]
            if self.hub.room(fan.room).swept < published.newest:
                continue
            waits = published.bytes_since(max(place, fan.entrance.newest))
            most = max(self.rules.max_queue_bytes, published.bytes_since(published.newest - 1))
            assert waits <= most, f"{waits} bytes wait for {fan}, and {most} may"

    def check_stalled(self) -> None:
        """Let so much time pass that nobody may be here to whom something could not be written."""
        # A transport that one cannot look into says that it is full only when it is.
        full = _BOUND_WRITE_BYTES if self.rules.is_bound else 0
        stalled, is_over = self._held_back(full), False
        while not is_over:
            self.pass_time(self.rules.stalled_after * _STALLED_TIMES + 0.5)
            still = self._held_back(full)
            for fan in stalled.keys() & still.keys():
                assert stalled[fan] != still[fan], (
                    f"{fan} has taken nothing for {self.rules.stalled_after * _STALLED_TIMES} s, and is here"
                )
            # The system of one that does not read may take some of it late, by a clock of its own, and then no more.
            stalled, is_over = still, not still

    def _held_back(self, full: int) -> dict[Fan, tuple[int, int]]:
        """Return how far each fan is who does not read, and to whom more than `full` bytes wait to be written."""
        held_back = {}
        for connection in self.server.server_state.connections:
            waits = connection.transport.get_write_buffer_size()
            if waits > full:
                fan = self.fans[int(connection.scope["query_string"].partition(b"=")[2])]
                member = self.hub._members.get(fan.websocket)
                held_back[fan] = (waits, member.cursor if member is not None else 0)
        return {fan: place for fan, place in held_back.items() if not fan.is_awake}

    # ---- the end

    def end(self, how: str) -> None:
        """Let the evening end, and raise for whatever is left of it."""
        self.check_stalled()
        for fan in self.fans:
            self.play((fan.thaw,), turns=0)
        self.check_quiet()
        if how == "drain":
            self.play(*[(self.publish, "home", 30_000)] * 6, (self.drain, 1.0), turns=0)
        elif how in ("leave", "reset"):
            for fan in self.fans:
                self.play((getattr(fan, how),), turns=0)
        elif how == "shutdown":
            self.server.should_exit = True
        self.pass_time(_ALL_HAS_ENDED_SECONDS)
        assert not self.server.server_state.connections, self.server.server_state.connections
        stats = self.hub.stats()
        assert (stats.clients, stats.behind) == (0, 0), stats
        rooms = self.hub._rooms.values()
        assert not any(room.members or room._behind or room._sockets or room._others for room in rooms)
        # What was kept for somebody who has gone, a room forgets with the next message.
        self.play(*((self.publish, room, 1) for room in self.rooms), turns=0)
        self.pass_time(_QUIET_SECONDS)
        assert self.hub.stats().queue_bytes <= self.rules.history_bytes * len(self.rooms)
        assert all(len(room.log) <= self.rules.history for room in rooms)
        self.close()
        assert not (left := open_files() - self.before), left

    def close(self) -> None:
        """Free everything, whatever has happened."""
        if self.loop.is_closed():
            return
        try:
            left = self.loop.run_until_complete(self._close())
        finally:
            self.loop.close()
            self.folder.cleanup()
            room_module.SLICE, room_module.WRITE_BYTES = self.constants
        assert not left, left

    async def _close(self) -> set:
        for fan in self.fans:
            fan.close()
        for task in self.tasks:
            task.cancel()
        await self.hub.__aexit__(None, None, None)
        for connection in list(self.server.server_state.connections):
            connection.transport.abort()
        self.server.should_exit = True
        await self.serving
        await asyncio.sleep(_QUIET_SECONDS)
        return asyncio.all_tasks() - {asyncio.current_task()}
