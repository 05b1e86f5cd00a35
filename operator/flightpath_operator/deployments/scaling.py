"""Replicas by load: an HPA, or KEDA where it alone can (scale to zero, a metric from Prometheus).

Both act on the Deployment; the operator then leaves its number of replicas alone.
"""

from typing import Final

from flightpath_operator.api.model_deployment import Autoscaling, ModelDeploymentSpec
from flightpath_operator.capabilities import Capabilities
from flightpath_operator.deployments.settings import DeploymentSettings
from flightpath_operator.plan import Object

RESOURCE_METRICS: Final = ("cpu", "memory")
_SCALE_DOWN_WINDOW_S: Final = 300
_KEDA_POLL_S: Final = 15


def uses_keda(autoscaling: Autoscaling, settings: DeploymentSettings, capabilities: Capabilities) -> bool:
    return capabilities.keda and autoscaling.metric not in RESOURCE_METRICS and settings.prometheus_url is not None


def fewest_replicas(spec: ModelDeploymentSpec, settings: DeploymentSettings, capabilities: Capabilities) -> int:
    """Fewest replicas that the autoscaler at hand can keep; spec.replicas where there is none."""
    if spec.autoscaling is None:
        return spec.replicas
    floor = 0 if uses_keda(spec.autoscaling, settings, capabilities) else 1
    return max(floor, spec.autoscaling.min)


def autoscaler(
    parent: Object, spec: ModelDeploymentSpec, settings: DeploymentSettings, capabilities: Capabilities
) -> Object | None:
    """The object that scales the Deployment; None without autoscaling."""
    if spec.autoscaling is None:
        return None
    fewest = fewest_replicas(spec, settings, capabilities)
    if uses_keda(spec.autoscaling, settings, capabilities):
        return _scaled_object(parent, spec.autoscaling, fewest, str(settings.prometheus_url))
    return _horizontal_pod_autoscaler(parent, spec.autoscaling, fewest, capabilities)


def _horizontal_pod_autoscaler(
    parent: Object, autoscaling: Autoscaling, fewest: int, capabilities: Capabilities
) -> Object:
    name = parent["metadata"]["name"]
    return {
        "apiVersion": "autoscaling/v2" if capabilities.autoscaling_v2 else "autoscaling/v2beta2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicas": fewest,
            "maxReplicas": autoscaling.max,
            "metrics": [_metric(autoscaling)],
            # Model servers take long to start: what was added stays a while.
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": _SCALE_DOWN_WINDOW_S}},
        },
    }


def _metric(autoscaling: Autoscaling) -> Object:
    if autoscaling.metric in RESOURCE_METRICS:
        target: Object = {"type": "Utilization", "averageUtilization": autoscaling.target}
        return {"type": "Resource", "resource": {"name": autoscaling.metric, "target": target}}
    target = {"type": "AverageValue", "averageValue": str(autoscaling.target)}
    return {"type": "Pods", "pods": {"metric": {"name": autoscaling.metric}, "target": target}}


def _scaled_object(parent: Object, autoscaling: Autoscaling, fewest: int, prometheus_url: str) -> Object:
    name, namespace = parent["metadata"]["name"], parent["metadata"]["namespace"]
    trigger = {
        "type": "prometheus",
        "metricType": "AverageValue",
        "metadata": {
            "serverAddress": prometheus_url,
            "query": f'sum({autoscaling.metric}{{namespace="{namespace}",pod=~"{name}-.+"}})',
            "threshold": str(autoscaling.target),
        },
    }
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": {"name": name},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "minReplicaCount": fewest,
            "maxReplicaCount": autoscaling.max,
            "pollingInterval": _KEDA_POLL_S,
            "cooldownPeriod": _SCALE_DOWN_WINDOW_S,
            "triggers": [trigger],
        },
    }
