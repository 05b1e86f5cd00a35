"""A region's database: the registry's own SQL on SQLite in memory, which outlives the agents that open it."""

import itertools
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from random import Random
from typing import Any

import sqlalchemy as sa

from serving.regions.registry.database import RegistryUnavailable, open_database
from serving.regions.registry.registry import Registry

_numbers = itertools.count()


class Database:
    """Reached under `url` for as long as it is not closed."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._name = f"file:/simulated-{next(_numbers)}?vfs=memdb"
        self._keeper = sqlite3.connect(self._name, uri=True)
        _migrated().backup(self._keeper)
        self.url = f"sqlite:///{self._name}&uri=true"
        self.away = False
        self.forgets_answers = 0.0
        """Share of transactions that are committed, but whose answer is lost."""

    def forget(self) -> None:
        """As if it had been restored from a backup that was taken before anything was ordered."""
        _migrated().backup(self._keeper)

    def refuse_when_away(self) -> None:
        if self.away:
            raise RegistryUnavailable("registry does not answer", got="it is away", expected="a running database")

    def lose_answer(self) -> None:
        if self._rng.random() < self.forgets_answers:
            raise RegistryUnavailable("registry does not answer", got="a lost answer", expected="a running database")

    def close(self) -> None:
        self._keeper.close()


@cache
def _migrated() -> sqlite3.Connection:
    """A database without rows at the schema of today: migrating takes longer than a whole simulation."""
    template = sqlite3.connect("file:/simulated-template?vfs=memdb", uri=True)
    open_database("sqlite:///file:/simulated-template?vfs=memdb&uri=true").dispose()
    return template


class SimulatedRegistry(Registry):
    """An agent's registry over a database that may be away."""

    def __init__(self, database: Database, clock: Any) -> None:
        database.refuse_when_away()
        super().__init__(database.url, clock=clock)
        self._database = database

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        self._database.refuse_when_away()
        with super().reading() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        self._database.refuse_when_away()
        with super().writing() as connection:
            yield connection
        self._database.lose_answer()
