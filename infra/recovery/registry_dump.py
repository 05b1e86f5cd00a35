"""Dumps and loads a region's registry with its database's own means, each in one transaction.

SQLite by its backup API, which copies a database that is being written and, as a target, rolls a copy back that died.
PostgreSQL by pg_dump and `pg_restore --single-transaction`. A password travels in PGPASSWORD, never on a command line.
"""

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa

from infra.recovery.errors import DamagedBackup, DatabaseTool
from serving.errors import InvalidInput, NotFound, TimedOut
from serving.regions.registry.schema import live_models, releases

_LOCK_WAIT: Final = timedelta(seconds=10)
_OTHERS: Final = sa.text(
    "SELECT count(*) FROM pg_stat_activity"
    " WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class RegistryDatabase:
    """The registry at a SQLAlchemy URL, as an agent's `registry_url` has it."""

    url: str = field(repr=False)
    """May hold a password."""
    limit: timedelta = timedelta(minutes=10)
    """A dump or a load that takes longer is ended: a registry has megabytes, not more."""

    @property
    def kind(self) -> str:
        name = self._parsed().get_backend_name()
        if name not in ("sqlite", "postgresql"):
            raise InvalidInput("registry is of an unknown kind", got=name, expected="sqlite | postgresql")
        return name

    def dump(self, target: Path) -> None:
        """Write a consistent copy to `target`."""
        if self.kind == "sqlite":
            self._dump_sqlite(target)
            return
        options = ["--format=custom", "--no-owner", "--no-privileges", f"--file={target}"]
        self._tool("pg_dump", *options)

    def load(self, source: Path) -> None:
        """Replace the registry by a copy: after it, or after its death, it is the old one or the new one."""
        if self.kind == "sqlite":
            self._load_sqlite(source)
            return
        options = ["--single-transaction", "--exit-on-error", "--clean", "--if-exists", "--no-owner", "--no-privileges"]
        self._tool("pg_restore", *options, f"--dbname={self._parsed().database}", str(source), named=True)

    def live(self) -> dict[str, str]:
        """Digest of the live bundle of each model; nothing where there is no registry yet."""
        joined = live_models.join(releases, live_models.c.release_id == releases.c.id)
        rows = self._rows(sa.select(live_models.c.model, releases.c.digest).select_from(joined))
        return {str(model): str(digest) for model, digest in rows}

    def releases(self) -> int:
        """How many releases it knows: what a restore would replace."""
        return len(self._rows(sa.select(releases.c.id)))

    def sessions(self) -> int:
        """How many others are connected. SQLite knows no sessions: there, it is for the caller to know."""
        if self.kind == "sqlite":
            return 0
        return int(self._rows(_OTHERS, needs_table=False)[0][0])

    def _rows(self, query: sa.Executable, *, needs_table: bool = True) -> list[Any]:
        parsed = self._parsed()
        if self.kind == "sqlite" and not Path(str(parsed.database)).exists():
            return []
        engine = sa.create_engine(parsed)
        try:
            with engine.connect() as connection:
                if needs_table and not sa.inspect(connection).has_table("releases"):
                    return []
                return list(connection.execute(query))
        except sa.exc.DBAPIError as down:
            raise DatabaseTool(
                "registry cannot be read", got=str(down.orig), expected="a registry that answers"
            ) from down
        finally:
            engine.dispose()

    def _parsed(self) -> sa.URL:
        try:
            return sa.make_url(self.url)
        except sa.exc.ArgumentError as broken:
            raise InvalidInput(
                "registry_url cannot be used", got="another text", expected="a SQLAlchemy URL"
            ) from broken

    def _dump_sqlite(self, target: Path) -> None:
        path = Path(str(self._parsed().database))
        if not path.exists():
            raise NotFound("registry is not there", got=str(path), expected="a SQLite file")
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as source, closing(_sqlite(target)) as copy:
            source.backup(copy)

    def _load_sqlite(self, source: Path) -> None:
        target = Path(str(self._parsed().database))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with closing(_sqlite(source)) as copy, closing(_sqlite(target)) as registry:
                _check_sqlite(copy)
                copy.backup(registry)
        except sqlite3.OperationalError as locked:
            raise DatabaseTool("registry cannot be replaced", got=str(locked), expected="a stopped agent") from locked

    def _tool(self, name: str, *options: str, named: bool = False) -> None:
        parsed, found = self._parsed(), shutil.which(name)
        if found is None:
            raise NotFound(f"{name} is missing", got="none on the PATH", expected="PostgreSQL's client programs")
        command = [found, "--no-password", *([] if named else [f"--dbname={parsed.database}"]), *options]
        try:
            done = subprocess.run(
                command,
                env=_libpq(parsed),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=self.limit.total_seconds(),
                check=False,
            )
        except subprocess.TimeoutExpired as late:
            raise TimedOut(f"{name} did not end", got=f"{self.limit}", expected="less") from late
        if done.returncode != 0:
            raise DatabaseTool(f"{name} failed", got=_last_words(done.stderr), expected="exit code 0")


def _sqlite(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=_LOCK_WAIT.total_seconds())


def _check_sqlite(copy: sqlite3.Connection) -> None:
    try:
        (verdict,) = copy.execute("PRAGMA integrity_check").fetchone()
    except sqlite3.DatabaseError as broken:
        raise DamagedBackup("the copy is no SQLite database", got=str(broken), expected="a registry") from broken
    if verdict != "ok":
        raise DamagedBackup("the copy is damaged", got=verdict, expected="ok")


def _libpq(url: sa.URL) -> dict[str, str]:
    """The environment of a client program; the URL wins over what the caller's holds."""
    told = {
        "PGHOST": url.host or url.query.get("host"),
        "PGPORT": None if url.port is None else str(url.port),
        "PGUSER": url.username,
        "PGPASSWORD": None if url.password is None else str(url.password),
        # An agent that still runs holds locks: better an error than a wait without end.
        "PGOPTIONS": f"-c lock_timeout={int(_LOCK_WAIT.total_seconds() * 1000)}",
        "LC_ALL": "C",
    }
    return {**os.environ, **{name: str(value) for name, value in told.items() if value}}


def _last_words(stderr: str) -> str:
    lines = [line for line in stderr.strip().splitlines() if line]
    return " / ".join(lines[-2:]) or "no word"
