"""An operator takes a version back: over real agents, gateways and model servers, warm and cold."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from serving.errors import Conflict, InvalidInput, NotFound, Unauthorized
from serving.regions.places.client import AgentClient
from serving.regions.places.topology import Topology
from tests.fakes.regions import (
    client,
    finished,
    infer,
    make_bundle,
    make_order,
    make_release,
    make_rollback,
    make_topology,
    no_servers_left,
    part,
    reached,
    rolled_back,
    running_agent,
    running_gateway,
    running_regions,
    server_names,
    settled,
)


async def promote(topology: Topology, root: Path, count: int, regions: list[str], **policy: Any) -> None:
    """Releases rel-1 to rel-`count`, live one after another."""
    for number in range(1, count + 1):
        release = make_release(root, f"rel-{number}", make_bundle(root, topology, samples=16 + 4 * number))
        await client(topology).put_promotion(f"p-{number}", make_order(release, regions, **policy))
        promotion = await finished(client(topology), f"p-{number}")
        assert promotion["state"] == "live", promotion
    for region in regions:
        await settled(client(topology, region=region))


async def servers_are(topology: Topology, names: list[str]) -> None:
    """Servers that nobody needs end by themselves, a moment later."""
    async with asyncio.timeout(30):
        while server_names(topology, "home") != names:
            await asyncio.sleep(0.05)


@asynccontextmanager
async def users(topology: Topology, region: str) -> AsyncIterator[list[tuple[int, str | None, str]]]:
    """Somebody who asks all the time; yields what was answered."""
    answers: list[tuple[int, str | None, str]] = []

    async def ask() -> None:
        while True:
            answers.append(await infer(topology, region))
            await asyncio.sleep(0.01)

    asking = asyncio.create_task(ask())
    try:
        yield answers
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)


async def test_a_warm_version_is_back_in_all_regions_and_no_user_is_refused(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home", "away")
    async with running_regions(topology):
        await promote(topology, tmp_path, 2, ["home", "away"], standby_s=300.0)
        assert server_names(topology, "home") == ["rel-1", "rel-2"]
        model = (await client(topology).region())["models"][0]
        assert (model["standby"]["release"], model["standby"]["state"]) == ("rel-1", "ready")
        assert model["weights"]["rel-2@home"] == 100
        assert "rel-1@home" not in model["weights"]
        async with users(topology, "away") as answers:
            await client(topology, "promoter").put_rollback("back-1", make_rollback())
            rollback = await rolled_back(client(topology), "back-1")
            assert [await infer(topology, region) for region in ("home", "away")] == [
                (200, "rel-1", "home"),
                (200, "rel-1", "away"),
            ]
        assert server_names(topology, "home") == server_names(topology, "away") == ["rel-1"]
        again = await client(topology).put_rollback("back-1", make_rollback())
        with pytest.raises(Conflict, match="other content"):
            await client(topology).put_rollback("back-1", make_rollback({"version": 2}))
        metrics = await metrics_of(topology)
        kinds = {entry["kind"] for entry in await client(topology, region="away").journal()}
    assert (rollback["state"], rollback["replaces"], rollback["failure"]) == ("live", "rel-2", None)
    assert again == rollback
    parts = rollback["regions"]
    assert [(p["state"], p["warm"], p["version"], p["previous_version"]) for p in parts] == [("live", True, 1, 2)] * 2
    away = part(rollback, "away")
    # None where the switch was over before another request came.
    assert 0 <= (away["last_bad_answer_after_s"] or 0) <= away["finished_at"] - away["started_at"] + 1.0
    assert {status for status, _, _ in answers} == {200}
    assert 'flightpath_rollback_switch_seconds_count{model="digits"} 1.0' in metrics
    assert "rollback" in kinds


async def metrics_of(topology: Topology) -> str:
    async with aiohttp.ClientSession() as session, session.get(f"{topology.home.agent_url}/metrics") as response:
        return await response.text()


async def test_a_cold_version_is_started_beside_the_bad_one_first(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    async with running_regions(topology):
        await promote(topology, tmp_path, 3, ["home"])
        assert server_names(topology, "home") == ["rel-3"]
        async with users(topology, "home") as answers:
            async with asyncio.timeout(30):
                while not answers:
                    await asyncio.sleep(0.01)
            await client(topology).put_rollback("back-1", make_rollback({"version": 1}))
            rollback = await rolled_back(client(topology), "back-1")
            async with asyncio.timeout(30):
                while answers[-1][1] != "rel-1":
                    await asyncio.sleep(0.01)
        assert await infer(topology, "home") == (200, "rel-1", "home")
        assert server_names(topology, "home") == ["rel-1"]
        live = (await client(topology).region())["models"][0]
        with pytest.raises(Conflict, match="no version before the live one in this region, got rel-1"):
            await client(topology).put_rollback("back-2", make_rollback())
    assert (rollback["state"], part(rollback, "home")["warm"]) == ("live", False)
    assert (live["release"], live["previous_release"]) == ("rel-1", None)
    assert {status for status, _, _ in answers} == {200}
    assert {release for _, release, _ in answers} == {"rel-3", "rel-1"}


async def test_going_back_twice_leaves_both_bad_versions(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    async with running_regions(topology):
        await promote(topology, tmp_path, 3, ["home"], standby_s=300.0)
        releases = []
        for id in ("back-1", "back-2"):
            await client(topology).put_rollback(id, make_rollback())
            rollback = await rolled_back(client(topology), id)
            releases.append((rollback["state"], part(rollback, "home")["release"]))
        listed = await client(topology).rollbacks("digits")
    assert releases == [("live", "rel-2"), ("live", "rel-1")]
    assert [rollback["id"] for rollback in listed] == ["back-2", "back-1"]


async def test_a_rollback_wins_over_the_promotion_that_is_running(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home", "away")
    async with running_regions(topology):
        await promote(topology, tmp_path, 1, ["home", "away"])
        # An order ends whatever is open of the model: the first promotion must be over, its watch included.
        async with asyncio.timeout(60):
            while (await client(topology).get_promotion("p-1"))["watching"]:
                await asyncio.sleep(0.05)
        bad = make_release(tmp_path, "rel-bad", make_bundle(tmp_path, topology, samples=40))
        order = make_order(bad, ["home", "away"])
        await client(topology).put_promotion("p-bad", order | {"policy": order["policy"] | {"min_requests": 10_000}})
        await reached(client(topology), "p-bad", "home", "canary")
        await client(topology).put_rollback("back-1", make_rollback())
        promotion = await client(topology).get_promotion("p-bad")
        with pytest.raises(Conflict, match="rollback that is still running, got back-1"):
            await client(topology).put_promotion("p-next", make_order(bad, ["home"]))
        rollback = await rolled_back(client(topology), "back-1")
        for region in ("home", "away"):
            assert await infer(topology, region) == (200, "rel-1", region)
            assert server_names(topology, region) == ["rel-1"]
        await client(topology).put_promotion("p-next", make_order(bad, ["home"]))
        assert (await finished(client(topology), "p-next"))["state"] == "live"
    assert (promotion["state"], promotion["reason"]) == ("aborted", "rollback back-1: users complain")
    assert (rollback["state"], rollback["replaces"]) == ("live", "rel-bad")
    assert rollback["supersedes"] == ["promotion/p-bad"]
    assert [p["release"] for p in rollback["regions"]] == ["rel-1", "rel-1"]


async def test_a_first_release_that_is_taken_back_in_its_canary_leaves_503_with_the_reason(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    async with running_regions(topology):
        release = make_release(tmp_path, "rel-1", make_bundle(tmp_path, topology, samples=20))
        await client(topology).put_promotion("p-1", make_order(release, ["home"], min_requests=10_000))
        await reached(client(topology), "p-1", "home", "canary")
        await client(topology).put_rollback("back-1", make_rollback())
        rollback = await rolled_back(client(topology), "back-1")
        status, _, text = await infer(topology, "home")
        assert server_names(topology, "home") == []
    assert rollback["state"] == "live", rollback
    assert (status, "rollback back-1: users complain" in text) == (503, True)


async def test_a_region_that_is_away_is_told_when_it_comes_back(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home", "away")
    with no_servers_left(topology):
        async with (
            running_gateway(topology, "home"),
            running_gateway(topology, "away"),
            running_agent(topology, "home"),
        ):
            async with running_agent(topology, "away"):
                await promote(topology, tmp_path, 2, ["home", "away"], standby_s=300.0)
            await client(topology).put_rollback("back-1", make_rollback())
            async with asyncio.timeout(60):
                while await infer(topology, "home") != (200, "rel-1", "home"):
                    await asyncio.sleep(0.05)
            assert (await client(topology).get_rollback("back-1"))["state"] == "running"
            async with running_agent(topology, "away"):
                rollback = await rolled_back(client(topology), "back-1")
                assert await infer(topology, "away") == (200, "rel-1", "away")
    assert rollback["state"] == "live"


async def test_rollbacks_that_cannot_be_carried_out_are_refused(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    agent = client(topology)
    async with running_regions(topology):
        with pytest.raises(NotFound, match="does not run the model"):
            await agent.put_rollback("back-1", make_rollback())
        await promote(topology, tmp_path, 1, ["home"])
        bad = make_release(tmp_path, "rel-bad", make_bundle(tmp_path, topology, samples=40, golden_seed=5))
        await agent.put_promotion("p-bad", make_order(bad, ["home"]))
        assert (await finished(agent, "p-bad"))["state"] == "rolled_back"
        with pytest.raises(NotFound, match="unknown version of model digits, got 7, expected 1, 2"):
            await agent.put_rollback("back-1", make_rollback({"version": 7}))
        with pytest.raises(Conflict, match="never live in this region, got rel-bad, expected one of rel-1"):
            await agent.put_rollback("back-1", make_rollback({"release": "rel-bad"}))
        with pytest.raises(NotFound, match="unknown release"):
            await agent.put_rollback("back-1", make_rollback({"release": "ghost"}))
        with pytest.raises(InvalidInput, match="unknown region, got mars"):
            await agent.put_rollback("back-1", make_rollback(regions=["mars"]))
        with pytest.raises(InvalidInput, match="to is malformed"):
            await agent.put_rollback("back-1", make_rollback({"version": "1"}))
        with pytest.raises(InvalidInput, match="reason is malformed"):
            await agent.put_rollback("back-1", make_rollback() | {"reason": " "})
        with pytest.raises(Unauthorized):
            await AgentClient(topology.home.agent_url, "guessed").put_rollback("back-1", make_rollback())
        with pytest.raises(NotFound):
            await agent.get_rollback("back-1")


async def test_a_standby_ends_with_its_time_and_with_the_next_rollout(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    async with running_regions(topology):
        await promote(topology, tmp_path, 3, ["home"], standby_s=300.0)
        await servers_are(topology, ["rel-2", "rel-3"])
        release = make_release(tmp_path, "rel-4", make_bundle(tmp_path, topology, samples=40))
        await client(topology).put_promotion("p-4", make_order(release, ["home"], standby_s=0.5))
        await finished(client(topology), "p-4")
        await servers_are(topology, ["rel-4"])
        messages = [e["message"] for e in await client(topology).journal() if e["kind"] == "server"]
    assert messages == ["stands by no longer: its time is over"]
