"""Pods that end, and those that nobody can end any more.

A new attempt waits until every pod of the older ones is gone. On a node that does not answer none ever goes: after
a wait it is deleted without confirmation. What still runs there cannot do harm: its token, the address of its
rendezvous and its checkpoints' names are those of its own attempt.
"""

from collections.abc import Iterable, Iterator, Mapping

from flightpath_operator.plan import Delete, Object
from flightpath_operator.training.nodes import not_ready_since
from flightpath_operator.training.settings import TrainingSettings
from flightpath_operator.training.workers import Worker


def unended(pods: Iterable[Worker]) -> tuple[Worker, ...]:
    """Pods that a new attempt must wait for.

    One whose containers have all ended, and that only somebody's finalizer keeps, is not among them.
    """
    return tuple(pod for pod in pods if not (pod.ended and pod.going and pod.pod["metadata"].get("finalizers")))


def end_all(
    pods: Iterable[Worker], nodes: Mapping[str, Object], now: float, settings: TrainingSettings
) -> tuple[Delete, ...]:
    """Deletes with their own grace period, and without any where nobody answers."""
    pods = list(pods)
    return (
        *(Delete(target=pod.pod) for pod in pods if not pod.going),
        *(Delete(target=pod.pod, grace_s=0) for pod in pods if _is_stuck(pod, nodes, now, settings)),
    )


def force_deadlines(pods: Iterable[Worker], nodes: Mapping[str, Object], settings: TrainingSettings) -> Iterator[float]:
    """When pods that are ending will count as stuck."""
    for pod in pods:
        lost_at, gone_by = _lost_at(pod, nodes, settings), pod.deletion_deadline
        if lost_at is not None and gone_by is not None and _confirmable(pod):
            yield max(lost_at, gone_by + settings.force_delete_after.total_seconds())


def node_is_lost(pod: Worker, nodes: Mapping[str, Object], now: float, settings: TrainingSettings) -> bool:
    """Whether nobody on the pod's node can be asked any more."""
    lost_at = _lost_at(pod, nodes, settings)
    return lost_at is not None and now >= lost_at


def _is_stuck(pod: Worker, nodes: Mapping[str, Object], now: float, settings: TrainingSettings) -> bool:
    gone_by = pod.deletion_deadline
    late = gone_by is not None and now >= gone_by + settings.force_delete_after.total_seconds()
    return bool(late and _confirmable(pod) and node_is_lost(pod, nodes, now, settings))


def _confirmable(pod: Worker) -> bool:
    """Whether the API server still waits for the node: a forced deletion was asked for only once."""
    return bool(pod.pod["metadata"].get("deletionGracePeriodSeconds") != 0)


def _lost_at(pod: Worker, nodes: Mapping[str, Object], settings: TrainingSettings) -> float | None:
    """When the node counts as lost; 0 where it is gone altogether."""
    if pod.node is None:
        return None
    node = nodes.get(pod.node)
    if node is None:
        # A cache without any node tells nothing; a pod that ran proves that its node was there once.
        return 0.0 if nodes and pod.phase != "Pending" else None
    since = not_ready_since(node)
    return None if since is None else since + settings.lost_node_after.total_seconds()
