"""One look at one job: everything that a decision about it may depend on."""

import json
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

from pydantic import ValidationError

from flightpath_operator.api.training_job import JOB_MUTABLE, TrainingJobSpec
from flightpath_operator.ownership import spec_hash
from flightpath_operator.plan import Object, Observed, is_owned
from flightpath_operator.training.settings import TrainingSettings
from flightpath_operator.training.state import Group, JobState, Stage, read_state
from flightpath_operator.training.workers import STRAY, Worker, parse_time, read_worker

WRONG_INPUT: Final = 2
"""Exit code of programs that were given something no retry mends."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is wanted, what is there, and what was decided before."""

    parent: Object
    live: TrainingJobSpec
    """The spec as it stands now."""
    spec: TrainingJobSpec
    """The spec of the run: fixed from its start or resumption on, but for the fields that may change."""
    observed: Observed
    now: float
    settings: TrainingSettings
    state: JobState
    pods: tuple[Worker, ...]
    """All pods that are the job's, of whatever attempt."""

    @property
    def name(self) -> str:
        return str(self.parent["metadata"]["name"])

    @property
    def namespace(self) -> str:
        return str(self.parent["metadata"]["namespace"])

    @property
    def uid(self) -> str:
        return str(self.parent["metadata"]["uid"])

    @property
    def generation(self) -> int:
        return int(self.parent["metadata"].get("generation", 1))

    @property
    def created_at(self) -> float | None:
        return parse_time(self.parent["metadata"].get("creationTimestamp"))

    @property
    def group(self) -> Group:
        return self.state.present

    @property
    def kueue(self) -> bool:
        """Whether Kueue admits the workers."""
        return self.spec.queue is not None and self.observed.capabilities.kueue

    @cached_property
    def workers(self) -> dict[int, Worker]:
        """Pods of the present attempt by rank: those that are wanted and are there."""
        wanted = frozenset(self.group.wanted)
        found = (pod for pod in self.pods if pod.attempt == self.state.attempt and pod.rank in wanted)
        return {pod.rank: pod for pod in sorted(found, key=lambda pod: pod.rank)}

    @cached_property
    def missing(self) -> tuple[int, ...]:
        """Wanted ranks that have no pod."""
        return tuple(rank for rank in self.group.wanted if rank not in self.workers)

    @cached_property
    def unwanted(self) -> tuple[Worker, ...]:
        """Pods of other attempts, and of ranks that are wanted no more."""
        kept = {worker.name for worker in self.workers.values()}
        return tuple(pod for pod in self.pods if pod.name not in kept)

    @cached_property
    def newest_attempt(self) -> int:
        """The highest attempt that the status or a pod tells of."""
        return max(self.state.attempt, *(pod.attempt for pod in self.pods), STRAY)

    @property
    def forgotten(self) -> bool:
        """Whether the status knows less than the pods: it was wiped, damaged, or restored without them."""
        lost_group = self.state.attempt > 0 and self.state.group is None
        return not self.state.finished and (lost_group or self.newest_attempt > self.state.attempt)

    def node_of(self, worker: Worker) -> Object | None:
        return self.observed.nodes.get(worker.node) if worker.node else None

    def done(self, worker: Worker) -> bool:
        """Whether the program ended as it should, or in a way that the job's rules ignore."""
        if worker.succeeded:
            return True
        return worker.exit is not None and exit_action(self.spec, worker.exit.code) == "Ignore"

    def running(self) -> int:
        return sum(worker.running for worker in self.workers.values())

    def all_run(self) -> bool:
        """Whether the group trains: all of it, or as many as an elastic one needs, the first among them."""
        at_work = {rank for rank, worker in self.workers.items() if worker.running or self.done(worker)}
        needed = self.group.lowest if self.group.elastic else self.group.desired
        return self.running() > 0 and 0 in at_work and len(at_work) >= needed

    def saying(self, state: JobState) -> "Job":
        """The same look with another state."""
        return replace(self, state=state)


def exit_action(spec: TrainingJobSpec, code: int) -> str:
    """Restart, Fail or Ignore: the first rule that names the code, or the defaults."""
    for rule in spec.restart.exit_codes:
        if code in rule.codes:
            return rule.action
    return "Fail" if code == WRONG_INPUT else "Restart"


def look(parent: Object, live: TrainingJobSpec, observed: Observed, now: float, settings: TrainingSettings) -> Job:
    """Puts together what is known of a job."""
    name = parent["metadata"]["name"]
    owned = (child for child in observed.children if child.get("kind") == "Pod" and is_owned(child, parent))
    pods = sorted((read_worker(name, pod) for pod in owned), key=lambda pod: (pod.attempt, pod.rank, pod.name))
    state = read_state(parent.get("status"))
    return Job(
        parent=parent,
        live=live,
        spec=_run_spec(state, live),
        observed=observed,
        now=now,
        settings=settings,
        state=state,
        pods=tuple(pods),
    )


def freeze(spec: TrainingJobSpec) -> tuple[Object, str]:
    """The spec to run with, as JSON without defaults, and its hash."""
    run_spec: Object = json.loads(spec.model_dump_json(by_alias=True, exclude_defaults=True))
    fixed = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude=set(JOB_MUTABLE))
    return run_spec, spec_hash(fixed)


def changed_fields(job: Job) -> tuple[str, ...]:
    """Fields that were changed though the run's spec is fixed, as they are written in JSON."""
    fields: dict[str, Any] = TrainingJobSpec.model_fields
    names = (name for name in fields if name not in JOB_MUTABLE)
    return tuple(fields[name].alias or name for name in names if getattr(job.live, name) != getattr(job.spec, name))


def _run_spec(state: JobState, live: TrainingJobSpec) -> TrainingJobSpec:
    if state.run_spec is None or state.present.stage is Stage.STOPPED:
        return live
    try:
        fixed = TrainingJobSpec.model_validate_json(json.dumps(state.run_spec))
    except ValidationError:
        return live
    return fixed.model_copy(update={field: getattr(live, field) for field in JOB_MUTABLE})
