"""From creation to the end: success, suspension, deadlines, deletion, edits, and jobs that are none of ours."""

import json
from typing import Any

import pytest
from flightpath_operator.api.status import TrainingJobStatus
from flightpath_operator.plan import FINALIZER, HASH_ANNOTATION, Object, Plan

from tests.fakes.training_world import World


def reason(world: World, kind: str) -> str | None:
    found = world.condition(kind)
    return found[1] if found else None


def test_new_job_takes_two_plans_to_its_pods() -> None:
    world = World()
    first = world.step()
    assert [child["kind"] for child in first.creates] == ["Service", "ConfigMap"]
    assert first.finalizer is True
    assert first.status is not None
    assert first.status["attempt"] == 1
    second = world.step()
    assert [child["metadata"]["name"] for child in second.creates] == ["digits-a1-w0", "digits-a1-w1"]


def test_phases_follow_the_pods() -> None:
    world = World()
    world.settle()
    assert world.phase == "Pending"
    world.schedule()
    world.settle()
    assert world.phase == "Starting"
    world.run(0)
    world.settle()
    assert world.phase == "Starting"
    world.run(1)
    world.settle()
    assert world.phase == "Running"
    assert world.status["workers"] == {"ready": 2, "desired": 2}


def test_time_to_running_is_measured_once() -> None:
    world = World()
    world.settle()
    world.pass_time(12.5)
    world.run()
    world.settle()
    world.exit(0, 1)
    world.next_attempt()
    measured = [amount for name, _, amount in world.metrics if name == "flightpath_operator_time_to_running_seconds"]
    assert measured == [12.5]


def test_job_succeeds_when_all_workers_have() -> None:
    world = World().started()
    world.exit(0)
    world.settle()
    assert world.phase == "Running"
    world.exit(1)
    world.settle()
    assert world.phase == "Succeeded"
    assert reason(world, "Succeeded") == "AllWorkersSucceeded"
    assert reason(world, "Running") == "Finished"
    assert sorted(world.pods) == ["digits-a1-w0", "digits-a1-w1"], "their logs stay"


def test_finished_job_stays_as_it_is() -> None:
    world = World().started()
    world.exit(0)
    world.exit(1)
    world.settle()
    world.children.clear()
    world.edit(suspend=True, workers=8)
    world.pass_time(10_000)
    world.settle()
    assert world.phase == "Succeeded"
    assert not world.children


def test_ttl_deletes_the_finished_job() -> None:
    world = World(ttlSecondsAfterFinished=60).started()
    world.exit(0)
    world.exit(1)
    again = world.settle().again_in
    assert again is not None
    assert again.total_seconds() == pytest.approx(60)
    world.pass_time(60)
    assert world.step() == Plan(delete_parent=True)
    world.settle_deletion()
    assert not world.children


def test_active_deadline_fails_the_job() -> None:
    world = World(activeDeadlineSeconds=100).started()
    world.pass_time(99)
    again = world.settle().again_in
    assert again is not None
    assert again.total_seconds() == pytest.approx(1)
    world.pass_time(1)
    world.settle()
    assert world.phase == "Failed"
    assert reason(world, "Failed") == "DeadlineExceeded"
    world.end_deleted()
    world.settle()
    assert not world.pods


def test_active_deadline_holds_while_the_group_waits() -> None:
    world = World(activeDeadlineSeconds=100, restart={"backoffSeconds": 300, "maxBackoffSeconds": 300}).started()
    world.exit(0, 1)
    world.settle()
    world.pass_time(100)
    world.settle()
    assert reason(world, "Failed") == "DeadlineExceeded"


def test_suspended_job_ends_its_pods_and_keeps_its_service() -> None:
    world = World().started()
    world.edit(suspend=True)
    decided = world.step()
    assert decided.deletes == ()
    world.settle()
    world.end_deleted()
    world.settle()
    assert world.phase == "Suspended"
    assert not world.pods
    assert ("Service", "digits") in world.children
    assert world.status["workers"] == {"ready": 0, "desired": 0}
    assert world.told().count("Suspended") == 1


def test_job_that_is_suspended_from_the_start_makes_nothing() -> None:
    world = World(suspend=True)
    world.settle()
    assert world.phase == "Suspended"
    assert not world.children
    world.edit(suspend=False)
    world.started()
    assert world.status["attempt"] == 1


def test_resumed_job_runs_with_the_spec_of_now_and_loses_no_restart() -> None:
    world = World(restart={"maxRestarts": 0}).started()
    world.edit(suspend=True)
    world.settle()
    world.edit(suspend=False, image="registry.test/train:2")
    world.settle()
    assert not [name for name in world.pods if "-a2-" in name], "the old pods have not ended yet"
    world.end_deleted()
    world.started()
    assert world.status["attempt"] == 2
    assert world.pod(0)["spec"]["containers"][0]["image"] == "registry.test/train:2"
    assert world.condition("SpecChanged") is None
    assert "restarts" not in world.status


def test_active_deadline_begins_anew_when_the_job_is_resumed() -> None:
    world = World(activeDeadlineSeconds=100).started()
    world.edit(suspend=True)
    world.settle()
    world.pass_time(5000)
    world.edit(suspend=False)
    world.next_attempt()
    assert world.phase == "Running"


