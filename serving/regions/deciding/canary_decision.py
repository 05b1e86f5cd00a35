"""What a rollout does while its candidate is beside the live version: in its shadow, and in each canary step. Pure.

A step before the last needs three things: nothing has failed, it has baked, and enough requests had an outcome. The
verdict is due at the last step that has a control: once the live version gets no more traffic there is nothing left
to compare with. There every gate that the policy requires must have passed, or the policy's word for inconclusive
holds: hold, go, or back.
"""

from dataclasses import replace

from serving.counters import Counters, Snapshot
from serving.regions.deciding.evidence import Scores, Window
from serving.regions.deciding.evidence_gates import judge, judge_requests
from serving.regions.deciding.gates import INCONCLUSIVE, PASSED, GateResult, failures, gateway_silent, missing, verdict
from serving.regions.deciding.policy import BACK, GO
from serving.regions.deciding.rollout_revert import fail, revert_inconclusive
from serving.regions.deciding.rollout_state import (
    CANARY,
    LIVE,
    SHADOW,
    Action,
    Do,
    Effect,
    Observation,
    Rollout,
    Save,
    backend_id,
    close,
    enter,
)
from serving.regions.registry.registry import LiveModel


def begin(rollout: Rollout, now: float) -> Save:
    """The candidate's first place beside the live version: its shadow, or a canary step."""
    if rollout.policy.shadow_s > 0 and rollout.previous is not None:
        shadowed = replace(enter(rollout, SHADOW, now), baseline=None)
        return Save(rollout=shadowed, message=f"in the live version's shadow for {rollout.policy.shadow_s:g} s")
    return _begin_step(rollout, rollout.plan[0], now)


def _begin_step(rollout: Rollout, percent: int, now: float) -> Save:
    begun = replace(enter(rollout, CANARY, now, percent), baseline=None, waiting_for=None, scores=Scores())
    return Save(rollout=begun, message=f"canary {percent} %")


def weights_in_force(rollout: Rollout, stats: Snapshot, now: float) -> Rollout:
    """The step's window begins now; at 100 % what was counted of the live version is complete."""
    if rollout.state not in (SHADOW, CANARY) or rollout.ending is not None:
        return replace(rollout, weights_at=now)
    last = replace(rollout.steps[-1], started_at=now)
    recorded = rollout.recorded
    if rollout.previous is not None and rollout.percent == 100:
        recorded = stats.since(rollout.opening).of(backend_id(rollout.previous, rollout.region))
    return replace(rollout, baseline=stats, recorded=recorded, steps=[*rollout.steps[:-1], last])


def open_window(rollout: Rollout, stats: Snapshot) -> Window:
    """What this step has counted so far."""
    counted = stats.since(rollout.baseline)
    candidate = counted.of(backend_id(rollout.release.id, rollout.region))
    recorded = rollout.percent == 100 and rollout.previous is not None
    return Window(
        region=rollout.region,
        percent=rollout.percent or 0,
        candidate=candidate,
        live=(rollout.recorded or Counters(bounds_ms=stats.bounds_ms)) if recorded else _live(rollout, counted),
        scores=rollout.scores,
        replays_count=rollout.replays_count,
        recorded=recorded,
    )


def _live(rollout: Rollout, counted: Snapshot) -> Counters | None:
    return None if rollout.previous is None else counted.of(backend_id(rollout.previous, rollout.region))


def decide_shadow(rollout: Rollout, seen: Observation, now: float) -> Action:
    """The candidate answers copies; how they compare may fail it, but nothing passes here."""
    if rollout.baseline is None or seen.stats is None:
        return _without_gateway(rollout, seen, now)
    policy, window = rollout.policy, open_window(rollout, seen.stats)
    gates = judge([*rollout.windows, window], rollout.region, policy, regions=rollout.regions)
    if failures(gates):
        return fail(rollout, gates, now, window)
    waited = now - rollout.steps[-1].started_at
    if rollout.paused:
        return Do(effect=Effect.WAIT)
    enough = window.candidate.compared >= policy.min_requests
    if rollout.promoted_by is not None or (enough and waited >= policy.shadow_s):
        return _begin_step(close(rollout, gates, now, window), rollout.plan[0], now)
    if waited > policy.shadow_s + policy.step_timeout_s:
        lacking = f"{window.candidate.compared} of {policy.min_requests} requests compared in the shadow"
        return _inconclusive(rollout, gates, window, lacking, now)
    return Do(effect=Effect.WAIT)


