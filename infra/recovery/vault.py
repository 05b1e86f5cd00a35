"""Where backups lie: `<region>/objects/<sha256>` and `<region>/backups/<id>.json`.

Objects are named by their content, so backups share what did not change, two at once do each other no harm, and a
backup that died leaves objects that the next one uses or `prune` takes away.
"""

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from infra.recovery.errors import DamagedBackup
from infra.recovery.manifest import BackupManifest, StoredFile, parse
from infra.recovery.places import Place
from serving.errors import NotFound
from serving.releases import check_name

LATEST = "latest"


@dataclass(frozen=True, kw_only=True, slots=True)
class Vault:
    """The backups of one region."""

    place: Place
    region: str

    def __post_init__(self) -> None:
        check_name("region name", self.region)

    def ids(self) -> list[str]:
        """Finished backups, oldest first."""
        paths = (file.path for file in self.place.list(f"{self.region}/backups"))
        return sorted(path.rpartition("/")[2].removesuffix(".json") for path in paths if path.endswith(".json"))

    def read(self, id: str = LATEST) -> BackupManifest:
        if id == LATEST:
            known = self.ids()
            if not known:
                raise NotFound("region has no backup", got=self.region, expected=f"one in {self.place.uri}")
            id = known[-1]
        try:
            return parse(self.place.read(self._manifest(id)), id)
        except FileNotFoundError as missing:
            known = self.ids()[-3:]
            raise NotFound("no such backup", got=id, expected=f"one of {known}, or {LATEST}") from missing

    def newest(self) -> BackupManifest | None:
        known = self.ids()
        return self.read(known[-1]) if known else None

    def keep(self, source: Path, sha256: str) -> None:
        self.place.put(source, self._object(sha256))

    def commit(self, manifest: BackupManifest) -> str:
        """Make the backup visible; everything it names is there already."""
        self.place.write(manifest.to_bytes(), self._manifest(manifest.id))
        return manifest.id

    def fetch(self, file: StoredFile, target: Path) -> None:
        """Copy a kept file here and check its bytes."""
        try:
            digest, size = self.place.fetch(self._object(file.sha256), target)
        except FileNotFoundError as missing:
            raise DamagedBackup(f"{file.path} is missing", got="no object", expected=file.sha256) from missing
        if (digest, size) != (file.sha256, file.size_bytes):
            got, expected = f"sha256 {digest}, {size} bytes", f"sha256 {file.sha256}, {file.size_bytes} bytes"
            raise DamagedBackup(f"{file.path} has changed", got=got, expected=expected)

    def check(self, file: StoredFile) -> None:
        """Read a kept file whole, for nothing but its digest."""
        with tempfile.TemporaryDirectory() as folder:
            self.fetch(file, Path(folder) / "object")

    def forget(self, ids: Iterable[str]) -> None:
        for id in ids:
            self.place.remove(self._manifest(id))

    def objects(self) -> dict[str, int]:
        """Size of each kept object by its SHA-256."""
        listed = self.place.list(f"{self.region}/objects")
        return {file.path.rpartition("/")[2]: file.size_bytes for file in listed}

    def sweep(self, *, kept: Iterable[str]) -> int:
        """Remove the objects that none of `kept` names; returns how many went."""
        needed = {self._object(file.sha256) for id in kept for file in _all_files(self.read(id))}
        gone = [file.path for file in self.place.list(f"{self.region}/objects") if file.path not in needed]
        for path in gone:
            self.place.remove(path)
        return len(gone)

    def _object(self, sha256: str) -> str:
        return f"{self.region}/objects/{sha256}"

    def _manifest(self, id: str) -> str:
        return f"{self.region}/backups/{id}.json"


def _all_files(manifest: BackupManifest) -> tuple[StoredFile, ...]:
    return (manifest.registry, *manifest.files)
