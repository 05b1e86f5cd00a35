"""Rollbacks that a region's own agent takes for its region, home or no home; the home region hears of them later.

An operator in a region that is cut off must not wait for the home agent. What is ordered here is for this region alone,
and is acknowledged once this region's registry has it. When it has ended it is told to the home agent, until that has
it in its registry too: there it stands as any other rollback.
"""

from collections.abc import Mapping
from typing import Any, Protocol

from serving.errors import Conflict, Fenced, NotFound
from serving.regions.acting.rollback_worker import RollbackWorker
from serving.regions.deciding.rollback_order import Asked, read_asked, show_regional
from serving.regions.deciding.rollback_state import Rollback, read_rollback
from serving.regions.registry import schema
from serving.regions.registry.epochs import EpochStore
from serving.regions.registry.registry import Registry
from serving.regions.registry.rollback_store import RollbackStore
from serving.releases import check_name


class HomePort(Protocol):
    """The home region's agent."""

    async def report_rollback(self, id: str, report: dict[str, Any]) -> dict[str, Any]: ...


class RegionalRollbacks:
    """The rollbacks that were ordered at this region's agent."""

    def __init__(
        self,
        region: str,
        *,
        registry: Registry,
        epochs: EpochStore,
        worker: RollbackWorker,
        homes: Mapping[str, HomePort],
    ) -> None:
        """`homes`: the agent of each region, this one's leader too: each may be the home region's."""
        self._region = region
        self._registry = registry
        self._epochs = epochs
        self._store = RollbackStore(registry, schema.rollbacks)
        self._worker = worker
        self._homes = homes

    async def order(self, id: str, raw: dict[str, Any], *, actor: str) -> tuple[dict[str, Any], bool]:
        """Take an order for this region, or find it again: its present state, and whether it is new.

        Raises as the home agent's `order`, and Conflict for an order that is not for this region alone.
        """
        check_name("rollback id", id)
        if raw.get("regions") != [self._region]:
            home = (await self._registry.run(self._epochs.present)).home
            raise Fenced(
                "rollbacks of other regions are led by the home region's agent",
                got=self._region,
                expected=f'{home}, or "regions": ["{self._region}"] for this region alone',
            )
        asked = read_asked(raw, [self._region])
        known = await self._registry.run(self._store.find, id)
        if known is None:
            order = await self._registry.run(self._region_order, asked, actor)
            await self._worker.order_here(id, order)
        elif known["order"].get("asked") != asked.to_json():
            raise Conflict(f"rollback {id} was ordered with other content", got=raw, expected=known["order"])
        return await self.show(id), known is None

    def _region_order(self, asked: Asked, actor: str) -> dict[str, Any]:
        """What the home agent would have sent, with the order itself, so that it can be told there."""
        live = self._registry.live(asked.model)
        tried = [d for d in self._registry.rollouts_under_way() if d["release"]["model"] == asked.model]
        running = [d for d in tried if d["state"] != "live"]
        return {
            "schema_version": 1,
            "model": asked.model,
            "release": asked_release(self._registry, asked),
            "bad": running[0]["release"]["id"] if running else None if live is None else live.release_id,
            "reason": asked.reason,
            "supersedes": [f"promotion/{document['id']}" for document in tried],
            "asked": asked.to_json(),
            "actor": actor,
        }

    async def show(self, id: str) -> dict[str, Any]:
        """Raises NotFound."""
        part = await self._worker.get_region_rollback(id)
        return show_regional(await self._registry.run(self._read, id), part)

    async def newest(self, model: str | None) -> list[dict[str, Any]]:
        documents = await self._registry.run(self._store.newest, model=model)
        return [await self.show(str(document["id"])) for document in documents if "asked" in document["order"]]

    def _read(self, id: str) -> Rollback:
        return read_rollback(self._store.read(id))

    async def report(self) -> None:
        """Tell the home agent what has ended here and it does not know yet; raises what the call raises."""
        home = self._homes.get((await self._registry.run(self._epochs.present)).home)
        if home is None:
            # A region that joined later, of which this agent has not been told.
            return
        for rollback in await self._registry.run(self._unreported):
            part = await self._worker.get_region_rollback(rollback.id)
            told = {name: rollback.order[name] for name in ("asked", "actor", "bad", "supersedes")}
            told |= {"region": self._region, "ordered_at": rollback.ordered_at, "part": part}
            await home.report_rollback(rollback.id, told)
            await self._registry.run(self._worker.note_reported, rollback.id)

    def _unreported(self) -> list[Rollback]:
        newest = (read_rollback(document) for document in self._store.newest())
        return [r for r in newest if "asked" in r.order and r.settled and not r.reported]


def asked_release(registry: Registry, asked: Asked) -> str | None:
    """The release that an order names, by itself or by its version; raises NotFound for one that is not the model's."""
    release = asked.release
    if asked.version is not None:
        release = registry.find_version(asked.model, asked.version)
    if release is not None and registry.release(release)[0].model != asked.model:
        known = ", ".join(registry.been_live(asked.model)[-10:])
        raise NotFound(f"unknown release of model {asked.model}", got=release, expected=known)
    return release
