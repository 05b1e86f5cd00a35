"""One region's agent as `serving.regions.agent` builds it, without sockets, processes and files."""

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from serving.regions.acting.metrics import AgentMetrics
from serving.regions.acting.regional_rollbacks import RegionalRollbacks
from serving.regions.acting.rollback_worker import RollbackWorker
from serving.regions.acting.rollout_worker import RolloutWorker
from serving.regions.acting.serving_state import ServingState
from serving.regions.acting.supervision import Loops
from serving.regions.deciding.timing import Timing
from serving.regions.leading.home import Home
from serving.regions.leading.led_region import LedRegion, OwnRegion
from serving.regions.leading.promotion_leader import PromotionLeader
from serving.regions.leading.promotion_orders import PromotionOrders
from serving.regions.leading.rollback_leader import RollbackLeader
from serving.regions.places.peers import Peers
from serving.regions.places.topology import Region, Topology
from serving.regions.registry.epochs import EpochStore
from serving.regions.replication import Replicator
from tests.simulation.database import Database, SimulatedRegistry
from tests.simulation.gateway import Gateway
from tests.simulation.link import Link, Network
from tests.simulation.machine import Machine, SimulatedLauncher

T = TypeVar("T")
logger = logging.getLogger(__name__)
_ACTOR = "operator"
TIMING = Timing(
    rollout_poll_s=1.0,
    rollback_poll_s=0.5,
    promotion_poll_s=1.0,
    rollback_ask_s=1.0,
    rollback_ask_retry_s=1.0,
    serving_pass_s=2.0,
    peers_poll_s=4.0,
    overtaken_poll_s=1.0,
)
"""As by default, but where an agent would look so often that a simulated minute takes long."""


@dataclass(kw_only=True, slots=True)
class Place:
    """What is in a region whether or not its agent lives."""

    region: Region
    database: Database
    machine: Machine
    gateway: Gateway
    replicator: Replicator
    clock: Callable[[], float]


