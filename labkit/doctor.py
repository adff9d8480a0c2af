"""`python -m labkit doctor`: is this machine ready, and if not, which command mends it?

It has to speak on a machine where nothing is installed yet, on an old Python too. So it keeps to the standard
library and to old syntax, and imports the rest of labkit inside the check that needs it.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import socket
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

READY, DIFFERS, OPTIONAL, MISSING = "ready", "differs", "optional", "missing"
SYMBOLS = {READY: "✔", DIFFERS: "–", OPTIONAL: "–", MISSING: "✘"}

OLDEST_PYTHON = (3, 11)

# A crowd of 1,000 clients opens one descriptor for each connection in the kernel's process and, with
# `in_kernel=True`, one more for each client; the rest is Jupyter's own.
NEEDED_DESCRIPTORS = 2_100

# The last one opens the browser of Windows from WSL.
BROWSERS = (
    "firefox",
    "google-chrome",
    "chromium",
    "chromium-browser",
    "microsoft-edge",
    "brave-browser",
    "wslview",
)

# How each package manager is asked for a program, and which one a Linux uses by what it calls itself.
INSTALL = {
    "conda": "conda install --yes --channel conda-forge {}",
    "brew": "brew install {}",
    "apt-get": "apt-get install --yes {}",
    "dnf": "dnf install --assumeyes {}",
    "pacman": "pacman --sync --noconfirm {}",
    "zypper": "zypper --non-interactive install {}",
    "apk": "apk add {}",
}
FAMILIES = {
    "debian": "apt-get",
    "ubuntu": "apt-get",
    "fedora": "dnf",
    "rhel": "dnf",
    "arch": "pacman",
    "suse": "zypper",
    "opensuse": "zypper",
    "alpine": "apk",
}


@dataclass(frozen=True)
class Finding:
    """What one check saw: the `name` of a thing, its `state`, what was `found`, and what to type to `mend`.

    The state is READY, DIFFERS (from the pinned version), OPTIONAL (not there, and not needed) or MISSING.
    """

    name: str
    state: str
    found: str
    mend: str = ""


def main() -> int:
    """Look at this machine, print what was found, and return 1 if something required is missing, else 0."""
    # A terminal that cannot show ✔ gets a question mark, and the word beside it still says everything.
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    findings = examine()
    print(report(findings))
    return 1 if any(finding.state == MISSING for finding in findings) else 0


def examine() -> list[Finding]:
    """Run every check and return the findings, in the order in which they are worth mending."""
    return [
        check_python(),
        *check_packages(),
        check_redis(),
        check_nginx(),
        check_descriptors(),
        check_loopback(),
        check_browser(),
    ]


def report(findings: list[Finding]) -> str:
    """Return the findings as a table, with the command below what it mends, and a verdict."""
    width = max(len(finding.name) for finding in findings)
    lines = [f"Broadcast Lab on {platform.system()} {platform.machine()}, {place()}", ""]
    for number, finding in enumerate(findings, start=1):
        lines.append(f"{SYMBOLS[finding.state]} {finding.state:<9}{finding.name:<{width}}  {finding.found}")
        # Ten packages that one command installs get that command once, below the last of them.
        repeated = number < len(findings) and findings[number].mend == finding.mend
        if finding.mend and not repeated:
            lines.append(f"{'':<{11 + width}}  to mend it: {finding.mend}")
    missing = [finding.name for finding in findings if finding.state == MISSING]
    lines += ["", f"Missing: {', '.join(missing)}." if missing else "Ready for the course."]
    return "\n".join(lines)


def check_python() -> Finding:
    """Compare this Python with the oldest one that the course runs on."""
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info >= OLDEST_PYTHON:
        return Finding("Python", READY, found)
    names = {"conda": "python=3.12", "brew": "python@3.12", "apt-get": "python3.11 python3.11-venv"}
    mend = install_command("python3", names=names)
    return Finding("Python", MISSING, f"{found}; the course needs 3.11 or newer", mend)


def check_packages() -> list[Finding]:
    """Compare each package that pyproject.toml names with its pin in constraints.txt."""
    root = repository_root()
    if root is None:
        found = "not compared: there is no pyproject.toml beside the labkit folder"
        return [Finding("packages", OPTIONAL, found)]
    if sys.version_info < OLDEST_PYTHON:
        return [Finding("packages", OPTIONAL, "not compared: this Python is too old")]
    required, extra = direct_packages(root / "pyproject.toml")
    constraints = root / "constraints.txt"
    pins = read_pins(constraints) if constraints.exists() else {}
    findings = [check_package(name, pins.get(name), if_missing=MISSING) for name in required]
    findings += [check_package(name, pins.get(name), if_missing=OPTIONAL) for name in extra]
    if not pins:
        found = "not there, or without pins: versions were not compared"
        findings.append(Finding("constraints.txt", OPTIONAL, found))
    return findings


def check_package(name: str, pin: str | None, *, if_missing: str) -> Finding:
    """Compare the installed version of a package with its `pin`; one not there is `if_missing`."""
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(name, if_missing, "not installed", packages_command())
    if pin is None:
        return Finding(name, READY, version)
    if version == pin:
        return Finding(name, READY, f"{version}, as pinned")
    return Finding(name, DIFFERS, f"{version}, where CI runs {pin}", packages_command())


def check_redis() -> Finding:
    """Find the Redis for notebook 07: the server that REDIS_URL names, else a program on this machine."""
    try:
        if os.environ.get("REDIS_URL"):
            return check_redis_url(os.environ["REDIS_URL"])
        from labkit.apparatus.redis_server import RedisNotFound, find_redis
    except ImportError as error:
        return Finding("Redis", MISSING, f"could not look: {error}", packages_command())
    try:
        binary = find_redis()
    except RedisNotFound as error:
        return Finding("Redis", MISSING, "no redis-server and no valkey-server", str(error))
    return Finding("Redis", READY, f"{binary.version}, {binary.origin} ({binary.path})")


def check_redis_url(url: str) -> Finding:
    """Ask the server that REDIS_URL names for its version; it has two seconds to answer."""
    import redis

    # The address may carry a password, which has no place in a report.
    shown = re.sub(r"//[^@/]*@", "//…@", url)
    try:
        with redis.Redis.from_url(url, socket_connect_timeout=2, socket_timeout=2) as client:
            version = client.info("server")["redis_version"]
    except (redis.RedisError, ValueError) as error:
        mend = "unset REDIS_URL  (the lab then starts a Redis of its own), or start that server"
        return Finding("Redis", MISSING, f"REDIS_URL is {shown}, and nothing answers there: {error}", mend)
    return Finding("Redis", READY, f"{version}, at REDIS_URL ({shown})")


def check_nginx() -> Finding:
    """Find the nginx that stands before several servers in notebook 07; the others do without."""
    try:
        from labkit.apparatus.parts.nginx import NginxNotFound, find_nginx, install_command
    except (ImportError, TypeError) as error:
        # A Python before 3.10 cannot read the rest of labkit.
        return Finding("nginx", OPTIONAL, f"could not look: {error}", packages_command())
    try:
        binary = find_nginx()
    except NginxNotFound:
        found = "none that runs here; only notebook 07 uses it"
        return Finding("nginx", OPTIONAL, found, install_command())
    return Finding("nginx", READY, f"{binary.version}, {binary.origin} ({binary.path})")


def check_descriptors() -> Finding:
    """Compare the number of files and sockets that a process may open with what 1,000 clients take."""
    name = "file descriptors"
    try:
        import resource
    except ImportError:
        return Finding(name, OPTIONAL, "this system does not say")
    soft, hard = (
        float("inf") if limit == resource.RLIM_INFINITY else limit
        for limit in resource.getrlimit(resource.RLIMIT_NOFILE)
    )
    found = f"{soft:,} now, {hard:,} at most".replace("inf", "no limit")
    need = f"1,000 clients need about {NEEDED_DESCRIPTORS:,}"
    if hard < NEEDED_DESCRIPTORS:
        return Finding(name, MISSING, f"{found}; {need}", descriptors_command())
    if soft < NEEDED_DESCRIPTORS:
        return Finding(name, READY, f"{found}; {need}, and the lab raises its own limit")
    return Finding(name, READY, found)


def descriptors_command() -> str:
    """Return what raises the hard limit on this system; it holds from the next login."""
    if sys.platform == "darwin":
        return "sudo launchctl limit maxfiles 8192 65536"
    line = "echo '* hard nofile 8192' >> /etc/security/limits.conf"
    command = line if is_root() else f'sudo sh -c "{line}"'
    return f"{command}  (then log in again; in a container: docker run --ulimit nofile=8192)"


def check_loopback() -> Finding:
    """Send a few bytes to a socket of our own on 127.0.0.1 and back."""
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(2)
            port = listener.getsockname()[1]
            with socket.create_connection(("127.0.0.1", port), timeout=2) as client:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(2)
                    client.sendall(b"ping")
                    connection.sendall(connection.recv(4))
                    echo = client.recv(4)
    except OSError as error:
        mend = "allow connections to 127.0.0.1 in the firewall or sandbox of this system"
        return Finding("loopback", MISSING, f"127.0.0.1 cannot be used: {error}", mend)
    if echo != b"ping":
        return Finding("loopback", MISSING, f"'ping' went to 127.0.0.1:{port}, and {echo!r} came back")
    return Finding("loopback", READY, "127.0.0.1 answers")


def check_browser() -> Finding:
    """Find a browser that JupyterLab can open; one on another machine does as well."""
    if os.environ.get("BROWSER"):
        return Finding("browser", READY, f"{os.environ['BROWSER']}, named by BROWSER")
    if sys.platform == "darwin":
        return Finding("browser", READY, "the one that macOS opens")
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path:
        return Finding("browser", READY, path)
    names = {"apt-get": "firefox" if "ubuntu" in system_names() else "firefox-esr"}
    found = 'not here; with `make lab ARGS="--no-browser"` any other can open the address'
    return Finding("browser", OPTIONAL, found, install_command("firefox", names=names))


def place() -> str:
    """Return where labkit was found."""
    root = repository_root()
    return str(root) if root else f"{Path(__file__).parent}, without its repository"


def repository_root() -> Path | None:
    """Return the folder with labkit and its pyproject.toml, or None for a labkit without its repository."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").exists() else None


