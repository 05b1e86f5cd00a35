"""What the cluster can do: its version and the add-ons whose APIs it serves."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Capabilities:
    """Found by API discovery at start and again every few minutes."""

    minor: int = 30
    """Minor of the server's version 1.x."""
    kueue: bool = False
    """kueue.x-k8s.io: queues, quota and gang admission."""
    pod_group: bool = False
    """scheduling.x-k8s.io PodGroup (scheduler-plugins coscheduling)."""
    kuberay: bool = False
    """ray.io RayCluster."""
    kserve: bool = False
    """serving.kserve.io InferenceService."""
    keda: bool = False
    """keda.sh ScaledObject."""

    @property
    def autoscaling_v2(self) -> bool:
        return self.minor >= 23

    @property
    def policy_v1(self) -> bool:
        return self.minor >= 21
