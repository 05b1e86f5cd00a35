"""Replication: whole, verified and trusted, or not there."""

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from serving.bundle import ATTESTATION, MANIFEST, verify_bundle, verify_variant
from serving.credentials import SigningKey, trusted_keys
from serving.errors import CorruptBundle, InvalidInput, NotFound, RetryableError, UntrustedBundle
from serving.regions.places.topology import Region
from serving.regions.replication import Replicator
from serving.releases import Release, RuntimeSpec
from serving.store import ArtifactStore, bundle_path
from tests.fakes.models import VARIANT, write_bundle


def make_replicator(root: Path) -> Replicator:
    folder = root / "region"
    region = Region(
        name="here",
        gateway_url="",
        agent_url="",
        store_uri=(folder / "store").as_uri(),
        registry_url="",
        state_folder=folder,
    )
    return Replicator(region=region, key_folder=root / "keys")


def make_release(root: Path, *, variant: str = VARIANT) -> Release:
    write_bundle(root / "bundle", root / "keys")
    store = ArtifactStore((root / "source").as_uri())
    digest = store.put_bundle(root / "bundle")
    runtime = RuntimeSpec(engine="onnxruntime", variant=variant)
    return Release(id="r", model="digits", bundle_digest=digest, store_uri=store.uri, runtime=runtime)


def damage(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(b"not a model")


def test_a_bundle_arrives_in_the_working_folder_and_the_regions_own_store(tmp_path: Path) -> None:
    replicator, release = make_replicator(tmp_path), make_release(tmp_path)
    replicator.replicate(release)
    keys = trusted_keys(tmp_path / "keys")
    for folder in (
        replicator.folder(release.bundle_digest),
        tmp_path / "region" / "store" / bundle_path(release.bundle_digest),
    ):
        verify_bundle(folder, digest=release.bundle_digest, keys=keys)


def test_a_region_serves_from_its_own_store_when_the_source_is_gone(tmp_path: Path) -> None:
    replicator, release = make_replicator(tmp_path), make_release(tmp_path)
    replicator.replicate(release)
    shutil.rmtree(tmp_path / "source")
    shutil.rmtree(replicator.folder(release.bundle_digest))
    replicator.replicate(release)
    assert replicator.folder(release.bundle_digest).is_dir()


def test_damaged_copies_are_removed_and_fetched_again(tmp_path: Path) -> None:
    replicator, release = make_replicator(tmp_path), make_release(tmp_path)
    replicator.replicate(release)
    own = tmp_path / "region" / "store" / bundle_path(release.bundle_digest)
    damage(replicator.folder(release.bundle_digest))
    damage(own)
    replicator.replicate(release)
    assert (own / "model.onnx").read_bytes() == (tmp_path / "bundle" / "model.onnx").read_bytes()


def test_a_damaged_source_is_refused_and_leaves_no_folder(tmp_path: Path) -> None:
    replicator, release = make_replicator(tmp_path), make_release(tmp_path)
    damage(tmp_path / "source" / bundle_path(release.bundle_digest))
    with pytest.raises(CorruptBundle, match=r"model\.onnx has a wrong size"):
        replicator.replicate(release)
    assert not replicator.folder(release.bundle_digest).exists()
    assert not replicator.staging(release.bundle_digest).exists()
    assert not (tmp_path / "region" / "store").exists()


def test_a_bundle_that_no_trusted_key_signed_is_refused(tmp_path: Path) -> None:
    replicator, release = make_replicator(tmp_path), make_release(tmp_path)
    shutil.rmtree(tmp_path / "keys" / "trusted")
    with pytest.raises(UntrustedBundle, match="no valid signature"):
        replicator.replicate(release)
    (tmp_path / "source" / bundle_path(release.bundle_digest) / ATTESTATION).unlink()
    with pytest.raises(UntrustedBundle, match="has no attestation"):
        replicator.replicate(release)


def test_unknown_bundles_and_variants_are_named(tmp_path: Path) -> None:
    replicator, release = make_replicator(tmp_path), make_release(tmp_path, variant="tensorrt-h100")
    with pytest.raises(InvalidInput, match="no such variant, got tensorrt-h100"):
        replicator.replicate(release)
    shutil.rmtree(tmp_path / "source")
    with pytest.raises(NotFound):
        replicator.replicate(release)


def test_what_a_killed_copy_left_behind_is_swept(tmp_path: Path) -> None:
    replicator = make_replicator(tmp_path)
    release = make_release(tmp_path)
    replicator.replicate(release)
    own = tmp_path / "region" / "store" / "bundles" / "sha256"
    leftovers = [tmp_path / "region" / "bundles" / "sha256" / ".incoming.x", own / f".{'0' * 64}.x"]
    for leftover in leftovers:
        leftover.mkdir(parents=True)
    replicator.sweep()
    assert not any(leftover.exists() for leftover in leftovers)
    assert [folder.name for folder in own.iterdir()] == [release.bundle_digest.removeprefix("sha256:")]


def test_nothing_is_swept_in_a_store_that_others_may_write_to(tmp_path: Path) -> None:
    replicator = make_replicator(tmp_path)
    shared = replace(replicator.region, store_uri=(tmp_path / "shared").as_uri())
    under_way = tmp_path / "shared" / "bundles" / "sha256" / f".{'0' * 64}.x"
    under_way.mkdir(parents=True)
    replace(replicator, region=shared).sweep()
    assert under_way.exists()


def retire_keys(root: Path) -> None:
    """Another key signs from now on, and the old one is trusted no longer."""
    shutil.rmtree(root / "keys")
    SigningKey.ensure(root / "keys")


def test_a_retired_key_refuses_and_removes_nothing(tmp_path: Path) -> None:
    replicator, release = make_replicator(tmp_path), make_release(tmp_path)
    replicator.replicate(release)
    retire_keys(tmp_path)
    with pytest.raises(UntrustedBundle):
        replicator.replicate(replace(release, id="r2"))
    for folder in (
        replicator.folder(release.bundle_digest),
        tmp_path / "region" / "store" / bundle_path(release.bundle_digest),
    ):
        verify_variant(folder, VARIANT)


@pytest.mark.parametrize("spelling", ["{}/", "{}//", "{}/.", "{}/../source", "{}%2F"])
def test_a_shared_store_is_left_alone_however_its_address_is_spelled(tmp_path: Path, spelling: str) -> None:
    release = make_release(tmp_path)
    shared = replace(make_replicator(tmp_path).region, store_uri=spelling.format(release.store_uri))
    replicator = replace(make_replicator(tmp_path), region=shared)
    source = tmp_path / "source" / bundle_path(release.bundle_digest)
    damage(source)
    with pytest.raises(CorruptBundle):
        replicator.replicate(release)
    peer = ArtifactStore((tmp_path / "peer").as_uri())
    peer.put_bundle(tmp_path / "bundle")
    replace(replicator, peer_stores=[peer.uri]).replicate(release)
    assert (source / "model.onnx").read_bytes() == b"not a model", "its owner's to mend"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("s3://bucket/a/b", "s3://bucket//a/b/"),
        ("s3://bucket/a b", "s3a://bucket/a%20b"),
        ("gs://bucket/a", "gcs://bucket/a/."),
        ("file:///a/b", "/a/b/"),
        ("file:///a/b", "file:/a//b"),
        ("file:///a/b", "local:///a/%62"),
    ],
)
def test_spellings_of_one_store_are_one(one: str, other: str) -> None:
    assert ArtifactStore(one).canonical_uri == ArtifactStore(other).canonical_uri


