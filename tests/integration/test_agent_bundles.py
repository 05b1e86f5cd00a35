"""Bundles that rot or vanish under a running region come back by themselves."""

import asyncio
import os
import shutil
import signal
from pathlib import Path
from typing import Any

from serving.bundle import MANIFEST
from serving.processes import read_records
from serving.regions.places.client import AgentClient
from serving.regions.places.topology import Topology
from serving.store import ArtifactStore, bundle_path
from tests.fakes.regions import (
    client,
    finished,
    infer,
    make_bundle,
    make_order,
    make_release,
    make_topology,
    no_servers_left,
    running_agent,
    running_gateway,
    settled,
)


async def live(topology: Topology, root: Path) -> str:
    """The digest of a release that is live."""
    digest = make_bundle(root, topology, samples=20)
    home = client(topology)
    await home.put_promotion("rel-1", make_order(make_release(root, "rel-1", digest), ["home"]))
    assert (await finished(home, "rel-1"))["state"] == "live"
    await settled(home)
    return digest


async def noted(home: AgentClient, what: str) -> dict[str, Any]:
    """The journal's entry of a bundle that was `fetched` or `mended`, once it is there."""
    async with asyncio.timeout(90):
        while True:
            for event in await home.journal():
                if event["kind"] == "bundle" and event["message"].startswith(what):
                    return event
            await asyncio.sleep(0.1)


async def test_a_file_that_rots_under_a_server_is_mended_when_the_server_cannot_start(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    with no_servers_left(topology):
        async with running_gateway(topology, "home"), running_agent(topology, "home"):
            digest = await live(topology, tmp_path)
            path = topology.home.state_folder / bundle_path(digest) / "model.onnx"
            content = bytearray(path.read_bytes())
            content[len(content) // 2] ^= 1
            path.write_bytes(content)
            (server,) = read_records(topology.home.state_folder / "servers")
            os.kill(server.pid, signal.SIGKILL)
            event = await noted(client(topology), "mended in the working folder")
            assert (event["subject"], event["detail"]["paths"]) == (digest, ["model.onnx"])
            async with asyncio.timeout(90):
                while (await infer(topology, "home"))[:2] != (200, "rel-1"):
                    await asyncio.sleep(0.1)


async def test_what_vanished_from_the_regions_own_store_is_there_again_after_the_next_audit(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    own = ArtifactStore(topology.home.store_uri)
    with no_servers_left(topology):
        async with running_gateway(topology, "home"):
            async with running_agent(topology, "home"):
                digest = await live(topology, tmp_path)
            shutil.rmtree(topology.home.state_folder / "store" / bundle_path(digest))
            async with running_agent(topology, "home"):
                event = await noted(client(topology), "fetched in the own store")
                assert event["subject"] == digest
                assert own.has(bundle_path(digest), marker=MANIFEST)
                assert await infer(topology, "home") == (200, "rel-1", "home")
