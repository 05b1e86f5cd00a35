"""Background loops that live: what fails is begun again, and one that makes no progress is named.

What raises is logged once, however often it does, and begun again after a growing delay. A loop that neither goes on
nor raises, or does not come to an end for long, makes `/healthz` answer 503.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from serving.errors import FlightpathError


@dataclass(slots=True)
class Complaints:
    """Says once what goes wrong again and again, and that it is over."""

    logger: logging.Logger
    about: str
    _said: str = ""

    def say(self, failure: Exception) -> None:
        said, self._said = self._said, f"{type(failure).__name__}: {failure}"
        if said == self._said:
            return
        if isinstance(failure, FlightpathError):
            self.logger.warning("%s: %s", self.about, failure)
        else:
            self.logger.error("%s", self.about, exc_info=failure)

    def end(self) -> None:
        if self._said:
            self.logger.info("%s: goes on", self.about)
        self._said = ""


Beat = Callable[[], None]
"""What a loop calls when it has made progress."""


@dataclass(slots=True)
class _Loop:
    stuck_after_s: float
    progress_at: float
    failures: int = 0
    failure: str = ""

    def progress(self, now: float) -> None:
        self.progress_at, self.failures, self.failure = now, 0, ""


@dataclass(slots=True)
class Loops:
    """An agent's background loops. `close` ends them."""

    logger: logging.Logger
    first_backoff_s: float
    max_backoff_s: float
    clock: Callable[[], float] = time.monotonic
    _loops: dict[str, _Loop] = field(default_factory=dict)
    _tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def keep(self, name: str, work: Callable[[Beat], Awaitable[None]], *, stuck_after_s: float) -> None:
        """Begin endless work, again whenever it fails; it is stuck when it has not beaten for `stuck_after_s`."""
        self._loops[name] = _Loop(stuck_after_s=stuck_after_s, progress_at=self.clock())
        self._tasks.append(asyncio.create_task(self._keep(name, work), name=name))

    def repeat(
        self, name: str, one_pass: Callable[[], Awaitable[None]], *, every_s: float, stuck_after_s: float
    ) -> None:
        """The same for a pass that is repeated."""

        async def passes(beat: Beat) -> None:
            while True:
                await one_pass()
                beat()
                await asyncio.sleep(every_s)

        self.keep(name, passes, stuck_after_s=stuck_after_s)

    async def _keep(self, name: str, work: Callable[[Beat], Awaitable[None]]) -> None:
        loop, complaints = self._loops[name], Complaints(self.logger, name)

        def beat() -> None:
            complaints.end()
            loop.progress(self.clock())

        while True:
            try:
                await work(beat)
            except Exception as failure:
                complaints.say(failure)
                loop.failure = str(failure) or type(failure).__name__
            loop.failures += 1
            await asyncio.sleep(min(self.max_backoff_s, self.first_backoff_s * 2.0 ** min(loop.failures - 1, 16)))

    def stuck(self) -> list[str]:
        """Each loop without progress, in words."""
        now, said = self.clock(), []
        for name, loop in self._loops.items():
            silent_s = now - loop.progress_at
            if silent_s > loop.stuck_after_s:
                said.append(f"{name}: no progress for {silent_s:.0f} s {loop.failure}".rstrip())
        return said

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
