"""What happened to the workers: whose fault it is, whether to try again, and after how long.

An infrastructure failure (a lost node, an eviction, a deleted pod, a broken GPU) says nothing about the program,
so it never counts towards `maxRestarts`. Where several workers failed, the others' ends usually follow from the
first one's: infrastructure explains most, then an exit that forbids a restart, then the earliest. Which of them is
told first says nothing: while workers still run, a program's failure waits for their ends, up to a bound.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from flightpath_operator.api.training_job import TrainingJobSpec
from flightpath_operator.training.ending import node_is_lost
from flightpath_operator.training.job import Job, exit_action
from flightpath_operator.training.nodes import gpu_fault, not_ready_since
from flightpath_operator.training.workers import Exit, Worker

_SIGNALS: Final = {130: "SIGINT", 134: "SIGABRT", 137: "SIGKILL", 139: "SIGSEGV", 143: "SIGTERM"}
_MAX_OUTPUT: Final = 1024
"""Characters of a worker's last words in a message."""

_DISRUPTIONS: Final = {
    "PreemptionByScheduler": "Preempted",
    "PreemptionByKubeScheduler": "Preempted",
    "DeletionByTaintManager": "NodeLost",
    "DeletionByPodGC": "NodeLost",
    "EvictionByEvictionAPI": "Evicted",
    "TerminationByKubelet": "Evicted",
}
"""Reasons of a pod's condition DisruptionTarget (1.26 and later), and what they mean here."""
_POD_REASONS: Final = {
    "Evicted": "Evicted",
    "Preempting": "Preempted",
    "Preempted": "Preempted",
    "NodeLost": "NodeLost",
    "NodeShutdown": "NodeLost",
    "Shutdown": "NodeLost",
    "Terminated": "NodeLost",
    "NodeAffinity": "NodeRefused",
    "UnexpectedAdmissionError": "NodeRefused",
}
"""Reasons of a failed pod that kubelets and controllers set."""


class Kind(IntEnum):
    """Whose fault a failure is, in the order in which it explains the others."""

    INFRASTRUCTURE = 0
    FINAL = 1
    """The program's, and no restart can mend it."""
    APPLICATION = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """Why the group cannot go on."""

    kind: Kind
    cause: str
    """One CamelCase word: label of the metric and cause of the restart."""
    message: str
    worker: str | None = None
    node: str | None = None
    exit_code: int | None = None
    said: str = ""
    """The worker's own last words."""
    at: float | None = None
    """When it happened; None where only its discovery is known."""


def find_failure(job: Job) -> Failure | None:
    """The failure that explains what is seen, None while the group is whole."""
    # A pod that ends before its group was whole is made again: an elastic group may want a rank back.
    judged = (worker for rank, worker in job.workers.items() if not worker.going or rank < job.group.formed)
    found = [failure for worker in judged if (failure := judge_worker(job, worker))]
    lost = (rank for rank in job.missing if rank < job.group.formed)
    found.extend(_pod_gone(job, rank) for rank in lost)
    return min(found, key=_explains, default=None)


def unjudged(job: Job) -> tuple[Failure, float] | None:
    """A failure that the end of a worker which still runs may explain, and until when that is waited for."""
    failure = find_failure(job)
    if failure is None or failure.kind is Kind.INFRASTRUCTURE:
        return None
    # One whose container has not been told of yet may have ended already.
    if not any(worker.scheduled and not worker.ended and worker.exit is None for worker in job.workers.values()):
        return None
    since = job.now if job.group.failing_since is None else job.group.failing_since
    until = since + job.settings.verdict_wait.total_seconds()
    return (failure, until) if job.now < until else None


def judge_worker(job: Job, worker: Worker) -> Failure | None:
    """What is wrong with one worker."""
    if worker.going:
        return _judge_going(job, worker)
    if job.done(worker):
        return None
    if worker.phase == "Failed" and (cause := _infrastructure_cause(worker)):
        return _infrastructure(worker, cause, worker.message or f"its pod ended as {worker.reason or 'disrupted'}")
    if worker.exit is not None and worker.exit.code != 0:
        return _judge_exit(job, worker, worker.exit)
    if worker.phase == "Failed":
        return _infrastructure(worker, "PodFailed", worker.message or worker.reason or "no container ever ran")
    return _judge_node(job, worker)


def backoff_seconds(spec: TrainingJobSpec, streak: int) -> float:
    """Wait before the restart that follows `streak` earlier failures without progress."""
    doubled = spec.restart.backoff_seconds * 2 ** min(streak, 30)
    return float(min(doubled, spec.restart.max_backoff_seconds))


