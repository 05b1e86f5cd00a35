"""The lead moves to another region: by an order, with what was under way, or leaving a lost home region behind."""

import asyncio
import contextlib
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flightpath.cli import app
from serving.credentials import TokenFolder
from serving.errors import Conflict, Fenced, InvalidInput, NotFound
from serving.regions.places.home_client import HomeClient
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
    settled,
    write_topology,
)

HELD = {"on_inconclusive": "hold", "synthetic_after_s": -1.0, "synthetic_evidence": False, "step_timeout_s": 3600.0}
"""The canary waits for users until a person promotes."""


def releases(topology: Topology, root: Path) -> list[dict[str, Any]]:
    return [make_release(root, f"rel-{n}", make_bundle(root, topology, samples=20 + n)) for n in (1, 2, 3)]


def whoever_leads(topology: Topology) -> HomeClient:
    return HomeClient(topology, TokenFolder(folder=topology.token_folder).read("operator"), timeout_s=30.0)


async def following(topology: Topology, region: str, home: str) -> dict[str, Any]:
    """What the region's agent says of the lead, once it follows the one that leads."""
    async with asyncio.timeout(60):
        while (known := await client(topology, region=region).get_home())["home"] != home:
            await asyncio.sleep(0.1)
    return known


async def test_a_promotion_under_way_is_led_on_by_the_next_home_region(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home", "away")
    first, second, third = releases(topology, tmp_path)
    old, new, whoever = client(topology), client(topology, region="away"), whoever_leads(topology)
    async with running_regions(topology):
        await old.put_promotion("rel-1", make_order(first, ["home", "away"]))
        await finished(old, "rel-1")
        await old.put_promotion("rel-2", make_order(second, ["home", "away"], **HELD))
        await reached(old, "rel-2", "home", "canary")
        moved = await new.take_home(reason="the old one's disk is slow")
        assert (moved["home"], moved["url"], moved["epoch"]["number"]) == ("away", new.base_url, 2)
        assert await new.take_home(reason="again") == moved, "the same again changes nothing"
        assert (await old.get_home())["epoch"] == moved["epoch"]

        for refused in (old.get_promotion("rel-2"), old.put_promotion("rel-3", make_order(third, ["home"]))):
            with pytest.raises(Fenced, match=f"expected away at {new.base_url}"):
                await refused
        with pytest.raises(Fenced, match="are led by the home region's agent, got home, expected away"):
            await old.put_rollback("back-1", make_rollback())

        await whoever.promote_now("rel-2")
        assert (await finished(whoever, "rel-2"))["state"] == "live"
        await settled(old)
        assert await infer(topology, "home") == (200, "rel-2", "home")
        assert await infer(topology, "away") == (200, "rel-2", "away")
        assert [p["id"] for p in await whoever.promotions()] == ["rel-2", "rel-1"]
        (started, *_) = [e for e in await new.journal() if e["kind"] == "home" and e["detail"]["epoch"]["number"] == 2]
        assert started["message"] == "epoch 2 of away begins: the old one's disk is slow"

        await whoever.put_rollback("back-2", make_rollback())
        assert (await rolled_back(whoever, "back-2"))["state"] == "live"
        await old.take_home(reason="it is mended")
        shown = await old.get_promotion("rel-2")
        assert (shown["state"], part(shown, "home")["state"], part(shown, "away")["state"]) == ("live",) * 3
        assert (await old.get_rollback("back-2"))["state"] == "live"


async def test_a_lost_home_region_is_left_behind_by_force_and_merged_when_it_is_back(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home", "away")
    first, second, third = releases(topology, tmp_path)
    old, new, whoever = client(topology), client(topology, region="away"), whoever_leads(topology)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(no_servers_left(topology))
        for name in ("home", "away"):
            await stack.enter_async_context(running_gateway(topology, name))
        await stack.enter_async_context(running_agent(topology, "away"))
        async with running_agent(topology, "home"):
            await old.put_promotion("rel-1", make_order(first, ["home", "away"]))
            await finished(old, "rel-1")
            await old.put_promotion("rel-2", make_order(second, ["home", "away"], **HELD))
            await reached(old, "rel-2", "home", "canary")

        with pytest.raises(Conflict, match=r'the agent of home, which leads, hands nothing over, .* "force": true'):
            await new.take_home(reason="the region burns")
        assert (await new.get_home())["home"] == "home"
        assert (await new.take_home(reason="the region burns", force=True))["home"] == "away"
        with pytest.raises(NotFound):
            await whoever.get_promotion("rel-2")
        await whoever.put_promotion("rel-3", make_order(third, ["away"]))
        assert (await finished(whoever, "rel-3"))["state"] == "live"

        async with running_agent(topology, "home"):
            known = await following(topology, "home", "away")
            assert [(entry["number"], entry["home"]) for entry in known["log"]] == [(1, "home"), (2, "away")]
            with pytest.raises(Fenced):
                await old.abort_promotion("rel-2")
            async with asyncio.timeout(60):
                while [p["id"] for p in await whoever.promotions()] != ["rel-3", "rel-2", "rel-1"]:
                    await asyncio.sleep(0.1)
            over = await whoever.get_promotion("rel-2")
            assert over["state"] == "aborted"
            assert "rel-2 was ordered in epoch 1 of home, and promotion rel-3 came after it" in over["reason"]
            await settled(old, timeout_s=60.0)
            assert await infer(topology, "home") == (200, "rel-1", "home")
            assert await infer(topology, "away") == (200, "rel-3", "away")


async def test_a_home_region_whose_registry_was_restored_numbers_versions_anew_in_another_epoch(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home", "away")
    first, second, third = releases(topology, tmp_path)
    old, database = client(topology), topology.home.state_folder / "registry.db"
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(no_servers_left(topology))
        for name in ("home", "away"):
            await stack.enter_async_context(running_gateway(topology, name))
        await stack.enter_async_context(running_agent(topology, "away"))
        async with running_agent(topology, "home"):
            await old.put_promotion("rel-1", make_order(first, ["home", "away"]))
            await finished(old, "rel-1")
        copies = sqlite3.connect(database), sqlite3.connect(tmp_path / "backup.db")
        with contextlib.closing(copies[0]) as source, contextlib.closing(copies[1]) as backup:
            source.backup(backup)
        async with running_agent(topology, "home"):
            await old.put_promotion("rel-2", make_order(second, ["away"]))
            assert (await finished(old, "rel-2"))["version"] == 2
        for left in database.parent.glob("registry.db*"):
            left.unlink()
        shutil.copy(tmp_path / "backup.db", database)

        async with running_agent(topology, "home"):
            await old.put_promotion("rel-3", make_order(third, ["away"]))
            refused = await finished(old, "rel-3")
            assert "version 2 of model digits belongs to another release" in refused["reason"]
            assert (await old.take_home(reason="restored from a backup"))["epoch"]["number"] == 1
            assert (await old.take_home(reason="restored from a backup", force=True))["epoch"]["number"] == 2
            await old.put_promotion("rel-3.2", make_order(third, ["away"]))
            assert (await finished(old, "rel-3.2"))["state"] == "live"
            assert await infer(topology, "away") == (200, "rel-3", "away")
            told = [entry["message"] for entry in await client(topology, region="away").journal()]
            assert "version 2 is rel-3's, as the home region numbers it; rel-2 is version 3 here" in told


async def test_an_operator_moves_the_lead_by_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topology = make_topology(tmp_path, "home", "away")
    monkeypatch.setenv("FLIGHTPATH_TOPOLOGY", str(write_topology(tmp_path, topology)))

    def run(*arguments: str) -> list[str]:
        answer = CliRunner().invoke(app, ["home", *arguments])
        assert answer.exit_code == 0, answer.output
        return answer.stdout.splitlines()

    async with running_regions(topology):
        assert (await asyncio.to_thread(run, "show"))[0] == f"home leads, at {topology.home.agent_url}"
        moved = await asyncio.to_thread(run, "move", "away", "--reason", "a drill")
        assert moved[0] == f"away leads, at {topology.region('away').agent_url}"
        assert [line.split("  since")[0] for line in moved[1:]] == ["epoch 2  away", "epoch 1  home"]
        assert moved[1].endswith(": a drill")
        assert (await asyncio.to_thread(run, "show"))[0] == moved[0]


async def test_orders_for_the_lead_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    home = client(topology)
    async with running_regions(topology):
        with pytest.raises(InvalidInput, match="reason is malformed"):
            await home.take_home(reason="  ")
        with pytest.raises(InvalidInput, match="order is malformed"):
            await home._object("PUT", "/v1/home", {"home": "away"})
        peer = client(topology, "peer")
        with pytest.raises(InvalidInput, match="epoch is malformed"):
            await peer.tell_home({"epoch": {"number": "9", "home": "home"}, "actor": "x", "reason": "y"})
        with pytest.raises(InvalidInput, match="news of an epoch is malformed"):
            await peer.tell_home({"epoch": {"number": 9, "home": "home"}, "actor": None, "reason": "y"})
        with pytest.raises(Conflict, match="hands nothing over"):
            await peer.handover()
        assert (await home.get_home())["epoch"] == {"number": 1, "home": "home"}
