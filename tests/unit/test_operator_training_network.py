"""One environment of the collectives for all workers, chosen from what their nodes have in common."""

from typing import Any

import pytest
from flightpath_operator.plan import Object

from tests.fakes.training_world import World

INFINIBAND = {"feature.node.kubernetes.io/pci-15b3.present": "true"}
GPU_JOB: Object = {"workers": 2, "gpusPerWorker": 8}


def environment(labels: list[Object], allocatable: Object | None = None, **spec: Any) -> World:
    """A job on nodes with these labels."""
    world = World(**(GPU_JOB | {"checkpoint": None} | spec))
    world.edit(checkpoint=None)
    world.nodes.clear()
    for index, present in enumerate(labels):
        world.add_node(f"node-{index}", present, **(allocatable or {}))
    world.settle()
    return world


def told(world: World) -> str:
    return (world.condition("Degraded") or ("", "", ""))[2]


def test_without_rdma_all_workers_use_sockets() -> None:
    world = environment([INFINIBAND])
    assert world.status["environment"] == {"FLIGHTPATH_FABRIC": "tcp", "NCCL_IB_DISABLE": "1"}


def test_infiniband_is_used_when_all_nodes_have_it() -> None:
    world = environment([INFINIBAND, INFINIBAND], network={"rdma": True})
    assert world.status["environment"] == {
        "FLIGHTPATH_FABRIC": "ib",
        "NCCL_IB_DISABLE": "0",
        "NCCL_IB_HCA": "mlx5",
    }


@pytest.mark.parametrize(
    "labels",
    [
        {"feature.node.kubernetes.io/pci-0200_15b3.present": "true"},
        {"feature.node.kubernetes.io/rdma.capable": "true"},
        {"feature.node.kubernetes.io/rdma.available": "true"},
    ],
)
def test_rdma_is_known_from_the_labels_of_node_feature_discovery(labels: Object) -> None:
    assert environment([labels], network={"rdma": True}).status["environment"]["FLIGHTPATH_FABRIC"] == "ib"


def test_one_node_without_rdma_takes_it_from_all_and_is_named() -> None:
    world = environment([INFINIBAND, {}], network={"rdma": True})
    assert world.status["environment"]["NCCL_IB_DISABLE"] == "1"
    assert "1 of 2 nodes lack it (node-1): all workers use TCP" in told(world)


def test_node_that_the_workers_cannot_get_does_not_count() -> None:
    pools = [INFINIBAND | {"pool": "gpu"}, {"pool": "cpu"}]
    world = environment(pools, network={"rdma": True}, nodeSelector={"pool": "gpu"})
    assert world.status["environment"]["FLIGHTPATH_FABRIC"] == "ib"


def test_cordoned_and_faulty_nodes_do_not_count() -> None:
    world = World(**GPU_JOB, network={"rdma": True})
    world.nodes.clear()
    for name, labels in (("node-a", INFINIBAND), ("node-b", {}), ("node-c", {})):
        world.add_node(name, labels)
    world.nodes["node-b"]["spec"] = {"unschedulable": True}
    world.break_gpu("node-c")
    world.settle()
    assert world.status["environment"]["FLIGHTPATH_FABRIC"] == "ib"


@pytest.mark.parametrize("kind", ["p4d.24xlarge", "p5.48xlarge", "p5en.48xlarge", "p6-b200.48xlarge"])
def test_efa_is_known_from_the_instance_type(kind: str) -> None:
    limits = {"vpc.amazonaws.com/efa": "4"}
    world = environment([{"node.kubernetes.io/instance-type": kind}], resources={"limits": limits})
    assert world.status["environment"] == {
        "FLIGHTPATH_FABRIC": "efa",
        "FI_PROVIDER": "efa",
        "FI_EFA_USE_DEVICE_RDMA": "1",
    }
    assert world.condition("Degraded") is None


def test_efa_that_is_not_requested_is_told() -> None:
    world = environment([{}], {"vpc.amazonaws.com/efa": "4"}, network={"rdma": True})
    assert world.status["environment"]["FLIGHTPATH_FABRIC"] == "efa"
    assert "resources.limits asks for no vpc.amazonaws.com/efa" in told(world)


def test_nodes_with_different_fabrics_fall_back_to_tcp() -> None:
    world = environment([INFINIBAND, {"node.kubernetes.io/instance-type": "p5.48xlarge"}], network={"rdma": True})
    assert world.status["environment"]["FLIGHTPATH_FABRIC"] == "tcp"
    assert "different fabrics" in told(world)


def test_without_any_node_nothing_is_claimed() -> None:
    world = environment([], network={"rdma": True})
    assert "environment" not in world.status
    assert "no node fits the workers yet" in told(world)


def test_interface_is_the_same_for_nccl_and_gloo() -> None:
    world = environment([{}], network={"interface": "eth1"})
    assert world.status["environment"].items() >= {"NCCL_SOCKET_IFNAME": "eth1", "GLOO_SOCKET_IFNAME": "eth1"}.items()


def test_gloo_is_told_no_pattern() -> None:
    world = environment([{}], network={"interface": "^docker"})
    assert world.status["environment"]["NCCL_SOCKET_IFNAME"] == "^docker"
    assert "GLOO_SOCKET_IFNAME" not in world.status["environment"]


def test_gloo_jobs_get_no_nccl_variables() -> None:
    world = environment([INFINIBAND], gpusPerWorker=0, network={"rdma": True, "interface": "eth0"})
    assert world.status["environment"] == {"GLOO_SOCKET_IFNAME": "eth0"}


def test_a_single_worker_needs_no_network() -> None:
    assert "environment" not in environment([{}], workers=1).status


def test_rdma_workers_share_a_zone() -> None:
    zone = INFINIBAND | {"topology.kubernetes.io/zone": "a"}
    world = environment([zone, zone | {"topology.kubernetes.io/zone": "b"}], network={"rdma": True})
    [term] = world.pod(0)["spec"]["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert term["topologyKey"] == "topology.kubernetes.io/zone"
    assert term["labelSelector"]["matchLabels"]["flightpath.dev/attempt"] == "1"


def test_zone_is_a_wish_where_nodes_have_none() -> None:
    world = environment([INFINIBAND], network={"rdma": True})
    assert "preferredDuringSchedulingIgnoredDuringExecution" in world.pod(0)["spec"]["affinity"]["podAffinity"]


def test_environment_stays_the_same_within_an_attempt_and_is_chosen_anew_for_the_next() -> None:
    world = environment([INFINIBAND], network={"rdma": True})
    world.run()
    world.add_node("node-9")
    world.settle()
    assert world.status["environment"]["FLIGHTPATH_FABRIC"] == "ib"
    world.exit(0, 1)
    world.next_attempt()
    assert world.status["environment"]["FLIGHTPATH_FABRIC"] == "tcp"
    assert world.children["ConfigMap", "digits-env"]["data"]["FLIGHTPATH_FABRIC"] == "tcp"
