"""How a ModelDeployment follows its spec and its servers."""

from typing import Any

import pytest
from flightpath_operator.capabilities import Capabilities
from flightpath_operator.deployments.reconcile import reconcile
from flightpath_operator.deployments.settings import DeploymentSettings
from flightpath_operator.plan import FINALIZER, OWNER_LABEL, Observed, Plan, owner_reference

from tests.fakes.operator_specs import DIGEST, MODEL, live, schema_problems
from tests.fakes.plan_world import World

Json = dict[str, Any]
SETTINGS = DeploymentSettings(flightpath_image="registry.test/flightpath:1")
NOW = 1_800_000_000.0


def _reconcile(parent: Json, observed: Observed, now: float) -> Plan:
    return reconcile(parent, observed, now, SETTINGS)


def _world(spec: Json | None = None, **capabilities: Any) -> World:
    parent = live("ModelDeployment", MODEL | (spec or {}))
    world = World(parent, now=NOW, capabilities=Capabilities(**capabilities))
    world.settle(_reconcile)
    return world


def _rolled_out(world: World, replicas: int) -> None:
    """What the deployment controller writes when all is well."""
    deployment = world.find("Deployment")
    deployment["spec"]["replicas"] = replicas
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), replicas)
    deployment["status"] = {"observedGeneration": deployment["metadata"]["generation"]} | counts


def _status(world: World) -> Json:
    world.settle(_reconcile)
    assert schema_problems(world.parent, "status") == []
    status: Json = world.parent["status"]
    return status


def _condition(status: Json, type_: str) -> Json:
    [found] = [condition for condition in status["conditions"] if condition["type"] == type_]
    assert isinstance(found, dict)
    return found


def test_a_new_deployment_is_progressing() -> None:
    status = _status(_world())
    assert status["phase"] == "Progressing"
    assert _condition(status, "Accepted")["status"] == "True"
    assert _condition(status, "Ready")["reason"] == "Progressing"
    assert status["selector"] == f"{OWNER_LABEL}=md.digits"
    assert status["url"] == "http://digits.team.svc:8000"
    assert "observedBundle" not in status


def test_it_is_ready_when_every_replica_of_the_newest_spec_answers() -> None:
    world = _world({"replicas": 2})
    _rolled_out(world, 2)
    status = _status(world)
    assert (status["phase"], status["readyReplicas"], status["observedBundle"]) == ("Ready", 2, DIGEST)
    assert _condition(status, "Ready")["message"] == "2 of 2 replicas answer"


def test_an_older_generation_of_the_deployment_is_not_believed() -> None:
    world = _world()
    _rolled_out(world, 1)
    world.find("Deployment")["metadata"]["generation"] += 1
    assert _status(world)["phase"] == "Progressing"


def test_another_bundle_is_rolled_out_and_not_told_before_it_is_there() -> None:
    world = _world()
    _rolled_out(world, 1)
    _status(world)
    other = f"sha256:{'0b' * 32}"
    world.parent["spec"]["bundle"]["digest"] = other
    world.parent["metadata"]["generation"] = 2
    world.settle(_reconcile)
    assert other in world.find("Deployment")["spec"]["template"]["spec"]["initContainers"][0]["command"]
    deployment = world.find("Deployment")
    deployment["status"] |= {"observedGeneration": deployment["metadata"]["generation"], "updatedReplicas": 0}
    status = _status(world)
    assert status["phase"] == "Progressing"
    assert "observedBundle" not in status
    _rolled_out(world, 1)
    assert _status(world)["observedBundle"] == other


def test_no_replicas_is_stopped() -> None:
    world = _world({"replicas": 0})
    _rolled_out(world, 0)
    status = _status(world)
    assert status["phase"] == "Stopped"
    assert _condition(status, "Ready")["reason"] == "Stopped"


