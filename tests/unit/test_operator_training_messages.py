"""What goes wrong says so in words that a person understands, once, and is tried again without a hot loop."""

from itertools import pairwise

import pytest

from tests.fakes.training_world import World


def test_image_that_cannot_be_pulled_is_named() -> None:
    world = World()
    world.settle()
    world.schedule()
    world.wait_on(1, "ErrImagePull", "manifest unknown")
    world.settle()
    status, reason, message = world.condition("Running") or ("", "", "")
    assert (status, reason) == ("False", "ImagePullFailed")
    assert message == (
        "worker 1 on node-b cannot pull image registry.test/train:1: check its name, its tag and "
        "imagePullSecrets (ErrImagePull: manifest unknown)"
    )
    assert world.told() == ["ImagePullFailed"]


def test_image_that_is_pulled_again_and_again_writes_the_status_once() -> None:
    world = World()
    world.settle()
    world.schedule()
    world.wait_on(1, "ErrImagePull", "manifest unknown")
    world.settle()
    before = world.status
    world.wait_on(1, "ImagePullBackOff", "Back-off pulling image")
    world.settle()
    assert world.status == before


def test_image_that_cannot_be_pulled_fails_the_job_in_the_end() -> None:
    world = World(restart={"maxRestarts": 1})
    for _ in range(2):
        world.settle()
        world.end_deleted()
        world.settle()
        again = world.plan().again_in
        if not world.pods and again is not None:
            world.pass_time(again.total_seconds())
            world.settle()
        world.schedule()
        world.wait_on(1, "ImagePullBackOff")
        world.settle()
        world.pass_time(600)
        world.settle()
    assert world.phase == "Failed"
    message = (world.condition("Failed") or ("", "", ""))[2]
    assert "cannot pull image registry.test/train:1" in message
    assert world.status["restarts"][0]["cause"] == "ImagePullFailed"


def test_invalid_image_name_fails_at_once() -> None:
    world = World()
    world.settle()
    world.schedule()
    world.wait_on(0, "InvalidImageName", "couldn't parse image reference")
    world.settle()
    assert world.phase == "Failed"
    assert (world.condition("Failed") or ("", "", ""))[1] == "InvalidImageName"


@pytest.mark.parametrize("kind", ["CreateContainerConfigError", "CreateContainerError", "RunContainerError"])
def test_configuration_that_does_not_hold_is_named(kind: str) -> None:
    world = World()
    world.settle()
    world.schedule()
    world.wait_on(0, kind, 'secret "keys" not found')
    world.settle()
    _, reason, message = world.condition("Running") or ("", "", "")
    assert reason == "ConfigurationError"
    assert 'secret "keys" not found' in message


def test_workers_that_never_start_are_restarted_after_the_startup_deadline() -> None:
    world = World(startupDeadlineSeconds=50)
    world.settle()
    world.schedule()
    world.run(0)
    world.settle()
    again = world.plan().again_in
    assert again is not None
    assert again.total_seconds() <= 50
    world.pass_time(50)
    world.settle()
    assert world.status["restarts"][0]["cause"] == "StartupDeadlineExceeded"


def test_what_the_scheduler_says_is_passed_on() -> None:
    world = World()
    world.settle()
    said = "0/4 nodes are available: 4 Insufficient nvidia.com/gpu."
    world.pod(1)["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said}
    ]
    world.schedule(0)
    world.settle()
    status, reason, message = world.condition("Scheduled") or ("", "", "")
    assert (status, reason) == ("False", "Unschedulable")
    assert message == f"1 of 2 workers have a node; worker 1: {said}"
    assert world.told() == ["Unschedulable"]


