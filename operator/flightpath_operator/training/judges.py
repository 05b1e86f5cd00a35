"""What a running attempt's look means, judge by judge; the first that decides is heard."""

from collections.abc import Callable, Iterator
from typing import Final

from flightpath_operator.conditions import find_condition
from flightpath_operator.plan import Note
from flightpath_operator.training.elastic import in_place, is_urgent, resized, target_size, without_unplaced
from flightpath_operator.training.faults import Failure, Kind, find_failure, node_deadlines, unjudged
from flightpath_operator.training.job import Job
from flightpath_operator.training.nodes import gpu_fault
from flightpath_operator.training.progress import stall_deadline, target_reached
from flightpath_operator.training.starting import start_problem
from flightpath_operator.training.state import Resize
from flightpath_operator.training.transitions import (
    Decision,
    fail,
    handle_failure,
    release,
    restart_for_resize,
    succeed,
)
from flightpath_operator.training.workers import parse_time

Judge = Callable[[Job], Decision | None]


def judge(job: Job) -> Decision | None:
    """The decision that the present look demands; None while the attempt goes on as it is."""
    return _first(_OF_ENDS, job) or (None if unjudged(job) else _first(_OF_THE_REST, job))


def _first(judges: tuple[Judge, ...], job: Job) -> Decision | None:
    decisions = (decide(job) for decide in judges)
    return next((decision for decision in decisions if decision is not None), None)


def judge_deadline(job: Job) -> Decision | None:
    """spec.activeDeadlineSeconds, in whatever stage the job is."""
    deadline = active_deadline(job)
    if deadline is None or job.now < deadline:
        return None
    return fail(job, "DeadlineExceeded", f"not finished within {job.spec.active_deadline_seconds} s")


def active_deadline(job: Job) -> float | None:
    limit, started = job.spec.active_deadline_seconds, job.state.started_at
    return None if limit is None or started is None else started + limit


def deadlines(job: Job) -> Iterator[float]:
    """When a judge may come to another verdict though nothing has changed."""
    yield from node_deadlines(job)
    if (open_case := unjudged(job)) is not None:
        yield open_case[1]
    resize, grow_after = job.state.resize, job.group.grow_after
    stall, stuck = stall_deadline(job), _start_deadline(job)
    yield from (at for at in (stall, stuck, grow_after) if at is not None)
    if not job.group.queued:
        yield job.group.since + job.spec.startup_deadline_seconds
    if resize is not None:
        yield resize.requested_at + job.settings.resize_wait.total_seconds()


def _judge_success(job: Job) -> Decision | None:
    workers = job.workers.values()
    if job.missing or not workers or not all(job.done(worker) for worker in workers):
        return None
    return succeed(job, "AllWorkersSucceeded", f"all {job.group.desired} workers are done")


def _judge_target(job: Job) -> Decision | None:
    success, progress = job.spec.success, job.state.progress
    if success is None or progress is None or not target_reached(job):
        return None
    return succeed(job, "TargetReached", f"loss {progress.loss} at step {progress.step}, target {success.target}")


def _judge_failure(job: Job) -> Decision | None:
    failure = find_failure(job)
    return None if failure is None or unjudged(job) else handle_failure(job, failure)


def _judge_placement(job: Job) -> Decision | None:
    """All workers find a node within the startup deadline, or none keeps one."""
    unplaced = [rank for rank in job.group.wanted if rank not in job.workers or not job.workers[rank].scheduled]
    over = job.now >= job.group.since + job.spec.startup_deadline_seconds
    if not unplaced or not over or not job.workers or job.group.queued:
        return None
    placed = job.group.desired - len(unplaced)
    if 0 not in unplaced and in_place(job, placed):
        message = f"{len(unplaced)} workers found no node: the run goes on with {placed}"
        note = Note(reason="FewerWorkers", message=message, warning=True)
        return Decision(state=job.state.having(group=without_unplaced(job)), notes=(note,))
    enough = job.live.elastic and placed >= job.live.min_workers
    return release(job, placed if enough else None)


