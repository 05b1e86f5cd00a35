"""What leads an order through its regions: one task for each, begun again by the next agent where one died."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable

from serving.errors import FlightpathError, PermanentError, Unauthorized
from serving.regions.registry.registry import Registry


class Leader(ABC):
    """Orders of the home region. Call `resume` once, `close` at the end."""

    def __init__(self, kind: str, *, registry: Registry) -> None:
        self._kind = kind
        self._registry = registry
        self._leaders: dict[str, asyncio.Task[None]] = {}

    @abstractmethod
    def _open_orders(self) -> Iterable[str]:
        """Ids of those with something left to do."""

    @abstractmethod
    async def _lead_to_the_end(self, id: str) -> None:
        """Until nothing is left to do; a bug in between must not end it."""

    async def resume(self) -> None:
        """Go on with what an earlier home agent left."""
        for id in await self._registry.run(self._open_orders):
            self.lead(id)

    async def close(self) -> None:
        leaders = list(self._leaders.values())
        for leader in leaders:
            leader.cancel()
        await asyncio.gather(*leaders, return_exceptions=True)

    def lead(self, id: str) -> None:
        """See to it that the order is led to its end, if it was taken."""
        if id in self._leaders:
            return
        task = asyncio.create_task(self._lead_to_the_end(id), name=f"{self._kind} {id}")
        self._leaders[id] = task
        task.add_done_callback(lambda _: self._leaders.pop(id, None))


def refuses(failure: FlightpathError) -> bool:
    """Whether a region says no to an order. One that does not know our token has not looked at it: tokens are exchanged
    region by region, and it is asked again like one that is away."""
    return isinstance(failure, PermanentError) and not isinstance(failure, Unauthorized)
