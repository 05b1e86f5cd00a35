"""Backup and restore on SQLite and files: what comes back, what is refused, and that refusals change nothing."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from infra.recovery.backup import back_up, prune
from infra.recovery.errors import DamagedBackup, DatabaseTool
from infra.recovery.manifest import StoredFile, parse
from infra.recovery.places import Found, Place
from infra.recovery.registry_dump import RegistryDatabase
from infra.recovery.restore import restore, verify
from infra.recovery.vault import Vault
from serving.errors import Conflict, FlightpathError, InvalidInput, NotFound, RetryableError
from serving.store import bundle_path
from tests.fakes.backed_up import Region, local_region


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A region with one release, made once: most of a test's time went into migrations."""
    root = tmp_path_factory.mktemp("template")
    local_region(root).promote(1)
    return root


@pytest.fixture
def region(template: Path, tmp_path: Path) -> Region:
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    return local_region(tmp_path)


def save(region: Region) -> str:
    return back_up(region.vault, region.database, region.store).manifest.id


def bring_back(region: Region, id: str = "latest", *, replacing: bool = False) -> int:
    vault = region.vault
    return restore(vault, vault.read(id), region.database, region.store, replace=replacing).copied


def destroy(region: Region, root: Path) -> None:
    shutil.rmtree(root / "region")


def object_of(region: Region, root: Path, suffix: str) -> Path:
    """The kept object behind a file of the newest backup."""
    manifest = region.vault.read()
    (file,) = (file for file in manifest.files if file.path.endswith(suffix))
    return root / "backups" / "us-east" / "objects" / file.sha256


def test_a_destroyed_region_comes_back_as_it_was(region: Region, tmp_path: Path) -> None:
    region.promote(2, model="letters")
    rows, files = region.rows(), region.files()
    save(region)
    destroy(region, tmp_path)
    bring_back(region)
    assert region.rows() == rows
    assert region.files() == files


def test_a_second_backup_reads_only_what_is_new(region: Region) -> None:
    save(region)
    region.promote(2)
    second = back_up(region.vault, region.database, region.store)
    assert second.copied == 3
    assert len(second.manifest.files) == 6
    assert verify(region.vault, second.manifest) > 0


def test_every_backup_can_be_restored_not_only_the_last(region: Region, tmp_path: Path) -> None:
    rows, first = region.rows(), save(region)
    region.promote(2)
    save(region)
    bring_back(region, first, replacing=True)
    assert region.rows() == rows


def test_a_restore_copies_only_what_is_missing_or_differs(region: Region, tmp_path: Path) -> None:
    save(region)
    model = next((tmp_path / "region" / "store").rglob("model.onnx"))
    good = model.read_bytes()
    model.write_bytes(good[:-1] + b"!")
    assert bring_back(region, replacing=True) == 1
    assert model.read_bytes() == good


@pytest.mark.parametrize("harm", ["changed", "shortened", "missing"])
def test_a_damaged_backup_is_noticed_and_restores_nothing(region: Region, tmp_path: Path, harm: str) -> None:
    save(region)
    victim = object_of(region, tmp_path, "model.onnx")
    content = victim.read_bytes()
    if harm == "missing":
        victim.unlink()
    else:
        victim.write_bytes(content[:-1] + (b"!" if harm == "changed" else b""))
    with pytest.raises(DamagedBackup, match=r"model\.onnx (has changed|is missing), got .*, expected .*"):
        verify(region.vault, region.vault.read())
    destroy(region, tmp_path)
    with pytest.raises(DamagedBackup):
        bring_back(region)
    assert not (tmp_path / "region" / "registry.db").exists()


def test_the_backup_after_a_damaged_one_is_whole(region: Region, tmp_path: Path) -> None:
    save(region)
    object_of(region, tmp_path, "model.onnx").unlink()
    assert back_up(region.vault, region.database, region.store).copied == 1
    verify(region.vault, region.vault.read())
    (tmp_path / "backups" / "us-east" / "backups" / f"{region.vault.ids()[-1]}.json").write_text("{")
    assert back_up(region.vault, region.database, region.store).copied == 3
    verify(region.vault, region.vault.read())


@pytest.mark.parametrize("change", ["region", "version", "not json"])
def test_a_changed_manifest_is_refused(region: Region, tmp_path: Path, change: str) -> None:
    id = save(region)
    path = tmp_path / "backups" / "us-east" / "backups" / f"{id}.json"
    document = json.loads(path.read_bytes())
    changed = {"region": {"region": "eu-west"}, "version": {"schema_version": 2}}
    path.write_text("{" if change == "not json" else json.dumps({**document, **changed[change]}))
    with pytest.raises(DamagedBackup):
        region.vault.read(id)


def test_a_manifest_cannot_write_outside_its_store(region: Region) -> None:
    save(region)
    manifest = region.vault.read()
    outside = replace(manifest, files=(StoredFile(path="../../escaped", sha256="0" * 64, size_bytes=1),))
    with pytest.raises(DamagedBackup, match="outside its store"):
        parse(outside.to_bytes(), outside.id)


def test_a_registry_with_releases_is_replaced_only_when_told(region: Region) -> None:
    save(region)
    region.promote(2)
    rows = region.rows()
    with pytest.raises(Conflict, match="2 releases, expected an empty one, or --replace"):
        bring_back(region)
    assert region.rows() == rows