def _judge_start(job: Job) -> Decision | None:
    """What has a node starts there within the startup deadline."""
    problem = start_problem(job)
    if problem is not None and problem.hopeless:
        return fail(job, problem.reason, problem.message)
    deadline = _start_deadline(job)
    if deadline is None or job.now < deadline:
        return None
    waited = f"not all workers started within {job.spec.startup_deadline_seconds} s of finding their nodes"
    failure = Failure(
        kind=Kind.APPLICATION,
        cause=problem.reason if problem else "StartupDeadlineExceeded",
        message=f"{waited}: {problem.message}" if problem else waited,
        worker=problem.worker if problem else None,
    )
    return handle_failure(job, failure)


def _start_deadline(job: Job) -> float | None:
    if not any(worker.phase == "Pending" for worker in job.workers.values()):
        return None
    scheduled = find_condition(job.state.conditions, "Scheduled")
    placed_at = parse_time(scheduled["lastTransitionTime"]) if scheduled and scheduled["status"] == "True" else None
    return None if placed_at is None else placed_at + job.spec.startup_deadline_seconds


def _judge_stall(job: Job) -> Decision | None:
    """A silence is a restart only where the job says so, or where a broken GPU explains it."""
    deadline = stall_deadline(job)
    if deadline is None or job.now < deadline:
        return None
    for worker in job.workers.values():
        node = job.node_of(worker)
        fault = gpu_fault(node) if node and job.spec.gpus_per_worker else None
        if fault:
            message = f"no progress, and the GPUs of {worker.node} are faulty ({fault})"
            kind = Kind.INFRASTRUCTURE
            return handle_failure(
                job, Failure(kind=kind, cause="GpuFault", message=message, worker=worker.name, node=worker.node)
            )
    if not job.spec.restart.on_stall:
        return None
    message = "no progress for too long, and spec.restart.onStall is set"
    return handle_failure(job, Failure(kind=Kind.APPLICATION, cause="Stalled", message=message))


def _judge_resize(job: Job) -> Decision | None:
    """Another number of workers, at the next checkpoint."""
    size, waiting = target_size(job), job.state.resize
    if size is None:
        return None if waiting is None else Decision(state=job.state.having(resize=None))
    if not job.all_run():
        # Nothing is trained yet that could be lost; what is merely possible can wait.
        return _resize(job, size) if is_urgent(job) else None
    if job.spec.checkpoint is None:
        return _resize(job, size)
    if waiting is None or waiting.size != size:
        return _request_resize(job, size)
    reported = job.state.progress.checkpoint_step if job.state.progress else None
    saved = (reported or 0) > (waiting.checkpoint_step or 0)
    late = job.now >= waiting.requested_at + job.settings.resize_wait.total_seconds()
    return _resize(job, size) if saved or late else None


def _request_resize(job: Job, size: int) -> Decision:
    newest = job.state.progress.checkpoint_step if job.state.progress else None
    request = Resize(size=size, requested_at=job.now, checkpoint_step=newest)
    message = f"from {job.group.desired} to {size} workers once the next checkpoint is saved"
    return Decision(state=job.state.having(resize=request), notes=(Note(reason="ResizeRequested", message=message),))


def _resize(job: Job, size: int) -> Decision:
    if not in_place(job, size):
        return restart_for_resize(job, size)
    message = f"from {job.group.desired} to {size} workers; the others stay"
    state = job.state.having(group=resized(job, size), resize=None)
    return Decision(state=state, notes=(Note(reason="Resized", message=message),))


_OF_ENDS: Final[tuple[Judge, ...]] = (_judge_success, _judge_target, judge_deadline, _judge_failure)
_OF_THE_REST: Final[tuple[Judge, ...]] = (_judge_placement, _judge_start, _judge_stall, _judge_resize)
"""Not heard while a failure is unjudged: the group is about to end."""
