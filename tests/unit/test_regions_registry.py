"""The registry: idempotent, numbered, one running promotion per model, migrated without being asked."""

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from serving.errors import Conflict, InvalidInput, NotFound
from serving.regions.registry import database, schema
from serving.regions.registry.registry import Event, LiveModel, Registry
from serving.releases import Release, RuntimeSpec

EVENT = Event(kind="promotion", subject="p-1", message="ordered", detail={})


def make_release(id: str, *, model: str = "m", digest: str = "0") -> Release:
    runtime = RuntimeSpec(engine="onnxruntime", variant="v")
    return Release(id=id, model=model, bundle_digest=f"sha256:{digest * 64}", store_uri="memory://s", runtime=runtime)


def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'new' / 'registry.db'}"


@pytest.fixture
def registry(tmp_path: Path) -> Any:
    opened = Registry(url(tmp_path))
    yield opened
    opened.close()


def test_versions_count_up_per_model_and_the_same_release_keeps_its_own(registry: Registry) -> None:
    versions = [registry.add_release(make_release(id)) for id in ("a", "b", "a")]
    assert versions == [1, 2, 1]
    assert registry.add_release(make_release("c", model="other")) == 1
    assert registry.release("b") == (make_release("b"), 2)


def test_a_release_id_means_one_content(registry: Registry) -> None:
    registry.add_release(make_release("a"))
    with pytest.raises(Conflict, match="release a is known with other content"):
        registry.add_release(make_release("a", digest="1"))
    with pytest.raises(Conflict, match="version 1 of model m belongs to another release"):
        registry.add_release(make_release("b"), 1)


def test_a_model_has_one_running_promotion(registry: Registry) -> None:
    document = {"id": "p-1"}
    assert registry.add_promotion("p-1", make_release("a"), lambda version: document | {"version": version}, EVENT)
    assert not registry.add_promotion("p-1", make_release("a"), lambda version: {}, EVENT)
    assert registry.promotion("p-1") == {"id": "p-1", "version": 1}
    with pytest.raises(Conflict, match="still running, got p-1"):
        registry.add_promotion("p-2", make_release("b"), lambda version: {}, EVENT)
    registry.save_promotion("p-1", document, running=False, events=[])
    assert registry.add_promotion("p-2", make_release("b"), lambda version: {"id": "p-2"}, EVENT)
    assert [promotion["id"] for promotion in registry.promotions(model="m")] == ["p-2", "p-1"]
    assert registry.promotions(model="other") == []


def test_a_refused_promotion_leaves_nothing_behind(registry: Registry) -> None:
    registry.add_promotion("p-1", make_release("a"), lambda version: {}, EVENT)
    with pytest.raises(Conflict):
        registry.add_promotion("p-2", make_release("b"), lambda version: {}, EVENT)
    with pytest.raises(NotFound):
        registry.release("b")
    assert len(registry.events()) == 1


def test_a_rollout_is_ordered_once_and_live_changes_with_it(registry: Registry) -> None:
    event = Event(kind="rollout", subject="p-1", message="ordered", detail={})
    assert registry.add_rollout("p-1", make_release("a"), 4, {"state": "queued"}, event)
    assert not registry.add_rollout("p-1", make_release("a"), 4, {"state": "other"}, event)
    assert registry.rollout("p-1") == {"state": "queued"}
    live = LiveModel(model="m", release_id="a", previous_release_id=None, reason=None)
    registry.save_rollout("p-1", {"state": "live"}, settled=True, live=live, event=event)
    assert registry.live("m") == live
    assert registry.live("other") is None
    assert registry.rollouts_under_way() == []
    assert registry.newest_rollouts() == [{"state": "live"}]


def test_what_is_live_must_be_a_known_release(registry: Registry) -> None:
    live = LiveModel(model="m", release_id="ghost", previous_release_id=None, reason=None)
    with pytest.raises(sa.exc.IntegrityError):
        registry.save_rollout("p-1", {}, settled=True, live=live)
    assert registry.live("m") is None


