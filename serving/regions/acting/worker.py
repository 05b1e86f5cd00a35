"""What carries out orders in a region: one task for each model, one step at a time.

A new state is committed before anything acts on it, and an effect's outcome after it. Killed at any point, the
next agent goes on from the registry.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable

from serving.regions.acting.supervision import Complaints
from serving.regions.registry.registry import Registry

logger = logging.getLogger(__name__)


class Worker(ABC):
    """Orders of one region. Call `resume` once, `close` at the end."""

    def __init__(self, kind: str, *, registry: Registry, retry_s: float) -> None:
        self._kind = kind
        self._registry = registry
        self._retry_s = retry_s
        self._workers: dict[str, asyncio.Task[None]] = {}
        self._asked: set[str] = set()

    @abstractmethod
    def _models_under_way(self) -> Iterable[str]:
        """Models with an order that is not settled."""

    @abstractmethod
    def _next(self, model: str) -> str | None:
        """The order to work on now, None when all are settled."""

    @abstractmethod
    async def _advance(self, id: str) -> None:
        """One step: read, decide, then save or act."""

    async def resume(self) -> None:
        """Go on with what an earlier agent left."""
        for model in set(await self._registry.run(self._models_under_way)):
            self._work_on(model)

    async def close(self) -> None:
        """Stop working; what is under way stays as it is for the next agent."""
        workers = list(self._workers.values())
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    def _work_on(self, model: str) -> None:
        # A worker that has just seen nothing to do looks again.
        self._asked.add(model)
        worker = self._workers.get(model)
        if worker is None or worker.done():
            self._workers[model] = asyncio.create_task(self._work(model), name=f"{self._kind}s of {model}")

    async def _work(self, model: str) -> None:
        complaints = Complaints(logger, f"{self._kind}s of {model}")
        while True:
            try:
                self._asked.discard(model)
                id = await self._registry.run(self._next, model)
                if id is not None:
                    await self._advance(id)
                elif model not in self._asked:
                    return
                complaints.end()
            except Exception as failure:
                # Neither a bug nor a dependency that is away may leave an order without anybody who works on it.
                complaints.say(failure)
                await asyncio.sleep(self._retry_s)
