"""What the agent that led hands to the one that leads now, and how that merges with what is known there.

Orders are words: each has its place by the epoch in which it was taken and its time (`word`). What an agent took while
it was cut off is kept; one that only the other side knew and that came later ends it. Where both sides used one id
or one number for different things, the later epoch's stays and the journal has both.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa

from serving.errors import InvalidInput
from serving.regions.deciding.promotion_state import RUNNING, Promotion, is_open, read_promotion
from serving.regions.deciding.rollback_order import (
    RollbackOrder,
    end_promotion,
    forgive,
    read_rollback_order,
    supersede_in,
)
from serving.regions.deciding.rollout_state import ABORTED
from serving.regions.leading.promotion_orders import OVERRIDE
from serving.regions.registry import schema
from serving.regions.registry.epochs import Epoch, read_epoch
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
_ALL: Final = 10_000
"""Bound of what is looked through for what is open, or came later."""


def make_papers(registry: Registry, led: Epoch) -> dict[str, Any]:
    """Everything that the next home region needs of this one, which led last in `led`. A section of the registry."""
    promotions = {d["id"]: d for d in registry.promotions(limit=_ALL) if is_open(read_promotion(d))}
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


Order = Promotion | RollbackOrder
Key = tuple[str, str]
"""`promotion` or `rollback`, and its id."""


def _key(order: Order) -> Key:
    return "promotion" if isinstance(order, Promotion) else "rollback", order.id


def _table(order: Order) -> sa.Table:
    return schema.promotions if isinstance(order, Promotion) else schema.rollback_orders


def _model(order: Order) -> str:
    return order.release.model if isinstance(order, Promotion) else order.model


def _runs(order: Order) -> bool:
    return isinstance(order, Promotion) and order.state == RUNNING


def _is_open(order: Order) -> bool:
    return is_open(order) if isinstance(order, Promotion) else order.open


def _state(order: Order) -> dict[str, Any]:
    flag = {"running": _runs(order)} if isinstance(order, Promotion) else {"open": order.open}
    return {"document": order.to_json(), **flag}


def _columns(order: Order) -> dict[str, Any]:
    """A row of its table, but that nothing runs yet."""
    columns = {"model": _model(order), "ordered_at": order.ordered_at, "document": order.to_json()}
    if isinstance(order, Promotion):
        return {**columns, "release_id": order.release.id, "running": False}
    return {**columns, "open": order.open}


def _differs(document: dict[str, Any], theirs: Order) -> bool:
    """Whether one id is of two orders."""
    if isinstance(theirs, Promotion):
        promotion = read_promotion(document)
        mine = promotion.release, promotion.regions, promotion.word
        return mine != (theirs.release, theirs.regions, theirs.word)
    order = read_rollback_order(document)
    return (order.asked, order.word) != (theirs.asked, theirs.word)


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
        told: list[Order] = [*map(read_promotion, papers["promotions"]), *map(read_rollback_order, papers["rollbacks"])]
        mine, theirs = self._known(), {_key(order) for order in told}
        # A model has one that runs on: which of both sides', is known only when all are here.
        self._connection.execute(sa.update(schema.promotions).values(running=False).where(schema.promotions.c.running))
        taken = {_key(order) for order in told if self._take_order(order)}
        self._overtake({**mine, **self._known()}, set(mine), theirs, taken)
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

    def _known(self) -> dict[Key, Order]:
        known: list[Order] = []
        for table, read in ((schema.promotions, read_promotion), (schema.rollback_orders, read_rollback_order)):
            newest = sa.select(table.c.document).order_by(table.c.ordered_at.desc()).limit(_ALL)
            known += [read(dict(row.document)) for row in self._connection.execute(newest)]
        return {_key(order): order for order in known}

    def _take_order(self, theirs: Order) -> bool:
        """Whether it is known from now on as they know it."""
        kind, table = _key(theirs)[0], _table(theirs)
        row = self._connection.execute(sa.select(table.c.document).where(table.c.id == theirs.id)).one_or_none()
        version = self._version(theirs.release) if isinstance(theirs, Promotion) else None
        stays = self._wins and not (isinstance(theirs, Promotion) and version is None)
        if row is not None and _differs(dict(row.document), theirs):
            where = "there" if stays else "here"
            self._tell_both(kind, theirs.id, dict(row.document), theirs.to_json(), stays=where)
        if row is not None and not stays:
            return False
        if isinstance(theirs, Promotion):
            if version is None:
                return False
            theirs = replace(theirs, version=version)
        if row is None:
            self._connection.execute(sa.insert(table).values(id=theirs.id, **_columns(theirs)))
        else:
            self._connection.execute(sa.update(table).where(table.c.id == theirs.id).values(_columns(theirs)))
        return True

    def _overtake(self, known: dict[Key, Order], mine: set[Key], theirs: set[Key], taken: set[Key]) -> None:
        """End what an order came after that only the other side knew; save what runs on as such.

        It comes out alike whichever side merges, and whichever of several papers is merged first.
        """
        still_open = {key: order for key, order in known.items() if _is_open(order)}
        for key, order in still_open.items():
            others = known.keys() - theirs if key in taken else set() if key in theirs else theirs - mine
            later = [
                other
                for name, other in known.items()
                if other.word > order.word and _model(other) == _model(order)
                if name in others or (_runs(order) and _runs(other))
            ]
            self._save(self._overtaken(order, sorted(later, key=lambda other: other.word)) if later else order)

    def _overtaken(self, order: Order, later: Sequence[Order]) -> Order:
        if isinstance(order, RollbackOrder):
            for other in later:
                by = f"{' '.join(_key(other))}, which came after {order.ordered_in},"
                order = supersede_in(order, by, self._now, told=other.regions)
            return order
        # A rollback ends in its regions whatever it finds there; a promotion may never have come so far.
        told = [region for other in later if isinstance(other, RollbackOrder) for region in other.regions]
        if not _runs(order):
            return forgive(order, told=told)
        by = f"{order.id} was ordered in {order.ordered_in}, and {' '.join(_key(later[-1]))} came after it"
        self._write(order.id, "promotion", by)
        return end_promotion(order, by, self._now, told=told)

    def _save(self, order: Order) -> None:
        table = _table(order)
        self._connection.execute(sa.update(table).where(table.c.id == order.id).values(_state(order)))

    # Journal

    def _tell_both(self, what: str, name: str, mine: Any, theirs: Any, *, stays: str = "here") -> None:
        """Once, however often it is merged."""
        said = f"{what} {name} is another one in {self._theirs}: what is known {stays} stays"
        table = schema.journal
        known = sa.select(table.c.seq).where(table.c.kind == "home", table.c.message == said).limit(1)
        if self._connection.execute(known).scalar() is None:
            self._write(self._here, "home", said, {"here": mine, "there": theirs})

    def _write(self, subject: str, kind: str, message: str, detail: dict[str, Any] | None = None) -> None:
        known = {"epoch": self._theirs.to_json(), **(detail or {})}
        if kind == "promotion":
            known |= {"state": ABORTED, "reason": message, "region": None}
        write_event(self._connection, Event(kind=kind, subject=subject, message=message, detail=known))
