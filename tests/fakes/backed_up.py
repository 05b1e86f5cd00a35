"""A region worth backing up: a registry with live releases and the bundles behind them, at any URL and store."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from infra.recovery.places import Place
from infra.recovery.registry_dump import RegistryDatabase
from infra.recovery.vault import Vault
from serving.bundle import Attestation, describe_file, read_manifest, seal
from serving.credentials import SigningKey
from serving.regions.registry.registry import Event, LiveModel, Registry, schema
from serving.releases import Release, RuntimeSpec
from serving.store import ArtifactStore
from tests.fakes.models import VARIANT, write_bundle


@dataclass(frozen=True, kw_only=True, slots=True)
class Region:
    """Where a region's two halves are, and where its backups go."""

    scratch: Path
    registry_url: str
    store_uri: str
    backups_uri: str

    @property
    def database(self) -> RegistryDatabase:
        return RegistryDatabase(url=self.registry_url)

    @property
    def store(self) -> Place:
        return Place(uri=self.store_uri)

    @property
    def vault(self) -> Vault:
        return Vault(place=Place(uri=self.backups_uri), region="us-east")

    def promote(self, number: int, *, model: str = "digits", padding: int = 0) -> str:
        """Bring a new bundle into the store and make it live, as the end of a promotion does; returns its digest."""
        digest = self._store_bundle(number, padding)
        runtime = RuntimeSpec(engine="onnxruntime", variant=VARIANT)
        id = f"{model}-{number}"
        release = Release(
            id=id, model=model, bundle_digest=digest, store_uri="file:///where/it/was/built", runtime=runtime
        )
        registry = Registry(self.registry_url)
        try:
            before = registry.live(model)
            ordered = Event(kind="promotion", subject=id, message="ordered", detail={})
            registry.add_promotion(id, release, lambda version: {"id": id, "version": version}, ordered)
            live = LiveModel(
                model=model, release_id=id, previous_release_id=before.release_id if before else None, reason=None
            )
            registry.set_live(live, Event(kind="promotion", subject=id, message="live", detail={"digest": digest}))
            registry.save_promotion(id, {"id": id, "state": "live"}, running=False, events=[])
        finally:
            registry.close()
        return digest

    def _store_bundle(self, seed: int, padding: int) -> str:
        folder = self.scratch / f"bundle-{seed}-{padding}"
        write_bundle(folder, self.scratch / "keys", seed=seed)
        if padding:
            _pad(folder, self.scratch / "keys", seed, padding)
        return ArtifactStore(self.store_uri).put_bundle(folder)

    def rows(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every row of every table of the registry, to compare with."""
        engine = sa.create_engine(self.registry_url)
        try:
            with engine.connect() as connection:
                tables = schema.metadata.sorted_tables
                return {
                    table.name: sorted(map(tuple, connection.execute(sa.select(table))), key=str) for table in tables
                }
        finally:
            engine.dispose()

    def files(self) -> dict[str, str]:
        """SHA-256 of every file of the store."""
        found = {}
        for file in self.store.list():
            copy = self.scratch / "compared"
            found[file.path], _ = self.store.fetch(file.path, copy)
        return found


def local_region(root: Path) -> Region:
    return Region(
        scratch=root / "scratch",
        registry_url=f"sqlite:///{root / 'region' / 'registry.db'}",
        store_uri=(root / "region" / "store").as_uri(),
        backups_uri=(root / "backups").as_uri(),
    )


def _pad(folder: Path, keys: Path, seed: int, size_bytes: int) -> None:
    """A large file in the bundle, other bytes for another seed, so that copying takes time."""
    block = b"".join(hashlib.sha256(f"{seed}-{n}".encode()).digest() for n in range(32768))
    with (folder / "padding").open("wb") as file:
        for _ in range(size_bytes // len(block) + 1):
            file.write(block)
    manifest = read_manifest(folder)
    (variant,) = manifest.variants
    padded = replace(variant, files=[*variant.files, describe_file(folder, "padding")])
    manifest = replace(manifest, variants=[padded])
    attestation = Attestation(bundle_name="digits", bundle_digest=manifest.digest, lineage={}, measurements=[])
    seal(folder, manifest, attestation, SigningKey.ensure(keys))
