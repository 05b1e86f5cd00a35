"""The home agent's part: takes orders, leads each promotion through its regions, takes it back when it fails.

An order is acknowledged once it is committed. From then on it finishes or is taken back whether or not
anybody follows it; a home agent that starts again goes on with what its registry holds.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

from serving.errors import Conflict, FlightpathError, NotFound, PermanentError
from serving.regions.acting.metrics import AgentMetrics
from serving.regions.deciding.promotion_state import (
    RUNNING,
    Move,
    Next,
    Order,
    Promotion,
    decide_promotion,
    end,
    finish,
    is_taken_back,
    read_order,
    read_promotion,
    same_order,
    show_promotion,
    unasked,
)
from serving.regions.deciding.rollout_state import ABORTED, LIVE, ROLLED_BACK
from serving.regions.places.topology import Topology
from serving.regions.registry.registry import Event, Registry
from serving.regions.servers.commands import check_runtime
from serving.releases import check_name
from serving.store import ArtifactStore

logger = logging.getLogger(__name__)
OVERRIDE: Final = "promotions"


class Rollbacks(Protocol):
    """What a promotion must know of rollbacks, which win over it."""

    def refuse_promotion(self, model: str) -> None:
        """Raises Conflict while a rollback of the model is running."""
        ...

    def forget_debts(self, model: str) -> None:
        """Regions that missed a rollback follow the promotion that comes now."""
        ...


class RegionPort(Protocol):
    """A region's rollouts: its agent's client, or the home region's own."""

    async def put_rollout(self, id: str, order: dict[str, Any]) -> dict[str, Any]: ...

    async def get_rollout(self, id: str) -> dict[str, Any]: ...

    async def revert_rollout(self, id: str, reason: str) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class PromotionLeaderSettings:
    poll_s: float = 0.25
    """How often a region is asked how its rollout is doing."""
    first_backoff_s: float = 0.5
    """Delay after a region did not answer; doubled up to `max_backoff_s`."""
    max_backoff_s: float = 5.0
    owed_every_s: float = 5.0
    """How often regions that were away when they were to be taken back are told again."""


