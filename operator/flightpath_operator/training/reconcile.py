"""The one decision about a TrainingJob: what is wanted and what is seen in, a plan out; nothing is touched.

The order of writes is what survives a crash: a decision (a new attempt, an end, a suspension) is a plan that
changes the status alone; only the plan after it, made from that status, deletes the old pods, and only when
they are gone does another allow the new ones. Killed at any moment, the next look goes on from there.
"""

from collections.abc import Iterable
from datetime import timedelta

from flightpath_operator.api.read import InvalidSpec, read_training_job
from flightpath_operator.api.training_job import OPERATOR
from flightpath_operator.conditions import set_condition
from flightpath_operator.ownership import Changes
from flightpath_operator.plan import FINALIZER, Object, Observed, Plan
from flightpath_operator.training.deletion import plan_deletion
from flightpath_operator.training.ending import end_all, force_deadlines, unended
from flightpath_operator.training.job import Job, look
from flightpath_operator.training.judges import active_deadline, deadlines, judge, judge_deadline
from flightpath_operator.training.progress import Metric, fold_progress
from flightpath_operator.training.retry import Gated, gate
from flightpath_operator.training.settings import TrainingSettings
from flightpath_operator.training.state import JobState, Phase, Stage, read_state, write_state
from flightpath_operator.training.status import describe, transition_notes
from flightpath_operator.training.supply import see_group, settle_streak, supply, supply_support
from flightpath_operator.training.transitions import Decision, activate, adopt, begin, stop

_AT_ONCE = timedelta(0)
_NAME_TAKEN = timedelta(seconds=60)
"""Somebody else's object is not watched: whether it is gone must be asked."""
_NO_WRITES = Changes()


def reconcile(parent: Object, observed: Observed, now: float, settings: TrainingSettings) -> Plan:
    """What to do about one TrainingJob now."""
    if (parent.get("spec") or {}).get("managedBy", OPERATOR) != OPERATOR:
        return Plan(finalizer=False if _has_finalizer(parent) else None)
    if parent["metadata"].get("deletionTimestamp") is not None:
        return plan_deletion(parent, observed, now, settings)
    try:
        live = read_training_job(parent)
    except InvalidSpec as refused:
        return _refuse(parent, refused, now)
    job = look(parent, live, observed, now, settings)
    if job.state.finished:
        return _finished(job)
    if job.forgotten:
        return _decided(job, adopt(job))
    if live.suspend:
        return _suspended(job)
    if job.group.stage is Stage.STOPPED:
        return _begin(job)
    return _waiting(job) if job.group.stage is Stage.WAITING else _active(job)


def _begin(job: Job) -> Plan:
    decision = begin(job)
    waiting = job.saying(decision.state)
    if unended(job.pods):
        return _decided(waiting, decision)
    allowed = activate(waiting)
    both = Decision(state=allowed.state, notes=decision.notes, cordon=allowed.cordon)
    return _decided(waiting, both, prepare=True)


def _waiting(job: Job) -> Plan:
    """Older pods go, then the backoff passes, then the attempt may be made."""
    if (late := judge_deadline(job)) is not None:
        return _decided(job, late)
    begins_at = job.group.not_before or job.now
    if not unended(job.pods) and job.now >= begins_at:
        return _decided(job, activate(job), prepare=True)
    ends = Changes(deletes=end_all(job.pods, job.observed.nodes, job.now, job.settings))
    wake = [begins_at, active_deadline(job), *force_deadlines(job.pods, job.observed.nodes, job.settings)]
    return _planned(job, ends, wake=wake)


def _active(job: Job) -> Plan:
    folded = fold_progress(job)
    fresh = job.saying(settle_streak(job.saying(folded.state)))
    decision = judge(fresh)
    if decision is not None:
        return _decided(fresh, decision, metrics=folded.metrics)
    kept = fresh if folded.important else job
    seen = see_group(kept)
    wake = [active_deadline(fresh), *deadlines(fresh)]
    metrics = (*folded.metrics, *seen.metrics) if kept is fresh else seen.metrics
    return _planned(kept.saying(seen.state), supply(kept.saying(seen.state)), metrics=metrics, wake=wake)


