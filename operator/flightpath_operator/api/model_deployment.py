"""ModelDeployment: the servers of one bundle. Which share of the requests they get is not its business:
weights belong to the region's agent."""

from typing import Annotated, Final, Literal, Self

from pydantic import Field, model_validator

from flightpath_operator.api.fields import (
    Arguments,
    Image,
    LabelValue,
    Model,
    Name,
    NodeSelector,
    Port,
    PositiveSeconds,
    PullSecrets,
    QualifiedName,
    Resources,
    Tolerations,
    VolumeMounts,
    Volumes,
    rule,
    rules,
)

MAX_REPLICAS: Final = 1000
DIGEST: Final = r"^sha256:[0-9a-f]{64}$"
BUNDLE_URI: Final = r"^(file|s3|gs|az)://[^\s]+$"

_Replicas = Annotated[int, Field(ge=0, le=MAX_REPLICAS)]
_VariableName = Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class Bundle(Model):
    """What is served, by content."""

    digest: Annotated[str, Field(min_length=71, max_length=71, pattern=DIGEST)]
    """SHA-256 of the bundle's manifest; verified before anything serves."""
    uri: Annotated[str, Field(min_length=1, max_length=1024, pattern=BUNDLE_URI)]
    """Artifact store that the bundle is fetched from."""
    store_secret: Name | None = None
    """Secret whose keys become variables of the fetching container alone: the store's credentials."""


class Runtime(Model):
    """What serves the bundle."""

    engine: Literal["vllm", "onnxruntime", "tensorrt", "triton"]
    """Server program."""
    variant: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][-._A-Za-z0-9]*$")]
    """The bundle's variant that the engine opens."""
    image: Image
    """Container image of the engine."""
    arguments: Arguments = ()
    """Further arguments of the engine's command."""
    environment: Annotated[dict[_VariableName, Annotated[str, Field(max_length=4096)]], Field(max_length=64)] = Field(
        default_factory=dict
    )
    """Variables of the engine; never secrets."""


class Autoscaling(Model):
    """Replicas by load; while it is set, spec.replicas only tells how many there are at first."""

    model_config = rules(rule("self.min <= self.max", "min must be <= max"))

    min: _Replicas = 1
    """Fewest replicas; 0 needs KEDA."""
    max: Annotated[int, Field(ge=1, le=MAX_REPLICAS)]
    """Most replicas."""
    metric: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[A-Za-z_:][A-Za-z0-9_:]*$")] = "cpu"
    """cpu and memory: percent of what the replicas request; any other: a metric that each replica exports, for
    example vllm:num_requests_waiting."""
    target: Annotated[int, Field(ge=1, le=1_000_000_000)]
    """Average of the metric over the replicas that is aimed at."""

    @model_validator(mode="after")
    def _check_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min must be <= max, got min {self.min} and max {self.max}")
        return self


class NamespaceAccess(Model):
    """Who may send requests, where the cluster's network enforces policies."""

    allow_from_namespaces: Annotated[
        tuple[Annotated[str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")], ...],
        Field(max_length=64),
        Field(json_schema_extra={"x-kubernetes-list-type": "set"}),
    ] = ()
    """Namespaces whose pods may send requests; its own namespace always may."""


class ModelDeploymentSpec(Model):
    """A bundle, the engine that serves it, and how many replicas do."""

    model: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")]
    """Name under which clients ask for the model."""
    bundle: Bundle
    """What is served."""
    runtime: Runtime
    """What serves the bundle."""
    replicas: _Replicas = 1
    """Number of servers."""
    autoscaling: Autoscaling | None = None
    """Replicas by load."""
    gpus: Annotated[int, Field(ge=0, le=16)] = 0
    """GPUs of each replica."""
    gpu_resource: QualifiedName = "nvidia.com/gpu"
    """Extended resource that counts the GPUs."""
    resources: Resources | None = None
    """CPU, memory and more of each replica."""
    drain_seconds: Annotated[int, Field(ge=0, le=3600)] = 30
    """How long running requests may take after the replica was told to end."""
    startup_seconds: PositiveSeconds = 600
    """A replica that does not answer within this time is started again."""
    port: Port = 8000
    """Port of the engine and of the Service."""
    node_selector: NodeSelector = Field(default_factory=dict)
    """Labels that the replicas' nodes must have."""
    tolerations: Tolerations = ()
    """Taints that the replicas bear."""
    service_account_name: Name | None = None
    """Account of the replicas, for example to read the store; its token is not mounted."""
    image_pull_secrets: PullSecrets = ()
    """Secrets that open the image's registry."""
    volumes: Volumes = ()
    """Further volumes of the pods."""
    volume_mounts: VolumeMounts = ()
    """Where the volumes appear in the server and in the fetching container."""
    tenant: LabelValue | None = None
    """Whom the replicas are accounted to: a label of the pods."""
    priority_class_name: Name | None = None
    """PriorityClass of the replicas."""
    network_policy: NamespaceAccess | None = None
    """Restrict who may send requests; without it everybody may."""
    kserve: bool = False
    """Let KServe run the servers (an InferenceService) where it is installed."""
