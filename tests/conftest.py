"""What every test gets: asyncio as the loop, and an empty, quiet laboratory after it."""

import inspect

import pytest

from labkit.apparatus import guard
from labkit.apparatus.running import close_lab


@pytest.fixture
def anyio_backend():
    """Run asynchronous tests on asyncio, which is what notebooks and uvicorn run on."""
    return "asyncio"


@pytest.fixture
async def lab():
    """Close the lab after the test, and fail the test for what was left or had failed unseen in the background."""
    yield
    closed = await close_lab()
    guard.check()
    assert closed.nothing_left, closed


def pytest_collection_modifyitems(items):
    """Give every asynchronous test the lab; as an autouse fixture it would be set up for the others too, and cannot."""
    for item in items:
        if inspect.iscoroutinefunction(getattr(item, "obj", None)) and "lab" not in item.fixturenames:
            item.fixturenames.insert(0, "lab")
