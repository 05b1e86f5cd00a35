"""A TrainingCluster becomes a RayCluster whose size is the autoscaler's, or says why it does not."""

from typing import Any

import pytest
from flightpath_operator.capabilities import Capabilities
from flightpath_operator.clusters.ray_cluster import QUEUE_LABEL
from flightpath_operator.clusters.reconcile import reconcile
from flightpath_operator.conditions import seconds
from flightpath_operator.plan import FINALIZER, Plan

from tests.fakes.operator_specs import CLUSTER, live, schema_problems
from tests.fakes.plan_world import World

Json = dict[str, Any]
NOW = 1_800_000_000.0
CREATED = seconds("2026-01-01T00:00:00Z")


def _world(spec: Json | None = None, **capabilities: Any) -> World:
    can = Capabilities(**({"kuberay": True} | capabilities))
    world = World(live("TrainingCluster", CLUSTER | (spec or {})), now=NOW, capabilities=can)
    world.settle(reconcile)
    return world


def _ray(world: World) -> Json:
    return world.find("RayCluster")


def _up(world: World, replicas: int) -> None:
    """What KubeRay and the autoscaler write."""
    _ray(world)["spec"]["workerGroupSpecs"][0]["replicas"] = replicas
    _ray(world)["status"] = {
        "state": "ready",
        "readyWorkerReplicas": replicas,
        "head": {"serviceName": "digits-head-svc"},
        "conditions": [{"type": "HeadPodReady", "status": "True"}],
    }


def _status(world: World) -> Json:
    world.settle(reconcile)
    assert schema_problems(world.parent, "status") == []
    status: Json = world.parent["status"]
    return status


def _condition(status: Json, type_: str) -> Json:
    [found] = [condition for condition in status["conditions"] if condition["type"] == type_]
    assert isinstance(found, dict)
    return found


def test_rays_autoscaler_scales_idle_workers_to_zero() -> None:
    spec = _ray(_world({"idleSeconds": 120}))["spec"]
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["idleTimeoutSeconds"] == 120
    [group] = spec["workerGroupSpecs"]
    assert (group["minReplicas"], group["replicas"], group["maxReplicas"]) == (0, 0, 4)


