"""All workers or none: Kueue, PodGroups, and the release of what was placed in vain."""

from flightpath_operator.capabilities import Capabilities

from tests.fakes.training_world import World

GATE = [{"name": "kueue.x-k8s.io/admission"}]


def queued_world() -> World:
    world = World(queue="team-queue", activeDeadlineSeconds=100)
    world.capabilities = Capabilities(kueue=True)
    world.gates = GATE
    world.settle()
    return world


def admit(world: World) -> None:
    for pod in world.pods.values():
        del pod["spec"]["schedulingGates"]


def scheduled(world: World) -> tuple[str, str, str]:
    return world.condition("Scheduled") or ("", "", "")


def test_kueue_admits_the_pods_of_an_attempt_together() -> None:
    world = queued_world()
    metadata = world.pod(1)["metadata"]
    assert (
        metadata["labels"].items()
        >= {
            "kueue.x-k8s.io/queue-name": "team-queue",
            "kueue.x-k8s.io/pod-group-name": "digits-a1",
        }.items()
    )
    assert metadata["annotations"]["kueue.x-k8s.io/pod-group-total-count"] == "2"
    assert metadata["annotations"]["kueue.x-k8s.io/retriable-in-group"] == "false"


def test_time_in_the_queue_is_not_the_jobs() -> None:
    world = queued_world()
    assert scheduled(world)[1] == "Queued"
    assert "team-queue" in scheduled(world)[2]
    world.pass_time(5000)
    assert world.settle().status == world.status
    assert world.phase == "Pending"
    assert "startedAt" not in world.status
    admit(world)
    world.settle()
    assert world.status["startedAt"] == "2027-01-15T09:23:20.000Z"
    world.pass_time(99)
    world.run()
    world.settle()
    assert world.phase == "Running"


def test_startup_deadline_counts_from_the_admission() -> None:
    world = queued_world()
    world.edit(activeDeadlineSeconds=None)
    world.pass_time(5000)
    admit(world)
    world.settle()
    world.pass_time(599)
    world.settle()
    assert world.status["attempt"] == 1
    world.pass_time(1)
    world.settle()
    assert world.status["attempt"] == 2


def test_preempted_group_is_queued_again_as_a_new_one() -> None:
    world = queued_world()
    admit(world)
    world.run()
    world.settle()
    world.edit(activeDeadlineSeconds=None)
    world.pod(0)["status"]["conditions"] = [{"type": "TerminationTarget", "status": "True", "reason": "Preempted"}]
    world.delete_child(("Pod", "digits-a1-w0"))
    world.next_attempt()
    assert world.status["restarts"][0]["cause"] == "Preempted"
    assert world.pod(0)["metadata"]["labels"]["kueue.x-k8s.io/pod-group-name"] == "digits-a2"


def test_queue_without_kueue_is_told_and_the_job_runs() -> None:
    world = World(queue="team-queue").started()
    assert world.phase == "Running"
    assert (world.condition("Degraded") or ("", "", ""))[1] == "KueueMissing"
    assert "kueue.x-k8s.io/queue-name" not in world.pod(0)["metadata"]["labels"]


def test_pod_group_is_made_before_the_pods_and_replaced_with_the_attempt() -> None:
    world = World(workers=3)
    world.capabilities = Capabilities(pod_group=True)
    world.step()
    assert ("PodGroup", "digits-a1") in world.children
    world.settle()
    group = world.children["PodGroup", "digits-a1"]["spec"]
    assert group == {"minMember": 3, "scheduleTimeoutSeconds": 600}
    assert world.pod(0)["metadata"]["labels"]["scheduling.x-k8s.io/pod-group"] == "digits-a1"
    world.run()
    world.settle()
    world.exit(0, 1)
    world.next_attempt()
    assert [name for kind, name in world.children if kind == "PodGroup"] == ["digits-a2"]


