"""State roots and running regions of an earlier commit are taken over; agents of two ages work together."""

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from serving.processes import read_records
from serving.regions.registry.schema import HEAD
from tests.fakes.ages import PROJECT, Ages, checkout
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
    rolled_back,
    settled,
)
from tests.fakes.users import users_of

FIRST_SCHEMA: Final = "a608453"
"""The last commit whose registry has revision 0001."""
BEFORE_EVIDENCE: Final = "02c704f"
"""The last but one whose gates compare figures instead of evidence: its policies have other fields."""
NEIGHBOUR: Final = "d74d5c9"
"""The oldest whose agents stand beside those of today."""
_PLAIN: Final = ("steps_percent", "min_requests", "drain_s", "synthetic_after_s")
"""What every age's policy knows."""


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Ages]:
    with Ages(tmp_path, make_topology(tmp_path, "home", "away")) as made:
        yield made


def order(world: Ages, number: int, *, plain: bool = False) -> dict[str, Any]:
    """The next release over both regions; `plain` is what any age understands."""
    bundle = make_bundle(world.root, world.topology, samples=16 + 4 * number)
    made = make_order(make_release(world.root, f"rel-{number}", bundle), ["home", "away"])
    if plain:
        made["policy"] = {name: made["policy"][name] for name in _PLAIN}
    return made


async def promoted(world: Ages, number: int, *, plain: bool = False) -> dict[str, Any]:
    """The promotion of the next release, once it has ended and every region has settled."""
    agent = client(world.topology)
    await agent.put_promotion(f"p-{number}", order(world, number, plain=plain))
    promotion = await finished(agent, f"p-{number}")
    for region in world.topology.regions:
        await settled(client(world.topology, region=region.name))
    return promotion


def revisions(world: Ages) -> set[str]:
    found = set()
    for region in world.topology.regions:
        with contextlib.closing(sqlite3.connect(region.state_folder / "registry.db")) as registry:
            found |= {row[0] for row in registry.execute("SELECT version_num FROM alembic_version")}
    return found


def server_pids(world: Ages) -> set[int]:
    folders = [region.state_folder / "servers" for region in world.topology.regions]
    return {record.pid for folder in folders for record in read_records(folder) if record.alive}


@pytest.mark.parametrize(("commit", "revision"), [(FIRST_SCHEMA, "0001"), (BEFORE_EVIDENCE, "0002")])
async def test_regions_of_an_earlier_commit_are_taken_over_under_traffic(
    world: Ages, commit: str, revision: str
) -> None:
    await world.up(checkout(commit, world.root / "earlier"))
    assert (await promoted(world, 1, plain=True))["state"] == "live"
    assert revisions(world) == {revision}
    servers = server_pids(world)
    async with users_of(world.topology, "home", "away") as users:
        await users.wait_for_more(50)
        # As the supervisor does it: agents first, each gateway then takes the socket over.
        for name in ("home agent", "away agent", "home gateway", "away gateway"):
            await world.replace(name)
            await users.wait_for_more(50)
        assert server_pids(world) == servers
        assert users.releases == {"rel-1"}
        promotion = await promoted(world, 2)
        await users.wait_for_more(50)
        earlier = await client(world.topology).get_promotion("p-1")
        await client(world.topology).put_rollback("back-1", make_rollback())
        rollback = await rolled_back(client(world.topology), "back-1")
        await users.wait_for_more(50)
        served = [await infer(world.topology, region) for region in ("home", "away")]
    assert promotion["state"] == "live", promotion
    assert (earlier["state"], earlier["version"], promotion["version"]) == ("live", 1, 2)
    assert rollback["state"] == "live", rollback
    assert served == [(200, "rel-1", "home"), (200, "rel-1", "away")]
    assert revisions(world) == {HEAD}
    assert users.failures == []


@pytest.mark.parametrize("old", ["home", "away"])
async def test_agents_of_two_ages_promote_and_go_back_together(world: Ages, old: str) -> None:
    earlier = checkout(NEIGHBOUR, world.root / "earlier")
    for role in ("gateway", "agent"):
        for region in ("home", "away"):
            world.start(f"{region} {role}", earlier if region == old else PROJECT)
    for region in ("home", "away"):
        await world.answering(region)
    assert (await promoted(world, 1))["state"] == "live"
    async with users_of(world.topology, "home", "away") as users:
        promotion = await promoted(world, 2)
        await users.wait_for_more(50)
        rollback_id = "back-1"
        await client(world.topology).put_rollback(rollback_id, make_rollback())
        rollback = await rolled_back(client(world.topology), rollback_id)
        served = [await infer(world.topology, region) for region in ("home", "away")]
        peers = [(await client(world.topology, region=region).region())["peers"] for region in ("home", "away")]
    assert promotion["state"] == "live", promotion
    assert rollback["state"] == "live", rollback
    assert served == [(200, "rel-1", "home"), (200, "rel-1", "away")]
    assert peers == [{"away": True}, {"home": True}]
    assert users.failures == []


async def test_an_agent_too_old_for_an_order_refuses_it_by_name_and_goes_on_serving(world: Ages) -> None:
    earlier = checkout(BEFORE_EVIDENCE, world.root / "earlier")
    await world.up(earlier)
    assert (await promoted(world, 1, plain=True))["state"] == "live"
    async with users_of(world.topology, "home", "away") as users:
        await world.replace("home agent")
        await world.replace("home gateway")
        promotion = await promoted(world, 2)
        await users.wait_for_more(50)
        served = [await infer(world.topology, region) for region in ("home", "away")]
    assert promotion["state"] == "rolled_back"
    assert part(promotion, "away")["reason"].startswith("away: policy is malformed, got"), promotion
    assert served == [(200, "rel-1", "home"), (200, "rel-1", "away")]
    assert users.failures == []
