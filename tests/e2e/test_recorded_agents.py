"""Agents of today still write what each recorded one was used to read: a real run beside the recordings."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.recording import FOLDER, record, recorded

FOLDERS = sorted(path.name for path in FOLDER.iterdir())
_ONE_FOR_ALL = {"parts", "used", "environment"}
"""Keys of these are regions, buckets and variables."""
GONE: dict[str, set[str]] = {}
"""Fields, `kind: path`, that no agent in use reads any more; say since when."""


def objects(value: Any, at: str = "", key: str = "") -> Iterator[tuple[str, set[str]]]:
    """Each object of a document with its place and its fields; entries of lists and maps have one place."""
    if isinstance(value, list):
        for item in value:
            yield from objects(item, f"{at}[]")
    elif isinstance(value, dict):
        by_name = key in _ONE_FOR_ALL or (key == "backends" and all(isinstance(item, dict) for item in value.values()))
        if not by_name:
            yield at, set(value)
        for name, item in value.items():
            yield from objects(item, f"{at}.*" if by_name else f"{at}.{name}", "" if by_name else name)


def always_there(documents: list[Any]) -> dict[str, set[str]]:
    """The fields that a reader may count on, by place."""
    found: dict[str, set[str]] = {}
    for document in documents:
        for place, names in objects(document):
            found[place] = found.get(place, names) & names
    return found


@pytest.fixture(scope="module")
def today(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    root: Path = tmp_path_factory.mktemp("regions").resolve()
    recorder = asyncio.run(record(root / "state"))
    recorder.write(root / "recorded")
    return recorded(root / "recorded")


@pytest.mark.parametrize("folder", FOLDERS)
def test_what_a_recorded_agent_read_is_still_written(folder: str, today: dict[str, list[Any]]) -> None:
    missing = []
    for kind, documents in recorded(FOLDER / folder).items():
        assert kind in today, f"nothing of kind {kind} is said or kept any more"
        written = always_there(today[kind])
        for place, names in always_there(documents).items():
            missing += [f"{kind}{place}.{name}" for name in names - written.get(place, names) - GONE.get(kind, set())]
    assert missing == []
