"""Three regions in one virtual minute after another: what stands there, what befalls it, and who gives orders."""

import asyncio
import tempfile
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, Final

from serving.bundle import Manifest, read_manifest
from serving.errors import Fenced, FlightpathError, PermanentError, RetryableError
from serving.regions.acting.steady_clock import SteadyClock
from serving.regions.deciding.promotion_state import RUNNING
from serving.regions.places.topology import Region, Topology
from serving.regions.registry.registry import Event as JournalEvent
from serving.regions.registry.registry import LiveModel
from serving.releases import Release
from serving.routes import Route
from serving.store import ArtifactStore
from tests.fakes.models import VARIANT, write_bundle
from tests.simulation.agent import TIMING, Place, SimulatedAgent
from tests.simulation.database import Database, SimulatedRegistry
from tests.simulation.gateway import Gateway
from tests.simulation.link import Network
from tests.simulation.machine import Machine
from tests.simulation.story import HOME, NAMES, Event, Story

MODEL: Final = "digits"
RELEASES: Final = ("v1", "v2", "v3", "v4")
POLICY: Final = {
    "steps_percent": [50, 100],
    "bake_s": 2.0,
    "min_requests": 20,
    "required_gates": [],
    "latency_margin": 1000.0,
    "error_budget": 0.3,
    "step_timeout_s": 40.0,
    "start_timeout_s": 40.0,
    "on_inconclusive": "back",
    "watch_s": 0.0,
    "drain_s": 2.0,
    "standby_s": 0.0,
}
SETTLES_S: Final = 300.0
"""Time after the last fault in which everything must have come to an end."""
_RETRY_S: Final = 2.0
_PATIENCE_S: Final = 120.0


@cache
def bundles() -> tuple[Path, dict[str, str]]:
    """A store with a bundle for each release, and their digests; made once for all simulations."""
    root = Path(tempfile.mkdtemp(prefix="simulated-"))
    store = ArtifactStore((root / "store").as_uri())
    digests = {}
    for seed, name in enumerate(RELEASES):
        write_bundle(root / name, root / "keys", seed=seed, name=MODEL)
        digests[name] = store.put_bundle(root / name)
    return root, digests


class SimulatedReplicator:
    """Bundles are where they were made; what was replicated here is noted."""

    def __init__(self) -> None:
        self.verified: set[str] = set()
        self.broken = False

    def folder(self, digest: str) -> Path:
        root, digests = bundles()
        return root / next(name for name, known in digests.items() if known == digest)

    def replicate(self, release: Release, *, cancelled: threading.Event | None = None) -> Manifest:
        if self.broken:
            raise RetryableError("bundle cannot be copied")
        self.verified.add(release.id)
        return read_manifest(self.folder(release.bundle_digest))


