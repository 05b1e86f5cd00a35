"""What an agent leans on is away for a while: nothing is lost, all goes on by itself, and others do not wait.

Real agents, gateways, model servers, SQLite and PostgreSQL.
"""

import asyncio
import contextlib
import os
import signal
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from serving.bundle import Manifest
from serving.errors import Unreachable
from serving.processes import read_records
from serving.regions.places.topology import Topology
from serving.regions.replication import Replicator
from serving.releases import Release
from tests.fakes.postgres import Postgres, postgres_programs
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
    running_agent,
    running_gateway,
    running_regions,
    settled,
)

HELD = {"synthetic_after_s": -1.0, "synthetic_evidence": False, "on_inconclusive": "hold"}
"""Stays in its first step until somebody decides."""
needs_postgres = pytest.mark.skipif(
    postgres_programs() is None, reason="PostgreSQL is missing: apt-get install postgresql"
)


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


async def health(topology: Topology) -> tuple[int, str]:
    timeout = aiohttp.ClientTimeout(total=10)
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(f"{topology.home.agent_url}/healthz") as answer,
    ):
        return answer.status, await answer.text()


async def promoted(topology: Topology, root: Path, id: str, samples: int, **policy: object) -> None:
    release = make_release(root, id, make_bundle(root, topology, samples=samples))
    await client(topology).put_promotion(id, make_order(release, ["home"], **policy))


@contextlib.asynccontextmanager
async def locked(database: Path) -> AsyncIterator[None]:
    """Another process in the midst of a transaction that it does not end."""
    with contextlib.closing(sqlite3.connect(database, isolation_level=None, check_same_thread=False)) as other:
        await asyncio.to_thread(other.execute, "BEGIN IMMEDIATE")
        yield


async def test_a_locked_sqlite_registry_stops_nothing_for_good(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home")
    home = client(topology)
    async with running_regions(topology):
        await promoted(topology, tmp_path, "rel-1", 20)
        await finished(home, "rel-1")
        await promoted(topology, tmp_path, "rel-2", 24, **HELD)
        await reached(home, "rel-2", "home", "canary")
        async with locked(topology.home.state_folder / "registry.db"):
            (live,) = [r for r in read_records(topology.home.state_folder / "servers") if r.name == "rel-1"]
            os.kill(live.pid, signal.SIGKILL)
            for _ in range(12):
                assert await health(topology) == (200, "ok\n")
                await asyncio.sleep(1.0)
        await home.promote_now("rel-2")
        assert (await finished(home, "rel-2"))["state"] == "live"
        await settled(home)
        assert await infer(topology, "home") == (200, "rel-2", "home")
        assert any(
            event["subject"] == "rel-1" and "started again" in event["message"] for event in await home.journal()
        )


@needs_postgres
@pytest.mark.parametrize("way", ["away", "hung"])
async def test_a_postgresql_that_is_gone_for_a_while_stops_nothing_for_good(
    tmp_path: Path, postgres: Postgres, way: str
) -> None:
    postgres.create(way)
    topology = make_topology(tmp_path, "home")
    topology = replace(topology, regions=[replace(topology.home, registry_url=postgres.url(way))])
    home = client(topology)
    async with running_regions(topology):
        await promoted(topology, tmp_path, "rel-1", 20)
        await finished(home, "rel-1")
        await promoted(topology, tmp_path, "rel-2", 24, **HELD)
        await reached(home, "rel-2", "home", "canary")
        gone: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
            "away": postgres.away,
            "hung": postgres.hung,
        }
        with gone[way]():
            for _ in range(4):
                assert await health(topology) == (200, "ok\n")
                assert (await infer(topology, "home"))[0] == 200
                await asyncio.sleep(1.0)
        await home.promote_now("rel-2")
        assert (await finished(home, "rel-2"))["state"] == "live"
        await settled(home)
        assert await infer(topology, "home") == (200, "rel-2", "home")


async def test_a_gateway_that_is_gone_holds_up_its_own_region_alone(tmp_path: Path) -> None:
    topology = make_topology(tmp_path, "home", "away")
    releases = [make_release(tmp_path, f"v{n}", make_bundle(tmp_path, topology, samples=20 + n)) for n in (1, 2, 3)]
    home = client(topology)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(no_servers_left(topology))
        await stack.enter_async_context(running_gateway(topology, "home"))
        gateway = await stack.enter_async_context(contextlib.AsyncExitStack())
        await gateway.enter_async_context(running_gateway(topology, "away"))
        for name in ("home", "away"):
            await stack.enter_async_context(running_agent(topology, name))
        await home.put_promotion("v1", make_order(releases[0], ["home", "away"]))
        await finished(home, "v1")
        await gateway.aclose()
        short = {"start_timeout_s": 5.0, "step_timeout_s": 3.0, "synthetic_after_s": 0.0}
        await home.put_promotion("v2", make_order(releases[1], ["home", "away"], **short))
        promotion = await finished(home, "v2")
        assert promotion["state"] == "rolled_back"
        assert "away" in promotion["reason"]
        assert part(promotion, "home")["state"] == "rolled_back"
        assert await infer(topology, "home") == (200, "v1", "home")
        # Others are promoted meanwhile, and rolled back.
        await home.put_promotion("v3", make_order(releases[2], ["home"]))
        assert (await finished(home, "v3"))["state"] == "live"
        await home.put_rollback("back", make_rollback(to={"version": 1}, regions=["home"]))
        async with asyncio.timeout(60):
            while (await home.get_rollback("back"))["state"] == "running":
                await asyncio.sleep(0.05)
        assert await infer(topology, "home") == (200, "v1", "home")
        await stack.enter_async_context(running_gateway(topology, "away"))
        async with asyncio.timeout(60):
            while part(await home.get_promotion("v2"), "away")["state"] != "rolled_back":
                await asyncio.sleep(0.05)
            while await infer(topology, "away") != (200, "v1", "away"):
                await asyncio.sleep(0.05)


async def test_a_copy_that_hangs_holds_up_no_abort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    topology = make_topology(tmp_path, "home")
    home, copying, go_on = client(topology), threading.Event(), threading.Event()

    def hang(self: Replicator, release: Release, **_: object) -> Manifest:
        copying.set()
        go_on.wait(60)
        raise Unreachable("the store was away")

    monkeypatch.setattr(Replicator, "replicate", hang)
    try:
        async with running_regions(topology):
            await promoted(topology, tmp_path, "rel-1", 20)
            await asyncio.to_thread(copying.wait, 30)
            await home.abort_promotion("rel-1")
            # Not `finished` within 2 s of the wall clock, which a busy machine breaks, but while the copy still hangs.
            assert (await finished(home, "rel-1"))["state"] == "aborted"
            await settled(home)
            assert not go_on.is_set()
    finally:
        go_on.set()
