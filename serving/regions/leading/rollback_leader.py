"""The home agent's part in a rollback: takes the order, tells all regions at once, follows them to the end.

An order is acknowledged once it is committed, together with the end of the model's running promotion: from
then on the rollback wins, whatever dies. A region that does not answer is told as soon as it does.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from serving.errors import Conflict, FlightpathError, NotFound, Unreachable
from serving.regions.acting.regional_rollbacks import asked_release
from serving.regions.acting.supervision import Complaints
from serving.regions.deciding.promotion_state import RUNNING as PROMOTION_RUNNING
from serving.regions.deciding.promotion_state import Promotion, is_open, read_promotion
from serving.regions.deciding.rollback_order import (
    RUNNING,
    Asked,
    RollbackOrder,
    end_promotion,
    forgive,
    newest_release,
    note_part,
    note_refusal,
    read_asked,
    read_report,
    read_rollback_order,
    region_order,
    show_rollback_order,
    supersede_in,
    without_region,
)
from serving.regions.deciding.rollback_state import SWITCHING, find_target, read_region_order
from serving.regions.deciding.timing import DEFAULT_TIMING, Timing
from serving.regions.leading.leader import Leader, refuses
from serving.regions.places.peers import Peers
from serving.regions.places.topology import Topology
from serving.regions.registry import schema
from serving.regions.registry.database import RegistryUnavailable
from serving.regions.registry.epochs import Epoch
from serving.regions.registry.registry import Event, Registry
from serving.regions.registry.rollback_store import Ended, RollbackStore
from serving.releases import check_name

logger = logging.getLogger(__name__)


class RollbackPort(Protocol):
    """A region's rollbacks: its agent's client, or the home region's own."""

    async def put_region_rollback(self, id: str, order: dict[str, Any]) -> dict[str, Any]: ...