class PromotionLeader:
    """Promotions of the home region. Call `resume` once, `close` at the end."""

    def __init__(
        self,
        topology: Topology,
        *,
        registry: Registry,
        regions: Mapping[str, RegionPort],
        metrics: AgentMetrics,
        runtimes: Mapping[str, list[str]],
        rollbacks: Rollbacks,
        settings: PromotionLeaderSettings | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._topology = topology
        self._registry = registry
        self._regions = regions
        self._metrics = metrics
        self._runtimes = runtimes
        self._rollbacks = rollbacks
        self._settings = settings or PromotionLeaderSettings()
        self._clock = clock
        self._leaders: dict[str, asyncio.Task[None]] = {}
        self._followed_at: dict[str, float] = {}
        self._silent_since: dict[tuple[str, str], float] = {}

    # Orders

    async def order(self, id: str, raw: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """Take an order, or find it again: its present state, and whether it is new.

        Raises InvalidInput, NotFound (no such bundle), or Conflict: other content under this id, a promotion of
        the model that is still running, or promotions that are frozen.
        """
        check_name("promotion id", id)
        order = read_order(raw, [region.name for region in self._topology.regions])
        known = self._find(id)
        if known is not None:
            return self._again(known, order), False
        self._refuse_when_frozen()
        await self._check_bundle(order)
        self._rollbacks.refuse_promotion(order.release.model)
        now = self._clock()

        def first_state(version: int) -> dict[str, Any]:
            return Promotion(
                id=id,
                release=order.release,
                version=version,
                policy=order.policy,
                regions=order.regions,
                ordered_at=now,
            ).to_json()

        event = Event(kind="promotion", subject=id, message="ordered", detail={"state": RUNNING, "region": None})
        new = self._registry.add_promotion(id, order.release, first_state, event)
        if not new:
            return self._again(self._read(id), order), False
        self._rollbacks.forget_debts(order.release.model)
        self._lead(id)
        return self.show(id), True

    def _again(self, known: Promotion, order: Order) -> dict[str, Any]:
        if not same_order(known, order):
            raise Conflict(
                f"promotion {known.id} was ordered with other content",
                got=order.release.to_json(),
                expected=known.release.to_json(),
            )
        return self.show(known.id)

    def _refuse_when_frozen(self) -> None:
        override = self._registry.override(OVERRIDE)
        if override is not None and override["frozen"]:
            raise Conflict("promotions are frozen", got=override["reason"], expected="an operator to lift the override")

    async def _check_bundle(self, order: Order) -> None:
        release = order.release
        check_runtime(release.runtime, self._runtimes)
        manifest = await asyncio.to_thread(ArtifactStore(release.store_uri).read_manifest, release.bundle_digest)
        manifest.variant(release.runtime.variant)

    def show(self, id: str) -> dict[str, Any]:
        """The promotion as users see it; asking counts as following."""
        self._followed_at[id] = self._clock()
        return show_promotion(self._read(id))

    def newest(self, model: str | None) -> list[dict[str, Any]]:
        return [show_promotion(read_promotion(document)) for document in self._registry.promotions(model=model)]

    def running(self, id: str) -> bool:
        return self._read(id).state == RUNNING

    def abort(self, id: str) -> dict[str, Any]:
        """Take the promotion back; one that has finished stays as it is."""
        promotion = self._read(id)
        if promotion.state == RUNNING and promotion.ending is None:
            self._save(end(promotion, ABORTED, "aborted on request"), ["aborting on request"])
        return self.show(id)

    # Leading

    def resume(self) -> None:
        """Go on with what an earlier home agent left."""
        for document in self._registry.promotions(limit=10_000):
            promotion = read_promotion(document)
            if promotion.state == RUNNING or promotion.owed:
                self._lead(promotion.id)

    async def close(self) -> None:
        leaders = list(self._leaders.values())
        for leader in leaders:
            leader.cancel()
        await asyncio.gather(*leaders, return_exceptions=True)

    def _lead(self, id: str) -> None:
        self._followed_at.setdefault(id, self._clock())
        task = asyncio.create_task(self._lead_to_the_end(id), name=f"promotion {id}")
        self._leaders[id] = task
        task.add_done_callback(lambda _: self._leaders.pop(id, None))

    async def _lead_to_the_end(self, id: str) -> None:
        while (promotion := self._read(id)).state == RUNNING or promotion.owed:
            try:
                if promotion.state == RUNNING:
                    await self._step(promotion)
                else:
                    await self._pay_debts(promotion)
            except Exception:
                # A bug must not leave a promotion without anybody who leads it.
                logger.exception("promotion %s", id)
                await asyncio.sleep(self._settings.max_backoff_s)

    async def _step(self, promotion: Promotion) -> None:
        if self._is_abandoned(promotion):
            lease = f"nobody followed the promotion for {promotion.policy.follower_lease_s:g} s"
            self._save(end(promotion, ROLLED_BACK, lease), [lease])
            return
        step = decide_promotion(promotion)
        if step.move is Move.END:
            self._save(end(promotion, step.state, step.reason), [f"taking back: {step.reason}"])
        elif step.move is Move.FINISH:
            finished = finish(promotion, step.state, self._clock())
            self._save(finished, [step.state])
            self._metrics.promotion_finished(finished)
        else:
            await asyncio.gather(self._call(promotion, step), *(self._prepare(promotion.id, r) for r in step.ahead))

    def _is_abandoned(self, promotion: Promotion) -> bool:
        policy = promotion.policy
        if policy.on_follower_lost != "rollback" or promotion.ending is not None:
            return False
        return self._clock() - self._followed_at[promotion.id] > policy.follower_lease_s

    async def _call(self, promotion: Promotion, step: Next) -> None:
        """One call to a region and what its answer changes; its silence is borne up to the step timeout."""
        place = (promotion.id, step.region)
        self._expect(promotion.id, step.region)
        try:
            part = await self._ask(promotion, step)
        except FlightpathError as failure:
            if _is_refusal(self._read(promotion.id).parts[step.region], failure):
                self._refused(promotion.id, step.region, failure)
            else:
                self._silent_since.setdefault(place, self._clock())
                await self._bear_silence(promotion.id, step, failure)
            return
        self._silent_since.pop(place, None)
        self._note_part(promotion.id, part)
        if part["state"] not in (LIVE, ROLLED_BACK, ABORTED) or step.move is Move.TAKE_BACK:
            await asyncio.sleep(self._settings.poll_s)

    async def _ask(self, promotion: Promotion, step: Next) -> dict[str, Any]:
        region = self._regions[step.region]
        if step.move is Move.TAKE_BACK:
            return await region.revert_rollout(promotion.id, promotion.reason or "taken back")
        return await region.put_rollout(promotion.id, _rollout_order(promotion))

    async def _prepare(self, id: str, region: str) -> None:
        """Let a later region start its server and hold; its silence is borne when its turn comes."""
        self._expect(id, region)
        try:
            part = await self._regions[region].put_rollout(id, {**_rollout_order(self._read(id)), "hold": True})
        except FlightpathError as failure:
            if _is_refusal(self._read(id).parts[region], failure):
                self._refused(id, region, failure)
        else:
            self._note_part(id, part)

    def _expect(self, id: str, region: str) -> None:
        """Before the first call: a region that was asked but not heard must be taken back too."""
        promotion = self._read(id)
        if region not in promotion.parts:
            self._save(_with_part(promotion, unasked(promotion, region)), [])

    async def _bear_silence(self, id: str, step: Next, silence: FlightpathError) -> None:
        promotion = self._read(id)
        if promotion.state != RUNNING:
            return
        silent_s = self._clock() - self._silent_since[(id, step.region)]
        if silent_s <= promotion.policy.step_timeout_s:
            doubled = self._settings.first_backoff_s + silent_s
            await asyncio.sleep(min(self._settings.max_backoff_s, doubled))
            return
        self._silent_since.pop((id, step.region))
        if step.move is Move.TAKE_BACK:
            owed = replace(promotion, owed=[*promotion.owed, step.region])
            self._save(owed, [f"{step.region} does not answer; it is taken back later"])
        else:
            # The others are taken back at once; this one when it answers again.
            reason = f"{step.region} did not answer for {promotion.policy.step_timeout_s:g} s: {silence}"
            ended = end(promotion, ROLLED_BACK, reason)
            self._save(replace(ended, owed=[*ended.owed, step.region]), [reason])

    def _refused(self, id: str, region: str, refusal: FlightpathError) -> None:
        """A region that does not take the order, or knows nothing of it, has nothing to take back."""
        promotion = self._read(id)
        if promotion.state != RUNNING:
            return
        part = promotion.parts[region]
        refused = {**part, "state": ROLLED_BACK, "reason": f"{region}: {refusal}", "finished_at": self._clock()}
        self._save(_with_part(promotion, refused), [refused["reason"]])

    def _note_part(self, id: str, part: dict[str, Any]) -> None:
        """Keep what a region said, with a journal entry when it moved on."""
        promotion = self._read(id)
        if promotion.state != RUNNING:
            # As in the next two: a rollback ended it while the region was being asked.
            return
        if promotion.parts.get(part["region"]) != part:
            before = promotion.parts.get(part["region"])
            moved = before is None or _progress(before) != _progress(part)
            self._save(_with_part(promotion, part), [_describe(part)] if moved else [], part)

    async def _pay_debts(self, promotion: Promotion) -> None:
        """Tell regions that were away to take back what was finished without them."""
        for region in promotion.owed:
            try:
                part = await self._regions[region].revert_rollout(promotion.id, promotion.reason or "taken back")
            except NotFound:
                part = None
            except FlightpathError:
                continue
            if part is None or is_taken_back(part):
                promotion = self._read(promotion.id)
                paid = replace(promotion, owed=[name for name in promotion.owed if name != region])
                self._save(paid if part is None else _with_part(paid, part), [f"{region} is taken back"])
        await asyncio.sleep(self._settings.owed_every_s)

    # Persistence

    def _find(self, id: str) -> Promotion | None:
        try:
            return self._read(id)
        except NotFound:
            return None

    def _read(self, id: str) -> Promotion:
        return read_promotion(self._registry.promotion(id))

    def _save(self, promotion: Promotion, messages: list[str], part: dict[str, Any] | None = None) -> None:
        detail = {"state": promotion.state, "reason": promotion.reason, "region": None, **_part_detail(part)}
        events = [Event(kind="promotion", subject=promotion.id, message=m, detail=detail) for m in messages]
        running = promotion.state == RUNNING
        self._registry.save_promotion(promotion.id, promotion.to_json(), running=running, events=events)
        for message in messages:
            logger.info("promotion %s: %s", promotion.id, message)


def _rollout_order(promotion: Promotion) -> dict[str, Any]:
    release, policy = promotion.release.to_json(), promotion.policy.to_json()
    return {"schema_version": 1, "release": release, "version": promotion.version, "policy": policy}


def _with_part(promotion: Promotion, part: dict[str, Any]) -> Promotion:
    return replace(promotion, parts={**promotion.parts, part["region"]: part})


def _is_refusal(part: dict[str, Any], failure: FlightpathError) -> bool:
    """Whether the region holds nothing of the promotion; once it has taken the order, only its own word counts."""
    never_taken = part["started_at"] is None
    return isinstance(failure, NotFound) or (never_taken and isinstance(failure, PermanentError))


def _progress(part: dict[str, Any]) -> tuple[Any, ...]:
    finished = sum(step["finished_at"] is not None for step in part["steps"])
    return part["state"], part["percent"], part["reason"], finished


def _describe(part: dict[str, Any]) -> str:
    percent = f" {part['percent']} %" if part["state"] == "canary" else ""
    reason = f": {part['reason']}" if part["reason"] else ""
    return f"{part['region']}: {part['state']}{percent}{reason}"


def _part_detail(part: dict[str, Any] | None) -> dict[str, Any]:
    if part is None:
        return {}
    finished = [step for step in part["steps"] if step["finished_at"] is not None]
    known = {"region": part["region"], "region_state": part["state"], "percent": part["percent"]}
    return {**known, "region_reason": part["reason"], "step": finished[-1] if finished else None}
