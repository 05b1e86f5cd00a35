"""What people ask of a promotion while it runs, through the real API, and the journal that says who did."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from serving.credentials import TokenFolder
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
    part,
    running_regions,
)

HOLDING: dict[str, Any] = {
    "synthetic_after_s": -1.0,
    "synthetic_evidence": False,
    "step_timeout_s": 0.5,
    "on_inconclusive": "hold",
}
"""Without users it waits for ever, or for a person."""


def named(topology: Topology, role: str, name: str) -> AgentClient:
    token = TokenFolder(folder=topology.token_folder).read(role)
    return AgentClient(topology.home.agent_url, token, timeout_s=30.0, on_behalf_of=name)


async def holding(agent: AgentClient, id: str) -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            promotion = await agent.get_promotion(id)
            if part(promotion, "home")["waiting_for"]:
                return promotion
            await asyncio.sleep(0.02)


async def test_a_person_decides_what_the_evidence_cannot(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    first = make_release(tmp_path, "rel-1", make_bundle(tmp_path, topology, samples=20))
    second = make_release(tmp_path, "rel-2", make_bundle(tmp_path, topology, samples=24))
    agent = client(topology, "promoter")
    ann, bob = named(topology, "promoter", "user ann"), named(topology, "operator", "user bob")
    async with running_regions(topology) as agents:
        await agent.put_promotion("rel-1", make_order(first, ["home"]))
        await finished(agent, "rel-1")
        await ann.put_promotion("rel-2", make_order(second, ["home"], **HOLDING))
        held = await holding(agent, "rel-2")
        assert part(held, "home")["waiting_for"] == "0 of 6 requests"
        with pytest.raises(Unauthorized, match="a token of role operator"):
            await ann.promote_now("rel-2")
        assert (await ann.pause_promotion("rel-2"))["paused"] is True
        assert (await bob.resume_promotion("rel-2"))["paused"] is False
        promoted = await bob.promote_now("rel-2")
        assert promoted["promoted_by"] == "operator for user bob"
        ended = await finished(agent, "rel-2")
        assert (ended["state"], ended["actor"]) == ("live", "promoter for user ann")
        assert await infer(topology, "home") == (200, "rel-2", "home")
        for late in (ann.pause_promotion, ann.resume_promotion, bob.promote_now, ann.retry_promotion):
            with pytest.raises(Conflict):
                await late("rel-2")
        with pytest.raises(NotFound):
            await ann.retry_promotion("rel-9")
        journal = agents["home"].registry.events(kind="promotion", subject="rel-2")
    said = [entry["message"] for entry in journal]
    for message in (
        "ordered by promoter for user ann",
        "paused by promoter for user ann",
        "resumed by operator for user bob",
        "promoted without waiting for more evidence by operator for user bob",
    ):
        assert message in said


async def test_what_was_aborted_is_tried_again_without_a_new_release(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    first = make_release(tmp_path, "rel-1", make_bundle(tmp_path, topology, samples=20))
    second = make_release(tmp_path, "rel-2", make_bundle(tmp_path, topology, samples=24))
    agent, ann = client(topology), named(topology, "promoter", "flyte p/d/e of ann")
    async with running_regions(topology):
        await agent.put_promotion("rel-1", make_order(first, ["home"]))
        await finished(agent, "rel-1")
        await ann.put_promotion("rel-2", make_order(second, ["home"], **HOLDING))
        await holding(agent, "rel-2")
        await ann.abort_promotion("rel-2")
        aborted = await finished(agent, "rel-2")
        assert aborted["reason"] == "aborted by promoter for flyte p/d/e of ann"
        again = await ann.retry_promotion("rel-2")
        assert (again["id"], again["attempt"], again["release"], again["version"]) == ("rel-2.2", 2, "rel-2", 2)
        async with asyncio.timeout(90):
            while (ended := await agent.get_promotion("rel-2.2"))["state"] == "running":
                await infer(topology, "home")
        assert ended["state"] == "live", ended["reason"]
        assert await infer(topology, "home") == (200, "rel-2", "home")
        rollback = await ann.put_rollback("b", make_rollback())
        assert rollback["actor"] == "promoter for flyte p/d/e of ann"
        override = await named(topology, "operator", "user bob").put_override({"frozen": True, "reason": "holidays"})
        assert override["actor"] == "operator for user bob"


@pytest.mark.parametrize("claim", ["x" * 201, "\x01"])
async def test_a_name_that_is_no_line_of_text_is_refused(tmp_path: Path, claim: str) -> None:
    topology = make_topology(tmp_path, "home")
    async with running_regions(topology):
        agent = named(topology, "promoter", claim)
        with pytest.raises((InvalidInput, ValueError)):
            await agent.promotions()
