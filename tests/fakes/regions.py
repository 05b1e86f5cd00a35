"""Regions for tests: real gateways and real agents in this process, real model servers beside it."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import yaml
from safetensors.numpy import save_file

from serving.bundle import Attestation, GoldenSet, describe_file, read_manifest, seal
from serving.credentials import SigningKey, TokenFolder
from serving.gateway.app import GatewayConfig, assemble
from serving.processes import read_records, stop
from serving.regions.agent import Agent
from serving.regions.places.client import AgentClient
from serving.regions.places.topology import Region, Topology
from serving.regions.servers.launcher import LaunchSettings
from serving.store import ArtifactStore
from serving.web_server import ServerLimits, WebServer, bind_listener
from tests.fakes.models import FEATURES, VARIANT, linear_weights, write_bundle
from tests.fakes.ports import free_port

MODEL = "digits"
CRASHING = "crashing"
"""A runtime whose server dies on its tenth request after the golden set."""
CRASHING_AWAY = "crashing-away"
"""The same in the region called away; elsewhere it serves well."""
QUICK = {
    "steps_percent": [50, 100],
    "bake_s": 0.0,
    "min_requests": 6,
    "required_gates": [],
    "latency_margin": 1000.0,
    "max_p95_ms": 20_000.0,
    "synthetic_after_s": 0.0,
    "synthetic_evidence": True,
    "step_timeout_s": 60.0,
    "on_inconclusive": "back",
    "watch_s": 0.0,
    "drain_s": 0.5,
    "standby_s": 0.0,
    "start_timeout_s": 60.0,
}
"""A policy without waiting: steps pass on six requests, replayed ones too, unless a gate fails."""
_SERVER_SCRIPT = Path(__file__).with_name("crashing_server.py")
_LAUNCH = LaunchSettings(poll_s=0.05, stop_grace_s=5.0)
_LIMITS = ServerLimits(idle_grace_s=0.0, drain_s=5.0)


def make_topology(root: Path, *names: str, runtimes: dict[str, list[str]] | None = None) -> Topology:
    """Regions on free ports below `root`, the first one at home, with tokens."""
    crashing = [sys.executable, str(_SERVER_SCRIPT), "{bundle}", "{model}", "{port}"]
    topology = Topology(
        regions=[_region(root, name) for name in names],
        home_region=names[0],
        token_folder=root / "tokens",
        key_folder=root / "keys",
        runtimes={CRASHING: crashing, CRASHING_AWAY: [*crashing, "away"], **(runtimes or {})},
    )
    TokenFolder(folder=topology.token_folder).ensure()
    return topology


def write_topology(root: Path, topology: Topology) -> Path:
    """The file that tells processes of the regions; FLIGHTPATH_TOPOLOGY names it."""
    places = ("name", "gateway_url", "agent_url", "store_uri", "registry_url")
    regions = [
        {**{place: getattr(region, place) for place in places}, "state_folder": str(region.state_folder)}
        for region in topology.regions
    ]
    folders = {"token_folder": str(topology.token_folder), "key_folder": str(topology.key_folder)}
    path = root / "topology.yaml"
    path.write_text(yaml.safe_dump({"regions": regions, "home_region": topology.home_region, **folders}))
    return path


def _region(root: Path, name: str) -> Region:
    folder = root / "regions" / name
    return Region(
        name=name,
        gateway_url=f"http://127.0.0.1:{free_port()}",
        agent_url=f"http://127.0.0.1:{free_port()}",
        store_uri=(folder / "store").as_uri(),
        registry_url=f"sqlite:///{folder / 'registry.db'}",
        state_folder=folder,
    )


def write_golden(root: Path, *, seed: int, samples: int) -> GoldenSet:
    """Inputs with the linear model's own answers as labels and reference."""
    weights, bias = linear_weights(seed)
    inputs = np.random.default_rng(7).normal(size=(samples, FEATURES)).astype(np.float32)
    reference = inputs @ weights + bias
    root.mkdir(parents=True, exist_ok=True)
    labels = reference.argmax(axis=1).astype(np.int64)
    save_file({"inputs": inputs, "labels": labels, "reference": reference}, root / "golden.safetensors")
    file = describe_file(root, "golden.safetensors")
    return GoldenSet(kind="classification", file=file, samples=samples, reference_accuracy=1.0)


def make_bundle(
    root: Path, topology: Topology, *, samples: int, seed: int = 0, golden_seed: int = 0, padding: int = 0
) -> str:
    """A bundle in `<root>/store`; another number of samples is another digest, another golden seed a bad model.

    `padding` is the size in bytes of one more file, which takes time to copy.
    """
    folder = root / f"bundle-{samples}-{seed}-{golden_seed}"
    golden = write_golden(folder, seed=golden_seed, samples=samples)
    write_bundle(folder, topology.key_folder, seed=seed, name=MODEL, golden=golden)
    if padding:
        _add_padding(folder, topology, padding)
    return ArtifactStore((root / "store").as_uri()).put_bundle(folder)


def _add_padding(folder: Path, topology: Topology, size_bytes: int) -> None:
    with (folder / "padding").open("wb") as file:
        file.truncate(size_bytes)
    manifest = read_manifest(folder)
    (variant,) = manifest.variants
    padded = replace(variant, files=[*variant.files, describe_file(folder, "padding")])
    manifest = replace(manifest, variants=[padded])
    attestation = Attestation(bundle_name=MODEL, bundle_digest=manifest.digest, lineage={}, measurements=[])
    seal(folder, manifest, attestation, SigningKey.ensure(topology.key_folder))


