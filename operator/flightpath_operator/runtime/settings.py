"""What an operator's owner may set, by FLIGHTPATH_OPERATOR_* in its environment."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Every field has a default that suits a cluster of a few hundred nodes."""

    model_config = SettingsConfigDict(env_prefix="FLIGHTPATH_OPERATOR_", extra="ignore")

    namespace: str = "flightpath-system"
    """Where the operator's own Lease and Secret are."""
    identity: str = ""
    """Of this process in the Lease; by default the host name and the process id."""
    pod: str = ""
    """Name of the own pod, which bears the label flightpath.dev/leader while it leads; empty outside of pods."""
    lease_name: str = "flightpath-operator"
    lease_s: int = Field(default=15, ge=3, le=300)
    """How long a silent leader keeps its place."""
    host: str = "0.0.0.0"  # a pod's own address; tests bind to loopback
    metrics_port: int = Field(default=8080, ge=0, le=65535)
    """/metrics, /healthz and /readyz."""
    progress_port: int = Field(default=8090, ge=0, le=65535)
    """Where workers report."""
    progress_url: str = "http://flightpath-operator.flightpath-system.svc:8090"
    """The same as workers see it."""
    progress_key_file: Path = Path("/var/run/flightpath/progress-key")
    """At least 32 random bytes: what the workers' tokens are made from. Mounted from a Secret."""
    concurrent_calls: int = Field(default=32, ge=1, le=1000)
    """Calls to the API server under way at once."""
    server_timeout_s: float = Field(default=300.0, gt=0, le=3600)
    """Length of one watch."""
    audit_s: float = Field(default=60.0, gt=0, le=3600)
    """How often what the watches have shown is held against a list."""
    discovery_s: float = Field(default=300.0, gt=0, le=86_400)
    """How often add-ons are looked for; a change ends the process, and the next one uses them."""
    cordon_nodes: bool = False
    """Whether a node with a GPU fault is cordoned, beside being avoided."""
    flightpath_image: str = "flightpath/flightpath:latest"
    """Image that fetches bundles for ModelDeployments."""
    log_level: str = "INFO"