class RollbackLeader(Leader):
    """Rollbacks of the home region."""

    def __init__(
        self,
        topology: Topology,
        region: str,
        *,
        registry: Registry,
        require: Callable[[], Epoch],
        regions: Mapping[str, RollbackPort],
        peers: Peers,
        on_promotion_ended: Callable[[Promotion], None] = lambda promotion: None,
        timing: Timing = DEFAULT_TIMING,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__("rollback", registry=registry)
        self._topology = topology
        self._region = region
        self._require = require
        self._store = RollbackStore(registry, schema.rollback_orders)
        self._regions = regions
        self._peers = peers
        self._on_promotion_ended = on_promotion_ended
        self._timing = timing
        self._clock = clock

    # Orders

    async def order(self, id: str, raw: dict[str, Any], *, actor: str) -> tuple[dict[str, Any], bool]:
        """Take an order, or find it again: its present state, and whether it is new.

        Raises InvalidInput, NotFound (no such version or release) or Conflict: other content under this id, or a
        release that was never live here.
        """
        check_name("rollback id", id)
        asked = read_asked(raw, [region.name for region in self._topology.regions])
        try:
            return await self._registry.run(self._take_order, id, asked, raw, actor)
        finally:
            # A registry that did not answer may have committed it.
            self.lead(id)

    def _take_order(self, id: str, asked: Asked, raw: dict[str, Any], actor: str) -> tuple[dict[str, Any], bool]:
        epoch, known = self._require(), self._store.find(id)
        if known is None:
            self._accept(id, asked, actor, epoch)
        elif known["asked"] != asked.to_json():
            raise Conflict(f"rollback {id} was ordered with other content", got=raw, expected=known["asked"])
        return self._show(id), known is None

    def _accept(self, id: str, asked: Asked, actor: str, epoch: Epoch) -> None:
        now = self._clock()
        promotions = [p for p in map(read_promotion, self._registry.promotions(model=asked.model)) if is_open(p)]
        others = [read_rollback_order(document) for document in self._store.under_way(model=asked.model)]
        order = self._make(id, asked, promotions, others, actor, epoch)
        self._check_at_home(order, bool(promotions))
        by = f"rollback {id}: {asked.reason}"
        told = order.regions
        overtaken = [supersede_in(other, id, now, told=told) for other in others if set(other.regions) & set(told)]
        ended = [
            end_promotion(p, by, now, told=told) if p.state == PROMOTION_RUNNING else forgive(p, told=told)
            for p in promotions
        ]
        events = [_promotion_event(p, by, actor) for p in ended if p.reason == by]
        events += [_event(other, f"superseded by {by}") for other in overtaken]
        self._store.add(
            id,
            asked.model,
            order.to_json(),
            promotions=[Ended(id=p.id, document=p.to_json()) for p in ended],
            rollbacks=[Ended(id=other.id, document=other.to_json(), open=other.open) for other in overtaken],
            events=[*events, _event(order, f"ordered by {actor}: {asked.reason}")],
        )
        for promotion in ended:
            if promotion.reason == by:
                self._on_promotion_ended(promotion)

    async def report_rollback(self, id: str, raw: dict[str, Any]) -> dict[str, Any]:
        """Keep a rollback that a region took for itself and has ended; the same again changes nothing.

        Raises InvalidInput, or Conflict when another rollback has this id.
        """
        check_name("rollback id", id)
        order = read_report(id, raw, [region.name for region in self._topology.regions])
        return await self._registry.run(self._keep_report, order)

    def _keep_report(self, order: RollbackOrder) -> dict[str, Any]:
        order = replace(order, ordered_in=self._require())
        known = self._store.find(order.id)
        if known is None:
            promotions = map(read_promotion, self._registry.promotions(model=order.model))
            owing = [p for p in promotions if p.state != PROMOTION_RUNNING and is_open(p)]
            told = [forgive(promotion, told=order.regions) for promotion in owing]
            self._store.add(
                order.id,
                order.model,
                order.to_json(),
                promotions=[Ended(id=p.id, document=p.to_json()) for p in told],
                events=[_event(order, f"{order.regions[0]} went back by itself, ordered there by {order.actor}")],
                open=False,
            )
        elif (known["asked"], known["regions"]) != (order.asked, order.regions):
            raise Conflict(f"rollback {order.id} is another one here", got=order.asked, expected=known["asked"])
        return self._show(order.id)

    def _make(
        self,
        id: str,
        asked: Asked,
        promotions: list[Promotion],
        others: list[RollbackOrder],
        actor: str,
        epoch: Epoch,
    ) -> RollbackOrder:
        running = [p for p in promotions if p.state == PROMOTION_RUNNING]
        release = asked_release(self._registry, asked)
        return RollbackOrder(
            id=id,
            asked=asked.to_json(),
            model=asked.model,
            reason=asked.reason,
            release=release,
            bad=running[0].release.id if running else newest_release(self._served(asked.model)),
            supersedes=[*(f"promotion/{p.id}" for p in promotions), *(f"rollback/{other.id}" for other in others)],
            regions=asked.regions or [region.name for region in self._topology.regions],
            ordered_at=self._clock(),
            actor=actor,
            ordered_in=epoch,
        )

    def _served(self, model: str) -> list[tuple[int, str]]:
        """Version and release that each region is known to serve."""
        live = self._registry.live(model)
        served = [(remote.version, remote.release) for remote in self._peers.serving(model)]
        if live is not None and live.release_id is not None:
            served.append((self._registry.release(live.release_id)[1], live.release_id))
        return served

    def _check_at_home(self, order: RollbackOrder, ends_rollouts: bool) -> None:
        """Refuse at once what this region, which is asked like any other, would refuse."""
        if self._region not in order.regions:
            return
        live = self._registry.live(order.model)
        if live is None and order.asked["regions"] is None and self._served(order.model):
            return
        been_live = self._registry.been_live(order.model)
        find_target(read_region_order(region_order(order)), live, been_live=been_live, ends_rollouts=ends_rollouts)

    async def show(self, id: str) -> dict[str, Any]:
        """Raises NotFound, or Fenced where this agent does not lead."""

        def shown() -> dict[str, Any]:
            self._require()
            return self._show(id)

        return await self._registry.run(shown)

    def _show(self, id: str) -> dict[str, Any]:
        return show_rollback_order(self._read(id))

    async def newest(self, model: str | None) -> list[dict[str, Any]]:
        documents = await self._registry.run(self._store.newest, model=model)
        return [show_rollback_order(read_rollback_order(document)) for document in documents]

    def refuse_promotion(self, model: str) -> None:
        """Raises Conflict while a rollback of the model is running."""
        for document in self._store.under_way(model=model):
            if document["state"] == RUNNING:
                raise Conflict(
                    f"model {model} has a rollback that is still running",
                    got=document["id"],
                    expected="none: order again when it has finished",
                )

    def forget_debts(self, model: str, regions: list[str]) -> None:
        """A new promotion decides what its silent regions serve; what they missed no longer matters."""
        for document in self._store.under_way(model=model):
            order = read_rollback_order(document)
            if set(order.owed) & set(regions):
                left = supersede_in(order, "a newer order", self._clock(), told=regions)
                self._save(left, "silent regions follow the next promotion")

    # Leading

    def _open_orders(self) -> list[str]:
        return [str(document["id"]) for document in self._store.under_way()]

    async def _lead_to_the_end(self, id: str) -> None:
        order = await self._find(id)
        if order is not None:
            await asyncio.gather(*(self._lead_region(id, region) for region in order.regions))

    async def _find(self, id: str) -> RollbackOrder | None:
        """None when it was not taken; waits for a registry that is away."""
        complaints = Complaints(logger, f"rollback {id}")
        while True:
            try:
                document = await self._registry.run(self._store.find, id)
            except RegistryUnavailable as away:
                complaints.say(away)
                await asyncio.sleep(self._timing.rollback_ask_retry_s)
            else:
                return None if document is None else read_rollback_order(document)

    async def _lead_region(self, id: str, region: str) -> None:
        stalled_since: float | None = None
        complaints = Complaints(logger, f"rollback {id} in {region}")
        while True:
            try:
                order = await self._registry.run(self._read, id)
                if not self._is_concerned(order, region):
                    return
                stalled_since = await self._ask(order, region, stalled_since)
                complaints.end()
            except Exception as failure:
                # Neither a bug nor a registry that is away may leave a rollback without anybody who leads it.
                complaints.say(failure)
                await asyncio.sleep(self._timing.rollback_ask_retry_s)

    async def _ask(self, order: RollbackOrder, region: str, stalled_since: float | None) -> float | None:
        """One call to a region and what its answer changes; since when nothing has come of it, if nothing has."""
        since = self._clock() if stalled_since is None else stalled_since
        try:
            part = await self._regions[region].put_region_rollback(order.id, region_order(order))
        except FlightpathError as failure:
            if refuses(failure):
                await self._registry.run(self._note_refusal, order.id, region, failure)
                return None
            await asyncio.sleep(await self._registry.run(self._bear_silence, order.id, region, since, failure))
            return since
        if part["state"] == SWITCHING and self._clock() - since > self._timing.rollback_patience_s:
            stalled = Unreachable("its gateway has not taken the weights")
            await asyncio.sleep(await self._registry.run(self._bear_silence, order.id, region, since, stalled))
            return since
        await self._registry.run(self._note, order.id, part)
        await asyncio.sleep(self._timing.rollback_ask_s)
        return since if part["state"] == SWITCHING else None

    def _is_concerned(self, order: RollbackOrder, region: str) -> bool:
        part = order.parts.get(region)
        return region in order.regions and (part is None or not part["settled"] or region in order.owed)

    def _note(self, id: str, part: dict[str, Any]) -> None:
        order = self._read(id)
        before = order.parts.get(part["region"])
        if before == part or not self._is_concerned(order, part["region"]):
            return
        moved = before is None or (before["state"], before["settled"]) != (part["state"], part["settled"])
        reason = f": {part['reason']}" if part["reason"] else ""
        settled = ", settled" if part["settled"] else ""
        message = f"{part['region']}: {part['state']}{settled}{reason}" if moved else None
        self._save(note_part(order, part, self._clock()), message)

    def _note_refusal(self, id: str, region: str, refusal: FlightpathError) -> None:
        order = self._read(id)
        if not self._is_concerned(order, region):
            return
        if isinstance(refusal, NotFound) and order.asked["regions"] is None:
            self._save(without_region(order, region, self._clock()), f"{region} does not run the model")
        else:
            self._save(note_refusal(order, region, str(refusal), self._clock()), f"{region}: failed: {refusal}")

    def _bear_silence(self, id: str, region: str, since: float, silence: FlightpathError) -> float:
        """Seconds until the region is asked again."""
        order = self._read(id)
        silent_s = self._clock() - since
        if (
            silent_s > self._timing.rollback_patience_s
            and region not in order.owed
            and self._is_concerned(order, region)
        ):
            why = f"did not answer for {self._timing.rollback_patience_s:g} s and is told when it does: {silence}"
            self._save(note_refusal(order, region, why, self._clock(), owed=True), f"{region} {why}")
        owed = silent_s > self._timing.rollback_patience_s
        return self._timing.rollback_owed_every_s if owed else self._timing.rollback_ask_retry_s

    # Persistence

    def _read(self, id: str) -> RollbackOrder:
        return read_rollback_order(self._store.read(id))

    def _save(self, order: RollbackOrder, message: str | None) -> None:
        event = None if message is None else _event(order, message)
        self._store.save(order.id, order.to_json(), open=order.open, event=event)
        if message is not None:
            logger.info("rollback %s: %s", order.id, message)


def _event(order: RollbackOrder, message: str) -> Event:
    detail = {"model": order.model, "state": order.state, "reason": order.failure, "region": None, "actor": order.actor}
    return Event(kind="rollback", subject=order.id, message=message, detail=detail)


def _promotion_event(promotion: Promotion, by: str, actor: str) -> Event:
    detail = {"state": promotion.state, "reason": promotion.reason, "region": None, "actor": actor}
    return Event(kind="promotion", subject=promotion.id, message=f"aborted by {by}", detail=detail)
