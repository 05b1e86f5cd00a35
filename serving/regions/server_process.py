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
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Self

from serving import processes
from serving.errors import InvalidInput
from serving.processes import ProcessRecord
from serving.releases import RuntimeSpec

_HOST: Final = "127.0.0.1"
_ROTATE_BYTES: Final = 16 * 1024 * 1024
_TAIL_BYTES: Final = 8192
_PASSED_ON: Final = re.compile(
    r"PATH|HOME|USER|LANG|LC_\w+|TZ|TMPDIR|VIRTUAL_ENV|PYTHONPATH|LD_LIBRARY_PATH|OMP_\w+|CUDA_\w+|NVIDIA_\w+|HF_HOME|VLLM_\w+"
)
_SECRET: Final = re.compile(r"TOKEN|SECRET|PASSWORD|API_KEY", re.IGNORECASE)
_BUILTIN: Final = {
    "onnxruntime": [
        sys.executable,
        *("-m", "serving.engines.server", "--model", "{model}", "--version", "{version}", "--bundle", "{bundle}"),
        *("--variant", "{variant}", "--host", "{host}", "--port", "{port}"),
    ],
}


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
        return cls(**{**raw, "bundle": Path(raw["bundle"]), "runtime": RuntimeSpec(**raw["runtime"])})


def known_engines(runtimes: Mapping[str, list[str]]) -> frozenset[str]:
    return frozenset({*_BUILTIN, *runtimes})


def command_line(spec: ServerSpec, port: int, runtimes: Mapping[str, list[str]]) -> list[str]:
    """The engine's command with its places filled in; raises InvalidInput for an engine nobody defined."""
    template = runtimes.get(spec.runtime.engine) or _BUILTIN.get(spec.runtime.engine)
    if template is None:
        known = " | ".join(sorted(known_engines(runtimes)))
        raise InvalidInput("unknown engine", got=spec.runtime.engine, expected=known)
    places = {
        "{bundle}": str(spec.bundle),
        "{model}": spec.model,
        "{version}": str(spec.version),
        "{variant}": spec.runtime.variant,
        "{host}": _HOST,
        "{port}": str(port),
    }
    return [*(_fill(word, places) for word in template), *spec.runtime.arguments]


def _fill(word: str, places: Mapping[str, str]) -> str:
    """One pass, so that a value that looks like a place is not filled again."""
    return re.sub("|".join(map(re.escape, places)), lambda match: places[match.group()], word)


def minimal_environment(extra: Mapping[str, str], source: Mapping[str, str]) -> dict[str, str]:
    """What a model server may know of the agent's environment, and what its release adds."""
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
        """Spawn on a free port; the port may be lost to another process before the server binds it."""
        log = logs / f"server-{records.parent.name}-{spec.name}.log"
        port = _free_port()
        command = command_line(spec, port, runtimes)
        records.mkdir(parents=True, exist_ok=True)
        _rotate(log)
        record, child = processes.spawn(
            records,
            spec.name,
            command,
            log=log,
            environment=minimal_environment(spec.runtime.environment, os.environ),
            detail={"spec": spec.to_json(), "port": port, "log": str(log), "log_from": _size(log)},
        )
        return cls(spec=spec, record=record, folder=records, log=log, child=child)

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def url(self) -> str:
        return f"http://{_HOST}:{self.record.detail['port']}"

    @property
    def alive(self) -> bool:
        return self.record.alive if self.child is None else self.child.poll() is None

    def stop(self, *, grace_s: float) -> None:
        """End it and whatever it started; blocks until it is gone."""
        processes.stop(self.record, grace_s=grace_s)
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


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_HOST, 0))
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
