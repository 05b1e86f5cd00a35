"""Keeps what a region serves whole on its disks, and lets go of bundles that nothing wants."""

import logging
import threading
from collections.abc import Callable, Collection

from serving.regions.acting.threads import in_own_thread
from serving.regions.places.peers import Peers
from serving.regions.registry.registry import Event, Registry
from serving.regions.replication import BundleAudit
from serving.regions.replication.audit import Finding
from serving.releases import Release

logger = logging.getLogger(__name__)


class BundleKeeping:
    """One region's bundles. `wanted` names the releases whose servers may run: candidates too, whose copies are for
    their rollouts to make and to judge."""

    def __init__(
        self, audit: BundleAudit, *, registry: Registry, peers: Peers, wanted: Callable[[], Collection[str]]
    ) -> None:
        self._audit = audit
        self._registry = registry
        self._peers = peers
        self._wanted = wanted
        self._ending = threading.Event()

    async def look_after(self) -> None:
        """Audit all that is wanted, then collect what is not; takes as long as the disks take at a bounded rate."""
        served, kept, origins = await self._registry.run(self._survey)
        await self._tell(await in_own_thread(lambda: self._audit.audit(served, cancelled=self._ending)))
        if not self._ending.is_set():
            await self._tell(await in_own_thread(lambda: self._audit.collect(kept, origins=origins)))

    def _survey(self) -> tuple[list[Release], set[str], set[str]]:
        """What is served or stands by here, digests that stay, and stores that releases came from.

        What another region serves stays too, and what was live here before: they may be asked for.
        """
        known = {release.id: release for release in self._registry.releases()}
        live = self._registry.live_models()
        served = [known[id] for entry in live for id in (entry.release_id, entry.standby) if id is not None]
        ids = {*self._wanted(), *(entry.previous_release_id for entry in live)}
        ids |= {entry.release for model in self._peers.models() for entry in self._peers.serving(model)}
        kept = {known[id].bundle_digest for id in ids if id in known}
        return served, kept, {release.store_uri for release in known.values()}

    async def heal(self, release: Release) -> None:
        """Mend the bundle of a server that does not start; raises what copying raises."""
        await self._tell(await in_own_thread(lambda: self._audit.heal(release, cancelled=self._ending)))

    async def _tell(self, findings: Collection[Finding]) -> None:
        for found in findings:
            message = f"{found.what} in the {found.place}: {found.message}"
            logger.warning("bundle %s: %s", found.digest, message)
            event = Event(kind="bundle", subject=found.digest, message=message, detail={"paths": found.paths[:20]})
            await self._registry.run(self._registry.write, event)

    def end(self) -> None:
        """What is being read or copied stops at the next block."""
        self._ending.set()
