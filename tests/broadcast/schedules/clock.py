"""A loop on which time passes only when nothing else is left to do: real sockets, and no waiting."""

import asyncio
import selectors
import time

# Guards against hanging: so long in a row something may be on its way, in seconds as the system counts them.
_PATIENCE = 20
_LOOK_SECONDS = 0.001


class JumpingLoop(asyncio.SelectorEventLoop):
    """Its clock stands still while there is work, and jumps to the next timer when there is none.

    .is_anything_on_its_way() is asked before each jump: what the system still carries cannot be seen on any socket.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.is_anything_on_its_way = bool
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        """Return the seconds that have passed on this loop."""
        return self.now


class _JumpingSelector(selectors.DefaultSelector):
    def __init__(self, loop: JumpingLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout=None):
        """Return the sockets that are ready; where none is, let the whole timeout pass at once."""
        events = super().select(0)
        if events or timeout == 0:
            return events
        until = time.monotonic() + _PATIENCE
        while timeout is None or self._loop.is_anything_on_its_way():
            if events := super().select(_LOOK_SECONDS):
                return events
            if time.monotonic() > until:
                raise AssertionError(f"Nothing has happened for {_PATIENCE} s, and something should.")
        self._loop.now += timeout
        return []
