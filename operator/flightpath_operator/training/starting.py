"""Why workers do not start, in words: images, configuration, scheduling."""

from dataclasses import dataclass
from typing import Final

from flightpath_operator.training.job import Job
from flightpath_operator.training.workers import Worker

_IMAGE: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "ImageInspectError", "RegistryUnavailable"}
)
_INVALID_IMAGE: Final = "InvalidImageName"
_CONFIGURATION: Final = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CreatePodSandboxError"}
)
_REPEATED: Final = "ImagePullBackOff"
"""Takes turns with the reason before it, and says less."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StartProblem:
    """What keeps a worker that has its node from starting."""

    reason: str
    message: str
    worker: str
    hopeless: bool = False
    """No wait will mend it."""
    repeated: bool = False
    """Said before, and better."""


def start_problem(job: Job) -> StartProblem | None:
    """The first worker's problem, by rank."""
    problems = (_problem(job, worker) for worker in job.workers.values() if not worker.ended)
    return next((problem for problem in problems if problem is not None), None)


def unschedulable(job: Job) -> str | None:
    """What the scheduler says about the first worker that it cannot place."""
    for worker in job.workers.values():
        condition = worker.condition("PodScheduled")
        if not worker.scheduled and condition and condition.get("reason") == "Unschedulable":
            return f"worker {worker.rank}: {condition.get('message') or 'no node fits'}"
    return None


def _problem(job: Job, worker: Worker) -> StartProblem | None:
    if worker.waiting is None:
        return None
    kind, told = worker.waiting
    who = f"worker {worker.rank} on {worker.node or 'no node'}"
    said = f": {told}" if told else ""
    if kind == _INVALID_IMAGE:
        message = f"image {job.spec.image} is no valid name{said}"
        return StartProblem(reason=_INVALID_IMAGE, message=message, worker=worker.name, hopeless=True)
    if kind in _IMAGE:
        message = (
            f"{who} cannot pull image {job.spec.image}: check its name, its tag and imagePullSecrets ({kind}{said})"
        )
        return StartProblem(reason="ImagePullFailed", message=message, worker=worker.name, repeated=kind == _REPEATED)
    if kind in _CONFIGURATION:
        message = f"{who} cannot be configured: check env, volumes and securityContext ({kind}{said})"
        return StartProblem(reason="ConfigurationError", message=message, worker=worker.name)
    return None
