"""What the scoreboard is told from outside: environment variables, each with the name of the field in capitals."""

import os
import socket
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def _this_process() -> str:
    """Return a name that tells this process from the others: the machine's, and the process number."""
    return f"{socket.gethostname()} {os.getpid()}"


class Settings(BaseSettings):
    """The scoreboard's settings, read when it starts; a wrong one fails the start and says which, not what it held.

    redis_url: as redis-py takes it, password and all. token: what a poster has to show; without one nobody may post.
    carrier: "streams", or "pubsub", which brings nothing back. channel: servers with the same one are one scoreboard.
    history, history_bytes: what a server keeps for fans who come back; the older goes when either is full.
    publish_timeout: seconds in which Redis has to confirm what is posted.
    origins: the addresses of the pages that may open a WebSocket, with commas in between, such as
    https://scores.example; left out, any page may. server_name: which server it is, as fans and logs are told.
    """

    # An empty variable is one that is not set, and a value that does not fit may be a secret in the wrong place.
    model_config = SettingsConfigDict(env_ignore_empty=True, hide_input_in_errors=True)

    redis_url: str = Field("redis://127.0.0.1:6379/0", repr=False)
    token: SecretStr = SecretStr("")
    carrier: Literal["streams", "pubsub"] = "streams"
    channel: str = "scoreboard"
    history: int = Field(1000, ge=1, le=100_000)
    # Room for a few messages of the greatest size, at least.
    history_bytes: int = Field(8 * 1024 * 1024, ge=512 * 1024)
    publish_timeout: float = Field(5.0, gt=0, le=60)
    origins: Annotated[tuple[str, ...], NoDecode] = ()
    server_name: str = Field(default_factory=_this_process)

    @field_validator("origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        """Take "https://a.example, https://b.example" apart; browsers send an origin without a slash at the end."""
        if isinstance(value, str):
            return tuple(origin.strip().rstrip("/") for origin in value.split(",") if origin.strip())
        return value

    def allows(self, origin: str | None) -> bool:
        """Return whether a page of this origin may connect; what is no browser sends none, and could send any."""
        return not self.origins or origin is None or origin in self.origins
