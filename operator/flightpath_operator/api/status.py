"""Status of the three kinds: typed, so that servers prune what is not meant and `kubectl explain` tells the rest.

The operator writes status as plain JSON; these models are its schema and its test.
"""

from typing import Annotated, Any, Literal

from pydantic import Field

from flightpath_operator.api.fields import Model, list_map, preserved

MAX_RESTARTS_KEPT = 20
"""Restarts that status tells of; older ones are in the events and metrics."""

Time = Annotated[str, Field(json_schema_extra={"format": "date-time"})]
_Count = Annotated[int, Field(ge=0)]
_Generation = Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})]
_Short = Annotated[str, Field(max_length=253)]
_Text = Annotated[str, Field(max_length=32768)]


class Condition(Model):
    """One aspect of the object's state, as in metav1.Condition."""

    type: Annotated[str, Field(min_length=1, max_length=316)]
    """Which aspect."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    """Why, as one CamelCase word for programs."""
    message: _Text
    """Why, for people."""
    observed_generation: _Generation | None = None
    """metadata.generation that this was judged for."""
    last_transition_time: Time
    """When the status last changed."""


Conditions = Annotated[tuple[Condition, ...], Field(max_length=32), *list_map("type")]


class Progress(Model):
    """The workers' newest report."""

    step: _Count | None = None
    """Steps done."""
    total_steps: _Count | None = None
    """Steps of the whole run."""
    loss: float | None = None
    """Training loss."""
    samples_per_s: Annotated[float, Field(ge=0)] | None = None
    """Throughput of all workers together."""
    checkpoint_step: _Count | None = None
    """Step of the newest checkpoint."""
    time: Time | None = None
    """When the workers reported."""


class Workers(Model):
    """How many workers there are."""

    ready: _Count = 0
    """Workers that run."""
    desired: _Count = 0
    """Workers that shall run."""


class SkippedCheckpoint(Model):
    """A checkpoint that was not resumed from."""

    name: _Short
    """Its folder."""
    reason: Annotated[str, Field(max_length=1024)]
    """What is wrong with it."""


class CheckpointStatus(Model):
    """What the run resumed from, and what it has saved."""

    step: _Count | None = None
    """Step of the newest checkpoint."""
    verified: bool | None = None
    """Whether the workers have checked its files against its manifest."""
    skipped: Annotated[tuple[SkippedCheckpoint, ...], Field(max_length=20)] = ()
    """Newer checkpoints that were torn or damaged."""


class RestartStatus(Model):
    """One restart of the group and its price."""

    at: Time
    """When the failure was seen."""
    cause: Annotated[str, Field(max_length=1024)]
    """What failed."""
    resumed_from_step: _Count | None = None
    """Step that the next attempt began from."""
    lost_steps: _Count | None = None
    """Steps that were done twice."""
    lost_seconds: Annotated[float, Field(ge=0)] | None = None
    """Time from the failure to the next attempt's first report."""


class Failure(Model):
    """How a worker ended that should not have."""

    worker: _Short | None = None
    """Its pod."""
    node: _Short | None = None
    """Where it ran."""
    exit_code: int | None = None
    """Its exit code; absent when the pod was lost."""
    reason: _Short | None = None
    """Error, OOMKilled, Evicted, NodeLost and the like."""
    message: _Text | None = None
    """The last lines that it wrote."""


class TrainingJobStatus(Model):
    """What the operator has seen and done."""

    phase: (
        Literal["Pending", "Starting", "Running", "Restarting", "Resizing", "Suspended", "Succeeded", "Failed"] | None
    ) = None
    """Where the run stands."""
    observed_generation: _Generation | None = None
    """metadata.generation that this status is about."""
    conditions: Conditions = ()
    """Accepted, Scheduled, Running, Succeeded, Failed, Stalled, Degraded."""
    attempt: _Count | None = None
    """Number of the present group of workers; pods of earlier ones are deleted."""
    spec_hash: Annotated[str, Field(max_length=64)] | None = None
    """What the present run was started with."""
    progress: Progress | None = None
    """The workers' newest report."""
    workers: Workers | None = None
    """How many workers there are."""
    failures: _Count | None = None
    """Failures that count towards restart.maxRestarts."""
    restarts: Annotated[tuple[RestartStatus, ...], Field(max_length=MAX_RESTARTS_KEPT)] = ()
    """The newest restarts and their price."""
    checkpoint: CheckpointStatus | None = None
    """What the run resumed from, and what it has saved."""
    environment: Annotated[dict[str, Annotated[str, Field(max_length=1024)]], Field(max_length=64)] = Field(
        default_factory=dict
    )
    """NCCL and network variables that the workers got."""
    excluded_nodes: Annotated[tuple[_Short, ...], Field(max_length=256)] = ()
    """Nodes that the workers avoid for GPU faults."""
    last_failure: Failure | None = None
    """How the last failed worker ended."""
    started_at: Time | None = None
    """When the first attempt began to run."""
    finished_at: Time | None = None
    """When the run succeeded or failed."""
    bookkeeping: Annotated[dict[str, Any], preserved("The operator's own memory of the run; not meant for others.")] | (
        None
    ) = None
    """The operator's own memory of the run; not meant for others."""


class ClusterWorkers(Model):
    """How many workers there are."""

    ready: _Count = 0
    """Workers that joined."""
    desired: _Count = 0
    """Workers that the autoscaler wants."""
    max: _Count = 0
    """Workers that there can be."""
    gpus: _Count = 0
    """GPUs that the desired workers hold."""


class TrainingClusterStatus(Model):
    """What the operator has seen and done."""

    phase: Literal["Pending", "Starting", "Ready", "Idle", "Suspended", "Failed"] | None = None
    """Where the cluster stands; Idle: only the head runs."""
    observed_generation: _Generation | None = None
    """metadata.generation that this status is about."""
    conditions: Conditions = ()
    """Accepted, Ready, Degraded."""
    workers: ClusterWorkers | None = None
    """How many workers there are."""
    job_submission_url: Annotated[str, Field(max_length=1024)] | None = None
    """Address of Ray's job submission inside the cluster."""
    last_active: Time | None = None
    """When a worker above the groups' min last ran."""


class ModelDeploymentStatus(Model):
    """What the operator has seen and done."""

    phase: Literal["Pending", "Progressing", "Ready", "Degraded", "Stopped", "Failed"] | None = None
    """Where the servers stand; Stopped: zero replicas are wanted."""
    observed_generation: _Generation | None = None
    """metadata.generation that this status is about."""
    conditions: Conditions = ()
    """Accepted, Ready, Progressing, Degraded."""
    replicas: _Count | None = None
    """Replicas that exist."""
    ready_replicas: _Count | None = None
    """Replicas that answer."""
    updated_replicas: _Count | None = None
    """Replicas that serve the newest spec."""
    selector: Annotated[str, Field(max_length=1024)] | None = None
    """Label selector of the replicas, for the scale subresource."""
    url: Annotated[str, Field(max_length=1024)] | None = None
    """Where the Service answers inside the cluster."""
    observed_bundle: Annotated[str, Field(max_length=71)] | None = None
    """Digest that all ready replicas serve; absent while a new one is rolled out."""
