"""The commands that labkit has: `python -m labkit doctor` and `python -m labkit proxy`."""

import argparse
import asyncio
import signal
import sys

from labkit import doctor

USAGE = """usage: python -m labkit doctor
       python -m labkit proxy TARGET_HOST:PORT [--port N] [--idle-timeout S] [--delay S]

doctor   say whether this machine is ready for the course, and which command mends what is missing
proxy    pass TCP connections on to a server, and count, delay or cut them"""


def main(arguments: list) -> int:
    """Run the command that `arguments` name and return its exit code; 2, with the usage, for any other."""
    if arguments == ["doctor"]:
        return doctor.main()
    if arguments[:1] == ["proxy"]:
        return proxy(arguments[1:])
    asked_for_help = arguments in (["-h"], ["--help"], ["help"])
    print(USAGE, file=sys.stdout if asked_for_help else sys.stderr)
    return 0 if asked_for_help else 2


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