def test_stores_that_differ_are_two() -> None:
    uris = ["s3://a/b", "s3://a/c", "s3://b/b", "gs://a/b", "file:///a/b", "file:///b/b", "s3://A/b"]
    assert len({ArtifactStore(uri).canonical_uri for uri in uris}) == len(uris)


def test_a_peers_store_helps_where_own_and_source_fail(tmp_path: Path) -> None:
    release = make_release(tmp_path)
    peer = ArtifactStore((tmp_path / "peer").as_uri())
    peer.put_bundle(tmp_path / "bundle")
    damage(tmp_path / "source" / bundle_path(release.bundle_digest))
    replicator = replace(make_replicator(tmp_path), peer_stores=[peer.uri])
    replicator.replicate(release)
    shutil.rmtree(tmp_path / "source")
    shutil.rmtree(tmp_path / "region")
    replicator.replicate(release)


def test_unlisted_files_and_links_never_reach_a_region(tmp_path: Path) -> None:
    replicator, release = make_replicator(tmp_path), make_release(tmp_path)
    source = tmp_path / "source" / bundle_path(release.bundle_digest)
    (source / "chat_template.jinja").write_text("evil")
    (source / "leak").symlink_to("/etc/hostname")
    replicator.replicate(release)
    for folder in (
        replicator.folder(release.bundle_digest),
        tmp_path / "region" / "store" / bundle_path(release.bundle_digest),
    ):
        assert sorted(path.name for path in folder.iterdir()) == [ATTESTATION, MANIFEST, "model.onnx"]


def test_a_copy_is_stopped_by_its_order_and_goes_on_after_a_restart(tmp_path: Path) -> None:
    replicator, release = make_replicator(tmp_path), make_release(tmp_path)
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(RetryableError, match="copy was stopped"):
        replicator.replicate(release, cancelled=cancelled)
    half = replicator.staging(release.bundle_digest) / "bundle" / "model.onnx"
    half.parent.mkdir(parents=True)
    half.write_bytes((tmp_path / "bundle" / "model.onnx").read_bytes()[:100])
    replicator.sweep()
    assert half.exists(), "the next copy goes on from it"
    replicator.replicate(release)
    assert not replicator.staging(release.bundle_digest).exists()
