"""What a rollout does next, purely: forward here, back in `rollout_revert.py`.

`decide` looks at the persisted rollout and at what was observed and answers with one step: save a
new state, or do one thing to the world. Every effect may be repeated, so a process that dies at any
point goes on from what it saved. Two promises hold whatever is observed: the old server is not stopped
before the candidate has passed its step at 100 %, and weights go back before the candidate is stopped.
"""

from dataclasses import replace

from serving.regions.deciding.gates import (
    GateResult,
    errors_cannot_pass,
    failures,
    judge_step,
    server_failed,
    too_few_requests,
)
from serving.regions.deciding.rollout_revert import begin_revert, decide_revert, fail, take_back
from serving.regions.deciding.rollout_state import (
    ABORTED,
    CANARY,
    GOLDEN,
    LIVE,
    QUEUED,
    REPLICATING,
    STARTING,
    VERIFIED,
    Action,
    Do,
    Effect,
    Observation,
    Rollout,
    Save,
    Server,
    backend_id,
    close,
    drained,
    enter,
)
from serving.regions.deciding.windows import Counters, Snapshot
from serving.regions.registry.registry import LiveModel


def decide(rollout: Rollout, seen: Observation, now: float) -> Action:
    """The next step of a rollout that is not settled."""
    if rollout.ending is not None:
        return decide_revert(rollout, seen, now)
    if rollout.state == LIVE:
        return _decide_retire(rollout, seen, now)
    if rollout.abort is not None:
        return take_back(begin_revert(rollout, ABORTED, rollout.abort, now), f"aborting: {rollout.abort}")
    if rollout.state == QUEUED:
        return _leave_queue(rollout, seen, now)
    if rollout.state == REPLICATING:
        return Do(effect=Effect.REPLICATE)
    if rollout.state == VERIFIED:
        return Save(rollout=enter(rollout, STARTING, now), message="starting the candidate's server")
    if rollout.state == STARTING:
        return _decide_starting(rollout, seen, now)
    if seen.candidate in (Server.FAILED, Server.ABSENT):
        note = seen.candidate_note or "its process is gone"
        return fail(rollout, [server_failed(f"the candidate's server ended: {note}")], now)
    if rollout.state == GOLDEN:
        return _decide_golden(rollout, seen, now)
    return _decide_canary(rollout, seen, now)


def _leave_queue(rollout: Rollout, seen: Observation, now: float) -> Save:
    previous = None if seen.live is None else seen.live.release_id
    if previous == rollout.release.id:
        done = replace(
            rollout, state=LIVE, changed=False, settled=True, previous=previous, previous_version=seen.live_version
        )
        return Save(rollout=replace(done, finished_at=now), message="live already, nothing to do")
    left = replace(rollout, previous=previous, previous_version=None if previous is None else seen.live_version)
    # At most one server stands by: the one that this rollout will replace.
    alone = None if seen.live is None else replace(seen.live, standby=None, standby_until=None)
    return Save(rollout=enter(left, REPLICATING, now), message="copying the bundle", live=alone)


def _decide_starting(rollout: Rollout, seen: Observation, now: float) -> Action:
    if seen.candidate is Server.READY:
        if rollout.held:
            return Do(effect=Effect.WAIT)
        return Save(rollout=enter(rollout, GOLDEN, now), message="server is ready, checking the golden set")
    if seen.candidate is Server.FAILED:
        return fail(rollout, [server_failed(f"the candidate's server did not start: {seen.candidate_note}")], now)
    if now - rollout.steps[-1].started_at > rollout.policy.start_timeout_s:
        note = f"the candidate's server was not ready within {rollout.policy.start_timeout_s:g} s"
        return fail(rollout, [server_failed(note)], now)
    return Do(effect=Effect.LAUNCH if seen.candidate is Server.ABSENT else Effect.WAIT)


def _decide_golden(rollout: Rollout, seen: Observation, now: float) -> Action:
    if seen.candidate is Server.READY:
        return Do(effect=Effect.CHECK_GOLDEN)
    if now - rollout.steps[-1].started_at > rollout.policy.start_timeout_s:
        return fail(rollout, [server_failed("the candidate's server stopped answering")], now)
    return Do(effect=Effect.WAIT)


