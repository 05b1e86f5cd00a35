"""Restores a region from a backup: the store first, its registry last and in one transaction.

Until the registry is replaced the region is the old one; bundles that are there already do no harm. Killed at any
moment, the same call finishes what it began.
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
from infra.recovery.places import Place
from infra.recovery.registry_dump import RegistryDatabase
from infra.recovery.vault import Vault
from serving.bundle import MANIFEST
from serving.errors import Conflict, InvalidInput
from serving.store import bundle_path

_WORKERS: Final = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Restored:
    manifest: BackupManifest
    copied: int
    """Files that were missing or differed."""
    seconds: float


def restore(
    vault: Vault, manifest: BackupManifest, registry: RegistryDatabase, store: Place, *, replace: bool = False
) -> Restored:
    """Make registry and store those of the backup. Files that the backup does not know stay where they are.

    Raises Conflict when the registry already holds releases, unless `replace`, and when somebody is connected to it: an
    agent that runs on would serve what it remembers.
    """
    started = time.monotonic()
    if manifest.database != registry.kind:
        raise InvalidInput("registry is of another kind", got=registry.kind, expected=manifest.database)
    held = registry.releases()
    if held and not replace:
        raise Conflict("registry is not empty", got=f"{held} releases", expected="an empty one, or --replace")
    if others := registry.sessions():
        raise Conflict("registry is in use", got=f"{others} sessions", expected="a stopped agent")
    with tempfile.TemporaryDirectory(prefix="flightpath-restore-") as temporary:
        folder = Path(temporary)
        dump = folder / "registry"
        vault.fetch(manifest.registry, dump)
        copied = _restore_files(vault, manifest.files, store, folder)
        registry.load(dump)
    _check(manifest, registry)
    return Restored(manifest=manifest, copied=copied, seconds=time.monotonic() - started)


def verify(vault: Vault, manifest: BackupManifest) -> int:
    """Read everything that a backup names and check it; returns the bytes read. Raises DamagedBackup."""
    distinct = {file.sha256: file for file in (manifest.registry, *manifest.files)}
    _each(vault.check, distinct.values())
    for model, digest in manifest.live.items():
        if not any(file.path == f"{bundle_path(digest)}/{MANIFEST}" for file in manifest.files):
            raise DamagedBackup(f"the live bundle of {model} is not in it", got="no manifest", expected=digest)
    return sum(file.size_bytes for file in distinct.values())


def _restore_files(vault: Vault, files: tuple[StoredFile, ...], store: Place, folder: Path) -> int:
    """A bundle is visible by its manifest: those come after all other files."""
    sizes = {found.path: found.size_bytes for found in store.list()}

    def bring(file: StoredFile) -> bool:
        with tempfile.NamedTemporaryFile(dir=folder) as temporary:
            copy = Path(temporary.name)
            if sizes.get(file.path) == file.size_bytes and store.fetch(file.path, copy)[0] == file.sha256:
                return False
            vault.fetch(file, copy)
            store.put(copy, file.path)
            return True

    first = _each(bring, [file for file in files if not file.path.endswith(f"/{MANIFEST}")])
    return first + _each(bring, [file for file in files if file.path.endswith(f"/{MANIFEST}")])


def _each(act: Callable[[StoredFile], bool | None], files: Iterable[StoredFile]) -> int:
    with ThreadPoolExecutor(max_workers=_WORKERS) as pool:
        return sum(map(bool, pool.map(act, files)))


def _check(manifest: BackupManifest, registry: RegistryDatabase) -> None:
    """What is live now is what was live then."""
    found = registry.live()
    if found != manifest.live:
        raise DamagedBackup("the restored registry serves something else", got=found, expected=manifest.live)