def make_release(root: Path, id: str, digest: str, *, engine: str = "onnxruntime") -> dict[str, Any]:
    runtime = {"engine": engine, "variant": VARIANT, "arguments": [], "environment": {}}
    uri = (root / "store").as_uri()
    return {"id": id, "model": MODEL, "bundle_digest": digest, "store_uri": uri, "runtime": runtime}


def make_order(release: dict[str, Any], regions: list[str], **policy: Any) -> dict[str, Any]:
    return {"schema_version": 1, "release": release, "policy": {**QUICK, **policy}, "regions": regions}


@contextlib.asynccontextmanager
async def running_gateway(topology: Topology, name: str) -> AsyncIterator[None]:
    """The region's real gateway, in this process."""
    region = topology.region(name)
    config = GatewayConfig(region=region, tokens=TokenFolder(folder=topology.token_folder))
    region.state_folder.mkdir(parents=True, exist_ok=True)
    async with assemble(config) as assembled:
        server = WebServer(assembled.gateway, _LIMITS)
        await server.start(bind_listener(*config.address))
        try:
            yield
        finally:
            await server.drain()


@contextlib.asynccontextmanager
async def running_agent(topology: Topology, name: str) -> AsyncIterator[Agent]:
    agent = Agent(topology, name, launch=_LAUNCH)
    await agent.start()
    try:
        yield agent
    finally:
        await agent.stop()


@contextlib.asynccontextmanager
async def running_regions(topology: Topology) -> AsyncIterator[dict[str, Agent]]:
    """Gateways and agents of all regions; the model servers are ended as well."""
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(no_servers_left(topology))
        agents = {}
        for region in topology.regions:
            await stack.enter_async_context(running_gateway(topology, region.name))
            agents[region.name] = await stack.enter_async_context(running_agent(topology, region.name))
        yield agents


@contextlib.contextmanager
def no_servers_left(topology: Topology) -> Iterator[None]:
    try:
        yield
    finally:
        for region in topology.regions:
            for record in read_records(region.state_folder / "servers"):
                stop(record, grace_s=0.0)


def client(topology: Topology, role: str = "operator", region: str | None = None) -> AgentClient:
    """By default of the home region's agent. Its answers may wait for a busy disk: each test bounds the whole."""
    url = (topology.home if region is None else topology.region(region)).agent_url
    return AgentClient(url, TokenFolder(folder=topology.token_folder).read(role), timeout_s=30.0)


async def finished(agent: AgentClient, id: str, *, timeout_s: float = 90.0) -> dict[str, Any]:
    """The promotion once it has finished, and its regions settled."""
    async with asyncio.timeout(timeout_s):
        while (promotion := await agent.get_promotion(id))["state"] == "running":
            await asyncio.sleep(0.05)
    return promotion


async def reached(agent: AgentClient, id: str, region: str, state: str, *, timeout_s: float = 60.0) -> dict[str, Any]:
    """The promotion once `region` is in `state`."""
    async with asyncio.timeout(timeout_s):
        while True:
            promotion = await agent.get_promotion(id)
            if next(part for part in promotion["regions"] if part["region"] == region)["state"] == state:
                return promotion
            assert promotion["state"] == "running", promotion
            await asyncio.sleep(0.02)


async def settled(agent: AgentClient, *, timeout_s: float = 30.0) -> dict[str, Any]:
    """The region once no rollout of it is under way."""
    async with asyncio.timeout(timeout_s):
        while (region := await agent.region())["rollouts"]:
            await asyncio.sleep(0.05)
    return region


async def rolled_back(agent: AgentClient, id: str, *, timeout_s: float = 60.0) -> dict[str, Any]:
    """The rollback once it has finished and every region has settled."""
    async with asyncio.timeout(timeout_s):
        while True:
            rollback = await agent.get_rollback(id)
            if rollback["state"] != "running" and all(part["settled"] for part in rollback["regions"]):
                return rollback
            await asyncio.sleep(0.05)


def make_rollback(to: dict[str, Any] | None = None, regions: list[str] | None = None) -> dict[str, Any]:
    return {"schema_version": 1, "model": MODEL, "to": to, "regions": regions, "reason": "users complain"}


def server_names(topology: Topology, region: str) -> list[str]:
    """Releases whose model servers run in a region, by their records."""
    records = read_records(topology.region(region).state_folder / "servers")
    return sorted(record.name for record in records if record.alive)


async def infer(topology: Topology, region: str) -> tuple[int, str | None, str]:
    """Status, release and region that answered one request of a user, or the text of the refusal."""
    row = np.zeros(FEATURES, dtype=np.float32).tolist()
    tensor = {"name": "x", "shape": [1, FEATURES], "datatype": "FP32", "data": row}
    url = f"{topology.region(region).gateway_url}/v2/models/{MODEL}/infer"
    async with aiohttp.ClientSession() as session, session.post(url, json={"inputs": [tensor]}) as response:
        answered_by = response.headers.get("x-flightpath-release")
        return response.status, answered_by, response.headers.get("x-flightpath-region") or await response.text()


def part(promotion: dict[str, Any], region: str) -> dict[str, Any]:
    return next(part for part in promotion["regions"] if part["region"] == region)
