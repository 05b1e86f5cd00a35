"""One world for the long chains: a state root, three regions and the first release, made by the demo itself."""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

PROJECT = Path(__file__).resolve().parent.parent.parent


_CRASHING = [sys.executable, "-m", "tests.fakes.engine_that_crashes", "--model", "{model}", "--version", "{version}"]
_CRASHING += ["--bundle", "{bundle}", "--variant", "{variant}", "--host", "{host}", "--port", "{port}"]


@dataclass(frozen=True)
class World:
    """A checkout's commands against a state root and ports of their own."""

    root: Path
    port_base: int

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("FLIGHTPATH_")}
        kept.pop("PYTHONDONTWRITEBYTECODE", None)
        mine = {"FLIGHTPATH_HOME": str(self.root), "FLIGHTPATH_PORT_BASE": str(self.port_base)}
        topology = self.root / "topology.yaml"
        return {**kept, **mine, **({"FLIGHTPATH_TOPOLOGY": str(topology)} if topology.exists() else {})}

    def flightpath(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self._run([sys.executable, "-m", "flightpath", *arguments], environment)

    def pyflyte(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return self._run([sys.executable, "-m", "flytekit.clis.sdk_in_container.pyflyte", *arguments], environment)

    def _run(self, command: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=PROJECT,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1800,
            check=False,
        )

    def gateway(self, index: int) -> str:
        return f"http://127.0.0.1:{self.port_base + 100 * index}"

    def served(self, model: str) -> list[int]:
        """The versions that each region sends users to, region by region."""
        found = []
        for index in range(3):
            with urllib.request.urlopen(f"{self.gateway(index)}/v1/models", timeout=5) as response:
                models = {entry["id"]: entry for entry in json.loads(response.read())["data"]}
            found += [backend["version"] for backend in models[model]["versions"] if backend["weight"]]
        return found

    def record(self, release: str, stage: str) -> Path:
        return self.root / "store" / "releases" / release / f"{stage}.json"

    def read(self, release: str, stage: str) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.record(release, stage).read_bytes())
        return loaded

    def processes(self) -> list[psutil.Process]:
        """Every process that was started with this state root."""
        mine = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("FLIGHTPATH_HOME") == str(self.root) and process.status() != "zombie":
                    mine.append(process)
            except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
                continue
        return [process for process in mine if process.pid != os.getpid()]


@contextmanager
def users(world: World, model: str, release: str, report: Path) -> Iterator[None]:
    """Real questions from a release's held-out data, to every region."""
    command = [sys.executable, "-m", "flightpath.local.traffic", "--model", model]
    command += ["--release-id", release, "--report", str(report)]
    process = subprocess.Popen(command, cwd=PROJECT, env=world.environment)
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=90) == 0


def _free_base() -> int:
    """A base whose six ports nobody holds at the moment."""
    for base in random.sample(range(20000, 32000, 2), 200):
        try:
            for port in (base + offset for index in range(3) for offset in (100 * index, 100 * index + 1)):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return base
    raise RuntimeError("no free ports between 20000 and 32000")


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    made = World(root=tmp_path_factory.mktemp("world"), port_base=_free_base())
    # A runtime of the tests' own, as a user's would be: the product knows nothing of its faults.
    (made.root / "topology.yaml").write_text(json.dumps({"local": True, "runtimes": {"crashing": _CRASHING}}))
    yield made
    made.flightpath("down")
    assert made.processes() == []


@dataclass(frozen=True)
class FirstRelease:
    """What the demo printed and left when it released the first version."""

    release_id: str
    output: str


@pytest.fixture(scope="session")
def first_release(world: World) -> FirstRelease:
    done = world.flightpath("demo", "--recipe", "resnet-digits")
    assert done.returncode == 0, done.stdout + done.stderr
    return FirstRelease(release_id="resnet-digits-1", output=done.stdout)


@pytest.fixture(scope="session")
def second_release(world: World, first_release: FirstRelease) -> str:
    """The demo's second version over the running first one; returns its release id."""
    done = world.flightpath("demo", "--recipe", "resnet-digits")
    assert done.returncode == 0, done.stdout + done.stderr
    return "resnet-digits-2"
