"""Long-lived child processes with a record on disk, so that whoever starts next can adopt or end them.

A record `<folder>/<name>.json` names pid and start; a pid that was reused by another process has another start
and is never signalled. The start is told in ticks since boot: in seconds since the epoch, the kernel moves that of
every process with the wall clock, and all that runs would seem to be somebody else's.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import IO, Any

import psutil

from serving.files import canonical_json, write_atomically

_POLL_S = 0.05
_LOG_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class ProcessRecord:
    name: str
    pid: int
    started_at: float
    """Creation time that the kernel reported at the start, seconds since the epoch."""
    command: list[str]
    born: str | None = None
    """`<id of the boot>:<clock ticks from boot to start>`; None in a record of older code."""
    detail: dict[str, Any] = field(default_factory=dict)
    """Whatever the owner needs to adopt it: port, release, code version."""

    @property
    def alive(self) -> bool:
        return _process(self) is not None

    @property
    def stopped(self) -> bool:
        """Whether SIGSTOP or a terminal holds it, until SIGCONT or SIGKILL."""
        process = _process(self)
        return process is not None and any_stopped([process])


def any_stopped(some: Iterable[psutil.Process]) -> bool:
    """Whether the kernel holds one of them; one that a debugger holds does not count."""
    for process in some:
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_STOPPED:
                return True
    return False


def _process(record: ProcessRecord) -> psutil.Process | None:
    try:
        process = psutil.Process(record.pid)
        return process if _is(process, record) and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None


def _is(process: psutil.Process, record: ProcessRecord) -> bool:
    if record.born is None:
        return bool(abs(process.create_time() - record.started_at) < 0.02)
    return _born(process.pid) == record.born


def _born(pid: int) -> str | None:
    """The `born` of a process, None if there is none (proc(5): field 22 of `stat`, whose second may hold anything)."""
    try:
        ticks = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[19]
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()}:{ticks}"
    except (FileNotFoundError, ProcessLookupError):
        return None


def spawn(
    folder: Path,
    name: str,
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    detail: dict[str, Any] | None = None,
    working_folder: Path | None = None,
) -> tuple[ProcessRecord, subprocess.Popen[bytes]]:
    """Start `command` in a session of its own, with its output appended to `log`, and record it.

    A log over 10 MiB is first moved to `<log>.1`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if log.exists() and log.stat().st_size > _LOG_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))
    with log.open("ab") as output:
        child = _start(command, output, environment, working_folder)
    record = ProcessRecord(
        name=name,
        pid=child.pid,
        started_at=psutil.Process(child.pid).create_time(),
        command=list(command),
        born=_born(child.pid),
        detail=detail or {},
    )
    try:
        _write(folder, record)
    except OSError:
        # Without a record nobody would ever find it again.
        child.kill()
        child.wait()
        raise
    return record, child


def _write(folder: Path, record: ProcessRecord) -> None:
    write_atomically(folder / f"{record.name}.json", canonical_json(asdict(record)))


def rename(folder: Path, record: ProcessRecord, name: str) -> ProcessRecord:
    """Keep the record under another name, so that its own is free for a successor."""
    renamed = replace(record, name=name)
    _write(folder, renamed)
    forget(folder, record.name)
    return renamed


def _start(
    command: Sequence[str], output: IO[bytes], environment: Mapping[str, str] | None, working_folder: Path | None
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        env=dict(os.environ if environment is None else environment),
        cwd=working_folder,
        start_new_session=True,
    )


def read_records(folder: Path) -> list[ProcessRecord]:
    """All records of a folder, dead ones included; an unreadable file is skipped."""
    records = []
    for path in sorted(folder.glob("*.json")):
        try:
            raw = json.loads(path.read_bytes())
            # A younger supervisor's or agent's record may say more: its process is no less ours to adopt or to end.
            records.append(ProcessRecord(**{f.name: raw[f.name] for f in fields(ProcessRecord) if f.name in raw}))
        except (ValueError, TypeError, FileNotFoundError):
            continue
    return records


def forget(folder: Path, name: str) -> None:
    (folder / f"{name}.json").unlink(missing_ok=True)


def stop(record: ProcessRecord, *, grace_s: float) -> None:
    """SIGTERM to the process, then after `grace_s` SIGKILL to its whole session.

    A process that is stopped is killed at once: it would keep the SIGTERM until SIGCONT.
    """
    process = _process(record)
    if process is not None and not any_stopped([process]):
        process.terminate()
        wait_until_gone(record, timeout_s=grace_s)
    _kill_session(record)


def wait_until_gone(record: ProcessRecord, *, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while record.alive:
        if time.monotonic() > deadline:
            return False
        time.sleep(_POLL_S)
    return True


def _kill_session(record: ProcessRecord) -> None:
    """End what is left of the session that the process led."""
    for process in session(record):
        with contextlib.suppress(psutil.Error, OSError):
            process.send_signal(signal.SIGKILL)


def session(record: ProcessRecord) -> list[psutil.Process]:
    """The living processes of the session that the recorded one leads or led; its id is the leader's pid."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if os.getsid(process.pid) == record.pid and _not_older(process, record):
                found.append(process)
    return found


def _not_older(process: psutil.Process, record: ProcessRecord) -> bool:
    """Whether it may belong to the session of the record's process, rather than of an earlier one with its pid."""
    if record.born is None:
        return bool(process.create_time() >= record.started_at - 0.02)
    (boot, _, ticks), (same_boot, _, own_ticks) = record.born.partition(":"), (_born(process.pid) or "").partition(":")
    return boot == same_boot and int(own_ticks) >= int(ticks)


def listener(port: int) -> psutil.Process | None:
    """The process that listens on a TCP port of this machine, if it can be seen."""
    for connection in psutil.net_connections(kind="tcp"):
        bound = connection.laddr[1] if connection.laddr else None
        if connection.status == psutil.CONN_LISTEN and bound == port and connection.pid:
            try:
                return psutil.Process(connection.pid)
            except psutil.NoSuchProcess:
                return None
    return None
