"""Decisions that begin or end an attempt, as new states.

Each is written to the status by a plan that does nothing else for the workers: the operator may die between any
two writes, and then finds in the status either the old decision with the old pods, or the new one.
"""

from dataclasses import dataclass
from typing import Final

from flightpath_operator.plan import Note
from flightpath_operator.training.elastic import next_size
from flightpath_operator.training.faults import Failure, Kind, backoff_seconds
from flightpath_operator.training.gang import release_backoff
from flightpath_operator.training.job import WRONG_INPUT, Job, freeze
from flightpath_operator.training.nccl import plan_network
from flightpath_operator.training.nodes import candidates, faulty_nodes
from flightpath_operator.training.progress import Metric, record_restart
from flightpath_operator.training.rendezvous import checkpoint_variables
from flightpath_operator.training.state import Cause, Counters, Group, JobState, LastFailure, Phase, Stage

RESTARTS: Final = "flightpath_operator_restarts_total"
_MAX_EXCLUDED: Final = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Decision:
    """A new state, and what to tell of it."""

    state: JobState
    notes: tuple[Note, ...] = ()
    metrics: tuple[Metric, ...] = ()
    verdict: tuple[str, str] | None = None
    """Reason and message of the condition that ends the job."""
    scheduling: tuple[str, str] | None = None
    """Reason and message of the condition Scheduled, where the decision is about it."""
    cordon: tuple[str, ...] = ()
    """Nodes to keep everybody from."""


def begin(job: Job) -> Decision:
    """The first attempt of a new or a resumed job, with the spec as it is now."""
    run_spec, digest = freeze(job.live)
    state = job.state.having(run_spec=run_spec, spec_hash=digest, started_at=None, counters=Counters())
    state = _raised(job, state, Cause.START, 0.0)
    resumed = Note(reason="Resumed", message=f"attempt {state.attempt} begins")
    return Decision(state=state, notes=(resumed,) if job.state.attempt else ())


def activate(job: Job) -> Decision:
    """Allows the pods of the attempt: with one environment and one choice of nodes for all of them."""
    nodes = job.observed.nodes
    network = plan_network(job.spec, candidates(job.spec, nodes))
    size, grow_after = next_size(job)
    group = Group(
        stage=Stage.ACTIVE,
        cause=job.group.cause,
        since=job.now,
        size=size,
        lowest=job.live.min_workers,
        highest=job.live.max_workers,
        grow_after=grow_after,
        same_zone=network.same_zone,
        notes=network.notes,
    )
    # Time in Kueue's queue is not the job's: there the deadline counts from the admission on.
    started_at = job.state.started_at if job.kueue else job.state.started_at or job.now
    excluded = faulty_nodes(job.spec, nodes.values())[:_MAX_EXCLUDED]
    state = job.state.having(
        group=group,
        environment=dict(sorted((network.variables | checkpoint_variables(job.spec)).items())),
        excluded_nodes=excluded,
        blocked=None,
        started_at=started_at,
    )
    open_nodes = (name for name in excluded if not nodes[name].get("spec", {}).get("unschedulable"))
    return Decision(state=state, cordon=tuple(open_nodes) if job.settings.cordon_nodes else ())


def adopt(job: Job) -> Decision:
    """Takes over a running group of which the status knows nothing: restarting it would cost what it has trained."""
    run_spec, digest = freeze(job.live)
    state = job.state.having(attempt=job.newest_attempt, run_spec=run_spec, spec_hash=digest)
    return activate(job.saying(state))


def stop(job: Job) -> Decision:
    """Suspends the run: nothing of it may run, and its spec may change."""
    state = job.state.having(
        group=Group(stage=Stage.STOPPED), resize=None, blocked=None, started_at=None, phase=Phase.SUSPENDED
    )
    return Decision(state=state, notes=(Note(reason="Suspended", message="the workers end; the run can be resumed"),))


def handle_failure(job: Job, failure: Failure) -> Decision:
    """Restarts the group, or fails the job where its limits are reached."""
    ours = failure.kind is Kind.INFRASTRUCTURE
    before, after = job.state, _counted(job.state.having(last_failure=_last_failure(failure)), ours)
    if failure.kind is Kind.FINAL:
        reason = "WrongInput" if failure.exit_code == WRONG_INPUT else "ExitCodeRule"
        return fail(job.saying(after), reason, f"{failure.message}; no restart can mend it")
    if job.spec.restart.policy == "Never":
        return fail(job.saying(after), failure.cause, f"{failure.message}; spec.restart.policy is Never")
    if ours and before.counters.streak >= job.settings.infrastructure_budget:
        told = f"{after.counters.streak} failures in a row without progress; the last: {failure.message}"
        return fail(job.saying(after), "InfrastructureFailures", told)
    allowed = job.spec.restart.max_restarts
    if not ours and before.failures >= allowed:
        told = f"{after.failures} failures, and {allowed} restarts are allowed; the last: {failure.message}"
        return fail(job.saying(after), "MaxRestartsExceeded", told)
    return _restart(job, after, failure)


