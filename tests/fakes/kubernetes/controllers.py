"""Jobs and PodDisruptionBudgets for API servers that have no controller manager, and the loop over all workloads.

Jobs run Pods up to `parallelism` until `completions`, and fail after `backoffLimit`; they are not indexed.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.fakes.kubernetes.client import TRANSIENT, Refused, connect
from tests.fakes.kubernetes.deployments import reconcile_deployment, reconcile_replica_set
from tests.fakes.kubernetes.selection import by_selector
from tests.fakes.kubernetes.timestamps import rfc3339
from tests.fakes.kubernetes.workloads import Workloads, condition, free_names, is_over, is_ready, owned_child

Object = dict[str, Any]


async def reconcile_job(cluster: Workloads, job: Object) -> None:
    spec, status = job["spec"], job.get("status") or {}
    pods = cluster.children("pods", job)
    finished = any(each["status"] == "True" for each in status.get("conditions") or [])
    if finished or spec.get("suspend") or "deletionTimestamp" in job["metadata"]:
        return
    succeeded = sum((pod.get("status") or {}).get("phase") == "Succeeded" for pod in pods)
    failed = sum((pod.get("status") or {}).get("phase") == "Failed" for pod in pods)
    active = len(pods) - succeeded - failed
    wanted = spec.get("completions") or 1
    conditions = []
    if succeeded >= wanted:
        conditions = [condition("Complete", True, "CompletionsReached", [])]
    elif failed > spec["backoffLimit"]:
        conditions = [condition("Failed", True, "BackoffLimitExceeded", [])]
    if not conditions:
        template = spec["template"]
        free = free_names(job["metadata"]["name"], pods)
        for _ in range(min(spec["parallelism"], wanted - succeeded) - active):
            pod = owned_child(job, next(free), template["spec"], template["metadata"].get("labels") or {})
            await cluster.create("v1", "pods", pod)
    started = status.get("startTime") or rfc3339()
    told = {"active": 0 if conditions else active, "succeeded": succeeded, "failed": failed, "startTime": started}
    told |= {"conditions": conditions} if conditions else {}
    if conditions and succeeded >= wanted:
        told["completionTime"] = rfc3339()
    await cluster.write(job, "jobs", {"status": told}, "status")


async def reconcile_budget(cluster: Workloads, budget: Object) -> None:
    """Only minAvailable and maxUnavailable as numbers."""
    spec, namespace = budget["spec"], budget["metadata"]["namespace"]
    matches = by_selector(spec.get("selector"))
    pods = [pod for (place, _), pod in cluster.mirrors["pods"].objects.items() if place == namespace]
    chosen = [pod for pod in pods if matches(pod["metadata"].get("labels") or {}) and not is_over(pod)]
    healthy = sum(map(is_ready, chosen))
    desired = spec["minAvailable"] if "minAvailable" in spec else len(chosen) - spec.get("maxUnavailable", 1)
    status = {
        "currentHealthy": healthy,
        "desiredHealthy": desired,
        "disruptionsAllowed": max(0, healthy - desired),
        "expectedPods": len(chosen),
        "observedGeneration": budget["metadata"]["generation"],
    }
    await cluster.write(budget, "poddisruptionbudgets", {"status": status}, "status")


Reconcile = Callable[[Workloads, Object], Awaitable[None]]
_KINDS: tuple[tuple[str, str, str, Reconcile], ...] = (
    ("apps/v1", "replicasets", "ReplicaSet", reconcile_replica_set),
    ("apps/v1", "deployments", "Deployment", reconcile_deployment),
    ("batch/v1", "jobs", "Job", reconcile_job),
    ("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", reconcile_budget),
)


async def _control(cluster: Workloads) -> None:
    while True:
        await cluster.wake.wait()
        cluster.wake.clear()
        for api_version, plural, kind, reconcile in _KINDS:
            for document in cluster.all(plural, api_version, kind):
                try:
                    await reconcile(cluster, document)
                except (Refused, *TRANSIENT) as error:
                    loop = asyncio.get_running_loop()
                    loop.call_later(0.2, cluster.wake.set)
                    if isinstance(error, Refused) and error.status in (400, 422):
                        loop.call_exception_handler({"message": f"{kind} was refused", "exception": error})


@asynccontextmanager
async def running_controllers(kubeconfig: Path) -> AsyncIterator[None]:
    """Deployments, ReplicaSets, Jobs and PodDisruptionBudgets are looked after while the block runs."""
    async with connect(kubeconfig) as client:
        cluster = Workloads(client)
        mirrors = [cluster.follow("v1", "pods"), *(cluster.follow(kind[0], kind[1]) for kind in _KINDS)]
        tasks = [asyncio.create_task(mirror.run()) for mirror in mirrors]
        for mirror in mirrors:
            await mirror.synced.wait()
        tasks.append(asyncio.create_task(_control(cluster)))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
