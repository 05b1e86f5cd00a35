"""Where each kind lives in the API: group, version, plural, and whether it belongs to a namespace."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind as the API serves it."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    @property
    def root(self) -> str:
        return f"/api/{self.api_version}" if "/" not in self.api_version else f"/apis/{self.api_version}"

    def collection(self, namespace: str | None = None) -> str:
        """Path of all objects, or of one namespace's."""
        if self.namespaced and namespace is not None:
            return f"{self.root}/namespaces/{namespace}/{self.plural}"
        return f"{self.root}/{self.plural}"

    def path(self, name: str, namespace: str | None = None) -> str:
        return f"{self.collection(namespace)}/{name}"


TRAINING_JOB: Final = Resource("flightpath.dev/v1alpha1", "TrainingJob", "trainingjobs")
TRAINING_CLUSTER: Final = Resource("flightpath.dev/v1alpha1", "TrainingCluster", "trainingclusters")
MODEL_DEPLOYMENT: Final = Resource("flightpath.dev/v1alpha1", "ModelDeployment", "modeldeployments")
PARENTS: Final = (TRAINING_JOB, TRAINING_CLUSTER, MODEL_DEPLOYMENT)

NODE: Final = Resource("v1", "Node", "nodes", namespaced=False)
POD: Final = Resource("v1", "Pod", "pods")
EVENT: Final = Resource("v1", "Event", "events")
LEASE: Final = Resource("coordination.k8s.io/v1", "Lease", "leases")

_CHILDREN: Final = (
    POD,
    Resource("v1", "Service", "services"),
    Resource("v1", "ConfigMap", "configmaps"),
    Resource("v1", "ServiceAccount", "serviceaccounts"),
    Resource("apps/v1", "Deployment", "deployments"),
    Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Resource("policy/v1beta1", "PodDisruptionBudget", "poddisruptionbudgets"),
    Resource("autoscaling/v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    Resource("autoscaling/v2beta2", "HorizontalPodAutoscaler", "horizontalpodautoscalers"),
    Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
    Resource("scheduling.x-k8s.io/v1alpha1", "PodGroup", "podgroups"),
    Resource("ray.io/v1", "RayCluster", "rayclusters"),
    Resource("serving.kserve.io/v1beta1", "InferenceService", "inferenceservices"),
    Resource("keda.sh/v1alpha1", "ScaledObject", "scaledobjects"),
)

BY_KIND: Final[Mapping[tuple[str, str], Resource]] = {
    (resource.api_version, resource.kind): resource for resource in (*PARENTS, NODE, EVENT, LEASE, *_CHILDREN)
}


def resource_of(obj: Mapping[str, Any]) -> Resource:
    """Where an object lives, by its apiVersion and kind."""
    return BY_KIND[obj["apiVersion"], obj["kind"]]


CHILDREN: Final = _CHILDREN
"""Kinds that the operator makes; it watches those that the server has."""
