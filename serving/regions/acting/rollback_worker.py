"""Carries out this region's rollbacks. They wait for nothing: a rollout of the model that is under way ends at once.

One worker per model, apart from the rollouts' worker, which may be busy with a slow effect. A new state is
committed before anything acts on it; killed at any point, the next agent goes on from the registry.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from serving.counters import Snapshot
from serving.errors import Conflict
from serving.regions.acting.metrics import AgentMetrics
from serving.regions.acting.serving_state import ServingState
from serving.regions.acting.worker import Worker
from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.deciding.rollback_state import (
    Act,
    Keep,
    RegionOrder,
    Rollback,
    Seen,
    bad_backends,
    decide_rollback,
    find_target,
    overrule_rollback,
    read_region_order,
    read_rollback,
    show_rollback,
    weights_in_force,
)
from serving.regions.deciding.rollout_document import read_rollout
from serving.regions.deciding.rollout_revert import overrule
from serving.regions.deciding.rollout_state import Rollout, Server
from serving.regions.deciding.timing import DEFAULT_TIMING, Timing
from serving.regions.places.topology import Region
from serving.regions.registry import schema
from serving.regions.registry.epochs import EpochStore
from serving.regions.registry.registry import Event, LiveModel, Registry
from serving.regions.registry.rollback_store import Ended, RollbackStore
from serving.regions.servers.launcher import Launcher
from serving.releases import check_name

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class _BadAnswers:
    """How many requests the replaced servers had finished, and when that was last seen to grow."""

    boot_id: str
    finished: int
    grew_at: float | None = None


class RollbackWorker(Worker):
    """The rollbacks of one region."""

    def __init__(
        self,
        region: Region,
        *,
        registry: Registry,
        launcher: Launcher,
        serving: ServingState,
        metrics: AgentMetrics,
        epochs: EpochStore,
        timing: Timing = DEFAULT_TIMING,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__("rollback", registry=registry, retry_s=timing.rollback_retry_s)
        self._timing = timing
        self._region = region
        self._store = RollbackStore(registry, schema.rollbacks)
        self._launcher = launcher
        self._serving = serving
        self._metrics = metrics
        self._epochs = epochs
        self._clock = clock
        self._bad_answers: dict[str, _BadAnswers] = {}

    # What is asked of the region

    async def put_region_rollback(self, id: str, raw: dict[str, Any]) -> dict[str, Any]:
        """Order a rollback in the home region's name; the same id and content answers the present state.

        Raises InvalidInput, NotFound (the region does not run the model), or Conflict: an order of an earlier epoch,
        other content under this id, no version before, a release that was never live here, or an order that a newer
        one has superseded.
        """
        content = {name: value for name, value in raw.items() if name != "epoch"}
        return await self._put(id, content, lambda: self._epochs.admit(raw.get("epoch"), what=f"rollback {id}"))

    async def order_here(self, id: str, raw: dict[str, Any]) -> dict[str, Any]:
        """The same in the region's own name, whoever leads."""
        return await self._put(id, raw, lambda: None)

    async def _put(self, id: str, raw: dict[str, Any], admit: Callable[[], None]) -> dict[str, Any]:
        check_name("rollback id", id)
        order = read_region_order(raw)
        try:
            return await self._registry.run(self._take_order, id, order, raw, admit)
        finally:
            # A registry that did not answer may have committed it.
            self._work_on(order.model)

    def _take_order(
        self, id: str, order: RegionOrder, raw: dict[str, Any], admit: Callable[[], None]
    ) -> dict[str, Any]:
        admit()
        known = self._store.find(id)
        if known is None:
            self._refuse_superseded(id, order.model)
            self._accept(id, order, raw)
        elif known["order"] != raw:
            raise Conflict(f"rollback {id} was ordered with other content", got=raw, expected=known["order"])
        return self._show(id)

    async def get_region_rollback(self, id: str) -> dict[str, Any]:
        return await self._registry.run(self._show, id)

    def _show(self, id: str) -> dict[str, Any]:
        return show_rollback(self._read(id), endpoint=self._region.gateway_url)

    def superseding_promotion(self, id: str, model: str) -> str | None:
        """The rollback that ended a promotion, even if the promotion's order arrives here only afterwards."""
        return self._superseding(f"promotion/{id}", model)

    def _superseding(self, ended: str, model: str) -> str | None:
        for document in self._store.newest(model=model):
            if ended in document["order"]["supersedes"]:
                return str(document["id"])
        return None

    def _refuse_superseded(self, id: str, model: str) -> None:
        by = self._superseding(f"rollback/{id}", model)
        if by is not None:
            raise Conflict(
                f"rollback {id} comes too late", got=f"it was superseded by {by}", expected="the newest order"
            )

    def _accept(self, id: str, order: RegionOrder, raw: dict[str, Any]) -> None:
        """Resolve the order and commit it together with the end of everything else that is under way."""
        now, live = self._clock(), self._registry.live(order.model)
        documents = [d for d in self._registry.rollouts_under_way() if d["release"]["model"] == order.model]
        rollouts = [read_rollout(document) for document in documents]
        target = find_target(order, live, been_live=self._registry.been_live(order.model), ends_rollouts=bool(rollouts))
        rollback = self._make(id, order, raw, live, target, rollouts)
        by = f"rollback {id}: {order.reason}"
        ended = [overrule(rollout, by, now) for rollout in rollouts]
        others = [overrule_rollback(read_rollback(d), id, now) for d in self._store.under_way(model=order.model)]
        details = {"region": self._region.name, "model": order.model}
        events = [
            Event(kind="rollout", subject=r.id, message=f"ended by {by}", detail={**details, "state": r.state})
            for r in ended
        ]
        events += [Event(kind="rollback", subject=o.id, message=f"superseded by {by}", detail=details) for o in others]
        self._store.add(
            id,
            order.model,
            rollback.to_json(),
            rollouts=[Ended(id=rollout.id, document=rollout.to_json()) for rollout in ended],
            rollbacks=[Ended(id=other.id, document=other.to_json()) for other in others],
            events=[*events, self._event(rollback, f"ordered: back to {target or 'nothing'}, {order.reason}")],
        )

    def _make(
        self,
        id: str,
        order: RegionOrder,
        raw: dict[str, Any],
        live: LiveModel | None,
        target: str | None,
        rollouts: list[Rollout],
    ) -> Rollback:
        present = None if live is None else live.release_id
        others = [d["replaced"] + [d["release"]] for d in self._store.under_way(model=order.model)]
        running = [present, *(name for rollout in rollouts for name in (rollout.release.id, rollout.previous))]
        running += [name for names in others for name in names]
        policy = self._policy(order.model)
        return Rollback(
            id=id,
            region=self._region.name,
            model=order.model,
            order=raw,
            reason=order.reason,
            release=target,
            version=self._version(target),
            replaced=sorted({name for name in running if name is not None and name != target}),
            replaced_version=self._version(present),
            changed=target != present,
            drain_s=policy.drain_s,
            start_timeout_s=policy.start_timeout_s,
            warm=target is not None and self._launcher.status(target).state is Server.READY,
            ordered_at=self._clock(),
        )

    def _version(self, release_id: str | None) -> int | None:
        return None if release_id is None else self._registry.release(release_id)[1]

    def _policy(self, model: str) -> PromotionPolicy:
        """How long servers may drain and start: as in the model's latest rollout here."""
        newest = self._registry.newest_rollouts(model=model, limit=1)
        return PromotionPolicy.from_peer(newest[0]["policy"]) if newest else PromotionPolicy()

    # Workers

    def under_way(self) -> list[Rollback]:
        return [read_rollback(document) for document in self._store.under_way()]

    def _models_under_way(self) -> list[str]:
        return [document["model"] for document in self._store.under_way()]

    def _next(self, model: str) -> str | None:
        return next((str(document["id"]) for document in self._store.under_way(model=model)), None)

    async def _advance(self, id: str) -> None:
        stats = await self._serving.stats((await self._registry.run(self._read, id)).model)
        decided = await self._registry.run(self._decide, id, stats)
        if decided is not None:
            await self._act(*decided)

    def _decide(self, id: str, stats: Snapshot | None) -> tuple[Rollback, Act] | None:
        """What is to be done to the world, if anything; a new state is saved here, in one section with its reading."""
        rollback = self._read(id)
        if rollback.settled:
            return None
        self._count_bad_answers(rollback, stats)
        action = decide_rollback(rollback, self._observe(rollback, stats), self._clock())
        if not isinstance(action, Keep):
            return rollback, action
        self._save(action.rollback, action.message, action.live)
        return None

    def _observe(self, rollback: Rollback, stats: Snapshot | None) -> Seen:
        if rollback.release is None:
            return Seen(stats=stats)
        status = self._launcher.status(rollback.release)
        return Seen(
            target=status.state,
            note=status.note,
            degraded=status.degraded,
            before_target=self._registry.release_before(rollback.release),
            stats=stats,
        )

    def _count_bad_answers(self, rollback: Rollback, stats: Snapshot | None) -> None:
        """Exact to the interval at which the worker looks."""
        if stats is None:
            return
        finished = sum(stats.of(name).requests for name in bad_backends(rollback))
        known = self._bad_answers.get(rollback.id)
        if known is None or known.boot_id != stats.boot_id:
            grew_at = None if known is None else known.grew_at
            self._bad_answers[rollback.id] = _BadAnswers(stats.boot_id, finished, grew_at)
        elif finished > known.finished:
            known.finished, known.grew_at = finished, self._clock()

    async def _act(self, rollback: Rollback, act: Act) -> None:
        if act is Act.LAUNCH and rollback.release is not None:
            await self._serving.prepare_again(rollback.release)
            await self._serving.launch(rollback.release, restart=True)
        elif act is Act.SHIFT_WEIGHTS:
            await self._serving.push(rollback.model)
            await self._registry.run(self._note_weights, rollback.id)
        elif act is Act.STOP_REPLACED:
            await self._stop_replaced(rollback)
        else:
            await asyncio.sleep(self._timing.rollback_poll_s)

    def _note_weights(self, id: str) -> None:
        now = weights_in_force(self._read(id), self._clock())
        if not now.settled:
            self._save(now, "the weights are in force")

    async def _stop_replaced(self, rollback: Rollback) -> None:
        keep = await self._registry.run(self._serving.wanted, without=rollback.id)
        leaving = [name for name in [*rollback.replaced, rollback.release] if name is not None and name not in keep]
        await asyncio.gather(*(self._launcher.stop(name) for name in leaving))
        await self._registry.run(self._settle, rollback.id)

    def _settle(self, id: str) -> None:
        now = self._read(id)
        if not now.settled:
            bad = self._bad_answers.pop(id, None)
            done = replace(now, settled=True, last_bad_answer_at=None if bad is None else bad.grew_at)
            self._save(done, "settled")
            self._metrics.rollback_settled(done)

    def note_reported(self, id: str) -> None:
        """The home region knows of it."""
        self._save(replace(self._read(id), reported=True), "told to the home region")

    # Persistence

    def _read(self, id: str) -> Rollback:
        return read_rollback(self._store.read(id))

    def _save(self, rollback: Rollback, message: str, live: LiveModel | None = None) -> None:
        event = self._event(rollback, message)
        self._store.save(rollback.id, rollback.to_json(), open=not rollback.settled, event=event, live=live)
        logger.info("rollback %s: %s", rollback.id, message)

    def _event(self, rollback: Rollback, message: str) -> Event:
        detail = {"region": rollback.region, "model": rollback.model, "release": rollback.release}
        detail |= {"state": rollback.state, "reason": rollback.failure}
        return Event(kind="rollback", subject=rollback.id, message=message, detail=detail)
