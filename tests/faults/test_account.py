"""The account itself: it sees what is lost, late, silent, doubled and out of order."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

# The test modules are not imported as a package, so what stands beside them is found by its folder.
sys.path.insert(0, str(Path(__file__).parent))
from match import account

from labkit import Delivery

GOALS = {(1, seq): 10.0 + seq for seq in range(1, 5)}
GREETING = json.dumps({"position": [1, 0], "recovered": True})
GAP = json.dumps({"gap": {"after": [1, 1], "until": None}, "reason": "cut"})


def heard(*events, returns=()):
    """Return the account of one fan that hears these texts, or goals by their seq, each with its moment."""
    texts = [
        (json.dumps({"epoch": 1, "seq": what, "data": {}}) if isinstance(what, int) else what, at)
        for what, at in events
    ]
    deliveries = [Delivery(1, "healthy", text, len(text), at) for text, at in [(GREETING, 0.0), *texts]]
    return account(SimpleNamespace(size=1, returns=list(returns), deliveries=deliveries), GOALS)


def test_all_of_it():
    """Four goals, four deliveries."""
    assert heard((1, 11), (2, 12), (3, 13), (4, 14)).delivered == 4


@pytest.mark.parametrize(
    ("events", "seen"),
    [
        ([(1, 11), (2, 12), (4, 14)], {"silent": 1}),
        ([(1, 11), (3, 13), (3, 13), (2, 13), (4, 14)], {"doubled": 1, "disordered": 1}),
        ([(1, 11), (2, 12), (GAP, 14.5), (4, 15)], {"told": 1, "silent": 0}),
        ([(1, 11), (2, 12), (GAP, 16), (4, 16)], {"late": 1, "silent": 0}),
        ([(1, 11), (GAP, 12), (2, 12), (4, 15)], {"told": 1}),
        ([(GAP, 5), (1, 11), (2, 12), (4, 15)], {"silent": 1}),
    ],
)
def test_what_is_missing_is_counted(events, seen):
    """Each as what it is."""
    result = heard(*events)
    assert {name: getattr(result, name) for name in seen} == seen


def test_whoever_was_away_is_told_when_it_is_back():
    """The time counts from the moment at which there was somebody to tell."""
    back = SimpleNamespace(client=1, lost_at=12.5, back_at=20.0)
    again = json.dumps({"position": [1, 4], "recovered": False})
    result = heard((1, 11), (2, 12), (again, 20.1), returns=[back])
    assert (result.told, result.late, result.silent) == (2, 0, 0)
