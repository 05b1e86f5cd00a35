"""TrainingJob: one distributed training run, its checkpoints, and what happens when a worker is lost."""

import re
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Discriminator, Field, PlainValidator, Tag, WithJsonSchema, model_validator

from flightpath_operator.api.fields import (
    Arguments,
    Environment,
    Image,
    LabelValue,
    Model,
    Name,
    NodeSelector,
    PodSecurityContext,
    Port,
    PositiveSeconds,
    PullSecrets,
    QualifiedName,
    Resources,
    Seconds,
    Tolerations,
    VolumeMounts,
    Volumes,
    rule,
    rules,
)

MAX_WORKERS: Final = 4096
OPERATOR: Final = "flightpath.dev/operator"
CHECKPOINT_URI: Final = r"^((file|s3|gs|az)://[^\s]+|pvc://[a-z0-9][-.a-z0-9]*(/[^\s]*)?|nfs://[^/\s]+/[^\s]*)$"
RESUME: Final = r"^(auto|never|[0-9]{1,12})$"

_Workers = Annotated[int, Field(ge=1, le=MAX_WORKERS)]


class ElasticWorkers(Model):
    """A number of workers between two bounds."""

    min: _Workers
    """Fewest workers that train."""
    max: _Workers
    """Most workers that train."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min must be <= max, got min {self.min} and max {self.max}")
        return self


_BOUND = {"type": "integer", "format": "int32", "minimum": 1, "maximum": MAX_WORKERS}
WORKERS_SCHEMA: dict[str, Any] = {
    "x-kubernetes-preserve-unknown-fields": True,
    # Without a type, each bound holds for its own type of value: numbers and {min, max} pass, nothing else does.
    "minimum": 1,
    "maximum": MAX_WORKERS,
    "multipleOf": 1,
    "pattern": "^[^\\s\\S]$",
    "not": {"enum": [True, False]},
    "required": ["min", "max"],
    "minItems": 2,
    "maxItems": 1,
    "properties": {
        "min": _BOUND | {"description": "Fewest workers that train."},
        "max": _BOUND | {"description": "Most workers that train."},
    },
}
"""Structural schemas know no union of a number and an object; this one comes as near as they can."""


def _check_resume(value: Any) -> int | str:
    if not isinstance(value, bool) and isinstance(value, int | str) and re.fullmatch(RESUME, str(value)):
        return value
    raise ValueError(f"resume must be auto, never or a step >= 0, got {value!r}")


class Checkpoint(Model):
    """Where the run saves its state and what it starts from."""

    model_config = rules(rule("!self.uri.matches('(^|/)[.][.](/|$)')", "uri must not contain .."))

    uri: Annotated[str, Field(min_length=1, max_length=1024, pattern=CHECKPOINT_URI)]
    """Folder of the checkpoints: s3://, gs://, az:// or file://, or pvc://<claim>/<path> and nfs://<host>/<path>,
    which the operator mounts at /checkpoints."""
    interval_steps: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """Save each so many steps; the image's own default when absent."""
    interval_seconds: PositiveSeconds | None = None
    """Save each so many seconds."""
    keep: Annotated[int, Field(ge=1, le=1000)] | None = None
    """How many of the newest checkpoints are kept."""
    resume: Annotated[
        int | str,
        PlainValidator(_check_resume),
        WithJsonSchema({"x-kubernetes-int-or-string": True, "minimum": 0, "maxLength": 12, "pattern": RESUME}),
    ] = "auto"
    """auto: from the newest checkpoint that verifies; never: from scratch; a step: from exactly that one."""

    @model_validator(mode="after")
    def _check_path(self) -> Self:
        if ".." in self.uri.split("/"):
            raise ValueError(f"uri must not contain .., got {self.uri}")
        return self


class Network(Model):
    """How the workers meet and speak to each other."""

    backend: Literal["nccl", "gloo"] | None = None
    """Collectives of torch.distributed; nccl with GPUs and gloo without when absent."""
    port: Port = 29500
    """Port of the rendezvous on the first worker."""
    interface: Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[-=^.,_A-Za-z0-9]+$")] | None = None
    """Network interface of NCCL and Gloo, for example eth0; chosen by them when absent."""
    rdma: bool = False
    """Use InfiniBand or RoCE: grants IPC_LOCK to the containers."""


class ExitCodes(Model):
    """What a set of exit codes means."""

    codes: Annotated[tuple[Annotated[int, Field(ge=1, le=255)], ...], Field(min_length=1, max_length=255)]
    """Exit codes; a signal n is 128 + n."""
    action: Literal["Restart", "Fail", "Ignore"]
    """Restart the group, fail the job at once, or take the worker for finished."""