def restart_for_resize(job: Job, size: int) -> Decision:
    """Begins anew with another number of workers: agents of a fixed group know no other."""
    state = _raised(job, record_restart(job.state, "Resized", job.now), Cause.RESIZE, 0.0)
    message = f"from {job.group.desired} to {size} workers: attempt {state.attempt} begins"
    return Decision(
        state=state,
        notes=(Note(reason="Resizing", message=message),),
        metrics=((RESTARTS, {"cause": "Resized"}, 1.0),),
    )


def release(job: Job, size: int | None) -> Decision:
    """Gives back the nodes of a group that was not placed as a whole; `size`: how many to try next, None: all."""
    delay = release_backoff(job)
    counters = job.state.counters.model_copy(update={"gang": job.state.counters.gang + 1})
    state = _raised(job, job.state.having(counters=counters), Cause.GANG, delay)
    grow_after = job.now + job.settings.grow_interval.total_seconds()
    state = state.with_group(size=size or 0, grow_after=grow_after if size else None)
    placed = sum(worker.scheduled for worker in job.workers.values())
    message = (
        f"{placed} of {job.group.desired} workers found a node within {job.spec.startup_deadline_seconds} s: "
        f"all are released, and {size or job.live.max_workers} are tried again in {delay:.0f} s"
    )
    note = Note(reason="GangNotScheduled", message=message, warning=True)
    return Decision(state=state, notes=(note,), scheduling=("GangNotScheduled", message))


def fail(job: Job, reason: str, message: str) -> Decision:
    """Ends the job as failed."""
    state = job.state.having(phase=Phase.FAILED, finished_at=job.now, resize=None, blocked=None)
    note = Note(reason=reason, message=message, warning=True)
    return Decision(state=state, notes=(note,), verdict=(reason, message))


def succeed(job: Job, reason: str, message: str) -> Decision:
    """Ends the job as done."""
    state = job.state.having(phase=Phase.SUCCEEDED, finished_at=job.now, resize=None, blocked=None)
    return Decision(state=state, notes=(Note(reason=reason, message=message),), verdict=(reason, message))


def _restart(job: Job, state: JobState, failure: Failure) -> Decision:
    delay = backoff_seconds(job.spec, job.state.counters.streak)
    state = record_restart(state, failure.cause, _failed_at(job, failure))
    state = _raised(job, state, Cause.FAILURE, delay)
    message = f"{failure.message}; attempt {state.attempt} begins in {delay:g} s"
    return Decision(
        state=state,
        notes=(Note(reason="Restarting", message=message, warning=True),),
        metrics=((RESTARTS, {"cause": failure.cause}, 1.0),),
    )


def _raised(job: Job, state: JobState, cause: Cause, delay: float) -> JobState:
    """The next attempt, waiting; a reduced group stays so until it may grow."""
    group = Group(
        stage=Stage.WAITING,
        cause=cause,
        since=job.now,
        not_before=job.now + delay,
        size=job.group.desired,
        grow_after=job.group.grow_after,
    )
    return state.having(attempt=state.attempt + 1, group=group, resize=None, blocked=None)


def _failed_at(job: Job, failure: Failure) -> float:
    """When it happened, where the node's clock makes sense of it; else when it was seen."""
    seen_at = job.now if job.group.failing_since is None else job.group.failing_since
    earliest = job.state.pace.received_at if job.state.pace else (job.state.running_at or seen_at)
    return failure.at if failure.at is not None and earliest <= failure.at <= job.now else seen_at


def _counted(state: JobState, ours: bool) -> JobState:
    counters = state.counters
    counted = {"streak": counters.streak + 1, "infrastructure": counters.infrastructure + int(ours)}
    return state.having(counters=counters.model_copy(update=counted), failures=state.failures + (0 if ours else 1))


def _last_failure(failure: Failure) -> LastFailure:
    return LastFailure(
        worker=failure.worker,
        node=failure.node,
        exit_code=failure.exit_code,
        reason=failure.cause,
        message=failure.said or failure.message,
    )
