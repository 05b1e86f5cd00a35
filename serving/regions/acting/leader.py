"""What leads an order through its regions: one task for each, begun again by the next agent where one died."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterable


class Leader(ABC):
    """Orders of the home region. Call `resume` once, `close` at the end."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._leaders: dict[str, asyncio.Task[None]] = {}

    @abstractmethod
    def _open_orders(self) -> Iterable[str]:
        """Ids of those with something left to do."""

    @abstractmethod
    async def _lead_to_the_end(self, id: str) -> None:
        """Until nothing is left to do; a bug in between must not end it."""

    def resume(self) -> None:
        """Go on with what an earlier home agent left."""
        for id in self._open_orders():
            self._lead(id)

    async def close(self) -> None:
        leaders = list(self._leaders.values())
        for leader in leaders:
            leader.cancel()
        await asyncio.gather(*leaders, return_exceptions=True)

    def _lead(self, id: str) -> None:
        if id in self._leaders:
            return
        task = asyncio.create_task(self._lead_to_the_end(id), name=f"{self._kind} {id}")
        self._leaders[id] = task
        task.add_done_callback(lambda _: self._leaders.pop(id, None))
