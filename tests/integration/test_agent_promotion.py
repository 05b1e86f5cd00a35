"""Promotions over real agents, real gateways and real model servers: forward, and already there."""

from pathlib import Path

import pytest

from serving.errors import Conflict, InvalidInput, NotFound, Unauthorized
from serving.regions.places.client import AgentClient
from tests.fakes.regions import (
    client,
    finished,
    infer,
    make_bundle,
    make_order,
    make_release,
    make_topology,
    part,
    reached,
    running_agent,
    running_regions,
    server_names,
    settled,
)


async def test_two_releases_go_live_in_both_regions_one_after_another(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home", "away")
    first = make_release(tmp_path, "rel-1", make_bundle(tmp_path, topology, samples=20))
    second = make_release(tmp_path, "rel-2", make_bundle(tmp_path, topology, samples=24))
    agent = client(topology)
    async with running_regions(topology):
        await agent.put_promotion("p-1", make_order(first, ["home", "away"]))
        one = await finished(agent, "p-1")
        assert (one["state"], one["version"], one["reason"]) == ("live", 1, None), one
        await agent.put_promotion("p-2", make_order(second, ["home", "away"]))
        two = await finished(agent, "p-2")
        for region in ("home", "away"):
            await settled(client(topology, region=region))
        assert [await infer(topology, region) for region in ("home", "away")] == [
            (200, "rel-2", "home"),
            (200, "rel-2", "away"),
        ]
        assert server_names(topology, "home") == server_names(topology, "away") == ["rel-2"]
        again = await agent.put_promotion("p-2", make_order(second, ["home", "away"]))
        assert again == two | {"regions": again["regions"], "watching": again["watching"]}
        with pytest.raises(Conflict, match="other content"):
            await agent.put_promotion("p-2", make_order(second, ["home"]))
        await agent.put_promotion("p-3", make_order(second, ["home", "away"]))
        three = await finished(agent, "p-3")
        events = [event async for event in agent.events("p-2")]
    assert two["state"] == "live", two
    assert [part(two, region)["previous_version"] for region in ("home", "away")] == [1, 1]
    canary = [step for step in part(two, "home")["steps"] if step["state"] == "canary"]
    assert [step["percent"] for step in canary] == [50, 100]
    assert all(step["requests"] >= 6 for step in canary)
    assert all(step["synthetic"] == step["requests"] for step in canary)
    assert part(two, "home")["finished_at"] <= part(two, "away")["started_at"]
    assert (three["state"], three["version"]) == ("live", 2)
    assert [(part["changed"], part["steps"]) for part in three["regions"]] == [(False, []), (False, [])]
    messages = [event["message"] for event in events]
    assert messages[0] == "ordered by operator"
    assert messages.index("home: live") < messages.index("away: canary 50 %") < messages.index("away: live")
    assert messages[-1] == "live"
    assert [event["seq"] for event in events] == sorted({event["seq"] for event in events})


async def test_a_region_without_the_model_sends_its_users_to_one_that_has_it(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home", "away")
    release = make_release(tmp_path, "rel-1", make_bundle(tmp_path, topology, samples=20))
    async with running_regions(topology) as agents:
        await client(topology).put_promotion("p-1", make_order(release, ["home"]))
        await finished(client(topology), "p-1")
        await agents["away"].peers.ask()
        await agents["away"].serving.push("digits")
        assert await infer(topology, "away") == (200, "rel-1", "home")


async def test_orders_that_cannot_be_met_are_refused(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home", "away")
    digest = make_bundle(tmp_path, topology, samples=20)
    release = make_release(tmp_path, "rel-1", digest)
    async with running_agent(topology, "home"), running_agent(topology, "away"):
        agent = client(topology, "promoter")
        with pytest.raises(InvalidInput, match="regions is malformed"):
            await agent.put_promotion("p-1", make_order(release, []))
        with pytest.raises(InvalidInput, match="unknown region, got mars"):
            await agent.put_promotion("p-1", make_order(release, ["mars"]))
        unknown = release | {"bundle_digest": "sha256:" + "0" * 64}
        with pytest.raises(NotFound, match="no such bundle"):
            await agent.put_promotion("p-1", make_order(unknown, ["home"]))
        strange = make_release(tmp_path, "rel-1", digest, engine="abacus")
        with pytest.raises(NotFound, match="unknown engine"):
            await agent.put_promotion("p-1", make_order(strange, ["home"]))
        with pytest.raises(Conflict, match=f"expected home at {topology.home.agent_url}"):
            await client(topology, region="away").put_promotion("p-1", make_order(release, ["home"]))
        with pytest.raises(Unauthorized):
            await AgentClient(topology.home.agent_url, "guessed").region()
        with pytest.raises(Unauthorized):
            await agent.put_override({"frozen": True, "reason": "audit"})
        with pytest.raises(NotFound):
            await agent.get_promotion("p-1")
        await client(topology).put_override({"frozen": True, "reason": "audit"})
        with pytest.raises(Conflict, match="promotions are frozen, got audit"):
            await agent.put_promotion("p-1", make_order(release, ["home"]))


async def test_an_aborted_promotion_puts_the_old_weights_back(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    first = make_release(tmp_path, "rel-1", make_bundle(tmp_path, topology, samples=20))
    second = make_release(tmp_path, "rel-2", make_bundle(tmp_path, topology, samples=24))
    agent = client(topology)
    async with running_regions(topology):
        await agent.put_promotion("p-1", make_order(first, ["home"]))
        await finished(agent, "p-1")
        await agent.put_promotion("p-2", make_order(second, ["home"], synthetic_after_s=-1.0, synthetic_evidence=False))
        await reached(agent, "p-2", "home", "canary")
        with pytest.raises(Conflict, match="still running, got p-2"):
            await agent.put_promotion("p-3", make_order(first, ["home"]))
        await agent.abort_promotion("p-2")
        promotion = await finished(agent, "p-2")
        region = await settled(agent)
        assert await infer(topology, "home") == (200, "rel-1", "home")
        assert server_names(topology, "home") == ["rel-1"]
    assert (promotion["state"], promotion["reason"]) == ("aborted", "aborted by operator")
    assert part(promotion, "home")["state"] == "aborted"
    assert region["models"][0]["weights"] == {"rel-1@home": 100}