class SimulatedAgent:
    """`start` it; `kill` leaves the place as it is."""

    def __init__(self, place: Place, topology: Topology, network: Network) -> None:
        self._place = place
        self._topology = topology
        self._network = network
        self._handling: set[asyncio.Task[Any]] = set()
        self.name = place.region.name
        self.loops = Loops(
            logger,
            first_backoff_s=TIMING.first_backoff_s,
            max_backoff_s=TIMING.max_backoff_s,
            clock=asyncio.get_running_loop().time,
        )
        self.registry = SimulatedRegistry(place.database, place.clock)
        self._build()

    def _link(self, target: str) -> Link:
        return Link(self._network, self.name, target, timeout_s=TIMING.agent_timeout_s)

    def _connect(self, agent_url: str, token: str, *, timeout_s: float) -> Link:
        target = next(region.name for region in self._topology.regions if region.agent_url == agent_url)
        return Link(self._network, self.name, target, timeout_s=timeout_s)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        """A copy takes seconds."""
        await asyncio.sleep(self._network.rng.uniform(0.0, 3.0))
        return work()

    def _build(self) -> None:
        place, topology = self._place, self._topology
        region = place.region
        known: dict[str, Any] = {"registry": self.registry, "clock": place.clock}
        timed: dict[str, Any] = {**known, "timing": TIMING}
        others = [other for other in topology.regions if other.name != region.name]
        metrics = AgentMetrics()
        self.launcher = SimulatedLauncher(place.machine)
        self.peers = Peers(others, str, timing=TIMING, connect=self._connect)
        self.serving = ServingState(
            region.name,
            **timed,
            launcher=self.launcher,
            traffic=place.gateway,
            peers=self.peers,
            replicator=place.replicator,
            free_memory=lambda: 1.0,
            in_thread=self._in_thread,
        )
        here: dict[str, Any] = {**timed, "launcher": self.launcher, "serving": self.serving, "metrics": metrics}
        self.epochs = EpochStore(self.registry, topology.home_region)
        here["epochs"] = self.epochs
        self.rollbacks = RollbackWorker(region, **here)
        self.rollouts = RolloutWorker(
            region, **here, peers=self.peers, superseded_by=self.rollbacks.superseding_promotion
        )
        links = {other.name: self._link(other.name) for other in others}
        urls = {other.name: other.agent_url for other in topology.regions}
        self.home = Home(region.name, urls, registry=self.registry, epochs=self.epochs, peers=links)
        led = {name: LedRegion(link, require=self.home.require, registry=self.registry) for name, link in links.items()}
        led[region.name] = LedRegion(
            OwnRegion(self.rollouts, self.rollbacks), require=self.home.require, registry=self.registry
        )
        self.rollback_leader = RollbackLeader(
            topology,
            region.name,
            **timed,
            require=self.home.require,
            regions=led,
            peers=self.peers,
            on_promotion_ended=metrics.promotion_finished,
        )
        self.promotion_leader = PromotionLeader(**timed, regions=led, metrics=metrics)
        self.promotions = PromotionOrders(
            topology,
            **known,
            require=self.home.require,
            runtimes={},
            rollbacks=self.rollback_leader,
            leading=self.promotion_leader,
            in_thread=self._in_thread,
        )
        self.regional_rollbacks = RegionalRollbacks(
            region.name,
            registry=self.registry,
            epochs=self.epochs,
            worker=self.rollbacks,
            homes={**links, region.name: self.rollback_leader},
        )

    async def start(self) -> None:
        await self.peers.ask()
        wanted = await self.registry.run(self.serving.wanted)
        for name in self.launcher.names():
            if name not in wanted:
                await self.launcher.stop(name)
        for worker in (self.rollbacks, self.rollouts):
            await worker.resume()
        await self.home.start([self.rollback_leader, self.promotion_leader])
        self._repeat("serving", self.serving.look_after, TIMING.serving_pass_s, TIMING.stuck_after_s)
        self._repeat("peers", self.peers.ask, TIMING.peers_poll_s, TIMING.stuck_after_s)
        self._repeat("reports to home", self.regional_rollbacks.report, TIMING.owed_every_s, math.inf)
        self._repeat("home", self.home.look_after, TIMING.home_poll_s, math.inf)
        self.loops.keep("model servers", lambda beat: self.launcher.supervise(), stuck_after_s=math.inf)

    def _repeat(self, name: str, one_pass: Callable[[], Awaitable[None]], every_s: float, stuck_after_s: float) -> None:
        self.loops.repeat(name, one_pass, every_s=every_s, stuck_after_s=stuck_after_s)

    def handle(self, call: str, *arguments: Any, **named: Any) -> asyncio.Task[Any]:
        """Carry out what another agent or a user asks, until this agent dies."""
        task = asyncio.ensure_future(self._handlers()[call](*arguments, **named))
        self._handling.add(task)
        task.add_done_callback(self._handling.discard)
        return task

    def _handlers(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        return {
            "put_rollout": self.rollouts.put_rollout,
            "get_rollout": self.rollouts.get_rollout,
            "revert_rollout": self.rollouts.revert_rollout,
            "put_region_rollback": self.rollbacks.put_region_rollback,
            "peer_models": lambda: self.registry.run(self.serving.served_here),
            "put_rollback": self._put_rollback,
            "report_rollback": self.rollback_leader.report_rollback,
            "put_promotion": partial(self.promotions.order, actor=_ACTOR),
            "abort_promotion": partial(self.promotions.abort, actor=_ACTOR),
            "get_home": self.home.show,
            "tell_home": self.home.learn,
            "handover": self.home.handover,
            "take_home": partial(self.home.take, reason="an operator says so", actor=_ACTOR),
        }

    async def _put_rollback(self, id: str, order: dict[str, Any]) -> Any:
        leads = await self.registry.run(lambda: self.home.leads)
        taker = self.rollback_leader if leads else self.regional_rollbacks
        return await taker.order(id, order, actor=_ACTOR)

    async def kill(self) -> None:
        """Nothing that it holds in memory is left; what its registry has is."""
        handling = list(self._handling)
        for task in handling:
            task.cancel()
        closing = [self.loops, self.serving, self.rollbacks, self.rollouts, self.home]
        await asyncio.gather(*(part.close() for part in closing))
        await asyncio.gather(*handling, return_exceptions=True)
        self.registry.close()
