"""A folder in a store is there as a whole or not at all, on a local disk and on an object store."""

from pathlib import Path

import pytest

from serving.errors import CorruptBundle, InvalidInput, NotFound
from serving.store import ArtifactStore, bundle_path


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
