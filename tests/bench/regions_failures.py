"""What failures cost users, for `bench_regions`: a rollback while home is down, and whatever is stopped replaced."""

import asyncio
import contextlib
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import numpy as np

from flightpath.local.state import StateRoot
from serving.processes import ProcessRecord, read_records, stop
from serving.regions.places.topology import Topology
from tests.bench.targets import NOT_MEASURED, Target, judge
from tests.fakes.models import FEATURES
from tests.fakes.regions import (
    MODEL,
    client,
    finished,
    make_bundle,
    make_order,
    make_release,
    make_rollback,
    make_topology,
    no_servers_left,
    settled,
    write_topology,
)
from tests.fakes.survival import World, start_world

ROLLBACKS: Final = 3
LAST_BAD_BOUND_S: Final = 1.0
_AFTER_S: Final = 1.0
"""How long users go on: an answer of the bad version would still be seen."""
_POLL_S: Final = 0.01
_TIMEOUT: Final = aiohttp.ClientTimeout(total=2)
"""A user waits no longer: a stopped gateway takes connections and answers nobody."""


@dataclass(slots=True)
class Answers:
    """When a region's users were answered, and by which release; seconds of `time.perf_counter`."""

    good: list[tuple[float, str]] = field(default_factory=list)
    failed: int = 0

    def first_after(self, moment: float) -> float | None:
        return next((at for at, _ in self.good if at > moment), None)


async def _use(topology: Topology, region: str, answers: Answers) -> None:
    """One user with a new connection each time, as whoever was cut off would have."""
    tensor = {"name": "x", "shape": [1, FEATURES], "datatype": "FP32", "data": np.zeros(FEATURES).tolist()}
    url = f"{topology.region(region).gateway_url}/v2/models/{MODEL}/infer"
    connector = aiohttp.TCPConnector(force_close=True)
    async with aiohttp.ClientSession(timeout=_TIMEOUT, connector=connector) as session:
        while True:
            try:
                began = time.perf_counter()
                async with session.post(url, json={"inputs": [tensor]}) as response:
                    await response.read()
                    if response.status == 200:
                        answers.good.append((time.perf_counter(), response.headers["x-flightpath-release"]))
                    else:
                        answers.failed += 1
            except (aiohttp.ClientError, TimeoutError, OSError):
                answers.failed += 1
            await asyncio.sleep(max(0.0, began + _POLL_S - time.perf_counter()))


@contextlib.asynccontextmanager
async def _users(topology: Topology, region: str, *, count: int = 4) -> AsyncIterator[Answers]:
    answers = Answers()
    asking = [asyncio.create_task(_use(topology, region, answers)) for _ in range(count)]
    try:
        yield answers
    finally:
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


# A rollback while home is down


def measure_rollbacks(root: Path, *, judged: bool) -> list[Target]:
    world = start_world(root)
    try:
        measured = asyncio.run(_roll_back_without_home(world))
    finally:
        world.close()
    last_bad_s, failed, asked = (
        [entry[0] for entry in measured],
        sum(e[1] for e in measured),
        sum(e[2] for e in measured),
    )
    note = f"order at the asked region's agent to its last bad answer; home's agent and gateway killed; of {ROLLBACKS}"
    return [
        judge(
            "rollback while home is down, longest",
            max(last_bad_s),
            bound=LAST_BAD_BOUND_S,
            unit="s",
            note=note,
            judged=judged,
        ),
        judge("rollback while home is down, median", statistics.median(last_bad_s), bound=None, unit="s", note=note),
        judge("failed requests meanwhile", failed, bound=0, unit="requests", note=f"of {asked}, in the asked region"),
    ]


async def _roll_back_without_home(world: World) -> list[tuple[float, int, int]]:
    """Seconds to the last bad answer, failed and all requests, for each rollback."""
    measured = []
    for number in range(ROLLBACKS):
        ended = await world.promote(standby_s=600.0)
        if ended != "live: None":
            raise RuntimeError(f"the version to roll back did not go live: {ended}")
        bad = world.releases[-1]
        async with _users(world.topology, "away") as answers:
            while not any(release == bad for _, release in answers.good):
                await asyncio.sleep(_POLL_S)
            for name in ("home agent", "home gateway"):
                world.kill(name)
            failed, asked = answers.failed, len(answers.good)
            away = client(world.topology, region="away")
            ordered_at = time.perf_counter()
            id = f"alone-{number}"
            await away.put_rollback(id, make_rollback(regions=["away"]))
            while not (await away.get_rollback(id))["regions"][0]["settled"]:
                await asyncio.sleep(_POLL_S)
            await asyncio.sleep(_AFTER_S)
        last_bad = max((at for at, release in answers.good if release == bad and at > ordered_at), default=ordered_at)
        failed = answers.failed - failed
        measured.append((last_bad - ordered_at, failed, failed + len(answers.good) - asked))
        for name in ("home gateway", "home agent"):
            world.start(name)
        await world.ask(client(world.topology).region)
    return measured


