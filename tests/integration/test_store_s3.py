"""A store on S3: as moto has it, on a port where nobody is, and behind a socket that never answers."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3fs import S3FileSystem

from serving.bundle import verify_bundle
from serving.copying import CopyLimits
from serving.credentials import trusted_keys
from serving.errors import CorruptBundle, NotFound, RetryableError, TimedOut
from serving.regions.places.topology import Region
from serving.regions.replication import BundleAudit, Replicator
from serving.releases import Release, RuntimeSpec
from serving.store import ArtifactStore
from serving.store_files import StoreFiles, StoreLimits
from tests.fakes.bundles import VARIANT, make_bundle
from tests.fakes.moto import MotoServer
from tests.fakes.ports import HOST, free_port

FILES = {"model/weights.bin": bytes(range(256)) * 50_000, "model/config.json": b"{}", "empty": b""}


@pytest.fixture(scope="module")
def aws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    with MotoServer(tmp_path_factory.mktemp("moto") / "moto.log") as aws:
        yield aws


def use(monkeypatch: pytest.MonkeyPatch, port: int) -> None:
    server = MotoServer(Path("/dev/null"), port=port)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    # One that is remembered would go on with the server before.
    S3FileSystem.clear_instance_cache()


@pytest.fixture
def bucket(aws: MotoServer, monkeypatch: pytest.MonkeyPatch) -> str:
    use(monkeypatch, aws.port)
    aws.forget()
    aws.client("s3").create_bucket(Bucket="bundles")
    return "s3://bundles/store"


@pytest.fixture
def digest(tmp_path: Path) -> str:
    return make_bundle(tmp_path / "made", tmp_path / "keys", FILES)


def make_region(root: Path, store_uri: str) -> Replicator:
    folder = root / "region"
    region = Region(
        name="here", gateway_url="", agent_url="", store_uri=store_uri, registry_url="", state_folder=folder
    )
    limits = CopyLimits(block_bytes=5 << 20)
    return Replicator(region=region, key_folder=root / "keys", limits=limits)


def make_release(digest: str, store_uri: str) -> Release:
    runtime = RuntimeSpec(engine="onnxruntime", variant=VARIANT)
    return Release(id="r", model="m", bundle_digest=digest, store_uri=store_uri, runtime=runtime)


def test_a_bundle_goes_to_s3_and_from_there_to_a_region(bucket: str, digest: str, tmp_path: Path) -> None:
    source, own = ArtifactStore(f"{bucket}/source"), ArtifactStore(f"{bucket}/own")
    assert source.put_bundle(tmp_path / "made") == digest
    replicator = make_region(tmp_path, own.uri)
    replicator.replicate(make_release(digest, source.uri))
    verify_bundle(replicator.folder(digest), digest=digest, keys=trusted_keys(tmp_path / "keys"))
    assert own.read_manifest(digest) == source.read_manifest(digest)


def test_what_rots_on_s3_is_put_again_and_what_is_longer_is_cut_off(bucket: str, digest: str, tmp_path: Path) -> None:
    source, own = ArtifactStore(f"{bucket}/source"), ArtifactStore(f"{bucket}/own")
    source.put_bundle(tmp_path / "made")
    replicator, release = make_region(tmp_path, own.uri), make_release(digest, source.uri)
    replicator.replicate(release)
    own.bundle(digest).write("model/config.json", b"{}" * 1000)
    (finding,) = BundleAudit(replicator=replicator).audit([release])
    assert (finding.place, finding.paths) == ("own store", ["model/config.json"])
    assert own.bundle(digest).read("model/config.json") == b"{}"
    source.bundle(digest).write("model/config.json", b"{}" * 1000)
    with pytest.raises(CorruptBundle, match="wrong size, got 2000, expected 2 bytes"):
        source.fetch_bundle(digest, tmp_path / "copy")


def test_records_and_absences_on_s3(bucket: str, digest: str, tmp_path: Path) -> None:
    store = ArtifactStore(bucket)
    assert store.read_record("a.json") is None
    store.write_record("a.json", {"a": 1})
    assert store.read_record("a.json") == {"a": 1}
    for absent in (store, ArtifactStore("s3://no-such-bucket/store")):
        with pytest.raises(NotFound):
            absent.read_manifest(digest)
        with pytest.raises(NotFound):
            absent.fetch_bundle(digest, tmp_path / "copy")


def test_half_an_upload_is_never_published(bucket: str) -> None:
    def blocks() -> Iterator[bytes]:
        yield bytes(6 << 20)
        raise CorruptBundle("rotten on the way")

    files = ArtifactStore(bucket).files()
    with pytest.raises(CorruptBundle, match="rotten on the way"):
        files.put("large.bin", blocks(), size_bytes=12 << 20, block_bytes=5 << 20)
    assert not files.has("large.bin")


def test_s3_that_nobody_answers_for_is_retryable(digest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, free_port())
    store = ArtifactStore("s3://closed/store")
    with pytest.raises(RetryableError, match="s3://closed/store"):
        store.read_manifest(digest)
    with pytest.raises(RetryableError, match="s3://closed/store"):
        store.write_record("a.json", {})
    with pytest.raises(RetryableError, match="s3://closed/store"):
        make_region(tmp_path, (tmp_path / "region" / "store").as_uri()).replicate(make_release(digest, store.uri))


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Takes connections and never says a word."""
    with socket.socket() as listener:
        listener.bind((HOST, free_port()))
        listener.listen(64)
        yield listener.getsockname()[1]


def test_s3_that_hangs_is_late_and_no_thread_waits_for_ever(monkeypatch: pytest.MonkeyPatch, silent_port: int) -> None:
    use(monkeypatch, silent_port)
    limits = StoreLimits(connect_timeout_s=0.5, read_timeout_s=30.0, call_timeout_s=1.0)
    with pytest.raises(TimedOut, match="does not answer, got s3://silent/store/x"):
        StoreFiles.open("s3://silent/store", limits).read("x")
    short = StoreLimits(connect_timeout_s=0.5, read_timeout_s=0.5, call_timeout_s=50.0)
    with pytest.raises(RetryableError, match="s3://silent/store/x"):
        StoreFiles.open("s3://silent/store", short).read("x")
