"""Runs one Terraform process: its environment, its output line by line, its limit, its end.

python-terraform has none of these. Terraform writes into an unlinked file, not a pipe: a pipe whose reader was killed
would end Terraform by SIGPIPE in mid-apply, before it saved its state; so a killed driver costs nothing but its view.
A run that is cancelled (any exception out of a callback, Ctrl-C) or late ends by SIGINT to its process group, on
which Terraform saves its state and releases its lock, and by SIGKILL after the grace.
"""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import IO, Literal

_POLL_S = 0.05
_CHUNK_BYTES = 1 << 20

_OURS = {"TF_IN_AUTOMATION": "1", "TF_INPUT": "0", "CHECKPOINT_DISABLE": "1"}
# Each of these would change a command behind the caller's back, or write secrets into a log.
_DROPPED_PREFIXES = ("TF_CLI_ARGS", "TF_VAR_", "TF_LOG")


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    argv: Sequence[str]
    working_dir: Path
    environment: Mapping[str, str] = field(repr=False)
    timeout: timedelta
    grace: timedelta
    """How long Terraform may take to stop at SIGINT: it waits for the API calls under way."""
    umask: int = -1
    """0o077 where the process writes a plan; -1 keeps the caller's."""
    inherited_fds: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    exit_code: int
    stderr: str = field(repr=False)
    ended_by: Literal["itself", "SIGINT", "SIGKILL"] = "itself"


def environment_for(
    base: Mapping[str, str], overrides: Mapping[str, str], secrets: Mapping[str, str]
) -> dict[str, str]:
    """The environment of one call: a copy; variables only as the caller gave them."""
    inherited = {name: value for name, value in base.items() if not name.startswith(_DROPPED_PREFIXES)}
    variables = {f"TF_VAR_{name}": value for name, value in secrets.items()}
    return {**inherited, **overrides, **variables, **_OURS}


def run(command: Command, *, on_line: Callable[[str], None], on_start: Callable[[int], None]) -> Finished:
    """Runs to the end, to the limit or to the first exception of a callback, which is raised once the group is gone."""
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = _start(command, stdout, stderr)
        lines = _Lines(stdout.fileno())
        ended_by: Literal["itself", "SIGINT", "SIGKILL"] = "itself"
        try:
            on_start(process.pid)
            if not _follow(process, lines, on_line, command.timeout):
                ended_by = _end(process, command.grace)
            lines.feed(on_line, last=True)
        except BaseException:
            _end(process, command.grace)
            raise
        return Finished(exit_code=process.returncode, stderr=_read_all(stderr.fileno()), ended_by=ended_by)


def _start(command: Command, stdout: IO[bytes], stderr: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        list(command.argv),
        cwd=command.working_dir,
        env=dict(command.environment),
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stderr,
        start_new_session=True,
        umask=command.umask,
        pass_fds=command.inherited_fds,
    )


def _follow(
    process: subprocess.Popen[bytes], lines: "_Lines", on_line: Callable[[str], None], timeout: timedelta
) -> bool:
    """True when the process ended by itself before its limit."""
    deadline = time.monotonic() + timeout.total_seconds()
    while True:
        left_s = deadline - time.monotonic()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=max(0.0, min(_POLL_S, left_s)))
            return True
        lines.feed(on_line)
        if left_s <= 0:
            return False


def _end(process: subprocess.Popen[bytes], grace: timedelta) -> Literal["itself", "SIGINT", "SIGKILL"]:
    if process.poll() is not None:
        return "itself"
    ended_by: Literal["SIGINT", "SIGKILL"] = "SIGINT"
    _signal_group(process.pid, signal.SIGINT)
    try:
        process.wait(timeout=grace.total_seconds())
    except subprocess.TimeoutExpired:
        ended_by = "SIGKILL"
    finally:
        # Also after a clean end: a provisioner's child that ignored SIGINT must not outlive its run.
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
    return ended_by


def _signal_group(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


class _Lines:
    """Cuts a growing file into lines. It reads by offset: the child shares the descriptor's own position."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._offset = 0
        self._rest = b""

    def feed(self, on_line: Callable[[str], None], *, last: bool = False) -> None:
        while chunk := os.pread(self._fd, _CHUNK_BYTES, self._offset):
            self._offset += len(chunk)
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            for line in whole:
                on_line(line.decode(errors="replace"))
        if last and self._rest:
            rest, self._rest = self._rest, b""
            on_line(rest.decode(errors="replace"))


def _read_all(fd: int) -> str:
    return os.pread(fd, os.fstat(fd).st_size, 0).decode(errors="replace")