# Whatever is stopped is replaced


def measure_replacements(root: Path) -> list[Target]:
    """One region under the real supervisor."""
    topology = make_topology(root, "home")
    with _supervised(root, topology):
        targets = asyncio.run(_replace_each(root, topology))
    why = "vLLM starts for minutes on this machine's cores, and a start says nothing of the replacement"
    return [*targets, Target(name="SIGSTOP of vLLM", measured=0.0, bound=None, unit="s", status=NOT_MEASURED, note=why)]


@contextlib.contextmanager
def _supervised(root: Path, topology: Topology) -> Iterator[None]:
    paths = {"FLIGHTPATH_TOPOLOGY": str(write_topology(root, topology)), "FLIGHTPATH_HOME": str(root)}
    command = [sys.executable, "-m", "flightpath.local.supervisor"]
    with (root / "supervisor.log").open("wb") as log, no_servers_left(topology):
        supervisor = subprocess.Popen(command, env={**os.environ, **paths}, stderr=log)
        try:
            yield
        finally:
            supervisor.kill()
            supervisor.wait()
            for record in read_records(StateRoot(root).run):
                stop(record, grace_s=0.0)


async def _replace_each(root: Path, topology: Topology) -> list[Target]:
    agent, run = client(topology), StateRoot(root).run
    await _until(lambda: _answers(topology.home.agent_url))
    await _until(lambda: _answers(topology.home.gateway_url))
    release = make_release(root, "rel-1", make_bundle(root, topology, samples=20))
    await agent.put_promotion("p-1", make_order(release, ["home"]))
    promotion = await finished(agent, "p-1")
    if promotion["state"] != "live":
        raise RuntimeError(f"nothing to stop: {promotion}")
    await settled(agent)

    async def led_past() -> bool:
        return bool((await agent.region())["models"][0]["degraded"])

    async def agent_answers() -> bool:
        return await _answers(topology.home.agent_url)

    engine = await _replace(topology, topology.home.state_folder / "servers", "rel-1", detected=led_past)
    gateway = await _replace(topology, run, "gateway-home")
    # Users need no agent: its first answer is its own.
    gone = await _replace(topology, run, "agent-home", first_answer=agent_answers)
    return [*_told("engine", engine), *_told("gateway", gateway), *_told("agent", gone)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Replaced:
    """Seconds after SIGSTOP."""

    detected: float | None
    """Out of the route; None where nobody says so before the kill."""
    killed: float
    started: float
    answered: float
    failed: int


async def _replace(
    topology: Topology,
    folder: Path,
    name: str,
    *,
    detected: Callable[[], Awaitable[bool]] | None = None,
    first_answer: Callable[[], Awaitable[bool]] | None = None,
) -> Replaced:
    before = _record(folder, name)
    assert before is not None
    async with _users(topology, "home", count=2) as answers:
        while not answers.good:
            await asyncio.sleep(_POLL_S)
        began = time.perf_counter()
        os.kill(before.pid, signal.SIGSTOP)
        seen = None
        if detected is not None:
            await _until(detected)
            seen = time.perf_counter() - began
        await _until(lambda: _now(not before.alive))
        killed = time.perf_counter()
        await _until(lambda: _now(_successor(folder, name, before)))
        started = time.perf_counter()
        if first_answer is None:
            await _until(lambda: _now(answers.first_after(killed) is not None))
            answered = answers.first_after(killed) or 0.0
        else:
            await _until(first_answer)
            answered = time.perf_counter()
    return Replaced(
        detected=seen,
        killed=killed - began,
        started=started - began,
        answered=answered - began,
        failed=answers.failed,
    )


def _told(what: str, replaced: Replaced) -> list[Target]:
    detected = replaced.detected or 0.0
    steps = {
        "detect": replaced.detected,
        "decide" if replaced.detected is not None else "detect and decide": replaced.killed - detected,
        "replace": replaced.started - replaced.killed,
        "first answer": replaced.answered - replaced.started,
    }
    note = f"{replaced.failed} requests of two users failed meanwhile" if what != "agent" else "users need no agent"
    whole = judge(f"SIGSTOP of {what} to its first answer", replaced.answered, bound=None, unit="s", note=note)
    parts = [
        judge(f"  {what}: {name}", taken, bound=None, unit="s", note="")
        for name, taken in steps.items()
        if taken is not None
    ]
    return [whole, *parts]


def _record(folder: Path, name: str) -> ProcessRecord | None:
    return next((record for record in read_records(folder) if record.name == name and record.alive), None)


def _successor(folder: Path, name: str, before: ProcessRecord) -> bool:
    record = _record(folder, name)
    return record is not None and record.pid != before.pid


async def _now(holds: bool) -> bool:
    return holds


async def _answers(url: str) -> bool:
    try:
        async with aiohttp.ClientSession(timeout=_TIMEOUT) as http, http.get(f"{url}/healthz") as response:
            return response.status == 200
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(180):
        while not await holds():
            await asyncio.sleep(_POLL_S)
