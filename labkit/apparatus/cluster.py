"""Several real servers behind a real load balancer, and a real Redis between them; each part can be broken by hand."""

import asyncio
import secrets
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from labkit.apparatus import faults, running
from labkit.apparatus.parts.counts import ClusterFacts, ServerFacts, ask_redis, connections_at
from labkit.apparatus.parts.nginx import METHODS, Balancer
from labkit.apparatus.parts.picture import Picture, kept_up
from labkit.apparatus.parts.server_process import Recipe, ServerProcess, checked, packed
from labkit.apparatus.redis_server import RedisServer

_MOST_SERVERS = 16


class Cluster:
    """Server processes behind nginx, and Redis between them, all on loopback and all gone with this process.

    Use it as `async with Cluster() as cluster:`, or `cluster = await Cluster().start()` and later
    `await cluster.stop()`. Starting one under the name of a running one stops that one first, so a cell can run twice.
    The trap: the servers are processes of their own. What a cell sees of an app is not theirs, and what they print is
    in `cluster.servers[0].log`.
    Each process finds in its environment REDIS_URL (with Redis only), TOKEN and SERVER_NAME, "server 1" and so on.

    app: "module:attribute" of an ASGI app, in a package or in a file beside the notebook; or a function that makes and
    returns one, sent to each process with all that it uses of the notebook.
    servers: how many, 1 to 16. redis: whether there is one; REDIS_URL names another than a private one.
    balancer: how nginx chooses a server for a fan who comes: "round_robin", "least_conn", "hash" (by `?fan=` in the
    address, else by the fan's port) or "sticky" (by a cookie).
    links: whether a proxy stands between each server and Redis, for breaking that network: `cluster.servers[0].link`.
    environment: more for each process to find there. persistent: whether Redis keeps an append-only file.
    port: where nginx listens, 0 for any free one.
    protocol: the class that speaks WebSocket for uvicorn, as "module:attribute". ping_interval, ping_timeout: of the
    servers, in seconds. read_timeout: seconds after which nginx cuts a connection on which the server is silent.
    .servers a list, from index 0; .balancer; .redis, None without; .token; .name.
    Raises TypeError or ValueError for an app that is none, or numbers that make no sense.
    source: notebook 07, "Real processes behind nginx"
    """

    kind = "server"
    # Its processes and links stand in the account themselves.
    size = 0

    def __init__(
        self,
        app: str | Callable[[], object] = "labkit.broadcast.app:app",
        servers: int = 3,
        redis: bool = True,
        balancer: str = "least_conn",
        *,
        links: bool = False,
        environment: dict[str, str] | None = None,
        persistent: bool = False,
        name: str = "cluster",
        port: int = 0,
        protocol: str = "labkit.broadcast.protocol:HubProtocol",
        ping_interval: float = 20.0,
        ping_timeout: float = 20.0,
        read_timeout: float = 3600.0,
    ) -> None:
        _check_numbers(servers, balancer, links and not redis)
        self.app = checked(app)
        self.name = name
        self.token = secrets.token_urlsafe(16)
        self.redis = RedisServer(persistent=persistent, name=f"{name}: redis") if redis else None
        self.balancer = Balancer(balancer, port=port, read_timeout=read_timeout, account_name=f"{name}: nginx")
        self.servers: list[ServerProcess] = []
        self._amount = servers
        self._links = links
        self._environment = {name: str(value) for name, value in (environment or {}).items()}
        self._settings = {"protocol": protocol, "ping_interval": ping_interval, "ping_timeout": ping_timeout}
        self._stop_task: asyncio.Task | None = None

    def __repr__(self) -> str:
        if not self.is_open:
            return f"<cluster {self.name!r}, stopped>"
        states = ", ".join(f"{server.name} {server.state}" for server in self.servers)
        return f"<cluster {self.name!r} at {self.url}: {states}>"

    @property
    def url(self) -> str:
        """The address of the balancer, without a slash at the end; raises RuntimeError before start()."""
        if not self.is_open or not self.balancer.port:
            raise RuntimeError(f"Cluster {self.name!r} is not running. Is `await cluster.start()` missing?")
        return self.balancer.url

    def ws_url(self, path: str = "/ws") -> str:
        """Return the WebSocket address, at the balancer, of a path that begins with a slash."""
        return self.url.replace("http", "ws", 1) + path

    @property
    def is_open(self) -> bool:
        """Whether it has been started and not stopped since."""
        return running.find(self.kind, self.name) is self

    async def start(self) -> "Cluster":
        """Start everything, and return this object when nginx takes fans and every server answers.

        Raises RedisNotFound or NginxNotFound where there is no program to start, RedisFailed, ServerFailed or
        BalancerFailed, with the end of its log, for a part that does not start; then nothing of it stays.
        """
        previous = running.find(self.kind, self.name)
        if previous is not None:
            await previous.close()
        running.register(self)
        try:
            recipe = self._recipe()
            if self.redis is not None:
                await self.redis.start()
            await self._start_servers(recipe)
            await self.balancer.start(self.servers)
        except BaseException:
            await asyncio.shield(self.stop())
            raise
        return self

    def _recipe(self) -> Recipe:
        """Return what the server processes have in common, the function that makes the app already packed."""
        environment = {"REDIS_URL": None, "TOKEN": self.token} | self._environment
        if isinstance(self.app, str):
            return Recipe(self.app, environment=environment, **self._settings)
        return Recipe(self.app.__name__, packed(self.app), environment, **self._settings)

    async def _start_servers(self, recipe: Recipe) -> None:
        """Start all servers at the same time: most of a start is importing, and there is more than one core."""
        names = [f"server {number}" for number in range(1, self._amount + 1)]
        self.servers = [
            ServerProcess(name, recipe, self.balancer, account_name=f"{self.name}: {name}") for name in names
        ]
        for server in self.servers:
            server.environment = {"SERVER_NAME": server.name} | await self._redis_for(server)
        outcomes = await asyncio.gather(*(server.start() for server in self.servers), return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, BaseException):
                raise outcome

    async def _redis_for(self, server: ServerProcess) -> dict[str, str]:
        """Return what leads a server to Redis: straight, or through a link of its own."""
        if self.redis is None or "REDIS_URL" in self._environment:
            return {}
        if self._links:
            server.link = await faults.start_proxy(self.redis.url, f"{self.name}: link of {server.name}")
        return {"REDIS_URL": server.link.url if server.link else self.redis.url}

    def draw(self) -> Picture:
        """Return the cluster at this moment as a picture: servers, fans, Redis and messages, with counts and states.

        The counts come from the operating system and from Redis, so they hold for any app: a connection counts, whoever
        opened it. Raises RuntimeError before start().
        """
        ports = {self.balancer.port: self.balancer.pid if self.balancer.is_running else None}
        ports |= {server.port: server.pid if server.is_running else None for server in self.servers}
        counts = connections_at(ports)
        in_service = self.balancer.in_service
        servers = [
            ServerFacts(
                server.name, server.state, counts[server.port], server.name in in_service, _state_of(server.link)
            )
            for server in self.servers
        ]
        redis = None
        if self.redis is not None:
            redis = ask_redis(self.redis.url, self.redis.state, look_for_streams=self.redis.child is not None)
        fans = counts[self.balancer.port]
        return Picture(
            ClusterFacts(self.name, self.url, self.balancer.state, self.balancer.method, fans, tuple(servers), redis)
        )

    def drawn(self) -> AbstractAsyncContextManager[None]:
        """Show the picture in the cell's output while an `async with` block runs, four times a second; the last stays.

        Only where somebody watches: in a test or an export the last picture is all there is, in a script nothing.
        The trap: to count takes this process a few milliseconds each time, and of 5,000 fans a fifth of a second, in
        which less is left for what is measured.
        """
        return kept_up(self.draw)

    async def stop(self) -> None:
        """Stop nginx, then the servers, their links, and Redis; a second call does nothing."""
        if self._stop_task is None:
            # A task of its own, so that Stop in the cell that stops the cluster does not leave it half stopped.
            self._stop_task = asyncio.get_running_loop().create_task(self._stop())
        try:
            await asyncio.shield(self._stop_task)
        finally:
            if self._stop_task.done():
                self._stop_task = None

    close = stop

    async def _stop(self) -> None:
        await self.balancer.close()
        await asyncio.gather(*(server.close() for server in self.servers))
        for server in self.servers:
            if server.link is not None:
                await server.link.close()
        if self.redis is not None:
            await self.redis.stop()
        running.forget(self)

    async def __aenter__(self) -> "Cluster":
        return await self.start()

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


def _state_of(link: faults.Proxy | None) -> str:
    """Return in a word what a link does; empty for none."""
    if link is None:
        return ""
    if any(each.is_frozen for each in link.links if each.is_open):
        return "frozen"
    return "open" if link.connections else "not connected"


def _check_numbers(servers: int, balancer: str, links_to_nothing: bool) -> None:
    """Raise ValueError for a cluster that cannot be."""
    if not 1 <= servers <= _MOST_SERVERS:
        raise ValueError(f"servers={servers}: a cluster has 1 to {_MOST_SERVERS} servers.")
    if balancer not in METHODS:
        raise ValueError(f"balancer={balancer!r}: there is {', '.join(map(repr, METHODS))}.")
    if links_to_nothing:
        raise ValueError("links=True without Redis: a link stands between a server and Redis. Is `redis=True` missing?")
