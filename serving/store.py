"""The artifact store: immutable folders and small JSON records on any fsspec file system.

A folder is visible once its marker file is there, and the marker is uploaded last, so a copy that
died half-way is never seen as whole. Object stores have no rename; this order is what they offer.
A bundle is what its manifest lists: nothing else is put or fetched, and each file has the manifest's SHA-256.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from serving.bundle import (
    ATTESTATION,
    MANIFEST,
    MAX_METADATA_BYTES,
    Manifest,
    check_relative_path,
    parse_manifest,
    read_manifest,
)
from serving.copying import CopyLimits, Pace, bring_bundle, clear_way, put_file, remove, run_together
from serving.errors import CorruptBundle, InvalidInput, NotFound
from serving.files import canonical_json, make_folders, sync_folder, sync_folders
from serving.store_files import StoreFiles, own_errors

_BLOCK_BYTES = CopyLimits().block_bytes


@dataclass(frozen=True, slots=True)
class ArtifactStore:
    """A store at an fsspec URI: `file:///…`, `s3://…`, `gs://…`, `abfs://…`, `memory://…`.

    Everything raises RetryableError where the store is out of reach, broken or full, TimedOut where it does not answer
    and Unauthorized where it refuses us.
    """

    uri: str

    def files(self) -> StoreFiles:
        return StoreFiles.open(self.uri)

    def address(self, relative: str) -> str:
        return f"{self.uri.rstrip('/')}/{relative}"

    @property
    def canonical_uri(self) -> str:
        """One spelling of the store's address. Two stores of one spelling may be the same, others are different."""
        protocol, remote, rest = self.uri.rpartition("://")
        if protocol in ("", "file", "local"):
            return str(Path(unquote(rest if remote else rest.removeprefix("file:"))).resolve())
        path = "/".join(part for part in unquote(rest).split("/") if part not in ("", "."))
        return f"{_PROTOCOLS.get(protocol, protocol)}://{path}"

    # Records

    def write_record(self, relative: str, value: dict[str, Any]) -> None:
        """Put one small JSON document, whole or not at all."""
        check_relative_path(relative)
        self.files().write(relative, canonical_json(value))

    def read_record(self, relative: str) -> dict[str, Any] | None:
        """The document, or None if it was never written; CorruptBundle if it is none."""
        check_relative_path(relative)
        try:
            content = self.files().read(relative)
        except NotFound:
            return None
        try:
            value: dict[str, Any] = json.loads(content)
        except ValueError as broken:
            raise CorruptBundle("record cannot be read", got=self.address(relative), expected="JSON") from broken
        return value

    # Folders

    def has(self, relative: str, *, marker: str) -> bool:
        return self.files().has(f"{relative}/{marker}")

    def put_folder(self, source: Path, relative: str, *, marker: str) -> str:
        """Upload a folder, its marker file last; an equal folder already there is left alone."""
        check_relative_path(relative)
        if not (source / marker).is_file():
            raise InvalidInput("folder lacks its marker", got=str(source), expected=marker)
        if not self.has(relative, marker=marker):
            given = StoreFiles.of_folder(source)
            with self._new_folder(relative) as target:
                for name in sorted(given.list(), key=lambda name: (name == marker, name)):
                    size_bytes = given.size(name)
                    blocks = given.blocks(name, start=0, end=size_bytes, block_bytes=_BLOCK_BYTES)
                    target.put(name, blocks, size_bytes=size_bytes, block_bytes=_BLOCK_BYTES)
        return self.address(relative)

    @contextmanager
    def _new_folder(self, relative: str) -> Iterator[StoreFiles]:
        """Where to put a new folder's files; a local one is made beside its place and then renamed."""
        target = self.files().within(relative)
        if not target.local:
            yield target
            return
        with _staging(target.folder) as staging:
            yield StoreFiles.of_folder(staging)
            _replace_folder(staging, target.folder)

    def fetch_folder(self, relative: str, target: Path, *, marker: str) -> Path:
        """Download a whole folder to `target`, which appears by rename; returns `target`."""
        check_relative_path(relative)
        if not self.has(relative, marker=marker):
            raise NotFound("store has no such folder", got=self.address(relative), expected=f"one with {marker}")
        source = self.files().within(relative)
        with _staging(target) as staging:
            copy = StoreFiles.of_folder(staging)
            for name in source.list():
                check_relative_path(name)
                size_bytes = source.size(name)
                blocks = source.blocks(name, start=0, end=size_bytes, block_bytes=_BLOCK_BYTES)
                copy.put(name, blocks, size_bytes=size_bytes, block_bytes=_BLOCK_BYTES)
            _replace_folder(staging, target)
        return target

    # Bundles

    def put_bundle(
        self,
        root: Path,
        *,
        again: Collection[str] = (),
        limits: CopyLimits | None = None,
        pace: Pace | None = None,
    ) -> str:
        """Upload a sealed bundle and return its digest; of one that is there, only the files that are named `again`.

        Raises CorruptBundle for a file that is not the manifest's.
        """
        limits = limits or CopyLimits()
        manifest, pace = read_manifest(root), pace or Pace(limits.bytes_per_s)
        relative = bundle_path(manifest.digest)
        if not self.has(relative, marker=MANIFEST):
            with self._new_folder(relative) as target:
                _put_files(root, manifest, manifest.files(), target, limits, pace)
        elif again:
            target = self.files().within(relative)
            if target.local:
                for path in again:
                    clear_way(target.folder, path)
            _put_files(root, manifest, again, target, limits, pace)
        return manifest.digest

    def read_manifest(self, digest: str) -> Manifest:
        try:
            return parse_manifest(
                self.files().read(f"{bundle_path(digest)}/{MANIFEST}", limit_bytes=MAX_METADATA_BYTES)
            )
        except NotFound as missing:
            raise NotFound("store has no such bundle", got=digest, expected=f"a bundle in {self.uri}") from missing

    def fetch_bundle(self, digest: str, target: Path) -> Path:
        """Download a bundle, verified but for who signed it; one that was stopped goes on where it was."""
        limits = CopyLimits()
        bring_bundle(
            digest,
            target,
            sources=[self.bundle(digest)],
            staging=target.with_name(f".{target.name}.incoming"),
            limits=limits,
            pace=Pace(limits.bytes_per_s),
        )
        return target

    def bundle(self, digest: str) -> StoreFiles:
        """The folder of a bundle."""
        return self.files().within(bundle_path(digest))


