"""What takes a promotion back by itself: gates, crashes, corrupt bundles, a region that is away."""

from pathlib import Path

import pytest

from serving.bundle import MANIFEST
from serving.regions.places.topology import Topology
from serving.store import bundle_path
from tests.fakes.regions import (
    CRASHING,
    CRASHING_AWAY,
    client,
    finished,
    infer,
    make_bundle,
    make_order,
    make_release,
    make_topology,
    no_servers_left,
    part,
    running_agent,
    running_gateway,
    running_regions,
    server_names,
    settled,
)


async def make_live(topology: Topology, root: Path, regions: list[str]) -> None:
    release = make_release(root, "rel-1", make_bundle(root, topology, samples=20))
    await client(topology).put_promotion("p-1", make_order(release, regions))
    assert (await finished(client(topology), "p-1"))["state"] == "live"


async def test_a_model_that_fails_its_golden_set_gets_no_traffic(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    bad = make_release(tmp_path, "rel-2", make_bundle(tmp_path, topology, samples=24, golden_seed=5))
    agent = client(topology)
    async with running_regions(topology):
        await make_live(topology, tmp_path, ["home"])
        await agent.put_promotion("p-2", make_order(bad, ["home"]))
        promotion = await finished(agent, "p-2")
        await settled(agent)
        assert await infer(topology, "home") == (200, "rel-1", "home")
        assert server_names(topology, "home") == ["rel-1"]
    assert promotion["state"] == "rolled_back"
    assert "home, golden: gate golden failed: measured" in promotion["reason"]
    assert "allowed at least 0.98 accuracy" in promotion["reason"]
    assert [step["state"] for step in part(promotion, "home")["steps"]][-1] == "golden"


async def test_a_server_that_crashes_under_traffic_is_taken_back_and_users_notice_nothing(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    digest = make_bundle(tmp_path, topology, samples=24)
    bad = make_release(tmp_path, "rel-2", digest, engine=CRASHING)
    agent = client(topology)
    async with running_regions(topology):
        await make_live(topology, tmp_path, ["home"])
        await agent.put_promotion("p-2", make_order(bad, ["home"], min_requests=60, max_error_rate=1.0))
        answers = []
        while (await agent.get_promotion("p-2"))["state"] == "running":
            answers.append(await infer(topology, "home"))
        promotion = await agent.get_promotion("p-2")
        await settled(agent)
        assert server_names(topology, "home") == ["rel-1"]
    assert promotion["state"] == "rolled_back"
    assert (
        "gate server failed: the candidate's server ended: exited with 3: fatal: out of memory" in promotion["reason"]
    )
    assert {status for status, _, _ in answers} == {200}


async def test_a_failure_in_the_second_region_takes_the_first_one_back_too(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home", "away")
    bad = make_release(tmp_path, "rel-2", make_bundle(tmp_path, topology, samples=24), engine=CRASHING_AWAY)
    agent = client(topology)
    async with running_regions(topology):
        await make_live(topology, tmp_path, ["home", "away"])
        await agent.put_promotion("p-2", make_order(bad, ["home", "away"], min_requests=60))
        promotion = await finished(agent, "p-2")
        for region in ("home", "away"):
            await settled(client(topology, region=region))
            assert await infer(topology, region) == (200, "rel-1", region)
            assert server_names(topology, region) == ["rel-1"]
    assert promotion["state"] == "rolled_back"
    assert promotion["reason"].startswith("away, canary 50 %: gate ")
    assert [part(promotion, region)["state"] for region in ("home", "away")] == ["rolled_back", "rolled_back"]


async def test_scope_region_leaves_the_first_region_on_the_new_version(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home", "away")
    bad = make_release(tmp_path, "rel-1", make_bundle(tmp_path, topology, samples=24), engine=CRASHING_AWAY)
    agent = client(topology)
    async with running_regions(topology) as agents:
        order = make_order(bad, ["home", "away"], min_requests=12, rollback_scope="region")
        await agent.put_promotion("p-1", order)
        promotion = await finished(agent, "p-1")
        await settled(client(topology, region="away"))
        assert await infer(topology, "home") == (200, "rel-1", "home")
        await agents["away"].serving.push("digits")
        assert await infer(topology, "away") == (200, "rel-1", "home")
    assert promotion["state"] == "rolled_back"
    assert [part(promotion, region)["state"] for region in ("home", "away")] == ["live", "rolled_back"]


async def test_a_first_release_that_fails_leaves_503_with_the_reason(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    bad = make_release(tmp_path, "rel-1", make_bundle(tmp_path, topology, samples=24), engine=CRASHING)
    agent = client(topology)
    async with running_regions(topology):
        await agent.put_promotion("p-1", make_order(bad, ["home"], min_requests=30))
        promotion = await finished(agent, "p-1")
        await settled(agent)
        status, release, text = await infer(topology, "home")
        assert server_names(topology, "home") == []
    assert [step["percent"] for step in part(promotion, "home")["steps"] if step["state"] == "canary"] == [100]
    assert (status, release) == (503, None)
    assert "home, canary 100 %: gate" in text


@pytest.mark.parametrize("damage", ["file", "manifest", "attestation"])
async def test_a_damaged_bundle_is_never_served(tmp_path: Path, damage: str) -> None:
    topology = make_topology(tmp_path, "home")
    digest = make_bundle(tmp_path, topology, samples=20)
    release = make_release(tmp_path, "rel-1", digest)
    agent = client(topology)
    async with running_agent(topology, "home"), running_gateway(topology, "home"):
        folder = tmp_path / "store" / bundle_path(digest)
        path = folder / {"file": "model.onnx", "manifest": MANIFEST, "attestation": "attestation.json"}[damage]
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        await agent.put_promotion("p-1", make_order(release, ["home"]))
        promotion = await finished(agent, "p-1")
        assert server_names(topology, "home") == []
        copies = list((topology.home.state_folder / "bundles").glob("sha256/*"))
    assert promotion["state"] == "rolled_back"
    assert promotion["reason"].startswith("home, replicating: ")
    assert copies == []


async def test_a_region_whose_agent_stays_away_ends_the_promotion(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home", "away")
    release = make_release(tmp_path, "rel-1", make_bundle(tmp_path, topology, samples=20))
    agent = client(topology)
    with no_servers_left(topology):
        async with running_gateway(topology, "home"), running_agent(topology, "home"):
            order = make_order(release, ["home", "away"], step_timeout_s=15.0)
            await agent.put_promotion("p-1", order)
            promotion = await finished(agent, "p-1")
            await settled(agent)
            assert server_names(topology, "home") == []
    assert promotion["state"] == "rolled_back"
    assert "away did not answer for 15 s" in promotion["reason"]
    assert "away did not answer and is taken back when it does" in promotion["reason"]
    assert part(promotion, "home")["state"] == "rolled_back"
