"""Every rung of the ladder against every property, the failures that must be included."""

import asyncio
from functools import partial

import pytest

from labkit.apparatus import running
from labkit.broadcast import managers
from labkit.broadcast.hub import Hub
from labkit.broadcast.protocol import HubProtocol
from labkit.evidence.contract import PROPERTIES, Outcome, contract_table, has_come_true, naming, run_contract

pytestmark = pytest.mark.anyio
in_lab = pytest.mark.usefixtures("lab")

# What each rung must keep, and what it must break: a rung that breaks nothing any more has no place on the ladder.
KEPT = {
    "NaiveManager": {"reaches all"},
    "SetManager": {"reaches all"},
    "TolerantManager": {"reaches all", "survives a leaver"},
    "GatherManager": {"reaches all", "survives a leaver"},
    "TimeoutManager": set(PROPERTIES) - {"keeps order"},
    "QueueManager": set(PROPERTIES) - {"frees the socket"},
    "Hub": set(PROPERTIES),
}
# The property leaves three times 0.6 s; the hub would wait for five before it takes a sleeper for lost.
MAKE = {"Hub": partial(Hub, stalled_after=0.5)}


class SilentManager(managers.SetManager):
    """Sends nothing to anybody."""

    async def broadcast(self, text):
        pass


@in_lab
@pytest.mark.slow
@pytest.mark.parametrize("rung", KEPT)
async def test_rung_keeps_and_breaks_what_it_should(rung):
    """Each rung keeps exactly the properties that the table says."""
    outcomes = await run_contract(MAKE.get(rung) or getattr(managers, rung), protocol=HubProtocol)
    print(rung, *outcomes, sep="\n")
    assert {each.property for each in outcomes if each.kept} == KEPT[rung], outcomes
    assert [each.property for each in outcomes] == list(PROPERTIES)
    assert all(each.seen and "\n" not in each.seen for each in outcomes)


@in_lab
@pytest.mark.slow
async def test_manager_that_never_sends_keeps_no_property_that_needs_a_message():
    """A manager that does nothing gets a ✘ and a sentence, not an exception."""
    outcomes = await run_contract(SilentManager, ["reaches all", "keeps order"])
    assert [each.kept for each in outcomes] == [False, False]
    assert outcomes[0].seen == "clients 1, 2, 3, 4 and 5 never got message 1"


@in_lab
async def test_contract_that_is_stopped_leaves_nothing_open():
    """Stop in the middle of it closes servers, fleets and tasks."""
    contract = asyncio.create_task(run_contract(managers.SetManager))
    assert await has_come_true(lambda: any(each.kind == "client" for each in running.everything()), within=5)
    contract.cancel()
    with pytest.raises(asyncio.CancelledError):
        await contract
    assert running.everything() == []
    assert running.stray_tasks() == []


async def test_unknown_property_is_named_with_those_that_exist():
    """A misspelt property is an error that lists the right ones."""
    with pytest.raises(ValueError, match="no property is called 'keeps odour'; there are: reaches all, "):
        await run_contract(managers.SetManager, ["keeps odour"])


def test_table_has_a_row_for_each_rung_and_a_column_for_each_property():
    """The table is what charts.matrix draws; what was not tried stays empty."""
    outcomes = {
        "SetManager": [Outcome("reaches all", True, "seen"), Outcome("keeps order", False, "seen")],
        "QueueManager": [Outcome("reaches all", True, "seen")],
    }
    table = contract_table(outcomes)
    assert list(table) == ["reaches all", "keeps order"]
    assert list(table.index) == ["SetManager", "QueueManager"]
    assert table.values.tolist() == [[True, False], [True, None]]


def test_clients_are_named_in_words():
    """One client and several read as in a sentence."""
    assert [naming([4]), naming([4, 6]), naming([4, 6, 7])] == ["client 4", "clients 4 and 6", "clients 4, 6 and 7"]
