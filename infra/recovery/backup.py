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

from infra.recovery.errors import DamagedBackup
from infra.recovery.manifest import BackupManifest, StoredFile
from infra.recovery.places import Found, Place
from infra.recovery.registry_dump import RegistryDatabase
from infra.recovery.vault import Vault
from serving.bundle import MANIFEST
from serving.errors import Conflict, InvalidInput, RetryableError
from serving.store import bundle_path

_WORKERS: Final = 8
"""Files copied at once; each takes its size on the temporary disk, none is held in memory."""
REGISTRY: Final = "registry"
_DUMPS: Final = 3
"""A registry has megabytes and promotions take seconds: more than two meetings in a row are another fault."""


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
    started, known = time.monotonic(), _known(vault)
    with tempfile.TemporaryDirectory(prefix="flightpath-backup-") as temporary:
        folder = Path(temporary)
        created_at, live = _dump(registry, folder / REGISTRY, clock)
        kept_registry = _keep_registry(vault, folder)
        listed = store.list()
        _check_live(live, listed, store)
        fresh = {_key(found) for found in listed} - known.keys()
        with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
            files = pool.map(lambda found: known.get(_key(found)) or _keep(vault, store, found, folder), listed)
            kept = tuple(file for file in files if file is not None)
    manifest = BackupManifest(
        region=vault.region,
        created_at=created_at,
        database=registry.kind,
        registry=kept_registry,
        files=kept,
        live=live,
    )
    _check_kept(vault, manifest)
    vault.commit(manifest)
    return Backup(manifest=manifest, copied=len(fresh), seconds=time.monotonic() - started)


def prune(vault: Vault, *, keep: int) -> tuple[list[str], int]:
    """Drop all but the newest backups; returns their ids and how many objects went. No backup may be under way."""
    if keep < 1:
        raise InvalidInput("keep is wrong", got=keep, expected="at least 1")
    ids = vault.ids()
    dropped, kept = ids[:-keep], ids[-keep:]
    # Manifests first: a run that dies leaves objects that nobody names, never a backup without its objects.
    vault.forget(dropped)
    return dropped, vault.sweep(kept=kept)


def _known(vault: Vault) -> dict[tuple[str, str, int], StoredFile]:
    """What the newest backup holds and still has; a damaged one is no reason to make none."""
    try:
        previous = vault.newest()
    except DamagedBackup:
        return {}
    there = vault.objects()
    files = () if previous is None else previous.files
    intact = (file for file in files if there.get(file.sha256) == file.size_bytes)
    return {(file.path, file.fingerprint, file.size_bytes): file for file in intact}


def _key(found: Found) -> tuple[str, str, int]:
    return found.path, found.fingerprint, found.size_bytes


def _dump(registry: RegistryDatabase, target: Path, clock: Callable[[], float]) -> tuple[float, dict[str, str]]:
    """Dump, and say when and what was live in it: nothing was promoted between the question and the dump's end."""
    for _ in range(_DUMPS):
        created_at, live = clock(), registry.live()
        registry.dump(target)
        if registry.live() == live:
            return created_at, live
        target.unlink()
    raise RetryableError("registry does not rest", got=f"{_DUMPS} dumps beside promotions", expected="one without")


def _keep_registry(vault: Vault, folder: Path) -> StoredFile:
    dump = folder / REGISTRY
    digest, size = Place(uri=folder.as_uri()).fetch(REGISTRY, folder / f"{REGISTRY}.copy")
    vault.keep(dump, digest)
    return StoredFile(path=REGISTRY, sha256=digest, size_bytes=size)


def _keep(vault: Vault, store: Place, found: Found, folder: Path) -> StoredFile | None:
    """None when it went since the listing: a temporary file of a replication that has ended."""
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        copy = Path(file.name)
        try:
            digest, size = store.fetch(found.path, copy)
        except FileNotFoundError:
            return None
        vault.keep(copy, digest)
    return StoredFile(path=found.path, sha256=digest, size_bytes=size, fingerprint=found.fingerprint)


def _check_kept(vault: Vault, manifest: BackupManifest) -> None:
    """A `prune` beside this backup may have taken what no finished backup named."""
    gone = {file.sha256 for file in (manifest.registry, *manifest.files)} - vault.objects().keys()
    if gone:
        raise RetryableError("objects went while the backup was made", got=len(gone), expected="no prune beside it")


def _check_live(live: dict[str, str], listed: Iterable[Found], store: Place) -> None:
    paths = {found.path for found in listed}
    for model, digest in live.items():
        if f"{bundle_path(digest)}/{MANIFEST}" not in paths:
            raise Conflict(f"{model} serves a bundle that the store lacks", got=store.uri, expected=digest)
