"""Users of regions, who ask on and on while something happens, and what they saw."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aiohttp
import numpy as np

from serving.regions.places.topology import Topology
from tests.fakes.models import FEATURES
from tests.fakes.regions import MODEL


@dataclass(slots=True)
class Users:
    """What the users of a region saw."""

    answered: int = 0
    failures: list[str] = field(default_factory=list)
    releases: set[str] = field(default_factory=set)

    async def wait_for_more(self, count: int) -> None:
        """Until so many more requests have been answered."""
        target = self.answered + count
        async with asyncio.timeout(120):
            while self.answered < target:
                await asyncio.sleep(0.02)


@contextlib.asynccontextmanager
async def users_of(topology: Topology, *regions: str, each: int = 3, pause_s: float = 0.01) -> AsyncIterator[Users]:
    """Users that ask over connections of their own, which they keep, until the block ends; nothing is tried again."""
    seen, over = Users(), asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        # Never used after the server may have closed it: keep-alive is the gateway's to announce.
        sessions = [
            (region, await stack.enter_async_context(aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60))))
            for region in regions
            for _ in range(each)
        ]
        asking = [asyncio.create_task(_use(topology, region, http, seen, over, pause_s)) for region, http in sessions]
        try:
            yield seen
        finally:
            over.set()
            await asyncio.gather(*asking)


async def _use(
    topology: Topology, region: str, http: aiohttp.ClientSession, seen: Users, over: asyncio.Event, pause_s: float
) -> None:
    row = np.zeros(FEATURES, dtype=np.float32).tolist()
    body = {"inputs": [{"name": "x", "shape": [1, FEATURES], "datatype": "FP32", "data": row}]}
    url = f"{topology.region(region).gateway_url}/v2/models/{MODEL}/infer"
    while not over.is_set():
        try:
            async with http.post(url, json=body) as response:
                text = await response.text()
                if response.status == 200:
                    seen.answered += 1
                    seen.releases.add(response.headers["x-flightpath-release"])
                else:
                    seen.failures.append(f"{region}: {response.status}: {text}")
        except (aiohttp.ClientError, OSError, TimeoutError) as broken:
            seen.failures.append(f"{region}: {broken!r}")
        await asyncio.sleep(pause_s)
