"""Brings a release's bundle into a region: into its own store and a working folder, verified.

A copy appears by rename or with its marker last, never by half. One that does not hold is mended file by file from
whatever source has it whole. One whose signature is no longer trusted is refused, and nothing of it is removed: it
may be live.
"""

import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

from serving.bundle import Manifest
from serving.copying import Accept, Brought, CopyLimits, Pace, accept_signed, bring_bundle
from serving.files import sweep_writes
from serving.regions.places.topology import Region
from serving.releases import Release
from serving.store import ArtifactStore, bundle_path


@dataclass(frozen=True, kw_only=True, slots=True)
class Replicator:
    """Copies bundles to one region and keeps the verified ones under `{region folder}/bundles/`."""

    region: Region
    key_folder: Path
    peer_stores: Sequence[str] = ()
    """Stores of other regions, asked where the release's own fails."""
    limits: CopyLimits = field(default_factory=CopyLimits)

    def folder(self, digest: str) -> Path:
        """Where the working copy of a bundle lies once `replicate` has returned."""
        return self.region.state_folder / bundle_path(digest)

    def staging(self, digest: str) -> Path:
        """Where its copy is under way."""
        return self.region.state_folder / "bundles" / "incoming" / self.folder(digest).name

    def unwanted_note(self, digest: str) -> Path:
        """Holds since when nothing wants the bundle; replicating takes it away."""
        return self.region.state_folder / "bundles" / "unwanted" / self.folder(digest).name

    @property
    def own_store(self) -> ArtifactStore:
        return ArtifactStore(self.region.store_uri)

    @property
    def own_folder(self) -> Path | None:
        """The own store's folder where it lies in this region's state: elsewhere it may be somebody else's too."""
        files = self.own_store.files()
        if not files.local:
            return None
        inside = Path(unquote(str(files.folder.resolve()))).is_relative_to(self.region.state_folder.resolve())
        return files.folder if inside else None

    def replicate(self, release: Release, *, cancelled: threading.Event | None = None) -> Manifest:
        """Make the bundle present, whole and trusted here; blocks for the length of the copy.

        Once `cancelled` is set, it stops at the next block with RetryableError; called again, it goes on from there.
        Raises CorruptBundle, UntrustedBundle, NotFound (no store has such a bundle), Unauthorized or RetryableError.
        """
        digest, pace = release.bundle_digest, Pace(self.limits.bytes_per_s, cancelled)
        self.unwanted_note(digest).unlink(missing_ok=True)
        brought = self.bring(digest, release.store_uri, self._accept(release), pace)
        if brought.changed:
            self._keep(release, brought, pace)
        return brought.manifest

    def bring(self, digest: str, store_uri: str, accept: Accept, pace: Pace) -> Brought:
        """The working copy, fetched or mended from this region's store, the release's and the peers'."""
        return bring_bundle(
            digest,
            self.folder(digest),
            sources=[store.bundle(digest) for store in self.sources(store_uri)],
            staging=self.staging(digest),
            limits=self.limits,
            pace=pace,
            accept=accept,
        )

    def sources(self, store_uri: str) -> list[ArtifactStore]:
        """This region's own store first, then the release's, then the peers'."""
        return [self.own_store, *(ArtifactStore(uri) for uri in (store_uri, *self.peer_stores))]

    def _accept(self, release: Release) -> Accept:
        signed = accept_signed(self.key_folder)

        def accept(manifest: Manifest, attestation: bytes | None) -> None:
            signed(manifest, attestation)
            manifest.variant(release.runtime.variant)

        return accept

    def _keep(self, release: Release, brought: Brought, pace: Pace) -> None:
        """A copy in the region's own store, from which it can serve when the source is away."""
        own = self.own_store
        rotten = [fault.path for fault in brought.faults if fault.place == own.bundle(release.bundle_digest).uri]
        if own.canonical_uri == ArtifactStore(release.store_uri).canonical_uri:
            # The source is its owner's to mend.
            return
        own.put_bundle(self.folder(release.bundle_digest), again=rotten, limits=self.limits, pace=pace)

    def sweep(self) -> None:
        """Remove what a copy that died half-way has left behind and that no copy goes on from."""
        sweep_writes(self.region.state_folder / "bundles", "audited.json")
        sweep_writes(self.region.state_folder / "bundles" / "unwanted")
        leftovers = list((self.region.state_folder / "bundles").glob("*/.incoming.*"))
        # A store elsewhere may be shared: what looks left over there may be somebody's copy on its way.
        if self.own_folder is not None:
            leftovers += (self.own_folder / "bundles").glob(f"*/.{'[0-9a-f]' * 64}.*")
        for leftover in leftovers:
            shutil.rmtree(leftover, ignore_errors=True)
