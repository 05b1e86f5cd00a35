"""An agent that is killed: what was under way ends as it would have, and nobody's request is lost."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from serving.errors import Conflict, Unreachable
from serving.processes import read_records
from serving.regions.places.topology import Topology
from tests.fakes.regions import (
    client,
    finished,
    infer,
    make_bundle,
    make_order,
    make_release,
    make_topology,
    no_servers_left,
    part,
    reached,
    running_agent,
    running_gateway,
    server_names,
    settled,
)

USERS_ALONE = {"synthetic_after_s": -1.0, "synthetic_evidence": False}
"""Nothing is replayed: the canary waits for users."""


@contextmanager
def agent_process(topology: Topology, region: str, root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A real agent process; ended by pid whatever happens."""
    places = ("name", "gateway_url", "agent_url", "store_uri", "registry_url")
    regions = [{**{p: getattr(r, p) for p in places}, "state_folder": str(r.state_folder)} for r in topology.regions]
    folders = {"token_folder": str(topology.token_folder), "key_folder": str(topology.key_folder)}
    document = {"regions": regions, "home_region": topology.home_region, **folders, "runtimes": topology.runtimes}
    (root / "topology.yaml").write_text(yaml.safe_dump(document))
    environment = {**os.environ, "FLIGHTPATH_TOPOLOGY": str(root / "topology.yaml")}
    command = [sys.executable, "-m", "serving.regions.agent", "--region", region]
    with (root / "agent.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


async def answering(topology: Topology, process: subprocess.Popen[bytes]) -> None:
    async with asyncio.timeout(60):
        while True:
            assert process.poll() is None, "the agent ended"
            try:
                await client(topology).region()
                return
            except Unreachable:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("state", ["starting", "canary"])
async def test_a_rollout_whose_agent_was_killed_goes_live_under_the_next_agent(tmp_path: Path, state: str) -> None:
    topology = make_topology(tmp_path, "home")
    first = make_release(tmp_path, "rel-1", make_bundle(tmp_path, topology, samples=20))
    second = make_release(tmp_path, "rel-2", make_bundle(tmp_path, topology, samples=24))
    agent = client(topology)
    with no_servers_left(topology):
        async with running_gateway(topology, "home"):
            with agent_process(topology, "home", tmp_path) as process:
                await answering(topology, process)
                await agent.put_promotion("p-1", make_order(first, ["home"]))
                await finished(agent, "p-1")
                await agent.put_promotion(
                    "p-2", make_order(second, ["home"], synthetic_after_s=-1.0, synthetic_evidence=False)
                )
                if state == "canary":
                    await reached(agent, "p-2", "home", "canary")
                # A start of a third of a second is over between two of the promotion's looks at its region.
                while "rel-2" not in server_names(topology, "home"):
                    await asyncio.sleep(0.01)
                process.send_signal(signal.SIGKILL)
                process.wait()
            assert await infer(topology, "home") in [(200, "rel-1", "home"), (200, "rel-2", "home")]
            adopted = {r.name: r.pid for r in read_records(topology.home.state_folder / "servers") if r.alive}
            async with running_agent(topology, "home"):
                answers = []
                while (promotion := await agent.get_promotion("p-2"))["state"] == "running":
                    answers.append(await infer(topology, "home"))
                await settled(agent)
                assert await infer(topology, "home") == (200, "rel-2", "home")
                assert server_names(topology, "home") == ["rel-2"]
                running = {r.name: r.pid for r in read_records(topology.home.state_folder / "servers") if r.alive}
    assert promotion["state"] == "live", promotion
    assert {status for status, _, _ in answers} == {200}
    assert running["rel-2"] == adopted["rel-2"]
    assert [s["percent"] for s in part(promotion, "home")["steps"] if s["state"] == "canary"] == [50, 100]


async def test_a_candidate_that_died_while_no_agent_ran_is_taken_back(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    first = make_release(tmp_path, "rel-1", make_bundle(tmp_path, topology, samples=20))
    second = make_release(tmp_path, "rel-2", make_bundle(tmp_path, topology, samples=24))
    agent = client(topology)
    with no_servers_left(topology):
        async with running_gateway(topology, "home"):
            async with running_agent(topology, "home"):
                await agent.put_promotion("p-1", make_order(first, ["home"]))
                await finished(agent, "p-1")
                await agent.put_promotion(
                    "p-2", make_order(second, ["home"], synthetic_after_s=-1.0, synthetic_evidence=False)
                )
                await reached(agent, "p-2", "home", "canary")
            records = read_records(topology.home.state_folder / "servers")
            candidate = next(record for record in records if record.name == "rel-2")
            os.kill(candidate.pid, signal.SIGKILL)
            os.waitpid(candidate.pid, 0)
            async with running_agent(topology, "home"):
                promotion = await finished(agent, "p-2")
                await settled(agent)
                assert await infer(topology, "home") == (200, "rel-1", "home")
    assert promotion["state"] == "rolled_back"
    assert "gate server failed" in promotion["reason"]


async def test_a_live_server_that_crashes_is_started_again(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    release = make_release(tmp_path, "rel-1", make_bundle(tmp_path, topology, samples=20))
    agent = client(topology)
    with no_servers_left(topology):
        async with running_gateway(topology, "home"), running_agent(topology, "home") as running:
            await agent.put_promotion("p-1", make_order(release, ["home"]))
            await finished(agent, "p-1")
            (before,) = read_records(topology.home.state_folder / "servers")
            os.kill(before.pid, signal.SIGKILL)
            async with asyncio.timeout(60):
                while not (status := running.launcher.status("rel-1")).restarts or status.url is None:
                    await asyncio.sleep(0.05)
            await running.serving.push("digits")
            assert await infer(topology, "home") == (200, "rel-1", "home")
            journal = await agent.journal()
    assert [e["message"] for e in journal if e["kind"] == "server"] == ["started again: ended by signal 9"]


async def test_two_agents_of_one_region_cannot_run(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    async with running_agent(topology, "home"):
        with agent_process(topology, "home", tmp_path) as second:
            assert await asyncio.to_thread(second.wait, 60) == 1
        assert "region home has an agent already" in (tmp_path / "agent.log").read_text()
        with pytest.raises(Conflict, match="has an agent already"):
            async with running_agent(topology, "home"):
                pass


async def test_sigterm_ends_the_agent_and_leaves_its_servers(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    release = make_release(tmp_path, "rel-1", make_bundle(tmp_path, topology, samples=20))
    agent = client(topology)
    with no_servers_left(topology):
        async with running_gateway(topology, "home"):
            with agent_process(topology, "home", tmp_path) as process:
                await answering(topology, process)
                await agent.put_promotion("p-1", make_order(release, ["home"]))
                await finished(agent, "p-1")
                process.send_signal(signal.SIGTERM)
                assert await asyncio.to_thread(process.wait, 60) == 0
            assert server_names(topology, "home") == ["rel-1"]
            assert await infer(topology, "home") == (200, "rel-1", "home")
