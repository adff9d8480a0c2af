"""The house as data: who may import whom, what the front door shows, and what importing costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import labkit

ROOT = Path(labkit.__file__).parent

# Each wing, and the wings of labkit that it may import. Everything else is a wall.
MAY_IMPORT = {
    "broadcast": {"broadcast"},
    "apparatus": {"apparatus"},
    "evidence": {"evidence", "apparatus"},
    "tutor": {"tutor", "evidence", "apparatus", "broadcast"},
    "web": {"web", "broadcast"},
    "doctor": {"doctor", "apparatus"},
    "__main__": {"doctor", "apparatus"},
    "__init__": set(),
}
# The libraries that the shippable wing may use, beside the standard library.
BROADCAST_MAY_USE = {
    "fastapi", "starlette", "uvicorn", "websockets", "redis", "pydantic", "pydantic_settings", "prometheus_client",
    "labkit",
}  # fmt: skip
# What a server or a fleet process must not pay for.
HEAVY = ("pandas", "matplotlib", "ipywidgets", "IPython", "numpy")


def imported_by(path: Path) -> set[str]:
    """Return the full names of all modules that a file imports, also inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            # `from labkit.apparatus import running` imports a room, `from labkit import serve` a name.
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return names


def wing_of(name: str) -> str:
    """Return the wing, or the single file at the top, that a dotted name inside labkit belongs to."""
    return name.split(".")[1]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_one_way(path):
    """A file imports only what the picture in the design allows its wing."""
    wing = path.relative_to(ROOT).parts[0].removesuffix(".py")
    wings = {wing_of(name) for name in imported_by(path) if name.startswith("labkit.")}
    assert wings <= MAY_IMPORT[wing]


def test_every_wing_is_on_the_picture():
    """A new folder is a decision, and is written down here first."""
    wings = {path.name.removesuffix(".py") for path in ROOT.iterdir() if path.suffix in ("", ".py")} - {"__pycache__"}
    assert wings <= set(MAY_IMPORT)


@pytest.mark.parametrize("path", sorted((ROOT / "broadcast").rglob("*.py")), ids=lambda path: path.name)
def test_what_one_could_ship_knows_nothing_of_the_laboratory(path):
    """Only the standard library and the libraries that are taught."""
    tops = {name.split(".")[0] for name in imported_by(path)}
    assert tops - set(sys.stdlib_module_names) <= BROADCAST_MAY_USE


def test_wings_are_small():
    """About eight rooms a wing; where one outgrows that, the plan is redrawn."""
    rooms = {wing.name: len(list(wing.glob("[!_]*.py"))) for wing in ROOT.iterdir() if wing.is_dir()}
    assert all(count <= 10 for count in rooms.values()), rooms


def test_front_door_is_sorted_and_every_name_is_there():
    """The names that the notebooks use."""
    assert labkit.__all__ == sorted(labkit.__all__)
    assert dir(labkit) == labkit.__all__
    for name in labkit.__all__:
        assert getattr(labkit, name).__name__ == name


def test_unknown_name_is_an_attribute_error_that_lists_the_others():
    """A slip in a notebook's import says what there is."""
    with pytest.raises(AttributeError, match=r"labkit has no 'server'\. It has: .*serve"):
        _ = labkit.server


def run(code: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    "module",
    [
        "labkit",
        "labkit.apparatus.cluster",
        "labkit.apparatus.crowd.swarm",
        "labkit.apparatus.server",
        "labkit.broadcast.app",
        "labkit.broadcast.guard",
        "labkit.broadcast.hub",
        "labkit.broadcast.managers",
        "labkit.broadcast.backplane",
        "labkit.broadcast.protocol",
        "labkit.doctor",
        "labkit.evidence.live",
        "labkit.tutor.judge",
        "labkit.tutor.predict",
    ],
)
def test_no_pandas_where_only_messages_are_moved(module):
    """A fleet or a server process pays for nothing that it does not use."""
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    assert run(code) == "[]"


def test_importing_changes_nothing_in_the_process():
    """No signal handler, no hook, no log handler, no limit, no thread, no environment variable."""
    code = """
import logging, os, resource, signal, sys, threading
def state():
    return {
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "hooks": (sys.excepthook, threading.excepthook, sys.unraisablehook),
        "handlers": {name: list(logger.handlers) for name, logger in logging.root.manager.loggerDict.items()
                     if getattr(logger, "handlers", [])},
        "root": list(logging.root.handlers),
        "limits": resource.getrlimit(resource.RLIMIT_NOFILE),
        "threads": threading.active_count(),
        "environment": dict(os.environ),
        "folder": os.getcwd(),
    }
before = state()
import labkit
for name in labkit.__all__:
    getattr(labkit, name)
after = state()
# Matplotlib and asyncio put a NullHandler on their own loggers, which hears nothing.
after["handlers"] = {name: handlers for name, handlers in after["handlers"].items()
                     if any(type(handler).__name__ not in ("NullHandler", "StreamHandler") for handler in handlers)}
print([key for key in before if before[key] != after[key]])
"""
    assert run(code) == "[]"


def test_no_path_of_a_machine_and_no_registry_in_the_tree():
    """What is committed works anywhere."""
    top = ROOT.parent
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=top, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    forbidden = ("/" + "root/", "/" + "home/", "/" + "Users/", "files.python" + "hosted", "pypi." + "org/simple")
    for name in filter(None, listed.stdout.split("\0")):
        path = top / name
        if path.suffix in (".png", ".ico") or not path.is_file():
            continue
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not [each for each in forbidden if each in text], name
