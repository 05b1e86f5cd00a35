"""What people and programs read of a job: its phase and its conditions."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from flightpath_operator.conditions import drop_condition, find_condition, set_condition
from flightpath_operator.plan import HASH_ANNOTATION, Note, Object
from flightpath_operator.training.elastic import next_size
from flightpath_operator.training.faults import unjudged
from flightpath_operator.training.job import Job, changed_fields
from flightpath_operator.training.pods import template_hash
from flightpath_operator.training.progress import stall_deadline
from flightpath_operator.training.retry import refusal_reason
from flightpath_operator.training.starting import start_problem, unschedulable
from flightpath_operator.training.state import Cause, JobState, Phase, Stage, Workers, moment
from flightpath_operator.training.stragglers import judge_stragglers
from flightpath_operator.training.transitions import Decision

_CRASH_LOOP: Final = 3
"""Failures of the program in a row without progress."""
_MAX_NAMED: Final = 5

Verdict = tuple[bool, str, str]
"""Status, reason and message of a condition."""


def describe(job: Job, problems: Sequence[str] = (), decision: Decision | None = None) -> JobState:
    """The state with phase, workers and conditions as they are now. `problems`: names that others hold."""
    state = job.state
    conditions = list(state.conditions)
    for type_, verdict in _verdicts(job, problems, decision):
        if verdict is None:
            conditions = drop_condition(conditions, type_)
        else:
            status, reason, message = verdict
            conditions = set_condition(
                conditions, type_, status, reason, message, now=job.now, generation=job.generation
            )
    return state.having(
        phase=_phase(job),
        observed_generation=job.generation,
        workers=Workers(ready=job.running(), desired=_desired(job)),
        conditions=tuple(conditions),
    )


def transition_notes(before: Iterable[Object], after: Iterable[Object]) -> tuple[Note, ...]:
    """Events for conditions that became, or ceased to be, worth a person's look."""
    before = list(before)
    return tuple(note for condition in after if (note := _note(find_condition(before, condition["type"]), condition)))


def _note(before: Object | None, after: Object) -> Note | None:
    known = (before or {}).get("status"), (before or {}).get("reason")
    told = after["status"], after["reason"]
    if known == told or after["type"] not in _WORTH_TELLING:
        return None
    bad_status, silent = _WORTH_TELLING[after["type"]]
    if after["status"] == bad_status:
        return None if after["reason"] in silent else Note(reason=told[1], message=after["message"], warning=True)
    recovered = known[0] == bad_status and known[1] not in silent
    return Note(reason=told[1], message=after["message"]) if recovered or after["type"] == "Running" else None


_WORTH_TELLING: Final[dict[str, tuple[str, frozenset[str]]]] = {
    "Accepted": ("False", frozenset()),
    "Scheduled": (
        "False",
        frozenset({"Creating", "Waiting", "Suspended", "GangNotScheduled", "WaitingForScheduler"}),
    ),
    "Running": (
        "False",
        frozenset({"Waiting", "Starting", "Suspended", "Finished", "Restarting", "Resizing", "WorkerFailed"}),
    ),
    "Stalled": ("True", frozenset()),
    "Straggling": ("True", frozenset()),
    "Degraded": ("True", frozenset({"FewerWorkers"})),
    "SpecChanged": ("True", frozenset()),
}
"""By condition: the status that a person should know of, and reasons that are ordinary or told elsewhere."""


def _desired(job: Job) -> int:
    if job.group.stage is Stage.WAITING and not job.state.finished:
        return next_size(job)[0]
    return job.group.desired


def _phase(job: Job) -> Phase:
    state, group = job.state, job.group
    if state.finished:
        return state.phase
    if group.stage is Stage.STOPPED:
        return Phase.SUSPENDED if job.live.suspend else Phase.PENDING
    if group.stage is Stage.ACTIVE and unjudged(job) is not None:
        return state.phase
    if group.stage is Stage.ACTIVE and job.all_run():
        return Phase.RESIZING if state.resize else Phase.RUNNING
    if group.cause in (Cause.FAILURE, Cause.RESIZE):
        return Phase.RESTARTING if group.cause is Cause.FAILURE else Phase.RESIZING
    return Phase.STARTING if group.stage is Stage.ACTIVE and _placed(job) == group.desired else Phase.PENDING


def _verdicts(job: Job, problems: Sequence[str], decision: Decision | None) -> Iterator[tuple[str, Verdict | None]]:
    yield "Accepted", _accepted(job, problems)
    if job.state.finished:
        yield from _finished(job, decision)
        return
    scheduled = _scheduled(job)
    yield "Scheduled", (False, *decision.scheduling) if decision and decision.scheduling else scheduled
    yield "Running", _running(job)
    yield "Stalled", _stalled(job)
    yield "Straggling", judge_stragglers(job)
    yield "Degraded", _degraded(job)
    changed = changed_fields(job) if job.group.stage is not Stage.STOPPED else ()
    told = f"{', '.join(changed)} changed while the job runs: not applied; suspend the job to change it"
    yield "SpecChanged", (True, "Immutable", told) if changed else None


