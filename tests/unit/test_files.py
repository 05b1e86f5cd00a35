"""Files that appear whole or not at all, and nothing of a write that was killed."""

import subprocess
import sys
from pathlib import Path

from serving.files import sweep_writes, write_atomically

_DIES_BEFORE_THE_RENAME = """
import os, sys
from pathlib import Path
from serving import files
os.replace = lambda *_: os._exit(9)
files.write_atomically(Path(sys.argv[1]), b"new")
"""


def test_what_a_write_left_when_it_was_killed_is_swept_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "clock.json"
    write_atomically(path, b"old")
    died = subprocess.run([sys.executable, "-c", _DIES_BEFORE_THE_RENAME, str(path)], timeout=60, check=False)
    assert died.returncode == 9
    assert len(list(tmp_path.iterdir())) == 2
    sweep_writes(tmp_path, "routes.json")
    assert len(list(tmp_path.iterdir())) == 2
    sweep_writes(tmp_path, "*.json")
    assert [left.name for left in tmp_path.iterdir()] == ["clock.json"]
    assert path.read_bytes() == b"old"


def test_a_folder_that_is_not_there_has_nothing_to_sweep(tmp_path: Path) -> None:
    sweep_writes(tmp_path / "missing")
