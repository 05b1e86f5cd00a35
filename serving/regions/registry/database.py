"""Opens the registry's database: durable, with foreign keys, migrated to the revision of this code.

SQLite runs in WAL mode with synchronous=FULL, so what a transaction committed survives a power cut;
PostgreSQL is used as it is configured.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from serving.errors import Conflict, InvalidInput, RetryableError
from serving.regions.registry.schema import HEAD

_MIGRATIONS: Final = Path(__file__).parent / "migrations"
_BUSY_MS: Final = 5_000
_POSTGRESQL: Final = {
    "connect_timeout": "3",
    # A server that vanished without a word is given up after 25 s, a statement that waits for a lock after 10 s.
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "options": "-c statement_timeout=10000",
}


class RegistryUnavailable(RetryableError):
    """The database did not carry out a transaction: it is away, locked, full or restarting."""

    code = "registry_unavailable"


def open_database(url: str) -> sa.Engine:
    """Connect and migrate; raises InvalidInput for an unusable URL, RegistryUnavailable when the database is down."""
    try:
        parsed = sa.make_url(url)
        database = parsed.database or ":memory:"
        # What SQLite reads as a URI of its own (`file:…`) is no path of ours.
        if parsed.get_backend_name() == "sqlite" and not database.startswith((":memory:", "file:")):
            Path(database).parent.mkdir(parents=True, exist_ok=True)
        defaults = _POSTGRESQL if parsed.get_driver_name().startswith("psycopg") else {}
        bounds = {name: value for name, value in defaults.items() if name not in parsed.query}
        engine = sa.create_engine(parsed, pool_pre_ping=True, connect_args=bounds)
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError) as unusable:
        raise InvalidInput("registry_url cannot be used", got=str(unusable), expected="a SQLAlchemy URL") from unusable
    if engine.dialect.name == "sqlite":
        sa.event.listen(engine, "connect", _configure_sqlite)
        sa.event.listen(engine, "begin", _begin_immediately)
    try:
        _migrate(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextlib.contextmanager
def transaction(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Committed at its end. Raises RegistryUnavailable, after which it is not known whether it was committed."""
    try:
        with engine.begin() as connection:
            yield connection
    except (sa.exc.IntegrityError, sa.exc.DataError):
        raise
    except (sa.exc.DBAPIError, sa.exc.TimeoutError) as away:
        got = str(away.orig if isinstance(away, sa.exc.DBAPIError) else away)
        raise RegistryUnavailable("registry does not answer", got=got, expected="a running database") from away


def _configure_sqlite(connection: Any, _: object) -> None:
    # The driver must not open transactions by itself: it would begin them late, without the write lock.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", f"busy_timeout={_BUSY_MS}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediately(connection: sa.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _migrate(engine: sa.Engine) -> None:
    """Upgrade to HEAD; a database that is there already costs one query and no import of Alembic."""
    with transaction(engine) as connection:
        current = _revision(connection)
        if current == HEAD:
            return
        _upgrade(connection, current)


def _revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _upgrade(connection: sa.Connection, current: str | None) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, HEAD)
    except CommandError as unknown:
        raise Conflict(
            "registry was written by another version of Flightpath", got=f"revision {current}", expected=HEAD
        ) from unknown
