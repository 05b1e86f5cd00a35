"""Keeps what a region serves in step with what its registry says: live servers run, routes are in force.

Level-triggered: each pass derives servers and routes from the registry, the launcher and the peers,
so it does not matter which change was missed, who restarted or in which order things came back.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from serving.bundle import Manifest, read_manifest
from serving.counters import Snapshot
from serving.errors import FlightpathError, NotFound
from serving.regions.deciding.recent import RecentCounts
from serving.regions.deciding.rollout_document import read_rollout
from serving.regions.deciding.rollout_state import SHADOW, Rollout
from serving.regions.deciding.timing import DEFAULT_TIMING, Timing
from serving.regions.places.peers import Peers
from serving.regions.registry import schema
from serving.regions.registry.registry import Event, LiveModel, Registry
from serving.regions.registry.rollback_store import RollbackStore
from serving.regions.replication import Replicator
from serving.regions.servers.launcher import Launcher
from serving.regions.servers.server_process import ServerSpec
from serving.regions.servers.standby import end_of_standby, free_memory_share
from serving.regions.traffic.gateway_traffic import Beside, LocalServer, TrafficBackend, plan_route
from serving.routes import Route

logger = logging.getLogger(__name__)


class ServingState:
    """One region's live servers and routes."""

    def __init__(
        self,
        region: str,
        *,
        registry: Registry,
        launcher: Launcher,
        traffic: TrafficBackend,
        peers: Peers,
        replicator: Replicator,
        timing: Timing = DEFAULT_TIMING,
        clock: Callable[[], float] = time.time,
        free_memory: Callable[[], float] = free_memory_share,
    ) -> None:
        self._region = region
        self._registry = registry
        self._launcher = launcher
        self._traffic = traffic
        self._peers = peers
        self._replicator = replicator
        self._timing = timing
        self._clock = clock
        self._free_memory = free_memory
        self._rollbacks = RollbackStore(registry, schema.rollbacks)
        self._endings: set[asyncio.Task[None]] = set()
        self._recent = RecentCounts(window_s=timing.budget_window_s, sample_s=timing.budget_sample_s)
        self._in_force: dict[str, tuple[Route, str]] = {}
        self._pushing = asyncio.Lock()
        self.gateway_error: str | None = "not asked yet"

    # Servers

    def spec(self, release_id: str) -> ServerSpec:
        """How a release is served here; raises NotFound."""
        release, version = self._registry.release(release_id)
        return ServerSpec(
            name=release.id,
            model=release.model,
            version=version,
            bundle=self._replicator.folder(release.bundle_digest),
            runtime=release.runtime,
        )

    async def prepare(self, release_id: str) -> Manifest:
        """The release's bundle, copied and verified unless it is here; errors of `Replicator.replicate`."""
        release, _ = self._registry.release(release_id)
        return await asyncio.to_thread(self._replicator.replicate, release)

    async def launch(self, release_id: str, *, restart: bool) -> None:
        await self._launcher.ensure(self.spec(release_id), restart=restart)

    def wanted(self, *, without: str = "") -> set[str]:
        """Releases whose servers may run: live ones, standbys, both sides of every rollout and rollback under way.

        `without` leaves out one rollout or rollback, to see what nobody else needs.
        """
        entries = self._registry.live_models()
        names = {name for entry in entries for name in (entry.release_id, entry.standby)}
        for document in self._registry.rollouts_under_way():
            if document["id"] != without:
                names |= {document["release"]["id"], document["previous"]}
        for document in self._rollbacks.under_way():
            if document["id"] != without:
                names |= {document["release"], *document["replaced"]}
        return {name for name in names if name is not None}

    async def _end_standbys(self) -> None:
        """Let go of standbys whose time is over, that have failed, or whose memory is needed."""
        for live in self._registry.live_models():
            if live.standby is None:
                continue
            status = self._launcher.status(live.standby)
            why = end_of_standby(live, status, now=self._clock(), free_memory=self._free_memory())
            if why is not None:
                event = Event(kind="server", subject=live.standby, message=f"stands by no longer: {why}", detail={})
                self._registry.set_live(replace(live, standby=None, standby_until=None), event)

    async def _end_unwanted(self) -> None:
        """Nothing runs that nobody needs, whoever forgot it."""
        wanted = self.wanted()
        for name in self._launcher.names():
            if name not in wanted:
                logger.info("ending the server of %s, which nobody wants", name)
                ending = asyncio.create_task(self._launcher.stop(name))
                self._endings.add(ending)
                ending.add_done_callback(self._endings.discard)
        # They leave the launcher's list before anything else is decided on that list.
        await asyncio.sleep(0)

    async def _run_live_servers(self) -> None:
        for entry in self._registry.live_models():
            if entry.release_id is None:
                continue
            try:
                if not self.spec(entry.release_id).bundle.exists():
                    await self.prepare(entry.release_id)
                await self.launch(entry.release_id, restart=True)
            except FlightpathError as failure:
                logger.error("live release %s cannot be served: %s", entry.release_id, failure)

    # Routes

    def plan(self, model: str) -> Route:
        """What the gateway should do with this model now."""
        live, rollout = self._registry.live(model), self._rollout_under_way(model)
        server = None if live is None or live.release_id is None else self._server(live.release_id)
        labelled_by = live.release_id if live is not None else None
        if labelled_by is None and rollout is not None:
            labelled_by = rollout.release.id
        return plan_route(
            model,
            region=self._region,
            live=server,
            beside=None if rollout is None else self._beside(rollout),
            remotes=self._peers.serving(model),
            reason=self._reason(live),
            classes=self.classes(labelled_by),
        )

    def _beside(self, rollout: Rollout) -> Beside | None:
        policy = rollout.policy
        if rollout.watching:
            before = None if rollout.previous is None or policy.watch_share == 0 else self._server(rollout.previous)
            if before is None:
                return None
            return Beside(server=before, percent=0, mirror_share=policy.watch_share, is_candidate=False)
        candidate = self._server(rollout.release.id)
        if candidate is None or rollout.candidate_percent is None:
            return None
        return Beside(
            server=candidate,
            percent=rollout.candidate_percent,
            mirror_share=policy.mirror_share,
            shadow_share=policy.shadow_share if rollout.state == SHADOW else 0.0,
            completions_share=policy.completions_share,
        )

    def _reason(self, live: LiveModel | None) -> str | None:
        if live is None or live.release_id is None:
            return None if live is None else live.reason
        status = self._launcher.status(live.release_id)
        return f"the server of {live.release_id} does not answer {status.note}".strip()

    def _rollout_under_way(self, model: str) -> Rollout | None:
        rollouts = [read_rollout(document) for document in self._registry.rollouts_under_way()]
        mine = [r for r in rollouts if r.release.model == model]
        return next((r for r in mine if r.candidate_percent is not None or r.watching), None)

    def _server(self, release_id: str) -> LocalServer | None:
        url = self._launcher.status(release_id).url
        if url is None:
            return None
        return LocalServer(release=release_id, version=self._registry.release(release_id)[1], url=url)

    def classes(self, release_id: str | None) -> list[str]:
        """Labels from the bundle's manifest; empty when the bundle is not here."""
        if release_id is None:
            return []
        try:
            return read_manifest(self.spec(release_id).bundle).classes
        except FlightpathError:
            return []

    def models(self) -> list[str]:
        rollouts = self._registry.rollouts_under_way()
        live = {entry.model for entry in self._registry.live_models()}
        return sorted(live | {document["release"]["model"] for document in rollouts} | self._peers.models())

    async def push(self, model: str) -> Snapshot:
        """Put the planned route in force and return the counters read after that; raises what the gateway raises."""
        async with self._pushing:
            # Planned under the lock, so that the last push is the newest plan.
            route = self.plan(model)
            await self._traffic.set_route(route)
            stats = await self._traffic.stats(model)
            self._in_force[model] = (route, stats.boot_id)
            return stats

    async def stats(self, model: str) -> Snapshot | None:
        """The gateway's counters, None when it does not answer."""
        try:
            return await self._traffic.stats(model)
        except FlightpathError:
            return None

    def recent(self, model: str, stats: Snapshot) -> Snapshot:
        """What the gateway has counted in the last `budget_window_s`, as far back as this agent has looked."""
        return self._recent.until(model, stats)

    async def keep(self) -> None:
        """Run live servers, end those that nobody needs and push routes until cancelled."""
        while True:
            await self._run_live_servers()
            await self._end_standbys()
            await self._end_unwanted()
            for model in self.models():
                await self._push_if_changed(model)
            await asyncio.sleep(self._timing.serving_pass_s)

    async def _push_if_changed(self, model: str) -> None:
        try:
            if model in self._in_force and self._in_force[model] == (self.plan(model), await self._boot_id(model)):
                self.gateway_error = None
                return
            await self.push(model)
            self.gateway_error = None
        except FlightpathError as failure:
            if self.gateway_error != str(failure):
                logger.warning("route of %s is not in force: %s", model, failure)
            self.gateway_error = str(failure)

    async def _boot_id(self, model: str) -> str | None:
        """None for a gateway that has forgotten the model."""
        try:
            stats = await self._traffic.stats(model)
        except NotFound:
            return None
        self._recent.note(model, stats, self._clock())
        return stats.boot_id

    # What others are told

    def served_here(self) -> list[dict[str, Any]]:
        """Models with a live server that answers, for the peers."""
        entries = []
        for entry in self._registry.live_models():
            server = None if entry.release_id is None else self._server(entry.release_id)
            if server is not None:
                labels = self.classes(server.release)
                known = {"model": entry.model, "release": server.release, "version": server.version}
                entries.append({**known, "classes": labels})
        return entries
