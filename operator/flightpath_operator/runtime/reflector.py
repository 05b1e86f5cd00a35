"""Keeps a cache in step with the API server: a list, then a watch from its version, for as long as it runs.

A watch that breaks goes on from the last version; one that is too old begins with a new list. One that is
silent for too long is cut and opened anew, since a dead connection looks just like a quiet cluster.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from flightpath_operator.plan import Object
from flightpath_operator.runtime.cache import Cache
from flightpath_operator.runtime.client import Client
from flightpath_operator.runtime.errors import ApiError, Expired, NotFound
from flightpath_operator.runtime.resources import Resource

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchSettings:
    server_timeout_s: float = 300.0
    """After this the server ends a watch by itself."""
    silence_s: float = 360.0
    """Without a byte for this long a watch counts as dead: longer than the server's own end of it."""
    first_backoff_s: float = 0.5
    max_backoff_s: float = 30.0


class Reflector:
    """One kind, over all namespaces. `run` until it is cancelled."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        cache: Cache,
        *,
        selector: str,
        on_change: Callable[[Object], None],
        settings: WatchSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.resource = resource
        self.cache = cache
        self._client = client
        self._selector = selector
        self._on_change = on_change
        self._settings = settings
        self._clock = clock
        self._version = ""
        self._heard_at = clock()
        self.ready = asyncio.Event()
        """Set once the first list is in the cache."""

    @property
    def silent_s(self) -> float:
        """Since the server last said anything: an event, a bookmark, a list or the end of a watch."""
        return self._clock() - self._heard_at

    async def run(self) -> None:
        failures = 0
        while True:
            try:
                if not self._version:
                    await self._list()
                await self._watch()
                failures = 0
            except Expired:
                self._version = ""
            except ApiError as failure:
                failures += 1
                pause = min(self._settings.max_backoff_s, self._settings.first_backoff_s * 2.0 ** min(failures, 16))
                level = logging.INFO if isinstance(failure, NotFound) else logging.WARNING
                logger.log(level, "watch of %s: %s; again in %.1f s", self.resource.plural, failure, pause)
                await asyncio.sleep(pause)

    async def _list(self) -> None:
        objects: list[Object] = []
        token = ""
        while True:
            page = await self._client.page(self.resource, selector=self._selector, token=token)
            objects += [self._typed(item) for item in page.get("items") or []]
            token = page["metadata"].get("continue") or ""
            if not token:
                break
        self._version = page["metadata"]["resourceVersion"]
        self._heard_at = self._clock()
        for changed in self.cache.replace(objects):
            self._on_change(changed)
        self.ready.set()

    async def _watch(self) -> None:
        settings = self._settings
        async with self._client.watch(
            self.resource,
            version=self._version,
            selector=self._selector,
            timeout_s=settings.server_timeout_s,
            silence_s=settings.silence_s,
        ) as events:
            self._heard_at = self._clock()
            async for event in events:
                self._take(event)
        self._heard_at = self._clock()

    def _take(self, event: Object) -> None:
        self._heard_at = self._clock()
        obj = self._typed(event["object"])
        self._version = obj["metadata"]["resourceVersion"]
        if event["type"] == "BOOKMARK":
            return
        changed = self.cache.drop(obj) if event["type"] == "DELETED" else self.cache.put(obj)
        if changed:
            self._on_change(obj)

    def _typed(self, obj: Object) -> Object:
        """Items of a list come without their kind; managedFields are half of an object and nobody reads them."""
        obj["apiVersion"], obj["kind"] = self.resource.api_version, self.resource.kind
        obj["metadata"].pop("managedFields", None)
        return obj
