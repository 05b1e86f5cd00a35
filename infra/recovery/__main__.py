"""Backup, restore and verification of a region.

python -m infra.recovery backup  --region NAME --to URI --registry URL --store URI [--kms-key KEY] [--keep N]
python -m infra.recovery restore --region NAME --from URI --registry URL --store URI [--id ID] [--replace]
python -m infra.recovery verify  --region NAME --from URI [--id ID]
python -m infra.recovery prune   --region NAME --from URI --keep 96

Exit code 0, or 1 with one line that says what was wrong. Each prints one JSON line about what it did.
"""

import json
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer

from infra.recovery.backup import back_up
from infra.recovery.backup import prune as prune_backups
from infra.recovery.places import Place
from infra.recovery.registry_dump import RegistryDatabase
from infra.recovery.restore import restore as restore_backup
from infra.recovery.restore import verify as verify_backup
from infra.recovery.vault import LATEST, Vault
from serving.errors import FlightpathError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Region = Annotated[str, typer.Option(help="name of the region")]
To = Annotated[str, typer.Option("--to", help="fsspec URI of the backups")]
From = Annotated[str, typer.Option("--from", help="fsspec URI of the backups")]
Url = Annotated[str, typer.Option(envvar="FLIGHTPATH_REGISTRY_URL", help="SQLAlchemy URL of the region's registry")]
Store = Annotated[str, typer.Option(envvar="FLIGHTPATH_STORE", help="fsspec URI of the region's store")]
Id = Annotated[str, typer.Option(help="of the backup")]
Key = Annotated[str | None, typer.Option(envvar="FLIGHTPATH_BACKUP_KMS_KEY", help="KMS key that S3 encrypts with")]


@app.command()
def backup(
    region: Region,
    to: To,
    registry: Url,
    store: Store,
    kms_key: Key = None,
    keep: Annotated[int, typer.Option(help="prune to so many backups afterwards; 0: keep all")] = 0,
) -> None:
    """Back a region up."""

    def act() -> dict[str, Any]:
        vault = Vault(place=Place(uri=to, kms_key=kms_key), region=region)
        made = back_up(vault, RegistryDatabase(url=registry), Place(uri=store))
        dropped = prune_backups(vault, keep=keep)[0] if keep else []
        found = {"files": len(made.manifest.files), "copied": made.copied, "bytes": made.manifest.size_bytes}
        return {"backup": made.manifest.id, **found, "dropped": dropped}

    _run(act)


@app.command()
def restore(
    region: Region,
    source: From,
    registry: Url,
    store: Store,
    id: Id = LATEST,
    replace: Annotated[bool, typer.Option(help="replace a registry that holds releases")] = False,
    kms_key: Key = None,
) -> None:
    """Make registry and store those of a backup; the region's agent must be stopped."""

    def act() -> dict[str, Any]:
        vault = Vault(place=Place(uri=source), region=region)
        target = Place(uri=store, kms_key=kms_key)
        done = restore_backup(vault, vault.read(id), RegistryDatabase(url=registry), target, replace=replace)
        age = round(time.time() - done.manifest.created_at, 3)
        return {"restored": done.manifest.id, "copied": done.copied, "age_seconds": age, "live": done.manifest.live}

    _run(act)


@app.command()
def verify(region: Region, source: From, id: Id = LATEST) -> None:
    """Read a backup whole and check every digest."""

    def act() -> dict[str, Any]:
        vault = Vault(place=Place(uri=source), region=region)
        manifest = vault.read(id)
        return {"verified": manifest.id, "bytes": verify_backup(vault, manifest)}

    _run(act)


@app.command()
def prune(region: Region, source: From, keep: Annotated[int, typer.Option(help="newest backups to keep")]) -> None:
    """Drop old backups, and the objects that no backup names any more. No backup may be under way."""

    def act() -> dict[str, Any]:
        dropped, objects = prune_backups(Vault(place=Place(uri=source), region=region), keep=keep)
        return {"dropped": dropped, "objects": objects}

    _run(act)


def _run(act: Callable[[], dict[str, Any]]) -> None:
    started = time.monotonic()
    try:
        done = act()
    except FlightpathError as error:
        print(f"flightpath: {error}", file=sys.stderr)
        raise typer.Exit(1) from error
    print(json.dumps({**done, "seconds": round(time.monotonic() - started, 3)}))


def _interrupt(signum: int, frame: FrameType | None) -> NoReturn:
    """SIGTERM ends like Ctrl-C: temporary files go, pg_dump is ended."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupt)
    app()
