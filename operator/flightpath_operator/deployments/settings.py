"""What the operator's installation decides for all ModelDeployments."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class DeploymentSettings:
    """Same for every ModelDeployment of a cluster."""

    flightpath_image: str
    """Image with `serving.fetch_bundle`, which brings bundles into the pods."""
    prometheus_url: str | None = None
    """Prometheus that KEDA asks for metrics of the servers; without it those go through the HPA's metrics API."""
    fetch_seconds: int = 900
    """How long fetching a bundle may take before a rollout counts as stuck."""
    deregister_seconds: int = 5
    """How long a replica that ends still takes requests, until every proxy has dropped it."""
    run_as: int = 10001
    """User and group of the containers; images may say root, which restricted namespaces refuse."""
    fetch_requests: Mapping[str, str] = field(default_factory=lambda: {"cpu": "100m", "memory": "512Mi"})
    """What the fetching container reserves."""