def finish_replication(rollout: Rollout, now: float) -> Rollout:
    return enter(rollout, VERIFIED, now)


def finish_golden(rollout: Rollout, gates: list[GateResult], seen: Observation, now: float) -> Save:
    """Close the golden step; on success begin the canary."""
    if failures(gates):
        return fail(rollout, gates, now)
    alone = rollout.previous is None and not seen.served_elsewhere
    planned = replace(close(rollout, gates, now), plan=[100] if alone else list(rollout.policy.steps_percent))
    return _begin_step(planned, planned.plan[0], now)


def _begin_step(rollout: Rollout, percent: int, now: float) -> Save:
    begun = replace(enter(rollout, CANARY, now, percent), baseline=None)
    return Save(rollout=begun, message=f"canary {percent} %")


def weights_in_force(rollout: Rollout, stats: Snapshot, now: float) -> Rollout:
    """The step's window begins now."""
    if rollout.state == CANARY and rollout.ending is None:
        last = replace(rollout.steps[-1], started_at=now)
        return replace(rollout, baseline=stats, steps=[*rollout.steps[:-1], last])
    return replace(rollout, weights_at=now)


def _decide_canary(rollout: Rollout, seen: Observation, now: float) -> Action:
    if rollout.baseline is None:
        return Do(effect=Effect.SHIFT_WEIGHTS)
    policy, waited = rollout.policy, now - rollout.steps[-1].started_at
    window, live, since_boot = _windows(rollout, seen.stats)
    if window.finished >= policy.min_requests or errors_cannot_pass(window, policy):
        gates = judge_step(window, live, since_boot, policy)
        return fail(rollout, gates, now, window) if failures(gates) else _pass_step(rollout, gates, window, now)
    if waited > policy.step_timeout_s:
        gates = [too_few_requests(window, policy), *judge_step(window, live, since_boot, policy)]
        return fail(rollout, gates, now, window)
    if seen.stats is not None and 0 <= policy.synthetic_after_s <= waited:
        share = (rollout.percent or 100) / 100
        return Do(effect=Effect.REPLAY, requests=max(1, round((policy.min_requests - window.finished) / share)))
    return Do(effect=Effect.WAIT)


def _windows(rollout: Rollout, stats: Snapshot | None) -> tuple[Counters, Counters | None, Counters | None]:
    """Candidate's and live version's windows of this step, and the live version's counters since boot."""
    if stats is None:
        return Counters(), None, None
    window = stats.since(rollout.baseline)
    candidate = window.of(backend_id(rollout.release.id, rollout.region))
    if rollout.previous is None:
        return candidate, None, None
    live = backend_id(rollout.previous, rollout.region)
    return candidate, window.of(live), stats.of(live)


def _pass_step(rollout: Rollout, gates: list[GateResult], window: Counters, now: float) -> Save:
    passed = close(rollout, gates, now, window)
    index = rollout.plan.index(rollout.percent or 100)
    if index + 1 < len(rollout.plan):
        return _begin_step(passed, rollout.plan[index + 1], now)
    return Save(
        rollout=replace(passed, state=LIVE, percent=100, finished_at=now, weights_at=None),
        message="live",
        live=LiveModel(
            model=rollout.release.model,
            release_id=rollout.release.id,
            previous_release_id=rollout.previous,
            reason=None,
        ),
    )


def _decide_retire(rollout: Rollout, seen: Observation, now: float) -> Action:
    """Live: take the old server out of the route, let it finish, then let it stand by or stop it."""
    if rollout.weights_at is None:
        return Do(effect=Effect.SHIFT_WEIGHTS)
    if rollout.previous is not None and not drained(rollout, rollout.previous, seen.stats, now):
        return Do(effect=Effect.WAIT)
    standby_s, live = rollout.policy.standby_s, seen.live
    if standby_s > 0 and seen.previous is Server.READY and live is not None and live.release_id == rollout.release.id:
        standing_by = replace(live, standby=rollout.previous, standby_until=now + standby_s)
        message = f"settled; {rollout.previous} stands by for {standby_s:g} s"
        return Save(rollout=replace(rollout, settled=True), message=message, live=standing_by)
    return Do(effect=Effect.STOP_PREVIOUS)
