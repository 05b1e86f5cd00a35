"""The objects of a job: its Service, the common environment, and one pod per worker.

Pods keep to PodSecurity `restricted`, except that RDMA needs IPC_LOCK.
"""

from collections.abc import Mapping
from typing import Any, Final

from flightpath_operator.names import (
    ATTEMPT_LABEL,
    RANK_LABEL,
    environment_name,
    selector,
    worker_name,
)
from flightpath_operator.ownership import complete_child, spec_hash
from flightpath_operator.plan import GROUP, HASH_ANNOTATION, Object
from flightpath_operator.training.gang import gang_annotations, gang_labels, pod_group, uses_pod_group
from flightpath_operator.training.job import Job
from flightpath_operator.training.nccl import ZONE_LABEL, wants_rdma
from flightpath_operator.training.nodes import HOSTNAME_LABEL, labels
from flightpath_operator.training.rendezvous import CHECKPOINT_MOUNT, worker_variables
from flightpath_operator.training.workers import CONTAINER

TENANT_LABEL: Final = f"{GROUP}/tenant"
_CHECKPOINTS: Final = "flightpath-checkpoints"
_SHARED_MEMORY: Final = "flightpath-shm"
_VOLUME_GROUP: Final = 1000
"""Group that owns a mounted claim: any will do, as long as the workers are members."""
_UNDISTURBED: Final = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
}
"""Autoscalers that move a worker to save a node would restart the whole group."""


def support(job: Job) -> list[Object]:
    """What must be there before the first worker: the Service of their names, the common environment, the gang."""
    gang = pod_group(job)
    return [_service(job), _environment(job), *([gang] if gang else [])]


def worker_pod(job: Job, rank: int) -> Object:
    """The pod of one worker of the present attempt."""
    name = worker_name(job.name, job.state.attempt, rank)
    metadata = {
        "name": name,
        "labels": _labels(job) | {RANK_LABEL: str(rank)},
        "annotations": _UNDISTURBED | gang_annotations(job) | {HASH_ANNOTATION: template_hash(job)},
    }
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": _pod_spec(job, name, rank)}
    return complete_child(job.parent, pod)


def template_hash(job: Job) -> str:
    """Hash of what all workers of an attempt have in common."""
    return spec_hash([job.state.attempt, job.state.spec_hash, job.group.lowest, job.group.highest])


def _labels(job: Job) -> dict[str, str]:
    tenant = {TENANT_LABEL: job.spec.tenant} if job.spec.tenant else {}
    return (
        {
            "app.kubernetes.io/name": job.name,
            "app.kubernetes.io/component": CONTAINER,
            ATTEMPT_LABEL: str(job.state.attempt),
        }
        | tenant
        | gang_labels(job)
    )


def _service(job: Job) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": job.name},
        "spec": {
            "clusterIP": "None",
            # Workers must find each other before they are ready: that is how they become it.
            "publishNotReadyAddresses": True,
            "selector": selector(job.parent),
            "ports": [{"name": "rendezvous", "port": job.spec.network.port, "protocol": "TCP"}],
        },
    }


def _environment(job: Job) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": environment_name(job.name)},
        "data": job.state.environment,
    }


def _pod_spec(job: Job, name: str, rank: int) -> Object:
    spec = job.spec
    fields: Object = {
        "hostname": name,
        "subdomain": job.name,
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": spec.termination_grace_period_seconds,
        "securityContext": _pod_security(job),
        "affinity": _affinity(job),
        "volumes": _volumes(job),
        "containers": [_container(job, rank)],
        "nodeSelector": dict(spec.node_selector),
        "tolerations": [toleration.model_dump(by_alias=True, exclude_none=True) for toleration in spec.tolerations],
        "imagePullSecrets": [{"name": secret.name} for secret in spec.image_pull_secrets],
        "serviceAccountName": spec.service_account_name,
        "priorityClassName": spec.priority_class_name,
        "schedulerName": job.settings.scheduler_name if uses_pod_group(job) else "",
    }
    return {key: value for key, value in fields.items() if value not in (None, "", [], {})}