def _finished(job: Job, decision: Decision | None) -> Iterator[tuple[str, Verdict | None]]:
    running = job.running()
    told = f"{running} workers are ending" if running else "no worker runs"
    yield "Running", (False, "Finished", told)
    if decision and decision.verdict:
        yield job.state.phase.value, (True, *decision.verdict)
    for type_ in ("Stalled", "Straggling", "Degraded", "SpecChanged"):
        yield type_, None


def _accepted(job: Job, problems: Sequence[str]) -> Verdict:
    if problems:
        return False, "NameTaken", "; ".join(problems)
    blocked = job.state.blocked
    if blocked is not None and (reason := refusal_reason(blocked.message)) != "QuotaExceeded":
        return False, reason, blocked.message
    return True, "Accepted", "the spec can be carried out"


def _scheduled(job: Job) -> Verdict:
    group, state = job.group, job.state
    if group.stage is Stage.STOPPED:
        return False, "Suspended", "spec.suspend is set"
    if group.stage is Stage.WAITING:
        return _waiting(job)
    placed = _placed(job)
    if placed == group.desired:
        return True, "AllWorkersPlaced", f"{placed} workers have their nodes"
    if state.blocked is not None:
        return False, refusal_reason(state.blocked.message), state.blocked.message
    if job.missing:
        return False, "Creating", f"{len(job.workers)} of {group.desired} pods exist"
    if group.queued or any(worker.gated for worker in job.workers.values()):
        return False, "Queued", f"waits in queue {job.spec.queue} for quota"
    told = f"{placed} of {group.desired} workers have a node"
    if (said := unschedulable(job)) is not None:
        return False, "Unschedulable", f"{told}; {said}"
    return False, "WaitingForScheduler", told


def _waiting(job: Job) -> Verdict:
    """Keeps saying why a gang was released: it is what people look for while it waits."""
    before = find_condition(job.state.conditions, "Scheduled")
    if job.group.cause is Cause.GANG and before and before["reason"] == "GangNotScheduled":
        return False, "GangNotScheduled", before["message"]
    return False, "Waiting", _tell_wait(job)


def _tell_wait(job: Job) -> str:
    if job.pods:
        return f"attempt {job.state.attempt} waits; pods of earlier ones that have not ended: {len(job.pods)}"
    return f"attempt {job.state.attempt} begins at {moment(job.group.not_before or job.now)}"


def _running(job: Job) -> Verdict:
    group = job.group
    if group.stage is Stage.STOPPED:
        return False, "Suspended", "spec.suspend is set"
    if group.stage is Stage.ACTIVE and (open_case := unjudged(job)) is not None:
        failure, until = open_case
        return False, "WorkerFailed", f"{failure.message}; the other workers' ends are waited for until {moment(until)}"
    if group.stage is Stage.ACTIVE and job.all_run():
        return True, "WorkersRunning", f"attempt {job.state.attempt} trains"
    if (crashes := _crash_loop(job)) is not None:
        return False, "CrashLoop", crashes
    if group.stage is Stage.WAITING:
        reason = {Cause.FAILURE: "Restarting", Cause.RESIZE: "Resizing"}.get(group.cause, "Waiting")
        return False, reason, _tell_wait(job)
    problem = start_problem(job)
    if problem is None:
        return False, "Starting", f"{job.running()} of {group.desired} workers run"
    before = find_condition(job.state.conditions, "Running")
    if problem.repeated and before and before["reason"] == problem.reason:
        return False, problem.reason, before["message"]
    return False, problem.reason, problem.message


def _crash_loop(job: Job) -> str | None:
    streak, last = job.state.counters.streak, job.state.last_failure
    if streak < _CRASH_LOOP or last is None or last.exit_code is None:
        return None
    return f"{streak} failures in a row without progress, the last with exit code {last.exit_code}: {last.message}"


def _stalled(job: Job) -> Verdict | None:
    deadline, progress = stall_deadline(job), job.state.progress
    if deadline is not None and progress is not None and job.now >= deadline:
        told = f"no progress beyond step {progress.step} for longer than is usual"
        return True, "NoProgress", told
    return (False, "Progressing", "") if find_condition(job.state.conditions, "Stalled") else None


def _degraded(job: Job) -> Verdict | None:
    found = list(_lacks(job))
    if not found:
        return None
    return True, found[0][0], "; ".join(message for _, message in found)


def _lacks(job: Job) -> Iterator[tuple[str, str]]:
    """What the job asks for, or should have, and goes without."""
    if job.spec.queue is not None and not job.observed.capabilities.kueue:
        yield "KueueMissing", f"queue {job.spec.queue} needs Kueue, which is not installed: the job runs without it"
    for note in job.group.notes:
        yield "Network", note
    if job.group.elastic and 0 < job.group.desired < job.live.max_workers:
        yield "FewerWorkers", f"{job.group.desired} of at most {job.live.max_workers} workers train"
    expected = template_hash(job)
    edited = [worker.name for worker in job.workers.values() if _mark(worker.pod) != expected]
    if edited:
        named = ", ".join(edited[:_MAX_NAMED]) + (" and more" if len(edited) > _MAX_NAMED else "")
        yield "PodEdited", f"{named} differ from what the operator makes: left so until the next attempt"


def _mark(pod: Object) -> str | None:
    mark = (pod["metadata"].get("annotations") or {}).get(HASH_ANNOTATION)
    return str(mark) if mark else None


def _placed(job: Job) -> int:
    return sum(worker.scheduled for worker in job.workers.values())
