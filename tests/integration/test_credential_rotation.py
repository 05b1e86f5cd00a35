"""Tokens and signing keys are exchanged under traffic: nobody's request fails, and nothing that is live goes."""

import asyncio
import contextlib
from pathlib import Path

import aiohttp
import pytest

from serving.credentials import ROLES, SentToken, SigningKey, TokenFolder, hop_credential, retire_key, token_name
from serving.errors import Unauthorized
from serving.regions.places.client import AgentClient
from serving.regions.places.topology import Topology
from serving.regions.traffic.gateway_traffic import GatewayTraffic
from tests.fakes.regions import (
    MODEL,
    client,
    finished,
    infer,
    make_bundle,
    make_order,
    make_release,
    make_rollback,
    make_topology,
    part,
    reached,
    rolled_back,
    running_regions,
    settled,
)
from tests.fakes.users import users_of


async def replays_counted(topology: Topology, region: str, peer_token: str) -> int:
    """How many replays the gateway has counted after one more that shows a credential of this token."""
    place, tokens = topology.region(region), TokenFolder(folder=topology.token_folder)
    marks = {"x-flightpath-synthetic": "1", "x-flightpath-credential": hop_credential(peer_token)}
    url = f"{place.gateway_url}/v2/models/{MODEL}/infer"
    tensor = {"name": "x", "shape": [1, 64], "datatype": "FP32", "data": [0.0] * 64}
    async with aiohttp.ClientSession() as http, http.post(url, json={"inputs": [tensor]}, headers=marks) as answer:
        assert answer.status == 200
    snapshot = await GatewayTraffic(place.gateway_url, SentToken(tokens, "gateway")).stats(MODEL)
    return sum(counters.synthetic.finished for counters in snapshot.backends.values())


async def believed(topology: Topology, region: str, peer_token: str, *, yes: bool = True) -> None:
    """Until the gateway believes a credential of this peers' token, or no longer does."""
    async with asyncio.timeout(60):
        while True:
            before = await replays_counted(topology, region, peer_token)
            if (await replays_counted(topology, region, peer_token) > before) is yes:
                return


async def open_to(topology: Topology, role: str, token: str) -> list[bool]:
    """Whether each region lets the holder of this token in."""
    opened = []
    for region in topology.regions:
        calls = {
            "gateway": GatewayTraffic(region.gateway_url, lambda: token).routes,
            "peer": AgentClient(region.agent_url, token).peer_models,
        }
        try:
            await calls.get(role, AgentClient(region.agent_url, token).region)()
            opened.append(True)
        except Unauthorized:
            opened.append(False)
    return opened


