"""Brings the objects of the present attempt to what they should be, and notes how far they have come."""

from dataclasses import dataclass
from typing import Final

from flightpath_operator.ownership import Changes, apply_children
from flightpath_operator.plan import Object, is_owned
from flightpath_operator.training.ending import end_all, unended
from flightpath_operator.training.faults import unjudged
from flightpath_operator.training.job import Job
from flightpath_operator.training.pods import support, worker_pod
from flightpath_operator.training.progress import Metric, running_since
from flightpath_operator.training.state import JobState

TIME_TO_RUNNING: Final = "flightpath_operator_time_to_running_seconds"
_SUPPORT: Final = frozenset({"Service", "ConfigMap", "PodGroup"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """How far the group has come."""

    state: JobState
    metrics: tuple[Metric, ...] = ()


def supply(job: Job) -> Changes:
    """What is missing of the present attempt, and what is too much."""
    around = supply_support(job)
    ended = end_all(job.unwanted, job.observed.nodes, job.now, job.settings)
    if around.creates or around.patches or around.problems or _of_other_attempts(job):
        # Workers read the environment once, when they start: it must be right by then.
        return Changes(
            creates=around.creates,
            patches=around.patches,
            deletes=(*around.deletes, *ended),
            problems=around.problems,
        )
    wanted = (worker_pod(job, rank) for rank in job.missing)
    workers = apply_children(job.parent, wanted, _strangers(job))
    return Changes(creates=workers.creates, deletes=(*around.deletes, *ended), problems=workers.problems)


def supply_support(job: Job) -> Changes:
    """Service, common environment and gang."""
    present = (child for child in job.observed.children if child.get("kind") in _SUPPORT)
    return apply_children(job.parent, support(job), present)


def see_group(job: Job) -> Seen:
    """Takes what is there over into the state."""
    job = job.saying(settle_streak(job))
    state = _see_pods(job)
    if not job.missing and all(worker.scheduled for worker in job.workers.values()):
        state = state.having(counters=state.counters.model_copy(update={"gang": 0}))
    if state.running_at is not None or not job.all_run():
        return Seen(state=state)
    waited = 0.0 if job.created_at is None else max(0.0, job.now - job.created_at)
    return Seen(state=state.having(running_at=job.now), metrics=((TIME_TO_RUNNING, {}, waited),))


def settle_streak(job: Job) -> JobState:
    """A group that has run for long is healthy, though its program may report nothing."""
    since, stable_after = running_since(job), job.settings.stable_after.total_seconds()
    if since is None or not job.state.counters.streak or job.now < since + stable_after:
        return job.state
    return job.state.having(counters=job.state.counters.model_copy(update={"streak": 0}))


def _see_pods(job: Job) -> JobState:
    """Whether all pods were made, whether the queue has let them in, and whether one of them failed."""
    state, group = job.state, job.group
    if group.failing_since is None and unjudged(job) is not None:
        state = state.with_group(failing_since=job.now)
    gated = any(worker.gated for worker in job.workers.values())
    if gated != group.queued:
        state = state.with_group(queued=gated, **({} if gated else {"since": job.now}))
    if job.missing or any(worker.going for worker in job.workers.values()):
        return state
    if group.formed != group.size:
        state = state.with_group(formed=group.size)
    if state.started_at is None and not gated:
        state = state.having(started_at=job.now)
    return state


def _of_other_attempts(job: Job) -> bool:
    return any(pod.attempt != job.state.attempt for pod in unended(job.unwanted))


def _strangers(job: Job) -> list[Object]:
    """Pods of others, of whom one may bear a worker's name."""
    return [child for child in job.observed.children if child.get("kind") == "Pod" and not is_owned(child, job.parent)]
