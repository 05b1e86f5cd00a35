"""A model server that is stopped under a running agent and gateway: users are led past it, and it is replaced.

And one that is merely busy, which is not. Real agents, gateways and ONNX engines.
"""

import asyncio
import json
import os
import signal
import time
from itertools import pairwise
from pathlib import Path

import aiohttp
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from serving.bundle import Manifest, TensorSpec, Variant, describe_file
from serving.liveness import LivenessLimits
from serving.processes import read_records, stop
from serving.regions.servers.launcher import LaunchSettings, LocalLauncher
from serving.regions.servers.probe import ProbeSettings
from serving.regions.servers.server_process import ServerSpec
from serving.regions.servers.watch import WatchSettings
from serving.releases import RuntimeSpec
from tests.fakes.models import VARIANT
from tests.fakes.regions import (
    client,
    finished,
    infer,
    make_bundle,
    make_order,
    make_release,
    make_topology,
    running_regions,
    settled,
)

WIDTH = 1024
REPEATS = 400
ROWS = 32
"""Of one request, as many as one run takes."""


async def test_users_are_led_past_a_stopped_server_and_it_is_replaced(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home", "away")
    release = make_release(tmp_path, "rel-1", make_bundle(tmp_path, topology, samples=20))
    agent = client(topology)
    async with running_regions(topology) as agents:
        await agent.put_promotion("p-1", make_order(release, ["home", "away"]))
        assert (await finished(agent, "p-1"))["state"] == "live"
        await settled(agent)
        async with asyncio.timeout(60):
            while not agents["home"].peers.serving("digits"):
                await asyncio.sleep(0.05)
        launcher, serving = agents["home"].launcher, agents["home"].serving
        (before,) = read_records(topology.home.state_folder / "servers")
        os.kill(before.pid, signal.SIGSTOP)
        async with asyncio.timeout(60):
            while launcher.status("rel-1").url is not None:
                await asyncio.sleep(0.02)
        assert launcher.status("rel-1").note.startswith("stopped for")
        await serving.push("digits")
        assert await infer(topology, "home") == (200, "rel-1", "away")
        async with asyncio.timeout(120):
            while launcher.status("rel-1").url is None or not launcher.status("rel-1").restarts:
                assert (await infer(topology, "home"))[0] == 200
        await serving.push("digits")
        assert await infer(topology, "home") == (200, "rel-1", "home")
        (after,) = read_records(topology.home.state_folder / "servers")
        journal = await agent.journal()
    assert after.pid != before.pid
    assert not before.alive
    (told,) = [entry["message"] for entry in journal if entry["kind"] == "server"]
    assert told.startswith("started again: killed: stopped for")


async def test_no_gateway_counts_what_its_agent_asks_the_servers(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    release = make_release(tmp_path, "rel-1", make_bundle(tmp_path, topology, samples=20))
    agent = client(topology)
    async with running_regions(topology) as agents:
        await agent.put_promotion("p-1", make_order(release, ["home"]))
        await finished(agent, "p-1")
        await settled(agent)
        home = agents["home"]
        url = home.launcher.status("rel-1").url
        assert url is not None
        counted, asked = await home.serving.stats("digits"), await inferences(url)
        async with asyncio.timeout(60):
            while await inferences(url) < asked + 2:
                await asyncio.sleep(0.1)
        assert await home.serving.stats("digits") == counted


async def inferences(url: str) -> float:
    """How many a server has answered well, by its own metrics."""
    async with aiohttp.ClientSession() as session, session.get(f"{url}/metrics") as response:
        lines = (await response.text()).splitlines()
    counters = [line for line in lines if line.startswith("flightpath_engine_requests_total{") and '"200"' in line]
    return sum(float(line.rpartition(" ")[2]) for line in counters)


def write_heavy_bundle(folder: Path) -> None:
    """A model that computes for some tenths of a second on each request."""
    random = np.random.default_rng(0)
    weights = (random.normal(size=(WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32)
    names = ["x", *(f"h{step}" for step in range(REPEATS - 1)), "y"]
    nodes = [helper.make_node("MatMul", [before, "W"], [after]) for before, after in pairwise(names)]
    graph = helper.make_graph(
        nodes,
        "heavy",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", WIDTH])],
        [numpy_helper.from_array(weights, "W")],
    )
    folder.mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(folder / "model.onnx"))
    manifest = Manifest(
        name="heavy",
        family="linear",
        inputs=[TensorSpec(name="x", datatype="FP32", shape=[-1, WIDTH])],
        outputs=[TensorSpec(name="y", datatype="FP32", shape=[-1, WIDTH])],
        variants=[
            Variant(
                name=VARIANT, runtime="onnxruntime", entry="model.onnx", files=[describe_file(folder, "model.onnx")]
            )
        ],
    )
    (folder / "manifest.json").write_bytes(manifest.to_bytes())


async def test_a_server_that_is_busy_for_longer_than_a_silent_one_may_live_is_left_alone(tmp_path: Path) -> None:
    write_heavy_bundle(tmp_path / "bundle")
    runtime = RuntimeSpec(engine="onnxruntime", variant=VARIANT)
    spec = ServerSpec(name="rel-1", model="heavy", version=1, bundle=tmp_path / "bundle", runtime=runtime)
    records = tmp_path / "here" / "servers"
    limits = LivenessLimits(hung_silent_s=6.0, hung_dead_s=8.0)
    watch = WatchSettings(liveness=limits, probe=ProbeSettings(work_every_s=0.5))
    launcher = LocalLauncher(records, tmp_path / "logs", runtimes={}, settings=LaunchSettings(watch=watch))
    watching = asyncio.create_task(launcher.supervise())
    try:
        await launcher.ensure(spec, restart=True)
        async with asyncio.timeout(60):
            while (url := launcher.status("rel-1").url) is None:
                await asyncio.sleep(0.05)
        slowest_s = 0.0
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as session:
            asking = [asyncio.create_task(ask_for_ever(session, url)) for _ in range(60)]
            began = time.monotonic()
            async with asyncio.timeout(240):
                # In the order of their coming: what is asked now is answered only after the others.
                while slowest_s < 1.5 * limits.hung_dead_s:
                    slowest_s = await ask(session, url)
                    status = launcher.status("rel-1")
                    assert (status.url, status.restarts) == (url, 0), (status, time.monotonic() - began)
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        for record in read_records(records):
            stop(record, grace_s=0.0)


REQUEST = json.dumps(
    {"inputs": [{"name": "x", "datatype": "FP32", "shape": [ROWS, WIDTH], "data": [0] * (ROWS * WIDTH)}]}
).encode()


async def ask(session: aiohttp.ClientSession, url: str) -> float:
    """Seconds until the answer."""
    began = time.monotonic()
    async with session.post(f"{url}/v2/models/heavy/infer", data=REQUEST) as response:
        assert response.status == 200, await response.text()
    return time.monotonic() - began


async def ask_for_ever(session: aiohttp.ClientSession, url: str) -> None:
    while True:
        await ask(session, url)
