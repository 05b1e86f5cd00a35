"""How long users still meet the bad version after a rollback was ordered: warm standby against a cold start.

    python -m tests.bench.bench_rollback

Two regions of real processes with users that never pause. Rounds alternate between a target that stands by and one
whose server must start first, which is the peer: what every rollback would take without the standby. Writes
`build/bench/rollback.json` and exits 1 if a bound is not met.
"""

import asyncio
import contextlib
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import numpy as np

from tests.bench.targets import Target, finish, hardware, judge
from tests.fakes.models import FEATURES
from tests.fakes.regions import MODEL
from tests.fakes.survival import World, start_world

ROUNDS: Final = 5
BOUND_S: Final = 5.0
USERS_PER_REGION: Final = 2
STANDBY_S: Final = 600.0
_AFTER_S: Final = 1.0
"""How long users go on after the rollback has settled: an answer of the bad version would still be seen."""


@dataclass(slots=True)
class Seen:
    """What users met since the rollback was ordered."""

    ordered_at: float
    last_bad_s: dict[str, float] = field(default_factory=dict)
    """By region: when the last answer of the bad version was there, in seconds after the order."""
    requests: int = 0
    failed: int = 0


async def use(world: World, region: str, bad: str, seen: Seen) -> None:
    """One user, who sends the next request as soon as the last one is answered."""
    tensor = {"name": "x", "shape": [1, FEATURES], "datatype": "FP32", "data": np.zeros(FEATURES).tolist()}
    url = f"{world.topology.region(region).gateway_url}/v2/models/{MODEL}/infer"
    async with aiohttp.ClientSession() as session:
        while True:
            try:
                async with session.post(url, json={"inputs": [tensor]}) as response:
                    await response.read()
                    failed, release = response.status != 200, response.headers.get("x-flightpath-release")
            except aiohttp.ClientError:
                failed, release = True, None
            seen.requests += 1
            seen.failed += failed
            if release == bad:
                seen.last_bad_s[region] = time.perf_counter() - seen.ordered_at


@contextlib.asynccontextmanager
async def users(world: World, bad: str, seen: Seen) -> AsyncIterator[None]:
    regions = [region.name for region in world.topology.regions]
    async with asyncio.TaskGroup() as group:
        tasks = [
            group.create_task(use(world, region, bad, seen)) for region in regions for _ in range(USERS_PER_REGION)
        ]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def roll_back(world: World, *, warm: bool) -> Seen:
    """Release a version over the present one, then order it back under traffic."""
    ended = await world.promote(standby_s=STANDBY_S if warm else 0.0)
    if not ended.startswith("live"):
        raise RuntimeError(f"the version to roll back did not go live: {ended}")
    seen = Seen(time.perf_counter())
    async with users(world, world.releases[-1], seen):
        await asyncio.sleep(_AFTER_S)
        seen.requests = seen.failed = 0
        seen.ordered_at = time.perf_counter()
        await world.go_back()
        await asyncio.sleep(_AFTER_S)
    if set(seen.last_bad_s) != {region.name for region in world.topology.regions}:
        raise RuntimeError(f"not every region served the version to roll back: {seen.last_bad_s}")
    return seen


async def run_rounds(world: World) -> tuple[list[Seen], list[Seen]]:
    warm, cold = [], []
    for number in range(ROUNDS):
        for stands_by in (True, False) if number % 2 == 0 else (False, True):
            (warm if stands_by else cold).append(await roll_back(world, warm=stands_by))
    return warm, cold


def compare(warm: list[Seen], cold: list[Seen]) -> list[Target]:
    """The slowest region counts, for users of it too."""
    slowest = {
        name: [max(seen.last_bad_s.values()) for seen in rounds] for name, rounds in (("warm", warm), ("cold", cold))
    }
    requests, failed = (sum(getattr(seen, name) for seen in (*warm, *cold)) for name in ("requests", "failed"))
    after = "order to the last answer of the bad version, slowest of two regions, median of interleaved rounds"
    return [
        judge("warm standby, median", statistics.median(slowest["warm"]), bound=BOUND_S, unit="s", note=after),
        judge("warm standby, longest", max(slowest["warm"]), bound=BOUND_S, unit="s", note=f"of {ROUNDS}"),
        judge("cold start (peer), median", statistics.median(slowest["cold"]), bound=None, unit="s", note=after),
        judge("cold start (peer), longest", max(slowest["cold"]), bound=None, unit="s", note="ONNX Runtime"),
        judge("failed requests", failed, bound=0, unit="requests", note=f"of {requests} after the orders"),
    ]


def main() -> int:
    machine = hardware()
    with tempfile.TemporaryDirectory() as root:
        world = start_world(Path(root))
        try:
            targets = compare(*asyncio.run(run_rounds(world)))
        finally:
            world.close()
    return finish("rollback", machine, targets)


if __name__ == "__main__":
    sys.exit(main())
