"""One server of a cluster: uvicorn in a process of its own, killed, frozen, drained and started again by hand."""

import asyncio
import inspect
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cloudpickle

from labkit.apparatus import faults
from labkit.apparatus.children import Child, ChildFailed, new_folder, start_child
from labkit.apparatus.parts import inside
from labkit.apparatus.parts.nginx import Balancer
from labkit.apparatus.parts.ports import free_port
from labkit.apparatus.server import ServerFailed

try:
    import resource
except ImportError:  # Windows outside WSL has no such limit.
    resource = None

# Importing FastAPI takes about a second of a core, and several servers share the cores.
_START_SECONDS = 30.0
_ATTEMPTS = 5
# What uvicorn gives connections and handlers to end by themselves, in whole seconds as it wants them.
_GRACE_SECONDS = 1
_POLL_SECONDS = 0.01
# 5,000 fans of one server, and as much again.
_DESCRIPTORS = 10_000
_APP_FACTORY = f"{inside.__name__}:{inside.carried_app.__name__}"


@dataclass(frozen=True)
class Recipe:
    """What the server processes of a cluster have in common.

    app: "module:attribute". carried: the function that makes it instead, as bytes. environment: beside that of this
    process; None takes a name out of it. protocol: the class that speaks WebSocket, as "module:attribute".
    ping_interval, ping_timeout: seconds.
    """

    app: str
    carried: bytes | None = None
    environment: dict[str, str | None] = field(default_factory=dict)
    protocol: str = "labkit.broadcast.protocol:HubProtocol"
    ping_interval: float = 20.0
    ping_timeout: float = 20.0

    def command(self, port: int) -> list[str]:
        """Return the command line of a server on this port."""
        options = {
            "--host": "127.0.0.1",
            "--port": port,
            # Said outright: uvicorn would take uvloop where it happens to be installed. The lessons are on this one.
            "--loop": "asyncio",
            "--ws": self.protocol,
            "--ws-per-message-deflate": "false",
            "--ws-ping-interval": self.ping_interval,
            "--ws-ping-timeout": self.ping_timeout,
            "--timeout-graceful-shutdown": _GRACE_SECONDS,
            "--log-config": "log.json",
            # Where a module beside the notebook is found.
            "--app-dir": os.getcwd(),
        }
        words = [str(word) for option, value in options.items() for word in (option, value)]
        app = [self.app] if self.carried is None else [_APP_FACTORY, "--factory"]
        return [sys.executable, "-m", "uvicorn", *app, *words, "--no-access-log"]

    def write(self, folder: Path) -> None:
        """Put into a server's folder what it reads at its start."""
        (folder / "log.json").write_text(json.dumps(inside.log_settings()))
        if self.carried is not None:
            (folder / inside.CARRIED_FILE).write_bytes(self.carried)


def checked(app: object) -> str | Callable[[], object]:
    """Return the app where a server process can be given it; raise TypeError or ValueError with the likely cause."""
    if isinstance(app, str):
        if not re.fullmatch(r"[\w.]+:[\w.]+", app):
            raise ValueError(f'Cluster got app={app!r}. Name it as uvicorn does: "module:attribute".')
        return app
    if inspect.isclass(app):
        raise TypeError(f"Cluster got the class {app.__name__}. Give it a function that returns an app.")
    if inspect.isfunction(app) and not inspect.iscoroutinefunction(app):
        needed = [each.name for each in inspect.signature(app).parameters.values() if each.default is each.empty]
        if needed:
            raise TypeError(
                f"Cluster calls {app.__name__}() without arguments, and it needs {', '.join(needed)}. "
                "Give the servers their settings by `environment`, and read them from os.environ."
            )
        return app
    raise TypeError(
        f"Cluster got {type(app).__name__}: {app!r:.60}. Each server is a process of its own and makes an app of its "
        "own: put what builds the app into a function that returns it, and give Cluster the function, without "
        'parentheses. Or name an app in a file: "module:attribute".'
    )


def packed(make_app: Callable[[], object]) -> bytes:
    """Return the function as bytes, with all that it uses of the notebook; raise TypeError when that cannot travel."""
    try:
        return cloudpickle.dumps(make_app)
    except Exception as error:
        raise TypeError(
            f"{make_app.__name__}() cannot be sent to another process: {error}. It uses something of this notebook "
            "that is alive here, such as a connection, a lock or a running task. Make that inside the function."
        ) from None


