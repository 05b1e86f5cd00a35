"""Bring the local regions up and down.

`up` is idempotent: it starts what is missing, replaces what runs older code, and ends what it started
itself when that does not come up. `down` ends everything that the state root has a record of.
"""

import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flightpath.local.state import StateRoot, running_code
from serving.credentials import SigningKey, TokenFolder
from serving.errors import InvalidInput, RetryableError
from serving.processes import ProcessRecord, forget, read_records, spawn, stop
from serving.regions.places.topology import Topology, load_topology
from serving.settings import Settings
from tasks.promotion.readiness import answers, check_ports

_READY_S = 90.0
_POLL_S = 0.1
_GRACE_S = 15.0

Say = Callable[[str], None]


def up(settings: Settings, say: Say) -> bool:
    """Make every local region answer; True if this call started the supervisor."""
    topology = load_topology(settings)
    if not topology.local:
        raise InvalidInput("the topology is not local", got=str(settings.topology), expected="no FLIGHTPATH_TOPOLOGY")
    root = StateRoot.of(settings)
    check_ports(topology, settings)
    TokenFolder(folder=topology.token_folder).ensure()
    SigningKey.ensure(topology.key_folder)
    started = _ensure_supervisor(root, say)
    try:
        _wait_ready(root, topology, say)
    except BaseException:
        if started:
            down(settings, say)
        raise
    return started


def _ensure_supervisor(root: StateRoot, say: Say) -> bool:
    running = root.record("supervisor")
    if running is not None and running.stopped:
        say(f"replacing the supervisor (pid {running.pid}), which is stopped")
        stop(running, grace_s=_GRACE_S)
    elif running is not None and running.detail.get("code") == running_code():
        root.retry.touch()
        return False
    elif running is not None:
        say(f"replacing the supervisor (pid {running.pid}) of other code")
        stop(running, grace_s=_GRACE_S)
    record, _ = spawn(
        root.run,
        "supervisor",
        [sys.executable, "-m", "flightpath.local.supervisor"],
        log=root.logs / "supervisor.log",
        detail={"code": running_code()},
    )
    say(f"supervisor started (pid {record.pid})")
    return running is None


def _wait_ready(root: StateRoot, topology: Topology, say: Say) -> None:
    deadline = time.monotonic() + _READY_S
    code = running_code()
    waiting = {
        f"{role}-{region.name}": url
        for region in topology.regions
        for role, url in (("agent", f"{region.agent_url}/readyz"), ("gateway", f"{region.gateway_url}/healthz"))
    }
    while waiting:
        for name in [name for name, url in waiting.items() if _runs(root, name, code) and answers(url)]:
            say(f"{name} is ready")
            del waiting[name]
        if not waiting:
            return
        if root.record("supervisor") is None:
            raise RetryableError(
                "the supervisor ended", got=_last_line(root.logs / "supervisor.log"), expected="running"
            )
        if time.monotonic() > deadline:
            raise RetryableError(
                "regions did not come up",
                got=sorted(waiting),
                expected=f"ready in {_READY_S:.0f} s; logs in {root.logs}",
            )
        time.sleep(_POLL_S)


def _runs(root: StateRoot, name: str, code: str) -> bool:
    """Whether the process under this name runs the present code; its predecessor may still answer."""
    record = root.record(name)
    return record is not None and record.detail.get("code") == code


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return lines[-1].removeprefix("flightpath: ") if lines else "no log"


def down(settings: Settings, say: Say) -> int:
    """End supervisor, agents, gateways and model servers, in this order; returns how many lived."""
    root = StateRoot.of(settings)
    ended = 0
    for prefix in ("supervisor", "agent-", "gateway-"):
        ended += _stop_all(
            ((root.run, record) for record in read_records(root.run) if record.name.startswith(prefix)), say
        )
    return ended + _stop_all(root.server_records(), say)


def _stop_all(records: Iterable[tuple[Path, ProcessRecord]], say: Say) -> int:
    def end(entry: tuple[Path, ProcessRecord]) -> int:
        folder, record = entry
        lived = record.alive
        stop(record, grace_s=_GRACE_S)
        forget(folder, record.name)
        if lived:
            say(f"{record.name} ended (pid {record.pid})")
        return int(lived)

    with ThreadPoolExecutor(max_workers=8) as pool:
        return sum(pool.map(end, list(records)))
