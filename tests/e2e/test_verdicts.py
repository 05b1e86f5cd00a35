"""What a candidate does to its users decides, with real processes: gateway, agent and model servers.

Each candidate passes its golden set. Users send samples and completions, and feedback on every answer.
"""

import asyncio
import contextlib
import itertools
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import pytest
import yaml

from serving.errors import FlightpathError
from serving.regions.places.topology import Topology
from tests.fakes.models import FEATURES, linear_weights
from tests.fakes.regions import (
    MODEL,
    client,
    finished,
    make_bundle,
    make_order,
    make_release,
    make_topology,
    no_servers_left,
)

pytestmark = pytest.mark.timeout(600)

_SERVER = Path(__file__).parent.parent / "fakes" / "misbehaving_server.py"
_FAULTS = ("none", "refuses-all", "refuses-tools", "hangs-half", "slower", "loses")
_MODULES = {"agent": "serving.regions.agent", "gateway": "serving.gateway.app"}
_USERS = 8
_TOOLS_EVERY = 5
_POLICY: dict[str, Any] = {
    "steps_percent": [25, 50, 100],
    "bake_s": 1.0,
    "min_requests": 30,
    "required_gates": ["errors", "refusals", "latency", "accuracy"],
    "latency_margin": 0.25,
    "error_margin": 0.02,
    "refusal_margin": 0.02,
    "synthetic_after_s": -1.0,
    "synthetic_evidence": False,
    "step_timeout_s": 240.0,
    "on_inconclusive": "hold",
    "watch_s": 3.0,
    "error_budget": 1.0,
}


class Users:
    """Keeps sending until it is told to stop; notes what each version answered."""

    def __init__(self, topology: Topology) -> None:
        self._url = topology.home.gateway_url
        weights, bias = linear_weights(0)
        rows = np.random.default_rng(1).normal(size=(4000, FEATURES)).astype(np.float32)
        self._rows = [row.round(6).tolist() for row in rows]
        self._labels = (np.asarray(self._rows, dtype=np.float32) @ weights + bias).argmax(axis=1).tolist()
        self._turns = itertools.count()
        self.statuses: Counter[tuple[str | None, int]] = Counter()

    async def run(self) -> None:
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            await asyncio.gather(*(self._one(session) for _ in range(_USERS)))

    async def _one(self, session: aiohttp.ClientSession) -> None:
        while True:
            turn = next(self._turns)
            try:
                await (self._chat if turn % 3 == 2 else self._classify)(session, turn)
            except (aiohttp.ClientError, TimeoutError, OSError):
                self.statuses[None, 0] += 1

    async def _classify(self, session: aiohttp.ClientSession, turn: int) -> None:
        index = turn % len(self._rows)
        tensor = {"name": "x", "shape": [1, FEATURES], "datatype": "FP32", "data": self._rows[index]}
        async with session.post(f"{self._url}/v2/models/{MODEL}/infer", json={"inputs": [tensor]}) as response:
            await response.read()
            self.statuses[response.headers.get("x-flightpath-release"), response.status] += 1
            token = response.headers.get("x-flightpath-feedback")
        if token is not None:
            feedback = {"token": token, "labels": [self._labels[index]]}
            async with session.post(f"{self._url}/v1/feedback", json=feedback) as response:
                await response.read()

    async def _chat(self, session: aiohttp.ClientSession, turn: int) -> None:
        body: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": f"{turn}"}]}
        if turn // 3 % _TOOLS_EVERY == 0:
            body["tools"] = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
        async with session.post(f"{self._url}/v1/chat/completions", json=body) as response:
            await response.read()
            self.statuses[response.headers.get("x-flightpath-release"), response.status] += 1