def _container(job: Job, rank: int) -> Object:
    spec = job.spec
    fields: Object = {
        "name": CONTAINER,
        "image": spec.image,
        "command": list(spec.command),
        "args": list(spec.args),
        "envFrom": [{"configMapRef": {"name": environment_name(job.name)}}],
        "env": _variables(job, rank),
        "ports": [{"name": "rendezvous", "containerPort": spec.network.port, "protocol": "TCP"}],
        "resources": _resources(job),
        "volumeMounts": _mounts(job),
        "securityContext": _container_security(job),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    return {key: value for key, value in fields.items() if value not in ([], {})}


def _variables(job: Job, rank: int) -> list[Object]:
    own = worker_variables(job, rank)
    taken = own.keys() | job.state.environment.keys()
    given = (variable.model_dump(by_alias=True, exclude_none=True) for variable in job.spec.env)
    told = [{"name": name, "value": value} for name, value in own.items()]
    return [*told, *(variable for variable in given if variable["name"] not in taken)]


def _resources(job: Job) -> Object:
    given = job.spec.resources
    requests: dict[str, Any] = dict(given.requests) if given else {}
    limits: dict[str, Any] = dict(given.limits) if given else {}
    if job.spec.gpus_per_worker:
        limits[job.spec.gpu_resource] = str(job.spec.gpus_per_worker)
        requests.pop(job.spec.gpu_resource, None)
    return {key: value for key, value in (("requests", requests), ("limits", limits)) if value}


def _container_security(job: Job) -> Object:
    capabilities: Object = {"drop": ["ALL"]}
    if job.spec.network.rdma:
        capabilities["add"] = ["IPC_LOCK"]
    return {"allowPrivilegeEscalation": False, "capabilities": capabilities}


def _pod_security(job: Job) -> Object:
    if job.spec.pod_security_context is not None:
        return job.spec.pod_security_context
    security: Object = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if _checkpoint_volume(job):
        security |= {"fsGroup": _VOLUME_GROUP, "fsGroupChangePolicy": "OnRootMismatch"}
    return security


def _volumes(job: Job) -> list[Object]:
    volumes = list(job.spec.volumes)
    if not _mounts_at(job, "/dev/shm"):
        volumes.append({"name": _SHARED_MEMORY, "emptyDir": {"medium": "Memory"}})
    if (checkpoints := _checkpoint_volume(job)) is not None:
        volumes.append({"name": _CHECKPOINTS} | checkpoints)
    return volumes


def _mounts(job: Job) -> list[Object]:
    mounts = list(job.spec.volume_mounts)
    if not _mounts_at(job, "/dev/shm"):
        # The container's own 64 MiB are too few for data loaders and for NCCL.
        mounts.append({"name": _SHARED_MEMORY, "mountPath": "/dev/shm"})
    if _checkpoint_volume(job) is not None:
        mounts.append({"name": _CHECKPOINTS, "mountPath": CHECKPOINT_MOUNT})
    return mounts


def _mounts_at(job: Job, path: str) -> bool:
    return any(mount["mountPath"].rstrip("/") == path for mount in job.spec.volume_mounts)


def _checkpoint_volume(job: Job) -> Object | None:
    uri = job.spec.checkpoint.uri if job.spec.checkpoint else ""
    scheme, _, rest = uri.partition("://")
    host, _, path = rest.partition("/")
    if _mounts_at(job, CHECKPOINT_MOUNT):
        return None
    if scheme == "pvc":
        return {"persistentVolumeClaim": {"claimName": host}}
    return {"nfs": {"server": host, "path": f"/{path}"}} if scheme == "nfs" else None


def _affinity(job: Job) -> Object:
    return _away_from_faults(job) | _together(job)


def _away_from_faults(job: Job) -> Object:
    excluded = job.state.excluded_nodes
    if not excluded:
        return {}
    hosts = sorted({_host(job.observed.nodes, name) for name in excluded})
    expression = {"key": HOSTNAME_LABEL, "operator": "NotIn", "values": hosts}
    terms = [{"matchExpressions": [expression]}]
    return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}


def _host(nodes: Mapping[str, Object], name: str) -> str:
    node = nodes.get(name)
    return labels(node).get(HOSTNAME_LABEL, name) if node else name


def _together(job: Job) -> Object:
    if job.spec.max_workers == 1:
        return {}
    selected = {"matchLabels": selector(job.parent) | {ATTEMPT_LABEL: str(job.state.attempt)}}
    term = {"labelSelector": selected, "topologyKey": ZONE_LABEL}
    if job.group.same_zone and wants_rdma(job.spec):
        return {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}
    preferred = [{"weight": 100, "podAffinityTerm": term}]
    return {"podAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}
