"""Runs a region's model servers: starts, watches, restarts, adopts and ends them.

A server outlives the agent that started it: it runs detached from it, with a record on disk,
and the next agent adopts it. What ends by itself and should run is started again with a growing delay;
after too many crashes the server counts as degraded and is tried once a minute. One that is stopped or silent
has no URL, so that no route leads to it; if it stays so it is killed, which counts as a crash.
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
from serving.liveness import Verdict
from serving.regions.deciding.rollout_state import Server
from serving.regions.servers.commands import engine_of
from serving.regions.servers.server_process import ServerProcess, ServerSpec, end_strays, read_server_processes
from serving.regions.servers.watch import Watch, WatchSettings

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class LaunchSettings:
    poll_s: float = 0.2
    """How often processes and their readiness are looked at."""
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
    watch: WatchSettings = field(default_factory=WatchSettings)
    """How a server that runs is looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerStatus:
    """What the launcher knows of one release's server."""

    state: Server
    url: str | None = None
    """Where it answers; None while it does not."""
    note: str = ""
    """Why it failed, or does not answer."""
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
    watch: Watch | None = None
    """Of `process`, from the first look at it on."""
    look: asyncio.Task[None] | None = None
    starting: bool = False
    failed: str = ""
    crashes: list[float] = field(default_factory=list)
    restarts: int = 0
    retry_at: float = 0.0
    ports_tried: int = 1

    @property
    def ready(self) -> bool:
        return self.watch is not None and self.watch.ready

    @property
    def was_ready(self) -> bool:
        return self.watch is not None and self.watch.was_ready

    def look_away(self) -> None:
        if self.watch is not None:
            self.watch.close()
            self.watch = None


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
        self._endings: dict[str, asyncio.Task[None]] = {}
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
        async with aiohttp.ClientSession() as session:
            while silent := [s for s in self._servers.values() if s.process and not s.was_ready]:
                if self._clock() >= deadline:
                    break
                await asyncio.gather(*(self._look_at(server, session) for server in silent))
                await asyncio.sleep(min(self._settings.poll_s, 0.05))
        return sorted(self._servers)

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
        server.failed, server.starting = "", True
        try:
            # A server of this name that is still being ended owns the record and the log until it is gone.
            ending = self._endings.get(server.spec.name)
            if ending is not None:
                await asyncio.wait({ending})
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
            note=server.failed if server.watch is None else server.watch.why,
            restarts=server.restarts,
            degraded=degraded,
        )

    def names(self) -> list[str]:
        return sorted(self._servers)

    async def stop(self, name: str) -> None:
        server = self._servers.pop(name, None)
        if server is None:
            return
        server.look_away()
        # A caller that gives up must not let a successor begin beside it: the name is free once this one is gone.
        ending = asyncio.create_task(self._end(server, self._endings.get(name)), name=f"end {name}")
        self._endings[name] = ending
        await asyncio.shield(ending)

    async def _end(self, server: _Server, earlier: asyncio.Task[None] | None) -> None:
        if earlier is not None:
            await asyncio.wait({earlier})
        async with self._changing[server.spec.name]:
            if server.process is not None:
                await asyncio.to_thread(server.process.stop, grace_s=self._settings.stop_grace_s)

    async def supervise(self, beat: Callable[[], None] = lambda: None) -> None:
        """Watch the servers until cancelled, which leaves them running; `beat` is called with each round."""
        async with aiohttp.ClientSession() as session:
            try:
                async with asyncio.TaskGroup() as looks:
                    while True:
                        for server in self._servers.values():
                            # Beside each other: a server that takes its time must not hide another's silence.
                            if server.look is None or server.look.done():
                                server.look = looks.create_task(self._keep(server, session))
                        beat()
                        await asyncio.sleep(self._settings.poll_s)
            finally:
                for server in self._servers.values():
                    server.look_away()
                    if server.process is not None:
                        server.process.let_go()

    async def _keep(self, server: _Server, session: aiohttp.ClientSession) -> None:
        """One look. What it stumbles over is told, and tried again with the next: one server must not stop the rest."""
        try:
            await self._look_at(server, session)
        except Exception:
            logger.exception("server %s could not be looked after", server.spec.name)

    async def _look_at(self, server: _Server, session: aiohttp.ClientSession) -> None:
        process = server.process
        if process is None:
            if server.restart and not server.starting and self._clock() >= server.retry_at:
                why = server.failed
                await self._start(server)
                server.restarts += 1
                self._on_restart(server.spec.name, why)
        elif not process.alive:
            await self._bury(server, process, process.last_words())
        else:
            await self._watch(server, process, session)

    async def _watch(self, server: _Server, process: ServerProcess, session: aiohttp.ClientSession) -> None:
        if server.watch is None or server.watch.process is not process:
            engine = engine_of(server.spec.runtime.engine, self._runtimes)
            server.watch = Watch(process, engine, self._settings.watch, self._clock)
        watch, was_ready = server.watch, server.ready
        verdict = await watch.look(session)
        if was_ready and not watch.ready:
            logger.warning("server %s is out of the route: %s", server.spec.name, watch.why)
        if verdict is Verdict.DEAD and process.alive:
            logger.warning("server %s is killed: %s", server.spec.name, watch.why)
            await self._bury(server, process, f"killed: {watch.why}")

    async def _bury(self, server: _Server, process: ServerProcess, note: str) -> None:
        """A process ended, or is to: was its port taken, is it to run again, or has it failed?"""
        was_ready = server.was_ready
        server.look_away()
        # Whatever it started ends with it; the record goes with the process, before another may take its name.
        async with self._changing[server.spec.name]:
            if self._servers.get(server.spec.name) is not server:
                return
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
        server.failed, server.process = note, None
        if len(server.crashes) >= settings.crash_limit:
            server.retry_at = now + settings.max_backoff_s
        else:
            server.retry_at = now + min(settings.max_backoff_s, settings.first_backoff_s * 2 ** len(recent))
