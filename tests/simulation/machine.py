"""A region's model servers, and the launcher through which an agent has them; the servers outlive it."""

import asyncio
from collections import defaultdict
from dataclasses import dataclass, field
from random import Random

from serving.regions.deciding.rollout_state import Server
from serving.regions.servers.launcher import LaunchSettings, ServerStatus
from serving.regions.servers.server_process import ServerSpec

_STARTS_S = (0.5, 6.0)
_POLL_S = 1.0
_SETTINGS = LaunchSettings()


@dataclass(eq=False, slots=True)
class Process:
    ready_at: float


class Machine:
    """Processes by release id."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self.running: dict[str, Process] = {}

    def start(self, name: str) -> Process:
        self.running[name] = Process(asyncio.get_running_loop().time() + self._rng.uniform(*_STARTS_S))
        return self.running[name]

    def end(self, name: str, process: Process | None) -> None:
        if process is not None and self.running.get(name) is process:
            del self.running[name]

    def crash(self) -> None:
        """One of the servers, if any runs."""
        if self.running:
            del self.running[self._rng.choice(sorted(self.running))]

    def answers(self, name: str) -> bool:
        process = self.running.get(name)
        return process is not None and asyncio.get_running_loop().time() >= process.ready_at


@dataclass(eq=False, slots=True)
class _Known:
    process: Process | None
    restart: bool = False
    starting: bool = False
    crashes: list[float] = field(default_factory=list)
    retry_at: float = 0.0


class SimulatedLauncher:
    """What `LocalLauncher` does, over a `Machine`: adopts, starts again, gives up after too many crashes."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._known = {name: _Known(process) for name, process in machine.running.items()}
        self._changing: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def ensure(self, spec: ServerSpec, *, restart: bool) -> None:
        known = self._known.get(spec.name)
        if known is not None and (known.process is not None or known.starting or restart):
            known.restart = restart
            return
        self._known[spec.name] = made = _Known(None, restart)
        await self._start(spec.name, made)

    async def _start(self, name: str, known: _Known) -> None:
        known.starting = True
        try:
            async with self._changing[name]:
                if self._known.get(name) is known:
                    known.process = self._machine.start(name)
        finally:
            known.starting = False

    def status(self, name: str) -> ServerStatus:
        known = self._known.get(name)
        if known is None:
            return ServerStatus(state=Server.ABSENT)
        degraded = len(known.crashes) >= _SETTINGS.crash_limit
        if known.process is None:
            state = Server.STARTING if known.restart or known.starting else Server.FAILED
            return ServerStatus(state=state, note="it was killed", degraded=degraded)
        if asyncio.get_running_loop().time() < known.process.ready_at:
            return ServerStatus(state=Server.STARTING, degraded=degraded)
        return ServerStatus(state=Server.READY, url="http://127.0.0.1:1")

    def names(self) -> list[str]:
        return sorted(self._known)

    async def stop(self, name: str) -> None:
        known = self._known.pop(name, None)
        if known is not None:
            async with self._changing[name]:
                await asyncio.sleep(0.2)
                self._machine.end(name, known.process)

    async def supervise(self) -> None:
        while True:
            for name, known in list(self._known.items()):
                await self._look_at(name, known)
            await asyncio.sleep(_POLL_S)

    async def _look_at(self, name: str, known: _Known) -> None:
        now = asyncio.get_running_loop().time()
        if known.process is not None and self._machine.running.get(name) is not known.process:
            known.process = None
            known.crashes.append(now)
            known.retry_at = now + _SETTINGS.first_backoff_s * 2 ** len(known.crashes)
        elif known.process is None and known.restart and not known.starting and now >= known.retry_at:
            await self._start(name, known)