@contextlib.asynccontextmanager
async def region(root: Path) -> AsyncIterator[tuple[Topology, Users]]:
    """One region of real processes, with a sound version live and users."""
    runtimes = {fault: [sys.executable, str(_SERVER), "{bundle}", "{model}", "{port}", fault] for fault in _FAULTS}
    topology = make_topology(root, "home", runtimes=runtimes)
    home = topology.home
    places = {n: getattr(home, n) for n in ("name", "gateway_url", "agent_url", "store_uri", "registry_url")}
    document = {
        "regions": [{**places, "state_folder": str(home.state_folder)}],
        "home_region": "home",
        "token_folder": str(topology.token_folder),
        "key_folder": str(topology.key_folder),
        "runtimes": runtimes,
    }
    (root / "topology.yaml").write_text(yaml.safe_dump(document))
    environment = {
        **os.environ,
        "FLIGHTPATH_TOPOLOGY": str(root / "topology.yaml"),
        "FLIGHTPATH_HOME": str(root),
        "OMP_NUM_THREADS": "1",
    }
    with contextlib.ExitStack() as stack:
        stack.enter_context(no_servers_left(topology))
        for role, module in _MODULES.items():
            log = stack.enter_context((root / f"{role}.log").open("wb"))
            process = subprocess.Popen(
                [sys.executable, "-m", module, "--region", "home"],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
            stack.callback(_end, process)
        await _promote(topology, root, "rel-1", "none", {**_POLICY, "required_gates": []})
        users = Users(topology)
        sending = asyncio.create_task(users.run())
        try:
            yield topology, users
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


async def _promote(topology: Topology, root: Path, name: str, fault: str, policy: dict[str, Any]) -> dict[str, Any]:
    samples = 16 + int(name.removeprefix("rel-"))
    release = make_release(root, name, make_bundle(root, topology, samples=samples), engine=fault)
    agent = client(topology)
    async with asyncio.timeout(60):
        while True:
            try:
                await agent.put_promotion(name, make_order(release, ["home"], **policy))
                break
            except FlightpathError as failure:
                # Its agent and gateway are still starting.
                if not failure.retryable:
                    raise
                await asyncio.sleep(0.2)
    return await finished(agent, name, timeout_s=300.0)


def _gates(promotion: dict[str, Any]) -> str:
    return json.dumps([step["gates"] for step in promotion["regions"][0]["steps"] if step["gates"]], indent=1)


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("fault", "gate"),
    [
        ("refuses-all", "refusals"),
        ("refuses-tools", "refusals"),
        ("hangs-half", "errors"),
        ("slower", "latency"),
        ("loses", "accuracy"),
    ],
)
async def test_a_candidate_that_treats_users_worse_is_rolled_back(tmp_path: Path, fault: str, gate: str) -> None:
    async with region(tmp_path) as (topology, users):
        promotion = await _promote(topology, tmp_path, "rel-2", fault, _POLICY)
        assert promotion["state"] == "rolled_back", _gates(promotion)
        assert f"gate {gate} failed" in promotion["reason"], promotion["reason"]
        users.statuses.clear()
        began = time.monotonic()
        while time.monotonic() - began < 30 and users.statuses["rel-1", 200] < 100:
            await asyncio.sleep(0.1)
        assert users.statuses["rel-1", 200] >= 100, users.statuses


@pytest.mark.smoke
async def test_an_equal_candidate_goes_live_and_stays(tmp_path: Path) -> None:
    async with region(tmp_path) as (topology, users):
        promotion = await _promote(topology, tmp_path, "rel-2", "none", _POLICY)
        assert promotion["state"] == "live", promotion["reason"]
        # The watch may have begun meanwhile.
        *_, last = (step for step in promotion["regions"][0]["steps"] if step["state"] == "canary")
        verdicts = {gate["gate"]: gate["status"] for gate in last["gates"]}
        assert {verdicts[name] for name in _POLICY["required_gates"]} == {"passed"}, _gates(promotion)
        async with asyncio.timeout(60):
            while (shown := await client(topology).get_promotion("rel-2"))["watching"]:
                await asyncio.sleep(0.1)
        assert shown["state"] == "live", shown["reason"]
        failed = {kind: count for kind, count in users.statuses.items() if kind[1] != 200}
        assert failed == {}, users.statuses
