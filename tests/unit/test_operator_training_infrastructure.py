"""A worker is lost that did nothing wrong: evictions, nodes, GPUs. The group restarts, and it does not count."""

from dataclasses import replace

import pytest
from flightpath_operator.plan import Object

from tests.fakes.training_world import SETTINGS, World

GPU_JOB: Object = {"gpusPerWorker": 8}


def condition_of(reason: str, kind: str = "DisruptionTarget") -> Object:
    return {"type": kind, "status": "True", "reason": reason, "message": "told by Kubernetes"}


def test_evicted_worker_does_not_count_towards_max_restarts() -> None:
    world = World(restart={"maxRestarts": 0}).started()
    world.evict(1)
    world.settle()
    assert world.phase == "Restarting"
    assert world.status.get("failures", 0) == 0
    assert world.status["restarts"][0]["cause"] == "Evicted"
    assert ("flightpath_operator_restarts_total", {"cause": "Evicted"}, 1.0) in world.metrics


def test_pod_deleted_by_hand_restarts_the_group_as_infrastructure() -> None:
    world = World(restart={"maxRestarts": 0}).started()
    del world.children["Pod", "digits-a1-w1"]
    world.settle()
    assert world.status["restarts"][0]["cause"] == "PodDeleted"
    assert world.status["lastFailure"]["worker"] == "digits-a1-w1"
    world.next_attempt()
    assert world.phase == "Running"


@pytest.mark.parametrize(
    ("condition", "cause"),
    [
        (condition_of("PreemptionByScheduler"), "Preempted"),
        (condition_of("DeletionByTaintManager"), "NodeLost"),
        (condition_of("EvictionByEvictionAPI"), "Evicted"),
        (condition_of("SomethingNew"), "Evicted"),
        (condition_of("WorkloadEvictedDueToPreempted", "TerminationTarget"), "Preempted"),
        (None, "PodDeleted"),
    ],
)
def test_disruptions_are_named(condition: Object | None, cause: str) -> None:
    world = World(restart={"maxRestarts": 0}).started()
    if condition:
        world.pod(0)["status"]["conditions"] = [condition]
    world.delete_child(("Pod", "digits-a1-w0"))
    world.settle()
    assert world.status["restarts"][0]["cause"] == cause


@pytest.mark.parametrize(
    "reason", ["OutOfcpu", "OutOfnvidia.com/gpu", "UnexpectedAdmissionError", "NodeAffinity", "Shutdown", "Preempting"]
)
def test_pod_that_its_node_refused_is_no_failure_of_the_program(reason: str) -> None:
    world = World(restart={"maxRestarts": 0}).started()
    world.pod(0)["status"] = {"phase": "Failed", "reason": reason, "message": "no"}
    world.settle()
    assert world.phase == "Restarting"
    assert world.status.get("failures", 0) == 0


def test_infrastructure_explains_the_failures_of_the_other_workers() -> None:
    world = World(workers=3).started()
    world.exit(0, 1, message="NCCL: remote process exited")
    world.exit(1, 1, message="NCCL: remote process exited")
    world.evict(2)
    world.settle()
    assert world.status["restarts"][0]["cause"] == "Evicted"
    assert world.status.get("failures", 0) == 0


def test_first_worker_that_failed_explains_the_others() -> None:
    world = World(workers=3).started()
    world.pass_time(100)
    world.exit(0, 1, message="peer is gone", at=world.now - 1)
    world.exit(2, 1, message="ValueError: the cause", at=world.now - 5)
    world.exit(1, 137, message="killed")
    world.settle()
    assert world.status["lastFailure"]["message"] == "ValueError: the cause"


def test_program_that_failed_before_somebody_deleted_its_pod_has_failed() -> None:
    world = World().started()
    world.exit(1, 1, at=world.now - 10)
    pod = world.pod(1)
    pod["metadata"] |= {"deletionTimestamp": "2027-01-15T08:00:30Z", "deletionGracePeriodSeconds": 30}
    world.settle()
    assert world.status["restarts"][0]["cause"] == "WorkerFailed"


def test_infrastructure_has_a_budget_of_its_own() -> None:
    world = World(replace(SETTINGS, infrastructure_budget=2), restart={"maxRestarts": 0}).started()
    for _ in range(2):
        world.evict(0)
        world.next_attempt()
    world.evict(0)
    world.settle()
    assert world.phase == "Failed"
    assert (world.condition("Failed") or ("", "", ""))[1] == "InfrastructureFailures"


def test_budget_begins_anew_when_the_run_gets_further() -> None:
    world = World(replace(SETTINGS, infrastructure_budget=1)).started()
    for step in (10, 20, 30):
        world.report(step)
        world.settle()
        world.evict(0)
        world.next_attempt()
        world.pass_time(20)
    assert world.phase == "Running"