def test_changed_spec_of_a_running_job_is_named_and_not_applied() -> None:
    world = World().started()
    hash_before = world.status["specHash"]
    world.edit(image="registry.test/train:2", env=[{"name": "A", "value": "1"}])
    world.settle()
    status, why, message = world.condition("SpecChanged") or ("", "", "")
    assert (status, why) == ("True", "Immutable")
    assert message.startswith("image, env changed while the job runs")
    world.exit(0, 1)
    world.next_attempt()
    assert world.pod(0)["spec"]["containers"][0]["image"] == "registry.test/train:1"
    assert world.status["specHash"] == hash_before
    world.edit(image="registry.test/train:1", env=None)
    world.settle()
    assert world.condition("SpecChanged") is None


def test_defaults_that_a_newer_crd_adds_are_no_change() -> None:
    world = World().started()
    world.edit(framework="pytorch", restart={"policy": "Group", "maxRestarts": 3}, suspend=False)
    world.settle()
    assert world.condition("SpecChanged") is None


@pytest.mark.parametrize(
    ("spec", "told"),
    [({"workers": -1}, "workers"), ({"colour": "red"}, "spec.colour: unknown field"), ({"image": ""}, "image")],
)
def test_bad_spec_touches_nothing_and_says_what_is_wrong(spec: Object, told: str) -> None:
    world = World().started()
    children = json.dumps(sorted(map(str, world.children)))
    world.edit(**spec)
    plan = world.settle()
    status, why, message = world.condition("Accepted") or ("", "", "")
    assert (status, why) == ("False", "InvalidSpec")
    assert told in message
    assert plan.again_in is None
    assert (plan.creates, plan.patches, plan.deletes) == ((), (), ())
    assert json.dumps(sorted(map(str, world.children))) == children
    assert world.phase == "Running"


def test_bad_spec_is_told_once_and_accepted_after_an_edit() -> None:
    world = World(workers=0)
    world.settle()
    world.pass_time(1000)
    world.settle()
    assert world.told() == ["InvalidSpec"]
    world.edit(workers=1)
    world.started()
    assert world.phase == "Running"
    assert reason(world, "Accepted") == "Accepted"


def test_job_of_another_manager_is_left_alone() -> None:
    world = World(managedBy="kueue.x-k8s.io/multikueue")
    assert world.plan() == Plan()
    assert world.parent is not None
    world.parent["metadata"]["finalizers"] = [FINALIZER]
    assert world.plan() == Plan(finalizer=False)


def test_deleted_job_waits_for_its_pods_before_it_goes() -> None:
    world = World().started()
    world.delete_job()
    world.step()
    assert all("deletionTimestamp" in pod["metadata"] for pod in world.pods.values())
    assert world.plan().deletes == ()
    assert world.plan().finalizer is None
    world.end_deleted()
    world.step()
    assert world.parent is None
    assert not world.children


def test_deleted_job_with_a_bad_spec_goes_as_well() -> None:
    world = World().started()
    world.edit(workers=-3)
    world.delete_job()
    world.settle_deletion()
    assert not world.children


def test_deleted_job_does_not_wait_for_ever() -> None:
    world = World().started()
    world.delete_job()
    world.step()
    world.pass_time(30 + 600)
    world.step()
    assert world.parent is None
    assert world.told()[-1] == "PodsLeft"


def test_deletion_that_orphans_leaves_the_pods_running() -> None:
    world = World().started()
    assert world.parent is not None
    world.parent["metadata"]["finalizers"].append("orphan")
    world.delete_job()
    plan = world.plan()
    assert plan.deletes == ()
    assert plan.finalizer is False


def test_service_deleted_by_hand_comes_back() -> None:
    world = World().started()
    del world.children["Service", "digits"]
    world.settle()
    assert ("Service", "digits") in world.children
    assert world.phase == "Running"


def test_environment_edited_by_hand_is_set_back() -> None:
    world = World().started()
    world.children["ConfigMap", "digits-env"]["data"]["FLIGHTPATH_CHECKPOINT_URI"] = "s3://elsewhere"
    world.settle()
    assert world.children["ConfigMap", "digits-env"]["data"]["FLIGHTPATH_CHECKPOINT_URI"] == "s3://runs/1"


def test_pod_edited_by_hand_is_left_and_told() -> None:
    world = World().started()
    world.pod(1)["metadata"]["annotations"][HASH_ANNOTATION] = "edited"
    plan = world.settle()
    assert (plan.patches, plan.deletes) == ((), ())
    assert reason(world, "Degraded") == "PodEdited"
    assert "digits-a1-w1" in (world.condition("Degraded") or ("", "", ""))[2]
    assert world.told().count("PodEdited") == 1


def test_pods_wait_for_the_service_and_the_environment() -> None:
    world = World()
    world.refuses = lambda child: "forbidden" if child["kind"] == "ConfigMap" else None
    world.settle()
    assert not world.pods


def test_every_status_fits_its_schema() -> None:
    world = World(workers={"min": 1, "max": 3}, restart={"maxRestarts": 5})
    seen: list[Any] = []
    world.step()
    seen.append(world.status)
    world.started()
    world.report(10, checkpoint_step=10, resumed_from_step=0, loss=float("nan"))
    world.settle()
    world.exit(1, 1, message="boom")
    for _ in range(4):
        world.step()
        seen.append(world.status)
    world.next_attempt()
    world.pass_time(30)
    world.report(7, checkpoint_step=5, resumed_from_step=5, skipped_checkpoints=[{"name": "step-10", "reason": "torn"}])
    world.settle()
    world.edit(suspend=True)
    world.settle()
    seen.append(world.status)
    for status in seen:
        TrainingJobStatus.model_validate_json(json.dumps(status, allow_nan=False))
