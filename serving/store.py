"""The artifact store: immutable folders and small JSON records on any fsspec file system.

A folder is visible once its marker file is there, and the marker is uploaded last, so a copy that
died half-way is never seen as whole. Object stores have no rename; this order is what they offer.
"""

import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
from fsspec.spec import AbstractFileSystem

from serving.bundle import MANIFEST, Manifest, check_relative_path, parse_manifest, read_manifest
from serving.errors import InvalidInput, NotFound
from serving.files import canonical_json, sync_folder, write_atomically


@dataclass(frozen=True, slots=True)
class ArtifactStore:
    """A store at an fsspec URI: `file:///…`, `s3://…`, `gs://…`, `abfs://…`, `memory://…`."""

    uri: str

    def _open(self) -> tuple[AbstractFileSystem, str]:
        try:
            system, root = fsspec.core.url_to_fs(self.uri)
        except (ValueError, ImportError) as unusable:
            raise InvalidInput("store cannot be opened", got=self.uri, expected="an fsspec URI") from unusable
        return system, root.rstrip("/")

    def address(self, relative: str) -> str:
        return f"{self.uri.rstrip('/')}/{relative}"

    # Records

    def write_record(self, relative: str, value: dict[str, Any]) -> None:
        """Put one small JSON document, whole or not at all."""
        check_relative_path(relative)
        system, root = self._open()
        if _is_local(system):
            write_atomically(Path(root) / relative, canonical_json(value))
            return
        system.pipe_file(f"{root}/{relative}", canonical_json(value))

    def read_record(self, relative: str) -> dict[str, Any] | None:
        """The document, or None if it was never written."""
        check_relative_path(relative)
        system, root = self._open()
        try:
            value: dict[str, Any] = json.loads(system.cat_file(f"{root}/{relative}"))
        except FileNotFoundError:
            return None
        return value

    # Folders

    def has(self, relative: str, *, marker: str) -> bool:
        system, root = self._open()
        return bool(system.exists(f"{root}/{relative}/{marker}"))

    def put_folder(self, source: Path, relative: str, *, marker: str) -> str:
        """Upload a folder, its marker file last; an equal folder already there is left alone."""
        check_relative_path(relative)
        system, root = self._open()
        target = f"{root}/{relative}"
        if not system.exists(f"{target}/{marker}"):
            if _is_local(system):
                _place_locally(source, Path(target), marker)
            else:
                files = sorted(path for path in source.rglob("*") if path.is_file())
                for path in sorted(files, key=lambda path: path.name == marker and path.parent == source):
                    system.put_file(str(path), f"{target}/{path.relative_to(source).as_posix()}")
        return self.address(relative)

    def fetch_folder(self, relative: str, target: Path, *, marker: str) -> Path:
        """Download a whole folder to `target`, which appears by rename; returns `target`."""
        check_relative_path(relative)
        system, root = self._open()
        source = f"{root}/{relative}"
        if not system.exists(f"{source}/{marker}"):
            raise NotFound("store has no such folder", got=self.address(relative), expected=f"one with {marker}")
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
        try:
            for path in system.find(source):
                name = path.removeprefix(source).lstrip("/")
                check_relative_path(name)
                (staging / name).parent.mkdir(parents=True, exist_ok=True)
                system.get_file(path, str(staging / name))
            _replace_folder(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
        return target

    # Bundles

    def put_bundle(self, root: Path) -> str:
        """Upload a sealed bundle and return its digest."""
        manifest = read_manifest(root)
        self.put_folder(root, bundle_path(manifest.digest), marker=MANIFEST)
        return manifest.digest

    def read_manifest(self, digest: str) -> Manifest:
        system, root = self._open()
        path = f"{root}/{bundle_path(digest)}/{MANIFEST}"
        try:
            return parse_manifest(system.cat_file(path))
        except FileNotFoundError as missing:
            raise NotFound("store has no such bundle", got=digest, expected=f"a bundle in {self.uri}") from missing

    def fetch_bundle(self, digest: str, target: Path) -> Path:
        return self.fetch_folder(bundle_path(digest), target, marker=MANIFEST)


def bundle_path(digest: str) -> str:
    """Where a bundle lies in a store."""
    algorithm, _, value = digest.partition(":")
    if algorithm != "sha256" or len(value) != 64 or not set(value) <= set("0123456789abcdef"):
        raise InvalidInput("bundle digest is malformed", got=digest, expected="sha256:<64 hex digits>")
    return f"bundles/sha256/{value}"


def _is_local(system: AbstractFileSystem) -> bool:
    return "file" in (system.protocol if isinstance(system.protocol, tuple) else (system.protocol,))


def _place_locally(source: Path, target: Path, marker: str) -> None:
    """Copy beside the target, then rename: no reader sees a half of it."""
    if not (source / marker).is_file():
        raise InvalidInput("folder lacks its marker", got=str(source), expected=marker)
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        shutil.copytree(source, staging, dirs_exist_ok=True)
        _replace_folder(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _replace_folder(staging: Path, target: Path) -> None:
    staging.chmod(0o755)
    for folder in (staging, *(path for path in staging.rglob("*") if path.is_dir())):
        sync_folder(folder)
    if target.exists():
        shutil.rmtree(target)
    staging.rename(target)
    sync_folder(target.parent)