def direct_packages(pyproject: Path) -> tuple[list[str], list[str]]:
    """Return the names that the project requires, and those of its extras.

    A requirement with a marker is left out: those are the wheels that carry a Redis, which has its own check.
    """
    import tomllib

    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    required = [package_name(line) for line in project["dependencies"] if ";" not in line]
    extras = [line for lines in project["optional-dependencies"].values() for line in lines]
    return required, [package_name(line) for line in extras if ";" not in line]


def package_name(requirement: str) -> str:
    """Return the package that a requirement such as "pandas>=3.0" is for, as constraints.txt spells it."""
    name = re.match(r"[\w.-]+", requirement).group()
    return re.sub(r"[-_.]+", "-", name).lower()


def read_pins(constraints: Path) -> dict[str, str]:
    """Return the version that constraints.txt fixes for each package."""
    pins = re.findall(r"^([\w.-]+)==([^\s;]+)", constraints.read_text(encoding="utf-8"), re.MULTILINE)
    return {package_name(name): version for name, version in pins}


def packages_command() -> str:
    """Return what installs the pinned packages: for this Python or, where that is the system's, in .venv."""
    root = repository_root()
    if root is None:
        return "run this again in a clone of Broadcast Lab"
    go_there = "" if Path.cwd() == root else f"cd {shlex.quote(str(root))} && "
    if sys.prefix == sys.base_prefix and not in_conda():
        return f"{go_there}make lab"
    return f'{go_there}{shlex.quote(sys.executable)} -m pip install -c constraints.txt -e ".[test,dev]"'


