"""What people and programs may ask of promotions, at the home region: order, pause, resume, promote, abort, retry.

An order is acknowledged once it is committed; `promotion_leader.py` leads it from then on. Each carries its actor.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, Protocol

from serving.errors import Conflict
from serving.regions.acting.threads import InThread, in_own_thread
from serving.regions.deciding.promotion_state import (
    RUNNING,
    Order,
    Promotion,
    end,
    read_order,
    same_order,
    show_promotion,
)
from serving.regions.deciding.rollout_state import ABORTED, LIVE
from serving.regions.leading.promotion_store import PromotionStore
from serving.regions.places.topology import Topology
from serving.regions.registry.epochs import Epoch
from serving.regions.registry.registry import Event, Registry
from serving.regions.servers.commands import check_runtime
from serving.releases import LONGEST_NAME, check_name
from serving.store import ArtifactStore

OVERRIDE: Final = "promotions"


class Rollbacks(Protocol):
    """What a promotion must know of rollbacks, which win over it."""

    def refuse_promotion(self, model: str) -> None:
        """Raises Conflict while a rollback of the model is running."""
        ...

    def forget_debts(self, model: str, regions: list[str]) -> None:
        """Those of the regions that missed a rollback follow the promotion that comes now."""
        ...


class Leading(Protocol):
    def lead(self, id: str) -> None:
        """See to it that the promotion is led to its end, if it was taken."""
        ...

    def followed(self, id: str) -> None:
        """Somebody asked how it is doing."""
        ...


class PromotionOrders:
    """Promotions as the API offers them."""

    def __init__(
        self,
        topology: Topology,
        *,
        registry: Registry,
        require: Callable[[], Epoch],
        runtimes: Mapping[str, list[str]],
        rollbacks: Rollbacks,
        leading: Leading,
        clock: Callable[[], float] = time.time,
        in_thread: InThread = in_own_thread,
    ) -> None:
        self._topology = topology
        self._registry = registry
        self._require = require
        self._store = PromotionStore(registry)
        self._runtimes = runtimes
        self._rollbacks = rollbacks
        self._leading = leading
        self._clock = clock
        self._in_thread = in_thread

    async def order(self, id: str, raw: dict[str, Any], *, actor: str) -> tuple[dict[str, Any], bool]:
        """Take an order, or find it again: its present state, and whether it is new.

        Raises InvalidInput, NotFound (no such bundle), or Conflict: other content under this id, a promotion of
        the model that is still running, or promotions that are frozen.
        """
        check_name("promotion id", id)
        order = read_order(raw, [region.name for region in self._topology.regions])
        known = await self._registry.run(self._store.find, id)
        if known is not None:
            self._leading.followed(id)
            return self._again(known, order), False
        return await self._accept(id, order, actor, f"ordered by {actor}")

    async def _accept(self, id: str, order: Order, actor: str, message: str) -> tuple[dict[str, Any], bool]:
        await self._registry.run(self._refuse_when_frozen)
        await self._check_bundle(order)
        self._check_scorer(order)
        try:
            return await self._registry.run(self._record, id, order, actor, message)
        finally:
            # A registry that did not answer may have committed it.
            self._leading.lead(id)

    def _record(self, id: str, order: Order, actor: str, message: str) -> tuple[dict[str, Any], bool]:
        epoch = self._require()
        self._refuse_when_frozen()
        self._rollbacks.refuse_promotion(order.release.model)
        now, attempt = self._clock(), 1 + self._attempts(order)

        def first_state(version: int) -> dict[str, Any]:
            return Promotion(
                id=id,
                release=order.release,
                version=version,
                policy=order.policy,
                regions=order.regions,
                ordered_at=now,
                actor=actor,
                attempt=attempt,
                ordered_in=epoch,
            ).to_json()

        detail = {"state": RUNNING, "region": None, "actor": actor}
        event = Event(kind="promotion", subject=id, message=message, detail=detail)
        new = self._registry.add_promotion(id, order.release, first_state, event)
        if not new:
            return self._again(self._store.read(id), order), False
        self._rollbacks.forget_debts(order.release.model, order.regions)
        return self._show(id), True

    def _attempts(self, order: Order) -> int:
        """How often this release was promoted before."""
        earlier = self._store.newest(order.release.model, limit=1000)
        return max((p.attempt for p in earlier if p.release.id == order.release.id), default=0)

    def _again(self, known: Promotion, order: Order) -> dict[str, Any]:
        if not same_order(known, order):
            raise Conflict(
                f"promotion {known.id} was ordered with other content",
                got=order.release.to_json(),
                expected=known.release.to_json(),
            )
        return show_promotion(known)

    def _refuse_when_frozen(self) -> None:
        override = self._registry.override(OVERRIDE)
        if override is not None and override["frozen"]:
            raise Conflict("promotions are frozen", got=override["reason"], expected="an operator to lift the override")

    async def _check_bundle(self, order: Order) -> None:
        release = order.release
        check_runtime(release.runtime, self._runtimes)
        store = ArtifactStore(release.store_uri)
        manifest = await self._in_thread(lambda: store.read_manifest(release.bundle_digest))
        manifest.variant(release.runtime.variant)

    def _check_scorer(self, order: Order) -> None:
        """A scorer is code that runs in the agent's region: only one that the topology names."""
        scorer = order.policy.completion_scorer
        if scorer and scorer not in self._topology.scorers:
            raise Conflict(
                "completion_scorer is none of this topology's",
                got=scorer,
                expected=" | ".join(self._topology.scorers) or "`scorers:` in the topology file to name it",
            )

    async def show(self, id: str) -> dict[str, Any]:
        """The promotion as users see it; asking counts as following."""
        shown = await self._registry.run(self._show, id)
        self._leading.followed(id)
        return shown

    def _show(self, id: str) -> dict[str, Any]:
        return show_promotion(self._store.read(id))

    async def newest(self, model: str | None) -> list[dict[str, Any]]:
        promotions = await self._registry.run(self._store.newest, model)
        return [show_promotion(promotion) for promotion in promotions]

    async def running(self, id: str) -> bool:
        return (await self._registry.run(self._store.read, id)).state == RUNNING

    # While it runs

    async def abort(self, id: str, *, actor: str) -> dict[str, Any]:
        """Take the promotion back; one that has finished stays as it is."""
        return await self._registry.run(self._abort, id, actor)

    def _abort(self, id: str, actor: str) -> dict[str, Any]:
        self._require()
        promotion = self._store.read(id)
        if promotion.state == RUNNING and promotion.ending is None:
            reason = f"aborted by {actor}"
            self._store.save(end(promotion, ABORTED, reason), [f"aborting: {reason}"], actor=actor)
        return self._show(id)

    async def pause(self, id: str, *, actor: str) -> dict[str, Any]:
        """Let the present weights stay; gates that fail take them back all the same. Conflict once it is over."""
        return await self._registry.run(self._pause, id, actor)

    def _pause(self, id: str, actor: str) -> dict[str, Any]:
        promotion = self._running(id, "paused")
        if not promotion.paused:
            self._store.save(replace(promotion, paused=True), [f"paused by {actor}"], actor=actor)
        return self._show(id)

    async def resume(self, id: str, *, actor: str) -> dict[str, Any]:
        return await self._registry.run(self._resume, id, actor)

    def _resume(self, id: str, actor: str) -> dict[str, Any]:
        promotion = self._running(id, "resumed")
        if promotion.paused:
            self._store.save(replace(promotion, paused=False), [f"resumed by {actor}"], actor=actor)
        return self._show(id)

    async def promote(self, id: str, *, actor: str) -> dict[str, Any]:
        """Wait for no more evidence, in this region and those that follow; gates that fail still count."""
        return await self._registry.run(self._promote, id, actor)

    def _promote(self, id: str, actor: str) -> dict[str, Any]:
        promotion = self._running(id, "promoted")
        if promotion.promoted_by is None:
            promoted = replace(promotion, promoted_by=actor, paused=False)
            self._store.save(promoted, [f"promoted without waiting for more evidence by {actor}"], actor=actor)
        return self._show(id)

    def _running(self, id: str, what: str) -> Promotion:
        self._require()
        promotion = self._store.read(id)
        if promotion.state != RUNNING or promotion.ending is not None:
            raise Conflict(
                f"promotion {id} cannot be {what}",
                got=promotion.ending or promotion.state,
                expected="one that is running and not being taken back",
            )
        return promotion

    # Once it has failed

    async def retry(self, id: str, *, actor: str) -> tuple[dict[str, Any], bool]:
        """Order the same again under an id of its own: no training, no new release. Conflict unless it failed.

        The new id is the release's with the number of the attempt, so that a repeated call while it runs is refused
        instead of ordering a third.
        """
        new_id, order, message = await self._registry.run(self._retried, id, actor)
        return await self._accept(new_id, order, actor, message)

    def _retried(self, id: str, actor: str) -> tuple[str, Order, str]:
        """Id, order and message of the next attempt."""
        failed = self._store.read(id)
        self._refuse_older(failed)
        if failed.state in (RUNNING, LIVE) or failed.owed:
            raise Conflict(
                f"promotion {id} is not to be tried again", got=failed.state, expected="one that was taken back"
            )
        known = [region.name for region in self._topology.regions]
        gone = [region for region in failed.regions if region not in known]
        if gone:
            raise Conflict(f"promotion {id} names regions that are gone", got=gone, expected=" | ".join(known))
        order = Order(release=failed.release, policy=failed.policy, regions=failed.regions)
        attempt = 1 + self._attempts(order)
        message = f"attempt {attempt} of {failed.release.id}, ordered by {actor}"
        return self._free_id(failed.release.id, attempt), order, message

    def _refuse_older(self, failed: Promotion) -> None:
        """What failed long ago must not replace what went live since, unless somebody orders just that."""
        newer = [p for p in self._store.newest(failed.release.model) if p.state == LIVE and p.version > failed.version]
        if newer:
            raise Conflict(
                f"promotion {failed.id} is older than what is live",
                got=f"version {failed.version}, and {newer[0].id} went live with version {newer[0].version}",
                expected="a rollback to the older version, or a promotion of its release under another id",
            )

    def _free_id(self, release: str, number: int) -> str:
        """Not that of another release, which may be called so; cut to what a name may be."""
        while True:
            suffix = f".{number}"
            id = release[: LONGEST_NAME - len(suffix)].rstrip(".-") + suffix
            if self._store.find(id) is None:
                return id
            number += 1
