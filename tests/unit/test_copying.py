"""Copies of bundles: whole, durable, bounded, resumed, and stopped at the next block."""

import hashlib
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from serving.bundle import ATTESTATION, MANIFEST, BundleFile, read_manifest, verify_bundle
from serving.copying import Brought, CopyLimits, Pace, bring_bundle
from serving.credentials import trusted_keys
from serving.errors import CorruptBundle, InvalidInput, RetryableError
from serving.store import ArtifactStore, bundle_path
from serving.store_files import own_errors
from tests.fakes.bundles import CountedFiles, make_bundle, make_manifest

BLOCK = 1000
LIMITS = CopyLimits(parallel_files=2, block_bytes=BLOCK)
LARGE = os.urandom(10 * BLOCK)
FILES = {"model/weights.bin": LARGE, "model/config.json": b"{}", "golden.bin": b"g" * 1500, "empty": b""}


@pytest.fixture(autouse=True)
def _clean() -> Iterator[None]:
    yield
    CountedFiles.forget()


@pytest.fixture
def digest(tmp_path: Path) -> str:
    return make_bundle(tmp_path / "made", tmp_path / "keys", FILES)


@pytest.fixture(params=["counted", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path, digest: str) -> ArtifactStore:
    store = ArtifactStore("counted://store" if request.param == "counted" else (tmp_path / "store").as_uri())
    store.put_bundle(tmp_path / "made")
    return store


@pytest.fixture
def counted(tmp_path: Path, digest: str) -> ArtifactStore:
    store = ArtifactStore("counted://store")
    store.put_bundle(tmp_path / "made")
    CountedFiles.asked.clear()
    return store


def bring(root: Path, digest: str, *stores: ArtifactStore, cancelled: threading.Event | None = None) -> Brought:
    return bring_bundle(
        digest,
        root / "copy",
        sources=[store.bundle(digest) for store in stores],
        staging=root / "incoming",
        limits=LIMITS,
        pace=Pace(1e9, cancelled),
    )


def listed(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def test_a_copy_holds_what_the_manifest_lists_and_nothing_else(
    store: ArtifactStore, tmp_path: Path, digest: str
) -> None:
    files = store.bundle(digest)
    files.write("model/generation_config.json", b'{"temperature": 99}')
    files.write("evil/plugin.py", b"import os")
    assert bring(tmp_path, digest, store).new
    assert listed(tmp_path / "copy") == sorted([*FILES, MANIFEST, ATTESTATION])
    verify_bundle(tmp_path / "copy", digest=digest, keys=trusted_keys(tmp_path / "keys"))
    assert not (tmp_path / "incoming").exists()


def test_a_put_takes_what_the_manifest_lists_and_nothing_else(tmp_path: Path, digest: str) -> None:
    (tmp_path / "made" / "model" / "secret").symlink_to("/etc/hostname")
    store = ArtifactStore((tmp_path / "store").as_uri())
    store.put_bundle(tmp_path / "made")
    assert listed(tmp_path / "store" / bundle_path(digest)) == sorted([*FILES, MANIFEST, ATTESTATION])


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_regular_file_in_a_store_is_never_read(tmp_path: Path, digest: str, kind: str) -> None:
    store = ArtifactStore((tmp_path / "store").as_uri())
    store.put_bundle(tmp_path / "made")
    path = tmp_path / "store" / bundle_path(digest) / "golden.bin"
    path.unlink()
    if kind == "link":
        path.symlink_to(tmp_path / "made" / "golden.bin")
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.mkdir()
    with pytest.raises(CorruptBundle, match="no regular file"):
        bring(tmp_path, digest, store)


def test_a_store_with_a_longer_file_is_cut_off(counted: ArtifactStore, tmp_path: Path, digest: str) -> None:
    counted.bundle(digest).write("golden.bin", b"g" * 1_000_000)
    with pytest.raises(CorruptBundle, match=r"golden\.bin has a wrong size, got 1000000, expected 1500 bytes"):
        bring(tmp_path, digest, counted)
    assert CountedFiles.bytes_of("golden.bin") == 0
    CountedFiles.zeros["golden.bin"] = 1500
    CountedFiles.asked.clear()
    with pytest.raises(CorruptBundle, match="wrong SHA-256"):
        bring(tmp_path, digest, counted)
    assert max(end for name, _, end in CountedFiles.asked if name == "golden.bin") == 1500


def test_a_server_that_sends_more_than_it_was_asked_for_is_refused(
    counted: ArtifactStore, tmp_path: Path, digest: str
) -> None:
    CountedFiles.ignores_ranges = True
    with pytest.raises(CorruptBundle, match="not as long as its store says"):
        bring(tmp_path, digest, counted)


def test_a_copy_that_is_stopped_ends_at_the_next_block_and_goes_on_there(
    counted: ArtifactStore, tmp_path: Path, digest: str
) -> None:
    cancelled = threading.Event()
    CountedFiles.stops = (cancelled, 6 * BLOCK)
    with pytest.raises(RetryableError, match="copy was stopped"):
        bring(tmp_path, digest, counted, cancelled=cancelled)
    assert not (tmp_path / "copy").exists()
    first = CountedFiles.bytes_of("weights.bin")
    assert first < len(LARGE)
    CountedFiles.stops = None
    CountedFiles.asked.clear()
    bring(tmp_path, digest, counted)
    # Blocks that were asked for and not written when the copy stopped are asked for again: one a file, and two ahead.
    assert CountedFiles.bytes_of("weights.bin") <= len(LARGE) - first + 3 * BLOCK
    assert (tmp_path / "copy" / "model" / "weights.bin").read_bytes() == LARGE


SLOW_COPY = """
import sys
from pathlib import Path
from serving.copying import CopyLimits, Pace, bring_bundle
from serving.store import ArtifactStore
root, digest = Path(sys.argv[1]), sys.argv[2]
source = ArtifactStore((root / "store").as_uri()).bundle(digest)
limits = CopyLimits(parallel_files=2, block_bytes=1000)
bring_bundle(digest, root / "copy", sources=[source], staging=root / "incoming", limits=limits, pace=Pace(5000))
"""


def test_a_copy_whose_process_is_killed_goes_on_where_it_was(tmp_path: Path, digest: str) -> None:
    store = ArtifactStore((tmp_path / "store").as_uri())
    store.put_bundle(tmp_path / "made")
    half = tmp_path / "incoming" / "bundle" / "model" / "weights.bin"
    with subprocess.Popen([sys.executable, "-c", SLOW_COPY, str(tmp_path), digest]) as process:
        while not (half.exists() and half.stat().st_size):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert not (tmp_path / "copy").exists()
    inode = half.stat().st_ino
    bring(tmp_path, digest, store)
    verify_bundle(tmp_path / "copy", digest=digest, keys=trusted_keys(tmp_path / "keys"))
    assert (tmp_path / "copy" / "model" / "weights.bin").stat().st_ino == inode, "the same file, gone on with"


@pytest.mark.parametrize("left", [b"rotten" * 100, LARGE + b"more", b"\0" * len(LARGE)])
def test_what_a_killed_copy_left_counts_only_with_its_hash(
    counted: ArtifactStore, tmp_path: Path, digest: str, left: bytes
) -> None:
    staged = tmp_path / "incoming" / "bundle" / "model" / "weights.bin"
    staged.parent.mkdir(parents=True)
    staged.write_bytes(left)
    bring(tmp_path, digest, counted)
    assert (tmp_path / "copy" / "model" / "weights.bin").read_bytes() == LARGE


def test_each_file_comes_from_a_source_that_has_it_whole(tmp_path: Path, digest: str) -> None:
    stores = [ArtifactStore((tmp_path / name).as_uri()) for name in ("a", "b")]
    for store, rotten in zip(stores, ("golden.bin", "model/config.json"), strict=True):
        store.put_bundle(tmp_path / "made")
        (store.bundle(digest).folder / rotten).write_bytes(b"!!")
    brought = bring(tmp_path, digest, *stores)
    assert [(fault.place, fault.path) for fault in brought.faults] == [(stores[0].bundle(digest).uri, "golden.bin")]
    verify_bundle(tmp_path / "copy", digest=digest, keys=trusted_keys(tmp_path / "keys"))


def test_a_folder_that_is_there_is_mended_and_what_holds_is_left_alone(
    counted: ArtifactStore, tmp_path: Path, digest: str
) -> None:
    bring(tmp_path, digest, counted)
    copy = tmp_path / "copy"
    kept = (copy / "model" / "weights.bin").stat().st_ino
    (copy / "golden.bin").write_bytes(b"h" * 1500)
    (copy / "model" / "config.json").unlink()
    (copy / "model" / "config.json").mkdir()
    (copy / "leak").symlink_to("/etc/hostname")
    CountedFiles.asked.clear()
    brought = bring(tmp_path, digest, counted)
    assert sorted(brought.mended) == ["golden.bin", "leak", "model/config.json"]
    verify_bundle(copy, digest=digest, keys=trusted_keys(tmp_path / "keys"))
    assert (copy / "model" / "weights.bin").stat().st_ino == kept
    assert CountedFiles.bytes_of("weights.bin") == 0
    assert not bring(tmp_path, digest, counted).changed


def test_a_folder_that_became_a_link_is_made_a_folder_again(
    counted: ArtifactStore, tmp_path: Path, digest: str
) -> None:
    bring(tmp_path, digest, counted)
    (tmp_path / "copy" / "model").rename(tmp_path / "elsewhere")
    (tmp_path / "copy" / "model").symlink_to(tmp_path / "elsewhere")
    bring(tmp_path, digest, counted)
    verify_bundle(tmp_path / "copy", digest=digest, keys=trusted_keys(tmp_path / "keys"))
    assert listed(tmp_path / "elsewhere") == ["config.json", "weights.bin"], "nothing outside is touched"


def test_two_that_want_one_bundle_copy_it_once(counted: ArtifactStore, tmp_path: Path, digest: str) -> None:
    with ThreadPoolExecutor(max_workers=4) as pool:
        brought = [job.result() for job in [pool.submit(bring, tmp_path, digest, counted) for _ in range(4)]]
    assert sorted(each.new for each in brought) == [False, False, False, True]
    assert CountedFiles.bytes_of("weights.bin") == len(LARGE)


@pytest.mark.parametrize("kind", ["bring", "put"])
def test_every_file_and_folder_is_durable_before_it_has_its_name(
    tmp_path: Path, digest: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ArtifactStore((tmp_path / "store").as_uri())
    synced: set[int] = set()
    at_rename: list[set[int]] = []
    fsync, rename = os.fsync, Path.rename

    def noted_fsync(descriptor: int) -> None:
        fsync(descriptor)
        synced.add(os.fstat(descriptor).st_ino)

    def noted_rename(self: Path, target: Path) -> Path:
        at_rename.append(set(synced))
        return rename(self, target)

    if kind == "bring":
        store.put_bundle(tmp_path / "made")
    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "rename", noted_rename)
    if kind == "bring":
        bring(tmp_path, digest, store)
        copy = tmp_path / "copy"
    else:
        store.put_bundle(tmp_path / "made")
        copy = tmp_path / "store" / bundle_path(digest)
    inodes = {path.stat().st_ino for path in [copy, *copy.rglob("*")]}
    assert at_rename
    assert inodes <= at_rename[-1]
    assert copy.parent.stat().st_ino in synced, "and so is the name"


def test_a_large_file_is_never_held_in_memory(tmp_path: Path) -> None:
    size, megabyte = 512 << 20, bytes(1 << 20)
    sha = hashlib.sha256()
    for _ in range(size >> 20):
        sha.update(megabyte)
    manifest = make_manifest(BundleFile(path="weights.bin", sha256=sha.hexdigest(), size_bytes=size))
    source = ArtifactStore("counted://store")
    source.bundle(manifest.digest).write(MANIFEST, manifest.to_bytes())
    CountedFiles.zeros["weights.bin"] = size
    limits = CopyLimits()
    tracemalloc.start()
    try:
        bring_bundle(
            manifest.digest,
            tmp_path / "copy",
            sources=[source.bundle(manifest.digest)],
            staging=tmp_path / "incoming",
            limits=limits,
            pace=Pace(limits.bytes_per_s),
        )
        ArtifactStore((tmp_path / "store").as_uri()).put_bundle(tmp_path / "copy")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 2 * limits.parallel_files * limits.block_bytes
    assert read_manifest(tmp_path / "copy") == manifest


def test_a_bundle_that_has_no_room_is_told_before_anything_is_written(tmp_path: Path) -> None:
    manifest = make_manifest(BundleFile(path="weights.bin", sha256="0" * 64, size_bytes=1 << 60))
    source = ArtifactStore("counted://store")
    source.bundle(manifest.digest).write(MANIFEST, manifest.to_bytes())
    CountedFiles.zeros["weights.bin"] = 1 << 60
    with pytest.raises(RetryableError, match=r"no room for the bundle, got \d+ bytes free at .*, expected \d+ bytes"):
        bring(tmp_path, manifest.digest, source)
    assert CountedFiles.bytes_of("weights.bin") == 0


def test_a_full_disk_may_have_room_later(tmp_path: Path) -> None:
    with (
        pytest.raises(RetryableError, match=r"disk is full, got \d+ bytes free at here"),
        own_errors("here", room=tmp_path),
        Path("/dev/full").open("wb", buffering=0) as full,
    ):
        full.write(b"x")


def test_threads_share_one_bandwidth() -> None:
    pace = Pace(1e6)
    started = time.monotonic()
    with ThreadPoolExecutor(max_workers=4) as pool:
        list(pool.map(pace.take, [100_000] * 4))
    assert time.monotonic() - started >= 0.3


def test_one_that_waits_for_its_turn_stops_too() -> None:
    cancelled = threading.Event()
    pace = Pace(1.0, cancelled)
    pace.take(3600)
    threading.Timer(0.05, cancelled.set).start()
    with pytest.raises(RetryableError, match="copy was stopped"):
        pace.take(1)


def test_what_a_bundle_lacks_is_refused_at_once(counted: ArtifactStore, tmp_path: Path, digest: str) -> None:
    def refuse(manifest: object, attestation: bytes | None) -> None:
        raise InvalidInput("no such variant")

    with pytest.raises(InvalidInput):
        bring_bundle(
            digest,
            tmp_path / "copy",
            sources=[counted.bundle(digest)],
            staging=tmp_path / "incoming",
            limits=LIMITS,
            pace=Pace(1e9),
            accept=refuse,
        )
    assert CountedFiles.bytes_of("weights.bin") == 0


def test_a_copy_that_was_stopped_asks_no_further_source(counted: ArtifactStore, tmp_path: Path, digest: str) -> None:
    cancelled = threading.Event()
    CountedFiles.stops = (cancelled, 1)
    counted.bundle(digest).write(MANIFEST, b"{}")
    with pytest.raises(RetryableError, match="copy was stopped"):
        bring(tmp_path, digest, counted, counted, counted, cancelled=cancelled)
    assert len(CountedFiles.asked) == 1