class ServerProcess:
    """A server of a cluster, in a process of its own. Made by Cluster.

    .name "server 1"; .host, .port, the same after a restart; .link the proxy between it and Redis, or None.
    """

    host = "127.0.0.1"

    def __init__(self, name: str, recipe: Recipe, balancer: Balancer, *, account_name: str) -> None:
        self.name = name
        self.port = 0
        self.link: faults.Proxy | None = None
        self.environment: dict[str, str | None] = {}
        self._recipe = recipe
        self._balancer = balancer
        self._account_name = account_name
        self._child: Child | None = None
        # What was done to it, in a word; empty while nothing was.
        self._fate = ""
        self._log_begins = 0

    def __repr__(self) -> str:
        return f"<{self.name} at {self.url}, {self.state}>"

    @property
    def url(self) -> str:
        """The address of this server itself, past the balancer, without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    def ws_url(self, path: str = "/ws") -> str:
        """Return the WebSocket address of a path that begins with a slash."""
        return f"ws://{self.host}:{self.port}{path}"

    @property
    def pid(self) -> int:
        """The process number; another one after a restart."""
        return self._running_child.pid

    @property
    def log(self) -> str:
        """What the server has printed so far, restarts included; connections and requests are not in it."""
        return self._child.log if self._child else ""

    @property
    def is_running(self) -> bool:
        """Whether the process is there; a frozen one is."""
        return self._child is not None and self._child.is_running and self._fate not in ("killed", "drained")

    @property
    def state(self) -> str:
        """ "running", "frozen", "draining", "drained", "killed", "ended" by itself, or "stopped" with its cluster."""
        if self._child is None or not self._child.is_open:
            return "stopped"
        if self._fate in ("killed", "drained"):
            return self._fate
        return (self._fate or "running") if self._child.is_running else "ended"

    @property
    def _running_child(self) -> Child:
        if self._child is None:
            raise RuntimeError(f"{self.name} is not started. Is `await cluster.start()` missing?")
        return self._child

    # Faults

    def kill(self) -> None:
        """Kill the process, as the system does when memory runs out: no goodbye to anybody."""
        self._running_child.kill()
        self._fate = "killed"

    def freeze(self) -> None:
        """Stop the process where it stands: its connections stay open, new ones even come in, and nobody answers."""
        self._running_child.freeze()
        self._fate = "frozen"

    def thaw(self) -> None:
        """Let a frozen process go on."""
        self._running_child.thaw()
        self._fate = ""

    async def restart(self) -> None:
        """Start the server anew on its port, stopped first where it runs; return when it and the balancer take fans.

        Raises ServerFailed, with the end of the log, when it does not start.
        """
        child = self._running_child
        self._log_begins = len(child.log)
        self._fate = ""
        try:
            await child.restart(ready=self._is_ready, timeout=_START_SECONDS)
        except ChildFailed as error:
            raise ServerFailed(str(error)) from None
        await self._balancer.bring_back(self)

    async def drain(self) -> None:
        """Take the server out of service and return when it is gone; restart() brings it back.

        The balancer sends it nobody new; then the server ends, and its WebSocket fans get a close frame with code 1012.
        A handler that does not end within a second is cancelled, and a frozen server is killed.
        Raises RuntimeError when it does not run.
        """
        child = self._running_child
        if not self.is_running:
            raise RuntimeError(f"{self.name} is {self.state}: there is nothing to drain. restart() starts it anew.")
        self._fate = "draining"
        await self._balancer.take_out(self)
        child.send_signal(signal.SIGTERM)
        until = time.monotonic() + 2 * _GRACE_SECONDS
        while child.is_running:
            if time.monotonic() > until:
                child.kill()
                until = float("inf")
            await asyncio.sleep(_POLL_SECONDS)
        self._fate = "drained"

    # Starting and stopping; Cluster does this

    async def start(self) -> None:
        """Start the process on a free port; on another one when somebody takes it in between."""
        for attempt in range(1, _ATTEMPTS + 1):
            self.port = free_port()
            try:
                await self._start_process()
            except ChildFailed as error:
                if "address already in use" in str(error).lower() and attempt < _ATTEMPTS:
                    continue
                raise ServerFailed(str(error)) from None
            return

    async def _start_process(self) -> None:
        folder = new_folder()
        self._fate = ""
        self._log_begins = 0
        _raise_limit()
        self._recipe.write(folder)
        self._child = await start_child(
            self._recipe.command(self.port),
            name=self._account_name,
            folder=folder,
            environment=self._whole_environment(),
            ready=lambda: self._is_ready(folder),
            timeout=_START_SECONDS,
        )

    def _whole_environment(self) -> dict[str, str]:
        """Return what the process finds there: what is there for this one, and its own."""
        both = os.environ | {"PYTHONUNBUFFERED": "1"} | self._recipe.environment | self.environment
        return {name: value for name, value in both.items() if value is not None}

    async def _is_ready(self, folder: Path | None = None) -> bool:
        """Return whether uvicorn says in its log that it listens."""
        path = (folder or self._running_child.folder) / "output.log"
        said = path.read_text(errors="replace") if path.exists() else ""
        return "Uvicorn running on" in said[self._log_begins :]

    async def close(self) -> None:
        """Stop the process and remove its folder; a second call does nothing."""
        if self._child is not None:
            await self._child.close()


def _raise_limit() -> None:
    """Let this process, and so the servers that it starts, open as many sockets as the system allows, within reason."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
