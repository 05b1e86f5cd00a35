"""What the operator's installation decides for all TrainingClusters."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True, kw_only=True, slots=True)
class ClusterSettings:
    """Same for every TrainingCluster."""

    run_as: int = 1000
    """User of the containers: Ray's own images make their folders for it."""
    head_resources: Mapping[str, str] = field(default_factory=lambda: {"cpu": "1", "memory": "4Gi"})
    """Requests and limits of a head whose spec names none."""
    worker_resources: Mapping[str, str] = field(default_factory=lambda: {"cpu": "2", "memory": "8Gi"})
    """Requests and limits of workers whose group names none; Ray sizes itself by them."""
    look_again: timedelta = timedelta(minutes=5)
    """How often a cluster that lacks KubeRay is tried again."""
