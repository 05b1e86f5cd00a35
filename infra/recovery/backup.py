"""Makes a backup: the registry first, then the store, the manifest last.

In this order every bundle that the copied registry serves is in the copy of the store, because a region replicates a
bundle before its registry says so, and never changes one.
"""

import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infra.recovery.manifest import BackupManifest, StoredFile
from infra.recovery.places import Found, Place
from infra.recovery.registry_dump import RegistryDatabase
from infra.recovery.vault import Vault
from serving.bundle import MANIFEST
from serving.errors import Conflict, InvalidInput
from serving.store import bundle_path

_WORKERS: Final = 8
"""Files copied at once; each takes its size on the temporary disk, none is held in memory."""
REGISTRY: Final = "registry"


@dataclass(frozen=True, kw_only=True, slots=True)
class Backup:
    """What was made."""

    manifest: BackupManifest
    copied: int
    """Files that were read; the others are as in the backup before."""
    seconds: float


def back_up(
    vault: Vault, registry: RegistryDatabase, store: Place, *, clock: Callable[[], float] = time.time
) -> Backup:
    """Copy a region's registry and store. Raises Conflict when a live bundle is not in the store."""
    started, created_at = time.monotonic(), clock()
    known = _known(vault.newest())
    with tempfile.TemporaryDirectory(prefix="flightpath-backup-") as temporary:
        folder = Path(temporary)
        live = registry.live()
        kept_registry = _keep_registry(vault, registry, folder)
        listed = store.list()
        _check_live(live, listed, store)
        with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
            files = list(pool.map(lambda found: known.get(_key(found)) or _keep(vault, store, found, folder), listed))
    manifest = BackupManifest(
        region=vault.region,
        created_at=created_at,
        database=registry.kind,
        registry=kept_registry,
        files=tuple(files),
        live=live,
    )
    vault.commit(manifest)
    copied = sum(_key(found) not in known for found in listed)
    return Backup(manifest=manifest, copied=copied, seconds=time.monotonic() - started)


def prune(vault: Vault, *, keep: int) -> tuple[list[str], int]:
    """Drop all but the newest backups; returns their ids and how many objects went. No backup may be under way."""
    if keep < 1:
        raise InvalidInput("keep is wrong", got=keep, expected="at least 1")
    ids = vault.ids()
    dropped, kept = ids[:-keep], ids[-keep:]
    # Manifests first: a run that dies leaves objects that nobody names, never a backup without its objects.
    vault.forget(dropped)
    return dropped, vault.sweep(kept=kept)


def _known(previous: BackupManifest | None) -> dict[tuple[str, str, int], StoredFile]:
    files = () if previous is None else previous.files
    return {(file.path, file.fingerprint, file.size_bytes): file for file in files}


def _key(found: Found) -> tuple[str, str, int]:
    return found.path, found.fingerprint, found.size_bytes


def _keep_registry(vault: Vault, registry: RegistryDatabase, folder: Path) -> StoredFile:
    dump = folder / REGISTRY
    registry.dump(dump)
    digest, size = Place(uri=folder.as_uri()).fetch(REGISTRY, folder / f"{REGISTRY}.copy")
    vault.keep(dump, digest)
    return StoredFile(path=REGISTRY, sha256=digest, size_bytes=size)


def _keep(vault: Vault, store: Place, found: Found, folder: Path) -> StoredFile:
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        copy = Path(file.name)
        digest, size = store.fetch(found.path, copy)
        vault.keep(copy, digest)
    return StoredFile(path=found.path, sha256=digest, size_bytes=size, fingerprint=found.fingerprint)


def _check_live(live: dict[str, str], listed: Iterable[Found], store: Place) -> None:
    paths = {found.path for found in listed}
    for model, digest in live.items():
        if f"{bundle_path(digest)}/{MANIFEST}" not in paths:
            raise Conflict(f"{model} serves a bundle that the store lacks", got=store.uri, expected=digest)
