"""What a region knows and must not forget: releases, what is live, promotions, rollouts, the journal.

Every method is one transaction and returns after its commit, so whatever an agent acknowledged or
acts upon is on disk. State and the journal entry that tells of it are committed together.

The methods block, for as long as the database takes: an event loop calls them through `Registry.run`, which hands
one section after another to a thread of the registry's own. What was read and is saved in the same section is never
overwritten by another. A region's agent is the only writer of its registry, so what is asked all the time (what is
live, what is under way) is remembered until the next change.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, ParamSpec, TypeVar

import sqlalchemy as sa

from serving.errors import Conflict, NotFound
from serving.regions.registry import schema
from serving.regions.registry.database import open_database, transaction
from serving.releases import Release, RuntimeSpec

P = ParamSpec("P")
T = TypeVar("T")
_REMEMBERED_S: Final = 30.0
"""Longest age of what is remembered: a bound for what somebody changes in the database by hand."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """An entry of the journal before it has its number."""

    kind: str
    """`promotion` | `rollout` | `rollback` | `server` | `bundle` | `override` | `home`."""
    subject: str
    """Id of the promotion, rollout or rollback, digest of the bundle, or the name of what changed."""
    message: str
    detail: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveModel:
    """What this region serves of a model: nothing, or a release, and which one it served before."""

    model: str
    release_id: str | None
    previous_release_id: str | None
    reason: str | None
    """Why nothing is live, when nothing is."""
    standby: str | None = None
    """A release that was live before and whose server stays ready, outside the route."""
    standby_until: float | None = None
    """Seconds since the epoch."""


class Registry:
    """A region's registry at a SQLAlchemy URL."""

    def __init__(self, url: str, *, clock: Callable[[], float] = time.time) -> None:
        """`clock` orders what is ordered and bounds what has a deadline; the journal tells the wall clock's time."""
        self.engine = open_database(url)
        self.clock = clock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="registry")
        self._busy_since: float | None = None
        self._remembered: dict[str, tuple[float, Any]] = {}

    def close(self) -> None:
        """Waits for the section under way."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self.engine.dispose()

    async def run(self, section: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Carry out a section in the registry's thread, after those that were asked for earlier.

        A caller that is cancelled does not end a section that has begun.
        """

        def timed() -> T:
            self._busy_since = time.monotonic()
            try:
                return section(*args, **kwargs)
            finally:
                self._busy_since = None

        return await asyncio.get_running_loop().run_in_executor(self._thread, timed)

    def busy_s(self) -> float:
        """How long the section under way has been running; 0 when there is none."""
        since = self._busy_since
        return 0.0 if since is None else time.monotonic() - since

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that changes nothing; raises RegistryUnavailable."""
        with transaction(self.engine) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A transaction after which nothing is remembered, however it ended; raises RegistryUnavailable."""
        try:
            with transaction(self.engine) as connection:
                yield connection
        finally:
            self._remembered.clear()

    def remember(self, key: str, read: Callable[[], T]) -> T:
        """What `read` returned under this key since the last change."""
        known = self._remembered.get(key)
        if known is not None and time.monotonic() - known[0] < _REMEMBERED_S:
            value: T = known[1]
            return value
        value = read()
        self._remembered[key] = (time.monotonic(), value)
        return value

    # Releases

    def add_release(self, release: Release, version: int | None = None) -> int:
        """Record a release and return its version, the model's next one unless given; idempotent.

        Raises Conflict when the id is known with other content, or the version belongs to another release.
        """
        with self.writing() as connection:
            return add_release(connection, release, version, self.clock())

    def releases(self) -> list[Release]:
        """All that were ever ordered here."""
        with self.reading() as connection:
            return [release_of(row) for row in connection.execute(sa.select(schema.releases))]

    def release(self, id: str) -> tuple[Release, int]:
        """A release and its version; raises NotFound."""
        return self.remember(f"release {id}", lambda: self._release(id))

    def _release(self, id: str) -> tuple[Release, int]:
        with self.reading() as connection:
            row = connection.execute(sa.select(schema.releases).where(schema.releases.c.id == id)).one_or_none()
        if row is None:
            raise NotFound("unknown release", got=id, expected="a release of this region")
        return release_of(row), int(row.version)

    # What is live

    def live(self, model: str) -> LiveModel | None:
        """None when no rollout ever touched the model here."""
        return self.remember("live", self._live_models).get(model)

    def live_models(self) -> list[LiveModel]:
        return list(self.remember("live", self._live_models).values())

    def _live_models(self) -> dict[str, LiveModel]:
        with self.reading() as connection:
            rows = connection.execute(sa.select(schema.live_models).order_by(schema.live_models.c.model)).all()
        return {
            row.model: LiveModel(
                model=row.model,
                release_id=row.release_id,
                previous_release_id=row.previous_release_id,
                reason=row.reason,
                standby=row.standby_release_id,
                standby_until=row.standby_until,
            )
            for row in rows
        }

    def set_live(self, live: LiveModel, event: Event) -> None:
        """Change what is live, or what stands by, outside any rollout."""
        with self.writing() as connection:
            now = self.clock()
            set_live(connection, live, now)
            write_event(connection, event)

    def been_live(self, model: str) -> list[str]:
        """Releases of the model that were live here at any time, the latest last."""
        table = schema.live_history
        query = sa.select(table.c.release_id).where(table.c.model == model)
        query = query.group_by(table.c.release_id).order_by(sa.func.max(table.c.seq))
        with self.reading() as connection:
            return [str(row.release_id) for row in connection.execute(query)]

    def release_before(self, release_id: str) -> str | None:
        """What was live here before this release last became live by a promotion (a rollback keeps that)."""
        table = schema.live_history
        query = sa.select(table.c.previous_release_id).where(table.c.release_id == release_id)
        with self.reading() as connection:
            value = connection.execute(query.order_by(table.c.seq.desc()).limit(1)).scalar()
        return None if value is None else str(value)

    def find_version(self, model: str, version: int) -> str:
        """The release that is this version of the model; raises NotFound."""
        table = schema.releases
        query = sa.select(table.c.id, table.c.version).where(table.c.model == model).order_by(table.c.version)
        with self.reading() as connection:
            known = {int(row.version): str(row.id) for row in connection.execute(query)}
        if version not in known:
            newest = ", ".join(map(str, list(known)[-20:]))
            raise NotFound(f"unknown version of model {model}", got=version, expected=newest or "a known model")
        return known[version]

    # Rollouts: this region's part of a promotion

    def add_rollout(
        self, id: str, release: Release, version: int, document: dict[str, Any], event: Event, *, renumber: bool = False
    ) -> bool:
        """Record an ordered rollout with its release; False when the id is there already.

        `renumber`: its version is the home region's word, and a release that has this number here gets another one.
        """
        with self.writing() as connection:
            known = connection.execute(sa.select(schema.rollouts.c.id).where(schema.rollouts.c.id == id)).one_or_none()
            if known is not None:
                return False
            now = self.clock()
            if renumber:
                give_version(connection, release, version)
            add_release(connection, release, version, now)
            connection.execute(
                sa.insert(schema.rollouts).values(
                    id=id,
                    model=release.model,
                    release_id=release.id,
                    settled=False,
                    ordered_at=now,
                    document=document,
                )
            )
            write_event(connection, event)
        return True

    def save_rollout(
        self,
        id: str,
        document: dict[str, Any],
        *,
        settled: bool,
        event: Event | None = None,
        live: LiveModel | None = None,
    ) -> None:
        """Replace a rollout's document and, in the same transaction, what is live."""
        with self.writing() as connection:
            now = self.clock()
            connection.execute(
                sa.update(schema.rollouts).where(schema.rollouts.c.id == id).values(document=document, settled=settled)
            )
            if live is not None:
                set_live(connection, live, now)
            if event is not None:
                write_event(connection, event)

    def rollout(self, id: str) -> dict[str, Any]:
        """A rollout's document; raises NotFound."""
        with self.reading() as connection:
            found = connection.execute(
                sa.select(schema.rollouts.c.document).where(schema.rollouts.c.id == id)
            ).one_or_none()
        if found is None:
            raise NotFound("unknown rollout", got=id, expected="a rollout of this region")
        return dict(found.document)

    def rollouts_under_way(self) -> list[dict[str, Any]]:
        """Documents of those that are not settled, in the order in which they were ordered."""
        return list(self.remember("rollouts under way", self._rollouts_under_way))

    def _rollouts_under_way(self) -> list[dict[str, Any]]:
        table = schema.rollouts
        query = sa.select(table.c.document).where(sa.not_(table.c.settled)).order_by(table.c.ordered_at, table.c.id)
        with self.reading() as connection:
            return [dict(row.document) for row in connection.execute(query)]

    def newest_rollouts(self, *, model: str | None = None, limit: int = 50) -> list[dict[str, Any]]:
        """Documents, newest first."""
        table = schema.rollouts
        query = sa.select(table.c.document).order_by(table.c.ordered_at.desc(), table.c.id).limit(limit)
        if model is not None:
            query = query.where(table.c.model == model)
        with self.reading() as connection:
            return [dict(row.document) for row in connection.execute(query)]

    # Promotions: the home region's part

    def add_promotion(self, id: str, release: Release, document: Callable[[int], dict[str, Any]], event: Event) -> bool:
        """Record an order; `document(version)` makes its first state. False when the id is there already.

        Raises Conflict when the model has a running promotion or the release id another content.
        """
        table = schema.promotions
        with self.writing() as connection:
            if connection.execute(sa.select(table.c.id).where(table.c.id == id)).one_or_none() is not None:
                return False
            running = connection.execute(
                sa.select(table.c.id).where(table.c.model == release.model, table.c.running)
            ).scalar()
            if running is not None:
                raise Conflict(
                    f"model {release.model} has a promotion that is still running",
                    got=running,
                    expected="none: order again when it has finished, or abort it",
                )
            now = self.clock()
            version = add_release(connection, release, None, now)
            connection.execute(
                sa.insert(table).values(
                    id=id,
                    model=release.model,
                    release_id=release.id,
                    running=True,
                    ordered_at=now,
                    document=document(version),
                )
            )
            write_event(connection, event)
        return True

    def save_promotion(self, id: str, document: dict[str, Any], *, running: bool, events: list[Event]) -> None:
        with self.writing() as connection:
            connection.execute(
                sa.update(schema.promotions)
                .where(schema.promotions.c.id == id)
                .values(document=document, running=running)
            )
            for event in events:
                write_event(connection, event)

    def promotion(self, id: str) -> dict[str, Any]:
        """A promotion's document; raises NotFound."""
        with self.reading() as connection:
            found = connection.execute(
                sa.select(schema.promotions.c.document).where(schema.promotions.c.id == id)
            ).one_or_none()
        if found is None:
            raise NotFound("unknown promotion", got=id, expected="an id that was ordered here")
        return dict(found.document)

    def promotions(self, *, model: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """Documents, newest first."""
        table = schema.promotions
        query = sa.select(table.c.document).order_by(table.c.ordered_at.desc(), table.c.id).limit(limit)
        if model is not None:
            query = query.where(table.c.model == model)
        with self.reading() as connection:
            return [dict(row.document) for row in connection.execute(query)]

    # Journal and overrides

    def write(self, event: Event) -> None:
        with self.writing() as connection:
            write_event(connection, event)

    def events(
        self, *, since: int = 0, kind: str | None = None, subject: str | None = None, limit: int = 500
    ) -> list[dict[str, Any]]:
        """Journal entries after `since`, oldest first."""
        table = schema.journal
        query = sa.select(table).where(table.c.seq > since).order_by(table.c.seq).limit(limit)
        if kind is not None:
            query = query.where(table.c.kind == kind)
        if subject is not None:
            query = query.where(table.c.subject == subject)
        with self.reading() as connection:
            return [dict(row._mapping) for row in connection.execute(query)]

    def override(self, name: str) -> dict[str, Any] | None:
        table = schema.overrides
        with self.reading() as connection:
            value = connection.execute(sa.select(table.c.value).where(table.c.name == name)).scalar()
        return None if value is None else dict(value)

    def set_override(self, name: str, value: dict[str, Any], event: Event) -> None:
        table = schema.overrides
        with self.writing() as connection:
            connection.execute(sa.delete(table).where(table.c.name == name))
            connection.execute(sa.insert(table).values(name=name, value=value))
            write_event(connection, event)


def give_version(connection: sa.Connection, release: Release, version: int) -> None:
    """Make room for a release's number, which another one may have got from a home region that was cut off."""
    table = schema.releases
    mine = sa.and_(table.c.model == release.model, table.c.version == version)
    holder = connection.execute(sa.select(table.c.id).where(mine)).scalar()
    if holder == release.id:
        return
    if holder is not None:
        free = next_version(connection, release.model)
        connection.execute(sa.update(table).where(table.c.id == holder).values(version=free))
        said = f"version {version} is {release.id}'s, as the home region numbers it; {holder} is version {free} here"
        detail = {"model": release.model, "version": version, "release": release.id, "was": holder, "now": free}
        write_event(connection, Event(kind="home", subject=release.model, message=said, detail=detail))
    connection.execute(sa.update(table).where(table.c.id == release.id).values(version=version))


def next_version(connection: sa.Connection, model: str) -> int:
    newest = sa.select(sa.func.max(schema.releases.c.version)).where(schema.releases.c.model == model)
    return int(connection.execute(newest).scalar() or 0) + 1


def add_release(connection: sa.Connection, release: Release, version: int | None, now: float) -> int:
    table = schema.releases
    row = connection.execute(sa.select(table).where(table.c.id == release.id)).one_or_none()
    if row is not None:
        if release_of(row) != release or version not in (None, row.version):
            raise Conflict(
                f"release {release.id} is known with other content",
                got=release.to_json() | {"version": version},
                expected=release_of(row).to_json() | {"version": row.version},
            )
        return int(row.version)
    if version is None:
        version = next_version(connection, release.model)
    values = release.to_json()
    values["digest"] = values.pop("bundle_digest")
    try:
        connection.execute(sa.insert(table).values(**values, version=version, created_at=now))
    except sa.exc.IntegrityError as taken:
        raise Conflict(
            f"version {version} of model {release.model} belongs to another release",
            got=release.id,
            expected="one home region that numbers versions",
        ) from taken
    return version


def release_of(row: Any) -> Release:
    return Release(
        id=row.id,
        model=row.model,
        bundle_digest=row.digest,
        store_uri=row.store_uri,
        runtime=RuntimeSpec.from_document(row.runtime),
    )


def set_live(connection: sa.Connection, live: LiveModel, now: float) -> None:
    """Replace what is live of a model, and remember it if it is another release."""
    table, history = schema.live_models, schema.live_history
    before = connection.execute(sa.select(table.c.release_id).where(table.c.model == live.model)).scalar()
    connection.execute(sa.delete(table).where(table.c.model == live.model))
    values = {"model": live.model, "release_id": live.release_id, "previous_release_id": live.previous_release_id}
    standby = {"standby_release_id": live.standby, "standby_until": live.standby_until}
    connection.execute(sa.insert(table).values(**values, **standby, reason=live.reason, updated_at=now))
    if live.release_id is not None and live.release_id != before:
        connection.execute(sa.insert(history).values(**values, at=now))


def write_event(connection: sa.Connection, event: Event) -> None:
    connection.execute(
        sa.insert(schema.journal).values(
            at=time.time(), kind=event.kind, subject=event.subject, message=event.message, detail=event.detail
        )
    )
