"""Looks at one model server's process: whether it is ready, and whether it still lives.

A server lives while it answers an inference, or shows signs of work (`probe.py`). It is stopped when the kernel holds
any of its processes: vLLM's engine is a child, without which nobody is answered.
"""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import aiohttp
import psutil

from serving.liveness import Liveness, LivenessLimits, Verdict
from serving.processes import any_stopped
from serving.regions.servers.commands import Engine
from serving.regions.servers.probe import Probe, ProbeSettings, answers, make_question
from serving.regions.servers.server_process import ServerProcess


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchSettings:
    ready_timeout_s: float = 2.0
    """How long the question whether a server is ready may take."""
    group_every_s: float = 30.0
    """How often a server's processes are looked up, and once it is ready: it takes a look at all of the machine's."""
    probe: ProbeSettings = field(default_factory=ProbeSettings)
    """What a ready server is asked, and when."""
    liveness: LivenessLimits = field(default_factory=LivenessLimits)
    """When one that is stopped or silent leaves the route, and when it is replaced."""


class Watch:
    """What is known of a process that runs. Call `close` when it is gone."""

    def __init__(
        self, process: ServerProcess, engine: Engine, settings: WatchSettings, clock: Callable[[], float]
    ) -> None:
        self.process = process
        self.was_ready = False
        self._engine = engine
        self._settings = settings
        self._clock = clock
        self._liveness = Liveness(settings.liveness)
        self._probe: Probe | None = None
        self._group: list[psutil.Process] = []
        self._group_until = -math.inf
        self._closed = False

    @property
    def ready(self) -> bool:
        """Whether users may be sent to it."""
        return self.was_ready and self._liveness.verdict is Verdict.ALIVE

    @property
    def why(self) -> str:
        """Why it is not ready any more; empty while it is, or never was."""
        return self._liveness.why

    async def look(self, session: aiohttp.ClientSession) -> Verdict:
        """One look; waits for the answer of a server that is not ready yet, and for nothing of one that was."""
        stopped = await self._is_stopped()
        if not self.was_ready:
            return await self._look_at_start(session, stopped=stopped)
        if self._closed:
            return self._liveness.verdict
        if self._probe is None:
            self._probe = self._make_probe(session)
        signs = self._probe.look(urgent=stopped)
        return self._liveness.look(self._clock(), answered=signs.answered, stopped=stopped, working=signs.working)

    async def _look_at_start(self, session: aiohttp.ClientSession, *, stopped: bool) -> Verdict:
        """How long a start may take is for whoever ordered it to say: one that is not stopped is at work."""
        url = self.process.url + self._engine.ready_path
        self.was_ready = not stopped and await answers(session, url, timeout_s=self._settings.ready_timeout_s)
        if self.was_ready:
            self._group_until = -math.inf
        return self._liveness.look(self._clock(), answered=self.was_ready, stopped=stopped, working=True)

    def _make_probe(self, session: aiohttp.ClientSession) -> Probe:
        question = make_question(self.process.spec, self._engine)
        return Probe(
            session, self.process.url, question, self._engine, settings=self._settings.probe, clock=self._clock
        )

    async def _is_stopped(self) -> bool:
        now = self._clock()
        if now >= self._group_until:
            self._group_until = now + self._settings.group_every_s
            self._group = await asyncio.to_thread(self.process.group)
        return any_stopped(self._group)

    def close(self) -> None:
        self._closed = True
        if self._probe is not None:
            self._probe.close()
