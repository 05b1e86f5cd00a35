"""One model server as a process: its command line, its environment, its record and its last words.

The environment is a short list plus what the release asks for: a model server gets no token and
none of the agent's settings.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final, Self

import psutil

from serving import processes
from serving.processes import ProcessRecord
from serving.regions.servers.commands import HOST, command_line, engine_environment
from serving.releases import RuntimeSpec

_ROTATE_BYTES: Final = 16 * 1024 * 1024
_TAIL_BYTES: Final = 8192
_PASSED_ON: Final = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|VIRTUAL_ENV|PYTHONPATH|LD_LIBRARY_PATH|OMP_\w+|CUDA_\w+|NVIDIA_\w+|HF_HOME|VLLM_\w+"
)
_SECRET: Final = re.compile(r"TOKEN|SECRET|PASSWORD|API_KEY", re.IGNORECASE)
MARK: Final = "FLIGHTPATH_SERVER"
"""In the environment of a server and all it starts: `<folder of its record>#<id>`, the id that the record has too."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerSpec:
    """What is to run. `name` is the release id: equal names are equal servers."""

    name: str
    model: str
    version: int
    bundle: Path
    runtime: RuntimeSpec

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"bundle": str(self.bundle)}

    @classmethod
    def from_json(cls, raw: Mapping[str, Any]) -> Self:
        """As an agent of any age has kept it: what this one does not know is left out."""
        known = {entry.name: raw[entry.name] for entry in fields(cls) if entry.name in raw}
        runtime = RuntimeSpec.from_document(raw["runtime"])
        return cls(**{**known, "bundle": Path(raw["bundle"]), "runtime": runtime})


def minimal_environment(extra: Mapping[str, str], source: Mapping[str, str]) -> dict[str, str]:
    """What a model server may know of the agent's environment, and what its engine and release add."""
    kept = {name: value for name, value in source.items() if _PASSED_ON.fullmatch(name) and not _SECRET.search(name)}
    return {**kept, **extra}


@dataclass(slots=True)
class ServerProcess:
    """A running server, started here or adopted by its record."""

    spec: ServerSpec
    record: ProcessRecord
    folder: Path
    log: Path
    child: subprocess.Popen[bytes] | None = None
    """None when another process started it."""

    @classmethod
    def start(cls, spec: ServerSpec, *, records: Path, logs: Path, runtimes: Mapping[str, list[str]]) -> Self:
        """Spawn on a free port; the port may be lost to another process before the server binds it.

        Raises InvalidInput or CorruptBundle when there is no command to run, OSError when it cannot be.
        """
        log = logs / f"server-{records.parent.name}-{spec.name}.log"
        port = _free_port()
        command = command_line(
            spec.runtime, model=spec.model, version=spec.version, bundle=spec.bundle, port=port, runtimes=runtimes
        )
        extra = engine_environment(spec.runtime, caches=logs.parent / "caches", runtimes=runtimes)
        mark = f"{_mark_of(records)}{uuid.uuid4().hex}"
        records.mkdir(parents=True, exist_ok=True)
        _rotate(log)
        record, child = processes.spawn(
            records,
            spec.name,
            command,
            log=log,
            environment={**minimal_environment(extra, os.environ), MARK: mark},
            detail={"spec": spec.to_json(), "mark": mark, "port": port, "log": str(log), "log_from": _size(log)},
        )
        return cls(spec=spec, record=record, folder=records, log=log, child=child)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.record.detail['port']}"

    @property
    def alive(self) -> bool:
        return self.record.alive if self.child is None else self.child.poll() is None

    def group(self) -> list[psutil.Process]:
        """All processes of its session or with its mark. Looks at every process there is, so not for each look.

        vLLM's engine writes its title over its environment, and the mark with it.
        """
        return [*processes.session(self.record), *_find_marked(self._is_mine)]

    def _is_mine(self, mark: str) -> bool:
        return mark == self.record.detail.get("mark")

    def stop(self, *, grace_s: float) -> None:
        """End it and whatever it started; blocks until it is gone."""
        processes.stop(self.record, grace_s=grace_s)
        _kill_marked(self._is_mine)
        if self.child is not None:
            self.child.wait()
        self.forget()

    def forget(self) -> None:
        processes.forget(self.folder, self.name)

    def let_go(self) -> None:
        """The agent ends and the server stays: the next agent finds it by its record."""
        if self.child is not None and self.child.poll() is None:
            # Popen would warn about a child that still runs; here that is the purpose.
            self.child.returncode = 0
            # From here on it is known by its record, as to the next agent: nobody may take it for dead.
            self.child = None

    def last_words(self) -> str:
        """The exit status, where it is known, and the last line of the log."""
        code = None if self.child is None else self.child.poll()
        ended = "ended" if code is None else f"ended by signal {-code}" if code < 0 else f"exited with {code}"
        # Whoever is killed from outside says nothing about it.
        line = (
            "" if code in (-signal.SIGKILL, -signal.SIGTERM) else _last_line(self.log, self.record.detail["log_from"])
        )
        return f"{ended}: {line}" if line else ended


def read_server_processes(folder: Path) -> list[ServerProcess]:
    """The servers that the records of a folder tell of, dead ones included."""
    found = []
    for record in processes.read_records(folder):
        with contextlib.suppress(KeyError, TypeError):
            spec = ServerSpec.from_json(record.detail["spec"])
            found.append(ServerProcess(spec=spec, record=record, folder=folder, log=Path(record.detail["log"])))
    return found


def end_strays(folder: Path) -> list[int]:
    """Kill what carries this folder's mark and belongs to no recorded server that lives; returns the pids.

    Such a process is left over when an agent dies between starting a server and writing its record, or
    when a server that starts processes of its own is killed while no agent runs. Call it before anything
    is started, under the region's lock.
    """
    kept = {record.detail.get("mark") for record in processes.read_records(folder) if record.alive}
    return _kill_marked(lambda mark: mark.startswith(_mark_of(folder)) and mark not in kept)


def _mark_of(folder: Path) -> str:
    return f"{folder.resolve()}#"


def _find_marked(wanted: Callable[[str], bool]) -> list[psutil.Process]:
    """The processes whose mark is wanted, in whatever group or session they are."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            mark = process.environ().get(MARK)
            if mark is not None and wanted(mark):
                found.append(process)
    return found


def _kill_marked(wanted: Callable[[str], bool]) -> list[int]:
    """SIGKILL to each, the stopped ones too; returns the pids."""
    ended = []
    for process in _find_marked(wanted):
        with contextlib.suppress(psutil.Error, OSError):
            process.kill()
            ended.append(process.pid)
    return ended


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _rotate(log: Path) -> None:
    """Keep one older log, so that a crash loop cannot fill the disk."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > _ROTATE_BYTES:
            log.replace(log.with_suffix(".log.1"))


def _size(log: Path) -> int:
    return log.stat().st_size if log.exists() else 0


def _last_line(log: Path, start: int) -> str:
    """The last line that was written from `start` on: earlier ones are another process's."""
    try:
        with log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(start, end - _TAIL_BYTES))
            lines = file.read().decode(errors="replace").strip().splitlines()
    except FileNotFoundError:
        return ""
    return lines[-1].strip()[:300] if lines else ""
