"""What a server hears and what it hands on: a message with its position, and a gap where something may be missing."""

from typing import NamedTuple


class Position(NamedTuple):
    """Where a message stands in the one order. epoch: milliseconds since 1970 when this count began; seq: from 1."""

    epoch: int
    seq: int

    def __str__(self) -> str:
        return f"{self.epoch}-{self.seq}"

    @classmethod
    def read(cls, text: str) -> "Position":
        """Return the position that "epoch-seq" names, which is also how a stream's entries are named."""
        epoch, _, seq = text.partition("-")
        return cls(int(epoch), int(seq))

    def before(self) -> "Position":
        """Return the position that this one follows."""
        return Position(self.epoch, max(0, self.seq - 1))


class Message(NamedTuple):
    """A published message. position: its place in the one order. text: as it was published."""

    position: Position
    text: str


class Gap(NamedTuple):
    """A moment at which messages may be missing.

    reason: in words. after: the last message that this server has. until: the last that may be missing, None while that
    is not known. settled: whether nothing is missing after all, because the stream brings it; what is not settled has
    to be told to whoever listens.
    """

    reason: str
    after: Position | None
    until: Position | None
    settled: bool
