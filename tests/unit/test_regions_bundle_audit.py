"""What a region serves stays whole, and what nothing wants goes, after a while and never by half."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from serving.bundle import MANIFEST, verify_bundle
from serving.copying import Pace, alone
from serving.credentials import SigningKey, trusted_keys
from serving.regions.places.topology import Region
from serving.regions.replication import AuditLimits, BundleAudit, Replicator
from serving.regions.replication import audit as audit_module
from serving.releases import Release, RuntimeSpec
from serving.store import ArtifactStore, bundle_path
from tests.fakes.bundles import VARIANT, make_bundle

GRACE_S = 100.0


class World:
    """A region with an audit on a clock of its own."""

    def __init__(self, root: Path, *, store: str | None = None) -> None:
        self.root = root
        self.now = 1000.0
        folder = root / "region"
        region = Region(
            name="here",
            gateway_url="",
            agent_url="",
            store_uri=store or (folder / "store").as_uri(),
            registry_url="",
            state_folder=folder,
        )
        self.replicator = Replicator(region=region, key_folder=root / "keys")
        limits = AuditLimits(read_bytes_per_s=1e9, unwanted_grace_s=GRACE_S)
        self.audit = BundleAudit(replicator=self.replicator, limits=limits, clock=lambda: self.now)
        self.source = ArtifactStore((root / "source").as_uri())

    def release(self, seed: int = 0) -> Release:
        files = {"weights.bin": bytes([seed]) * 5000, "config.json": b"{}"}
        digest = make_bundle(self.root / f"made-{seed}", self.root / "keys", files)
        self.source.put_bundle(self.root / f"made-{seed}")
        runtime = RuntimeSpec(engine="onnxruntime", variant=VARIANT)
        release = Release(id=f"r{seed}", model="m", bundle_digest=digest, store_uri=self.source.uri, runtime=runtime)
        self.replicator.replicate(release)
        return release

    def places(self, release: Release) -> list[Path]:
        store = Path(self.replicator.region.store_uri.removeprefix("file://"))
        return [self.replicator.folder(release.bundle_digest), store / bundle_path(release.bundle_digest)]

    def check(self, release: Release) -> None:
        for place in self.places(release):
            verify_bundle(place, digest=release.bundle_digest, keys=trusted_keys(self.root / "keys"))

    def collect(self, *wanted: Release, origins: tuple[str, ...] = ()) -> list[tuple[str, str, str]]:
        origins = origins or (self.source.uri,)
        found = self.audit.collect({release.bundle_digest for release in wanted}, origins=origins)
        return [(each.what, each.digest, each.place) for each in found]


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def flip(folder: Path) -> None:
    content = bytearray((folder / "weights.bin").read_bytes())
    content[2500] ^= 1
    (folder / "weights.bin").write_bytes(content)


def lose_file(folder: Path) -> None:
    (folder / "config.json").unlink()


def lose_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def rot_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b"{}")


def name_manifest_twice(folder: Path) -> None:
    (folder.parents[2] / "second-name").hardlink_to(folder / MANIFEST)


def add_file(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("evil")


DAMAGES = [flip, lose_file, lose_manifest, rot_manifest, name_manifest_twice, add_file, shutil.rmtree]


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("place", [0, 1])
def test_what_rots_in_one_place_comes_back_from_the_other(
    world: World, damage: Callable[[Path], None], place: int
) -> None:
    release = world.release()
    shutil.rmtree(world.root / "source")
    damage(world.places(release)[place])
    (finding,) = world.audit.audit([release])
    assert finding.what in ("mended", "fetched")
    assert finding.place == ("working folder", "own store")[place]
    world.check(release)
    assert world.audit.audit([release]) == [], "done once"


def test_what_rots_in_both_places_comes_back_from_the_source(world: World) -> None:
    release = world.release()
    for place in world.places(release):
        flip(place)
    assert [finding.paths for finding in world.audit.audit([release])] == [["weights.bin"], ["weights.bin"]]
    world.check(release)


def test_what_nobody_has_whole_is_told_and_left_and_the_rest_is_mended(world: World) -> None:
    lost, other = world.release(1), world.release(2)
    for place in [*world.places(lost), world.root / "source" / bundle_path(lost.bundle_digest), world.places(other)[0]]:
        flip(place)
    findings = world.audit.audit([lost, other])
    assert {(finding.what, finding.digest) for finding in findings} == {
        ("failed", lost.bundle_digest),
        ("mended", other.bundle_digest),
    }
    assert all((place / "weights.bin").exists() for place in world.places(lost))
    world.check(other)


def test_a_live_bundle_heals_though_its_key_is_retired(world: World) -> None:
    release = world.release()
    shutil.rmtree(world.root / "keys")
    SigningKey.ensure(world.root / "keys")
    flip(world.places(release)[0])
    (finding,) = world.audit.audit([release])
    assert (finding.what, finding.paths) == ("mended", ["weights.bin"])
    flip(world.places(release)[0])
    (finding,) = world.audit.heal(release)
    assert (finding.what, finding.paths) == ("mended", ["weights.bin"])
    assert world.audit.heal(release) == []


def test_the_one_looked_at_longest_ago_is_next_after_a_kill(world: World) -> None:
    first, second = world.release(1), world.release(2)
    world.audit.audit([first])
    world.now += 1
    looked: list[str] = []
    cancelled = threading.Event()

    def stop_after_one() -> float:
        cancelled.set()
        return world.now

    audit = replace(world.audit, clock=stop_after_one)
    flip(world.places(first)[0])
    flip(world.places(second)[0])
    looked += [finding.digest for finding in audit.audit([first, second], cancelled=cancelled)]
    assert looked == [second.bundle_digest]
    assert [finding.digest for finding in world.audit.audit([first, second])] == [first.bundle_digest]


def test_an_audit_reads_no_faster_than_its_bound(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    release = world.release()
    taken: list[tuple[float, int]] = []

    class NotedPace(Pace):
        def __init__(self, bytes_per_s: float, cancelled: threading.Event | None = None) -> None:
            super().__init__(bytes_per_s, cancelled)
            self.bytes_per_s = bytes_per_s

        def take(self, size_bytes: int) -> None:
            taken.append((self.bytes_per_s, size_bytes))
            super().take(size_bytes)

    monkeypatch.setattr(audit_module, "Pace", NotedPace)
    world.audit.audit([release])
    assert {rate for rate, _ in taken} == {1e9}
    assert sum(size for _, size in taken) == 2 * 5002, "every byte of both places passes the bound"


def test_a_distant_own_store_is_mended_and_nothing_in_it_removed(tmp_path: Path) -> None:
    world = World(tmp_path, store=(tmp_path / "shared").as_uri())
    release = world.release()
    own = world.places(release)[1]
    flip(own)
    add_file(own)
    (finding,) = world.audit.audit([release])
    assert (finding.what, finding.place, finding.paths) == ("mended", "own store", ["weights.bin"])
    assert (own / "chat_template.jinja").exists()
    shutil.rmtree(own)
    (finding,) = world.audit.audit([release])
    assert finding.what == "fetched"
    world.check(release)
    rot_manifest(own)
    world.audit.audit([release])
    world.check(release)


def test_a_source_that_is_the_own_store_is_never_written(tmp_path: Path) -> None:
    world = World(tmp_path, store=(tmp_path / "source").as_uri() + "/")
    release = world.release()
    flip(world.root / "source" / bundle_path(release.bundle_digest))
    assert world.audit.audit([release]) == []


def test_unwanted_bundles_go_after_the_grace_period_from_both_places(world: World) -> None:
    live, old = world.release(1), world.release(2)
    assert world.collect(live) == []
    world.now += GRACE_S - 1
    assert world.collect(live) == []
    world.now += 1
    digest = old.bundle_digest
    assert world.collect(live) == [("removed", digest, "working folder"), ("removed", digest, "own store")]
    assert not any(place.exists() for place in world.places(old))
    world.check(live)
    assert world.collect(live) == []


def test_being_wanted_or_replicated_again_starts_the_grace_period_anew(world: World) -> None:
    old = world.release()
    for again in (lambda: world.collect(old), lambda: world.replicator.replicate(old)):
        world.collect()
        world.now += GRACE_S
        again()
        assert world.collect() == []
        world.check(old)
        world.collect(old)


def test_a_bundle_that_is_being_copied_is_left_alone(world: World) -> None:
    old = world.release()
    world.collect()
    world.now += GRACE_S
    with alone(world.replicator.staging(old.bundle_digest), Pace(1e9)):
        assert world.collect() == []
    assert len(world.collect()) == 2


def test_a_bundle_that_was_asked_for_a_moment_ago_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    old = world.release()
    world.collect()
    world.now += GRACE_S

    @contextmanager
    def replicated_just_before(staging: Path, pace: Pace, *, wait_for_it: bool) -> Iterator[None]:
        world.replicator.replicate(old)
        with alone(staging, pace, wait_for_it=wait_for_it):
            yield

    monkeypatch.setattr(audit_module, "alone", replicated_just_before)
    assert world.collect() == []
    world.check(old)


def test_half_a_copy_that_nobody_goes_on_with_goes_too(world: World) -> None:
    half = world.replicator.staging(f"sha256:{'0' * 64}")
    (half / "bundle").mkdir(parents=True)
    world.collect()
    world.now += GRACE_S
    world.collect()
    assert not half.exists()


@pytest.mark.parametrize("where", ["shared", "linked"])
def test_a_store_outside_of_the_regions_state_is_never_collected(tmp_path: Path, where: str) -> None:
    if where == "shared":
        world = World(tmp_path, store=(tmp_path / "shared").as_uri())
    else:
        (tmp_path / "region").mkdir()
        (tmp_path / "shared").mkdir()
        (tmp_path / "region" / "store").symlink_to(tmp_path / "shared")
        world = World(tmp_path)
    old = world.release()
    world.collect()
    world.now += GRACE_S
    assert world.collect() == [("removed", old.bundle_digest, "working folder")]
    assert world.places(old)[1].exists()


def test_an_own_store_that_releases_come_from_is_never_collected(world: World) -> None:
    old = world.release()
    origin = (world.replicator.region.store_uri + "//",)
    world.collect(origins=origin)
    world.now += GRACE_S
    assert world.collect(origins=origin) == [("removed", old.bundle_digest, "working folder")]
    assert world.places(old)[1].exists()


def test_a_removal_that_is_killed_leaves_no_half_and_is_finished(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    old = world.release()
    world.collect()
    world.now += GRACE_S

    def die(path: Path) -> None:
        if path.is_dir():
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(audit_module, "remove", die)
        with pytest.raises(KeyboardInterrupt):
            world.collect()
    assert not world.places(old)[0].exists()
    assert world.collect() == [("removed", old.bundle_digest, "own store")]
    assert not list((world.root / "region" / "bundles" / "removed").iterdir())


def test_a_bundle_that_is_nowhere_any_more_is_told_for_both_places(world: World) -> None:
    release = world.release()
    for place in [*world.places(release), world.root / "source"]:
        shutil.rmtree(place)
    findings = world.audit.audit([release])
    assert [(finding.what, finding.place) for finding in findings] == [
        ("failed", "working folder"),
        ("failed", "own store"),
    ]


def test_a_disk_that_takes_no_notes_keeps_the_audit_from_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    release = world.release()
    rotten = world.places(release)[0] / "weights.bin"
    rotten.write_bytes(b"rotten")
    # As on a full disk: nothing can be put where the book of audits lies.
    (world.replicator.region.state_folder / "bundles" / "audited.json").mkdir(parents=True)
    assert [found.what for found in world.audit.audit([release])] == ["mended"]
    world.check(release)


def test_a_bundle_that_cannot_be_noted_keeps_no_other_from_making_room(tmp_path: Path) -> None:
    world = World(tmp_path)
    first, second = sorted((world.release(seed) for seed in (1, 2)), key=lambda release: release.bundle_digest)
    world.audit.collect([], origins=[])
    note = world.replicator.unwanted_note(first.bundle_digest)
    note.unlink()
    note.mkdir()
    world.now += GRACE_S
    assert [found.digest for found in world.audit.collect([], origins=[])] == [second.bundle_digest] * 2
    world.check(first)
    assert not any(place.exists() for place in world.places(second))
