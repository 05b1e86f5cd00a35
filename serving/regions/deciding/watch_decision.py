"""What a live rollout does until it is settled: the old server finishes, the new one is watched. Pure.

The watch holds the version against what was recorded of the one before while both had users. That is no control for a
change of the hour, so it takes more than the gate's margin beside the evidence to send it back.
"""

from dataclasses import replace

from serving.regions.deciding.evidence import Window
from serving.regions.deciding.evidence_gates import judge
from serving.regions.deciding.gates import GateResult, failures
from serving.regions.deciding.rollout_revert import request_revert
from serving.regions.deciding.rollout_state import (
    WATCH,
    Action,
    Do,
    Effect,
    Observation,
    Rollout,
    Save,
    Server,
    Step,
    backend_id,
    close,
    drained,
)


def decide_live(rollout: Rollout, seen: Observation, now: float) -> Action:
    if rollout.weights_at is None:
        return Do(effect=Effect.SHIFT_WEIGHTS)
    if rollout.previous is not None and not drained(rollout, rollout.previous, seen.stats, now):
        return Do(effect=Effect.WAIT)
    if _is_watched(rollout, seen):
        return _decide_watch(rollout, seen, now)
    return _settle(rollout, close(rollout, [], now), seen, now)


def _is_watched(rollout: Rollout, seen: Observation) -> bool:
    """Only where something was live before, and until something else is ordered."""
    return rollout.policy.watch_s > 0 and rollout.recorded is not None and not seen.superseded


def _decide_watch(rollout: Rollout, seen: Observation, now: float) -> Action:
    if seen.stats is None:
        return Do(effect=Effect.WAIT)
    if rollout.watch_until is None:
        step = Step(state=WATCH, percent=None, started_at=now)
        begun = replace(
            rollout, watch_until=now + rollout.policy.watch_s, baseline=seen.stats, steps=[*rollout.steps, step]
        )
        return Save(rollout=begun, message=f"watched for {rollout.policy.watch_s:g} s")
    counted = seen.stats.since(rollout.baseline)
    window = Window(
        region=rollout.region,
        percent=100,
        candidate=counted.of(backend_id(rollout.release.id, rollout.region)),
        live=rollout.recorded,
        replays_count=rollout.replays_count,
        recorded=True,
    )
    gates = judge([window], rollout.region, rollout.policy, regions=rollout.regions)
    if failures(gates):
        return _go_back(close(rollout, gates, now, window), gates, seen, now)
    if now >= rollout.watch_until:
        return _settle(rollout, close(rollout, gates, now, window), seen, now)
    return Do(effect=Effect.WAIT)


def _go_back(rollout: Rollout, gates: list[GateResult], seen: Observation, now: float) -> Save:
    sentences = "; ".join(gate.sentence() for gate in failures(gates))
    reason = f"{rollout.region}, after it went live: {sentences}"
    return Save(rollout=request_revert(rollout, seen.live, reason, now), message=f"rolling back: {reason}")


def _settle(rollout: Rollout, closed: Rollout, seen: Observation, now: float) -> Action:
    """The old server stands by, or is stopped once `closed`, with the watch's step finished, is saved."""
    standby_s, live = rollout.policy.standby_s, seen.live
    if standby_s > 0 and seen.previous is Server.READY and live is not None and live.release_id == rollout.release.id:
        standing_by = replace(live, standby=rollout.previous, standby_until=now + standby_s)
        message = f"settled; {rollout.previous} stands by for {standby_s:g} s"
        return Save(rollout=replace(closed, settled=True), message=message, live=standing_by)
    if closed != rollout:
        return Save(rollout=closed, message="the watch is over")
    return Do(effect=Effect.STOP_PREVIOUS)