def install_command(name: str, *, names: dict[str, str] | None = None) -> str:
    """Return what installs a program here; `names` says which package managers do not call it `name`."""
    manager = package_manager()
    if manager is None:
        return f"install {name} with the package manager of this system"
    command = INSTALL[manager].format((names or {}).get(manager, name))
    return command if manager in ("conda", "brew") or is_root() else f"sudo {command}"


def package_manager() -> str | None:
    """Return the package manager of this system, on PATH or not; None where nothing tells."""
    if in_conda():
        return "conda"
    if sys.platform == "darwin":
        return "brew"
    by_system = [FAMILIES[name] for name in system_names() if name in FAMILIES]
    return next(iter(by_system), None) or next(filter(shutil.which, INSTALL), None)


def system_names() -> list[str]:
    """Return what this Linux calls itself, then its relatives: ["ubuntu", "debian"]; [] elsewhere."""
    try:
        text = Path("/etc/os-release").read_text(encoding="utf-8")
    except OSError:
        return []
    values = dict(re.findall(r"^(\w+)=[\"']?([^\"'\n]*)", text, re.MULTILINE))
    return f"{values.get('ID', '')} {values.get('ID_LIKE', '')}".split()


def in_conda() -> bool:
    """Whether this Python belongs to the conda environment that is active."""
    return os.environ.get("CONDA_PREFIX") == sys.prefix


def is_root() -> bool:
    """Whether commands need no sudo."""
    return hasattr(os, "geteuid") and os.geteuid() == 0
