"""Finds a watch that has gone deaf: it holds what was heard against what the server says is there.

A quiet cluster and a dead connection look alike from inside a watch. So now and then the parents are
listed (metadata only), and an object whose newer version the watch still has not shown at the next audit
makes the operator unhealthy: it is restarted, and a restart disturbs nothing.
"""

import asyncio
import logging
from collections.abc import Mapping

from flightpath_operator.runtime.cache import Cache
from flightpath_operator.runtime.client import Client
from flightpath_operator.runtime.errors import ApiError
from flightpath_operator.runtime.resources import Resource

logger = logging.getLogger(__name__)


class Audit:
    """Compares the caches of the parents with lists. `run` until it is cancelled."""

    def __init__(self, client: Client, caches: Mapping[Resource, Cache], *, every_s: float) -> None:
        self._client = client
        self._caches = caches
        self._every_s = every_s
        self._missed: dict[tuple[str, str], str] = {}
        self.deaf = ""
        """Which watch is stuck; empty while all are well."""

    async def run(self) -> None:
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.look()
            except ApiError as failure:
                # An unreachable server is no fault of a watch.
                logger.info("audit: %s", failure)

    async def look(self) -> None:
        """One audit."""
        missed: dict[tuple[str, str], str] = {}
        for resource, cache in self._caches.items():
            missed |= await self._missed_of(resource, cache)
        stuck = {uid for (uid, version) in missed if (uid, version) in self._missed}
        self.deaf = ", ".join(sorted({missed[key] for key in missed if key[0] in stuck}))
        if self.deaf:
            logger.error("watch is stuck: %s", self.deaf)
        self._missed = missed

    async def _missed_of(self, resource: Resource, cache: Cache) -> dict[tuple[str, str], str]:
        """Versions that the list has and the watch has not shown."""
        missed, token = {}, ""
        while True:
            page = await self._client.page(resource, token=token, metadata_only=True)
            for item in page.get("items") or []:
                metadata = item["metadata"]
                known = cache.get(metadata["namespace"], metadata["name"])
                version = metadata["resourceVersion"]
                if known is None or int(known["metadata"]["resourceVersion"]) < int(version):
                    missed[metadata["uid"], version] = resource.plural
            token = page["metadata"].get("continue") or ""
            if not token:
                return missed