def test_gpus_stand_in_limits_where_ray_counts_them() -> None:
    [group] = _ray(_world())["spec"]["workerGroupSpecs"]
    [container] = group["template"]["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 8
    assert group["rayStartParams"] == {"num-gpus": "8"}


def test_the_head_runs_no_training() -> None:
    head = _ray(_world({"head": {"resources": {"requests": {"cpu": "3"}}}}))["spec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    [container] = head["template"]["spec"]["containers"]
    assert container["resources"] == {"limits": {"cpu": "3"}, "requests": {"cpu": "3"}}


def test_pods_are_restricted_and_only_the_head_may_speak_to_the_api() -> None:
    spec = _ray(_world())["spec"]
    head, worker = spec["headGroupSpec"]["template"]["spec"], spec["workerGroupSpecs"][0]["template"]["spec"]
    for pod in (head, worker):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["containers"][0]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert worker["automountServiceAccountToken"] is False
    assert "automountServiceAccountToken" not in head


def test_variables_of_the_spec_win_over_the_operators() -> None:
    env = _ray(_world({"env": [{"name": "RAY_USAGE_STATS_ENABLED", "value": "1"}]}))["spec"]["headGroupSpec"]
    assert env["template"]["spec"]["containers"][0]["env"] == [{"name": "RAY_USAGE_STATS_ENABLED", "value": "1"}]


def test_the_number_that_the_autoscaler_chose_is_kept() -> None:
    world = _world()
    _up(world, 3)
    group = _ray(world)["spec"]["workerGroupSpecs"][0]
    group["scaleStrategy"] = {"workersToDelete": ["w1"]}
    assert world.plan(reconcile).patches == ()
    world.parent["spec"]["idleSeconds"] = 60
    world.settle(reconcile)
    kept = _ray(world)["spec"]["workerGroupSpecs"][0]
    assert (kept["replicas"], kept["scaleStrategy"]) == (3, {"workersToDelete": ["w1"]})


def test_a_lower_max_takes_workers_away() -> None:
    world = _world()
    _up(world, 4)
    world.parent["spec"]["workerGroups"] = [{"name": "gpu", "max": 2, "gpusPerWorker": 8}]
    world.settle(reconcile)
    assert _ray(world)["spec"]["workerGroupSpecs"][0]["replicas"] == 2


def test_a_patch_is_bound_to_the_state_that_it_was_made_for() -> None:
    world = _world()
    world.parent["spec"]["idleSeconds"] = 60
    [patch] = world.plan(reconcile).patches
    assert patch.body["metadata"]["resourceVersion"] == _ray(world)["metadata"]["resourceVersion"]


def test_a_cluster_without_workers_is_idle_and_takes_jobs() -> None:
    world = _world()
    _up(world, 0)
    status = _status(world)
    assert status["phase"] == "Idle"
    assert status["jobSubmissionUrl"] == "http://digits-head-svc.team.svc:8265"
    assert _condition(status, "Ready")["status"] == "True"


def test_workers_and_their_gpus_are_counted() -> None:
    world = _world()
    _up(world, 2)
    status = _status(world)
    assert status["phase"] == "Ready"
    assert status["workers"] == {"ready": 2, "desired": 2, "max": 4, "gpus": 16}


def test_a_starting_cluster_names_no_address() -> None:
    status = _status(_world())
    assert status["phase"] == "Starting"
    assert "jobSubmissionUrl" not in status


def test_kuberay_before_conditions_is_understood() -> None:
    world = _world()
    _ray(world)["status"] = {"state": "ready", "availableWorkerReplicas": 0}
    assert _status(world)["phase"] == "Idle"


def test_a_failed_pod_is_told() -> None:
    world = _world()
    failure = {"type": "ReplicaFailure", "status": "True", "message": "exceeded quota"}
    _ray(world)["status"] = {"conditions": [failure]}
    status = _status(world)
    assert (status["phase"], _condition(status, "Ready")["message"]) == ("Failed", "exceeded quota")


def test_last_active_moves_when_workers_come_and_go_only() -> None:
    world = _world()
    assert "lastActive" not in _status(world)
    _up(world, 2)
    came = _status(world)["lastActive"]
    world.now += 600
    assert _status(world)["lastActive"] == came
    _up(world, 0)
    gone = _status(world)["lastActive"]
    assert seconds(gone) - seconds(came) == 600
    world.now += 600
    assert _status(world)["lastActive"] == gone


def test_suspend_is_handed_on() -> None:
    world = _world({"suspend": True})
    assert _ray(world)["spec"]["suspend"] is True
    _ray(world)["status"] = {"state": "suspended"}
    assert _status(world)["phase"] == "Suspended"


def test_without_kuberay_the_cluster_is_refused_and_tried_again_later() -> None:
    world = _world(kuberay=False)
    plan = world.settle(reconcile)
    accepted = _condition(_status(world), "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "KubeRayMissing")
    assert world.children == []
    assert plan.again_in is not None
    assert plan.again_in.total_seconds() >= 60


@pytest.mark.parametrize(("max_gpus", "reason"), [(31, "QuotaExceeded"), (32, "Accepted")])
def test_the_clusters_quota_counts_the_groups_at_their_largest(max_gpus: int, reason: str) -> None:
    assert _condition(_status(_world({"maxGpus": max_gpus})), "Accepted")["reason"] == reason


def test_a_quota_that_was_lowered_leaves_what_runs_alone() -> None:
    world = _world()
    before = dict(_ray(world)["spec"])
    world.parent["spec"]["maxGpus"] = 8
    world.settle(reconcile)
    assert _ray(world)["spec"] == before


def test_another_image_waits_until_the_cluster_is_suspended() -> None:
    world = _world()
    world.parent["spec"]["image"] = "registry.test/ray:2"
    assert _condition(_status(world), "SpecChanged")["reason"] == "Immutable"
    assert "ray:2" not in str(_ray(world)["spec"])
    world.parent["spec"]["suspend"] = True
    world.settle(reconcile)
    assert "ray:2" in str(_ray(world)["spec"])
    world.parent["spec"]["suspend"] = False
    assert _condition(_status(world), "SpecChanged")["reason"] == "Applied"


def test_ttl_deletes_the_cluster_when_it_is_over_and_waits_until_then() -> None:
    world = _world()
    world.parent["spec"]["ttlSeconds"] = 3600
    world.now = CREATED + 3000
    again_in = world.settle(reconcile).again_in
    assert again_in is not None
    assert again_in.total_seconds() == 600
    world.now = CREATED + 3600
    plan = world.plan(reconcile)
    assert plan.delete_parent
    assert (plan.creates, plan.patches, plan.deletes) == ((), (), ())


def test_kueue_admits_a_cluster_of_fixed_size() -> None:
    world = _world({"queue": "team-a"}, kueue=True)
    ray = _ray(world)
    assert ray["metadata"]["labels"][QUEUE_LABEL] == "team-a"
    assert ray["spec"]["enableInTreeAutoscaling"] is False
    assert ray["spec"]["workerGroupSpecs"][0]["replicas"] == 4
    assert "fixed size" in _condition(_status(world), "Degraded")["message"]


def test_kueues_suspension_is_not_fought() -> None:
    world = _world({"queue": "team-a"}, kueue=True)
    _ray(world)["spec"]["suspend"] = True
    world.parent["spec"]["workerGroups"] = [{"name": "gpu", "max": 2, "gpusPerWorker": 8}]
    world.settle(reconcile)
    assert _ray(world)["spec"]["suspend"] is True
    world.parent["spec"]["suspend"] = True
    world.settle(reconcile)
    assert world.children == []
    assert _status(world)["phase"] == "Suspended"


def test_a_queue_without_kueue_is_told() -> None:
    world = _world({"queue": "team-a"})
    assert QUEUE_LABEL not in _ray(world)["metadata"]["labels"]
    assert "queue needs Kueue" in _condition(_status(world), "Degraded")["message"]


def test_a_taken_name_is_told() -> None:
    stranger = {"apiVersion": "ray.io/v1", "kind": "RayCluster", "metadata": {"name": "digits"}, "spec": {}}
    parent = live("TrainingCluster", CLUSTER)
    world = World(parent, now=NOW, capabilities=Capabilities(kuberay=True), present=[stranger])
    assert _condition(_status(world), "Accepted")["reason"] == "NameTaken"
    assert _ray(world)["spec"] == {}


def test_a_bad_spec_is_refused_without_a_loop() -> None:
    world = _world({"workerGroups": []})
    assert world.settle(reconcile).again_in is None
    assert _condition(_status(world), "Accepted")["reason"] == "InvalidSpec"


def test_deletion_leaves_everything_to_the_garbage_collector() -> None:
    world = _world()
    world.parent["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": [FINALIZER]}
    assert world.plan(reconcile) == Plan(finalizer=False)
