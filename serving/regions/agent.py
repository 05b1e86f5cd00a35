"""The process that owns a region: its registry, rollouts, model servers and routes; at home the promotions too.

    python -m serving.regions.agent --region NAME

One agent per region, held by a lock on the state folder. It may be killed at any moment: servers and
gateway go on serving without it, and the next agent adopts them and goes on with what was under way.
"""

import argparse
import asyncio
import contextlib
import fcntl
import logging
import math
import os
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self
from urllib.parse import urlsplit

from serving import processes
from serving.credentials import ROLES, SentToken, TokenFolder, hop_credential
from serving.errors import Conflict, FlightpathError
from serving.files import sweep_writes
from serving.regions.acting.bundle_keeping import BundleKeeping
from serving.regions.acting.metrics import AgentMetrics
from serving.regions.acting.regional_rollbacks import RegionalRollbacks
from serving.regions.acting.rollback_worker import RollbackWorker
from serving.regions.acting.rollout_worker import RolloutWorker, replication_lag_s
from serving.regions.acting.scoring import Scoring
from serving.regions.acting.serving_state import ServingState
from serving.regions.acting.steady_clock import SteadyClock
from serving.regions.acting.supervision import Loops
from serving.regions.acting.threads import in_own_thread
from serving.regions.agent_api import AgentApi
from serving.regions.deciding.timing import DEFAULT_TIMING
from serving.regions.leading.home import Home
from serving.regions.leading.led_region import LedRegion, OwnRegion
from serving.regions.leading.promotion_leader import PromotionLeader
from serving.regions.leading.promotion_orders import PromotionOrders
from serving.regions.leading.rollback_leader import RollbackLeader
from serving.regions.places.client import AgentClient
from serving.regions.places.peers import Peers
from serving.regions.places.topology import Region, Topology, load_topology
from serving.regions.registry.epochs import EpochStore
from serving.regions.registry.registry import Event, LiveModel, Registry
from serving.regions.replication import BundleAudit, Replicator
from serving.regions.servers.launcher import LaunchSettings, LocalLauncher
from serving.regions.traffic.gateway_traffic import GatewayTraffic
from serving.settings import Settings
from serving.web_server import ServerLimits, WebServer, bind_listener, run_on_uvloop, stop_on_signals

logger = logging.getLogger(__name__)
_HOST: Final = "127.0.0.1"
_LIMITS: Final = ServerLimits(idle_grace_s=0.1, drain_s=2.0)


