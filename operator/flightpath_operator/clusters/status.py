"""What a TrainingCluster tells of itself: its workers, where jobs are submitted, when it was last used."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from flightpath_operator.api.training_cluster import TrainingClusterSpec
from flightpath_operator.clusters.ray_cluster import DASHBOARD_PORT
from flightpath_operator.conditions import degraded, find_condition, set_conditions, timestamp
from flightpath_operator.plan import Object


@dataclass(frozen=True, kw_only=True, slots=True)
class Ray:
    """The RayCluster as KubeRay reports it."""

    exists: bool = False
    suspended: bool = False
    head_ready: bool = False
    desired: int = 0
    """Workers that the autoscaler wants."""
    ready: int = 0
    gpus: int = 0
    failure: str = ""
    service: str = ""
    """The head's Service."""


def read_ray(spec: TrainingClusterSpec, cluster: Object | None) -> Ray:
    if cluster is None:
        return Ray()
    status = cluster.get("status") or {}
    conditions = status.get("conditions") or []
    groups = cluster["spec"].get("workerGroupSpecs") or []
    gpus_per_worker = {group.name: group.gpus_per_worker for group in spec.worker_groups}
    wanted = {group["groupName"]: group.get("replicas", group.get("minReplicas", 0)) for group in groups}
    replica_failure = find_condition(conditions, "ReplicaFailure") or {}
    failed = replica_failure.get("status") == "True" or status.get("state") == "failed"
    provisioned = find_condition(conditions, "HeadPodReady") or {}
    return Ray(
        exists=True,
        suspended=status.get("state") == "suspended",
        # Before KubeRay 1.3 there are no conditions, and the state alone tells.
        head_ready=provisioned.get("status") == "True" if provisioned else status.get("state") == "ready",
        desired=sum(wanted.values()),
        ready=status.get("readyWorkerReplicas", status.get("availableWorkerReplicas", 0)),
        gpus=sum(gpus_per_worker.get(name, 0) * number for name, number in wanted.items()),
        failure=str(replica_failure.get("message") or status.get("reason") or "a pod failed") if failed else "",
        service=str((status.get("head") or {}).get("serviceName") or f"{cluster['metadata']['name']}-head-svc"),
    )


def phase(spec: TrainingClusterSpec, ray: Ray) -> str:
    """One word for people; programs read the conditions."""
    if not ray.exists:
        return "Suspended" if spec.suspend else "Pending"
    if ray.suspended:
        return "Suspended"
    if ray.failure:
        return "Failed"
    if not ray.head_ready:
        return "Starting"
    return "Ready" if ray.desired else "Idle"


def describe(
    parent: Object,
    spec: TrainingClusterSpec,
    ray: Ray,
    *,
    left_out: Sequence[str],
    problems: Sequence[str],
    frozen: bool,
    now: float,
) -> Object:
    """The whole status. `frozen`: the spec asks for what running pods cannot take."""
    metadata = parent["metadata"]
    old = parent.get("status") or {}
    before = old.get("conditions") or []
    word = phase(spec, ray)
    entries = [
        ("Accepted", True, "Accepted", "The spec can be carried out."),
        ("Ready", word in ("Ready", "Idle"), *_why(word, ray)),
        degraded(left_out, problems),
    ]
    if frozen:
        message = "Pods that run keep the old spec: suspend the cluster to apply the new one."
        entries.append(("SpecChanged", True, "Immutable", message))
    elif find_condition(before, "SpecChanged"):
        entries.append(("SpecChanged", False, "Applied", "The cluster runs with the present spec."))
    conditions = set_conditions(before, entries, now=now, generation=metadata.get("generation", 0))
    status: dict[str, Any] = {
        "phase": word,
        "observedGeneration": metadata.get("generation", 0),
        "conditions": conditions,
        "workers": {
            "ready": ray.ready,
            "desired": ray.desired,
            "max": sum(group.max for group in spec.worker_groups),
            "gpus": ray.gpus,
        },
        "jobSubmissionUrl": _job_url(metadata["namespace"], ray),
        "lastActive": _last_active(spec, old, ray, now),
    }
    return {key: value for key, value in status.items() if value is not None}


def _job_url(namespace: str, ray: Ray) -> str | None:
    """Where `ray job submit --address` and Flyte tasks reach the cluster; absent while nobody listens there."""
    return f"http://{ray.service}.{namespace}.svc:{DASHBOARD_PORT}" if ray.head_ready else None


def _last_active(spec: TrainingClusterSpec, old: Object, ray: Ray, now: float) -> str | None:
    """Moves when the number of workers above the groups' min does, and once more when they are gone."""
    least = sum(group.min for group in spec.worker_groups)
    before = (old.get("workers") or {}).get("desired", 0)
    if before == ray.desired or max(before, ray.desired) <= least:
        return old.get("lastActive")
    return timestamp(now)


def _why(word: str, ray: Ray) -> tuple[str, str]:
    told = {
        "Pending": "The RayCluster is not made yet.",
        "Starting": "The head does not answer yet.",
        "Ready": f"{ray.ready} of {ray.desired} workers joined.",
        "Idle": "Only the head runs; workers come with the first job.",
        "Suspended": "spec.suspend is true, or a queue has not admitted the cluster.",
        "Failed": ray.failure,
    }
    return word, told[word]
