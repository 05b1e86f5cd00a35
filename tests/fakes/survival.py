"""Two regions of real processes, any of which a test may kill or stop at a point of a promotion or a rollback.

Agents, gateways and model servers run as `python -m ...`. Who is killed is started again by the test, as the supervisor
would; who is stopped is for the real supervisor to replace (`supervised`). What they lean on may be taken away instead.
`check_unharmed` says what must hold afterwards, whatever happened.
"""

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from flightpath.local.state import StateRoot
from serving.bundle import verify_bundle
from serving.credentials import TokenFolder, trusted_keys
from serving.errors import RetryableError
from serving.processes import ProcessRecord, read_records, stop
from serving.regions.places.client import AgentClient
from serving.regions.places.topology import Region, Topology
from serving.regions.servers.server_process import MARK
from serving.store import ArtifactStore
from tests.fakes.regions import (
    client,
    infer,
    make_bundle,
    make_order,
    make_release,
    make_rollback,
    make_topology,
    no_servers_left,
    write_topology,
)
from tests.fakes.users import users_of

PROMOTION_POINTS = ("replicating", "starting", "golden", "canary", "live")
ROLLBACK_POINTS = ("ordered", "starting", "switching", "draining", "done")
VICTIMS = ("home agent", "away agent", "gateway", "candidate", "live server")
_MODULES = {"agent": "serving.regions.agent", "gateway": "serving.gateway.app"}
_MANY = 3000
"""Golden samples that keep a region in its golden state for about a second."""
_LARGE = 96 * 1024 * 1024
"""Bytes that keep a region replicating for about a second."""


SUPERVISOR = "supervisor"


