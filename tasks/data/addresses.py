"""Reading an artifact by the address that it carries, whichever store it lies in."""

from pathlib import Path
from typing import Any

from serving.errors import InvalidInput, NotFound
from serving.store import ArtifactStore


def fetch_folder(uri: str, target: Path, *, marker: str) -> Path:
    """Copy the folder at `uri` to `target`, whole or not at all.

    Raises:
        NotFound: there is no folder with `marker` at `uri`.
    """
    parent, _, name = uri.rstrip("/").rpartition("/")
    if "://" not in uri or not parent or not name:
        raise InvalidInput("artifact address is malformed", got=uri, expected="scheme://…/folder")
    return ArtifactStore(parent).fetch_folder(name, target, marker=marker)


def read_record(uri: str, name: str) -> Any:
    """One small JSON document of the folder at `uri`.

    Raises:
        NotFound: it is not there.
    """
    record = ArtifactStore(uri).read_record(name)
    if record is None:
        raise NotFound("artifact lacks a file", got=uri, expected=name)
    return record
