"""A region's own agent takes a rollback for its region while the home agent is away, and home hears of it later."""

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from serving.errors import Conflict, InvalidInput, NotFound
from serving.regions.places.client import AgentClient
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
    rolled_back,
    running_agent,
    running_gateway,
    settled,
)


async def told(home: AgentClient, id: str) -> dict[str, Any]:
    """The rollback as the home agent knows it, once it does."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(NotFound):
                return await home.get_rollback(id)
            await asyncio.sleep(0.05)


async def test_a_region_goes_back_while_home_is_away_and_home_hears_of_it(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home", "away")
    releases = [make_release(tmp_path, f"v{n}", make_bundle(tmp_path, topology, samples=20 + n)) for n in (1, 2, 3)]
    home, away = client(topology), client(topology, region="away")
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(no_servers_left(topology))
        for name in ("home", "away"):
            await stack.enter_async_context(running_gateway(topology, name))
        await stack.enter_async_context(running_agent(topology, "away"))
        async with running_agent(topology, "home"):
            for number, release in enumerate(releases[:2], start=1):
                await home.put_promotion(f"v{number}", make_order(release, ["home", "away"], standby_s=600.0))
                await finished(home, f"v{number}")
                await settled(away)

        order = make_rollback(regions=["away"])
        taken = await away.put_rollback("back", order)
        assert (taken["regions"][0]["region"], taken["actor"]) == ("away", "operator")
        ended = await rolled_back(away, "back")
        assert (ended["state"], ended["replaces"], ended["regions"][0]["warm"]) == ("live", "v2", True)
        assert await infer(topology, "away") == (200, "v1", "away")
        assert await infer(topology, "home") == (200, "v2", "home")

        # The same order is the same rollback, and what is not this region's to decide is refused.
        assert (await away.put_rollback("back", order))["id"] == "back"
        with pytest.raises(Conflict, match="ordered with other content"):
            await away.put_rollback("back", make_rollback(to={"version": 2}, regions=["away"]))
        for regions in (None, ["home"], ["away", "home"]):
            with pytest.raises(Conflict, match="led by the home region's agent"):
                await away.put_rollback("more", make_rollback(regions=regions))
        with pytest.raises(NotFound, match="unknown version"):
            await away.put_rollback("more", make_rollback(to={"version": 9}, regions=["away"]))
        with pytest.raises(InvalidInput, match="reason"):
            await away.put_rollback("more", {**make_rollback(regions=["away"]), "reason": ""})

        async with running_agent(topology, "home"):
            known = await told(home, "back")
            assert (known["state"], known["actor"], known["replaces"]) == ("live", "operator", "v2")
            assert [(part["region"], part["release"]) for part in known["regions"]] == [("away", "v1")]
            # It is told once: nothing leads it, and the next promotion finds nothing in its way.
            await home.put_promotion("v3", make_order(releases[2], ["home", "away"]))
            assert (await finished(home, "v3"))["state"] == "live"
            assert await infer(topology, "away") == (200, "v3", "away")
        journal = await away.journal()
    reports = [event for event in journal if event["message"] == "told to the home region"]
    assert [event["subject"] for event in reports] == ["back"]