_PROTOCOLS = {"s3a": "s3", "gcs": "gs", "az": "abfs", "abfss": "abfs"}


def bundle_path(digest: str) -> str:
    """Where a bundle lies in a store."""
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise InvalidInput("bundle digest is malformed", got=digest, expected="sha256:<64 hex digits>")
    return f"bundles/sha256/{value}"


def _put_files(
    root: Path, manifest: Manifest, paths: Collection[str], target: StoreFiles, limits: CopyLimits, pace: Pace
) -> None:
    """Files, then attestation and manifest."""
    files = manifest.files()
    jobs: list[Callable[[], None]] = [
        partial(put_file, root, files[path], target, limits, pace) for path in paths if path in files
    ]
    run_together(jobs, limits, pace)
    for name in (ATTESTATION, MANIFEST):
        given = StoreFiles.of_folder(root)
        if given.has(name):
            target.write(name, given.read(name, limit_bytes=MAX_METADATA_BYTES))


@contextmanager
def _staging(target: Path) -> Iterator[Path]:
    """A folder beside `target` that is gone afterwards unless it was renamed."""
    with own_errors(str(target), room=target.parent):
        make_folders(target.parent)
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _replace_folder(staging: Path, target: Path) -> None:
    with own_errors(str(target), room=target.parent):
        staging.chmod(0o755)
        sync_folders(staging)
        remove(target)
        staging.rename(target)
        sync_folder(target.parent)