def test_a_rollout_past_its_deadline_is_failed_or_degraded() -> None:
    world = _world()
    late = {"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "timed out"}
    world.find("Deployment")["status"] = {"observedGeneration": 1, "conditions": [late]}
    status = _status(world)
    assert status["phase"] == "Failed"
    assert _condition(status, "Ready")["reason"] == "ProgressDeadlineExceeded"
    world.find("Deployment")["status"] |= {"readyReplicas": 1, "replicas": 2}
    assert _status(world)["phase"] == "Degraded"


def test_pods_that_quota_refuses_are_told() -> None:
    world = _world()
    refused = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": "exceeded quota: gpus"}
    world.find("Deployment")["status"] = {"observedGeneration": 1, "conditions": [refused]}
    assert "exceeded quota: gpus" in _condition(_status(world), "Ready")["message"]


def _pod(name: str, **status: Any) -> Json:
    labels = {OWNER_LABEL: "md.digits"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "team", "labels": labels},
        "status": status,
    }


def _waits(container: str, reason: str, **more: Any) -> list[Json]:
    return [{"name": container, "state": {"waiting": {"reason": reason, "message": "back-off pulling"}}, **more}]


def test_an_image_that_cannot_be_pulled_is_named_by_its_pod() -> None:
    world = _world()
    world.add(_pod("digits-1", containerStatuses=_waits("server", "ImagePullBackOff")))
    ready = _condition(_status(world), "Ready")
    assert ready["reason"] == "ImagePullBackOff"
    assert "pod digits-1: server: back-off pulling" in ready["message"]


def test_a_bundle_that_cannot_be_fetched_is_told_in_its_own_words() -> None:
    world = _world()
    ended = {"terminated": {"exitCode": 2, "reason": "Error", "message": "bundle has a wrong SHA-256\n"}}
    world.add(_pod("digits-1", initContainerStatuses=_waits("fetch", "CrashLoopBackOff", lastState=ended)))
    assert "fetch: exited with 2 (Error) bundle has a wrong SHA-256" in _condition(_status(world), "Ready")["message"]


def test_a_pod_that_no_node_fits_is_told() -> None:
    world = _world()
    unfit = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes: no gpu"}
    world.add(_pod("digits-1", conditions=[unfit]))
    assert _condition(_status(world), "Ready")["reason"] == "Unschedulable"


def test_pods_that_start_or_end_are_no_trouble() -> None:
    world = _world()
    world.add(_pod("digits-1", containerStatuses=_waits("server", "ContainerCreating")))
    going = _pod("digits-0", containerStatuses=_waits("server", "CrashLoopBackOff"))
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.add(going)
    assert _status(world)["phase"] == "Progressing"


SCALED = {"autoscaling": {"min": 2, "max": 9, "target": 70}}


def test_replicas_that_an_autoscaler_set_are_never_fought() -> None:
    world = _world(SCALED)
    assert world.find("Deployment")["spec"]["replicas"] == 2
    _rolled_out(world, 7)
    assert _status(world)["replicas"] == 7
    world.parent["spec"]["port"] = 9000
    world.settle(_reconcile)
    assert world.find("Deployment")["spec"]["replicas"] == 7


def test_an_autoscaler_at_rest_at_zero_is_woken() -> None:
    world = _world(SCALED)
    _rolled_out(world, 0)
    world.settle(_reconcile)
    assert world.find("Deployment")["spec"]["replicas"] == 2


def test_replicas_follow_the_spec_again_once_the_autoscaler_goes() -> None:
    world = _world(SCALED | {"replicas": 3})
    _rolled_out(world, 7)
    del world.parent["spec"]["autoscaling"]
    world.settle(_reconcile)
    assert world.find("Deployment")["spec"]["replicas"] == 3
    assert "HorizontalPodAutoscaler" not in world.kinds()


def test_an_autoscaler_without_figures_is_told() -> None:
    world = _world(SCALED)
    idle = {"type": "ScalingActive", "status": "False", "reason": "FailedGetMetrics", "message": "no metrics API"}
    world.find("HorizontalPodAutoscaler")["status"] = {"conditions": [idle]}
    assert _condition(_status(world), "Degraded")["message"] == "autoscaling has no effect: no metrics API"


