"""Carries out this region's rollouts: one after another for each model, each to its end.

Takes one step of `decide` at a time: a new state is committed before anything acts on it, and an
effect's outcome is committed after it. Killed at any point, the next agent goes on from the registry.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import takewhile
from typing import Any, Final

from serving.bundle import read_manifest
from serving.counters import Snapshot
from serving.errors import Conflict, FlightpathError, NotFound, PermanentError, RetryableError
from serving.regions.acting.metrics import AgentMetrics
from serving.regions.acting.scoring import Scoring
from serving.regions.acting.serving_state import ServingState
from serving.regions.acting.worker import Worker
from serving.regions.deciding.canary_decision import weights_in_force
from serving.regions.deciding.gates import golden_unusable
from serving.regions.deciding.rollout_decision import decide, finish_golden, finish_replication
from serving.regions.deciding.rollout_document import read_order, read_rollout, show_rollout
from serving.regions.deciding.rollout_revert import fail_replication, request_revert, weights_restored
from serving.regions.deciding.rollout_state import (
    ABORTED,
    CANARY,
    LIVE,
    QUEUED,
    REPLICATING,
    ROLLED_BACK,
    SHADOW,
    TERMINAL,
    Do,
    Effect,
    Observation,
    Rollout,
    Save,
    Server,
    pause,
    release_hold,
    resume,
    same_phase,
)
from serving.regions.deciding.timing import DEFAULT_TIMING, Timing
from serving.regions.golden.check import Golden, Replay, check_golden, load_golden
from serving.regions.places.peers import Peers
from serving.regions.places.topology import Region
from serving.regions.registry.epochs import FIRST, EpochStore
from serving.regions.registry.registry import Event, Registry
from serving.regions.servers.launcher import Launcher

logger = logging.getLogger(__name__)


class RolloutWorker(Worker):
    """The rollouts of one region."""

    def __init__(
        self,
        region: Region,
        *,
        registry: Registry,
        launcher: Launcher,
        serving: ServingState,
        peers: Peers,
        metrics: AgentMetrics,
        scoring: Scoring | None = None,
        credential: Callable[[], str] = str,
        timing: Timing = DEFAULT_TIMING,
        epochs: EpochStore,
        superseded_by: Callable[[str, str], str | None] = lambda id, model: None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__("rollout", registry=registry, retry_s=timing.rollout_retry_s)
        self._timing = timing
        self._region = region
        self._launcher = launcher
        self._serving = serving
        self._peers = peers
        self._metrics = metrics
        self._epochs = epochs
        self._superseded_by = superseded_by
        self._clock = clock
        self._scoring = scoring
        self._credential = credential
        self._replays: dict[str, Replay] = {}
        self._refused_since: dict[str, float] = {}
        """Of rollouts whose weights the gateway does not take."""
        self._scores: dict[str, asyncio.Task[list[float]]] = {}
        self._effects: dict[Effect, Callable[[Rollout, Do], Awaitable[None]]] = {
            Effect.REPLICATE: self._replicate,
            Effect.LAUNCH: self._launch,
            Effect.CHECK_GOLDEN: self._check_golden,
            Effect.SHIFT_WEIGHTS: self._shift_weights,
            Effect.REPLAY: self._replay,
            Effect.LAUNCH_PREVIOUS: self._launch_previous,
            Effect.RESTORE_WEIGHTS: self._restore_weights,
            Effect.STOP_CANDIDATE: self._stop_candidate,
            Effect.STOP_PREVIOUS: self._stop_previous,
            Effect.WAIT: self._wait,
        }

    # What is asked of the region

    async def put_rollout(self, id: str, order: dict[str, Any]) -> dict[str, Any]:
        """Order a rollout; the same id and content answers the present state, another content is Conflict.

        One that was ordered to hold goes on when it is ordered without; it is never held again.
        """
        ordered = read_order(id, self._region.name, order, now=self._clock())
        shown = await self._registry.run(self._take_order, id, ordered, order)
        self._work_on(ordered.release.model)
        return shown

    def _take_order(self, id: str, ordered: Rollout, order: dict[str, Any]) -> dict[str, Any]:
        self._epochs.admit(order.get("epoch"), what=f"rollout {id}")
        by = self._superseded_by(id, ordered.release.model)
        if by is not None and not self._knows(id):
            raise Conflict(f"rollout {id} comes too late", got=f"it was superseded by {by}", expected="a new promotion")
        event = Event(kind="rollout", subject=id, message="ordered", detail=self._detail(ordered))
        moved = self._epochs.present().number > FIRST
        document = ordered.to_json()
        if not self._registry.add_rollout(id, ordered.release, ordered.version, document, event, renumber=moved):
            known = self._read(id)
            if (known.release, known.policy) != (ordered.release, ordered.policy):
                raise Conflict(f"rollout {id} was ordered with other content", got=order, expected="the same order")
            self._follow_order(known, ordered)
        return self._show(id)

    def _follow_order(self, known: Rollout, ordered: Rollout) -> None:
        """What may change after a rollout was ordered: its turn, a pause, a person's word. It is never held again."""
        if known.state in TERMINAL or known.ending is not None:
            return
        if known.held and not ordered.held:
            known = replace(release_hold(known, self._clock()), earlier=ordered.earlier, regions=ordered.regions)
            self._save(Save(rollout=known, message="its turn has come"))
        if known.paused != ordered.paused:
            known = (pause if ordered.paused else resume)(known, self._clock())
            self._save(Save(rollout=known, message="paused" if known.paused else "resumed"))
        if known.promoted_by is None and ordered.promoted_by is not None:
            message = f"promoted without waiting for more evidence by {ordered.promoted_by}"
            self._save(Save(rollout=replace(known, promoted_by=ordered.promoted_by), message=message))

    def _knows(self, id: str) -> bool:
        try:
            self._read(id)
        except NotFound:
            return False
        return True

    async def get_rollout(self, id: str) -> dict[str, Any]:
        return await self._registry.run(self._show, id)

    async def revert_rollout(self, id: str, reason: str, epoch: dict[str, Any] | None = None) -> dict[str, Any]:
        """Take a rollout back, whatever state it is in: abort it, or put the version before back."""
        shown = await self._registry.run(self._revert, id, reason, epoch)
        self._work_on(shown["model"])
        return shown

    def _revert(self, id: str, reason: str, epoch: dict[str, Any] | None) -> dict[str, Any]:
        self._epochs.admit(epoch, what=f"taking back rollout {id}")
        before = self._read(id)
        live = None if self._is_overtaken(before) else self._registry.live(before.release.model)
        after = request_revert(before, live, reason, self._clock())
        if after != before:
            self._save(Save(rollout=after, message=f"to be taken back: {reason}"))
        return self._show(id)

    def _is_overtaken(self, rollout: Rollout) -> bool:
        """Whether a later promotion found the same release live: it is that one's now, and not taken back any more."""
        later = takewhile(lambda d: d["id"] != rollout.id, self._registry.newest_rollouts(model=rollout.release.model))
        same = (d for d in later if d["release"]["id"] == rollout.release.id)
        return any(d["state"] == LIVE and d["ending"] is None for d in same)

    def under_way(self) -> list[Rollout]:
        return [read_rollout(document) for document in self._registry.rollouts_under_way()]

    def recent(self) -> list[Rollout]:
        """Those under way and the newest that have ended: bounded, however long the history."""
        documents = [*self._registry.rollouts_under_way(), *self._registry.newest_rollouts()]
        return [read_rollout(document) for document in {d["id"]: d for d in documents}.values()]

    def _show(self, id: str) -> dict[str, Any]:
        return show_rollout(self._read(id), endpoint=self._region.gateway_url)

    # Working

    def _models_under_way(self) -> list[str]:
        return [document["release"]["model"] for document in self._registry.rollouts_under_way()]

    def _next(self, model: str) -> str | None:
        """Rollouts are settled in the order in which they were ordered."""
        waiting = self._under_way_of(model)
        # One that was live and is taken back comes before any that waits in the queue.
        waiting.sort(key=lambda document: document["ending"] is None)
        return str(waiting[0]["id"]) if waiting else None

    def _under_way_of(self, model: str) -> list[dict[str, Any]]:
        return [r for r in self._registry.rollouts_under_way() if r["release"]["model"] == model]

    async def _advance(self, id: str) -> None:
        rollout = await self._registry.run(self._read, id)
        stats = await self._serving.stats(rollout.release.model) if rollout.state in _COUNTED else None
        decided = await self._registry.run(self._decide, id, stats, self._new_scores(rollout))
        if decided is not None:
            await self._act(*decided)

    def _decide(self, id: str, stats: Snapshot | None, scores: list[float]) -> tuple[Rollout, Do] | None:
        """What is to be done to the world, if anything; a new state is saved here.

        One section from reading to saving: a request to abort is never overwritten.
        """
        rollout = self._read(id)
        if rollout.settled:
            return None
        if scores:
            self._registry.save_rollout(
                id, (rollout := replace(rollout, scores=rollout.scores.plus(scores))).to_json(), settled=False
            )
        recent = None if stats is None else self._serving.recent(rollout.release.model, stats)
        now, silent_s = self._clock(), self._serving.gateway_silent_s()
        refused_s = now - self._refused_since.get(id, now)
        seen = replace(
            self._observe(rollout),
            stats=stats,
            gateway_silent_s=silent_s,
            weights_refused_s=refused_s,
            recent=recent,
        )
        action = decide(rollout, seen, now)
        if isinstance(action, Do):
            return rollout, action
        self._save(action)
        return None

    async def _act(self, rollout: Rollout, do: Do) -> None:
        """An effect that somebody's order overtakes is given up: nobody waits for a copy that hangs."""
        effect = asyncio.ensure_future(self._effects[do.effect](rollout, do))
        try:
            while not (await asyncio.wait({effect}, timeout=self._timing.overtaken_poll_s))[0]:
                now = await self._registry.run(self._read, rollout.id)
                if now.settled or now.abort != rollout.abort or not same_phase(rollout, now):
                    logger.info("rollout %s: %s is given up, the order has changed", rollout.id, do.effect)
                    return
            effect.result()
        finally:
            effect.cancel()
            await asyncio.gather(effect, return_exceptions=True)

    def _new_scores(self, rollout: Rollout) -> list[float]:
        """Scores that are ready. They are made beside: a scorer that hangs must not keep anybody from judging."""
        if self._scoring is None or rollout.state not in (SHADOW, CANARY) or rollout.policy.completions_share == 0:
            return []
        under_way = self._scores.get(rollout.id)
        if under_way is not None and not under_way.done():
            return []
        scoring = self._scoring.scores(rollout.release, rollout.policy.completion_scorer)
        self._scores[rollout.id] = asyncio.create_task(scoring, name=f"scores of {rollout.id}")
        try:
            return [] if under_way is None else under_way.result()
        except FlightpathError as failure:
            logger.warning("scores of %s: %s", rollout.id, failure)
            return []

    async def close(self) -> None:
        scores = list(self._scores.values())
        for task in scores:
            task.cancel()
        await asyncio.gather(*scores, return_exceptions=True)
        await super().close()

    def _observe(self, rollout: Rollout) -> Observation:
        candidate = self._launcher.status(rollout.release.id)
        previous = None if rollout.previous is None else self._launcher.status(rollout.previous)
        live = self._registry.live(rollout.release.model)
        version = None if live is None or live.release_id is None else self._registry.release(live.release_id)[1]
        before = None if rollout.previous is None else self._registry.release_before(rollout.previous)
        return Observation(
            before_previous=before,
            superseded=len(self._under_way_of(rollout.release.model)) > 1,
            candidate=candidate.state,
            candidate_note=candidate.note,
            previous=Server.ABSENT if previous is None else previous.state,
            previous_note="" if previous is None else previous.note,
            previous_degraded=previous is not None and previous.degraded,
            live=live,
            live_version=version,
            served_elsewhere=bool(self._peers.serving(rollout.release.model)),
        )

    # Persistence

    def _read(self, id: str) -> Rollout:
        return read_rollout(self._registry.rollout(id))

    def _save(self, save: Save) -> None:
        rollout, before = save.rollout, self._read(save.rollout.id)
        self._registry.save_rollout(
            rollout.id,
            rollout.to_json(),
            settled=rollout.settled,
            live=save.live,
            event=Event(kind="rollout", subject=rollout.id, message=save.message, detail=self._detail(rollout)),
        )
        self._metrics.rollout_changed(before, rollout)
        logger.info("rollout %s: %s", rollout.id, save.message)

    async def _conclude(self, decided_on: Rollout, conclude: Callable[[Rollout], Save]) -> None:
        """Commit an effect's outcome, unless the rollout has moved on while the effect was under way."""

        def section() -> None:
            now = self._read(decided_on.id)
            if same_phase(decided_on, now):
                self._save(conclude(now))

        await self._registry.run(section)

    async def _change(self, decided_on: Rollout, change: Callable[[Rollout], Rollout], message: str) -> None:
        await self._conclude(decided_on, lambda now: Save(rollout=change(now), message=message))

    def _detail(self, rollout: Rollout) -> dict[str, Any]:
        known = {"region": rollout.region, "model": rollout.release.model, "release": rollout.release.id}
        known["actor"] = rollout.promoted_by or rollout.actor
        return {**known, "state": rollout.state, "percent": rollout.percent, "reason": rollout.reason}

    # Effects

    async def _replicate(self, rollout: Rollout, _: Do) -> None:
        try:
            await self._serving.prepare(rollout.release.id)
        except PermanentError as failure:
            await self._fail_replication(rollout, failure)
        except RetryableError as failure:
            if self._clock() - rollout.steps[-1].started_at <= rollout.policy.start_timeout_s:
                raise
            await self._fail_replication(rollout, failure)
        else:
            await self._change(rollout, lambda now: finish_replication(now, self._clock()), "bundle verified")

    async def _fail_replication(self, rollout: Rollout, failure: FlightpathError) -> None:
        await self._conclude(rollout, lambda now: fail_replication(now, str(failure), self._clock()))

    async def _launch(self, rollout: Rollout, _: Do) -> None:
        await self._serving.launch(rollout.release.id, restart=False)

    async def _check_golden(self, rollout: Rollout, _: Do) -> None:
        url = self._launcher.status(rollout.release.id).url
        if url is None:
            return
        try:
            golden = await self._golden(rollout)
        except PermanentError as unusable:
            gates = [golden_unusable(str(unusable))]
        else:
            gates = await check_golden(golden, url, rollout.release.model, rollout.policy)
        # A region before this one may have gone live a moment ago, and then shares the traffic.
        await self._peers.ask()
        await self._conclude(rollout, lambda now: finish_golden(now, gates, self._observe(now), self._clock()))

    async def _golden(self, rollout: Rollout) -> Golden | None:
        folder = self._serving.folder(rollout.release)
        return await asyncio.to_thread(lambda: load_golden(folder, read_manifest(folder)))

    async def _shift_weights(self, rollout: Rollout, _: Do) -> None:
        try:
            stats = await self._serving.push(rollout.release.model)
        except FlightpathError:
            self._refused_since.setdefault(rollout.id, self._clock())
            raise
        self._refused_since.pop(rollout.id, None)
        await self._change(rollout, lambda now: weights_in_force(now, stats, self._clock()), "weights are in force")

    async def _replay(self, rollout: Rollout, do: Do) -> None:
        if rollout.id not in self._replays:
            golden = await self._golden(rollout)
            if golden is None:
                await self._wait(rollout, do)
                return
            self._replays[rollout.id] = Replay(
                golden, self._region.gateway_url, rollout.release.model, credential=self._credential
            )
        await self._replays[rollout.id].send(do.requests)

    async def _launch_previous(self, rollout: Rollout, _: Do) -> None:
        if rollout.previous is not None:
            await self._serving.prepare_again(rollout.previous)
            await self._serving.launch(rollout.previous, restart=True)

    async def _restore_weights(self, rollout: Rollout, _: Do) -> None:
        await self._serving.push(rollout.release.model)
        await self._change(rollout, lambda now: weights_restored(now, self._clock()), "the old weights are back")

    async def _stop_candidate(self, rollout: Rollout, _: Do) -> None:
        await self._stop(rollout, rollout.release.id)

    async def _stop_previous(self, rollout: Rollout, _: Do) -> None:
        await self._stop(rollout, rollout.previous)

    async def _stop(self, rollout: Rollout, release_id: str | None) -> None:
        wanted = await self._registry.run(self._serving.wanted, without=rollout.id)
        if release_id is not None and release_id not in wanted:
            await self._launcher.stop(release_id)
        self._replays.pop(rollout.id, None)
        self._refused_since.pop(rollout.id, None)
        scores = self._scores.pop(rollout.id, None)
        if scores is not None:
            # Nobody asks for them any more, and a scorer that hangs must not outlive the rollout.
            scores.cancel()
        await self._change(rollout, lambda now: replace(now, settled=True), "settled")

    async def _wait(self, rollout: Rollout, _: Do) -> None:
        await asyncio.sleep(self._timing.rollout_poll_s)


_COUNTED: Final = frozenset({QUEUED, SHADOW, CANARY, LIVE, ROLLED_BACK, ABORTED})


def replication_lag_s(rollouts: list[Rollout], now: float) -> float:
    """How long the oldest ordered bundle has been on its way to this region; 0 when none is."""
    waiting = [rollout.started_at for rollout in rollouts if rollout.state in (QUEUED, REPLICATING)]
    return max((now - started_at for started_at in waiting), default=0.0)
