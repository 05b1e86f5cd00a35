"""A real gateway and a real agent under the supervisor: stopped ones are replaced."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from flightpath.local.state import StateRoot
from serving.processes import ProcessRecord, read_records, stop
from serving.regions.places.topology import Topology
from tests.fakes.regions import make_topology, write_topology


@dataclass
class World:
    root: StateRoot
    topology: Topology

    def record(self, role: str) -> ProcessRecord:
        record = self.root.record(f"{role}-home")
        assert record is not None
        return record

    def answers(self, role: str) -> bool:
        region = self.topology.home
        url = region.gateway_url if role == "gateway" else region.agent_url
        try:
            return httpx.get(f"{url}/healthz", timeout=5, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False

    @property
    def log(self) -> str:
        return (self.root.path / "supervisor.log").read_text()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    topology = make_topology(tmp_path, "home")
    paths = {"FLIGHTPATH_TOPOLOGY": str(write_topology(tmp_path, topology)), "FLIGHTPATH_HOME": str(tmp_path)}
    world = World(StateRoot(tmp_path), topology)
    with (tmp_path / "supervisor.log").open("wb") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "flightpath.local.supervisor"], env={**os.environ, **paths}, stderr=log
        )
    try:
        until(lambda: world.answers("gateway") and world.answers("agent"))
        yield world
    finally:
        supervisor.kill()
        supervisor.wait()
        for record in read_records(world.root.run):
            stop(record, grace_s=0.0)


def until(holds: Callable[[], bool], *, timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_stopped_gateway_and_a_stopped_agent_are_replaced(world: World) -> None:
    for role in ("gateway", "agent"):
        before = world.record(role)
        other = world.record("agent" if role == "gateway" else "gateway")
        os.kill(before.pid, signal.SIGSTOP)
        until(lambda before=before: not before.alive)
        until(lambda role=role: world.answers(role))
        assert world.record(role).pid != before.pid
        assert f"{role}-home: pid {before.pid} is killed: stopped for" in world.log
        assert other.alive
