"""Runs a region's model servers: starts, watches, restarts, adopts and ends them.

A server outlives the agent that started it: it runs detached from it, with a record on disk,
and the next agent adopts it. What ends by itself and should run is started again with a growing delay;
after too many crashes the server counts as degraded and is tried once a minute.
"""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import aiohttp

from serving.errors import FlightpathError
from serving.regions.deciding.rollout_state import Server
from serving.regions.servers.commands import ready_path
from serving.regions.servers.server_process import ServerProcess, ServerSpec, end_strays, read_server_processes

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchSettings:
    poll_s: float = 0.2
    """How often processes and their readiness are looked at."""
    probe_timeout_s: float = 2.0
    """How long a readiness probe may take."""
    first_backoff_s: float = 0.5
    """Delay before the first restart; each further one doubles it."""
    max_backoff_s: float = 60.0
    """Longest delay, and how often a degraded server is tried."""
    crash_limit: int = 5
    """Crashes within `crash_window_s` after which a server is reported degraded."""
    crash_window_s: float = 300.0
    """A server that ran longer than this since its last crash has a clean slate."""
    port_attempts: int = 3
    """How often a start is repeated on another port when somebody took the chosen one."""
    stop_grace_s: float = 10.0
    """From SIGTERM to SIGKILL."""
    adopt_timeout_s: float = 5.0
    """How long adopted servers may take to answer before the agent goes on without them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerStatus:
    """What the launcher knows of one release's server."""

    state: Server
    url: str | None = None
    """Where it answers; None while it does not run."""
    note: str = ""
    """Why it failed."""
    restarts: int = 0
    degraded: bool = False


class Launcher(Protocol):
    """Whatever runs model servers; servers are named by their release id."""

    async def ensure(self, spec: ServerSpec, *, restart: bool) -> None:
        """Make a server run; one that runs already is left alone. `restart`: start it again when it ends."""
        ...

    def status(self, name: str) -> ServerStatus:
        """Never raises; a server that was never started is `absent`."""
        ...

    def names(self) -> list[str]:
        """Servers that were started or adopted and not stopped."""
        ...

    async def stop(self, name: str) -> None:
        """SIGTERM, then SIGKILL; returns when it is gone. An absent server is no error."""
        ...


@dataclass(slots=True)
class _Server:
    spec: ServerSpec
    process: ServerProcess | None
    restart: bool
    starting: bool = False
    ready: bool = False
    failed: str = ""
    crashes: list[float] = field(default_factory=list)
    restarts: int = 0
    retry_at: float = 0.0
    ports_tried: int = 1


