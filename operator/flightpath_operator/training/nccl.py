"""The collectives' environment, one for all workers of an attempt.

NCCL picks a network in each process by itself; where nodes differ, workers pick different ones and hang or crawl.
So the fabric is chosen here, from what every node that the workers could get has in common, and written down.
Variables: NVIDIA's NCCL user guide (NCCL_SOCKET_IFNAME, NCCL_IB_DISABLE, NCCL_IB_HCA) and libfabric's fi_efa(7)
(FI_PROVIDER, FI_EFA_USE_DEVICE_RDMA).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from flightpath_operator.api.training_job import TrainingJobSpec
from flightpath_operator.plan import Object
from flightpath_operator.training.nodes import allocatable, labels

INSTANCE_LABEL: Final = "node.kubernetes.io/instance-type"
ZONE_LABEL: Final = "topology.kubernetes.io/zone"
EFA_RESOURCE: Final = "vpc.amazonaws.com/efa"
FABRIC: Final = "FLIGHTPATH_FABRIC"
"""tcp, ib or efa: what the variables below it mean, for people and for status.environment."""

_EFA_INSTANCES: Final = re.compile(r"(p4de?|p5(e|en)?|p6(e)?(-[a-z0-9]+)?|trn1n|trn2u?)\.")
"""EC2 families whose EFA devices read and write GPU memory directly."""
_MELLANOX: Final = re.compile(r"feature\.node\.kubernetes\.io/pci-(02[0-9a-f]{2}_)?15b3\.present")
"""Node Feature Discovery: PCI vendor 15b3 is Mellanox, with or without the device class."""
_RDMA_LABELS: Final = ("feature.node.kubernetes.io/rdma.capable", "feature.node.kubernetes.io/rdma.available")
_EXACT_NAME: Final = re.compile(r"[A-Za-z0-9._-]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkPlan:
    """How the workers of one attempt speak to each other."""

    variables: dict[str, str]
    same_zone: bool = False
    """RDMA fabrics end at the zone: the workers must share one."""
    notes: tuple[str, ...] = ()
    """What was asked for and cannot be had, for people."""


def plan_network(spec: TrainingJobSpec, nodes: Sequence[Object]) -> NetworkPlan:
    """Environment of the collectives. `nodes`: all that the workers could get."""
    interface = _interface(spec)
    if backend(spec) != "nccl" or spec.max_workers == 1:
        return NetworkPlan(variables=interface)
    if not wants_rdma(spec):
        return NetworkPlan(variables=interface | {FABRIC: "tcp", "NCCL_IB_DISABLE": "1"})
    if not nodes:
        return NetworkPlan(variables=interface, notes=("no node fits the workers yet: NCCL chooses the network",))
    fabrics = {_fabric(node) for node in nodes}
    if len(fabrics) > 1 or fabrics == {"tcp"}:
        variables = interface | {FABRIC: "tcp", "NCCL_IB_DISABLE": "1"}
        return NetworkPlan(variables=variables, notes=(_tell_missing(nodes),))
    fabric = fabrics.pop()
    variables = interface | {FABRIC: fabric} | (_efa() if fabric == "efa" else _infiniband(nodes))
    zoned = all(ZONE_LABEL in labels(node) for node in nodes)
    return NetworkPlan(variables=variables, same_zone=zoned, notes=_missing_resource(spec, fabric))


def backend(spec: TrainingJobSpec) -> str:
    """nccl or gloo."""
    return spec.network.backend or ("nccl" if spec.gpus_per_worker else "gloo")


def wants_rdma(spec: TrainingJobSpec) -> bool:
    """Whether the job asks for RDMA, by its field or by asking for the devices."""
    return spec.network.rdma or _requested(spec, EFA_RESOURCE)


def _interface(spec: TrainingJobSpec) -> dict[str, str]:
    name = spec.network.interface
    if name is None:
        return {}
    variables = {"NCCL_SOCKET_IFNAME": name} if backend(spec) == "nccl" else {}
    # Gloo knows no patterns; PyTorch uses it beside NCCL as well.
    return variables | ({"GLOO_SOCKET_IFNAME": name} if _EXACT_NAME.fullmatch(name) else {})


def _fabric(node: Object) -> str:
    present = labels(node)
    if allocatable(node, EFA_RESOURCE) or _EFA_INSTANCES.match(present.get(INSTANCE_LABEL, "")):
        return "efa"
    if _mellanox(node) or any(present.get(label) == "true" for label in _RDMA_LABELS):
        return "ib"
    return "tcp"


def _mellanox(node: Object) -> bool:
    return any(value == "true" and _MELLANOX.fullmatch(label) for label, value in labels(node).items())


def _efa() -> dict[str, str]:
    return {"FI_PROVIDER": "efa", "FI_EFA_USE_DEVICE_RDMA": "1"}


def _infiniband(nodes: Sequence[Object]) -> dict[str, str]:
    adapters = {"NCCL_IB_HCA": "mlx5"} if all(map(_mellanox, nodes)) else {}
    return {"NCCL_IB_DISABLE": "0"} | adapters


def _tell_missing(nodes: Sequence[Object]) -> str:
    without = [node["metadata"]["name"] for node in nodes if _fabric(node) == "tcp"]
    if not without:
        return "RDMA was asked for, but the nodes have different fabrics (efa and ib): all workers use TCP"
    named = ", ".join(without[:3]) + (" and more" if len(without) > 3 else "")
    return f"RDMA was asked for, but {len(without)} of {len(nodes)} nodes lack it ({named}): all workers use TCP"


def _missing_resource(spec: TrainingJobSpec, fabric: str) -> tuple[str, ...]:
    if fabric == "efa" and not _requested(spec, EFA_RESOURCE):
        return (f"the nodes have EFA, but resources.limits asks for no {EFA_RESOURCE}: the workers cannot open it",)
    return ()


def _requested(spec: TrainingJobSpec, resource: str) -> bool:
    return spec.resources is not None and str(spec.resources.limits.get(resource, "0")) != "0"