def node_deadlines(job: Job) -> Iterable[float]:
    """When nodes that stopped answering will count as lost."""
    for worker in job.workers.values():
        node = job.node_of(worker)
        since = None if node is None or worker.ended else not_ready_since(node)
        if since is not None:
            yield since + job.settings.lost_node_after.total_seconds()


def _judge_going(job: Job, worker: Worker) -> Failure | None:
    """Somebody else deleted it: the operator raises the attempt before it deletes anything itself."""
    asked, ended = worker.deletion_asked_at, worker.exit
    if ended and ended.at is not None and asked is not None and ended.at < asked:
        return None if job.done(worker) else _judge_exit(job, worker, ended)
    cause = _infrastructure_cause(worker) or "PodDeleted"
    told = (worker.condition("DisruptionTarget") or {}).get("message") or "somebody deleted its pod"
    return _infrastructure(worker, cause, told)


def _judge_exit(job: Job, worker: Worker, ended: Exit) -> Failure | None:
    node = job.node_of(worker)
    fault = gpu_fault(node) if node and job.spec.gpus_per_worker else None
    if fault:
        return _infrastructure(worker, "GpuFault", f"exit code {ended.code}; {fault}", ended)
    action = exit_action(job.spec, ended.code)
    if action == "Ignore":
        return None
    out_of_memory = ended.reason == "OOMKilled"
    return Failure(
        kind=Kind.FINAL if action == "Fail" else Kind.APPLICATION,
        cause="OOMKilled" if out_of_memory else "WorkerFailed",
        message=_tell_exit(job, worker, ended, out_of_memory),
        worker=worker.name,
        node=worker.node,
        exit_code=ended.code,
        said=ended.message[-_MAX_OUTPUT:],
        at=ended.at,
    )


def _judge_node(job: Job, worker: Worker) -> Failure | None:
    if worker.phase == "Unknown" or node_is_lost(worker, job.observed.nodes, job.now, job.settings):
        return _infrastructure(worker, "NodeLost", "its node does not answer")
    return None


def _tell_exit(job: Job, worker: Worker, ended: Exit, out_of_memory: bool) -> str:
    who = f"worker {worker.rank} on {worker.node or 'no node'}"
    if out_of_memory:
        limit = (job.spec.resources.limits if job.spec.resources else {}).get("memory", "its node's memory")
        return f"{who} was killed for using more memory than {limit}: raise resources.limits.memory, or use less"
    signal = f" ({_SIGNALS[ended.code]})" if ended.code in _SIGNALS else ""
    said = f": {ended.message[-_MAX_OUTPUT:].strip()}" if ended.message.strip() else ""
    return f"{who} exited with code {ended.code}{signal}{said}"


def _infrastructure(worker: Worker, cause: str, told: str, ended: Exit | None = None) -> Failure:
    return Failure(
        kind=Kind.INFRASTRUCTURE,
        cause=cause,
        message=f"worker {worker.rank} on {worker.node or 'no node'} was lost ({cause}): {told}",
        worker=worker.name,
        node=worker.node,
        exit_code=ended.code if ended else None,
        at=ended.at if ended else worker.deletion_asked_at,
    )


def _pod_gone(job: Job, rank: int) -> Failure:
    return Failure(
        kind=Kind.INFRASTRUCTURE,
        cause="PodDeleted",
        message=f"worker {rank} was lost (PodDeleted): its pod is gone",
        worker=f"{job.name}-a{job.state.attempt}-w{rank}",
    )


def _infrastructure_cause(worker: Worker) -> str | None:
    disruption = worker.condition("DisruptionTarget")
    if disruption and disruption.get("status") == "True":
        return _DISRUPTIONS.get(str(disruption.get("reason")), "Evicted")
    if (stopped := worker.condition("TerminationTarget")) and stopped.get("status") == "True":
        return "Preempted"
    if worker.reason.startswith("OutOf"):
        return "NodeRefused"
    return _POD_REASONS.get(worker.reason)


def _explains(failure: Failure) -> tuple[int, float, int, str]:
    """Earlier ends first. In one second, which is as exact as Kubernetes tells it: a lack of memory, which follows
    from nobody else's end, then a program's own exit, then the kill that followed it."""
    killed = failure.exit_code is not None and failure.exit_code > 128
    order = 0 if failure.cause == "OOMKilled" else 1 + killed
    return failure.kind, failure.at if failure.at is not None else float("inf"), order, failure.worker or ""
