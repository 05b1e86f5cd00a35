"""What the agent that led hands to the one that leads now, and how that merges with what is known there.

Orders are words: each has its place by the epoch in which it was taken and its time (`word`). What an agent took while
it was cut off is kept; where a later word reaches a region, the earlier one is over there. Where both sides used one id
or one number for different things, the later epoch's stays and the journal has both.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa

from serving.errors import InvalidInput
from serving.regions.acting.promotion_orders import OVERRIDE
from serving.regions.deciding.promotion_state import RUNNING, Promotion, end, finish, is_open, read_promotion
from serving.regions.deciding.rollback_order import (
    RollbackOrder,
    end_promotion,
    forgive,
    read_rollback_order,
    supersede,
    supersede_in,
)
from serving.regions.deciding.rollout_state import ABORTED
from serving.regions.registry import schema
from serving.regions.registry.epochs import Epoch, Word, read_epoch
from serving.regions.registry.registry import (
    Event,
    Registry,
    add_release,
    give_version,
    next_version,
    release_of,
    write_event,
)
from serving.releases import Release

_NEWEST: Final = 200
"""Orders that are handed over, beside all that are open."""


def make_papers(registry: Registry, led: Epoch) -> dict[str, Any]:
    """Everything that the next home region needs of this one, which led last in `led`. A section of the registry."""
    promotions = {d["id"]: d for d in registry.promotions(limit=10_000) if is_open(read_promotion(d))}
    promotions |= {document["id"]: document for document in registry.promotions(limit=_NEWEST)}
    table = schema.rollback_orders
    newest = sa.select(table.c.document).order_by(table.c.ordered_at.desc()).limit(_NEWEST)
    with registry.reading() as connection:
        releases = [
            {"release": release_of(row).to_json(), "version": row.version}
            for row in connection.execute(sa.select(schema.releases))
        ]
        rollbacks = [dict(row.document) for row in connection.execute(newest)]
        open_ones = sa.select(table.c.document).where(table.c.open)
        rollbacks += [dict(row.document) for row in connection.execute(open_ones)]
    return {
        "led": led.to_json(),
        "releases": releases,
        "promotions": list(promotions.values()),
        "rollbacks": list({document["id"]: document for document in rollbacks}.values()),
        "override": registry.override(OVERRIDE),
    }


def merge_papers(registry: Registry, papers: dict[str, Any], *, led: Epoch | None, here: str) -> None:
    """Take over what another agent handed over; `led`: the epoch in which this agent led last, None if it never did.

    One transaction; the same again changes nothing. Raises InvalidInput for papers that are none.
    """
    try:
        theirs = read_epoch(papers["led"])
        with registry.writing() as connection:
            merge = _Merge(connection, registry.clock(), theirs, here, wins=led is None or theirs > led)
            merge.take(papers)
    except (KeyError, TypeError, ValueError) as broken:
        raise InvalidInput(
            "handover is malformed", got=repr(broken), expected="releases, promotions, rollbacks"
        ) from broken


class _Merge:
    """One transaction. `wins`: whether what they have of an order is later than what is known here."""

    def __init__(self, connection: sa.Connection, now: float, theirs: Epoch, here: str, *, wins: bool) -> None:
        self._connection = connection
        self._now = now
        self._theirs = theirs
        self._here = here
        self._wins = wins

    def take(self, papers: dict[str, Any]) -> None:
        for entry in sorted(papers["releases"], key=lambda entry: int(entry["version"])):
            self._take_release(Release.from_document(entry["release"]), int(entry["version"]))
        promotions = sorted(map(read_promotion, papers["promotions"]), key=lambda p: p.word)
        rollbacks = sorted(map(read_rollback_order, papers["rollbacks"]), key=lambda order: order.word)
        if self._wins:
            self._end_stale({p.id for p in promotions}, {order.id for order in rollbacks})
        for promotion in promotions:
            self._take_promotion(promotion)
        for order in rollbacks:
            self._take_rollback(order)
        if self._wins and papers["override"] is not None:
            self._connection.execute(sa.delete(schema.overrides).where(schema.overrides.c.name == OVERRIDE))
            self._connection.execute(sa.insert(schema.overrides).values(name=OVERRIDE, value=papers["override"]))

    # Releases and their numbers

    def _take_release(self, release: Release, version: int) -> None:
        table = schema.releases
        row = self._connection.execute(sa.select(table).where(table.c.id == release.id)).one_or_none()
        if row is not None and release_of(row) != release:
            self._tell_both("release", release.id, release_of(row).to_json(), release.to_json())
            return
        if self._wins:
            give_version(self._connection, release, version)
        elif row is None:
            taken = sa.select(table.c.id).where(table.c.model == release.model, table.c.version == version)
            holder = self._connection.execute(taken).scalar()
            if holder is not None:
                self._tell_both("version", f"{version} of {release.model}", holder, release.id)
                version = next_version(self._connection, release.model)
        if row is None:
            add_release(self._connection, release, version, self._now)

    def _version(self, release: Release) -> int | None:
        """None when the id is another release's here."""
        query = sa.select(schema.releases).where(schema.releases.c.id == release.id)
        row = self._connection.execute(query).one_or_none()
        return int(row.version) if row is not None and release_of(row) == release else None

    # Orders

    def _end_stale(self, promotions: set[str], rollbacks: set[str]) -> None:
        """What was open here when another region began to lead, and that one knows nothing of, is over."""
        table = schema.promotions
        newest = sa.select(table.c.document).order_by(table.c.running.desc(), table.c.ordered_at.desc()).limit(_NEWEST)
        for row in self._connection.execute(newest).all():
            mine = read_promotion(dict(row.document))
            if mine.id not in promotions and is_open(mine):
                mine = replace(end(mine, ABORTED, f"{self._theirs} began"), owed=[], watching=False)
                mine = finish(mine, ABORTED, self._now) if mine.state == RUNNING else mine
            # One that runs on is saved as such when it is taken over: a model has one at any time.
            self._save_promotion(mine, running=False)
        orders = schema.rollback_orders
        for row in self._connection.execute(sa.select(orders.c.id, orders.c.document).where(orders.c.open)).all():
            if row.id not in rollbacks:
                order = supersede(read_rollback_order(dict(row.document)), f"of {self._theirs}", self._now)
                self._save_rollback(order)

    def _take_promotion(self, theirs: Promotion) -> None:
        table = schema.promotions
        row = self._connection.execute(sa.select(table.c.document).where(table.c.id == theirs.id)).one_or_none()
        if row is not None and not self._wins:
            mine = read_promotion(dict(row.document))
            if (mine.release, mine.regions, mine.word) != (theirs.release, theirs.regions, theirs.word):
                self._tell_both("promotion", theirs.id, dict(row.document), theirs.to_json())
            return
        version = self._version(theirs.release)
        if version is None:
            return
        document = {**theirs.to_json(), "version": version}
        taken = self._overtake_promotion(read_promotion(document))
        if row is None:
            values = {"id": taken.id, "model": taken.release.model, "release_id": taken.release.id, "running": False}
            self._connection.execute(
                sa.insert(table).values(**values, ordered_at=taken.ordered_at, document=taken.to_json())
            )
        self._save_promotion(taken, running=taken.state == RUNNING)

    def _overtake_promotion(self, promotion: Promotion) -> Promotion:
        if self._wins or not is_open(promotion):
            return promotion
        later = list(self._later(promotion.release.model, promotion.word))
        if not later:
            return promotion
        told = [region for _, regions in later for region in regions]
        by = f"{promotion.id} was ordered in {self._theirs}, and {later[-1][0]} came after it"
        self._write(promotion.id, "promotion", by)
        if promotion.state == RUNNING:
            return end_promotion(promotion, by, self._now, told=told)
        return forgive(promotion, told=told)

    def _take_rollback(self, theirs: RollbackOrder) -> None:
        table = schema.rollback_orders
        row = self._connection.execute(sa.select(table.c.document).where(table.c.id == theirs.id)).one_or_none()
        if row is not None and not self._wins:
            mine = read_rollback_order(dict(row.document))
            if (mine.asked, mine.word) != (theirs.asked, theirs.word):
                self._tell_both("rollback", theirs.id, dict(row.document), theirs.to_json())
            return
        taken = theirs
        if theirs.open and not self._wins:
            for id, regions in self._later(theirs.model, theirs.word):
                taken = supersede_in(taken, f"{id}, which came after {self._theirs},", self._now, told=regions)
        if row is None:
            values = {"id": taken.id, "model": taken.model, "open": False, "ordered_at": taken.ordered_at}
            self._connection.execute(sa.insert(table).values(**values, document=taken.to_json()))
        self._save_rollback(taken)

    def _later(self, model: str, word: Word) -> Iterator[tuple[str, list[str]]]:
        """Id and regions of what was ordered here after it, for its model."""
        words: list[tuple[Word, str, list[str]]] = []
        for row in self._select(schema.promotions, model):
            promotion = read_promotion(dict(row.document))
            words.append((promotion.word, f"promotion {promotion.id}", promotion.regions))
        for row in self._select(schema.rollback_orders, model):
            order = read_rollback_order(dict(row.document))
            words.append((order.word, f"rollback {order.id}", order.regions))
        for known, id, regions in sorted(words):
            if known > word:
                yield id, regions

    def _select(self, table: sa.Table, model: str) -> sa.CursorResult[Any]:
        newest = sa.select(table.c.document).where(table.c.model == model).order_by(table.c.ordered_at.desc())
        return self._connection.execute(newest.limit(_NEWEST))

    # Persistence

    def _save_promotion(self, promotion: Promotion, *, running: bool) -> None:
        table = schema.promotions
        values = {"document": promotion.to_json(), "running": running}
        self._connection.execute(sa.update(table).where(table.c.id == promotion.id).values(values))

    def _save_rollback(self, order: RollbackOrder) -> None:
        table = schema.rollback_orders
        values = {"document": order.to_json(), "open": order.open}
        self._connection.execute(sa.update(table).where(table.c.id == order.id).values(values))

    def _tell_both(self, what: str, name: str, mine: Any, theirs: Any) -> None:
        """Once, however often it is merged."""
        said = f"{what} {name} is another one in {self._theirs}: what is known here stays"
        table = schema.journal
        known = sa.select(table.c.seq).where(table.c.kind == "home", table.c.message == said).limit(1)
        if self._connection.execute(known).scalar() is None:
            self._write(self._here, "home", said, {"here": mine, "there": theirs})

    def _write(self, subject: str, kind: str, message: str, detail: dict[str, Any] | None = None) -> None:
        known = {"epoch": self._theirs.to_json(), **(detail or {})}
        if kind == "promotion":
            known |= {"state": ABORTED, "reason": message, "region": None}
        write_event(self._connection, Event(kind=kind, subject=subject, message=message, detail=known))