class World:
    """Use `play` once, then look at what is left."""

    def __init__(self, story: Story, seed: int, folder: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self._rng = Random(f"world {seed}")
        self._story = story
        self._tasks: list[asyncio.Task[None]] = []
        self._wall_s = 1e9
        self.violations: list[str] = []
        self.acknowledged: dict[str, Event] = {}
        self.agents: dict[str, SimulatedAgent | None] = dict.fromkeys(NAMES)
        self.network = Network(self._rng, self.agents)  # type: ignore[arg-type]
        self._topology = Topology(
            regions=[_region(name, folder) for name in NAMES], home_region=HOME, token_folder=folder, key_folder=folder
        )
        self.places = {region.name: self._make_place(region) for region in self._topology.regions}
        self._down: dict[str, int] = dict.fromkeys(NAMES, 0)
        self._starting: dict[str, asyncio.Task[None]] = {}

    def _make_place(self, region: Region) -> Place:
        machine, replicator = Machine(self._rng), SimulatedReplicator()

        def check(route: Route) -> None:
            for backend in route.backends:
                if not backend.remote and backend.release not in replicator.verified:
                    self.violations.append(f"{region.name} routes to {backend.release}, which was never verified there")

        gateway = Gateway(
            machine,
            self._rng,
            timeout_s=TIMING.gateway_timeout_s,
            is_bad=lambda release: (release, region.name) in self._story.bad,
            on_route=check,
        )
        region.state_folder.mkdir(parents=True)
        clock = SteadyClock(
            region.state_folder / "clock.json",
            wall=self._wall,
            since_boot=self._loop.time,
            boot_id=lambda: "boot",
        )
        clock.save()
        return Place(
            region=region,
            database=Database(self._rng),
            machine=machine,
            gateway=gateway,
            replicator=replicator,  # type: ignore[arg-type]
            clock=clock,
        )

    def _wall(self) -> float:
        return self._wall_s + self._loop.time()

    # The story

    async def play(self) -> None:
        """From v1, live everywhere, to the quiet after the last fault."""
        for name, place in self.places.items():
            _serve_first(place)
            self._revive(name)
        await self._wait_until(self.is_quiet, SETTLES_S)
        for event in self._story.events:
            self._tasks.append(asyncio.create_task(self._befall(event)))
        await asyncio.gather(*self._tasks)
        await self._wait_until(self.is_quiet, SETTLES_S)
        # What comes late comes now.
        await asyncio.sleep(20.0)

    async def _befall(self, event: Event) -> None:
        await asyncio.sleep(event.at)
        happen: Callable[[Event], Awaitable[None]] = getattr(self, event.what)
        await happen(event)

    async def _wait_until(self, holds: Callable[[], bool], at_most_s: float) -> None:
        ends = self._loop.time() + at_most_s
        while self._loop.time() < ends and not holds():
            await asyncio.sleep(1.0)

    def is_quiet(self) -> bool:
        """Whether nothing is under way or owed, and every gateway has what its region's agent plans."""
        for name, place in self.places.items():
            agent = self.agents[name]
            if agent is None or agent.registry.rollouts_under_way() or agent.rollbacks.under_way():
                return False
            if place.gateway.in_force.get(MODEL) != agent.serving.plan(MODEL):
                return False
            if set(place.machine.running) != agent.serving.wanted():
                return False
        return not self.open_orders() and not self.apart_on_home()

    def apart_on_home(self) -> list[str]:
        """Regions that follow another epoch than the one that leads, or whose papers that one has not taken in."""
        latest = self.home().epochs.present()
        alive = {name: agent for name, agent in self.agents.items() if agent is not None}
        found = [f"{name} follows {a.epochs.present()}" for name, a in alive.items() if a.epochs.present() != latest]
        merged = self.home().home._merged
        missing = [name for name in alive if name != latest.home and (latest, name) not in merged]
        return [*found, *(f"{latest.home} has not merged what {name} knows" for name in missing)]

    def open_orders(self) -> list[str]:
        """Promotions and rollbacks that are running at home, or owe something; reports that home lacks."""
        home = self.home()
        found = [d for d in home.registry.promotions(limit=1000) if d["state"] == RUNNING or d["owed"] or d["watching"]]
        found += [{"id": id} for id in home.rollback_leader._open_orders()]
        unreported = [a.regional_rollbacks._unreported() for a in self.agents.values() if a is not None]
        return [*(str(d["id"]) for d in found), *(r.id for listed in unreported for r in listed)]

    def home(self) -> SimulatedAgent:
        """The agent that leads in the latest epoch that any agent follows; of a region without an agent, any other."""
        alive = [agent for agent in self.agents.values() if agent is not None]
        latest = max(agent.epochs.present() for agent in alive)
        return self.agents[latest.home] or alive[0]

    async def close(self) -> None:
        starting = list(self._starting.values())
        for task in [*self._tasks, *starting]:
            task.cancel()
        await asyncio.gather(*self._tasks, *starting, return_exceptions=True)
        await asyncio.gather(*(agent.kill() for agent in self.agents.values() if agent is not None))
        await self.network.close()
        for place in self.places.values():
            place.database.close()

    # Orders. Whoever gives one repeats it until it is taken or refused.

    async def promote(self, event: Event) -> None:
        order = {
            "schema_version": 1,
            "release": _release(str(event.release)),
            "policy": {**POLICY, **event.policy},
            "regions": list(event.regions or NAMES),
        }
        await self._order(event, "put_promotion", event.id, order)

    async def roll_back(self, event: Event) -> None:
        to = None if event.release is None else {"release": event.release}
        regions = None if event.regions is None else list(event.regions)
        order = {"schema_version": 1, "model": MODEL, "to": to, "regions": regions, "reason": "users complain"}
        await self._order(event, "put_rollback", event.id, order)

    async def abort(self, event: Event) -> None:
        """The newest promotion, if one is running at that moment."""
        home = self._leading(HOME)
        agent = self.agents[home]
        if agent is not None and not self.places[home].database.away:
            running = [d["id"] for d in agent.registry.promotions() if d["state"] == RUNNING]
            for id in running:
                await self._order(replace(event, id=f"abort {id}"), "abort_promotion", id)

    async def move_home(self, event: Event) -> None:
        """To the region that the event names, whose agent is asked."""
        await self._order(event, "take_home", follow=False, force=event.force)

    def _leading(self, where: str) -> str:
        """The region that leads, as the agent of this one says."""
        agent = self.agents[where]
        return where if agent is None or self.places[where].database.away else agent.epochs.present().home

    async def _order(self, event: Event, call: str, *arguments: Any, follow: bool = True, **named: Any) -> None:
        ends = self._loop.time() + _PATIENCE_S
        while True:
            agent = self.agents[event.where]
            if agent is not None:
                handling = agent.handle(call, *arguments, **named)
                await asyncio.wait({handling})
                if not handling.cancelled():
                    failure = handling.exception()
                    if failure is None:
                        self.acknowledged[event.id] = event
                        return
                    if isinstance(failure, Fenced) and follow:
                        event = replace(event, where=self._leading(event.where))
                        await asyncio.sleep(_RETRY_S)
                        continue
                    refused = isinstance(failure, PermanentError)
                    if refused and not (event.patient and self._loop.time() < ends):
                        return
                    if not isinstance(failure, FlightpathError):
                        self.network.bugs.append(f"{call}: {failure!r}")
                        return
            await asyncio.sleep(_RETRY_S)

    # Faults

    async def kill(self, event: Event) -> None:
        """Killed while it is down already, it stays down until the last of both ends."""
        self._down[event.where] += 1
        if (starting := self._starting.pop(event.where, None)) is not None:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
        agent, self.agents[event.where] = self.agents[event.where], None
        if agent is not None:
            await agent.kill()
        await asyncio.sleep(event.for_s)
        self._down[event.where] -= 1
        if self._down[event.where] == 0:
            self._revive(event.where)

    def _revive(self, name: str) -> None:
        self._starting[name] = asyncio.create_task(self._start(name))

    async def _start(self, name: str) -> None:
        """As a supervisor does: again until the database is back."""
        while True:
            try:
                agent = SimulatedAgent(self.places[name], self._topology, self.network)
            except FlightpathError:
                await asyncio.sleep(_RETRY_S)
                continue
            try:
                await agent.start()
            except FlightpathError:
                await agent.kill()
                await asyncio.sleep(_RETRY_S)
            except asyncio.CancelledError:
                await agent.kill()
                raise
            else:
                self.agents[name] = agent
                return

    async def cut(self, event: Event) -> None:
        link = frozenset((event.where, event.other))
        self.network.cuts.add(link)
        await asyncio.sleep(event.for_s)
        self.network.cuts.discard(link)

    async def lose_messages(self, event: Event) -> None:
        self.network.loses = event.share
        await asyncio.sleep(event.for_s)
        self.network.loses = 0.0

    async def take_database_away(self, event: Event) -> None:
        self.places[event.where].database.away = True
        await asyncio.sleep(event.for_s)
        self.places[event.where].database.away = False

    async def lose_commits(self, event: Event) -> None:
        self.places[event.where].database.forgets_answers = event.share
        await asyncio.sleep(event.for_s)
        self.places[event.where].database.forgets_answers = 0.0

    async def end_gateway(self, event: Event) -> None:
        gateway = self.places[event.where].gateway
        gateway.restart()
        gateway.away = True
        await asyncio.sleep(event.for_s)
        gateway.away = False

    async def hang_gateway(self, event: Event) -> None:
        self.places[event.where].gateway.hangs_until = self._loop.time() + event.for_s
        await asyncio.sleep(event.for_s)

    async def lose_gateway_calls(self, event: Event) -> None:
        self.places[event.where].gateway.loses = event.share
        await asyncio.sleep(event.for_s)
        self.places[event.where].gateway.loses = 0.0

    async def crash_server(self, event: Event) -> None:
        self.places[event.where].machine.crash()

    async def break_store(self, event: Event) -> None:
        self.places[event.where].replicator.broken = True  # type: ignore[attr-defined]
        await asyncio.sleep(event.for_s)
        self.places[event.where].replicator.broken = False  # type: ignore[attr-defined]

    async def set_wall_clock(self, event: Event) -> None:
        self._wall_s += event.by_s


def _region(name: str, folder: Path) -> Region:
    return Region(
        name=name,
        gateway_url="http://127.0.0.1:1",
        agent_url=f"http://{name}:1",
        store_uri=(folder / "store").as_uri(),
        registry_url="",
        state_folder=folder / name,
    )


def _serve_first(place: Place) -> None:
    registry, release = SimulatedRegistry(place.database, place.clock), Release.from_json(_release("v1"))
    registry.add_release(release)
    live = LiveModel(model=MODEL, release_id=release.id, previous_release_id=None, reason=None)
    registry.set_live(live, JournalEvent(kind="rollout", subject=release.id, message="live", detail={}))
    registry.close()
    place.replicator.replicate(release)
    place.machine.start(release.id)


def _release(id: str) -> dict[str, Any]:
    root, digests = bundles()
    runtime = {"engine": "onnxruntime", "variant": VARIANT, "arguments": [], "environment": {}}
    uri = (root / "store").as_uri()
    return {"id": id, "model": MODEL, "bundle_digest": digests[id], "store_uri": uri, "runtime": runtime}
