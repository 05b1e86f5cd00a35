"""The home agent's part: leads each promotion through its regions, and takes it back when it fails.

An order that was committed finishes or is taken back whether or not anybody follows it; a home agent that starts
again goes on with what its registry holds.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from serving.errors import FlightpathError, NotFound, Unreachable
from serving.regions.acting.metrics import AgentMetrics
from serving.regions.acting.supervision import Complaints
from serving.regions.deciding.policy import PromotionPolicy
from serving.regions.deciding.promotion_decision import (
    Move,
    Next,
    decide_promotion,
    is_awaited,
    is_watched,
    overtaken_by,
    reopened_by,
)
from serving.regions.deciding.promotion_state import (
    RUNNING,
    Promotion,
    end,
    evidence_for,
    finish,
    is_open,
    is_taken_back,
    unasked,
)
from serving.regions.deciding.rollout_state import ABORTED, CANARY, LIVE, QUEUED, ROLLED_BACK
from serving.regions.deciding.timing import DEFAULT_TIMING, Timing
from serving.regions.leading.leader import Leader, refuses
from serving.regions.leading.promotion_store import PromotionStore
from serving.regions.registry.registry import Registry

logger = logging.getLogger(__name__)


class RegionPort(Protocol):
    """A region's rollouts: its agent's client, or the home region's own."""

    async def put_rollout(self, id: str, order: dict[str, Any]) -> dict[str, Any]: ...

    async def get_rollout(self, id: str) -> dict[str, Any]: ...

    async def revert_rollout(self, id: str, reason: str) -> dict[str, Any]: ...


