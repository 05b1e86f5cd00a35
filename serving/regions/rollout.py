"""One region's part of a promotion: what it is and, purely, what comes next.

    queued -> replicating -> verified -> starting -> golden -> canary 5/25/50/100 % -> live
                                   a failing gate, a crash or an abort -> rolled_back | aborted

`decide` looks at the persisted rollout and at what was observed and answers with one step: save a
new state, or do one thing to the world. Every effect may be repeated, so a process that dies at any
point goes on from what it saved. Two promises hold whatever is observed: the old server is not stopped
before the candidate has passed its step at 100 %, and weights go back before the candidate is stopped.
"""

from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from serving.regions.gates import (
    GateResult,
    errors_cannot_pass,
    failures,
    judge_step,
    server_failed,
    too_few_requests,
)
from serving.regions.policy import PromotionPolicy
from serving.regions.registry import LiveModel
from serving.regions.windows import Counters, Snapshot
from serving.releases import Release

QUEUED: Final = "queued"
REPLICATING: Final = "replicating"
VERIFIED: Final = "verified"
STARTING: Final = "starting"
GOLDEN: Final = "golden"
CANARY: Final = "canary"
LIVE: Final = "live"
ROLLED_BACK: Final = "rolled_back"
ABORTED: Final = "aborted"
STATES: Final = (QUEUED, REPLICATING, VERIFIED, STARTING, GOLDEN, CANARY, LIVE, ROLLED_BACK, ABORTED)
TERMINAL: Final = frozenset({LIVE, ROLLED_BACK, ABORTED})


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One state that a rollout went through, with what its gates said."""

    state: str
    percent: int | None
    started_at: float
    finished_at: float | None = None
    requests: int = 0
    synthetic: int = 0
    gates: list[GateResult] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rollout:
    """The persisted state machine. Only transitions in this file change it."""

    id: str
    region: str
    release: Release
    version: int
    policy: PromotionPolicy
    state: str = QUEUED
    percent: int | None = None
    plan: list[int] = field(default_factory=list)
    """Percentages of the canary, decided when it begins."""
    baseline: Snapshot | None = None
    """The gateway's counters when the present step's weights were in force; None until they are."""
    steps: list[Step] = field(default_factory=list)
    previous: str | None = None
    """Release that was live when this rollout left the queue."""
    previous_version: int | None = None
    changed: bool = True
    """False when the release was live here already and nothing had to be done."""
    abort: str | None = None
    """Why somebody wants this rollout stopped."""
    ending: str | None = None
    """`rolled_back` | `aborted` from the moment at which the weights must go back."""
    reverting: bool = False
    """Whether a rollout that was live is taken back."""
    revert_failure: str | None = None
    reason: str | None = None
    weights_at: float | None = None
    """When the final weights (forward or back) were in force; draining counts from here."""
    settled: bool = False
    """Nothing is left to do: the server that lost is stopped."""
    started_at: float = 0.0
    finished_at: float | None = None

    @property
    def candidate_percent(self) -> int | None:
        """Weight that the route gives to the candidate now, None when it is not to be in the route."""
        return self.percent if self.state == CANARY and self.ending is None else None

    def to_json(self) -> dict[str, Any]:
        document = asdict(self)
        document["baseline"] = None if self.baseline is None else self.baseline.to_json()
        return document


class Server(StrEnum):
    ABSENT = "absent"
    STARTING = "starting"
    READY = "ready"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True, slots=True)
class Observation:
    """What the region looks like when `decide` is asked."""

    candidate: Server
    candidate_note: str = ""
    """Why the candidate's server failed."""
    previous: Server = Server.ABSENT
    previous_note: str = ""
    live: LiveModel | None = None
    live_version: int | None = None
    before_previous: str | None = None
    """What was live before `previous` was: the version before, should `previous` be live again."""
    served_elsewhere: bool = False
    """Whether another region serves the model live."""
    stats: Snapshot | None = None
    """None when the gateway did not answer."""


class Effect(StrEnum):
    """What a runner does to the world; each may be repeated."""

    REPLICATE = "replicate"
    LAUNCH = "launch the candidate"
    CHECK_GOLDEN = "check the golden set"
    SHIFT_WEIGHTS = "shift weights"
    REPLAY = "replay golden inputs"
    LAUNCH_PREVIOUS = "launch the previous release"
    RESTORE_WEIGHTS = "put the old weights back"
    STOP_CANDIDATE = "stop the candidate"
    STOP_PREVIOUS = "stop the previous release"
    WAIT = "wait"


