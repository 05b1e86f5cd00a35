"""A folder in a store is there as a whole or not at all, on a local disk and on an object store."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.exceptions import FSTimeoutError
from fsspec.implementations.memory import MemoryFileSystem

from serving.bundle import MANIFEST, MAX_METADATA_BYTES
from serving.errors import (
    CorruptBundle,
    FlightpathError,
    InvalidInput,
    NotFound,
    RetryableError,
    TimedOut,
    Unauthorized,
)
from serving.store import ArtifactStore, bundle_path
from tests.fakes.bundles import make_bundle


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ArtifactStore:
    if request.param == "file":
        return ArtifactStore((tmp_path / "store").as_uri())
    return ArtifactStore(f"memory://{tmp_path.name}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "folder"
    (root / "deep").mkdir(parents=True)
    (root / "deep" / "a").write_bytes(b"1")
    (root / "marker.json").write_bytes(b"{}")
    return root


def test_a_folder_comes_back_as_it_was_put(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    store.put_folder(folder, "things/x", marker="marker.json")
    target = store.fetch_folder("things/x", tmp_path / "back", marker="marker.json")
    assert (target / "deep" / "a").read_bytes() == b"1"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".back")]


def test_a_folder_without_its_marker_is_not_there(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    store.put_folder(folder, "things/x", marker="marker.json")
    with pytest.raises(NotFound, match="no such folder"):
        store.fetch_folder("things/x", tmp_path / "back", marker="other.json")
    assert not (tmp_path / "back").exists()


def test_putting_the_same_folder_again_changes_nothing(store: ArtifactStore, folder: Path, tmp_path: Path) -> None:
    store.put_folder(folder, "things/x", marker="marker.json")
    (folder / "deep" / "a").write_bytes(b"2")
    store.put_folder(folder, "things/x", marker="marker.json")
    assert (store.fetch_folder("things/x", tmp_path / "back", marker="marker.json") / "deep" / "a").read_bytes() == b"1"


def test_a_record_is_read_as_written_and_missing_ones_are_none(store: ArtifactStore) -> None:
    assert store.read_record("releases/r/plan.json") is None
    store.write_record("releases/r/plan.json", {"b": 1, "a": [2.5]})
    assert store.read_record("releases/r/plan.json") == {"b": 1, "a": [2.5]}


def test_a_copy_that_died_half_way_is_replaced(folder: Path, tmp_path: Path) -> None:
    store = ArtifactStore((tmp_path / "store").as_uri())
    half = tmp_path / "store" / "things" / "x" / "deep"
    half.mkdir(parents=True)
    (half / "torn").write_bytes(b"half")
    store.put_folder(folder, "things/x", marker="marker.json")
    back = store.fetch_folder("things/x", tmp_path / "back", marker="marker.json")
    assert sorted(path.name for path in back.rglob("*") if path.is_file()) == ["a", "marker.json"]


def test_paths_that_leave_the_store_are_refused(store: ArtifactStore) -> None:
    with pytest.raises(CorruptBundle):
        store.write_record("../outside.json", {})


@pytest.mark.parametrize("digest", ["sha256:12", "md5:" + "0" * 64, "sha256:" + "G" * 64, "../" + "0" * 64])
def test_malformed_digests_are_refused(digest: str) -> None:
    with pytest.raises(InvalidInput, match="digest is malformed"):
        bundle_path(digest)


def test_an_unknown_protocol_is_named() -> None:
    with pytest.raises(InvalidInput, match="expected an fsspec URI"):
        ArtifactStore("nosuch://x").read_record("a.json")


def test_a_record_that_is_none_is_named(store: ArtifactStore) -> None:
    store.files().write("releases/r/plan.json", b"{")
    with pytest.raises(CorruptBundle, match=r"record cannot be read, got .*/releases/r/plan\.json"):
        store.read_record("releases/r/plan.json")


CALLS: list[Callable[[ArtifactStore, Path], object]] = [
    lambda store, folder: store.read_record("a/b.json"),
    lambda store, folder: store.write_record("a/b.json", {}),
    lambda store, folder: store.has("a", marker="marker.json"),
    lambda store, folder: store.put_folder(folder, "a", marker="marker.json"),
    lambda store, folder: store.fetch_folder("a", folder.with_name("back"), marker="marker.json"),
    lambda store, folder: store.put_bundle(folder.with_name("bundle")),
    lambda store, folder: store.read_manifest(DIGEST),
    lambda store, folder: store.fetch_bundle(DIGEST, folder.with_name("back")),
]
DIGEST = f"sha256:{'0' * 64}"


class FailingFiles(MemoryFileSystem):
    """Every call fails as a cloud's client does: with an error of no tree that we know."""

    protocol = "failing"
    error: Exception = RuntimeError()

    def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
        raise self.error

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **kwargs: Any) -> None:
        raise self.error


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (RuntimeError("EndpointConnectionError"), RetryableError),
        (OSError(errno.EIO, "broken"), RetryableError),
        (OSError(errno.ENOSPC, "full"), RetryableError),
        (FSTimeoutError(), TimedOut),
        (PermissionError("Forbidden"), Unauthorized),
    ],
)
def test_what_a_store_raises_is_ours(
    call: Callable[[ArtifactStore, Path], object],
    error: Exception,
    ours: type[FlightpathError],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_bundle(folder.with_name("bundle"), folder.with_name("keys"), {"a": b"1"})
    fsspec.register_implementation("failing", FailingFiles, clobber=True)
    monkeypatch.setattr(FailingFiles, "error", error)
    with pytest.raises(ours, match="failing://store"):
        call(ArtifactStore("failing://store"), folder)


@pytest.mark.parametrize("call", CALLS)
def test_what_a_disk_raises_is_ours(
    call: Callable[[ArtifactStore, Path], object], folder: Path, tmp_path: Path
) -> None:
    make_bundle(folder.with_name("bundle"), folder.with_name("keys"), {"a": b"1"})
    # A file where the store's folder should be, which not even root can pass.
    (tmp_path / "store").write_bytes(b"")
    with suppress(NotFound, RetryableError):
        call(ArtifactStore((tmp_path / "store").as_uri()), folder)


def test_what_is_no_file_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "record.json")
    with pytest.raises(CorruptBundle, match="no regular file"):
        ArtifactStore(tmp_path.as_uri()).read_record("record.json")


def test_a_manifest_without_end_is_not_read(store: ArtifactStore) -> None:
    store.files().write(f"{bundle_path(DIGEST)}/{MANIFEST}", b" " * (MAX_METADATA_BYTES + 1))
    with pytest.raises(CorruptBundle, match="is too large"):
        store.read_manifest(DIGEST)


def test_a_file_that_is_not_the_manifests_is_not_put(store: ArtifactStore, tmp_path: Path) -> None:
    digest = make_bundle(tmp_path / "bundle", tmp_path / "keys", {"a": b"1", "b": b"2"})
    (tmp_path / "bundle" / "a").write_bytes(b"3")
    with pytest.raises(CorruptBundle, match="a has a wrong SHA-256"):
        store.put_bundle(tmp_path / "bundle")
    with pytest.raises(NotFound):
        store.read_manifest(digest)