def test_the_journal_is_read_from_where_a_reader_left_off(registry: Registry) -> None:
    for number in range(3):
        registry.write(Event(kind="server", subject="a", message=str(number), detail={"n": number}))
    first = registry.events(limit=1)
    rest = registry.events(since=first[0]["seq"])
    assert [entry["message"] for entry in first + rest] == ["0", "1", "2"]
    assert registry.events(kind="promotion") == []


def test_an_override_is_replaced(registry: Registry) -> None:
    assert registry.override("promotions") is None
    for frozen in (True, False):
        registry.set_override("promotions", {"frozen": frozen}, EVENT)
    assert registry.override("promotions") == {"frozen": False}


def test_a_registry_opened_again_has_everything(tmp_path: Path) -> None:
    for _ in range(2):
        registry = Registry(url(tmp_path))
        assert registry.add_release(make_release("a")) == 1
        registry.close()


def test_sqlite_is_durable_and_checks_foreign_keys(tmp_path: Path) -> None:
    engine = database.open_database(url(tmp_path))
    with engine.begin() as connection:
        values = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in _PRAGMAS]
    engine.dispose()
    assert values == ["wal", 2, 1]


_PRAGMAS = ("journal_mode", "synchronous", "foreign_keys")


def test_migrations_make_the_tables_that_the_code_uses(tmp_path: Path) -> None:
    engine = database.open_database(url(tmp_path))
    with engine.begin() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), schema.metadata)
    engine.dispose()
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    assert differences == []
    assert ScriptDirectory.from_config(config).get_heads() == [schema.HEAD]


def test_a_registry_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    engine = database.open_database(url(tmp_path))
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    engine.dispose()
    with pytest.raises(Conflict, match="another version of Flightpath, got revision 9999"):
        database.open_database(url(tmp_path))


def test_an_unusable_url_names_itself() -> None:
    with pytest.raises(InvalidInput, match="registry_url cannot be used"):
        database.open_database("oracle-of-delphi://x")


def go_live(registry: Registry, release: str, previous: str | None) -> None:
    registry.set_live(LiveModel(model="m", release_id=release, previous_release_id=previous, reason=None), EVENT)


def test_what_was_live_before_outlasts_rollbacks(registry: Registry) -> None:
    for id in ("a", "b", "c"):
        registry.add_release(make_release(id))
    for release, previous in (("a", None), ("b", "a"), ("c", "b"), ("b", "a")):
        go_live(registry, release, previous)
    assert registry.been_live("m") == ["a", "c", "b"]
    assert [registry.release_before(id) for id in ("a", "b", "c", "ghost")] == [None, "a", "b", None]
    assert registry.find_version("m", 2) == "b"
    with pytest.raises(NotFound, match="unknown version of model m, got 9, expected 1, 2, 3"):
        registry.find_version("m", 9)


def test_a_registry_of_the_first_version_keeps_what_is_live(tmp_path: Path) -> None:
    registry = Registry(url(tmp_path))
    for id in ("a", "b"):
        registry.add_release(make_release(id))
    go_live(registry, "b", "a")
    config = Config()
    config.set_main_option("script_location", str(Path(database.__file__).parent / "migrations"))
    with registry.engine.begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    registry.close()
    upgraded = Registry(url(tmp_path))
    live = upgraded.live("m")
    assert live == LiveModel(model="m", release_id="b", previous_release_id="a", reason=None)
    assert upgraded.been_live("m") == ["a", "b"]
    assert upgraded.release_before("b") == "a"
    upgraded.close()


def test_only_so_much_of_the_history_is_read(registry: Registry) -> None:
    event = Event(kind="rollout", subject="p", message="ordered", detail={})
    for number in range(5):
        registry.add_rollout(f"p-{number}", make_release("a"), 1, {"n": number}, event)
        registry.save_rollout(f"p-{number}", {"n": number}, settled=number != 0)

    assert len(registry.newest_rollouts(limit=2)) == 2
    assert registry.rollouts_under_way() == [{"n": 0}]


def test_a_database_under_a_uri_of_sqlites_own_makes_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Registry("sqlite:///file:/in-memory?vfs=memdb&uri=true").close()
    assert list(tmp_path.iterdir()) == []
