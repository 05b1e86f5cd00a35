"""Which objects want looking at: each at most once in the queue, and never twice at the same time.

Events only wake a key; what is done about it follows from the caches. A burst of a hundred events of one
object costs one look, or two if they come while it is being looked at.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from flightpath_operator.runtime.errors import ApiError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Key:
    """One parent."""

    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


Look = Callable[[Key], Awaitable[timedelta | None]]
"""Reconciles a key; returns when to look again if nothing happens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueSettings:
    first_backoff_s: float = 0.5
    """After a look that failed; doubled with each further failure."""
    max_backoff_s: float = 30.0


class Queue:
    """Runs `look` for every key that was woken. Call `close` at the end."""

    def __init__(self, look: Look, settings: QueueSettings | None = None) -> None:
        self._look = look
        self._settings = settings or QueueSettings()
        self._running: set[Key] = set()
        self._again: set[Key] = set()
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._failures: dict[Key, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    @property
    def depth(self) -> int:
        """Keys that wait for a look or have one."""
        return len(self._running) + len(self._again)

    def wake(self, key: Key) -> None:
        """Look at the key as soon as it is nobody's turn."""
        if self._closed:
            return
        if key in self._running:
            self._again.add(key)
            return
        if key in self._failures and key in self._timers:
            # An event does not shorten the rest that a failing look takes: the failure may be what causes events.
            return
        self._start(key)

    def _start(self, key: Key) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        self._running.add(key)
        task = asyncio.create_task(self._run(key), name=str(key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def wake_in(self, key: Key, delay_s: float) -> None:
        """Look at the key after a while, unless it is woken before."""
        if self._closed:
            return
        if key in self._running:
            self._again.add(key)
            return
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_later(delay_s, self._start, key)

    def wake_within(self, key: Key, delay_s: float) -> None:
        """As `wake_in`, but never later than a timer that is set already."""
        timer = self._timers.get(key)
        if timer is None or timer.when() > asyncio.get_running_loop().time() + delay_s:
            self.wake_in(key, delay_s)

    def forget(self, key: Key) -> None:
        """The object is gone: no timer keeps its key alive."""
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()
        self._failures.pop(key, None)

    async def _run(self, key: Key) -> None:
        delay: float | None = None
        try:
            again = await self._look(key)
            self._failures.pop(key, None)
            delay = None if again is None else max(0.0, again.total_seconds())
        except asyncio.CancelledError:
            raise
        except Exception as failure:
            delay = self._backoff(key)
            logger.warning("%s: %s; again in %.1f s", key, failure, delay, exc_info=_unexpected(failure))
        finally:
            self._running.discard(key)
        if key in self._again:
            self._again.discard(key)
            if delay is not None and key in self._failures:
                # What failed is not tried at once because of an event: the server may be asking for rest.
                self.wake_in(key, delay)
            else:
                self.wake(key)
        elif delay is not None:
            self.wake_in(key, delay)

    def _backoff(self, key: Key) -> float:
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        return min(self._settings.max_backoff_s, self._settings.first_backoff_s * 2.0**failures)

    async def idle(self) -> None:
        """Until nothing runs or waits for its turn; timers do not count."""
        while self._running or self._again:
            await asyncio.sleep(0.005)

    async def close(self) -> None:
        self._closed = True
        for timer in self._timers.values():
            timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _unexpected(failure: Exception) -> bool:
    return not isinstance(failure, ApiError)
