"""Keeps a gateway and an agent of each local region running.

One per state root (a lock that the kernel releases, so it is never stale). Children live in sessions
of their own and outlive the supervisor: a new one adopts those that run its code and replaces the
others, gateways by socket hand-over, so that no request is lost.

A child that ends is started again, for ever, if with growing delays. One that is stopped, or answers no call for its
health, is killed first. Waits are told by the monotonic clock, and the time in which the supervisor itself did not
run is no silence of its children.
"""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from flightpath.local.health import HealthCall, Wellness
from flightpath.local.state import StateRoot, running_code
from serving.errors import Conflict, FlightpathError
from serving.files import sweep_writes
from serving.processes import ProcessRecord, forget, rename, spawn, stop
from serving.regions.places.topology import Topology, load_topology
from serving.settings import Settings

LOGGER = logging.getLogger("flightpath.supervisor")

_TICK_S = 0.2
_AGENT_GRACE_S = 10.0
_FIRST_BACKOFF_S = 0.25
_MAX_BACKOFF_S = 60.0
"""Between two starts of a child that keeps crashing: often enough to come back soon after its cause is gone."""
_CLEAN_SLATE_S = 60.0
"""A child that ran for longer than this has crashed for the first time when it does."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildSpec:
    name: str
    command: list[str]
    health_url: str
    """GET answers 200, or 503 with what is wrong."""
    hands_over: bool
    """Whether a new process takes the socket of the old one over by itself."""


def child_specs(topology: Topology) -> list[ChildSpec]:
    """Agents first: a gateway serves from its saved routes until its agent speaks to it."""
    return [
        ChildSpec(
            name=f"{role}-{region.name}",
            command=[sys.executable, "-m", module, "--region", region.name],
            health_url=f"{region.gateway_url if role == 'gateway' else region.agent_url}/healthz",
            hands_over=role == "gateway",
        )
        for role, module in (("agent", "serving.regions.agent"), ("gateway", "serving.gateway.app"))
        for region in topology.regions
    ]


@dataclass(slots=True)
class CrashHistory:
    """How often a child died in a row; decides when it may start again. Pure: monotonic time is handed in."""

    crashes: int = 0
    _started_at: float | None = None
    _due: float | None = None

    def started(self, now: float) -> None:
        self._started_at = now

    def died(self, now: float) -> None:
        if self._started_at is not None and now - self._started_at > _CLEAN_SLATE_S:
            self.crashes = 0
        self.crashes += 1
        self._due = now + self.backoff_s

    @property
    def backoff_s(self) -> float:
        """From the last death to the next start; twice as long after each."""
        # The exponent is bounded, or the power would overflow after a night of crashes.
        return float(min(_MAX_BACKOFF_S, _FIRST_BACKOFF_S * 2.0 ** min(self.crashes - 1, 16)))

    @property
    def loops(self) -> bool:
        """Whether it crashed so often that it is tried no more often than a broken one is worth."""
        return self.crashes > 0 and self.backoff_s == _MAX_BACKOFF_S

    def may_start(self, now: float) -> bool:
        return self._due is None or now >= self._due


@dataclass(slots=True)
class Child:
    """One supervised process: adopted (record only) or our own (with a Popen to reap)."""

    spec: ChildSpec
    root: StateRoot
    code: str
    call: HealthCall
    record: ProcessRecord | None = None
    popen: subprocess.Popen[bytes] | None = None
    history: CrashHistory = field(default_factory=CrashHistory)
    wellness: Wellness = field(default_factory=Wellness)
    retiring: ProcessRecord | None = None
    """The process of other code that the present one takes the socket over from."""

    def begin(self, now: float) -> None:
        """Adopt a living process of this code, or start a new one in place of whatever runs."""
        old = self.root.record(self.spec.name)
        if old is not None and old.detail.get("code") == self.code:
            LOGGER.info("%s: adopted pid %d", self.spec.name, old.pid)
            self.record = old
            self.history.started(now)
            return
        if old is not None and (old.stopped or not self.spec.hands_over):
            LOGGER.info("%s: ending pid %d of other code", self.spec.name, old.pid)
            stop(old, grace_s=_AGENT_GRACE_S)
        elif old is not None:
            try:
                # Under a name of its own, so that `flightpath down` finds it whatever becomes of its successor.
                self.retiring = rename(self.root.run, old, f"{old.name}-retiring-{old.pid}")
            except OSError as impossible:
                # As on a full disk, where no successor could be recorded either: this one serves, so it goes on.
                LOGGER.warning("%s: pid %d of other code stays: %s", self.spec.name, old.pid, impossible)
                self.record = old
                self.history.started(now)
                return
        self.start(now)

    def start(self, now: float) -> None:
        """Start it, or count a crash where that is not possible, as on a full disk."""
        self.history.started(now)
        try:
            self.record, self.popen = spawn(
                self.root.run,
                self.spec.name,
                self.spec.command,
                log=self.root.logs / f"{self.spec.name}.log",
                detail={"code": self.code},
            )
        except OSError as impossible:
            LOGGER.warning("%s: cannot be started: %s", self.spec.name, impossible)
            self.history.died(now)
            return
        self.wellness.begin()
        LOGGER.info("%s: started pid %d", self.spec.name, self.record.pid)

    def try_now(self) -> None:
        """Forget the crashes: somebody says that their cause is gone."""
        self.history = CrashHistory()

    def tick(self, now: float) -> None:
        """Notice a death or a silence, and start again when the back-off is over."""
        self._end_retired()
        if self.record is not None and self._lives(self.record):
            self._listen(self.record, now)
        elif self.record is not None:
            self._note_death(self.record, now)
            self.record = None
        elif self.history.may_start(now):
            self.start(now)

    def _end_retired(self) -> None:
        if self.retiring is None:
            return
        if self.retiring.stopped:
            # It would hand nothing over, and its successor would wait for it at every start.
            stop(self.retiring, grace_s=0.0)
        if not self.retiring.alive:
            forget(self.root.run, self.retiring.name)
            self.retiring = None

    def _listen(self, record: ProcessRecord, now: float) -> None:
        """Kill a child that is as good as dead; the next tick finds it dead."""
        why = self.wellness.look(now, status=self.call.heard(now), stopped=record.stopped)
        if why is not None:
            LOGGER.warning("%s: pid %d is killed: %s", self.spec.name, record.pid, why)
            stop(record, grace_s=0.0)

    def _note_death(self, record: ProcessRecord, now: float) -> None:
        looped = self.history.loops
        self.history.died(now)
        if not self.history.loops:
            LOGGER.warning("%s: pid %d ended", self.spec.name, record.pid)
        elif not looped:
            told = "%s: ended %d times in a row, tried every %.0f s from now on; see its log"
            LOGGER.error(told, self.spec.name, self.history.crashes, _MAX_BACKOFF_S)

    def _lives(self, record: ProcessRecord) -> bool:
        if self.popen is not None and self.popen.pid == record.pid:
            return self.popen.poll() is None
        return record.alive


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the state root for this supervisor; the kernel lets go when the process dies, however it dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise Conflict(
                f"another supervisor holds {path}", got=f"pid {holder}", expected="none; `flightpath down` ends it"
            ) from held
        os.ftruncate(descriptor, 0)
        # For the message above alone: a full disk does not take it.
        with suppress(OSError):
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def supervise(root: StateRoot, topology: Topology, stopping: threading.Event) -> None:
    """Until told to stop: every child runs. Children are left running on the way out."""
    specs = child_specs(topology)
    with ThreadPoolExecutor(max_workers=len(specs), thread_name_prefix="health") as pool:
        children = _begin(root, specs, pool)
        while not stopping.wait(_TICK_S):
            if _taken(root.retry):
                for child in children:
                    child.try_now()
            now = time.monotonic()
            for child in children:
                child.tick(now)


def _taken(path: Path) -> bool:
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _begin(root: StateRoot, specs: list[ChildSpec], pool: Executor) -> list[Child]:
    code = running_code()
    # `up` writes the supervisor's own record there.
    sweep_writes(root.run, "*-*.json")
    children = [Child(spec=spec, root=root, code=code, call=HealthCall(spec.health_url, pool)) for spec in specs]
    for child in children:
        child.begin(time.monotonic())
    return children


def main() -> None:
    """Process entry: `python -m flightpath.local.supervisor`."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    settings = Settings()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    root = StateRoot.of(settings)
    try:
        topology = load_topology(settings)
        with locked(root.lock):
            supervise(root, topology, stopping)
    except FlightpathError as error:
        print(f"flightpath: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
