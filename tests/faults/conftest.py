"""The faults share a cluster: one loop and one laboratory for each module; at the end, what each fault has cost."""

import pytest

from labkit.apparatus import guard
from labkit.apparatus.running import close_lab


@pytest.fixture(scope="module")
def anyio_backend():
    """Keep one loop for all tests of a module, on which the cluster's parts live."""
    return "asyncio"


@pytest.fixture(scope="module")
async def lab(anyio_backend):
    """Close the lab after the last test of the module."""
    yield
    closed = await close_lab()
    guard.check()
    assert closed.nothing_left, closed


@pytest.fixture(scope="session")
def accounts(request):
    """Give the place where the account of each match is kept for the summary: (carrier, fault) -> accounts."""
    return request.config.stash.setdefault("accounts", {})


def pytest_terminal_summary(terminalreporter, config):
    """Print what each fault cost, summed up over its repetitions."""
    accounts = config.stash.get("accounts", {})
    if not accounts:
        return
    terminalreporter.section("faults: what was lost, and who was told")
    for (carrier, fault), each in accounts.items():
        terminalreporter.write_line(f"{carrier:8}{fault:24}{len(each):3} × {sum(each[1:], start=each[0])}")
