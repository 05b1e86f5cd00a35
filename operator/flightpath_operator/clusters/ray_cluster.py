"""The RayCluster of a TrainingCluster, as KubeRay 1.x takes it (ray.io/v1).

The number of workers belongs to Ray's autoscaler: what it has set is carried over, and is no part of the hash that
tells whether the RayCluster is as wanted. Checked against KubeRay's published schema.
"""

from collections.abc import Mapping
from typing import Any, Final

from flightpath_operator.api.fields import Resources, Tolerations
from flightpath_operator.api.training_cluster import CLUSTER_MUTABLE, TrainingClusterSpec, WorkerGroup
from flightpath_operator.clusters.settings import ClusterSettings
from flightpath_operator.names import TENANT_LABEL, child_labels
from flightpath_operator.ownership import spec_hash
from flightpath_operator.plan import GROUP, HASH_ANNOTATION, Object

DASHBOARD_PORT: Final = 8265
FIXED_ANNOTATION: Final = f"{GROUP}/fixed-spec-hash"
"""Hash of the fields that running pods were made with: KubeRay does not replace pods for them."""
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
_HEAD_PORTS: Final = {"gcs": 6379, "dashboard": DASHBOARD_PORT, "client": 10001, "metrics": 8080}
_ENVIRONMENT: Final = {"RAY_USAGE_STATS_ENABLED": "0"}
_CARRIED: Final = ("replicas", "scaleStrategy")
"""Fields of a worker group that the autoscaler writes."""


def ray_cluster(
    parent: Object, spec: TrainingClusterSpec, settings: ClusterSettings, *, present: Object | None, kueue: bool
) -> Object:
    """The RayCluster as it shall be. With Kueue its size is fixed and Kueue alone suspends it."""
    queued = kueue and spec.queue is not None
    groups = [_group(parent, spec, group, settings) for group in spec.worker_groups]
    body: Object = {
        "rayVersion": spec.ray_version,
        "enableInTreeAutoscaling": not queued,
        "headGroupSpec": _head(parent, spec, settings, autoscaled=not queued),
        "workerGroupSpecs": groups,
    }
    if not queued:
        body |= {"autoscalerOptions": _autoscaler(spec), "suspend": spec.suspend}
    labels = {QUEUE_LABEL: spec.queue} if queued else {}
    annotations = {HASH_ANNOTATION: spec_hash([body, labels]), FIXED_ANNOTATION: fixed_hash(spec)}
    sized = [_size(group, _present_group(present, group["groupName"]), fixed=queued) for group in groups]
    return {
        "apiVersion": "ray.io/v1",
        "kind": "RayCluster",
        "metadata": {"name": parent["metadata"]["name"], "labels": labels, "annotations": annotations},
        "spec": body | {"workerGroupSpecs": sized},
    }


def fixed_hash(spec: TrainingClusterSpec) -> str:
    """Hash of what may change only while the cluster is suspended."""
    return spec_hash(spec.model_dump(mode="json", exclude=set(CLUSTER_MUTABLE)))


def _autoscaler(spec: TrainingClusterSpec) -> Object:
    return {
        "idleTimeoutSeconds": spec.idle_seconds,
        "upscalingMode": "Default",
        "securityContext": _container_security(),
    }


def _head(parent: Object, spec: TrainingClusterSpec, settings: ClusterSettings, *, autoscaled: bool) -> Object:
    head = spec.head
    container = {
        "name": "ray-head",
        "ports": [{"name": name, "containerPort": port} for name, port in _HEAD_PORTS.items()],
        "resources": _resources(head.resources, settings.head_resources, {}),
    }
    # The autoscaler beside the head speaks to the API server by KubeRay's own account for it.
    token = {} if autoscaled else {"automountServiceAccountToken": False}
    return {
        "serviceType": "ClusterIP",
        # num-cpus 0: training never lands on the head.
        "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0"},
        "template": _template(parent, spec, settings, container, head.node_selector, head.tolerations, token),
    }


def _group(parent: Object, spec: TrainingClusterSpec, group: WorkerGroup, settings: ClusterSettings) -> Object:
    gpus = {group.gpu_resource: group.gpus_per_worker} if group.gpus_per_worker else {}
    container = {"name": "ray-worker", "resources": _resources(group.resources, settings.worker_resources, gpus)}
    token = {"automountServiceAccountToken": False}
    return {
        "groupName": group.name,
        "minReplicas": group.min,
        "maxReplicas": group.max,
        "rayStartParams": {"num-gpus": str(group.gpus_per_worker)},
        "template": _template(parent, spec, settings, container, group.node_selector, group.tolerations, token),
    }


def _size(group: Object, present: Object, *, fixed: bool) -> Object:
    """The group with the number of workers that the autoscaler chose, within its bounds."""
    if fixed:
        return group | {"replicas": group["maxReplicas"], "minReplicas": group["maxReplicas"]}
    carried = {key: present[key] for key in _CARRIED if key in present}
    replicas = present.get("replicas", group["minReplicas"])
    return group | carried | {"replicas": min(max(replicas, group["minReplicas"]), group["maxReplicas"])}


def _present_group(present: Object | None, name: str) -> Object:
    groups: list[Object] = (present or {}).get("spec", {}).get("workerGroupSpecs") or []
    return next((group for group in groups if group.get("groupName") == name), {})


def _template(
    parent: Object,
    spec: TrainingClusterSpec,
    settings: ClusterSettings,
    container: Object,
    node_selector: Mapping[str, str],
    tolerations: Tolerations,
    extra: Object,
) -> Object:
    optional: dict[str, Any] = {
        "nodeSelector": dict(node_selector),
        "tolerations": [toleration.model_dump(by_alias=True, exclude_none=True) for toleration in tolerations],
        "serviceAccountName": spec.service_account_name,
        "imagePullSecrets": [{"name": secret.name} for secret in spec.image_pull_secrets],
        "priorityClassName": spec.priority_class_name,
        "volumes": list(spec.volumes),
    }
    tenant = {TENANT_LABEL: spec.tenant} if spec.tenant else {}
    return {
        "metadata": {"labels": child_labels(parent) | tenant},
        "spec": {
            "enableServiceLinks": False,
            "securityContext": _pod_security(settings),
            "containers": [container | _common(spec)],
            **extra,
            **{key: value for key, value in optional.items() if value},
        },
    }


def _common(spec: TrainingClusterSpec) -> Object:
    given = {variable.name for variable in spec.env}
    defaults = [{"name": name, "value": value} for name, value in _ENVIRONMENT.items() if name not in given]
    variables = [variable.model_dump(by_alias=True, exclude_none=True) for variable in spec.env]
    mounts = {"volumeMounts": list(spec.volume_mounts)} if spec.volume_mounts else {}
    return {"image": spec.image, "env": [*defaults, *variables], "securityContext": _container_security(), **mounts}


def _resources(given: Resources | None, default: Mapping[str, str], gpus: Object) -> Object:
    """Limits matter: Ray counts a pod's CPUs and GPUs by them."""
    asked: Object = dict(given.requests) if given else {}
    allowed: Object = dict(given.limits) if given else {}
    limits = allowed or asked or dict(default)
    return {"limits": limits | gpus, "requests": (asked or limits) | gpus}


def _pod_security(settings: ClusterSettings) -> Object:
    return {
        "runAsNonRoot": True,
        "runAsUser": settings.run_as,
        "fsGroup": settings.run_as,
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def _container_security() -> Object:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
