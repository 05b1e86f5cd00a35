"""Bounds how many calls are under way at once, and lets the more urgent go first when there are too many.

In a burst every job wants several writes. Those that a worker waits for (its pod, and what must be there before it)
go before those that only tell: a status that is written later costs nobody anything.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import IntEnum
from typing import Final


class Urgency(IntEnum):
    """Lower goes first."""

    LEASE = 0
    """What the operator must not lose its place for."""
    WORK = 1
    """What makes or ends something."""
    RECORD = 2
    """What is only read by people and dashboards."""


_LEVELS: Final = len(Urgency)


class Permits:
    """A semaphore with one queue per urgency; within one, first come, first served."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._waiting: tuple[deque[asyncio.Future[None]], ...] = tuple(deque() for _ in range(_LEVELS))

    @asynccontextmanager
    async def one(self, urgency: Urgency = Urgency.WORK) -> AsyncIterator[None]:
        await self._take(urgency)
        try:
            yield
        finally:
            self._give()

    async def _take(self, urgency: Urgency) -> None:
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[urgency].append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give()  # the permit came in the same moment
            raise

    def _give(self) -> None:
        for queue in self._waiting:
            while queue:
                turn = queue.popleft()
                if not turn.done():
                    turn.set_result(None)
                    return
        self._free += 1
