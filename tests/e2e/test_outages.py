"""What agents lean on is away during a promotion, with real processes: all ends as if undisturbed, and no user notices.

Databases, object stores, another region's agent, and room on the disk. A model server, a gateway or an agent that is
gone: test_survival.py and test_stopped.py.
"""

import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from tests.fakes.moto import MotoServer
from tests.fakes.outages import CannotMount, Relay, full, in_thread, locked, small_disk, suspended
from tests.fakes.postgres import Postgres, postgres_programs
from tests.fakes.regions import make_topology
from tests.fakes.survival import World, outlast, start_world

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def regions(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    started = start_world(tmp_path_factory.mktemp("outages"))
    yield started
    started.close()


async def test_a_sqlite_registry_that_is_locked_for_twelve_seconds(regions: World) -> None:
    said = await outlast(
        regions, lambda: in_thread(locked(regions.topology.home.state_folder / "registry.db")), lasts_s=12
    )
    assert set(said) == {"200 ok"}


async def test_another_regions_agent_that_is_away_for_twenty_seconds(regions: World) -> None:
    @contextlib.asynccontextmanager
    async def away() -> AsyncIterator[None]:
        regions.kill("away agent")
        try:
            yield
        finally:
            regions.start("away agent")

    said = await outlast(regions, away, lasts_s=20)
    assert set(said) == {"200 ok"}


# PostgreSQL


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    if postgres_programs() is None:
        pytest.skip("PostgreSQL is missing: apt-get install postgresql")
    with Postgres() as running:
        yield running


@pytest.fixture(scope="module")
def regions_on_postgres(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Both registries on one server: both agents lose theirs at once."""
    root = tmp_path_factory.mktemp("on-postgres")
    topology = make_topology(root, "home", "away")
    for region in topology.regions:
        postgres.create(region.name)
    on_postgres = [replace(region, registry_url=postgres.url(region.name)) for region in topology.regions]
    started = start_world(root, topology=replace(topology, regions=on_postgres))
    yield started
    started.close()


@pytest.mark.parametrize("lasts_s", [3, 60])
@pytest.mark.parametrize("way", ["hung", "ended at once"])
async def test_a_postgresql_that_is_gone(
    regions_on_postgres: World, postgres: Postgres, way: str, lasts_s: float
) -> None:
    def gone() -> contextlib.AbstractAsyncContextManager[None]:
        return in_thread(postgres.hung() if way == "hung" else postgres.away(signal.SIGQUIT))

    said = await outlast(regions_on_postgres, gone, lasts_s=lasts_s)
    named = [text for text in said if text.startswith("503") and "registry" in text]
    assert bool(named) == (lasts_s > 30), said


# Object stores


@pytest.fixture
def aws(tmp_path: Path) -> Iterator[MotoServer]:
    with MotoServer(tmp_path / "moto.log") as aws:
        yield aws


@pytest.mark.parametrize("way", ["hangs", "refuses"])
async def test_an_object_store_that_is_away_while_regions_copy_from_it(
    tmp_path: Path, aws: MotoServer, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    aws.client("s3").create_bucket(Bucket="bundles")
    async with Relay(aws.port) as relay:
        for name, value in MotoServer(tmp_path / "unused", port=relay.port).environment.items():
            monkeypatch.setenv(name, value)
        # One that is remembered would go on with the server before.
        S3FileSystem.clear_instance_cache()
        topology = make_topology(tmp_path, "home", "away")
        on_s3 = [replace(region, store_uri=f"s3://bundles/{region.name}") for region in topology.regions]
        world = World(tmp_path, topology=replace(topology, regions=on_s3), store_uri="s3://bundles/releases")
        try:
            await world.begin()
            said = await outlast(
                world,
                lambda: in_thread(suspended(aws.pid)) if way == "hangs" else relay.refusing(),
                lasts_s=15,
                point=None,
            )
        finally:
            world.close()
    assert set(said) == {"200 ok"}


# The disk


@pytest.fixture(scope="module")
def regions_on_a_small_disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """All of it, logs included, on a disk of 64 MiB."""
    folder = tmp_path_factory.mktemp("small-disk")
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(small_disk(folder, 64 * 1024 * 1024))
        except CannotMount as refused:
            pytest.skip(f"no file system can be mounted here: {refused}")
        started = start_world(folder)
        stack.callback(started.close)
        yield started


async def test_a_disk_that_is_full(regions_on_a_small_disk: World) -> None:
    world = regions_on_a_small_disk
    said = await outlast(world, lambda: in_thread(full(world.root)), lasts_s=45)
    assert any("No space left" in text for text in said), said


async def test_a_live_server_that_dies_on_a_full_disk_is_back_once_there_is_room(
    regions_on_a_small_disk: World,
) -> None:
    world = regions_on_a_small_disk
    live = world.live

    @contextlib.asynccontextmanager
    async def full_and_dead() -> AsyncIterator[None]:
        async with in_thread(full(world.root)):
            assert await world.kill_victim("live server", candidate="", live=live)
            yield

    await outlast(world, full_and_dead, lasts_s=12)
