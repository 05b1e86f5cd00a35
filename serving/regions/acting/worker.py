"""What carries out orders in a region: one task for each model, one step at a time.

A new state is committed before anything acts on it, and an effect's outcome after it. Killed at any point, the
next agent goes on from the registry.
"""

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable

from serving.errors import FlightpathError

logger = logging.getLogger(__name__)


class Worker(ABC):
    """Orders of one region. Call `resume` once, `close` at the end."""

    def __init__(self, kind: str, *, retry_s: float) -> None:
        self._kind = kind
        self._retry_s = retry_s
        self._workers: dict[str, asyncio.Task[None]] = {}

    @abstractmethod
    def _models_under_way(self) -> Iterable[str]:
        """Models with an order that is not settled."""

    @abstractmethod
    def _next(self, model: str) -> str | None:
        """The order to work on now, None when all are settled."""

    @abstractmethod
    async def _advance(self, id: str) -> None:
        """One step: read, decide, then save or act."""

    def resume(self) -> None:
        """Go on with what an earlier agent left."""
        for model in set(self._models_under_way()):
            self._work_on(model)

    async def close(self) -> None:
        """Stop working; what is under way stays as it is for the next agent."""
        workers = list(self._workers.values())
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)

    def _work_on(self, model: str) -> None:
        worker = self._workers.get(model)
        if worker is None or worker.done():
            self._workers[model] = asyncio.create_task(self._work(model), name=f"{self._kind}s of {model}")

    async def _work(self, model: str) -> None:
        while (id := self._next(model)) is not None:
            try:
                await self._advance(id)
            except FlightpathError as failure:
                logger.warning("%s %s: %s", self._kind, id, failure)
                await asyncio.sleep(self._retry_s)
            except Exception:
                # A bug must not leave an order without anybody who works on it.
                logger.exception("%s %s", self._kind, id)
                await asyncio.sleep(self._retry_s)
