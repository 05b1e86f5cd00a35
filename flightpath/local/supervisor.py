"""Keeps a gateway and an agent of each local region running.

One per state root (a lock that the kernel releases, so it is never stale). Children live in sessions
of their own and outlive the supervisor: a new one adopts those that run its code and replaces the
others, gateways by socket hand-over, so that no request is lost.
"""

import fcntl
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from flightpath.local.state import StateRoot, running_code
from serving.errors import Conflict, FlightpathError
from serving.processes import ProcessRecord, forget, rename, spawn, stop
from serving.regions.places.topology import Topology, load_topology
from serving.settings import Settings

LOGGER = logging.getLogger("flightpath.supervisor")

_TICK_S = 0.2
_AGENT_GRACE_S = 10.0
_CRASHES_ALLOWED = 5
_CRASH_WINDOW_S = 60.0
_MAX_BACKOFF_S = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ChildSpec:
    name: str
    command: list[str]
    hands_over: bool
    """Whether a new process takes the socket of the old one over by itself."""


def child_specs(topology: Topology) -> list[ChildSpec]:
    """Agents first: a gateway serves from its saved routes until its agent speaks to it."""
    return [
        ChildSpec(
            name=f"{role}-{region.name}",
            command=[sys.executable, "-m", module, "--region", region.name],
            hands_over=role == "gateway",
        )
        for role, module in (("agent", "serving.regions.agent"), ("gateway", "serving.gateway.app"))
        for region in topology.regions
    ]


@dataclass(slots=True)
class CrashHistory:
    """When a child died lately; decides when it may start again. Pure: time is handed in."""

    deaths: deque[float] = field(default_factory=deque)

    def note(self, now: float) -> None:
        self.deaths.append(now)

    def next_start(self, now: float) -> float | None:
        """Monotonic time of the next start, or None once it has crashed too often in the window."""
        while self.deaths and self.deaths[0] < now - _CRASH_WINDOW_S:
            self.deaths.popleft()
        if len(self.deaths) > _CRASHES_ALLOWED:
            return None
        if not self.deaths:
            return now
        backoff: float = min(_MAX_BACKOFF_S, 0.25 * 2.0 ** (len(self.deaths) - 1))
        return self.deaths[-1] + backoff


@dataclass(slots=True)
class Child:
    """One supervised process: adopted (record only) or our own (with a Popen to reap)."""

    spec: ChildSpec
    root: StateRoot
    code: str
    record: ProcessRecord | None = None
    popen: subprocess.Popen[bytes] | None = None
    history: CrashHistory = field(default_factory=CrashHistory)
    gave_up: bool = False
    retiring: ProcessRecord | None = None
    """The process of other code that the present one takes the socket over from."""

    def begin(self) -> None:
        """Adopt a living process of this code, or start a new one in place of whatever runs."""
        old = self.root.record(self.spec.name)
        if old is not None and old.detail.get("code") == self.code:
            LOGGER.info("%s: adopted pid %d", self.spec.name, old.pid)
            self.record = old
            return
        if old is not None and not self.spec.hands_over:
            LOGGER.info("%s: ending pid %d of other code", self.spec.name, old.pid)
            stop(old, grace_s=_AGENT_GRACE_S)
        elif old is not None:
            # Under a name of its own, so that `flightpath down` finds it whatever becomes of its successor.
            self.retiring = rename(self.root.run, old, f"{old.name}-retiring-{old.pid}")
        self.start()

    def start(self) -> None:
        self.record, self.popen = spawn(
            self.root.run,
            self.spec.name,
            self.spec.command,
            log=self.root.logs / f"{self.spec.name}.log",
            detail={"code": self.code},
        )
        LOGGER.info("%s: started pid %d", self.spec.name, self.record.pid)

    def tick(self, now: float) -> None:
        """Notice a death, and start again when the back-off is over."""
        if self.retiring is not None and not self.retiring.alive:
            forget(self.root.run, self.retiring.name)
            self.retiring = None
        if self.gave_up or self._lives():
            return
        if self.record is not None:
            LOGGER.warning("%s: pid %d ended", self.spec.name, self.record.pid)
            self.history.note(now)
            self.record = None
        due = self.history.next_start(now)
        if due is None:
            LOGGER.error(
                "%s: crashed more than %d times in %.0f s, given up; see its log",
                self.spec.name,
                _CRASHES_ALLOWED,
                _CRASH_WINDOW_S,
            )
            self.gave_up = True
        elif now >= due:
            self.start()

    def _lives(self) -> bool:
        if self.record is None:
            return False
        if self.popen is not None and self.popen.pid == self.record.pid:
            return self.popen.poll() is None
        return self.record.alive


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
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def supervise(root: StateRoot, topology: Topology, stopping: threading.Event) -> None:
    """Until told to stop: every child runs. Children are left running on the way out."""
    code = running_code()
    children = [Child(spec=spec, root=root, code=code) for spec in child_specs(topology)]
    for child in children:
        child.begin()
    while not stopping.wait(_TICK_S):
        now = time.monotonic()
        for child in children:
            child.tick(now)


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
