"""The plain objects of a ModelDeployment: Deployment, Service, PodDisruptionBudget, NetworkPolicy."""

from typing import Final

from flightpath_operator.api.model_deployment import ModelDeploymentSpec
from flightpath_operator.capabilities import Capabilities
from flightpath_operator.deployments.pods import pod_labels, pod_spec
from flightpath_operator.deployments.settings import DeploymentSettings
from flightpath_operator.names import child_labels, selector
from flightpath_operator.ownership import spec_hash
from flightpath_operator.plan import HASH_ANNOTATION, Object

_PROGRESS_MARGIN_S: Final = 60
NAMESPACE_LABEL: Final = "kubernetes.io/metadata.name"
"""Servers set it on every namespace since 1.21."""


def deployment(
    parent: Object,
    spec: ModelDeploymentSpec,
    settings: DeploymentSettings,
    capabilities: Capabilities,
    *,
    replicas: int | None,
) -> Object:
    """The servers. `replicas` None: an autoscaler decides, the number is left alone."""
    body = {
        "selector": {"matchLabels": selector(parent)},
        "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
        "minReadySeconds": 5,
        "revisionHistoryLimit": 3,
        "progressDeadlineSeconds": settings.fetch_seconds + spec.startup_seconds + _PROGRESS_MARGIN_S,
        "template": {
            "metadata": {"labels": child_labels(parent) | pod_labels(spec)},
            "spec": pod_spec(spec, settings, minor=capabilities.minor) | {"topologySpreadConstraints": _spread(parent)},
        },
    }
    # An autoscaler's number is no part of what is wanted, even where it is set once at the start.
    wanted = body if spec.autoscaling else body | {"replicas": replicas}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": parent["metadata"]["name"], "annotations": {HASH_ANNOTATION: spec_hash(wanted)}},
        "spec": body if replicas is None else body | {"replicas": replicas},
    }


def _spread(parent: Object) -> list[Object]:
    return [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": selector(parent)},
        }
    ]


def service(parent: Object, spec: ModelDeploymentSpec) -> Object:
    """Where the replicas answer; the region's gateway takes it, or the pods behind it."""
    port = {"name": "http", "port": spec.port, "targetPort": "http", "protocol": "TCP"}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": parent["metadata"]["name"]},
        "spec": {"type": "ClusterIP", "selector": selector(parent), "ports": [port]},
    }


def disruption_budget(parent: Object, capabilities: Capabilities) -> Object:
    """One replica at a time: more would lose capacity, fewer would block the draining of nodes."""
    return {
        "apiVersion": "policy/v1" if capabilities.policy_v1 else "policy/v1beta1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": parent["metadata"]["name"]},
        "spec": {"maxUnavailable": 1, "selector": {"matchLabels": selector(parent)}},
    }


def network_policy(parent: Object, spec: ModelDeploymentSpec) -> Object | None:
    """Lets the named namespaces and the own one in, on the engine's port alone."""
    if spec.network_policy is None:
        return None
    sources: list[Object] = [{"podSelector": {}}]
    if namespaces := list(spec.network_policy.allow_from_namespaces):
        named = {"key": NAMESPACE_LABEL, "operator": "In", "values": sorted(namespaces)}
        sources.append({"namespaceSelector": {"matchExpressions": [named]}})
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": parent["metadata"]["name"]},
        "spec": {
            "podSelector": {"matchLabels": selector(parent)},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": sources, "ports": [{"port": spec.port, "protocol": "TCP"}]}],
        },
    }
