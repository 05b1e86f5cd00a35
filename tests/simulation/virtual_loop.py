"""An event loop whose time jumps to the next timer, and whose threads are moments of it: nothing waits, nothing races.

Work that is handed to a thread (`Registry.run`, `asyncio.to_thread`) begins after a drawn delay, happens in one moment
and is told after another, so that everything else may happen in between. What one executor was given stays in order.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` is in virtual seconds from 0; `delay` draws how long a thread takes to begin and to tell."""

    def __init__(self, delay: Callable[[], float]) -> None:
        super().__init__()
        self._now = 0.0
        self._delay = delay
        self._free_at: dict[Executor | None, float] = {}
        look = self._selector.select

        def jump(timeout: float | None) -> list[Any]:
            if timeout is None:
                raise RuntimeError("everybody waits, and nobody for a time")
            self._now += max(0.0, timeout)
            return look(0)

        self._selector.select = jump

    def time(self) -> float:
        return self._now

    def run_in_executor(self, executor: Executor | None, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        future = self.create_future()
        begins = max(self._now, 0.0 if executor is None else self._free_at.get(executor, 0.0)) + self._delay()
        ends = begins + self._delay()
        if executor is not None:
            self._free_at[executor] = ends
        self.call_at(begins, self._carry_out, future, ends, func, args)
        return future

    def _carry_out(self, future: asyncio.Future[Any], ends: float, func: Callable[..., Any], args: Any) -> None:
        """What was cancelled before it began is not done; what was cancelled after is done, and nobody learns of it."""
        if future.cancelled():
            return
        try:
            settle, outcome = future.set_result, func(*args)
        except Exception as failure:
            settle, outcome = future.set_exception, failure
        self.call_at(ends, lambda: None if future.done() else settle(outcome))