async def test_all_tokens_are_exchanged_under_traffic_while_a_promotion_goes_on(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home", "away")
    tokens = TokenFolder(folder=topology.token_folder)
    first = make_release(tmp_path, "rel-1", make_bundle(tmp_path, topology, samples=20))
    second = make_release(tmp_path, "rel-2", make_bundle(tmp_path, topology, samples=24))
    async with running_regions(topology):
        agent = AgentClient(topology.home.agent_url, SentToken(tokens, "promoter"), timeout_s=30.0)
        await agent.put_promotion("p-1", make_order(first, ["home", "away"]))
        await finished(agent, "p-1")
        async with users_of(topology, "home", "away") as users:
            await agent.put_promotion("p-2", make_order(second, ["home", "away"], min_requests=40))
            await reached(agent, "p-2", "home", "canary")
            await agent.pause_promotion("p-2")
            old = {role: tokens.read(role) for role in ROLES}

            new = {role: tokens.add(role) for role in ROLES}
            assert {role: tokens.read(role) for role in ROLES} == old
            for region in ("home", "away"):
                await believed(topology, region, tokens.accepted("peer")[1])
            for role in ROLES:
                tokens.send(role, new[role])
            assert not set(old.values()) & {tokens.read(role) for role in ROLES}
            assert [await open_to(topology, role, old[role]) for role in ROLES] == [[True, True]] * len(ROLES)
            assert [await open_to(topology, role, tokens.read(role)) for role in ROLES] == [[True, True]] * len(ROLES)
            await users.wait_for_more(50)

            for role in ROLES:
                tokens.retire(role, token_name(old[role]))
            assert [await open_to(topology, role, old[role]) for role in ROLES] == [[False, False]] * len(ROLES)
            for region in ("home", "away"):
                await believed(topology, region, old["peer"], yes=False)
                await believed(topology, region, tokens.read("peer"))
            await agent.resume_promotion("p-2")
            promotion = await finished(agent, "p-2")
            await users.wait_for_more(50)
            reachable = [(await client(topology, region=name).region())["peers"] for name in ("home", "away")]
    assert promotion["state"] == "live", promotion
    assert reachable == [{"away": True}, {"home": True}]
    assert users.failures == []
    assert users.releases == {"rel-1", "rel-2"}


async def test_a_signing_key_is_exchanged_and_what_the_retired_one_signed_is_still_served(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home", "away")
    old = SigningKey.ensure(topology.key_folder)
    first, again = (make_release(tmp_path, f"rel-{n}", make_bundle(tmp_path, topology, samples=20 + n)) for n in (1, 3))
    agent = client(topology)
    async with running_regions(topology) as agents:
        await agent.put_promotion("p-1", make_order(first, ["home", "away"]))
        await finished(agent, "p-1")
        async with users_of(topology, "home", "away") as users:
            SigningKey.replace(topology.key_folder)
            second = make_release(tmp_path, "rel-2", make_bundle(tmp_path, topology, samples=24))
            await agent.put_promotion("p-2", make_order(second, ["home", "away"]))
            promotion = await finished(agent, "p-2")
            for region in topology.regions:
                await settled(client(topology, region=region.name))

            retire_key(topology.key_folder, old.key_id)
            await agent.put_rollback("back-1", make_rollback())
            rollback = await rolled_back(agent, "back-1")
            await users.wait_for_more(50)
            for running in agents.values():
                await running.bundles.look_after()
            await agent.put_promotion("p-3", make_order(again, ["home", "away"]))
            refused = await finished(agent, "p-3")
            await users.wait_for_more(50)
            served = [await infer(topology, region) for region in ("home", "away")]
    assert promotion["state"] == "live", promotion
    assert rollback["state"] == "live", rollback
    assert refused["state"] == "rolled_back"
    assert "attestation has no valid signature" in refused["reason"], refused["reason"]
    assert served == [(200, "rel-1", "home"), (200, "rel-1", "away")]
    assert users.failures == []


async def test_a_token_file_that_cannot_be_read_for_a_moment_stops_no_promotion(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home", "away")
    tokens = TokenFolder(folder=topology.token_folder)
    release = make_release(tmp_path, "rel-1", make_bundle(tmp_path, topology, samples=20))
    agent = client(topology)
    async with running_regions(topology):
        with contextlib.ExitStack() as back:
            for role in ("peer", "gateway"):
                kept = tokens.path(role).read_bytes()
                tokens.path(role).write_bytes(b"")
                back.callback(tokens.path(role).write_bytes, kept)
            assert await open_to(topology, "gateway", "") == [False, False]
            await agent.put_promotion("p-1", make_order(release, ["away", "home"]))
            assert (await agent.get_promotion("p-1"))["state"] == "running"
        promotion = await finished(agent, "p-1")
    assert promotion["state"] == "live", promotion


async def test_a_region_that_does_not_know_our_token_is_waited_for_like_one_that_is_away(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home", "away")
    release = make_release(tmp_path, "rel-1", make_bundle(tmp_path, topology, samples=20))
    agent = client(topology)
    async with running_regions(topology):
        TokenFolder(folder=topology.token_folder).path("peer").write_bytes(b"")
        await agent.put_promotion("p-1", make_order(release, ["away", "home"], step_timeout_s=1.0))
        promotion = await finished(agent, "p-1")
    assert promotion["state"] == "rolled_back"
    assert promotion["reason"].startswith("away did not answer for 1 s: this call needs a token"), promotion["reason"]


async def test_a_region_that_does_not_know_our_token_is_told_of_a_rollback_once_it_does(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home", "away")
    peer = TokenFolder(folder=topology.token_folder).path("peer")
    agent = client(topology)
    async with running_regions(topology):
        for number in (1, 2):
            bundle = make_bundle(tmp_path, topology, samples=16 + 4 * number)
            release = make_release(tmp_path, f"rel-{number}", bundle)
            await agent.put_promotion(f"p-{number}", make_order(release, ["home", "away"], standby_s=60.0))
            assert (await finished(agent, f"p-{number}"))["state"] == "live"
        kept = peer.read_bytes()
        peer.write_bytes(b"")
        await agent.put_rollback("back-1", make_rollback())
        async with asyncio.timeout(60):
            while not part(rollback := await agent.get_rollback("back-1"), "home")["settled"]:
                await asyncio.sleep(0.05)
        assert part(rollback, "away")["state"] != "failed" or not part(rollback, "away")["settled"]
        peer.write_bytes(kept)
        rollback = await rolled_back(agent, "back-1")
        served = [await infer(topology, region) for region in ("home", "away")]
    assert rollback["state"] == "live", rollback
    assert served == [(200, "rel-1", "home"), (200, "rel-1", "away")]


@pytest.mark.parametrize("role", ROLES)
async def test_an_emptied_token_file_opens_nothing(tmp_path: Path, role: str) -> None:
    topology = make_topology(tmp_path, "home")
    tokens = TokenFolder(folder=topology.token_folder)
    async with running_regions(topology):
        known = tokens.read(role)
        assert await open_to(topology, role, known) == [True]
        for content in (b"", b"\n", b"Authorization: Bearer \n", b"Authorization: Bearer\n\n"):
            tokens.path(role).write_bytes(content)
            for given in ("", known, "Bearer", "Authorization:"):
                assert await open_to(topology, role, given) == [False]
