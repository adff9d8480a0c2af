"""A match under load: goals posted through nginx, fans who note all they hear, and an account of what was lost."""

import asyncio
import itertools
import json
import time
import uuid
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields

import httpx2

from labkit import Cluster, Fleet

PATIENCE = 30
# What a fan is promised: whatever it does not get, it is told of within this many seconds.
TOLD_WITHIN = 2.0
# So long a reporter waits for one server before it asks another, under the same key.
_TRIES_SECONDS = 1.5


@dataclass
class Account:
    """What became of the goals of one match.

    acknowledged goals that a server has confirmed. expected deliveries: one for each fan and each of them. delivered of
    those. told losses, of which the fan was told in time; late: told, but later. silent: of which it was not told.
    doubled, disordered: deliveries that came twice, or behind a later one. slowest_telling seconds.
    epochs in which the goals were counted. tellings of a loss, or of one that may be, to all fans together.
    """

    acknowledged: int = 0
    expected: int = 0
    delivered: int = 0
    told: int = 0
    late: int = 0
    silent: int = 0
    doubled: int = 0
    disordered: int = 0
    slowest_telling: float = 0.0
    epochs: int = 0
    tellings: int = 0

    def __add__(self, other: "Account") -> "Account":
        """Return both together: counts added, the slower telling."""
        names = [each.name for each in fields(self)]
        sums = {name: getattr(self, name) + getattr(other, name) for name in names}
        return Account(**sums | {"slowest_telling": max(self.slowest_telling, other.slowest_telling)})

    def __str__(self) -> str:
        return (
            f"{self.acknowledged} goals, {self.delivered} of {self.expected} deliveries; lost: {self.told} told "
            f"(slowest {self.slowest_telling:.2f} s), {self.late} late, {self.silent} silent; "
            f"{self.doubled} doubled, {self.disordered} disordered"
        )


@dataclass
class Match:
    """Fans and reporters of one cluster. goals: position -> when it was confirmed, in monotonic seconds."""

    cluster: Cluster
    fans: Fleet
    every: float
    goals: dict[tuple[int, int], float] = field(default_factory=dict)
    repeats: int = 0
    _numbers: itertools.count = field(default_factory=itertools.count)
    _over: bool = False

    async def report(self) -> None:
        """Post goals until the match is over; each is repeated under its key until somebody has confirmed it."""
        async with httpx2.AsyncClient(timeout=_TRIES_SECONDS) as client:
            while not self._over:
                await self.post(client, {"number": next(self._numbers)})
                await asyncio.sleep(self.every)

    async def post(self, client: httpx2.AsyncClient, goal: dict) -> tuple[int, int]:
        """Post one goal and return its position once it is confirmed."""
        headers = {"Authorization": f"Bearer {self.cluster.token}", "Idempotency-Key": uuid.uuid4().hex}
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    answer = await client.post(f"{self.cluster.url}/goal", json=goal, headers=headers)
                    if answer.is_success:
                        break
                except httpx2.HTTPError:
                    pass
                self.repeats += 1
                await asyncio.sleep(0.05)
        position = answer.json()["epoch"], answer.json()["seq"]
        self.goals[position] = time.monotonic()
        return position

    async def over(self) -> Account:
        """Let the reporters finish, post a last goal until every fan has heard one, and return the account."""
        async with httpx2.AsyncClient(timeout=_TRIES_SECONDS) as client, asyncio.timeout(PATIENCE):
            while True:
                last = await self.post(client, {"number": "last"})
                if await self._all_have(last):
                    break
        return account(self.fans, self.goals)

    async def _all_have(self, position: tuple[int, int]) -> bool:
        """Return whether every fan has a goal, or a later one, when nothing arrives any more."""
        await self.fans.settle()
        newest = dict.fromkeys(range(1, self.fans.size + 1), (0, 0))
        for delivery in self.fans.deliveries:
            newest[delivery.client] = max(newest[delivery.client], place_of(delivery.text) or (0, 0))
        return min(newest.values()) >= position


@asynccontextmanager
async def match(cluster: Cluster, *, fans: int = 45, reporters: int = 2, every: float = 0.02, come_back: float = 0.5):
    """Play a match while the block runs; what the block does to the cluster is the fault."""
    fleet = await Fleet(cluster, name="fans", healthy=fans, come_back=come_back, notice_after=2.0).connect()
    playing = Match(cluster, fleet, every)
    tasks = [asyncio.create_task(playing.report(), name=f"reporter {number}") for number in range(reporters)]
    try:
        await playing_until(playing, 20)
        yield playing
        await playing_until(playing, len(playing.goals) + 20)
    finally:
        playing._over = True
        await asyncio.gather(*tasks)


async def playing_until(playing: Match, goals: int) -> None:
    """Wait until so many goals are confirmed."""
    async with asyncio.timeout(PATIENCE):
        while len(playing.goals) < goals:
            await asyncio.sleep(0.01)


def place_of(text: str) -> tuple[int, int] | None:
    """Return the position of a goal, None for a greeting or a gap."""
    if not text.startswith('{"epoch"'):
        return None
    return tuple(int(word.split(":")[1]) for word in text.split(",")[:2])


def account(fans: Fleet, goals: dict[tuple[int, int], float]) -> Account:
    """Compare what each fan heard with what was confirmed.

    A fan may be missing a goal where it was told so: by a gap, or by a greeting that says `recovered: false`. Whoever
    was away is told when it is back, so the time counts from then.
    """
    result = Account(acknowledged=len(goals), epochs=len({epoch for epoch, _ in goals}))
    backs = defaultdict(list)
    for lost in fans.returns:
        backs[lost.client].append((lost.lost_at, lost.back_at))
    heard = defaultdict(list)
    for delivery in fans.deliveries:
        heard[delivery.client].append(delivery)
    for client in range(1, fans.size + 1):
        _account_of_one(result, heard[client], backs[client], goals)
    return result


def _account_of_one(result: Account, deliveries: list, backs: list, goals: dict) -> None:
    first = json.loads(deliveries[0].text)
    start = tuple(first["position"] or (0, 0))
    got, tellings, newest = set(), [], start
    for delivery in deliveries[1:]:
        place = place_of(delivery.text)
        if place is None:
            message = json.loads(delivery.text)
            if "gap" in message or not message["recovered"]:
                tellings.append(delivery.arrived_at)
            continue
        result.doubled += place in got
        result.disordered += place < newest
        got.add(place)
        newest = max(newest, place)
    result.tellings += len(tellings)
    for place, confirmed_at in goals.items():
        if place <= start:
            continue
        result.expected += 1
        if place in got:
            result.delivered += 1
            continue
        _judge_loss(result, confirmed_at, tellings, backs)


def _judge_loss(result: Account, confirmed_at: float, tellings: list[float], backs: list) -> None:
    """Find the telling that belongs to a lost goal: the nearest, before or after."""
    since = confirmed_at
    for lost_at, back_at in backs:
        # It noticed the loss of its connection up to two seconds after the server was gone.
        if back_at is not None and lost_at - TOLD_WITHIN <= confirmed_at <= back_at:
            since = back_at
    # A gap that was told before the loss says that news may be missing from now on: so does a cut connection.
    near = [max(0.0, told_at - since) for told_at in tellings if told_at >= confirmed_at - 2 * TOLD_WITHIN]
    if not near:
        result.silent += 1
    elif min(near) <= TOLD_WITHIN:
        result.told += 1
        result.slowest_telling = max(result.slowest_telling, min(near))
    else:
        result.late += 1
