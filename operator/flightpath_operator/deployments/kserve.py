"""A KServe InferenceService in place of the plain objects, for clusters whose teams watch that kind.

It runs the very same pod; KServe adds Service, autoscaler and address. Checked against KServe's published schema.
"""

from typing import Final

from flightpath_operator.api.model_deployment import ModelDeploymentSpec
from flightpath_operator.capabilities import Capabilities
from flightpath_operator.deployments.pods import pod_labels, pod_spec
from flightpath_operator.deployments.scaling import RESOURCE_METRICS
from flightpath_operator.deployments.settings import DeploymentSettings
from flightpath_operator.plan import Object

_CONTAINER: Final = "kserve-container"
"""Name by which KServe knows the container that serves."""


def inference_service(
    parent: Object, spec: ModelDeploymentSpec, settings: DeploymentSettings, capabilities: Capabilities
) -> Object:
    """The InferenceService, without Knative, since servers of models drain and start slowly."""
    annotations = {"serving.kserve.io/deploymentMode": "RawDeployment"}
    if is_stopped(spec):
        annotations["serving.kserve.io/stop"] = "true"
    pod = pod_spec(spec, settings, minor=capabilities.minor, server=_CONTAINER)
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": parent["metadata"]["name"],
            "annotations": annotations,
            "labels": pod_labels(spec),
        },
        "spec": {"predictor": pod | _scale(spec)},
    }


def is_stopped(spec: ModelDeploymentSpec) -> bool:
    """KServe knows no zero replicas, but it takes its Deployment away where it is told to stop."""
    return spec.autoscaling is None and spec.replicas == 0


def _scale(spec: ModelDeploymentSpec) -> Object:
    scaling = spec.autoscaling
    if scaling is None:
        fixed = max(1, spec.replicas)
        return {"minReplicas": fixed, "maxReplicas": fixed}
    bounds = {"minReplicas": max(1, scaling.min), "maxReplicas": scaling.max}
    if scaling.metric not in RESOURCE_METRICS:
        return bounds
    return bounds | {"scaleMetric": scaling.metric, "scaleTarget": scaling.target}
