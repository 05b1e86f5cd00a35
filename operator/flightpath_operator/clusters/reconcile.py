"""Decides what a TrainingCluster needs: one RayCluster, or a reason why there is none.

Without KubeRay the cluster is refused: Ray's autoscaler, its recovery of the head and rolling of workers are
KubeRay's trade, and a second implementation here would be a worse one.
"""

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta
from typing import Final

from flightpath_operator.api.read import InvalidSpec, read_training_cluster
from flightpath_operator.api.training_cluster import TrainingClusterSpec
from flightpath_operator.capabilities import Capabilities
from flightpath_operator.clusters.ray_cluster import FIXED_ANNOTATION, fixed_hash, ray_cluster
from flightpath_operator.clusters.settings import ClusterSettings
from flightpath_operator.clusters.status import describe, read_ray
from flightpath_operator.conditions import notes_of_transitions, seconds
from flightpath_operator.ownership import Changes, apply_children
from flightpath_operator.plan import FINALIZER, Note, Object, Observed, Patch, Plan, is_owned
from flightpath_operator.refusal import refuse

_RETRY: Final = timedelta(seconds=30)
"""After a write that was refused, and while a name is taken."""


_DEFAULTS: Final = ClusterSettings()


def reconcile(parent: Object, observed: Observed, now: float, settings: ClusterSettings = _DEFAULTS) -> Plan:
    """The RayCluster as it shall be and the status as it is. Deletion needs nothing: the owner reference does it."""
    metadata = parent["metadata"]
    if metadata.get("deletionTimestamp"):
        return Plan(finalizer=False if FINALIZER in metadata.get("finalizers", []) else None)
    try:
        spec = read_training_cluster(parent)
    except InvalidSpec as invalid:
        return refuse(parent, invalid.reason, invalid.message, now=now)
    left = _time_left(parent, spec, now)
    if left is not None and left <= timedelta():
        message = f"ttlSeconds {spec.ttl_seconds} is over: the cluster is deleted."
        return Plan(delete_parent=True, notes=(Note(reason="Expired", message=message),))
    plan = _plan(parent, spec, observed, now, settings)
    waits = [wait for wait in (plan.again_in, left) if wait is not None]
    return replace(plan, again_in=min(waits, default=None))


def _plan(parent: Object, spec: TrainingClusterSpec, observed: Observed, now: float, settings: ClusterSettings) -> Plan:
    if not observed.capabilities.kuberay:
        message = "TrainingCluster needs KubeRay (ray.io/v1 RayCluster), which this cluster does not serve."
        return refuse(parent, "KubeRayMissing", message, now=now, again_in=settings.look_again)
    if spec.max_gpus is not None and spec.max_group_gpus > spec.max_gpus:
        message = f"the groups' max times gpusPerWorker must be <= maxGpus {spec.max_gpus}, got {spec.max_group_gpus}"
        return refuse(parent, "QuotaExceeded", message, now=now)
    present = [child for child in observed.children if child["kind"] == "RayCluster"]
    mine = next((child for child in present if is_owned(child, parent)), None)
    frozen = mine is not None and not spec.suspend and _has_outgrown(spec, mine)
    changes = Changes() if frozen else _changes(parent, spec, present, mine, observed.capabilities, settings)
    if changes.problems:
        return refuse(parent, "NameTaken", "; ".join(changes.problems), now=now, again_in=_RETRY)
    status = describe(
        parent,
        spec,
        read_ray(spec, mine),
        left_out=list(_left_out(spec, observed.capabilities)),
        problems=observed.problems,
        frozen=frozen,
        now=now,
    )
    before = (parent.get("status") or {}).get("conditions") or []
    bad, calm = {"Degraded", "SpecChanged"}, {"Pending", "Starting", "Suspended"}
    return Plan(
        creates=changes.creates,
        patches=changes.patches,
        deletes=changes.deletes,
        status=status,
        notes=notes_of_transitions(before, status["conditions"], good={"Ready"}, bad=bad, calm=calm),
        again_in=_RETRY if observed.problems else None,
    )


def _changes(
    parent: Object,
    spec: TrainingClusterSpec,
    present: list[Object],
    mine: Object | None,
    capabilities: Capabilities,
    settings: ClusterSettings,
) -> Changes:
    # Kueue undoes spec.suspend of what it has admitted: there the RayCluster goes and comes back.
    away = spec.suspend and spec.queue is not None and capabilities.kueue
    wanted = [] if away else [ray_cluster(parent, spec, settings, present=mine, kueue=capabilities.kueue)]
    changes = apply_children(parent, wanted, present)
    return replace(changes, patches=tuple(map(_guard, changes.patches)))


def _guard(patch: Patch) -> Patch:
    """The autoscaler writes into the same list: a patch made for an older state of it must fail, and is made anew."""
    version = patch.target["metadata"].get("resourceVersion")
    if version is None:
        return patch
    return replace(patch, body=patch.body | {"metadata": patch.body["metadata"] | {"resourceVersion": version}})


def _has_outgrown(spec: TrainingClusterSpec, cluster: Object) -> bool:
    """Whether running pods were made with other fields than the spec has now; servers before CEL let that pass."""
    annotations = cluster["metadata"].get("annotations") or {}
    suspended = (cluster.get("status") or {}).get("state") == "suspended"
    return not suspended and annotations.get(FIXED_ANNOTATION, fixed_hash(spec)) != fixed_hash(spec)


def _time_left(parent: Object, spec: TrainingClusterSpec, now: float) -> timedelta | None:
    if spec.ttl_seconds is None:
        return None
    return timedelta(seconds=seconds(parent["metadata"]["creationTimestamp"]) + spec.ttl_seconds - now)


def _left_out(spec: TrainingClusterSpec, capabilities: Capabilities) -> Iterable[str]:
    """What the spec asks for and this cluster cannot do."""
    if spec.queue and not capabilities.kueue:
        yield "queue needs Kueue: the cluster starts without waiting for quota"
    if spec.queue and capabilities.kueue and any(group.min < group.max for group in spec.worker_groups):
        yield "Kueue admits clusters of a fixed size: every group runs its max, and idleSeconds has no effect"
