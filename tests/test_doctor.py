"""The doctor, run for real: on this machine, and on this machine with something taken away."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def doctor(*, folder: Path = ROOT, options: tuple = (), arguments: tuple = ("doctor",), **environment: str):
    """Run `python -m labkit` in a process of its own and return how it ended, and what it printed."""
    command = [sys.executable, *options, "-m", "labkit", *arguments]
    variables = {**os.environ, "PYTHONPATH": "", "PYTHONIOENCODING": "utf-8", "REDIS_URL": "", **environment}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, encoding="utf-8", timeout=60)


def row(run: subprocess.CompletedProcess, name: str) -> str:
    """Return the line about `name`."""
    rows = [line for line in run.stdout.splitlines() if re.match(rf"[✔✘–] \w+ +{re.escape(name)} ", line)]
    assert len(rows) == 1, f"{len(rows)} lines about {name} in:\n{run.stdout}{run.stderr}"
    return rows[0]


def remedy(run: subprocess.CompletedProcess, name: str) -> str:
    """Return the command that stands below the line about `name`."""
    lines = run.stdout.splitlines()
    return lines[lines.index(row(run, name)) + 1].partition("to mend it: ")[2]


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """Return a folder with a labkit of its own, and without the rest of the repository."""
    shutil.copytree(ROOT / "labkit", tmp_path / "labkit", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


@pytest.mark.parametrize(
    "name",
    ["Python", "fastapi", "httpx2", "nbval", "Redis", "nginx", "file descriptors", "loopback", "browser"],
)
def test_each_thing_has_one_line_with_a_symbol_and_a_word(name, whole_run):
    """A reader who sees no colours and no symbols still learns how each thing stands."""
    assert re.match(r"✔ ready |– differs |– optional |✘ missing ", row(whole_run, name))


@pytest.fixture(scope="module")
def whole_run():
    """Return one run on this machine as it is."""
    return doctor()


def test_exit_code_tells_whether_something_required_is_missing(whole_run):
    """0 goes with "Ready for the course.", 1 with a list of what is missing."""
    missing = "✘ missing" in whole_run.stdout
    assert whole_run.returncode == (1 if missing else 0), whole_run.stdout + whole_run.stderr
    assert ("Missing: " if missing else "Ready for the course.") in whole_run.stdout.splitlines()[-1]
    assert whole_run.stderr == ""


def test_this_python_and_the_loopback_are_ready(whole_run):
    """What these tests themselves stand on is found."""
    assert row(whole_run, "Python").startswith("✔ ready")
    assert row(whole_run, "loopback").startswith("✔ ready")


def test_nothing_on_path_leaves_optional_things_with_the_command_of_this_system(tmp_path):
    """Without any program on PATH, the browser is not found, and the package manager is named all the same."""
    run = doctor(PATH=str(tmp_path), BROWSER="")
    if sys.platform != "darwin":
        assert row(run, "browser").startswith("– optional")
        assert "firefox" in remedy(run, "browser").lower()
    assert row(run, "nginx").startswith(("– optional", "✔ ready"))
    if "optional" in row(run, "nginx"):
        assert "nginx" in remedy(run, "nginx")


def test_programs_are_found_where_path_says(tmp_path):
    """A program that appears on PATH appears in the report."""
    for name, code in {"nginx": "echo nginx version: nginx/1.18.0 >&2", "firefox": ""}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{code}\n", encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    run = doctor(PATH=str(tmp_path), BROWSER="")
    assert row(run, "nginx").endswith(f"1.18.0, PATH ({tmp_path / 'nginx'})")
    if sys.platform != "darwin":
        assert row(run, "browser").endswith(str(tmp_path / "firefox"))


def test_a_python_without_packages_is_told_one_command_for_all_of_them():
    """-S hides what is installed: each package has its line, and the command stands once, below the last."""
    run = doctor(options=("-S",))
    assert run.returncode == 1
    assert row(run, "fastapi").startswith("✘ missing")
    assert row(run, "ruff").startswith("– optional")
    assert "fastapi" in run.stdout.splitlines()[-1]
    commands = [line for line in run.stdout.splitlines() if "make lab" in line or "pip install" in line]
    assert 1 <= len([line for line in commands if "to mend it" in line]) <= 2


def test_a_low_limit_of_descriptors_is_missing_and_comes_with_the_number():
    """A hard limit of 1,000 is too low for a crowd of 1,000."""
    command = ["sh", "-c", 'ulimit -n 1000 && exec "$0" -m labkit doctor', sys.executable]
    variables = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    run = subprocess.run(command, cwd=ROOT, env=variables, capture_output=True, encoding="utf-8", timeout=60)
    assert run.returncode == 1
    line = row(run, "file descriptors")
    assert line.startswith("✘ missing")
    assert "1,000 at most; 1,000 clients need about 2,100" in line
    assert remedy(run, "file descriptors")


def test_a_redis_url_that_does_not_answer_is_missing_and_its_password_stays_unsaid():
    """The report names the address, the cause and the way out, and never the secret."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    run = doctor(REDIS_URL=f"redis://learner:s3cret@127.0.0.1:{port}/0")
    assert run.returncode == 1
    assert row(run, "Redis").startswith("✘ missing")
    assert f"redis://…@127.0.0.1:{port}/0" in row(run, "Redis")
    assert "unset REDIS_URL" in remedy(run, "Redis")
    assert "s3cret" not in run.stdout + run.stderr


