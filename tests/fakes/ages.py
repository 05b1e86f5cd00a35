"""Regions whose agents and gateways are processes of this code or of an earlier commit's, under users' requests."""

import asyncio
import contextlib
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from serving.errors import Unreachable
from serving.regions.places.topology import Topology
from tests.fakes.regions import client, no_servers_left, write_topology

PROJECT: Final = Path(__file__).resolve().parent.parent.parent
_MODULES: Final = {"agent": "serving.regions.agent", "gateway": "serving.gateway.app"}


def checkout(commit: str, folder: Path) -> Path:
    """The commit's files in `folder`; the test is skipped where this repository's history is not at hand."""
    archive = folder / "code.tar"
    folder.mkdir(parents=True, exist_ok=True)
    command = ["git", "-C", str(PROJECT), "archive", f"--output={archive}", commit, "serving", "flightpath", "tasks"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError:
        pytest.skip("git is not installed: an earlier commit cannot be run")
    if done.returncode:
        pytest.skip(f"commit {commit} is not here, as in a shallow clone: {done.stderr.strip()}")
    with tarfile.open(archive) as files:
        files.extractall(folder / "code", filter="data")
    archive.unlink()
    return folder / "code"


class Ages:
    """Agents and gateways of a topology, each of an age that the test chooses. Use `with`."""

    def __init__(self, root: Path, topology: Topology) -> None:
        self.root = root
        self.topology = topology
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._topology_file = write_topology(root, topology)

    def __enter__(self) -> "Ages":
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self.processes.values():
            _end(process)
        with no_servers_left(self.topology):
            pass

    def start(self, name: str, code: Path = PROJECT) -> None:
        """`home agent`, `away gateway`, …; a gateway takes the socket of the one that runs over."""
        region, role = name.split(" ")
        environment = {**os.environ, "FLIGHTPATH_TOPOLOGY": str(self._topology_file)}
        environment |= {"FLIGHTPATH_HOME": str(self.root), "PYTHONPATH": str(code)}
        command = [sys.executable, "-m", _MODULES[role], "--region", region]
        with (self.root / f"{name}.log").open("ab") as log:
            started = subprocess.Popen(command, env=environment, cwd=code, stdout=log, stderr=subprocess.STDOUT)
        self.processes[name] = started

    async def replace(self, name: str, code: Path = PROJECT) -> None:
        """As the supervisor does: an agent ends before the next begins, a gateway hands its socket over."""
        old = self.processes[name]
        if name.endswith("agent"):
            old.terminate()
            assert await asyncio.to_thread(old.wait, 60) == 0
            self.start(name, code)
            await self.answering(name.split(" ")[0])
            return
        self.start(name, code)
        assert await asyncio.to_thread(old.wait, 90) == 0, self.log(name)

    async def answering(self, region: str) -> dict[str, Any]:
        """What the region's agent says of it, once it answers."""
        name = f"{region} agent"
        async with asyncio.timeout(120):
            while True:
                assert self.processes[name].poll() is None, self.log(name)
                try:
                    return await client(self.topology, region=region).region()
                except Unreachable:
                    await asyncio.sleep(0.05)

    def log(self, name: str) -> str:
        return (self.root / f"{name}.log").read_text(errors="replace")[-4000:]

    async def up(self, code: Path = PROJECT, *, without: tuple[str, ...] = ()) -> None:
        """Every region's gateway and agent of one age, but those that the test starts by itself."""
        names = [f"{region.name} {role}" for role in ("gateway", "agent") for region in self.topology.regions]
        for name in names:
            if name not in without:
                self.start(name, code)
        for region in self.topology.regions:
            if f"{region.name} agent" not in without:
                await self.answering(region.name)


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()


@contextlib.contextmanager
def ages(root: Path, make: Callable[..., Topology], *names: str) -> Iterator[Ages]:
    with Ages(root, make(root, *names)) as made:
        yield made
