"""A database that is locked, away or slow: said as the project's own error, and no event loop waits for it."""

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from serving.regions.registry import database
from serving.regions.registry.database import RegistryUnavailable
from serving.regions.registry.registry import Event, LiveModel, Registry
from serving.releases import Release, RuntimeSpec

EVENT = Event(kind="rollout", subject="m", message="live", detail={})
RELEASE = Release(
    id="v1",
    model="m",
    bundle_digest="sha256:" + "0" * 64,
    store_uri="memory://s",
    runtime=RuntimeSpec(engine="onnxruntime", variant="v"),
)
LIVE = LiveModel(model="m", release_id="v1", previous_release_id=None, reason=None)


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.setattr(database, "_BUSY_MS", 20)
    opened = Registry(f"sqlite:///{tmp_path / 'registry.db'}")
    opened.add_release(RELEASE)
    yield opened
    opened.close()


def lock(registry: Registry) -> sqlite3.Connection:
    """Another process in the midst of a transaction."""
    other = sqlite3.connect(str(registry.engine.url.database), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    return other


def test_a_locked_database_is_unavailable_and_works_again(registry: Registry) -> None:
    locked = pytest.raises(RegistryUnavailable, match="registry does not answer, got database is locked")
    with closing(lock(registry)), locked:
        registry.set_live(LIVE, EVENT)
    registry.set_live(LIVE, EVENT)
    assert registry.live("m") == LIVE


def test_a_full_disk_is_unavailable_and_nothing_is_half_written(registry: Registry) -> None:
    with registry.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()

    def limit(connection: Any, _: object) -> None:
        connection.execute(f"PRAGMA max_page_count={pages}")

    sa.event.listen(registry.engine, "checkout", lambda connection, *_: limit(connection, None))
    padded = Event(kind="rollout", subject="m", message="x" * 1_000_000, detail={})
    with pytest.raises(RegistryUnavailable, match="disk is full"):
        registry.set_live(LIVE, padded)
    assert (registry.live("m"), registry.events()) == (None, [])


def test_what_is_live_is_read_once_until_it_changes(registry: Registry) -> None:
    statements: list[str] = []
    sa.event.listen(registry.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    for _ in range(100):
        assert registry.live_models() == []
        assert registry.rollouts_under_way() == []
        assert registry.release("v1") == (RELEASE, 1)
    assert len([said for said in statements if said.startswith("SELECT")]) == 3
    registry.set_live(LIVE, EVENT)
    assert registry.live_models() == [LIVE]


def test_nothing_is_remembered_over_a_change_that_may_have_failed(registry: Registry) -> None:
    assert registry.live("m") is None
    with sqlite3.connect(str(registry.engine.url.database)) as other:
        other.execute("INSERT INTO live_models (model, release_id, updated_at) VALUES ('m', 'v1', 0)")
    assert registry.live("m") is None
    with closing(lock(registry)), pytest.raises(RegistryUnavailable):
        registry.write(EVENT)
    assert registry.live("m") == LIVE


async def test_the_loop_goes_on_while_a_section_takes_its_time_and_sections_never_mix(registry: Registry) -> None:
    begun, go_on, order = threading.Event(), threading.Event(), []

    def slow() -> None:
        begun.set()
        go_on.wait(30)
        order.append("slow")

    first = asyncio.ensure_future(registry.run(slow))
    second = asyncio.ensure_future(registry.run(order.append, "second"))
    await asyncio.to_thread(begun.wait, 30)
    await asyncio.sleep(0.01)
    assert order == []
    assert registry.busy_s() > 0.0
    go_on.set()
    await asyncio.gather(first, second)
    assert (order, registry.busy_s()) == (["slow", "second"], 0.0)
