"""What runs inside a server process: it finds the app that a cell has sent, and keeps the log short.

Started as `python -m uvicorn --factory labkit.apparatus.parts.inside:carried_app`. It loads nothing but cloudpickle.
"""

import logging
from pathlib import Path

# The function's file, in the folder in which the process runs.
CARRIED_FILE = "app.pickle"


def carried_app() -> object:
    """Return the app that the notebook's function makes; it is made here, once in each process."""
    import cloudpickle

    make_app = cloudpickle.loads(Path(CARRIED_FILE).read_bytes())
    app = make_app()
    if not callable(app):
        raise TypeError(
            f"{make_app.__name__}() returned {type(app).__name__}, no ASGI app. Is `return app` missing at its end?"
        )
    return app


class NoConnections(logging.Filter):
    """Drops the three lines that uvicorn writes for each WebSocket: of 1,000 fans nothing else would be seen."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is kept."""
        return record.levelno > logging.INFO or not record.module.startswith("websockets")


def log_settings() -> dict:
    """Return what uvicorn's --log-config takes: time, level and text in a line, on standard output."""
    quiet = {"level": "INFO", "handlers": ["output"], "propagate": False}
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"no connections": {"()": f"{__name__}.{NoConnections.__name__}"}},
        "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(message)s"}},
        "handlers": {
            "output": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stdout",
                "formatter": "line",
                "filters": ["no connections"],
            }
        },
        "root": {"level": "INFO", "handlers": ["output"]},
        "loggers": {"uvicorn": quiet},
    }
