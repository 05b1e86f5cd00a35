"""ReplicaSets and Deployments for API servers that have no controller manager.

Deployments roll with maxUnavailable 0 and maxSurge 1 whatever they ask for; Recreate is honoured.
"""

import hashlib
import json
from typing import Any, Final

from tests.fakes.kubernetes.client import path_of
from tests.fakes.kubernetes.workloads import Workloads, condition, free_names, is_over, is_ready, owned_child

Object = dict[str, Any]

_HASH: Final = "pod-template-hash"


def template_hash(template: Object) -> str:
    return hashlib.sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()[:10]


async def reconcile_replica_set(cluster: Workloads, replica_set: Object) -> None:
    if "deletionTimestamp" in replica_set["metadata"]:
        return
    spec, metadata = replica_set["spec"], replica_set["metadata"]
    pods = cluster.children("pods", replica_set)
    alive = [pod for pod in pods if not is_over(pod) and "deletionTimestamp" not in pod["metadata"]]
    template = spec["template"]
    free = free_names(metadata["name"], pods)
    for _ in range(spec["replicas"] - len(alive)):
        pod = owned_child(replica_set, next(free), template["spec"], template["metadata"].get("labels") or {})
        pod["metadata"]["annotations"] = template["metadata"].get("annotations") or {}
        await cluster.create("v1", "pods", pod)
    for pod in sorted(alive, key=is_ready)[: max(0, len(alive) - spec["replicas"])]:
        await cluster.delete("v1", "pods", pod)
    status = {
        "replicas": len(alive),
        "readyReplicas": sum(map(is_ready, alive)),
        "availableReplicas": sum(map(is_ready, alive)),
        "observedGeneration": metadata["generation"],
    }
    await cluster.write(replica_set, "replicasets", {"status": status}, "status")


async def reconcile_deployment(cluster: Workloads, deployment: Object) -> None:
    if "deletionTimestamp" in deployment["metadata"]:
        return
    spec = deployment["spec"]
    digest = template_hash(spec["template"])
    sets = cluster.children("replicasets", deployment)
    current = next((each for each in sets if each["metadata"]["labels"].get(_HASH) == digest), None)
    old = [each for each in sets if each is not current]
    if current is None:
        replicas = spec["replicas"] if not any(each["spec"]["replicas"] for each in old) else 0
        await cluster.create("apps/v1", "replicasets", _new_replica_set(deployment, digest, replicas))
    elif not spec.get("paused"):
        await _roll(cluster, spec, current, old)
    await cluster.write(deployment, "deployments", {"status": _deployment_status(deployment, current, old)}, "status")
    keep = spec["revisionHistoryLimit"]
    idle = [each for each in old if not each["spec"]["replicas"] and not (each.get("status") or {}).get("replicas")]
    for each in sorted(idle, key=lambda item: int(item["metadata"]["resourceVersion"]))[: max(0, len(idle) - keep)]:
        await cluster.delete("apps/v1", "replicasets", each)


def _new_replica_set(deployment: Object, digest: str, replicas: int) -> Object:
    spec = deployment["spec"]
    template = json.loads(json.dumps(spec["template"]))
    labels = template["metadata"].setdefault("labels", {})
    labels[_HASH] = digest
    selector = {**spec["selector"], "matchLabels": {**(spec["selector"].get("matchLabels") or {}), _HASH: digest}}
    name = f"{deployment['metadata']['name']}-{digest}"
    return owned_child(deployment, name, {"replicas": replicas, "selector": selector, "template": template}, labels)


async def _roll(cluster: Workloads, spec: Object, current: Object, old: list[Object]) -> None:
    """One step: one more of the new, then one less of the old for each new one that is ready."""
    wanted = spec["replicas"]
    left = sum(each["spec"]["replicas"] for each in old)
    have, ready = current["spec"]["replicas"], (current.get("status") or {}).get("readyReplicas", 0)
    if spec["strategy"]["type"] == "Recreate":
        gone = not any((each.get("status") or {}).get("replicas") for each in old)
        target, spare = (wanted if gone else 0), left
    else:
        room = wanted + 1 - left - have
        target = wanted if not left else min(wanted, have + max(0, min(1, room)))
        spare = max(0, left + ready - wanted)
    await _resize(cluster, current, target)
    for each in old:
        take = min(spare, each["spec"]["replicas"])
        spare -= take
        await _resize(cluster, each, each["spec"]["replicas"] - take)


async def _resize(cluster: Workloads, replica_set: Object, replicas: int) -> None:
    if replica_set["spec"]["replicas"] != replicas:
        metadata = replica_set["metadata"]
        path = path_of("apps/v1", "replicasets", metadata["namespace"], metadata["name"])
        version = {"resourceVersion": metadata["resourceVersion"]}
        await cluster.client.merge(path, {"metadata": version, "spec": {"replicas": replicas}})


def _deployment_status(deployment: Object, current: Object | None, old: list[Object]) -> Object:
    wanted = deployment["spec"]["replicas"]
    statuses = [each.get("status") or {} for each in [*old, *([current] if current else [])]]
    total = sum(status.get("replicas", 0) for status in statuses)
    ready = sum(status.get("readyReplicas", 0) for status in statuses)
    updated = (current.get("status") or {}).get("replicas", 0) if current else 0
    before = (deployment.get("status") or {}).get("conditions") or []
    done = updated == wanted and ready >= wanted and total == wanted
    reason = "NewReplicaSetAvailable" if done else "ReplicaSetUpdated"
    return {
        "observedGeneration": deployment["metadata"]["generation"],
        "replicas": total,
        "updatedReplicas": updated,
        "readyReplicas": ready,
        "availableReplicas": ready,
        "unavailableReplicas": max(0, total - ready, wanted - ready),
        "conditions": [
            condition("Available", ready >= wanted, "MinimumReplicasAvailable", before),
            condition("Progressing", True, reason, before),
        ],
    }