@dataclass(frozen=True, kw_only=True, slots=True)
class Do:
    effect: Effect
    requests: int = 0
    """How many to replay so that the candidate gets enough of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Save:
    rollout: Rollout
    message: str
    live: LiveModel | None = None
    """What is live from this moment on, committed together with the rollout."""


Action = Do | Save


def decide(rollout: Rollout, seen: Observation, now: float) -> Action:
    """The next step of a rollout that is not settled."""
    if rollout.ending is not None:
        return _decide_undo(rollout, seen, now)
    if rollout.state == LIVE:
        return _decide_retire(rollout, seen, now)
    if rollout.abort is not None:
        return _take_back(undo(rollout, ABORTED, rollout.abort, now), f"aborting: {rollout.abort}")
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
        return _fail(rollout, [server_failed(f"the candidate's server ended: {note}")], now)
    if rollout.state == GOLDEN:
        return _decide_golden(rollout, seen, now)
    return _decide_canary(rollout, seen, now)


# Forward


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
        return Save(rollout=enter(rollout, GOLDEN, now), message="server is ready, checking the golden set")
    if seen.candidate is Server.FAILED:
        return _fail(rollout, [server_failed(f"the candidate's server did not start: {seen.candidate_note}")], now)
    if now - rollout.steps[-1].started_at > rollout.policy.start_timeout_s:
        note = f"the candidate's server was not ready within {rollout.policy.start_timeout_s:g} s"
        return _fail(rollout, [server_failed(note)], now)
    return Do(effect=Effect.LAUNCH if seen.candidate is Server.ABSENT else Effect.WAIT)


def _decide_golden(rollout: Rollout, seen: Observation, now: float) -> Action:
    if seen.candidate is Server.READY:
        return Do(effect=Effect.CHECK_GOLDEN)
    if now - rollout.steps[-1].started_at > rollout.policy.start_timeout_s:
        return _fail(rollout, [server_failed("the candidate's server stopped answering")], now)
    return Do(effect=Effect.WAIT)


def finish_replication(rollout: Rollout, now: float) -> Rollout:
    return enter(rollout, VERIFIED, now)


def finish_golden(rollout: Rollout, gates: list[GateResult], seen: Observation, now: float) -> Save:
    """Close the golden step; on success begin the canary."""
    if failures(gates):
        return _fail(rollout, gates, now)
    alone = rollout.previous is None and not seen.served_elsewhere
    planned = replace(_close(rollout, gates, now), plan=[100] if alone else list(rollout.policy.steps_percent))
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
        return _fail(rollout, gates, now, window) if failures(gates) else _pass_step(rollout, gates, window, now)
    if waited > policy.step_timeout_s:
        gates = [too_few_requests(window, policy), *judge_step(window, live, since_boot, policy)]
        return _fail(rollout, gates, now, window)
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
    passed = _close(rollout, gates, now, window)
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
    if rollout.previous is not None and not _drained(rollout, rollout.previous, seen.stats, now):
        return Do(effect=Effect.WAIT)
    standby_s, live = rollout.policy.standby_s, seen.live
    if standby_s > 0 and seen.previous is Server.READY and live is not None and live.release_id == rollout.release.id:
        standing_by = replace(live, standby=rollout.previous, standby_until=now + standby_s)
        message = f"settled; {rollout.previous} stands by for {standby_s:g} s"
        return Save(rollout=replace(rollout, settled=True), message=message, live=standing_by)
    return Do(effect=Effect.STOP_PREVIOUS)


def _drained(rollout: Rollout, release: str, stats: Snapshot | None, now: float) -> bool:
    """A backend that the gateway no longer reports may still be answering: wait out the bound."""
    if now - (rollout.weights_at or now) >= rollout.policy.drain_s:
        return True
    counters = None if stats is None else stats.backends.get(backend_id(release, rollout.region))
    return counters is not None and counters.in_flight == 0


# Back


def undo(rollout: Rollout, ending: str, reason: str, now: float) -> Rollout:
    """From here on the weights go back; one that never had traffic is over once its server is stopped."""
    undone = replace(_close(rollout, [], now), ending=ending, reason=reason, weights_at=None)
    if rollout.state in (CANARY, LIVE):
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
    begun = replace(undo(rollout, ROLLED_BACK, reason, now), reverting=True, settled=False, revert_failure=None)
    return replace(begun, steps=[*begun.steps, Step(state=STARTING, percent=None, started_at=now)], finished_at=None)


def _fail(rollout: Rollout, gates: list[GateResult], now: float, window: Counters | None = None) -> Save:
    sentences = "; ".join(gate.sentence() for gate in failures(gates))
    reason = f"{_place(rollout)}: {sentences}"
    closed = _close(rollout, gates, now, window)
    return _take_back(undo(closed, ROLLED_BACK, reason, now), f"rolling back: {reason}")


def fail_replication(rollout: Rollout, reason: str, now: float) -> Save:
    """The bundle is not to be had, or not to be trusted."""
    reason = f"{_place(rollout)}: {reason}"
    return _take_back(undo(rollout, ROLLED_BACK, reason, now), f"rolling back: {reason}")


def _take_back(undone: Rollout, message: str) -> Save:
    """A first release leaves the model known, with nothing live and the reason."""
    # One that never left the queue does not know yet what is live, and has changed nothing.
    if undone.previous is not None or not undone.steps:
        return Save(rollout=undone, message=message)
    nothing = LiveModel(model=undone.release.model, release_id=None, previous_release_id=None, reason=undone.reason)
    return Save(rollout=undone, message=message, live=nothing)


def _place(rollout: Rollout) -> str:
    step = f"canary {rollout.percent} %" if rollout.state == CANARY else rollout.state
    return f"{rollout.region}, {step}"


def _decide_undo(rollout: Rollout, seen: Observation, now: float) -> Action:
    if rollout.weights_at is None:
        if rollout.reverting and seen.live is not None and seen.live.release_id == rollout.release.id:
            return _bring_previous_back(rollout, seen, now)
        return Do(effect=Effect.RESTORE_WEIGHTS)
    alive = seen.candidate in (Server.READY, Server.STARTING)
    if alive and rollout.finished_at is not None and not _gone_quiet(rollout, seen, now):
        return Do(effect=Effect.WAIT)
    return Do(effect=Effect.STOP_CANDIDATE)


def _gone_quiet(rollout: Rollout, seen: Observation, now: float) -> bool:
    never_served = all(step.state != CANARY for step in rollout.steps)
    return never_served or _drained(rollout, rollout.release.id, seen.stats, now)


def _bring_previous_back(rollout: Rollout, seen: Observation, now: float) -> Action:
    """The version before must answer before it becomes the live one again."""
    if rollout.previous is None:
        return _make_previous_live(rollout, seen)
    if seen.previous is Server.READY:
        return _make_previous_live(rollout, seen)
    late = now - rollout.steps[-1].started_at > rollout.policy.start_timeout_s
    if seen.previous is Server.FAILED or late:
        why = seen.previous_note if seen.previous is Server.FAILED else "it was not ready in time"
        failure = f"{rollout.region} keeps version {rollout.version}: the version before did not start again: {why}"
        kept = replace(
            _close(rollout, [], now),
            ending=None,
            reverting=False,
            revert_failure=failure,
            weights_at=now,
            finished_at=now,
            settled=True,
        )
        return Save(rollout=replace(kept, reason=failure), message=failure)
    return Do(effect=Effect.LAUNCH_PREVIOUS if seen.previous is Server.ABSENT else Effect.WAIT)


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
    return replace(_close(rollout, [], now), state=rollout.ending, percent=None, weights_at=now, finished_at=now)


def same_phase(before: Rollout, now: Rollout) -> bool:
    """Whether an effect that was decided on `before` still has a say.

    While a server is being stopped or weights are being moved, somebody may ask for the rollout to be taken
    back; the outcome of what was begun earlier must then not count as the outcome of what comes now.
    """
    return _phase(before) == _phase(now)


def _phase(rollout: Rollout) -> tuple[object, ...]:
    return rollout.state, rollout.percent, rollout.ending, rollout.reverting, len(rollout.steps)


def overrule(rollout: Rollout, reason: str, now: float) -> Rollout:
    """A rollback takes over whatever this rollout was about: it is over, and nothing of it is left to do."""
    if rollout.state in TERMINAL and not rollout.reverting:
        return replace(rollout, settled=True)
    ended = _close(rollout, [], now)
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


# Steps


def enter(rollout: Rollout, state: str, now: float, percent: int | None = None) -> Rollout:
    """Close the open step and begin the next."""
    closed = _close(rollout, [], now)
    step = Step(state=state, percent=percent, started_at=now)
    return replace(closed, state=state, percent=percent, steps=[*closed.steps, step])


def _close(rollout: Rollout, gates: list[GateResult], now: float, window: Counters | None = None) -> Rollout:
    """Finish the last step unless it is finished."""
    if not rollout.steps or rollout.steps[-1].finished_at is not None:
        return rollout
    last = replace(rollout.steps[-1], finished_at=now, gates=gates)
    if window is not None:
        last = replace(last, requests=window.requests, synthetic=window.synthetic)
    return replace(rollout, steps=[*rollout.steps[:-1], last])


def backend_id(release: str, region: str) -> str:
    """How the gateway's routes and counters name a release's server in a region."""
    return f"{release}@{region}"