def test_a_redis_url_that_is_none_is_missing_too():
    """Nonsense in REDIS_URL is reported like a server that does not answer, not with a traceback."""
    run = doctor(REDIS_URL="localhost:6379")
    assert run.returncode == 1
    assert row(run, "Redis").startswith("✘ missing")
    assert run.stderr == ""


def test_another_version_than_the_pinned_one_differs_but_does_not_fail(house):
    """The line shows both versions, and the exit code stays what the rest makes it."""
    shutil.copy(ROOT / "pyproject.toml", house)
    (house / "constraints.txt").write_text("fastapi==0.0.1\n", encoding="utf-8")
    run = doctor(folder=house)
    assert re.match(r"– differs +fastapi +\d+\.\d+.*, where CI runs 0\.0\.1", row(run, "fastapi"))
    assert "fastapi" not in run.stdout.splitlines()[-1]
    assert "-c constraints.txt" in run.stdout or "make lab" in run.stdout


def test_without_constraints_it_says_so(house):
    """A repository without its pins still gets its packages listed."""
    shutil.copy(ROOT / "pyproject.toml", house)
    run = doctor(folder=house)
    assert row(run, "constraints.txt").startswith("– optional")
    assert "fastapi" in run.stdout


def test_a_labkit_without_its_repository_says_so(house):
    """Nothing is compared where there is nothing to compare with, and the other checks go on."""
    run = doctor(folder=house)
    assert "no pyproject.toml" in row(run, "packages")
    assert row(run, "loopback").startswith("✔ ready")


def test_a_terminal_without_symbols_gets_the_words():
    """Where ✔ cannot be printed, the report comes out all the same."""
    run = doctor(PYTHONIOENCODING="ascii")
    assert run.returncode in (0, 1)
    assert "? ready" in run.stdout
    assert run.stderr == ""


@pytest.mark.parametrize("arguments", [(), ("nurse",), ("doctor", "please")])
def test_any_other_command_prints_the_usage_and_ends_with_2(arguments):
    """The usage goes to the error stream, where mistakes belong."""
    run = doctor(arguments=arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert "python -m labkit doctor" in run.stderr


def test_help_is_no_mistake():
    """Who asks gets the usage on the ordinary stream, and 0."""
    run = doctor(arguments=("--help",))
    assert run.returncode == 0
    assert "python -m labkit doctor" in run.stdout
