"""What carries messages from a hub to the hubs of all servers and back, over a backplane."""

import asyncio
import logging
from typing import TYPE_CHECKING

from labkit.broadcast.parts.hub.events import Gap, Message, Position
from labkit.broadcast.parts.hub.frames import text_frame
from labkit.broadcast.parts.hub.texts import gap_text, message_text, packed, unpacked

if TYPE_CHECKING:
    from labkit.broadcast.backplane import PubSubBackplane, StreamBackplane
    from labkit.broadcast.hub import Hub

log = logging.getLogger(__name__)

_CATCH_UP_SECONDS = 10.0
_TURN_SECONDS = 0.005


class Relay:
    """Hands what a backplane brings to the rooms of a hub, in order; `async with Relay(hub, backplane)`.

    All news comes by way of the backplane, that of this server too: so all servers have it in one order, and one
    position is good for all rooms and on all servers.
    .heard the newest position that has come here. .complete_after the one since which everything has come; None while
    that is not known. .gaps {whether settled: how many}.
    """

    def __init__(self, hub: "Hub", backplane: "PubSubBackplane | StreamBackplane") -> None:
        self.backplane = backplane
        self.heard: Position | None = None
        self.complete_after: Position | None = None
        self.gaps = {True: 0, False: 0}
        self._hub = hub
        self._task: asyncio.Task | None = None
        self._heard_more = asyncio.Event()
        self._is_closed = False

    async def __aenter__(self) -> "Relay":
        await self.backplane.__aenter__()
        newest = self.backplane.position
        self._task = asyncio.create_task(self._run(), name=f"relay of {self.backplane.channel}")
        self._task.add_done_callback(self._on_end)
        try:
            # It takes the first of the older messages in its first turn.
            await asyncio.sleep(0)
            if newest is not None:
                if self.heard is None:
                    self.heard = self.complete_after = newest
                await self.reached(newest, _CATCH_UP_SECONDS)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        self.close()
        self._task.remove_done_callback(self._on_end)
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.backplane.__aexit__(*error)

    def close(self) -> None:
        """End every reached()."""
        self._is_closed = True
        self._heard_more.set()

    @property
    def has_ended(self) -> bool:
        """Whether no news comes here any more."""
        return self._task is None or self._task.done()

    def publish(self, room: str, text: str, is_raw: bool, publish_id: str | None) -> asyncio.Future[Position]:
        """Publish to all servers; the receipt is the backplane's."""
        return self.backplane.publish(packed(room, text, is_raw=is_raw), publish_id)

    async def reached(self, position: Position, timeout: float) -> None:
        """Wait until this server has heard what a client has heard from another; `timeout` seconds at most."""
        try:
            async with asyncio.timeout(timeout):
                while not self._is_closed and (self.heard is None or self.heard < position):
                    self._heard_more.clear()
                    await self._heard_more.wait()
        except TimeoutError:
            return

    async def _run(self) -> None:
        turn_ends_at = 0.0
        async for event in self.backplane.events():
            if isinstance(event, Message):
                self._take(event)
            else:
                self._take_gap(event)
            self._heard_more.set()
            if self._hub.loop.time() > turn_ends_at:
                # Much may come at once, and the events do not wait in between.
                await asyncio.sleep(0)
                turn_ends_at = self._hub.loop.time() + _TURN_SECONDS

    def _take(self, message: Message) -> None:
        position = message.position
        if self.heard is None:
            self.heard = position.before()
        if self.complete_after is None:
            self.complete_after = position.before()
        name, text, is_raw = unpacked(message.text)
        room = self._hub.room(name)
        frame = text_frame(text if is_raw else message_text(position, text))
        after, self.heard = self.heard, position
        self._hub.deliver(room, position, frame, after)

    def _take_gap(self, gap: Gap) -> None:
        self.gaps[gap.settled] += 1
        if gap.settled:
            for room in self._hub.rooms():
                room.log.settle(gap)
            if self.complete_after is None and gap.until == self.heard:
                self.complete_after = gap.until
            return
        frame = text_frame(gap_text(gap))
        for room in self._hub.rooms():
            room.keep_gap(gap, frame)
        # Where nobody knows how far it goes, the next message will show.
        self.complete_after = gap.until
        self.heard = gap.until or self.heard

    def _on_end(self, task: asyncio.Task) -> None:
        error = None if task.cancelled() else task.exception()
        log.error("hub: no more news comes to this server: its relay has ended", exc_info=error)
        self.close()
        self._hub.send_all_away()
