"""What a rollout does next, purely: forward here, back in `rollout_revert.py`.

`decide` looks at the persisted rollout and at what was observed and answers with one step: save a
new state, or do one thing to the world. Every effect may be repeated, so a process that dies at any
point goes on from what it saved. Two promises hold whatever is observed: the old server is not stopped
before the candidate has passed its step at 100 %, and weights go back before the candidate is stopped.
"""

from dataclasses import replace

from serving.regions.deciding.canary_decision import begin, decide_canary, decide_shadow
from serving.regions.deciding.evidence_gates import judge_error_budget
from serving.regions.deciding.gates import GateResult, failures, server_failed
from serving.regions.deciding.rollout_revert import begin_revert, decide_revert, fail, take_back
from serving.regions.deciding.rollout_state import (
    ABORTED,
    GOLDEN,
    LIVE,
    QUEUED,
    REPLICATING,
    SHADOW,
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
    enter,
)
from serving.regions.deciding.watch_decision import decide_live


def decide(rollout: Rollout, seen: Observation, now: float) -> Action:
    """The next step of a rollout that is not settled."""
    if rollout.ending is not None:
        return decide_revert(rollout, seen, now)
    if rollout.state == LIVE:
        return decide_live(rollout, seen, now)
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
    if rollout.state == SHADOW:
        return decide_shadow(rollout, seen, now)
    return decide_canary(rollout, seen, now)


def _leave_queue(rollout: Rollout, seen: Observation, now: float) -> Save:
    previous = None if seen.live is None else seen.live.release_id
    if previous == rollout.release.id:
        done = replace(
            rollout, state=LIVE, changed=False, settled=True, previous=previous, previous_version=seen.live_version
        )
        return Save(rollout=replace(done, finished_at=now), message="live already, nothing to do")
    if previous is not None and seen.recent is not None:
        budget = judge_error_budget(seen.recent.of(backend_id(previous, rollout.region)), rollout.policy)
        if failures([budget]):
            return fail(rollout, [budget], now)
    left = replace(
        rollout,
        previous=previous,
        previous_version=None if previous is None else seen.live_version,
        opening=seen.stats,
    )
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
    if not rollout.held and now - rollout.steps[-1].started_at > rollout.policy.start_timeout_s:
        note = f"the candidate's server was not ready within {rollout.policy.start_timeout_s:g} s"
        return fail(rollout, [server_failed(note)], now)
    return Do(effect=Effect.LAUNCH if seen.candidate is Server.ABSENT else Effect.WAIT)


def _decide_golden(rollout: Rollout, seen: Observation, now: float) -> Action:
    if rollout.paused:
        return Do(effect=Effect.WAIT)
    if seen.candidate is Server.READY:
        return Do(effect=Effect.CHECK_GOLDEN)
    if now - rollout.steps[-1].started_at > rollout.policy.start_timeout_s:
        return fail(rollout, [server_failed("the candidate's server stopped answering")], now)
    return Do(effect=Effect.WAIT)


def finish_replication(rollout: Rollout, now: float) -> Rollout:
    return enter(rollout, VERIFIED, now)


def finish_golden(rollout: Rollout, gates: list[GateResult], seen: Observation, now: float) -> Save:
    """Close the golden step; on success the candidate comes beside the live version."""
    if failures(gates):
        return fail(rollout, gates, now)
    if rollout.paused:
        return Save(rollout=rollout, message="the golden set passed, but meanwhile it was paused: checked again later")
    alone = rollout.previous is None and not seen.served_elsewhere
    return begin(replace(close(rollout, gates, now), plan=[100] if alone else list(rollout.policy.steps_percent)), now)
