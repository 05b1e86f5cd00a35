"""A bundle in a pod's folder: whole, of its digest, or not there."""

from pathlib import Path

import pytest

from serving.bundle import MANIFEST
from serving.errors import CorruptBundle, NotFound, UntrustedBundle
from serving.fetch_bundle import fetch_bundle, main
from serving.store import ArtifactStore, bundle_path
from tests.fakes.models import VARIANT, write_bundle


@pytest.fixture
def stored(tmp_path: Path) -> tuple[str, str]:
    """Address of a store and digest of the bundle in it."""
    write_bundle(tmp_path / "made", tmp_path / "keys")
    store = ArtifactStore((tmp_path / "store").as_uri())
    return store.uri, store.put_bundle(tmp_path / "made")


def test_a_bundle_is_fetched_verified_and_linked(stored: tuple[str, str], tmp_path: Path) -> None:
    uri, digest = stored
    target = tmp_path / "bundle"
    order = ["--uri", uri, "--digest", digest, "--target", str(target), "--variant", VARIANT]
    order += ["--entry-link", str(target / ".entry"), "--keys", str(tmp_path / "keys")]
    assert main(order) == 0
    assert (target / ".entry").resolve().is_file()
    before = (target / MANIFEST).stat().st_mtime_ns
    assert main(order) == 0
    assert (target / MANIFEST).stat().st_mtime_ns == before, "a whole bundle is left alone"


def test_what_an_earlier_container_left_half_is_replaced(stored: tuple[str, str], tmp_path: Path) -> None:
    uri, digest = stored
    target = tmp_path / "bundle"
    manifest = fetch_bundle(uri, digest, target)
    damaged = target / manifest.variant(VARIANT).entry
    damaged.write_bytes(b"torn")
    fetch_bundle(uri, digest, target)
    assert damaged.read_bytes() != b"torn"
    assert not list(target.glob(".incoming.*"))


def test_a_damaged_store_gives_nothing(stored: tuple[str, str], tmp_path: Path) -> None:
    uri, digest = stored
    manifest = ArtifactStore(uri).read_manifest(digest)
    (tmp_path / "store" / bundle_path(digest) / manifest.variant(VARIANT).entry).write_bytes(b"other")
    with pytest.raises(CorruptBundle):
        fetch_bundle(uri, digest, tmp_path / "bundle")
    assert not (tmp_path / "bundle" / MANIFEST).exists()


def test_a_bundle_that_nobody_trusted_has_signed_is_refused(stored: tuple[str, str], tmp_path: Path) -> None:
    (tmp_path / "others" / "trusted").mkdir(parents=True)
    with pytest.raises(UntrustedBundle):
        fetch_bundle(*stored, tmp_path / "bundle", keys=tmp_path / "others")
    assert not (tmp_path / "bundle" / MANIFEST).exists()


def test_an_unknown_bundle_is_one_line_and_exit_code_1(
    stored: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = "sha256:" + "0" * 64
    assert main(["--uri", stored[0], "--digest", digest, "--target", str(tmp_path / "bundle")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("flightpath: store has no such bundle")
    assert digest.removeprefix("sha256:") in line
    with pytest.raises(NotFound):
        fetch_bundle(stored[0], digest, tmp_path / "bundle")
