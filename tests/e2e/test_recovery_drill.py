"""A region is lost whole and comes back: real agent, gateway and model server, PostgreSQL, moto as S3 and KMS.

RTO counts from the order to restore to the first answer of the restored region to a user; RPO is what was promoted
after the newest backup began. `-s` prints the figures that docs/disaster-recovery.md states.
"""

import asyncio
import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from infra.recovery.restore import verify
from serving.regions.places.topology import Topology
from tests.fakes.backed_up import Region
from tests.fakes.gateways import wait_for
from tests.fakes.moto import MotoServer
from tests.fakes.postgres import Postgres, postgres_programs
from tests.fakes.regions import (
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
)

pytestmark = [
    pytest.mark.skipif(postgres_programs() is None, reason="PostgreSQL is missing: apt-get install postgresql"),
    pytest.mark.skipif(shutil.which("pg_dump") is None, reason="pg_dump is missing: apt-get install postgresql-client"),
]
HOME, AWAY = "us-east", "eu-west"
_MIB = 1 << 20


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres() as running:
        yield running


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    """One for all tests: fsspec keeps its connections to the endpoint that it saw first."""
    with MotoServer(tmp_path_factory.mktemp("moto") / "log") as running:
        yield running


@pytest.fixture
def aws(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> MotoServer:
    for name, value in moto.environment.items():
        monkeypatch.setenv(name, value)
    moto.forget()
    return moto


@dataclass(frozen=True, kw_only=True)
class Drill:
    """The region under test, and everything that may be destroyed of it."""

    region: Region
    postgres: Postgres
    aws: MotoServer
    key: str

    def run(self, name: str, *more: str) -> dict[str, Any]:
        done = subprocess.run(self.command(name, *more), capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        told: dict[str, Any] = json.loads(done.stdout)
        return told

    def refused(self, name: str, *more: str) -> str:
        """What a command says that must fail."""
        done = subprocess.run(self.command(name, *more), capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 1, done.stdout
        return done.stderr

    def command(self, name: str, *more: str) -> list[str]:
        place = "--to" if name == "backup" else "--from"
        options = ["--region", HOME, place, self.region.backups_uri, *more]
        if name in ("backup", "restore"):
            options += ["--registry", self.region.registry_url, "--store", self.region.store_uri]
        if name == "backup":
            options += ["--kms-key", self.key]
        return [sys.executable, "-m", "infra.recovery", name, *options]

    def destroy(self) -> None:
        """Database and bucket go, with everything in them; empty ones take their place, as Terraform makes them."""
        self.postgres.drop("registry")
        s3 = self.aws.client("s3")
        listed = s3.list_objects_v2(Bucket="store").get("Contents", [])
        for found in listed:
            s3.delete_object(Bucket="store", Key=found["Key"])
        s3.delete_bucket(Bucket="store")
        s3.create_bucket(Bucket="store")
        self.postgres.create("registry")

    def kill(self, name: str, after_s: float, *more: str) -> bool:
        """SIGKILL to the command and its children after a while; False if it was done before."""
        process = subprocess.Popen(
            self.command(name, *more),
            # What is killed cannot tidy up.
            env={**os.environ, "TMPDIR": str(self.region.scratch)},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(timeout=after_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(timeout=30)
            # The server notices a moment later that its client has gone.
            wait_for(lambda: self.region.database.sessions() == 0)
            return True
        assert process.returncode == 0
        return False


@pytest.fixture
def drill(tmp_path: Path, postgres: Postgres, aws: MotoServer) -> Iterator[Drill]:
    s3 = aws.client("s3")
    for bucket in ("store", "backups"):
        s3.create_bucket(Bucket=bucket)
    key = aws.client("kms").create_key()["KeyMetadata"]["Arn"]
    postgres.create("registry")
    region = Region(
        scratch=tmp_path / "scratch",
        registry_url=postgres.url("registry"),
        store_uri="s3://store/flightpath",
        backups_uri="s3://backups/flightpath",
    )
    region.scratch.mkdir()
    yield Drill(region=region, postgres=postgres, aws=aws, key=key)
    postgres.drop("registry")


@contextlib.asynccontextmanager
async def home_running(topology: Topology) -> AsyncIterator[None]:
    async with running_gateway(topology, HOME), running_agent(topology, HOME):
        yield


async def promote(topology: Topology, root: Path, id: str, samples: int) -> dict[str, Any]:
    digest = make_bundle(root, topology, samples=samples)
    home = client(topology)
    await home.put_promotion(id, make_order(make_release(root, id, digest), [HOME, AWAY]))
    promotion = await finished(home, id)
    assert promotion["state"] == "live", promotion
    return promotion


async def answered_by(topology: Topology, region: str, *, timeout_s: float = 60.0) -> str | None:
    """The release that answers a user here, once it is this region's own model server that does.

    Before that, a region that is starting sends its users to one that serves.
    """
    async with asyncio.timeout(timeout_s):
        while True:
            with contextlib.suppress(OSError):
                status, release, where = await infer(topology, region)
                if (status, where) == (200, region):
                    return release
            await asyncio.sleep(0.02)


def backed_up_in_quiet(drill: Drill) -> tuple[dict[str, Any], dict[str, list[tuple[Any, ...]]]]:
    """A backup and the rows that it holds: a region that went live writes its last evidence a moment later."""
    deadline = time.monotonic() + 60.0
    while time.monotonic() < deadline:
        before = drill.region.rows()
        saved, after = drill.run("backup"), drill.region.rows()
        if before == after:
            return saved, after
    raise AssertionError("the region's rows never stood still for a backup")


@pytest.mark.smoke
async def test_a_lost_region_comes_back_with_its_promotions_and_bundles(tmp_path: Path, drill: Drill) -> None:
    topology = make_topology(tmp_path, HOME, AWAY)
    mine = replace(topology.home, registry_url=drill.region.registry_url, store_uri=drill.region.store_uri)
    topology = replace(topology, regions=[mine, topology.region(AWAY)])
    with no_servers_left(topology):
        async with running_gateway(topology, AWAY), running_agent(topology, AWAY):
            async with home_running(topology):
                await promote(topology, tmp_path, "digits-1", 16)
                kept = await promote(topology, tmp_path, "digits-2", 24)
                saved, rows = await asyncio.to_thread(backed_up_in_quiet, drill)
                files = drill.region.files()
                await promote(topology, tmp_path, "digits-3", 32)
                refused = await asyncio.to_thread(drill.refused, "restore", "--replace")
                assert re.fullmatch(
                    r"flightpath: registry is in use, got \d sessions, expected a stopped agent\n", refused
                )
            with no_servers_left(topology):
                shutil.rmtree(mine.state_folder)
                drill.destroy()
            assert drill.region.database.releases() == 0
            # Users of the other region are served all the while.
            assert await answered_by(topology, AWAY) == "digits-3"
            ordered_at = time.monotonic()
            restored = await asyncio.to_thread(drill.run, "restore")
            restored_at = time.monotonic()
            assert drill.region.rows() == rows
            assert drill.region.files() == files
            compared_s = time.monotonic() - restored_at
            async with home_running(topology):
                assert await answered_by(topology, HOME) == "digits-2"
                rto_s = time.monotonic() - ordered_at - compared_s
                assert (await client(topology).get_promotion("digits-2"))["state"] == kept["state"] == "live"
                # The promotion after the backup is lost; ordered again under its id, it is live again.
                again = await promote(topology, tmp_path, "digits-3", 32)
                assert part(again, HOME)["state"] == "live"
                assert await answered_by(topology, HOME) == "digits-3"
    figures = {"backup_s": saved["seconds"], "restore_s": restored["seconds"], "rto_s": round(rto_s, 2)}
    print(json.dumps({"drill": "agent, PostgreSQL, moto", "bytes": saved["bytes"], **figures}))
    assert restored["restored"] == saved["backup"]
    assert rto_s < 120


def test_backups_are_encrypted_with_the_key_and_fast_enough_to_be_frequent(drill: Drill) -> None:
    for number in range(4):
        drill.region.promote(number, padding=64 * _MIB)
    first, second = drill.run("backup"), drill.run("backup")
    s3 = drill.aws.client("s3")
    listed = s3.list_objects_v2(Bucket="backups")["Contents"]
    assert len(listed) > 4
    for found in listed:
        head = s3.head_object(Bucket="backups", Key=found["Key"])
        assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", drill.key)
    rows, files = drill.region.rows(), drill.region.files()
    drill.destroy()
    restored = drill.run("restore")
    assert (drill.region.rows(), drill.region.files()) == (rows, files)
    checked = drill.run("verify")
    print(
        json.dumps(
            {
                "bytes": first["bytes"],
                **{
                    n: r["seconds"]
                    for n, r in {
                        "first_s": first,
                        "second_s": second,
                        "restore_s": restored,
                        "verify_s": checked,
                    }.items()
                },
            }
        )
    )
    assert second["copied"] == 0


def test_backups_and_restores_that_are_killed_leave_the_old_or_the_new(drill: Drill) -> None:
    region = drill.region
    region.promote(1, padding=32 * _MIB)
    old = drill.run("backup")
    old_rows = region.rows()
    region.promote(2, padding=32 * _MIB)
    new_rows, killed = region.rows(), 0
    for after_s in (0.8, 1.2, 1.6, 2.0):
        killed += drill.kill("backup", after_s)
        assert old["backup"] in region.vault.ids()
        verify(region.vault, region.vault.read())
    new = drill.run("backup")
    assert killed
    killed = 0
    for after_s in (0.8, 1.2, 1.6, 2.0):
        killed += drill.kill("restore", after_s, "--id", old["backup"], "--replace")
        assert region.rows() in (old_rows, new_rows)
        killed += drill.kill("restore", after_s, "--id", new["backup"], "--replace")
        assert region.rows() in (old_rows, new_rows)
    assert killed
    drill.run("restore", "--id", old["backup"], "--replace")
    assert region.rows() == old_rows
    assert {file.path: file.sha256 for file in region.vault.read(old["backup"]).files}.items() <= region.files().items()