def decide_canary(rollout: Rollout, seen: Observation, now: float) -> Action:
    if rollout.baseline is None or seen.stats is None:
        return _without_gateway(rollout, seen, now)
    policy, window = rollout.policy, open_window(rollout, seen.stats)
    requests = judge_requests(window, policy)
    gates = [requests, *judge([*rollout.windows, window], rollout.region, policy, regions=rollout.regions)]
    if failures(gates):
        return fail(rollout, gates, now, window)
    if rollout.promoted_by is not None and not rollout.paused:
        return _pass_step(rollout, gates, window, now)
    waited = now - rollout.steps[-1].started_at
    lacking = _lacking(rollout, gates)
    if not rollout.paused:
        if lacking is None and waited >= policy.bake_s:
            return _pass_step(rollout, gates, window, now)
        if lacking is not None and waited > policy.step_timeout_s:
            return _inconclusive(rollout, gates, window, lacking, now)
    return _gather(rollout, requests, lacking, waited)


def _without_gateway(rollout: Rollout, seen: Observation, now: float) -> Action:
    """Nothing can be judged while the gateway does not answer, and nobody waits for it longer than for users."""
    begun = rollout.baseline is not None
    silent_s = seen.gateway_silent_s if begun else seen.weights_refused_s
    if silent_s > rollout.policy.step_timeout_s and not rollout.paused:
        what = "told no counters" if begun else "did not take the weights"
        return fail(rollout, [gateway_silent(f"the gateway {what} for {silent_s:.0f} s")], now)
    return Do(effect=Effect.WAIT if begun else Effect.SHIFT_WEIGHTS)


def _lacking(rollout: Rollout, gates: list[GateResult]) -> str | None:
    """What the step still needs beside time, or None."""
    requests = next(gate for gate in gates if gate.gate == "requests")
    if requests.status != PASSED:
        return f"{requests.measured:g} of {requests.allowed:g} requests"
    alone = rollout.previous is None
    if rollout.percent == _verdict_at(rollout) and verdict(gates, rollout.policy, alone=alone) != PASSED:
        return f"no verdict on {missing(gates, rollout.policy, alone=alone)}"
    return None


def _verdict_at(rollout: Rollout) -> int:
    """The percentage at which the verdict is due: the last one that leaves the live version some traffic."""
    controlled = [percent for percent in rollout.plan if percent < 100]
    return controlled[-1] if controlled and rollout.previous is not None else rollout.plan[-1]


def _inconclusive(rollout: Rollout, gates: list[GateResult], window: Window, lacking: str, now: float) -> Action:
    """The time is over: the policy's word."""
    word = rollout.policy.on_inconclusive
    if word == GO:
        note = f"{lacking} after {rollout.policy.step_timeout_s:g} s: the policy says go"
        if rollout.state == SHADOW:
            return _begin_step(close(rollout, [*gates, _went_on(note)], now, window), rollout.plan[0], now)
        return _pass_step(rollout, [*gates, _went_on(note)], window, now)
    if word == BACK:
        return revert_inconclusive(rollout, gates, lacking, now, window)
    if rollout.waiting_for is None:
        message = f"holding: {lacking}; more evidence, promote or abort"
        return Save(rollout=replace(rollout, waiting_for=lacking), message=message)
    requests = next((gate for gate in gates if gate.gate == "requests"), None)
    waited = now - rollout.steps[-1].started_at
    return Do(effect=Effect.WAIT) if requests is None else _gather(rollout, requests, lacking, waited)


def _went_on(note: str) -> GateResult:
    return GateResult(gate="verdict", measured=None, allowed=None, unit="", status=INCONCLUSIVE, note=note)


def _gather(rollout: Rollout, requests: GateResult, lacking: str | None, waited: float) -> Do:
    """Wait for users, or replay golden inputs where the policy says so and something is lacking."""
    policy = rollout.policy
    after_s = 0.0 if rollout.previous is None else policy.synthetic_after_s
    if lacking is None or not 0 <= after_s <= waited:
        return Do(effect=Effect.WAIT)
    short = policy.min_requests - (requests.measured or 0.0)
    wanted = short if short > 0 else policy.min_requests
    return Do(effect=Effect.REPLAY, requests=max(1, round(wanted / ((rollout.percent or 100) / 100))))


def _pass_step(rollout: Rollout, gates: list[GateResult], window: Window, now: float) -> Save:
    passed = close(rollout, gates, now, window)
    index = rollout.plan.index(rollout.percent or 100)
    if index + 1 < len(rollout.plan):
        return _begin_step(passed, rollout.plan[index + 1], now)
    return Save(
        rollout=replace(passed, state=LIVE, percent=100, finished_at=now, weights_at=None, waiting_for=None),
        message="live",
        live=LiveModel(
            model=rollout.release.model,
            release_id=rollout.release.id,
            previous_release_id=rollout.previous,
            reason=None,
        ),
    )