def test_scaling_by_the_spec_patches_only_the_deployment() -> None:
    world = _world()
    world.parent["spec"]["replicas"] = 4
    plan = world.plan(_reconcile)
    assert [patch.target["kind"] for patch in plan.patches] == ["Deployment"]
    assert plan.patches[0].body["spec"]["replicas"] == 4


def test_a_deleted_child_comes_back() -> None:
    world = _world()
    world.children.remove(world.find("Service"))
    world.settle(_reconcile)
    assert world.kinds() == ["Deployment", "PodDisruptionBudget", "Service"]


def test_a_policy_that_the_spec_drops_is_deleted() -> None:
    world = _world({"networkPolicy": {}})
    assert "NetworkPolicy" in world.kinds()
    del world.parent["spec"]["networkPolicy"]
    world.settle(_reconcile)
    assert "NetworkPolicy" not in world.kinds()


def test_a_taken_name_is_told_and_nothing_is_made() -> None:
    parent = live("ModelDeployment", MODEL)
    stranger = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "digits", "namespace": "team"}, "spec": {}}
    world = World(parent, now=NOW, capabilities=Capabilities(), present=[stranger])
    plan = world.settle(_reconcile)
    assert world.kinds() == ["Service"]
    accepted = _condition(_status(world), "Accepted")
    assert (accepted["status"], accepted["reason"]) == ("False", "NameTaken")
    assert plan.again_in is not None


@pytest.mark.parametrize("spec", [{"replicas": -1}, {"bundle": {}}, {"port": "http"}])
def test_a_bad_spec_touches_nothing_and_is_not_asked_again(spec: Json) -> None:
    world = _world()
    before = world.kinds()
    world.parent["spec"] |= spec
    plan = world.settle(_reconcile)
    assert plan.again_in is None
    assert world.kinds() == before
    accepted = _condition(_status(world), "Accepted")
    assert (accepted["reason"], accepted["message"][:5]) == ("InvalidSpec", "spec.")


def test_a_mended_spec_is_accepted_again() -> None:
    world = _world({"replicas": -1})
    world.parent["spec"]["replicas"] = 1
    status = _status(world)
    assert _condition(status, "Accepted")["status"] == "True"
    assert "Deployment" in world.kinds()


def test_what_the_server_refused_is_told_and_tried_again() -> None:
    world = _world()
    world.problems = ("Deployment digits: forbidden: exceeded quota",)
    plan = world.settle(_reconcile)
    assert _condition(_status(world), "Degraded")["message"] == "Deployment digits: forbidden: exceeded quota"
    assert plan.again_in is not None


def test_deletion_leaves_everything_to_the_garbage_collector() -> None:
    world = _world()
    world.parent["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert world.plan(_reconcile) == Plan()
    world.parent["metadata"]["finalizers"] = [FINALIZER]
    assert world.plan(_reconcile) == Plan(finalizer=False)


def test_events_tell_of_transitions_once() -> None:
    world = _world()
    _rolled_out(world, 1)
    plan = world.plan(_reconcile)
    assert [(note.reason, note.warning) for note in plan.notes] == [("Ready", False)]
    world.carry_out(plan)
    assert world.plan(_reconcile).notes == ()


def test_kserves_own_deployment_is_what_status_tells_of() -> None:
    world = _world({"kserve": True}, kserve=True)
    assert _status(world)["phase"] == "Pending"
    service = world.find("InferenceService")
    service["status"] = {"address": {"url": "http://digits-predictor.team.svc"}}
    made = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "digits-predictor", "namespace": "team", "ownerReferences": [owner_reference(service)]},
        "spec": {"replicas": 1},
        "status": {"observedGeneration": 1, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1},
    }
    world.add(made)
    status = _status(world)
    assert (status["phase"], status["url"]) == ("Ready", "http://digits-predictor.team.svc")
    world.parent["spec"]["replicas"] = 0
    assert _status(world)["phase"] == "Stopped"