def test_elastic_pod_group_needs_only_its_fewest() -> None:
    world = World(workers={"min": 2, "max": 4})
    world.capabilities = Capabilities(pod_group=True)
    world.settle()
    assert world.children["PodGroup", "digits-a1"]["spec"]["minMember"] == 2


def test_half_scheduled_gang_is_released() -> None:
    world = World(workers=3)
    world.settle()
    world.schedule(0, 1)
    world.settle()
    world.pass_time(600)
    world.settle()
    status, reason, message = scheduled(world)
    assert (status, reason) == ("False", "GangNotScheduled")
    assert "2 of 3 workers found a node within 600 s" in message
    assert all("deletionTimestamp" in pod["metadata"] for pod in world.pods.values())
    assert world.phase == "Pending"
    assert "failures" not in world.status
    assert "restarts" not in world.status
    assert world.told().count("GangNotScheduled") == 1
    world.next_attempt()
    assert world.phase == "Running"
    assert len(world.pods) == 3


def test_released_gang_waits_longer_each_time_with_jitter() -> None:
    world = World(workers=2)
    world.settle()
    waits = []
    for _ in range(4):
        world.schedule(0)
        world.pass_time(600)
        world.settle()
        world.end_deleted()
        again = world.settle().again_in
        assert again is not None
        waits.append(again.total_seconds())
        world.pass_time(again.total_seconds() + 0.001)
        world.settle()
    for base, wait in zip((30, 60, 120, 240), waits, strict=True):
        assert 0.5 * base <= wait <= 1.5 * base
    assert waits != [30, 60, 120, 240]


def test_two_jobs_are_not_released_for_the_same_time() -> None:
    waits = set()
    for uid in ("uid-a", "uid-b", "uid-c"):
        world = World(workers=2)
        assert world.parent is not None
        world.parent["metadata"]["uid"] = uid
        world.settle()
        world.schedule(0)
        world.pass_time(600)
        world.settle()
        world.end_deleted()
        waits.add(world.settle().again_in)
    assert len(waits) == 3


def test_scheduled_gang_is_not_released_however_long_its_images_take() -> None:
    world = World(startupDeadlineSeconds=60)
    world.settle()
    world.schedule()
    world.settle()
    world.pass_time(59)
    world.settle()
    assert world.status["attempt"] == 1
    assert world.phase == "Starting"


def test_job_without_any_pod_has_nothing_to_release() -> None:
    world = World()
    world.add_stranger("Service", "digits")
    world.settle()
    world.pass_time(10_000)
    world.settle()
    assert world.status["attempt"] == 1


def test_elastic_gang_goes_on_without_the_workers_that_found_no_node() -> None:
    world = World(workers={"min": 2, "max": 4})
    world.settle()
    world.run(0, 2, 3)
    world.settle()
    assert world.phase == "Running"
    world.pass_time(600)
    world.settle()
    assert sorted(world.pods) == ["digits-a1-w0", "digits-a1-w2", "digits-a1-w3"]
    assert world.status["attempt"] == 1
    assert world.status["workers"] == {"ready": 3, "desired": 3}
    assert (world.condition("Degraded") or ("", "", ""))[1] == "FewerWorkers"


def test_elastic_gang_without_its_first_worker_is_tried_again_with_fewer() -> None:
    world = World(workers={"min": 2, "max": 4})
    world.settle()
    world.schedule(1, 2, 3)
    world.pass_time(600)
    world.settle()
    assert world.status["attempt"] == 2
    world.next_attempt()
    assert len(world.pods) == 3


def test_elastic_gang_below_its_fewest_is_released_and_tried_with_all() -> None:
    world = World(workers={"min": 3, "max": 4})
    world.settle()
    world.schedule(0, 1)
    world.pass_time(600)
    world.settle()
    assert scheduled(world)[1] == "GangNotScheduled"
    world.next_attempt()
    assert len(world.pods) == 4