class PromotionLeader(Leader):
    """Promotions of the home region."""

    def __init__(
        self,
        *,
        registry: Registry,
        regions: Mapping[str, RegionPort],
        metrics: AgentMetrics,
        timing: Timing = DEFAULT_TIMING,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__("promotion", registry=registry)
        self._store = PromotionStore(registry)
        self._regions = regions
        self._metrics = metrics
        self._timing = timing
        self._clock = clock
        self._followed_at: dict[str, float] = {}
        self._stalled_since: dict[tuple[str, str], float] = {}
        self._looked_at: dict[str, float] = {}

    def _open_orders(self) -> list[str]:
        return [p.id for p in self._store.newest(None, limit=10_000) if is_open(p)]

    async def close(self) -> None:
        """What was seen of regions and followers is old by the time at which this agent leads again."""
        await super().close()
        for seen in (self._followed_at, self._stalled_since, self._looked_at):
            seen.clear()

    def lead(self, id: str) -> None:
        self._followed_at.setdefault(id, self._clock())
        super().lead(id)

    def followed(self, id: str) -> None:
        self._followed_at[id] = self._clock()

    async def _lead_to_the_end(self, id: str) -> None:
        complaints = Complaints(logger, f"promotion {id}")
        while True:
            try:
                promotion = await self._registry.run(self._store.find, id)
                if promotion is None or not is_open(promotion):
                    return
                if promotion.state == RUNNING:
                    await self._step(promotion.id)
                elif promotion.owed:
                    await self._pay_debts(promotion)
                else:
                    await self._look_at_watch(promotion)
                complaints.end()
            except Exception as failure:
                # Neither a bug nor a registry that is away may leave a promotion without anybody who leads it.
                complaints.say(failure)
                await asyncio.sleep(self._timing.max_backoff_s)

    async def _step(self, id: str) -> None:
        promotion, step = await self._registry.run(self._decide, id)
        if step is None:
            return
        if step.move is Move.WAIT:
            await self._look_at_live_parts(promotion)
            await asyncio.sleep(self._timing.promotion_poll_s)
            return
        looking = [self._look_at_live_parts(promotion)] if step.move is Move.ADVANCE else []
        others = [self._prepare(id, region) for region in step.ahead]
        others += [self._call(promotion, replace(step, region=region, beside=())) for region in step.beside]
        await asyncio.gather(self._call(promotion, step), *others, *looking)

    def _decide(self, id: str) -> tuple[Promotion, Next | None]:
        """What regions are to be asked, if any; a new state is saved here, in one section with its reading."""
        promotion = self._store.read(id)
        if promotion.state != RUNNING:
            return promotion, None
        if self._is_abandoned(promotion):
            lease = f"nobody followed the promotion for {promotion.policy.follower_lease_s:g} s"
            self._store.save(end(promotion, ROLLED_BACK, lease), [lease])
            return promotion, None
        step = decide_promotion(promotion)
        if step.move is Move.END:
            self._store.save(end(promotion, step.state, step.reason), [f"taking back: {step.reason}"])
        elif step.move is Move.FINISH:
            finished = finish(promotion, step.state, self._clock())
            finished = replace(finished, watching=step.state == LIVE and is_watched(finished))
            self._store.save(finished, [step.state])
            self._metrics.promotion_finished(finished)
            self._looked_at.pop(promotion.id, None)
        else:
            return promotion, step
        return promotion, None

    def _is_abandoned(self, promotion: Promotion) -> bool:
        policy = promotion.policy
        if policy.on_follower_lost != "rollback" or promotion.ending is not None:
            return False
        return self._clock() - self._followed_at[promotion.id] > policy.follower_lease_s

    async def _call(self, promotion: Promotion, step: Next) -> None:
        """One call to a region and what its answer changes; its silence is borne up to the step timeout."""
        place = (promotion.id, step.region)
        await self._registry.run(self._expect, promotion.id, step.region)
        try:
            part = await self._ask(promotion, step)
            await self._registry.run(self._note_part, promotion.id, part)
            if _moves(part, step.move):
                self._stalled_since.pop(place, None)
                if part["state"] not in (LIVE, ROLLED_BACK, ABORTED) or step.move is Move.TAKE_BACK:
                    await asyncio.sleep(self._timing.promotion_poll_s)
                return
            patience_s, failure = _patience_s(promotion.policy), _stalled(part)
        except FlightpathError as silence:
            patience_s, failure = promotion.policy.step_timeout_s, silence
        since = self._stalled_since.setdefault(place, self._clock())
        stalled_s = self._clock() - since
        why = f"did not answer for {patience_s:g} s: {failure}" if stalled_s > patience_s else None
        if not await self._registry.run(self._note_failure, promotion.id, step, failure, why):
            self._stalled_since.pop(place, None)
            return
        await asyncio.sleep(min(self._timing.max_backoff_s, self._timing.first_backoff_s + stalled_s))

    def _note_failure(self, id: str, step: Next, failure: FlightpathError, given_up: str | None) -> bool:
        """Whether the region is to be asked again; `given_up`: why nobody waits for it any longer."""
        promotion = self._store.read(id)
        if promotion.state != RUNNING:
            return False
        if _is_refusal(promotion.parts[step.region], failure):
            self._refused(id, step.region, failure)
            return False
        if given_up is not None:
            self._give_up(promotion, step, given_up)
        return given_up is None

    def _give_up(self, promotion: Promotion, step: Next, why: str) -> None:
        """The region is told, or looked at, until it has been taken back; the others do not wait for it."""
        if step.move is Move.TAKE_BACK:
            owed = replace(promotion, owed=[*promotion.owed, step.region])
            self._store.save(owed, [f"{step.region} {why}; it is taken back later"])
        else:
            reason = f"{step.region} {why}"
            ended = end(promotion, ROLLED_BACK, reason)
            self._store.save(replace(ended, owed=[*ended.owed, step.region]), [reason])

    async def _ask(self, promotion: Promotion, step: Next) -> dict[str, Any]:
        region = self._regions[step.region]
        if step.move is Move.TAKE_BACK:
            return await region.revert_rollout(promotion.id, promotion.reason or "taken back")
        return await region.put_rollout(promotion.id, _rollout_order(promotion, step.region))

    async def _prepare(self, id: str, region: str) -> None:
        """Let a later region start its server and hold; its silence is borne when its turn comes."""
        await self._registry.run(self._expect, id, region)
        promotion = await self._registry.run(self._store.read, id)
        try:
            part = await self._regions[region].put_rollout(id, {**_rollout_order(promotion, region), "hold": True})
        except FlightpathError as failure:
            if _is_refusal(promotion.parts[region], failure):
                await self._registry.run(self._refused, id, region, failure)
        else:
            await self._registry.run(self._note_part, id, part)

    async def _look_at_live_parts(self, promotion: Promotion) -> None:
        """Regions that are live already may go back by themselves, while another is at work or all wait."""
        if self._clock() - self._looked_at.get(promotion.id, -math.inf) < self._timing.watch_poll_s:
            return
        self._looked_at[promotion.id] = self._clock()
        live = [name for name, known in promotion.parts.items() if known["state"] == LIVE and not known["settled"]]
        await asyncio.gather(*(self._look_at_live_part(promotion.id, region) for region in live))

    async def _look_at_live_part(self, id: str, region: str) -> None:
        with contextlib.suppress(FlightpathError):
            await self._registry.run(self._note_part, id, await self._regions[region].get_rollout(id))

    def _expect(self, id: str, region: str) -> None:
        """Before the first call: a region that was asked but not heard must be taken back too."""
        promotion = self._store.read(id)
        if region not in promotion.parts:
            self._store.save(_with_part(promotion, unasked(promotion, region)), [])

    def _refused(self, id: str, region: str, refusal: FlightpathError) -> None:
        """A region that does not take the order, or knows nothing of it, has nothing to take back."""
        promotion = self._store.read(id)
        if promotion.state != RUNNING:
            return
        part = promotion.parts[region]
        refused = {**part, "state": ROLLED_BACK, "reason": f"{region}: {refusal}", "finished_at": self._clock()}
        self._store.save(_with_part(promotion, refused), [refused["reason"]])

    def _note_part(self, id: str, part: dict[str, Any]) -> None:
        """Keep what a region said, with a journal entry when it moved on."""
        promotion = self._store.read(id)
        if promotion.state != RUNNING:
            # As in the next two: a rollback ended it while the region was being asked.
            return
        before = promotion.parts.get(part["region"])
        if before == part:
            return
        for passed in _passed_through(before, part):
            self._store.save(_with_part(promotion, passed), [_describe(passed)], passed)
        moved = before is None or _progress(before) != _progress(part)
        self._store.save(_with_part(promotion, part), [_describe(part)] if moved else [], part)

    async def _pay_debts(self, promotion: Promotion) -> None:
        """Tell regions that were away to take back what was finished without them."""
        due = await self._registry.run(self._due_debts, promotion.id)
        await asyncio.gather(*(self._pay_debt(promotion, region) for region in due))
        await asyncio.sleep(self._timing.owed_every_s)

    def _due_debts(self, id: str) -> list[str]:
        """Regions to be told now. A promotion that came later decides what a region serves: it is waited for, and what
        it put live is not taken back."""
        promotion = self._store.read(id)
        later = [p for p in self._store.newest(promotion.release.model) if p.word > promotion.word]
        for region in promotion.owed:
            by = overtaken_by(region, later)
            if by is not None:
                promotion = replace(promotion, owed=[name for name in promotion.owed if name != region])
                self._store.save(promotion, [f"{region} need not be taken back: {by} is live there"])
        return [region for region in promotion.owed if not is_awaited(region, later)]

    async def _pay_debt(self, promotion: Promotion, region: str) -> None:
        try:
            part = await self._regions[region].revert_rollout(promotion.id, promotion.reason or "taken back")
        except NotFound:
            part = None
        except FlightpathError:
            return
        if part is None or is_taken_back(part):
            await self._registry.run(self._note_paid, promotion.id, region, part)

    def _note_paid(self, id: str, region: str, part: dict[str, Any] | None) -> None:
        promotion = self._store.read(id)
        paid = replace(promotion, owed=[name for name in promotion.owed if name != region])
        self._store.save(paid if part is None else _with_part(paid, part), [f"{region} is taken back"])

    async def _look_at_watch(self, promotion: Promotion) -> None:
        """A region that goes back while it watches takes the others along, unless the policy's scope is the region."""
        if await self._registry.run(self._end_watch, promotion.id):
            return
        watched = [r for r, known in promotion.parts.items() if not (known["settled"] and known["state"] == LIVE)]
        await asyncio.gather(*(self._look_at_watched(promotion.id, region) for region in watched))
        await asyncio.sleep(self._timing.watch_poll_s)

    def _end_watch(self, id: str) -> bool:
        """Whether a later promotion ends the watch."""
        promotion = self._store.read(id)
        overtaken = any(p.word > promotion.word for p in self._store.newest(promotion.release.model))
        if overtaken:
            self._store.save(replace(promotion, watching=False), [])
        return overtaken

    async def _look_at_watched(self, id: str, region: str) -> None:
        with contextlib.suppress(FlightpathError):
            part = await self._regions[region].get_rollout(id)
            await self._registry.run(self._note_watched, id, region, part)

    def _note_watched(self, id: str, region: str, part: dict[str, Any]) -> None:
        promotion = self._store.read(id)
        if not promotion.watching or self._end_watch(id):
            # A rollback or a later promotion came while the region was being asked: its word is the newer one.
            return
        noted = _with_part(promotion, part)
        reopened = reopened_by(noted, part)
        if reopened is not None:
            self._store.save(reopened, [f"{region} went back: {part['reason']}"], part)
        else:
            self._store.save(replace(noted, watching=is_watched(noted)), [])


def _rollout_order(promotion: Promotion, region: str) -> dict[str, Any]:
    part = promotion.parts.get(region)
    order = {
        "schema_version": 1,
        "release": promotion.release.to_json(),
        "version": promotion.version,
        "policy": promotion.policy.to_json(),
        "actor": promotion.actor,
        "regions": len(promotion.regions),
        "paused": promotion.paused,
        "promoted_by": promotion.promoted_by,
    }
    # Once its turn has come a region knows what the others counted.
    begun = part is not None and part["started_at"] is not None and not part["held"]
    return order if begun else {**order, "evidence": evidence_for(promotion, region)}


def _with_part(promotion: Promotion, part: dict[str, Any]) -> Promotion:
    return replace(promotion, parts={**promotion.parts, part["region"]: part})


def _is_refusal(part: dict[str, Any], failure: FlightpathError) -> bool:
    """Whether the region holds nothing of the promotion; once it has taken the order, only its own word counts."""
    never_taken = part["started_at"] is None
    return isinstance(failure, NotFound) or (never_taken and refuses(failure))


def _moves(part: dict[str, Any], move: Move) -> bool:
    """Whether the region does what it was asked, or says itself when it gives up."""
    return is_taken_back(part) if move is Move.TAKE_BACK else part["state"] != QUEUED


def _patience_s(policy: PromotionPolicy) -> float:
    """How long a region that answers may do nothing: a server may have to start, and weights to be moved."""
    return policy.start_timeout_s + policy.step_timeout_s


def _stalled(part: dict[str, Any]) -> FlightpathError:
    waits_for = "its gateway has not taken the weights" if part["ending"] else "an earlier rollout is not settled"
    return Unreachable(waits_for)


def _passed_through(before: dict[str, Any] | None, part: dict[str, Any]) -> list[dict[str, Any]]:
    """The part as it was in each canary step that began and ended between two questions."""
    begun = len(before["steps"]) if before else 0
    over = [number for number, step in enumerate(part["steps"]) if number >= begun and step["finished_at"] is not None]
    return [
        {**part, "state": step["state"], "percent": step["percent"], "reason": None, "steps": part["steps"][:number]}
        for number in over
        if (step := part["steps"][number])["state"] == CANARY
    ]


def _progress(part: dict[str, Any]) -> tuple[Any, ...]:
    finished = sum(step["finished_at"] is not None for step in part["steps"])
    return part["state"], part["percent"], part["reason"], finished


def _describe(part: dict[str, Any]) -> str:
    percent = f" {part['percent']} %" if part["state"] == "canary" else ""
    reason = f": {part['reason']}" if part["reason"] else ""
    return f"{part['region']}: {part['state']}{percent}{reason}"
