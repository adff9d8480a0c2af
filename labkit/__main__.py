"""The commands that labkit has: `python -m labkit doctor`, `python -m labkit up` and `python -m labkit proxy`."""

import argparse
import asyncio
import signal
import sys

from labkit import doctor

USAGE = """usage: python -m labkit doctor
       python -m labkit up [--servers N] [--port N] [--persistent]
       python -m labkit proxy TARGET_HOST:PORT [--port N] [--idle-timeout S] [--delay S]

doctor   say whether this machine is ready for the course, and which command mends what is missing
up       run the scoreboard: several servers, with nginx before them and Redis between them, until Ctrl+C
proxy    pass TCP connections on to a server, and count, delay or cut them"""


def main(arguments: list) -> int:
    """Run the command that `arguments` name and return its exit code; 2, with the usage, for any other."""
    if arguments == ["doctor"]:
        return doctor.main()
    if arguments[:1] == ["up"]:
        return up(arguments[1:])
    if arguments[:1] == ["proxy"]:
        return proxy(arguments[1:])
    asked_for_help = arguments in (["-h"], ["--help"], ["help"])
    print(USAGE, file=sys.stdout if asked_for_help else sys.stderr)
    return 0 if asked_for_help else 2


def up(arguments: list) -> int:
    """Run the scoreboard until Ctrl+C and return the exit code: 1, after one message, where it could not start."""
    parser = argparse.ArgumentParser("python -m labkit up", description="Run the scoreboard until Ctrl+C.")
    parser.add_argument("--servers", type=int, default=3, metavar="N", help="how many servers; by default 3")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="nginx's port; by default any free one")
    parser.add_argument(
        "--persistent", action="store_true", help="let Redis keep a file, and its data when it restarts"
    )
    options = parser.parse_args(arguments)
    try:
        return asyncio.run(_keep_up(options))
    except ValueError as error:
        parser.error(str(error))
    except (RuntimeError, OSError) as error:
        # What a part of the laboratory raises that does not start: its message names the part and the cause.
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1


async def _keep_up(options: argparse.Namespace) -> int:
    """Start everything, say where it is, wait for Ctrl+C, and stop everything."""
    # The doctor has to run where nothing is installed yet.
    from labkit.apparatus.cluster import Cluster

    # A start that is still going on is given up as well.
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, asyncio.current_task().cancel)
    chosen = {"servers": options.servers, "port": options.port, "persistent": options.persistent}
    try:
        async with Cluster(name="scoreboard", **chosen) as cluster:
            print(_addresses(cluster, options.persistent), flush=True)
            await _tell_who_ends(cluster)
    except asyncio.CancelledError:
        print("\nAll stopped.", flush=True)
    return 0


def _addresses(cluster, persistent: bool) -> str:
    """Return where everything is, and what can be tried, with commands to copy."""
    servers = "\n".join(
        f"  {server.name}   {server.url}/metrics   {server.url}/ready   process {server.pid}"
        for server in cluster.servers
    )
    goal = '{"home": 1, "away": 0, "scorer": "Ada", "minute": 12}'
    memory = "a file" if persistent else "memory only"
    return f"""The scoreboard runs: {len(cluster.servers)} servers behind nginx, and Redis, with {memory}, between them.

  board      {cluster.url}/
  token      {cluster.token}

Post a goal:
  curl {cluster.url}/goal -H "Authorization: Bearer {cluster.token}" -d '{goal}'

The servers themselves:
{servers}

Kill one, and the board carries on:
  kill -9 {cluster.servers[0].pid}

Ctrl+C stops everything.
"""


async def _tell_who_ends(cluster) -> None:
    """Say of each server that it has ended, once, for ever."""
    running = list(cluster.servers)
    while True:
        for server in [each for each in running if not each.is_running]:
            running.remove(server)
            print(f"{server.name} has ended; {len(running)} of {len(cluster.servers)} run.", flush=True)
        await asyncio.sleep(0.2)


def proxy(arguments: list) -> int:
    """Run a proxy until Ctrl+C, say what passed, and return the exit code: 1 where it could not start."""
    parser = argparse.ArgumentParser("python -m labkit proxy", description="Pass TCP connections on to a server.")
    parser.add_argument("target", metavar="TARGET_HOST:PORT", help="where the server listens")
    parser.add_argument("--port", type=int, default=0, metavar="N", help="where to listen; by default any free port")
    parser.add_argument("--idle-timeout", type=float, metavar="S", help="cut what is quiet for this many seconds")
    parser.add_argument("--delay", type=float, default=0.0, metavar="S", help="seconds that every piece is late")
    try:
        return asyncio.run(_pass_on(parser.parse_args(arguments)))
    except ValueError as error:
        parser.error(str(error))
    except OSError as error:
        # A host that no name server knows.
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1


async def _pass_on(options: argparse.Namespace) -> int:
    """Open the proxy, wait for Ctrl+C, and tell the counts."""
    # The doctor has to run where nothing is installed yet.
    from labkit.apparatus.faults import start_proxy
    from labkit.apparatus.server import ServerFailed

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    try:
        opened = await start_proxy(
            options.target, port=options.port, idle_timeout=options.idle_timeout, delay=options.delay
        )
    except ServerFailed as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{opened.host}:{opened.port} passes on to {options.target}; Ctrl+C ends it", flush=True)
    await stopped.wait()
    print(f"links: {len(opened.links)}, bytes up: {opened.bytes_up}, bytes down: {opened.bytes_down}", flush=True)
    await opened.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
