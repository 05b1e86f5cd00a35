"""`python -m infra.recovery` as a CronJob runs it, and killed while it works."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from infra.recovery.restore import verify
from tests.fakes.backed_up import Region, local_region

_MIB = 1 << 20


@pytest.fixture
def region(tmp_path: Path) -> Region:
    made = local_region(tmp_path)
    made.promote(1)
    return made


def command(region: Region, name: str, *more: str) -> list[str]:
    place = "--to" if name == "backup" else "--from"
    options = ["--region", "us-east", place, region.backups_uri, *more]
    if name in ("backup", "restore"):
        options += ["--registry", region.registry_url, "--store", region.store_uri]
    return [sys.executable, "-m", "infra.recovery", name, *options]


def run(region: Region, name: str, *more: str) -> tuple[int, dict[str, Any], str]:
    done = subprocess.run(command(region, name, *more), capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in done.stderr
    return done.returncode, json.loads(done.stdout or "{}"), done.stderr


def kill_when(region: Region, name: str, begun: Callable[[], bool], *more: str) -> None:
    """SIGKILL to the command as soon as it has begun to write."""
    process = subprocess.Popen(
        command(region, name, *more),
        # What is killed cannot tidy up.
        env={**os.environ, "TMPDIR": str(region.scratch)},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while not begun():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    assert process.wait(timeout=10) == -signal.SIGKILL


def files_below(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_a_region_travels_through_the_commands(region: Region, tmp_path: Path) -> None:
    rows = region.rows()
    code, saved, _ = run(region, "backup")
    assert (code, saved["files"], saved["copied"]) == (0, 3, 3)
    shutil.rmtree(tmp_path / "region")
    code, restored, _ = run(region, "restore")
    assert (code, restored["restored"], restored["live"]) == (0, saved["backup"], region.vault.read().live)
    assert region.rows() == rows
    code, _, told = run(region, "restore")
    assert (code, told) == (
        1,
        "flightpath: registry is not empty, got 1 releases, expected an empty one, or --replace\n",
    )
    code, _, told = run(region, "verify", "--id", "none")
    assert code == 1
    assert told.startswith("flightpath: no such backup, got none, expected one of")


def test_a_killed_backup_leaves_the_old_one_and_hinders_no_next_one(region: Region, tmp_path: Path) -> None:
    code, saved, _ = run(region, "backup")
    assert code == 0
    region.promote(2, padding=32 * _MIB)
    objects = tmp_path / "backups" / "us-east" / "objects"
    held = len(files_below(objects))
    kill_when(region, "backup", lambda: len(files_below(objects)) > held)
    assert region.vault.ids() == [saved["backup"]]
    verify(region.vault, region.vault.read())
    code, second, _ = run(region, "backup", "--keep", "1")
    assert (code, second["copied"], second["dropped"]) == (0, 4, [saved["backup"]])
    assert run(region, "verify")[0] == 0
    assert not [path for path in files_below(objects) if path.suffix == ".part"]


def test_a_killed_restore_leaves_the_old_registry_and_is_finished_by_the_same_call(
    region: Region, tmp_path: Path
) -> None:
    region.promote(2, padding=32 * _MIB)
    assert run(region, "backup")[0] == 0
    wanted_rows, wanted_files = region.rows(), region.files()
    shutil.rmtree(tmp_path / "region")
    region.promote(3)
    rows, store = region.rows(), tmp_path / "region" / "store"
    held = len(files_below(store))
    kill_when(region, "restore", lambda: len(files_below(store)) > held, "--replace")
    assert region.rows() == rows
    assert run(region, "restore", "--replace")[0] == 0
    assert region.rows() == wanted_rows
    assert wanted_files.items() <= region.files().items()
