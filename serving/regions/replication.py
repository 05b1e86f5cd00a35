"""Brings a release's bundle into a region: into its own store and a working folder, verified.

A copy appears by rename or with its marker last, never by half. A copy that does not verify is
removed and fetched once more; a second failure is the source's fault and raises CorruptBundle.
"""

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import fsspec

from serving.bundle import MANIFEST, Manifest, verify_bundle
from serving.credentials import trusted_keys
from serving.errors import CorruptBundle, FlightpathError, RetryableError, UntrustedBundle
from serving.regions.places.topology import Region
from serving.releases import Release
from serving.store import ArtifactStore, bundle_path


@dataclass(frozen=True, kw_only=True, slots=True)
class Replicator:
    """Copies bundles to one region and keeps the verified ones under `{region folder}/bundles/`."""

    region: Region
    key_folder: Path

    def folder(self, digest: str) -> Path:
        """Where the working copy of a bundle lies once `replicate` has returned."""
        return self.region.state_folder / bundle_path(digest)

    def replicate(self, release: Release) -> Manifest:
        """Make the bundle present, whole and trusted here; blocks for the length of the copy.

        Raises CorruptBundle, UntrustedBundle, NotFound (the store has no such bundle), or RetryableError.
        """
        try:
            return self._replicate(release)
        except OSError as broken:
            raise RetryableError(
                "bundle cannot be copied", got=f"{release.store_uri}: {broken}", expected="a readable store"
            ) from broken

    def _replicate(self, release: Release) -> Manifest:
        target = self.folder(release.bundle_digest)
        if target.exists():
            try:
                return self._verify(target, release)
            except (CorruptBundle, UntrustedBundle):
                shutil.rmtree(target)
        manifest = self._fetch(release, target)
        self._keep(release, target)
        return manifest

    def _fetch(self, release: Release, target: Path) -> Manifest:
        """This region's own store first, then the release's, which gets a second chance."""
        own, source = ArtifactStore(self.region.store_uri), ArtifactStore(release.store_uri)
        attempts = [source, source]
        if own != source and own.has(bundle_path(release.bundle_digest), marker=MANIFEST):
            attempts.insert(0, own)
        failure: FlightpathError | None = None
        for store in attempts:
            try:
                return self._fetch_from(store, release, target)
            except (CorruptBundle, UntrustedBundle) as bad:
                failure = bad
                if store is own:
                    _remove_bundle(own, release.bundle_digest)
        assert failure is not None
        raise failure

    def _fetch_from(self, store: ArtifactStore, release: Release, target: Path) -> Manifest:
        """Verify in a staging folder on the same disk; only a good copy gets its name."""
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=".incoming."))
        try:
            copy = store.fetch_bundle(release.bundle_digest, staging / "bundle")
            manifest = self._verify(copy, release)
            copy.rename(target)
            return manifest
        finally:
            shutil.rmtree(staging, ignore_errors=True)

    def _verify(self, folder: Path, release: Release) -> Manifest:
        manifest, _ = verify_bundle(folder, digest=release.bundle_digest, keys=trusted_keys(self.key_folder))
        manifest.variant(release.runtime.variant)
        return manifest

    def _keep(self, release: Release, folder: Path) -> None:
        """A copy in the region's own store, from which it can serve when the source is away."""
        ArtifactStore(self.region.store_uri).put_bundle(folder)

    def sweep(self) -> None:
        """Remove what a copy that died half-way has left behind."""
        leftovers = list((self.region.state_folder / "bundles").glob("*/.incoming.*"))
        own = urlsplit(self.region.store_uri)
        # A store elsewhere may be shared: what looks left over there may be somebody's copy on its way.
        if own.scheme == "file" and Path(unquote(own.path)).is_relative_to(self.region.state_folder):
            leftovers += (Path(unquote(own.path)) / "bundles").glob(f"*/.{'[0-9a-f]' * 64}.*")
        for leftover in leftovers:
            shutil.rmtree(leftover, ignore_errors=True)


def _remove_bundle(store: ArtifactStore, digest: str) -> None:
    system, root = fsspec.core.url_to_fs(store.uri)
    system.rm(f"{root.rstrip('/')}/{bundle_path(digest)}", recursive=True)
