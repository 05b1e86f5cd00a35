"""Files that appear whole or not at all, whatever moment a process dies at."""

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

_MADE_UP = 8
"""Characters that mkstemp adds to a name."""


def canonical_json(value: Any) -> bytes:
    """The one byte sequence of a JSON value: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def write_atomically(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` by `content`: temporary file, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sweep_writes(folder: Path, name: str = "*") -> None:
    """Remove what writes of `name` (a pattern) left in a folder when they were killed. Only for their one writer."""
    for left in folder.glob(f".{name}.{'?' * _MADE_UP}"):
        left.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(folder: Path) -> None:
    """Make a folder and those above it, durably."""
    missing = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in missing:
        sync_folder(place.parent)


def sync_folders(root: Path) -> None:
    """Make every name below `root` durable; the content of the files is their writer's to sync."""
    for place, _, _ in os.walk(root):
        sync_folder(Path(place))


def hash_sources(*folders: Path) -> str:
    """SHA-256 over the Python sources below `folders`: the code version of whatever runs from them."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            digest.update(f"{folder.name}/{path.relative_to(folder).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
