"""TrainingCluster: an elastic Ray cluster that a team shares; KubeRay runs it."""

from typing import Annotated, Final, Self

from pydantic import Field, model_validator

from flightpath_operator.api.fields import (
    Environment,
    Image,
    LabelValue,
    Model,
    Name,
    NodeSelector,
    PositiveSeconds,
    PullSecrets,
    QualifiedName,
    Resources,
    Tolerations,
    VolumeMounts,
    Volumes,
    list_map,
    rule,
    rules,
)

MAX_GROUP_WORKERS: Final = 4096


class Head(Model):
    """The head of the cluster: scheduler, dashboard and job submission; it runs no training."""

    resources: Resources | None = None
    """CPU and memory of the head; the operator's default when absent."""
    node_selector: NodeSelector = Field(default_factory=dict)
    """Labels that the head's node must have."""
    tolerations: Tolerations = ()
    """Taints that the head bears."""


class WorkerGroup(Model):
    """Workers of one kind; Ray's autoscaler moves their number between min and max."""

    model_config = rules(rule("self.min <= self.max", "min must be <= max"))

    name: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]
    """Name of the group."""
    min: Annotated[int, Field(ge=0, le=MAX_GROUP_WORKERS)] = 0
    """Workers that always run; 0 lets the group scale to zero."""
    max: Annotated[int, Field(ge=1, le=MAX_GROUP_WORKERS)]
    """Most workers that may run."""
    gpus_per_worker: Annotated[int, Field(ge=0, le=16)] = 0
    """GPUs of each worker."""
    gpu_resource: QualifiedName = "nvidia.com/gpu"
    """Extended resource that counts the GPUs."""
    resources: Resources | None = None
    """CPU, memory and more of each worker."""
    node_selector: NodeSelector = Field(default_factory=dict)
    """Labels that the workers' nodes must have."""
    tolerations: Tolerations = ()
    """Taints that the workers bear."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min must be <= max, got min {self.min} and max {self.max}")
        return self

    @property
    def max_gpus(self) -> int:
        return self.max * self.gpus_per_worker


class TrainingClusterSpec(Model):
    """A Ray cluster: its head, its groups of workers, and when it gives its nodes back."""

    model_config = rules(
        rule(
            "!has(self.maxGpus) || self.workerGroups.map(g, g.max * g.gpusPerWorker).sum() <= self.maxGpus",
            "the groups' max times gpusPerWorker must not add up to more than maxGpus",
        )
    )

    image: Image
    """Container image of head and workers; it must hold Ray in the version below."""
    ray_version: Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[0-9]+\.[0-9]+\.[0-9]+([-.+a-z0-9]*)?$")]
    """Ray's version in the image, for example 2.60.0."""
    head: Head = Head()
    """The head of the cluster."""
    worker_groups: Annotated[tuple[WorkerGroup, ...], Field(min_length=1, max_length=16), *list_map("name")]
    """Groups of workers, each of one kind of node."""
    env: Environment = ()
    """Variables of head and workers."""
    volumes: Volumes = ()
    """Volumes of all pods."""
    volume_mounts: VolumeMounts = ()
    """Where the volumes appear in all pods."""
    service_account_name: Name | None = None
    """Account of the pods; KubeRay's own for the autoscaler when absent."""
    image_pull_secrets: PullSecrets = ()
    """Secrets that open the image's registry."""
    idle_seconds: PositiveSeconds = 300
    """A worker above its group's min that ran nothing for this long is given back."""
    max_gpus: Annotated[int, Field(ge=0, le=65_536)] | None = None
    """Quota: the groups' max times gpusPerWorker may not add up to more."""
    ttl_seconds: PositiveSeconds | None = None
    """The cluster deletes itself this long after it was made; never when absent."""
    suspend: bool = False
    """True: no pod runs; false again: the cluster comes back empty."""
    queue: Name | None = None
    """Kueue's LocalQueue; without Kueue it is reported in the condition Degraded and has no effect."""
    tenant: LabelValue | None = None
    """Whom the cluster is accounted to: a label of the pods."""
    priority_class_name: Name | None = None
    """PriorityClass of the pods."""

    @property
    def max_group_gpus(self) -> int:
        """GPUs that the groups hold at their largest."""
        return sum(group.max_gpus for group in self.worker_groups)


CLUSTER_MUTABLE: Final = frozenset({"worker_groups", "idle_seconds", "max_gpus", "ttl_seconds", "suspend"})
"""Fields of the spec that may change while the cluster is not suspended: KubeRay replaces no running pod."""
