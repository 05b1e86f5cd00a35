"""What a backup holds. A backup is there once its manifest is; the manifest's own digest is part of its id."""

import hashlib
import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final

from infra.recovery.errors import DamagedBackup
from serving.bundle import check_relative_path
from serving.errors import FlightpathError
from serving.files import canonical_json

SCHEMA_VERSION: Final = 1
_DIGITS: Final = 12


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredFile:
    """One file of the region, kept as an object named by its SHA-256."""

    path: str
    sha256: str
    size_bytes: int
    fingerprint: str = ""
    """Of the source when it was read: the next backup need not read what has the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BackupManifest:
    region: str
    created_at: float
    """When the registry was read, in seconds since the epoch: what came later is lost with the region."""
    database: str
    """`sqlite` or `postgresql`."""
    registry: StoredFile
    files: tuple[StoredFile, ...]
    live: dict[str, str]
    """Digest of the bundle that was live, by model."""

    @property
    def id(self) -> str:
        """Sorts by time; ends with the digest of the content."""
        moment = datetime.fromtimestamp(self.created_at, UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        return f"{moment}-{hashlib.sha256(self.to_bytes()).hexdigest()[:_DIGITS]}"

    @property
    def size_bytes(self) -> int:
        return self.registry.size_bytes + sum(file.size_bytes for file in self.files)

    def to_bytes(self) -> bytes:
        return canonical_json({"schema_version": SCHEMA_VERSION, **asdict(self)})


def parse(content: bytes, id: str) -> BackupManifest:
    """The manifest under this id; a byte that changed is noticed."""
    try:
        document: dict[str, Any] = json.loads(content)
        version = document.pop("schema_version")
        if version != SCHEMA_VERSION:
            raise DamagedBackup("backup is of another version", got=version, expected=SCHEMA_VERSION)
        files = tuple(_stored(entry) for entry in document.pop("files"))
        manifest = BackupManifest(**{**document, "registry": _stored(document["registry"]), "files": files})
    except (ValueError, KeyError, TypeError, AttributeError) as broken:
        raise DamagedBackup(f"manifest of {id} cannot be read", got=repr(broken), expected="a manifest") from broken
    if manifest.id != id:
        raise DamagedBackup("manifest has changed", got=manifest.id, expected=id)
    return manifest


def _stored(entry: dict[str, Any]) -> StoredFile:
    try:
        check_relative_path(entry["path"])
    except FlightpathError as outside:
        raise DamagedBackup("manifest names a path outside its store", got=entry["path"]) from outside
    return StoredFile(**entry)