def test_no_backup_is_made_of_a_region_that_lacks_its_live_bundle(region: Region, tmp_path: Path) -> None:
    digest = region.promote(2)
    shutil.rmtree(tmp_path / "region" / "store" / bundle_path(digest))
    with pytest.raises(Conflict, match="serves a bundle that the store lacks"):
        save(region)
    assert region.vault.ids() == []


class Promoting(RegistryDatabase):
    """A real registry in which something is promoted between the question what is live and the dump."""

    def __init__(self, region: Region, times: int) -> None:
        super().__init__(url=region.registry_url)
        object.__setattr__(self, "region", region)
        object.__setattr__(self, "left", times)

    def dump(self, target: Path) -> None:
        left = self.left  # type: ignore[attr-defined]
        if left:
            object.__setattr__(self, "left", left - 1)
            self.region.promote(10 + left)  # type: ignore[attr-defined]
        RegistryDatabase.dump(self, target)


def test_a_promotion_beside_the_dump_does_not_make_a_backup_that_contradicts_itself(region: Region) -> None:
    made = back_up(region.vault, Promoting(region, 1), region.store)
    assert bring_back(region, made.manifest.id, replacing=True) == 0
    with pytest.raises(RetryableError, match="does not rest"):
        back_up(region.vault, Promoting(region, 3), region.store)
    assert region.vault.ids() == [made.manifest.id]


class Pruning(Place):
    """A real store beside whose listing somebody prunes."""

    def list(self, under: str = "") -> list[Found]:
        for path in Path(self.uri.removeprefix("file://")).parents[1].glob("backups/us-east/objects/*"):
            path.unlink()
        return Place.list(self, under)


def test_a_prune_beside_a_backup_makes_it_fail_and_not_lie(region: Region) -> None:
    with pytest.raises(RetryableError, match="objects went while the backup was made, got 1"):
        back_up(region.vault, region.database, Pruning(uri=region.store_uri))
    assert region.vault.ids() == []


def test_pruning_keeps_every_object_that_a_kept_backup_names(region: Region) -> None:
    first = save(region)
    region.promote(2)
    second = save(region)
    dropped, objects = prune(region.vault, keep=1)
    assert (dropped, objects) == ([first], 1)
    assert region.vault.ids() == [second]
    verify(region.vault, region.vault.read())
    with pytest.raises(InvalidInput, match="at least 1"):
        prune(region.vault, keep=0)


def test_what_cannot_be_is_said_plainly(region: Region, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="region has no backup, got us-east"):
        region.vault.read()
    id = save(region)
    with pytest.raises(NotFound, match=f"no such backup, got other, expected one of .*{id}"):
        region.vault.read("other")
    with pytest.raises(InvalidInput, match="registry is of another kind, got postgresql, expected sqlite"):
        restore(region.vault, region.vault.read(), RegistryDatabase(url="postgresql+psycopg://h/d"), region.store)
    with pytest.raises(InvalidInput, match="KMS key is for s3"):
        Place(uri=tmp_path.as_uri(), kms_key="alias/backups")
    with pytest.raises(InvalidInput, match="registry is of an unknown kind, got mysql"):
        _ = RegistryDatabase(url="mysql://h/d").kind
    with pytest.raises(InvalidInput, match="region name is malformed"):
        Vault(place=region.store, region="../us-east")
    with pytest.raises(InvalidInput, match="place cannot be opened"):
        Place(uri="nowhere://x").list()
    with pytest.raises(NotFound, match="registry is not there"):
        RegistryDatabase(url=f"sqlite:///{tmp_path}/none.db").dump(tmp_path / "dump")


def test_a_damaged_registry_file_is_one_line_and_no_traceback(region: Region, tmp_path: Path) -> None:
    (tmp_path / "region" / "registry.db").write_bytes(b"not a database" * 1000)
    with pytest.raises(DatabaseTool, match="registry cannot be read"):
        save(region)


def test_a_password_is_in_no_command_line_and_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """pg_dump is a recorder here: it tells how it was called and fails with what it was given."""
    tool = tmp_path / "bin" / "pg_dump"
    tool.parent.mkdir()
    tool.write_text(
        f'#!/bin/sh\necho "$@" >{tmp_path}/arguments\necho "$PGPASSWORD@$PGHOST" >{tmp_path}/password\nexit 1\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=os.pathsep)
    registry = RegistryDatabase(url="postgresql+psycopg://flightpath:s3cret@db.example:5433/registry")
    with pytest.raises(DatabaseTool, match="pg_dump failed, got no word") as failed:
        registry.dump(tmp_path / "dump")
    assert (tmp_path / "password").read_text().strip() == "s3cret@db.example"
    assert "s3cret" not in (tmp_path / "arguments").read_text() + str(failed.value) + repr(registry)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NotFound, match="pg_dump is missing"):
        registry.dump(tmp_path / "dump")


def test_a_place_that_cannot_be_reached_is_retryable() -> None:
    place = Place(uri="file:///proc/1/root/nowhere/at/all")
    with pytest.raises(FlightpathError) as failed:
        place.write(b"x", "file")
    assert failed.value.retryable