def test_exceeded_quota_is_told_and_tried_again_with_growing_delay() -> None:
    world = World()
    world.refuses = lambda child: "exceeded quota: team, used: pods=10" if child["kind"] == "Pod" else None
    tries = []
    for _ in range(400):
        plan = world.step()
        if [child for child in plan.creates if child["kind"] == "Pod"]:
            tries.append(world.now)
        world.pass_time(2)
    status, reason, message = world.condition("Scheduled") or ("", "", "")
    assert (status, reason) == ("False", "QuotaExceeded")
    assert "exceeded quota: team, used: pods=10" in message
    assert (world.condition("Accepted") or ("",))[0] == "True"
    waits = [later - earlier for earlier, later in pairwise(tries)][1:]
    assert waits == sorted(waits)
    assert max(waits) > 30 * min(waits)
    assert len(tries) < 10
    assert world.told() == ["QuotaExceeded"]
    world.refuses = lambda child: None
    world.pass_time(300)
    world.settle()
    assert len(world.pods) == 2
    world.run()
    world.settle()
    assert (world.condition("Scheduled") or ("",))[0] == "True"


def test_delay_never_exceeds_five_minutes() -> None:
    world = World()
    world.refuses = lambda child: "exceeded quota" if child["kind"] == "Pod" else None
    world.settle()
    world.pass_time(100_000)
    world.settle()
    again = world.settle().again_in
    assert again is not None
    assert again.total_seconds() == 300


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ('pods is forbidden: User "x" cannot create resource', "Forbidden"),
        ('violates PodSecurity "restricted:latest": runAsNonRoot', "PodSecurityViolated"),
        ("admission webhook denied the request: no", "Rejected"),
    ],
)
def test_refusals_stand_in_the_condition_accepted(said: str, reason: str) -> None:
    world = World()
    world.refuses = lambda child: said if child["kind"] == "Pod" else None
    world.settle()
    status, why, message = world.condition("Accepted") or ("", "", "")
    assert (status, why) == ("False", reason)
    assert said in message


def test_a_hundred_refusals_are_told_in_a_few_words() -> None:
    world = World(workers=100)
    world.refuses = lambda child: "exceeded quota" if child["kind"] == "Pod" else None
    world.settle()
    assert "and 95 more" in (world.condition("Scheduled") or ("", "", ""))[2]


def test_half_refused_gang_gives_back_what_it_got() -> None:
    world = World(workers=3)
    world.refuses = lambda child: "exceeded quota" if child["metadata"]["name"].endswith("w2") else None
    world.settle()
    assert len(world.pods) == 2
    world.pass_time(600)
    world.settle()
    assert (world.condition("Scheduled") or ("", "", ""))[1] == "GangNotScheduled"


@pytest.mark.parametrize(
    ("kind", "name"), [("Service", "digits"), ("ConfigMap", "digits-env"), ("Pod", "digits-a1-w1")]
)
@pytest.mark.parametrize("owner", [None, "uid-of-an-earlier-life"])
@pytest.mark.parametrize("labelled", [True, False])
def test_name_that_somebody_else_holds_is_told_and_left_alone(
    kind: str, name: str, owner: str | None, labelled: bool
) -> None:
    world = World()
    world.add_stranger(kind, name, owner, labelled=labelled)
    before = str(world.children[kind, name])
    plan = world.settle()
    status, reason, message = world.condition("Accepted") or ("", "", "")
    assert (status, reason) == ("False", "NameTaken")
    assert name in message
    assert str(world.children[kind, name]) == before
    assert plan.again_in is not None
    assert 0 < plan.again_in.total_seconds() <= 60
    del world.children[kind, name]
    world.pass_time(plan.again_in.total_seconds() + 0.001)
    world.settle()
    assert len(world.pods) == 2
    assert (world.condition("Accepted") or ("",))[0] == "True"


def test_conditions_change_their_time_only_with_their_status() -> None:
    world = World()
    world.settle()
    world.pass_time(30)
    world.schedule(0)
    world.settle()
    scheduled = next(entry for entry in world.status["conditions"] if entry["type"] == "Scheduled")
    assert scheduled["reason"] == "WaitingForScheduler"
    assert scheduled["lastTransitionTime"] == "2027-01-15T08:00:00Z"


def test_a_quiet_job_has_nothing_to_say() -> None:
    world = World().started()
    said = list(world.notes)
    for _ in range(50):
        world.pass_time(100)
        world.step()
    assert world.notes == said
