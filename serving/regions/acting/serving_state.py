"""Keeps what a region serves in step with what its registry says: live servers run, routes are in force.

Level-triggered: each pass derives servers and routes from the registry, the launcher and the peers,
so it does not matter which change was missed, who restarted or in which order things came back.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

from serving.bundle import Manifest, read_manifest
from serving.counters import Snapshot
from serving.errors import FlightpathError, Unreachable, UntrustedBundle
from serving.regions.acting.threads import InThread, in_own_thread
from serving.regions.deciding.recent import RecentCounts
from serving.regions.deciding.rollout_document import read_rollout
from serving.regions.deciding.rollout_state import SHADOW, Rollout
from serving.regions.deciding.timing import DEFAULT_TIMING, Timing
from serving.regions.places.peers import Peers
from serving.regions.registry import schema
from serving.regions.registry.database import RegistryUnavailable
from serving.regions.registry.registry import Event, LiveModel, Registry
from serving.regions.registry.rollback_store import RollbackStore
from serving.regions.replication import Replicator
from serving.regions.servers.launcher import Launcher
from serving.regions.servers.server_process import ServerSpec
from serving.regions.servers.standby import end_of_standby, free_memory_share
from serving.regions.traffic.gateway_traffic import Beside, LocalServer, TrafficBackend, plan_route
from serving.releases import Release
from serving.routes import Route

logger = logging.getLogger(__name__)


async def _leave(release: Release) -> None:
    """Nothing is mended."""


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
        heal_bundle: Callable[[Release], Awaitable[None]] = _leave,
        in_thread: InThread = in_own_thread,
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
        self._heal_bundle = heal_bundle
        self._in_thread = in_thread
        self._rollbacks = RollbackStore(registry, schema.rollbacks)
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._classes: dict[str, list[str]] = {}
        self._restarts: dict[str, int] = {}
        self._recent = RecentCounts(window_s=timing.budget_window_s, sample_s=timing.budget_sample_s)
        self._pushing = asyncio.Lock()
        self._gateway_silent_since: float | None = None
        self.gateway_error: str | None = "not asked yet"

    # Servers

    def spec(self, release_id: str) -> ServerSpec:
        """How a release is served here; raises NotFound."""
        release, version = self._registry.release(release_id)
        return ServerSpec(
            name=release.id,
            model=release.model,
            version=version,
            bundle=self.folder(release),
            runtime=release.runtime,
        )

    def folder(self, release: Release) -> Path:
        """Where the release's bundle lies once it was prepared."""
        return self._replicator.folder(release.bundle_digest)

    async def prepare(self, release_id: str) -> Manifest:
        """The release's bundle, copied and verified unless it is here; errors of `Replicator.replicate`."""
        release, _ = await self._registry.run(self._registry.release, release_id)
        cancelled = threading.Event()
        try:
            return await self._in_thread(lambda: self._replicator.replicate(release, cancelled=cancelled))
        finally:
            # A caller that was cancelled waits no longer; the copy stops at its next block.
            cancelled.set()

    async def prepare_again(self, release_id: str) -> None:
        """The same for a release that was live here: its digest was verified then, and says what it is when its key has
        retired. Without it nobody could go back to what the old key signed."""
        try:
            await self.prepare(release_id)
        except UntrustedBundle:
            release, _ = await self._registry.run(self._registry.release, release_id)
            await self._heal_bundle(release)

    async def launch(self, release_id: str, *, restart: bool) -> None:
        await self._launcher.ensure(await self._registry.run(self.spec, release_id), restart=restart)

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

    def _end_standbys(self) -> None:
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
        # Listed first: what is started from now on is wanted by then.
        names = self._launcher.names()
        wanted = await self._registry.run(self.wanted)
        for name in names:
            if name not in wanted:
                logger.info("ending the server of %s, which nobody wants", name)
                self._beside(f"end {name}", self._launcher.stop(name))
        # They leave the launcher's list before anything else is decided on that list.
        await asyncio.sleep(0)

    async def _run_live_servers(self) -> None:
        for spec in await self._registry.run(self._live_specs):
            if spec.bundle.exists():
                await self._launcher.ensure(spec, restart=True)
                if self._fails_to_start(spec.name):
                    self._beside(f"heal {spec.name}", self._heal(spec))
            else:
                self._beside(f"bring {spec.name}", self._bring_back(spec))

    def _live_specs(self) -> list[ServerSpec]:
        return [self.spec(entry.release_id) for entry in self._registry.live_models() if entry.release_id is not None]

    async def _bring_back(self, spec: ServerSpec) -> None:
        try:
            await self.prepare_again(spec.name)
            await self._launcher.ensure(spec, restart=True)
        except FlightpathError as failure:
            logger.error("live release %s cannot be served: %s", spec.name, failure)

    def _fails_to_start(self, name: str) -> bool:
        """Whether a server was started again twice without being ready since it was last, or since this said so."""
        status = self._launcher.status(name)
        known = self._restarts.setdefault(name, status.restarts)
        fails = status.url is None and status.restarts >= known + 2
        if fails or status.url is not None:
            self._restarts[name] = status.restarts
        return fails

    async def _heal(self, spec: ServerSpec) -> None:
        """A server that keeps ending may have a bundle that rots."""
        try:
            release, _ = await self._registry.run(self._registry.release, spec.name)
            await self._heal_bundle(release)
        except FlightpathError as failure:
            logger.error("bundle of live release %s cannot be mended: %s", spec.name, failure)

    def note(self, event: Event) -> None:
        """Into the journal, once the registry takes it."""
        self._beside(f"note {event.subject} {self._clock()}", self._write(event))

    async def _write(self, event: Event) -> None:
        while True:
            try:
                await self._registry.run(self._registry.write, event)
                return
            except RegistryUnavailable:
                await asyncio.sleep(self._timing.max_backoff_s)

    def _beside(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        """Work that the others do not wait for, once at a time."""
        if name in self._under_way:
            work.close()
            return
        task = asyncio.create_task(work, name=name)
        self._under_way[name] = task
        task.add_done_callback(lambda _: self._under_way.pop(name, None))

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
            beside=None if rollout is None else self._second_server(rollout),
            remotes=self._peers.serving(model),
            reason=self._reason(live),
            classes=self.classes(labelled_by),
        )

    def _second_server(self, rollout: Rollout) -> Beside | None:
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
        if release_id not in self._classes:
            try:
                self._classes[release_id] = read_manifest(self.spec(release_id).bundle).classes
            except FlightpathError:
                return []
        return self._classes[release_id]

    def models(self) -> list[str]:
        rollouts = self._registry.rollouts_under_way()
        live = {entry.model for entry in self._registry.live_models()}
        return sorted(live | {document["release"]["model"] for document in rollouts} | self._peers.models())

    async def push(self, model: str) -> Snapshot:
        """Put the planned route in force and return the counters read after that; raises what the gateway raises."""
        async with self._pushing:
            # Planned under the lock, so that the last push is the newest plan.
            await self._traffic.set_route(await self._registry.run(self.plan, model))
            return await self._traffic.stats(model)

    async def stats(self, model: str) -> Snapshot | None:
        """The gateway's counters, None when it does not answer."""
        try:
            return await self._traffic.stats(model)
        except FlightpathError:
            return None

    def recent(self, model: str, stats: Snapshot) -> Snapshot:
        """What the gateway has counted in the last `budget_window_s`, as far back as this agent has looked."""
        return self._recent.until(model, stats)

    def gateway_silent_s(self) -> float:
        """How long the gateway has not answered, as far as the passes know."""
        since = self._gateway_silent_since
        return 0.0 if since is None else self._clock() - since

    async def look_after(self) -> None:
        """One pass: run live servers, end those that nobody needs, put routes in force that are not."""
        await self._run_live_servers()
        await self._registry.run(self._end_standbys)
        await self._end_unwanted()
        planned = await self._registry.run(lambda: {model: self.plan(model) for model in self.models()})
        failure = await self._put_in_force(planned)
        if failure is not None and self.gateway_error != str(failure):
            logger.warning("a route is not in force: %s", failure)
        self.gateway_error = None if failure is None else str(failure)

    async def _put_in_force(self, planned: dict[str, Route]) -> FlightpathError | None:
        """What kept a route from being in force; a route that the gateway refuses does not keep the others."""
        try:
            in_force = await self._traffic.routes()
        except FlightpathError as silent:
            if self._gateway_silent_since is None:
                self._gateway_silent_since = self._clock()
            return silent
        self._gateway_silent_since = None
        failure: FlightpathError | None = None
        for model, route in planned.items():
            try:
                if in_force.get(model) != route:
                    await self.push(model)
                if self._recent.is_due(model, self._clock()):
                    self._recent.note(model, await self._traffic.stats(model), self._clock())
            except Unreachable as silent:
                return silent
            except FlightpathError as refused:
                failure = refused
        return failure

    async def close(self) -> None:
        """Wait for nothing: what runs beside is done again by the next agent."""
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

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
