"""Taking a rollout back, purely: a failed gate, an abort, a revert of one that was live, a rollback that overrules.

Weights go back first, what lost is drained and stopped after that. A version that was live before must
answer before it becomes live again; if it does not start, the region keeps the version it has.
"""

from dataclasses import replace

from serving.regions.deciding.evidence import Window
from serving.regions.deciding.gates import GateResult, failures
from serving.regions.deciding.rollout_state import (
    ABORTED,
    CANARY,
    LIVE,
    ROLLED_BACK,
    SHADOW,
    STARTING,
    TERMINAL,
    Action,
    Do,
    Effect,
    Observation,
    Rollout,
    Save,
    Server,
    Step,
    close,
    drained,
)
from serving.regions.registry.registry import LiveModel


def begin_revert(rollout: Rollout, ending: str, reason: str, now: float) -> Rollout:
    """From here on the weights go back; one that never had traffic is over once its server is stopped."""
    undone = replace(close(rollout, [], now), ending=ending, reason=reason, weights_at=None)
    if rollout.state in (SHADOW, CANARY, LIVE):
        return undone
    return replace(undone, state=ending, finished_at=now, weights_at=now)


def request_revert(rollout: Rollout, live: LiveModel | None, reason: str, now: float) -> Rollout:
    """Take back a rollout: abort it while it runs, put the version before back once it is live."""
    if rollout.ending is not None or rollout.state in (ROLLED_BACK, ABORTED):
        return rollout
    if rollout.state != LIVE:
        return replace(rollout, abort=reason)
    if not rollout.changed:
        return rollout
    if live is None or live.release_id != rollout.release.id:
        # Something else took its place meanwhile: there is nothing of it to take back.
        return replace(rollout, state=ROLLED_BACK, reason=reason, settled=True)
    begun = replace(begin_revert(rollout, ROLLED_BACK, reason, now), reverting=True, settled=False, revert_failure=None)
    return replace(begun, steps=[*begun.steps, Step(state=STARTING, percent=None, started_at=now)], finished_at=None)


def fail(rollout: Rollout, gates: list[GateResult], now: float, window: Window | None = None) -> Save:
    sentences = "; ".join(gate.sentence() for gate in failures(gates))
    reason = f"{_place(rollout)}: {sentences}"
    closed = close(rollout, gates, now, window)
    return take_back(begin_revert(closed, ROLLED_BACK, reason, now), f"rolling back: {reason}")


def revert_inconclusive(rollout: Rollout, gates: list[GateResult], lacking: str, now: float, window: Window) -> Save:
    """No gate has failed, but none of the time is left, and the policy says back."""
    reason = f"{_place(rollout)}: {lacking} within {rollout.policy.step_timeout_s:g} s, and the policy says back"
    closed = close(rollout, gates, now, window)
    return take_back(begin_revert(closed, ROLLED_BACK, reason, now), f"rolling back: {reason}")


def fail_replication(rollout: Rollout, reason: str, now: float) -> Save:
    """The bundle is not to be had, or not to be trusted."""
    reason = f"{_place(rollout)}: {reason}"
    return take_back(begin_revert(rollout, ROLLED_BACK, reason, now), f"rolling back: {reason}")


def take_back(undone: Rollout, message: str) -> Save:
    """A first release leaves the model known, with nothing live and the reason."""
    # One that never left the queue does not know yet what is live, and has changed nothing.
    if undone.previous is not None or not undone.steps:
        return Save(rollout=undone, message=message)
    nothing = LiveModel(model=undone.release.model, release_id=None, previous_release_id=None, reason=undone.reason)
    return Save(rollout=undone, message=message, live=nothing)


def _place(rollout: Rollout) -> str:
    step = f"canary {rollout.percent} %" if rollout.state == CANARY else rollout.state
    return f"{rollout.region}, {step}"


def decide_revert(rollout: Rollout, seen: Observation, now: float) -> Action:
    if rollout.weights_at is None:
        if rollout.reverting and seen.live is not None and seen.live.release_id == rollout.release.id:
            return _bring_previous_back(rollout, seen, now)
        return Do(effect=Effect.RESTORE_WEIGHTS)
    alive = seen.candidate in (Server.READY, Server.STARTING)
    if alive and rollout.finished_at is not None and not _gone_quiet(rollout, seen, now):
        return Do(effect=Effect.WAIT)
    return Do(effect=Effect.STOP_CANDIDATE)


def _gone_quiet(rollout: Rollout, seen: Observation, now: float) -> bool:
    never_served = all(step.state not in (SHADOW, CANARY) for step in rollout.steps)
    return never_served or drained(rollout, rollout.release.id, seen.stats, now)


def _bring_previous_back(rollout: Rollout, seen: Observation, now: float) -> Action:
    """The version before must answer before it becomes the live one again."""
    if rollout.previous is None:
        return _make_previous_live(rollout, seen)
    if seen.previous is Server.READY:
        return _make_previous_live(rollout, seen)
    late = now - rollout.steps[-1].started_at > rollout.policy.start_timeout_s
    if seen.previous_degraded or late:
        why = seen.previous_note or "it was not ready in time"
        failure = f"{rollout.region} keeps version {rollout.version}: the version before did not start again: {why}"
        kept = replace(
            close(rollout, [], now),
            ending=None,
            reverting=False,
            revert_failure=failure,
            weights_at=now,
            finished_at=now,
            settled=True,
        )
        return Save(rollout=replace(kept, reason=failure), message=failure)
    # One that failed while it stood aside is started anew, until it has crashed too often.
    gone = seen.previous in (Server.ABSENT, Server.FAILED)
    return Do(effect=Effect.LAUNCH_PREVIOUS if gone else Effect.WAIT)


def _make_previous_live(rollout: Rollout, seen: Observation) -> Save:
    live = LiveModel(
        model=rollout.release.model,
        release_id=rollout.previous,
        previous_release_id=seen.before_previous,
        reason=rollout.reason if rollout.previous is None else None,
    )
    return Save(rollout=rollout, message="the version before is live again", live=live)


def weights_restored(rollout: Rollout, now: float) -> Rollout:
    """The route no longer holds the candidate: rolled back (or aborted) as far as users can tell."""
    assert rollout.ending is not None
    return replace(close(rollout, [], now), state=rollout.ending, percent=None, weights_at=now, finished_at=now)


def overrule(rollout: Rollout, reason: str, now: float) -> Rollout:
    """A rollback takes over whatever this rollout was about: it is over, and nothing of it is left to do."""
    if rollout.state in TERMINAL and not rollout.reverting:
        return replace(rollout, settled=True)
    ended = close(rollout, [], now)
    state = rollout.ending or ABORTED
    return replace(
        ended,
        state=state,
        ending=state,
        reason=rollout.reason or reason,
        percent=None,
        weights_at=now,
        finished_at=now,
        settled=True,
    )
