"""Rollbacks in the registry: this region's parts and, at home, the orders.

An order ends what else is under way for its model; both are committed together, so that an agent that
dies at any moment comes back either to the promotion or to the rollback, never to both.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from serving.errors import NotFound
from serving.regions.registry import schema
from serving.regions.registry.registry import Event, LiveModel, Registry, set_live, write_event


@dataclass(frozen=True, kw_only=True, slots=True)
class Ended:
    """A document that an order ends: another rollback, a rollout or a promotion."""

    id: str
    document: dict[str, Any]
    open: bool = False
    """Of a rollback: whether it goes on in other regions."""


class RollbackStore:
    """One table of rollbacks: `schema.rollbacks` or `schema.rollback_orders`."""

    def __init__(self, registry: Registry, table: sa.Table) -> None:
        self._registry = registry
        self._table = table

    def add(
        self,
        id: str,
        model: str,
        document: dict[str, Any],
        *,
        rollbacks: Sequence[Ended] = (),
        rollouts: Sequence[Ended] = (),
        promotions: Sequence[Ended] = (),
        events: Sequence[Event],
        open: bool = True,
    ) -> None:
        """Record an order and what it ends; the id must be new. `open`: whether anything is left to do."""
        with self._registry.writing() as connection:
            now, table = self._registry.clock(), self._table
            connection.execute(
                sa.insert(table).values(id=id, model=model, open=open, ordered_at=now, document=document)
            )
            for ended in rollbacks:
                values = {"document": ended.document, "open": ended.open}
                connection.execute(sa.update(table).where(table.c.id == ended.id).values(values))
            for ended in rollouts:
                values = {"document": ended.document, "settled": True}
                connection.execute(sa.update(schema.rollouts).where(schema.rollouts.c.id == ended.id).values(values))
            for ended in promotions:
                values = {"document": ended.document, "running": False}
                mine = schema.promotions.c.id == ended.id
                connection.execute(sa.update(schema.promotions).where(mine).values(values))
            for event in events:
                write_event(connection, event)

    def save(
        self,
        id: str,
        document: dict[str, Any],
        *,
        open: bool,
        event: Event | None = None,
        live: LiveModel | None = None,
    ) -> None:
        """Replace a document and, in the same transaction, what is live."""
        with self._registry.writing() as connection:
            now = self._registry.clock()
            connection.execute(
                sa.update(self._table).where(self._table.c.id == id).values(document=document, open=open)
            )
            if live is not None:
                set_live(connection, live, now)
            if event is not None:
                write_event(connection, event)

    def find(self, id: str) -> dict[str, Any] | None:
        with self._registry.reading() as connection:
            row = connection.execute(sa.select(self._table.c.document).where(self._table.c.id == id)).one_or_none()
        return None if row is None else dict(row.document)

    def read(self, id: str) -> dict[str, Any]:
        """A document; raises NotFound."""
        found = self.find(id)
        if found is None:
            raise NotFound("unknown rollback", got=id, expected="an id that was ordered here")
        return found

    def newest(self, *, model: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """Documents, newest first."""
        return self._select(model, None, limit)

    def under_way(self, *, model: str | None = None) -> list[dict[str, Any]]:
        """Documents of those with something left to do, newest first."""
        key = f"{self._table.name} under way"
        documents = self._registry.remember(key, lambda: self._select(None, True, None))
        return [document for document in documents if model in (None, document["model"])]

    def _select(self, model: str | None, open: bool | None, limit: int | None) -> list[dict[str, Any]]:
        table = self._table
        query = sa.select(table.c.document).order_by(table.c.ordered_at.desc(), table.c.id).limit(limit)
        if model is not None:
            query = query.where(table.c.model == model)
        if open is not None:
            query = query.where(table.c.open == open)
        with self._registry.reading() as connection:
            return [dict(row.document) for row in connection.execute(query)]
