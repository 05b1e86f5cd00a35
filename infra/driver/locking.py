"""One driver per working directory, over processes: two inits or applies in one directory would tear `.terraform`.

The lock is flock(2) on a file inside `.terraform`, so the kernel frees it when its last holder dies. Terraform itself
inherits it: a driver that is killed leaves the directory locked until the Terraform that it had started has ended.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.driver.errors import DirectoryLocked


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldLock:
    """The open lock file; `fd` goes to the child, `note_child` names it for whoever is refused."""

    fd: int
    operation: str

    def note_child(self, pid: int | None) -> None:
        holder = {"pid": os.getpid(), "terraform_pid": pid, "operation": self.operation}
        text = json.dumps({**holder, "since": datetime.now(UTC).isoformat(timespec="seconds")})
        os.ftruncate(self.fd, 0)
        os.pwrite(self.fd, text.encode(), 0)


@contextlib.contextmanager
def locked(working_dir: Path, operation: str) -> Iterator[HeldLock]:
    """Holds the directory for the block, or raises DirectoryLocked at once."""
    path = working_dir / ".terraform" / "flightpath" / "driver.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _refusal(working_dir, os.pread(fd, 4096, 0)) from None
        held = HeldLock(fd=fd, operation=operation)
        held.note_child(None)
        yield held
    finally:
        os.close(fd)


def _refusal(working_dir: Path, content: bytes) -> DirectoryLocked:
    holder = _read_holder(content)
    pid, child = holder.get("pid"), holder.get("terraform_pid")
    got = f"pid {pid} ({holder.get('operation', 'unknown')} since {holder.get('since', 'unknown')})"
    if child is not None:
        got += f", whose terraform is pid {child}"
    error = DirectoryLocked(
        f"{working_dir} is driven by another process", got=got, expected="no other run; wait for it to end"
    )
    error.holder_pid = pid
    return error


def _read_holder(content: bytes) -> dict[str, Any]:
    try:
        holder = json.loads(content)
    except ValueError:
        return {}  # the holder is just writing it
    return holder if isinstance(holder, dict) else {}
