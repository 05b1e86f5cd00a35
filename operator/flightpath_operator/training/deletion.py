"""The end of a job: its pods get their grace period, then the finalizer goes."""

from datetime import timedelta

from flightpath_operator.plan import FINALIZER, Note, Object, Observed, Plan, is_owned
from flightpath_operator.training.ending import end_all
from flightpath_operator.training.settings import TrainingSettings
from flightpath_operator.training.workers import Worker, parse_time, read_worker

_ORPHAN = "orphan"
"""Finalizer of `kubectl delete --cascade=orphan`: the children shall stay."""
_LOOK_AGAIN = timedelta(seconds=10)


def plan_deletion(parent: Object, observed: Observed, now: float, settings: TrainingSettings) -> Plan:
    """Deletes the pods, waits until they are gone, and lets the job go. Needs no valid spec."""
    finalizers = parent["metadata"].get("finalizers") or []
    if FINALIZER not in finalizers:
        return Plan()
    name = parent["metadata"]["name"]
    owned = (child for child in observed.children if child.get("kind") == "Pod" and is_owned(child, parent))
    pods = [read_worker(name, pod) for pod in owned]
    if not pods or _ORPHAN in finalizers:
        return Plan(finalizer=False)
    asked = parse_time(parent["metadata"].get("deletionTimestamp"))
    if all(pod.going for pod in pods) and asked is not None and now >= asked + _longest(pods, settings):
        message = f"{len(pods)} pods have not ended within {settings.deletion_wait}: their owner reference ends them"
        return Plan(finalizer=False, notes=(Note(reason="PodsLeft", message=message, warning=True),))
    return Plan(deletes=end_all(pods, observed.nodes, now, settings), again_in=_LOOK_AGAIN)


def _longest(pods: list[Worker], settings: TrainingSettings) -> float:
    graces = (pod.pod.get("spec", {}).get("terminationGracePeriodSeconds") or 0 for pod in pods)
    return float(max(graces)) + settings.deletion_wait.total_seconds()
