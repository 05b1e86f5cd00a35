"""Pretend nodes and the scheduler that fills them: capacity, selectors, taints, cordons."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from tests.fakes.kubernetes.quantities import parse_quantity
from tests.fakes.kubernetes.selection import by_selector
from tests.fakes.kubernetes.timestamps import rfc3339

Object = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeShape:
    name: str = "local"
    pods: int = 110
    resources: Mapping[str, int] = field(default_factory=dict)
    """Extended resources: {"nvidia.com/gpu": 8}. cpu and memory are not counted."""
    labels: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> Object:
        amounts = {"cpu": "64", "memory": "256Gi", "pods": str(self.pods)}
        amounts |= {name: str(amount) for name, amount in self.resources.items()}
        labels = {"kubernetes.io/hostname": self.name, "kubernetes.io/os": "linux", **self.labels}
        return {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": self.name, "labels": labels},
            "status": {
                "capacity": amounts,
                "allocatable": amounts,
                "addresses": [
                    {"type": "InternalIP", "address": "127.0.0.1"},
                    {"type": "Hostname", "address": self.name},
                ],
                "conditions": [ready_condition("True")],
            },
        }


def ready_condition(status: str) -> Object:
    reason = "KubeletReady" if status == "True" else "NodeStatusUnknown"
    now = rfc3339()
    return {"type": "Ready", "status": status, "reason": reason, "lastHeartbeatTime": now, "lastTransitionTime": now}


def _is_over(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def _amount(pod: Object, resource: str) -> Decimal:
    asked = Decimal(0)
    for container in pod["spec"]["containers"]:
        limits = (container.get("resources") or {}).get("limits") or {}
        asked += parse_quantity(limits.get(resource, 0))
    return asked


def _extended(pod: Object) -> set[str]:
    names: set[str] = set()
    for container in pod["spec"]["containers"]:
        names |= {name for name in (container.get("resources") or {}).get("limits") or {} if "/" in name}
    return names


def _tolerates(pod: Object, taint: Object) -> bool:
    if taint.get("effect") == "PreferNoSchedule":
        return True
    for each in pod["spec"].get("tolerations") or []:
        same_value = each.get("operator") == "Exists" or each.get("value", "") == taint.get("value", "")
        if each.get("key") in (None, taint["key"]) and same_value and each.get("effect") in (None, taint.get("effect")):
            return True
    return False


def _affine(pod: Object, labels: Mapping[str, str]) -> bool:
    if not (pod["spec"].get("nodeSelector") or {}).items() <= labels.items():
        return False
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return required is None or any(by_selector(term)(labels) for term in required["nodeSelectorTerms"])


def refusal(pod: Object, shape: NodeShape, node: Object, running: Iterable[Object]) -> str | None:
    """Why a Pod cannot go to a node, in the scheduler's words; None if it can."""
    spec = node.get("spec") or {}
    if spec.get("unschedulable"):
        return "node(s) were unschedulable"
    if any(not _tolerates(pod, taint) for taint in spec.get("taints") or []):
        return "node(s) had untolerated taint"
    if not _affine(pod, node["metadata"].get("labels") or {}):
        return "node(s) didn't match Pod's node affinity/selector"
    here = [each for each in running if each["spec"].get("nodeName") == shape.name and not _is_over(each)]
    if len(here) >= shape.pods:
        return "Too many pods"
    for resource in sorted(_extended(pod)):
        used = sum((_amount(each, resource) for each in here), Decimal(0))
        if used + _amount(pod, resource) > shape.resources.get(resource, 0):
            return f"Insufficient {resource}"
    return None


def unschedulable_message(refusals: list[str]) -> str:
    listed = ", ".join(f"{refusals.count(each)} {each}" for each in sorted(set(refusals)))
    return f"0/{len(refusals)} nodes are available: {listed}."


def waits_for_scheduling(pod: Object) -> bool:
    metadata, spec = pod["metadata"], pod["spec"]
    gated = spec.get("schedulingGates")
    return not spec.get("nodeName") and "deletionTimestamp" not in metadata and not _is_over(pod) and not gated


def scheduling_order(pod: Object) -> tuple[int, str, str]:
    return (-(pod["spec"].get("priority") or 0), pod["metadata"]["creationTimestamp"], pod["metadata"]["name"])
