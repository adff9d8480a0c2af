"""Clients in Python, JavaScript and C, and frames by hand: with uvicorn's own protocol class, with ours, with the hub.

All clients meet on the same servers, once for each kind; the tests ask afterwards what each of them has to tell.
"""

import asyncio
import json
import sys
import traceback
from pathlib import Path
from unittest.mock import ANY

import pytest

# The test modules are not imported as a package, so what stands beside them is found by its folder.
sys.path.insert(0, str(Path(__file__).parent / "clients"))
from cases import CASES
from evening import BODIES, CLIENTS, COMPRESSING, KINDS, MISSING, SCENARIOS, spend_all, takes_part
from messages import COUNTS, MANY, digest, message

pytestmark = pytest.mark.slow

BYE = {"code": 1000, "reason": ""}
ENDED = [1000, ""]
IDLE = {"called": "called", "echoes": [True, True, True], **BYE}

# Scenario -> what a client reports, and what the endpoint saw. Of what a peer does wrong, uvicorn's words are its own.
EXPECTED = {
    "bodies": ({"heard": [digest(body) for body in BODIES], **BYE}, [ENDED]),
    "busy_pings": ({"ticked": True, "inOrder": True, **BYE}, ["thanks", ENDED]),
    "chat": ({"heard": ANY, "echoes": [digest(message(number)) for number in range(len(COUNTS))], **BYE}, [ENDED]),
    "client_closes": ({"code": 4002, "reason": "bye – ü"}, [[4002, "bye – ü"]]),
    "client_closes_without_a_word": ({"code": 1005, "reason": ""}, [[1005, ""]]),
    "client_pings": ({"echoes": ["between", "behind"], "pongs": 4, **BYE}, ["between", "behind", ENDED]),
    "drain": ({"code": 1012, "reason": ANY}, [[1012, ANY]]),
    "endpoint_raises": ({"code": 1006, "reason": ""}, ["raise"]),
    "idle": (IDLE | {"deflate": ANY}, [MANY, MANY, MANY.encode(), ENDED]),
    "plain_idle": (IDLE | {"deflate": False}, [MANY, MANY, MANY.encode(), ENDED]),
    "idle_pings": ({"said": "enough", **BYE}, ["thanks", ENDED]),
    "lonely_shutdown": ({"code": 1012, "reason": ""}, [[1012, ""]]),
    "server_closes": ({"code": 4001, "reason": "no token – über"}, ["close me", "websocket.disconnect"]),
    "server_closes_normally": ({"code": 1000, "reason": "done"}, ["close me"]),
    "shutdown": ({"code": 1012, "reason": ""}, [[1012, ""]]),
    "subprotocol": ({"said": "hello", "chosen": "chat.v1", **BYE}, [ENDED]),
    "too_big": ({"echoed": 1_000, "code": 1009, "reason": ANY}, ["x" * 1_000, [1009, ANY]]),
    "too_big_in_pieces": ({"echoed": 1_000, "code": 1009, "reason": ANY}, ["x" * 1_000, [1009, ANY]]),
}


# uvicorn's own class is the control. It closes without waiting for what the client still sends, so now and then one
# that answers pings meanwhile sees a reset instead of the goodbye: nothing for CI, which looks at ours.
PARAMETERS = [pytest.param(kind, marks=[pytest.mark.long] if "uvicorn's own" in kind else []) for kind in KINDS]


@pytest.fixture(scope="session")
def evenings(request):
    """Return the evenings that are asked about, and what failed behind them; the first test that asks waits."""
    asked = {item.callspec.params.get("evening") for item in request.session.items if hasattr(item, "callspec")}
    return asyncio.run(spend_all([kind for kind in KINDS if kind in asked]))


@pytest.fixture(params=PARAMETERS)
def evening(request, evenings):
    """Give the evening of each kind."""
    result = evenings[0][request.param]
    if isinstance(result, Exception):
        # Without the trace of this test, which says nothing, and would be drawn hundreds of times.
        pytest.fail("".join(traceback.format_exception(result)), pytrace=False)
    return result


@pytest.mark.parametrize("client", MISSING)
def test_client_goes_through_its_scenarios(evening, client):
    """Without an error; where the client cannot be had, it is said why."""
    if MISSING[client]:
        pytest.skip(MISSING[client])
    reports = {scenario: report for (who, scenario), report in evening.reports.items() if who == client}
    assert {scenario: report["error"] for scenario, report in reports.items() if "error" in report} == {}
    assert reports.keys() == {scenario for scenario in SCENARIOS if takes_part(client, scenario)}


def test_nothing_fails_in_the_background(evenings):
    """Beyond what the endpoints raise on purpose; and nothing stays open."""
    failure = evenings[1]
    if failure is not None:
        raise failure


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_client_and_endpoint_agree(evening, scenario):
    """Every client that has the means: what it reports, and what its endpoint saw."""
    clients = [client for client in CLIENTS if takes_part(client, scenario)]
    report, seen = EXPECTED[scenario]
    assert {client: evening.reports.get((client, scenario)) for client in clients} == dict.fromkeys(clients, report)
    assert {client: evening.seen.get((client, scenario)) for client in clients} == dict.fromkeys(clients, seen)


def test_everybody_hears_the_chat_in_one_order(evening):
    """And hears of every message, while megabytes of echoes go the same way."""
    heard = {
        client: [json.loads(text)["data"] for text in evening.reports[client, "chat"]["heard"]] for client in CLIENTS
    }
    first = heard[CLIENTS[0]]
    assert heard == dict.fromkeys(CLIENTS, first)
    numbers, speakers = zip(*(text.removeprefix("★ ").split(": ") for text in first), strict=True)
    assert [int(number) for number in numbers] == list(range(1, len(CLIENTS) * len(COUNTS) + 1))
    assert sorted(speakers) == sorted(CLIENTS * len(COUNTS))


def test_clients_compress_where_they_can(evening):
    """Otherwise the clients would show nothing about frames that are not compressed among those that are."""
    deflate = {client for client in CLIENTS if evening.reports[client, "idle"]["deflate"]}
    assert deflate == COMPRESSING & set(CLIENTS)


@pytest.mark.parametrize("name", CASES)
def test_frames_by_hand_are_answered(evening, name):
    """Frame by frame, up to the end of the connection."""
    case, answer = CASES[name], evening.answers[name]
    if case.apart:
        assert answer[-2:] == case.answer[-2:]
        answer, expected = sorted(answer, key=kind_of), sorted(case.answer, key=kind_of)
    else:
        expected = case.answer
    assert answer == expected
    assert evening.seen_of[name] == case.seen


def kind_of(frame):
    """Return what sorts a frame among those of its kind, and leaves these in their order."""
    return "broadcast" if frame[0] == "text" and frame[1].startswith("goal") else frame[0]