def _suspended(job: Job) -> Plan:
    if job.group.stage is not Stage.STOPPED or job.state.phase is not Phase.SUSPENDED:
        return _decided(job, stop(job))
    ends = Changes(deletes=end_all(job.pods, job.observed.nodes, job.now, job.settings))
    return _planned(job, ends, wake=force_deadlines(job.pods, job.observed.nodes, job.settings))


def _finished(job: Job) -> Plan:
    """Ended pods stay for their logs, what runs is ended, and the job goes when its time is over."""
    limit, finished_at = job.live.ttl_seconds_after_finished, job.state.finished_at
    goes_at = None if limit is None or finished_at is None else finished_at + limit
    if goes_at is not None and job.now >= goes_at:
        return Plan(delete_parent=True)
    left = [pod for pod in job.pods if not pod.ended]
    ends = Changes(deletes=end_all(left, job.observed.nodes, job.now, job.settings))
    return _planned(job, ends, wake=[goes_at, *force_deadlines(left, job.observed.nodes, job.settings)])


def _decided(job: Job, decision: Decision, *, metrics: tuple[Metric, ...] = (), prepare: bool = False) -> Plan:
    """A decision: its state is saved before anything is done about it, so nothing happens to pods here."""
    after = job.saying(decision.state)
    # Service and environment may come early: no worker of this attempt is there to read them.
    around = supply_support(after) if prepare else _NO_WRITES
    state = describe(after, around.problems, decision)
    before = job.parent.get("status") or {}
    return Plan(
        creates=around.creates,
        patches=around.patches,
        deletes=around.deletes,
        status=write_state(state),
        notes=(*decision.notes, *transition_notes(before.get("conditions") or (), state.conditions)),
        finalizer=_wanted_finalizer(job.parent),
        cordon=decision.cordon,
        metrics=(*metrics, *decision.metrics),
        again_in=_AT_ONCE,
    )


def _planned(
    job: Job,
    writes: Changes,
    *,
    metrics: tuple[Metric, ...] = (),
    wake: Iterable[float | None] = (),
) -> Plan:
    """The writes that are due, and a status that tells of them."""
    gated = gate(job, job.state, writes)
    state = describe(job.saying(_begun(job, gated)), writes.problems)
    before = job.parent.get("status") or {}
    blocked = state.blocked.not_before if state.blocked else None
    return Plan(
        creates=gated.writes.creates,
        patches=gated.writes.patches,
        deletes=gated.writes.deletes,
        status=write_state(state),
        notes=transition_notes(before.get("conditions") or (), state.conditions),
        finalizer=_wanted_finalizer(job.parent),
        metrics=metrics,
        again_in=_next_look(job.now, [*wake, blocked], bool(writes.problems)),
    )


def _begun(job: Job, gated: Gated) -> JobState:
    """The startup deadline counts from the first pod on: nothing is held before."""
    first = not job.workers and any(child["kind"] == "Pod" for child in gated.writes.creates)
    return gated.state.with_group(since=job.now) if first else gated.state


def _next_look(now: float, wake: Iterable[float | None], taken: bool) -> timedelta | None:
    ahead = [timedelta(seconds=at - now) for at in wake if at is not None and at > now]
    return min([*ahead, *([_NAME_TAKEN] if taken else [])], default=None)


def _refuse(parent: Object, refused: InvalidSpec, now: float) -> Plan:
    """Nothing is touched, neither made nor deleted; only an edit helps."""
    status = parent.get("status") or {}
    state = read_state(status)
    generation = int(parent["metadata"].get("generation", 1))
    conditions = set_condition(
        state.conditions, "Accepted", False, refused.reason, refused.message, now=now, generation=generation
    )
    state = state.having(conditions=tuple(conditions), observed_generation=generation)
    notes = transition_notes(status.get("conditions") or (), conditions)
    return Plan(status=write_state(state), notes=notes)


def _wanted_finalizer(parent: Object) -> bool | None:
    return None if _has_finalizer(parent) else True


def _has_finalizer(parent: Object) -> bool:
    return FINALIZER in (parent["metadata"].get("finalizers") or [])
