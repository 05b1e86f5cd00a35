"""What nodes tell about their GPUs, their health and their fabric."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from flightpath_operator.api.training_job import TrainingJobSpec
from flightpath_operator.conditions import seconds
from flightpath_operator.plan import GROUP, Object
from flightpath_operator.quantities import parse_quantity

XID_MARK: Final = f"{GROUP}/xid"
"""Label or annotation by which an administrator or an agent marks a node whose GPU failed."""
HOSTNAME_LABEL: Final = "kubernetes.io/hostname"
_FAULT_TYPES: Final = ("gpuunhealthy", "xid", "dcgm")
"""Parts of condition types of node-problem-detector and of NVIDIA's tools; True means a fault."""
_HEALTH_TYPES: Final = frozenset({"AcceleratedHardwareReady"})
"""Condition of the EKS node monitoring agent; False means a fault."""


def gpu_fault(node: Object) -> str | None:
    """What is wrong with the node's GPUs, None where nothing is known to be."""
    for condition in _conditions(node):
        kind, status = str(condition.get("type", "")), condition.get("status")
        told = f"{kind}: {condition.get('reason') or condition.get('message') or status}"
        if status == "True" and any(part in kind.lower() for part in _FAULT_TYPES):
            return told
        if status == "False" and kind in _HEALTH_TYPES:
            return told
    metadata = node.get("metadata", {})
    for marks in (metadata.get("labels"), metadata.get("annotations")):
        if marks and marks.get(XID_MARK):
            return f"Xid {marks[XID_MARK]}"
    return None


def not_ready_since(node: Object) -> float | None:
    """Since when the node has not been ready; None where it is, or never told."""
    for condition in _conditions(node):
        if condition.get("type") == "Ready" and condition.get("status") != "True":
            try:
                return seconds(condition["lastTransitionTime"])
            except (KeyError, TypeError, ValueError):
                return None
    return None


def candidates(spec: TrainingJobSpec, nodes: Mapping[str, Object]) -> tuple[Object, ...]:
    """Nodes that the workers could get, judged by selector, GPUs and cordon; sorted by name."""
    return tuple(node for _, node in sorted(nodes.items()) if _could_run(spec, node))


def faulty_nodes(spec: TrainingJobSpec, nodes: Iterable[Object]) -> tuple[str, ...]:
    """Names of nodes that a job with GPUs must avoid."""
    if not spec.gpus_per_worker:
        return ()
    return tuple(sorted(node["metadata"]["name"] for node in nodes if gpu_fault(node)))


def labels(node: Object) -> Mapping[str, str]:
    found: Mapping[str, str] = node.get("metadata", {}).get("labels") or {}
    return found


def allocatable(node: Object, resource: str) -> bool:
    """Whether the node has any of the resource."""
    amount: Any = (node.get("status", {}).get("allocatable") or {}).get(resource, 0)
    try:
        return parse_quantity(amount) > 0
    except ValueError:
        return False


def _could_run(spec: TrainingJobSpec, node: Object) -> bool:
    present = labels(node)
    if node.get("spec", {}).get("unschedulable") or gpu_fault(node):
        return False
    if any(present.get(key) != value for key, value in spec.node_selector.items()):
        return False
    return not spec.gpus_per_worker or allocatable(node, spec.gpu_resource)


def _conditions(node: Object) -> list[Object]:
    return node.get("status", {}).get("conditions") or []
