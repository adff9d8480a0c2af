"""The scoreboard's settings: read from the environment, and silent about secrets."""

import pytest
from pydantic import ValidationError

from labkit.broadcast.parts.scoreboard.settings import Settings


def test_settings_come_from_the_environment(monkeypatch):
    """By their names in capitals; an empty one is one that is not set."""
    values = {
        "REDIS_URL": "redis://x/1",
        "TOKEN": "t",
        "CARRIER": "pubsub",
        "CHANNEL": "",
        "ORIGINS": "http://a, http://b/",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert (settings.redis_url, settings.carrier, settings.channel) == ("redis://x/1", "pubsub", "scoreboard")
    assert settings.origins == ("http://a", "http://b")
    assert settings.token.get_secret_value() == "t"


def test_settings_do_not_show_secrets(monkeypatch):
    """Neither when they are printed nor when one does not fit."""
    monkeypatch.setenv("REDIS_URL", "redis://:secret@x/0")
    monkeypatch.setenv("TOKEN", "secret")
    assert "secret" not in repr(Settings())
    monkeypatch.setenv("CARRIER", "secret")
    with pytest.raises(ValidationError, match="'streams' or 'pubsub'") as error:
        Settings()
    assert "secret" not in str(error.value)
