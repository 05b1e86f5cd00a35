"""Keeps a region's copies of bundles whole, and lets go of those that nothing wants.

Disks rot and people delete: what a region serves or stands by is read again at a bounded rate, and what is missing or
rotten, in the working folder or the region's own store, comes back from whoever has it whole. Both calls block, may
be killed anywhere and called again: the one that was looked at longest ago is next, a copy that goes is renamed before
it is deleted, and one that is being copied is left alone.
"""

import json
import logging
import math
import os
import secrets
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from serving.bundle import Manifest
from serving.copying import (
    Accept,
    Brought,
    Pace,
    accept_any,
    accept_signed,
    alone,
    bring_bundle,
    find_rotten,
    read_head,
    remove,
)
from serving.errors import Conflict, CorruptBundle, FlightpathError, InvalidInput, NotFound, UntrustedBundle
from serving.files import canonical_json, make_folders, sync_folder, write_atomically
from serving.regions.replication.replicator import Replicator
from serving.releases import Release
from serving.store import ArtifactStore, bundle_path
from serving.store_files import StoreFiles, own_errors

logger = logging.getLogger(__name__)
WORKING: Final = "working folder"
OWN: Final = "own store"


@dataclass(frozen=True, kw_only=True, slots=True)
class AuditLimits:
    read_bytes_per_s: float = 50e6
    """Bytes per second that an audit reads: a tenth of a cheap SSD, 10 GB in 200 s."""
    unwanted_grace_s: float = 24 * 3600.0
    """Seconds that a bundle stays after it was first seen unwanted: going back within a day waits for no copy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What an audit did or could not do, for the journal."""

    what: Literal["fetched", "mended", "removed", "failed"]
    digest: str
    place: str
    """`working folder` | `own store`."""
    message: str
    paths: list[str] = field(default_factory=list)
    """Files that were missing, rotten or not listed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BundleAudit:
    """The copies of one region. Not two audits at a time; replicating beside one is fine."""

    replicator: Replicator
    limits: AuditLimits = field(default_factory=AuditLimits)
    clock: Callable[[], float] = time.time
    """Seconds since the epoch."""

    # Keeping whole

    def audit(self, wanted: Collection[Release], *, cancelled: threading.Event | None = None) -> list[Finding]:
        """Read every wanted bundle in both places and mend it; a bundle that cannot be mended is a finding."""
        cancelled = cancelled or threading.Event()
        releases = {release.bundle_digest: release for release in wanted}
        audited = {digest: when for digest, when in self._audited().items() if digest in releases}
        findings: list[Finding] = []
        for digest in sorted(releases, key=lambda digest: (audited.get(digest, 0.0), digest)):
            for place, check in ((WORKING, self._check_working), (OWN, self._check_own)):
                if cancelled.is_set():
                    return findings
                try:
                    findings += check(releases[digest], Pace(self.limits.read_bytes_per_s, cancelled))
                except FlightpathError as failed:
                    if not cancelled.is_set():
                        findings.append(Finding(what="failed", digest=digest, place=place, message=str(failed)))
            audited[digest] = self.clock()
            self._note(self._book, canonical_json(audited))
        return findings

    def _note(self, path: Path, content: bytes) -> None:
        """For the next pass; a disk that takes no note, as a full one, must keep this one from nothing."""
        try:
            make_folders(path.parent)
            write_atomically(path, content)
        except OSError as failed:
            logger.warning("%s cannot be kept: %s", path, failed)

    def heal(self, release: Release, *, cancelled: threading.Event | None = None) -> list[Finding]:
        """Mend the working copy at once, at a copy's pace: for a server that cannot start because its bundle is rotten.

        Raises what `Replicator.replicate` does, but for UntrustedBundle: what is live stays live when its key retires.
        """
        return self._check_working(release, Pace(self.replicator.limits.bytes_per_s, cancelled))

    def _check_working(self, release: Release, pace: Pace) -> list[Finding]:
        digest = release.bundle_digest

        def bring(accept: Accept) -> Brought:
            return self.replicator.bring(digest, release.store_uri, accept, pace)

        return _told(self._bring(bring), digest, WORKING)

    def _bring(self, bring: Callable[[Accept], Brought]) -> Brought:
        """With a trusted attestation if one can be had; what serves is mended without: its digest says what it is."""
        try:
            return bring(accept_signed(self.replicator.key_folder))
        except (UntrustedBundle, InvalidInput):
            return bring(accept_any)

    def _check_own(self, release: Release, pace: Pace) -> list[Finding]:
        own, digest = self.replicator.own_store, release.bundle_digest
        if own.canonical_uri == ArtifactStore(release.store_uri).canonical_uri:
            # The source is its owner's to mend.
            return []
        folder = self.replicator.own_folder
        if folder is None:
            return self._check_distant(own, digest, pace)

        def bring(accept: Accept) -> Brought:
            others = self.replicator.sources(release.store_uri)[1:]
            return bring_bundle(
                digest,
                folder / bundle_path(digest),
                sources=[StoreFiles.of_folder(self.replicator.folder(digest)), *(s.bundle(digest) for s in others)],
                staging=folder / "bundles" / "incoming" / self.replicator.folder(digest).name,
                limits=self.replicator.limits,
                pace=pace,
                accept=accept,
            )

        return _told(self._bring(bring), digest, OWN)

    def _check_distant(self, own: ArtifactStore, digest: str, pace: Pace) -> list[Finding]:
        """A store outside of the region's state: files are put again, and nothing is removed."""
        limits, working = self.replicator.limits, self.replicator.folder(digest)
        try:
            manifest, _ = read_head(own.bundle(digest), digest)
            rotten = find_rotten(own.bundle(digest), manifest, limits, pace)
        except NotFound:
            own.put_bundle(working, limits=limits, pace=pace)
            return [Finding(what="fetched", digest=digest, place=OWN, message="was missing")]
        except CorruptBundle:
            rotten = list(_listed(working, digest))
        if not rotten:
            return []
        own.put_bundle(working, again=rotten, limits=limits, pace=pace)
        return [Finding(what="mended", digest=digest, place=OWN, message="did not hold", paths=rotten)]

    @property
    def _book(self) -> Path:
        """When each bundle was last audited."""
        return self.replicator.region.state_folder / "bundles" / "audited.json"

    def _audited(self) -> dict[str, float]:
        try:
            return {str(digest): float(when) for digest, when in json.loads(self._book.read_bytes()).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    # Letting go

    def collect(self, wanted: Collection[str], *, origins: Collection[str]) -> list[Finding]:
        """Remove bundles that were unwanted for the whole grace period, from both places.

        `wanted` are digests. `origins` are addresses of stores that releases come from: where the own store is one of
        them, or lies outside of the region's state, nothing is removed from it.
        """
        roots = {WORKING: self.replicator.region.state_folder / "bundles"}
        own = self.replicator.own_store.canonical_uri
        if self.replicator.own_folder is not None and own not in {ArtifactStore(uri).canonical_uri for uri in origins}:
            roots[OWN] = self.replicator.own_folder / "bundles"
        findings: list[Finding] = []
        for root in roots.values():
            _empty(root / "removed")
        for digest in _digests(roots.values()):
            note = self.replicator.unwanted_note(digest)
            if digest in wanted:
                note.unlink(missing_ok=True)
            elif self._is_over(note):
                findings += self._let_go(digest, note, roots)
        return findings

    def _is_over(self, note: Path) -> bool:
        """Whether the grace period has passed; it starts with the first call."""
        try:
            since = float(note.read_text())
        except (OSError, ValueError):
            since = math.nan
        if math.isnan(since):
            self._note(note, str(self.clock()).encode())
            return False
        return self.clock() - since >= self.limits.unwanted_grace_s

    def _let_go(self, digest: str, note: Path, roots: dict[str, Path]) -> list[Finding]:
        staging, findings = self.replicator.staging(digest), []
        try:
            with alone(staging, Pace(math.inf), wait_for_it=False), own_errors(str(staging)):
                if not note.exists():
                    # Somebody has just asked for it.
                    return []
                remove(staging / "bundle")
                for place, root in roots.items():
                    if (root / "sha256" / staging.name).exists():
                        _remove_aside(root, staging.name)
                        message = f"unwanted for {self.limits.unwanted_grace_s:g} s"
                        findings.append(Finding(what="removed", digest=digest, place=place, message=message))
                note.unlink()
        except Conflict:
            return []
        except FlightpathError as failed:
            findings.append(Finding(what="failed", digest=digest, place=WORKING, message=str(failed)))
        return findings


def _told(brought: Brought, digest: str, place: str) -> list[Finding]:
    if brought.new:
        return [Finding(what="fetched", digest=digest, place=place, message="was missing")]
    if brought.mended:
        return [Finding(what="mended", digest=digest, place=place, message="did not hold", paths=brought.mended)]
    return []


def _listed(folder: Path, digest: str) -> Collection[str]:
    manifest: Manifest = read_head(StoreFiles.of_folder(folder), digest)[0]
    return manifest.files()


def _digests(roots: Collection[Path]) -> list[str]:
    """Of everything that has a bundle's name, or is on its way to one."""
    found = {path.name for root in roots for kind in ("sha256", "incoming") for path in root.glob(f"{kind}/*")}
    digests = []
    for name in sorted(found):
        try:
            bundle_path(f"sha256:{name}")
        except InvalidInput:
            continue
        digests.append(f"sha256:{name}")
    return digests


def _remove_aside(root: Path, name: str) -> None:
    """Renamed first: what is deleted half never has a bundle's name."""
    make_folders(root / "removed")
    aside = root / "removed" / f"{name}.{secrets.token_hex(4)}"
    os.rename(root / "sha256" / name, aside)
    sync_folder(root / "sha256")
    remove(aside)


def _empty(folder: Path) -> None:
    """Go on where a removal was killed."""
    for path in folder.glob("*"):
        remove(path)
