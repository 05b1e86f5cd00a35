"""One operator at a time: a Lease that the leader renews and everybody else waits for.

The holder stops before its lease can be taken by another: it gives up `renew_deadline_s` after the last
renewal that succeeded, and others wait the whole `lease_s`. Times of the Lease are compared by how long a
value has been seen unchanged, never by another machine's clock.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from flightpath_operator.plan import Object
from flightpath_operator.runtime.client import Client
from flightpath_operator.runtime.errors import ApiError, Conflict, NotFound
from flightpath_operator.runtime.permits import Urgency
from flightpath_operator.runtime.resources import LEASE

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class LeaseSettings:
    lease_s: int = 15
    """How long others wait after a renewal that they saw."""
    renew_deadline_s: float = 10.0
    """How long the leader goes on without a renewal."""
    retry_s: float = 2.0
    """Between renewals, and between looks of those that wait."""


class Leadership:
    """One Lease object. `acquire`, then `hold` until it returns, then `release`."""

    def __init__(
        self,
        client: Client,
        *,
        namespace: str,
        name: str,
        identity: str,
        settings: LeaseSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._settings = settings
        self._clock = clock
        self._seen: tuple[str, float] = ("", 0.0)
        """The version last seen, and since when."""

    async def acquire(self) -> None:
        """Return once this process leads."""
        waiting = False
        while True:
            try:
                if await self._try():
                    logger.info("leading as %s", self._identity)
                    return
            except ApiError as failure:
                logger.warning("lease %s: %s", self._name, failure)
            if not waiting:
                waiting = True
                logger.info("waiting for the lease %s/%s", self._namespace, self._name)
            await asyncio.sleep(self._settings.retry_s)

    async def hold(self) -> str:
        """Renew until that is no longer possible; returns why."""
        renewed_at = self._clock()
        while True:
            await asyncio.sleep(self._settings.retry_s)
            try:
                if not await self._try():
                    return "another operator holds the lease"
                renewed_at = self._clock()
            except ApiError as failure:
                if self._clock() - renewed_at > self._settings.renew_deadline_s:
                    return f"the lease could not be renewed: {failure}"

    async def release(self) -> None:
        """Let the next one lead at once."""
        try:
            lease = await self._read()
            if lease is not None and lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"] |= {"holderIdentity": "", "renewTime": _now()}
                await self._client.replace(LEASE, lease, urgency=Urgency.LEASE)
        except ApiError as failure:
            logger.warning("lease %s was not released: %s", self._name, failure)

    async def _try(self) -> bool:
        """One look: renewed, taken, or left to its holder."""
        lease = await self._read()
        try:
            if lease is None:
                await self._client.create(LEASE, self._new(), urgency=Urgency.LEASE)
                return True
            holder = lease["spec"].get("holderIdentity") or ""
            if holder not in ("", self._identity) and not self._is_over(lease):
                return False
            if holder != self._identity:
                turns = int(lease["spec"].get("leaseTransitions") or 0) + 1
                lease["spec"] |= {"acquireTime": _now(), "leaseTransitions": turns}
            lease["spec"] |= {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": self._settings.lease_s,
                "renewTime": _now(),
            }
            await self._client.replace(LEASE, lease, urgency=Urgency.LEASE)
        except Conflict:
            return False
        return True

    def _is_over(self, lease: Object) -> bool:
        version, now = lease["metadata"]["resourceVersion"], self._clock()
        if version != self._seen[0]:
            self._seen = (version, now)
        length = float(lease["spec"].get("leaseDurationSeconds") or self._settings.lease_s)
        return now - self._seen[1] > length

    async def _read(self) -> Object | None:
        try:
            return await self._client.get(LEASE, self._name, self._namespace, urgency=Urgency.LEASE)
        except NotFound:
            return None

    def _new(self) -> Object:
        return {
            "apiVersion": LEASE.api_version,
            "kind": LEASE.kind,
            "metadata": {"name": self._name, "namespace": self._namespace},
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": self._settings.lease_s,
                "acquireTime": _now(),
                "renewTime": _now(),
                "leaseTransitions": 0,
            },
        }


def _now() -> str:
    """MicroTime of the API."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