class World:
    """Gateways and agents of two regions as processes, and the releases promoted so far.

    `store_uri` is where releases are taken from, by default a folder.
    """

    def __init__(self, root: Path, *, topology: Topology | None = None, store_uri: str | None = None) -> None:
        self.root = root
        self.topology = topology or make_topology(root, "home", "away")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.releases: list[str] = []
        self.orders = 0
        self.stopped: ProcessRecord | None = None
        """What `stop_victim` has stopped last."""
        self._store_uri = store_uri
        places = {"FLIGHTPATH_TOPOLOGY": str(write_topology(root, self.topology)), "FLIGHTPATH_HOME": str(root)}
        self._environment = {**os.environ, **places}

    def start(self, name: str) -> None:
        """`home agent`, `away gateway`, …, or the supervisor, which starts all of these."""
        if name == SUPERVISOR:
            command = [sys.executable, "-m", "flightpath.local.supervisor"]
        else:
            region, role = name.split(" ")
            command = [sys.executable, "-m", _MODULES[role], "--region", region]
        with (self.root / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                command, env=self._environment, stdout=log, stderr=subprocess.STDOUT
            )

    async def begin(self, *, supervised: bool = False) -> None:
        """All processes up and one release live in both regions."""
        for name in (SUPERVISOR,) if supervised else ("home gateway", "away gateway", "home agent", "away agent"):
            self.start(name)
        async with asyncio.timeout(120):
            for region in self.topology.regions:
                await self.ask(client(self.topology, region=region.name).region)
        assert await self.promote() == "live: None"
        await self.check_unharmed()

    def kill(self, name: str) -> None:
        self.processes[name].kill()
        self.processes[name].wait()

    def close(self) -> None:
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()
        for record in read_records(StateRoot(self.root).run):
            stop(record, grace_s=0.0)
        with no_servers_left(self.topology):
            pass

    def supervised(self) -> dict[str, ProcessRecord]:
        """Gateways and agents that the supervisor runs, by name."""
        return {record.name: record for record in read_records(StateRoot(self.root).run) if record.alive}

    @property
    def live(self) -> str | None:
        return self.releases[-1] if self.releases else None

    # Promotions and rollbacks

    async def promote(
        self,
        *,
        samples: int = 16,
        padding: int = 0,
        standby_s: float = 0.0,
        kill: Callable[[], Awaitable[None]] | None = None,
        every_s: float = 0.0,
        **further: Any,
    ) -> str:
        """Order the next release in both regions, let `kill` happen, send users' requests until it has finished.

        `every_s` is between two of a user's requests, `further` what the policy has besides.
        """
        self.orders += 1
        name = f"rel-{self.orders}"
        bundle = make_bundle(self.root, self.topology, samples=samples + self.orders, padding=padding)
        policy = {"synthetic_after_s": -1.0, "synthetic_evidence": False, "standby_s": standby_s, **further}
        release = make_release(self.root, name, bundle)
        if self._store_uri is not None:
            made = ArtifactStore(release["store_uri"]).bundle(bundle).folder
            await asyncio.to_thread(ArtifactStore(self._store_uri).put_bundle, made)
            release["store_uri"] = self._store_uri
        order = make_order(release, ["home", "away"], **policy)
        await client(self.topology).put_promotion(name, order)
        if kill is not None:
            await kill()
        async with asyncio.timeout(120):
            while (promotion := await self.ask(lambda: client(self.topology).get_promotion(name)))[
                "state"
            ] == "running":
                await asyncio.gather(self.use("home"), self.use("away"))
                await asyncio.sleep(every_s)
        if promotion["state"] == "live":
            self.releases.append(name)
        return f"{promotion['state']}: {promotion['reason']}"

    async def go_back(self, *, kill: Callable[[str], Awaitable[None]] | None = None) -> str:
        """Order a rollback to the version before in both regions, let `kill` happen, wait for its end."""
        self.orders += 1
        id = f"back-{self.orders}"
        await client(self.topology).put_rollback(id, make_rollback())
        if kill is not None:
            await kill(id)
        async with asyncio.timeout(120):
            while True:
                rollback = await self.ask(lambda: client(self.topology).get_rollback(id))
                if rollback["state"] != "running" and all(part["settled"] for part in rollback["regions"]):
                    break
                await asyncio.sleep(0.05)
        self.releases.pop()
        return f"{rollback['state']}: {rollback['failure']}"

    async def use(self, region: str) -> None:
        """One request of a user; refusals are no affair of these tests, which kill gateways too."""
        with contextlib.suppress(aiohttp.ClientError, OSError):
            await infer(self.topology, region)

    async def health(self, region: str) -> str:
        """What the region's agent says of itself: `200 ok`, `503 …`, or `gone` while it does not run."""
        timeout = aiohttp.ClientTimeout(total=30)
        url = f"{self.topology.region(region).agent_url}/healthz"
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
                return f"{answer.status} {(await answer.text()).strip()}"
        except (aiohttp.ClientError, OSError):
            return "gone"

    async def ask(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """The answer, however often its agent has to be asked while it starts again, or while its registry is away."""
        async with asyncio.timeout(150):
            while True:
                try:
                    return await call()
                except RetryableError:
                    await asyncio.sleep(0.02)

    # Points and victims

    async def promotion_reached(self, point: str, region: str) -> None:
        """Until the region is at this point of the newest promotion, or has passed it."""
        id, later = f"rel-{self.orders}", PROMOTION_POINTS[PROMOTION_POINTS.index(point) :]
        async with asyncio.timeout(60):
            while True:
                promotion = await self.ask(lambda: client(self.topology).get_promotion(id))
                states = {part["region"]: part["state"] for part in promotion["regions"]}
                if states[region] in later:
                    return
                assert promotion["state"] == "running", promotion
                for name, state in states.items():
                    if state == "canary" and (name, point) != (region, "canary"):
                        await self.use(name)
                await asyncio.sleep(0.01)

    async def rollback_reached(self, id: str, point: str, region: str) -> None:
        """The same for a rollback, whose region is asked itself."""
        order = {"queued": 0, "starting": 1, "switching": 2, "live": 3, "failed": 4}
        async with asyncio.timeout(60):
            while point != "ordered":
                rollback = await self.ask(lambda: client(self.topology).get_rollback(id))
                part = next(part for part in rollback["regions"] if part["region"] == region)
                reached = 4 if part["settled"] else order[part["state"]]
                if reached >= ROLLBACK_POINTS.index(point):
                    return
                assert part["state"] != "failed", part
                await asyncio.sleep(0.01)

    async def kill_victim(self, victim: str, *, candidate: str, live: str | None) -> bool:
        """SIGKILL, and for agents and gateways a new start; False when it was not running."""
        if victim in ("home agent", "away agent", "gateway"):
            name = "home gateway" if victim == "gateway" else victim
            self.kill(name)
            self.start(name)
            return True
        release = candidate if victim == "candidate" else live
        for record in read_records(self.topology.home.state_folder / "servers"):
            if record.name == release and record.alive:
                os.kill(record.pid, signal.SIGKILL)
                return True
        return False

    async def stop_victim(self, victim: str, *, candidate: str, live: str | None) -> bool:
        """SIGSTOP to what the supervisor runs, the supervisor, or a model server; False when it was not running."""
        self.stopped = self._find(victim, candidate=candidate, live=live)
        if self.stopped is None:
            return False
        os.kill(self.stopped.pid, signal.SIGSTOP)
        return True

    def _find(self, victim: str, *, candidate: str, live: str | None) -> ProcessRecord | None:
        if victim in ("candidate", "live server"):
            release = candidate if victim == "candidate" else live
            records = read_records(self.topology.home.state_folder / "servers")
            return next((record for record in records if record.name == release and record.alive), None)
        region, role = ("home", "gateway") if victim == "gateway" else victim.split(" ")
        return self.supervised()[f"{role}-{region}"]

    # What must hold afterwards

    async def check_replaced(self) -> None:
        """What was stopped is gone, though nobody continued it."""
        stopped = self.stopped
        async with asyncio.timeout(60):
            while stopped is not None and stopped.alive:
                await asyncio.sleep(0.05)

    async def check_unharmed(self) -> None:
        """Every region serves the live release from one server of its own, and nothing is left over."""
        for region in self.topology.regions:
            await self._wait_until_quiet(region)
            async with asyncio.timeout(60):
                while (answer := await self._answer(region)) != (200, self.live, region.name):
                    await asyncio.sleep(0.05)
            records = [r for r in read_records(region.state_folder / "servers") if r.alive]
            assert [record.name for record in records] == [self.live]
            assert answer[1] == self.live
            _check_bundles(region, self.topology)
            await _check_files(region)
            marks = {record.detail["mark"] for record in records}
            assert _marks(region) == marks, "a process runs that no record knows"

    async def _answer(self, region: Region) -> tuple[int, str | None, str] | None:
        with contextlib.suppress(aiohttp.ClientError, OSError):
            return await infer(self.topology, region.name)
        return None

    async def _wait_until_quiet(self, region: Region) -> None:
        agent = client(self.topology, region=region.name)
        async with asyncio.timeout(60):
            while True:
                seen = await self.ask(agent.region)
                servers = [model["server"] for model in seen["models"]]
                ready = all(server is not None and server["state"] == "ready" for server in servers)
                names = [record.name for record in read_records(region.state_folder / "servers") if record.alive]
                if not seen["rollouts"] and not seen["rollbacks"] and ready and names == [self.live]:
                    return
                await asyncio.sleep(0.05)


def _check_bundles(region: Region, topology: Topology) -> None:
    """Whatever has a bundle's name is a whole bundle; nothing of a copy that died is left."""
    roots = [region.state_folder / "bundles"]
    if region.store_uri.startswith("file://"):
        roots.append(Path(region.store_uri.removeprefix("file://")) / "bundles")
    for root in roots:
        for folder in (root / "sha256").iterdir():
            assert not folder.name.startswith("."), folder
            verify_bundle(folder, digest=f"sha256:{folder.name}", keys=trusted_keys(topology.key_folder))


async def _check_files(region: Region) -> None:
    """Whole documents, a whole registry, and nothing of a write that died."""
    folders = (region.state_folder, region.state_folder / "servers")
    async with asyncio.timeout(60):
        while [path for folder in folders for path in folder.glob(".*.json.*")]:
            # The clock may be being saved now.
            await asyncio.sleep(0.05)
    for path in [*region.state_folder.glob("*.json"), *(region.state_folder / "servers").glob("*.json")]:
        json.loads(path.read_bytes())
    if not region.registry_url.startswith("sqlite:"):
        return
    with contextlib.closing(sqlite3.connect(region.state_folder / "registry.db")) as registry:
        assert registry.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def _marks(region: Region) -> set[str]:
    """Marks of the living processes that this region's agents have started."""
    found, folder = set(), f"{(region.state_folder / 'servers').resolve()}#"
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            mark = process.environ().get(MARK, "")
            if mark.startswith(folder) and process.status() != psutil.STATUS_ZOMBIE:
                found.add(mark)
    return found


# One scenario


async def survive_promotion(world: World, victim: str, point: str, *, stopped: bool = False) -> None:
    """Kill or stop at a point of a promotion, and hold the end against the undisturbed one's."""
    region, before = "away" if victim == "away agent" else "home", world.live
    strike = world.stop_victim if stopped else world.kill_victim
    hit: list[bool] = []

    async def kill() -> None:
        await world.promotion_reached(point, region)
        hit.append(await strike(victim, candidate=f"rel-{world.orders}", live=before))

    samples = _MANY if point == "golden" else 16
    ended = await world.promote(samples=samples, padding=_LARGE if point == "replicating" else 0, kill=kill)
    if victim == "candidate" and hit == [True] and ended.startswith("rolled_back"):
        assert "gate server failed" in ended or "gate errors failed" in ended, ended
        # On a busy machine the region may have passed the point by the time of the kill.
        assert point != "live"
    else:
        assert ended == "live: None", ended
    await world.check_replaced()
    await world.check_unharmed()


async def survive_rollback(world: World, victim: str, point: str, *, stopped: bool = False) -> None:
    """Kill or stop at a point of a rollback; in the end the version before is live, as if undisturbed."""
    assert await world.promote() == "live: None"
    bad, target = world.releases[-1], world.releases[-2]
    region = "away" if victim == "away agent" else "home"
    strike = world.stop_victim if stopped else world.kill_victim

    async def kill(id: str) -> None:
        await world.rollback_reached(id, point, region)
        await strike(victim, candidate=target, live=bad)

    assert await world.go_back(kill=kill) == "live: None"
    await world.check_replaced()
    await world.check_unharmed()


async def outlast(
    world: World,
    outage: Callable[[], contextlib.AbstractAsyncContextManager[None]],
    *,
    lasts_s: float,
    point: str | None = "canary",
) -> list[str]:
    """Something is away from a point of a promotion at home on (None: from its order on); nobody's users notice.

    What was acknowledged meanwhile is kept, and the promotion ends as if undisturbed. Returns what the home agent's
    `/healthz` said.
    """
    said: list[str] = []
    home, acknowledged = AgentClient(world.topology.home.agent_url, _operator(world), timeout_s=2.0), 0

    async def happen() -> None:
        nonlocal acknowledged
        if point is not None:
            await world.promotion_reached(point, "home")
        async with outage():
            end = asyncio.get_running_loop().time() + lasts_s
            for number in itertools.count(acknowledged + 1):
                said.append(await world.health("home"))
                with contextlib.suppress(RetryableError):
                    await home.put_override({"frozen": False, "reason": str(number)})
                    acknowledged = number
                if asyncio.get_running_loop().time() >= end:
                    return
                await asyncio.sleep(0.5)

    # Few answers for each step: many would prove that a server which has just started on a busy machine is slower, and
    # none of this is about latency. Steps of a second, so that it is under way when the outage begins.
    async with users_of(world.topology, "home", "away", each=1, pause_s=0.25) as users:
        ended = await world.promote(kill=happen, every_s=0.25, bake_s=1.0)
        assert ended == "live: None", ended
        await world.check_unharmed()
    assert (users.failures, users.answered > 0) == ([], True)
    kept = await world.ask(client(world.topology).get_override)
    assert int(kept["reason"] or 0) >= acknowledged
    return said


def _operator(world: World) -> str:
    return TokenFolder(folder=world.topology.token_folder).read("operator")


def start_world(root: Path, *, supervised: bool = False, **further: Any) -> World:
    """All processes up and one release live in both regions; call `close` at the end."""
    world = World(root, **further)
    try:
        asyncio.run(world.begin(supervised=supervised))
    except BaseException:
        world.close()
        raise
    return world
