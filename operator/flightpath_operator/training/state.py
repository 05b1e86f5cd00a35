"""A TrainingJob's status as values: all that must outlive the operator stands here and nowhere else.

`attempt` is the fence: it is raised and saved before anything of the new attempt is made. A status that cannot
be read (edited by hand, restored without its status) costs bookkeeping, never a running group.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer
from pydantic.alias_generators import to_camel

from flightpath_operator.conditions import seconds
from flightpath_operator.plan import Object

MAX_RESTARTS_KEPT: Final = 20


def moment(value: float) -> str:
    """RFC 3339 with milliseconds: seconds are too coarse for what a restart costs."""
    whole, milliseconds = divmod(round(value * 1000), 1000)
    return f"{datetime.fromtimestamp(whole, tz=UTC):%Y-%m-%dT%H:%M:%S}.{milliseconds:03d}Z"


def _read_moment(value: Any) -> Any:
    return seconds(value) if isinstance(value, str) else value


Moment = Annotated[float, BeforeValidator(_read_moment), PlainSerializer(moment)]
"""Seconds since the epoch here, RFC 3339 in the status."""


class Phase(StrEnum):
    PENDING = "Pending"
    STARTING = "Starting"
    RUNNING = "Running"
    RESTARTING = "Restarting"
    RESIZING = "Resizing"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


class Stage(StrEnum):
    """What may be done for the present attempt."""

    STOPPED = "Stopped"
    """Nothing may run: suspended."""
    WAITING = "Waiting"
    """Pods of older attempts end, or a backoff passes; no pod of this attempt exists."""
    ACTIVE = "Active"
    """Its pods may be created."""


class Cause(StrEnum):
    """Why the present attempt was begun."""

    START = "Start"
    FAILURE = "Failure"
    GANG = "GangNotScheduled"
    RESIZE = "Resize"


class Remembered(BaseModel):
    """A part of the status; what a newer operator added is dropped."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True, allow_inf_nan=False)


class Group(Remembered):
    """The workers of the present attempt."""

    stage: Stage
    cause: Cause = Cause.START
    since: Moment = 0.0
    """When its pods were allowed, admitted by the queue, or became more: the startup deadline counts from here."""
    not_before: Moment | None = None
    """End of the backoff."""
    size: int = 0
    """Ranks below this are wanted, without `absent`."""
    absent: tuple[int, ...] = ()
    """Ranks that an elastic group goes without: they found no node."""
    formed: int = 0
    """Every wanted rank below this was seen: one that is missing now was lost, not forgotten."""
    failing_since: Moment | None = None
    """When a failure was seen that a worker which still runs may explain."""
    lowest: int = 0
    """Fewest workers that its agents were told of; equal to `highest` for a fixed number."""
    highest: int = 0
    """Most workers that its agents were told of."""
    queued: bool = False
    """Held back by Kueue."""
    grow_after: Moment | None = None
    """When an elastic group that found too few nodes asks for more."""
    same_zone: bool = False
    """Its fabric ends at the zone."""
    notes: tuple[str, ...] = ()
    """What this attempt goes without, for the condition Degraded."""

    @property
    def wanted(self) -> tuple[int, ...]:
        absent = frozenset(self.absent)
        return tuple(rank for rank in range(self.size) if rank not in absent)

    @property
    def desired(self) -> int:
        return self.size - len(self.absent)

    @property
    def elastic(self) -> bool:
        return self.lowest != self.highest


class Counters(Remembered):
    """How often, for the limits and backoffs that the public counts do not show."""

    infrastructure: int = 0
    """Lost nodes, evictions, deleted pods, GPU faults: told, not limited as a whole."""
    streak: int = 0
    """Failures of any kind since the run last got further."""
    gang: int = 0
    """Groups in a row that were not scheduled in time."""


class Restart(Remembered):
    """One restart of the group; without `lost_seconds` as long as the new attempt has not reported."""

    at: Moment
    cause: str
    resumed_from_step: int | None = None
    lost_steps: int | None = None
    lost_seconds: float | None = None


class LastFailure(Remembered):
    worker: str | None = None
    node: str | None = None
    exit_code: int | None = None
    reason: str | None = None
    message: str | None = None


class Progress(Remembered):
    """The newest report."""

    step: int
    total_steps: int | None = None
    loss: float | None = None
    samples_per_s: float | None = None
    checkpoint_step: int | None = None
    time: Moment


