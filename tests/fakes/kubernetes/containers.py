"""One container as a process group of this machine: started, watched, ended by signal, told by its exit status."""

import asyncio
import os
import signal
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from uuid import uuid4
from weakref import WeakKeyDictionary

from tests.fakes.kubernetes.timestamps import rfc3339

Object = dict[str, Any]

_MESSAGE_BYTES: Final = 4096
_LOG_TAIL_BYTES: Final = 2048
_LOG_TAIL_LINES: Final = 80
_MARK: Final = "PROCESS_KUBELET_CONTAINER"
_marks: Final[WeakKeyDictionary[asyncio.subprocess.Process, str]] = WeakKeyDictionary()
"""Value of the variable by which all processes of a container are found, whatever session they began."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """All that a start needs, with names, ports and paths of this machine."""

    argv: list[str]
    environment: dict[str, str]
    folder: Path
    log: Path
    message: Path
    """Stands in for the container's terminationMessagePath."""


@dataclass(slots=True)
class ContainerState:
    """What the Pod's status tells of one container."""

    name: str
    image: str
    waiting: tuple[str, str] = ("ContainerCreating", "")
    started_at: str | None = None
    terminated: Object | None = None
    last: Object | None = None
    restarts: int = 0
    started: bool = False
    """The startup probe is over."""
    ready: bool = False
    process: asyncio.subprocess.Process | None = None
    environment: dict[str, str] = field(default_factory=dict)
    reason: str | None = None
    """Overrides the reason of the termination: OOMKilled."""

    @property
    def running(self) -> bool:
        return self.process is not None

    def document(self) -> Object:
        """The ContainerStatus."""
        if self.process is not None:
            state: Object = {"running": {"startedAt": self.started_at}}
        elif self.terminated is not None:
            state = {"terminated": self.terminated}
        else:
            state = {
                "waiting": {"reason": self.waiting[0], **({"message": self.waiting[1]} if self.waiting[1] else {})}
            }
        return {
            "name": self.name,
            "image": self.image,
            "imageID": self.image,
            "containerID": f"process://{self.process.pid}" if self.process else "",
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": state,
            "lastState": {"terminated": self.last} if self.last else {},
        }


async def run(state: ContainerState, launch: Launch, fallback_to_logs: bool) -> int:
    """Runs the process to its end; returns the exit code as a shell tells it: 128 + signal."""
    launch.log.parent.mkdir(parents=True, exist_ok=True)
    launch.folder.mkdir(parents=True, exist_ok=True)
    launch.message.unlink(missing_ok=True)
    mark = uuid4().hex
    with launch.log.open("ab") as log:
        log_begins = log.tell()
        process = await asyncio.create_subprocess_exec(
            *launch.argv,
            env=launch.environment | {_MARK: mark},
            cwd=launch.folder,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    _marks[process] = mark
    state.process, state.started_at, state.terminated = process, rfc3339(), None
    state.environment = launch.environment
    try:
        code = await process.wait()
    except asyncio.CancelledError:
        send(process, signal.SIGKILL)
        await process.wait()
        raise
    send(process, signal.SIGKILL)  # what it left behind dies with its container
    return _settle(state, code, _message(launch, log_begins if fallback_to_logs and code != 0 else None))


def _settle(state: ContainerState, code: int, message: str) -> int:
    exit_code = 128 - code if code < 0 else code
    terminated: Object = {
        "exitCode": exit_code,
        "reason": state.reason or ("Completed" if exit_code == 0 else "Error"),
        "startedAt": state.started_at,
        "finishedAt": rfc3339(),
        "containerID": f"process://{state.process.pid if state.process else 0}",
    }
    if code < 0:
        terminated["signal"] = -code
    if message:
        terminated["message"] = message
    state.process, state.ready, state.started, state.reason = None, False, False, None
    state.terminated = terminated
    return exit_code


def _message(launch: Launch, log_begins: int | None) -> str:
    """The file that the container left, or the tail of its log, which may hold earlier runs, if that is asked for."""
    if launch.message.exists() and (text := launch.message.read_text(errors="replace")):
        return text[-_MESSAGE_BYTES:]
    if log_begins is None:
        return ""
    tail = launch.log.read_bytes()[log_begins:][-_LOG_TAIL_BYTES:].decode(errors="replace")
    return "".join(tail.splitlines(keepends=True)[-_LOG_TAIL_LINES:])


def send(process: asyncio.subprocess.Process, number: int) -> None:
    """Signals the process and all that it started, if there is anybody left.

    The group outlives its leader, so a leader that exited still leaves children to end."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, number)
    if number == signal.SIGKILL and (mark := _marks.get(process)):
        _kill_marked(f"{_MARK}={mark}".encode())


def _kill_marked(mark: bytes) -> None:
    """The rest of a container: torchrun's workers have sessions of their own, and end with it on a real node."""
    while found := [pid for pid in map(int, filter(str.isdecimal, os.listdir("/proc"))) if _has_mark(pid, mark)]:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _has_mark(pid: int, mark: bytes) -> bool:
    try:
        return mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False  # gone, or another user's


def refuse_start(state: ContainerState, error: OSError) -> int:
    """A command that cannot be executed: what a container runtime reports."""
    state.process = None
    state.terminated = {
        "exitCode": 128,
        "reason": "StartError",
        "message": f"failed to create containerd task: {error}",
        "startedAt": rfc3339(),
        "finishedAt": rfc3339(),
    }
    return 128