class RegionLock:
    """An flock on `{region folder}/agent.lock`: the kernel lets go of it when its holder dies."""

    def __init__(self, region: Region) -> None:
        self._region = region
        self._descriptor: int | None = None

    def __enter__(self) -> Self:
        self._region.state_folder.mkdir(parents=True, exist_ok=True)
        path = self._region.state_folder / "agent.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            os.close(descriptor)
            raise Conflict(
                f"region {self._region.name} has an agent already", got=str(path), expected="no other agent"
            ) from held
        self._descriptor = descriptor
        return self

    def __exit__(self, *_: object) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Agent:
    """One region's agent. `start`, then `stop`; model servers outlive it."""

    def __init__(
        self,
        topology: Topology,
        region_name: str,
        *,
        launch: LaunchSettings | None = None,
        listen: tuple[str, int] | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self.region = topology.region(region_name)
        self._topology = topology
        self._launch = launch
        self._listen = listen or (_HOST, urlsplit(self.region.agent_url).port or 80)
        self._given_clock = clock
        self._stack = contextlib.AsyncExitStack()
        self._stopping = asyncio.Event()
        self._timing = DEFAULT_TIMING
        self.loops = Loops(
            logger, first_backoff_s=self._timing.first_backoff_s, max_backoff_s=self._timing.max_backoff_s
        )

    async def start(self) -> None:
        """Take the region's lock, adopt what runs, go on with what was under way, then answer calls.

        Raises Conflict when another agent holds the region or its port.
        """
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise

    async def _start(self) -> None:
        self._stack.enter_context(RegionLock(self.region))
        sweep_writes(self.region.state_folder, "clock.json")
        sweep_writes(self.region.state_folder / "servers")
        self._stack.push_async_callback(self.loops.close)
        listener = self._stack.enter_context(self._bind())
        self._clock = self._given_clock or self._start_clock()
        tokens = self._open_tokens()
        self.registry = await asyncio.to_thread(Registry, self.region.registry_url, clock=self._clock)
        self._stack.push_async_callback(self._close_registry)
        self._build(tokens)
        self._stack.push_async_callback(self.serving.close)
        await self.peers.ask()
        await self._adopt()
        for worker in (self.rollbacks, self.rollouts):
            self._stack.push_async_callback(worker.close)
            await worker.resume()
        self._stack.push_async_callback(self.home.close)
        await self.home.start([self.rollback_leader, self.promotion_leader])
        self._keep_up()
        # Before the workers and the registry that they lean on.
        self._stack.push_async_callback(self.loops.close)
        server = WebServer(self._api(tokens).app(), _LIMITS)
        await server.start(listener)
        self._stack.push_async_callback(server.drain)

    def _open_tokens(self) -> TokenFolder:
        """Raises NotFound where a role has none."""
        tokens = TokenFolder(folder=self._topology.token_folder)
        for role in ROLES:
            tokens.read(role)
        return tokens

    def _start_clock(self) -> SteadyClock:
        clock = SteadyClock(self.region.state_folder / "clock.json")

        async def save() -> None:
            await asyncio.to_thread(clock.save)

        self.loops.repeat("clock", save, every_s=self._timing.clock_save_s, stuck_after_s=self._timing.stuck_after_s)
        return clock

    def _keep_up(self) -> None:
        """What goes on as long as the agent lives."""
        timing, stuck_after_s = self._timing, self._timing.stuck_after_s
        self.loops.keep("model servers", self.launcher.supervise, stuck_after_s=stuck_after_s)
        self.loops.repeat(
            "serving", self.serving.look_after, every_s=timing.serving_pass_s, stuck_after_s=stuck_after_s
        )
        # Reading all that is served may take hours.
        self.loops.repeat("bundles", self.bundles.look_after, every_s=timing.audit_every_s, stuck_after_s=math.inf)
        # A home that is away for long is no fault of this agent's.
        self.loops.repeat(
            "reports to home", self.regional_rollbacks.report, every_s=timing.owed_every_s, stuck_after_s=math.inf
        )
        self.loops.repeat("home", self.home.look_after, every_s=timing.home_poll_s, stuck_after_s=math.inf)
        self.loops.repeat("peers", self.peers.ask, every_s=timing.peers_poll_s, stuck_after_s=stuck_after_s)

    def _stuck(self) -> list[str]:
        busy_s = self.registry.busy_s()
        registry = [f"registry: a call has not ended for {busy_s:.0f} s"] if busy_s > self._timing.stuck_after_s else []
        return [*registry, *self.loops.stuck()]

    async def _close_registry(self) -> None:
        """A database that hangs keeps no agent from ending."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(in_own_thread(self.registry.close), self._timing.registry_close_s)

    def _build(self, tokens: TokenFolder) -> None:
        as_peer = SentToken(tokens, "peer")
        region, others = self.region, [r for r in self._topology.regions if r.name != self.region.name]
        self.metrics = AgentMetrics()
        self.launcher = LocalLauncher(
            region.state_folder / "servers",
            region.state_folder.parent.parent / "logs",
            runtimes=self._topology.runtimes,
            settings=self._launch,
            on_restart=self._note_restart,
        )
        self.peers = Peers(others, as_peer)
        traffic = GatewayTraffic(region.gateway_url, SentToken(tokens, "gateway"))
        self.scoring = Scoring(traffic, timeout_s=self._timing.scorer_timeout_s)
        self._stack.push_async_callback(self.scoring.close)
        self.replicator = Replicator(
            region=region, key_folder=self._topology.key_folder, peer_stores=[other.store_uri for other in others]
        )
        self.bundles = BundleKeeping(
            BundleAudit(replicator=self.replicator, clock=self._clock),
            registry=self.registry,
            peers=self.peers,
            wanted=lambda: self.serving.wanted(),
        )
        self._stack.callback(self.bundles.end)
        self.serving = ServingState(
            region.name,
            registry=self.registry,
            launcher=self.launcher,
            traffic=traffic,
            peers=self.peers,
            replicator=self.replicator,
            clock=self._clock,
            heal_bundle=self.bundles.heal,
        )
        self.epochs = EpochStore(self.registry, self._topology.home_region)
        self.rollbacks = RollbackWorker(
            region,
            registry=self.registry,
            launcher=self.launcher,
            serving=self.serving,
            metrics=self.metrics,
            epochs=self.epochs,
            clock=self._clock,
        )
        self.rollouts = RolloutWorker(
            region,
            registry=self.registry,
            launcher=self.launcher,
            serving=self.serving,
            peers=self.peers,
            metrics=self.metrics,
            scoring=self.scoring,
            credential=lambda: hop_credential(as_peer()),
            epochs=self.epochs,
            superseded_by=self.rollbacks.superseding_promotion,
            clock=self._clock,
        )
        self._build_leaders({other.name: AgentClient(other.agent_url, as_peer) for other in others})

    def _build_leaders(self, clients: Mapping[str, AgentClient]) -> None:
        """What works only while this agent leads."""
        here = self.region.name
        known: dict[str, Any] = {"registry": self.registry, "clock": self._clock}
        urls = {region.name: region.agent_url for region in self._topology.regions}
        self.home = Home(here, urls, registry=self.registry, epochs=self.epochs, peers=clients)
        led = {
            name: LedRegion(client, require=self.home.require, registry=self.registry)
            for name, client in clients.items()
        }
        own = LedRegion(OwnRegion(self.rollouts, self.rollbacks), require=self.home.require, registry=self.registry)
        self.rollback_leader = RollbackLeader(
            self._topology,
            here,
            **known,
            require=self.home.require,
            regions={**led, here: own},
            peers=self.peers,
            on_promotion_ended=self.metrics.promotion_finished,
        )
        self.promotion_leader = PromotionLeader(**known, regions={**led, here: own}, metrics=self.metrics)
        self.promotions = PromotionOrders(
            self._topology,
            **known,
            require=self.home.require,
            runtimes=self._topology.runtimes,
            rollbacks=self.rollback_leader,
            leading=self.promotion_leader,
        )
        self.regional_rollbacks = RegionalRollbacks(
            here,
            registry=self.registry,
            epochs=self.epochs,
            worker=self.rollbacks,
            homes={**clients, here: self.rollback_leader},
        )

    def _note_restart(self, release: str, why: str) -> None:
        self.metrics.server_restarts.labels(release=release).inc()
        event = Event(kind="server", subject=release, message=f"started again: {why}", detail={"reason": why})
        self.serving.note(event)

    async def _adopt(self) -> None:
        """Take over running servers and end those that nobody wants."""
        await asyncio.to_thread(self.replicator.sweep)
        wanted = await self.registry.run(self.serving.wanted)
        for name in await self.launcher.adopt():
            if name not in wanted:
                logger.info("ending the server of %s, which nobody wants", name)
                await self.launcher.stop(name)

    def _bind(self) -> socket.socket:
        """Taken before anything is touched: an agent that cannot be reached must not work either."""
        host, port = self._listen
        try:
            return bind_listener(host, port)
        except OSError as taken:
            holder = processes.listener(port)
            got = str(taken) if holder is None else f"pid {holder.pid} ({holder.name()})"
            raise Conflict(f"port {port} is taken", got=got, expected="a free port") from taken

    def _api(self, tokens: TokenFolder) -> AgentApi:
        return AgentApi(
            region=self.region.name,
            home=self.home,
            tokens=tokens,
            registry=self.registry,
            rollouts=self.rollouts,
            rollbacks=self.rollbacks,
            serving=self.serving,
            promotions=self.promotions,
            rollback_leader=self.rollback_leader,
            regional_rollbacks=self.regional_rollbacks,
            describe_region=self.describe,
            metrics=self.metrics,
            servers=self._server_urls,
            stuck=self._stuck,
            stopping=self._stopping,
        )

    def _server_urls(self) -> dict[str, str]:
        return {name: url for name in self.launcher.names() if (url := self.launcher.status(name).url)}

    def describe(self) -> dict[str, Any]:
        """The answer of GET /v1/region."""
        rollouts, now = self.rollouts.under_way(), self._clock()
        models = [self._describe_model(model) for model in self.serving.models()]
        degraded = any(model["degraded"] for model in models) or self.serving.gateway_error is not None
        return {
            "region": self.region.name,
            "home": self.home.leads,
            "epoch": self.epochs.present().to_json(),
            "state": "degraded" if degraded else "ok",
            "endpoint": self.region.gateway_url,
            "gateway_error": self.serving.gateway_error,
            "replication_lag_s": replication_lag_s(rollouts, now),
            "peers": self.peers.reachable(),
            "models": models,
            "rollouts": [r.id for r in rollouts],
            "rollbacks": [r.id for r in self.rollbacks.under_way()],
        }

    def _describe_model(self, model: str) -> dict[str, Any]:
        live, route = self.registry.live(model), self.serving.plan(model)
        release = None if live is None else live.release_id
        version = None if release is None else self.registry.release(release)[1]
        status = None if release is None else self.launcher.status(release)
        return {
            "model": model,
            "release": release,
            "version": version,
            "previous_release": None if live is None else live.previous_release_id,
            "standby": None if live is None or live.standby is None else self._describe_standby(live),
            "reason": route.reason,
            "degraded": status is not None and status.url is None,
            "server": None
            if status is None
            else {"state": status.state, "url": status.url, "restarts": status.restarts, "note": status.note},
            "weights": {backend.id: backend.weight for backend in route.backends},
        }

    def _describe_standby(self, live: LiveModel) -> dict[str, Any]:
        status = self.launcher.status(str(live.standby))
        return {"release": live.standby, "until": live.standby_until, "state": status.state}

    async def stop(self) -> None:
        """Answer what is being asked, stop working; model servers stay."""
        self._stopping.set()
        await self._stack.aclose()


async def serve(topology: Topology, region_name: str, listen: tuple[str, int] | None = None) -> int:
    """Run an agent until SIGTERM or SIGINT; returns the exit code."""
    stop = asyncio.Event()
    stop_on_signals(stop.set)
    agent = Agent(topology, region_name, listen=listen)
    try:
        await agent.start()
    except FlightpathError as failure:
        print(f"agent {region_name}: {failure}", file=sys.stderr)
        return 1
    logger.info("agent of %s answers at %s", region_name, agent.region.agent_url)
    await stop.wait()
    await agent.stop()
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m serving.regions.agent", description="A region's agent.")
    parser.add_argument("--region", required=True)
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = Settings()
        topology, listen = load_topology(settings), settings.listen_address
        topology.region(options.region)
    except FlightpathError as failure:
        print(f"agent {options.region}: {failure}", file=sys.stderr)
        return 1
    return run_on_uvloop(serve(topology, options.region, listen))


if __name__ == "__main__":
    sys.exit(main())