def test_budget_begins_anew_for_a_group_that_ran_long_and_reports_nothing() -> None:
    world = World(replace(SETTINGS, infrastructure_budget=1)).started()
    for _ in range(3):
        world.pass_time(700)
        world.evict(0)
        world.next_attempt()
    assert world.phase == "Running"


def test_node_that_does_not_answer_is_lost_after_a_minute() -> None:
    world = World().started()
    world.silence_node("node-b")
    again = world.settle().again_in
    assert again is not None
    assert again.total_seconds() == 60
    world.pass_time(60)
    world.settle()
    assert world.status["restarts"][0]["cause"] == "NodeLost"


def test_pods_on_a_lost_node_are_deleted_without_confirmation_in_the_end() -> None:
    world = World().started()
    world.silence_node("node-b")
    world.pass_time(60)
    world.settle()
    assert sorted(world.pods) == ["digits-a1-w0", "digits-a1-w1"]
    del world.children["Pod", "digits-a1-w0"]
    world.pass_time(30 + 59)
    assert world.settle().deletes == ()
    world.pass_time(1.001)
    forced = world.plan().deletes
    assert [(delete.target["metadata"]["name"], delete.grace_s) for delete in forced] == [("digits-a1-w1", 0)]
    world.settle()
    assert "digits-a2-w0" in world.pods


def test_deletion_without_confirmation_is_asked_for_once() -> None:
    world = World().started()
    world.silence_node("node-b")
    world.pass_time(60)
    world.settle()
    world.pass_time(1000)
    pod = world.pod(1, attempt=1)
    pod["metadata"] |= {"deletionGracePeriodSeconds": 0, "finalizers": ["somebody.example/holds"]}
    assert [delete.target["metadata"]["name"] for delete in world.plan().deletes] == []


def test_pods_on_a_node_that_answers_are_never_forced() -> None:
    world = World().started()
    world.exit(0, 1)
    world.settle()
    world.pass_time(100_000)
    assert world.plan().deletes == ()


def test_node_that_vanished_is_lost() -> None:
    world = World().started()
    del world.nodes["node-a"]
    world.settle()
    assert world.status["restarts"][0]["cause"] == "NodeLost"


def test_an_empty_cache_of_nodes_says_nothing() -> None:
    world = World().started()
    world.nodes.clear()
    world.settle()
    assert world.phase == "Running"


def test_pod_in_phase_unknown_is_lost() -> None:
    world = World().started()
    world.pod(0)["status"]["phase"] = "Unknown"
    world.settle()
    assert world.status["restarts"][0]["cause"] == "NodeLost"


def test_gpu_fault_excludes_the_node_and_does_not_count() -> None:
    world = World(**GPU_JOB, restart={"maxRestarts": 0}).started()
    world.exit(1, 1, message="CUDA error")
    world.break_gpu("node-b")
    world.settle()
    assert world.status["restarts"][0]["cause"] == "GpuFault"
    world.next_attempt()
    assert world.status["excludedNodes"] == ["node-b"]
    affinity = world.pod(0)["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    expressions = [{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": ["node-b"]}]
    assert affinity == {"nodeSelectorTerms": [{"matchExpressions": expressions}]}


def test_faulty_gpus_do_not_concern_a_job_without_gpus() -> None:
    world = World()
    world.break_gpu("node-b")
    world.started()
    world.exit(1, 1)
    world.settle()
    assert "excludedNodes" not in world.status
    assert world.status["restarts"][0]["cause"] == "WorkerFailed"


def test_nodes_are_cordoned_only_where_that_is_switched_on() -> None:
    for cordon in (False, True):
        world = World(replace(SETTINGS, cordon_nodes=cordon), **GPU_JOB)
        world.break_gpu("node-b")
        world.settle()
        assert [plan.cordon for plan in world.plans if plan.cordon] == ([("node-b",)] if cordon else [])


@pytest.mark.parametrize(
    "node",
    [
        {"metadata": {"labels": {"flightpath.dev/xid": "79"}}},
        {"metadata": {"annotations": {"flightpath.dev/xid": "79"}}},
        {"status": {"conditions": [{"type": "GPUUnhealthy", "status": "True"}]}},
        {"status": {"conditions": [{"type": "NvidiaXid79", "status": "True"}]}},
        {"status": {"conditions": [{"type": "DCGMHealthFailed", "status": "True"}]}},
        {"status": {"conditions": [{"type": "AcceleratedHardwareReady", "status": "False"}]}},
    ],
)
def test_gpu_faults_are_known_from_conditions_and_marks(node: Object) -> None:
    world = World(**GPU_JOB)
    metadata = world.nodes["node-c"]["metadata"]
    metadata |= {"labels": metadata["labels"] | node.get("metadata", {}).get("labels", {})}
    metadata |= {"annotations": node.get("metadata", {}).get("annotations", {})}
    world.nodes["node-c"]["status"]["conditions"] += node.get("status", {}).get("conditions", [])
    world.settle()
    assert world.status["excludedNodes"] == ["node-c"]