class LocalLauncher:
    """Supervised processes on this machine. Call `adopt` first and keep `supervise` running."""

    def __init__(
        self,
        records: Path,
        logs: Path,
        *,
        runtimes: Mapping[str, list[str]],
        settings: LaunchSettings | None = None,
        clock: Callable[[], float] = time.monotonic,
        on_restart: Callable[[str, str], None] = lambda name, why: None,
    ) -> None:
        self._records = records
        self._logs = logs
        self._runtimes = runtimes
        self._settings = settings or LaunchSettings()
        self._clock = clock
        self._on_restart = on_restart
        self._servers: dict[str, _Server] = {}
        self._changing: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def adopt(self) -> list[str]:
        """Take over the servers that an earlier agent left running; returns their names.

        They are probed before this returns, so that no route is planned without a server that answers. What a
        dead server or a dead agent has left behind is ended.
        """
        for process in read_server_processes(self._records):
            if process.alive:
                self._servers[process.name] = _Server(spec=process.spec, process=process, restart=False)
            else:
                await asyncio.to_thread(process.stop, grace_s=0.0)
        strays = await asyncio.to_thread(end_strays, self._records)
        if strays:
            logger.warning("ended %d processes of no recorded server: %s", len(strays), strays)
        deadline = self._clock() + self._settings.adopt_timeout_s
        async with self._probes() as session:
            while any(s.process and not s.ready for s in self._servers.values()) and self._clock() < deadline:
                await asyncio.gather(*(self._look_at(server, session) for server in self._servers.values()))
                await asyncio.sleep(min(self._settings.poll_s, 0.05))
        return sorted(self._servers)

    def _probes(self) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._settings.probe_timeout_s))

    async def ensure(self, spec: ServerSpec, *, restart: bool) -> None:
        known = self._servers.get(spec.name)
        if known is not None and (known.process is not None or known.starting or restart):
            # One that has ended and is to run is started by the next look at it, as after any crash.
            known.restart = restart
            return
        server = _Server(spec=spec, process=None, restart=restart, starting=True)
        self._servers[spec.name] = server
        await self._start(server)

    async def _start(self, server: _Server) -> None:
        server.ready, server.failed, server.starting = False, "", True
        try:
            # A server of this name that is still being ended owns the record and the log until it is gone.
            async with self._changing[server.spec.name]:
                if self._servers.get(server.spec.name) is server:
                    await self._spawn(server)
        finally:
            server.starting = False

    async def _spawn(self, server: _Server) -> None:
        spawning = asyncio.ensure_future(
            asyncio.to_thread(
                ServerProcess.start, server.spec, records=self._records, logs=self._logs, runtimes=self._runtimes
            )
        )
        try:
            server.process = await asyncio.shield(spawning)
        except asyncio.CancelledError:
            # The thread cannot be stopped: what it starts is kept, so that it can be let go of.
            with contextlib.suppress(OSError, FlightpathError):
                server.process = await spawning
            raise
        except (OSError, FlightpathError) as impossible:
            self._record_crash(server, f"command cannot be run: {impossible}")
        if self._servers.get(server.spec.name) is not server and server.process is not None:
            # It was stopped while it started.
            await asyncio.to_thread(server.process.stop, grace_s=0.0)

    def status(self, name: str) -> ServerStatus:
        server = self._servers.get(name)
        if server is None:
            return ServerStatus(state=Server.ABSENT)
        degraded = not server.ready and len(server.crashes) >= self._settings.crash_limit
        if server.process is None:
            state = Server.STARTING if server.restart or server.starting else Server.FAILED
            return ServerStatus(state=state, note=server.failed, restarts=server.restarts, degraded=degraded)
        return ServerStatus(
            state=Server.READY if server.ready else Server.STARTING,
            url=server.process.url if server.ready else None,
            note=server.failed,
            restarts=server.restarts,
            degraded=degraded,
        )

    def names(self) -> list[str]:
        return sorted(self._servers)

    async def stop(self, name: str) -> None:
        server = self._servers.pop(name, None)
        if server is None:
            return
        async with self._changing[name]:
            if server.process is not None:
                await asyncio.to_thread(server.process.stop, grace_s=self._settings.stop_grace_s)

    async def supervise(self, beat: Callable[[], None] = lambda: None) -> None:
        """Watch the servers until cancelled, which leaves them running; `beat` is called after each look at all."""
        try:
            async with self._probes() as session:
                while True:
                    await asyncio.gather(*(self._look_at(server, session) for server in list(self._servers.values())))
                    beat()
                    await asyncio.sleep(self._settings.poll_s)
        finally:
            for server in self._servers.values():
                if server.process is not None:
                    server.process.let_go()

    async def _look_at(self, server: _Server, session: aiohttp.ClientSession) -> None:
        if server.process is None:
            if server.restart and not server.starting and self._clock() >= server.retry_at:
                server.restarts += 1
                self._on_restart(server.spec.name, server.failed)
                await self._start(server)
            return
        if not server.process.alive:
            await self._bury(server, server.process)
        elif not server.ready:
            path = ready_path(server.spec.runtime.engine, self._runtimes)
            server.ready = await _answers(session, server.process.url + path)

    async def _bury(self, server: _Server, process: ServerProcess) -> None:
        """A process ended: was its port taken, is it to run again, or has it failed?"""
        note, was_ready = process.last_words(), server.ready
        server.ready = False
        # Whatever it started ends with it; the record goes with the process, before another may take its name.
        async with self._changing[server.spec.name]:
            await asyncio.to_thread(process.stop, grace_s=0.0)
        server.process = None
        lost_the_port = not was_ready and "address already in use" in note.lower()
        if lost_the_port and server.ports_tried < self._settings.port_attempts:
            server.ports_tried += 1
            if self._servers.get(server.spec.name) is server:
                await self._start(server)
            return
        self._record_crash(server, note)

    def _record_crash(self, server: _Server, note: str) -> None:
        now, settings = self._clock(), self._settings
        recent = [crash for crash in server.crashes if now - crash < settings.crash_window_s]
        server.crashes = [*recent, now]
        server.ready, server.failed, server.process = False, note, None
        if len(server.crashes) >= settings.crash_limit:
            server.retry_at = now + settings.max_backoff_s
        else:
            server.retry_at = now + min(settings.max_backoff_s, settings.first_backoff_s * 2 ** len(recent))


async def _answers(session: aiohttp.ClientSession, url: str) -> bool:
    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
        async with session.get(url) as response:
            return response.status == 200
    return False