class Pace(Remembered):
    """What is usual for this run, and where its newest report came from."""

    attempt: int
    received_at: Moment
    """By the operator's clock; `time` of the report is by the worker's."""
    step_seconds: float | None = None
    """Usual time of a step: a moving mean over reports."""
    interval_seconds: float | None = None
    """Usual time between two reports."""
    reached: int = 0
    """Reports in a row that met spec.success."""
    furthest: int = 0
    """Highest step that any attempt reported."""


class SkippedCheckpoint(Remembered):
    name: str
    reason: str = ""


class CheckpointStatus(Remembered):
    step: int
    """Newest checkpoint that the workers told of."""
    verified: bool
    """Whether a worker has read it back and found every hash right."""
    skipped: tuple[SkippedCheckpoint, ...] = ()
    """Torn ones that the newest resume passed over."""


class Resize(Remembered):
    """A change of the number of workers that waits for a checkpoint."""

    size: int
    requested_at: Moment
    checkpoint_step: int | None = None
    """Newest checkpoint when it was asked for: the next one lets it happen."""


class Blocked(Remembered):
    """Something that the API server refuses."""

    since: Moment
    not_before: Moment
    """Nothing is written before: no hot loop."""
    message: str = ""


class Workers(Remembered):
    ready: int = 0
    desired: int = 0


class JobState(Remembered):
    """The whole status. What `_PRIVATE` names stands under `bookkeeping` there."""

    phase: Phase = Phase.PENDING
    observed_generation: int = 0
    conditions: tuple[Object, ...] = ()
    attempt: int = 0
    spec_hash: str = ""
    progress: Progress | None = None
    workers: Workers = Workers()
    failures: int = 0
    """Failures of the program, against spec.restart.maxRestarts."""
    restarts: tuple[Restart, ...] = ()
    checkpoint: CheckpointStatus | None = None
    environment: dict[str, str] = Field(default_factory=dict)
    excluded_nodes: tuple[str, ...] = ()
    last_failure: LastFailure | None = None
    started_at: Moment | None = None
    """When the run began, or was resumed: spec.activeDeadlineSeconds counts from here."""
    finished_at: Moment | None = None

    group: Group | None = None
    run_spec: Object | None = None
    """The spec of the run: servers without CEL let it be changed underneath."""
    counters: Counters = Counters()
    pace: Pace | None = None
    step_before: int | None = None
    """Last step that was reported before the restarts that are not paid for yet."""
    resize: Resize | None = None
    blocked: Blocked | None = None
    running_at: Moment | None = None
    """When all workers ran for the first time."""

    @property
    def finished(self) -> bool:
        return self.phase in (Phase.SUCCEEDED, Phase.FAILED)

    @property
    def present(self) -> Group:
        """The group of the present attempt; an empty one where none was begun."""
        return self.group or _NO_GROUP

    def with_group(self, **changes: Any) -> "JobState":
        """The state with fields of the group changed."""
        return self.having(group=self.present.model_copy(update=changes))

    def having(self, **changes: Any) -> "JobState":
        """The state with fields of its own changed."""
        return self.model_copy(update=changes)


_NO_GROUP: Final = Group(stage=Stage.STOPPED)
_PRIVATE: Final = frozenset({"group", "runSpec", "counters", "pace", "stepBefore", "resize", "blocked", "runningAt"})
_ALWAYS: Final = {"phase", "attempt", "observed_generation", "conditions", "workers"}


def read_state(status: Mapping[str, Any] | None) -> JobState:
    """The state that a status holds; what cannot be read is forgotten, but for the attempt."""
    if not status:
        return JobState()
    try:
        return JobState.model_validate({**status, **(status.get("bookkeeping") or {})})
    except (TypeError, ValueError, OverflowError):
        attempt = status.get("attempt")
        return JobState(attempt=attempt if isinstance(attempt, int) and attempt > 0 else 0)


def write_state(state: JobState) -> Object:
    """The status document: without what is as it always begins."""
    document: Object = state.model_dump(mode="json", by_alias=True, exclude_none=True, exclude_defaults=True)
    bookkeeping = {key: document.pop(key) for key in sorted(_PRIVATE & document.keys()) if document[key]}
    always = state.model_dump(mode="json", by_alias=True, include=_ALWAYS)
    return always | document | {"workers": always["workers"]} | ({"bookkeeping": bookkeeping} if bookkeeping else {})