class Restart(Model):
    """What happens when a worker fails. Lost nodes, evictions and GPU faults never count as failures."""

    model_config = rules(
        rule("self.backoffSeconds <= self.maxBackoffSeconds", "backoffSeconds must be <= maxBackoffSeconds")
    )

    policy: Literal["Group", "Never"] = "Group"
    """Group: all workers start again together from the newest verified checkpoint; Never: the job fails."""
    max_restarts: Annotated[int, Field(ge=0, le=10_000)] = 3
    """Failures of the program after which the job fails."""
    backoff_seconds: Seconds = 5
    """Wait before the first restart; each further one doubles it."""
    max_backoff_seconds: Seconds = 300
    """Longest wait between two restarts."""
    exit_codes: Annotated[tuple[ExitCodes, ...], Field(max_length=16)] = ()
    """Rules by exit code, the first that names it decides. Code 2 (wrong input) fails at once unless named."""
    on_stall: bool = False
    """Restart the group also when it makes no progress."""
    stall_factor: Annotated[float, Field(ge=2, le=1000)] = 10.0
    """No progress for so many usual steps (and at least a minute) counts as a stall."""

    @model_validator(mode="after")
    def _check_backoff(self) -> Self:
        if self.backoff_seconds > self.max_backoff_seconds:
            got = f"{self.backoff_seconds} and {self.max_backoff_seconds}"
            raise ValueError(f"backoffSeconds must be <= maxBackoffSeconds, got {got}")
        return self


class Success(Model):
    """When the run may stop before its last step."""

    metric: Literal["loss"] = "loss"
    """The figure of the progress report that is watched."""
    target: Annotated[float, Field(ge=-1e12, le=1e12)]
    """Value that must be reached."""
    mode: Literal["min", "max"] = "min"
    """min: lower is better; max: higher is better."""
    patience: Annotated[int, Field(ge=1, le=10_000)] = 1
    """In how many reports, one after another, the target must be reached."""


class TrainingJobSpec(Model):
    """What to run, on how many workers, and how to survive failures."""

    image: Image
    """Container image of the workers."""
    command: Arguments = ()
    """Entry point of each worker, for example ["torchrun", "-m", "tasks.training"]; the image's own when empty."""
    args: Arguments = ()
    """Arguments of the command."""
    framework: Literal["pytorch", "custom"] = "pytorch"
    """pytorch: workers get the variables that torchrun reads; custom: only the common ones."""
    workers: Annotated[
        Annotated[_Workers, Tag("|number")] | Annotated[ElasticWorkers, Tag("|object")],
        Discriminator(lambda value: "|object" if isinstance(value, dict | ElasticWorkers) else "|number"),
        WithJsonSchema(WORKERS_SCHEMA),
    ]
    """Number of workers, or {min, max} for a run that goes on with fewer and grows again."""
    gpus_per_worker: Annotated[int, Field(ge=0, le=16)] = 0
    """GPUs of each worker; one process per GPU."""
    gpu_resource: QualifiedName = "nvidia.com/gpu"
    """Extended resource that counts the GPUs."""
    resources: Resources | None = None
    """CPU, memory and more of each worker."""
    env: Environment = ()
    """Variables of each worker. The operator's own (MASTER_ADDR, FLIGHTPATH_* and the like) win over these."""
    volumes: Volumes = ()
    """Volumes of each worker's pod, as in a pod's spec."""
    volume_mounts: VolumeMounts = ()
    """Where the volumes appear in each worker."""
    node_selector: NodeSelector = Field(default_factory=dict)
    """Labels that the workers' nodes must have."""
    tolerations: Tolerations = ()
    """Taints that the workers bear, for example those of spot nodes."""
    service_account_name: Name | None = None
    """Account of the workers; its token is not mounted."""
    image_pull_secrets: PullSecrets = ()
    """Secrets that open the image's registry."""
    pod_security_context: PodSecurityContext | None = None
    """A Kubernetes PodSecurityContext in place of the restricted one (runAsNonRoot, RuntimeDefault seccomp)."""
    checkpoint: Checkpoint | None = None
    """Checkpoints; without them every restart begins from scratch."""
    network: Network = Network()
    """How the workers meet."""
    restart: Restart = Restart()
    """What happens when a worker fails."""
    success: Success | None = None
    """Stop early, as succeeded, once a metric reaches its target."""
    active_deadline_seconds: PositiveSeconds | None = None
    """The job fails when it has not finished within this time."""
    startup_deadline_seconds: PositiveSeconds = 600
    """All workers must be scheduled within this time; otherwise what they hold is released and tried again."""
    ttl_seconds_after_finished: Seconds | None = None
    """The finished job deletes itself after this time; never when absent."""
    termination_grace_period_seconds: Annotated[int, Field(ge=0, le=3600)] = 30
    """Time from SIGTERM to SIGKILL for a last checkpoint."""
    suspend: bool = False
    """True: no worker runs, and the spec may be changed; false again: the run resumes."""
    queue: Name | None = None
    """Kueue's LocalQueue; without Kueue it is reported in the condition Degraded and has no effect."""
    tenant: LabelValue | None = None
    """Whom the run is accounted to: a label of the pods and of metrics."""
    priority_class_name: Name | None = None
    """PriorityClass of the workers."""
    managed_by: Annotated[str, Field(min_length=1, max_length=63)] = OPERATOR
    """Who runs the job; the operator leaves jobs of others alone."""

    @property
    def min_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers.min

    @property
    def max_workers(self) -> int:
        return self.workers if isinstance(self.workers, int) else self.workers.max

    @property
    def elastic(self) -> bool:
        return not isinstance(self.workers, int)


JOB_MUTABLE: Final = frozenset(
    {
        "workers",
        "suspend",
        "active_deadline_seconds",
        "startup_deadline_seconds",
        "ttl_seconds_after_finished",
    }
)
"""Fields of the spec that may change while the job is not suspended."""
